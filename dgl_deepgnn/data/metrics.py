"""Metrics and losses of the four targets. Metrics are scikit-learn's."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dgl_deepgnn.data.task_data import Target
from dgl_deepgnn.errors import DGLError

__all__ = ["class_weights", "evaluate_metrics", "loss_function", "loss_weight", "main_metric"]

_MAIN: dict[str, tuple[str, bool]] = {
    "multiclass": ("accuracy", True),
    "binary": ("roc_auc", True),
    "multilabel": ("micro_f1", True),
    "regression": ("mae", False),
}


def main_metric(target: Target) -> tuple[str, bool]:
    """Metric that picks the best epoch, and whether greater is better.

    Examples
    --------
    >>> main_metric("binary"), main_metric("regression")
    (('roc_auc', True), ('mae', False))
    """
    _check_target(target)
    return _MAIN[target]


def evaluate_metrics(target: Target, scores: Tensor, labels: Tensor) -> dict[str, float]:
    """Metrics of raw model outputs.

    Parameters
    ----------
    target : {"multiclass", "binary", "multilabel", "regression"}
        "multiclass" gives accuracy and macro_f1; "binary" roc_auc, average_precision and
        accuracy; "multilabel" micro_f1, macro_f1 and roc_auc (mean over labels that occur both
        ways); "regression" mae and r2.
    scores : Tensor
        Raw outputs (logits or predicted values), shape ``(n, num_outputs)``.
    labels : Tensor
        As in `TaskData.labels`.

    Returns
    -------
    dict of str to float
        roc_auc is NaN where only one class occurs.

    Raises
    ------
    DGLError
        If there is nothing to score, shapes disagree or a score is not finite.

    Examples
    --------
    >>> scores = torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [0.5, 0.0]])
    >>> evaluate_metrics("multiclass", scores, torch.tensor([0, 1, 0, 1]))["accuracy"]
    0.75
    """
    from sklearn import metrics

    _check_target(target)
    if len(scores) == 0 or len(scores) != len(labels):
        raise DGLError(
            f"Metrics need scores and labels of the same, non-zero length; got scores of shape "
            f"{tuple(scores.shape)} and labels of shape {tuple(labels.shape)}."
        )
    scores, labels = scores.detach().float().cpu(), labels.detach().cpu()
    if not bool(torch.isfinite(scores).all()):
        bad = int((~torch.isfinite(scores)).sum())
        raise DGLError(
            f"{bad} of {scores.numel()} scores are not finite: the model has diverged. Lower the "
            "learning rate or use the critical initialization."
        )
    if target == "multiclass":
        if scores.dim() != 2:
            raise DGLError(
                f"Multi-class scores have shape {tuple(scores.shape)}; need (n, classes)"
            )
        predicted = scores.argmax(dim=1)
        return {
            "accuracy": float(metrics.accuracy_score(labels, predicted)),
            "macro_f1": float(metrics.f1_score(labels, predicted, average="macro")),
        }
    if scores.numel() != labels.numel():
        raise DGLError(
            f"{target} scores of shape {tuple(scores.shape)} do not fit labels of shape "
            f"{tuple(labels.shape)}."
        )
    scores = scores.reshape(labels.shape)
    if target == "regression":
        return {
            "mae": float(metrics.mean_absolute_error(labels, scores)),
            "r2": float(metrics.r2_score(labels, scores)) if len(labels) > 1 else float("nan"),
        }
    positive = (scores > 0).long()
    if target == "binary":
        one_class = labels.min() == labels.max()
        return {
            "roc_auc": float("nan") if one_class else float(metrics.roc_auc_score(labels, scores)),
            "average_precision": _quiet(metrics.average_precision_score, labels, scores),
            "accuracy": float(metrics.accuracy_score(labels, positive)),
        }
    both = labels.amin(dim=0) != labels.amax(dim=0)
    return {
        "micro_f1": _quiet(metrics.f1_score, labels, positive, average="micro", zero_division=0),
        "macro_f1": _quiet(metrics.f1_score, labels, positive, average="macro", zero_division=0),
        "roc_auc": float(metrics.roc_auc_score(labels[:, both], scores[:, both]))
        if bool(both.any())
        else float("nan"),
    }


def loss_function(
    target: Target, class_weight: Tensor | None = None
) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean training loss ``loss(scores, labels)``.

    Cross-entropy for "multiclass", binary cross-entropy with logits for "binary" and
    "multilabel", mean squared error for "regression".

    Parameters
    ----------
    target : {"multiclass", "binary", "multilabel", "regression"}
    class_weight : Tensor, optional
        From `class_weights`: weight per class for "multiclass", weight of the positives
        (PyTorch's ``pos_weight``) for "binary" and "multilabel".

    Raises
    ------
    DGLError
        If weights are given for "regression".

    Examples
    --------
    >>> loss_function("binary")(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0])).item()
    0.6931471824645996
    """
    _check_target(target)
    if target == "multiclass":
        return partial(F.cross_entropy, weight=class_weight)
    if target == "regression":
        if class_weight is not None:
            raise DGLError("Class weights make no sense for a regression target; leave them out.")
        return lambda scores, labels: F.mse_loss(scores.view(labels.shape), labels.to(scores.dtype))
    return lambda scores, labels: F.binary_cross_entropy_with_logits(
        scores.view(labels.shape), labels.to(scores.dtype), pos_weight=class_weight
    )


