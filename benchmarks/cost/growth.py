"""Section "growth": time and memory of a training step against depth and against edges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator
from tqdm import tqdm

from benchmarks.cost.clock import LEAST_ROUNDS, measure
from benchmarks.cost.contenders import build
from benchmarks.cost.graphs import Size, random_problem
from benchmarks.cost.isolated import isolated
from benchmarks.cost.memory import peak_memory
from benchmarks.cost.stacks import WIDTH

__all__ = ["EDGES", "NAMES", "line", "measure_growth", "plot_growth", "slope", "time_point"]

NAMES = {"ResGCN": "#1a7f37", "bare products, embedding_bag": "0.4", "DGL GraphConv": "#b42318"}
DEPTHS, NODES = (16, 64, 256, 1024), 5_000
EDGES, LAYERS = (25_000, 50_000, 100_000, 200_000, 400_000), 16
DEGREE = 10
AXES = {"depth": "layers", "edges": "edges"}
QUANTITIES = {"seconds": "time of a training step, s", "bytes": "peak memory, GB"}


def measure_growth(quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Points along depth, and along edges at ten a node."""
    depths, edges = (DEPTHS[:2], EDGES[:2]) if quick else (DEPTHS, EDGES)
    least = 3 if quick else LEAST_ROUNDS
    plan = {
        "depth": [(depth, _size(NODES * DEGREE), depth) for depth in depths],
        "edges": [(number, _size(number), LAYERS) for number in edges],
    }
    return {
        axis: [
            {
                "x": x,
                "seconds": isolated(time_point, 1, size=size, layers=layers, least=least),
                "bytes": {
                    name: isolated(peak_memory, 1, name=name, size=size, layers=layers)
                    for name in NAMES
                },
            }
            for x, size, layers in tqdm(points, f"growth with {axis}")
        ]
        for axis, points in plan.items()
    }


def _size(edges: int) -> Size:
    return Size(edges // DEGREE, edges, WIDTH)


def time_point(size: list[Any], layers: int, least: int) -> dict[str, dict[str, Any]]:
    """Quartiles of the seconds of a training step by contender."""
    problem = random_problem(Size(*size))
    tasks = {name: build(name, problem, layers).train for name in NAMES}
    label = f"{Size(*size)}, {layers} layers"
    return measure(tasks, seconds=5 * (least >= LEAST_ROUNDS), least=least, label=label)


def line(points: list[dict[str, Any]], quantity: str, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Places on the axis and the quantity of a contender there."""
    values = [point[quantity][name] for point in points]
    if quantity == "seconds":
        values = [value["median"] for value in values]
    return np.array([point["x"] for point in points], float), np.array(values, float)


def slope(points: list[dict[str, Any]], quantity: str, name: str) -> float:
    """Exponent of growth: the slope of the line through the logarithms; 1 is linear."""
    x, y = line(points, quantity, name)
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def plot_growth(growth: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Both quantities against both axes, with lines of slope one to compare with."""
    figure = Figure(figsize=(9, 7))
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, 2)
    for column, (axis, points) in enumerate(growth.items()):
        for row, quantity in enumerate(QUANTITIES):
            _plot(grid[row][column], axis, points, quantity)
    nodes, edges = NODES, NODES * DEGREE
    grid[0][0].set_title(f"against depth\n({nodes:,} nodes, {edges:,} edges)", fontsize=11)
    grid[0][1].set_title(f"against edges\n({LAYERS} layers, {DEGREE} edges a node)", fontsize=11)
    figure.suptitle(f"Growth of a training step, width {WIDTH}, one thread")
    figure.tight_layout()
    figure.savefig(path, format="png", dpi=110)


def _plot(plot: Axes, axis: str, points: list[dict[str, Any]], quantity: str) -> None:
    scale = 1e-9 if quantity == "bytes" else 1.0
    for name, color in NAMES.items():
        x, y = line(points, quantity, name)
        label = f"{name.partition(',')[0]}: exponent {slope(points, quantity, name):.2f}"
        plot.plot(x, scale * y, "o-", color=color, label=label)
        if name == "ResGCN":
            linear = scale * y[-1] * x / x[-1]
            plot.plot(x, linear, ":", color="0.5", zorder=0, label="exactly linear")
    plot.set(xscale="log", yscale="log", xlabel=AXES[axis], ylabel=QUANTITIES[quantity])
    plot.set_xticks(x, [f"{value / 1e3:g}k" if value >= 1e4 else f"{value:g}" for value in x])
    plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    plot.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    plot.minorticks_off()
    plot.grid(color="0.9")
    plot.set_ylim(bottom=plot.get_ylim()[0] / 3)  # room for the legend
    plot.legend(fontsize=8, loc="lower right")
