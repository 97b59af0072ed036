"""The deep body against its formula in dense float64 algebra, and the laws it must keep."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dgl_deepgnn  # noqa: F401  # isort: skip (before DGL 2, in spawned processes, too)

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dgl_deepgnn import (
    DeepGNN,
    ResGCN,
    ResGIN,
    ResGraphSAGE,
    create_model,
    list_models,
    register_model,
)
from dgl_deepgnn.nn import ResidualConv

FAMILIES: dict[str, tuple[type[DeepGNN], dict[str, Any]]] = {
    "gcn": (ResGCN, {}),
    "sage": (ResGraphSAGE, {}),
    "sage-variance": (ResGraphSAGE, {"interpolation": "variance"}),
    "gin": (ResGIN, {"mlp_layers": 2}),
}
SCHEDULES: dict[float | str, list[float]] = {
    1.0: [1, 1, 1, 1, 1],
    0.3: [0.3, 0.3, 0.3, 0.3, 0.3],
    "per-depth:2": [0.4, 0.4, 0.4, 0.4, 0.4],
    "harmonic:0.9": [0.9, 0.45, 0.3, 0.225, 0.18],
}
RESIDUALS = [None, "plain", "scaled", "fixup", "initial"]
ALPHA = 0.2


@pytest.fixture
def weighted() -> tuple[DGLGraph, Tensor]:
    """Directed multigraph with self-loops and edge weights: every spectral radius is off one."""
    generator = torch.Generator().manual_seed(7)
    src, dst = torch.randint(9, (2, 30), generator=generator)
    graph = dgl.graph((src, dst), num_nodes=9).add_self_loop()
    return graph, torch.rand(graph.num_edges(), generator=generator) + 0.2


def build(family: str, *widths: int, **body: Any) -> DeepGNN:
    model_class, arguments = FAMILIES[family]
    return model_class(*widths, **arguments, **body)


def randomize(model: nn.Module) -> None:
    """Give every parameter a value, so that no branch is zero."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5, generator=generator)


