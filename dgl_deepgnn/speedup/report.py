"""What a speed-up record looks like: table, CSV and plot."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np

from dgl_deepgnn.files import write_figure
from dgl_deepgnn.speedup.arms import PRINCIPLED
from dgl_deepgnn.wording import counted, fixed, plotted

__all__ = [
    "describe_ratio",
    "describe_score",
    "describe_speedup",
    "describe_steps",
    "describe_target",
    "median_steps",
    "plot_speedup",
    "speedup_csv",
]


def describe_ratio(ratio: dict[str, Any]) -> str:
    """Ratio in words: ``5.2 (4.8 to 6.0)``, with ``> `` or ``< `` in front of a bound.

    Examples
    --------
    >>> describe_ratio({"ratio": 20.0, "low": 16.7, "high": 20.0, "bound": "lower"})
    '> 20.0 (16.7 to 20.0)'
    """
    if ratio["ratio"] is None:
        return "neither arm gets there"
    sign = {"lower": "> ", "upper": "< ", None: ""}[ratio["bound"]]
    middle, low, high = (fixed(ratio[key], 1) for key in ("ratio", "low", "high"))
    return f"{sign}{middle} ({low} to {high})"


def median_steps(steps: list[int | None], budget: int) -> str:
    """Median number of steps to a target; of seeds that never get there it is beyond the budget.

    Examples
    --------
    >>> median_steps([6, 8, None], budget=100), median_steps([6, None, None], budget=100)
    ('8', '> 100')
    """
    return _within(float(np.median(_reached(steps))), budget)


def describe_steps(steps: list[int | None], budget: int) -> str:
    """Median number of steps to a target, and the range of the seeds.

    Examples
    --------
    >>> describe_steps([6, 8, None], budget=100)
    '8 (6 to > 100)'
    """
    values, middle = _reached(steps), median_steps(steps, budget)
    if min(values) == max(values):
        return middle
    return f"{middle} ({_within(min(values), budget)} to {_within(max(values), budget)})"


def _reached(steps: list[int | None]) -> list[float]:
    return [math.inf if step is None else step for step in steps]


def _within(steps: float, budget: int) -> str:
    return f"{steps:g}" if math.isfinite(steps) else f"> {budget}"


def describe_score(scores: list[float | None]) -> str:
    """Mean over the seeds; those that diverged have none.

    Examples
    --------
    >>> describe_score([0.5, None, 0.7]), describe_score([None])
    ('0.600', 'diverged')
    """
    found = [score for score in scores if score is not None]
    return f"{np.mean(found):.3f}" if found else "diverged"


def describe_target(share: float) -> str:
    """Target loss in words, everywhere the same.

    Examples
    --------
    >>> describe_target(0.5), describe_target(0.125)
    ('50% of chance', '12.5% of chance')
    """
    return f"{100 * share:.3g}% of chance"


def describe_speedup(result: dict[str, Any]) -> str:
    """Table of the arms and the speed-ups, as text."""
    budget = result["budget"]
    header = ["arm", "lr"]
    shares = list(map(describe_target, result["target_shares"]))
    header += [f"steps to {share}" for share in shares]
    header += [f"mean loss over {budget} steps", result["metric"]]
    trained = any(facts.get("final") for facts in result["arms"].values())
    header += [f"{result['metric']} in the end"] if trained else []
    rows = [header]
    for arm, facts in result["arms"].items():
        row = [arm, f"{facts['lr']:.2g}"]
        row += [describe_steps(steps, budget) for steps in facts["steps"]]
        losses = [math.inf if loss is None else loss for loss in facts["mean_loss"]]
        row += [f"{np.median(losses):.3g}", describe_score(facts["score"])]
        row += [describe_score(facts["final"])] if trained else []
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    lines.append("")
    for pair, ratios in result["speedups"].items():
        # Records of versions to 0.2 have no ratios of seconds.
        clock = result.get("wall_clock", {}).get(pair, [None] * len(ratios))
        for share, ratio, seconds in zip(shares, ratios, clock, strict=True):
            line = f"speed-up to {share}, {pair}: {describe_ratio(ratio)}"
            if seconds is not None and seconds["ratio"] is not None:
                line += f"; on the clock {describe_ratio(seconds)}"
            lines.append(line)
    lines.append(
        f"Medians over {counted(len(result['seeds']), 'seed')} (range), bootstrap 95 % intervals; "
        "'>' stands where an arm does not get there within the budget."
    )
    return "\n".join(line.rstrip() for line in lines)


def plot_speedup(path: Path, result: dict[str, Any]) -> None:
    """Draw median and quartiles of the training loss by step, with the targets marked."""
    from matplotlib.figure import Figure  # only who plots pays for matplotlib
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots()
    curves = []
    for arm, facts in result["arms"].items():
        table = np.full((len(facts["losses"]), result["budget"]), np.nan)
        for row, losses in zip(table, facts["losses"], strict=True):
            row[: len(losses)] = losses
        # Where every seed has diverged there is nothing to draw.
        drawn = ~np.isnan(table).all(axis=0)
        steps = np.flatnonzero(drawn) + 1
        low, middle, high = np.empty((3, 0))
        if drawn.any():
            low, middle, high = np.nanquantile(table[:, drawn], [0.25, 0.5, 0.75], axis=0)
        diverged = int(np.isnan(table).any(axis=1).sum())
        label = f"{plotted(arm, 40)} (lr {facts['lr']:.2g})"
        label += f", {diverged} of {counted(len(table), 'seed')} diverged" if diverged else ""
        (line,) = axes.plot(steps, middle, label=label, linewidth=2.4 if arm == PRINCIPLED else 1.4)
        curves.append((line, middle))
        axes.fill_between(steps, low, high, alpha=0.2, color=line.get_color(), linewidth=0)
    for target, share in zip(result["targets"], result["target_shares"], strict=True):
        axes.axhline(target, color="black", linestyle=":", linewidth=1)
        axes.annotate(
            f"target: {describe_target(share)}",
            (result["budget"], target),
            xytext=(4, 0),  # beside the axes, where no curve runs through it
            textcoords="offset points",
            va="top",  # below its line; chance level stands above its own
            fontsize="small",
        )
    axes.set(
        title=f"{plotted(result['recipe'])}: early training, each arm at its best learning rate",
        xlabel="optimizer step",
        ylabel=f"training loss (median and quartiles of {counted(len(result['seeds']), 'seed')})",
        yscale="log",
        xlim=(1, result["budget"]),
    )
    # An arm on its way to infinity would press the others into one line.
    chance = result["targets"][0] / result["target_shares"][0]
    axes.axhline(chance, color="0.6", linestyle="--", linewidth=1)
    axes.annotate(
        "chance level:\na uniform guess",
        (result["budget"], chance),
        xytext=(4, 0),
        textcoords="offset points",
        va="bottom",
        fontsize="small",
        color="0.4",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    top = min(axes.get_ylim()[1], 10 * chance)
    axes.set_ylim(top=top)
    for line, middle in curves:
        if len(middle) and middle[0] > top:
            line.set_label(f"{line.get_label()}, starts at {middle[0]:.2g}, above the plot")
    axes.grid(alpha=0.3, which="both")
    axes.legend(fontsize="small")
    write_figure(path, figure, dpi=150)


def speedup_csv(result: dict[str, Any]) -> str:
    """One line an arm and seed."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    targets = [describe_target(share).replace(" ", "_") for share in result["target_shares"]]
    trained = any(facts.get("final") for facts in result["arms"].values())
    writer.writerow(
        ["recipe", "arm", "lr", "seed"]
        + [f"steps_to_{target}" for target in targets]
        + [f"seconds_to_{target}" for target in targets]
        + ["mean_loss", f"test_{result['metric']}"]
        + ([f"final_test_{result['metric']}"] if trained else [])
    )
    for arm, facts in result["arms"].items():
        for index, seed in enumerate(result["seeds"]):
            writer.writerow(
                [result["recipe"], arm, f"{facts['lr']:.4g}", seed]
                + [steps[index] for steps in facts["steps"]]
                + [seconds[index] for seconds in facts["seconds"]]
                + [facts["mean_loss"][index], facts["score"][index]]
                + ([facts["final"][index]] if trained else [])
            )
    return table.getvalue()
