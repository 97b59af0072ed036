"""What a run folder from elsewhere can do to who resumes it: nothing outside, nothing unseen."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import DamagedError, load_tensors, save_tensors, write_json
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, train
from dgl_deepgnn.training import tuning as tuning_module
from dgl_deepgnn.training.tuning import tune

RECIPE = Recipe.model_validate(
    {
        "name": "test",
        "data": {"name": "karate"},
        "model": {"num_layers": 4, "hidden_feats": 8},
        "training": {"epochs": 3},
        "speedup": {"steps": 3, "learning_rates": [0.01], "seeds": [0]},
    }
)
TRIAL = "trials/lr0.003162-seed1000.safetensors"


@pytest.fixture(autouse=True)
def short_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuning_module.GRIDS, "adam", range(-12, -6, 2))


def tuned(folder: Path, **size: int) -> Path:
    settings = {"num_layers": 2, "hidden_feats": 4, "seeds": 1, **size}
    return tune(RECIPE, folder, progress=False, **settings)[0]


def resume(folder: Path) -> dict[str, Any]:
    return tune(RECIPE, folder, resume=True, progress=False)[1]


def reseal(folder: Path, name: str, change: Any) -> None:
    """Change a file of a run and give it the checksum that it should have."""
    opened = RunFolder.open(folder)
    if name == "run.json":
        facts = dict(opened.facts)
        change(facts)
        write_json(folder / name, facts, name)
    else:
        tensors, facts = load_tensors(folder / name)
        change(tensors, facts)
        save_tensors(folder / name, tensors, facts, f"{opened._identity}/{name}")


@pytest.mark.parametrize("size", [{"num_layers": 3}, {"hidden_feats": 6}, {"seeds": 2}])
def test_a_trial_of_a_tuning_of_another_size_is_seen(size: dict[str, int], tmp_path: Path) -> None:
    ours, theirs = tuned(tmp_path / "ours"), tuned(tmp_path / "theirs", **size)
    shutil.copyfile(theirs / TRIAL, ours / TRIAL)
    with pytest.raises(DamagedError, match=r"trials/.* belongs elsewhere.*Delete it: .*tune --res"):
        resume(ours)
    (ours / TRIAL).unlink()
    assert resume(ours) == resume(ours)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors, facts: tensors.update({"model.convs.0.weight": torch.ones(3, 3)}),
        lambda tensors, facts: tensors.pop("model.convs.0.weight"),
        lambda tensors, facts: tensors.update({"optimizer.0.exp_avg": torch.ones(5, 5)}),
        lambda tensors, facts: tensors.update({"optimizer.x.exp_avg": torch.ones(1)}),
        lambda tensors, facts: tensors.update({"random.torch": torch.ones(1)}),
        lambda tensors, facts: tensors.pop("random.order"),
        lambda tensors, facts: facts["counters"].update(epoch=10**400),
        lambda tensors, facts: facts["counters"].update(step=10**400),
        lambda tensors, facts: facts["counters"].pop("epoch"),
        lambda tensors, facts: facts.pop("val_loss"),
        lambda tensors, facts: facts.update(val_loss={}),
        lambda tensors, facts: facts.update(val_loss={"x": 1.0}),
        lambda tensors, facts: facts.update(val_loss={"9": 1.0}),
        lambda tensors, facts: facts.update(val_loss={"1": "low"}),
        lambda tensors, facts: facts["val_loss"].update({"1": float("nan")}),
    ],
    ids=lambda _: "case",
)
def test_a_trial_that_does_not_fit(change: Any, tmp_path: Path) -> None:
    folder = tuned(tmp_path / "t")
    reseal(folder, TRIAL, change)
    for name in os.listdir(folder / "trials"):  # go on with this one
        if name != Path(TRIAL).name:
            (folder / "trials" / name).unlink()
    with pytest.raises(DamagedError, match=r"Delete it: .*repeats this trial"):
        resume(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts.pop("tuning"),
        lambda facts: facts.update(tuning=None),
        lambda facts: facts.update(tuning=[]),
        lambda facts: facts["tuning"].pop("seeds"),
        lambda facts: facts["tuning"].update(seeds=[]),
        lambda facts: facts["tuning"].update(seeds=[-1]),
        lambda facts: facts["tuning"].update(seeds=list(range(1001))),
        lambda facts: facts["tuning"].update(num_layers=0),
        lambda facts: facts["tuning"].update(num_layers=10**9),
        lambda facts: facts["tuning"].update(hidden_feats=10**9),
        lambda facts: facts["tuning"].update(hidden_feats=9),  # the recipe has 8
        lambda facts: facts["tuning"].update(hidden_feats="4"),
    ],
    ids=lambda _: "case",
)
def test_settings_of_a_tuning_that_make_no_sense(change: Any, tmp_path: Path, limit: Any) -> None:
    folder = tuned(tmp_path / "t")
    reseal(folder, "run.json", change)
    with limit(60), pytest.raises(DamagedError, match=r"run\.json is damaged.*tuning"):
        resume(folder)


def test_a_tuning_of_too_many_seeds(tmp_path: Path, limit: Any) -> None:
    with limit(60), pytest.raises(UserError, match="seeds must be at most 1,000"):
        tuned(tmp_path / "t", seeds=10**9)


def test_a_run_has_no_settings_of_a_tuning(tmp_path: Path) -> None:
    folder = train(RECIPE, tmp_path / "run", progress=False).path
    sizes = {"num_layers": 2, "hidden_feats": 4, "seeds": [0]}
    reseal(folder, "run.json", lambda facts: facts.update(tuning=sizes))
    with pytest.raises(DamagedError, match="tuning"):
        RunFolder.open(folder)


def test_a_pipe_in_the_place_of_a_trial(tmp_path: Path, limit: Any) -> None:
    folder = tuned(tmp_path / "t")
    (folder / TRIAL).unlink()
    os.mkfifo(folder / TRIAL)
    with limit(60), pytest.raises(DamagedError, match=r"is a device or pipe.*Delete it"):
        resume(folder)


# Links out of the folder


def put_aside(place: Path, how: str, outside: Path) -> None:
    if how == "file":
        shutil.rmtree(place)
        place.touch()
    else:
        shutil.move(place, outside)
        place.symlink_to(outside)


def listed(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}


@pytest.mark.parametrize("how", ["link", "file"])
@pytest.mark.parametrize("finished", [True, False])
def test_a_seed_is_not_written_outside(how: str, finished: bool, tmp_path: Path) -> None:
    folder = train(RECIPE, tmp_path / "run", progress=False).path
    if not finished:
        (folder / "seed-0" / "result.json").unlink()
    (folder / "seed-0" / "checkpoint.safetensors").touch()
    put_aside(folder / "seed-0", how, tmp_path / "outside")
    before = listed(tmp_path / "outside")
    with pytest.raises(DamagedError, match=rf"seed-0 is a {how}.*Move it away.*train --resume"):
        train(RECIPE, folder, resume=True, progress=False)
    assert listed(tmp_path / "outside") == before
    (folder / "seed-0").unlink()
    train(RECIPE, folder, resume=True, progress=False)


@pytest.mark.parametrize("how", ["link", "file"])
@pytest.mark.parametrize("kind", ["tune", "speedup"])
def test_a_trial_is_not_written_outside(how: str, kind: str, tmp_path: Path) -> None:
    if kind == "tune":
        folder = tuned(tmp_path / "t")
    else:
        folder, _ = measure_speedup(RECIPE, tmp_path / "t", progress=False)
    shutil.rmtree(folder / "trials")
    (folder / "trials").mkdir()
    put_aside(folder / "trials", how, tmp_path / "outside")
    with pytest.raises(DamagedError, match=rf"trials is a {how}.*Move it away.*{kind} --resume"):
        if kind == "tune":
            resume(folder)
        else:
            measure_speedup(RECIPE, folder, resume=True, progress=False)
    assert listed(tmp_path / "outside") == {}


def test_a_log_is_not_appended_outside(tmp_path: Path) -> None:
    folder = train(RECIPE, tmp_path / "run", progress=False).path
    (folder / "seed-0" / "result.json").unlink()
    log = folder / "seed-0" / "metrics.jsonl"
    log.unlink()
    (tmp_path / "outside").touch()
    log.symlink_to(tmp_path / "outside")
    train(RECIPE, folder, resume=True, progress=False)
    assert (tmp_path / "outside").read_text() == ""
    assert len(log.read_text().splitlines()) == 3
    assert json.loads((folder / "summary.json").read_text())["best_seed"] == 0


def test_a_lock_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    folder = train(RECIPE, tmp_path / "run", progress=False).path
    (tmp_path / "mine").write_text("mine")
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(UserError, match=r"\.lock cannot be locked.*Remove it"):
        train(RECIPE, folder, resume=True, progress=False)
    assert (tmp_path / "mine").read_text() == "mine"
