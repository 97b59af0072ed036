"""Bounds of accuracy by depth, held to unfoldings of the graph and to a network."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from dgl_deepgnn.data.refinement import depth_bounds

PATH = csr_matrix(np.diag(np.ones(6), 1) + np.diag(np.ones(6), -1))


def test_bound_by_hand() -> None:
    marks = np.array([True] + [False] * 6)
    near = np.arange(7) <= 2
    # 0 layers: the mark is known, 4 of the other 6 are negative. 1 layer: node 1 and node 6
    # stand out as well, node 2 looks like 3, 4 and 5.
    assert depth_bounds([PATH], [marks], [near], 2) == pytest.approx([5 / 7, 6 / 7, 1])


def test_of_three_classes_the_most_frequent_counts() -> None:
    classes = np.array([7, 7, 3, 3, 3, 0, 7])
    same = np.zeros(7, dtype=int)
    # One layer tells the ends, which are both 7, from the middle.
    assert depth_bounds([PATH], [same], [classes], 1) == pytest.approx([3 / 7, 5 / 7])


def test_only_what_is_scored_counts() -> None:
    classes = np.arange(7)
    scored = classes < 2
    bounds = depth_bounds([PATH], [np.zeros(7, dtype=int)], [classes], 1, [scored])
    assert bounds == [0.5, 1]


def random_graphs(seed: int) -> tuple[list[csr_matrix], list[NDArray], list[NDArray], list]:
    rng = np.random.default_rng(seed)
    graphs = []
    for nodes in (5, 7):
        half = np.triu(rng.random((nodes, nodes)) < 0.4, 1)
        graphs.append(csr_matrix((half | half.T).astype(float)))
    sizes = [graph.shape[0] for graph in graphs]
    colours = [rng.integers(2, size=size) for size in sizes]
    classes = [rng.integers(3, size=size) for size in sizes]
    scored = [rng.random(size) < 0.7 for size in sizes]
    scored[0][0] = True
    return graphs, colours, classes, scored


def unfolding(dense: NDArray, colours: NDArray, node: int, layers: int) -> tuple:
    """The tree of all walks of so many steps, which is all that a network sees of a node."""
    if layers == 0:
        return (int(colours[node]),)
    mine = unfolding(dense, colours, node, 0)
    near = [unfolding(dense, colours, other, layers - 1) for other in np.flatnonzero(dense[node])]
    return (mine, *sorted(near, key=repr))


def best_readout(seen: list, classes: list[int]) -> float:
    groups: dict[object, list[int]] = {}
    for what, label in zip(seen, classes, strict=True):
        groups.setdefault(what, []).append(label)
    right = sum(max(Counter(group).values()) for group in groups.values())
    return right / len(classes)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_bounds_are_those_of_unfoldings(seed: int) -> None:
    graphs, colours, classes, scored = random_graphs(seed)
    bounds = depth_bounds(graphs, colours, classes, 3, scored)
    assert bounds == sorted(bounds)
    labels = np.concatenate(classes)[np.concatenate(scored)].tolist()
    for layers, bound in enumerate(bounds):
        seen = [
            unfolding(graph.toarray(), colour, node, layers)
            for graph, colour, counts in zip(graphs, colours, scored, strict=True)
            for node in np.flatnonzero(counts)
        ]
        assert best_readout(seen, labels) == pytest.approx(bound)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_no_network_beats_the_bound(seed: int) -> None:
    """Sums through random weights, as distinguishing as they come, and the best read-out."""
    graphs, colours, classes, _ = random_graphs(seed)
    bounds = depth_bounds(graphs, colours, classes, 3)
    generator = torch.Generator().manual_seed(seed)
    adjacency = torch.block_diag(*(torch.from_numpy(graph.toarray()) for graph in graphs))
    state = torch.eye(2, dtype=torch.double)[np.concatenate(colours)]
    for bound in bounds:
        seen = [tuple(row) for row in state.round(decimals=6).tolist()]
        assert best_readout(seen, np.concatenate(classes).tolist()) == pytest.approx(bound)
        weights = torch.randn(2 * state.shape[1], 16, generator=generator, dtype=torch.double)
        state = torch.tanh(torch.cat([state, adjacency @ state], dim=1) @ weights / 4)
