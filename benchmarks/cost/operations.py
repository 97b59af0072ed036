"""Section "profile": where the time of a training step goes, by kind of operation."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from benchmarks.cost.contenders import build
from benchmarks.cost.graphs import SIZES, random_problem
from benchmarks.cost.isolated import isolated

__all__ = ["KINDS", "kind_of", "measure_profile", "profile_step"]

GCN = ("ResGCN", "DGL GraphConv")
ALL = (*GCN, "ResGraphSAGE", "DGL SAGEConv", "ResGIN", "DGL GINConv")
GRID = (("Cora", 64, 1, ALL), ("20k", 16, 1, ALL), ("Cora", 64, 2, GCN), ("20k", 16, 2, GCN))
STEPS = 3
KINDS = {
    "sparse products": ("sparse_mm", "embedding_bag", "GSpMM", "spmm"),
    "dense products": ("aten::mm", "aten::addmm", "aten::bmm"),
    "optimizer": ("Optimizer.", "_fused_adam"),
    "copies and fills": ("fill_", "copy_", "empty", "zero", "clone", "contiguous", "_to_copy"),
    "elementwise": (
        *("aten::add", "aten::mul", "aten::div", "aten::sub", "aten::pow", "aten::lerp"),
        *("aten::relu", "clamp", "threshold_backward", "aten::sum", "softmax", "nll_loss"),
        "_foreach_mul",
    ),
}
"""Beginnings or parts of the names of what PyTorch records; all else is calls and Python."""
REST = "calls, autograd, Python"


def measure_profile(quick: bool) -> list[dict[str, Any]]:
    """Milliseconds by kind of operation, contender, graph and depth."""
    return [
        {
            "size": size,
            "layers": layers,
            "threads": threads,
            "kinds": isolated(profile_step, threads, size=size, layers=layers, names=names),
        }
        for size, layers, threads, names in (GRID[:1] if quick else GRID)
    ]


def profile_step(size: str, layers: int, names: list[str]) -> dict[str, dict[str, float]]:
    """Seconds of a training step by contender and kind of operation."""
    problem = random_problem(SIZES[size])
    result = {}
    for name in tqdm(names, f"profile, {size}, {layers} layers"):
        steps = build(name, problem, layers)
        for _ in range(2):
            steps.train()
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            start = time.perf_counter()
            for _ in range(STEPS):
                steps.train()
            whole = time.perf_counter() - start
        seconds: defaultdict[str, float] = defaultdict(float)
        for event in recorded.key_averages():
            seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
        seconds[REST] += max(0.0, whole - sum(seconds.values()))  # what PyTorch records nothing of
        result[name] = {kind: seconds[kind] / STEPS for kind in (*KINDS, REST)}
    return result


def kind_of(operation: str) -> str:
    """Kind of an operation by the name that the profiler gives it."""
    if operation.startswith("autograd::"):
        return REST
    for kind, names in KINDS.items():
        if any(name in operation for name in names):
            return kind
    return REST
