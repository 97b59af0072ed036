"""Plot of the training loss."""

from __future__ import annotations

from pathlib import Path

from dgl_deepgnn.files import write_figure
from dgl_deepgnn.wording import plotted

__all__ = ["plot_losses"]


def plot_losses(path: Path, title: str, losses: dict[int, list[float]]) -> None:
    """Draw the training loss by step, one line a seed, on a logarithmic scale.

    Parameters
    ----------
    path : Path
        The PNG.
    title : str
        Its title.
    losses : dict of int to list of float
        Losses of every seed.
    """
    from matplotlib.figure import Figure  # only who plots pays for matplotlib
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for seed, values in losses.items():
        marker = "o" if len(values) == 1 else None  # a line of one point would not be seen
        steps = range(1, len(values) + 1)
        axes.plot(steps, values, label=f"seed {seed}", linewidth=1.2, marker=marker)
    axes.set(title=plotted(title), xlabel="optimizer step", ylabel="training loss", yscale="log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small", ncols=2)
    write_figure(path, figure, dpi=150)
