"""Critical initialization by measuring: weights are scaled where the model multiplies with them."""

from __future__ import annotations

import math
import statistics
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import Stage, is_dgl_convolution
from dgl_deepgnn.init.memory import multiply
from dgl_deepgnn.init.products import Products, Scaled
from dgl_deepgnn.init.reused import GivenUp
from dgl_deepgnn.init.running import Forward, first_tensor, mean_square, undisturbed
from dgl_deepgnn.init.statistics import on_other_features, set_statistics, tracking
from dgl_deepgnn.init.tracing import Trace, trace

__all__ = ["OF_BATCH_NORM", "measure"]

_LEAST, _MOST = 1e-4, 1e4  # mean square of the output; unscaled residual sums have that of depth
_DRAWS = 8  # of dropout's masks
_TRIES = 4  # to bring the output to one
_RUNS = 6  # more, at most, where a layer that is used again and again grows from use to use
_SCATTER = 1000.0  # of those draws, without the largest and the smallest
_APART = 30.0  # of training and evaluation mode
_LARGER = 1000.0  # what features twice as large may make of the output's mean square; linearly 4
_SEE = "Layer by layer: dgl_deepgnn.diagnose(model, graph, feat)."
OF_BATCH_NORM = (
    "Batch normalization in every layer multiplies what differs between the nodes, and with it "
    "what differs from the batches that its statistics are of, whatever the scale of the weights. "
    "Use LayerNorm, or residual connections around the layers."
)


def measure(
    module: nn.Module,
    stages: Iterable[Stage],
    forward: Forward,
    arguments: tuple[object, ...] = (),
) -> None:
    """Run the model in training mode and scale each weight where it is first multiplied.

    Once, if its activations are homogeneous. Those that ask for a mean square of their own are seen
    only after the weights in front of them are scaled: then it runs once more; with sigmoids it is
    traced in between, which tells gates from others. Where one layer is used again and again and
    what it makes grows from use to use, it runs a few times more, with other starts. Batch
    normalization gets the running statistics of these features. At last it runs in evaluation mode,
    and on features twice as large: where that is far from training mode, a warning says so.

    Parameters
    ----------
    module : nn.Module
        The model; its known weights are drawn already.
    stages : iterable of list of LinearMap
        Its known maps: their shares of a sum, and factors such as Fixup's, are kept.
    forward : callable
        ``forward(module)`` calls it.
    arguments : tuple
        What may hold graphs that the call writes to.

    Raises
    ------
    DGLError
        If a product is not finite, or no weight is multiplied with anything.
    """
    if any(map(nn.parameter.is_lazy, module.parameters())):
        with undisturbed(module, forward, arguments, training=False):
            forward(module)  # it gives every weight its shape

    def run(training: bool, draw: int | None = None) -> float:
        with undisturbed(module, forward, arguments, training=training):
            if draw is not None:  # other masks of dropout
                torch.manual_seed(draw)
            out = first_tensor(forward(module))
        square = math.nan if out is None else mean_square(out)
        return math.inf if out is not None and math.isnan(square) else square

    scatter = (1.0, 1.0)

    def typical() -> float:
        """Mean square of the output in training mode, with dropout the median of some draws."""
        nonlocal scatter
        squares = [run(True, 0), run(True, 1)]
        if squares[0] == squares[1] or not all(0 < value < math.inf for value in squares):
            return squares[0]
        squares += [run(True, draw) for draw in range(2, _DRAWS)]
        squares.sort()
        scatter = squares[1], squares[-2]
        return statistics.median(squares)  # single draws of attention's masks may explode

    def scale() -> None:
        mode.forget()
        with mode, suppress(GivenUp):
            run(training=True)

    mode = Products(module, stages)
    handles = mode.watch_layers()
    try:
        for _ in range(2):
            scale()
            if not mode.scaled:
                raise DGLError(
                    f"No weight of the {type(module).__name__} met a feature that is not zero, so "
                    "that nothing could be measured: feat must be finite and not all zero, and "
                    "forward must call the model."
                )
            if not mode.ask_again(lambda: _traced(module, forward, arguments)):
                break
        for left in reversed(range(_RUNS)):
            if not mode.reused.choose(last=left == 0):
                break
            scale()
    finally:
        for handle in handles:
            handle.remove()
    last = mode.scaled[-1]
    square = typical()
    if last.key not in mode.points:
        square = _scale_output(last, square, typical)
    norms = tracking(module)
    if norms:
        set_statistics(norms, lambda: run(training=True))
    if scatter[1] > _SCATTER * scatter[0]:
        warnings.warn(
            f"Measured, the {type(module).__name__} ends at a mean square of {scatter[0]:.2g} "
            f"under one draw of dropout and of {scatter[1]:.2g} under another: no scale serves "
            f"both. Drop less, of attention above all, or normalize between the layers. {_SEE}",
            stacklevel=3,
        )
        return
    _report(module, square, run, norms)


