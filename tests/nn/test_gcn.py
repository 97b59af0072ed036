"""ResGCN against DGL's GraphConv and against the variances it promises."""

from __future__ import annotations

from functools import partial

import dgl
import pytest
import torch
from dgl import DGLGraph

from dgl_deepgnn import ResGCN, ResGraphConv, growth
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.theory import predict


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
@pytest.mark.parametrize("in_feats", [3, 9])
def test_stock_settings_are_a_stack_of_graphconv(graph: DGLGraph, norm: str, in_feats: int) -> None:
    model = ResGCN(in_feats, 6, 4, 3, norm=norm, t=1, residual=None, init="glorot")
    stock = [
        dgl.nn.GraphConv(conv.in_feats, conv.out_feats, norm=norm, allow_zero_in_degree=True)
        for conv in model.convs
    ]
    for ours, theirs in zip(model.convs, stock, strict=True):
        torch.nn.init.normal_(ours.bias)
        theirs.load_state_dict(ours.state_dict())
    feat = torch.randn(graph.num_nodes(), in_feats)
    expected = feat
    for index, conv in enumerate(stock):
        expected = conv(graph, expected.relu() if index else expected)
    torch.testing.assert_close(model(graph, feat), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
def test_edge_weights_are_those_of_graphconv(graph: DGLGraph, norm: str) -> None:
    ours = ResGraphConv(3, 4, norm=norm, spectral_radius=1.0)
    theirs = dgl.nn.GraphConv(3, 4, norm=norm, allow_zero_in_degree=True)
    theirs.load_state_dict(ours.state_dict())
    feat, weight = torch.randn(graph.num_nodes(), 3), torch.rand(graph.num_edges())
    torch.testing.assert_close(
        ours(graph, feat, weight), theirs(graph, feat, edge_weight=weight), rtol=1e-5, atol=1e-5
    )


def test_glorot_draws_are_those_of_graphconv() -> None:
    torch.manual_seed(0)
    ours = ResGraphConv(300, 100, init="glorot").weight
    theirs = dgl.nn.GraphConv(300, 100).weight
    bound = (6 / 400) ** 0.5
    for weight in (ours, theirs):
        assert weight.abs().max() <= bound
        assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.03)


def test_critical_variances() -> None:
    torch.manual_seed(0)
    model = ResGCN(250, 300, 200, 4, residual="scaled")
    gains = [conv.in_feats * conv.weight.var(correction=0).item() for conv in model.convs]
    assert gains == pytest.approx([2, 2, 2, 1], rel=0.03)
    for conv in model.convs:
        standardized = conv.weight / conv.weight.std()
        assert (standardized**4).mean().item() == pytest.approx(3, rel=0.1)  # normal, not uniform
        assert not conv.bias.any()


def test_he_and_glorot_variances() -> None:
    torch.manual_seed(0)
    he = ResGCN(250, 300, 200, 3, residual=None, init="he")
    assert [c.in_feats * c.weight.var().item() for c in he.convs] == pytest.approx(
        [2] * 3, rel=0.03
    )
    glorot = ResGCN(250, 300, 200, 3, residual=None, init="glorot")
    expected = [2 / 550, 2 / 600, 2 / 500]
    assert [c.weight.var().item() for c in glorot.convs] == pytest.approx(expected, rel=0.03)


def test_fixup_starts_only_the_branches_at_zero() -> None:
    model = ResGCN(5, 6, 4, 5, residual="fixup")
    assert [bool(conv.weight.any()) for conv in model.convs] == [True, False, False, False, True]
    graphs = ResGCN(5, 6, 4, 3, residual="fixup", head="graph")
    assert [bool(conv.weight.any()) for conv in graphs.convs] == [True, False, False]
    assert graphs.head.linear.weight.any()


def test_without_bias() -> None:
    conv = ResGraphConv(3, 4, bias=False)
    assert [name for name, _ in conv.named_parameters()] == ["weight"]
    graph = dgl.graph(([0, 1], [1, 0]))
    assert not conv(graph, torch.zeros(2, 3)).any()


def test_prints_its_arguments() -> None:
    text = str(ResGraphConv(3, 4, norm="left", t=0.25))
    assert text == "ResGraphConv(in_feats=3, out_feats=4, norm=left, t=0.25)"


