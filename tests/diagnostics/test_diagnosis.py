"""Diagnosis: what is measured, against dense formulas and theory; and what is concluded."""

from __future__ import annotations

import base64
import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import dgl
import networkx as nx
import numpy as np
import pytest
import torch
from dgl import DGLError
from torch import nn

from dgl_deepgnn import ResGraphSAGE, create_model
from dgl_deepgnn.diagnostics import QUANTITIES, Diagnosis, diagnose
from dgl_deepgnn.theory import predict


class UserGNN(nn.Module):
    """A stack of DGL's layers as users write it."""

    def __init__(self, layer: Any, depth: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(width, width) for _ in range(depth))

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        for index, layer in enumerate(self.layers):
            feat = layer(graph, torch.relu(feat) if index else feat)
        return feat


@pytest.fixture(scope="module")
def karate() -> dgl.DGLGraph:
    return dgl.from_networkx(nx.karate_club_graph()).add_self_loop()


@pytest.fixture(scope="module")
def feat() -> torch.Tensor:
    return torch.randn(34, 32, generator=torch.Generator().manual_seed(1))


def model_of(depth: int = 32, name: str = "resgcn", **arguments: Any) -> nn.Module:
    torch.manual_seed(3)
    return create_model(
        name, in_feats=32, hidden_feats=64, out_feats=32, num_layers=depth, **arguments
    )


def statuses(diagnosis: Diagnosis) -> list[str]:
    return [verdict.status for verdict in diagnosis.verdicts]


def test_first_draw_is_the_model_as_it_is_by_dense_formulas(feat: torch.Tensor) -> None:
    graph = dgl.batch([dgl.rand_graph(n, 3 * n).add_self_loop() for n in (20, 14)])
    torch.manual_seed(0)
    model = UserGNN(dgl.nn.GraphConv, 3)
    first = diagnose(model, graph, feat, draws=1)
    assert first.layers == ["layers.0", "layers.1", "layers.2", "output"]

    features = [feat]
    for layer in model.layers[:-1]:
        features.append(torch.relu(layer(graph, features[-1])))
    features.append(model(graph, feat))
    same = torch.block_diag(torch.ones(20, 20), torch.ones(14, 14)).bool() & ~torch.eye(34).bool()
    src, dst = graph.edges()
    linked = src != dst
    for row, h in enumerate(features):
        cosine = torch.nn.functional.cosine_similarity(h[:, None], h[None], dim=-1)
        energy = 2 * (1 - cosine[src, dst][linked]).mean()
        for quantity, value in (
            ("mean_square", h.square().mean()),
            ("correlation", cosine[same].mean()),
            ("dirichlet", energy),
        ):
            assert first.measured[quantity][0, row] == pytest.approx(value.item(), rel=1e-4)


