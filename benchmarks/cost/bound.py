"""The lower bound: a training step's sparse and dense matrix products and nothing else."""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
from dgl import DGLGraph
from torch import Tensor

from benchmarks.cost.graphs import CLASSES, Problem
from benchmarks.cost.stacks import WIDTH

__all__ = ["BareProducts"]


class BareProducts:
    """Products of one training step of a GCN: no bias, ReLU, loss, optimizer or autograd.

    Forward, a layer multiplies by the weight and by ``A``; backward, by ``A^T``, by the
    transposed input (gradient of the weight) and, after the first layer, by the transposed
    weight. Dense products write into memory that is there already.

    Parameters
    ----------
    problem : Problem
        Graph, features.
    layers : int
        Number of layers.
    preallocated : bool
        Whether the sparse products also do, by the one of PyTorch's two that can. Otherwise it
        is the other, ``torch.sparse.mm(matrix, x, "sum")``, into fresh memory, as under autograd.
    """

    def __init__(self, problem: Problem, layers: int, *, preallocated: bool = False) -> None:
        self.matrix = normalized_adjacency(problem.graph)
        # The graph is undirected: its matrix is its own transpose.
        self.transpose = self.matrix
        self.feat = problem.feat
        nodes, widths = len(self.feat), [self.feat.shape[1], *[WIDTH] * (layers - 1), CLASSES]
        self.weights = [
            torch.nn.init.orthogonal_(torch.empty(ends)) for ends in pairwise(widths)
        ]  # keeps the scale through any number of products
        self.weight_grads = [torch.empty_like(weight) for weight in self.weights]
        self.last_grad = torch.randn(nodes, CLASSES) / nodes
        self._spare, self._grads = (
            {width: torch.empty(nodes, width) for width in {WIDTH, CLASSES}} for _ in range(2)
        )
        self._outputs = [torch.empty(nodes, width) for width in widths[1:]] if preallocated else []

    def _aggregate(self, matrix: Tensor, x: Tensor, out: Tensor | None) -> Tensor:
        if out is None:
            return torch.sparse.mm(matrix, x, "sum")
        return torch.mm(matrix, x, out=out)

    def forward(self) -> list[Tensor]:
        """Inputs of all layers, and the output."""
        inputs = [self.feat]
        for index, weight in enumerate(self.weights):
            mixed = torch.mm(inputs[-1], weight, out=self._spare[weight.shape[1]])
            out = self._outputs[index] if self._outputs else None
            inputs.append(self._aggregate(self.matrix, mixed, out))
        return inputs

    def train(self) -> Tensor:
        """Forward and backward; returns the output."""
        *inputs, scores = self.forward()
        grad = self.last_grad
        layers = list(zip(inputs, self.weights, self.weight_grads, strict=True))
        for index in reversed(range(len(layers))):
            x, weight, weight_grad = layers[index]
            out = self._grads[weight.shape[1]] if self._outputs else None
            grad = self._aggregate(self.transpose, grad, out)
            torch.mm(x.T, grad, out=weight_grad)
            if index:
                grad = torch.mm(grad, weight.T, out=self._spare[WIDTH])
        return scores

    def infer(self) -> Tensor:
        """Forward without keeping the inputs."""
        x = self.feat
        for weight in self.weights:
            mixed = torch.mm(x, weight, out=self._spare[weight.shape[1]])
            out = self._grads[weight.shape[1]] if self._outputs else None
            x = self._aggregate(self.matrix, mixed, out)
        return x


def normalized_adjacency(graph: DGLGraph) -> Tensor:
    """``D^(-1/2) A D^(-1/2)`` of an undirected graph in CSR."""
    indptr, indices, _ = graph.adj_tensors("csr")
    scale = graph.in_degrees().float().rsqrt()
    rows = torch.repeat_interleave(torch.arange(len(scale)), indptr.diff())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # CSR support is in beta
        return torch.sparse_csr_tensor(
            indptr, indices, scale[rows] * scale[indices], (len(scale),) * 2
        )
