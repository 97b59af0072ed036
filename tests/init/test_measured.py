"""The measured initialization: any model comes out at order one, and nothing else is touched."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dgl
import dgl.function as fn
import pytest
import torch
import torch.nn.functional as F
from dgl import DGLError
from dgl.nn import (
    ChebConv,
    DotGatConv,
    GATConv,
    GINConv,
    GraphConv,
    NNConv,
    RelGraphConv,
    SAGEConv,
    TAGConv,
)
from torch import Tensor, nn

from dgl_deepgnn import ResGCN, ResGIN
from dgl_deepgnn.init import critical_
from dgl_deepgnn.init.activation import critical_point

WIDTH, DEPTH = 48, 16


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    dgl.seed(1)
    plain = dgl.to_bidirected(dgl.rand_graph(80, 320)).remove_self_loop()
    return dgl.add_self_loop(plain)


@pytest.fixture
def feat(graph: dgl.DGLGraph) -> Tensor:
    return 3 * torch.randn(graph.num_nodes(), WIDTH)


class SumByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.neighbours = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        graph.ndata["b"] = self.neighbours(h)  # without a local scope
        graph.update_all(fn.copy_u("b", "m"), fn.sum("m", "sum"))
        return self.own(h) + graph.ndata["sum"]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.rand(WIDTH, 3 * WIDTH))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        q, k, v = (h @ part for part in self.packed.chunk(3, dim=1))
        score = dgl.nn.functional.edge_softmax(graph, dgl.ops.u_dot_v(graph, k, q) / WIDTH**0.5)
        return self.out(dgl.ops.u_mul_e_sum(graph, v, score))


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, WIDTH, WIDTH // 4))

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return dgl.ops.copy_u_mean(graph, torch.einsum("nd,hde->nhe", h, self.weight).flatten(1))


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH))

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return self.linear(dgl.ops.copy_u_sum(graph, h))


class Edges(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = NNConv(WIDTH, WIDTH, nn.Linear(2, WIDTH * WIDTH), "sum")

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return self.conv(graph, h, torch.ones(graph.num_edges(), 2))


class Cheb(ChebConv):
    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return super().forward(graph, h, [2.0])


class Stack(nn.Module):
    def __init__(
        self,
        make: Callable[[], nn.Module],
        depth: int = DEPTH,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        norm: Callable[[int], nn.Module] | None = None,
        dropout: float = 0.0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(depth))
        self.norms = nn.ModuleList(norm(WIDTH) if norm else nn.Identity() for _ in range(depth))
        self.activation, self.dropout, self.residual = activation, nn.Dropout(dropout), residual

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        for layer, norm in zip(self.layers, self.norms, strict=True):
            out = norm(layer(graph, self.dropout(self.activation(h))).flatten(1))
            h = h + out if self.residual else out
        return h


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "GraphConv": lambda: Stack(lambda: GraphConv(WIDTH, WIDTH)),
    "GraphConv, its own activation": lambda: Stack(
        lambda: GraphConv(WIDTH, WIDTH, activation=torch.relu), activation=nn.Identity()
    ),
    "GraphConv, no activation": lambda: Stack(
        lambda: GraphConv(WIDTH, WIDTH), activation=nn.Identity()
    ),
    "GraphConv, sum": lambda: Stack(lambda: GraphConv(WIDTH, WIDTH, norm="none")),
    "SAGEConv, dropout": lambda: Stack(lambda: SAGEConv(WIDTH, WIDTH, "mean"), dropout=0.5),
    "SAGEConv, lstm": lambda: Stack(lambda: SAGEConv(WIDTH, WIDTH, "lstm"), 6),
    "GINConv": lambda: Stack(lambda: GINConv(mlp(), "sum")),
    "GINConv, batch norm": lambda: Stack(lambda: GINConv(mlp(), "sum"), norm=nn.BatchNorm1d),
    "GATConv": lambda: Stack(lambda: GATConv(WIDTH, WIDTH // 4, 4)),
    "DotGatConv": lambda: Stack(lambda: DotGatConv(WIDTH, WIDTH // 4, 4)),
    "TAGConv": lambda: Stack(lambda: TAGConv(WIDTH, WIDTH)),
    "ChebConv": lambda: Stack(lambda: Cheb(WIDTH, WIDTH, 3)),
    "NNConv": lambda: Stack(Edges, 8),
    "sum by hand": lambda: Stack(SumByHand),
    "attention by hand": lambda: Stack(Attention),
    "einsum": lambda: Stack(Heads),
    "weight norm": lambda: Stack(Normed),
    "ours": lambda: ResGCN(WIDTH, WIDTH, WIDTH, num_layers=DEPTH),
    "ours, GIN, plain": lambda: ResGIN(WIDTH, WIDTH, WIDTH, num_layers=DEPTH, residual=None),
}


@torch.no_grad()
def signal(model: nn.Module, *inputs: object) -> float:
    return float(model(*inputs).square().mean())


@pytest.mark.parametrize("name", MODELS)
def test_any_model_starts_at_order_one(name: str, graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = MODELS[name]()
    assert critical_(model, graph, feat) is model
    assert not graph.ndata
    with graph.local_scope():
        assert 0.1 < signal(model, graph, feat) < 10
        fresh = 3 * torch.randn_like(feat)
        assert 0.1 < signal(model, graph, fresh) < 10


@pytest.mark.parametrize("depth", [8, 32])
@pytest.mark.parametrize("layer", [SumByHand, Attention, lambda: GraphConv(WIDTH, WIDTH)])
def test_a_sum_of_branches_grows_like_their_number(
    depth: int, layer: Callable[[], nn.Module], graph: dgl.DGLGraph, feat: Tensor
) -> None:
    model = critical_(Stack(layer, depth, residual=True), graph, feat)
    with graph.local_scope():
        grown = signal(model, graph, 3 * torch.randn_like(feat))
    assert depth / 10 < grown < 10 * depth


def test_every_product_has_mean_square_one(graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = Stack(Attention, 4)
    critical_(model, graph, feat)
    h = feat
    for layer in model.layers:
        h = torch.relu(h)
        for part in layer.packed.chunk(3, dim=1):
            assert (h @ part).square().mean().item() == pytest.approx(1, rel=1e-4)
        h = layer(graph, h)
        assert h.square().mean().item() == pytest.approx(1, rel=1e-4)
        assert not layer.out.bias.any()


def squash(z: Tensor) -> Tensor:
    return z * torch.sigmoid(z)


class Squash(nn.Module):
    def forward(self, z: Tensor) -> Tensor:
        return squash(z)


@pytest.mark.parametrize("where", ["between", "inside", "module inside", "module", "own function"])
def test_a_smooth_activation_finds_its_fixed_point(
    where: str, graph: dgl.DGLGraph, feat: Tensor
) -> None:
    activation = {"module inside": nn.SiLU(), "own function": squash, "module": Squash()}.get(
        where, nn.functional.silu
    )
    if where in ("inside", "module inside", "own function"):
        model = Stack(
            lambda: GraphConv(WIDTH, WIDTH, activation=activation), activation=nn.Identity()
        )
    else:
        model = Stack(lambda: GraphConv(WIDTH, WIDTH), activation=activation)
    critical_(model, graph, feat)
    point = critical_point(nn.SiLU())
    for layer in model.layers[:-1]:
        assert layer.bias.square().mean().item() == pytest.approx(point.bias_variance, rel=1)
    before: list[float] = []
    for layer in model.layers[:-1]:
        layer.register_forward_hook(lambda *args: before.append(args[2].square().mean().item()))
    signal(model, graph, 3 * torch.randn_like(feat))
    expected = point.mean_square if where in ("between", "module") else 6.5
    assert before[-1] == pytest.approx(expected, rel=0.75)
    assert model.layers[0]._activation in (None, activation)


def test_a_shared_layer_is_scaled_at_its_first_call(graph: dgl.DGLGraph, feat: Tensor) -> None:
    conv = GraphConv(WIDTH, WIDTH, norm="none", activation=torch.relu)
    critical_(Stack(lambda: conv, 3), graph, feat)
    conv._activation = None
    assert signal(conv, graph, torch.relu(feat)) == pytest.approx(1, rel=1e-4)


class Again(nn.Module):
    """One layer for every depth."""

    def __init__(self, depth: int, residual: bool, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.output = GraphConv(WIDTH, WIDTH, norm="none"), nn.Linear(WIDTH, 5)
        self.depth, self.residual, self.activation = depth, residual, activation
        self.ends = 0.0

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        for _ in range(self.depth):
            new = self.activation(self.conv(graph, h))
            h = h + new if self.residual else new
        self.ends = h.square().mean().item()
        return self.output(h)


@pytest.mark.parametrize("depth", [8, 32, 128])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("activation", [torch.relu, F.gelu, lambda h: h], ids=["relu", "gelu", "-"])
def test_a_layer_used_again_and_again_keeps_its_scale(
    depth: int,
    residual: bool,
    activation: Callable[[Tensor], Tensor],
    graph: dgl.DGLGraph,
    feat: Tensor,
) -> None:
    model = critical_(Again(depth, residual, activation), graph, feat)
    for features in (feat, 3 * torch.randn_like(feat)):
        model(graph, features)
        # Biases have all one sign, and so have their sums.
        most = depth**2 if activation is F.gelu else 3 * depth
        assert 1e-3 < model.ends < (most if residual else max(10, depth))
        assert 0.1 < signal(model, graph, features) < 10


def test_uses_side_by_side_do_not_grow() -> None:
    """One weight for inputs of many sizes: what it makes of the last is no growth."""

    class Sides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shared, self.output = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 5)

        def forward(self, feat: Tensor) -> Tensor:
            sides = [self.shared(10**power * feat) for power in range(6)]
            return self.output(torch.relu(sides[0]) + sum(F.normalize(side) for side in sides))

    feat = torch.randn(80, WIDTH)
    for features in (feat, 1e-5 * feat):
        model = critical_(Sides(), forward=lambda model, x=features: model(x))  # type: ignore[misc]
        assert signal(model.shared, features) == pytest.approx(1, rel=1e-3)


def test_where_no_scale_keeps_a_layer_from_growing_a_warning_says_so(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    class Doubles(Again):
        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for _ in range(self.depth):
                h = 4 * h + self.conv(graph, h)
            return h

    with pytest.warns(UserWarning, match="still ends at a mean square of"):
        critical_(Doubles(64, True, torch.relu), graph, feat)


def test_what_the_run_leaves_behind(graph: dgl.DGLGraph, feat: Tensor) -> None:
    class Keeps(Stack):
        def __init__(self, graph: dgl.DGLGraph) -> None:
            super().__init__(SumByHand, 3, norm=nn.BatchNorm1d, dropout=0.5)
            self.graph = graph

        def forward(self, feat: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(self.graph, feat)

    graph = graph.clone()
    graph.ndata["mine"] = torch.ones(graph.num_nodes())
    model = Keeps(graph)
    model.norms[1].eval()
    model.norms[0].running_mean.fill_(0.0)
    gradient = torch.ones(WIDTH, WIDTH)
    model.layers[0].own.weight.grad = gradient
    critical_(model, forward=lambda model: model(feat))
    assert list(graph.ndata) == ["mine"]
    assert model.training and model.layers[0].training and not model.norms[1].training
    assert all(norm.num_batches_tracked == 0 for norm in model.norms)
    assert [bool(norm.running_mean.any()) for norm in model.norms] == [True, False, True]
    assert model.layers[0].own.weight.grad is gradient
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in model.parameters())


def test_seed_decides_and_the_run_draws_nothing_of_it(graph: dgl.DGLGraph, feat: Tensor) -> None:
    def draw(dropout: float) -> tuple[Tensor, Tensor]:
        model = Stack(Attention, 2, dropout=dropout)
        torch.manual_seed(3)
        critical_(model, graph, feat)
        return model.layers[0].packed.detach(), torch.rand(1)

    (first, after), (again, _), (_, behind_dropout) = draw(0.0), draw(0.0), draw(0.5)
    assert torch.equal(first, again)
    assert torch.equal(after, behind_dropout)
    model = Stack(Attention, 1)
    one, other = (critical_(model, graph, feat).layers[0].packed.detach().clone() for _ in range(2))
    assert not torch.equal(one, other)


def test_frozen_weights_are_left_alone(graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = Stack(lambda: GraphConv(WIDTH, WIDTH), 4)
    frozen = model.layers[1].requires_grad_(False)
    before = frozen.weight.clone()
    critical_(model, graph, feat)
    assert torch.equal(frozen.weight, before)
    assert signal(model, graph, feat) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf")])
def test_features_that_tell_nothing(bad: float, graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = Stack(Attention, 2).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(DGLError, match="finite"):
        critical_(model, graph, torch.full_like(feat, bad))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not model.training


def test_an_error_of_the_model_leaves_it_as_it_was(graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = Stack(lambda: GraphConv(WIDTH, WIDTH), 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def fails(model: Stack) -> None:
        graph.ndata["half"] = model.layers[0](graph, feat)
        with graph.local_scope():
            model()

    with pytest.raises(TypeError):
        critical_(model, forward=fails)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert not graph.ndata


def test_forward_and_feat_exclude_each_other(graph: dgl.DGLGraph, feat: Tensor) -> None:
    with pytest.raises(DGLError, match="Leave out one of them"):
        critical_(nn.Linear(2, 2), graph, feat, forward=lambda model: model(feat))
    with pytest.raises(DGLError, match="must be a function that calls the model"):
        critical_(nn.Linear(2, 2), forward=feat)


def test_blocks_and_relations(graph: dgl.DGLGraph, feat: Tensor) -> None:
    blocks = [dgl.to_block(graph), dgl.to_block(graph)]
    convs = nn.ModuleList(SAGEConv(WIDTH, WIDTH, "mean") for _ in range(2))

    def run(model: nn.ModuleList) -> Tensor:
        h = feat[blocks[0].srcdata[dgl.NID]]
        for conv, block in zip(model, blocks, strict=True):
            h = torch.relu(conv(block, h))
        return h

    critical_(convs, forward=run)
    assert 0.3 < run(convs).square().mean().item() < 1
    edges = {("a", "r", "b"): ([0, 1, 2], [0, 1, 1]), ("b", "s", "a"): ([0, 1], [1, 2])}
    hetero = dgl.heterograph({**edges, ("a", "t", "a"): ([0, 1, 2], [1, 2, 0])})
    kinds = {kind: SAGEConv(WIDTH, WIDTH, "mean") for kind in hetero.etypes}
    model = dgl.nn.HeteroGraphConv(kinds)
    inputs = {"a": torch.randn(3, WIDTH), "b": 5 * torch.randn(2, WIDTH)}
    critical_(model, hetero, inputs)
    for out in model(hetero, inputs).values():
        assert 0.2 < out.square().mean().item() < 5


def test_features_alone(feat: Tensor) -> None:
    model = nn.Sequential(*[layer for _ in range(30) for layer in (mlp(), nn.ReLU())])
    assert 0.1 < signal(critical_(model, feat=feat), feat) < 1


def test_lazy_layers_and_lower_precision(graph: dgl.DGLGraph, feat: Tensor) -> None:
    lazy = nn.Sequential(nn.LazyLinear(32), nn.ReLU(), nn.LazyLinear(8))
    assert signal(critical_(lazy, feat=feat), feat) == pytest.approx(1, rel=1e-3)

    def run(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return model(graph, feat).float()

    model = critical_(Stack(Heads), forward=run)
    assert 0.2 < run(model).square().mean().item() < 5


def test_a_state_of_zeros_is_passed_over(feat: Tensor) -> None:
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRUCell(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.zeros_like(x)
            for _ in range(3):
                h = self.cell(x, h)
            return h

    model = critical_(Loop(), feat=feat)
    state = model.cell(feat, torch.zeros_like(feat))
    product = state @ model.cell.weight_hh.T
    assert product.square().mean().item() == pytest.approx(1, rel=1e-4)


def test_scale_last_of_our_models_is_kept(graph: dgl.DGLGraph, feat: Tensor) -> None:
    model = ResGIN(WIDTH, WIDTH, 3, num_layers=6, residual="fixup")
    critical_(model, graph, feat)
    assert not any(conv.mlp[-1].weight.any() for conv in model.branches)
    assert all(conv.mlp[0].weight.any() for conv in model.branches)


class Relations(nn.Module):
    """Weights of relations composed of two bases, as ``regularizer="basis"`` does it."""

    def __init__(self, regularizer: str | None) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            RelGraphConv(WIDTH, WIDTH, 4, regularizer, 2) for _ in range(DEPTH)
        )

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        etypes = torch.arange(graph.num_edges()) % 4
        for conv in self.convs:
            h = torch.relu(conv(graph, h, etypes))
        return h


@pytest.mark.parametrize("regularizer", ["basis", "bdd", None])
def test_weights_of_relations(regularizer: str | None, graph: dgl.DGLGraph, feat: Tensor) -> None:
    """A composed weight is scaled by what it is made of, all its parts alike."""
    model = critical_(Relations(regularizer), graph, feat)
    for fresh in (feat, 3 * torch.randn_like(feat)):
        assert 0.05 < model(graph, fresh).square().mean() / fresh.square().mean() * 9 < 20


def test_what_measuring_does_not_reach_is_never_silent(graph: dgl.DGLGraph, feat: Tensor) -> None:
    class Shut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = GraphConv(WIDTH, WIDTH)

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            return 1e6 * torch.sigmoid(self.conv(graph, h))

    with pytest.warns(UserWarning, match="still ends at a mean square of"):
        critical_(Shut(), graph, feat)


def test_an_output_that_is_averaged_behind_the_last_weight(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    """Heads and hops take something away, and only the last weight can make up for it."""
    heads = GATConv(WIDTH, WIDTH, 4)
    hops = dgl.nn.APPNPConv(10, 0.1)
    linear = nn.Linear(WIDTH, WIDTH)

    class Averaged(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.linear, self.hops = heads, linear, hops

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            return self.hops(graph, self.linear(self.heads(graph, h).mean(1).relu()))

    model = critical_(Averaged(), graph, feat)
    assert model(graph, feat).square().mean().item() == pytest.approx(1, rel=1e-3)


def test_statistics_of_batch_normalization_are_those_of_the_features(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    """Evaluation is training then; behind residual connections on other features, too."""

    class Healthy(Stack):
        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for layer, norm in zip(self.layers, self.norms, strict=True):
                h = h + norm(layer(graph, torch.relu(h))) / len(self.layers) ** 0.5
            return h

    model = Healthy(lambda: GraphConv(WIDTH, WIDTH), norm=nn.BatchNorm1d)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critical_(model, graph, feat)
    assert model.norms[3].running_var.std() > 0 and model.norms[3].momentum == 0.1
    evaluation, other = model.eval()(graph, feat), model(graph, 3 * torch.randn_like(feat))
    training = model.train()(graph, feat)
    assert 0.8 < evaluation.square().mean() / training.square().mean() < 1.25
    assert 0.5 < other.square().mean() / training.square().mean() < 2
    bare = Stack(lambda: GraphConv(WIDTH, WIDTH), 32, norm=nn.BatchNorm1d)
    with pytest.warns(UserWarning, match="evaluation mode, on other features.*LayerNorm"):
        critical_(bare, graph, feat)


def test_dropout_that_one_scale_cannot_serve_is_warned_of(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    model = Stack(lambda: SAGEConv(WIDTH, WIDTH, "mean"), 32, dropout=0.6)
    with pytest.warns(UserWarning, match="training mode and of .* in evaluation mode: dropout"):
        critical_(model, graph, feat)


class GatedByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        graph.ndata["h"], graph.ndata["g"] = self.value(h), torch.sigmoid(self.gate(h))
        graph.apply_edges(lambda edges: {"g": edges.src["g"]})  # a gate that only DGL multiplies
        graph.update_all(fn.u_mul_e("h", "g", "m"), fn.sum("m", "h"))
        return torch.relu(graph.ndata["h"])


def test_gates_start_half_open_so_that_deviations_do_not_grow(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    """In front of a sigmoid that does no gating the mean square stays one."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(GatedByHand() for _ in range(32))
            self.probability = nn.Linear(WIDTH, 1)

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for layer in self.layers:
                h = layer(graph, h)
            return torch.sigmoid(self.probability(h))

    model = critical_(Model(), graph, feat)
    seen: dict[str, float] = {}
    for name, part in model.named_modules():
        part.register_forward_hook(
            lambda part, args, out, name=name: seen.update({name: out.square().mean().item()})
        )
    model(graph, feat)
    assert seen["probability"] == pytest.approx(1, rel=0.01)
    for index in range(32):
        assert seen[f"layers.{index}.gate"] == pytest.approx(0.01, rel=0.01)
        assert 0.01 < seen[f"layers.{index}"] < 20
    model(graph, 3 * torch.randn_like(feat))
    assert 0.05 < seen["probability"] < 20


