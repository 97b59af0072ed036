"""Run folders: what is in them, and that they survive whatever kills a training."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dgl
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import dgl_deepgnn
from dgl_deepgnn import files
from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import new_folder
from dgl_deepgnn.nn import create_model
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training import DivergenceError, run
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.run import summarize, train


def recipe(data: Any = "karate", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {"name": data} if isinstance(data, str) else data,
            "model": {"num_layers": 3, "hidden_feats": 8, **sections.pop("model", {})},
            "training": {"epochs": 4, **sections.pop("training", {})},
            **sections,
        }
    )


def quiet(recipe: Recipe, output: Path | None = None, **options: Any) -> RunFolder:
    return train(recipe, output, progress=False, **options)


def test_a_recipe_by_name_or_path(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(recipe().to_yaml())
    for source in (file, str(file)):
        folder = train(source, tmp_path / type(source).__name__, progress=False)
        assert folder.recipe == load_recipe(file) == RunFolder.open(folder.path).recipe
    with pytest.raises(UserError, match="Did you mean 'resgcn64"):
        train("resgcn64.digts", tmp_path / "x", progress=False)


def content(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """All that must not depend on interruptions: everything but durations."""
    summary = RunFolder.open(folder).read("summary.json")
    for result in summary["seeds"]:
        del result["seconds"]
    lines = {}
    for seed in seeds:
        text = (folder / f"seed-{seed}" / "metrics.jsonl").read_text()
        lines[seed] = [json.loads(line) for line in text.splitlines()]
        for line in lines[seed]:
            del line["step_seconds"], line["checksum"]
    weights = {
        str(file.relative_to(folder)): {k: v.tolist() for k, v in load_file(file).items()}
        for file in sorted(folder.rglob("*.safetensors"))
    }
    return {"summary": summary, "lines": lines, "weights": weights}


# --- what is in a folder ---


def test_folder(tmp_path: Path) -> None:
    spec = recipe("csbm", training={"epochs": 6}, seeds=[3, 1], model={"dropout": 0.2})
    folder = quiet(spec, tmp_path / "deep" / "er" / "run 数é")
    path = folder.path
    seed_files = {"metrics.jsonl", "model.safetensors", "result.json"}
    assert {str(f.relative_to(path)) for f in path.rglob("*") if f.is_file()} == {
        *("recipe.yaml", "run.json", "config.json", "summary.json", "loss.png", ".lock"),
        "model.safetensors",
        *(f"seed-{seed}/{name}" for seed in (3, 1) for name in seed_files),
    }
    assert load_recipe(path / "recipe.yaml") == spec == RunFolder.open(path).recipe
    facts = json.loads((path / "run.json").read_text())
    data = load_data("csbm")
    assert facts["fingerprint"] == data.fingerprint()
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["versions"]["dgl_deepgnn"] == dgl_deepgnn.__version__
    assert facts["device"] == "cpu"

    # Best epoch of every seed by validation accuracy, then loss: by hand from the lines.
    accuracies = {}
    for seed in (3, 1):
        lines = folder.metrics(seed)
        assert [line["epoch"] for line in lines] == list(range(1, 7))
        assert [line["step"] for line in lines] == list(range(1, 7))
        assert all(len(line["step_losses"]) == len(line["step_seconds"]) == 1 for line in lines)
        best = max(lines, key=lambda line: (line["val"]["accuracy"], -line["val"]["loss"]))
        result = folder.result(seed)
        assert result["best_epoch"] == best["epoch"]
        assert result["test"] == best["test"] and result["val"] == best["val"]
        assert (result["epochs"], result["steps"]) == (6, 6)
        accuracies[seed] = result["val"]["accuracy"]

    summary = json.loads((path / "summary.json").read_text())
    assert summary["best_seed"] == max((3, 1), key=lambda seed: accuracies[seed])
    for name, facts in summary["test"].items():
        values = [folder.result(seed)["test"][name] for seed in (3, 1)]
        assert facts["mean"] == pytest.approx(np.mean(values))
        assert facts["std"] == pytest.approx(np.std(values, ddof=1))
        assert facts["n"] == 2
    assert summary["val"]["mean"] == pytest.approx(np.mean(list(accuracies.values())))

    # The published files alone give the published score.
    config = json.loads((path / "config.json").read_text())
    model = create_model(config["model"], **config["arguments"])
    model.load_state_dict(load_file(path / "model.safetensors"))
    model.eval()
    with torch.no_grad():
        scores = model(data.graphs[0], data.graphs[0].ndata["feat"])
    mask = data.splits[0]["test"]
    accuracy = (scores.argmax(1) == data.labels)[mask].double().mean().item()
    assert accuracy == pytest.approx(folder.result(summary["best_seed"])["test"]["accuracy"])
    assert summary["parameters"] == sum(t.numel() for t in model.parameters())


def test_one_seed_has_no_spread() -> None:
    assert summarize([0.5]) == {"mean": 0.5, "std": None, "n": 1}
    assert summarize([1.0, 2.0, 4.0])["std"] == pytest.approx(np.std([1, 2, 4], ddof=1))


def test_evaluate_every_and_the_last_epoch(tmp_path: Path) -> None:
    folder = quiet(recipe(training={"epochs": 7, "evaluate_every": 3}), tmp_path / "r")
    assert [line["epoch"] for line in folder.metrics(0) if "val" in line] == [3, 6, 7]


def scripted(monkeypatch: pytest.MonkeyPatch, scores: list[float]) -> None:
    """Validation scores by epoch."""

    def evaluate(self: run.Trainer, parts: Any = None) -> dict[str, Any]:
        facts = {"roc_auc": scores[self.epoch - 1], "loss": 1.0}
        return {part: dict(facts) for part in ("train", "val", "test")}

    monkeypatch.setattr(run.Trainer, "evaluate", evaluate)


@pytest.mark.parametrize(
    ("patience", "every", "scores", "best", "stop"),
    [
        (2, 1, [0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 2, 4),
        (3, 1, [0.1, 0.3, 0.2, 0.2, 0.9, 0.9], 5, 6),
        (1, 1, [0.1, 0.1, 0.9, 0.9, 0.9, 0.9], 1, 2),  # a tie is not better
        (None, 1, [0.9, 0.1, 0.1, 0.1, 0.1, 0.1], 1, 6),
        (1, 3, [0.0, 0.0, 0.5, 0.0, 0.0, 0.6], 6, 6),  # patience below the interval
        (4, 2, [0.0, 0.5, 0.0, 0.1, 0.0, 0.2], 2, 6),
        (2, 2, [0.0, 0.5, 0.0, 0.1, 0.0, 0.2], 2, 4),
    ],
)
def test_early_stopping(tmp_path, monkeypatch, patience, every, scores, best, stop) -> None:
    scripted(monkeypatch, scores)
    training = {"epochs": 6, "patience": patience, "evaluate_every": every}
    result = quiet(recipe(training=training), tmp_path / "r").result(0)
    assert (result["best_epoch"], result["epochs"]) == (best, stop)
    assert result["val"]["roc_auc"] == scores[best - 1]


def test_best_by_metric_or_by_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed 1 has the best metric, seed 0 the least loss; so have epochs 1 and 2 of each."""

    def evaluate(self: run.Trainer, parts: Any = None) -> dict[str, Any]:
        facts = {
            "roc_auc": 0.9 - 0.1 * self.epoch + 0.05 * self.seed,
            "loss": 2.0 - 0.1 * self.epoch + 0.05 * self.seed,
        }
        return {part: dict(facts) for part in ("train", "val", "test")}

    monkeypatch.setattr(run.Trainer, "evaluate", evaluate)
    for by, epoch, seed in (("metric", 1, 1), ("loss", 2, 0)):
        changed = recipe(training={"epochs": 2, "select_by": by}, seeds=[0, 1])
        folder = quiet(changed, tmp_path / by)
        assert [folder.result(s)["best_epoch"] for s in (0, 1)] == [epoch, epoch]  # type: ignore[index]
        assert folder.read("summary.json")["best_seed"] == seed


