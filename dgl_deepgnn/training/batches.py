"""From task data to the batches of graphs that a model is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import dgl
import torch
from dgl import DGLError
from torch import Tensor

from dgl_deepgnn.aggregation import AggregationOperator
from dgl_deepgnn.data import TaskData
from dgl_deepgnn.nn import DeepGNN

__all__ = ["Batch", "Batches"]


@dataclass(frozen=True)
class Batch:
    """Some graphs as one, on the device, with the operator of the model in the graph's place."""

    operator: AggregationOperator
    feat: Tensor
    edge_feat: Tensor | None
    labels: Tensor
    masks: dict[str, Tensor]

    def scores(self, model: DeepGNN) -> Tensor:
        """Scores of all items."""
        return model(self.operator, self.feat, edge_feat=self.edge_feat)


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
        self._model, self._batch_size, self._device = model, batch_size, device
        self._train_data = data if clusters is None else _cut(data, clusters)
        self._train_split = split
        self._train_graphs = _graphs_with(self._train_data, split, "train")
        size = len(data.graphs) if batch_size is None or clusters is not None else batch_size
        everything = torch.arange(len(data.graphs))
        # Graphs do not change: their operators are made once.
        self.evaluation = [self._collate(data, split, some) for some in everything.split(size)]
        self._whole: Batch | None = None
        if batch_size is None:
            same = len(self._train_graphs) == len(data.graphs)
            self._whole = (
                self.evaluation[0] if same else self._collate(data, split, self._train_graphs)
            )

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
            yield self._collate(self._train_data, self._train_split, some)

    def _collate(self, data: TaskData, split: int, which: Tensor) -> Batch:
        graphs = [data.graphs[index] for index in which.tolist()]
        graph = dgl.batch(graphs) if len(graphs) > 1 else graphs[0]
        ends = torch.tensor(data.items_per_graph).cumsum(0).tolist()
        items = torch.cat(
            [torch.arange(ends[i] - data.items_per_graph[i], ends[i]) for i in which.tolist()]
        )
        edge_feat = graph.edata["feat"].to(self._device) if data.edge_feats else None
        return Batch(
            self._model.operator(graph).to(self._device),
            graph.ndata["feat"].to(self._device),
            edge_feat,
            data.labels[items].to(self._device),
            {part: mask[items].to(self._device) for part, mask in data.splits[split].items()},
        )


def _graphs_with(data: TaskData, split: int, part: str) -> Tensor:
    """Indices of the graphs that hold items of a part of the split."""
    chunks = data.splits[split][part].split(data.items_per_graph)
    return torch.tensor([index for index, chunk in enumerate(chunks) if chunk.any()])


def _cut(data: TaskData, clusters: int) -> TaskData:
    """Cut the one graph of a data set into induced subgraphs (METIS, as Cluster-GCN does)."""
    if len(data.graphs) != 1 or data.level == "graph":
        raise DGLError(
            f"training.clusters cuts one large graph into parts, but {data.name} has "
            f"{len(data.graphs)} graphs and {data.level} labels. Remove it; batch_size alone "
            "counts graphs."
        )
    (graph,) = data.graphs
    assignment = dgl.metis_partition_assignment(graph, clusters)
    parts = [dgl.node_subgraph(graph, assignment == index) for index in range(clusters)]
    frame = "ndata" if data.level == "node" else "edata"
    key = dgl.NID if data.level == "node" else dgl.EID
    items = torch.cat([getattr(part, frame)[key] for part in parts])
    splits = [{part: mask[items] for part, mask in masks.items()} for masks in data.splits]
    return replace(data, graphs=parts, labels=data.labels[items], splits=splits)
