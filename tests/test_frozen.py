"""What versions wrote, kept under tests/frozen: a later one reads it and finds the same."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from safetensors.torch import load_file

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.hub import evaluate, from_pretrained, list_pretrained, predict, publish, refresh
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, train

FROZEN = Path(__file__).parent / "frozen"
NAMES = {
    "0.1": ("tiny.file", "tiny.karate"),
    "0.2": ("tiny.file", "tiny.karate", "tiny.types"),
}
every_model = pytest.mark.parametrize(
    ("version", "name"), [(version, name) for version, names in NAMES.items() for name in names]
)
every_version = pytest.mark.parametrize("version", NAMES)


@pytest.fixture
def version(request: pytest.FixtureRequest) -> str:
    """The version that a test is about."""
    return str(request.param)


@pytest.fixture(autouse=True)
def copy(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a copy: the recipe names its data relative to the folder."""
    shutil.copytree(FROZEN / version, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")


def data_of(name: str) -> TaskData:
    section = load_recipe(f"{name}.yaml").data
    return load_data(section.name, **section.options)


def table(file: str) -> list[dict[str, float]]:
    with open(file, newline="") as lines:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(lines)]


@every_model
def test_a_recipe_reads_as_the_run_has_it(version: str, name: str) -> None:
    recipe = load_recipe(f"{name}.yaml")
    assert RunFolder.open(Path("trained") / name, data_of(name)).recipe == recipe


@every_model
def test_a_model_loads_and_keeps_its_score(version: str, name: str) -> None:
    assert list_pretrained(zoo="zoo") == list(NAMES[version])
    stored = load_file(f"zoo/{name}/model.safetensors")
    assert stored.keys() == from_pretrained(name, "zoo").state_dict().keys()
    expected: dict[str, Any] = json.loads(Path("evaluate.json").read_text())[name]
    result = evaluate(name, "zoo", data=data_of(name))
    assert result["agrees"]
    assert result["metric"] == expected["metric"]
    assert result["recomputed"] == pytest.approx(expected["recomputed"], abs=1e-6)


@every_model
def test_predictions_are_the_same(version: str, name: str) -> None:
    graphs = {"tiny.file": "graphs.bin", "tiny.types": "types.bin"}.get(name, "")
    if name == "tiny.karate":
        graphs = "karate.bin"
        dgl.save_graphs(graphs, load_data("karate").graphs)
    predict(name, graphs, "new.csv", "zoo")
    expected, found = table(f"{name}.csv"), table("new.csv")
    assert len(expected) == len(found)
    for old, new in zip(expected, found, strict=True):
        assert new == pytest.approx(old, abs=1e-5)


@every_version
def test_a_run_goes_on_where_it_was_and_is_published(version: str) -> None:
    recipe = load_recipe("tiny.file.yaml")
    run = train(recipe, Path("trained/tiny.file"), resume=True, progress=False).path
    summary = json.loads((run / "summary.json").read_text())
    expected = json.loads(Path("tiny.file.summary.json").read_text())
    assert summary["best_seed"] == expected["best_seed"]
    for part in ("train", "val", "test"):
        for new, old in zip(summary["seeds"], expected["seeds"], strict=True):
            assert new[part] == pytest.approx(old[part], abs=1e-5)
    for name, value in load_file("zoo/tiny.file/model.safetensors").items():
        assert torch.allclose(load_file(run / "model.safetensors")[name], value, atol=1e-5), name
    trials = Path("trained/tiny.file.speedup/trials")
    before = {trial.name: trial.read_text() for trial in trials.iterdir()}
    assert len(before) == 3
    measure_speedup(recipe, Path("trained/tiny.file.speedup"), resume=True, progress=False)
    assert before.items() <= {trial.name: trial.read_text() for trial in trials.iterdir()}.items()
    publish(run, zoo="new")
    assert evaluate("tiny.file", "new", data=data_of("tiny.file"))["agrees"]


@every_version
def test_a_finished_run_is_published(version: str) -> None:
    publish("trained/tiny.karate", zoo="new")
    expected = evaluate("tiny.karate", "zoo")
    assert evaluate("tiny.karate", "new") == expected


@pytest.mark.parametrize(("version", "name"), [("0.1", name) for name in NAMES["0.1"]])
def test_a_model_gets_the_record_of_its_preparation(version: str, name: str) -> None:
    before = {file.name: file.read_bytes() for file in Path("zoo", name).iterdir()}
    recorded = evaluate(name, "zoo", data=data_of(name))["recorded"]
    refresh(name, "zoo", data=data_of(name))
    after = {file.name: file.read_bytes() for file in Path("zoo", name).iterdir()}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert changed == {"README.md", "config.json"}
    result = evaluate(name, "zoo", data=data_of(name))
    assert result["agrees"] and result["recorded"] == recorded
    model, data = from_pretrained(name, "zoo"), data_of(name)
    if name == "tiny.file":
        (raw,), _ = dgl.load_graphs("graphs.bin")
        raw = dgl.remove_self_loop(raw)
        ready = model.prepare(raw)
        assert ready.num_edges() == data.graphs[0].num_edges()
        assert torch.equal(ready.ndata["feat"], data.graphs[0].ndata["feat"])
