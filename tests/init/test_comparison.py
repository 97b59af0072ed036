"""Fixup, ReZero, LSUV and Virgo against the rules in their papers."""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import dgl
import pytest
import torch
from dgl import DGLError
from dgl.nn import GATConv, GINConv, GraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE
from dgl_deepgnn.init import critical_, fixup_, lsuv_, rezero_, virgo_

WIDTH = 200


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    return dgl.to_bidirected(dgl.rand_graph(30, 70)).remove_self_loop().add_self_loop()


class Residual(nn.Module):
    """A user's network of DGL's layers with residual connections."""

    def __init__(self, num_branches: int, mlp_layers: int = 2) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.branches = nn.ModuleList(
            GINConv(nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(mlp_layers)]))
            for _ in range(num_branches)
        )
        self.last = nn.Linear(WIDTH, 3)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        x = self.first(x)
        for branch in self.branches:
            x = x + branch(graph, torch.relu(x))
        return self.last(x)


def variance(linear: nn.Linear) -> float:
    return linear.in_features * linear.weight.var().item()


# --- Fixup ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mlp_layers", [1, 2, 3])
def test_fixup(graph: dgl.DGLGraph, mlp_layers: int) -> None:
    model = Residual(16, mlp_layers)
    radius = torch.linalg.eigvalsh(_adjacency(graph)).max().item() + 1
    assert fixup_(model, model.branches, graph) is model
    for branch in model.branches:
        *inner, last = branch.apply_func
        assert not last.weight.any()
        for index, linear in enumerate(inner):
            critical = 2 / radius**2 if index == 0 else 2
            expected = critical * 16 ** (-1 / (mlp_layers - 1))
            assert variance(linear) == pytest.approx(expected, rel=0.06)
    assert variance(model.first) == pytest.approx(2, rel=0.06)
    feat = torch.randn(30, WIDTH)
    torch.testing.assert_close(model(graph, feat), model.last(model.first(feat)))


def _adjacency(graph: dgl.DGLGraph) -> Tensor:
    matrix = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    source, target = graph.edges()
    ones = torch.ones(len(source), dtype=torch.float64)
    return matrix.index_put_((target, source), ones, accumulate=True)


@pytest.mark.parametrize("mlp_layers", [2, 3])
def test_our_models_have_the_inner_factor_of_fixup_in_front_of_the_branch(
    graph: dgl.DGLGraph, mlp_layers: int
) -> None:
    ours, plain = (
        ResGIN(WIDTH, WIDTH, 3, num_layers=10, mlp_layers=mlp_layers, residual=residual)
        for residual in ("fixup", "plain")
    )
    fixup_(plain, plain.branches)
    inner = 8 ** (-1 / (2 * mlp_layers - 2))
    for ours_conv, fixup_conv in zip(ours.branches, plain.branches, strict=True):
        for a, b in zip(ours_conv.mlp[:-1], fixup_conv.mlp[:-1], strict=True):
            assert b.weight.std().item() == pytest.approx(inner * a.weight.std().item(), rel=0.03)
        assert not ours_conv.mlp[-1].weight.any()
        nn.init.normal_(ours_conv.mlp[-1].weight, std=WIDTH**-0.5)  # as if it had been trained
    plain.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for conv in plain.branches:
            for linear in conv.mlp[:-1]:
                linear.weight *= inner
    feat = torch.randn(graph.num_nodes(), WIDTH)
    torch.testing.assert_close(plain(graph, feat), ours(graph, feat), rtol=1e-4, atol=1e-5)


def test_fixup_twice_scales_once() -> None:
    model = ResGIN(WIDTH, WIDTH, 3, num_layers=10, residual="plain")
    fixup_(model, model.branches)
    again = copy.deepcopy(model)
    fixup_(again, again.branches)
    for a, b in zip(model.parameters(), again.parameters(), strict=True):
        if a.numel() > 10_000 or not b.any():
            assert a.std().item() == pytest.approx(b.std().item(), rel=0.03)


