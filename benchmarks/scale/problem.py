"""A graph of communities on disk, features in a file that is mapped, and the recipe for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import dgl
import numpy as np
import torch
from torch import Tensor

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.recipe import Recipe

__all__ = [
    "CLASSES",
    "DEGREE",
    "MEMORY",
    "THREADS",
    "WIDTH",
    "Plan",
    "generate",
    "load",
    "recipe_for",
]

CLASSES, WIDTH, MEMORY, THREADS = 10, 64, "1GB", 2
DEGREE = 10
"""Edges a node, both ways counted, without the self-loop."""
INSIDE = 0.9
"""Share of the edges within a block."""
SIGNAL = 0.1
"""How far the features' mean in a class is from zero, in units of their noise."""
ROWS = 2**16
"""Rows of features that are drawn at once."""


class Plan(NamedTuple):
    """Size of the graph and of the training on it."""

    nodes: int
    in_feats: int = 128
    part: int = 2000
    """Nodes of a block, and of a cluster on average: steps are alike at every size."""
    per_step: int = 10
    """Clusters in a training step."""
    layers: int = 32

    @property
    def parts(self) -> int:
        """Clusters that the graph is cut into."""
        return max(2, self.nodes // self.part)

    @property
    def size(self) -> int:
        """Clusters in a training step, of those that there are."""
        return min(self.per_step, self.parts)

    @property
    def edges(self) -> int:
        """Directed edges without self-loops."""
        return DEGREE * self.nodes // 2 * 2


def generate(plan: Plan, folder: Path, seed: int = 0) -> None:
    """Write graph, labels and features of a stochastic block graph into a folder."""
    draw = torch.Generator().manual_seed(seed)
    src, dst = _pairs(plan, draw)
    loop = torch.arange(plan.nodes)
    ends = torch.stack([torch.cat([src, dst, loop]), torch.cat([dst, src, loop])])
    np.save(folder / "edges.npy", ends.numpy())
    labels = loop // plan.part % CLASSES
    np.save(folder / "labels.npy", labels.numpy())
    means = SIGNAL * torch.randn(CLASSES, plan.in_feats, generator=draw)
    with open(folder / "features.bin", "wb") as file:
        for some in labels.split(ROWS):
            feat = torch.randn(len(some), plan.in_feats, generator=draw)
            feat.add_(means[some]).numpy().tofile(file)
    (folder / "sizes.json").write_text(json.dumps([plan.nodes, plan.in_feats]), "utf-8")


def _pairs(plan: Plan, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Ends of undirected edges, each of them once, without loops."""
    wanted = plan.edges // 2
    drawn = wanted + wanted // 20 + 100  # some come twice
    src = torch.randint(plan.nodes, (drawn,), generator=draw)
    start = src // plan.part * plan.part
    length = (plan.nodes - start).clamp(max=plan.part)
    inside = start + (torch.rand(drawn, generator=draw, dtype=torch.float64) * length).long()
    anywhere = torch.randint(plan.nodes, (drawn,), generator=draw)
    dst = torch.where(torch.rand(drawn, generator=draw) < INSIDE, inside, anywhere)
    keys = torch.minimum(src, dst) * plan.nodes + torch.maximum(src, dst)
    keys = keys[src != dst].unique()
    keys = keys[torch.randperm(len(keys), generator=draw)[:wanted]]
    assert len(keys) == wanted, "too many edges came twice: the blocks are too small"
    return keys // plan.nodes, keys % plan.nodes


def load(folder: str) -> TaskData:
    """Task of what `generate` wrote; the features stay in their file.

    Half of the nodes are trained on, a quarter each are for validation and test.
    """
    place = Path(folder)
    nodes, in_feats = json.loads((place / "sizes.json").read_text("utf-8"))
    src, dst = torch.from_numpy(np.load(place / "edges.npy"))
    graph = dgl.graph((src, dst), num_nodes=nodes)
    feat = torch.from_file(str(place / "features.bin"), shared=False, size=nodes * in_feats)
    graph.ndata["feat"] = feat.view(nodes, in_feats)
    quarter = torch.randint(4, (nodes,), generator=torch.Generator().manual_seed(0))
    split = {"train": quarter < 2, "val": quarter == 2, "test": quarter == 3}
    labels = torch.from_numpy(np.load(place / "labels.npy"))
    return TaskData("scale", [graph], "node", "multiclass", labels, [split], CLASSES)


def recipe_for(plan: Plan, folder: str, epochs: int = 1, lr: float = 3e-3) -> Recipe:
    """What a user would write to train on it by clusters."""
    batching = {"kind": "clusters", "parts": plan.parts, "size": plan.size, "memory": MEMORY}
    content: dict[str, Any] = {
        "name": f"resgcn{plan.layers}.scale",
        "data": {"name": f"python:{__name__}:{load.__name__}", "options": {"folder": folder}},
        "model": {"name": "resgcn", "hidden_feats": WIDTH, "num_layers": plan.layers},
        "optimizer": {"lr": lr},
        "training": {"epochs": epochs, "batching": batching},
    }
    return Recipe.model_validate(content)
