"""The benchmark of `critical_`: its models run, its judgements judge, its tables are the data."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks.hooks import __main__ as command
from benchmarks.hooks.cases import CASES
from benchmarks.hooks.inputs import CLASSES, GRAPHS, NODES, draw_inputs
from benchmarks.hooks.measure import ARMS, SEEDS, VIEWS, measure
from benchmarks.hooks.report import claim, count, is_order_one, is_right, is_worse, report

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_there_are_enough_models_of_every_kind() -> None:
    assert len(CASES) >= 30
    assert {case.kind for case in CASES.values()} == set(GRAPHS)


@pytest.mark.parametrize("name", CASES)
def test_every_model_scores_all_nodes_and_has_gradients(name: str) -> None:
    case = CASES[name]
    inputs = draw_inputs(case.kind, 0)
    torch.manual_seed(0)
    model = case.make(4, inputs)
    scores = case.run(model, inputs)
    assert scores.shape == (NODES, CLASSES)
    scores.square().sum().backward()
    weights = [p for p in model.parameters() if p.dim() > 1 and p.grad is not None]
    assert all(p.grad.abs().sum() > 0 for p in (weights[0], weights[-1]))
    deeper = case.make(6, inputs)
    grown = sum(p.numel() for p in deeper.parameters()) > sum(p.numel() for p in model.parameters())
    assert grown or name in ("GraphConv, one layer shared", "APPNPConv")
    other = case.run(model.eval(), draw_inputs(case.kind, 1))
    assert not torch.equal(other, case.run(model, inputs))


def test_the_acyclic_graph_is_one() -> None:
    graph = draw_inputs("acyclic", 0).graph
    src, dst = graph.edges()
    assert (src <= dst).all()
    assert (src == dst).sum() == NODES


def test_measures_what_a_linear_model_does() -> None:
    """Of a stack of doublings: the mean square is that of the input times 4 a layer."""
    case = CASES["GraphConv, ReLU"]

    class Doubling(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.weight = nn.Parameter(2.0**depth * torch.ones(1, 1))

        def forward(self, graph: object, feat: torch.Tensor) -> torch.Tensor:
            return feat[:, :CLASSES] * self.weight

    doubling = type(case)(lambda depth, inputs: Doubling(depth))
    row = measure(doubling, 3, "stock", steps=10)
    for view in VIEWS:
        feat = draw_inputs("undirected", 100 if view.endswith("fresh") else 0).feat[:, :CLASSES]
        expected = [pytest.approx(64 * feat.square().mean().item(), rel=1e-3)] * len(SEEDS)
        assert row["mean_square"][view] == expected
    assert all(len(pairs) == len(SEEDS) for pairs in row["losses"].values())


def row(
    arm: str, square: float = 1.0, losses: tuple[float, ...] = (1.0, 1.1, 1.2), **changed: Any
) -> dict[str, Any]:
    return {
        "model": "GraphConv, ReLU",
        "depth": 32,
        "arm": arm,
        "mean_square": {view: [square] * 3 for view in VIEWS},
        "gradient": [1.0] * 3,
        "losses": {"0.001": [[2.0, loss] for loss in losses], "0.01": [[None, None]] * 3},
        **changed,
    }


def test_judgements() -> None:
    fine, huge, small = row("measured", 5), row("measured", 200), row("measured", 0.05)
    assert [is_order_one(r, "GraphConv, ReLU", 32) for r in (fine, huge, small)] == [
        True,
        False,
        False,
    ]
    assert is_order_one(huge, "GraphConv, residual", 32)  # sums of 32 terms
    off = row("measured")
    off["mean_square"]["evaluation, fresh"] = [None, 1.0, 1.0]
    assert not is_order_one(off, "GraphConv, residual", 32)
    assert is_right(huge) and not is_right(row("closed form", 1e7))
    stock = row("stock")
    assert is_worse(row("measured", losses=(1.3, 1.4, 1.5)), stock)
    assert not is_worse(row("measured", losses=(1.1, 1.4, 1.5)), stock)
    assert not is_worse(row("measured", losses=(0.1, 0.2, 0.3)), stock)


def test_a_part_run_replaces_its_rows_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "hooks.json"
    kept = row("stock", square=7.0)
    former = row("closed form", square=7.0)
    out.write_text(json.dumps({"commands": [command.COMMAND], "rows": [former, kept]}))
    options = ["--models", "GraphConv, ReLU", "--depths", "3", "--steps", "10"]
    monkeypatch.setattr(sys, "argv", ["hooks", *options, "--out", str(out)])
    command.main()
    rows = json.loads(out.read_text())["rows"]
    assert rows[-2:] == [kept, former]  # in the order of the arms
    assert [r["arm"] for r in rows[:-2]] == list(ARMS)
    assert all(r["depth"] == 3 and r["losses"] for r in rows[:-2])
    assert "3 layers, measured: 1 of 1" in capsys.readouterr().out
    assert "| GraphConv, ReLU | 7 | 1 | 7 |" in out.with_suffix(".md").read_text()


def test_the_claim_counts_what_it_says() -> None:
    """Four models by hand; the second is of order one at once, the others are as named."""
    names = list(CASES)
    assert not any(CASES[name].sums for name in names[:4])
    worse, better = {"losses": (3.0, 3.1, 3.2)}, {"losses": (0.1, 0.2, 0.3)}
    results = {
        "rows": [
            row("stock", 1e9, model=names[0]),
            row("closed form", 1.0, model=names[0]),
            row("measured", 1.0, model=names[0], **better),
            row("stock", 1.0, model=names[1]),
            {"model": names[1], "depth": 32, "arm": "closed form", "refused": "Not known."},
            row("measured", 1.0, model=names[1], **worse),
            row("stock", 1e-9, model=names[2]),
            row("closed form", 1e7, model=names[2], warned=True),
            row("measured", 1e7, model=names[2], warned=True),
            row("stock", 1e-9, model=names[3]),
            row("closed form", 1e7, model=names[3]),
            row("measured", 1e7, model=names[3]),
            row("measured", 1.0, model=names[3], depth=16),
        ]
    }
    counts = count(results, 32)
    assert (counts.measured, counts.fine) == (names[:4], [names[1]])
    assert (counts.good, counts.told, counts.untold) == (names[:2], [names[2]], [names[3]])
    assert (counts.right, counts.refused) == (1, [names[1]])
    assert (counts.warned, counts.silent) == ([names[2]], [names[3]])
    assert (counts.better, counts.worse) == ([names[0]], [names[1]])
    said = claim(results)
    for part in ("4 models of 32 layers", "brings 2 to", "as they come: 1", "warns of 1;"):
        assert part in said
    for part in (
        "right for 1, refuses 1, warns of 1 and is silently wrong for 1.",
        "1 of 4, higher for 1",
    ):
        assert part in said
    assert f"| {names[2]} | 1e-09 | 1 | 1e+07* | 1e+07* |" in report({"commands": [], **results})


def test_readme_claims_what_was_shown() -> None:
    results = json.loads((BENCHMARKS / "hooks.json").read_text("utf-8"))
    readme = (BENCHMARKS.parent / "README.md").read_text("utf-8")
    assert claim(results) in " ".join(readme.split())


def test_the_tables_are_those_of_the_data() -> None:
    results = json.loads((BENCHMARKS / "hooks.json").read_text("utf-8"))
    assert (BENCHMARKS / "hooks.md").read_text("utf-8") == report(results)
    measured = [r for r in results["rows"] if (r["arm"], r["depth"]) == ("measured", 32)]
    assert [r["model"] for r in measured] == list(CASES)