@pytest.mark.parametrize("t", [1.0, 0.4])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_residual_connections_in_one_step(num_layers: int, t: float) -> None:
    """Scores, gradients and second derivatives against autograd's, and a hook is still called."""
    generator = torch.Generator().manual_seed(2)
    graph = dgl.graph(tuple(torch.randint(7, (2, 20), generator=generator)), num_nodes=7)
    graph = graph.add_self_loop()
    convs = torch.nn.ModuleList(ResGraphConv(3, 3, t=t).double() for _ in range(num_layers))
    for conv in convs:
        torch.nn.init.normal_(conv.bias)
    operator = convs[0].operator(graph)
    x = torch.randn(7, 3, dtype=torch.float64, generator=generator, requires_grad=True)

    def connect(x: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
        for conv, weight, bias in zip(convs, parameters[::2], parameters[1::2], strict=True):
            conv._parameters.update(weight=weight, bias=bias)
        return ResGraphConv.add_in_turn(convs, operator, x, 0.3)

    parameters = tuple(convs.parameters())
    matrix = operator @ torch.eye(7, dtype=torch.float64)
    expected = x
    for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
        expected = expected + 0.3 * (matrix @ expected.relu() @ weight + bias)
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    close(connect(x, *parameters), expected)
    with torch.no_grad():
        close(connect(x, *parameters), expected)
    assert torch.autograd.gradcheck(connect, (x, *parameters))
    assert torch.autograd.gradgradcheck(connect, (x, *parameters))
    constant = x.detach()
    (grad,) = torch.autograd.grad(connect(constant, *parameters).sum(), parameters[0])
    (wanted,) = torch.autograd.grad(expected.sum(), parameters[0])
    close(grad, wanted)

    calls = []
    convs[-1].register_forward_hook(lambda *_: calls.append(1))
    close(connect(x, *parameters), expected)
    assert calls == [1]


def test_second_derivatives_beside_frozen_parameters() -> None:
    graph = dgl.rand_graph(7, 20).add_self_loop()
    conv = ResGraphConv(3, 3).double()
    torch.nn.init.normal_(conv.bias)
    conv.bias.requires_grad_(False)
    x = torch.randn(7, 3, dtype=torch.float64)
    out = conv.add_in_turn([conv], conv.operator(graph), x, 0.3)
    (first,) = torch.autograd.grad(out.square().sum(), conv.weight, create_graph=True)
    first.sum().backward()
    assert conv.weight.grad is not None
    assert conv.weight.grad.any()


def test_acyclic_graphs_want_the_growth_where_there_is_no_residual_connection() -> None:
    """On a path with shortcuts and self-loops the spectral radius is the largest diagonal entry."""
    torch.manual_seed(0)
    nodes = torch.arange(200)
    steps = [(nodes[:-k], nodes[k:]) for k in (1, 2, 3)]
    ends = [torch.cat(part) for part in zip(*steps, strict=True)]
    path = dgl.graph(tuple(ends), num_nodes=200).add_self_loop()
    feat = torch.randn(200, 64)

    def mean_square(**options: object) -> float:
        models = [ResGCN(64, 64, 64, 32, **options) for _ in range(3)]
        return sum(model(path, feat).square().mean().item() for model in models) / 3

    assert 0.1 < mean_square() < 10  # branches that start at zero
    plain = {"residual": None, "t": 1.0}
    assert mean_square(**plain) > 1e10
    assert 0.01 < mean_square(spectral_radius=growth(path, "both", 32).item(), **plain) < 10
    assert 0.01 < mean_square(spectral_radius="growth", **plain) < 10
    predicted = predict(
        path, feat, "gcn", 32, residual=None, t=1.0, spectral_radius="growth"
    ).signal[-1]
    assert 0.01 < predicted < 10
    alone, batch = (
        ResGCN(64, 8, 8, 32, spectral_radius="growth").operator(graph)
        for graph in (path, dgl.batch([path, dgl.graph(([0, 1], [1, 0]))]))
    )
    assert batch.spectral_radii.tolist() == [alone.spectral_radius, 1.0]
    assert alone.spectral_radius == pytest.approx(growth(path, "both", 32).item())
    with pytest.raises(DGLError, match="None, a positive number or 'growth'"):
        ResGCN(64, 8, 8, 32, spectral_radius="grow")
