"""All runs of one task in one process."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.time_to_accuracy.contenders import fresh, load, start
from benchmarks.time_to_accuracy.plan import RATES, TUNING_SEEDS, run_task
from benchmarks.time_to_accuracy.race import race
from benchmarks.time_to_accuracy.results import Results, Row
from benchmarks.time_to_accuracy.tasks import TASKS
from dgl_deepgnn.files import write_json

__all__ = ["copied_data", "measure", "read"]

SHARED = Path(__file__).parents[3] / "shared" / "datasets" / "dgl_raw"


def measure(name: str, out: str, again: str | None, machine: dict[str, str]) -> None:
    """Make the runs of a task that there are not yet, and those of the contenders `again`.

    Parameters
    ----------
    name : str
        Of the task.
    out : str
        File of the rows.
    again : str, optional
        Pattern of contenders whose runs are repeated.
    machine : dict
        What this runs on; all rows of a task are of one machine.
    """
    task, threads, file = TASKS[name], torch.get_num_threads(), Path(out)
    machines, rows = read(file)
    if machines.setdefault(name, machine) != machine:
        raise ValueError(
            f"The rows of {name} in {file} are of another machine or other versions: take them "
            f"away first."
        )
    results = Results(rows, lambda rows: write_json(file, {"machines": machines, "rows": rows}))
    made: set[tuple[str, float, int]] = set()
    with copied_data(task.folder):
        data = {contender: load(task, contender) for contender in task.contenders}

        for contender in task.contenders:
            # What is imported or set up at the first use is no part of a training.
            training = start(task, contender, fresh(data[contender]), TUNING_SEEDS[0], RATES[0])
            training.epoch()
            training.validate()

        def get(contender: str, rate: float, seed: int, cap: float) -> Row:
            row = results.find(name, contender, rate, seed, threads)
            repeat = again is not None and fnmatch(contender, again)
            if row is not None and not (repeat and (contender, rate, seed) not in made):
                return row
            unprepared = fresh(data[contender])  # before the clock starts
            begin = partial(start, task, contender, unprepared, seed, rate)
            key = {"task": name, "contender": contender, "rate": rate, "seed": seed}
            row = {**key, "threads": threads, **race(begin, task.targets, cap)}
            results.add(row)
            made.add((contender, rate, seed))
            print(json.dumps(row), file=sys.stderr, flush=True)
            return row

        run_task(name, task, results, get, tuning=threads == 1)


def read(file: Path) -> tuple[dict[str, dict[str, str]], list[Row]]:
    """Machine by task, and rows, of a file, if there is one."""
    if not file.exists():
        return {}, []
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content["machines"], content["rows"]


@contextmanager
def copied_data(folder: str) -> Iterator[None]:
    """Let DGL read a copy of the raw files at hand, since it writes caches beside them."""
    places = [os.environ.get("DGL_DOWNLOAD_DIR"), SHARED]
    found = [
        path
        for place in places
        if place is not None and Path(place).is_dir()
        for path in Path(place).iterdir()
        if path.name.startswith(folder)
    ]
    if not found:  # DGL downloads it, or says why not
        yield
        return
    former = os.environ.get("DGL_DOWNLOAD_DIR")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(shutil.copytree(found[0], Path(place) / found[0].name))
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.environ["DGL_DOWNLOAD_DIR"] = place
        try:
            yield
        finally:
            if former is None:
                del os.environ["DGL_DOWNLOAD_DIR"]
            else:
                os.environ["DGL_DOWNLOAD_DIR"] = former
