"""A task only depth can solve: what does the node on the other side of the ring say?"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from annotated_types import Le
from scipy.sparse import csr_matrix

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.refinement import depth_bounds
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import deal_graphs, deal_parts, undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import as_graph
from dgl_deepgnn.options import Count, Seed

__all__ = ["ring", "ring_transfer"]

MAX_NODES = 128  # of a ring
MAX_ALL_NODES = 10**6  # of all rings together


@register_dataset(
    "ring-transfer",
    safe=True,
    values={
        "num_nodes": MAX_NODES,
        "graphs": 1000,
        "num_classes": 100,
        "self_loops": None,
        "seed": None,
    },
)
def ring_transfer(
    num_nodes: Count = 64,
    graphs: Count = 25,
    num_classes: Annotated[int, Le(100)] = 5,
    self_loops: bool = True,
    seed: Seed = 0,
) -> TaskData:
    """Rings with a target and, opposite to it, a source, whose class is the target's label.

    After Bodnar et al., arXiv:2106.12575, and Di Giovanni et al., arXiv:2302.02941. Features: the
    class of the source as a one-hot vector, and zero at all other nodes. Edges go both ways. The
    target of each ring, its node 0, is in a part, its other nodes are in none. Rings are dealt
    out: 60 % train, 20 % val, 20 % test; every part has each class as often as every other, up to
    one.

    Rings of one class are equal, as in those papers. What is put to the test is whether a signal
    gets through ``num_nodes // 2`` layers, and learns to, not whether anything generalizes.

    ``info["bounds"]`` maps numbers of layers, as strings, to the best accuracy on the test targets
    that any message-passing network of so many layers can have; see `depth_bounds`. It is 1 at
    ``num_nodes // 2`` layers, and below that the share of the most frequent class: 0.2.

    Parameters
    ----------
    num_nodes : int, optional
        Nodes of each ring, 4 to 128.
    graphs : int, optional
        Number of rings, at least ``5 num_classes``, so that every part has each class; of all
        rings together at most 1,000,000 nodes.
    num_classes : int, optional
        At least 2.
    self_loops : bool, optional
        Whether each node is its own neighbour, too. Without, a signal gets on faster.
    seed : int, optional
        Seed of the order of the classes.

    Raises
    ------
    DGLError
        If an option is out of range.

    Examples
    --------
    >>> bounds = ring_transfer(num_nodes=16).info["bounds"]
    >>> bounds["7"], bounds["8"]
    (0.2, 1.0)
    """
    if not 4 <= num_nodes <= MAX_NODES or num_classes < 2 or graphs < 5 * num_classes:
        raise DGLError(
            f"ring-transfer: num_nodes={num_nodes}, graphs={graphs}, num_classes={num_classes}; "
            f"needed: num_nodes from 4 to {MAX_NODES}, num_classes >= 2 and "
            "graphs >= 5 * num_classes."
        )
    if graphs * num_nodes > MAX_ALL_NODES:
        raise DGLError(
            f"ring-transfer: graphs={graphs} times num_nodes={num_nodes} is more than "
            f"{MAX_ALL_NODES:,}."
        )
    rng = np.random.default_rng(seed)
    parts = deal_parts(graphs)
    sizes = [parts.count(part) for part in ("train", "val", "test")]
    classes = np.concatenate([rng.permutation(size) % num_classes for size in sizes])

    target, source = 0, num_nodes // 2
    at_target = np.arange(num_nodes) == target
    adjacency = ring(num_nodes)
    made = []
    for label in classes:
        said = np.zeros((num_nodes, num_classes), dtype=np.float32)
        said[source, label] = 1
        graph = undirected(as_graph(adjacency), self_loops=self_loops)
        graph.ndata["feat"] = torch.from_numpy(said)
        made.append(graph)

    tested = classes[parts.index("test") :]
    bounds = depth_bounds(
        [adjacency] * len(tested),
        [np.where(np.arange(num_nodes) == source, label, num_classes) for label in tested],
        [np.full(num_nodes, label) for label in tested],
        source,
        [at_target] * len(tested),
    )
    info = {
        "citation": "generated here, after Bodnar et al., Weisfeiler and Lehman Go Cellular: CW "
        "Networks, NeurIPS 2021, and Di Giovanni et al., On Over-Squashing in Message Passing "
        "Neural Networks, ICML 2023; the bound rests on Xu et al., How Powerful are Graph Neural "
        "Networks?, ICLR 2019",
        "licence": "generated",
        "description": f"{graphs} rings of {num_nodes} nodes; label: the class of the source, "
        f"{source} hops away",
        "feature_names": [f"class {i}" for i in range(num_classes)],
        "bounds": {str(layers): bound for layers, bound in enumerate(bounds)},
    }
    scored = torch.from_numpy(np.tile(at_target, graphs))
    masks = deal_graphs([num_nodes] * graphs, parts)
    splits = [{part: mask & scored for part, mask in masks.items()}]
    labels = torch.from_numpy(classes.repeat(num_nodes).astype(np.int64))
    return TaskData("ring-transfer", made, "node", "multiclass", labels, splits, num_classes, info)


def ring(num_nodes: int) -> csr_matrix:
    """Symmetric adjacency of a ring.

    Examples
    --------
    >>> ring(4).toarray()[0]
    array([0., 1., 0., 1.])
    """
    nodes = np.arange(num_nodes)
    edges = (np.ones(num_nodes), (nodes, (nodes + 1) % num_nodes))
    half = csr_matrix(edges, shape=(num_nodes, num_nodes))
    return (half + half.T).tocsr()
