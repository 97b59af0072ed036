"""Training of a reference: that of the time to accuracy, or of edges, with scores of any part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import dgl
import torch
from torch import Tensor, nn

from benchmarks.baselines.networks import InteractionNetwork, make_network
from benchmarks.baselines.protocol import Scores
from benchmarks.baselines.references import Candidate, Reference
from benchmarks.time_to_accuracy.contenders import PeerTraining
from dgl_deepgnn.data import TaskData, evaluate_metrics, loss_function, main_metric
from dgl_deepgnn.data.task_data import Target

__all__ = ["EdgeTraining", "ReferenceTraining"]


class _Scored(ABC):
    """What has a network and scores of a part can be evaluated, kept and taken back."""

    _model: nn.Module
    _target: Target
    _loss: Callable[[Tensor, Tensor], Tensor]

    @abstractmethod
    def scores(self, part: str) -> tuple[Tensor, Tensor]:
        """Scores and labels of a part."""

    def evaluate(self, part: str) -> Scores:
        """Loss and metrics of a part of the split."""
        scores, labels = self.scores(part)
        loss = self._loss(scores, labels).item()
        return {"loss": loss, **evaluate_metrics(self._target, scores, labels)}

    def weights(self) -> dict[str, Tensor]:
        """Copy of the weights, and of the statistics of batch normalization."""
        return {name: value.clone() for name, value in self._model.state_dict().items()}

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take weights back."""
        self._model.load_state_dict(weights)


class ReferenceTraining(PeerTraining, _Scored):
    """A network of DGL's layers, its learning rate halved now and then if that is asked for.

    Parameters
    ----------
    reference : Reference
        What is trained.
    candidate : Candidate
        At which settings.
    data : TaskData
        What to train on.
    seed : int
        As in :class:`PeerTraining`.
    """

    def __init__(
        self, reference: Reference, candidate: Candidate, data: TaskData, seed: int
    ) -> None:
        metric, _ = main_metric(data.target)
        super().__init__(candidate.peer, metric, data, seed, candidate.rate, make_network)
        self._target = data.target
        if candidate.peer.network in ("GraphConv", "GCN2Conv"):
            graph, words = self._whole
            self._whole = graph, words.to_sparse()
        self._schedule = torch.optim.lr_scheduler.StepLR(
            self._optimizer, reference.halving or reference.epochs, gamma=0.5
        )

    def epoch(self) -> None:
        """Train on everything once."""
        super().epoch()
        self._schedule.step()


class EdgeTraining(_Scored):
    """An interaction network on the edges of many graphs, each whole in one part of the split.

    Edges that no part counts, mirrored ones and self-loops, are taken out: it reads a collision's
    segments from the inside to the outside, as its authors have them.

    Parameters
    ----------
    reference, candidate, data, seed
        As in :class:`ReferenceTraining`.
    """

    def __init__(
        self, reference: Reference, candidate: Candidate, data: TaskData, seed: int
    ) -> None:
        torch.manual_seed(seed)
        peer = candidate.peer
        assert peer.batch_size is not None
        self._size, self._target = peer.batch_size, data.target
        self._loss = loss_function(data.target)
        self._model = InteractionNetwork(data.in_feats, data.edge_feats, peer.width)
        self._optimizer = torch.optim.Adam(self._model.parameters(), lr=candidate.rate, fused=True)
        self._parts: dict[str, list[tuple[dgl.DGLGraph, Tensor]]] = {}
        split = data.splits[seed % len(data.splits)]
        labels = data.labels.split(data.items_per_graph)
        for part, mask in split.items():
            self._parts[part] = [
                (dgl.edge_subgraph(graph, inside, relabel_nodes=False), label[inside])
                for graph, label, inside in zip(
                    data.graphs, labels, mask.split(data.items_per_graph), strict=True
                )
                if bool(inside.any())
            ]

    def epoch(self) -> None:
        """Train on everything once."""
        self._model.train()
        train = self._parts["train"]
        for some in torch.randperm(len(train)).split(self._size):
            scores, labels = self._run([train[index] for index in some.tolist()])
            self._optimizer.zero_grad()
            self._loss(scores, labels).backward()
            self._optimizer.step()

    @torch.no_grad()
    def scores(self, part: str) -> tuple[Tensor, Tensor]:
        """Scores and labels of the edges of a part."""
        self._model.eval()
        return self._run(self._parts[part])

    def _run(self, some: list[tuple[dgl.DGLGraph, Tensor]]) -> tuple[Tensor, Tensor]:
        graph = dgl.batch([graph for graph, _ in some])
        scores = self._model(graph, graph.ndata["feat"], graph.edata["feat"])
        return scores[:, None], torch.cat([labels for _, labels in some])