def test_gradient_is_that_of_a_random_direction(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    torch.manual_seed(0)
    model, feat = UserGNN(dgl.nn.GraphConv, 4, 8), feat[:, :8]
    measured = np.mean([diagnose(model, karate, feat, draws=1, seed=s).measured["gradient"][0]
                        for s in range(40)], axis=0)  # fmt: skip
    # The mean over directions is the squared norm of the whole Jacobian over its rows.
    weights = [layer.weight for layer in model.layers]
    out = model(karate, feat).flatten()
    rows = [torch.autograd.grad(entry, weights, retain_graph=True) for entry in out]
    expected = [sum(row[i].square().sum() for row in rows).item() / len(out) for i in range(4)]
    np.testing.assert_allclose(measured[:4], expected, rtol=0.2)
    assert np.isnan(measured[4])


@pytest.mark.parametrize("name", ["resgcn", "resgraphsage", "resgin"])
@pytest.mark.parametrize("residual", [None, "scaled", "fixup", "initial"])
def test_mean_over_draws_is_the_theory(
    name: str, residual: str | None, karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    torch.manual_seed(0)
    model = create_model(
        name, in_feats=32, hidden_feats=200, out_feats=200, num_layers=5, residual=residual
    )
    result = diagnose(model, karate, feat, draws=30)
    assert result.theory is not None
    for quantity in QUANTITIES:
        values, theory = result.measured[quantity], result.theory[quantity]
        error = values.std(0, ddof=1) / 30**0.5
        # Shuffled weights keep the variance of the one draw they come from.
        tolerance = 4 * error + 0.06 * np.abs(theory) + 0.005
        defined = ~np.isnan(theory)
        assert (np.abs(values.mean(0) - theory) <= tolerance)[defined].all(), quantity
        assert defined.sum() == (5 if quantity == "gradient" else 6)


def test_draws_differ_but_keep_the_scale_of_the_weights(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    model = UserGNN(dgl.nn.GraphConv, 2, 32)
    seen: list[list[torch.Tensor]] = []

    def forward(replica: nn.Module) -> torch.Tensor:
        seen.append([layer.weight.detach().clone() for layer in replica.layers])  # type: ignore
        return replica(karate, feat)

    diagnose(model, karate, feat, draws=3, forward=forward)
    del seen[1]  # the first draw, in training mode
    for original, first, second in zip(
        (layer.weight for layer in model.layers), *seen[:2], strict=True
    ):
        assert torch.equal(original, first)
        assert not torch.equal(original, second)
        sizes = [weight.abs().flatten().sort().values for weight in (original, second)]
        assert torch.equal(*sizes)


def test_model_graph_and_random_state_are_untouched(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    net = nn.Sequential(nn.Linear(32, 32), nn.Dropout(0.5), nn.BatchNorm1d(32))
    net.append(UserGNN(dgl.nn.GraphConv, 2))

    def forward(model: nn.Sequential) -> torch.Tensor:
        return model[3](karate, model[:3](features))

    before = {name: value.clone() for name, value in net.state_dict().items()}
    state, features = torch.get_rng_state(), feat.clone()
    diagnose(
        net,
        karate,
        features,
        draws=3,
        forward=forward,
        reinitialize=lambda model: model[0].reset_parameters(),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training and torch.equal(features, feat)
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None for p in net.parameters())
    assert not any(module._forward_pre_hooks for module in net.modules())
    assert not karate.ndata and not karate.edata


def test_reinitialize_draws_every_network(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    def ten(module: nn.Module) -> None:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=10.0)

    result = diagnose(model_of(4), karate, feat, draws=5, reinitialize=ten)
    assert (result.measured["mean_square"][:, 1] > 100).all()
    assert len(np.unique(result.measured["mean_square"][:, 1])) == 5


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (UserGNN(dgl.nn.GraphConv, 32), ["vanishing", "oversmoothed", "oversmoothed"]),
        (
            UserGNN(lambda a, b: dgl.nn.SAGEConv(a, b, "mean"), 64),
            ["exploding", "oversmoothed", "oversmoothed"],
        ),
        (
            UserGNN(lambda a, b: dgl.nn.GINConv(nn.Linear(a, b), "sum"), 64),
            ["exploding", "oversmoothed", "oversmoothed"],
        ),
        (model_of(residual=None, t=1.0), ["healthy", "oversmoothed", "oversmoothed"]),
        (model_of(residual=None, t="per-depth:1"), ["healthy", "healthy", "oversmoothed"]),
        (model_of(residual="plain"), ["exploding", "healthy", "oversmoothed"]),
        (model_of(residual="scaled"), ["healthy"] * 3),
        (model_of(residual="fixup"), ["healthy"] * 3),
        (model_of(name="resgin", residual="fixup", head="graph"), ["healthy"] * 3),
        (model_of(name="resgraphsage", residual="initial", head="edge"), ["healthy"] * 3),
        (UserGNN(dgl.nn.GraphConv, 2), ["healthy"] * 3),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_verdicts(
    model: nn.Module, expected: list[str], karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    result = diagnose(model, karate, feat, draws=10)
    for verdict, status in zip(result.verdicts, expected, strict=True):
        # Draws of 64 narrow layers scatter: what may be called otherwise has to say so.
        assert verdict.status == status or verdict.near, str(result)
    if expected == ["healthy"] * 3:
        assert statuses(result) == expected, str(result)
        assert not any(verdict.near for verdict in result.verdicts), str(result)


def test_any_user_model_is_measured(karate: dgl.DGLGraph) -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(34, 16)
            self.encode = nn.Linear(16, 24)
            self.attend = dgl.nn.GATConv(24, 8, 3, feat_drop=0.5, attn_drop=0.5)
            self.norm = nn.BatchNorm1d(24)
            self.conv = dgl.nn.SAGEConv(24, 24, "pool")
            self.score = nn.Linear(24, 2)

        def forward(self, graph: Any, ids: torch.Tensor, weight: Any = None) -> torch.Tensor:
            h = torch.relu(self.encode(self.embed(ids)))
            h = torch.relu(self.norm(self.attend(graph, h).flatten(1)))
            h = torch.relu(self.conv(graph, (h, h), edge_weight=weight))
            graph.ndata["h"] = h
            with graph.local_scope():
                graph.ndata["h"] = h
                return self.score(dgl.mean_nodes(graph, "h"))

    graph = karate.clone()
    result = diagnose(
        Mixed(), graph, torch.arange(34), draws=2, edge_weight=torch.rand(graph.num_edges())
    )
    assert result.layers == ["encode", "attend", "conv", "score", "output"]
    assert np.isfinite(result.measured["gradient"][:, :4]).all()
    assert result.theory is None
    # Dropout is off: only the weights differ between draws, and the seed fixes them.
    again = diagnose(
        Mixed(), graph, torch.arange(34), draws=1, edge_weight=torch.rand(graph.num_edges())
    )
    assert again.measured["mean_square"].shape == (1, 5)


def test_dropout_is_measured_on_its_own(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    with_dropout, without = model_of(4, dropout=0.9), model_of(4)
    one, other = (diagnose(model, karate, feat, draws=1) for model in (with_dropout, without))
    np.testing.assert_array_equal(one.measured["mean_square"], other.measured["mean_square"])
    assert "training" not in other.measured
    # What enters a layer in training is a tenth of the features, ten times as large.
    ratio = one.measured["training"][0] / one.measured["mean_square"][0]
    assert 5 < ratio[0] < 20 and 5 < ratio[1] < 200
    assert "in training" in str(one) and "in training" not in str(other)
    assert json.loads(json.dumps(one.to_dict()))["mean"]["training"] == list(one.mean("training"))


def test_theory_of_the_users_own(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    theory = predict(karate, feat, num_layers=8, hidden_feats=32, t=1, residual=None, init="glorot")
    result = diagnose(UserGNN(dgl.nn.GraphConv, 8), karate, feat, draws=40, theory=theory)
    np.testing.assert_allclose(
        np.log10(result.mean("mean_square")), np.log10(theory.signal), atol=0.3
    )
    with pytest.raises(DGLError, match="theory is that of 8 layers, but the model has 4"):
        diagnose(UserGNN(dgl.nn.GraphConv, 4), karate, feat, theory=theory)


def test_no_theory_with_normalization_layers(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    assert diagnose(model_of(4, norm_layer="layer"), karate, feat, draws=1).theory is None


def test_dictionary_is_strict_json(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    result = diagnose(model_of(6), karate, feat, draws=2)
    text = json.dumps(result.to_dict(), allow_nan=False)
    read = json.loads(text)
    assert read["draws"] == 2 and read["layers"] == result.layers
    assert read["mean"]["gradient"][-1] is None
    assert read["mean"]["mean_square"] == pytest.approx(list(result.mean("mean_square")))
    assert [v["status"] for v in read["verdicts"]] == statuses(result)


def test_overflow_is_reported_not_raised(
    karate: dgl.DGLGraph, feat: torch.Tensor, tmp_path: Path
) -> None:
    model = UserGNN(lambda a, b: dgl.nn.GINConv(nn.Linear(a, b), "sum"), 100)
    result = diagnose(model, karate, feat, draws=2)
    assert statuses(result)[0] == "exploding"
    json.dumps(result.to_dict(), allow_nan=False)
    result.plot(tmp_path / "overflow.png")


def test_table_has_a_row_a_layer_and_every_verdict(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    result = diagnose(model_of(100), karate, feat, draws=1)
    lines = str(result).splitlines()
    assert lines[0].split()[:4] == ["layer", "mean", "square", "theory"]
    assert lines[1].startswith("convs.0 ") and lines[20].startswith("output")
    assert all(verdict.message in str(result) for verdict in result.verdicts)


def test_one_layer_and_one_draw_are_in_the_singular(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    result = diagnose(model_of(1), karate, feat, draws=1)
    assert "over 1 layer (" in str(result) and "after 1 layer;" in str(result)
    assert not re.search(r"\b1 \w+s\b", str(result))
    assert "a network without residual connections" in result.verdicts[1].message
    (legend,) = result.plot().legends
    assert "measured: mean of 1 draw" in [text.get_text() for text in legend.get_texts()]


def test_output_is_judged_by_the_loss_of_random_labels(
    karate: dgl.DGLGraph, feat: torch.Tensor
) -> None:
    torch.manual_seed(1)
    model = nn.Linear(32, 5)
    with torch.no_grad():
        model.weight.mul_(30)
    result = diagnose(model, karate, feat, forward=lambda model: model(feat), draws=1)
    scores, labels = model(feat).repeat(400, 1), torch.randint(5, (34 * 400,))
    expected = nn.functional.cross_entropy(scores, labels).item()
    assert result.output_loss[0] == pytest.approx(expected, rel=0.05)
    assert result.even_loss == pytest.approx(np.log(5))
    assert "the first steps only make it smaller" in str(result)
    one = diagnose(nn.Linear(32, 1), karate, feat, forward=lambda model: model(feat), draws=1)
    assert one.even_loss == pytest.approx(np.log(2))
    assert one.output_loss[0] == pytest.approx(np.log(2), rel=0.1)
    assert "not how well it will train" in str(one)


def test_inputs_far_from_order_one_are_named(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    model = UserGNN(dgl.nn.GraphConv, 2)
    assert "scale the features" in str(diagnose(model, karate, feat * 1000, draws=1))
    assert "scale the features" not in str(diagnose(model, karate, feat, draws=1))


def test_notebook_shows_table_and_plot(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    result = diagnose(model_of(3), karate, feat, draws=1)
    shown = result._repr_html_()
    assert html.escape(result.verdicts[0].message) in shown
    (png,) = re.findall(r'src="data:image/png;base64,([^"]+)"', shown)
    assert base64.b64decode(png).startswith(b"\x89PNG")


def test_importing_does_not_import_matplotlib() -> None:
    code = "import sys, dgl_deepgnn.diagnostics; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_errors_say_what_to_do(karate: dgl.DGLGraph, feat: torch.Tensor) -> None:
    with pytest.raises(DGLError, match="No layer of Identity"):
        diagnose(nn.Identity(), karate, feat, forward=lambda model: model(feat))
    relations = dgl.heterograph({("a", "r", "b"): ([0], [0])})
    with pytest.raises(DGLError, match="to_homogeneous"):
        diagnose(model_of(2), relations, feat)
    with pytest.raises(DGLError, match="draws must be at least 1"):
        diagnose(model_of(2), karate, feat, draws=0)


@pytest.mark.parametrize("residual", [None, "scaled"])
def test_theory_of_training_mode_stands_beside_its_measurement(residual: str | None) -> None:
    """Dropout grows a GraphSAGE without residual connections in training mode alone."""
    torch.manual_seed(3)
    graph = dgl.to_bidirected(dgl.rand_graph(60, 240)).add_self_loop()
    model = ResGraphSAGE(128, 128, 128, 12, t=0.5, residual=residual, dropout=0.4)
    result = diagnose(model, graph, torch.randn(60, 128), draws=20)
    assert result.theory is not None
    predicted, found = result.theory["training"], result.mean("training")
    np.testing.assert_allclose(found, predicted, rtol=0.6)
    ratio = predicted / result.theory["mean_square"]
    np.testing.assert_allclose(found / result.mean("mean_square"), ratio, rtol=0.6)
    assert ratio[-1] > (5 if residual is None else 1.1)
    columns = " ".join(str(result).splitlines()[0].split())
    assert "mean square theory in training theory gradient theory" in columns
    assert len(result.to_dict()["theory"]["training"]) == len(result.layers)
    result.plot()
    plain = diagnose(ResGraphSAGE(128, 8, 8, 3), graph, torch.randn(60, 128), draws=1)
    assert plain.theory is not None and "training" not in plain.theory
