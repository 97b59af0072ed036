r"""Critical points of activations: weight and bias variances that neither explode nor vanish.

A wide network maps the mean square K of what stands in front of an activation to
:math:`C_b + C_W \langle \phi^2 \rangle_K`, where :math:`\langle \cdot \rangle_K` is the mean over
:math:`z \sim N(0, K)`. It is critical where K is kept and small deviations are, too: in the
direction of the features and across it. The conditions are those of Roberts, Yaida and Hanin, The
Principles of Deep Learning Theory, chapter 5 (arXiv:2106.10165); a graph's aggregation enters as in
:func:`dgl_deepgnn.init.critical_`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError

__all__ = [
    "Activation",
    "CriticalPoint",
    "activation_name",
    "critical_point",
    "mean_activation",
]

Activation = nn.Module | Callable[[Tensor], Tensor]
"""A function of each entry by itself, as ``nn.GELU()`` or ``torch.tanh``."""

# Quadrature: the trapezoidal rule, which for a normal density is exact to rounding where the
# activation is smooth; a kink costs about the distance of two nodes. No node lies on zero.
_NODES = (np.arange(16384) + 0.5) / 16384 * 20 - 10
_WEIGHTS = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()
_MEAN_SQUARES = np.logspace(-3, 3, 61)  # among them a critical one is looked for
_NOISE = 1e-3  # relative; a smaller difference of two means may come from a kink
_PROBE = np.concatenate(
    [np.linspace(-7.7, 7.9, 125), np.logspace(-5, 5, 21), -np.logspace(-5, 5, 21)]
)


@dataclass(frozen=True)
class CriticalPoint:
    r"""Where a wide network of one activation is critical.

    Parameters
    ----------
    weight_variance : float
        :math:`C_W`: fan-in times the variance of the weights, for an aggregation of spectral
        radius one.
    bias_variance : float
        :math:`C_b`: variance of the biases.
    mean_square : float or None
        Mean square K in front of the activation that the network keeps. None: any (the
        activation is homogeneous). 0: none but zero is kept; a larger one falls by a power of the
        depth, so that features of order one are as good a start as any.
    """

    weight_variance: float
    bias_variance: float
    mean_square: float | None


_KNOWN: dict[bytes, CriticalPoint] = {}  # by the activation's values at the probe


def critical_point(activation: Activation | None) -> CriticalPoint:
    r"""Critical weight and bias variance of an activation.

    - Homogeneous ones, with slope 1 on one side of zero and a on the other (ReLU, leaky, PReLU as
      it is now, none at all), keep any scale: :math:`C_W = 2 / (1 + a^2)` and :math:`C_b = 0`.
    - Others keep one mean square K, where

      .. math:: K = C_b + C_W \langle \phi^2 \rangle_K, \quad
                C_W \frac{d}{dK} \langle \phi^2 \rangle_K = 1, \quad
                C_W \langle \phi'^2 \rangle_K = 1 .

      They are solved by quadrature, with :math:`\phi'` by automatic differentiation: GELU, SiLU,
      Mish, Hardswish and whatever else satisfies them with :math:`C_b \ge 0`.
    - Where :math:`\phi(0) = 0` and the activation bends towards zero (tanh, ELU, SELU, softsign),
      the solution is the limit :math:`K \to 0`: :math:`C_b = 0` and
      :math:`C_W = 1 / \langle \phi'^2 \rangle_0`, for a smooth one :math:`1 / \phi'(0)^2`.

    Parameters
    ----------
    activation : nn.Module or callable or None
        Any differentiable function of each entry by itself; None for no activation. Neither it
        nor its parameters are changed.

    Returns
    -------
    CriticalPoint
        The variances, and the mean square in front of the activation that they keep.

    Raises
    ------
    DGLError
        If the activation has no critical point (sigmoid, softplus), is no function of each entry by
        itself (softmax, GLU), or cannot be differentiated.

    Examples
    --------
    >>> critical_point(torch.relu)
    CriticalPoint(weight_variance=2.0, bias_variance=0.0, mean_square=None)
    >>> gelu = critical_point(nn.GELU())
    >>> round(gelu.weight_variance, 5), round(gelu.bias_variance, 5), round(gelu.mean_square, 4)
    (1.98306, 0.17292, 3.5616)
    >>> tanh = critical_point(torch.tanh)
    >>> round(tanh.weight_variance, 5), tanh.bias_variance, tanh.mean_square
    (1.0, 0.0, 0.0)
    """
    if activation is None or isinstance(activation, nn.Identity):
        return CriticalPoint(1.0, 0.0, None)
    slope_square = _random_or_many_slopes(activation)
    if slope_square is not None:
        return CriticalPoint(2 / (1 + slope_square), 0.0, None)
    values = _values_at_probe(activation)
    key = values.tobytes()
    if key not in _KNOWN:
        _KNOWN[key] = _homogeneous(values) or _solve(activation)
    return _KNOWN[key]


def _random_or_many_slopes(activation: Activation) -> float | None:
    """Mean square of the slope below zero, for modules that have more than one."""
    if isinstance(activation, nn.PReLU):
        return float(activation.weight.detach().double().square().mean())
    if isinstance(activation, nn.RReLU) and activation.training:
        low, high = activation.lower, activation.upper
        return (low**2 + low * high + high**2) / 3
    return None


def _values_at_probe(activation: Activation) -> np.ndarray:
    """Values that tell one activation from another; checks that it is one."""
    values, _ = _evaluate(activation, _PROBE)
    half = len(_PROBE) // 2
    parts = [_evaluate(activation, part)[0] for part in (_PROBE[:half], _PROBE[half:])]
    # The smallest numbers come out otherwise where a processor takes several at once.
    if not np.allclose(values, np.concatenate(parts), rtol=1e-4, atol=1e-30, equal_nan=True):
        raise DGLError(
            f"{activation_name(activation)} is not a fixed function of each entry by itself "
            "(softmax, normalization and dropout are not), so it has no critical scale of its own. "
            "Put it in a layer of its own; the measured initialization, critical_(model, graph, "
            "feat), takes any layer."
        )
    return values


def _evaluate(activation: Activation, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values and derivatives."""
    like = next(activation.parameters(), None) if isinstance(activation, nn.Module) else None
    device = None if like is None else like.device
    error: Exception | None = None
    # Some functions want the type of their parameters.
    for dtype in (torch.float64, torch.float32):
        inputs = torch.tensor(x, dtype=dtype, device=device, requires_grad=True)
        try:
            with torch.enable_grad():
                values = activation(inputs.clone())  # a copy, as it may work in place
                if values.shape == inputs.shape:
                    (slopes,) = torch.autograd.grad(values.sum(), inputs)
                    return (
                        values.detach().double().cpu().numpy(),
                        slopes.double().cpu().numpy(),
                    )
                error = ValueError(f"{len(inputs)} numbers became {tuple(values.shape)}")
        except Exception as raised:  # whatever a user's function raises
            error = raised
    raise DGLError(
        f"{activation_name(activation)} could not be used as an activation: {error}. It must be a "
        "differentiable function of each entry by itself, written with PyTorch's operations."
    )


