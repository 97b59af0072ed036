"""The trainings that there are not yet: settings first, on seeds of their own, then the others."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.baselines.protocol import run
from benchmarks.baselines.references import TASKS, TUNING_SEEDS, Candidate, Reference
from benchmarks.baselines.rows import Row, Rows, choose, settings
from benchmarks.baselines.training import EdgeTraining, ReferenceTraining
from benchmarks.time_to_accuracy.measure import copied_data
from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.training.folder import environment

__all__ = ["measure", "train"]


def train(task: str, reference: Reference, candidate: Candidate, data: TaskData, seed: int) -> Row:
    """One training; the test part is evaluated on reported seeds alone."""
    begun = time.process_time()
    make = EdgeTraining if data.level == "edge" else ReferenceTraining
    training = make(reference, candidate, data, seed)
    found = run(training, reference, data.target, test=seed not in TUNING_SEEDS)
    return {
        "task": task,
        "reference": reference.name,
        "settings": settings(reference, candidate),
        "seed": seed,
        **found,
        "cpu": round(time.process_time() - begun, 1),
        "versions": environment("cpu")["versions"],
    }


def measure(name: str, references: Sequence[Reference], seeds: Sequence[int], out: Path) -> None:
    """Make what is missing of some references of a task, row by row.

    Parameters
    ----------
    name : str
        Of the task.
    references : sequence of Reference
        Of the task.
    seeds : sequence of int
        To be reported.
    out : Path
        File of the rows.
    """
    task, rows = TASKS[name], Rows.of_file(out)
    with copied_data(task.folder):
        data = load_data(task.data, **task.options)

    def get(reference: Reference, candidate: Candidate, seed: int) -> None:
        if rows.find(name, reference, candidate, seed) is None:
            row = train(name, reference, candidate, data, seed)
            rows.add(row)
            print(json.dumps(row), file=sys.stderr, flush=True)

    for reference in references:
        if len(reference.candidates) > 1:
            for candidate in reference.candidates:
                for seed in TUNING_SEEDS:
                    get(reference, candidate, seed)
        chosen = choose(rows, name, reference, data.target)
        assert chosen is not None
        for seed in seeds:
            get(reference, chosen, seed)