def test_fixup_errors(graph: dgl.DGLGraph) -> None:
    model = Residual(2)
    with pytest.raises(DGLError, match="branches is empty"):
        fixup_(model, [], graph)
    with pytest.raises(DGLError, match=r"branches\[1\], a Linear, is not a submodule of"):
        fixup_(model, [model.branches[0], nn.Linear(2, 2)], graph)
    with pytest.raises(DGLError, match=r"branches\[0\], a ReLU"):
        fixup_(nn.Sequential(nn.ReLU(), nn.Linear(2, 2)), [nn.ReLU()])
    with pytest.raises(DGLError, match="Pass the graph"):
        fixup_(model, model.branches)


# --- ReZero --------------------------------------------------------------------------------------


def test_rezero_is_the_skip_connections_at_first(graph: dgl.DGLGraph) -> None:
    model = Residual(4)
    assert rezero_(model, model.branches, graph) is model
    feat = torch.randn(30, WIDTH)
    torch.testing.assert_close(model(graph, feat), model.last(model.first(feat)))
    assert variance(model.branches[0].apply_func[1]) == pytest.approx(2, rel=0.06)
    model(graph, feat).square().mean().backward()
    for branch in model.branches:
        assert branch.rezero_gate.grad.abs() > 0
        assert not branch.apply_func[0].weight.grad.any()


def test_rezero_gate_multiplies_the_branch(graph: dgl.DGLGraph) -> None:
    model = Residual(1)
    rezero_(model, model.branches, graph)
    feat = torch.randn(30, WIDTH)
    hidden = model.first(feat)
    with torch.no_grad():
        model.branches[0].rezero_gate.fill_(1.0)
        branch = model.branches[0](graph, torch.relu(hidden))
        model.branches[0].rezero_gate.fill_(0.25)
    torch.testing.assert_close(model(graph, feat), model.last(hidden + 0.25 * branch))


def test_rezero_survives_deepcopy_and_state_dict(graph: dgl.DGLGraph) -> None:
    model = Residual(2)
    rezero_(model, model.branches, graph)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for branch in twin.branches:
            branch.rezero_gate.fill_(0.5)
    feat = torch.randn(30, WIDTH)
    assert not torch.allclose(twin(graph, feat), model(graph, feat))
    assert model.branches[0].rezero_gate == 0
    fresh = Residual(2)
    rezero_(fresh, fresh.branches, graph)
    fresh.load_state_dict(twin.state_dict())
    torch.testing.assert_close(fresh(graph, feat), twin(graph, feat))
    assert sum("rezero_gate" in name for name, _ in fresh.named_parameters()) == 2


def test_rezero_twice_starts_anew_with_one_gate(graph: dgl.DGLGraph) -> None:
    model = nn.ModuleList([nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))])
    for _ in range(2):
        rezero_(model, [model[1]])
        assert model[1].rezero_gate == 0
        with torch.no_grad():
            model[1].rezero_gate.fill_(0.5)
    feat = torch.randn(3, 4)
    torch.testing.assert_close(model[1](feat), 0.5 * model[1][1](model[1][0](feat)))


def test_rezero_of_our_model_can_learn(graph: dgl.DGLGraph) -> None:
    """The model's own zero is given up: with two zeros in a row no gradient would flow."""
    model = ResGCN(4, 8, 2, num_layers=6, residual="fixup")
    rezero_(model, model.branches)
    model(graph, torch.randn(30, 4)).square().mean().backward()
    assert all(conv.rezero_gate.grad.abs() > 0 for conv in model.branches)


