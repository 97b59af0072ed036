"""From task data to the batches of graphs that a model is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import lru_cache
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import batch, require_dgl
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import layerwise_inference
from dgl_deepgnn.operator.aggregation import AggregationOperator, concatenated_ranges
from dgl_deepgnn.operator.sparse import to_sparse
from dgl_deepgnn.wording import counted

__all__ = ["Batch", "Batches"]

SPARSE_BELOW = 0.1
"""Share of non-zero features below which they are kept as a sparse matrix."""


@dataclass(frozen=True)
class Batch:
    """Some graphs as one, on the device, with the operator of the model in the graph's place."""

    operator: AggregationOperator
    feat: Tensor
    edge_feat: Tensor | None
    labels: Tensor
    masks: dict[str, Tensor]

    def scores(self, model: DeepGNN, memory: str | int | None = None) -> Tensor:
        """Scores of all items; with a limit of memory, layer by layer in evaluation mode."""
        if memory is None:
            return model(self.operator, self.feat, edge_feat=self.edge_feat)
        return layerwise_inference(
            model, self.operator, self.feat, edge_feat=self.edge_feat, memory=memory
        )


class Batches:
    """Batches of one split of a data set, for one model.

    Parameters
    ----------
    data : TaskData
        The data set.
    split : int
        Which of its splits.
    model : DeepGNN
        Makes the aggregation operators.
    batch_size : int, optional
        Graphs per batch; None for all at once.
    clusters : int, optional
        Train on so many parts of the one graph instead.
    device : torch.device
        Where the tensors go.
    """

    def __init__(
        self,
        data: TaskData,
        split: int,
        model: DeepGNN,
        batch_size: int | None,
        clusters: int | None,
        device: torch.device,
    ) -> None:
        self._batch_size = batch_size
        training = data if clusters is None else _cut(data, clusters)
        self._train_graphs = _graphs_with(training, split, "train")
        everything = _Collator(data, split, model, device)
        size = len(data.graphs) if batch_size is None or clusters is not None else batch_size
        # Graphs do not change: the batches that recur are made once.
        self.evaluation = [
            everything.batch(some) for some in torch.arange(len(data.graphs)).split(size)
        ]
        self._collator = (
            everything if training is data else _Collator(training, split, model, device)
        )
        self._whole = None
        if batch_size is None:
            alike = len(self._train_graphs) == len(data.graphs)
            self._whole = self.evaluation[0] if alike else everything.batch(self._train_graphs)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in one epoch."""
        if self._batch_size is None:
            return 1
        return -(-len(self._train_graphs) // self._batch_size)

    def training(self, generator: torch.Generator) -> Iterator[Batch]:
        """Batches of one epoch, shuffled by `generator`."""
        if self._whole is not None:
            yield self._whole
            return
        order = torch.randperm(len(self._train_graphs), generator=generator)
        for some in self._train_graphs[order].split(self._batch_size or 1):
            yield self._collator.batch(some)


class _Collator:
    """All graphs of a data set as one, from which batches are cut."""

    def __init__(self, data: TaskData, split: int, model: DeepGNN, device: torch.device) -> None:
        self._device = device
        # `batch` copies the features, even those of one graph.
        graph = data.graphs[0] if len(data.graphs) == 1 else batch(data.graphs)
        self._operator = model.operator(graph)
        self._feat = graph.ndata["feat"]
        # Bags of words: the first layer's product is faster on a sparse matrix.
        density = torch.count_nonzero(self._feat).item() / max(self._feat.numel(), 1)
        self._sparse = density < SPARSE_BELOW and model.in_feats > model.config["hidden_feats"]
        self._edge_feat = graph.edata["feat"] if data.edge_feats else None
        self._labels, self._masks = data.labels, data.splits[split]
        self._num_nodes = graph.batch_num_nodes().numpy()
        self._num_edges = graph.batch_num_edges().numpy()
        self._num_items = np.array(data.items_per_graph)

    def batch(self, which: Tensor) -> Batch:
        """Those graphs, in that order."""
        chosen = which.numpy()
        whole = len(chosen) == len(self._num_nodes) and (np.diff(chosen) == 1).all()
        operator = self._operator if whole else self._operator.select(chosen.tolist())

        def rows(sizes: np.ndarray) -> Any:
            return slice(None) if whole else concatenated_ranges(sizes, chosen)

        nodes, items = rows(self._num_nodes), rows(self._num_items)
        edge_feat = None
        if self._edge_feat is not None:
            edge_feat = self._edge_feat[rows(self._num_edges)].to(self._device)
        feat = self._feat[nodes]
        return Batch(
            operator.to(self._device),
            (to_sparse(feat) if self._sparse else feat).to(self._device),
            edge_feat,
            self._labels[items].to(self._device),
            {part: mask[items].to(self._device) for part, mask in self._masks.items()},
        )


def _graphs_with(data: TaskData, split: int, part: str) -> Tensor:
    """Indices of the graphs that hold items of a part of the split."""
    chunks = data.splits[split][part].split(data.items_per_graph)
    return torch.tensor([index for index, chunk in enumerate(chunks) if chunk.any()])


@lru_cache(maxsize=1)  # all seeds, and all arms of a speed-up record, train on one cut
def _cut(data: TaskData, clusters: int) -> TaskData:
    """Cut the one graph of a data set into induced subgraphs (METIS, as Cluster-GCN does)."""
    if len(data.graphs) != 1 or data.level == "graph":
        raise DGLError(
            f"training.clusters cuts one large graph into parts, but {data.name} has "
            f"{counted(len(data.graphs), 'graph')} and {data.level} labels. Remove it; batch_size "
            "alone counts graphs."
        )
    (graph,) = data.graphs
    if clusters > graph.num_nodes():
        raise DGLError(
            f"training.clusters is {clusters}, but the graph of {data.name} has only "
            f"{counted(graph.num_nodes(), 'node')}."
        )
    dgl = require_dgl("training.clusters (METIS)")
    with redirect_stdout(StringIO()):  # DGL prints its timings
        # METIS forbids self-loops. With them, or in k-way mode, DGL's METIS cuts the same graph
        # another way each time, and a resumed run would differ from an uninterrupted one.
        assignment = dgl.metis_partition_assignment(
            dgl.remove_self_loop(graph), clusters, mode="recursive"
        )
    parts = [dgl.node_subgraph(graph, assignment == index) for index in range(clusters)]
    frame = "ndata" if data.level == "node" else "edata"
    key = dgl.NID if data.level == "node" else dgl.EID
    items = torch.cat([getattr(part, frame)[key] for part in parts])
    splits = [{part: mask[items] for part, mask in masks.items()} for masks in data.splits]
    return replace(data, graphs=parts, labels=data.labels[items], splits=splits)
