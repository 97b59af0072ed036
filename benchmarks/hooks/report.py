"""The tables of the benchmark, and how many models are as they should be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.hooks.cases import CASES
from benchmarks.hooks.measure import ARMS, LEARNING_RATES, SEEDS, VIEWS
from dgl_deepgnn.wording import counted

__all__ = ["STEPS", "claim", "is_order_one", "is_right", "is_worse", "report"]

Row = dict[str, Any]
STEPS = 100


def typical(values: Iterable[float | None]) -> float:
    """Geometric mean over the seeds; infinite where one is not finite."""
    numbers = [math.inf if value is None else value for value in values]
    with np.errstate(divide="ignore"):
        return float(np.exp(np.mean(np.log(numbers))))


def is_order_one(row: Row, model: str, depth: int) -> bool:
    """Whether the mean square is within a factor 10 of one in every view.

    Where terms are added up over the layers unscaled, their number is allowed besides.
    """
    most = 10 * (depth if CASES[model].sums else 1)
    return all(0.1 <= typical(row["mean_square"][view]) <= most for view in VIEWS)


def is_right(row: Row) -> bool:
    """Whether a closed form neither explodes nor vanishes: mean squares of 1e-4 to 1000.

    So wide, because single draws of a narrow network fall below the mean, which is what theory
    speaks of, and because the first aggregations average unrelated features.
    """
    return all(1e-4 <= typical(row["mean_square"][view]) <= 1e3 for view in VIEWS[:2])


def best_losses(row: Row) -> list[float]:
    """Losses after all steps, one a seed, at the learning rate with the smallest median."""
    runs = [
        [math.inf if pair[1] is None else pair[1] for pair in pairs]
        for pairs in row["losses"].values()
    ]
    return min(runs, key=np.median)


def is_worse(row: Row, stock: Row) -> bool:
    """Whether every seed ends at a larger loss than every one of the stock model."""
    return min(best_losses(row)) > max(best_losses(stock)) + 0.02


def report(results: dict[str, Any]) -> str:
    """Markdown of what ``hooks.json`` holds."""
    rows = {(row["model"], row["depth"], row["arm"]): row for row in results["rows"]}
    depths = sorted({depth for _, depth, _ in rows})
    commands = " and ".join(f"`{command}`" for command in results["commands"])
    lines = [
        "# One call for any model",
        "",
        f"Made by {commands}: {len(CASES)} models written in the manner of DGL's "
        "examples and its users (`benchmarks/hooks/stacks.py`, `handwritten.py`), on graphs of "
        "200 nodes, width 64: as they come, after `critical_(model, graph)` (closed form) and "
        "after `critical_(model, forward=...)` (measured). Features are noise and, weakly, "
        "the community of the node. Mean squares "
        f"and gradients are geometric means of {len(SEEDS)} seeds. *Fresh*: on other features "
        "than it was measured with. *Gradient*: squared norm in the first weight matrix of a "
        "gradient of norm one at the output, in training mode. Figures with a star came with a "
        "warning.",
        "",
        *_summary(results, depths),
    ]
    for depth in depths:
        lines += ["", f"## {depth} layers at the start", "", *_start_table(rows, depth)]
        if any("losses" in row and row["losses"] for key, row in rows.items() if key[1] == depth):
            lines += ["", f"## {depth} layers in training", "", *_loss_table(rows, depth)]
    refused = {(m, a): row["refused"] for (m, _, a), row in rows.items() if "refused" in row}
    lines += ["", "## What was refused, and why", ""]
    lines += [f"- {model}, {arm}: {reason}" for (model, arm), reason in refused.items()]
    return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class Counts:
    """Names of the models of one depth, by what came of them."""

    fine: list[str]
    """Of order one as they come."""
    measured: list[str]
    """All that were measured; of those, what is of order one, and what is not with a warning."""
    good: list[str]
    told: list[str]
    closed: list[str]
    """All that the closed form was asked for; what it refuses, and what is wrong then."""
    refused: list[str]
    warned: list[str]
    silent: list[str]
    trained: list[str]
    """All that were trained, measured and stock; where measured ends lower, and higher."""
    better: list[str]
    worse: list[str]

    @property
    def untold(self) -> list[str]:
        """Measured, not of order one, and no warning says so."""
        return [name for name in self.measured if name not in self.good + self.told]

    @property
    def right(self) -> int:
        """How many the closed form neither refuses nor gets wrong."""
        return len(self.closed) - len(self.refused + self.warned + self.silent)


def count(results: dict[str, Any], depth: int) -> Counts:
    """Sort the models of a depth."""
    found: dict[str, dict[str, Row]] = {arm: {} for arm in ARMS}
    for row in results["rows"]:
        if row["depth"] == depth:
            found[row["arm"]][row["model"]] = row
    measured, closed, stock = found["measured"], found["closed form"], found["stock"]
    good = [m for m, r in measured.items() if "refused" not in r and is_order_one(r, m, depth)]
    refused = [m for m, r in closed.items() if "refused" in r]
    off = [m for m, r in closed.items() if m not in refused and not is_right(r)]
    warned = [m for m in off if closed[m].get("warned")]
    trained = [m for m, r in measured.items() if r.get("losses") and stock.get(m, {}).get("losses")]
    return Counts(
        fine=[m for m, r in stock.items() if is_order_one(r, m, depth)],
        measured=list(measured),
        good=good,
        told=[
            m for m, r in measured.items() if m not in good and (r.get("warned") or "refused" in r)
        ],
        closed=list(closed),
        refused=refused,
        warned=warned,
        silent=[m for m in off if m not in warned],
        trained=trained,
        better=[m for m in trained if is_worse(stock[m], measured[m])],
        worse=[m for m in trained if is_worse(measured[m], stock[m])],
    )


def claim(results: dict[str, Any], depth: int = 32) -> str:
    """What README may say."""
    counts = count(results, depth)
    text = (
        f"Of {len(counts.measured)} models of {depth} layers in the manner of DGL's users, the "
        f"measured way brings {len(counts.good)} to a mean square within a factor 10 of one, in "
        "training and evaluation, on other features too (unscaled residual sums: of the number of "
        f"layers; as they come: {len(counts.fine)}), and warns of {len(counts.told)}; the closed "
        f"form is right for {counts.right}, refuses {len(counts.refused)}, warns of "
        f"{len(counts.warned)} and is silently wrong for {len(counts.silent)}."
    )
    if counts.trained:
        text += (
            f" After {STEPS} steps of Adam the measured one's loss is lower in every seed for "
            f"{len(counts.better)} of {len(counts.trained)}, higher for {len(counts.worse)}."
        )
    return text


def _summary(results: dict[str, Any], depths: list[int]) -> list[str]:
    lines = []
    for depth in depths:
        counts = count(results, depth)
        lines.append(
            f"- {depth} layers, measured: {len(counts.good)} of {len(counts.measured)} within a "
            "factor 10 of one in both modes, on the features given and on fresh ones (unscaled "
            f"residual sums: of the number of layers); stock: {len(counts.fine)}."
            + _named(" Not, as a warning says:", counts.told)
            + _named(" Not, without a warning:", counts.untold)
        )
        lines.append(
            f"- {depth} layers, closed form: {counts.right} right, {len(counts.refused)} refused, "
            f"{len(counts.warned)} wrong (below 1e-4 or above 1000) with a warning, "
            f"{len(counts.silent)} wrong without one."
            + _named(" With a warning:", counts.warned)
            + _named(" Without:", counts.silent)
        )
        if counts.trained:
            lines.append(
                f"- {depth} layers, loss after {STEPS} steps, measured against stock, each at its "
                "better learning rate: lower in every seed for "
                f"{counted(len(counts.better), 'model')}, higher for {len(counts.worse)}, of "
                f"{len(counts.trained)}." + _named(" Higher:", counts.worse)
            )
    return lines


def _named(label: str, names: list[str]) -> str:
    return f"{label} {'; '.join(names)}." if names else ""


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return "inf"
    return f"{value:.2g}" if 0.01 <= value < 1000 or value == 0 else f"{value:.0e}"


def _start_table(rows: dict[tuple[str, int, str], Row], depth: int) -> list[str]:
    lines = [
        "| model | stock | gradient | closed form | measured: training | evaluation "
        "| training, fresh | evaluation, fresh | gradient |",
        "|---" * 9 + "|",
    ]
    for model in CASES:
        stock, closed, measured = (rows.get((model, depth, arm)) for arm in ARMS)
        cells = [*_signal(stock, VIEWS[:1]), _gradient(stock), *_signal(closed, VIEWS[:1])]
        cells += [*_signal(measured, VIEWS), _gradient(measured)]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _signal(row: Row | None, views: tuple[str, ...]) -> list[str]:
    if row is None or "refused" in row:
        return ["-" if row is None else "refused"] * len(views)
    star = "*" if row.get("warned") else ""
    return [_figure(typical(row["mean_square"][view])) + star for view in views]


def _gradient(row: Row | None) -> str:
    return "-" if row is None or "refused" in row else _figure(typical(row["gradient"]))


def _loss_table(rows: dict[tuple[str, int, str], Row], depth: int) -> list[str]:
    rates = [f"{rate:g}" for rate in LEARNING_RATES]
    lines = [
        "The task: find the community of a node, of features with fresh noise in every step. "
        f"Median of {len(SEEDS)} seeds of the cross-entropy (1.38 for a model that knows nothing) "
        f"after {STEPS // 2} / {STEPS} steps of Adam at learning rate "
        + " and ".join(rates)
        + "; ∞: not finite.",
        "",
        "| model | " + " | ".join(f"{arm}, {rate}" for arm in ARMS for rate in rates) + " |",
        "|---" * (1 + len(ARMS) * len(rates)) + "|",
    ]
    for model in CASES:
        cells = []
        for arm in ARMS:
            row = rows.get((model, depth, arm))
            for rate in rates:
                pairs = [] if row is None else row.get("losses", {}).get(rate, [])
                cells.append(" / ".join(_median(pairs, i) for i in (0, 1)) if pairs else "-")
        if any(cell != "-" for cell in cells):
            lines.append(f"| {model} | {' | '.join(cells)} |")
    return lines


def _median(pairs: list[list[float | None]], index: int) -> str:
    value = float(np.median([math.inf if p[index] is None else p[index] for p in pairs]))
    return "∞" if math.isinf(value) else f"{value:.2f}" if value < 1000 else f"{value:.0e}"
