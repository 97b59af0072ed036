"""Depth check: a known case for each verdict, and nothing of the caller's is touched."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from dgl_deepgnn import ResGCN
from dgl_deepgnn.cli import app
from dgl_deepgnn.diagnostics import DepthCheck, depth_check
from dgl_deepgnn.diagnostics.trends import fit_trend
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.optim import param_groups

dgl.seed(0)
GRAPH = dgl.rand_graph(40, 200).add_self_loop()
FEAT = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.randint(3, (40,), generator=torch.Generator().manual_seed(1))
DATA = (GRAPH, FEAT, LABELS)


def deep(num_layers: int, hidden_feats: int) -> ResGCN:
    return ResGCN(8, hidden_feats, 3, num_layers, t="per-depth:2")


class MLP(nn.Module):
    """Standard parametrization; its first and last layer can be frozen."""

    def __init__(self, num_layers: int, hidden_feats: int, outputs: int = 3) -> None:
        super().__init__()
        widths = [8, *[hidden_feats] * (num_layers - 1), outputs]
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            feat = torch.relu(layer(feat))
        return self.layers[-1](feat)


class Residual(MLP):
    """Zero-started linear branches of scale 1, so that the powers are known exactly."""

    scale = staticmethod(lambda branches: 1.0)

    def __init__(self, num_layers: int, hidden_feats: int) -> None:
        super().__init__(num_layers, hidden_feats)
        for layer in self.layers[1:-1]:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        same = torch.Generator().manual_seed(torch.initial_seed())  # at every depth
        nn.init.normal_(self.layers[-1].weight, generator=same)
        nn.init.zeros_(self.layers[-1].bias)

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        branches = self.layers[1:-1]
        x = self.layers[0](feat)
        for layer in branches:
            x = x + self.scale(len(branches)) * layer(torch.relu(x))
        return self.layers[-1](x)


class Divided(Residual):
    """Branches of scale 1/B."""

    scale = staticmethod(lambda branches: 1 / branches)


def branches_alone(kind: type[torch.optim.Optimizer], lr: float) -> Any:
    return lambda model: kind(model.layers[1:-1].parameters(), lr=lr)


# --- a known case for each verdict ---


def test_plain_adam_grows_with_depth_and_the_rule_does_not() -> None:
    sizes = (6, 18, 66), (16,)
    plain = depth_check(deep, DATA, *sizes)
    ruled = depth_check(
        deep,
        DATA,
        *sizes,
        make_optimizer=lambda model: torch.optim.Adam(param_groups(model, 1e-3)),
    )
    found = plain.trend("depth", "update")
    assert found.status == "grows" and found.low < 0.5 < found.high + 0.1  # B tau = sqrt(B)
    assert plain.verdict("depth").startswith("depth: GROWS")
    assert "param_groups" in plain.verdict("depth")
    assert ruled.trend("depth", "update").status == "transfers"
    assert "depth: TRANSFERS" in str(ruled) and "width" in plain.table()


@pytest.mark.parametrize(("kind", "lr"), [(torch.optim.Adam, 1e-6), (torch.optim.SGD, 1e-6)])
def test_moves_of_branches_add_up(kind: type[torch.optim.Optimizer], lr: float) -> None:
    check = depth_check(
        Residual, DATA, (6, 34), (8,), make_optimizer=branches_alone(kind, lr), steps=1, seeds=3
    )
    for quantity in ("update", "scores' update"):
        trend = check.trend("depth", quantity)
        # 4 and 32 branches over depths 6 and 34.
        assert trend.power == pytest.approx(math.log(8) / math.log(34 / 6), rel=0.05)
        assert trend.status == "grows"


def test_branches_divided_by_their_number_shrink_under_sgd() -> None:
    check = depth_check(
        Divided,
        DATA,
        (6, 34),
        (8,),
        make_optimizer=branches_alone(torch.optim.SGD, 1e-4),
        steps=1,
        seeds=3,
    )
    trend = check.trend("depth", "update")
    assert trend.power == pytest.approx(-math.log(8) / math.log(34 / 6), rel=0.05)
    assert trend.status == "shrinks" and "SHRINKS" in check.verdict("depth")


def test_a_standard_mlp_grows_with_width_and_the_rule_does_not() -> None:
    sizes = (4,), (32, 128, 512)
    plain = depth_check(MLP, DATA, *sizes)
    assert 0.4 < plain.trend("width", "update").power < 1.1  # mup: between the layers' 0 and 1
    assert plain.trend("width", "scores' update").power > 0.6
    assert "width: GROWS" in plain.verdict("width")
    ruled = depth_check(
        MLP,
        DATA,
        *sizes,
        make_optimizer=lambda model: torch.optim.Adam(param_groups(model, 1e-3)),
    )
    assert ruled.trend("width", "update").status == "transfers"
    assert abs(plain.trend("width", "features").power) < 0.15


def test_unclear_and_divergent() -> None:
    noisy = depth_check(deep, DATA, (4, 5), (4,), seeds=2)
    assert noisy.trend("depth", "gradient").status == "unclear"
    broken = depth_check(
        lambda depth, width: MLP(depth, width),
        (GRAPH, FEAT * math.inf, LABELS),
        (3, 5),
        (4,),
        seeds=1,
    )
    assert broken.trend("depth", "update").status == "diverges"
    assert "DIVERGES" in broken.verdict("depth")
    assert json.loads(json.dumps(broken.to_dict(), allow_nan=False))["trends"][0]["power"] is None


def test_what_is_zero_at_one_size_has_no_power() -> None:
    check = depth_check(MLP, DATA, (1, 2), (4,), seeds=2)  # one layer alone reads the data
    trend = check.trend("depth", "update")
    assert trend.status == "unclear" and math.isnan(trend.power)
    assert "is zero at some sizes only" in check.verdict("depth")
    assert "zero at some sizes" in check.table()


class Scaled(MLP):
    """Every layer, or the output alone, times a factor."""

    def __init__(self, num_layers: int, hidden_feats: int, inner: float, outer: float) -> None:
        super().__init__(num_layers, hidden_feats)
        self.inner, self.outer = inner, outer

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        for layer in self.layers[:-1]:
            feat = self.inner * torch.relu(layer(feat))
        return self.outer * self.layers[-1](feat)


@pytest.mark.parametrize(("inner", "word"), [(0.5, "VANISHES"), (8.0, "EXPLODES")])
def test_no_rate_makes_up_for_a_signal_that_is_lost(inner: float, word: str) -> None:
    check = depth_check(lambda depth, width: Scaled(depth, width, inner, 1), DATA, (4, 8, 16), (9,))
    verdict = check.verdict("depth")
    assert verdict.startswith(f"depth: {word}.") and "diagnose" in verdict, verdict
    assert "param_groups" not in verdict
    assert "At the start the features go" in verdict or "At the start the gradient goes" in verdict


def test_what_learns_nothing_does_not_transfer() -> None:
    def still(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=0.0)

    check = depth_check(deep, DATA, (3, 5), (4, 8), make_optimizer=still, seeds=2)
    for axis in ("depth", "width"):
        assert check.trend(axis, "update").status == "still"
        assert check.verdict(axis).startswith(f"{axis}: STILL.")
    assert "zero at all sizes" in check.table()

    def last(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(list(model.parameters())[-1:], lr=0.1)

    assert "STILL" in depth_check(deep, DATA, (3, 5), (4,), make_optimizer=last).verdict("depth")
    # One layer alone has no features that could move, and no width.
    alone = depth_check(MLP, DATA, (1, 2), (4,), make_optimizer=still, seeds=1)
    assert alone.trend("depth", "update").status == "transfers"
    assert alone.trend("depth", "scores' update").status == "still"


@pytest.mark.parametrize(("bump", "status"), [(2.0, "transfers"), (100.0, "unclear")])
def test_what_follows_no_power_is_unclear(bump: float, status: str) -> None:
    """No power in either, and the seeds agree: only the middle stands out."""
    values = {4: [1.0, 1.01], 16: [bump, 1.01 * bump], 64: [1.0, 1.01]}
    trend = fit_trend("depth", "update", values, moves=True)
    assert trend.power == pytest.approx(0, abs=1e-9) and trend.status == status


def test_diverging_by_the_steps_asks_for_a_smaller_rate() -> None:
    def wild(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(model.parameters(), lr=1e30)

    verdict = depth_check(MLP, DATA, (3, 4), (8,), make_optimizer=wild).verdict("depth")
    assert "DIVERGES" in verdict and "smaller learning rate" in verdict


def test_labels_of_other_kinds() -> None:
    sizes = (2, 3), (4,)
    expected = depth_check(MLP, DATA, *sizes, seeds=1).trends
    assert depth_check(MLP, (GRAPH, FEAT, LABELS[:, None]), *sizes, seeds=1).trends == expected
    for labels in (LABELS == 1, torch.stack([c == LABELS for c in range(3)], 1)):
        assert depth_check(MLP, (GRAPH, FEAT, labels), *sizes, seeds=1).trends


# --- what is measured ---


def test_one_step_of_sgd_by_hand() -> None:
    def linear(depth: int, width: int) -> nn.Module:
        return MLP(2, width, 1)

    target = torch.randn(40, 1, generator=torch.Generator().manual_seed(2))
    (run, _) = depth_check(
        linear,
        (GRAPH, FEAT, target),
        (1,),
        (5, 6),
        make_optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1),
        steps=1,
        seeds=1,
    ).runs
    torch.manual_seed(0)
    model = linear(1, 5)
    first, last = (layer.weight for layer in model.layers)  # type: ignore[union-attr]
    hidden, out = torch.relu(model.layers[0](FEAT)), model(GRAPH, FEAT)  # type: ignore[index]
    grads = torch.autograd.grad((out - target).square().mean(), list(model.parameters()))
    with torch.no_grad():
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter -= 0.1 * grad
        moved = torch.relu(model.layers[0](FEAT)) - hidden, model(GRAPH, FEAT) - out  # type: ignore[index]
    assert run.layers == ["layers.0", "layers.1", "output"]
    rms = [value.square().mean().sqrt().item() for value in (FEAT, hidden, out)]
    assert run.features[0] == pytest.approx(rms, rel=1e-4)
    assert run.updates[0].tolist() == [0, 0, 0] and run.updates[1][0] == 0
    assert run.updates[1][1:] == pytest.approx(
        [float(value.square().mean().sqrt()) for value in moved], rel=1e-3
    )
    assert run.gradients[0] == pytest.approx([float(grads[0].norm()), float(grads[2].norm())])
    assert first.shape == (5, 8) and last.shape == (1, 5)


def test_nothing_of_the_callers_is_touched() -> None:
    made: list[nn.Module] = []
    before: list[torch.Tensor] = []

    def remembered(num_layers: int, hidden_feats: int) -> nn.Module:
        made.append(MLP(num_layers, hidden_feats).train())
        before.extend(p.clone() for p in made[-1].parameters())
        return made[-1]

    state = torch.get_rng_state()
    depth_check(remembered, DATA, (2, 3), (4,), seeds=2)
    assert torch.equal(state, torch.get_rng_state())
    after = [p for model in made for p in model.parameters()]
    assert all(torch.equal(a, b) and a.grad is None for a, b in zip(after, before, strict=True))
    modules = [module for model in made for module in model.modules()]
    assert all(m.training and not m._forward_pre_hooks for m in modules)


class Bare(nn.Module):
    """Weights, but no layer that is called."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
        return feat[:, :3] * self.factor


