"""Section "batches": training on mini-batches of small graphs, put together anew every step."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import dgl
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from benchmarks.cost.clock import LEAST_ROUNDS, measure
from benchmarks.cost.graphs import CLASSES
from benchmarks.cost.isolated import isolated
from benchmarks.cost.stacks import WIDTH
from dgl_deepgnn import ResGCN

__all__ = ["NAMES", "SIZE", "measure_batches", "time_batches"]

GRAPHS, BATCH, LAYERS, IN_FEATS = 1024, 128, 16, 16
SIZE = 30
"""Nodes of a graph on average, with four neighbours each."""
NAMES = ("ResGCN", "DGL GraphConv", "PyG GCNConv")


def measure_batches(quick: bool) -> dict[str, Any]:
    """Seconds of a training step on a batch of so many graphs."""
    least = 3 if quick else LEAST_ROUNDS
    times = isolated(time_batches, 1, seconds=0 if quick else 20, least=least)
    return {"graphs": BATCH, "layers": LAYERS, "train": times}


def time_batches(seconds: float, least: int) -> dict[str, Any]:
    """Quartiles of the seconds by contender."""
    torch.manual_seed(0)
    graphs = small_graphs()
    labels = torch.randint(CLASSES, (GRAPHS,))
    makers: dict[str, Callable[..., Any]] = dict(zip(NAMES, (_ours, _dgl, _pyg), strict=True))
    tasks = {}
    for name, make in makers.items():
        model, scores = make(graphs)
        tasks[name] = _step(model, scores, labels)
    return measure(tasks, seconds=seconds, least=least, label="batches of small graphs")


def small_graphs() -> list[DGLGraph]:
    """Rings with as many random chords as nodes, both ways, with self-loops and features."""
    graphs = []
    for nodes in torch.randint(SIZE - 10, SIZE + 11, (GRAPHS,)).tolist():
        ring = torch.arange(nodes)
        # A chord leads at least two steps on, so that it is no edge of the ring.
        chord = (ring + torch.randint(2, nodes - 1, (nodes,))) % nodes
        src, dst = torch.cat([ring, ring]), torch.cat([(ring + 1) % nodes, chord])
        graph = dgl.add_self_loop(dgl.to_bidirected(dgl.graph((src, dst), num_nodes=nodes)))
        graph.ndata["feat"] = torch.randn(nodes, IN_FEATS)
        graphs.append(graph)
    return graphs


def _step(model: nn.Module, scores: Callable[[list[int]], Tensor], labels: Tensor) -> Any:
    """Training step on the next batch."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
    batches: Iterator[Tensor] = itertools.cycle(torch.arange(GRAPHS).split(BATCH))

    def step() -> None:
        which = next(batches)
        loss = F.cross_entropy(scores(which.tolist()), labels[which])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _ours(graphs: list[DGLGraph]) -> tuple[nn.Module, Callable[[list[int]], Tensor]]:
    model = ResGCN(IN_FEATS, WIDTH, CLASSES, LAYERS, head="graph")
    operator = model.operator(dgl.batch(graphs))
    feats = [graph.ndata["feat"] for graph in graphs]
    return model, lambda which: model(
        operator.select(which), torch.cat([feats[index] for index in which])
    )


class _Pooled(nn.Module):
    """Graph layers with ReLU after each, the mean over every graph, and a linear layer."""

    def __init__(self, make: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        ends = itertools.pairwise([IN_FEATS, *[WIDTH] * LAYERS])
        self.layers = nn.ModuleList(make(*widths) for widths in ends)
        for layer in self.layers:  # keeps the signal's scale through ReLU
            for weight in layer.parameters():
                if weight.dim() == 2:
                    nn.init.kaiming_normal_(weight)
        self.linear = nn.Linear(WIDTH, CLASSES)

    def forward(
        self, call: Callable[..., Tensor], feat: Tensor, pool: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Scores of the graphs."""
        for layer in self.layers:
            feat = torch.relu(call(layer, feat))
        return self.linear(pool(feat))


def _dgl(graphs: list[DGLGraph]) -> tuple[nn.Module, Callable[[list[int]], Tensor]]:
    model = _Pooled(dgl.nn.GraphConv)

    def scores(which: list[int]) -> Tensor:
        batch = dgl.batch([graphs[index] for index in which])
        sizes = batch.batch_num_nodes()
        return model(
            lambda layer, feat: layer(batch, feat),
            batch.ndata["feat"],
            lambda feat: dgl.ops.segment_reduce(sizes, feat, reducer="mean"),
        )

    return model, scores


def _pyg(graphs: list[DGLGraph]) -> tuple[nn.Module, Callable[[list[int]], Tensor]]:
    import torch_geometric.nn as pyg
    from torch_geometric.data import Batch, Data

    data = [
        Data(x=graph.ndata["feat"], edge_index=torch.stack(graph.edges(order="eid")))
        for graph in graphs
    ]
    model = _Pooled(partial(pyg.GCNConv, add_self_loops=False))  # the graphs have them

    def scores(which: list[int]) -> Tensor:
        batch = Batch.from_data_list([data[index] for index in which])
        return model(
            lambda layer, feat: layer(feat, batch.edge_index),
            batch.x,
            lambda feat: pyg.global_mean_pool(feat, batch.batch, len(which)),
        )

    return model, scores