def test_rezero_keeps_the_precision_of_the_branch() -> None:
    model = nn.ModuleList([nn.Linear(4, 4)])
    rezero_(model, model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert model[0](torch.randn(2, 4)).dtype == torch.bfloat16


# --- LSUV ----------------------------------------------------------------------------------------


class Stack(nn.Module):
    """A user's network, in evaluation mode without its dropout."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.dropout = nn.Dropout(0.5)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.relu(self.dropout(layer(graph, x).flatten(1)))
        return x


def outputs(model: nn.Module, owners: list[nn.Module], *arguments: object) -> list[Tensor]:
    seen: list[Tensor] = []
    handles = [
        owner.register_forward_hook(lambda _, __, output: seen.append(output)) for owner in owners
    ]
    model.eval()(*arguments)
    for handle in handles:
        handle.remove()
    return seen


def test_lsuv(graph: dgl.DGLGraph) -> None:
    feat = 3 + 5 * torch.randn(30, 16)
    model = Stack(
        GraphConv(16, 32, norm="none"),
        SAGEConv(32, 24, "mean"),
        GINConv(nn.Sequential(nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 24))),
        GATConv(24, 8, 3),
        SAGEConv(24, 24, "pool"),
        GraphConv(24, 4, activation=torch.tanh),
    )
    assert lsuv_(model, graph, feat) is model
    conv, sage, gin, gat, pool, _ = model.layers
    owners = [conv, sage, gin.apply_func[0], gin.apply_func[2], gat, pool.fc_pool, pool]
    for output in outputs(model, owners, graph, feat):
        assert output.var().item() == pytest.approx(1, abs=0.11)
    for weight in (conv.weight.T, sage.fc_self.weight, gat.fc.weight, pool.fc_pool.weight):
        rows = weight if weight.shape[0] <= weight.shape[1] else weight.T
        gram = rows @ rows.T
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(len(gram)), rtol=1e-4, atol=1e-4)
    # Both weights of GraphSAGE have one scale.
    assert sage.fc_self.weight.norm().item() == pytest.approx(sage.fc_neigh.weight.norm().item())


def test_lsuv_leaves_nothing_behind(graph: dgl.DGLGraph) -> None:
    model = Stack(GraphConv(8, 8), GraphConv(8, 8)).train()
    model.layers[1].eval()
    lsuv_(model, graph, torch.randn(30, 8))
    assert model.training and model.dropout.training and not model.layers[1].training
    assert not any(part._forward_hooks for part in model.modules())
    with pytest.raises(DGLError, match="variance"):
        lsuv_(model, graph, torch.zeros(30, 8))
    assert model.training and not any(part._forward_hooks for part in model.modules())


@pytest.mark.parametrize("family", [ResGCN, ResGraphSAGE, ResGIN])
def test_lsuv_of_our_models(family: type[nn.Module], graph: dgl.DGLGraph) -> None:
    model = family(8, 16, 3, num_layers=5, residual="plain")
    feat = torch.randn(30, 8)
    lsuv_(model, graph, feat)
    owners = list(model.convs) if family is not ResGIN else [conv.mlp[-1] for conv in model.convs]
    for output in outputs(model, owners, graph, feat):
        assert output.var().item() == pytest.approx(1, abs=0.11)


def test_lsuv_scales_a_layer_that_is_called_twice_for_its_first_call(
    graph: dgl.DGLGraph,
) -> None:
    shared = GraphConv(8, 8, norm="none")
    model = Stack(shared, shared)
    feat = torch.randn(30, 8)
    lsuv_(model, graph, feat)
    first, second = outputs(model, [shared], graph, feat)
    assert first.var().item() == pytest.approx(1, abs=0.11)
    assert second.var().item() != pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0])
def test_lsuv_needs_features(graph: dgl.DGLGraph, bad: float) -> None:
    with pytest.raises(DGLError, match="features that are finite and not all zero"):
        lsuv_(Stack(GraphConv(8, 8)), graph, torch.full((30, 8), bad))


def test_lsuv_behind_a_zero_gate_says_so(graph: dgl.DGLGraph) -> None:
    model = Stack(GraphConv(8, 8))
    rezero_(model, model.layers)
    with pytest.raises(DGLError, match="without a zero gate"):
        lsuv_(model, graph, torch.randn(30, 8))


# --- Virgo ---------------------------------------------------------------------------------------


def virgo_variances(graph: dgl.DGLGraph, mean: Tensor, widths: list[int]) -> list[float]:
    """The formulas of the docstring, dense."""
    adjacency = _adjacency(graph)
    scale = [adjacency.sum(axis).clamp(min=1) ** -0.5 for axis in (0, 1)]
    adjacency = scale[1][:, None] * adjacency * scale[0]
    depth = len(widths) - 1
    ones = torch.ones(len(adjacency), dtype=torch.float64)
    power = torch.linalg.matrix_power
    s = [(power(adjacency, k) @ mean).square().sum() for k in range(depth + 1)]
    r = [(power(adjacency.T, k) @ ones).square().sum() for k in range(depth + 1)]
    result = []
    for layer in range(1, depth + 1):
        forward = 2 / widths[layer - 1] * (s[layer - 1] / s[layer] if layer > 1 else 1)
        if layer == depth:
            backward = len(adjacency) / (max(widths[-1] - 1, 1) * r[1])
        else:
            backward = 2 / widths[layer] * r[depth - layer] / r[depth - layer + 1]
        result.append((2 / (1 / forward + 1 / backward)).item())
    return result


@pytest.mark.parametrize("classes", [1, 5])
@pytest.mark.parametrize("with_features", [False, True])
@pytest.mark.parametrize("directed", [False, True])
def test_virgo(graph: dgl.DGLGraph, classes: int, with_features: bool, directed: bool) -> None:
    if directed:
        graph = dgl.rand_graph(20, 50).add_self_loop()
    widths = [120, 300, 300, 300, classes]
    model = nn.ModuleList(GraphConv(*ends) for ends in pairwise(widths))
    feat = torch.rand(graph.num_nodes(), 120) if with_features else None
    assert virgo_(model, graph, feat) is model
    mean = torch.ones(graph.num_nodes()) if feat is None else feat.mean(1)
    expected = virgo_variances(graph, mean.double(), widths)
    for layer, value in zip(model, expected, strict=True):
        bound = layer.weight.abs().max().item()  # uniform: the largest entry is near the bound
        assert bound == pytest.approx(math.sqrt(3 * value), rel=0.02)
        assert bound <= math.sqrt(3 * value) * (1 + 1e-6)
        assert not layer.bias.any()


def test_virgo_is_deep_and_has_no_underflow(graph: dgl.DGLGraph) -> None:
    model = nn.ModuleList(GraphConv(4, 4) for _ in range(600))
    virgo_(model, graph, 1e-30 * torch.rand(30, 4))
    assert all(torch.isfinite(layer.weight).all() and layer.weight.any() for layer in model)


def test_virgo_gives_both_weights_of_sage_the_full_variance(graph: dgl.DGLGraph) -> None:
    model = nn.ModuleList([SAGEConv(300, 300, "mean"), SAGEConv(300, 300, "mean")])
    (expected, _) = virgo_variances(graph, torch.ones(30).double(), [300, 300, 300])
    virgo_(model, graph)
    for linear in (model[0].fc_self, model[0].fc_neigh):
        assert linear.weight.var().item() == pytest.approx(expected, rel=0.03)


def test_virgo_needs_a_signal() -> None:
    model = nn.ModuleList(GraphConv(4, 4) for _ in range(4))
    with pytest.raises(DGLError, match="add_self_loop"):
        virgo_(model, dgl.graph(([0, 1], [1, 2])))
    with pytest.raises(DGLError, match="not average to zero"):
        virgo_(model, dgl.graph(([0], [0])), torch.zeros(1, 4))


@pytest.mark.parametrize("scheme", [fixup_, rezero_, lsuv_, virgo_])
def test_strict(scheme, graph: dgl.DGLGraph) -> None:
    class Model(Residual):
        def __init__(self) -> None:
            super().__init__(2)
            self.activation = nn.Bilinear(1, 1, 1)

    model = Model()
    arguments = {
        fixup_: (model.branches, graph),
        rezero_: (model.branches, graph),
        lsuv_: (graph, torch.randn(30, WIDTH)),
        virgo_: (graph,),
    }[scheme]
    with pytest.raises(DGLError, match=r"Bilinear.*at Model\.activation"):
        scheme(model, *arguments)
    assert scheme(model, *arguments, strict=False) is model


def test_critical_after_another_scheme_starts_anew(graph: dgl.DGLGraph) -> None:
    model = Residual(2)
    fixup_(model, model.branches, graph)
    critical_(model, graph)
    assert all(branch.apply_func[-1].weight.any() for branch in model.branches)
