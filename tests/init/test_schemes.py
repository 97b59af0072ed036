"""The schemes' variances, and that the critical one lets a stack of DGL layers train."""

from __future__ import annotations

import math
from itertools import pairwise

import dgl
import pytest
import torch
from dgl.nn import GATConv, GraphConv
from torch import Tensor, nn

from dgl_deepgnn import ResGIN
from dgl_deepgnn.init import SCHEMES, critical_, glorot_, he_
from dgl_deepgnn.init.running import tensors_of
from dgl_deepgnn.init.schemes import closed_form_


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


def stack(depth: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(200, 200), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def variances(model: nn.Module) -> list[float]:
    return [
        part.weight.var().item() * part.in_features
        for part in model.modules()
        if isinstance(part, nn.Linear)
    ]


def test_names() -> None:
    assert SCHEMES.names() == ["critical", "glorot", "he"]
    assert SCHEMES["critical"] is closed_form_


@pytest.mark.parametrize("scheme", [critical_, he_, glorot_])
def test_module_is_returned_and_biases_are_zero(scheme) -> None:
    model = stack(3)
    assert scheme(model) is model
    assert not any(part.bias.any() for part in model if isinstance(part, nn.Linear))


def test_critical_tells_the_last_layer_apart() -> None:
    assert variances(critical_(stack(4))) == pytest.approx([2, 2, 2, 1], rel=0.05)
    assert variances(critical_(stack(4), output_layer=False)) == pytest.approx([2] * 4, rel=0.05)
    assert variances(critical_(nn.Sequential(stack(1)))) == pytest.approx([1], rel=0.05)


def test_critical_is_normal() -> None:
    weight = critical_(nn.Linear(1000, 300)).weight.flatten() * 1000**0.5
    assert weight.pow(4).mean().item() == pytest.approx(3, rel=0.03)
    assert weight.mean().abs() < 0.01


def test_he() -> None:
    assert variances(he_(stack(4))) == pytest.approx([2] * 4, rel=0.05)


def test_glorot_is_uniform() -> None:
    layer = glorot_(nn.Linear(200, 400))
    bound = math.sqrt(6 / 600)
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-3)
    assert layer.weight.var().item() == pytest.approx(bound**2 / 3, rel=0.02)


def test_seed_decides() -> None:
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(critical_(nn.Linear(4, 4)).weight.clone())
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_without_layers_and_without_width() -> None:
    critical_(nn.Sequential())
    with pytest.warns(UserWarning, match="zero-element"):
        empty = nn.Linear(0, 3)
    assert critical_(empty).bias.tolist() == [0, 0, 0]


def test_gradients_need_no_graph_of_the_drawing() -> None:
    layer = critical_(nn.Linear(4, 4))
    assert layer.weight.is_leaf and layer.weight.requires_grad and layer.weight.grad_fn is None


@pytest.mark.parametrize("scheme", [he_, glorot_])
def test_residual_scaling_of_our_models_is_kept(scheme) -> None:
    model = scheme(ResGIN(4, 8, 2, num_layers=5, residual="fixup"))
    assert not any(conv.mlp[-1].weight.any() for conv in model.branches)


class Heads(nn.Module):
    """Several outputs: two of one kind, defined first, one beside them, and attention heads."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.heads = nn.ModuleDict({"a": nn.Linear(200, 100), "b": nn.Linear(200, 150)})
        self.convs = nn.ModuleList(GraphConv(200, 200) for _ in range(3))
        self.value = nn.Linear(200, 120)
        self.attention = GATConv(200, 50, 4)

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> object:
        for conv in self.convs:
            x = torch.relu(conv(graph, x))
        scores = {"a": self.heads["a"](x), "b": self.heads["b"](x)}
        scores |= {"value": self.value(x), "attention": self.attention(graph, x)}
        kinds = {"dict": scores, "tuple": tuple(scores.values()), "pairs": (x, scores)}
        return kinds[self.kind]


@pytest.mark.parametrize("kind", ["dict", "tuple", "pairs"])
def test_of_parallel_heads_each_is_an_output(kind: str) -> None:
    graph = dgl.to_bidirected(dgl.rand_graph(100, 300)).add_self_loop()
    model = critical_(Heads(kind), graph)
    for head in (*model.heads.values(), model.value, model.attention.fc):
        assert 200 * head.weight.var().item() == pytest.approx(1, rel=0.05)
    for conv in model.convs:
        assert 200 * conv.weight.var().item() == pytest.approx(2, rel=0.05)
    feat = torch.randn(100, 200)
    critical_(model, graph, feat)
    for out in tensors_of(model(graph, feat))[1 if kind == "pairs" else 0 :]:
        assert 0.5 < out.square().mean().item() < 2


class Plain(nn.Module):
    """A user's deep network of DGL's own layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        widths = [8, *[32] * (depth - 1), 2]
        self.layers = nn.ModuleList(GraphConv(*ends) for ends in pairwise(widths))

    def forward(self, graph: dgl.DGLGraph, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = torch.relu(layer(graph, x))
        return self.layers[-1](graph, x)


def test_one_line_makes_a_deep_network_trainable() -> None:
    """Two rings with features of their own: a task that needs no depth, only a signal."""
    ring = dgl.graph((range(10), [*range(1, 10), 0]))
    graph = dgl.add_self_loop(dgl.to_bidirected(dgl.batch([ring, ring])))
    label = torch.arange(20) // 10
    feat = torch.randn(2, 8)[label] + 0.3 * torch.randn(20, 8)

    def losses(model: Plain, steps: int) -> list[float]:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        history = []
        for _ in range(steps):
            loss = nn.functional.cross_entropy(model(graph, feat), label)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        return history

    stock = losses(Plain(32), 10)
    critical = losses(critical_(Plain(32), graph), 25)
    assert min(stock) > 0.69  # ln 2: the output does not depend on the input
    assert critical[-1] < 0.4
