from __future__ import annotations

import networkx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from dgl_deepgnn.data.road_network import eccentricities, road_network

SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 7), SEEDS)
def test_a_network_is_of_streets_between_junctions(side: int, seed: int) -> None:
    lengths = road_network(side, np.random.default_rng(seed))
    assert (lengths != lengths.T).nnz == 0
    network = networkx.from_scipy_sparse_array(lengths)
    assert networkx.is_connected(network) and networkx.check_planarity(network)[0]
    assert all(degree == 2 for node, degree in network.degree if node >= side**2)
    # Streets are what is left between junctions: four to eight segments of one length.
    network.remove_nodes_from(range(side**2))
    for street in networkx.connected_components(network):
        segments = lengths[sorted(street)].data
        assert 3 <= len(street) <= 7
        assert set(segments.tolist()) < {1, 2, 3} and len(set(segments)) == 1
    streets = networkx.number_connected_components(network)
    assert side**2 - 1 <= streets <= 2 * side * (side - 1)


def test_junctions_are_joined_to_those_beside_them() -> None:
    side = 5
    network = networkx.from_scipy_sparse_array(road_network(side, np.random.default_rng(0)))
    for street in networkx.connected_components(network.subgraph(range(side**2, len(network)))):
        ends = {other for node in street for other in network[node]} - street
        (row, column), (down, right) = (divmod(end, side) for end in sorted(ends))
        assert (down - row, right - column) in {(0, 1), (1, 0)}


def test_its_diameter_is_large() -> None:
    network = networkx.from_scipy_sparse_array(road_network(10, np.random.default_rng(0)))
    assert networkx.diameter(network) > 100


def by_brute_force(lengths: csr_matrix, hops: int) -> list[int]:
    """Walk every simple path of at most `hops` edges."""
    network = networkx.from_scipy_sparse_array(lengths)
    found = []
    for start in network:
        nearest = {start: 0}
        paths = [([start], 0)]
        for _ in range(hops):
            paths = [
                ([*path, other], length + int(network[path[-1]][other]["weight"]))
                for path, length in paths
                for other in network[path[-1]]
                if other not in path
            ]
            for path, length in paths:
                nearest[path[-1]] = min(length, nearest.get(path[-1], length))
        found.append(max(nearest.values()))
    return found


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 4), st.integers(1, 12), SEEDS)
def test_eccentricities_of_road_networks(side: int, hops: int, seed: int) -> None:
    lengths = road_network(side, np.random.default_rng(seed))
    assert eccentricities(lengths, hops).tolist() == by_brute_force(lengths, hops)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 8), st.integers(1, 6), SEEDS)
def test_eccentricities_of_any_graph(nodes: int, hops: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    half = np.triu(rng.integers(1, 20, (nodes, nodes)) * (rng.random((nodes, nodes)) < 0.4), 1)
    lengths = csr_matrix(half + half.T)
    assert eccentricities(lengths, hops).tolist() == by_brute_force(lengths, hops)


def test_with_enough_hops_they_are_those_of_networkx() -> None:
    lengths = road_network(4, np.random.default_rng(1))
    network = networkx.from_scipy_sparse_array(lengths)
    expected = networkx.eccentricity(network, weight="weight")
    found = eccentricities(lengths, len(network))
    assert found.tolist() == [expected[node] for node in range(len(network))]


def test_more_nodes_than_are_computed_together(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = road_network(4, np.random.default_rng(2))
    whole = eccentricities(lengths, 6)
    monkeypatch.setattr("dgl_deepgnn.data.road_network.COLUMNS", 7)
    assert eccentricities(lengths, 6).tolist() == whole.tolist()
