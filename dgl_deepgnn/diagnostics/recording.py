"""One draw of a network, run forward and backward, with statistics where features enter a layer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, is_graph
from dgl_deepgnn.init.hooks import is_dgl_convolution
from dgl_deepgnn.nn import ResidualConv

__all__ = [
    "Forward",
    "Geometry",
    "Record",
    "Row",
    "first_features",
    "layers_of",
    "record",
    "replicate",
    "shuffle",
]

Forward = Callable[[nn.Module], Tensor]


@dataclass
class Row:
    """Statistics of the features that enter a layer, or of the output."""

    layer: str
    convolves: bool  # whether the layer is a graph convolution
    nodes: bool  # whether there is one row of features a node
    width: int
    mean_square: float
    correlation: float
    dirichlet: float
    by_graph: np.ndarray | None = None  # mean squares of the graphs of a batch
    gradient: float = math.nan
    sensitivity: float = math.nan  # the gradient for a relative change of the weights, by entry
    training: float = math.nan  # mean square in training mode


@dataclass
class Record:
    """One draw: the input of each layer in the order of execution and the output, and its loss."""

    rows: list[Row]
    loss: float
    even_loss: float  # where all scores are equal
    dropout: bool  # whether training mode differs
    name: str  # of the output that the last row is
    others: dict[str, float]  # mean squares of further outputs, by name


class Geometry:
    """The graph as the statistics need it."""

    def __init__(self, graph: AnyGraph) -> None:
        self.num_nodes = graph.num_nodes()
        self.sizes = graph.batch_num_nodes().cpu()
        self.graph_of_node = torch.repeat_interleave(torch.arange(len(self.sizes)), self.sizes)
        src, dst = (ends.cpu() for ends in graph.edges())
        self.src, self.dst = src[src != dst], dst[src != dst]

    def row(self, layer: str, convolves: bool, feat: Tensor) -> Row:
        """Statistics of `feat`, shape (rows, ...)."""
        features = feat.detach().double().cpu().flatten(1)
        nodes = len(features) == self.num_nodes
        group = self.graph_of_node if nodes else torch.zeros(len(features), dtype=torch.int64)
        norm = features.norm(dim=1)
        alive = norm > 0  # a node without features has no direction
        direction = features / norm.clamp(min=torch.finfo(norm.dtype).tiny)[:, None]
        count = torch.bincount(group[alive]).double()
        total = direction.new_zeros(len(count), features.shape[1])
        total.index_add_(0, group[alive], direction[alive])
        pairs = float((count * (count - 1)).sum())
        correlation = float(total.square().sum() - count.sum()) / pairs if pairs else math.nan
        return Row(
            layer,
            convolves,
            nodes,
            features.shape[1],
            float(features.square().mean()),
            correlation,
            self._dirichlet(direction, alive) if nodes else math.nan,
            self._by_graph(norm**2 / features.shape[1]) if nodes else None,
        )

    def _by_graph(self, squares: Tensor) -> np.ndarray:
        total = squares.new_zeros(len(self.sizes)).index_add_(0, self.graph_of_node, squares)
        return (total / self.sizes)[self.sizes > 0].numpy()

    def _dirichlet(self, direction: Tensor, alive: Tensor) -> float:
        kept = alive[self.src] & alive[self.dst]
        if not kept.any():
            return math.nan
        energy = 0.0
        ends = zip(self.src[kept].split(2**16), self.dst[kept].split(2**16), strict=True)
        for src, dst in ends:  # in parts: edges are many, features wide
            energy += float((direction[src] - direction[dst]).square().sum())
        return energy / int(kept.sum())


def replicate(model: nn.Module) -> nn.Module:
    """Copy a model that may hold graphs, and what an earlier run left in its attributes.

    Of a graph the structure is shared and the features are the copy's own.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in _held(vars(module).values()):
            if is_graph(value):
                memo[id(value)] = value.local_var()
            elif value.grad_fn is not None:  # deepcopy takes leaves only
                memo[id(value)] = value.detach().clone()
    try:
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError) as error:
        raise DGLError(
            f"A copy is what is measured, and this {type(model).__name__} cannot be copied: {error}"
        ) from error


