"""Runs side by side: figures held to the folders' own, and to arithmetic by hand."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from dgl_deepgnn.cli import app
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import RunFolder, train
from dgl_deepgnn.training.comparing import compare

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "karate"},
    "model": {"hidden_feats": 4, "num_layers": 3},
    "training": {"epochs": 4},
    "seeds": [0, 1, 2],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("runs")
    changes: dict[str, dict[str, Any]] = {
        "one": {},
        "deep": {"model": {"hidden_feats": 4, "num_layers": 5}, "seeds": [1, 2, 3]},
        "other-data": {"data": {"name": "csbm", "options": {"num_nodes": 50, "num_classes": 2}}},
    }
    for name, changed in changes.items():
        train(Recipe.model_validate({**RECIPE, **changed}), place / name, progress=False)
    return {name: place / name for name in changes}


def test_figures_are_those_of_the_folders(runs: dict[str, Path]) -> None:
    result = compare([runs["one"], runs["deep"]])
    one, deep = result.runs
    for found, name in ((one, "one"), (deep, "deep")):
        summary = json.loads((runs[name] / "summary.json").read_text())
        assert found.metric == summary["metric"]
        assert found.test == summary["test"][summary["metric"]]
        assert found.val == summary["val"]
        assert found.parameters == summary["parameters"]
        assert (found.seeds, found.of, found.epochs) == (3, 3, 4)
    scores = [
        {
            seed: json.loads((runs[name] / f"seed-{seed}" / "result.json").read_text())["test"]
            for seed in (1, 2)  # those that both have
        }
        for name in ("one", "deep")
    ]
    parts = [scores[1][seed][one.metric] - scores[0][seed][one.metric] for seed in (1, 2)]
    assert one.difference is None
    assert deep.difference == {
        "mean": pytest.approx(statistics.fmean(parts)),
        "standard_error": pytest.approx(statistics.stdev(parts) / 2**0.5),
        "n": 2,
    }
    assert result.differences == {
        "model.num_layers": [3, 5],
        "seeds": [[0, 1, 2], [1, 2, 3]],
    }
    text = result.table()
    assert "one" in text and "+- " in text and "model.num_layers" in text
    assert json.loads(json.dumps(result.to_dict()))["differences"] == result.differences


def test_the_same_run_twice(runs: dict[str, Path], tmp_path: Path) -> None:
    again = tmp_path / "again" / "one"
    shutil.copytree(runs["one"], again)
    result = compare([runs["one"], again])
    assert result.differences == {}
    assert result.runs[1].difference == {"mean": 0.0, "standard_error": 0.0, "n": 3}
    text = result.table()
    assert "again/one" in text  # names that tell them apart
    assert "The recipes are the same" in text


def test_a_blind_run_shows_no_test_score(runs: dict[str, Path], tmp_path: Path) -> None:
    blind = tmp_path / "blind"
    done = CliRunner().invoke(
        app,
        [
            *("train", str(runs["one"] / "recipe.yaml"), "--blind", "--quiet"),
            *("--output", str(blind)),
        ],
    )
    folder = RunFolder.open(blind)
    score = folder.read("summary.json")["test"]["roc_auc"]["mean"]
    assert (
        done.exit_code == 0 and "val roc_auc" in done.stdout and "test roc_auc" not in done.stdout
    )
    assert f"{score:.4f}" not in done.stdout
    again = CliRunner().invoke(app, ["train", "--resume", str(blind), "--json", "--quiet"])
    assert "val" in json.loads(again.stdout) and '"test"' not in again.stdout
    for order in ([blind, runs["one"]], [runs["one"], blind]):
        result = compare(order)
        shown = {run.run: run for run in result.runs}
        assert shown[str(blind)].test is None and shown[str(runs["one"])].test is not None
        assert all(run.difference is None for run in result.runs)
        assert "hidden" in result.table()
        assert f"{score:.4f}" not in json.dumps(result.to_dict()).replace(
            json.dumps(shown[str(runs["one"])].test), ""
        )
    found = compare([runs["one"], blind], unblind=True).runs[1]
    assert found.test is not None and found.test["mean"] == score
    assert found.difference == {"mean": 0.0, "standard_error": 0.0, "n": 3}


def test_other_data_is_not_compared(runs: dict[str, Path]) -> None:
    result = compare([runs["one"], runs["other-data"]])
    assert result.runs[1].difference is None
    assert result.differences["data.name"] == ["karate", "csbm"]
    assert result.differences["data.options.num_nodes"] == [None, 50]
    assert "on different data: their scores cannot be compared" in result.table()


def test_an_unfinished_run(runs: dict[str, Path], tmp_path: Path) -> None:
    part = tmp_path / "part"
    shutil.copytree(runs["one"], part)
    for seed in (1, 2):
        (part / f"seed-{seed}" / "result.json").unlink()
    (part / "summary.json").unlink()
    result = compare([runs["one"], part])
    found = result.runs[1]
    assert (found.seeds, found.of, found.test["n"], found.parameters) == (1, 3, 1, None)
    assert found.difference == {"mean": 0.0, "standard_error": None, "n": 1}
    assert "1 of 3" in result.table()
    (part / "seed-0" / "result.json").unlink()  # now none is finished
    result = compare([runs["one"], part])
    assert result.runs[1].metric == result.runs[0].metric
    assert result.runs[1].test == {"mean": None, "std": None, "n": 0}
    assert "0 of 3" in result.table()
    result.plot(tmp_path / "plot.png")
    for seed in (0, 1, 2):
        shutil.rmtree(part / f"seed-{seed}")
    result = compare([runs["one"], part])  # not even begun
    result.plot(tmp_path / "plot.png")
    assert result.table()
    json.dumps(result.to_dict(), allow_nan=False)


def test_what_cannot_be_compared(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at least two runs; 1 run given"):
        compare([runs["one"]])
    with pytest.raises(UserError, match="is not a run folder"):
        compare([runs["one"], tmp_path])
    damaged = tmp_path / "damaged"
    shutil.copytree(runs["one"], damaged)
    file = damaged / "seed-1" / "result.json"
    file.write_text(file.read_text().replace("accuracy", "accuracx"))
    with pytest.raises(UserError, match=r"seed-1/result\.json is damaged"):
        compare([runs["one"], damaged])


def test_the_command(runs: dict[str, Path], tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    asked = ["compare", str(runs["one"]), str(runs["deep"])]
    result = CliRunner().invoke(app, [*asked, "--plot", str(plot)])
    assert result.exit_code == 0, result.output
    assert "model.num_layers" in result.stdout
    with Image.open(plot) as image:
        assert image.width > 1000
    kept = plot.read_bytes()
    with pytest.raises(UserError, match="exists"):
        CliRunner().invoke(app, [*asked, "--plot", str(plot)], catch_exceptions=False)
    assert plot.read_bytes() == kept
    content = json.loads(CliRunner().invoke(app, [*asked, "--json"]).stdout)
    assert [run["run"] for run in content["runs"]] == [str(runs["one"]), str(runs["deep"])]
