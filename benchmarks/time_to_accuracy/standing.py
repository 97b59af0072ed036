"""What the rows of a task say: medians over seeds, some of which did not get there, and ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.time_to_accuracy.plan import (
    RATES,
    SEEDS,
    reported_cap,
    seconds_to,
    tuned_rate,
)
from benchmarks.time_to_accuracy.results import Results, Row
from benchmarks.time_to_accuracy.tasks import OURS, TASKS, Task
from dgl_deepgnn.speedup.comparison import compare_steps

__all__ = ["GOAL", "Comparison", "Standing", "spread"]

GOAL = 4.0
"""How many times as long the best peer is to take at least."""


def spread(values: Sequence[float | None], cap: float, digits: int = 1) -> str:
    """Median, least and greatest; None is more than `cap`.

    Examples
    --------
    >>> spread([3.0, 1.0, None], cap=20), spread([None, None, 7.0], cap=20)
    ('3.0 (1.0 to > 20)', '> 20 (7.0 to > 20)')
    >>> spread([None, None], cap=20), spread([4, 4], cap=20, digits=0)
    ('> 20', '4')
    """
    known = [math.inf if value is None else value for value in values]

    def word(value: float) -> str:
        return f"{value:.{digits}f}" if math.isfinite(value) else f"> {cap:g}"

    middle = word(float(np.median(known)))
    if min(known) == max(known):
        return middle
    return f"{middle} ({word(min(known))} to {word(max(known))})"


@dataclass(frozen=True)
class Comparison:
    """The best peer beside ours, at one target."""

    peer: str
    seconds: dict[str, Any]
    """Ratio of the medians, its interval and whether it is a bound, as `compare_steps` has it."""
    cpu: dict[str, Any]
    """The same of the processor's time."""

    @property
    def verdict(self) -> str:
        """What may be said of it."""
        ratio, low, high = (self.seconds[key] for key in ("ratio", "low", "high"))
        if ratio is None:
            return "neither gets there"
        if ratio >= GOAL:
            return "reached"
        if low > 1:
            return "faster"
        return "slower" if high < 1 else "undecided"


class Standing:
    """All reported runs of a task with one number of threads.

    Parameters
    ----------
    results : Results
        The rows.
    name : str
        Of the task.
    threads : int
        Which rows.
    """

    def __init__(self, results: Results, name: str, threads: int = 1) -> None:
        self.name, self.task, self.threads = name, TASKS[name], threads
        self.rates = {
            contender: tuned_rate(results, name, self.task, contender)
            for contender in self.task.contenders
        }
        self.cap = reported_cap(results, name, self.task)
        self.rows: dict[str, list[Row]] = {
            contender: [
                row
                for row in results.of(name, contender=contender, rate=rate, threads=threads)
                if row["seed"] in SEEDS
            ]
            for contender, rate in self.rates.items()
        }

    @property
    def begun(self) -> bool:
        """Whether there is anything to report of every contender."""
        return all(self.rows.values())

    @property
    def complete(self) -> bool:
        """Whether every contender has all its seeds."""
        return all(len(rows) == len(SEEDS) for rows in self.rows.values())

    def at_an_edge(self, contender: str) -> bool:
        """Whether a contender's learning rate is the least or the greatest of the grid."""
        return self.rates[contender] in (min(RATES), max(RATES))

    def values(self, contender: str, target: float, key: str) -> list[float | None]:
        """``seconds``, ``cpu`` or ``epochs`` to a target, a value a seed."""
        found = [row["reached"][str(target)] for row in self.rows[contender]]
        return [None if some is None else some[key] for some in found]

    def epochs(self, contender: str, target: float) -> tuple[list[float | None], float]:
        """Epochs to a target, and how many at least were not enough where it was not reached."""
        found = self.values(contender, target, "epochs")
        rows = self.rows[contender]
        short = [row["epochs"] for row, some in zip(rows, found, strict=True) if some is None]
        return found, min(short, default=0)

    def compare(self, target: float) -> Comparison:
        """Ours and the peer that is fastest to a target."""
        peer = min(
            (peer.name for peer in self.task.peers), key=lambda name: self._rank(name, target)
        )
        seconds, cpu = (
            compare_steps(self.values(peer, target, key), self.values(OURS, target, key), self.cap)
            for key in ("seconds", "cpu")
        )
        return Comparison(peer, seconds, cpu)

    def _rank(self, contender: str, target: float) -> tuple[float, int, float]:
        seconds = [seconds_to(row, target) for row in self.rows[contender]]
        reached = [some for some in seconds if math.isfinite(some)]
        return float(np.median(seconds)), -len(reached), min(seconds)

    def milliseconds(self, contender: str) -> float:
        """Of an epoch and its validation, the median over the seeds."""
        rows = self.rows[contender]
        return 1e3 * float(
            np.median([(row["seconds"] - row["built"]) / row["epochs"] for row in rows])
        )

    @property
    def load(self) -> float:
        """Of the machine as the runs began, their median."""
        return float(np.median([row["load"] for rows in self.rows.values() for row in rows]))


def known(task: Task, target: float) -> str:
    """A target in words."""
    return f"{task.metric.replace('_', ' ').replace('roc auc', 'ROC AUC')} {target:.2f}"
