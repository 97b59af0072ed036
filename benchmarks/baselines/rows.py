"""Trainings that have been made, a line of JSON each, and the choice of settings by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.references import TUNING_SEEDS, Candidate, Reference
from benchmarks.rows import read_rows
from dgl_deepgnn.data import main_metric
from dgl_deepgnn.data.task_data import Target
from dgl_deepgnn.files import write_text

__all__ = ["Row", "Rows", "choose", "settings"]

Row = dict[str, Any]
"""``task``, ``reference``, ``settings``, ``seed``, and what was found."""


def settings(reference: Reference, candidate: Candidate) -> dict[str, Any]:
    """All of a reference that a row depends on: who changes it trains anew."""
    peer = candidate.peer
    facts = {
        "network": peer.network,
        "layers": peer.layers,
        "width": peer.width,
        "dropout": peer.dropout,
        "batch_size": peer.batch_size,
        "weight_decay": peer.weight_decay,
        "end_decay": peer.end_decay,
        **peer.options,
        "rate": candidate.rate,
        "epochs": reference.epochs,
        "patience": reference.patience,
        "every": reference.every,
        "halving": reference.halving,
    }
    return {key: value for key, value in facts.items() if value is not None}


class Rows:
    """Rows by what they are of.

    Parameters
    ----------
    rows : iterable of dict
        Those that there are.
    save : callable
        Called with all rows whenever there is a new one.
    """

    def __init__(
        self, rows: Iterable[Row] = (), save: Callable[[list[Row]], None] = lambda rows: None
    ) -> None:
        self._rows = {self._key(row): row for row in rows}
        self._save = save

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def add(self, row: Row) -> None:
        """Keep a row."""
        self._rows[self._key(row)] = row
        self._save(list(self))

    def find(self, task: str, reference: Reference, candidate: Candidate, seed: int) -> Row | None:
        """The row of a training, if it has been made."""
        facts = settings(reference, candidate)
        key = {"task": task, "reference": reference.name, "settings": facts, "seed": seed}
        return self._rows.get(self._key(key))

    def of(
        self, task: str, reference: Reference, candidate: Candidate, seeds: Iterable[int]
    ) -> list[Row]:
        """Those of some seeds that there are."""
        found = (self.find(task, reference, candidate, seed) for seed in seeds)
        return [row for row in found if row is not None]

    @classmethod
    def of_file(cls, file: Path) -> Rows:
        """Rows of a file, which gets every new one as soon as it is made."""

        def save(rows: list[Row]) -> None:
            write_text(file, "".join(json.dumps(row) + "\n" for row in rows))

        return cls(read_rows(file), save)

    @staticmethod
    def _key(row: Row) -> str:
        facts = [row["task"], row["reference"], row["settings"], row["seed"]]
        return json.dumps(facts, sort_keys=True)


def choose(rows: Rows, task: str, reference: Reference, target: Target) -> Candidate | None:
    """Settings with the best mean validation score on the tuning seeds, then the least loss.

    None while a candidate has not been tried on all of them; where there is but one, it is taken.
    """
    if len(reference.candidates) == 1:
        return reference.candidates[0]
    metric, greater = main_metric(target)
    found: list[tuple[tuple[float, float], Candidate]] = []
    for candidate in reference.candidates:
        tried = [row["val"] for row in rows.of(task, reference, candidate, TUNING_SEEDS)]
        if len(tried) < len(TUNING_SEEDS):
            return None
        score, loss = (float(np.mean([val[key] for val in tried])) for key in (metric, "loss"))
        found.append(((score if greater else -score, -loss), candidate))
    return max(found, key=lambda pair: pair[0])[1]
