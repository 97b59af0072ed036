from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch

from dgl_deepgnn.data import load_data
from dgl_deepgnn.data.long_range import hops_to_nearest, random_tree
from dgl_deepgnn.errors import DGLError


@pytest.fixture(scope="module")
def task():
    return load_data("long-range")


def as_networkx(graph) -> networkx.Graph:
    src, dst = graph.edges()
    made = networkx.Graph(list(zip(src.tolist(), dst.tolist(), strict=True)))
    made.remove_edges_from(networkx.selfloop_edges(made))
    return made


def test_labels_against_networkx(task):
    labels = task.labels.split(task.items_per_graph)
    for graph, label in list(zip(task.graphs, labels, strict=True))[::10]:
        tree = as_networkx(graph)
        assert networkx.is_tree(tree)
        assert networkx.diameter(tree) > 80
        marked = graph.ndata["feat"][:, 0].nonzero().flatten().tolist()
        near = networkx.multi_source_dijkstra_path_length(tree, set(marked), cutoff=20)
        assert sorted(near) == label.nonzero().flatten().tolist()


def test_about_half_are_positive_and_four_layers_are_not_enough(task):
    assert 0.45 < task.info["positive_share"] < 0.6
    assert task.is_inductive()
    bounds = [task.info["bounds"][str(layers)] for layers in range(21)]
    assert bounds == sorted(bounds)
    assert bounds[4] == pytest.approx(0.74, abs=0.02)
    assert bounds[19] < 1
    assert bounds[20] == 1


def message_passing(graph, layers: int, seed: int) -> torch.Tensor:
    """Outputs of a random network with sum aggregation, as distinguishing as they come."""
    generator = torch.Generator().manual_seed(seed)
    state = graph.ndata["feat"].double()
    adjacency = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    adjacency[graph.edges()] = 1
    for _ in range(layers):
        weights = torch.randn(2 * state.shape[1], 16, generator=generator, dtype=torch.double)
        state = torch.tanh(torch.cat([state, adjacency @ state], dim=1) @ weights)
    return state


def test_no_network_beats_the_bound():
    """Give a random network the best possible read-out: it stays at or below the bound."""
    task = load_data("long-range", k=6, num_nodes=120, graphs=10)
    scored = task.splits[0]["test"]
    for layers in (0, 1, 2, 3):
        states = torch.cat([message_passing(graph, layers, 0) for graph in task.graphs])[scored]
        labels = task.labels[scored]
        groups: dict[tuple, list[int]] = {}
        for row, label in zip(states.round(decimals=6).tolist(), labels.tolist(), strict=True):
            groups.setdefault(tuple(row), []).append(label)
        right = sum(max(sum(g), len(g) - sum(g)) for g in groups.values())
        assert right / len(labels) == pytest.approx(task.info["bounds"][str(layers)])


def test_trees_and_distances():
    tree = random_tree(200, np.random.default_rng(0))
    graph = networkx.from_scipy_sparse_array(tree)
    assert networkx.is_tree(graph)
    assert max(dict(graph.degree).values()) == 3
    expected = networkx.multi_source_dijkstra_path_length(graph, {3, 50})
    assert hops_to_nearest(tree, [3, 50]).tolist() == [expected[i] for i in range(200)]


@pytest.mark.parametrize("options", [{"k": 0}, {"graphs": 4}, {"num_nodes": 80}])
def test_options_out_of_range(options):
    with pytest.raises(DGLError, match="long-range: k="):
        load_data("long-range", **options)
