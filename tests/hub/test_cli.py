from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import dgl
import pytest
import torch
import typer
from typer.testing import CliRunner

from dgl_deepgnn import hub
from dgl_deepgnn.cli.zoo import add_commands, models_list
from dgl_deepgnn.data import load_data
from dgl_deepgnn.hub import ZooError

NAME = "tiny.karate"


@pytest.fixture
def call() -> Callable[..., str]:
    app = typer.Typer()
    add_commands(app)

    def run(*arguments: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if isinstance(result.exception, ZooError):
            raise result.exception  # cli.run prints it
        assert result.exit_code == code, result.output
        return result.output

    return run


def test_publish_list_download_evaluate_predict(
    call: Callable[..., str], run: Path, tmp_path: Path
) -> None:
    zoo = tmp_path / "zoo"
    assert call("publish", run, "--zoo", zoo, "--dtype", "fp16").split() == [
        "Published:",
        str(zoo / NAME),
    ]
    with pytest.raises(ZooError, match="--replace"):
        call("publish", run, "--zoo", zoo)
    call("publish", run, "--zoo", zoo, "--replace", "--speedup", f"{run}.speedup")
    listed = call("models", "tiny*", "--zoo", zoo)
    assert NAME in listed
    assert "vs usual" in listed and "practice" in listed
    one = call("models", NAME, "--zoo", zoo)
    assert "depth                       3" in one and "seeds                       2" in one
    assert "no such model" in call("models", "huge*", "--zoo", zoo)
    (tmp_path / "empty").mkdir()
    assert "is empty" in call("models", "--zoo", tmp_path / "empty")
    assert json.loads(call("models", "--zoo", zoo, "--json"))[NAME]["depth"] == 3
    header, rule, row = call("models", "--zoo", zoo, "--markdown").splitlines()
    assert header.count("|") == rule.count("|") == row.count("|") == 12
    assert row.startswith(f"| {NAME} | roc_auc |")
    assert call("download", NAME, "--zoo", zoo).strip() == str(zoo / NAME)
    assert "agrees with the record" in call("evaluate", NAME, "--zoo", zoo, "--device", "cpu")
    named = ["evaluate", NAME, "--zoo", zoo, "--data", "karate"]
    assert "agrees with the record" in call(*named, "--option", "features=none")
    with pytest.raises(ZooError, match="fingerprints differ"):
        call(*named, "--option", "features=standardize")
    dgl.save_graphs(str(tmp_path / "g.bin"), load_data("karate").graphs)
    arguments = ["predict", NAME, "--zoo", zoo, "--graph", tmp_path / "g.bin"]
    assert "34 predictions" in call(*arguments, "--output", tmp_path / "p.csv")
    call(*arguments, "--output", tmp_path / "p.csv", code=1)
    call(*arguments, "--output", tmp_path / "p.csv", "--force", "--prepared", "--device", "cpu")


@pytest.mark.filterwarnings("default")
def test_a_warning_is_one_line_for_people(
    call: Callable[..., str], zoo: Path, tmp_path: Path
) -> None:
    graph = dgl.graph(([0, 1], [1, 0]))
    graph.ndata["feat"] = torch.ones(2, 34)
    dgl.save_graphs(str(tmp_path / "g.bin"), [graph])
    arguments = ["--zoo", zoo, "--graph", tmp_path / "g.bin", "--output", tmp_path / "p.csv"]
    warning, result = sorted(call("predict", NAME, *arguments).splitlines(), reverse=True)
    assert warning.startswith("Warning: ")
    assert "lack self-loops" in warning
    assert result.startswith("2 predictions")


def test_a_metric_that_differs_is_exit_code_1(
    call: Callable[..., str], zoo: Path, reindex: Callable[..., None]
) -> None:
    file = zoo / NAME / "metrics.json"
    content = json.loads(file.read_text())
    content["weights"]["test"]["roc_auc"] /= 2
    file.write_text(json.dumps(content))
    reindex(zoo)
    assert "DIFFERS from the record" in call("evaluate", NAME, "--zoo", zoo, code=1)


def test_a_list_fits_80_columns() -> None:
    """The packaged models, and names as long as the index allows."""
    entries = dict(hub.open_zoo().index().models)
    known = list(entries)
    entries["m" * 100] = entries[known[0]]
    lines = models_list(entries).splitlines()
    assert max(len(line) for line in lines if not line.startswith("mmm")) <= 80
    assert "m" * 100 in lines
    for name in known:
        (place,) = [index for index, line in enumerate(lines) if line.split(" ")[0] == name]
        line = lines[place + (lines[place] == name)]  # a long name has a line of its own
        assert f"{entries[name].mean:.4f}" in line
