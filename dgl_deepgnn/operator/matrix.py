"""Aggregation matrices of graphs, before they are divided by their growth."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph

__all__ = ["NORMS", "Norm", "aggregation_matrix", "batch_sizes", "concatenated_ranges", "is_square"]

Norm = Literal["both", "right", "left", "none"]
NORMS: tuple[Norm, ...] = ("both", "right", "left", "none")


def aggregation_matrix(
    graph: AnyGraph, norm: Norm, edge_weight: Tensor | None
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Matrix A (rows are destinations) and the normalisation of every edge, shape (E,)."""
    if norm not in NORMS:
        raise DGLError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
    if len(graph.canonical_etypes) != 1:
        raise DGLError(
            f"The graph has {len(graph.canonical_etypes)} edge types; one relation at a time "
            "is aggregated. Wrap the layer in dgl.nn.HeteroGraphConv."
        )
    num_edges = graph.num_edges()
    if edge_weight is None:
        weight = np.ones(num_edges)
    else:
        if edge_weight.numel() != num_edges:
            raise DGLError(
                f"edge_weight has shape {tuple(edge_weight.shape)}, but the graph has "
                f"{num_edges} edges: expected ({num_edges},)."
            )
        weight = edge_weight.detach().reshape(-1).double().cpu().numpy()
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise DGLError(
                "Edge weights must be finite and non-negative: the critical initialization is "
                "defined for non-negative aggregation only. "
                f"Edge {int(np.flatnonzero(~(weight >= 0) | np.isinf(weight))[0])} is not."
            )
    src, dst = (ends.cpu().numpy() for ends in graph.edges(order="eid"))
    out_degree = np.bincount(src, minlength=graph.num_src_nodes()).clip(min=1).astype(np.float64)
    in_degree = np.bincount(dst, minlength=graph.num_dst_nodes()).clip(min=1).astype(np.float64)
    scale = {
        "both": 1 / np.sqrt(out_degree[src] * in_degree[dst]),
        "right": 1 / in_degree[dst],
        "left": 1 / out_degree[src],
        "none": np.ones(num_edges),
    }[norm]
    shape = (graph.num_dst_nodes(), graph.num_src_nodes())
    return sp.csr_matrix((scale * weight, (dst, src)), shape=shape), scale


def is_square(graph: AnyGraph) -> bool:
    """Whether source and destination nodes are the same."""
    return not graph.is_block and graph.srctypes == graph.dsttypes


def batch_sizes(graph: AnyGraph) -> np.ndarray:
    """Destination nodes of each graph of a batch."""
    if is_square(graph):
        return graph.batch_num_nodes().cpu().numpy()
    return np.array([graph.num_dst_nodes()])


def concatenated_ranges(sizes: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Positions of the chosen groups' members, where groups of these sizes follow one another.

    Examples
    --------
    >>> concatenated_ranges(np.array([2, 3, 1]), np.array([2, 0])).tolist()
    [5, 0, 1]
    """
    lengths = sizes[which]
    starts = (np.cumsum(sizes) - sizes)[which]
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + inside
