"""Training of a reference: that of the time to accuracy, with scores of any part of the split."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.baselines.networks import make_network
from benchmarks.baselines.protocol import Scores
from benchmarks.baselines.references import Candidate, Reference
from benchmarks.time_to_accuracy.contenders import PeerTraining
from dgl_deepgnn.data import TaskData, evaluate_metrics, main_metric

__all__ = ["ReferenceTraining"]


class ReferenceTraining(PeerTraining):
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
