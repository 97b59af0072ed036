"""Section "forms": what it costs to hand over a graph in place of its operator, in every form."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from benchmarks.cost.clock import LEAST_ROUNDS, measure
from benchmarks.cost.contenders import Once, our_model, trainer
from benchmarks.cost.graphs import SIZES, random_problem
from benchmarks.cost.isolated import isolated
from dgl_deepgnn import Graph

__all__ = ["ANEW", "LAYERS", "OPERATOR", "measure_forms", "time_forms"]

LAYERS = 16
OPERATOR = "`model.operator(graph)`, made before"
ANEW = "a graph that comes only once"


def measure_forms(quick: bool) -> list[dict[str, Any]]:
    """A small graph, where every call counts, and a large one, where every look at it does."""
    return [
        {
            "load": os.getloadavg()[0],
            **isolated(
                time_forms,
                1,
                size=size,
                layers=2 if quick else LAYERS,
                seconds=0 if quick else 10,
                least=3 if quick else LEAST_ROUNDS,
            ),
        }
        for size in (("Cora",) if quick else ("Cora", "100k"))
    ]


def time_forms(size: str, layers: int, seconds: float, least: int) -> dict[str, Any]:
    """Times of a training step and an inference of a ResGCN by what it is called with."""
    problem = random_problem(SIZES[size])
    graph, model = problem.graph, our_model("ResGCN", problem, layers)
    edge_index = torch.stack(graph.edges(order="eid"))
    forms = {
        OPERATOR: (model, model.operator(graph)),
        "`DGLGraph`": (model, graph),
        "`dgl_deepgnn.Graph`": (model, Graph(edge_index, graph.num_nodes())),
        "`(edge_index, num_nodes)`": (model, (edge_index, graph.num_nodes())),
        ANEW: (Once(model), graph),
    }
    steps = {
        name: trainer(network, (form, problem.feat), problem.labels)
        for name, (network, form) in forms.items()
    }
    cell: dict[str, Any] = {"size": size, "layers": layers, "threads": torch.get_num_threads()}
    for task in ("train", "infer"):
        tasks = {name: getattr(step, task) for name, step in steps.items()}
        label = f"forms of a graph, {size}, {task}"
        cell[task] = measure(
            tasks, seconds=seconds, least=least, label=label, clock=time.process_time
        )
    return cell
