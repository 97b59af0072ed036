"""What to change where a verdict is bad: what this model can follow, and no more."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from dgl_deepgnn.diagnostics.recording import layers_of, replicate
from dgl_deepgnn.diagnostics.verdicts import (
    AGGREGATION,
    CONNECTIONS,
    IN_SOME_GRAPHS,
    ONLY_IN_TRAINING,
    SCALE,
    Verdict,
)
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.probe import OF_GRAPHS
from dgl_deepgnn.nn import DeepGNN

__all__ = ["advise"]

_OURS = {"GraphConv": "ResGraphConv", "SAGEConv": "ResSAGEConv", "GINConv": "ResGINConv"}


def advise(
    verdicts: list[Verdict],
    model: nn.Module,
    initializers: dict[str, Callable[[nn.Module], object]],
    rejudge: Callable[[nn.Module], list[Verdict]],
) -> list[Verdict]:
    """Add to each bad verdict what to do.

    Parameters
    ----------
    verdicts : list of Verdict
        As measured.
    model : nn.Module
        What was judged.
    initializers : dict of str to callable
        Initializations in place, by the call that a user would write: what could mend the scale.
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
        return _by_scale(verdict, model, initializers, rejudge)

    return [replace(v, message=f"{v.message} {advice(v)}".rstrip()) for v in verdicts]


def _by_scale(
    verdict: Verdict,
    model: nn.Module,
    initializers: dict[str, Callable[[nn.Module], object]],
    rejudge: Callable[[nn.Module], list[Verdict]],
) -> str:
    if isinstance(model, DeepGNN) and model.residual == "plain":
        return "Its residual connections add up: build it with residual='fixup' or 'scaled'."
    if IN_SOME_GRAPHS in verdict.message and not isinstance(model, DeepGNN):
        return f"One scale of the weights cannot serve all graphs of the batch. {OF_GRAPHS}"
    tried = []
    for call, initialize in initializers.items():
        trial = replicate(model)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                initialize(trial)
        except DGLError as error:
            tried.append(f"{call} refuses it: {str(error).rstrip('.')}.")
            continue
        if _of_one_scale(model, trial):
            tried.append(f"Its weights have the scale of {call} already.")
            continue
        retrial = next(v for v in rejudge(trial) if v.principle == SCALE)
        if retrial.status == "healthy":
            if isinstance(model, DeepGNN):
                how = (
                    "Build it with init='critical'" if model.init != "critical" else "Draw it anew"
                )
                return f"{how}: reset_parameters() then mends it (tried on a copy)."
            just = ", just" if retrial.near else ""
            return " ".join([*tried, f"{call} mends it{just} (tried on a copy)."])
        tried.append(f"{call} does not mend it ({retrial.status}, tried on a copy).")
    if isinstance(model, DeepGNN):
        return _of_ours_by_scale(model, verdict)
    if ONLY_IN_TRAINING in verdict.message:
        return " ".join([*tried, "Take less dropout, or none in front of so many layers."])
    if verdict.status == "exploding":
        cause = (
            "residual connections that add up (divide each branch by the root of their number, or "
            "start it at zero: dgl_deepgnn.init.fixup_), or sums over parallel branches"
        )
    else:
        cause = "the activation, or what else forward does between the layers"
    return " ".join([*tried, f"Look for the cause elsewhere: {cause}."])


def _of_ours_by_scale(model: DeepGNN, verdict: Verdict) -> str:
    """Where no initialization mends it."""
    if ONLY_IN_TRAINING in verdict.message:
        return "Take less dropout: build it with a smaller dropout=."
    if model.residual is None:
        return (
            "No draw mends it: without residual connections so many layers of this width scatter. "
            "Build it with residual='fixup' or 'scaled', or wider (hidden_feats)."
        )
    return "No draw mends it: build it with fewer layers, or wider (hidden_feats)."


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
