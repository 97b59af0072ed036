"""The lower bound: a training step's sparse and dense matrix products and nothing else."""

from __future__ import annotations

import warnings
from itertools import pairwise

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor

from benchmarks.cost.graphs import CLASSES, Problem
from benchmarks.cost.stacks import WIDTH

__all__ = ["PRODUCTS", "BareProducts", "normalized_adjacency"]

PRODUCTS = ("embedding_bag", "sparse.mm", "mm")
"""Weighted sum of rows; product with a reduction; product into memory that is there already."""


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
    product : str
        Which of PyTorch's sparse products, one of :data:`PRODUCTS`; the bound is the fastest.
    """

    def __init__(self, problem: Problem, layers: int, product: str) -> None:
        self.matrix = normalized_adjacency(problem.graph)  # symmetric: its own transpose
        self.feat, self.product = problem.feat, product
        nodes, widths = len(self.feat), [self.feat.shape[1], *[WIDTH] * (layers - 1), CLASSES]
        self.weights = [
            torch.nn.init.orthogonal_(torch.empty(ends)) for ends in pairwise(widths)
        ]  # keeps the scale through any number of products
        self.weight_grads = [torch.empty_like(weight) for weight in self.weights]
        self.last_grad = torch.randn(nodes, CLASSES) / nodes
        self._mixed, self._grads = (
            {width: torch.empty(nodes, width) for width in {WIDTH, CLASSES}} for _ in range(2)
        )
        self._outputs = [torch.empty(nodes, width if product == "mm" else 0) for width in widths]

    def _aggregate(self, x: Tensor, out: Tensor) -> Tensor:
        if self.product == "mm":
            return torch.mm(self.matrix, x, out=out)
        if self.product == "sparse.mm":
            return torch.sparse.mm(self.matrix, x, "sum")
        return F.embedding_bag(
            self.matrix.col_indices(),
            x,
            self.matrix.crow_indices(),
            mode="sum",
            per_sample_weights=self.matrix.values(),
            include_last_offset=True,
        )

    def train(self) -> Tensor:
        """Forward and backward; returns the output."""
        inputs = [self.feat]
        for weight, out in zip(self.weights, self._outputs[1:], strict=True):
            mixed = torch.mm(inputs[-1], weight, out=self._mixed[weight.shape[1]])
            inputs.append(self._aggregate(mixed, out))
        grad = self.last_grad
        for index in reversed(range(len(self.weights))):
            weight = self.weights[index]
            grad = self._aggregate(grad, self._grads[weight.shape[1]])
            torch.mm(inputs[index].T, grad, out=self.weight_grads[index])
            if index:
                grad = torch.mm(grad, weight.T, out=self._mixed[WIDTH])
        return inputs[-1]

    def infer(self) -> Tensor:
        """Forward without keeping the inputs."""
        x = self.feat
        for weight in self.weights:
            mixed = torch.mm(x, weight, out=self._mixed[weight.shape[1]])
            x = self._aggregate(mixed, self._grads[weight.shape[1]])
        return x


def normalized_adjacency(graph: DGLGraph) -> Tensor:
    """``D^(-1/2) A D^(-1/2)`` of an undirected graph in CSR."""
    indptr, indices, _ = graph.adj_tensors("csr")
    scale = graph.in_degrees().float().rsqrt()
    rows = torch.repeat_interleave(torch.arange(len(scale)), indptr.diff())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # CSR support is in beta
        return torch.sparse_csr_tensor(
            indptr.int(), indices.int(), scale[rows] * scale[indices], (len(scale),) * 2
        )
