"""Rows of all runs: found by what they are of, replaced one by one, saved as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.time_to_accuracy.tasks import TASKS

__all__ = ["Results", "Row"]

Row = dict[str, Any]
"""What is kept of a run: `KEY`, and what `race` found."""

KEY = ("task", "contender", "rate", "seed", "threads")


class Results:
    """Rows by task, contender, learning rate, seed and number of threads.

    Parameters
    ----------
    rows : iterable of dict
        Those that there are.
    save : callable
        Called with all rows, in order, whenever there is a new one.
    """

    def __init__(
        self, rows: Iterable[Row] = (), save: Callable[[list[Row]], None] = lambda rows: None
    ) -> None:
        self._rows = {_key(row): row for row in rows}
        self._save = save

    def __iter__(self) -> Iterator[Row]:
        return iter(sorted(self._rows.values(), key=_order))

    def add(self, row: Row) -> None:
        """Put a row in the place of its former self."""
        self._rows[_key(row)] = row
        self._save(list(self))

    def find(self, task: str, contender: str, rate: float, seed: int, threads: int) -> Row | None:
        """The row of one run, if it has been made."""
        return self._rows.get((task, contender, rate, seed, threads))

    def of(self, task: str, **wanted: Any) -> list[Row]:
        """Rows of a task in which these keys have these values."""
        return [
            row
            for row in self
            if row["task"] == task and all(row[key] == value for key, value in wanted.items())
        ]


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[key] for key in KEY)


def _order(row: Row) -> tuple[Any, ...]:
    names = list(TASKS)
    place = names.index(row["task"]) if row["task"] in names else len(names)
    return (place, row["threads"], row["seed"], row["contender"], row["rate"])
