"""A training of each contender, an epoch and a validation at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Protocol

import dgl
import torch
from torch import Tensor, nn

from benchmarks.time_to_accuracy.libraries import LIBRARIES, Library
from benchmarks.time_to_accuracy.networks import build
from benchmarks.time_to_accuracy.tasks import PATIENT, Peer, Task
from dgl_deepgnn.data import TaskData, load_data, loss_function
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training import DivergenceError, Trainer

__all__ = ["OurTraining", "PeerTraining", "Training", "fresh", "load", "our_recipe", "start"]


class Training(Protocol):
    """What is raced."""

    def epoch(self) -> None:
        """Train on everything once."""

    def validate(self) -> float:
        """Validation score."""


class OurTraining:
    """The recipe, by the package's own trainer.

    Parameters
    ----------
    task : Task
        Whose recipe.
    data : TaskData
        What to train on.
    seed : int
        As in :class:`dgl_deepgnn.training.Trainer`.
    rate : float
        Learning rate.
    """

    def __init__(self, task: Task, data: TaskData, seed: int, rate: float) -> None:
        self._trainer, self._metric = Trainer(our_recipe(task, rate), data, seed), task.metric

    def epoch(self) -> None:
        """Train on everything once."""
        self._trainer.run_epoch()

    def validate(self) -> float:
        """Validation score."""
        return self._trainer.evaluate(["val"])["val"][self._metric]


class PeerTraining:
    """A network of another library's layers, by the loop that its examples have.

    Parameters
    ----------
    peer : Peer
        Network and settings.
    metric : {"accuracy", "roc_auc"}
        Validation score.
    data : TaskData
        What to train on.
    seed : int
        Of weights, dropout and the order of batches; it takes the split that ours takes.
    rate : float
        Learning rate.
    make : callable
        Builds the network.
    """

    def __init__(
        self,
        peer: Peer,
        metric: str,
        data: TaskData,
        seed: int,
        rate: float,
        make: Callable[[Library, int, int, Peer], nn.Module] = build,
    ) -> None:
        torch.manual_seed(seed)
        self._library, self._metric = LIBRARIES[peer.library], metric
        self._labels, self._masks = data.labels, data.splits[seed % len(data.splits)]
        self._loss = loss_function(data.target)
        self._model = make(self._library, data.in_feats, data.num_outputs, peer)
        ends = [p for name, p in self._model.named_parameters() if not name.startswith("convs.")]
        self._optimizer = torch.optim.Adam(
            [
                {
                    "params": list(self._model.convs.parameters()),  # type: ignore[union-attr]
                    "weight_decay": peer.weight_decay,
                },
                {"params": ends, "weight_decay": peer.end_decay},
            ],
            lr=rate,
            fused=True,  # as ours: faster than PyTorch's default
        )
        self._size = peer.batch_size
        if self._size is None:
            (graph,) = data.graphs
            self._whole = self._library.whole(graph, peer.network), graph.ndata["feat"]
        else:
            self._items = self._library.items(data.graphs)
            self._train = self._masks["train"].nonzero().flatten()
            self._parts = {"val": self._batch("val")}

    def epoch(self) -> None:
        """Train on everything once."""
        self._model.train()
        for (graph, feat), inside, labels in self._steps():
            loss = self._loss(self._model(graph, feat)[inside], labels)
            if not math.isfinite(loss.item()):
                raise DivergenceError("The loss is not finite.")
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.step()

    def validate(self) -> float:
        """Validation score."""
        return _score(self._metric, *self.scores("val"))

    @torch.no_grad()
    def scores(self, part: str) -> tuple[Tensor, Tensor]:
        """Scores and labels of a part; of several graphs, only those of the part are read."""
        self._model.eval()
        labels = self._labels[self._masks[part]]
        if self._size is None:
            return self._model(*self._whole)[self._masks[part]], labels
        if part not in self._parts:
            self._parts[part] = self._batch(part)
        return self._model(*self._parts[part]), labels

    def _batch(self, part: str) -> tuple[Any, Tensor]:
        inside = self._masks[part].nonzero().flatten().tolist()
        return self._library.batch([self._items[index] for index in inside])

    def _steps(self) -> Iterator[tuple[tuple[Any, Tensor], Any, Tensor]]:
        """Graph and features, which of the scores count, and their labels."""
        if self._size is None:
            mask = self._masks["train"]
            yield self._whole, mask, self._labels[mask]
            return
        for some in self._train[torch.randperm(len(self._train))].split(self._size):
            batch = self._library.batch([self._items[index] for index in some.tolist()])
            yield batch, slice(None), self._labels[some]


def our_recipe(task: Task, rate: float) -> Recipe:
    """Recipe of our arm."""
    changes = {**PATIENT, **task.changes, "optimizer.lr": rate}
    return load_recipe(task.recipe, changes)


def load(task: Task, name: str) -> TaskData:
    """Data of a task as the contender `name` reads it."""
    peer = task.contenders[name]
    if peer is None:
        data = our_recipe(task, 1.0).data
        return load_data(data.name, **data.options)
    return load_data(task.data, **{**task.peer_options, **peer.data_options})


def start(task: Task, name: str, data: TaskData, seed: int, rate: float) -> Training:
    """Contender `name`, built and ready for its first epoch."""
    peer = task.contenders[name]
    if peer is None:
        return OurTraining(task, data, seed, rate)
    return PeerTraining(peer, task.metric, data, seed, rate)


def fresh(data: TaskData) -> TaskData:
    """The same data on graphs for which no library has prepared anything yet."""
    graphs = []
    for graph in data.graphs:
        copy = dgl.graph(graph.edges(order="eid"), num_nodes=graph.num_nodes())
        copy.ndata.update(graph.ndata)
        copy.edata.update(graph.edata)
        graphs.append(copy)
    return replace(data, graphs=graphs)


def _score(metric: str, scores: Tensor, labels: Tensor) -> float:
    if metric == "accuracy":
        return (scores.argmax(dim=1) == labels).float().mean().item()
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores.flatten()))
