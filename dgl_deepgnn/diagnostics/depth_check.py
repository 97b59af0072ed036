"""Whether a model's first steps are alike at every depth and width."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgl_deepgnn.diagnostics.recording import first_features, layers_of, replicate
from dgl_deepgnn.diagnostics.trends import Axis, Trend, fit_trend, verdict
from dgl_deepgnn.diagnostics.verdicts import number
from dgl_deepgnn.errors import DGLError

__all__ = ["DepthCheck", "Run", "Trend", "depth_check"]

QUANTITIES = {
    "features": "features that enter the last layer, at the start",
    "update": "their change by the first steps",
    "scores": "scores, at the start",
    "scores' update": "their change by the first steps",
    "gradient": "gradient in the first layer's weights, at the start",
}
ROWS = 512
"""Nodes on which features are compared at most, evenly spaced."""


@dataclass(frozen=True)
class Run:
    """The first steps of one model.

    Parameters
    ----------
    depth, width, seed : int
        Which one.
    layers : list of str
        Names of the layers in the order of execution; "output" last.
    features : numpy.ndarray
        Root mean square of the features that enter each layer, and of the output, before each
        step and after the last, shape (steps + 1, rows).
    updates : numpy.ndarray
        Root mean square of their change since the start, shape (steps + 1, rows).
    gradients : numpy.ndarray
        Norm of the loss's gradient in each layer's weight matrices, shape (steps, rows - 1).
    """

    depth: int
    width: int
    seed: int
    layers: list[str]
    features: np.ndarray
    updates: np.ndarray
    gradients: np.ndarray

    def value(self, quantity: str) -> float:
        """One number for each of `QUANTITIES`."""
        return float(
            {
                "features": self.features[0, -2],
                "update": self.updates[-1, -2],
                "scores": self.features[0, -1],
                "scores' update": self.updates[-1, -1],
                "gradient": self.gradients[0, 0],
            }[quantity]
        )


@dataclass(frozen=True)
class DepthCheck:
    """What :func:`depth_check` measured.

    Parameters
    ----------
    runs : list of Run
        Every depth at the first width and every width at the first depth, by seed.
    trends : list of Trend
        Verdicts: each quantity along depth and along width.
    """

    runs: list[Run]
    trends: list[Trend]

    def along(self, axis: Axis) -> list[Run]:
        """Runs in which only depth, or only width, differs."""
        other = "width" if axis == "depth" else "depth"
        fixed = getattr(self.runs[0], other)
        return [run for run in self.runs if getattr(run, other) == fixed]

    def trend(self, axis: Axis, quantity: str) -> Trend:
        """Verdict on one quantity along one axis.

        Raises
        ------
        DGLError
            If there is none of that name, or only one size along the axis was measured.
        """
        for trend in self.trends:
            if (trend.axis, trend.quantity) == (axis, quantity):
                return trend
        found = ", ".join(f"{t.axis} {t.quantity!r}" for t in self.trends)
        raise DGLError(f"There is no verdict on {quantity!r} along {axis}. There are: {found}.")

    def verdict(self, axis: Axis) -> str:
        """One paragraph: whether the first steps carry over along an axis, and what to change."""
        return verdict(axis, self.trends)

    def table(self) -> str:
        """Means over the seeds by size, the fitted powers, and a verdict along each axis."""
        lines: list[str] = []
        axes: tuple[Axis, ...] = ("depth", "width")
        for axis in axes:
            runs = self.along(axis)
            sizes = sorted({getattr(run, axis) for run in runs})
            if len(sizes) < 2:
                continue
            other = "width" if axis == "depth" else "depth"
            title = f"{axis} (at {other} {getattr(runs[0], other)})"
            lines.append(
                f"{title:24}" + "".join(f"{size:>11}" for size in sizes) + f"{'power':>26}"
            )
            for quantity in QUANTITIES:
                cells = [
                    np.mean([run.value(quantity) for run in runs if getattr(run, axis) == size])
                    for size in sizes
                ]
                trend = self.trend(axis, quantity)
                text = "".join(f"{number(float(cell)) or 'nan':>11}" for cell in cells)
                lines.append(f"{quantity:24}{text}  {trend.text:>24}")
            lines.append("")
        judged = {trend.axis for trend in self.trends}
        return "\n".join([*lines, *(self.verdict(axis) for axis in axes if axis in judged)])

    __str__ = table

    def to_dict(self) -> dict[str, Any]:
        """Everything measured, ready for JSON (None where it is not finite)."""
        return {
            "trends": [
                {k: _jsonable(v) if isinstance(v, float) else v for k, v in vars(trend).items()}
                for trend in self.trends
            ],
            "verdicts": {"depth": self.verdict("depth"), "width": self.verdict("width")},
            "runs": [
                {
                    k: [[_jsonable(x) for x in row] for row in v]
                    if isinstance(v, np.ndarray)
                    else v
                    for k, v in vars(run).items()
                }
                for run in self.runs
            ],
        }

    def plot(self, path: str | Path) -> None:
        """Draw features, updates and gradients by layer, a line a size, into a PNG file."""
        from dgl_deepgnn.diagnostics.depth_plot import draw

        draw(self, path)


def depth_check(
    make_model: Callable[[int, int], nn.Module],
    data: tuple[Any, Tensor, Tensor] | None,
    depths: Sequence[int] = (8, 32, 128),
    widths: Sequence[int] = (16, 64, 256),
    *,
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    forward: Callable[[nn.Module], Tensor] | None = None,
    loss: Callable[[Tensor], Tensor] | None = None,
    steps: int = 3,
    seeds: int = 4,
) -> DepthCheck:
    r"""Compare the first steps of a model over depth and width.

    Where the change of features and scores by the first steps does not depend on the size, the
    best learning rate hardly does. Along width this is the coordinate check of mup (Yang et al.,
    arXiv:2203.03466); along depth it shows how the moves of all layers add up. Models are trained
    with dropout off, on copies; they, and PyTorch's random state, are not changed.

    Parameters
    ----------
    make_model : callable
        ``make_model(num_layers, hidden_feats)`` returns a model, drawn by PyTorch's global
        generator, which is seeded before.
    data : tuple
        Graph, node features of shape (N, ...) and labels of shape (N, ...): whole numbers are
        classes (cross-entropy; in the shape of the scores, true or not: binary cross-entropy),
        floats a regression (mean square). None with `forward` and `loss`.
    depths, widths : sequence of int
        Sizes. Depth is changed at the first width, width at the first depth.
    make_optimizer : callable, optional
        ``make_optimizer(model)``; by default Adam with a learning rate of 0.001 for all.
    forward : callable, optional
        How a model is called: ``forward(model)`` returns the scores. By default
        ``model(graph, feat)``.
    loss : callable, optional
        ``loss(scores)``, in place of the labels'.
    steps : int
        Number of optimizer steps.
    seeds : int
        Number of random draws; the intervals of the powers come from them.

    Returns
    -------
    DepthCheck
        Print it, or call its ``verdict("depth")``, ``plot(path)`` or ``to_dict()``.

    Raises
    ------
    DGLError
        If an argument is not what it should be, there is nothing to compare, no layer is found, or
        the optimizer holds none of the model's parameters.

    Examples
    --------
    >>> import dgl
    >>> from dgl_deepgnn import ResGCN
    >>> from dgl_deepgnn.optim import param_groups
    >>> graph, feat = dgl.rand_graph(40, 200).add_self_loop(), torch.randn(40, 8)
    >>> result = depth_check(
    ...     lambda depth, width: ResGCN(8, width, 3, depth),
    ...     (graph, feat, torch.randint(3, (40,))),
    ...     depths=(6, 66),
    ...     widths=(16,),
    ... )
    >>> result.trend("depth", "update").status
    'grows'
    """
    depths, widths = _counts("depths", depths), _counts("widths", widths)
    _counts("steps, seeds", (steps, seeds))
    if len(set(depths)) + len(set(widths)) < 3:
        raise DGLError("depths or widths must hold two sizes at least, else nothing is compared.")
    if data is None:
        if forward is None or loss is None:
            raise DGLError("Give data, a tuple of graph, features and labels, or forward and loss.")
    else:
        if len(data) != 3:
            raise DGLError(f"data must be graph, features and labels, got {len(data)} things.")
        graph, feat, labels = data
        forward = forward or (lambda model: model(graph, feat))
        loss = loss or _loss_of(labels)

    sizes = [(depth, widths[0]) for depth in dict.fromkeys(depths)]
    sizes += [(depths[0], width) for width in dict.fromkeys(widths) if width != widths[0]]
    runs = []
    networks: dict[tuple[Any, ...], tuple[int, int]] = {}
    with torch.random.fork_rng(range(torch.cuda.device_count())), torch.enable_grad():
        for depth, width in sizes:
            for seed in range(seeds):
                torch.manual_seed(seed)
                made = make_model(depth, width)
                if not isinstance(made, nn.Module):
                    raise DGLError(f"make_model({depth}, {width}) returned {made!r}, not a module.")
                model = replicate(made)
                if any(map(nn.parameter.is_lazy, model.parameters())):
                    forward(model)  # gives lazy layers their shapes
                optimizer = _optimizer_of(model, make_optimizer)
                parts = _first_steps(model, optimizer, forward, loss, steps)
                shapes = tuple(p.shape for p in model.parameters())
                other = networks.setdefault((shapes, *parts[0]), (depth, width))
                if other != (depth, width):
                    raise DGLError(
                        f"make_model{other} and make_model{depth, width} return the same network: "
                        "it must have so many layers, and be so wide."
                    )
                runs.append(Run(depth, width, seed, *parts))
    check = DepthCheck(runs, [])
    axes: tuple[Axis, ...] = ("depth", "width")
    trends = [
        _trend(axis, quantity, check.along(axis))
        for axis, some in zip(axes, (depths, widths), strict=True)
        for quantity in QUANTITIES
        if len(set(some)) > 1
    ]
    return DepthCheck(runs, trends)


def _trend(axis: Axis, quantity: str, runs: list[Run]) -> Trend:
    values: dict[int, list[float]] = {}
    for run in runs:
        values.setdefault(getattr(run, axis), []).append(run.value(quantity))
    # The features that enter an only layer are the data.
    moves = quantity == "scores' update" or (
        quantity == "update" and all(len(run.layers) > 2 for run in runs)
    )
    return fit_trend(axis, quantity, values, moves=moves)


def _counts(name: str, values: Any) -> list[int]:
    try:
        counts = [operator.index(value) for value in values]
    except TypeError:
        raise DGLError(f"{name} must be whole numbers, such as (8, 32), got {values!r}.") from None
    if not counts or min(counts) < 1:
        raise DGLError(f"{name} must be at least 1, got {tuple(counts)}.")
    return counts


def _loss_of(labels: Tensor) -> Callable[[Tensor], Tensor]:
    def loss(scores: Tensor) -> Tensor:
        if labels.is_floating_point():
            return F.mse_loss(scores.reshape(labels.shape), labels)
        if labels.ndim > 1 and labels.shape == scores.shape:  # several that are true or not
            return F.binary_cross_entropy_with_logits(scores, labels.to(scores.dtype))
        return F.cross_entropy(scores, labels.reshape(len(scores)).long())

    return loss


def _optimizer_of(
    model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None
) -> torch.optim.Optimizer:
    """An optimizer of the model's own parameters."""
    trained = [p for p in model.parameters() if p.requires_grad]
    if not trained:
        raise DGLError(f"{type(model).__name__} has no parameters that are trained.")
    if make_optimizer is None:
        return torch.optim.Adam(trained, lr=1e-3)
    optimizer = make_optimizer(model)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise DGLError(f"make_optimizer must return an optimizer of torch.optim, got {optimizer!r}")
    if isinstance(optimizer, torch.optim.LBFGS):
        raise DGLError("LBFGS evaluates the loss by itself, many times a step: take another one.")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not held & {id(p) for p in trained}:
        raise DGLError(
            "make_optimizer(model) returned an optimizer of none of the model's parameters: it is "
            "called with a copy of what make_model returned, and must take that one's."
        )
    return optimizer


