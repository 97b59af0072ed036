"""Section "memory": peak memory of training, each contender in a process of its own."""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.cost.contenders import build, our_model, trainer
from benchmarks.cost.graphs import SIZES, Size, random_problem
from benchmarks.cost.isolated import isolated

__all__ = ["measure_checkpoint_memory", "measure_memory", "peak_memory"]

STEPS = 2  # the second one has the optimizer's state beside it
NAMES = {
    "GCN": (
        "ResGCN",
        "ResGCN, plain",
        "DGL GraphConv",
        "PyG GCNConv",
        "PyG GCNConv, sparse matrix",
    ),
    "GraphSAGE": ("ResGraphSAGE", "DGL SAGEConv", "PyG SAGEConv"),
    "GIN": ("ResGIN", "DGL GINConv", "PyG GINConv"),
}
GRID = (("Cora", 64, tuple(NAMES)), ("20k", 16, tuple(NAMES)), ("100k", 16, ("GCN",)))


def measure_memory(quick: bool) -> list[dict[str, Any]]:
    """Cells of a graph and a depth: bytes by contender."""
    cells = []
    for size, layers, families in GRID[:1] if quick else GRID:
        names = [name for family in families for name in NAMES[family]]
        peaks = {
            name: isolated(peak_memory, 1, name=name, size=SIZES[size], layers=layers)
            for name in tqdm(names, f"peak memory, {size}, {layers} layers")
        }
        cells.append({"size": size, "layers": layers, "bytes": peaks})
    return cells


def peak_memory(name: str, size: list[Any], layers: int) -> int:
    """Bytes that two training steps take at their peak beyond the graph and its features.

    The model, its operator, gradients and the optimizer's state are in it; the libraries are not.
    """
    build(name, random_problem(Size(100, 400)), 2).train()  # what it imports and starts
    problem = random_problem(Size(*size))
    before = _resident(reset_peak=True)
    steps = build(name, problem, layers)
    for _ in range(STEPS):
        steps.train()
    return _resident("VmHWM") - before


def measure_checkpoint_memory(size: list[Any], layers: int) -> dict[str, Any]:
    """Peak memory and time of training steps of a ResGCN with checkpoints.

    `process` is the whole process, with the libraries, the graph and its features.
    """
    problem = random_problem(Size(*size))
    before = _resident(reset_peak=True)
    model = our_model("ResGCN", problem, layers, checkpoint=True)
    steps = trainer(model, (model.operator(problem.graph), problem.feat), problem.labels)
    for _ in range(STEPS):
        start = time.perf_counter()
        steps.train()
        seconds = time.perf_counter() - start
    peak = _resident("VmHWM")
    return {"bytes": peak - before, "process": peak, "seconds": seconds}


def _resident(field: str = "VmRSS", *, reset_peak: bool = False) -> int:
    """Resident memory of this process in bytes, now or (``VmHWM``) at its peak."""
    if reset_peak:
        ctypes.CDLL(None).malloc_trim(0)  # or what is free already would hide what is taken
        Path("/proc/self/clear_refs").write_text("5")
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)
