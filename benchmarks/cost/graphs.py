"""Random graphs to measure on, of the sizes of the tables."""

from __future__ import annotations

from typing import NamedTuple

import dgl
import torch
from dgl import DGLGraph
from torch import Tensor

__all__ = ["CLASSES", "SIZES", "Problem", "Size", "random_problem"]

CLASSES = 7


class Size(NamedTuple):
    """Nodes, directed edges without self-loops, and width of the input."""

    nodes: int
    edges: int
    in_feats: int = 128
    words: bool = False
    """Whether the features are a bag of words: few, equal and positive."""

    def __str__(self) -> str:
        return f"{self.nodes:,} nodes, {self.edges + self.nodes:,} edges"


SIZES = {
    "Cora": Size(2_708, 10_556, 1_433, words=True),
    "20k": Size(20_000, 200_000),
    "100k": Size(100_000, 1_000_000),
}


class Problem(NamedTuple):
    """Node classification on an undirected random graph."""

    graph: DGLGraph
    """With a self-loop at every node."""
    plain: DGLGraph
    """The same without self-loops, for GIN as DGL and PyTorch Geometric define it."""
    feat: Tensor
    labels: Tensor


def random_problem(size: Size, seed: int = 0) -> Problem:
    """Draw a graph, features and labels; the same for every contender."""
    draw = torch.Generator().manual_seed(seed)
    low, high = torch.randint(size.nodes, (2, 2 * size.edges), generator=draw).sort(dim=0).values
    pairs = torch.unique(low * size.nodes + high)  # no edge comes twice
    pairs = pairs[pairs // size.nodes != pairs % size.nodes]
    chosen = pairs[torch.randperm(len(pairs), generator=draw)[: size.edges // 2]]
    ends = torch.stack([chosen // size.nodes, chosen % size.nodes])
    both = torch.cat([ends, ends.flip(0)], dim=1)
    plain = dgl.graph((both[0], both[1]), num_nodes=size.nodes)
    feat = torch.randn(size.nodes, size.in_feats, generator=draw)
    if size.words:
        feat = (feat > 2.24).float()  # 18 words of 1433 a paper, as in Cora
        feat /= feat.sum(1, keepdim=True).clamp(min=1)
    labels = torch.randint(CLASSES, (size.nodes,), generator=draw)
    graph = dgl.add_self_loop(plain)
    for each in (graph, plain):
        each.create_formats_()
    return Problem(graph, plain, feat, labels)
