"""What a model does at its start and in its first steps, after each initialization."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.hooks.cases import CASES, Case
from benchmarks.hooks.inputs import Inputs, draw_inputs
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init import critical_

__all__ = ["ARMS", "LEARNING_RATES", "SEEDS", "VIEWS", "measure", "measure_named"]

ARMS = ("stock", "closed form", "measured")
SEEDS = (0, 1, 2)
LEARNING_RATES = (3e-4, 3e-3)  # of 1e-4 to 1e-2 on five models: one on each side of the best
VIEWS = ("training", "evaluation", "training, fresh", "evaluation, fresh")
"""Mode, and whether on the features that the initialization saw or on others."""
FRESH = 100
_TRAINING = 1000  # its first seed of inputs


def measure(case: Case, depth: int, arm: str, steps: int) -> dict[str, Any]:
    """All figures of a model in one arm; lists have an entry a seed.

    Parameters
    ----------
    case : Case
        The model.
    depth : int
        Number of layers.
    arm : str
        One of `ARMS`.
    steps : int
        Steps of training, 0 for none.

    Returns
    -------
    dict
        ``refused``: the error's first line, and nothing else; or ``mean_square`` by view,
        ``gradient``, ``losses`` by learning rate: pairs (after half of the steps, after all), and
        ``warned`` where a warning said that nothing could be checked, or that evaluation mode is
        not what training mode is.
    """
    inputs, fresh = draw_inputs(case.kind, 0), draw_inputs(case.kind, FRESH)
    squares: dict[str, list[float | None]] = {view: [] for view in VIEWS}
    gradients: list[float | None] = []
    losses: dict[str, list[list[float | None]]] = {f"{rate:g}": [] for rate in LEARNING_RATES}
    warned = False
    for seed in SEEDS:
        try:
            model, said = _initialized(case, depth, arm, inputs, seed)
            warned |= said
        except DGLError as error:
            return {"refused": str(error).splitlines()[0]}
        gradients.append(_number(_first_gradient(case, model, inputs)))
        for view, values in squares.items():
            model.train(view.startswith("training"))
            with torch.no_grad():
                out = case.run(model, fresh if view.endswith("fresh") else inputs)
            values.append(_number(out.double().square().mean().item()))
        for rate in LEARNING_RATES if steps else ():
            model, _ = _initialized(case, depth, arm, inputs, seed)
            losses[f"{rate:g}"].append(_train(case, model, rate, steps))
    return {
        "mean_square": squares,
        "gradient": gradients,
        "losses": {rate: pairs for rate, pairs in losses.items() if pairs},
        **({"warned": True} if warned else {}),
    }


def measure_named(name: str, depth: int, arm: str, steps: int) -> dict[str, Any]:
    """Measure a model of `CASES`: its name can be sent to another process, itself it cannot."""
    return measure(CASES[name], depth, arm, steps)


def _initialized(
    case: Case, depth: int, arm: str, inputs: Inputs, seed: int
) -> tuple[nn.Module, bool]:
    """Return the model, and whether a warning said what it is not, or that nobody knows."""
    torch.manual_seed(seed)
    model = case.make(depth, inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if arm == "closed form":
            weight = inputs.edge_weight if case.weighted else None
            critical_(model, inputs.graph, edge_weight=weight)
        elif arm == "measured":
            critical_(model, forward=lambda model: case.run(model, inputs))
    said = ("Nothing was checked", "evaluation mode", "still ends at")
    warned = any(part in str(warning.message) for warning in caught for part in said)
    return _with_statistics(model, case, inputs), warned


def _with_statistics(model: nn.Module, case: Case, inputs: Inputs) -> nn.Module:
    """Give batch normalization the statistics of one pass, so that evaluation means something."""
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm1d)]
    if norms:
        momentum = norms[0].momentum
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        with torch.no_grad():
            case.run(model.train(), inputs)
        for norm in norms:
            norm.momentum = momentum
    return model


def _first_gradient(case: Case, model: nn.Module, inputs: Inputs) -> float:
    """Squared norm in the first weight matrix of a gradient of norm one at the output."""
    out = case.run(model.train(), inputs)
    direction = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    weights = [p for p in model.parameters() if p.dim() > 1]
    gradients = torch.autograd.grad(out, weights, direction / direction.norm(), allow_unused=True)
    # Some layers of DGL's have weights for cases that are not this one.
    first = next(gradient for gradient in gradients if gradient is not None)
    return first.double().square().sum().item()


def _train(case: Case, model: nn.Module, rate: float, steps: int) -> list[float | None]:
    """Loss after half of the steps and after all, each a mean of the last five.

    Every step has fresh noise on the features, so that nothing can be learnt by heart.
    """
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    curve = []
    for step in range(steps):
        inputs = draw_inputs(case.kind, _TRAINING + step)
        loss = F.cross_entropy(case.run(model, inputs), inputs.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
        if not math.isfinite(curve[-1]):
            return [None, None]
    return [_number(sum(curve[end - 5 : end]) / 5) for end in (steps // 2, steps)]


def _number(value: float) -> float | None:
    """Four digits; None for what is not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
