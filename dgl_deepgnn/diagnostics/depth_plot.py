"""Plot of a depth check."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dgl_deepgnn.files import write_figure

if TYPE_CHECKING:
    from dgl_deepgnn.diagnostics.depth_check import DepthCheck
    from dgl_deepgnn.diagnostics.trends import Axis

__all__ = ["draw"]


def draw(check: DepthCheck, path: str | Path) -> None:
    """Write a PNG file: a row an axis, a line a size (mean over the seeds), the verdicts below."""
    # Without pyplot: no global state, and no display needed.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    axes: list[Axis] = [
        axis
        for axis in ("depth", "width")
        if len({getattr(run, axis) for run in check.along(axis)}) > 1
    ]
    figure = Figure(figsize=(12, 3.4 * len(axes) + 1.2))
    grid = figure.subplots(len(axes), 3, squeeze=False)
    for panels, axis in zip(grid, axes, strict=True):
        runs = check.along(axis)
        sizes = sorted({getattr(run, axis) for run in runs})
        for index, size in enumerate(sizes):
            some = [run for run in runs if getattr(run, axis) == size]
            color = colormaps["viridis"](0.9 * index / max(len(sizes) - 1, 1))
            columns = (
                [run.features[0] for run in some],
                [run.updates[-1] for run in some],
                [run.gradients[0] for run in some],
            )
            for panel, values in zip(panels, columns, strict=True):
                mean = np.mean(values, axis=0)
                place = np.linspace(0, 1, len(mean))
                seen = np.isfinite(mean) & (mean > 0)
                marker = "o" if seen.sum() < 40 else None
                panel.plot(
                    place[seen],
                    mean[seen],
                    color=color,
                    marker=marker,
                    ms=3,
                    label=f"{axis} {size}",
                )
        steps = len(runs[0].gradients)
        titles = (
            "features at the start",
            f"their change after {steps} steps",
            "gradient in the weights, at the start",
        )
        for panel, title in zip(panels, titles, strict=True):
            panel.set_title(title, fontsize=10)
            panel.set_yscale("log")
            panel.set_xlabel("place of the layer (0 = first, 1 = last or output)", fontsize=8)
            panel.grid(color="0.9")
        panels[0].legend(fontsize=8)
    text = "\n".join(textwrap.fill(check.verdict(axis), 170) for axis in axes)
    figure.text(0.02, 0.015, text, fontsize=8, va="bottom")
    figure.tight_layout(rect=(0, 0.03 + 0.022 * (text.count("\n") + 1), 1, 1))
    write_figure(Path(path), figure, dpi=110)
