"""Deep stacks of DGL's and PyTorch Geometric's own layers, as one writes them, ReLU in between."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import dgl
import torch
from torch import Tensor, nn

from benchmarks.cost.graphs import CLASSES, Problem

__all__ = ["WIDTH", "Stack", "dgl_stack", "pyg_stack"]

WIDTH = 64


class Stack(nn.Module):
    """Layers ``layer(graph, feat)`` with ReLU in between.

    Parameters
    ----------
    layers : sequence of nn.Module
        Graph layers, or linear ones, which ignore the graph.
    call : callable
        ``call(layer, feat, first)`` applies a graph layer, `first` being the output of the first
        layer, which GCNII adds to every other.
    """

    def __init__(self, layers: list[nn.Module], call: Callable[..., Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.call = call

    def forward(self, feat: Tensor) -> Tensor:
        """Scores of the nodes."""
        first = feat
        for index, layer in enumerate(self.layers):
            feat = self._call(layer, torch.relu(feat) if index else feat, first)
            if index == 0:
                first = torch.relu(feat)
        return feat

    def _call(self, layer: nn.Module, feat: Tensor, first: Tensor) -> Tensor:
        return layer(feat) if isinstance(layer, nn.Linear) else self.call(layer, feat, first)

    @torch.no_grad()
    def keep_scale(self, feat: Tensor) -> Stack:
        """Scale the weights so that every layer keeps the mean square of its input at one.

        Vanishing signals would end in denormal numbers, which a CPU multiplies far more slowly:
        the stacks are not to lose by their initialization what they do not lose by their code.
        """
        first = feat
        for index, layer in enumerate(self.layers):
            weights = [p for p in layer.parameters() if p.dim() == 2]
            for parameter in layer.parameters():
                if parameter.dim() == 1:
                    parameter.zero_()
            feat = torch.relu(feat) if index else feat
            size = self._call(layer, feat, first).square().mean().sqrt()
            # Two weights of a multi-layer perceptron multiply, those of GraphSAGE add up.
            inside = any(isinstance(module, nn.Sequential) for module in layer.modules())
            for weight in weights:
                weight.div_(size.sqrt() if inside else size)
            feat = self._call(layer, feat, first)
            if index == 0:
                first = torch.relu(feat)
        return self


def _widths(in_feats: int, layers: int) -> list[tuple[int, int]]:
    return list(pairwise([in_feats, *[WIDTH] * (layers - 1), CLASSES]))


def _mlp(fan_in: int, fan_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(fan_in, fan_out), nn.ReLU(), nn.Linear(fan_out, fan_out))


def _between_linear(ends: list[tuple[int, int]], inner: Callable[[int], nn.Module]) -> list[Any]:
    """GCNII: its layers keep the width, so that the first and the last layer are linear."""
    middle = [inner(index) for index in range(1, len(ends) - 1)]
    return [nn.Linear(*ends[0]), *middle, nn.Linear(*ends[-1])]


def dgl_stack(layer: str, problem: Problem, layers: int) -> Stack:
    """Stack of `layer`: "GraphConv", "SAGEConv", "GINConv" or "GCN2Conv" of DGL."""
    graph, ends = problem.graph, _widths(problem.feat.shape[1], layers)
    made: list[Any]
    if layer == "GCN2Conv":
        made = _between_linear(ends, lambda index: dgl.nn.GCN2Conv(WIDTH, index))
        return Stack(made, lambda conv, feat, first: conv(graph, feat, first)).keep_scale(
            problem.feat
        )
    if layer == "GINConv":
        graph = problem.plain
        made = [dgl.nn.GINConv(_mlp(*widths), "sum") for widths in ends]
    elif layer == "SAGEConv":
        made = [dgl.nn.SAGEConv(*widths, "mean") for widths in ends]
    else:
        made = [dgl.nn.GraphConv(*widths) for widths in ends]
    return Stack(made, lambda conv, feat, first: conv(graph, feat)).keep_scale(problem.feat)


def pyg_stack(layer: str, problem: Problem, layers: int, *, csr: bool = False) -> Stack:
    """Stack of PyTorch Geometric's `layer`, on an edge list or, with `csr`, a sparse matrix."""
    import torch_geometric.nn as pyg
    from torch_geometric.utils import to_torch_csr_tensor

    graph = problem.plain if layer == "GINConv" else problem.graph
    edges: Any = torch.stack(graph.edges(order="eid"))
    if csr:  # the matrix is the transpose of what the edge list stands for
        edges = to_torch_csr_tensor(edges.flip(0), size=(graph.num_nodes(),) * 2)
    ends = _widths(problem.feat.shape[1], layers)
    made: list[Any]
    once = {"cached": True, "add_self_loops": False}  # the graph has them
    if layer == "GCN2Conv":
        made = _between_linear(
            ends, lambda index: pyg.GCN2Conv(WIDTH, 0.1, theta=1.0, layer=index, **once)
        )
        return Stack(made, lambda conv, feat, first: conv(feat, first, edges)).keep_scale(
            problem.feat
        )
    if layer == "GINConv":
        made = [pyg.GINConv(_mlp(*widths)) for widths in ends]
    elif layer == "SAGEConv":
        made = [pyg.SAGEConv(*widths, aggr="mean") for widths in ends]
    else:
        made = [pyg.GCNConv(*widths, **once) for widths in ends]
    return Stack(made, lambda conv, feat, first: conv(feat, edges)).keep_scale(problem.feat)
