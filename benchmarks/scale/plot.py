"""Seconds and memory of the stages against the number of nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator

from benchmarks.scale.growth import STEPS, line

__all__ = ["plot", "sizes"]

QUANTITIES = {"seconds": ("seconds", 1.0), "anonymous": ("peak of anonymous memory, GB", 1e-9)}
SEEN = 1e-3
"""Seconds or gigabytes below which a point is left out."""


def sizes(sections: dict[str, Any]) -> list[dict[str, Any]]:
    """The graphs that were measured, by size."""
    cells = [cell for cell in sections.values() if isinstance(cell, dict)]
    return sorted(cells, key=lambda cell: cell["plan"]["nodes"])


def plot(sections: dict[str, Any], path: Path) -> None:
    """Both quantities, with lines of slope one to compare with."""
    cells = sizes(sections)
    if len(cells) < 2:
        return
    figure = Figure(figsize=(11, 5))
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for axes, (quantity, (label, scale)) in zip((left, right), QUANTITIES.items(), strict=True):
        _draw(axes, cells, quantity, label, scale)
    right.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.02, 1))
    figure.suptitle(f"Stages on a graph with {cells[0]['edges'] // cells[0]['plan']['nodes']} edges"
                    " a node; dotted: slope one")  # fmt: skip
    figure.tight_layout()
    figure.savefig(path, format="png", dpi=110)


def _draw(axes: Axes, cells: list[dict[str, Any]], quantity: str, label: str, scale: float) -> None:
    for row in STEPS:
        nodes, values = line(cells, row, quantity)
        values[scale * values < SEEN] = np.nan
        (drawn,) = axes.plot(nodes, scale * values, "o-", label=row)
        linear = scale * values[-1] * nodes / nodes[-1]
        axes.plot(nodes, linear, ":", color=drawn.get_color(), zorder=0)
    axes.set(xscale="log", yscale="log", xlabel="nodes", ylabel=label)
    axes.set_xticks(nodes, [f"{value / 1e3:g}k" if value < 1e6 else "1M" for value in nodes])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.minorticks_off()
    axes.grid(color="0.9")
