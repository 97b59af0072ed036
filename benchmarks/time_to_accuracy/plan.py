"""Which runs there are, in which order and with which cap; the choice of the learning rates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.time_to_accuracy.results import Results, Row
from benchmarks.time_to_accuracy.tasks import Task

__all__ = [
    "FIRST_CAP",
    "LEAST_CAP",
    "PATIENCE",
    "RATES",
    "SEEDS",
    "TUNING_SEEDS",
    "best_rate",
    "reported_cap",
    "run_task",
    "seconds_to",
    "tuned_rate",
    "tuning_cap",
]

RATES = (0.01, 0.03, 0.003, 0.1)
"""Everybody's learning rates, a factor of the root of 10 apart; first those that are published
most, so that the cap is known early."""
TUNING_SEEDS = (1000, 1001)
SEEDS = (0, 1, 2, 3, 4)
PATIENCE = 6
"""How many times as long as the fastest nobody has to take."""
LEAST_CAP = 20.0
"""Seconds, also where that is more."""
FIRST_CAP = 120.0
"""Seconds, while nothing has reached the higher target yet."""

Get = Callable[[str, float, int, float], Row]
"""Row of contender, learning rate, seed and cap: one that there is, or one that is made now."""


def seconds_to(row: Row, target: float) -> float:
    """Seconds to a target; infinite where it was not reached within the cap."""
    found = row["reached"][str(target)]
    return math.inf if found is None else found["seconds"]


def tuning_cap(rows: Sequence[Row], target: float) -> float:
    """Cap of the next tuning run, by the fastest so far."""
    best = min((seconds_to(row, target) for row in rows), default=math.inf)
    return _cap(best) if math.isfinite(best) else FIRST_CAP


def reported_cap(results: Results, name: str, task: Task) -> float:
    """Cap of every reported run of a task: by the best contender in tuning, at its best rate.

    Once there are reported runs it stays theirs, whoever is tuned again: one cap for all.
    """
    for row in results.of(name):
        if row["seed"] in SEEDS:
            return row["cap"]
    medians = [
        _rank(_tuning_rows(results, name, contender, rate), task)[0]
        for contender in task.contenders
        if (rate := tuned_rate(results, name, task, contender)) is not None
    ]
    best = min(medians, default=math.inf)
    return _cap(best) if math.isfinite(best) else FIRST_CAP


def tuned_rate(results: Results, name: str, task: Task, contender: str) -> float | None:
    """A contender's learning rate, by the tuning runs that there are."""
    return best_rate({rate: _tuning_rows(results, name, contender, rate) for rate in RATES}, task)


def best_rate(rows: dict[float, list[Row]], task: Task) -> float | None:
    """Learning rate with the least median time to the higher target.

    Where nothing is reached, the one with the most targets reached, then the one that is faster to
    the lower target, then the first. A rate that was not tried with every seed was given up since
    it could not win, see :func:`run_task`.
    """
    tried = {rate: some for rate, some in rows.items() if len(some) == len(TUNING_SEEDS)}
    return min(tried, key=lambda rate: _rank(tried[rate], task), default=None)


def run_task(name: str, task: Task, results: Results, get: Get, tuning: bool = True) -> None:
    """Make all runs of a task that there are not yet.

    Every contender's learning rate is chosen first, on seeds of which nothing is reported; the
    second of them is left out for rates that have lost already. Then all contenders take turns,
    seed by seed.

    Parameters
    ----------
    name : str
        Of the task.
    task : Task
        The task.
    results : Results
        Rows that there are.
    get : callable
        Finds or makes a row.
    tuning : bool
        Whether to make tuning runs, too; otherwise their rows have to be there.
    """
    if tuning:
        _tune(name, task, results, get)
    cap = reported_cap(results, name, task)
    names = list(task.contenders)
    for seed in SEEDS:
        turn = seed % len(names)  # nobody always runs after the same one
        for contender in names[turn:] + names[:turn]:
            rate = tuned_rate(results, name, task, contender)
            if rate is None:
                raise ValueError(f"{name}: no learning rate is chosen for {contender} yet.")
            get(contender, rate, seed, cap)


def _tune(name: str, task: Task, results: Results, get: Get) -> None:
    first, second = TUNING_SEEDS
    high = task.targets[-1]

    def run(contender: str, rate: float, seed: int) -> Row:
        rows = [row for s in TUNING_SEEDS for row in results.of(name, seed=s, threads=1)]
        return get(contender, rate, seed, tuning_cap(rows, high))

    for rate in RATES:
        for contender in task.contenders:
            run(contender, rate, first)
    for contender in task.contenders:
        rows = {rate: _tuning_rows(results, name, contender, rate)[:1] for rate in RATES}
        best = math.inf
        for rate in sorted(RATES, key=lambda rate: _rank(rows[rate], task)):
            seconds = seconds_to(rows[rate][0], high)
            # Half of it is the least that the median of two can be.
            if math.isfinite(best) and seconds / 2 >= best:
                continue
            best = min(best, (seconds + seconds_to(run(contender, rate, second), high)) / 2)


def _tuning_rows(results: Results, name: str, contender: str, rate: float) -> list[Row]:
    found = [results.find(name, contender, rate, seed, 1) for seed in TUNING_SEEDS]
    return [row for row in found if row is not None]


def _rank(rows: Sequence[Row], task: Task) -> tuple[float, int, float]:
    low, high = ([seconds_to(row, target) for row in rows] for target in task.targets)
    reached = sum(math.isfinite(seconds) for seconds in (*low, *high))
    return _median(high), -reached, _median(low)


def _median(values: Sequence[float]) -> float:
    # NumPy's mean of an infinite value and a finite one is infinite, as it should be.
    return float(np.median(values))


def _cap(best: float) -> float:
    return round(max(LEAST_CAP, PATIENCE * best), 1)