def test_folds_by_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    karate = load_data("karate")
    folds = [{part: mask.roll(i) for part, mask in karate.splits[0].items()} for i in range(3)]
    data = replace(karate, splits=folds)
    monkeypatch.setattr(run, "load_task", lambda recipe, allow_code: data)
    folder = quiet(recipe(seeds=[0, 1, 2, 4], training={"epochs": 1}), tmp_path / "r")
    arguments = json.loads((folder.path / "config.json").read_text())["arguments"]
    for seed in (0, 1, 2, 4):
        model = create_model("resgcn", **arguments)
        model.load_state_dict(load_file(folder.seed_folder(seed) / "model.safetensors"))
        scores = model.eval()(karate.graphs[0], karate.graphs[0].ndata["feat"])[:, 0]
        mask = karate.splits[0]["test"].roll(seed % 3)
        accuracy = ((scores > 0).long() == karate.labels)[mask].double().mean().item()
        assert folder.result(seed)["test"]["accuracy"] == pytest.approx(accuracy)


# --- never overwritten ---


def test_never_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (tmp_path, tmp_path / "empty", tmp_path / "file"):
        if place.name == "empty":
            place.mkdir()
        elif place.name == "file":
            place.write_text("mine")
        with pytest.raises(UserError, match=r"never overwritten.*--resume"):
            quiet(recipe(), place)
    assert (tmp_path / "file").read_text() == "mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "file"]


