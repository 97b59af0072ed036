"""The stages of training on one large graph, from its generation to the scores of all nodes."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import torch

from benchmarks.scale.child import Watch, in_child
from benchmarks.scale.problem import MEMORY, THREADS, Plan, generate, load, recipe_for
from dgl_deepgnn import layerwise_inference
from dgl_deepgnn.data import evaluate_metrics, load_data
from dgl_deepgnn.training.partition import partition as cut_for_machines
from dgl_deepgnn.training.trainer import Trainer, build_model

__all__ = ["generation", "measure_stages", "measure_width", "metis"]


def measure_stages(plan: Plan, folder: Path) -> dict[str, Any]:
    """Steps and facts by stage, each in a process of its own."""
    # The partition stage fills the cache that the epoch reads, and starts without one.
    os.environ["DGL_DEEPGNN_CACHE"] = str(folder / "cache")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        every = (libraries, generation, metis, partition, epoch, inference, machines)
        stages = {
            function.__name__: in_child(function, THREADS, plan=plan, folder=place)
            for function in every
        }
    return {"plan": plan._asdict(), "edges": plan.edges, "stages": stages}


def measure_width(plans: list[Plan], folder: Path) -> list[dict[str, Any]]:
    """The same graph with more and more features: what grows with them."""
    return [measure_stages(plan, folder) for plan in plans]


def libraries(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """What PyTorch, DGL and this package take by themselves, having imported what they use."""
    with watch.step("libraries"):
        _warm_up()
    return {}


def _warm_up() -> None:
    """Import and start on a tiny graph what the stages use."""
    tiny = Plan(200, 4, 100, 1, 2)
    with tempfile.TemporaryDirectory() as folder:
        generate(tiny, Path(folder))
        Trainer(recipe_for(tiny, folder), load(folder), seed=0).run_epoch()


def generation(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """Draw the graph and the features, and write them."""
    _warm_up()
    with watch.step("generation"):
        generate(Plan(*plan), Path(folder))
    written = Path(folder, "features.bin").stat().st_size
    return {"feature_bytes": written}


def metis(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """DGL's METIS by itself, called as the package calls it."""
    _warm_up()
    (graph,) = load(folder).graphs
    with watch.step("METIS"):
        plain = dgl.remove_self_loop(graph)
        assignment = dgl.metis_partition_assignment(plain, Plan(*plan).parts, mode="recursive")
    np.save(Path(folder, "assignment.npy"), assignment.numpy())
    src, dst = plain.edges()
    sizes = assignment.bincount(minlength=Plan(*plan).parts)
    return {
        "kept_edges": float((assignment[src] == assignment[dst]).double().mean()),
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
    }


def partition(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """A trainer of a graph that is cut for the first time: METIS, and all that is made of it."""
    _trainer(watch, Plan(*plan), folder)
    return {}


def epoch(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """One epoch of training by clusters, the cut being in the cache."""
    trainer = _trainer(watch, Plan(*plan), folder)
    with watch.step("epoch"):
        steps = trainer.run_epoch()
    torch.save(trainer.model.state_dict(), Path(folder, "model.pt"))
    return {
        "losses": [step.loss for step in steps],
        "step_seconds": [step.seconds for step in steps],
        "nodes": sum(step.nodes for step in steps),
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
    }


def _trainer(watch: Watch, plan: Plan, folder: str) -> Trainer:
    _warm_up()
    recipe = recipe_for(plan, folder)
    with watch.step("loading"):
        data = load_data(recipe.data.name, **recipe.data.options)
    with watch.step("trainer"):
        return Trainer(recipe, data, seed=0)


def inference(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """Scores of all nodes, layer by layer, by the network that the epoch has trained."""
    _warm_up()
    recipe = recipe_for(Plan(*plan), folder)
    with watch.step("loading"):
        data = load_data(recipe.data.name, **recipe.data.options)
    model = build_model(recipe.model, data)
    model.load_state_dict(torch.load(Path(folder, "model.pt"), weights_only=True))
    (graph,) = data.graphs
    with watch.step("operator"):
        operator = model.operator(graph)
    feat = graph.ndata["feat"]
    with watch.step("inference"):
        scores = layerwise_inference(model, operator, feat, memory=MEMORY, folder=folder)
    test = data.splits[0]["test"]
    return evaluate_metrics(data.target, scores[test], data.labels[test])


def machines(watch: Watch, plan: list[int], folder: str) -> dict[str, Any]:
    """The graph cut for two machines, and written, as by `dgl-deepgnn partition`."""
    _warm_up()
    recipe = recipe_for(Plan(*plan), folder)
    with watch.step("machines"):
        result = cut_for_machines(recipe, 2, Path(folder, "parts"), allow_code=True)
    return {"parts": result["parts"]}