def dense_scores(
    model: DeepGNN,
    aggregation: Tensor,
    schedule: list[float],
    feat: Tensor,
    family: str,
    residual: str | None,
    normalize: Callable[[Tensor, nn.Module], Tensor] = lambda x, _: x,
) -> Tensor:
    """The docstrings' formulas; `aggregation` is A / lambda."""
    identity = torch.eye(len(aggregation), dtype=aggregation.dtype)
    if residual == "initial":  # its ends do not aggregate
        schedule = [0, *schedule[1:-1], 0 if model.head is None else schedule[-1]]

    def operator(layer: int) -> Tensor:
        t = 1.0 if family == "sage-variance" else schedule[layer]
        return (1 - t) * identity + t * aggregation

    def conv(layer: int, x: Tensor) -> Tensor:
        weights = dict(model.convs[layer].named_parameters())
        mixed = operator(layer) @ x
        if family == "gcn":
            return mixed @ weights["weight"] + weights["bias"]
        if family == "gin":
            hidden = mixed @ weights["mlp.0.weight"].T + weights["mlp.0.bias"]
            return hidden.clamp(min=0) @ weights["mlp.1.weight"].T + weights["mlp.1.bias"]
        return x @ weights["weight_self"] + mixed @ weights["weight_neigh"] + weights["bias"]

    def activate(layer: int, x: Tensor) -> Tensor:
        return normalize(x, model.norms[layer]).clamp(min=0)

    last = len(schedule) - 1
    node_head = model.head is None
    num_branches = last - 1 if node_head else last
    tau = 1 if residual == "plain" else num_branches**-0.5
    x = first = conv(0, feat)
    for layer in range(1, last + 1):
        branch = conv(layer, activate(layer - 1, x))
        if residual is None or (node_head and layer == last):
            x = branch
        elif residual == "initial":
            x = (1 - ALPHA) * operator(layer) @ x + ALPHA * first + tau * branch
        else:
            x = x + tau * branch
    return x if node_head else activate(last, x)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("t", SCHEDULES)
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("widths", [(3, 4, 2), (5, 4, 6)], ids=str)
def test_scores_and_gradients_are_those_of_dense_algebra(
    weighted: tuple[DGLGraph, Tensor],
    critical_aggregation: Callable[..., Tensor],
    family: str,
    t: float | str,
    residual: str | None,
    widths: tuple[int, int, int],
) -> None:
    graph, weight = weighted
    model = build(family, *widths, 5, t=t, residual=residual, alpha=ALPHA).double()
    randomize(model)
    feat = torch.randn(graph.num_nodes(), widths[0], dtype=torch.float64, requires_grad=True)
    aggregation = critical_aggregation(graph, model.config["norm"], weight)
    expected = dense_scores(model, aggregation, SCHEDULES[t], feat, family, residual)
    found = model(graph, feat, weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    probe = torch.randn_like(found)
    inputs = [feat, *model.parameters()]
    for ours, dense in zip(
        torch.autograd.grad((found * probe).sum(), inputs),
        torch.autograd.grad((expected * probe).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("t", [1.0, 0.3, "harmonic:0.9"])
def test_gradient_in_the_edge_weights(
    weighted: tuple[DGLGraph, Tensor], dense_aggregation: Callable[..., Tensor], t: float | str
) -> None:
    graph, weight = weighted
    weight = weight.double().requires_grad_()
    model = ResGCN(3, 4, 2, 5, t=t, residual="initial", alpha=ALPHA, spectral_radius=1.5).double()
    randomize(model)
    feat = torch.randn(9, 3, dtype=torch.float64)
    aggregation = dense_aggregation(graph, "both", weight) / 1.5
    expected = dense_scores(model, aggregation, SCHEDULES[t], feat, "gcn", "initial")
    probe = torch.randn_like(expected)
    (dense,) = torch.autograd.grad((expected * probe).sum(), weight)
    (ours,) = torch.autograd.grad((model(graph, feat, weight) * probe).sum(), weight)
    torch.testing.assert_close(ours, dense)


@pytest.mark.parametrize("family", ["gcn", "sage", "gin"])
def test_gradcheck(weighted: tuple[DGLGraph, Tensor], family: str) -> None:
    graph, weight = weighted
    model = build(family, 2, 3, 2, 3, t=0.5, residual="scaled", head="graph").double()
    randomize(model)
    operator = model.operator(graph, weight)
    feat = torch.randn(9, 2, dtype=torch.float64, requires_grad=True)
    # Finite differences change the parameters in place.
    assert torch.autograd.gradcheck(
        lambda feat, *_: model(operator, feat), (feat, *model.parameters())
    )


def layer_norm(x: Tensor, module: nn.Module) -> Tensor:
    centred = x - x.mean(1, keepdim=True)
    scaled = centred / (centred.square().mean(1, keepdim=True) + module.eps).sqrt()
    return scaled * module.weight + module.bias


def batch_norm(x: Tensor, module: nn.Module) -> Tensor:
    centred = x - x.mean(0)
    scaled = centred / (centred.square().mean(0) + module.eps).sqrt()
    return scaled * module.weight + module.bias


@pytest.mark.parametrize(
    ("norm_layer", "normalize"), [("layer", layer_norm), ("batch", batch_norm)]
)
@pytest.mark.parametrize("residual", [None, "scaled"])
@pytest.mark.parametrize("head", ["node", "graph"])
def test_normalization_stands_in_front_of_every_relu(
    weighted: tuple[DGLGraph, Tensor],
    critical_aggregation: Callable[..., Tensor],
    norm_layer: str,
    normalize: Callable[[Tensor, nn.Module], Tensor],
    residual: str | None,
    head: str,
) -> None:
    graph, weight = weighted
    model = ResGCN(3, 4, 2, 5, t=0.3, residual=residual, norm_layer=norm_layer, head=head)
    model.double()
    randomize(model)
    feat = torch.randn(9, 3, dtype=torch.float64)
    expected = dense_scores(
        model,
        critical_aggregation(graph, "both", weight),
        SCHEDULES[0.3],
        feat,
        "gcn",
        residual,
        normalize,
    )
    if head == "graph":
        expected = model.head.linear(expected.mean(0, keepdim=True))
    torch.testing.assert_close(model(graph, feat, weight), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["node", "graph", "edge"])
def test_batch_is_graph_by_graph(batch: DGLGraph, family: str, head: str) -> None:
    model = build(family, 3, 4, 2, 4, t=0.6, residual="scaled", head=head)
    feat = torch.randn(batch.num_nodes(), 3)
    parts = zip(dgl.unbatch(batch), feat.split(batch.batch_num_nodes().tolist()), strict=True)
    alone = torch.cat([model(graph, part) for graph, part in parts])
    torch.testing.assert_close(model(batch, feat), alone)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 10_000),
    num_nodes=st.integers(1, 12),
    family=st.sampled_from(sorted(FAMILIES)),
    head=st.sampled_from(["node", "graph", "edge"]),
    residual=st.sampled_from(RESIDUALS),
    t=st.sampled_from(sorted(SCHEDULES, key=str)),
)
def test_renumbering_the_nodes_renumbers_the_scores(
    seed: int, num_nodes: int, family: str, head: str, residual: str | None, t: float | str
) -> None:
    generator = torch.Generator().manual_seed(seed)
    src, dst = torch.randint(num_nodes, (2, 2 * num_nodes), generator=generator)
    loops = torch.arange(num_nodes)
    src, dst = torch.cat([src, loops]), torch.cat([dst, loops])
    number = torch.randperm(num_nodes, generator=generator)
    weight = torch.rand(len(src), generator=generator) + 0.1
    feat = torch.randn(num_nodes, 3, generator=generator, dtype=torch.float64)
    renumbered = torch.empty_like(feat)
    renumbered[number] = feat
    model = build(family, 3, 4, 2, 4, t=t, residual=residual, head=head).double()
    randomize(model)
    before = model(dgl.graph((src, dst), num_nodes=num_nodes), feat, weight)
    graph = dgl.graph((number[src], number[dst]), num_nodes=num_nodes)
    after = model(graph, renumbered, weight)
    torch.testing.assert_close(
        after[number] if head == "node" else after, before, rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("t", SCHEDULES)
@pytest.mark.parametrize("head", ["node", "graph", "edge"])
def test_operator_in_place_of_the_graph(
    weighted: tuple[DGLGraph, Tensor], t: float | str, head: str
) -> None:
    graph, weight = weighted
    model = ResGIN(3, 4, 2, 5, t=t, head=head)
    feat = torch.randn(9, 3)
    operator = model.operator(graph, weight).to("cpu")
    torch.testing.assert_close(model(operator, feat), model(graph, feat, weight))
    with pytest.raises(DGLError, match="give edge_weight to it"):
        model(operator, feat, weight)


def test_graph_is_not_changed(weighted: tuple[DGLGraph, Tensor]) -> None:
    graph, weight = weighted
    graph.ndata["feat"], graph.edata["w"] = torch.ones(9, 3), weight
    ResGCN(3, 4, 2, 5, head="edge")(graph, graph.ndata["feat"], graph.edata["w"])
    assert set(graph.ndata) == {"feat"}
    assert set(graph.edata) == {"w"}
    assert torch.equal(graph.edata["w"], weight)


def test_repr_is_how_it_was_made_and_short() -> None:
    model = ResGIN(3, 4, 2, 1000, t="harmonic:1", head="graph", mlp_layers=1)
    assert len(repr(model)) < 500
    assert eval(repr(model)).config == model.config
    assert repr(model) in repr(torch.nn.Sequential(model))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("t", [0.3, "harmonic:0.9"])
@pytest.mark.parametrize("head", ["node", "graph"])
def test_fixup_networks_start_as_their_first_and_last_layer(
    weighted: tuple[DGLGraph, Tensor], family: str, t: float | str, head: str
) -> None:
    """At initialization the branches do not matter, however many there are."""
    graph, _ = weighted
    feat = torch.randn(9, 3)
    # Wide, since the few units of a narrow MLP are all dead at times: then nothing learns.
    model = build(family, 3, 32, 32, 9, t=t, residual="fixup", head=head)
    before = model(graph, feat)
    assert len(model.branches) == (7 if head == "node" else 8)
    x = model.convs[0](graph, feat).relu()
    expected = model.convs[-1](graph, x) if head == "node" else model.head(graph, x)
    torch.testing.assert_close(before, expected)
    # But they learn: the gradient of their last weights is not zero.
    before.square().sum().backward()
    last = [list(conv.parameters())[-2 if family == "gin" else 0] for conv in model.branches]
    assert all(weight.grad.any() for weight in last)


@pytest.mark.parametrize("family", ["gcn", "sage", "gin"])
@pytest.mark.parametrize("residual", ["scaled", "fixup"])
def test_scale_does_not_depend_on_depth(family: str, residual: str) -> None:
    """Scores and gradients are of order one with 1024 layers as with 4.

    B scaled branches, each critical, multiply the mean square by at most (1 + 1/B)^B < e.
    """
    torch.manual_seed(3)
    src, dst = torch.randint(16, (2, 48))
    graph = dgl.to_bidirected(dgl.graph((src, dst), num_nodes=16)).add_self_loop()
    feat = torch.randn(16, 96)
    gradients = []
    for depth, draws in ((4, 12), (32, 8), (1024, 2)):
        model = build(family, 96, 96, 96, depth, residual=residual, t="per-depth:1")
        operator = model.operator(graph)
        squares, squared_gradients = [], []
        for _ in range(draws):
            model.reset_parameters()
            model.zero_grad()
            scores = model(operator, feat)
            squares.append(scores.square().mean())
            (scores * torch.randn_like(scores)).sum().backward()
            squared_gradients.append(next(model.convs[0].parameters()).grad.square().mean())
        branches = depth - 2
        growth = (1 + 1 / branches) ** branches if residual == "scaled" else 1.0
        ratio = torch.stack(squares).mean() / feat.square().mean() / growth
        assert 1 / 3 < ratio < 1.5, f"depth {depth}"
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        gradients.append(torch.stack(squared_gradients).mean().item())
    assert max(gradients) < 5 * min(gradients)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("init", ["critical", "glorot"])
@pytest.mark.parametrize("norm_layer", ["none", "batch"])
def test_output_gain_scales_the_first_scores_and_nothing_else(
    batch: DGLGraph, family: str, head: str, init: str, norm_layer: str
) -> None:
    feat = torch.randn(batch.num_nodes(), 3, generator=torch.Generator().manual_seed(0))
    models, scores = [], []
    for gain in (1.0, 0.1, 0.0):
        torch.manual_seed(0)
        options = {"head": head, "init": init, "norm_layer": norm_layer, "output_gain": gain}
        models.append(build(family, 3, 4, 2, num_layers=4, residual="scaled", **options).eval())
        scores.append(models[-1](batch, feat))
    assert scores[0].abs().max() > 1e-3
    assert torch.allclose(scores[1], 0.1 * scores[0], rtol=1e-4, atol=1e-6)
    assert not scores[2].any()
    prefix = models[0].head_prefix
    for name, weight in models[0].state_dict().items():
        assert name.startswith(prefix) or torch.equal(weight, models[1].state_dict()[name])


def test_weights_follow_the_seed() -> None:
    def draw(seed: int) -> list[Tensor]:
        torch.manual_seed(seed)
        return [parameter.clone() for parameter in ResGIN(3, 4, 2, 4).parameters()]

    first, again, other = draw(0), draw(0), draw(1)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


@pytest.mark.parametrize("init", ["critical", "he", "glorot"])
def test_reset_parameters_draws_anew(init: str) -> None:
    model = ResGCN(40, 40, 40, 4, residual="plain", init=init, norm_layer="layer", head="graph")
    before = copy.deepcopy(model.state_dict())
    randomize(model)
    model.reset_parameters()
    after = model.state_dict()
    for name, old in before.items():
        if name.endswith("bias") or "norm" in name:
            assert torch.equal(after[name], old)
        else:
            assert not torch.equal(after[name], old)
            assert after[name].std().item() == pytest.approx(old.std().item(), rel=0.15)


def test_dropout_only_in_training(weighted: tuple[DGLGraph, Tensor]) -> None:
    graph, _ = weighted
    feat = torch.randn(9, 3)
    plain = ResGCN(3, 16, 2, 3, residual=None)
    dropping = ResGCN(3, 16, 2, 3, residual=None, dropout=0.5)
    dropping.load_state_dict(plain.state_dict())
    assert not torch.equal(dropping(graph, feat), dropping(graph, feat))
    torch.testing.assert_close(dropping.eval()(graph, feat), plain(graph, feat))
    # In front of every convolution, the first included.
    dropping.train()
    shares: list[float] = []
    for conv in dropping.convs:
        conv.register_forward_pre_hook(
            lambda _, inputs: shares.append((inputs[1] == 0).float().mean().item())
        )
    dropping(graph, torch.ones(9, 3))
    assert 0 < shares[0] < 1
    assert all(share > 0.5 for share in shares[1:])


def test_deep_copy(weighted: tuple[DGLGraph, Tensor]) -> None:
    graph, _ = weighted
    model = ResGraphSAGE(3, 4, 2, 4, head="graph")
    feat = torch.randn(9, 3)
    expected = model(graph, feat)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(graph, feat), expected)
    randomize(twin)
    assert torch.equal(model(graph, feat), expected)
    assert not torch.equal(twin(graph, feat), expected)


@pytest.mark.parametrize("name", ["resgcn", "resgin", "resgraphsage"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"t": "harmonic:2", "residual": "initial", "alpha": 0.3, "init": "he", "norm": "left"},
        {"t": 0.5, "residual": None, "norm_layer": "batch", "head": "graph", "readout": "max"},
        {"head": "edge", "edge_feats": 2, "dropout": 0.2, "spectral_radius": 1.7},
    ],
    ids=["default", "initial", "graph", "edge"],
)
def test_config_rebuilds_the_model(
    weighted: tuple[DGLGraph, Tensor], name: str, body: dict[str, Any]
) -> None:
    assert name in list_models()
    graph, weight = weighted
    own = {"resgcn": {}, "resgin": {"mlp_layers": 3}, "resgraphsage": {"interpolation": "variance"}}
    arguments = {"in_feats": 3, "hidden_feats": 4, "out_feats": 2, "num_layers": 4}
    model = create_model(name, **arguments, **body, **own[name])
    randomize(model)
    rebuilt = create_model(name, **model.config)
    assert type(rebuilt) is type(model)
    assert rebuilt.config == model.config
    rebuilt.load_state_dict(model.state_dict())
    feat = torch.randn(9, 3)
    edge_feat = torch.randn(graph.num_edges(), 2) if "edge_feats" in body else None
    outputs = [m.eval()(graph, feat, weight, edge_feat=edge_feat) for m in (model, rebuilt)]
    assert torch.equal(*outputs)


