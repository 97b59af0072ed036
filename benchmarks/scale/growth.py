"""What the stages' figures say together: powers of growth, and a graph that is far larger."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from benchmarks.scale.problem import DEGREE, WIDTH

__all__ = ["STEPS", "Fit", "OnPaper", "fit", "line", "on_paper", "taken"]

STEPS = {
    "generation": ("generation", "generation"),
    "METIS alone": ("metis", "METIS"),
    "data loaded": ("epoch", "loading"),
    "trainer made, graph cut by METIS": ("partition", "trainer"),
    "trainer made, cut in the cache": ("epoch", "trainer"),
    "an epoch of training": ("epoch", "epoch"),
    "operator of the whole graph": ("inference", "operator"),
    "inference, layer by layer": ("inference", "inference"),
    "cut for two machines, written": ("machines", "machines"),
}
"""Stage and step of each row."""
EDGES, MACHINES, BANDWIDTH = 10**9, 16, 1.25e9
"""Of the graph on paper; bytes a second between two machines, 10 Gbit/s."""


class Fit(NamedTuple):
    """``value = factor * nodes ** power``, by least squares in the logarithms."""

    power: float
    error: float | None
    """Standard error of the power; two points have none."""


class OnPaper(NamedTuple):
    """What a billion edges on sixteen machines would take: bytes, and hours."""

    nodes: int
    share: int
    """Nodes of a machine."""
    part: float
    """Bytes in memory of a process that holds its machine's share."""
    peak: float
    """While the trainer of that share is made."""
    features: float
    buffers: float
    cut: float
    """Bytes of cutting the graph, which one machine does for all."""
    cut_hours: tuple[float, float, float]
    epoch: tuple[float, float, float]
    """Hours: by the power less its error, by the power, by the power and its error."""
    gradients: float
    """Hours an epoch for the sums of the gradients, at most."""
    inference: tuple[float, float, float]
    exchange: float
    """Hours in which neighbours' features come from other machines, all layers."""


def taken(cell: dict[str, Any], row: str, quantity: str) -> float:
    """Seconds, or bytes, of a row of `STEPS`."""
    stage, step = STEPS[row]
    return cell["stages"][stage]["steps"][step][quantity]


def line(cells: list[dict[str, Any]], row: str, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Nodes, and the quantity there; memory without that of the libraries."""
    nodes = np.array([cell["plan"]["nodes"] for cell in cells], float)
    values = np.array([taken(cell, row, quantity) for cell in cells], float)
    if quantity != "seconds":
        values -= [cell["stages"]["libraries"]["steps"]["libraries"][quantity] for cell in cells]
    return nodes, values.clip(min=1e-9)


def fit(nodes: np.ndarray, values: np.ndarray) -> Fit:
    """Power of growth with the standard error of least squares."""
    x, y = np.log(nodes) - np.log(nodes).mean(), np.log(values)
    power = float(x @ y / (x @ x))
    rest = y - y.mean() - power * x
    free = len(x) - 2
    error = float(np.sqrt(rest @ rest / free / (x @ x))) if free > 0 else None
    return Fit(power, error)


def on_paper(cells: list[dict[str, Any]]) -> OnPaper:
    """Extrapolate from the sizes that were measured; `report` says what is assumed."""
    largest = cells[-1]
    plan, facts = largest["plan"], largest["stages"]["epoch"]["facts"]
    nodes = EDGES // DEGREE
    share = nodes // MACHINES

    def a_node(row: str) -> float:
        """Bytes that a node adds."""
        return float(np.polyfit(*line(cells, row, "anonymous"), 1)[0])

    def hours(row: str, size: int) -> tuple[float, float, float]:
        power, error = fit(*line(cells, row, "seconds"))
        now, factor = taken(largest, row, "seconds") / 3600, size / plan["nodes"]
        low, middle, high = (now * factor ** (power + sign * (error or 0)) for sign in (-1, 0, 1))
        return low, middle, high

    steps = share / (plan["part"] * plan["per_step"])
    crossing = share * DEGREE * (1 - largest["stages"]["metis"]["facts"]["kept_edges"])
    return OnPaper(
        nodes=nodes,
        share=share,
        part=a_node("an epoch of training") * share,
        peak=a_node("trainer made, cut in the cache") * share,
        features=4 * plan["in_feats"] * share,
        buffers=2 * 4 * WIDTH * share,
        cut=a_node("cut for two machines, written") * nodes,
        cut_hours=hours("cut for two machines, written", nodes),
        epoch=hours("an epoch of training", share),
        gradients=2 * 4 * facts["parameters"] * steps / BANDWIDTH / 3600,
        inference=hours("inference, layer by layer", share),
        exchange=4 * WIDTH * crossing * plan["layers"] / BANDWIDTH / 3600,
    )
