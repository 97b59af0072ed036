from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from dgl_deepgnn.nn.dropout import Dropout
from dgl_deepgnn.operator.sparse import to_sparse


@pytest.mark.parametrize("p", [0.1, 0.5, 0.93])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_share_and_scale(p: float, sparse: bool) -> None:
    torch.manual_seed(0)
    feat = torch.ones(300, 333)
    dropped = Dropout(p)(to_sparse(feat) if sparse else feat)
    assert (dropped.layout == torch.sparse_csr) == sparse
    dropped = dropped.to_dense()
    count = feat.numel()
    zeros = (dropped == 0).sum().item()
    assert abs(zeros - p * count) < 5 * math.sqrt(count * p * (1 - p))
    # What is left is scaled so that the expectation stays.
    torch.testing.assert_close(dropped.max().item(), 1 / (1 - p), rtol=1e-3, atol=0)


def test_no_pattern() -> None:
    """Neighbouring draws share a random word, but are independent; so are two calls."""
    torch.manual_seed(0)
    dropout = Dropout(0.5)
    first, second = dropout(torch.ones(2, 400_000)) - 1
    for lag in (1, 2, 3, 4, 8):
        correlation = (first[lag:] * first[:-lag]).mean().abs().item()
        assert correlation < 5 / math.sqrt(400_000)
    assert (first * second).mean().abs() < 5 / math.sqrt(400_000)


def test_gradient_goes_where_the_features_went() -> None:
    feat = torch.randn(31, 7, requires_grad=True)
    dropped = Dropout(0.4)(feat)
    (gradient,) = torch.autograd.grad(dropped.sum(), feat)
    torch.testing.assert_close(feat * gradient, dropped)


def test_evaluation_and_zero_leave_the_features() -> None:
    feat = torch.randn(5, 3)
    assert Dropout(0.0)(feat) is feat
    assert nn.Sequential(Dropout(0.5)).eval()(feat) is feat


def test_same_seed_same_bits() -> None:
    feat = torch.randn(100, 33)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(Dropout(0.3)(feat))
    assert torch.equal(*drawn)
