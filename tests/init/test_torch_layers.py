"""PyTorch's own layers among graph convolutions, and one scale for graphs of different radius."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import dgl
import pytest
import torch
from dgl.nn import GINConv, GraphConv, JumpingKnowledge
from torch import Tensor, nn

import dgl_deepgnn
from dgl_deepgnn.diagnostics import diagnose
from dgl_deepgnn.init import critical_

WIDTH, DEPTH = 256, 16


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture(scope="module")
def graph() -> dgl.DGLGraph:
    dgl.seed(1)
    return dgl.add_self_loop(dgl.to_bidirected(dgl.rand_graph(60, 240)).remove_self_loop())


@pytest.fixture
def feat(graph: dgl.DGLGraph) -> Tensor:
    return torch.randn(graph.num_nodes(), WIDTH)


def square(out: Tensor) -> float:
    return out.detach().square().mean().item()


class Stack(nn.Module):
    """Convolutions, a normalization behind each, and an activation."""

    def __init__(
        self,
        norm: Callable[[], nn.Module] = nn.Identity,
        apply: Callable[[nn.Module, Tensor], Tensor] = lambda norm, h: norm(h),
        activation: Callable[[Tensor], Tensor] = torch.relu,
        depth: int = DEPTH,
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GraphConv(WIDTH, WIDTH) for _ in range(depth))
        self.norms = nn.ModuleList(norm() for _ in range(depth - 1))
        self.apply_norm, self.activation = apply, activation

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            h = self.activation(self.apply_norm(norm, conv(graph, h)))
        return self.convs[-1](graph, h)


def plainly(norm: nn.Module, h: Tensor) -> Tensor:
    return norm(h)


def by_node(norm: nn.Module, h: Tensor) -> Tensor:
    """Each channel by itself, over the nodes."""
    return norm(h.T[None])[0].T


def as_images(norm: nn.Module, h: Tensor) -> Tensor:
    """Of as many channels as a quarter of the width, two by two."""
    return norm(h.view(len(h), -1, 2, 2)).flatten(1)


NORMS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "layer": (lambda: nn.LayerNorm(WIDTH), plainly),
    "group": (lambda: nn.GroupNorm(8, WIDTH), plainly),
    "batch": (lambda: nn.BatchNorm1d(WIDTH), plainly),
    "instance": (lambda: nn.InstanceNorm1d(WIDTH, affine=True), by_node),
    "batch 2d": (lambda: nn.BatchNorm2d(WIDTH // 4), as_images),
    "instance 2d": (lambda: nn.InstanceNorm2d(WIDTH // 4, affine=True), as_images),
}
if hasattr(nn, "RMSNorm"):
    NORMS["root mean square"] = (lambda: nn.RMSNorm(WIDTH), plainly)


def spoilt(norm: nn.Module) -> nn.Module:
    """What a model that was trained before may hold."""
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.fill_(3.0)
    return norm


@pytest.mark.filterwarnings("ignore:In evaluation mode", "ignore:Measured, the Stack ends")
@pytest.mark.parametrize("kind", NORMS)
def test_normalizations(graph: dgl.DGLGraph, feat: Tensor, kind: str) -> None:
    make, apply = NORMS[kind]
    for arguments in [(), (feat,)]:
        model = critical_(Stack(lambda: spoilt(make()), apply), graph, *arguments)
        for norm in model.norms:
            assert (norm.weight == 1).all()
            assert getattr(norm, "bias", None) is None or not norm.bias.any()
        if not arguments:  # behind a normalization the ReLU hands on one half
            assert model.convs[3].weight.var().item() * WIDTH == pytest.approx(2, rel=0.1)
        assert 0.1 < square(model.train()(graph, feat)) < 10
    frozen = Stack(lambda: spoilt(make()).requires_grad_(False), apply)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threes
        critical_(frozen, graph, feat)
    assert all((norm.weight == 3).all() for norm in frozen.norms)


def test_synchronized_batch_normalization_is_reset(graph: dgl.DGLGraph) -> None:
    """It runs on no CPU in training mode, so that nothing is checked there."""
    model = Stack(lambda: spoilt(nn.SyncBatchNorm(WIDTH)))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            critical_(model, graph)
    except ValueError as error:
        pytest.fail(f"PyTorch's own error got through: {error}")
    assert all((norm.weight == 1).all() and not norm.bias.any() for norm in model.norms)


def test_slopes_of_prelu(graph: dgl.DGLGraph, feat: Tensor) -> None:
    prelu = nn.PReLU(init=0.5)
    model = critical_(Stack(activation=prelu), graph)
    assert model.convs[3].weight.var().item() * WIDTH == pytest.approx(2 / 1.25, rel=0.1)
    assert prelu.weight.item() == 0.5
    measured = critical_(Stack(activation=prelu), graph, feat)
    assert square(measured(graph, feat)) == pytest.approx(1, rel=1e-3)
    assert prelu.weight.item() == 0.5


class Tokens(nn.Module):
    """A learnt vector a token in place of features."""

    def __init__(self, **options: float) -> None:
        super().__init__()
        self.table = nn.Embedding(40, WIDTH, **options)
        self.body = Stack(depth=8)

    def forward(self, graph: dgl.DGLGraph, tokens: Tensor) -> Tensor:
        return self.body(graph, self.table(tokens))


def test_embeddings(graph: dgl.DGLGraph) -> None:
    tokens = torch.randint(40, (graph.num_nodes(),))
    for arguments in [(), (tokens,)]:
        model = Tokens()
        nn.init.constant_(model.table.weight, 7.0)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is checked, on tokens
            critical_(model, graph, *arguments)
        assert square(model.table(tokens)) == pytest.approx(1, rel=0.05)
        assert model.table.weight.std(dim=0).min() > 0.5  # rows differ
        assert 0.05 < square(model(graph, tokens)) < 5
    short = critical_(Tokens(max_norm=14), graph)
    assert short.table.weight.norm(dim=1).max() <= 14 + 1e-4
    frozen = Tokens()
    frozen.table.weight.requires_grad_(False).fill_(7.0)
    critical_(frozen, graph, tokens)
    assert (frozen.table.weight == 7).all()


class Jump(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(GraphConv(WIDTH, WIDTH) for _ in range(6))
        self.jump = JumpingKnowledge("lstm", WIDTH, 6)
        self.last = nn.Linear(WIDTH, 4)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        hidden = []
        for conv in self.convs:
            h = torch.relu(conv(graph, h))
            hidden.append(h)
        return self.last(self.jump(hidden))


def test_jumping_knowledge_weighs_layers_by_an_lstm_that_stays(
    graph: dgl.DGLGraph, feat: Tensor
) -> None:
    for arguments in [(), (feat,)]:
        model = Jump()
        before = [p.clone() for p in model.jump.lstm.parameters()]
        drawn = model.convs[2].weight.clone()
        critical_(model, graph, *arguments)
        after = model.jump.lstm.parameters()
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert not torch.equal(drawn, model.convs[2].weight)
        assert 0.005 < square(model(graph, feat)) < 20


def mixed_batch() -> dgl.DGLGraph:
    """Rings beside a clique, as among proteins: spectral radii of 3 and 20."""
    ring = dgl.graph((torch.arange(20), (torch.arange(20) + 1) % 20))
    ring = dgl.add_self_loop(dgl.to_bidirected(ring))
    clique = dgl.add_self_loop(
        dgl.to_bidirected(dgl.graph(tuple(torch.combinations(torch.arange(20)).T)))
    )
    return dgl.batch([ring, ring, clique])


class Sums(nn.Module):
    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(16))

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            h = layer(graph, torch.relu(h) if index else h)
        return h


def test_one_scale_for_a_mixed_batch_is_warned_of_with_what_mends_it() -> None:
    batch, feat = mixed_batch(), torch.randn(60, WIDTH)
    with pytest.warns(UserWarning, match="One scale cannot serve all graphs") as caught:
        model = critical_(Sums(lambda: GINConv(nn.Linear(WIDTH, WIDTH), "sum")), batch)
    (message,) = (str(w.message) for w in caught if "One scale" in str(w.message))
    assert "67% of them" in message and "dgl_deepgnn.ResGINConv" in message

    def squares(model: nn.Module) -> list[float]:
        return [square(part) for part in model(batch, feat).split(20)]

    assert max(squares(model)[:2]) < 1e-3 * squares(model)[2]
    mended = Sums(lambda: dgl_deepgnn.ResGINConv(WIDTH, WIDTH))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critical_(mended, batch)
    assert all(0.01 < one < 10 for one in squares(mended))
    assert diagnose(mended, batch, feat, draws=2).verdicts[0].status == "healthy"
    diagnosis = diagnose(model, batch, feat, draws=2)
    assert diagnosis.verdicts[0].status == "vanishing"
    assert re.search(r"But in 67% of .* vanishing.*ResGINConv", diagnosis.verdicts[0].message)
    advice = str(diagnosis)
    (name, t) = re.findall(r"dgl_deepgnn\.nn\.(\w+)\(\.\.\., t=([\d.]+)\) for GINConv", advice)[0]
    followed = Sums(lambda: getattr(dgl_deepgnn.nn, name)(WIDTH, WIDTH, t=float(t)))
    critical_(followed, batch)
    assert all(0.01 < one < 10 for one in squares(followed))
    aggregation = diagnose(followed, batch, feat, draws=2).verdicts[1]
    assert (aggregation.principle, aggregation.status) == ("residual aggregation", "healthy")
