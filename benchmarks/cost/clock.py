"""Interleaved timing: every round times each contender once, in an order of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

__all__ = ["LEAST_ROUNDS", "measure", "quartiles"]

LEAST_ROUNDS, MOST_ROUNDS = 9, 51


def measure(
    tasks: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    least: int,
    label: str,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, dict[str, Any]]:
    """Quartiles of the seconds that each task takes.

    Parameters
    ----------
    tasks : dict of str to callable
        What is timed; each is first run once without being counted.
    seconds : float
        About how long all rounds together may take, if they are more than `least`.
    least : int
        Least number of rounds.
    label : str
        What the progress bar says.
    clock : callable
        What is read before and after; ``time.process_time`` counts only the work of this process.
    """
    spent = sum(_seconds(task, clock) for task in tasks.values())
    rounds = max(least, min(MOST_ROUNDS, int(seconds / spent)))
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    names, shuffle = list(tasks), random.Random(0).shuffle
    for _ in tqdm(range(rounds), label):
        shuffle(names)  # nobody always runs after the same one
        for name in names:
            taken[name].append(_seconds(tasks[name], clock))
    return {name: quartiles(values) for name, values in taken.items()}


def quartiles(values: list[float]) -> dict[str, Any]:
    """Median, quartiles and number of the values."""
    low, median, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "q25": low, "q75": high, "rounds": len(values)}


def _seconds(task: Callable[[], object], clock: Callable[[], float]) -> float:
    start = clock()
    task()
    return clock() - start
