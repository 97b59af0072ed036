"""Training by clusters in three libraries: the same clusters, depth, width, loss and optimizer."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import dgl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.scale.problem import CLASSES, WIDTH, Plan, recipe_for
from dgl_deepgnn.data import TaskData
from dgl_deepgnn.training.trainer import Trainer

__all__ = ["CONTENDERS", "OURS", "Contender", "Seen"]

RATE = 1e-5
"""Small, so that no contender's weights blow up in the epochs that are timed."""
SEED = 0
"""Of the order of the clusters: every contender draws it from a generator of its own."""


class Seen(NamedTuple):
    """What a step is given."""

    values: Tensor
    """First feature of every node, sorted: no two nodes share it."""
    edges: int


class Contender(ABC):
    """What is timed: an epoch of training, the loading of its batches included."""

    @abstractmethod
    def epoch(self) -> list[int]:
        """Train for one epoch; the nodes of every step."""

    @abstractmethod
    def look(self) -> list[Seen]:
        """What the steps of the next epoch are given; it counts as one for the order."""


class Ours(Contender):
    """ResGCN with its defaults, in the package's own loop."""

    def __init__(self, plan: Plan, data: TaskData, folder: str, assignment: Tensor) -> None:
        recipe = recipe_for(plan, folder, epochs=10**6, lr=RATE)
        self._trainer = Trainer(recipe, data, SEED)

    def epoch(self) -> list[int]:
        """Train for one epoch; the nodes of every step."""
        return [step.nodes for step in self._trainer.run_epoch()]

    def look(self) -> list[Seen]:
        """What the steps of the next epoch are given."""
        return [
            Seen(batch.feat[:, 0].sort().values, batch.operator.graph.num_edges())
            for batch in self._trainer.batches.training(self._trainer.order)
        ]


class Stack(nn.Module):
    """Stock layers: ``h + relu(conv(h))`` between the first, which changes the width, and the last.

    Parameters
    ----------
    make : callable
        A layer of two widths.
    plan : Plan
        Widths and depth.
    """

    def __init__(self, make: Callable[[int, int], nn.Module], plan: Plan) -> None:
        super().__init__()
        ends = pairwise([plan.in_feats, *[WIDTH] * (plan.layers - 1), CLASSES])
        self.layers = nn.ModuleList(make(*widths) for widths in ends)

    def forward(self, call: Callable[[nn.Module, Tensor], Tensor], feat: Tensor) -> Tensor:
        """Scores of the nodes; ``call(layer, feat)`` knows the graph."""
        first, *inner, last = self.layers
        feat = torch.relu(call(first, feat))
        for layer in inner:
            feat = feat + torch.relu(call(layer, feat))
        return call(last, feat)


class _Other(Contender):
    """A plain loop over the loader of another library."""

    def __init__(self, plan: Plan, make: Callable[[int, int], nn.Module]) -> None:
        torch.manual_seed(SEED)
        self._plan, self._model = plan, Stack(make, plan)
        self._order = torch.Generator().manual_seed(SEED)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=RATE, fused=True)

    @abstractmethod
    def _batches(self, order: Tensor) -> Iterator[Any]:
        """Batches of the clusters, some at a time, in this order."""

    @abstractmethod
    def _inputs(self, batch: Any) -> tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]:
        """How a layer is called; features, labels, mask of the training nodes."""

    @abstractmethod
    def _edges(self, batch: Any) -> int: ...

    def _drawn(self) -> Iterator[Any]:
        return self._batches(torch.randperm(self._plan.parts, generator=self._order))

    def epoch(self) -> list[int]:
        """Train for one epoch; the nodes of every step."""
        nodes = []
        for batch in self._drawn():
            call, feat, labels, mask = self._inputs(batch)
            self._optimizer.zero_grad()
            loss = F.cross_entropy(self._model(call, feat)[mask], labels[mask])
            loss.item()  # as everybody logs it
            loss.backward()
            self._optimizer.step()
            nodes.append(len(feat))
        return nodes

    def look(self) -> list[Seen]:
        """What the steps of the next epoch are given."""
        return [
            Seen(self._inputs(batch)[1][:, 0].sort().values, self._edges(batch))
            for batch in self._drawn()
        ]


