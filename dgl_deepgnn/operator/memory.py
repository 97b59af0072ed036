"""Operators remembered by graph, so that ``model(graph, feat)`` need not build one a call."""

from __future__ import annotations

import threading
import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.graph import AnyGraph, Graph, as_graph
from dgl_deepgnn.operator.aggregation import AggregationOperator, aggregation_operator
from dgl_deepgnn.operator.matrix import Norm

__all__ = ["MOST", "remembered_operator"]

MOST = 8
"""Operators kept at a time, those used last, and none longer than its graph lives."""


@dataclass
class _Entry:
    owner: weakref.ref[Any]
    graph: AnyGraph
    edge_weight: Tensor | None
    operator: AggregationOperator


_Key = tuple[int, Norm, float, float | None, int | None, bool]
_entries: dict[_Key, _Entry] = {}
_lock = threading.RLock()  # a weak reference may end while it is held


def remembered_operator(
    graph: AnyGraph,
    norm: Norm,
    t: float,
    edge_weight: Tensor | None = None,
    *,
    spectral_radius: float | None = None,
    depth: int | None = None,
    edgewise: bool = False,
) -> AggregationOperator:
    """As :func:`aggregation_operator`, but the same one while graph and edge weights are the same.

    The graph may be changed in place (``add_edges``, ``remove_nodes``, a write into `edge_index`),
    and so may the weights: what the operator was built of is compared at every call. Edge
    weights that require a gradient are part of the operator, and samplers' blocks and relations
    do not come twice: these are not remembered.

    Examples
    --------
    >>> graph = Graph(([0, 1], [1, 0]))
    >>> remembered_operator(graph, "both", 1.0) is remembered_operator(graph, "both", 1.0)
    True
    """
    owner, graph = _owner(graph), as_graph(graph)
    options: dict[str, Any] = {
        "spectral_radius": spectral_radius,
        "depth": depth,
        "edgewise": edgewise,
    }
    trainable = edge_weight is not None and edge_weight.requires_grad
    if trainable or graph.is_block or not graph.is_homogeneous:
        return aggregation_operator(graph, norm, t, edge_weight, **options)
    key = (id(owner), norm, t, spectral_radius, depth, edgewise)
    with _lock:
        entry = _entries.pop(key, None)
        if entry is None or not _is_of(entry, owner, graph, edge_weight):
            # Without a reference to the owner, whose end is the operator's.
            kept = _copy(graph)
            operator = aggregation_operator(kept, norm, t, edge_weight, **options)
            weight = None if edge_weight is None else edge_weight.clone()
            end = weakref.ref(owner, lambda _: _entries.pop(key, None))
            entry = _Entry(end, kept, weight, operator)
        _entries[key] = entry
        while len(_entries) > MOST:
            del _entries[next(iter(_entries))]
    return entry.operator


def _owner(graph: AnyGraph) -> Any:
    """The object that holds the structure: with it the memory ends."""
    if isinstance(graph, tuple):
        return graph[0]
    edge_index = getattr(graph, "edge_index", None)
    return graph if edge_index is None else edge_index


def _copy(graph: AnyGraph) -> AnyGraph:
    if not isinstance(graph, Graph):
        return graph.local_var()
    copy = Graph([end.clone() for end in graph.edges()], graph.num_nodes())
    copy.set_batch_num_nodes(graph.batch_num_nodes().clone())
    copy.set_batch_num_edges(graph.batch_num_edges().clone())
    return copy


def _is_of(entry: _Entry, owner: Any, graph: AnyGraph, edge_weight: Tensor | None) -> bool:
    if entry.owner() is not owner or not _is_same(entry.edge_weight, edge_weight):
        return False
    before, after = entry.graph, graph
    if not _is_same(before.batch_num_nodes(), after.batch_num_nodes()):
        return False
    # DGL's structure is an object that does not change: add_edges puts another in its place.
    structure = getattr(after, "_graph", None)
    if structure is not None:
        return getattr(before, "_graph", None) is structure
    return before.num_nodes() == after.num_nodes() and all(
        map(_is_same, before.edges(order="eid"), after.edges(order="eid"))
    )


def _is_same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = one.dtype == other.dtype and one.device == other.device and one.shape == other.shape
    return alike and torch.equal(one, other)
