"""Synthetic road networks: a grid of junctions, some streets gone, the others bent and long."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csgraph, csr_matrix

__all__ = ["eccentricities", "road_network"]

KEPT = 0.5  # of the streets without which the network is connected
SEGMENTS = (4, 8)  # fewest and most of a street
LENGTHS = (1, 3)  # shortest and longest segment

UNREACHED = np.iinfo(np.int32).max // 2
COLUMNS = 256
"""Of nodes whose distances are computed together, to bound the memory."""


def road_network(side: int, rng: np.random.Generator) -> csr_matrix:
    """A connected planar network of streets between `side` by `side` junctions.

    A random spanning tree of the grid stays, and of the other streets half. Each street is a
    chain of 4 to 8 segments of one length, 1, 2 or 3.

    Returns
    -------
    csr_matrix, shape (num_nodes, num_nodes)
        Lengths of the segments, symmetric, whole numbers; the first ``side**2`` nodes are the
        junctions.

    Examples
    --------
    >>> network = road_network(3, np.random.default_rng(0))
    >>> int(np.diff(network.indptr).max()) <= 4, set(network.data.tolist()) <= {1, 2, 3}
    (True, True)
    """
    junctions = np.arange(side * side).reshape(side, side)
    starts = np.concatenate([junctions[:, :-1].ravel(), junctions[:-1].ravel()])
    ends = np.concatenate([junctions[:, 1:].ravel(), junctions[1:].ravel()])
    streets = len(starts)
    ranks = coo_matrix((rng.permutation(streets) + 1, (starts, ends)), shape=(side**2, side**2))
    tree = csgraph.minimum_spanning_tree(ranks.tocsr()).data.astype(int)
    kept = (rng.random(streets) < KEPT) | np.isin(ranks.data, tree)

    source, target, length = [], [], []
    made = side * side
    for start, end in zip(starts[kept], ends[kept], strict=True):
        segments = int(rng.integers(SEGMENTS[0], SEGMENTS[1] + 1))
        inner = np.arange(made, made + segments - 1)
        made += segments - 1
        source.append(np.concatenate([[start], inner]))
        target.append(np.concatenate([inner, [end]]))
        length.append(np.full(segments, rng.integers(LENGTHS[0], LENGTHS[1] + 1)))
    edges = (np.concatenate(length), (np.concatenate(source), np.concatenate(target)))
    half = csr_matrix(edges, shape=(made, made))
    return (half + half.T).tocsr()


def eccentricities(lengths: csr_matrix, hops: int) -> NDArray[np.int32]:
    """Of each node, the distance of the farthest node within `hops` hops.

    The distance is the length of the shortest path of at most `hops` edges: what is farther away
    than `hops` hops has no part in it.

    Parameters
    ----------
    lengths : csr_matrix, shape (nodes, nodes)
        Positive whole numbers, symmetric.
    hops : int
        Most edges of a path.

    Returns
    -------
    ndarray of int32, shape (nodes,)

    Examples
    --------
    >>> path = csr_matrix([[0, 5, 0], [5, 0, 2], [0, 2, 0]])
    >>> eccentricities(path, 1).tolist(), eccentricities(path, 2).tolist()
    ([5, 5, 2], [7, 5, 7])
    """
    nodes = lengths.shape[0]
    degrees = np.diff(lengths.indptr)
    # Neighbours side by side; who has fewer than the most is its own, too, at an endless distance.
    slots = np.arange(degrees.max(initial=0)) < degrees[:, None]
    neighbors = np.where(slots, 0, np.arange(nodes)[:, None])
    neighbors[slots] = lengths.indices
    steps = np.full(slots.shape, UNREACHED, dtype=np.int32)
    steps[slots] = lengths.data
    found = np.zeros(nodes, dtype=np.int32)
    for start in range(0, nodes, COLUMNS):
        chosen = np.arange(start, min(start + COLUMNS, nodes))
        # Bellman and Ford: after h rounds, shortest paths of at most h edges.
        distance = np.full((nodes, len(chosen)), UNREACHED, dtype=np.int32)
        distance[chosen, chosen - start] = 0
        for _ in range(hops):
            nearer = distance.copy()
            for near, step in zip(neighbors.T, steps.T, strict=True):
                np.minimum(nearer, distance[near] + step[:, None], out=nearer)
            distance = nearer
        found[chosen] = np.where(distance < UNREACHED, distance, 0).max(axis=0)
    return found
