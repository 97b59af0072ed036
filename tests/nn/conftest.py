"""Graphs, and dense algebra that owes nothing to the package."""

from __future__ import annotations

from collections.abc import Callable

import dgl
import numpy as np
import pytest
import torch
from dgl import DGLGraph
from torch import Tensor


def _random_edges(num_nodes: int, num_edges: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(num_nodes, (2, num_edges), generator=generator)
    return src, dst


def _undirected() -> DGLGraph:
    return dgl.to_bidirected(dgl.graph(_random_edges(12, 25, 1), num_nodes=12))


def _directed() -> DGLGraph:
    return dgl.to_simple(dgl.graph(_random_edges(12, 40, 2), num_nodes=12))


def _multigraph() -> DGLGraph:
    src, dst = _random_edges(8, 20, 3)
    return dgl.graph((torch.cat([src, src]), torch.cat([dst, dst])), num_nodes=9).add_self_loop()


def _isolated_nodes() -> DGLGraph:
    return dgl.graph(_random_edges(7, 20, 4), num_nodes=12)


@pytest.fixture(params=[_undirected, _directed, _multigraph, _isolated_nodes])
def graph(request: pytest.FixtureRequest) -> DGLGraph:
    return request.param()


@pytest.fixture
def batch() -> DGLGraph:
    """Graphs of different spectral radii: a complete graph, a star, a ring, one node."""
    src, dst = np.nonzero(1 - np.eye(5))
    complete = dgl.graph((src, dst))
    star = dgl.to_bidirected(dgl.graph(([0, 0, 0], [1, 2, 3])))
    ring = dgl.to_bidirected(dgl.graph(([0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0])))
    return dgl.batch([complete, star, ring, dgl.graph(([0], [0]))])


@pytest.fixture
def dense_aggregation() -> Callable[..., Tensor]:
    """Matrix of an aggregation, entry by entry after DGL's documentation of `norm`."""

    def aggregation(graph: DGLGraph, norm: str, edge_weight: Tensor | None = None) -> Tensor:
        src, dst = (ends.tolist() for ends in graph.edges(order="eid"))
        weight = [1.0] * len(src) if edge_weight is None else edge_weight.double().unbind()
        matrix = torch.zeros(graph.num_dst_nodes(), graph.num_src_nodes(), dtype=torch.float64)
        for u, v, w in zip(src, dst, weight, strict=True):
            out_degree, in_degree = src.count(u), dst.count(v)
            scale = {
                "both": (out_degree * in_degree) ** -0.5,
                "right": 1 / in_degree,
                "left": 1 / out_degree,
                "none": 1.0,
            }[norm]
            unit = torch.zeros_like(matrix)
            unit[v, u] = scale
            matrix = matrix + w * unit
        return matrix

    return aggregation


@pytest.fixture
def critical_aggregation(dense_aggregation: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The same divided by each graph's spectral radius, from all dense eigenvalues."""

    def aggregation(graph: DGLGraph, norm: str, edge_weight: Tensor | None = None) -> Tensor:
        matrix = dense_aggregation(graph, norm, edge_weight)
        start, rows = 0, []
        for size in graph.batch_num_nodes().tolist():
            block = slice(start, start + size)
            radius = np.abs(np.linalg.eigvals(matrix[block, block].detach().numpy())).max()
            rows.append(matrix[block] / radius)
            start += size
        return torch.cat(rows)

    return aggregation