def _held(values: Iterable[Any]) -> Iterator[Any]:
    """Graphs and tensors among `values`, and in lists, tuples and dicts of them."""
    for value in values:
        if is_graph(value) or isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            yield from _held(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _held(value)


def record(
    model: nn.Module, forward: Forward, geometry: Geometry, *, training: bool = True
) -> Record:
    """Run one draw forward and backward, with dropout off, and forward in `training` mode.

    `model` is a copy that may be spoilt.
    """
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()  # its running statistics are not yet those of any data
    entered: list[tuple[nn.Module, Row]] = []
    in_training: list[float] = []
    for name, layer, convolves in layers_of(model):

        def enter(
            module: nn.Module, args: Any, kwargs: Any, name: str = name, convolves: bool = convolves
        ) -> None:
            feat = first_features((*args, *kwargs.values()))
            if feat is None:
                return
            if torch.is_grad_enabled():
                entered.append((module, geometry.row(name, convolves, feat)))
            else:
                in_training.append(_mean_square(feat))

        layer.register_forward_pre_hook(enter, with_kwargs=True)
        for parameter in layer.parameters():
            parameter.requires_grad_()
    outputs = dict(_named(forward(model), "output"))
    if not entered:
        raise DGLError(
            f"No layer of {type(model).__name__} was found that takes features and holds a weight "
            "matrix; diagnose needs a model that is called through its submodules."
        )
    if not outputs:
        raise DGLError(
            f"The {type(model).__name__} returns no matrix of floats, alone or in a tuple, list or "
            "dict: diagnose judges scores, one row a node or graph. forward=lambda model: "
            "model(...) can pick or reshape what the model returns."
        )
    size = sum(out.numel() for out in outputs.values())
    target = torch.zeros((), dtype=torch.float64)
    for out in outputs.values():
        target = target + (out * (torch.randn_like(out) / math.sqrt(size))).sum().double().cpu()
    target.backward()
    name, out = next(iter(outputs.items()))
    for layer, row in entered:
        weights = [p for p in layer.parameters() if p.dim() >= 2 and p.grad is not None]
        if weights:
            squares = [float(p.grad.double().square().sum()) for p in weights]  # type: ignore[union-attr]
            row.gradient = sum(squares)
            row.sensitivity = sum(
                square * _mean_square(p) for square, p in zip(squares, weights, strict=True)
            )
    rows = [*(row for _, row in entered), geometry.row("output", False, out)]
    dropout = False
    if training:
        model.train()
        with torch.no_grad():
            trained = first_features([forward(model)])
        assert trained is not None
        in_training.append(_mean_square(trained))
        # With layers that are left out at random the rows do not belong together.
        dropout = len(in_training) == len(rows) and in_training != [r.mean_square for r in rows]
        for row, mean_square in zip(rows, in_training if dropout else [], strict=False):
            row.training = mean_square
    loss, even_loss = _losses(out.detach().double().flatten(1))
    others = {other: _mean_square(outputs[other]) for other in [*outputs][1:]}
    return Record(rows, loss, even_loss, dropout, name, others)


def _mean_square(feat: Tensor) -> float:
    return float(feat.detach().double().cpu().square().mean())


def _losses(scores: Tensor) -> tuple[float, float]:
    """Cross-entropy of the scores against labels at random, and that of equal scores."""
    if scores.shape[1] == 1:
        scores = torch.cat([scores, torch.zeros_like(scores)], dim=1)
    loss = scores.logsumexp(dim=1) - scores.mean(dim=1)
    return float(loss.mean()), math.log(scores.shape[1])


def layers_of(module: nn.Module, path: str = "") -> Iterator[tuple[str, nn.Module, bool]]:
    """Outermost modules that count as a layer, with their names and whether they convolve."""
    is_conv = isinstance(module, ResidualConv) or is_dgl_convolution(module)
    holds_matrix = any(p.dim() >= 2 for p in module.parameters(recurse=False))
    if is_conv or holds_matrix or is_parametrized(module):
        yield path or type(module).__name__, module, is_conv
        return
    for name, child in module.named_children():
        yield from layers_of(child, f"{path}.{name}" if path else name)


def first_features(arguments: Any) -> Tensor | None:
    """First argument, in tuples, lists and dicts too, that is a matrix of floats."""
    return next((features for _, features in _named(arguments, "")), None)


def _named(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Matrices of floats, and where they are."""
    if isinstance(value, (tuple, list)):
        for index, part in enumerate(value):
            yield from _named(part, f"{name}[{index}]")
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _named(part, f"{name}[{key!r}]")
    elif isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2:
        yield name, value


def shuffle(model: nn.Module) -> None:
    """Permute the entries of every matrix, with random signs: their sum must be drawn anew, too."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                entries = parameter.flatten()
                order = torch.randperm(len(entries)).to(entries.device)
                sign = torch.randint(2, entries.shape).to(entries) * 2 - 1
                parameter.copy_((entries[order] * sign).view_as(parameter))
