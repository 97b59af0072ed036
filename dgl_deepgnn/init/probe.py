"""Whether a model does at the start what the closed form promises: a probe runs through it."""

from __future__ import annotations

import math
import statistics
import warnings
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import GraphContext, Stage, is_dgl_layer
from dgl_deepgnn.init.levels import Levels
from dgl_deepgnn.init.measured import OF_BATCH_NORM
from dgl_deepgnn.init.running import as_called, first_tensor, mean_square, undisturbed
from dgl_deepgnn.init.statistics import on_other_features, set_statistics, tracking
from dgl_deepgnn.init.tracing import Trace, trace

__all__ = [
    "OF_GRAPHS",
    "Probe",
    "check",
    "find_probe",
    "warn_of_batch",
    "warn_of_no_probe",
    "warn_of_spread",
]

_DEVIATIONS = 3.5  # of one draw
_ROWS = 64  # of a probe without graph
_LOST = 1e-3
_APART = 1e3
OF_GRAPHS = (
    "Use a normalised aggregation, or dgl_deepgnn.ResGINConv and ResGraphConv, whose operator "
    "divides each graph by its own radius."
)
_MEASURED = (
    "Let the features decide, critical_(model, graph, feat) or critical_(model, forward=...); or "
    "describe what is written by hand (register_initializer), or start residual branches at zero "
    "(fixup_(model, branches, graph), with the submodules whose outputs are added)."
)


@dataclass(frozen=True)
class Probe:
    """Features that the model takes, and what one run on them met."""

    feat: Tensor
    trace: Trace


def find_probe(
    module: nn.Module, stages: list[Stage], context: GraphContext
) -> tuple[Probe | None, str]:
    """Probe that runs through a model, or None and the reason.

    Features are standard normal, and rows are half alike, as deep features are, so that aggregation
    averages little away.
    """
    problem = "it takes no features"
    for feat in _probes(module, stages, context):
        forward = partial(_call, module, context)
        try:
            with undisturbed(module, context.graph, training=False):
                return Probe(feat, trace(module, forward, feat)), ""
        except Exception as error:  # the model is called in another way, or wants other features
            if problem == "it takes no features":
                problem = f"{type(error).__name__}: {error}"
    return None, problem.splitlines()[0][:200]


def check(
    module: nn.Module,
    stages: list[Stage],
    context: GraphContext,
    probe: Probe,
    levels: Levels,
    stacklevel: int,
) -> None:
    r"""Run a probe through a model and see that it stays at the levels that were drawn for.

    One draw of L weights of width n fluctuates: the logarithm of its mean square has about the
    variance :math:`5 L / n` and half of it below zero as mean. What is allowed beyond the levels'
    own bounds are 3.5 standard deviations. Batch normalization in evaluation mode, with the
    statistics of a pass, is warned of where it leaves order one: no weights would mend it.

    Raises
    ------
    DGLError
        If the features entering a layer, or the output, leave these bounds.
    """
    spread = spread_of(stages)
    for training in (False, True):
        rows = _run(module, probe.feat, context, training)
        for index, (name, square) in enumerate(rows, start=1):
            _judge(module, name, square, index / len(rows) * spread, levels)
    norms = tracking(module)
    if norms:
        _judge_statistics(module, norms, context, probe, stacklevel + 1)


def _judge_statistics(
    module: nn.Module, norms: list[Any], context: GraphContext, probe: Probe, stacklevel: int
) -> None:
    """Batch normalization in evaluation mode, with the statistics of a pass in training mode."""
    before = [(b, b.clone()) for norm in norms for b in norm.buffers()]
    set_statistics(norms, lambda: _run(module, probe.feat, context, True))
    with on_other_features(norms):
        _, square = _run(module, probe.feat, context, False)[-1]
    for buffer, value in before:
        buffer.copy_(value)
    if not 1 / _APART < square < _APART:
        warnings.warn(
            f"In evaluation mode, with the statistics of one pass, the {type(module).__name__} "
            f"ends at a mean square of {square:.2g} on other features. {OF_BATCH_NORM}",
            stacklevel=stacklevel,
        )


def warn_of_no_probe(module: nn.Module, reason: str, levels: Levels, stacklevel: int) -> None:
    """Say so where nothing could be checked, and what was taken for granted."""
    taken = "taken for granted, as none was found" if levels.assumed else "what the model holds"
    warnings.warn(
        f"Nothing was checked: the {type(module).__name__} did not run on a probe "
        f"({reason}). Activation between the layers: {levels.words}, {taken}. Whether the closed "
        "form fits, residual connections, activations and sums written by hand included, can be "
        "told with features: critical_(model, graph, feat) or critical_(model, forward=lambda "
        "model: model(...)).",
        stacklevel=stacklevel,
    )


def spread_of(stages: list[Stage]) -> float:
    """Variance of the logarithm of one draw's mean square, between the first and last layer."""
    return sum(5 / max(stage[0].fan_in, 1) for stage in stages[1:] if stage)


