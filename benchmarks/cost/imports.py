"""Section "import": what ``import dgl_deepgnn`` adds to ``import dgl``."""

from __future__ import annotations

import time
from typing import Any

from tqdm import tqdm

from benchmarks.cost.clock import LEAST_ROUNDS, quartiles
from benchmarks.cost.isolated import isolated

__all__ = ["measure_import", "time_imports"]


def measure_import(quick: bool) -> dict[str, Any]:
    """Seconds of both imports, one after the other, in fresh interpreters."""
    rounds = 3 if quick else 2 * LEAST_ROUNDS
    runs = [isolated(time_imports, 1) for _ in tqdm(range(rounds), "imports")]
    return {name: quartiles([run[name] for run in runs]) for name in ("dgl", "dgl_deepgnn")}


def time_imports() -> dict[str, float]:
    """Seconds of ``import dgl`` and then of ``import dgl_deepgnn``."""
    start = time.perf_counter()
    import dgl  # noqa: F401

    between = time.perf_counter()
    import dgl_deepgnn  # noqa: F401

    return {"dgl": between - start, "dgl_deepgnn": time.perf_counter() - between}