def _first_steps(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    forward: Callable[[nn.Module], Tensor],
    loss: Callable[[Tensor], Tensor],
    steps: int,
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Train, and measure before every step and after the last."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.train()  # its running statistics are not yet those of any data
    layers = {name: layer for name, layer, _ in layers_of(model)}
    seen: list[tuple[str, Tensor]] = []

    def enter(name: str) -> Callable[..., None]:
        def note(module: nn.Module, args: Any, kwargs: Any) -> None:
            feat = first_features((*args, *kwargs.values()))
            if feat is not None:
                seen.append((name, _thinned(feat)))

        return note

    handles = [
        layer.register_forward_pre_hook(enter(name), with_kwargs=True)
        for name, layer in layers.items()
    ]
    features, updates, gradients = [], [], []
    start: list[Tensor] = []
    try:
        for step in range(steps + 1):
            seen.clear()
            scores = forward(model)
            if not isinstance(scores, Tensor):
                raise DGLError(
                    f"{type(model).__name__} returns a {type(scores).__name__}, not one tensor of "
                    "scores: forward=lambda model: model(...)[0] can pick it."
                )
            names, values = [name for name, _ in seen], [feat for _, feat in seen]
            if not names:
                raise DGLError(
                    f"No layer of {type(model).__name__} was found that takes features and holds "
                    "weights; depth_check needs a model that is called through its submodules."
                )
            values.append(_thinned(scores))
            start = start or values
            features.append([_size(value) for value in values])
            pairs = zip(values, start, strict=True)
            updates.append([_size(value - first) for value, first in pairs])
            if step < steps:
                optimizer.zero_grad()
                loss(scores).backward()
                gradients.append([_gradient(layers[name]) for name in names])
                optimizer.step()
    finally:
        for handle in handles:
            handle.remove()
    return [*names, "output"], np.array(features), np.array(updates), np.array(gradients)


def _thinned(feat: Tensor) -> Tensor:
    feat = feat.detach()
    if feat.layout != torch.strided:
        feat = feat.to_dense()
    return feat[:: -(-len(feat) // ROWS)].double().clone()


def _size(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def _gradient(layer: nn.Module) -> float:
    squares = [
        float(p.grad.double().square().sum())
        for p in layer.parameters()
        if p.grad is not None and p.dim() >= 2
    ]
    return math.sqrt(sum(squares))


def _jsonable(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
