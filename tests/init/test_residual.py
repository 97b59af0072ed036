"""Fixup and ReZero against the rules in their papers, and on any model."""

from __future__ import annotations

import copy

import dgl
import pytest
import torch
from dgl import DGLError
from dgl.nn import GINConv, GraphConv
from torch import Tensor, nn

from dgl_deepgnn import ResGCN, ResGIN
from dgl_deepgnn.init import critical_, fixup_, rezero_
from dgl_deepgnn.init.branches import find_branches

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


# --- any model, measured -------------------------------------------------------------------------


class SumByHand(nn.Module):
    """Two weights side by side, and a bias that no hook knows."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.neighbours = nn.Linear(32, 32), nn.Linear(32, 32, bias=False)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return self.own(h) + dgl.ops.copy_u_sum(graph, self.neighbours(h))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.rand(32, 96))
        self.out = nn.Parameter(torch.rand(32, 32))

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        q, k, v = (h @ self.packed).chunk(3, dim=1)
        score = dgl.nn.functional.edge_softmax(graph, dgl.ops.u_dot_v(graph, k, q))
        return dgl.ops.u_mul_e_sum(graph, v, score) @ self.out


class Gated(nn.Module):
    """A value behind a gate: its gate need not be zero."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(32, 32), nn.Linear(32, 32)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(h)) * self.value(h)


LAYERS = {
    "GraphConv": lambda: GraphConv(32, 32, norm="none"),
    "GINConv": lambda: GINConv(
        nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)), "sum"
    ),
    "sum by hand": SumByHand,
    "attention": Attention,
    "gate": Gated,
}


class ByHand(nn.Module):
    """``h = h + layer(relu(norm(h)))`` in forward, and a head."""

    def __init__(self, make, depth: int, jump: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(32, 32)
        self.norms = nn.ModuleList(nn.LayerNorm(32) for _ in range(depth))
        self.layers = nn.ModuleList(make() for _ in range(depth))
        self.last = nn.Linear(32 * depth if jump else 32, 32)
        self.jump = jump

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        hidden = [self.first(x)]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            hidden.append(hidden[-1] + layer(graph, torch.relu(norm(hidden[-1]))))
        return self.last(torch.cat(hidden[1:], dim=1) if self.jump else hidden[-1])


@torch.no_grad()
def hidden_square(model: ByHand, graph: dgl.DGLGraph, feat: Tensor) -> float:
    """Mean square of what stands in front of the head."""
    seen: list[float] = []
    handle = model.last.register_forward_pre_hook(lambda _, a: seen.append(a[0].square().mean()))
    model(graph, feat)
    handle.remove()
    return float(seen[0])


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_fixup_of_any_model_starts_as_its_skip_connections(
    name: str, named: bool, graph: dgl.DGLGraph
) -> None:
    model = ByHand(LAYERS[name], 6)
    feat = 3 * torch.randn(30, 32)
    branches = model.layers if named else None
    assert fixup_(model, branches, forward=lambda model: model(graph, feat)) is model
    torch.testing.assert_close(model(graph, feat), model.last(model.first(feat)))
    assert model.first(feat).square().mean().item() == pytest.approx(1, rel=1e-3)
    assert model(graph, feat).square().mean().item() == pytest.approx(1, rel=1e-3)
    model(graph, feat).square().mean().backward()  # and it can leave there
    for layer in model.layers:
        assert any(p.grad.any() for p in layer.parameters() if p.dim() > 1 and p.grad is not None)
    if name == "gate":
        assert all(layer.gate.weight.any() for layer in model.layers)


@pytest.mark.parametrize("jump", [True, False])
@pytest.mark.parametrize("name", LAYERS)
def test_measured_sums_grow_like_their_number(name: str, jump: bool, graph: dgl.DGLGraph) -> None:
    """Linearly, not exponentially, in depth; concatenated they are the mean over the layers."""
    feat = 3 * torch.randn(30, 32)
    for depth in (8, 32):
        model = ByHand(LAYERS[name], depth, jump)
        critical_(model, graph, feat)
        square = hidden_square(model, graph, 3 * torch.randn(30, 32))
        assert depth / 10 < square < 5 * depth
        rezero_(model, graph=graph, feat=feat)
        assert hidden_square(model, graph, feat) == pytest.approx(1, rel=1e-3)


def test_branches_that_a_run_finds(graph: dgl.DGLGraph) -> None:
    model = ByHand(Attention, 3)
    feat = torch.randn(30, 32)
    found = find_branches(model, lambda model: model(graph, feat))
    assert found == list(model.layers)
    gin = Residual(3)
    found = find_branches(gin, lambda model: model(graph, torch.randn(30, WIDTH)))
    assert [branch is b for branch, b in zip(found, gin.branches, strict=True)] == [True] * 3

    class AroundTheInput(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = SumByHand()

        def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
            return x + self.layer(graph, x)

    around = fixup_(AroundTheInput(), graph=graph, feat=feat)
    assert torch.equal(around(graph, feat), feat)

    class Block(nn.Module):
        """A transformer's two: the parts of the second are no submodule."""

        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(30, 32)
            self.attention = Attention()
            self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

        def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
            h = x + self.embed(torch.arange(30))  # of nothing computed from x
            h = h + self.attention(graph, h)
            return h + self.down(torch.relu(self.up(h)))

    block = Block()
    found = find_branches(block, lambda model: model(graph, torch.randn(30, 32)))
    assert found == [block.attention, block.down]
    with pytest.raises(DGLError, match="No residual branch was found in the Sequential"):
        fixup_(nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32)), feat=feat)
    with pytest.raises(DGLError, match=r"Name the branches.*a run of the model finds them"):
        fixup_(model)


