"""The theory against Monte-Carlo integrals, finite networks, autograd, and its own limits."""

from __future__ import annotations

import math

import dgl
import networkx as nx
import numpy as np
import pytest
import torch
from dgl import DGLError

from dgl_deepgnn import create_model
from dgl_deepgnn.theory import kappa, kappa_derivative, predict

WIDTH = 256


@pytest.fixture(scope="module")
def karate() -> dgl.DGLGraph:
    return dgl.from_networkx(nx.karate_club_graph()).add_self_loop()


@pytest.fixture(scope="module")
def feat(karate: dgl.DGLGraph) -> torch.Tensor:
    return torch.randn(karate.num_nodes(), 32, generator=torch.Generator().manual_seed(1))


def directed_weighted() -> tuple[dgl.DGLGraph, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    src, dst = torch.randint(0, 20, (2, 70), generator=generator)
    graph = dgl.graph((src, dst), num_nodes=20).add_self_loop()
    return graph, torch.rand(graph.num_edges(), generator=generator) + 0.2


@pytest.mark.parametrize("rho", [-0.9, -0.3, 0.2, 0.7, 0.99])
def test_kappa_is_the_correlation_after_relu(rho: float) -> None:
    a, noise = np.random.default_rng(0).standard_normal((2, 1_000_000))
    b = rho * a + math.sqrt(1 - rho**2) * noise
    product = 2 * np.maximum(a, 0) * np.maximum(b, 0)
    both = 2 * ((a > 0) & (b > 0))
    assert abs(product.mean() - kappa(np.array(rho))) < 4 * product.std() / 1000
    assert abs(both.mean() - kappa_derivative(np.array(rho))) < 4 * both.std() / 1000


def test_kappa_has_its_analytic_values() -> None:
    rho = np.linspace(-1, 1, 101)
    values = kappa(rho)
    assert values[[0, 50, 100]] == pytest.approx([0, 1 / math.pi, 1])
    assert (values >= rho - 1e-12).all()
    inner = rho[1:-1]
    slope = (kappa(inner + 1e-6) - kappa(inner - 1e-6)) / 2e-6
    np.testing.assert_allclose(slope, kappa_derivative(inner), atol=1e-5)


def measure(
    family: str,
    graph: dgl.DGLGraph,
    feat: torch.Tensor,
    draws: int,
    edge_weight: torch.Tensor | None,
    arguments: dict,
) -> dict[str, np.ndarray]:
    """Means over random networks and their standard errors, shape (2, layers)."""
    model = create_model(
        f"res{family}",
        in_feats=feat.shape[1],
        hidden_feats=WIDTH,
        out_feats=WIDTH // 2,
        **arguments,
    )
    inputs: list[torch.Tensor] = []
    dropout = arguments.get("dropout")
    for norm in model.norms if not dropout else ():  # in front of every ReLU
        norm.register_forward_hook(lambda _, given, out: inputs.append(out.detach().relu()))
    for conv in model.convs if dropout else ():
        conv.register_forward_pre_hook(lambda _, given: inputs.append(given[1].detach()))
    operator = model.operator(graph, edge_weight)
    off_diagonal = ~np.eye(graph.num_nodes(), dtype=bool)
    samples: dict[str, list] = {"signal": [], "weight_gradient": [], "gradient": [], "gram": []}
    for _ in range(draws):
        inputs.clear()
        model.reset_parameters()
        feat = feat.detach().requires_grad_()
        out = model(operator, feat)
        weights = [[p for p in conv.parameters() if p.dim() == 2] for conv in model.convs]
        flat = [p for layer in weights for p in layer]
        functional = (out * torch.randn_like(out)).sum() / math.sqrt(out.numel())
        grads = iter(torch.autograd.grad(functional, [feat, *flat]))
        samples["gradient"].append([next(grads).square().sum().item()])
        samples["weight_gradient"].append(
            [sum(next(grads).square().sum().item() for _ in layer) for layer in weights]
        )
        first = [] if dropout else [feat.detach()]
        features = [h.double().numpy() for h in [*first, *inputs, out.detach()]]
        samples["signal"].append([(h**2).mean() for h in features])
        samples["gram"].append([h @ h.T / h.shape[1] for h in features])
    gram = np.mean(samples.pop("gram"), axis=0)
    std = np.sqrt(np.diagonal(gram, axis1=1, axis2=2))
    rho = gram / (std[:, :, None] * std[:, None, :])
    result = {"correlation": np.array([rho[:, off_diagonal].mean(1), np.full(len(rho), 0.004)])}
    for name, values in samples.items():
        spread = np.std(values, axis=0, ddof=1) / math.sqrt(draws)
        result[name] = np.array([np.mean(values, axis=0), spread])
    return result


CASES = {
    "gcn": ("gcn", {"residual": None, "t": 1.0}),
    "gcn, schedule, plain": ("gcn", {"residual": "plain", "t": "harmonic:1"}),
    "gcn, scaled": ("gcn", {"residual": "scaled", "t": 0.3, "norm": "none"}),
    "gcn, fixup": ("gcn", {"residual": "fixup"}),
    "gcn, initial": ("gcn", {"residual": "initial", "t": 0.5, "alpha": 0.3, "norm": "left"}),
    "gcn, Glorot": ("gcn", {"residual": None, "t": 1.0, "init": "glorot"}),
    "graphsage": ("graphsage", {"residual": None, "t": 1.0}),
    "graphsage, operator": ("graphsage", {"residual": "scaled", "t": 0.4}),
    "graphsage, variance": (
        "graphsage",
        {"residual": None, "t": "harmonic:1", "interpolation": "variance"},
    ),
    "graphsage, Glorot": ("graphsage", {"residual": None, "t": 1.0, "init": "glorot"}),
    "graphsage, He": ("graphsage", {"residual": None, "t": 1.0, "init": "he"}),
    "gin": ("gin", {"residual": None, "t": 1.0}),
    "gin, three linear layers, scaled": ("gin", {"residual": "scaled", "mlp_layers": 3}),
    "gin, fixup": ("gin", {"residual": "fixup", "mlp_layers": 3}),
    "gin, initial": ("gin", {"residual": "initial", "t": 0.5}),
    "gin, He": ("gin", {"residual": None, "t": 1.0, "init": "he"}),
    "gcn, dropout": ("gcn", {"residual": None, "t": 0.6, "dropout": 0.5}),
    "gcn, plain, dropout": ("gcn", {"residual": "plain", "dropout": 0.2}),
    "graphsage, dropout": ("graphsage", {"residual": None, "t": 1.0, "dropout": 0.5}),
    "gin, scaled, dropout": ("gin", {"residual": "scaled", "dropout": 0.3}),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["undirected", "directed, weighted"])
def test_prediction_is_the_mean_over_random_networks(case: str, kind: str) -> None:
    family, arguments = CASES[case]
    if kind == "undirected":
        graph, edge_weight = dgl.from_networkx(nx.karate_club_graph()).add_self_loop(), None
    else:
        graph, edge_weight = directed_weighted()
    torch.manual_seed(0)
    feat = torch.randn(graph.num_nodes(), 32)
    arguments = {"num_layers": 5, **arguments}
    measured = measure(family, graph, feat, 40, edge_weight, arguments)
    prediction = predict(
        graph,
        feat,
        family,
        hidden_feats=WIDTH,
        out_feats=WIDTH // 2,
        edge_weight=edge_weight,
        **arguments,
    )
    expected = {
        "signal": prediction.signal,
        "correlation": prediction.correlation,
        "weight_gradient": prediction.weight_gradient,
        "gradient": prediction.gradient[:1],
    }
    for name, (mean, error) in measured.items():
        # Beside the sampling error, a finite network is off by a share of order depth / width.
        tolerance = 4 * error + 0.02 * expected[name]
        worst = np.argmax(np.abs(mean - expected[name]) - tolerance)
        assert (np.abs(mean - expected[name]) <= tolerance + 1e-12).all(), (
            f"{name} at {worst}: measured {mean[worst]:.5g} +- {error[worst]:.2g}, "
            f"predicted {expected[name][worst]:.5g}"
        )


def test_gradient_between_the_layers_is_that_of_autograd(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    model = create_model(
        "resgcn",
        in_feats=32,
        hidden_feats=WIDTH,
        out_feats=WIDTH,
        num_layers=6,
        residual=None,
        t=0.5,
    )
    outputs: list[torch.Tensor] = []
    for conv in model.convs:
        conv.register_forward_hook(lambda _, given, out: outputs.append(out))
    operator, draws = model.operator(karate), []
    torch.manual_seed(0)
    for _ in range(60):
        outputs.clear()
        model.reset_parameters()
        out = model(operator, feat)
        direction = torch.randn_like(out) / math.sqrt(out.numel())
        draws.append([g.square().sum() for g in torch.autograd.grad(out, outputs, direction)])
    measured = np.array(draws)
    predicted = predict(karate, feat, "gcn", 6, hidden_feats=WIDTH, residual=None, t=0.5)
    error = measured.std(0) / math.sqrt(len(measured))
    assert (np.abs(measured.mean(0) - predicted.gradient[1:]) < 4 * error + 0.01).all()


def test_head_follows_a_relu(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    model = create_model(
        "resgin", in_feats=32, hidden_feats=WIDTH, out_feats=4, num_layers=4, head="graph"
    )
    operator, draws = model.operator(karate), []
    torch.manual_seed(0)
    for _ in range(40):
        model.reset_parameters()
        draws.append(model.features(operator, feat).square().mean().item())
    predicted = predict(karate, feat, "gin", 4, hidden_feats=WIDTH, output_layer=False)
    error = np.std(draws) / math.sqrt(len(draws))
    assert abs(np.mean(draws) - predicted.signal[-1]) < 4 * error


def test_batch_is_predicted_graph_by_graph(karate: dgl.DGLGraph) -> None:
    star = dgl.to_bidirected(dgl.graph(([0] * 7, range(1, 8))))
    feat = torch.randn(42, 16, generator=torch.Generator().manual_seed(0))
    arguments = {"family": "gin", "num_layers": 8, "t": 0.5, "residual": "scaled"}
    both = predict(dgl.batch([karate, star]), feat, **arguments)
    parts = [predict(karate, feat[:34], **arguments), predict(star, feat[34:], **arguments)]

    def pooled(name: str, weights: list[int]) -> np.ndarray:
        return np.average([getattr(part, name) for part in parts], axis=0, weights=weights)

    np.testing.assert_allclose(both.signal, pooled("signal", [34, 8]), rtol=1e-5)
    np.testing.assert_allclose(both.correlation, pooled("correlation", [34 * 33, 8 * 7]), rtol=1e-5)
    np.testing.assert_allclose(both.gradient, pooled("gradient", [34, 8]), rtol=1e-5)


@pytest.mark.parametrize("family", ["gcn", "graphsage", "gin"])
def test_principle_1_only_the_critical_scale_is_independent_of_depth(
    family: str, karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    def at(depth: int, init: str) -> tuple[float, float]:
        prediction = predict(karate, feat, family, depth, residual=None, t=1, init=init)
        return prediction.signal[-1], prediction.weight_gradient[0]

    for deep, shallow in zip(at(64, "critical"), at(16, "critical"), strict=True):
        assert 1 / 3 < deep / shallow < 3
    for deep, shallow in zip(at(64, "glorot"), at(16, "glorot"), strict=True):
        assert not 1e-6 < deep / shallow < 1e6


def test_principle_2_residual_aggregation_leaves_what_relu_leaves(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    lonely = dgl.graph(([], []), num_nodes=34).add_self_loop()

    def differences(graph: dgl.DGLGraph, t: float | str, depth: int = 64) -> float:
        return 1 - predict(graph, feat, "gcn", depth, residual=None, t=t).correlation[-1]

    relu_alone = differences(lonely, 1)
    assert differences(karate, 1) < 1e-6
    # From there on each layer contracts them by a factor: exponentially in depth.
    assert differences(karate, 1, 40) / differences(karate, 1, 32) < 0.2
    assert 0.4 < differences(karate, "per-depth:1") / relu_alone < 1
    assert 0.2 < differences(karate, "per-depth:1", 512) / differences(lonely, 1, 512) < 1


@pytest.mark.parametrize("family", ["gcn", "graphsage", "gin"])
@pytest.mark.parametrize("residual", ["scaled", "fixup"])
def test_principle_3_residual_connections_are_independent_of_depth(
    family: str, residual: str, karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    deep, deeper = (
        predict(karate, feat, family, depth, residual=residual) for depth in (128, 1024)
    )
    for name in ("signal", "correlation", "gradient"):
        first, second = getattr(deep, name), getattr(deeper, name)
        assert second[-1] == pytest.approx(first[-1], rel=0.2)
        assert second[1] == pytest.approx(first[1], rel=0.2)
    assert deeper.correlation[-1] < 0.75
    without = predict(karate, feat, family, 1024, residual=None)
    assert without.correlation[-1] > 0.9999


def test_a_plain_residual_connection_explodes(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    prediction = predict(karate, feat, "gcn", 64, residual="plain")
    assert prediction.signal[-1] > 1e15
    assert prediction.gradient[0] > 1e15


def test_errors_name_what_is_allowed(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    with pytest.raises(DGLError, match=r"family must be one of .*graphsage"):
        predict(karate, feat, "gat")  # type: ignore[arg-type]
    with pytest.raises(DGLError, match="init must be one of"):
        predict(karate, feat, init="lsuv")
    with pytest.raises(DGLError, match=r"expected \(34, in_feats\)"):
        predict(karate, feat[:5])


def test_signal_of_a_skip_connection_with_dropout(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    """Of `initial` the signal alone is exact: what is dropped again and again is not Gaussian."""
    arguments = {"num_layers": 6, "residual": "initial", "t": 0.5, "dropout": 0.4}
    torch.manual_seed(0)
    mean, error = measure("gcn", karate, feat, 40, None, arguments)["signal"]
    predicted = predict(karate, feat, "gcn", hidden_feats=WIDTH, **arguments).signal
    assert (np.abs(mean - predicted) < 4 * error + 0.02 * predicted).all()


def test_dropout_explodes_in_training_mode_where_self_loops_are_heavy() -> None:
    """GraphSAGE keeps half of a node's own variance, and dropout doubles that."""
    generator = torch.Generator().manual_seed(0)
    graph = dgl.to_bidirected(dgl.rand_graph(100, 300)).add_self_loop()
    feat = torch.randn(100, 16, generator=generator)
    arguments = {"family": "graphsage", "num_layers": 32, "t": 1.0, "residual": None}
    evaluation = predict(graph, feat, **arguments).signal
    training = predict(graph, feat, dropout=0.5, **arguments).signal
    assert 0.05 < evaluation[-1] < 1
    assert training[-1] > 100 * evaluation[-1]
    assert training[0] == pytest.approx(2 * evaluation[0])


@pytest.mark.parametrize("dropout", [1.0, -0.1])
def test_dropout_is_a_probability(karate: dgl.DGLGraph, dropout: float) -> None:
    with pytest.raises(DGLError, match=r"dropout must be a number in \[0, 1\)"):
        predict(karate, torch.ones(34, 2), dropout=dropout)
