from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import read_json, write_json
from dgl_deepgnn.hub import (
    ZooError,
    evaluate,
    from_pretrained,
    list_pretrained,
    publish,
    publishing,
    refresh,
)
from dgl_deepgnn.hub.config import ReferenceFacts, read_config
from dgl_deepgnn.hub.index import FileFacts, Index
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, train

NAME = "tiny.karate"
FILES = {
    "README.md",
    "config.json",
    "loss.png",
    "metrics.json",
    "model.safetensors",
    "speedup.csv",
    "speedup.json",
    "speedup.png",
}


@pytest.fixture
def my_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, for a test to change."""
    shutil.copytree(f"{run}.speedup", tmp_path / "run.speedup")
    return Path(shutil.copytree(run, tmp_path / "run"))


def edit(file: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def edit_run(run: Path, name: str, change: Callable[[Any], object]) -> None:
    """Change a file of a run, with a checksum that fits: its owner touches it up."""
    folder = RunFolder.open(run)
    content = folder.read(name)
    change(content)
    folder.write(name, content)


def edit_recipe(run: Path, text: str) -> None:
    (run / "recipe.yaml").write_text(text)
    facts = read_json(run / "run.json", "run.json")
    facts["recipe"] = hashlib.sha256(text.encode()).hexdigest()
    write_json(run / "run.json", facts, "run.json")


def snapshot(zoo: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(zoo)): file.read_bytes()
        for file in zoo.rglob("*")
        if file.is_file() and file.name != ".lock"
    }


def test_an_entry_holds_what_the_run_held(run: Path, published: Path) -> None:
    folder = published / NAME
    assert {file.name for file in folder.iterdir()} == FILES
    assert {path.name for path in published.iterdir()} <= {NAME, "index.json", ".lock"}
    summary = RunFolder.open(run).read("summary.json")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test"] == summary["test"]
    assert metrics["seeds"] == [RunFolder.open(run).result(seed) for seed in (0, 1)]
    stored = load_file(folder / "model.safetensors")
    trained = load_file(run / f"seed-{summary['best_seed']}" / "model.safetensors")
    assert stored.keys() == trained.keys()
    assert all(torch.equal(stored[key], trained[key]) for key in stored)
    config = read_config(folder / "config.json")
    assert config.recipe == RunFolder.open(run).recipe
    facts = RunFolder.open(run).facts
    assert config.data.fingerprint == facts["fingerprint"]
    assert config.environment == {key: facts[key] for key in ("versions", "device", "threads")}
    assert config.data.self_loops
    assert not config.data.inductive


def test_the_index_tells_sizes_hashes_and_results(published: Path) -> None:
    index = Index.parse((published / "index.json").read_bytes(), "here")
    entry = index.models[NAME]
    assert set(entry.files) == FILES
    for file, facts in entry.files.items():
        assert facts == FileFacts.of(published / NAME / file)
    metrics = json.loads((published / NAME / "metrics.json").read_text())
    scores = [result["test"]["roc_auc"] for result in metrics["seeds"]]
    assert entry.metric == "roc_auc"
    assert entry.mean == pytest.approx(sum(scores) / 2)
    assert entry.std == pytest.approx(abs(scores[0] - scores[1]) / 2**0.5)
    assert (entry.n, entry.depth, entry.architecture) == (2, 3, "resgcn")
    tensors = load_file(published / NAME / "model.safetensors")
    assert entry.parameters == sum(tensor.numel() for tensor in tensors.values())
    assert set(entry.speedup) == {"vs stock", "vs usual practice", "vs batch normalization"}


def test_half_precision_halves_the_weights_and_loads_as_float32(run: Path, tmp_path: Path) -> None:
    publish(run, zoo=tmp_path, dtype="fp16")
    stored = load_file(tmp_path / NAME / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    model = from_pretrained(NAME, tmp_path)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, stored[name].float())
    assert evaluate(NAME, tmp_path)["agrees"]


def test_a_name_is_not_overwritten_unless_told(run: Path, zoo: Path) -> None:
    before = snapshot(zoo)
    with pytest.raises(ZooError, match="--replace"):
        publish(run, zoo=zoo)
    assert snapshot(zoo) == before
    publish(run, zoo=zoo, replace=True, dtype="fp16")
    assert snapshot(zoo).keys() == before.keys()
    assert from_pretrained(NAME, zoo).pretrained["weights"]["dtype"] == "fp16"


def test_other_models_stay(run: Path, zoo: Path) -> None:
    edit(zoo / "index.json", lambda c: c["models"].update({"b": c["models"][NAME]}))
    publish(run, zoo=zoo, replace=True)
    assert list_pretrained(zoo=zoo) == ["b", NAME]


def test_a_package_s_folder_without_an_index_is_a_zoo(run: Path, tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    (tmp_path / "__pycache__").mkdir()
    assert publish(run, zoo=tmp_path).parent == tmp_path
    assert list_pretrained(zoo=tmp_path) == [NAME]


def test_a_folder_that_is_no_entry_is_left_alone(my_run: Path) -> None:
    precious = my_run.rename(my_run.with_name(NAME))
    before = snapshot(precious)
    with pytest.raises(ZooError, match=r"is no zoo: it holds .* but no index\.json"):
        publish(precious, my_run.with_name("run.speedup"), zoo=precious.parent)
    (precious.parent / "index.json").write_text(Index().dump())
    with pytest.raises(ZooError, match="is no entry of a zoo"):
        publish(precious, my_run.with_name("run.speedup"), zoo=precious.parent)
    assert snapshot(precious) == before


def test_what_a_crash_leaves_of_a_new_zoo_can_be_published_into(run: Path, zoo: Path) -> None:
    (zoo / "index.json").unlink()
    (zoo / ".lock").touch()
    publish(run, zoo=zoo)
    assert list_pretrained(zoo=zoo) == [NAME]


PACKAGED = "resgcn64.digits"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ("data.options.k=3", "data differs"),
        ("model.num_layers=4", "model differs"),
        ("optimizer.lr=0.5", "optimizer differs"),
        ("schedule.warmup_steps=7", "schedule differs"),
        ("training.epochs=1", "training differs"),
    ],
)
def test_a_packaged_name_is_for_the_packaged_recipe(
    override: str, says: str, my_run: Path, tmp_path: Path
) -> None:
    recipe = load_recipe(PACKAGED, [override])
    edit_recipe(my_run, recipe.to_yaml())
    with pytest.raises(ZooError, match=rf"{PACKAGED}.*: {says}\..*--set name="):
        publish(my_run, zoo=tmp_path / "zoo")


@pytest.mark.parametrize("override", ["seeds=[3]", "speedup.steps=5", "name=own.digits"])
def test_what_does_not_make_another_recipe(override: str, my_run: Path, tmp_path: Path) -> None:
    edit_recipe(my_run, load_recipe(PACKAGED, [override]).to_yaml())
    with pytest.raises(ZooError, match=r"speed-up record .* belongs to another recipe"):
        publish(my_run, zoo=tmp_path / "zoo")


def test_the_record_of_a_numbered_run(my_run: Path, tmp_path: Path) -> None:
    run = my_run.rename(tmp_path / f"{NAME}-2")
    with pytest.raises(ZooError, match=rf"no finished speed-up record at .*{NAME}-2\.speedup\."):
        publish(run, zoo=tmp_path / "zoo")
    (tmp_path / "run.speedup").rename(tmp_path / f"{NAME}.speedup-2")
    publish(run, zoo=tmp_path / "zoo")
    (tmp_path / f"{NAME}.speedup-2").rename(tmp_path / f"{NAME}-2.speedup")
    publish(run, zoo=tmp_path / "zoo", replace=True)


def test_a_record_is_no_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds a speed-up record, not a training"):
        publish(f"{run}.speedup", zoo=tmp_path / "zoo")
    with pytest.raises(ZooError, match="no finished speed-up record"):
        publish(run, run, tmp_path / "zoo")


@pytest.mark.parametrize("licence", ["", " "])
def test_weights_need_a_licence(licence: str, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="licence is empty"):
        publish(run, zoo=tmp_path / "zoo", licence=licence)


def test_weights_that_do_not_reproduce_the_metric(my_run: Path, tmp_path: Path) -> None:
    tensors, facts = RunFolder.open(my_run).load("model.safetensors")
    # With the scores' sign turned, the ROC-AUC becomes one minus itself.
    last = {name: -value for name, value in tensors.items() if name.startswith("convs.2.")}
    RunFolder.open(my_run).save("model.safetensors", {**tensors, **last}, facts)
    with pytest.raises(ZooError, match="do not reproduce"):
        publish(my_run, zoo=tmp_path / "zoo")
    assert list_pretrained(zoo=tmp_path / "zoo") == []
    assert snapshot(tmp_path / "zoo") == {}


def test_a_record_that_was_touched_up(my_run: Path, tmp_path: Path) -> None:
    best = json.loads((my_run / "summary.json").read_text())["best_seed"]

    def improve(result: dict[str, Any]) -> None:
        result["test"]["roc_auc"] += 0.01

    edit_run(my_run, f"seed-{best}/result.json", improve)
    with pytest.raises(ZooError, match=r"summary\.json does not agree"):
        publish(my_run, zoo=tmp_path / "zoo")
    edit_run(my_run, "summary.json", lambda c: improve(c["seeds"][best]))
    with pytest.raises(ZooError, match=r"summary\.json does not agree"):  # the mean
        publish(my_run, zoo=tmp_path / "zoo")
    edit_run(my_run, "summary.json", lambda c: c["test"]["roc_auc"].update(_means(c)))
    with pytest.raises(ZooError, match="do not reproduce"):
        publish(my_run, zoo=tmp_path / "zoo")


def _means(summary: dict[str, Any]) -> dict[str, Any]:
    from dgl_deepgnn.training.run import summarize

    return summarize([result["test"]["roc_auc"] for result in summary["seeds"]])


def test_runs_that_are_not_ready(my_run: Path, tmp_path: Path) -> None:
    speedup = my_run.with_name("run.speedup")
    with pytest.raises(ZooError, match=r"no finished speed-up record at .*elsewhere"):
        publish(my_run, tmp_path / "elsewhere", tmp_path / "zoo")
    text = (speedup / "recipe.yaml").read_text()
    edit_recipe(speedup, text.replace("num_layers: 3", "num_layers: 4"))
    with pytest.raises(ZooError, match="another recipe: its key model differs"):
        publish(my_run, zoo=tmp_path / "zoo")
    edit_recipe(speedup, text)
    facts = RunFolder.open(speedup).facts
    write_json(speedup / "run.json", {**facts, "fingerprint": "0"}, "run.json")
    with pytest.raises(ZooError, match="on other data"):
        publish(my_run, zoo=tmp_path / "zoo")
    write_json(speedup / "run.json", facts, "run.json")
    (my_run / "seed-1" / "result.json").unlink()
    with pytest.raises(ZooError, match=r"not finished.*--resume"):
        publish(my_run, zoo=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


def test_an_address_cannot_be_published_to(run: Path) -> None:
    with pytest.raises(ZooError, match="is an address"):
        publish(run, zoo="http://127.0.0.1:9/zoo")


class Crash(BaseException):
    """The process dies here: nothing after it runs."""


def crash_at(monkeypatch: pytest.MonkeyPatch, function: str, call: int) -> None:
    """Die in the n-th call of a function; then neither clean up nor recover."""
    owner = {"rename": os}.get(function, publishing)
    original, recover, remove = getattr(owner, function), publishing._recover, shutil.rmtree
    calls = 0
    dead = False

    def dying(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls, dead
        calls += 1
        if calls == call:
            dead = True
            raise Crash
        return None if dead else original(*args, **kwargs)

    monkeypatch.setattr(owner, function, dying)
    monkeypatch.setattr(publishing, "_recover", lambda zoo: None if dead else recover(zoo))
    if function != "remove":
        monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None if dead else remove(*a, **k))


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize(
    ("function", "call", "finished"),
    [
        ("save_tensors", 1, False),
        ("model_card", 1, False),
        ("rename", 1, False),  # before the old entry is put aside, or the new one in place
        ("write_text", 2, False),  # before the index is written
        ("remove", 1, True),  # before the old entry is removed
    ],
)
def test_a_crash_leaves_the_old_zoo(
    function: str, call: int, finished: bool, new: bool, run: Path, zoo: Path
) -> None:
    if new:
        shutil.rmtree(zoo / NAME)
        edit(zoo / "index.json", lambda c: c.update(models={}))
    crash_and_recover(function, call, finished, new, run, zoo)


def test_a_crash_between_old_and_new(run: Path, zoo: Path) -> None:
    crash_and_recover("rename", 2, False, False, run, zoo)
    assert (zoo / NAME).is_dir()


def crash_and_recover(
    function: str, call: int, finished: bool, new: bool, run: Path, zoo: Path
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        crash_at(monkeypatch, function, call)
        with pytest.raises(Crash):
            publish(run, zoo=zoo, replace=True, dtype="fp16")
    if new and not finished:
        assert list_pretrained(zoo=zoo) == []
    else:
        expected = "fp16" if finished else "fp32"
        assert from_pretrained(NAME, zoo).pretrained["weights"]["dtype"] == expected
    publish(run, zoo=zoo, replace=True, dtype="fp16")
    assert from_pretrained(NAME, zoo).pretrained["weights"]["dtype"] == "fp16"
    assert {path.name for path in zoo.iterdir()} - {".lock"} == {NAME, "index.json"}


def test_an_error_is_undone_at_once(run: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(zoo)
    write_text = publishing.write_text

    def full(path: Path, content: str) -> None:
        if path.name == "index.json":
            raise OSError(28, "No space left on device")
        write_text(path, content)

    monkeypatch.setattr(publishing, "write_text", full)
    with pytest.raises(ZooError, match="No space left"):
        publish(run, zoo=zoo, replace=True, dtype="fp16")
    assert snapshot(zoo) == before


def test_another_network_needs_another_name(my_run: Path, tmp_path: Path) -> None:
    text = RunFolder.open(my_run).recipe.to_yaml()
    edit_recipe(my_run, f"{text}changed: [model.num_layers=3]\n")
    with pytest.raises(ZooError, match=r"another network .*num_layers=3 was set.*name=NAME"):
        publish(my_run, zoo=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()


# What others may have put into a zoo


def stray(folder: Path, outside: Path) -> None:
    """What an index does not list: a note, a name that none may have, a link, a folder, a pipe."""
    outside.write_text("secret")
    (folder / "notes.txt").write_text("x")
    (folder / "a name").write_text("x")
    (folder / "secret.txt").symlink_to(outside)
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")


def test_only_listed_files_are_published_again(zoo: Path, tmp_path: Path) -> None:
    stray(zoo / NAME, tmp_path / "secret")
    refresh(NAME, zoo)
    assert {path.name for path in (zoo / NAME).iterdir()} == FILES
    assert set(Index.parse((zoo / "index.json").read_bytes(), "").models[NAME].files) == FILES
    assert (tmp_path / "secret").read_text() == "secret"
    assert evaluate(NAME, zoo)["agrees"]


def test_a_model_that_is_published_anew_meanwhile_is_not_mixed_with_it(
    run: Path, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reproduce = publishing._reproduce

    def publishing_anew(*arguments: Any) -> Any:
        monkeypatch.setattr(publishing, "_reproduce", reproduce)
        publish(run, zoo=zoo, replace=True, dtype="fp16")
        return reproduce(*arguments)

    monkeypatch.setattr(publishing, "_reproduce", publishing_anew)
    with pytest.raises(ZooError, match="published anew meanwhile"):
        refresh(NAME, zoo)
    assert from_pretrained(NAME, zoo).pretrained["weights"]["dtype"] == "fp16"


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("metrics.json", lambda c: c.pop("test")),
        ("metrics.json", lambda c: c.pop("metric")),
        ("metrics.json", lambda c: c.pop("seeds")),
        ("metrics.json", lambda c: c.pop("parameters")),
        ("metrics.json", lambda c: c.pop("weights")),
        ("metrics.json", lambda c: c.update(metric="mae")),
        ("metrics.json", lambda c: c.update(metric=["roc_auc"])),
        ("metrics.json", lambda c: c.update(seeds=[])),
        ("metrics.json", lambda c: c.update(parameters=-1)),
        ("metrics.json", lambda c: c.update(parameters=10**400)),
        ("metrics.json", lambda c: c["test"]["roc_auc"].update(mean="high")),
        ("metrics.json", lambda c: c["test"]["roc_auc"].update(mean=float("nan"))),
        ("metrics.json", lambda c: c["test"].pop("roc_auc")),
        ("metrics.json", lambda c: c["seeds"][0].pop("test")),
        ("metrics.json", lambda c: c["seeds"][0]["test"].pop("roc_auc")),
        ("metrics.json", lambda c: c["seeds"][0]["val"].update(roc_auc=None)),
        ("metrics.json", lambda c: [result.update(seed=7) for result in c["seeds"]]),
        ("metrics.json", lambda c: [result.update(seed=0) for result in c["seeds"]]),
        ("metrics.json", lambda c: c["weights"].update(seed=7)),
        ("metrics.json", lambda c: c["weights"]["test"].clear()),
        ("speedup.json", lambda c: c.clear()),
        ("speedup.json", lambda c: c.pop("arms")),
        ("speedup.json", lambda c: c.update(arms=[])),
        ("speedup.json", lambda c: c.update(targets=[], target_shares=[])),
        ("speedup.json", lambda c: c.update(target_shares=[])),
        ("speedup.json", lambda c: c.update(target_shares=["half"])),
        ("speedup.json", lambda c: c.update(seeds=[])),
        ("speedup.json", lambda c: c.update(budget=0)),
        ("speedup.json", lambda c: c["arms"]["stock"].update(steps=[])),
        ("speedup.json", lambda c: c["arms"]["stock"].update(lr=-1.0)),
        ("speedup.json", lambda c: c["speedups"].update({"principled ": []})),
        ("speedup.json", lambda c: c["speedups"].update({"\x1b[2J": c["speedups"].popitem()[1]})),
        ("speedup.json", lambda c: c["speedups"]["principled vs stock"][0].update(ratio=1.0)),
        ("config.json", lambda c: c["weights"].update(seed=7)),
    ],
    ids=lambda _: "case",
)
def test_a_record_that_makes_no_sense_is_not_refreshed(
    file: str, change: Any, zoo: Path, reindex: Any
) -> None:
    edit(zoo / NAME / file, change)
    reindex(zoo)
    before = snapshot(zoo)
    with pytest.raises(ZooError) as caught:
        refresh(NAME, zoo)
    assert NAME in str(caught.value)
    assert snapshot(zoo) == before


def test_arguments_that_a_config_leaves_out_are_the_constructor_s(zoo: Path, reindex: Any) -> None:
    whole = (zoo / NAME / "README.md").read_text()
    edit(zoo / NAME / "config.json", lambda c: [c["model"]["arguments"].pop("dropout")])
    reindex(zoo)
    refresh(NAME, zoo)
    assert (zoo / NAME / "README.md").read_text() == whole


def test_scores_of_other_networks_are_on_the_card(zoo: Path) -> None:
    before = {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()}
    reference = ReferenceFacts(name="GCN", scores=[0.25, 0.75], source="by validation")
    for given in ([reference], None):  # None: those that it has
        refresh(NAME, zoo, references=given)
        card = (zoo / NAME / "README.md").read_text()
        assert "| GCN | 0.5000 | 0.3536 | 2 | by validation |" in card
    after = {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()}
    assert {file for file in after if after[file] != before[file]} == {"config.json", "README.md"}
    refresh(NAME, zoo, references=[])
    assert (zoo / NAME / "README.md").read_bytes() == before["README.md"]


def test_a_new_speed_up_record_is_taken_in(run: Path, zoo: Path, tmp_path: Path) -> None:
    """All of the record's files, the card, the index and the recipe's section; nothing else."""
    before = {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()}
    recipe = load_recipe(run / "recipe.yaml", {"speedup.steps": 5, "speedup.seeds": [3, 4]})
    folder, record = measure_speedup(recipe, tmp_path / "new", progress=False)
    refresh(NAME, zoo, speedup=folder)
    after = {path.name: path.read_bytes() for path in (zoo / NAME).iterdir()}
    changed = {file for file in after if after[file] != before[file]}
    assert before.keys() == after.keys()
    assert changed == {"config.json", "README.md", "speedup.json", "speedup.csv", "speedup.png"}
    published = json.loads((zoo / NAME / "speedup.json").read_text())
    assert published["seeds"] == record["seeds"] == [3, 4]
    assert "budget 5 steps" in (zoo / NAME / "README.md").read_text()
    config = json.loads((zoo / NAME / "config.json").read_text())
    assert config["recipe"]["speedup"]["steps"] == 5
    assert evaluate(NAME, zoo)["agrees"]


def test_a_speed_up_record_of_another_model_is_not_taken_in(
    run: Path, zoo: Path, tmp_path: Path
) -> None:
    before = snapshot(zoo)
    other = load_recipe(run / "recipe.yaml", {"model.hidden_feats": 3, "name": NAME})
    folder, _ = measure_speedup(other, tmp_path / "new", progress=False)
    with pytest.raises(ZooError, match="its key model differs from that of the published"):
        refresh(NAME, zoo, speedup=folder)
    assert snapshot(zoo) == before


@pytest.mark.parametrize("name", ["speedup.json", "config.json", "metrics.json"])
def test_a_model_that_lacks_a_file_is_not_refreshed(name: str, zoo: Path) -> None:
    edit(zoo / "index.json", lambda c: c["models"][NAME]["files"].pop(name))
    with pytest.raises(ZooError, match=f"lists no file {name}"):
        refresh(NAME, zoo)


@pytest.mark.parametrize("name", [NAME, f".old-{NAME}", f".staging-{NAME}", ".old-x", ".staging-x"])
@pytest.mark.parametrize("dangling", [True, False])
def test_a_link_in_a_zoo_blocks_no_publishing(
    name: str, dangling: bool, run: Path, zoo: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("mine")
    if name == NAME:
        shutil.rmtree(zoo / NAME)
    (zoo / name).symlink_to(outside / "absent" if dangling else outside)
    for _ in range(2):
        publish(run, zoo=zoo, replace=True)
    assert {path.name for path in zoo.iterdir()} - {".lock"} == {NAME, "index.json"}
    assert (outside / "mine").read_text() == "mine"
    assert {path.name for path in outside.iterdir()} == {"mine"}
    assert not (zoo / NAME).is_symlink() and evaluate(NAME, zoo)["agrees"]


# Metrics that are not defined


def test_a_run_whose_metric_is_undefined_is_not_called_damaged(
    my_run: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        edit_run(
            my_run, f"seed-{seed}/result.json", lambda c: c["test"].update(roc_auc=float("nan"))
        )
    train(RunFolder.open(my_run).recipe, my_run, resume=True, progress=False)
    with pytest.raises(ZooError, match="the test roc_auc of seed 0 is undefined"):
        publish(my_run, zoo=tmp_path / "zoo")
    assert not (tmp_path / "zoo").exists()
