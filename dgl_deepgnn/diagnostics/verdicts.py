"""Verdicts on a diagnosis, in words: a principle each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgl_deepgnn.theory import kappa
from dgl_deepgnn.wording import counted

__all__ = ["Verdict", "judge", "number"]

Status = Literal["healthy", "vanishing", "exploding", "oversmoothed"]


@dataclass(frozen=True)
class Verdict:
    """Verdict on one of the three principles.

    Parameters
    ----------
    principle : str
        "critical initialization", "residual aggregation" or "residual connections".
    status : {"healthy", "vanishing", "exploding", "oversmoothed"}
        What the model does.
    message : str
        The figures behind it, and what to change.
    """

    principle: str
    status: Status
    message: str


def judge(means: dict[str, np.ndarray], nodes: np.ndarray, in_feats: int) -> list[Verdict]:
    """Verdicts on the three principles.

    Parameters
    ----------
    means : dict of str to numpy.ndarray
        The four quantities of a :class:`~dgl_deepgnn.diagnostics.Diagnosis`, shape (rows,).
    nodes : numpy.ndarray
        Which rows hold features of nodes (not of graphs or edges), shape (rows,).
    in_feats : int
        Width of the first row's features.
    """
    signal, correlation, dirichlet = (
        means[name][nodes] for name in ("mean_square", "correlation", "dirichlet")
    )
    gradient = means["gradient"][0] / (in_feats * max(means["mean_square"][0], 1e-300))
    return [_judge_scale(signal, gradient), *_judge_differences(correlation, dirichlet)]


def _judge_scale(signal: np.ndarray, gradient: float) -> Verdict:
    """Principle 1. The first layers may lose what the graph averages away; later ones not."""
    principle = "critical initialization"
    if not len(signal):
        return Verdict(principle, "healthy", "No features of nodes were seen.")
    with np.errstate(divide="ignore", invalid="ignore"):
        late, whole = signal[-1] / signal[len(signal) // 2], signal[-1] / signal[0]
    figures = (
        f"The mean square goes from {number(signal[0])} at the input to {number(signal[-1])} "
        f"after {counted(len(signal) - 1, 'layer')} (in their second half by a factor "
        f"{number(late)}); "
        f"the first layer's gradient by input feature is {number(gradient)} of the output's."
    )
    remedy = (
        "Initialize with dgl_deepgnn.init.critical_(model, graph); residual connections need the "
        "factor 1/sqrt(number of layers) or a branch that starts at zero."
    )
    if not np.isfinite(signal).all() or late > 10 or whole > 1e3 or gradient > 1e5:
        return Verdict(principle, "exploding", f"{figures} {remedy}")
    if not (late > 0.1 and whole > 1e-3) or gradient < 1e-5:
        return Verdict(principle, "vanishing", f"{figures} {remedy}")
    return Verdict(principle, "healthy", figures)


def _judge_differences(correlation: np.ndarray, dirichlet: np.ndarray) -> list[Verdict]:
    """Principle 2: neighbours; principle 3: all nodes.

    The yardstick of principle 2 is what ReLU alone leaves, in a network without residual
    connections and without a graph.

    A layer that underflowed or overflowed has no directions: the last one that has counts.
    """
    aggregation, connections = "residual aggregation", "residual connections"
    seen = np.flatnonzero(np.isfinite(correlation))
    if len(seen) < 2:
        message = "There are no two nodes to compare."
        return [Verdict(name, "healthy", message) for name in (aggregation, connections)]
    start, end = seen[0], seen[-1]
    relu_alone = correlation[start]
    for _ in range(end - start):
        relu_alone = float(kappa(np.clip(relu_alone, -1, 1)))
    left = (1 - correlation[end]) / max(1 - correlation[start], 1e-12)
    left_by_relu = (1 - relu_alone) / max(1 - correlation[start], 1e-12)
    left_by_edge = dirichlet[end] / max(dirichlet[start], 1e-12)
    smoothed = left_by_edge < 0.015 * left_by_relu
    verdicts = [
        Verdict(
            aggregation,
            "oversmoothed" if smoothed else "healthy",
            f"Of the difference between neighbours {number(left_by_edge)} is left after "
            f"{counted(end - start, 'layer')}; a network without residual connections would leave "
            f"{number(left_by_relu)} if it did not aggregate at all."
            + (
                " The aggregation makes nodes alike: interpolate it with the identity, with a "
                "small sum of t over the layers (t='per-depth:1')."
                if smoothed
                else ""
            ),
        )
    ]
    alike = left < 0.05
    verdicts.append(
        Verdict(
            connections,
            "oversmoothed" if alike else "healthy",
            f"The mean correlation of two nodes goes from {correlation[start]:.4f} to "
            f"{correlation[end]:.4f}."
            + (
                " Depth itself makes nodes alike: add residual connections, residual='fixup' or "
                "'scaled'."
                if alike
                else ""
            ),
        )
    )
    return verdicts


def number(value: float) -> str:
    """Three digits; nothing for what is not defined."""
    return "" if math.isnan(value) else f"{value:.3g}"