def test_models_by_name() -> None:
    assert {"resgcn", "resgin", "resgraphsage"} <= set(list_models())
    assert list_models("resg*") == sorted(list_models("resg*"))
    assert list_models("*sage") == ["resgraphsage"]
    assert list_models("nothing*") == []
    with pytest.raises(ValueError, match=r"no model 'resgccn'\. Did you mean 'resgcn'"):
        create_model("resgccn", in_feats=3, hidden_feats=4, out_feats=2, num_layers=2)
    with pytest.raises(ValueError, match="'resgcn' is registered already"):
        register_model("resgcn")(ResGCN)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_layers": -3}, "num_layers must be a whole number of at least 1, got -3"),
        ({"num_layers": 0}, "num_layers must be a whole number of at least 1, got 0"),
        ({"hidden_feats": 0}, "hidden_feats must be a whole number of at least 1, got 0"),
        ({"out_feats": -1}, "out_feats must be a whole number of at least 1, got -1"),
        ({"residual": "dense"}, "residual must be one of .*'fixup'.*got 'dense'"),
        ({"t": 0}, r"t = 0 is not.*number in \(0, 1\].*'per-depth:c'"),
        ({"t": 1.1}, r"t = 1\.1 is not"),
        ({"t": "per-layer:2"}, r"t = 'per-layer:2' is not"),
        ({"t": "harmonic:-1"}, r"t = 'harmonic:-1' is not"),
        ({"t": float("nan")}, "t = nan is not"),
        ({"init": "orthogonal"}, "init must be one of .*'critical'.*got 'orthogonal'"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1\.0"),
        ({"norm_layer": "group"}, "norm_layer must be one of .*'batch'.*got 'group'"),
        ({"head": "link"}, "head must be one of .*'edge'.*got 'link'"),
        ({"alpha": 0}, r"alpha must be a number in \(0, 1\), got 0"),
        ({"norm": "mean"}, "norm must be one of 'both'.*got 'mean'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    widths = {"in_feats": 3, "hidden_feats": 4, "out_feats": 2, "num_layers": 3}
    with pytest.raises(DGLError, match=message):
        ResGCN(**{**widths, **arguments})


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((9, 5), r"\(9, 5\).*in_feats=3: expected \(nodes, 3\)"),
        ((8, 3), r"\(8, 3\).*9 such nodes: expected \(9, 3\)"),
        ((9,), r"\(9,\).*expected \(nodes, 3\)"),
    ],
)
def test_features_that_do_not_fit(
    weighted: tuple[DGLGraph, Tensor], shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DGLError, match=message):
        ResGCN(3, 4, 2, 3)(weighted[0], torch.ones(shape))


