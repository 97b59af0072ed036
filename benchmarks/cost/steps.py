"""Sections "cora-16" to "100k-16": one training step and one inference of every contender."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from benchmarks.cost.clock import LEAST_ROUNDS, measure
from benchmarks.cost.contenders import BOUNDS, CONTENDERS, SPARSE_FEATURES, build
from benchmarks.cost.graphs import SIZES, random_problem
from benchmarks.cost.isolated import isolated

__all__ = ["GRID", "measure_steps", "time_steps"]

GCN = CONTENDERS["GCN"]
ALL = tuple(name for family in CONTENDERS.values() for name in family)
DENSE = tuple(name for name in ALL if not name.endswith(SPARSE_FEATURES))
AGAINST_DGL = ("ResGraphSAGE", "DGL SAGEConv", "ResGIN", "DGL GINConv")
CORE = (*BOUNDS, "ResGCN", "ResGCN, plain", "DGL GraphConv")
WITH_PYG = (*CORE, "PyG GCNConv")
QUICK = 8  # so many times fewer layers in a smoke run


class Grid(NamedTuple):
    """Graph, depth, and who takes turns there with one thread and with two."""

    size: str
    layers: int
    names: dict[int, tuple[str, ...]]


GRID = {
    "cora-16": Grid("Cora", 16, {1: ALL}),
    "cora-64": Grid("Cora", 64, {1: ALL}),
    "cora-64-2": Grid("Cora", 64, {2: GCN}),
    "cora-256": Grid("Cora", 256, {1: GCN + AGAINST_DGL}),
    "20k-16": Grid("20k", 16, {1: DENSE}),
    "20k-16-2": Grid("20k", 16, {2: WITH_PYG}),
    "20k-64": Grid("20k", 64, {1: CORE}),
    "100k-16": Grid("100k", 16, {1: WITH_PYG}),
    "100k-16-2": Grid("100k", 16, {2: CORE}),
}
"""By section; larger networks are left out to keep the run short."""


def measure_steps(section: str, quick: bool) -> list[dict[str, Any]]:
    """One cell a number of threads, each in a process of its own."""
    size, layers, names = GRID[section]
    return [
        isolated(
            time_steps,
            threads,
            size=size,
            layers=layers // QUICK if quick else layers,
            names=contenders,
            seconds=0 if quick else 10,
            least=3 if quick else LEAST_ROUNDS,
        )
        for threads, contenders in names.items()
    ]


def time_steps(
    size: str, layers: int, names: list[str], seconds: float, least: int
) -> dict[str, Any]:
    """Times of a training step and an inference of the contenders `names` on one graph."""
    threads = torch.get_num_threads()
    problem = random_problem(SIZES[size])
    contenders = {name: build(name, problem, layers) for name in names}
    cell: dict[str, Any] = {"size": size, "layers": layers, "threads": threads}
    for task in ("train", "infer"):
        tasks = {name: getattr(steps, task) for name, steps in contenders.items()}
        label = f"{size}, {layers} layers, {threads} threads, {task}"
        cell[task] = measure(tasks, seconds=seconds, least=least, label=label)
    return cell
