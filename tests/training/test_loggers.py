"""Metrics in the tools that show them: what they are handed and, where installed, keep."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import RunFolder, train
from dgl_deepgnn.training.loggers import LOGGERS

RECIPE: dict[str, Any] = {
    "name": "tiny",
    "data": {"name": "karate"},
    "model": {"hidden_feats": 4, "num_layers": 3},
    "training": {"epochs": 4, "evaluate_every": 2},
    "seeds": [0, 1],
}


def trained(place: Path, *loggers: str) -> RunFolder:
    recipe = Recipe.model_validate(RECIPE)
    return train(recipe, place / "run", loggers=loggers, progress=False)


class Tool(ModuleType):
    """Stands for a tool: keeps what it is told. It can fail."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.told: list[tuple[Any, ...]] = []
        self.broken: str | None = None

    def _tell(self, *what: Any) -> None:
        print("chatter")
        if self.broken == what[0]:
            raise ConnectionError("no network")
        self.told.append(what)

    def init(self, **options: Any) -> Tool:
        self._tell("open", options["name"], options["config"]["model"]["num_layers"])
        return self

    def log(self, values: dict[str, float], step: int) -> None:
        self._tell("log", step, values)

    def finish(self) -> None:
        self._tell("close")

    def set_experiment(self, name: str) -> None:
        assert name == "dgl-deepgnn"

    def start_run(self, run_name: str) -> None:
        self._name = run_name

    def log_params(self, parameters: dict[str, Any]) -> None:
        self._tell("open", self._name, parameters["model.num_layers"])

    log_metrics = log
    end_run = finish


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tool]:
    made = {name: Tool(name) for name in LOGGERS if name != "tensorboard"}
    for name, tool in made.items():
        monkeypatch.setitem(sys.modules, name, tool)
    return made


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_they_get_what_the_folder_gets(
    name: str, tools: dict[str, Tool], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(tmp_path, name)
    expected: list[tuple[Any, ...]] = []
    for seed in (0, 1):
        expected.append(("open", f"run seed {seed}", 3))
        for line in folder.metrics(seed):
            values = {"epoch": line["epoch"], "lr": line["lr"]}
            values["train/epoch_loss"] = sum(line["step_losses"]) / len(line["step_losses"])
            for part in ("train", "val", "test"):
                values |= {f"{part}/{key}": value for key, value in line.get(part, {}).items()}
            expected.append(("log", line["step"], values))
        expected.append(("close",))
    assert tools[name].told == expected
    assert "val/roc_auc" in tools[name].told[2][2] and "val/roc_auc" not in tools[name].told[1][2]
    streams = capsys.readouterr()
    assert "chatter" not in streams.out and "chatter" in streams.err


def test_several_at_once(tools: dict[str, Tool], tmp_path: Path) -> None:
    trained(tmp_path, "wandb", "mlflow", "wandb")
    assert tools["wandb"].told == tools["mlflow"].told
    assert not tools["trackio"].told


def test_one_that_fails_does_not_stop_the_training(tools: dict[str, Tool], tmp_path: Path) -> None:
    tools["wandb"].broken = "log"
    with pytest.warns(UserWarning, match=r"wandb has failed, .*ConnectionError: no network"):
        folder = trained(tmp_path, "wandb", "mlflow")
    assert folder.read("summary.json")
    assert len(tools["mlflow"].told) == 2 * (1 + 4 + 1)
    tools["wandb"].broken = "close"
    with pytest.warns(UserWarning, match="wandb has failed"):
        trained(tmp_path / "other", "wandb")


def test_one_that_does_not_open_later(tools: dict[str, Tool], tmp_path: Path) -> None:
    """Behind the first seed it is left out, like one that fails."""
    opened = tools["wandb"].init

    def once(**options: Any) -> Tool:
        if options["name"] != "run seed 0":
            tools["wandb"].broken = "open"
        return opened(**options)

    tools["wandb"].init = once  # type: ignore[method-assign]
    with pytest.warns(UserWarning, match=r"cannot be opened: .*It gets nothing of this seed"):
        folder = trained(tmp_path, "wandb")
    assert folder.read("summary.json")
    assert len(tools["wandb"].told) == 1 + 4 + 1


def test_a_continued_seed_is_the_run_that_it_was(tools: dict[str, Tool], tmp_path: Path) -> None:
    seen: list[tuple[Any, ...]] = []
    opened = tools["wandb"].init

    def remember(**options: Any) -> Tool:
        seen.append((options["id"], options["resume"]))
        return opened(**options)

    tools["wandb"].init = remember  # type: ignore[method-assign]
    folder = trained(tmp_path, "wandb")
    for seed in (0, 1):
        (folder.path / f"seed-{seed}" / "result.json").unlink()
    recipe = Recipe.model_validate(RECIPE)
    train(recipe, folder.path, resume=True, loggers=["wandb"], progress=False)
    assert seen[:2] == seen[2:] and seen[0] != seen[1] and seen[0][1] == "allow"
    trained(tmp_path / "other", "wandb")
    assert not set(seen[:2]) & set(seen[4:])


def test_one_that_does_not_open(tools: dict[str, Tool], tmp_path: Path) -> None:
    tools["wandb"].broken = "open"
    with pytest.raises(UserError, match=r"wandb cannot be opened: ConnectionError: no network"):
        trained(tmp_path, "mlflow", "wandb")
    assert tools["mlflow"].told[-1] == ("close",)


def test_one_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'dgl-deepgnn\[wandb\]'"):
        trained(tmp_path, "wandb")
    with pytest.raises(UserError, match=r"no logger 'wand'\. Did you mean 'wandb'"):
        trained(tmp_path, "wand")
    assert not list(tmp_path.iterdir())


# --- the tools themselves ---


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Variables that keep everything on this machine."""
    for name, value in (
        ("WANDB_MODE", "offline"),
        ("WANDB_SILENT", "true"),
        ("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db"),
        ("TRACKIO_DIR", str(tmp_path / "trackio")),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_wandb_keeps_them(installed: Path) -> None:
    pytest.importorskip("wandb", reason="make test-loggers")
    folder = trained(installed, "wandb")
    (file,) = (folder.path / "seed-0").glob("wandb/offline-run-*/run-*.wandb")
    content = file.read_bytes()
    assert b"val/roc_auc" in content
    last = folder.metrics(0)[-1]["val"]["roc_auc"]
    assert repr(last).encode() in content


def test_mlflow_keeps_them(installed: Path) -> None:
    pytest.importorskip("mlflow", reason="make test-loggers")
    folder = trained(installed, "mlflow")
    with sqlite3.connect(installed / "mlflow.db") as base:
        found = base.execute(
            "select m.step, m.value from metrics m join runs r using (run_uuid) "
            "where r.name = 'run seed 1' and m.key = 'val/roc_auc' order by m.step"
        ).fetchall()
    lines = [line for line in folder.metrics(1) if "val" in line]
    assert found == [(line["step"], line["val"]["roc_auc"]) for line in lines]


def test_trackio_keeps_them(installed: Path) -> None:
    pytest.importorskip("trackio", reason="make test-loggers")
    folder = trained(installed, "trackio")
    (base,) = (installed / "trackio").glob("*.db")
    with sqlite3.connect(base) as opened:
        rows = opened.execute(
            "select step, json_extract(metrics, '$.\"train/epoch_loss\"') from metrics "
            "where run_name = 'run seed 0' order by step"
        ).fetchall()
    assert rows == [(line["step"], line["step_losses"][0]) for line in folder.metrics(0)]
