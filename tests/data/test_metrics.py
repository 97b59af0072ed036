from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from dgl_deepgnn.data import class_weights, evaluate_metrics, loss_function, main_metric
from dgl_deepgnn.errors import DGLError


def test_multiclass_by_hand():
    scores = torch.tensor([[2.0, 0, 0], [0, 2, 0], [0, 2, 0], [0, 0, 2]])
    made = evaluate_metrics("multiclass", scores, torch.tensor([0, 1, 2, 2]))
    assert made["accuracy"] == pytest.approx(3 / 4)
    # F1: class 0 is 1; class 1 has precision 1/2 and recall 1; class 2 the reverse.
    assert made["macro_f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=2, max_size=30))
def test_roc_auc_is_the_chance_to_rank_a_pair_rightly(rows):
    scores = torch.tensor([float(score) for score, _ in rows])
    labels = torch.tensor([int(label) for _, label in rows])
    auc = evaluate_metrics("binary", scores.unsqueeze(1), labels)["roc_auc"]
    up, down = scores[labels == 1], scores[labels == 0]
    if len(up) == 0 or len(down) == 0:
        assert math.isnan(auc)
        return
    gap = up[:, None] - down[None]
    assert auc == pytest.approx(float((gap > 0).float().mean() + (gap == 0).float().mean() / 2))


def test_binary_accuracy_cuts_at_zero():
    made = evaluate_metrics("binary", torch.tensor([[0.1], [-0.1], [5.0]]), torch.tensor([1, 0, 0]))
    assert made["accuracy"] == pytest.approx(2 / 3)
    assert set(made) == {"roc_auc", "average_precision", "accuracy"}


def test_multilabel_by_hand():
    labels = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])
    scores = torch.tensor([[1.0, -1, -1], [1, -1, -1], [-1, 1, -1]])
    made = evaluate_metrics("multilabel", scores, labels)
    assert made["micro_f1"] == pytest.approx(2 * 3 / (3 + 4))
    assert made["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert made["roc_auc"] == pytest.approx((1 + 0.75) / 2)  # the third label never holds


def test_regression_by_hand():
    made = evaluate_metrics(
        "regression", torch.tensor([[1.0], [2], [3]]), torch.tensor([1.0, 2, 5])
    )
    assert made["mae"] == pytest.approx(2 / 3)
    assert made["r2"] == pytest.approx(1 - 4 / (26 / 3))


@pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel", "regression"])
def test_main_metric_is_among_the_metrics(target):
    labels = {
        "multiclass": torch.tensor([0, 1, 1, 0]),
        "binary": torch.tensor([0, 1, 1, 0]),
        "multilabel": torch.tensor([[0.0, 1], [1, 0], [1, 1], [0, 0]]),
        "regression": torch.tensor([0.0, 1, 2, 3]),
    }[target]
    perfect = F.one_hot(labels).float() if target == "multiclass" else labels.float() - 0.5
    name, greater = main_metric(target)
    best = evaluate_metrics(target, perfect, labels)[name]
    worst = evaluate_metrics(target, -perfect, labels)[name]
    assert best > worst if greater else best < worst


@pytest.mark.parametrize(
    ("target", "scores", "labels", "words"),
    [
        ("multiclass", torch.zeros(0, 2), torch.zeros(0).long(), "non-zero length"),
        ("multiclass", torch.zeros(3, 2), torch.zeros(4).long(), "same"),
        ("multiclass", torch.zeros(3), torch.zeros(3).long(), "need \\(n, classes\\)"),
        ("binary", torch.zeros(3, 2), torch.zeros(3).long(), "do not fit"),
        ("binary", torch.full((3, 1), float("nan")), torch.zeros(3).long(), "3 of 3 scores"),
        ("classes", torch.zeros(3, 1), torch.zeros(3).long(), "allowed: multiclass"),
    ],
)
def test_unfit_scores(target, scores, labels, words):
    with pytest.raises(DGLError, match=words):
        evaluate_metrics(target, scores, labels)


def test_losses_against_their_formulas():
    logits, labels = torch.tensor([[0.3], [-1.2], [2.0]]), torch.tensor([1, 0, 0])
    chance = torch.sigmoid(logits.squeeze(1))
    expected = -(3 * chance[0].log() + (1 - chance[1]).log() + (1 - chance[2]).log()) / 3
    assert loss_function("binary", torch.tensor([3.0]))(logits, labels).item() == pytest.approx(
        expected.item(), rel=1e-5
    )
    scores = torch.tensor([[1.0, 2], [0, -1]])
    expected = -(2 * scores.log_softmax(1)[0, 0] + scores.log_softmax(1)[1, 1]) / 3
    weighted = loss_function("multiclass", torch.tensor([2.0, 1]))
    assert weighted(scores, torch.tensor([0, 1])).item() == pytest.approx(expected.item())
    squared = loss_function("regression")(torch.tensor([[1.0], [2]]), torch.tensor([3.0, 2]))
    assert squared.item() == pytest.approx(2.0)


def test_class_weights_give_each_class_the_same_total():
    labels = torch.tensor([0] * 6 + [2] * 3 + [3])
    weights = class_weights(labels, "multiclass", num_outputs=5)
    totals = [float(weights[c] * (labels == c).sum()) for c in (0, 2, 3)]
    assert totals == pytest.approx([len(labels) / 3] * 3)
    assert weights[[1, 4]].tolist() == [1, 1]
    assert class_weights(labels.clamp(max=1), "binary").tolist() == [pytest.approx(6 / 4)]
    several = torch.tensor([[1.0, 0], [0, 1], [0, 1], [0, 1]])
    assert class_weights(several, "multilabel").tolist() == pytest.approx([3, 1 / 3])


def test_class_weights_that_make_no_sense():
    with pytest.raises(DGLError, match="regression"):
        class_weights(torch.ones(3), "regression")
    with pytest.raises(DGLError, match="regression"):
        loss_function("regression", torch.ones(1))
    with pytest.raises(DGLError, match="never or always"):
        class_weights(torch.ones(3).long(), "binary")