class Pair(MLP):
    def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> Any:
        return super().forward(graph, feat), None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (0, 4)}, "depths must be at least 1"),
        ({"depths": ()}, "depths must be at least 1"),
        ({"depths": (4,)}, "two sizes"),
        ({"steps": 0}, "steps, seeds must be at least 1"),
        ({"data": None}, "Give data"),
        ({"depths": 4}, "depths must be whole numbers"),
        ({"steps": 1.5}, "steps, seeds must be whole numbers"),
        ({"data": DATA[:2]}, "data must be graph, features and labels, got 2 things"),
        ({"make_model": lambda depth, width: None}, "returned None, not a module"),
        ({"make_model": lambda depth, width: Bare()}, "No layer of Bare"),
        ({"make_model": lambda depth, width: Bare().requires_grad_(False)}, "no parameters that"),
        ({"make_model": lambda depth, width: MLP(2, 4)}, r"\(2, 4\) and make_model\(3, 4\) return"),
        ({"make_model": Pair}, r"Pair returns a tuple, .* can pick it"),
        ({"make_optimizer": lambda model: None}, "must return an optimizer"),
        ({"make_optimizer": lambda model: torch.optim.LBFGS(model.parameters())}, "LBFGS"),
        (
            {"make_optimizer": lambda model: torch.optim.SGD(MLP(2, 4).parameters(), lr=1)},
            "of none of the model's parameters",
        ),
    ],
)
def test_a_name_for_what_is_wrong(change: dict[str, object], message: str) -> None:
    arguments = {"make_model": MLP, "data": DATA, "depths": (2, 3), "widths": (4,), **change}
    with pytest.raises(DGLError, match=message):
        depth_check(**arguments)  # type: ignore[arg-type]


def test_command(tmp_path: Path) -> None:
    sets = ["--set", "data.name=karate", "--set", "data.options={}"]
    sizes = ["--depths", "3,6", "--widths", "4,8", "--seeds", "2", "--steps", "2"]
    command = ["check", "resgcn64.digits", *sets, *sizes]
    result = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "c")])
    assert result.exit_code == 0, result.output
    assert "depth (at width 4)" in result.stdout and "width: " in result.stdout
    assert (tmp_path / "c" / "check.png").read_bytes().startswith(b"\x89PNG")
    content = json.loads((tmp_path / "c" / "check.json").read_text())
    assert len(content["runs"]) == 2 * 3 and np.isfinite(content["runs"][0]["updates"]).all()
    again = CliRunner().invoke(app, [*command[:2], "--output", str(tmp_path / "c")])
    assert "is never overwritten" in str(again.exception)  # at once: the recipe's is 64 layers
    wrong = CliRunner().invoke(app, ["check", "resgcn64.digits", "--depths", "8,x"])
    assert wrong.exit_code != 0 and "--depths 8,x" in str(wrong.exception)
    assert isinstance(depth_check(deep, DATA, (3, 4), (4,), seeds=1), DepthCheck)
