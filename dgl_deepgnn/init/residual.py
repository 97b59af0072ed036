"""Residual branches that start at zero: Fixup and ReZero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.branches import find_branches, start_outputs_at_zero
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    WithoutGraph,
    collect_stages,
    fixup_branch,
    require_module,
)
from dgl_deepgnn.init.measured import measure
from dgl_deepgnn.init.running import Forward, as_called, kept_on_error
from dgl_deepgnn.init.schemes import critical_std, draw

__all__ = ["fixup_", "rezero_"]

M = TypeVar("M", bound=nn.Module)


def fixup_(
    module: M,
    branches: Iterable[nn.Module] | None = None,
    graph: AnyGraph | None = None,
    feat: Tensor | None = None,
    *,
    forward: Forward | None = None,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    r"""Fixup: every residual branch starts at zero, the network as its skip connections.

    The last layer of each of the L branches is zero; in a branch of m > 1 layers the
    others are critical times :math:`L^{-1/(2m-2)}`. Everything outside the branches is critical.
    Measured, it is made sure that every branch hands on zeros, layers written by hand included: the
    weights that this takes are zero.

    Source: Zhang et al., arXiv:1901.09321, without its scalar biases and multipliers.

    Parameters
    ----------
    module : nn.Module
        The network. Changed in place.
    branches : iterable of nn.Module, optional
        The submodules whose outputs the network adds to their inputs. Measured, they may be left
        out: then a run of the network finds what it adds to what that was computed from.
    graph, edge_weight, output_layer, strict
        As in :func:`critical_`; the graph is needed where an aggregation is a sum.
    feat, forward
        As in :func:`critical_`: then the scales are measured, and any network will do.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        If there is no branch, or one is not part of `module` or has no weights, or (measured) does
        not start at zero whatever they are; otherwise as :func:`critical_`.

    Examples
    --------
    >>> model = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
    >>> fixup_(model, branches=model[1:3])[1].weight.abs().max().item()
    0.0
    """
    require_module(module, graph)
    run: Forward | None = None
    if feat is not None or forward is not None:
        run = as_called(graph, feat, edge_weight, forward)
    with kept_on_error(module):
        named = _branches(module, branches, run, graph, feat, edge_weight)
        context = WithoutGraph(strict=False) if run else GraphContext(graph, edge_weight, strict)
        scales = {
            id(linear.weight): linear.scale or float(run is not None)  # a run finds the last ones
            for branch in named
            for stage in fixup_branch(collect_stages(branch, context), len(named))
            for linear in stage
        }
        stages = _draw_critical(module, named, scales, context, output_layer)
        if run is not None:
            measure(module, stages, run, (graph, feat))
            zeroed = start_outputs_at_zero(module, named, run, graph, feat)
            # What comes after the branches was scaled to their sum; nothing is drawn again.
            weights = [p for p in module.parameters() if p.dim() > 1]
            zero, drawn = (
                [
                    LinearMap(module, p, 1, 1, scale=s)
                    for p in weights
                    if (id(p) in zeroed) != bool(s)
                ]
                for s in (0.0, 1.0)
            )
            if any(p.any() for p in weights):
                measure(module, [zero, *stages, drawn], run, (graph, feat))
    return module


def rezero_(
    module: M,
    branches: Iterable[nn.Module] | None = None,
    graph: AnyGraph | None = None,
    feat: Tensor | None = None,
    *,
    forward: Forward | None = None,
    edge_weight: Tensor | None = None,
    output_layer: bool = True,
    strict: bool = True,
) -> M:
    r"""ReZero: a trainable factor, zero at first, on every residual branch.

    All weights are critical. Each branch gets a parameter ``rezero_gate`` that a forward hook
    multiplies its output with; it is in ``parameters()`` and ``state_dict()``, so make the
    optimizer afterwards, and call this on a new model before loading such a state.
    Source: Bachlechner et al., arXiv:2003.04887.

    Parameters
    ----------
    module : nn.Module
        The network. Changed in place.
    branches : iterable of nn.Module, optional
        The submodules whose outputs the network adds to their inputs. Measured, they may be left
        out: then a run of the network finds what it adds to what that was computed from.
    graph, edge_weight, output_layer, strict
        As in :func:`critical_`; the graph is needed where an aggregation is a sum.
    feat, forward
        As in :func:`critical_`: then the scales are measured, and any network will do.

    Returns
    -------
    nn.Module
        The same module.

    Raises
    ------
    DGLError
        As in :func:`fixup_`.

    Examples
    --------
    >>> model = nn.ModuleList([nn.Linear(8, 8) for _ in range(4)])
    >>> rezero_(model, branches=model[1:3])[1](torch.ones(2, 8)).abs().max().item()
    0.0
    """
    require_module(module, graph)
    run: Forward | None = None
    if feat is not None or forward is not None:
        run = as_called(graph, feat, edge_weight, forward)
    with kept_on_error(module):
        named = _branches(module, branches, run, graph, feat, edge_weight)
        gates = [branch._parameters.pop("rezero_gate", None) for branch in named]
        context = WithoutGraph(strict=False) if run else GraphContext(graph, edge_weight, strict)
        try:
            scales = {
                id(linear.weight): 1.0
                for branch in named
                for stage in collect_stages(branch, context)
                for linear in stage
            }
            stages = _draw_critical(module, named, scales, context, output_layer)
            if run is not None:
                measure(module, stages, run, (graph, feat))
        except BaseException:
            for branch, gate in zip(named, gates, strict=True):
                if gate is not None:
                    branch.register_parameter("rezero_gate", gate)
            raise
    for branch in named:
        like = next(branch.parameters())
        # Without dimensions, so that it does not promote outputs of lower precision.
        gate = nn.Parameter(torch.zeros((), dtype=like.dtype, device=like.device))
        branch.register_parameter("rezero_gate", gate)
        if _gate not in branch._forward_hooks.values():
            branch.register_forward_hook(_gate)
    return module


def _gate(branch: Any, inputs: Any, output: Any) -> Any:
    gate = branch._parameters.get("rezero_gate")
    return output if gate is None else _times(gate, output)


def _times(gate: Tensor, output: Any) -> Any:
    """Multiply all features of an output, also of several node types or of nodes and edges."""
    if isinstance(output, dict):
        return {kind: _times(gate, value) for kind, value in output.items()}
    if isinstance(output, (tuple, list)):
        return type(output)(_times(gate, value) for value in output)
    return gate * output if isinstance(output, Tensor) and output.is_floating_point() else output


def _branches(
    module: nn.Module,
    branches: Iterable[nn.Module] | None,
    run: Forward | None,
    graph: AnyGraph | None,
    feat: Any,
    edge_weight: Tensor | None,
) -> list[nn.Module]:
    """Branches that were named, or that a run finds."""
    if branches is not None:
        return list(branches)
    if run is None:
        raise DGLError(
            "Name the branches, the submodules with a residual connection around them; or pass "
            "features (feat=) or forward=, and a run of the model finds them."
        )
    if feat is not None:
        run = as_called(graph, _with_gradient(feat), edge_weight, None)
    found = find_branches(module, run, graph, feat)
    if not found:
        raise DGLError(
            f"No residual branch was found in the {type(module).__name__}: nothing that it adds to "
            "other features was computed from them by weights. Name the branches, or use critical_."
        )
    return found


def _draw_critical(
    module: nn.Module,
    branches: list[nn.Module],
    scales: dict[int, float],
    context: GraphContext,
    output_layer: bool,
) -> list[Stage]:
    """Draw all weights critically, times the scales given by weight."""
    inside = {id(part) for part in module.modules()}
    measured = isinstance(context, WithoutGraph)
    for index, branch in enumerate(branches):
        weights = [p for p in branch.parameters() if id(p) in scales or (measured and p.dim() > 1)]
        if id(branch) not in inside or not weights:
            raise DGLError(
                f"branches[{index}], a {type(branch).__name__}, is not a submodule of the "
                f"{type(module).__name__} with weights. Name the submodules that have a residual "
                "connection around them."
            )
    if not branches:
        raise DGLError("branches is empty: name the submodules with a residual connection.")
    stages = [
        [replace(linear, scale=scales.get(id(linear.weight), linear.scale)) for linear in stage]
        for stage in collect_stages(module, context)
    ]
    draw(stages, critical_std, output_layer)
    return stages


def _with_gradient(feat: Any) -> Any:
    """The same features, of one or several node types, with a gradient."""
    if isinstance(feat, dict):
        return {kind: _with_gradient(value) for kind, value in feat.items()}
    if isinstance(feat, Tensor) and feat.is_floating_point():
        return feat.detach().requires_grad_()
    return feat