def loss_weight(target: Target, labels: Tensor, class_weight: Tensor | None = None) -> float:
    """What the mean of :func:`loss_function` divides by: parts of a batch weigh as much.

    Examples
    --------
    >>> labels = torch.tensor([0, 0, 1])
    >>> loss_weight("multiclass", labels, torch.tensor([1.0, 4.0])), loss_weight("binary", labels)
    (6.0, 3.0)
    """
    _check_target(target)
    if target == "multiclass" and class_weight is not None:
        return class_weight[labels].sum().item()
    return float(len(labels))


def class_weights(labels: Tensor, target: Target, num_outputs: int = 0) -> Tensor:
    """Weights that balance the classes, for `loss_function`.

    Parameters
    ----------
    labels : Tensor
        Labels of the training items.
    target : {"multiclass", "binary", "multilabel"}
        For "multiclass" these are scikit-learn's "balanced" weights,
        ``n / (classes that occur * count)``; for the others the ratio of scikit-learn's
        two weights, negatives to positives, one per label.
    num_outputs : int, optional
        Number of classes, where `labels` may lack the last ones. A class that does not occur
        has weight 1.

    Returns
    -------
    Tensor
        float32, shape ``(classes,)``, ``(1,)`` or ``(labels,)``.

    Raises
    ------
    DGLError
        For a regression target, or where a binary label never or always holds.

    Examples
    --------
    >>> class_weights(torch.tensor([0, 0, 0, 1]), "multiclass").tolist()
    [0.6666666865348816, 2.0]
    >>> class_weights(torch.tensor([0, 0, 0, 1]), "binary").tolist()
    [3.0]
    """
    _check_target(target)
    if target == "regression":
        raise DGLError("Class weights make no sense for a regression target; leave them out.")
    if target == "multiclass":
        from sklearn.utils.class_weight import compute_class_weight

        present = labels.unique()
        weights = torch.ones(max(num_outputs, int(present.max()) + 1))
        balanced = compute_class_weight("balanced", classes=present.numpy(), y=labels.numpy())
        weights[present] = torch.as_tensor(balanced, dtype=torch.float32)
        return weights
    positives = labels.reshape(len(labels), -1).sum(dim=0).float()
    if bool(((positives == 0) | (positives == len(labels))).any()):
        raise DGLError(
            f"A {target} label never or always holds among the {len(labels)} training items "
            "(positives: "
            f"{positives.int().tolist()}); there is nothing to balance: leave class weights out."
        )
    return (len(labels) - positives) / positives


def _quiet(metric: Callable[..., Any], *args: Any, **kwargs: Any) -> float:
    """Call without scikit-learn's warnings about classes that do not occur."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(metric(*args, **kwargs))


def _check_target(target: str) -> None:
    if target not in _MAIN:
        raise DGLError(f"target is {target!r}; allowed: {', '.join(_MAIN)}.")