def test_new_folders_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [quiet(recipe(training={"epochs": 1})).path for _ in range(2)] == [
        Path("runs/test"),
        Path("runs/test-2"),
    ]
    assert new_folder(Path("runs"), "test") == Path("runs/test-3")


def test_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file" / "run", tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match=r"cannot be made \(.*another folder"):
            quiet(recipe(), place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_read_only_place(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match=r"cannot be made \(Permission denied"):
        quiet(recipe(), tmp_path / "locked" / "run")


def test_what_is_wrong_shows_before_the_folder_is_made(tmp_path: Path) -> None:
    for wrong in (
        recipe("nothing"),
        recipe({"name": "karate", "options": {"x": 1}}),
        recipe(model={"options": {"alpha": 7}}),
        recipe(training={"clusters": 99, "batch_size": 1}),
    ):
        with pytest.raises((UserError, DGLError)):
            quiet(wrong, tmp_path / "run")
    with pytest.raises(UserError, match="--device"):
        quiet(recipe(), tmp_path / "run", device="cuda:99")
    with pytest.raises(UserError, match="which run folder"):
        quiet(recipe(), resume=True)
    assert not (tmp_path / "run").exists()


# --- resume ---


def test_resume_of_what_is_done_changes_nothing(tmp_path: Path) -> None:
    folder = quiet(recipe(), tmp_path / "r")
    before = content(folder.path, [0])
    quiet(recipe(), folder.path, resume=True)
    assert content(folder.path, [0]) == before


def test_resume_with_another_recipe_or_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = quiet(recipe(), tmp_path / "r")
    with pytest.raises(UserError, match="another recipe"):
        quiet(recipe(optimizer={"lr": 0.1}), folder.path, resume=True)
    karate = load_data("karate")
    other = replace(karate, labels=1 - karate.labels)
    monkeypatch.setattr(run, "load_task", lambda recipe, allow_code: other)
    with pytest.raises(UserError, match=r"other data.*fingerprints differ"):
        quiet(recipe(), folder.path, resume=True)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("recipe.yaml", None),
        ("run.json", None),
        ("recipe.yaml", "a: [1"),
        ("recipe.yaml", "modle: 1"),
        ("recipe.yaml", "\x00"),
        ("run.json", "{"),
        ("run.json", "[]"),
        ("run.json", "{}"),
    ],
)
def test_resume_of_what_is_no_run_folder(tmp_path: Path, file: str, text: str | None) -> None:
    folder = quiet(recipe(training={"epochs": 1}), tmp_path / "r")
    if text is None:
        (folder.path / file).unlink()
        says = "is not a run folder"
    else:
        (folder.path / file).write_text(text)
        says = rf"{file} is damaged.*Restore it from a copy"
    with pytest.raises(UserError, match=says):
        quiet(recipe(training={"epochs": 1}), folder.path, resume=True)
    for nothing in (tmp_path / "nothing", folder.path / "config.json", tmp_path):
        with pytest.raises(UserError, match="is not a run folder"):
            RunFolder.open(nothing)


class Killed(BaseException):
    """Ends a run at one exact point, as a kill would."""


INTERRUPTED = recipe(
    "csbm",
    training={"epochs": 5, "patience": 2, "clusters": 4, "batch_size": 3},
    model={"dropout": 0.4},
    optimizer={"lr": 0.03, "weight_decay": 0.01, "transfer": True},
    schedule={"name": "cosine", "warmup_steps": 2},
    seeds=[0, 5],
)
INTERRUPTED.data.options.update(num_nodes=150, feature_dim=4)


