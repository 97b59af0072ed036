"""One training in our protocol: the epoch by validation, the test score of that epoch alone."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from benchmarks.baselines.references import Reference
from dgl_deepgnn.data.task_data import Target
from dgl_deepgnn.training.trainer import is_better

__all__ = ["Scores", "Training", "run"]

Scores = dict[str, float]
"""Loss and metrics of a part of the split."""


class Training(Protocol):
    """What is trained."""

    def epoch(self) -> None:
        """Train on everything once."""

    def evaluate(self, part: str) -> Scores:
        """Loss and metrics of a part of the split."""

    def weights(self) -> dict[str, Tensor]:
        """Copy of the weights as they are."""

    def restore(self, weights: dict[str, Tensor]) -> None:
        """Take weights back."""


def run(training: Training, reference: Reference, target: Target, test: bool) -> dict[str, Any]:
    """Train for as long as validation gets better, as `dgl_deepgnn.training.run` does.

    Parameters
    ----------
    training : Training
        Ready for its first epoch.
    reference : Reference
        Says how long and how often.
    target : {"multiclass", "binary", ...}
        Says which score of two is better.
    test : bool
        Whether to evaluate the test part, once, at the weights of the chosen epoch.

    Returns
    -------
    dict
        ``epoch``, the chosen one; ``epochs``, how many there were; ``val`` and ``test``, loss and
        metrics at the chosen epoch.
    """
    epoch = chosen = 0
    best: Scores | None = None
    weights: dict[str, Tensor] = {}
    while epoch < reference.epochs and (
        epoch % reference.every or epoch - chosen < reference.patience
    ):
        training.epoch()
        epoch += 1
        if epoch % reference.every == 0 or epoch == reference.epochs:
            scores = training.evaluate("val")
            if is_better(target, scores, best):
                best, chosen, weights = scores, epoch, training.weights()
    found: dict[str, Any] = {"epoch": chosen, "epochs": epoch, "val": best}
    if test:
        training.restore(weights)
        found["test"] = training.evaluate("test")
    return found
