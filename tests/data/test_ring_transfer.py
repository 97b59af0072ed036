from __future__ import annotations

from typing import Any

import networkx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError

SIZES = st.integers(4, 24), st.integers(2, 6), st.integers(0, 7), st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(*SIZES)
def test_the_class_is_opposite_to_the_target(n: int, classes: int, more: int, seed: int) -> None:
    graphs = 5 * classes + more
    task = load_data("ring-transfer", num_nodes=n, graphs=graphs, num_classes=classes, seed=seed)
    assert task.num_outputs == task.in_feats == classes
    assert len(task.graphs) == graphs and task.is_inductive()
    in_a_part = torch.stack(list(task.splits[0].values())).any(0).split(task.items_per_graph)
    labels = task.labels.split(task.items_per_graph)
    for graph, chosen, label in zip(task.graphs, in_a_part, labels, strict=True):
        ends = (end.tolist() for end in graph.edges())
        ring = networkx.Graph(list(zip(*ends, strict=True)))
        ring.remove_edges_from(list(networkx.selfloop_edges(ring)))
        assert len(ring) == n and set(dict(ring.degree).values()) == {2}
        assert networkx.is_connected(ring)
        (target,) = chosen.nonzero().flatten().tolist()
        ((source, said),) = graph.ndata["feat"].nonzero().tolist()
        assert networkx.shortest_path_length(ring, source, target) == n // 2
        assert graph.ndata["feat"][source, said] == 1
        assert label[target] == said


@settings(max_examples=25, deadline=None)
@given(*SIZES)
def test_below_half_the_ring_a_network_guesses(n: int, classes: int, more: int, seed: int) -> None:
    graphs = 5 * classes + more
    task = load_data("ring-transfer", num_nodes=n, graphs=graphs, num_classes=classes, seed=seed)
    for masks in task.splits[0].values():
        counts = task.labels[masks].bincount(minlength=classes)
        assert int(counts.max()) - int(counts.min()) <= 1
    tested = task.labels[task.splits[0]["test"]]
    most = int(tested.bincount().max()) / len(tested)
    bounds = list(task.info["bounds"].values())
    assert bounds == pytest.approx([most] * (n // 2) + [1])


@pytest.mark.parametrize(("layers", "told_apart"), [(7, False), (8, True)])
def test_a_network_sees_the_class_at_half_the_ring(layers: int, told_apart: bool) -> None:
    task = load_data("ring-transfer", num_nodes=16)
    seen = set()
    for graph in task.graphs:
        adjacency = torch.zeros(16, 16)
        adjacency[graph.edges()] = 1
        state = torch.linalg.matrix_power(adjacency, layers) @ graph.ndata["feat"]
        seen.add(tuple(state[0].tolist()))
    assert len(seen) == (5 if told_apart else 1)


def test_options() -> None:
    with_loops, without = (
        load_data("ring-transfer", self_loops=loops).graphs[0].num_edges()
        for loops in (True, False)
    )
    assert with_loops == 3 * 64 and without == 2 * 64
    assert load_data("ring-transfer", num_nodes=128).info["bounds"]["63"] == pytest.approx(0.2)
    one, other = (load_data("ring-transfer", seed=seed).fingerprint() for seed in (0, 1))
    assert one != other


@pytest.mark.parametrize(
    "options",
    [{"num_nodes": 3}, {"num_nodes": 129}, {"num_classes": 1}, {"graphs": 24}],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(DGLError, match=r"ring-transfer: num_nodes=.*needed: num_nodes from 4"):
        load_data("ring-transfer", **options)


def test_rings_that_are_too_many() -> None:
    with pytest.raises(DGLError, match="more than 1,000,000"):
        load_data("ring-transfer", num_nodes=128, graphs=10_000)