def test_resume_after_a_kill_at_every_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = content(quiet(INTERRUPTED, tmp_path / "whole").path, [0, 5])
    replace_file = os.replace
    moment, writes = 0, 0

    def replacing(source: Any, target: Any) -> None:
        # Twice for every file: killed just before it is there, and just after.
        nonlocal writes
        writes += 1
        if writes == moment:
            raise Killed
        replace_file(source, target)
        writes += 1
        if writes == moment:
            raise Killed

    monkeypatch.setattr(files.os, "replace", replacing)
    for moment in (*range(5, 70, 4), 10_000):
        folder, writes = tmp_path / str(moment), 0
        try:
            quiet(INTERRUPTED, folder)
        except Killed:
            writes = 10_000  # no more kills
            quiet(INTERRUPTED, folder, resume=True)
        else:
            break
        assert content(folder, [0, 5]) == expected
    assert 20 < writes < moment  # the run was killed throughout its length


@pytest.mark.parametrize("share", [0.02, 0.5, 0.99, 1.0])
def test_half_written_last_line(tmp_path: Path, share: float) -> None:
    spec = recipe(training={"epochs": 3})
    expected = content(quiet(spec, tmp_path / "whole").path, [0])
    folder = tmp_path / "cut"
    with pytest.MonkeyPatch.context() as patch:
        # Killed while the line of epoch 3 is written, before its checkpoint.
        save = run._save_checkpoint
        patch.setattr(
            run,
            "_save_checkpoint",
            lambda folder, name, trainer, *rest: (
                save(folder, name, trainer, *rest) if trainer.epoch < 3 else killed()
            ),
        )

        def killed() -> None:
            raise Killed

        with pytest.raises(Killed):
            quiet(spec, folder)
    log = folder / "seed-0" / "metrics.jsonl"
    *whole, last = log.read_text().splitlines(keepends=True)
    assert len(whole) == 2
    cut = int(share * len(last))
    inner = last.rindex("}", 0, -2) + 1  # ends like a whole line
    for end in {cut, inner}:
        log.write_text("".join(whole) + last[:end])
        assert [line["epoch"] for line in RunFolder.open(folder).metrics(0)][:2] == [1, 2]
    quiet(spec, folder, resume=True)
    assert content(folder, [0]) == expected


def test_divergence_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(DivergenceError, match="seed 0"):
        quiet(recipe(optimizer={"lr": 1e30}), tmp_path / "r")
    with pytest.raises(DivergenceError, match="seed 0"):
        quiet(recipe(optimizer={"lr": 1e30}), tmp_path / "r", resume=True)


def test_same_seed_same_run(tmp_path: Path) -> None:
    runs = []
    for name in ("a", "b"):
        torch.randn(3)
        runs.append(content(quiet(INTERRUPTED, tmp_path / name).path, [0, 5]))
    assert runs[0] == runs[1]


# --- another process ---


