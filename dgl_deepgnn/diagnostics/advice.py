"""What to change where a verdict is bad: what this model can follow, and no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dgl_deepgnn.diagnostics.recording import layers_of, replicate
from dgl_deepgnn.diagnostics.verdicts import AGGREGATION, CONNECTIONS, SCALE, Verdict
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init import critical_
from dgl_deepgnn.nn import DeepGNN

__all__ = ["advise"]

_OURS = {"GraphConv": "ResGraphConv", "SAGEConv": "ResSAGEConv", "GINConv": "ResGINConv"}


def advise(
    verdicts: list[Verdict],
    model: nn.Module,
    graph: AnyGraph,
    edge_weight: Tensor | None,
    rejudge: Callable[[nn.Module], list[Verdict]],
) -> list[Verdict]:
    """Add to each bad verdict what to do.

    Parameters
    ----------
    verdicts : list of Verdict
        As measured.
    model, graph, edge_weight
        What was judged.
    rejudge : callable
        Measures another model in its place: what is proposed is tried first.
    """
    ours = isinstance(model, DeepGNN)

    def advice(verdict: Verdict) -> str:
        if verdict.status == "healthy":
            return ""
        if verdict.principle == AGGREGATION:
            return _of_ours_by_aggregation(model) if ours else _of_theirs_by_aggregation(model)
        if verdict.principle == CONNECTIONS:
            return _of_ours_by_connections(model) if ours else _of_theirs_by_connections(model)
        return _by_scale(verdict, model, graph, edge_weight, rejudge)

    return [replace(v, message=f"{v.message} {advice(v)}".rstrip()) for v in verdicts]


def _by_scale(
    verdict: Verdict,
    model: nn.Module,
    graph: AnyGraph,
    edge_weight: Tensor | None,
    rejudge: Callable[[nn.Module], list[Verdict]],
) -> str:
    if isinstance(model, DeepGNN) and model.residual == "plain":
        return "Its residual connections add up: build it with residual='fixup' or 'scaled'."
    trial = replicate(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            critical_(trial, graph, edge_weight=edge_weight)
    except DGLError as error:
        return f"critical_ does not initialize this model as it is: {error}"
    retrial = next(v for v in rejudge(trial) if v.principle == SCALE)
    helps = retrial.status == "healthy"
    if _of_one_scale(model, trial):
        remedy = "Its weights have the critical scale already, so something else is the cause: "
    elif helps:
        return (
            "dgl_deepgnn.init.critical_(model, graph) mends it (tried on a copy)."
            if not isinstance(model, DeepGNN)
            else "Build it with init='critical', or call its reset_parameters() after that."
        )
    else:
        remedy = f"critical_(model, graph) alone does not mend it ({retrial.status}, tried on a "
        remedy += "copy): "
    if "In training mode" in verdict.message:
        remedy += "dropout, if it is healthy without (lower it); "
    if verdict.status == "exploding":
        return remedy + (
            "residual connections that add up (divide each branch by the root of their number, or "
            "start it at zero: dgl_deepgnn.init.fixup_), or sums over parallel branches."
        )
    return remedy + "an activation other than ReLU, or what forward does between the layers."


def _of_one_scale(model: nn.Module, other: nn.Module) -> bool:
    """Whether the matrices of two models have about the same mean squares."""

    def scales(model: nn.Module) -> Tensor:
        squares = [p.detach().double().square().mean() for p in model.parameters() if p.dim() >= 2]
        return torch.stack(squares).log()

    return bool((scales(model) - scales(other)).abs().nan_to_num(0.0).median() < 0.2)


def _of_ours_by_aggregation(model: nn.Module) -> str:
    assert isinstance(model, DeepGNN)
    t = model.config["t"]
    if t == "per-depth:1" or t == "per-depth":
        return "Take fewer layers, or a smaller sum of t over the layers (t='per-depth:0.5')."
    return (
        "The aggregation makes nodes alike: build it with a small sum of t over the layers "
        "(t='per-depth:1')."
    )


def _of_theirs_by_aggregation(model: nn.Module) -> str:
    convs = [layer for _, layer, convolves in layers_of(model) if convolves]
    known = sorted({type(c).__name__ for c in convs} & set(_OURS))
    step = f"t={1 / max(1, len(convs)):.2g}"
    advice = "The aggregation makes nodes alike: "
    if known:
        ours = ", ".join(f"{_OURS[name]}(..., {step}) for {name}" for name in known)
        return f"{advice}take layers that mix it with the identity, dgl_deepgnn.nn.{ours}."
    return (
        f"{advice}let each layer keep most of what a node has, (1 - t) * h + t * aggregated with "
        "t about 1 / number of layers."
    )


def _of_ours_by_connections(model: nn.Module) -> str:
    assert isinstance(model, DeepGNN)
    if model.residual in (None, "plain"):
        return (
            "Depth itself makes nodes alike: add residual connections, residual='fixup' or "
            "'scaled'."
        )
    return "Its residual connections do not prevent it: mix less, with a smaller t or fewer layers."


def _of_theirs_by_connections(model: nn.Module) -> str:
    depth = sum(convolves for _, _, convolves in layers_of(model)) or 1
    return (
        "Depth itself makes nodes alike: add each layer's input to its output, "
        f"h = h + layer(graph, relu(h)) / {depth}**0.5 with {depth} layers."
    )
