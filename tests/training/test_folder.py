"""Damage to a run folder: one error that names the file and what is left to do."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import DamagedError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import RunFolder, train


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {"name": "karate"},
            "model": {"num_layers": 2, "hidden_feats": 4},
            "training": {"epochs": 3},
            "seeds": [0, 1],
            **sections,
        }
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return train(recipe(), folder, progress=False).path


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seed 0 is done, seed 1 is at its second epoch."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        log = RunFolder.append_metrics

        def logging(self: RunFolder, seed: int, line: Any) -> None:
            log(self, seed, line)
            if (seed, line["epoch"]) == (1, 3):
                raise KeyboardInterrupt

        patch.setattr(RunFolder, "append_metrics", logging)
        with pytest.raises(KeyboardInterrupt):
            train(recipe(), folder, progress=False)
    return folder


def flip(file: Path, place: float) -> None:
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 16
    file.write_bytes(content)


def resume(folder: Path) -> RunFolder:
    return train(RunFolder.open(folder).recipe, folder, resume=True, progress=False)


@pytest.mark.parametrize("place", [0.01, 0.3, 0.5, 0.7, 0.99])
@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("recipe.yaml", "Restore it from a copy"),
        ("run.json", "Restore it from a copy"),
        ("seed-0/result.json", "delete the folder .*seed-0"),
        ("seed-0/metrics.jsonl", "delete the folder .*seed-0"),
        ("seed-1/checkpoint.safetensors", "delete the folder .*seed-1"),
        ("seed-1/metrics.jsonl", "delete the folder .*seed-1"),
    ],
)
def test_damage_is_seen_by_resume(
    name: str, advice: str, place: float, interrupted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    flip(folder / name, 0.5 * place if name == "seed-1/metrics.jsonl" else place)
    with pytest.raises(DamagedError, match=rf"{name} is damaged.*{advice}"):
        resume(folder)


@pytest.mark.parametrize(
    "name",
    [
        "recipe.yaml",
        "run.json",
        "seed-0/result.json",
        "seed-1/checkpoint.safetensors",
        "seed-1/metrics.jsonl",
    ],
)
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(
    name: str, interrupted: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match=f"{name} is a device or pipe"):
        resume(folder)


def test_the_advice_helps(interrupted: Path, finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(interrupted, tmp_path / "run"))
    flip(folder / "seed-1" / "checkpoint.safetensors", 0.5)
    shutil.rmtree(folder / "seed-1")
    again, whole = resume(folder), RunFolder.open(finished)
    for seed in (0, 1):
        weights = [f.load(f"seed-{seed}/model.safetensors")[0] for f in (again, whole)]
        assert all((weights[0][key] == weights[1][key]).all() for key in weights[1])


def test_what_is_made_of_the_seeds_is_made_anew(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("summary.json", "config.json", "model.safetensors"):
        flip(folder / name, 0.5)
        with pytest.raises(DamagedError, match=rf"{name} is damaged.*--resume {folder}` writes it"):
            (RunFolder.open(folder).load if "tensors" in name else RunFolder.open(folder).read)(
                name
            )
    resume(folder)
    for name in ("summary.json", "config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes()


def test_files_that_changed_places(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("model.safetensors", "metrics.jsonl", "result.json"):
        first, second = folder / "seed-0" / name, folder / "seed-1" / name
        first.rename(tmp_path / "aside")
        second.rename(first)
        (tmp_path / "aside").rename(second)
        with pytest.raises(DamagedError, match=rf"seed-0/{name} is damaged.*belongs elsewhere"):
            opened = RunFolder.open(folder)
            opened.load(f"seed-0/{name}") if "tensors" in name else opened.metrics(0)
        shutil.copyfile(finished / "seed-0" / name, first)
        shutil.copyfile(finished / "seed-1" / name, second)


def test_missing_files(finished: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    (folder / "seed-0" / "metrics.jsonl").unlink()
    with pytest.raises(DamagedError, match=r"metrics\.jsonl is damaged: No such file"):
        resume(folder)


def test_a_file_without_a_checksum_is_damaged_unless_the_run_has_none(
    finished: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for name in ("run.json", "seed-0/result.json"):
        text = (folder / name).read_text()
        (folder / name).write_text(text.replace("checksum", "chacksum"))
        with pytest.raises(DamagedError, match=rf"{name} is damaged.*no checksum"):
            resume(folder)
        (folder / name).write_text(text)


def test_a_kill_while_a_folder_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    for function in ("fsync", "replace", "rename"):
        with monkeypatch.context() as patch:
            patch.setattr(os, function, killed)
            with pytest.raises(Killed):
                train(recipe(), tmp_path / "run", progress=False)
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="is not a run folder"):
        resume(tmp_path / "run")
    assert train(recipe(), tmp_path / "run", progress=False).result(1)