@pytest.mark.parametrize(
    ("precise", "dtype", "message"),
    [
        (
            False,
            torch.float64,
            r"are torch.float64, .* weights are torch.float32: .*feat.float\(\)",
        ),
        (False, torch.int64, r"are torch.int64, .*feat.float\(\)"),
        (True, torch.float32, r"weights are torch.float64: give feat.to\(torch.float64\)"),
    ],
)
def test_features_of_another_type(
    weighted: tuple[DGLGraph, Tensor], precise: bool, dtype: torch.dtype, message: str
) -> None:
    model = ResGCN(3, 4, 2, 2)
    with pytest.raises(DGLError, match=message):
        (model.double() if precise else model)(weighted[0], torch.ones(9, 3, dtype=dtype))


def test_autocast_takes_features_of_lower_precision(weighted: tuple[DGLGraph, Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        scores = ResGCN(3, 4, 2, 2)(weighted[0], torch.ones(9, 3, dtype=torch.bfloat16))
    assert torch.isfinite(scores).all()


def test_heterogeneous_graph_is_refused() -> None:
    graph = dgl.heterograph({("a", "x", "a"): ([0], [0]), ("a", "y", "b"): ([0], [0])})
    with pytest.raises(DGLError, match=r"2 edge types.*HeteroGraphConv"):
        ResGCN(3, 4, 2, 3)(graph, torch.ones(1, 3))


def test_layers_are_exposed() -> None:
    model = ResGCN(3, 4, 2, 6)
    assert all(isinstance(conv, ResidualConv) for conv in model.convs)
    assert [(conv.in_feats, conv.out_feats) for conv in model.convs] == [
        (3, 4),
        *[(4, 4)] * 4,
        (4, 2),
    ]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("residual", RESIDUALS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_changes_no_bit_of_the_gradient(
    family: str, residual: str | None, dropout: float, weighted: tuple[DGLGraph, Tensor]
) -> None:
    graph, weight = weighted
    feat = torch.randn(9, 4, generator=torch.Generator().manual_seed(3))
    results = []
    for checkpoint in (False, True):
        model = build(
            family, 4, 6, 2, 13, residual=residual, dropout=dropout, checkpoint=checkpoint
        )
        randomize(model)
        torch.manual_seed(5)
        scores = model(graph, feat, weight)
        results.append((scores, *torch.autograd.grad(scores.square().sum(), model.parameters())))
    for plain, checkpointed in zip(*results, strict=True):
        assert torch.equal(plain, checkpointed)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("residual", RESIDUALS)
def test_autocast_trains(
    family: str, residual: str | None, weighted: tuple[DGLGraph, Tensor]
) -> None:
    graph, _ = weighted
    # Wide: of few numbers all may be near zero, where bfloat16 is relatively far off.
    model = build(family, 4, 32, 32, 5, residual=residual)
    feat = torch.randn(9, 4)
    exact = model(graph, feat)
    with torch.autocast("cpu", torch.bfloat16):
        scores = model(graph, feat)
    assert (scores.float() - exact).norm() < 0.1 * exact.norm()
    scores.float().square().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_checkpointing_keeps_about_a_root_of_the_layers() -> None:
    graph = dgl.rand_graph(50, 200).add_self_loop()
    kept = []
    for checkpoint in (False, True):
        model = ResGCN(8, 8, 8, 100, checkpoint=checkpoint)
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, saved=saved: saved.append(tensor.numel()) or tensor,
            lambda tensor: tensor,
        ):
            model(graph, torch.randn(50, 8))
        kept.append(sum(size for size in saved if size == 400))
    assert kept[1] < 0.3 * kept[0]


def test_batch_norm_cannot_be_checkpointed() -> None:
    with pytest.raises(DGLError, match="norm_layer must be other than 'batch' with checkpoint"):
        ResGCN(4, 4, 2, 4, norm_layer="batch", checkpoint=True)


def _train_in_parallel(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    gradients = []
    for checkpoint in (False, True):
        torch.manual_seed(0)
        model = ResGCN(4, 6, 2, 9, residual="plain", checkpoint=checkpoint)
        src, dst = torch.randint(20 + rank, (2, 60))
        operator = model.operator(dgl.graph((src, dst), num_nodes=20 + rank).add_self_loop())
        parallel = nn.parallel.DistributedDataParallel(model)
        parallel(operator, torch.ones(20 + rank, 4)).square().mean().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
        del parallel
    if rank == 0:
        torch.save(gradients, f"{folder}/gradients.pt")
    torch.distributed.barrier()
    os._exit(0)  # an orderly end aborts at times, in one of gloo's threads


def test_checkpointing_under_data_parallel(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_train_in_parallel, (str(tmp_path),), nprocs=2)
    plain, checkpointed = torch.load(tmp_path / "gradients.pt")
    assert len(plain) == 18 and plain[0].abs().sum() > 0
    for one, other in zip(plain, checkpointed, strict=True):
        assert torch.equal(one, other)


def test_ends_of_the_initial_kind_do_not_aggregate() -> None:
    """Beside a path of two nodes, a node without neighbours: alike before the inner layers."""
    graph = dgl.graph(([0, 1, 0, 1, 2], [1, 0, 0, 1, 2]))
    feat = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    model = ResGCN(2, 4, 2, 5, t=1.0, residual="initial")
    first, *inner, last = model.convs
    operator = model.operator(graph)
    for conv, x in ((first, feat), (last, torch.eye(3, 4))):
        torch.testing.assert_close(conv(operator, x), x @ conv.weight + conv.bias)
        assert conv.t == 0
    assert [conv.t for conv in inner] == [1.0, 1.0, 1.0]
    # With no layer between them the ends would be all: they aggregate.
    assert [conv.t for conv in ResGCN(2, 4, 2, 2, t=1.0, residual="initial").convs] == [1.0, 1.0]
    assert [
        conv.t for conv in ResGCN(2, 4, 2, 2, t=1.0, residual="initial", head="graph").convs
    ] == [0.0, 1.0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_convolution_of_the_users_own_is_called(family: str, graph: DGLGraph) -> None:
    """No shortcut passes over what a subclass or a hook on one of its parts does."""
    torch.manual_seed(0)
    model = build(family, 3, 32, 2, 5, residual="scaled")
    feat = torch.randn(graph.num_nodes(), 3)
    conv = model.convs[2]

    class Twice(type(conv)):  # type: ignore[misc]
        def transform(self, *args: Any) -> Tensor:
            return 2 * super().transform(*args)

    conv.__class__ = Twice
    scores = model(graph, feat)
    conv.__class__ = Twice.__base__
    assert not torch.allclose(model(graph, feat), scores)
    conv.register_forward_hook(lambda module, inputs, out: 2 * out)
    torch.testing.assert_close(model(graph, feat), scores)


def test_hooks_on_the_linear_layers_of_gin_are_called(graph: DGLGraph) -> None:
    model = build("gin", 3, 8, 2, 5)
    calls = []
    for conv in model.convs:
        conv.mlp[-1].register_forward_hook(lambda *_: calls.append(1))
    model(graph, torch.randn(graph.num_nodes(), 3))
    assert len(calls) == 5