def warn_of_spread(
    module: nn.Module, stages: list[Stage], orthogonal: bool, stacklevel: int
) -> None:
    """Say so where one draw tells little about the mean over draws."""
    factor = 3 if orthogonal else 5
    spread = spread_of(stages) * factor / 5
    if spread <= 1:
        return
    width = statistics.median(stage[0].fan_in for stage in stages[1:] if stage)
    advice = "widen it, measure (critical_(model, graph, feat) scales the draw at hand)"
    if not orthogonal:
        less = math.exp(math.sqrt(0.6 * spread))
        advice += f", or draw with orthogonal=True (a factor of {less:.1f})"
    warnings.warn(
        f"{len(stages)} layers of width {width:g}: the mean square of one draw scatters around its "
        f"mean by a factor of {math.exp(math.sqrt(spread)):.1f} (standard deviation of the "
        f"logarithm: sqrt({factor} depth / width) = {math.sqrt(spread):.1f}), so that "
        f"the output may be small or large by luck. To have less of it, {advice}.",
        stacklevel=stacklevel,
    )


def warn_of_batch(context: GraphContext, stacklevel: int) -> None:
    """Say so where one scale cannot serve all graphs of a batch."""
    for radii, depth in context.radii_of_graphs():
        left = (radii / radii.max()).pow(2 * depth)
        share = (left < _LOST).double().mean().item()
        if share > 0:
            warnings.warn(
                f"One scale cannot serve all graphs of the batch: the spectral radii of their sums "
                f"over neighbours are {radii.min():.3g} to {radii.max():.3g}, and after {depth} "
                f"layers less than {_LOST:g} of the mean square is left on {share:.0%} of them. "
                f"{OF_GRAPHS}",
                stacklevel=stacklevel,
            )


def _probes(module: nn.Module, stages: list[Stage], context: GraphContext) -> list[Tensor]:
    """Features that the model may take, the likeliest first."""
    generator = torch.Generator().manual_seed(0)
    nodes = _ROWS if context.graph is None else context.graph.num_nodes()
    parameter = next(p for p in module.parameters())
    embedding = next((p for p in module.modules() if isinstance(p, nn.Embedding)), None)
    probes: list[Tensor] = []
    widths = dict.fromkeys(m.fan_in for stage in stages for m in stage)
    for width in list(widths)[:3]:
        common = torch.randn(1, width, generator=generator)
        own = torch.randn(nodes, width, generator=generator)
        probes.append(((common + own) / math.sqrt(2)).to(parameter))
    if embedding is not None:
        ids = torch.randint(embedding.num_embeddings, (nodes,), generator=generator)
        probes.insert(0, ids.to(parameter.device))
    return probes


def _call(module: nn.Module, context: GraphContext, feat: Tensor) -> object:
    return as_called(context.graph, feat, context.edge_weight, None)(module)


def _run(
    module: nn.Module, feat: Tensor, context: GraphContext, training: bool
) -> list[tuple[str, float]]:
    """Mean square of what enters each layer and of what comes out."""
    rows: list[tuple[str, float]] = []

    def enter(name: str) -> Any:
        def hook(part: nn.Module, args: Any, kwargs: Any) -> None:
            features = first_tensor([*args, *kwargs.values()])
            if features is not None:
                rows.append((f"what enters {name!r}", mean_square(features)))

        return hook

    handles = [
        part.register_forward_pre_hook(enter(name), with_kwargs=True)
        for name, part in _outermost(module, "")
    ]
    forward = as_called(context.graph, feat, context.edge_weight, None)
    try:
        with undisturbed(module, context.graph, training=training):
            out = first_tensor(forward(module))
    finally:
        for handle in handles:
            handle.remove()
    if out is None:
        raise DGLError("it returns no features")
    mode = "training" if training else "evaluation"
    rows.append(("the output", mean_square(out)))
    return [(f"{name} (in {mode} mode)", square) for name, square in rows]


def _outermost(module: nn.Module, path: str) -> list[tuple[str, nn.Module]]:
    if is_dgl_layer(module) or any(p.dim() >= 2 for p in module.parameters(recurse=False)):
        return [(path, module)] if path else []
    return [
        layer
        for name, child in module.named_children()
        for layer in _outermost(child, f"{path}.{name}" if path else name)
    ]


def _judge(module: nn.Module, name: str, square: float, variance: float, levels: Levels) -> None:
    least, most = levels.leaving if name.startswith("the output") else levels.entering
    deviation = _DEVIATIONS * math.sqrt(variance)
    low, high = math.log(least) - variance / 2 - deviation, math.log(most) + deviation
    if square > 0 and low < math.log(square) < high:
        return
    kind = "explodes" if square > most else "vanishes"
    raise DGLError(
        f"The closed form does not fit this {type(module).__name__}: of standard normal features "
        f"the mean square of {name} is {square:.2g}, where the theory expects "
        f"{math.exp(low):.1g} to {math.exp(high):.1g} ({levels.words} between the layers). The "
        f"signal {kind}: the closed form takes layers one after another, and does not see residual "
        f"connections, dropout, attention or sums written by hand. {_MEASURED} The weights are "
        "what they were."
    )
