"""ResGIN against DGL's GINConv and against the variances it promises."""

from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph
from torch import nn

from dgl_deepgnn import ResGIN, ResGINConv
from dgl_deepgnn.init import critical_


def mlp(conv: ResGINConv) -> nn.Module:
    """The layer's MLP as a module of its own."""
    modules: list[nn.Module] = []
    for linear in conv.mlp:
        modules += [linear, nn.ReLU()]
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("mlp_layers", [1, 2, 3])
def test_stock_settings_are_a_stack_of_ginconv(graph: DGLGraph, mlp_layers: int) -> None:
    model = ResGIN(3, 6, 4, 3, mlp_layers=mlp_layers, t=1, residual=None, init="glorot")
    feat = torch.randn(graph.num_nodes(), 3)
    plain = dgl.remove_self_loop(graph)
    looped = plain.add_self_loop()
    expected = feat
    for index, conv in enumerate(model.convs):
        theirs = dgl.nn.GINConv(mlp(conv), "sum")
        expected = theirs(plain, expected.relu() if index else expected)
    torch.testing.assert_close(model(looped, feat), expected, rtol=1e-5, atol=1e-5)


def gains(conv: ResGINConv) -> list[float]:
    return [linear.in_features * linear.weight.var(correction=0).item() for linear in conv.mlp]


def test_critical_variances() -> None:
    torch.manual_seed(0)
    model = ResGIN(250, 300, 200, 3, mlp_layers=2, residual="scaled")
    found = [gain for conv in model.convs for gain in gains(conv)]
    assert found == pytest.approx([2, 2, 2, 2, 2, 1], rel=0.03)
    assert not any(linear.bias.any() for conv in model.convs for linear in conv.mlp)


@pytest.mark.parametrize("mlp_layers", [2, 3])
def test_fixup_variances(mlp_layers: int) -> None:
    torch.manual_seed(0)
    model = ResGIN(300, 300, 300, 6, mlp_layers=mlp_layers, residual="fixup")
    inner = [2.0] * (mlp_layers - 1)
    expected = [[*inner, 2.0], *[[*inner, 0.0]] * 4, [*inner, 1.0]]
    for conv, wanted in zip(model.convs, expected, strict=True):
        assert gains(conv) == pytest.approx(wanted, rel=0.03)


def test_an_undivided_sum_has_its_spectral_radius_in_the_first_variance() -> None:
    torch.manual_seed(0)
    star = dgl.to_bidirected(dgl.graph(([0] * 9, list(range(1, 10)))))  # lambda = 3
    model = ResGIN(300, 300, 300, 2, residual=None, t=1, spectral_radius=1.0)
    critical_(model, star)
    assert gains(model.convs[0]) == pytest.approx([2 / 9, 2], rel=0.03)
    assert gains(model.convs[1]) == pytest.approx([2 / 9, 1], rel=0.03)


def test_a_sum_keeps_order_one_on_a_dense_graph() -> None:
    """Without the division by lambda = 40, eight layers would give 40^16 times as much."""
    torch.manual_seed(0)
    src, dst = torch.meshgrid(torch.arange(40), torch.arange(40), indexing="ij")
    complete = dgl.graph((src.flatten(), dst.flatten()))
    feat = torch.ones(40, 256)
    model = ResGIN(256, 256, 256, 8, t=1, residual=None)
    squares = []
    for _ in range(12):
        model.reset_parameters()
        squares.append(model(complete, feat).square().mean().item())
    assert 1 / 2 < sum(squares) / 12 < 2


def test_number_of_linear_layers() -> None:
    assert len(ResGINConv(3, 4, mlp_layers=3).mlp) == 3
    with pytest.raises(DGLError, match="mlp_layers must be at least 1, got 0"):
        ResGINConv(3, 4, mlp_layers=0)
