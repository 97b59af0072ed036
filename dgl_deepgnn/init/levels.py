r"""Mean square in front of every weight and behind it: what the closed form draws for.

A weight between features of mean square m and an activation that asks for K, with biases of
variance :math:`C_b`, has fan-in times variance :math:`(K - C_b) / m`. Between two activations of
one kind that is their :math:`C_W` (:func:`~dgl_deepgnn.init.activation.critical_point`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.activation import Activation, activation_name, critical_point, mean_activation
from dgl_deepgnn.init.hooks import Stage, is_dgl_convolution
from dgl_deepgnn.init.tracing import Behind, Trace, is_own_activation

__all__ = ["TOLERANCE", "Levels", "find_levels"]

TOLERANCE = 10.0  # what the graph may lose or gain, whatever the depth
_GATES = (nn.Sigmoid, nn.Softmax, nn.LogSoftmax, nn.MultiheadAttention, nn.GLU, nn.LogSigmoid)


@dataclass(frozen=True)
class _Level:
    """Mean square in front of an activation, of the biases in it, and behind the activation."""

    mean_square: float
    bias_variance: float
    handed_on: float


_LINEAR = _Level(1.0, 0.0, 1.0)


@dataclass(frozen=True)
class Levels:
    """What the closed form asks for at every weight.

    Parameters
    ----------
    gain : dict of int to float
        Fan-in times variance, by the identity of the weight; without the graph's part.
    bias_variance : dict of int to float
        Variance of the biases added to the product of a weight, if it is not 0.
    entering : tuple of float
        Smallest and largest mean square of the features between wide layers.
    leaving : tuple of float
        The same of the output.
    words : str
        The activations, for messages.
    assumed : bool
        Whether ReLU was taken for granted, since no activation was found.
    unknown : dict of str to str
        By the names of weights, what stands behind them that is no known activation.
    """

    gain: dict[int, float]
    bias_variance: dict[int, float]
    entering: tuple[float, float]
    leaving: tuple[float, float]
    words: str
    assumed: bool
    unknown: dict[str, str]


def find_levels(
    module: nn.Module, stages: list[Stage], trace: Trace | None, output_layer: bool
) -> Levels:
    """Levels by the activations that a run met, or else by those that the module holds.

    Raises
    ------
    DGLError
        If an activation between two layers has no critical point, or asks for biases where a
        layer has none.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    held = _held(module) if trace is None else _met(trace, output_layer)
    assumed = not held
    main = next((act for act in held if act is not None), torch.relu)
    levels = {}
    for linear in (linear for stage in stages for linear in stage):
        try:
            levels[id(linear.weight)] = _ahead(linear.weight, trace, main, output_layer)
        except DGLError as error:
            raise DGLError(f"Behind {names.get(id(linear.weight))!r}: {error}") from error
    for linear in stages[-1] if stages and output_layer else []:
        if trace is None or id(linear.weight) not in trace.behind:
            levels[id(linear.weight)] = _LINEAR
    gain, bias_variance = {}, {}
    for index, stage in enumerate(stages):
        need = max(levels[id(m.weight)].bias_variance for m in stage)
        holders = [m for m in stage if m.bias is not None]
        if need > 0 and not holders:
            raise DGLError(
                f"{names.get(id(stage[0].weight), type(stage[0].owner).__name__)!r} has no bias, "
                f"but {_words([main])} between the layers needs biases of variance {need:.3g} to "
                "keep its mean square: build the layer with bias=True, take a kind of ReLU, or let "
                "the features decide, critical_(model, graph, feat)."
            )
        for linear in stage:
            key, level = id(linear.weight), levels[id(linear.weight)]
            if trace is None:
                behind = [Behind(main)] if index else []
            else:
                behind = trace.before.get(key, [])
            handed_on = [_level(b).handed_on for b in behind]
            mean = sum(handed_on) / len(handed_on) if handed_on else 1.0
            share = 1.0 if trace is None else trace.shares.get(key, 1.0)
            gain[key] = share * (level.mean_square - level.bias_variance) / mean
            if linear.bias is not None and need > 0:
                bias_variance[key] = share * need / len(holders)
    met = {} if trace is None else trace.behind
    unknown = {
        names[weight]: next(b.unknown for b in behind if b.unknown)
        for weight, behind in met.items()
        if weight in gain
        and any(b.unknown for b in behind)
        and all(b.activation is None for b in behind)
    }
    entering, leaving = _bounds(held or [main], len(stages))
    if not output_layer:
        last = _level(Behind(main)).mean_square
        leaving = leaving[0] * last, leaving[1] * last
    return Levels(gain, bias_variance, entering, leaving, _words(held or [main]), assumed, unknown)


