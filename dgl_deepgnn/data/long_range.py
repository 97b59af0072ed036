"""A task only depth can solve: is there a marked node within k hops?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csgraph, csr_matrix

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.refinement import depth_bounds
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import deal_graphs, deal_parts, undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import as_graph
from dgl_deepgnn.options import Count, Seed

__all__ = ["hops_to_nearest", "long_range", "random_tree"]

CHAIN = (8, 24)  # shortest and longest chain between two junctions
MAX_NODES = 10**8  # of all trees together


@register_dataset(
    "long-range", safe=True, values={"k": 100, "graphs": 100, "num_nodes": 2000, "seed": None}
)
def long_range(
    k: Count = 20, graphs: Count = 40, num_nodes: Count = 500, seed: Seed = 0
) -> TaskData:
    """Random trees of large diameter; a node is positive if a marked node is within `k` hops.

    The trees are chains of 8 to 24 nodes joined at junctions of degree three (diameter about 200
    with 500 nodes). Marks come in patches, all nodes within ``0.45 k`` hops of a random centre;
    patches are added until at least 45 % of a tree's nodes are positive, so that about half of
    all nodes are. Features: marked or not, and a constant. Edges go both ways, with self-loops.
    Trees are dealt out: 60 % train, 20 % val, 20 % test, so that the task is inductive.

    ``info["bounds"]`` maps numbers of layers, as strings, to the best accuracy on the test trees
    that any message-passing network of so many layers can have; see `depth_bounds`. At 4 layers
    and ``k = 20`` it is about 0.74, at `k` layers it is 1.

    Parameters
    ----------
    k : int, optional
        Reach in hops.
    graphs : int, optional
        Number of trees, at least 5.
    num_nodes : int, optional
        Nodes of each tree, more than ``4 k``; of all trees together at most 100,000,000.
    seed : int, optional
        Seed of trees and marks.

    Raises
    ------
    DGLError
        If an option is out of range.
    """
    if k < 1 or graphs < 5 or num_nodes <= 4 * k:
        raise DGLError(
            f"long-range: k={k}, graphs={graphs}, num_nodes={num_nodes}; "
            "needed: k >= 1, graphs >= 5 and num_nodes > 4 * k."
        )
    if graphs * num_nodes > MAX_NODES:
        raise DGLError(
            f"long-range: graphs={graphs} times num_nodes={num_nodes} is more than {MAX_NODES:,}."
        )
    rng = np.random.default_rng(seed)
    trees, marks, positive = [], [], []
    for _ in range(graphs):
        tree = random_tree(num_nodes, rng)
        marked = np.zeros(num_nodes, dtype=bool)
        reached = marked
        while reached.mean() < 0.45:
            marked |= hops_to_nearest(tree, [int(rng.integers(num_nodes))]) <= int(0.45 * k)
            reached = hops_to_nearest(tree, np.nonzero(marked)[0]) <= k
        trees.append(tree)
        marks.append(marked)
        positive.append(reached)
    parts = deal_parts(graphs)
    test = slice(parts.index("test"), None)
    bounds = depth_bounds(trees[test], marks[test], positive[test], k)

    made = []
    for tree, marked in zip(trees, marks, strict=True):
        graph = undirected(as_graph(tree))
        columns = np.column_stack([marked, np.ones(num_nodes)]).astype(np.float32)
        graph.ndata["feat"] = torch.from_numpy(columns)
        made.append(graph)
    labels = torch.from_numpy(np.concatenate(positive).astype(np.int64))
    info = {
        "citation": "generated here; the bound rests on Xu et al., How Powerful are Graph Neural "
        "Networks?, ICLR 2019",
        "licence": "generated",
        "description": f"{graphs} random trees; positive: a marked node within {k} hops",
        "feature_names": ["marked", "constant"],
        "positive_share": float(labels.float().mean()),
        "bounds": {str(layers): bound for layers, bound in enumerate(bounds)},
    }
    splits = [deal_graphs([num_nodes] * graphs, parts)]
    return TaskData("long-range", made, "node", "multiclass", labels, splits, 2, info)


def random_tree(num_nodes: int, rng: np.random.Generator) -> csr_matrix:
    """Chains of random length joined at random free ends; nodes have at most three neighbours.

    Returns
    -------
    csr_matrix, shape (num_nodes, num_nodes)
        Symmetric adjacency.
    """
    parents = np.zeros(num_nodes, dtype=np.int64)
    free = [0, 0, 0]
    made = 1
    while made < num_nodes:
        end = free.pop(int(rng.integers(len(free))))
        length = min(int(rng.integers(CHAIN[0], CHAIN[1] + 1)), num_nodes - made)
        chain = np.arange(made, made + length)
        parents[chain] = np.concatenate([[end], chain[:-1]])
        made += length
        free += [made - 1, made - 1]
    children = np.arange(1, num_nodes)
    edges = (np.ones(num_nodes - 1), (children, parents[1:]))
    half = csr_matrix(edges, shape=(num_nodes, num_nodes))
    return (half + half.T).tocsr()


def hops_to_nearest(adjacency: csr_matrix, sources: Sequence[int] | NDArray[np.int64]) -> NDArray:
    """Hops from each node to the nearest of `sources`.

    Examples
    --------
    >>> path = csr_matrix(np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1))
    >>> hops_to_nearest(path, [0, 3])
    array([0., 1., 1., 0.])
    """
    return csgraph.dijkstra(adjacency, unweighted=True, indices=sources, min_only=True)
