"""One training against the clock: when it reaches each target, if it does within the cap."""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence

from benchmarks.time_to_accuracy.contenders import Training
from benchmarks.time_to_accuracy.results import Row
from dgl_deepgnn.training import DivergenceError

__all__ = ["race"]


def race(
    begin: Callable[[], Training],
    targets: Sequence[float],
    cap: float,
    clock: Callable[[], float] = time.perf_counter,
) -> Row:
    """Train until the last target is reached or `cap` seconds have gone by.

    The clock runs from before the model is built. It counts training and validation, which follows
    every epoch.

    Parameters
    ----------
    begin : callable
        Builds model, optimizer and what they read.
    targets : sequence of float
        Scores, the last one the highest.
    cap : float
        Seconds after which nothing counts any more.
    clock : callable
        What is read.

    Returns
    -------
    dict
        ``reached``: by target ``seconds``, ``cpu`` (of the processor, seconds) and ``epochs`` until
        then, or None; ``cap``; ``built``, seconds until the first epoch; ``epochs`` and ``seconds``
        of the whole run; ``best``, the highest score; ``diverged``; ``load`` of the machine as it
        began.
    """
    gc.collect()  # the former run's memory is not this one's to clear up
    row: Row = {"cap": cap, "reached": {str(target): None for target in targets}, "epochs": 0}
    row |= {"seconds": 0.0, "best": None, "diverged": False, "load": round(os.getloadavg()[0], 2)}
    begun, begun_cpu = clock(), time.process_time()
    training = begin()
    row["built"] = round(clock() - begun, 4)
    while row["seconds"] < cap:
        try:
            training.epoch()
            score = training.validate()
        except DivergenceError:
            score = math.nan
        row["epochs"] += 1
        row["seconds"] = round(clock() - begun, 4)
        if not math.isfinite(score):
            row["diverged"] = True
            break
        row["best"] = max(score, row["best"] or 0.0)
        if row["seconds"] > cap:
            break
        for target in targets:
            if score >= target and row["reached"][str(target)] is None:
                row["reached"][str(target)] = {
                    "seconds": row["seconds"],
                    "cpu": round(time.process_time() - begun_cpu, 4),
                    "epochs": row["epochs"],
                }
        if all(row["reached"].values()):
            break
    return row
