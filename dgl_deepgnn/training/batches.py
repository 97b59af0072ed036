"""From task data to the batches of graphs that a model is trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import batch
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import layerwise_inference
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.growth import AcyclicGraphError
from dgl_deepgnn.operator.matrix import concatenated_ranges
from dgl_deepgnn.operator.sparse import to_sparse
from dgl_deepgnn.recipe import BatchingSection
from dgl_deepgnn.training.processes import ONE, Processes
from dgl_deepgnn.training.sampling import Cut, cut, subgraph_sampler

__all__ = ["Batch", "Batches", "Collator"]

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

    @property
    def num_nodes(self) -> int:
        """Of all its graphs."""
        return self.feat.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        return Batch(
            self.operator.to(device),
            self.feat.to(device),
            None if self.edge_feat is None else self.edge_feat.to(device),
            self.labels.to(device),
            {part: mask.to(device) for part, mask in self.masks.items()},
        )

    def uncounted(self) -> Batch:
        """The same without anything to learn from, for a process whose share is empty."""
        none = {part: torch.zeros_like(mask) for part, mask in self.masks.items()}
        return replace(self, masks=none)

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
    batching : BatchingSection
        What a step sees.
    device : torch.device
        Where the tensors go.
    processes : Processes
        Those that train together, each on its share of every batch.

    Raises
    ------
    UserError
        If there are several processes and a batch is no set of graphs.
    """

    def __init__(
        self,
        data: TaskData,
        split: int,
        model: DeepGNN,
        batching: BatchingSection,
        device: torch.device,
        processes: Processes = ONE,
    ) -> None:
        self._batching, self._device, self._processes = batching, device, processes
        kind, size = batching.kind, batching.size
        shared = kind == "clusters" or (kind in ("full", "graphs") and len(data.graphs) > 1)
        if processes.size > 1 and not shared:
            raise UserError(
                f"{processes.size} processes share the graphs of each batch, but with "
                f"training.batching.kind {kind} a batch of {data.name} is a single one. Use kind "
                "clusters, which cuts it into parts, or one process."
            )
        everything = self._collator = Collator(data, split, model, device)
        # Graphs do not change: the batches that recur are made once.
        self.evaluation = [
            everything.batch(some, products=batching.memory is None)
            for some in torch.arange(len(data.graphs)).split(
                size if kind == "graphs" and size else len(data.graphs)
            )
        ]
        if batching.parts is not None:
            self._collator = Collator(data, split, model, device, cut(data, batching.parts))
        self._train_graphs = self._collator.to_train_on
        self._whole = self._subgraphs = None
        if kind in ("shadow", "saint"):
            self._subgraphs = _Subgraphs(data, split, model, batching)
        elif kind == "full":
            alike = len(self._train_graphs) == len(data.graphs) and processes.size == 1
            self._whole = self.evaluation[0] if alike else self._share(self._train_graphs)

    @property
    def steps_per_epoch(self) -> int:
        """Training batches in one epoch."""
        if self._batching.size is None:
            return 1
        drawn = self._train_graphs if self._subgraphs is None else self._subgraphs.nodes
        return -(-len(drawn) // self._batching.size)

    def training(self, generator: torch.Generator) -> Iterator[Batch]:
        """Batches of one epoch, shuffled by `generator`."""
        if self._whole is not None:
            yield self._whole
            return
        size = self._batching.size or 1
        if self._subgraphs is not None:
            self._subgraphs.draw(generator, size)
            workers = self._batching.workers
            # Its generator seeds the processes, which draw by numbers of their own: any will do.
            for some in DataLoader(
                self._subgraphs, None, num_workers=workers, generator=torch.Generator()
            ):
                yield some.to(self._device)
            return
        order = torch.randperm(len(self._train_graphs), generator=generator)
        for graphs in self._train_graphs[order].split(size):
            yield self._share(graphs)

    def _share(self, graphs: Tensor) -> Batch:
        """The part of a batch of graphs that this process takes."""
        mine = graphs[self._processes.rank :: self._processes.size]
        if len(mine):
            return self._collator.batch(mine)
        # More processes than graphs: this one takes part, too.
        return self._collator.batch(graphs[:1]).uncounted()


class _Subgraphs(Dataset[Batch]):
    """Subgraphs of an epoch, each drawn when it is asked for, by a number of its own."""

    def __init__(
        self, data: TaskData, split: int, model: DeepGNN, batching: BatchingSection
    ) -> None:
        self._sample = subgraph_sampler(data, batching)
        self._operator, self._weighted = model.operator, data.weighted
        self._reads_edges = model.reads_edges
        (graph,) = data.graphs
        self._feat, self._labels, self._masks = graph.ndata["feat"], data.labels, data.splits[split]
        saint = batching.kind == "saint"
        train = self._masks["train"]
        self.nodes = torch.arange(len(train)) if saint else train.nonzero().flatten()
        """Those that an epoch goes over."""
        self._draws: list[tuple[int, Tensor]] = []

    def draw(self, generator: torch.Generator, size: int) -> None:
        """Shuffle for the next epoch."""
        order = self.nodes[torch.randperm(len(self.nodes), generator=generator)]
        some = order.split(size)
        numbers = torch.randint(2**31, (len(some),), generator=generator).tolist()
        self._draws = list(zip(numbers, some, strict=True))

    def __len__(self) -> int:
        return len(self._draws)

    def __getitem__(self, index: int) -> Batch:
        if index >= len(self):
            raise IndexError(index)
        inside, counts, graph = self._sample(*self._draws[index])
        masks = {part: mask[inside] & counts for part, mask in self._masks.items()}
        with _of_a_piece("A drawn subgraph", "a larger training.batching.size"):
            operator = self._operator(graph, graph.edata["weight"] if self._weighted else None)
        edge_feat = graph.edata["feat"] if self._reads_edges else None
        return Batch(operator, self._feat[inside], edge_feat, self._labels[inside], masks)


@contextmanager
def _of_a_piece(piece: str, remedy: str) -> Iterator[None]:
    """Say of a piece without a cycle that it is one, and what to do."""
    try:
        yield
    except AcyclicGraphError as error:
        raise DGLError(
            f"{piece} has no directed cycle, so that no scale of weights is critical there: "
            f"signals die. Give every node a self-loop (data.options.self_loops), or take {remedy}."
        ) from error


class Collator:
    """Graphs as one, from which batches are cut: those of a data set, or the parts of its one."""

    def __init__(
        self,
        data: TaskData,
        split: int,
        model: DeepGNN,
        device: torch.device,
        parts: Cut | None = None,
    ) -> None:
        self._device = device
        graphs = data.graphs if parts is None else parts.graphs
        # `batch` copies the features, even those of one graph.
        graph = graphs[0] if len(graphs) == 1 else batch(graphs)
        weight = graph.edata["weight"] if data.weighted else None
        piece = _of_a_piece("A part of the graph", "fewer training.batching.parts")
        with nullcontext() if parts is None else piece:
            self._operator = model.operator(graph, weight)
        # Features of parts stay where they are, in a file perhaps: each batch takes its rows.
        self._nodes = None if parts is None else parts.nodes
        self._feat = (graph if parts is None else data.graphs[0]).ndata["feat"]
        self._sparse = _is_sparse(self._feat, model)
        self._edge_feat = graph.edata["feat"] if model.config["edge_feats"] else None
        self._labels, self._masks = data.labels, data.splits[split]
        self.items_per_graph = data.items_per_graph
        if parts is not None:
            level = data.level
            items = parts.nodes if level == "node" else parts.edges
            self._labels = self._labels[items]
            self._masks = {part: mask[items] for part, mask in self._masks.items()}
            self.items_per_graph = [
                part.num_nodes() if level == "node" else part.num_edges() for part in graphs
            ]
        self._num_nodes = graph.batch_num_nodes().numpy()
        self._num_edges = graph.batch_num_edges().numpy()
        self._num_items = np.array(self.items_per_graph)

    @property
    def to_train_on(self) -> Tensor:
        """Indices of the graphs that hold items of the training part."""
        chunks = self._masks["train"].split(self.items_per_graph)
        return torch.tensor([index for index, chunk in enumerate(chunks) if chunk.any()])

    def batch(self, which: Tensor, products: bool = True) -> Batch:
        """Those graphs, in that order; with matrices ready for products, or for rows of them."""
        chosen = which.numpy()
        whole = len(chosen) == len(self._num_nodes) and (np.diff(chosen) == 1).all()
        operator = self._operator if whole else self._operator.select(chosen.tolist())

        def rows(sizes: np.ndarray) -> Any:
            return slice(None) if whole else concatenated_ranges(sizes, chosen)

        nodes, items = rows(self._num_nodes), rows(self._num_items)
        edge_feat = None
        if self._edge_feat is not None:
            edge_feat = self._edge_feat[rows(self._num_edges)].to(self._device)
        feat = self._feat[nodes if self._nodes is None else self._nodes[nodes]]
        return Batch(
            operator.to(self._device) if products else operator,
            (to_sparse(feat) if self._sparse else feat).to(self._device),
            edge_feat,
            self._labels[items].to(self._device),
            {part: mask[items].to(self._device) for part, mask in self._masks.items()},
        )


def _is_sparse(feat: Any, model: DeepGNN) -> bool:
    """Whether features are bags of words: the first product is faster on a sparse matrix."""
    if model.in_feats <= model.config["hidden_feats"] or not isinstance(feat, Tensor):
        return False  # those on several machines are not looked at
    return torch.count_nonzero(feat).item() < SPARSE_BELOW * feat.numel()
