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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depths": (0, 4)}, "depths must be at least 1"),
        ({"depths": ()}, "depths must be at least 1"),
        ({"depths": (4,)}, "two sizes"),
        ({"steps": 0}, "steps, seeds must be at least 1"),
        ({"data": None}, "Give data"),
        ({"make_model": lambda depth, width: nn.Identity()}, "No layer of Identity"),
    ],
)
def test_a_name_for_what_is_wrong(change: dict[str, object], message: str) -> None:
    class Called(nn.Identity):
        def forward(self, graph: dgl.DGLGraph, feat: torch.Tensor) -> torch.Tensor:
            return feat

    Called.__name__ = "Identity"
    if "make_model" in change:
        change = {
            "make_model": lambda depth, width: Called(),
            "make_optimizer": lambda model: torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=1),
        }
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
    wrong = CliRunner().invoke(app, ["check", "resgcn64.digits", "--depths", "8,x"])
    assert wrong.exit_code != 0 and "--depths 8,x" in str(wrong.exception)
    assert isinstance(depth_check(deep, DATA, (3, 4), (4,), seeds=1), DepthCheck)