def test_what_multiplies_larger_features_by_more_is_warned_of(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    class Squares(Stack):
        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for layer in self.layers:
                h = layer(graph, h) * h
            return h

    with pytest.warns(UserWarning, match="of features twice as large at (inf|nan).*Normalize"):
        critical_(Squares(lambda: GraphConv(WIDTH, WIDTH)), graph, feat)

    class Again(Stack):
        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for _ in range(32):
                h = torch.relu(self.layers[0](graph, h))
            return self.layers[1](graph, h)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critical_(Again(lambda: GraphConv(WIDTH, WIDTH), 2), graph, feat)


@pytest.mark.parametrize("draw", range(3))
def test_the_output_is_one_over_the_draws_of_dropout(
    graph: dgl.DGLGraph, feat: Tensor, draw: int
) -> None:
    torch.manual_seed(draw)

    class Attention(Stack):
        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for layer in self.layers[:-1]:
                h = nn.functional.elu(layer(graph, h)).flatten(1)
            return self.layers[-1](graph, h).mean(1)

    make = lambda: GATConv(WIDTH, WIDTH // 4, 4, feat_drop=0.5, attn_drop=0.5)  # noqa: E731
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = critical_(Attention(make), graph, feat)
    with torch.no_grad():
        squares = torch.stack([model(graph, feat).square().mean() for _ in range(32)])
    scattered = any("under one draw of dropout" in str(warning.message) for warning in caught)
    assert scattered == (draw != 1)  # attention that is all or nothing
    low, median, high = squares.quantile(torch.tensor([0.1, 0.5, 0.9]))
    assert high > 1e3 * low if scattered else 0.2 < median < 5
