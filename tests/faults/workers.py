"""Many cases on several processes, counted; one that hangs or dies takes no other with it."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dgl_deepgnn.errors import DGLError, UserError

WHOLE, REFUSED, TRACEBACK, HANG = "whole", "refused", "traceback", "hang"
OUTCOMES = (WHOLE, REFUSED, TRACEBACK, HANG)


class HangError(BaseException):
    """A case that takes too long."""


@dataclass
class Part:
    """Cases of one kind: `attempt` returns if all is well, and raises one of our errors if not."""

    name: str
    attempt: Callable[[Any], object]
    cases: Sequence[Any]


@dataclass
class Tally:
    """How the cases of one kind ended, and those that ended badly."""

    counts: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    @property
    def cases(self) -> int:
        """How many there were."""
        return sum(self.counts.values())


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `HangError` after so many seconds of this process's own work."""

    def stop(*_: Any) -> None:
        raise HangError

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def spread(parts: list[Part], processes: int, limit: float, log: Path) -> dict[str, Tally]:
    """Attempt every case, `processes` at a time.

    Parameters
    ----------
    parts : list of Part
        Made before the processes are forked.
    processes : int
        How many at once.
    limit : float
        Seconds of work that a case may take.
    log : Path
        File for the cases that end badly.
    """
    tallies = {part.name: Tally() for part in parts}
    waiting = [(part, 0) for part in reversed(parts)]
    running: dict[int, _Worker] = {}
    while waiting or running:
        while waiting and len(running) < processes:
            worker = _Worker(*waiting.pop(), limit, log)
            running[worker.process] = worker
        time.sleep(0.02)
        for process, worker in list(running.items()):
            done, status = os.waitpid(process, os.WNOHANG)
            stuck = not done and worker.is_stuck(120 * limit)
            if stuck:
                os.kill(process, signal.SIGKILL)
                _, status = os.waitpid(process, 0)
            if not (done or stuck):
                continue
            del running[process]
            *counts, position = worker.state()
            tally = tallies[worker.part.name]
            tally.counts.update(dict(zip(OUTCOMES, counts, strict=True)))
            if status:  # it died in a case, or was stuck in it: go on with the next
                case = worker.part.cases[position]
                tally.counts[HANG if stuck else TRACEBACK] += 1
                with open(log, "a") as file:
                    file.write(f"{worker.part.name} {case!r}: ended by {status}\n")
                if position + 1 < len(worker.part.cases):
                    waiting.append((worker.part, position + 1))
    if log.exists():
        for line in log.read_text().splitlines():
            name = line.partition(" ")[0]
            if name in tallies:
                tallies[name].bad.append(line)
    return tallies


class _Worker:
    """A process that attempts the cases of a part from one on."""

    def __init__(self, part: Part, start: int, limit: float, log: Path) -> None:
        self.part, self._seen, self._since = part, -1, time.monotonic()
        self._shared = mmap.mmap(-1, 64)
        self.process = os.fork()
        if not self.process:
            try:
                self._work(start, limit, log)
                os._exit(0)
            finally:
                os._exit(1)

    def state(self) -> tuple[int, ...]:
        """Counts by outcome, and the position."""
        return struct.unpack_from("5q", self._shared)

    def is_stuck(self, seconds: float) -> bool:
        """Whether the position has not moved for so long."""
        position = self.state()[-1]
        if position != self._seen:
            self._seen, self._since = position, time.monotonic()
        return time.monotonic() - self._since > seconds

    def _work(self, start: int, limit: float, log: Path) -> None:
        counts = dict.fromkeys(OUTCOMES, 0)
        for position in range(start, len(self.part.cases)):
            struct.pack_into("5q", self._shared, 0, *counts.values(), position)
            case = self.part.cases[position]
            outcome, what = WHOLE, ""
            try:
                with limited(limit):
                    self.part.attempt(case)
            except (UserError, DGLError):
                outcome = REFUSED
            except HangError:
                outcome, what = HANG, traceback.format_exc()
            except BaseException:
                outcome, what = TRACEBACK, traceback.format_exc()
            counts[outcome] += 1
            if what:
                lines = [line.strip() for line in what.strip().splitlines()]
                where = [
                    line for line in lines if line.startswith("File") and "dgl_deepgnn" in line
                ]
                with open(log, "a") as file:
                    file.write(
                        f"{self.part.name} {case!r}: {outcome}: {lines[-1][:300]} "
                        f"{where[-1] if where else ''}\n"
                    )
        struct.pack_into("5q", self._shared, 0, *counts.values(), position)