def _homogeneous(values: np.ndarray) -> CriticalPoint | None:
    """Critical point of a function that is linear on either side of zero, or None."""
    slopes = values / _PROBE
    noise = 1e-6 * np.abs(slopes).max()
    if not 0 < noise < np.inf or any(
        np.ptp(slopes[side]) > noise for side in (_PROBE > 0, _PROBE < 0)
    ):
        return None
    # At +1 and -1, where the slope is not rounded.
    above, below = (float(values[np.argmin(np.abs(_PROBE - side))]) for side in (1.0, -1.0))
    return CriticalPoint(2 / (above**2 + below**2), 0.0, None)


def _means(activation: Activation, mean_square: float) -> tuple[float, float, float]:
    r""":math:`\langle\phi^2\rangle_K`, its derivative in K, and :math:`\langle\phi'^2\rangle_K`."""
    values, slopes = _evaluate(activation, np.sqrt(mean_square) * _NODES)
    square = _WEIGHTS * values**2
    # The tails that are left out must not count.
    if square[0] + square[-1] > 1e-9 * max(square.sum(), mean_square):
        return np.nan, np.nan, np.nan
    # The derivative of the density: no second derivative of the activation is needed.
    change = square @ (_NODES**2 - 1) / (2 * mean_square)
    return float(square.sum()), float(change), float(_WEIGHTS @ slopes**2)


def _solve(activation: Activation) -> CriticalPoint:
    def bend(mean_square: float) -> float:
        """Difference of the two conditions on the variance of the weights."""
        _, change, slope_square = _means(activation, mean_square)
        return change - slope_square

    _, changes, slope_squares = np.array([_means(activation, k) for k in _MEAN_SQUARES]).T
    if not np.isfinite(slope_squares).all():
        raise _no_critical_point(
            activation, "it has no finite mean square for inputs of every size"
        )
    bends = changes - slope_squares
    clear = np.flatnonzero(np.abs(bends) > _NOISE * slope_squares.max())
    for left, right in pairwise(clear):
        if bends[left] * bends[right] < 0:
            mean_square = brentq(bend, _MEAN_SQUARES[left], _MEAN_SQUARES[right], xtol=1e-13)
            square, _, slope_square = _means(activation, mean_square)
            bias_variance = mean_square - square / slope_square
            if bias_variance > -_NOISE * mean_square:
                return CriticalPoint(1 / slope_square, max(bias_variance, 0.0), mean_square)
    (at_zero,), _ = _evaluate(activation, np.zeros(1))
    _, _, slope_square = _means(activation, 1e-24)
    if at_zero != 0:
        raise _no_critical_point(activation, f"it is {at_zero:.3g} at 0 and keeps no mean square")
    if len(clear) == 0 or bends[clear[0]] > 0 or slope_square == 0:
        raise _no_critical_point(activation, "it bends away from zero and keeps no mean square")
    return CriticalPoint(1 / slope_square, 0.0, 0.0)


def _no_critical_point(activation: Activation, reason: str) -> DGLError:
    return DGLError(
        f"{activation_name(activation)} has no critical point ({reason}): no variance of the "
        "weights keeps both outputs and gradients at order one. Use GELU, SiLU, tanh or a kind of "
        "ReLU between the layers, or let the features decide: critical_(model, graph, feat)."
    )


def mean_activation(activation: Activation, mean_square: float) -> float:
    r"""Mean square behind an activation, :math:`\langle\phi^2\rangle_K`.

    Examples
    --------
    >>> round(mean_activation(torch.relu, 3.0), 9)
    1.5
    """
    return _means(activation, mean_square)[0]


def activation_name(activation: Activation | None) -> str:
    """Name of an activation, for messages.

    Examples
    --------
    >>> activation_name(nn.GELU()), activation_name(torch.tanh), activation_name(None)
    ('GELU', 'tanh', 'no activation')
    """
    if activation is None:
        return "no activation"
    if isinstance(activation, partial):
        return activation_name(activation.func)
    if isinstance(activation, nn.Module):
        return type(activation).__name__
    return getattr(activation, "__name__", None) or repr(activation)
