"""A stage in a process of its own: seconds and peak memory of each of its steps."""

from __future__ import annotations

import ctypes
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cost.isolated import environment

__all__ = ["Watch", "in_child"]

PAUSE = 0.01
"""Seconds between two looks at the memory of the child."""


class Watch:
    """Seconds, and peak of the resident set, by step.

    The system keeps the peak of a process itself. It is read from ``VmHWM``, not from
    ``ru_maxrss``, which a process inherits from the one that started it.
    """

    def __init__(self) -> None:
        self.steps: dict[str, dict[str, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what is done within."""
        ctypes.CDLL(None).malloc_trim(0)  # or what is free already would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")
        start, before = time.monotonic(), _anonymous("self")
        yield
        stop, after = time.monotonic(), _anonymous("self")
        self.steps[name] = {
            "start": start,
            "stop": stop,
            "resident": _memory("self", "VmHWM")["VmHWM"],
            "anonymous": max(before, after),  # the parent's looks may miss a short step
        }


def in_child(
    function: Callable[..., dict[str, Any]], threads: int, **arguments: Any
) -> dict[str, Any]:
    """Run ``function(watch, **arguments)`` in a process of its own.

    Parameters
    ----------
    function : callable
        A function of a module. It measures its steps by the `Watch` that it is given, and returns
        facts that JSON can hold.
    threads : int
        Threads of OpenMP.
    **arguments
        What JSON can hold.

    Returns
    -------
    dict
        "facts", and "steps" by name: "seconds", and at their peak the "resident" set and the part
        of it that is no file, "anonymous", in bytes. Pages of a mapped file are resident while
        there is room for them; only the anonymous ones cannot be given back.
    """
    call = json.dumps([function.__module__, function.__qualname__, arguments])
    seen: list[tuple[float, int]] = []
    with tempfile.TemporaryFile("w+") as printed:  # DGL prints, too; a pipe may fill
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.scale.child", call],
            env=environment(threads),
            stdout=printed,
        )
        while child.poll() is None:
            seen.append((time.monotonic(), _anonymous(str(child.pid))))
            time.sleep(PAUSE)
        if child.returncode:
            raise RuntimeError(f"{function.__qualname__} ended with code {child.returncode}")
        printed.seek(0)
        result = json.loads(printed.read().splitlines()[-1])
    steps = {}
    for name, step in result["steps"].items():
        during = [size for when, size in seen if step["start"] <= when <= step["stop"]]
        steps[name] = {
            "seconds": step["stop"] - step["start"],
            "resident": step["resident"],
            "anonymous": max([step["anonymous"], *during]),
        }
    return {"facts": result["facts"], "steps": steps}


def _anonymous(process: str) -> int:
    """Bytes that are no file's."""
    return sum(_memory(process, "RssAnon", "RssShmem").values())


def _memory(process: str, *fields: str) -> dict[str, int]:
    """Bytes of a process by field of its status; nothing of one that has just ended."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:
        return {}
    found = (line.partition(":") for line in lines)
    return {name: int(value.split()[0]) * 1024 for name, _, value in found if name in fields}


def main() -> None:
    """The child's part."""
    module, name, arguments = json.loads(sys.argv[1])
    watch = Watch()
    facts = getattr(importlib.import_module(module), name)(watch, **arguments)
    print(json.dumps({"steps": watch.steps, "facts": facts}))


if __name__ == "__main__":
    main()
