"""Verdicts on a diagnosis: a principle each, from all draws."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dgl_deepgnn.theory import kappa
from dgl_deepgnn.wording import counted

__all__ = [
    "AGGREGATION",
    "CONNECTIONS",
    "IN_SOME_GRAPHS",
    "SCALE",
    "Status",
    "Verdict",
    "judge",
    "number",
]

Status = Literal["healthy", "vanishing", "exploding", "oversmoothed"]
SCALE, AGGREGATION, CONNECTIONS = (
    "critical initialization",
    "residual aggregation",
    "residual connections",
)
ONLY_IN_TRAINING = "Without dropout it would be healthy."
IN_SOME_GRAPHS = "of the graphs of the batch it"
_SOME = 0.1  # share of the graphs that may come out otherwise than the batch
_RESAMPLES = 1000
_DOUBT = 0.01  # share of the resamples that may disagree


@dataclass(frozen=True)
class Verdict:
    """Verdict on one of the three principles.

    Parameters
    ----------
    principle : str
        "critical initialization", "residual aggregation" or "residual connections".
    status : {"healthy", "vanishing", "exploding", "oversmoothed"}
        What the model does, by the mean over the draws.
    message : str
        The figures behind it, and what to change.
    near : bool
        Whether other draws could well have given another status: more than one in a hundred
        bootstrap samples of the draws does. The message then says which.
    """

    principle: str
    status: Status
    message: str
    near: bool = False

    def __str__(self) -> str:
        """One paragraph."""
        near = " (near the threshold)" if self.near else ""
        return f"{self.principle}: {self.status.upper()}{near}. {self.message}"


def judge(
    measured: dict[str, np.ndarray],
    body: np.ndarray,
    widths: np.ndarray,
    by_graph: np.ndarray | None = None,
) -> list[Verdict]:
    """Verdicts on the three principles, without advice.

    Parameters
    ----------
    measured : dict of str to numpy.ndarray
        The quantities of a :class:`~dgl_deepgnn.diagnostics.Diagnosis` and "sensitivity", the
        squared gradient for a relative change of a layer's weights; shape (draws, rows).
    body : numpy.ndarray
        Indices of the rows to be judged, features of nodes between the layers: like and like,
        nothing behind a readout or a head.
    widths : numpy.ndarray
        Widths of the features, shape (rows,).
    by_graph : numpy.ndarray, optional
        Mean squares of the graphs of a batch, shape (draws, len(body), graphs): the batch's own
        is that of the largest.
    """
    draws = len(measured["mean_square"])
    # How often each draw counts: once in the first row, as in a bootstrap sample in the others.
    weights = np.ones((1, draws))
    if draws > 1:
        sampled = np.random.default_rng(0).multinomial(draws, np.full(draws, 1 / draws), _RESAMPLES)
        weights = np.concatenate([weights, sampled])
    with np.errstate(invalid="ignore", over="ignore"):
        means = {name: weights @ values[:, body] / draws for name, values in measured.items()}
    scale = _judge_scale(means, measured["mean_square"][:, body], widths[body])
    if by_graph is not None:
        scale = _judge_graphs(scale, by_graph.mean(axis=0))
    return [scale, *_judge_differences(means["correlation"], means["dirichlet"])]


def _verdict(principle: str, statuses: np.ndarray, message: str) -> Verdict:
    """Verdict of the first status; the others say how sure it is."""
    status, others = statuses[0], statuses[1:]
    different = others[others != status]
    near = len(different) > _DOUBT * len(others)
    if near:
        names, counts = np.unique(different, return_counts=True)
        message += (
            f" Near the threshold: other draws may be called {names[counts.argmax()]}; more draws "
            "(draws=) decide it."
        )
    return Verdict(principle, str(status), message, near)  # type: ignore[arg-type]


def _judge_scale(means: dict[str, np.ndarray], draws: np.ndarray, widths: np.ndarray) -> Verdict:
    """Principle 1. What the first layer averages away belongs to the graph; later ones keep it."""
    signal = means["mean_square"]
    start = 1 if signal.shape[1] > 2 else 0
    gradient, gradient_words = _gradient_ratio(means["sensitivity"])
    if signal.shape[1] < 2:
        statuses = _scale_statuses(np.ones((len(signal), 1)), gradient)
        return _verdict(SCALE, statuses, "There is one layer: nothing can add up.")
    statuses = _scale_statuses(signal[:, start:], gradient)
    with np.errstate(divide="ignore", invalid="ignore"):
        late = signal[0, -1] / signal[0, start:][(signal.shape[1] - start) // 2]
    path = _path(signal[0])
    message = f"The mean square of the features goes {path} (in its second half by a factor "
    message += f"{number(late)}){gradient_words}."
    if "training" in means:
        in_training = _scale_statuses(means["training"][:, start:], gradient)
        message += f" In training mode, with dropout, it goes {_path(means['training'][0])}."
        if statuses[0] == "healthy" != in_training[0]:
            message += f" {ONLY_IN_TRAINING}"
        statuses = np.where(statuses == "healthy", in_training, statuses)
    return _verdict(SCALE, statuses, message + _spread(draws, widths))


def _judge_graphs(verdict: Verdict, signal: np.ndarray) -> Verdict:
    """Principle 1 for each graph; signal of shape (rows, graphs)."""
    if verdict.status != "healthy" or len(signal) < 2 or signal.shape[1] < 2:
        return verdict
    statuses = _scale_statuses(signal[1 if len(signal) > 2 else 0 :].T, np.ones(signal.shape[1]))
    shares = {name: float((statuses == name).mean()) for name in ("vanishing", "exploding")}
    name = max(shares, key=lambda status: shares[status])
    if shares[name] <= _SOME:
        return verdict
    worst = signal[-1].min() if name == "vanishing" else signal[-1].max()
    message = (
        f"{verdict.message} But in {shares[name]:.0%} {IN_SOME_GRAPHS} is {name}: it ends at "
        f"{number(float(worst))} in one of them."
    )
    return Verdict(verdict.principle, name, message)  # type: ignore[arg-type]


def _path(signal: np.ndarray) -> str:
    layers = counted(len(signal) - 1, "layer")
    start = 1 if len(signal) > 2 else 0
    extreme = signal[start:][np.abs(_log(signal[start:])).argmax()]
    ends = f"from {number(signal[0])} to {number(signal[-1])} over {layers}"
    far = abs(_log(extreme) - np.clip(_log(extreme), *sorted(_log(signal[[0, -1]]))))
    return ends + (f", by way of {number(extreme)}" if far > 1 else "")


def _log(values: np.ndarray) -> np.ndarray:
    return np.log10(np.clip(np.nan_to_num(values, nan=np.inf), 1e-300, 1e300))


def _scale_statuses(signal: np.ndarray, gradient: np.ndarray) -> np.ndarray:
    """Statuses by signal, shape (samples, rows), and gradient ratio, shape (samples,)."""
    powers = _log(signal)
    change = powers - powers[:, :1]
    late = powers[:, -1] - powers[:, powers.shape[1] // 2]
    # Biases of a later layer may lift what has vanished: the first step over a bound counts.
    never = change.shape[1]
    up, down = (
        np.where(over.any(axis=1), over.argmax(axis=1), never) for over in (change > 3, change < -3)
    )
    with np.errstate(invalid="ignore"):
        exploding = (up < down) | ((down == never) & ((late > 1) | (gradient > 1e5)))
        vanishing = (down < up) | (late < -1) | (gradient < 1e-5)
    return np.where(exploding, "exploding", np.where(vanishing, "vanishing", "healthy"))


def _gradient_ratio(sensitivity: np.ndarray) -> tuple[np.ndarray, str]:
    """First layer's gradient in units of the last one's, for relative changes of the weights.

    So neither the scale of a layer's weights nor that of the output counts, which normalization
    layers and heads change. A layer that starts at zero, or behind one, has none.
    """
    acting = np.flatnonzero(np.isfinite(sensitivity[0]) & (sensitivity[0] > 0))
    if len(acting) < 2:
        return np.ones(len(sensitivity)), ""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = sensitivity[:, acting[0]] / sensitivity[:, acting[-1]]
    return ratio, (
        f"; for relative changes of the weights, the first layer's squared gradient is "
        f"{number(ratio[0])} times the last one's"
    )


def _spread(draws: np.ndarray, widths: np.ndarray) -> str:
    """Say so where one draw may be far from the mean of many (residual connections prevent it)."""
    expected = float((5 / widths[1:]).sum())
    last = draws[:, -1]
    if len(draws) < 3 or expected <= 1 or not (np.isfinite(last) & (last > 0)).all():
        return ""
    variance = float(np.log(last).var(ddof=1))
    if variance < 0.5:
        return ""
    return (
        f" Single draws scatter around this mean: 5 * depth / width = {number(expected)} is over "
        "1, and in a network without residual connections that is about the variance of the "
        f"logarithm (of these draws: {number(variance)}). Wider layers make it less."
    )


def _judge_differences(correlation: np.ndarray, dirichlet: np.ndarray) -> list[Verdict]:
    """Principle 2: neighbours; principle 3: all nodes.

    The yardstick of principle 2 is what ReLU alone leaves, in a network without residual
    connections and without a graph.

    A layer that underflowed or overflowed has no directions: the last one that has counts.
    """
    seen = np.flatnonzero(np.isfinite(correlation[0]))
    if len(seen) < 2:
        message = "There are no two nodes to compare."
        return [Verdict(name, "healthy", message) for name in (AGGREGATION, CONNECTIONS)]
    start, end = seen[0], seen[-1]
    relu_alone = np.clip(correlation[:, start], -1, 1)
    for _ in range(end - start):
        relu_alone = kappa(np.clip(relu_alone, -1, 1))
    different = np.maximum(1 - correlation[:, start], 1e-12)
    left, left_by_relu = (1 - correlation[:, end]) / different, (1 - relu_alone) / different
    left_by_edge = dirichlet[:, end] / np.maximum(dirichlet[:, start], 1e-12)
    return [
        _verdict(
            AGGREGATION,
            np.where(left_by_edge < 0.015 * left_by_relu, "oversmoothed", "healthy"),
            f"Of the difference between neighbours {number(left_by_edge[0])} is left after "
            f"{counted(int(end - start), 'layer')}; a network without residual connections would "
            f"leave {number(left_by_relu[0])} if it did not aggregate at all.",
        ),
        _verdict(
            CONNECTIONS,
            np.where(left < 0.05, "oversmoothed", "healthy"),
            f"The mean correlation of two nodes goes from {correlation[0, start]:.4f} to "
            f"{correlation[0, end]:.4f}.",
        ),
    ]


def number(value: float) -> str:
    """Three digits; nothing for what is not defined."""
    return "" if math.isnan(value) else f"{value:.3g}"
