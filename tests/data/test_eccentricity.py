from __future__ import annotations

from typing import Any

import networkx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.data.refinement import depth_bounds
from dgl_deepgnn.data.road_network import eccentricities, road_network
from dgl_deepgnn.errors import DGLError


@pytest.fixture(scope="module")
def task() -> TaskData:
    return load_data("eccentricity")


def as_networkx(graph: Any) -> networkx.Graph:
    ends = (end.tolist() for end in graph.edges())
    made = networkx.Graph(list(zip(*ends, strict=True)))
    made.remove_edges_from(list(networkx.selfloop_edges(made)))
    return made


def test_features_are_degree_and_mean_length(task: TaskData) -> None:
    rng = np.random.default_rng(0)
    for graph in task.graphs[:3]:
        lengths = road_network(10, rng)
        degrees = np.array([len(lengths[node].indices) for node in range(lengths.shape[0])])
        means = np.array([lengths[node].data.mean() for node in range(lengths.shape[0])])
        feat = graph.ndata["feat"].numpy()
        assert feat[:, 0] == pytest.approx(means)
        assert (feat[:, 1:].argmax(1) + 1 == degrees).all() and (feat[:, 1:].sum(1) == 1).all()
        assert as_networkx(graph).edges == networkx.from_scipy_sparse_array(lengths).edges


def test_classes_are_quantiles_of_the_training_networks(task: TaskData) -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate([eccentricities(road_network(10, rng), 16) for _ in task.graphs])
    bounds = task.info["class_bounds"]
    assert task.labels.tolist() == [sum(value >= bound for bound in bounds) for value in values]
    # About equal in size where they were made: off by no more than the nodes of one value.
    train = task.splits[0]["train"].numpy()
    commonest = np.bincount(values[train]).max()
    for label, bound in enumerate(bounds, start=1):
        below = (values[train] < bound).sum()
        assert below <= train.sum() * label / 10 <= below + commonest


def test_they_are_seen_at_last_and_not_at_first(task: TaskData) -> None:
    assert task.is_inductive()
    bounds = [task.info["bounds"][str(layers)] for layers in range(17)]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(0.26, abs=0.01)
    assert bounds[4] == pytest.approx(0.65, abs=0.01)
    assert bounds[6] == pytest.approx(0.93, abs=0.01)
    assert bounds[10] < 1 == pytest.approx(bounds[16], abs=1e-3)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_bounds_are_those_of_the_features(hops: int, seed: int) -> None:
    """Colours are equal where all features are: counted anew, of the graphs that come out."""
    task = load_data("eccentricity", hops=hops, graphs=5, side=3, num_classes=2, seed=seed)
    labels = task.labels.split(task.items_per_graph)
    graph = task.graphs[-1]
    rows = graph.ndata["feat"].unique(dim=0, return_inverse=True)[1].numpy()
    adjacency = networkx.to_scipy_sparse_array(
        as_networkx(graph), nodelist=range(graph.num_nodes()), format="csr"
    )
    expected = depth_bounds([adjacency], [rows], [labels[-1].numpy()], hops)
    assert list(task.info["bounds"].values()) == pytest.approx(expected)


def test_labels_depend_on_the_last_hop() -> None:
    """Two chains that agree within 15 hops of their first node, and not within 16."""
    chains = np.stack([np.diag(np.ones(16, dtype=int), 1)] * 2)
    chains[1, 15, 16] = 3
    one, other = (csr_matrix(half + half.T) for half in chains)
    assert [eccentricities(chain, 15)[0] for chain in (one, other)] == [15, 15]
    assert [eccentricities(chain, 16)[0] for chain in (one, other)] == [16, 18]


@pytest.mark.parametrize("options", [{"hops": 0}, {"graphs": 4}, {"side": 2}, {"num_classes": 1}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(DGLError, match=r"eccentricity: hops=.*needed: hops >= 1"):
        load_data("eccentricity", **options)


def test_more_classes_than_eccentricities() -> None:
    with pytest.raises(DGLError, match=r"num_classes=50 is too many.*Take fewer"):
        load_data("eccentricity", num_classes=50)


def test_junctions_that_are_too_many() -> None:
    with pytest.raises(DGLError, match="more than 100,000 junctions"):
        load_data("eccentricity", side=100, graphs=11)


def test_another_seed_is_another_task() -> None:
    small = {"hops": 4, "graphs": 5, "side": 3, "num_classes": 2}
    one, same, other = (load_data("eccentricity", seed=seed, **small) for seed in (0, 0, 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert all(torch.isfinite(graph.ndata["feat"]).all() for graph in other.graphs)
