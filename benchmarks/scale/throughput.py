"""Section "throughput": nodes a second of training on the same clusters, libraries in turn."""

from __future__ import annotations

import os
import random
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.cost.isolated import isolated
from benchmarks.scale.child import in_child
from benchmarks.scale.contenders import CONTENDERS, Contender
from benchmarks.scale.problem import THREADS, Plan, load
from benchmarks.scale.stages import generation, metis

__all__ = ["compare", "measure_throughput", "time_epochs"]


def measure_throughput(plan: Plan, rounds: int, folder: Path) -> list[dict[str, Any]]:
    """A cell with one thread, and one with two."""
    os.environ["DGL_DEEPGNN_CACHE"] = str(folder / "cache")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for stage in (generation, metis):
            in_child(stage, THREADS, plan=plan, folder=place)
        return [
            isolated(time_epochs, threads, plan=plan, folder=place, rounds=rounds)
            for threads in (1, THREADS)
        ]


def time_epochs(plan: list[int], folder: str, rounds: int) -> dict[str, Any]:
    """Seconds of an epoch by contender, one a round."""
    warnings.filterwarnings("ignore", "Dataloader CPU affinity")  # it is of worker processes
    size, data = Plan(*plan), load(folder)
    assignment = torch.from_numpy(np.load(Path(folder, "assignment.npy")))
    contenders = {name: make(size, data, folder, assignment) for name, make in CONTENDERS.items()}
    edges = compare(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names, shuffle, nodes = list(contenders), random.Random(0).shuffle, []
    for number in tqdm(range(rounds + 1), f"throughput, {torch.get_num_threads()} threads"):
        shuffle(names)  # nobody always runs after the same one
        counts = {}
        for name in names:
            start = time.perf_counter()
            counts[name] = contenders[name].epoch()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
        nodes = counts[names[0]]
        assert all(count == nodes for count in counts.values()), f"steps differ: {counts}"
    return {
        "plan": size._asdict(),
        "threads": torch.get_num_threads(),
        "nodes": sum(nodes),
        "steps": len(nodes),
        "edges": edges,
        "seconds": seconds,
    }


def compare(contenders: Mapping[str, Contender]) -> dict[str, float]:
    """Edges of a step on average, by contender.

    Raises
    ------
    AssertionError
        If a step of theirs is not given the same nodes.
    """
    edges, first = {}, None
    for name, contender in contenders.items():
        seen = contender.look()
        first = first or seen
        assert len(seen) == len(first), f"{name} makes {len(seen)} steps, not {len(first)}"
        for number, (mine, other) in enumerate(zip(seen, first, strict=True)):
            alike = torch.equal(mine.values, other.values)
            assert alike, f"step {number} of {name} is given other nodes"
        edges[name] = sum(step.edges for step in seen) / len(seen)
    return edges
