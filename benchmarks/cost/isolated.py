"""Functions run in a fresh interpreter: OpenMP reads its number of threads only at the start."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

__all__ = ["environment", "isolated"]


def environment(threads: int) -> dict[str, str]:
    """Variables of a process that computes in so many threads."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        # Threads that spin while they wait take the cores from those that work.
        "OMP_WAIT_POLICY": "passive",
        "DGLBACKEND": "pytorch",
    }


def isolated(function: Callable[..., Any], threads: int, **arguments: Any) -> Any:
    """Result of ``function(**arguments)`` in a process of its own.

    Parameters
    ----------
    function : callable
        A function of a module; it returns what JSON can hold.
    threads : int
        Threads of OpenMP, which PyTorch and DGL compute with.
    **arguments
        What JSON can hold.
    """
    call = [function.__module__, function.__qualname__, arguments]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cost.isolated"],
        input=json.dumps(call),
        env=environment(threads),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """The fresh interpreter's part."""
    module, name, arguments = json.load(sys.stdin)
    result = getattr(importlib.import_module(module), name)(**arguments)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