@pytest.fixture
def start(tmp_path: Path):
    """Function that starts ``python -m dgl_deepgnn`` in the background."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dgl_deepgnn", *map(str, arguments)],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job ignores Ctrl-C, and so would what it starts.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def epochs_done(folder: Path) -> int:
    logs = folder.glob("seed-*/metrics.jsonl")
    return sum(log.read_text().count("\n") for log in logs)


def wait_for_epochs(process: subprocess.Popen[str], folder: Path, count: int) -> None:
    limit = time.monotonic() + 120
    while epochs_done(folder) < count:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit, "no progress"
        time.sleep(0.005)


def test_sigkill_lock_and_ctrl_c(tmp_path: Path, start: Any) -> None:
    epochs = 100
    spec = recipe(
        training={"epochs": epochs, "evaluate_every": 4}, seeds=[0, 1], model={"dropout": 0.2}
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(spec.to_yaml())
    expected = content(quiet(spec, tmp_path / "whole").path, [0, 1])
    folder = tmp_path / "killed"

    # The last leaves 80 epochs to go: on a busy machine the signal comes late.
    moments = sorted(random.sample(range(1, 2 * epochs - 80), 3))
    process = start("train", file, "--output", folder)
    for done in moments[:-1]:
        wait_for_epochs(process, folder, done)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = start("train", "--resume", folder)
    wait_for_epochs(process, folder, moments[-1])
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(UserError, match="is being trained by another process"):
        quiet(spec, folder, resume=True)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (moments, err)
    assert out == "" and "Traceback" not in err
    assert "dgl-deepgnn train --resume FOLDER" in err and str(folder) in err

    quiet(spec, folder, resume=True)
    assert content(folder, [0, 1]) == expected, moments


# --- TensorBoard ---


def test_tensorboard_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(UserError, match=r"pip install .dgl-deepgnn\[tensorboard\]"):
        quiet(recipe(), tmp_path / "r", tensorboard=True)
    assert not (tmp_path / "r").exists()


def test_tensorboard_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, place: str) -> None:
            assert place == str(tmp_path / "r" / "seed-0")

        def add_scalar(self, name: str, value: float, step: int) -> None:
            events.append((name, value, step))

        def flush(self) -> None:
            pass

        close = flush

    module = type(sys)("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    folder = quiet(recipe(), tmp_path / "r", tensorboard=True)
    lines = folder.metrics(0)
    assert [event[1:] for event in events if event[0] == "train/step_loss"] == [
        (line["step_losses"][0], line["step"]) for line in lines
    ]
    assert [event[1:] for event in events if event[0] == "val/roc_auc"] == [
        (line["val"]["roc_auc"], line["step"]) for line in lines
    ]


def test_every_level_and_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = [dgl.rand_graph(6, 20) for _ in range(9)]
    for graph in graphs:
        graph.ndata["feat"] = torch.randn(6, 3)
    for level, count in (("node", 54), ("edge", 180), ("graph", 9)):
        part = torch.arange(count) % 3
        split = {name: part == i for i, name in enumerate(("train", "val", "test"))}
        for target, labels, outputs in (
            ("multiclass", torch.arange(count) // 3 % 2, 4),
            ("binary", torch.arange(count) // 3 % 2, 1),
            ("multilabel", (torch.arange(count)[:, None] // torch.tensor([1, 3]) % 2), 2),
            ("regression", torch.randn(count, 2), 2),
        ):
            data = TaskData("t", graphs, level, target, labels, [split], outputs)
            monkeypatch.setattr(run, "load_task", lambda recipe, allow_code, data=data: data)
            spec = recipe(training={"epochs": 1, "batch_size": 4})
            folder = quiet(spec, tmp_path / f"{level}-{target}")
            assert np.isfinite(folder.result(0)["test"]["loss"])


def test_kinds_of_folders_are_told_apart(tmp_path: Path) -> None:
    folder = quiet(recipe(), tmp_path / "r")
    assert RunFolder.open(folder.path, kind="training").path == folder.path
    with pytest.raises(UserError, match="holds a training, not a speed-up record"):
        RunFolder.open(folder.path, kind="speed-up record")


def test_validation_that_ranks_nothing_leaves_it_to_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two splits; in the first one all validation labels are equal."""
    place = torch.arange(60)
    graph = dgl.graph((place, place.roll(2))).add_self_loop()
    labels = place % 2
    graph.ndata["feat"] = torch.stack([labels, 1 - labels], 1).float()
    splits = [
        {"val": place % 12 == 0, "test": place % 3 == 1},
        {"val": place % 6 < 2, "test": place % 6 == 5},
    ]
    for masks in splits:
        masks["train"] = ~masks["val"] & ~masks["test"]
    data = TaskData(
        name="own",
        level="node",
        target="binary",
        graphs=[graph],
        labels=labels,
        splits=splits,
        num_outputs=1,
    )
    monkeypatch.setattr(run, "load_task", lambda *arguments: data)
    recipe = Recipe.model_validate(
        {
            "name": "own",
            "data": {"name": "csbm"},
            "model": {"num_layers": 3, "hidden_feats": 8},
            "optimizer": {"lr": 0.003},
            "training": {"epochs": 20, "evaluate_every": 1},
            "seeds": [0, 1],
        }
    )
    with pytest.warns(UserWarning, match="validation labels of split 0 are equal: roc_auc is not"):
        folder = train(recipe, tmp_path / "run", progress=False)
    summary = folder.read("summary.json")
    losses = [line["val"]["loss"] for line in folder.metrics(0)]
    lowest = 1 + int(np.argmin(losses))
    assert summary["seeds"][0]["best_epoch"] == lowest > 1
    assert summary["best_seed"] == 1


def test_a_regression_worse_than_the_mean_is_said(tmp_path: Path) -> None:
    recipe = load_recipe(
        "resgcn64.digits",
        [
            "data.name=csbm",
            "data.options={}",
            "model.num_layers=2",
            "training.epochs=1",
            "seeds=[0]",
        ],
    )
    data = run.load_task(recipe)
    labels = 1000 + torch.arange(len(data.labels)).float()
    other = replace(data, target="regression", labels=labels, num_outputs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dgl_deepgnn.training.run.load_task", lambda *arguments: other)
        with pytest.warns(UserWarning, match="worse than its mean would"):
            train(recipe, tmp_path / "run", progress=False)