class InDGL(_Other):
    """``ClusterGCNSampler`` and a stack of ``GraphConv``, as in DGL's example of Cluster-GCN."""

    def __init__(self, plan: Plan, data: TaskData, folder: str, assignment: Tensor) -> None:
        super().__init__(plan, dgl.nn.GraphConv)
        self._graph = data.graphs[0].local_var()
        self._graph.ndata.update(label=data.labels, train=data.splits[0]["train"])
        # The sampler takes its clusters from a file where there is one.
        cut = Path(folder, "cluster_gcn.pkl")
        ends = torch.cat([torch.zeros(1, dtype=torch.long), assignment.bincount().cumsum(0)])
        cut.write_bytes(pickle.dumps((ends, assignment.argsort(stable=True))))
        self._sampler = dgl.dataloading.ClusterGCNSampler(
            self._graph, plan.parts, str(cut), prefetch_ndata=["feat", "label", "train"]
        )

    def _batches(self, order: Tensor) -> Iterator[Any]:
        size = self._plan.size
        return iter(dgl.dataloading.DataLoader(self._graph, order, self._sampler, batch_size=size))

    def _inputs(self, batch: Any) -> tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]:
        data = batch.ndata
        return (
            lambda layer, feat: layer(batch, feat),
            data["feat"],
            data["label"],
            data["train"],
        )

    def _edges(self, batch: Any) -> int:
        return batch.num_edges()


class InPyG(_Other):
    """``ClusterLoader`` of PyTorch Geometric and a stack of ``GCNConv``."""

    normalize = True
    """Whether the layers normalize the edges."""

    def __init__(self, plan: Plan, data: TaskData, folder: str, assignment: Tensor) -> None:
        from torch_geometric.data import Data
        from torch_geometric.loader import ClusterData
        from torch_geometric.nn import GCNConv

        class Given(ClusterData):
            """Clusters that are there: its own METIS is in packages that PyPI does not have."""

            def _metis(self, edge_index: Tensor, num_nodes: int) -> Tensor:
                return assignment

        # The graph has its self-loops. A batch comes once, so that nothing is worth caching.
        options = {"add_self_loops": False, "normalize": self.normalize}
        super().__init__(plan, lambda *widths: GCNConv(*widths, **options))
        (graph,) = data.graphs
        edges = torch.stack(graph.edges(order="eid"))
        whole = Data(x=graph.ndata["feat"], edge_index=edges, y=data.labels)
        whole.train_mask = data.splits[0]["train"]
        self._clusters = Given(whole, plan.parts, log=False)

    def _batches(self, order: Tensor) -> Iterator[Any]:
        from torch_geometric.loader import ClusterLoader

        size = self._plan.size
        return iter(ClusterLoader(self._clusters, batch_size=size, sampler=order.tolist()))

    def _inputs(self, batch: Any) -> tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]:
        edges = batch.edge_index
        return lambda layer, feat: layer(feat, edges), batch.x, batch.y, batch.train_mask

    def _edges(self, batch: Any) -> int:
        return batch.edge_index.shape[1]


class InPyGNormalized(InPyG):
    """The same, but the edges are normalized once a batch in place of once a layer."""

    normalize = False

    def _inputs(self, batch: Any) -> tuple[Callable[..., Tensor], Tensor, Tensor, Tensor]:
        from torch_geometric.nn.conv.gcn_conv import gcn_norm

        _, feat, labels, mask = super()._inputs(batch)
        edges, weight = gcn_norm(
            batch.edge_index, None, num_nodes=len(feat), add_self_loops=False, dtype=feat.dtype
        )
        return lambda layer, feat: layer(feat, edges, weight), feat, labels, mask


OURS = "ResGCN, its trainer"
CONTENDERS: dict[str, Callable[[Plan, TaskData, str, Tensor], Contender]] = {
    OURS: Ours,
    "DGL ClusterGCNSampler, GraphConv": InDGL,
    "PyG ClusterLoader, GCNConv": InPyG,
    "PyG ClusterLoader, GCNConv, normalized once a batch": InPyGNormalized,
}
