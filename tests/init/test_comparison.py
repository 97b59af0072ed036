"""LSUV and Virgo against the rules in their papers."""

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
from dgl_deepgnn.init import lsuv_, rezero_, virgo_

WIDTH = 200


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    return dgl.to_bidirected(dgl.rand_graph(30, 70)).remove_self_loop().add_self_loop()


def _adjacency(graph: dgl.DGLGraph) -> Tensor:
    matrix = torch.zeros(graph.num_nodes(), graph.num_nodes(), dtype=torch.float64)
    source, target = graph.edges()
    ones = torch.ones(len(source), dtype=torch.float64)
    return matrix.index_put_((target, source), ones, accumulate=True)


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


@pytest.mark.parametrize("residual", [None, "plain", "scaled", "fixup", "initial"])
def test_lsuv_of_our_own_models(graph: dgl.DGLGraph, residual: str | None) -> None:
    """Branches that start at zero are scaled to one as well."""
    model = ResGCN(8, 16, 3, num_layers=6, residual=residual)
    feat = torch.randn(30, 8)
    outputs: list[Tensor] = []
    lsuv_(model, graph, feat)
    for conv in model.convs:
        conv.register_forward_hook(lambda module, args, output: outputs.append(output.detach()))
    model(graph, feat)
    assert len(outputs) == 6
    assert [output.var().item() for output in outputs] == pytest.approx([1] * 6, abs=0.15)


def test_lsuv_of_models_that_are_called_otherwise(graph: dgl.DGLGraph) -> None:
    blocks = [dgl.to_block(graph), dgl.to_block(graph)]
    feat = 5 * torch.randn(30, 8)
    convs = nn.ModuleList(SAGEConv(8, 8, "mean") for _ in blocks)
    frozen = convs[0].fc_self.requires_grad_(False)
    before = frozen.weight.clone()

    def run(model: nn.ModuleList) -> Tensor:
        h = feat
        for conv, block in zip(model, blocks, strict=True):
            h = conv(block, h)
        return h

    assert lsuv_(convs, forward=run) is convs
    assert run(convs).var(correction=0).item() == pytest.approx(1, abs=0.11)
    assert torch.equal(frozen.weight, before)
    kinds = {"r": GraphConv(8, 8), "s": GraphConv(8, 8)}
    hetero = dgl.heterograph({("a", name, "a"): graph.edges() for name in kinds})
    model = lsuv_(dgl.nn.HeteroGraphConv(kinds), hetero, {"a": feat})
    for name, conv in kinds.items():
        out = conv(hetero[name], (feat, feat))
        assert out.var(correction=0).item() == pytest.approx(1, abs=0.11)
    assert not model.training or not hetero.ndata


def test_lsuv_of_a_matrix_a_relation(graph: dgl.DGLGraph) -> None:
    conv = dgl.nn.RelGraphConv(8, 8, 3)
    etypes = torch.arange(graph.num_edges()) % 3
    lsuv_(conv, forward=lambda model: model(graph, torch.randn(30, 8), etypes))
    for matrix in conv.linear_r.W:
        gram = matrix @ matrix.T
        torch.testing.assert_close(gram, gram[0, 0] * torch.eye(8), rtol=1e-4, atol=1e-4)


def test_lsuv_that_fails_leaves_the_weights(graph: dgl.DGLGraph) -> None:
    model = Stack(GraphConv(8, 8), GraphConv(8, 8))
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DGLError, match="variance"):
        lsuv_(model, graph, torch.zeros(30, 8))
    with pytest.raises(DGLError, match="LSUV measures: pass graph and feat"):
        lsuv_(model, graph)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


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


@pytest.mark.parametrize("scheme", [lsuv_, virgo_])
def test_strict(scheme, graph: dgl.DGLGraph) -> None:
    model = Stack(GraphConv(8, 8))
    model.activation = nn.Bilinear(1, 1, 1)
    arguments = {lsuv_: (graph, torch.randn(30, 8)), virgo_: (graph,)}[scheme]
    with pytest.raises(DGLError, match=r"Bilinear.*at Stack\.activation"):
        scheme(model, *arguments)
    assert scheme(model, *arguments, strict=False) is model
