"""Seconds to each target as a plot."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.time_to_accuracy.results import Results
from benchmarks.time_to_accuracy.standing import Standing, known
from benchmarks.time_to_accuracy.tasks import OURS, TASKS
from dgl_deepgnn.files import write_figure

__all__ = ["plot"]

COLORS = {OURS: "#1a7f37", "DGL": "#b42318", "PyG": "#1f5fa8"}
LABELS = {OURS: "ours", "DGL": "DGL's layers", "PyG": "PyTorch Geometric's layers"}


def plot(results: Results, path: Path) -> None:
    """Median over the seeds, and their range; an arrow where the median is beyond the cap."""
    standings = [Standing(results, name) for name in TASKS]
    lines = [(s, target) for s in standings if s.begun for target in s.task.targets]
    figure = Figure(figsize=(8, 1.4 + 0.55 * max(len(lines), 1)))
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    labelled: set[str] = set()
    for place, (standing, target) in enumerate(lines):
        names = list(standing.task.contenders)
        for index, name in enumerate(names):
            kind = OURS if name == OURS else name.split()[0]
            height = place + 0.6 * (index / (len(names) - 1) - 0.5)
            seconds = np.array(
                [math.inf if v is None else v for v in standing.values(name, target, "seconds")]
            )
            inside = np.minimum(seconds, standing.cap)
            beyond = math.isinf(np.median(seconds))
            axis.plot([inside.min(), inside.max()], [height] * 2, color=COLORS[kind], lw=1.5)
            axis.plot(
                np.median(inside),
                height,
                color=COLORS[kind],
                marker=">" if beyond else "o",
                mfc="white" if "," in name else COLORS[kind],  # a variant of the published one
                ms=6,
                ls="none",
                label=None if kind in labelled else LABELS[kind],
            )
            labelled.add(kind)
    axis.set_yticks(
        range(len(lines)), [f"{s.name}, {known(s.task, target)}" for s, target in lines]
    )
    axis.invert_yaxis()
    axis.set(xscale="log", xlabel="seconds of training and validation, one thread")
    axis.set_title(
        "Time to a validation score (arrow: not reached; open: settings not as published)",
        fontsize=10,
    )
    axis.grid(axis="x", color="0.9")
    axis.set_axisbelow(True)
    if labelled:
        axis.legend(fontsize=8)
    figure.tight_layout()
    write_figure(path, figure, 110)
