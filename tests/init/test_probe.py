"""The closed form is right or refused: what a probe says, and that the weights come back."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import dgl
import pytest
import torch
from dgl import DGLError
from dgl.nn import GATConv, GINConv, GraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn.init import collect_stages, critical_, schemes
from dgl_deepgnn.init.schemes import critical_std, draw

WIDTH, DEPTH = 64, 20


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    plain = dgl.to_bidirected(dgl.rand_graph(60, 200)).remove_self_loop()
    return dgl.add_self_loop(plain)


class Stack(nn.Module):
    def __init__(
        self,
        make: Callable[[], nn.Module],
        activation: Callable[[Tensor], Tensor] = torch.relu,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(DEPTH))
        self.activation, self.residual, self.dropout = activation, residual, nn.Dropout(dropout)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        for index, layer in enumerate(self.layers):
            out = layer(graph, self.dropout(self.activation(h)) if index else h).flatten(1)
            h = h + out if self.residual else out
        return h


class SumByHand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own, self.neighbours = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
        return self.own(h) + dgl.ops.copy_u_sum(graph, self.neighbours(h))


def conv() -> nn.Module:
    return GraphConv(WIDTH, WIDTH)


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


@pytest.mark.filterwarnings("ignore:.*scatters around its mean")
@pytest.mark.parametrize(
    "make",
    [
        conv,
        lambda: GraphConv(WIDTH, WIDTH, norm="none"),
        lambda: SAGEConv(WIDTH, WIDTH, "mean"),
        lambda: SAGEConv(WIDTH, WIDTH, "pool"),
        lambda: GINConv(mlp(), "sum"),
        lambda: GATConv(WIDTH, WIDTH // 4, 4),
    ],
)
def test_what_the_closed_form_knows_passes(
    make: Callable[[], nn.Module], graph: dgl.DGLGraph
) -> None:
    critical_(Stack(make), graph)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Stack(lambda: GATConv(WIDTH, 16, 4), activation=nn.SiLU()), "explodes"),
        (lambda: Stack(conv, residual=True), "explodes"),
        (lambda: Stack(SumByHand), "explodes"),
        (lambda: Stack(lambda: SAGEConv(WIDTH, WIDTH, "mean"), dropout=0.7), "explodes"),
    ],
)
def test_what_it_does_not_see_is_refused(
    model: Callable[[], nn.Module], message: str, graph: dgl.DGLGraph
) -> None:
    stack = model()
    before = copy.deepcopy(stack.state_dict())
    with pytest.raises(DGLError, match=rf"('layers|the output).*{message}.*feat"):
        critical_(stack, graph)
    for name, value in stack.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_cannot_be_probed_is_not_called_checked(graph: dgl.DGLGraph) -> None:
    with pytest.warns(UserWarning, match="Nothing was checked.*relu, taken for granted"):
        critical_(nn.ModuleList([conv(), conv()]), graph)
    known = [GraphConv(WIDTH, WIDTH, activation=nn.functional.gelu), conv()]
    with pytest.warns(UserWarning, match="the ModuleList did not run.*gelu, what the model holds"):
        critical_(nn.ModuleList(known), graph)
    assert known[0].bias.var() > 0 and not known[1].bias.any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        critical_(conv(), graph)  # one layer cannot drift
        critical_(nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8)))


@pytest.mark.filterwarnings("ignore:Nothing was checked")
def test_narrow_and_deep_is_warned_of() -> None:
    layers = [nn.Linear(16, 16) for _ in range(17)]
    with pytest.warns(UserWarning, match=r"17 layers of width 16.*= 2\.2\).*orthogonal=True"):
        critical_(nn.ModuleList(layers))


@pytest.mark.filterwarnings("ignore:Nothing was checked")
def test_a_batch_of_different_graphs_is_warned_of() -> None:
    graphs = [dgl.add_self_loop(dgl.graph(([], []), num_nodes=2)) for _ in range(3)]
    full = dgl.from_scipy(__import__("scipy.sparse").sparse.csr_matrix(torch.ones(5, 5).numpy()))
    model = nn.ModuleList(GINConv(nn.Linear(512, 512), "sum") for _ in range(8))
    with pytest.warns(UserWarning, match="on 75% of them.*ResGINConv"):
        critical_(model, dgl.batch([*graphs, full]))


@pytest.mark.parametrize("failures", [1, 2])
def test_bad_luck_is_drawn_again_once(
    graph: dgl.DGLGraph, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """One draw in a hundred of 32 layers of width 32 looks like a model that does not fit."""
    model, draws = dgl.nn.Sequential(*(conv() for _ in range(2))), []

    def unlucky(module: nn.Module, *args: object, **kwargs: object) -> None:
        draws.append(module[1].weight.detach().clone())
        if len(draws) <= failures:
            raise DGLError("does not fit")

    monkeypatch.setattr(schemes, "check", unlucky)
    before = model[1].weight.detach().clone()
    if failures == 1:
        critical_(model, graph)
    else:
        with pytest.raises(DGLError, match="does not fit"):
            critical_(model, graph)
    assert len(draws) == 2 and not torch.equal(*draws)
    torch.testing.assert_close(model[1].weight, draws[1] if failures == 1 else before)


def test_an_orthogonal_draw_scatters_less() -> None:
    """Of ReLU layers three fifths of the variance is left."""
    model = nn.Sequential(*[part for _ in range(24) for part in (nn.Linear(32, 32), nn.ReLU())])
    feat = torch.randn(1, 32)
    spread = []
    for orthogonal in (False, True):
        logs = []
        for _ in range(150):
            draw(collect_stages(model), critical_std, orthogonal=orthogonal)
            logs.append(model(feat).square().mean().log())
        spread.append(torch.stack(logs).var().item())
    assert 0.35 < spread[1] / spread[0] < 0.85
    weight = model[2].weight.detach()
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(32), rtol=1e-4, atol=1e-4)


def test_batch_normalization_in_evaluation_mode_is_warned_of(graph: dgl.DGLGraph) -> None:
    """The weights are right in training mode; nothing that the probe did stays behind."""

    class Normed(Stack):
        def __init__(self) -> None:
            super().__init__(conv)
            self.norms = nn.ModuleList(nn.BatchNorm1d(WIDTH) for _ in range(DEPTH - 1))

        def forward(self, graph: dgl.DGLGraph, h: Tensor) -> Tensor:
            for layer, norm in zip(self.layers[:-1], self.norms, strict=True):
                h = torch.relu(norm(layer(graph, h)))
            return self.layers[-1](graph, h)

    model = Normed()
    with pytest.warns(UserWarning, match="In evaluation mode, with the statistics of one pass"):
        critical_(model, graph)
    assert 0.05 < model(graph, torch.randn(60, WIDTH)).square().mean() < 5
    assert not model.norms[0].num_batches_tracked > 1
    model = Normed()
    with pytest.warns(UserWarning):
        critical_(model, graph)
    assert not model.norms[5].running_mean.any() and model.norms[5].momentum == 0.1
