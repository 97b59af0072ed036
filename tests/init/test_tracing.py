"""What stands between the weights, whoever calls the activation."""

from __future__ import annotations

from collections.abc import Callable

import dgl
import pytest
import torch
import torch.nn.functional as F
from dgl.nn import GATConv, GATv2Conv, GINConv, GraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn.init.activation import activation_name, critical_point
from dgl_deepgnn.init.tracing import Behind, trace
from dgl_deepgnn.nn import ResGraphConv, ResSAGEConv

WIDTH = 8
GRAPH = dgl.graph(([0, 1, 2, 3], [1, 2, 3, 0])).add_self_loop()
FEAT = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(0))


class Swish(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.5 * x)


class Two(nn.Module):
    def __init__(self, first: nn.Module, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.between = first, nn.Linear(WIDTH, 3), between

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(graph, x).flatten(1)))


def behind(model: nn.Module, weight: Tensor, feat: Tensor = FEAT) -> list[Behind]:
    with torch.no_grad():
        return trace(model, lambda feat: model(GRAPH, feat), feat).behind[id(weight)]


@pytest.mark.parametrize(
    ("between", "same"),
    [
        (F.relu, nn.ReLU()),
        (nn.ReLU(inplace=True), nn.ReLU()),
        (lambda x: x.clamp(min=0), nn.ReLU()),
        (nn.LeakyReLU(0.3), nn.LeakyReLU(0.3)),
        (lambda x: F.leaky_relu(x, 0.3), nn.LeakyReLU(0.3)),
        (lambda x: F.prelu(x, torch.full((WIDTH,), 0.5).requires_grad_()), nn.LeakyReLU(0.5)),
        (nn.PReLU(init=0.1), nn.LeakyReLU(0.1)),
        (F.gelu, nn.GELU()),
        (lambda x: F.gelu(x, approximate="tanh"), nn.GELU("tanh")),
        (nn.SiLU(), nn.SiLU()),
        (F.selu, nn.SELU()),
        (lambda x: F.elu(x, 0.5), nn.ELU(0.5)),
        (F.mish, nn.Mish()),
        (torch.tanh, nn.Tanh()),
        (nn.Softsign(), nn.Softsign()),
        (Swish(), Swish()),
        (lambda x: F.dropout(F.silu(2 * x), 0.5, training=False), nn.SiLU()),
    ],
)
def test_activation_between_two_layers(between, same: nn.Module) -> None:
    model = Two(GraphConv(WIDTH, WIDTH), between)
    (found,) = behind(model, model.first.weight)
    expected = critical_point(same)
    assert critical_point(found.activation).weight_variance == pytest.approx(
        expected.weight_variance, rel=1e-5
    )
    assert behind(model, model.last.weight) == [Behind(output=True)]


@pytest.mark.parametrize(
    ("layer", "weight"),
    [
        (GraphConv(WIDTH, WIDTH, activation=F.silu), lambda layer: layer.weight),
        (GraphConv(WIDTH, WIDTH, activation=lambda x: x * torch.sigmoid(x)), lambda c: c.weight),
        (SAGEConv(WIDTH, WIDTH, "mean", activation=nn.SiLU()), lambda layer: layer.fc_self.weight),
        (SAGEConv(WIDTH, WIDTH, "pool", activation=F.silu), lambda layer: layer.fc_neigh.weight),
        (GINConv(nn.Linear(WIDTH, WIDTH), "max", activation=F.silu), lambda c: c.apply_func.weight),
        (GATConv(WIDTH, 4, 2, activation=F.silu), lambda layer: layer.fc.weight),
        (GATv2Conv(WIDTH, 4, 2, activation=F.silu), lambda layer: layer.fc_src.weight),
    ],
)
def test_a_layers_own_activation_and_not_its_attention(layer: nn.Module, weight) -> None:
    model = Two(layer, nn.Identity())
    own = [b for b in behind(model, weight(layer)) if not b.gate]
    assert critical_point(own[0].activation).weight_variance == pytest.approx(1.98800, abs=1e-4)
    assert len(own) == 1


@pytest.mark.parametrize("layer", [ResGraphConv(WIDTH, WIDTH), ResSAGEConv(WIDTH, WIDTH)])
def test_layers_of_this_package(layer: nn.Module) -> None:
    model = Two(layer, F.gelu)
    found = [
        activation_name(b.activation)
        for p in layer.parameters()
        if p.dim() == 2
        for b in behind(model, p)
    ]
    assert set(found) == {"gelu"}


def test_gates_norms_and_what_is_not_known() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
            self.next, self.norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)
            self.last = nn.Linear(WIDTH, WIDTH)

        def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
            x = F.gelu(self.norm(self.next(torch.sigmoid(self.gate(x)) * self.value(x))))
            return torch.sigmoid(self.last(x).exp())

    model = Gated()
    assert [b.gate for b in behind(model, model.gate.weight)] == [True]
    (value,) = behind(model, model.value.weight)
    assert not value.gate and value.activation is None and not value.output
    (normed,) = behind(model, model.next.weight)
    assert normed.normed and activation_name(normed.activation) == "gelu"
    (last,) = behind(model, model.last.weight)
    assert last.output and last.unknown == "exp" and not last.gate


def test_a_model_is_left_as_it_was() -> None:
    model = Two(GraphConv(WIDTH, WIDTH, activation=F.gelu), nn.ReLU())
    model.first.bias.requires_grad_(False)
    behind(model, model.first.weight)
    assert model.first._activation is F.gelu and not model.first.bias.requires_grad
    assert not model.between._forward_hooks


def test_embeddings_residual_connections_and_depth() -> None:
    """A thousand layers are read without recursion; the stream goes on beside every branch."""

    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, WIDTH)
            self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(1000))
            self.last = nn.Linear(WIDTH, 2)

        def forward(self, graph: dgl.DGLGraph, tokens: Tensor) -> Tensor:
            x = self.table(tokens)
            for index, layer in enumerate(self.layers):
                x = x + layer(x).tanh() if index > 990 else layer(x).tanh()
            return self.last(x)

    model = Deep()
    tokens = torch.tensor([0, 1, 2, 3])
    found = trace(model, lambda tokens: model(GRAPH, tokens), tokens)
    for layer in model.layers:
        names = {activation_name(b.activation) for b in found.behind[id(layer.weight)]}
        assert names == {"tanh"}
    assert id(model.layers[0].weight) not in found.before
    assert len(found.before[id(model.last.weight)]) == 1