def _traced(module: nn.Module, forward: Forward, arguments: tuple[object, ...]) -> Trace:
    """What stands between the weights of the model in training mode."""

    def enter(part: nn.Module, args: Any, kwargs: Any) -> Any:
        return _followed(args), _followed(kwargs)

    parts = [*module.modules()]
    handles = [part.register_forward_pre_hook(enter, with_kwargs=True) for part in parts]
    try:
        with undisturbed(module, forward, arguments, training=True):
            return trace(module, lambda feat: forward(module), torch.ones(1))
    finally:
        for handle in handles:
            handle.remove()


def _followed(value: Any) -> Any:
    """Features that no weight has met yet, known to autograd: else they count as no features."""
    if isinstance(value, Tensor):
        known = value.requires_grad or not value.is_floating_point()
        return value if known else value.detach().requires_grad_().clone()
    if type(value) in (list, tuple):
        return type(value)(map(_followed, value))
    if type(value) is dict:
        return {key: _followed(part) for key, part in value.items()}
    return value


def _scale_output(last: Scaled, square: float, measured: Callable[[], float]) -> float:
    """Bring the output to mean square one by the last weight, if it depends on that alone.

    A mean over heads, or propagation behind the last weight, takes something away; dropout drew
    other masks while the weights were scaled.
    """
    new, factor = square, 1.0
    for _ in range(_TRIES):  # attention gets sharper with its weights
        if not 0 < new < math.inf:
            break
        if 0.5 < new < 2:
            return new
        multiply(last.handles, new**-0.5)
        factor *= new**-0.5
        new = measured()
    if 0.5 < new < 2:
        return new
    multiply(last.handles, 1 / factor)
    return square


def _report(
    module: nn.Module,
    square: float,
    run: Callable[[bool], float],
    norms: list[nn.modules.batchnorm._BatchNorm],
) -> None:
    """Say so where the output is far from order one, in training or in evaluation mode."""
    if math.isnan(square):
        return  # it returns no features
    name = type(module).__name__
    if not _LEAST < square < _MOST:
        warnings.warn(
            f"Measured, the {name} still ends at a mean square of {square:.2g}: "
            "something in it scales the features where no weight is multiplied with them, such as "
            f"a gate, or an output that starts at zero. {_SEE}",
            stacklevel=4,
        )
        return
    with on_other_features(norms):
        evaluated = run(False)
    if 1 / _APART < evaluated / square < _APART:
        with on_other_features(_with_weights(module), lambda feat: 2 * feat):
            doubled = run(False)
        if not 1 / _LARGER < doubled / square < _LARGER:
            warnings.warn(
                f"Measured, the {name} ends at a mean square of {square:.2g}, but of features "
                f"twice as large at {doubled:.2g}: what is larger is multiplied by more, in every "
                "layer anew, such as in products of features with each other. Other features than "
                f"these will not stay at order one. Normalize them between the layers. "
                f"{_SEE}",
                stacklevel=4,
            )
        return
    ends = (
        f"Measured, the {name} ends at a mean square of {square:.2g} in training mode and of "
        f"{evaluated:.2g} in evaluation mode"
    )
    if norms:
        warnings.warn(
            f"{ends}, on other features than its statistics are of. {OF_BATCH_NORM}", stacklevel=4
        )
    else:
        warnings.warn(
            f"{ends}: dropout adds to the mean square in every layer, and one scale cannot serve "
            f"both modes. Drop less, or in fewer layers, or normalize them. {_SEE}",
            stacklevel=4,
        )


def _with_weights(module: nn.Module) -> list[nn.Module]:
    """Layers, the outer ones in front of those inside."""
    return [
        part
        for part in module.modules()
        if is_dgl_convolution(part) or any(p.dim() > 1 for p in part.parameters(recurse=False))
    ]