def _met(trace: Trace, output_layer: bool) -> list[Activation | None]:
    """Activations between two weights of a run, and at its end if that is none."""
    found = [b for behind in trace.behind.values() for b in behind if not b.gate]
    if output_layer:
        return [b.activation for b in found if not b.output]
    return [b.activation for b in found if not b.output or b.activation is not None]


def _ahead(
    weight: torch.Tensor, trace: Trace | None, main: Activation, output_layer: bool
) -> _Level:
    """Level in front of what comes behind a weight."""
    if trace is None or id(weight) not in trace.behind:  # of a fused step of autograd, or unused
        return _level(Behind(main))
    behind = [b for b in trace.behind[id(weight)] if not b.gate]
    if not behind:
        return _LINEAR
    inner = [b for b in behind if not b.output]
    if not inner:
        return _LINEAR if output_layer else _level(Behind(behind[0].activation or main))
    return _level(next((b for b in inner if b.activation is not None), inner[0]))


def _level(behind: Behind) -> _Level:
    if behind.activation is None or behind.gate:
        return _LINEAR
    point = critical_point(behind.activation)
    weight_variance, bias_variance = point.weight_variance, point.bias_variance
    if point.mean_square is None:
        return _Level(weight_variance, 0.0, 1.0)
    if behind.normed:
        return _Level(1.0, 0.0, mean_activation(behind.activation, 1.0))
    square = point.mean_square or 1.0
    return _Level(square, bias_variance, (square - bias_variance) / weight_variance)


def _bounds(
    activations: Iterable[Activation | None], depth: int
) -> tuple[tuple[float, float], tuple[float, float]]:
    r"""Bounds of the mean square between the layers, and of the output over its expected one.

    The graph may take a factor 10 in the first layers. Where the activation keeps no scale but one,
    the recursion says what becomes of that with depth.
    """
    low, high = 1 / TOLERANCE, TOLERANCE
    low_output, high_output = low, high
    for activation in dict.fromkeys(activations):
        if activation is None:
            continue
        point, level = critical_point(activation), _level(Behind(activation))
        if point.mean_square is None:
            continue
        square = level.bias_variance + (level.mean_square - level.bias_variance) / TOLERANCE
        least = square
        for _ in range(depth):
            inner = mean_activation(activation, square)
            square = point.bias_variance + point.weight_variance * inner
            least = min(least, square)
        behind = mean_activation(activation, least)
        low, high = min(low, behind), max(high, TOLERANCE * level.handed_on)
        low_output = min(low_output, behind / level.handed_on)
    return (low, high), (low_output, high_output)


def _held(module: nn.Module) -> list[Activation]:
    """Activations that a module is built of."""
    found: list[Activation] = []
    inside = {
        id(child) for m in module.modules() if is_dgl_convolution(m) for child in m.children()
    }
    for part in module.modules():
        candidates = [getattr(part, name, None) for name in ("activation", "_activation")]
        kind = type(part).__module__ == "torch.nn.modules.activation"
        if (kind or is_own_activation(part)) and id(part) not in inside:
            candidates.append(part)
        for candidate in candidates:
            if not callable(candidate) or isinstance(candidate, _GATES):
                continue
            try:
                critical_point(candidate)
            except DGLError:
                continue
            found.append(candidate)
    return found


def _words(activations: Iterable[Activation | None]) -> str:
    names = dict.fromkeys(activation_name(act) for act in activations)
    return " and ".join(names)