def test_a_branch_that_cannot_scale_last(graph: dgl.DGLGraph) -> None:
    class Shift(SumByHand):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.ones(32))

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            return super().forward(graph, h) + self.shift

    model, feat = ByHand(Shift, 2), torch.randn(30, 32)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(DGLError, match=r"branches\[0\], a Shift, does not start at zero.*rezero_"):
        fixup_(model, model.layers, graph, feat)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    unused = nn.ModuleDict({"model": model, "unused": nn.Linear(32, 32)})
    with pytest.raises(DGLError, match="is not called when the model runs"):
        fixup_(unused, [unused["unused"]], forward=lambda m: m["model"](graph, feat))
    rezero_(model, model.layers, graph, feat)
    torch.testing.assert_close(model(graph, feat), model.last(model.first(feat)))


def test_rezero_of_node_types_and_of_pairs(graph: dgl.DGLGraph) -> None:
    convs = nn.ModuleList(dgl.nn.HeteroGraphConv({"r": GraphConv(8, 8)}) for _ in range(2))
    hetero = dgl.heterograph({("a", "r", "a"): graph.edges()})

    def run(model: nn.ModuleList) -> dict[str, Tensor]:
        h = {"a": torch.ones(30, 8)}
        for conv in model:
            h = {kind: feat + conv(hetero, h)[kind] for kind, feat in h.items()}
        return h

    rezero_(convs, convs, forward=run)
    assert torch.equal(run(convs)["a"], torch.ones(30, 8))
    pair = nn.ModuleList([dgl.nn.EGATConv(8, 8, 8, 8, 1)])
    rezero_(pair, pair)
    nodes, edges = pair[0](graph, torch.ones(30, 8), torch.ones(graph.num_edges(), 8))
    assert not nodes.any() and not edges.any()


@pytest.mark.parametrize("scheme", [fixup_, rezero_])
def test_strict(scheme, graph: dgl.DGLGraph) -> None:
    class Model(Residual):
        def __init__(self) -> None:
            super().__init__(2)
            self.activation = nn.Bilinear(1, 1, 1)

    model = Model()
    with pytest.raises(DGLError, match=r"Bilinear.*at Model\.activation"):
        scheme(model, model.branches, graph)
    assert scheme(model, model.branches, graph, strict=False) is model


def test_critical_after_another_scheme_starts_anew(graph: dgl.DGLGraph) -> None:
    model = Residual(2)
    fixup_(model, model.branches, graph)
    critical_(model, graph)
    assert all(branch.apply_func[-1].weight.any() for branch in model.branches)
