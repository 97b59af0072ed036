"""Diagnosis of models in the styles that users write, and whether its advice can be followed."""

from __future__ import annotations

from typing import Any

import dgl
import dgl.function as fn
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from dgl_deepgnn import ResGCN, create_model
from dgl_deepgnn.diagnostics import Diagnosis, Verdict, diagnose
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init import critical_
from dgl_deepgnn.init.schemes import closed_form_
from dgl_deepgnn.nn import ResGraphConv


@pytest.fixture
def graph() -> DGLGraph:
    return dgl.to_bidirected(dgl.rand_graph(60, 240)).add_self_loop()


@pytest.fixture
def feat() -> Tensor:
    return torch.randn(60, 64)


class Headed(nn.Module):
    """Convolutions and an MLP, whose biases do not care what enters it."""

    def __init__(self, depth: int, head: int) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 64)
        self.convs = nn.ModuleList(dgl.nn.GraphConv(64, 64) for _ in range(depth))
        self.head = nn.Sequential()
        for _ in range(head):
            self.head.extend([nn.Linear(64, 64), nn.ReLU()])
        self.head.append(nn.Linear(64, 7))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        h = F.relu(self.encode(h))
        for conv in self.convs:
            h = F.relu(conv(graph, h))
        return self.head(h)


class ByHand(nn.Module):
    """A graph convolution of matrices, with a head of two layers: no class of DGL's is seen."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.weights = nn.ModuleList(nn.Linear(64, 64, bias=False) for _ in range(depth))
        self.head = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 7))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        adjacency = graph.adj_external().to_dense()
        adjacency = adjacency / adjacency.sum(1, keepdim=True)
        for linear in self.weights:
            h = torch.relu(adjacency @ linear(h))
        return self.head(h)


class NormalizedGIN(nn.Module):
    """GIN with batch normalization and a readout of every layer, as in the paper."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for _ in range(depth):
            mlp = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 64))
            self.convs.append(dgl.nn.GINConv(mlp, "sum"))
            self.norms.append(nn.BatchNorm1d(64))
        self.scores = nn.ModuleList(nn.Linear(64, 2) for _ in range(depth + 1))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        hidden = [h]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(graph, h)))
            hidden.append(h)
        pool = dgl.nn.SumPooling()
        return sum(score(pool(graph, h)) for score, h in zip(self.scores, hidden, strict=True))


class KeepsGraph(nn.Module):
    """The style of DGL's first tutorials: the graph in the model, its data written in place."""

    def __init__(self, graph: DGLGraph, depth: int = 4) -> None:
        super().__init__()
        self.g, self.cache = graph, {"graphs": [graph]}
        self.linears = nn.ModuleList(nn.Linear(64, 64) for _ in range(depth))

    def forward(self, h: Tensor) -> Tensor:
        for linear in self.linears:
            self.g.ndata["h"] = linear(h)
            self.g.update_all(fn.copy_u("h", "m"), fn.mean("m", "h"))
            h = self.g.ndata["h"] = torch.relu(self.g.ndata["h"])
        self.cache["last"] = h
        return h


class WritesGraph(KeepsGraph):
    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:  # type: ignore[override]
        self.g = graph
        return super().forward(h)


