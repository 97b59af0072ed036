"""Section "checkpoint": a thousand layers in little memory, and what that costs in time."""

from __future__ import annotations

from typing import Any

from benchmarks.cost.clock import LEAST_ROUNDS, measure
from benchmarks.cost.contenders import our_model, trainer
from benchmarks.cost.graphs import SIZES, Size, random_problem
from benchmarks.cost.isolated import isolated
from benchmarks.cost.memory import measure_checkpoint_memory
from benchmarks.cost.stacks import WIDTH

__all__ = ["measure_checkpoint", "time_checkpoint"]

DEEP, TIMED = 1000, 128
SIZE = SIZES["20k"]._replace(in_feats=WIDTH)


def measure_checkpoint(quick: bool) -> dict[str, Any]:
    """Memory at a thousand layers; time with and without checkpoints at fewer, interleaved."""
    deep, timed = (20, 8) if quick else (DEEP, TIMED)
    least = 3 if quick else LEAST_ROUNDS
    return {
        "layers": deep,
        "memory": isolated(measure_checkpoint_memory, 1, size=SIZE, layers=deep),
        "timed_layers": timed,
        "train": isolated(time_checkpoint, 1, size=SIZE, layers=timed, least=least),
    }


def time_checkpoint(size: list[Any], layers: int, least: int) -> dict[str, Any]:
    """Quartiles of a training step without checkpoints ("kept") and with them ("checkpoint")."""
    problem = random_problem(Size(*size))
    tasks = {}
    for name, checkpoint in (("kept", False), ("checkpoint", True)):
        model = our_model("ResGCN", problem, layers, checkpoint=checkpoint)
        inputs = model.operator(problem.graph), problem.feat
        tasks[name] = trainer(model, inputs, problem.labels).train
    return measure(tasks, seconds=0, least=least, label=f"checkpoints, {layers} layers")
