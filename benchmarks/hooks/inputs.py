"""The small graphs and the task that every model of the benchmark gets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import dgl
import numpy as np
import torch
from dgl import DGLGraph
from torch import Tensor

__all__ = [
    "CLASSES",
    "EDGE_FEATS",
    "GRAPHS",
    "RELATIONS",
    "TOKENS",
    "WIDTH",
    "Inputs",
    "draw_inputs",
]

NODES, WIDTH, CLASSES, EDGE_FEATS, RELATIONS, TOKENS = 200, 64, 4, 8, 3, 48
COMMUNITIES = np.random.default_rng(0).integers(0, CLASSES, NODES)
SIGNAL = 0.2  # of noise one: a node alone tells its community in about two of three cases


@dataclass(frozen=True)
class Inputs:
    """What a model may want: it takes its part."""

    graph: Any
    """A DGLGraph."""
    feat: Tensor
    """Features of shape (nodes, WIDTH) and mean square one: noise, and a vector of the community.

    Of two node types, the first's.
    """
    labels: Tensor
    """Community of every node."""
    edge_feat: Tensor
    edge_weight: Tensor
    etypes: Tensor
    """Relation of every edge."""
    other_feat: Tensor
    """Features of the second node type."""
    tokens: Tensor
    """A whole number below TOKENS a node, in place of features; every other tells the community."""


def undirected() -> DGLGraph:
    """Communities with a few hubs: everyone has picked three others, by popularity; self-loops."""
    rng = np.random.default_rng(3)
    popularity = rng.pareto(3, NODES) + 1
    same = np.where(COMMUNITIES[:, None] == COMMUNITIES, 1.0, 0.1) * popularity
    np.fill_diagonal(same, 0.0)
    picked = [rng.choice(NODES, 3, replace=False, p=row / row.sum()) for row in same]
    graph = dgl.graph((np.repeat(np.arange(NODES), 3), np.concatenate(picked)))
    return dgl.to_bidirected(graph).add_self_loop()


def _within(rng: np.random.Generator, sources: np.ndarray, targets: np.ndarray) -> Any:
    """Edges within a community, and one in five of the others."""
    kept = COMMUNITIES[sources] == COMMUNITIES[targets]
    kept |= rng.random(len(kept)) < 0.2
    return sources[kept], targets[kept]


def acyclic() -> DGLGraph:
    """Citations: every node points from a few earlier ones, mostly of its kind, and to itself."""
    rng = np.random.default_rng(1)
    later = np.repeat(np.arange(1, NODES), 8)
    earlier = (later * rng.random(len(later))).astype(np.int64)
    earlier, later = _within(rng, earlier, later)
    return dgl.to_simple(dgl.graph((earlier, later), num_nodes=NODES)).add_self_loop()


def two_types() -> DGLGraph:
    """Users and items, three relations; most follow those of their community."""
    rng = np.random.default_rng(2)
    items = NODES // 2

    def edges(sources: int, targets: int) -> tuple[np.ndarray, np.ndarray]:
        return rng.integers(0, sources, 4 * targets), np.tile(np.arange(targets), 4)

    return dgl.heterograph(
        {
            ("user", "follows", "user"): _within(rng, *edges(NODES, NODES)),
            ("user", "rates", "item"): edges(NODES, items),
            ("item", "rated-by", "user"): edges(items, NODES),
        }
    )


GRAPHS = {"undirected": undirected, "acyclic": acyclic, "two types": two_types}


@cache
def _graph(kind: str) -> DGLGraph:
    return GRAPHS[kind]()


@cache
def _centres() -> Tensor:
    return torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(4))


def draw_inputs(kind: str, seed: int) -> Inputs:
    """Graph of a kind with features of its communities; each seed gives fresh noise."""
    graph = _graph(kind)
    generator = torch.Generator().manual_seed(seed)
    homogeneous = graph.is_homogeneous
    num_edges = graph.num_edges() if homogeneous else 0
    labels = torch.from_numpy(COMMUNITIES)
    noise = torch.randn(NODES, WIDTH, generator=generator)
    told = torch.rand(NODES, generator=generator) < 0.5
    anything = torch.randint(TOKENS, (NODES,), generator=generator)
    return Inputs(
        graph=graph,
        feat=(noise + SIGNAL * _centres()[labels]) / (1 + SIGNAL**2) ** 0.5,
        labels=labels,
        edge_feat=torch.randn(num_edges, EDGE_FEATS, generator=generator),
        edge_weight=torch.rand(num_edges, generator=generator) + 0.5,
        etypes=torch.arange(num_edges) % RELATIONS,
        other_feat=torch.randn(NODES // 2, WIDTH, generator=generator),
        tokens=torch.where(told, anything // CLASSES * CLASSES + labels, anything),
    )