class Dropped(nn.Module):
    """Dropout as a function: no module of the model shows it."""

    def __init__(self, depth: int, p: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(dgl.nn.SAGEConv(64, 64, "mean") for _ in range(depth))
        self.p = p

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        for conv in self.convs:
            h = F.dropout(F.relu(conv(graph, h)), self.p, self.training)
        return h


class Added(nn.Module):
    """Residual connections in forward, each of full weight."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(dgl.nn.GraphConv(64, 64) for _ in range(depth))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        for conv in self.convs:
            h = h + F.relu(conv(graph, h))
        return h


def stack(depth: int, layer: Any = dgl.nn.GraphConv) -> nn.Module:
    layers = [layer(64, 64, activation=torch.relu) for _ in range(depth - 1)]
    return dgl.nn.Sequential(*layers, layer(64, 64))


def scale(result: Diagnosis) -> Verdict:
    return result.verdicts[0]


# --- like with like ---


@pytest.mark.parametrize(
    "model", [Headed(32, 0), Headed(32, 2), ByHand(32)], ids=["head", "MLP", "by hand"]
)
def test_biases_of_a_head_do_not_hide_what_vanished(
    model: nn.Module, graph: DGLGraph, feat: Tensor
) -> None:
    result = diagnose(model, graph, feat, draws=4)
    assert scale(result).status == "vanishing", str(result)
    assert result.mean("mean_square")[-1] > 1e-4


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3], ids=["small", "one", "large"])
def test_normalization_forgets_the_scale_of_the_input(
    size: float, graph: DGLGraph, feat: Tensor
) -> None:
    result = diagnose(NormalizedGIN(6), graph, size * feat, draws=4)
    assert scale(result).status == "healthy", str(result)
    assert ("scale the features" in str(result)) == (size != 1)


def test_normalization_without_residual_connections_explodes_backwards(
    graph: DGLGraph, feat: Tensor
) -> None:
    """The gradient grows by pi / (pi - 1) and more in each of 40 layers (arXiv:1902.08129)."""
    result = diagnose(NormalizedGIN(40), graph, feat, draws=3)
    signal = result.mean("mean_square")[2:40]
    assert signal.max() < 2 * signal.min()
    assert scale(result).status == "exploding", str(result)
    assert "the first layer's squared gradient" in scale(result).message


# --- graphs that the model keeps or writes into ---


def test_model_that_keeps_and_writes_its_graph(graph: DGLGraph, feat: Tensor) -> None:
    model = KeepsGraph(graph)
    trained = model(feat)  # leaves features with a gradient's history in graph and model
    result = diagnose(model, graph, feat, forward=lambda model: model(feat), draws=3)
    assert result.layers == [*(f"linears.{i}" for i in range(4)), "output"]
    assert torch.equal(graph.ndata["h"], trained) and model.cache["last"] is trained
    assert result.measured["mean_square"][0, -1] == pytest.approx(trained.square().mean().item())


def test_graph_that_is_given_is_not_written(graph: DGLGraph, feat: Tensor) -> None:
    diagnose(WritesGraph(graph), graph, feat, draws=2)
    assert not graph.ndata


def test_model_that_cannot_be_copied_is_named(graph: DGLGraph, feat: Tensor) -> None:
    model = stack(2)
    model.stream = (number for number in range(3))  # a generator
    with pytest.raises(DGLError, match=r"copy is what is measured.*Sequential cannot be copied"):
        diagnose(model, graph, feat)


# --- weights that are not plain parameters ---


class Linears(nn.Module):
    def __init__(self, make: Any, depth: int = 5) -> None:
        super().__init__()
        self.linears = nn.ModuleList(make() for _ in range(depth))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        for linear in self.linears:
            h = torch.relu(linear(h))
        return h


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LazyLinear(64),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(64, 64)),
        lambda: nn.utils.weight_norm(nn.Linear(64, 64)),
    ],
    ids=["lazy", "parametrized", "weight norm"],
)
@pytest.mark.filterwarnings("ignore")  # lazy modules and the older weight norm are on their way out
def test_lazy_and_parametrized_layers(make: Any, graph: DGLGraph, feat: Tensor) -> None:
    model = Linears(make)
    lazy = nn.parameter.is_lazy(next(model.parameters()))
    result = diagnose(model, graph, feat, draws=2)
    assert result.layers == [*(f"linears.{i}" for i in range(5)), "output"]
    assert np.isfinite(result.measured["gradient"][:, :5]).all()
    assert nn.parameter.is_lazy(next(model.parameters())) == lazy


# --- training and evaluation mode ---


def test_dropout_in_forward_is_seen(graph: DGLGraph, feat: Tensor) -> None:
    """A critical network is level in evaluation, and grows in training."""
    model = closed_form_(Dropped(32, 0.5), graph)
    result = diagnose(model, graph, feat, draws=6)
    growth = result.mean("training")[-2] / result.mean("mean_square")[-2]
    assert growth > 1e2
    assert scale(result).status == "exploding", str(result)
    message = scale(result).message
    assert "Without dropout it would be healthy" in message
    # Scaled for training, the network falls in evaluation: by the draw, too far or just not.
    assert "Take less dropout" in message or "critical_(model, graph, feat) mends it" in message
    # The closed form does not see the dropout; its own probe in training mode does.
    assert "critical_(model, graph) refuses it: The closed form does not fit" in message
    plain = diagnose(critical_(Dropped(32, 0.0), graph), graph, feat, draws=6)
    assert "training" not in plain.measured and scale(plain).status == "healthy", str(plain)


def test_layers_left_out_in_training_are_not_compared(graph: DGLGraph, feat: Tensor) -> None:
    class Shallow(Headed):
        def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
            for conv in self.convs[: 2 if self.training else None]:
                h = F.relu(conv(graph, h))
            return self.head(h)

    result = diagnose(Shallow(4, 0), graph, feat, draws=2)
    assert "training" not in result.measured and len(result.layers) == 6


# --- advice ---


def test_advice_to_a_stock_model_can_be_followed(graph: DGLGraph, feat: Tensor) -> None:
    model = stack(32)
    before = diagnose(model, graph, feat, draws=4)
    assert [v.status for v in before.verdicts] == ["vanishing", "oversmoothed", "oversmoothed"]
    messages = [verdict.message for verdict in before.verdicts]
    assert "critical_(model, graph) mends it" in messages[0]
    assert "ResGraphConv(..., t=0.031) for GraphConv" in messages[1]
    assert "h = h + layer(graph, relu(h)) / 32**0.5" in messages[2]
    assert not any(word in str(before) for word in ("t='", "residual='", "init='"))

    class Followed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(ResGraphConv(64, 64, t=0.031) for _ in range(32))

        def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
            for layer in self.layers:
                h = h + layer(graph, torch.relu(h)) / 32**0.5
            return h

    after = diagnose(critical_(Followed(), graph), graph, feat, draws=4)
    assert [v.status for v in after.verdicts] == ["healthy"] * 3, str(after)


def test_what_was_done_is_not_advised_again(graph: DGLGraph, feat: Tensor) -> None:
    """In closed form nothing is known of residual connections in forward; measured, it is."""
    model = closed_form_(Added(40), graph)
    result = diagnose(model, graph, feat, draws=3)
    assert scale(result).status == "exploding"
    assert (
        "critical_(model, graph) refuses it: The closed form does not fit" in scale(result).message
    )
    assert "critical_(model, graph, feat) mends it" in scale(result).message
    assert scale(diagnose(critical_(model, graph, feat), graph, feat, draws=3)).status == "healthy"


def test_advice_is_tried_first(graph: DGLGraph, feat: Tensor) -> None:
    model = Added(64)
    for conv in model.convs:
        nn.init.normal_(conv.weight, std=0.3)
    forward = lambda model: model(graph, feat)  # noqa: E731
    message = scale(diagnose(model, graph, feat, forward=forward, draws=3)).message
    assert "critical_(model, graph) refuses it: The closed form does not fit" in message
    assert "critical_(model, forward=forward) mends it" in message


def test_where_no_initialization_helps_the_cause_is_sought_elsewhere(
    graph: DGLGraph, feat: Tensor
) -> None:
    class Quadrupled(Added):
        def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
            for conv in self.convs:
                h = 4 * h + F.relu(conv(graph, h))
            return h

    message = scale(diagnose(Quadrupled(32), graph, feat, draws=2)).message
    assert "mends it" not in message.replace("not mend it", "")
    assert "Look for the cause elsewhere: residual connections" in message


def test_a_model_that_critical_refuses_gets_the_reason(graph: DGLGraph, feat: Tensor) -> None:
    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix = nn.Parameter(torch.randn(64, 64))

        def forward(self, h: Tensor) -> Tensor:
            return torch.relu(h @ self.mix)

    model = nn.Sequential(*(Layer() for _ in range(16)))
    result = diagnose(model, graph, feat, forward=lambda model: model(feat), draws=2)
    assert scale(result).status == "exploding"
    assert "No initializer is known for Layer" in scale(result).message


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"residual": "plain"}, ["residual='fixup' or 'scaled'"]),
        ({"residual": None, "t": 1.0, "init": "glorot"}, ["init='critical'", "t='per-depth:1'"]),
        ({"residual": None}, ["residual='fixup' or 'scaled'"]),
    ],
)
def test_advice_to_our_models_is_their_arguments(
    arguments: dict[str, Any], words: list[str], graph: DGLGraph, feat: Tensor
) -> None:
    model = create_model("resgcn", in_feats=64, hidden_feats=64, out_feats=64, num_layers=48,
                         **arguments)  # fmt: skip
    messages = " ".join(v.message for v in diagnose(model, graph, feat, draws=3).verdicts)
    assert all(word in messages for word in words), messages
    assert "ResGraphConv" not in messages and "critical_(" not in messages


def test_healthy_models_get_no_advice(graph: DGLGraph, feat: Tensor) -> None:
    result = diagnose(ResGCN(64, 64, 64, 32), graph, feat, draws=3)
    assert [v.status for v in result.verdicts] == ["healthy"] * 3, str(result)
    assert not any(w in str(result) for w in ("mends", "build it", "take layers", "Take fewer"))
    np.testing.assert_array_less(0.02, result.mean("mean_square"))


def test_what_is_drawn_as_it_would_be_is_said_to_be(graph: DGLGraph, feat: Tensor) -> None:
    """The closed form cannot check a model that is called otherwise, and would change nothing."""

    class Tripled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(dgl.nn.GraphConv(64, 64) for _ in range(16))

        def forward(self, h: Tensor, graph: DGLGraph) -> Tensor:
            for conv in self.convs:
                h = 3 * F.relu(conv(graph, h))
            return h

    def verdict(model: nn.Module) -> Verdict:
        result = diagnose(model, graph, feat, forward=lambda m: m(feat, graph), draws=3)
        return scale(result)

    torch.manual_seed(0)
    stock, drawn = Tripled(), Tripled()
    with pytest.warns(UserWarning, match="Nothing was checked"):
        critical_(drawn, graph)
    already = "Its weights have the scale of critical_(model, graph) already."
    message = verdict(drawn).message
    assert f"{already} critical_(model, forward=forward)" in message  # which is tried, too
    assert verdict(stock).status != "healthy" and already not in verdict(stock).message


class Heads(Headed):
    """Several heads, in a container of the test's."""

    def __init__(self, make: Any) -> None:
        super().__init__(4, 0)
        self.second, self.make = nn.Linear(64, 3), make
        nn.init.constant_(self.second.weight, 2.0)

    def forward(self, graph: DGLGraph, h: Tensor) -> Any:
        h = F.relu(self.encode(h))
        for conv in self.convs:
            h = F.relu(conv(graph, h))
        return self.make(self.head(h), self.second(h))


@pytest.mark.parametrize(
    ("make", "first", "other"),
    [
        (lambda a, b: (a, b), "output[0]", "output[1]"),
        (lambda a, b: {"class": a, "value": b}, "output['class']", "output['value']"),
        (lambda a, b: {"loss": a.sum(), "all": [a, b]}, "output['all'][0]", "output['all'][1]"),
    ],
)
def test_several_outputs(graph: DGLGraph, feat: Tensor, make: Any, first: str, other: str) -> None:
    """The first is judged, as if it were the only one; the others are named."""
    torch.manual_seed(0)
    model = Heads(make)
    result = diagnose(model, graph, feat, draws=2)

    class Alone(Heads):
        forward = Headed.forward

    single = Alone(make)
    single.load_state_dict(model.state_dict())
    alone = diagnose(single, graph, feat, draws=1)
    assert (result.output, [*result.other_outputs]) == (first, [other])
    assert result.layers[:-2] == alone.layers[:-1] and result.layers[-2] == "second"
    measured = np.delete(result.measured["mean_square"][0], -2)
    assert np.allclose(measured, alone.measured["mean_square"][0])
    assert np.isfinite(result.mean("gradient")[:-1]).all()  # of the second head, too
    out = result.other_outputs[other]
    assert f"Of 2 outputs the table shows {first}" in str(result) and f"{other} " in str(result)
    with torch.no_grad():
        both = Heads(lambda a, b: [a, b])
        both.load_state_dict(model.state_dict())
        assert out == pytest.approx(both(graph, feat)[1].square().mean().item(), rel=1e-4)
    assert "other_outputs" in result.to_dict()


def test_an_output_without_scores_is_an_error(graph: DGLGraph, feat: Tensor) -> None:
    with pytest.raises(DGLError, match="returns no matrix of floats, alone or in a tuple"):
        diagnose(Heads(lambda a, b: {"loss": a.sum()}), graph, feat, draws=1)
