"""Plot of a diagnosis."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from dgl_deepgnn.diagnostics.verdicts import Verdict
from dgl_deepgnn.wording import counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_PANELS = {
    "mean_square": (
        "Signal: mean square of the features",
        "should stay level behind the first layers",
    ),
    "gradient": (
        "Gradient: squared norm in each layer's weights",
        "for one of norm 1 at the output; not powers of ten away from 1",
    ),
    "correlation": (
        "Correlation of two nodes",
        "1 = all nodes alike (oversmoothed); should stay below 1",
    ),
    "dirichlet": (
        "Difference between neighbours (Dirichlet energy)",
        "2 = unrelated, 0 = alike (oversmoothed); should not keep falling",
    ),
}
_COLORS = {"healthy": "#1a7f37"}
_LINE = 0.135  # inches


def draw(
    measured: dict[str, np.ndarray],
    theory: dict[str, np.ndarray] | None,
    verdicts: list[Verdict],
) -> Figure:
    """Figure with a panel for each quantity and the verdicts below.

    Parameters
    ----------
    measured : dict of str to numpy.ndarray
        By quantity, shape (draws, rows).
    theory : dict of str to numpy.ndarray, optional
        By quantity, shape (rows,).
    verdicts : list of Verdict
        What is written below.
    """
    # Without pyplot: no global state, and no display needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    messages = [textwrap.fill(verdict.message, 150).replace("$", r"\$") for verdict in verdicts]
    lines = sum(message.count("\n") + 1 for message in messages)
    below = 0.9 + 0.36 * len(verdicts) + _LINE * lines  # inches
    figure = Figure(figsize=(11, 8.2 + below))
    FigureCanvasAgg(figure)
    height = figure.get_figheight()
    figure.suptitle(
        "What the model does at its start, layer by layer", fontsize=14, y=1 - 0.2 / height
    )
    axes = figure.subplots(2, 2, sharex=True).flat
    for axis, (quantity, (title, wish)) in zip(axes, _PANELS.items(), strict=True):
        _panel(
            axis,
            quantity,
            measured[quantity],
            None if theory is None else theory[quantity],
            measured.get("training") if quantity == "mean_square" else None,
        )
        if quantity == "mean_square" and theory is not None and "training" in theory:
            axis.plot(theory["training"], color="#bc4c00", ls="--", lw=1.3)
        axis.set_title(f"{title}\n", fontsize=11)
        axis.text(0.5, 1.015, wish, transform=axis.transAxes, ha="center", fontsize=9, color="0.35")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles, labels, loc="upper center", bbox_to_anchor=(0.5, 1 - 0.45 / height), ncols=4
    )
    y = below - 0.75
    for verdict, message in zip(verdicts, messages, strict=True):
        color = _COLORS.get(verdict.status, "#b42318")
        near = " (near the threshold)" if verdict.near else ""
        heading = f"{verdict.principle}: {verdict.status.upper()}{near}"
        figure.text(0.07, y / height, heading, fontsize=10, weight="bold", color=color, va="top")
        figure.text(0.07, (y - 0.19) / height, message, fontsize=8, color="0.2", va="top")
        y -= 0.36 + _LINE * (message.count("\n") + 1)
    figure.subplots_adjust(
        left=0.07,
        right=0.98,
        top=1 - 1.33 / height,
        bottom=below / height,
        hspace=0.42,
        wspace=0.16,
    )
    return figure


def _panel(
    axis: Any,
    quantity: str,
    values: np.ndarray,
    theory: np.ndarray | None,
    training: np.ndarray | None,
) -> None:
    depth = np.arange(values.shape[1])
    finite = np.isfinite(values).all(axis=0)
    x, values = depth[finite], values[:, finite]
    axis.fill_between(
        x, values.min(0), values.max(0), color="#0969da", alpha=0.18, lw=0, label="all draws"
    )
    axis.plot(
        x,
        values.mean(0),
        color="#0969da",
        lw=2,
        marker="o",
        ms=3 if len(x) < 80 else 0,
        label=f"measured: mean of {counted(len(values), 'draw')}",
    )
    if theory is not None:
        axis.plot(depth, theory, color="black", ls="--", lw=1.3, label="theory")
    shown = values.mean(0)
    if training is not None:
        axis.plot(training.mean(0), color="#bc4c00", lw=1.5, label="in training mode, with dropout")
        shown = np.append(shown, training.mean(0)[np.isfinite(training).all(axis=0)])
    if quantity == "correlation":
        low = min(0.0, float(values.min(initial=0.0)))
        axis.set_ylim(low - 0.03, 1.03)
        axis.axhline(1, color="#b42318", lw=1)
    elif (shown > 0).any():
        axis.set_yscale("log")
        _limit(axis, shown)
    if quantity == "dirichlet":
        axis.set_ylim(top=4)
    axis.set_xlim(-0.02 * len(depth), len(depth) - 1 + 0.02 * len(depth))
    axis.set_xlabel(f"layer (0 = input, {len(depth) - 1} = output)")
    axis.tick_params(labelbottom=True)
    axis.grid(color="0.9")


def _limit(axis: Any, mean: np.ndarray) -> None:
    """Show 1 and at least three powers of ten, so that a level line looks level."""
    positive = np.log10(mean[mean > 0])
    low, high = min(0.0, positive.min()), max(0.0, positive.max())
    margin = max(0.3, (3 - (high - low)) / 2)
    axis.set_ylim(10 ** (low - margin), 10 ** (high + margin))
