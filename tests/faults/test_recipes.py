"""What a recipe from elsewhere can do to who reads or trains it: nothing unasked."""

from __future__ import annotations

import json
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from dgl.data import TUDataset
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dgl_deepgnn.cli.commands import run
from dgl_deepgnn.diagnostics import diagnose
from dgl_deepgnn.diagnostics.verdicts import Verdict
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.hub import publish
from dgl_deepgnn.nn import create_model
from dgl_deepgnn.recipe import DataSection, Recipe, RecipeError, load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.speedup.report import plot_speedup
from dgl_deepgnn.training import train
from dgl_deepgnn.training.checking import check_recipe
from dgl_deepgnn.training.tuning import tune

KARATE = """
data: {name: karate}
model: {hidden_feats: 4, num_layers: 2}
training: {epochs: 1}
speedup: {steps: 3, learning_rates: [0.01], seeds: [0]}
"""


def write(text: str, name: str = "recipe.yaml") -> str:
    Path(name).write_text(text)
    return name


def bomb(levels: int = 9) -> str:
    lines = ["  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, levels):
        inner = ", ".join([f"*a{level - 1}"] * 10)
        lines.append(f"  a{level}: &a{level} [{inner}]")
    return "data:\n name: karate\n options:\n" + "\n".join(" " + line for line in lines)


# What never ends


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (bomb(), r"line 5: .*alias.*\*a0"),
        ("data: &d {name: karate}\nmodel: *d\n", r"line 2: .*alias"),
        ("data: &i\n  name: karate\n  options: {x: *i}\n", r"line 3: .*alias"),
        ("&i data: {name: karate}\nmodel: {<<: *i}\n", "alias"),
        ("[" * 100_000, "nested"),
        ("data: " + "{a: " * 5000, "nested"),
        ("\n".join(" " * depth + "a:" for depth in range(100)), "nested"),
        ("- " * 5000, "nested"),
        ("data: {name: karate, options: {a: " + "[" * 60 + "]" * 60 + "}}", "nested"),
        ("seeds: [" + "1, " * 300_000 + "1]", "larger than"),
        ("# " + "x" * 10**7, "larger than"),
        ("data: {name: " + "x" * 10**6 + "}", "larger than"),
        ("a: 0x" + "f" * 50_000, "not valid|unknown"),
        ("training: {epochs: " + "9" * 50_000 + "}", r"."),
        ("training: {epochs: 1" + ":59" * 10_000 + "}", r"."),
        ("data: !!python/object/apply:os.system ['touch mark']", "not valid YAML"),
        ("data: !!binary " + "A" * 60_000, r"."),
        ("? {a: b}\n: c", r"."),
        ("? [a, b]\n: c", r"."),
        ("a\0b: 1", "not valid YAML"),
        ("\ufeff\ufeffa: 1", r"."),
        ("a: 2020-13-13", r"."),
        ("--- 1\n--- 2\n", r"."),
        ("%YAML 9.9\n---\na: 1", r"."),
        ("", "mapping"),
    ],
    ids=lambda text: text[:24],
)
def test_yaml_that_is_refused(text: str, says: str, limit: Any) -> None:
    write(text)
    with limit(10), pytest.raises(RecipeError, match=says) as caught:
        load_recipe("recipe.yaml")
    assert len(str(caught.value)) < 3000
    assert "recipe.yaml" in str(caught.value)
    assert not Path("mark").exists()


def test_places_that_never_end(limit: Any) -> None:
    os.mkfifo("pipe.yaml")
    os.symlink("/dev/zero", "zero.yaml")
    os.mkdir("folder.yaml")
    for place in ("/dev/zero", "zero.yaml", "pipe.yaml", "folder.yaml", "/dev/stdin"):
        with limit(10), pytest.raises(RecipeError, match=f"{place}.*plain file"):
            load_recipe(place)
    write("extends: pipe.yaml\n", "child.yaml")
    with limit(10), pytest.raises(RecipeError, match="plain file"):
        load_recipe("child.yaml")


def test_recipes_that_extend_each_other_for_ever(limit: Any) -> None:
    for number in range(2000):
        write(f"extends: r{number + 1}.yaml\n", f"r{number}.yaml")
    write(KARATE, "r2000.yaml")
    with limit(10), pytest.raises(RecipeError, match="extend"):
        load_recipe("r0.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seeds", list(range(300_000))),
        ("speedup.seeds", list(range(300_000))),
        ("speedup.targets", [0.5 / (i + 1) for i in range(300_000)]),
        ("speedup.learning_rates", [1 / (i + 1) for i in range(300_000)]),
        ("seeds", {str(i): i for i in range(300_000)}),
        ("name", "x" * 10**6),
        ("description", "x" * 10**6),
        ("data.name", "x" * 10**6),
        ("model.num_layers", 10**12),
        ("model.num_layers", 10**400),
        ("model.hidden_feats", 10**12),
        ("model.options", {"mlp_layers": 10**8}),
        ("model.t", "per-depth:" + "9" * 100_000),
        ("training.epochs", 10**400),
        ("training.clusters", 10**400),
        ("x" * 100_000, 1),
    ],
)
def test_values_that_are_refused(key: str, value: Any, limit: Any) -> None:
    recipe = write(KARATE)
    overrides = {key: value}
    if key == "model.options":
        overrides["model.name"] = "resgin"
    with limit(10), pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides)
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [0]\ndata: {name: karate}\nseeds: [1]\n", r"line 3: the key 'seeds'.*line 1"),
        ("data: {name: karate, name: digits}\n", r"line 1: the key 'name'"),
        ("model:\n  options:\n    norm: both\n    norm: none\n", r"line 4: the key 'norm'.*line 3"),
        ("data: {name: karate, options: {'1': 2, '1': 3}}\n", "line 1: the key '1'"),
    ],
)
def test_keys_given_twice(text: str, says: str) -> None:
    write(text)
    with pytest.raises(RecipeError, match=rf"recipe\.yaml: {says}"):
        load_recipe("recipe.yaml")


STARTS = ["data: ", "name", "karate", "extends: x\n", "null", "1e999", "\x1b[2J", "\n", "\n  "]
SIGNS = ["{", "}", "[", "]", ": ", "- ", "&a ", "*a", "!!", "<<: ", "'", '"', "| ", "? ", "#", "%"]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    text=st.lists(st.sampled_from(STARTS + SIGNS) | st.text(max_size=4), max_size=25).map("".join)
)
@example(text="data:\n  <<: [{name: a}]\n")
def test_scraps_are_an_error_for_people(text: str) -> None:
    try:
        Path("scraps.yaml").write_text(text, encoding="utf-8")
    except UnicodeEncodeError:
        return
    try:
        load_recipe("scraps.yaml")
    except UserError as error:
        assert str(error).replace("\n", "").isprintable()


@pytest.mark.parametrize("value", [list(range(50_000)), json.loads("[" * 60 + "]" * 60)])
def test_a_recipe_that_could_not_be_read_again_is_not_trained(value: Any) -> None:
    recipe = load_recipe(write(KARATE))
    recipe.data = DataSection(name="python:x:y", options={"value": value})
    with pytest.raises(RecipeError, match=r"more than"):
        recipe.to_yaml()


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("csbm", {"num_nodes": 10**12}, "'num_nodes'.*1000000"),
        ("csbm", {"num_nodes": 10**400}, "'num_nodes'.*1000000"),
        ("csbm", {"num_classes": 10**12}, "'num_classes'.*1000"),
        ("csbm", {"num_classes": -1}, "at least 2 classes"),
        ("csbm", {"num_nodes": -1}, "at least 2 classes"),
        ("csbm", {"feature_dim": 10**12}, "'feature_dim'.*1000000"),
        ("csbm", {"feature_dim": 10**6, "num_nodes": 10**6}, "more than 1,000,000,000"),
        ("csbm", {"avg_degree": 1e300, "num_nodes": 10**6}, "'avg_degree'.*1000"),
        ("tracks", {"events": 10**12}, "'events'.*1000000"),
        ("tracks", {"particles": 10**12}, "'particles'.*10000"),
        ("tracks", {"events": 10**6, "particles": 10**4}, "more than 100,000,000"),
        ("tracks", {"noise": 1e300}, "'noise'.*10"),
        ("long-range", {"graphs": 10**12}, "'graphs'.*1000000"),
        ("long-range", {"num_nodes": 10**12}, "'num_nodes'.*1000000"),
        ("long-range", {"k": 10**12, "num_nodes": 10**6}, "'k'.*1000000"),
        ("long-range", {"graphs": 10**6, "num_nodes": 10**6}, "more than 100,000,000"),
        ("ring-transfer", {"graphs": 10**12}, "'graphs'.*1000000"),
        ("ring-transfer", {"graphs": 10**6}, "more than 1,000,000"),
        ("ring-transfer", {"num_nodes": 10**6}, "num_nodes from 4 to 128"),
        ("ring-transfer", {"num_classes": 10**6}, "'num_classes'.*100"),
        ("eccentricity", {"hops": 10**12}, "'hops'.*1000"),
        ("eccentricity", {"side": 10**12}, "'side'.*100"),
        ("eccentricity", {"graphs": 10**4, "side": 100}, "more than 100,000"),
        ("digits", {"neighbors": 10**12}, "1 to 1796"),
    ],
)
def test_sizes_of_data_that_are_refused(
    name: str, options: dict[str, Any], says: str, limit: Any
) -> None:
    recipe = load_recipe(write(KARATE))
    recipe.data = DataSection(name=name, options=options)
    with limit(10), pytest.raises(DGLError, match=says):
        train(recipe, "run", progress=False)
    assert not Path("run").exists()


# What is said of changes


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\u202e", "x" * 301])
def test_changes_that_are_refused(text: str) -> None:
    write(KARATE + f"changed: [{json.dumps(text)}]\n")
    with pytest.raises(RecipeError, match=r"changed\.0"):
        load_recipe("recipe.yaml")


@pytest.mark.parametrize("key", ["changed", "changed.0"])
def test_changes_are_not_set(key: str) -> None:
    recipe = write(KARATE)
    with pytest.raises(RecipeError, match=f"--set {key}: .*not set itself"):
        load_recipe(recipe, [f"{key}=[a]"])
    with pytest.raises(RecipeError, match=f"--set {key}: .*not set itself"):
        load_recipe(recipe, {key: ["a"]})


def test_a_long_change_can_be_read_again() -> None:
    t = "per-depth:0." + "1" * 500
    recipe = load_recipe(write(KARATE), {"model.t": t})
    assert load_recipe(write(recipe.to_yaml(), "again.yaml")) == recipe


FORMULAS = [r"$\frac{$", "$$$$", "$", r"\$x$", "$a$ " * 70]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_figure_shows_no_formula(text: str) -> None:
    write(KARATE + f"changed: [{json.dumps(text)}]\n")
    recipe = load_recipe("recipe.yaml")
    assert train(recipe, "run", progress=False).path.joinpath("loss.png").exists()
    path, result = measure_speedup(recipe, "record", progress=False)
    result["arms"][text] = result["arms"].pop("stock")
    plot_speedup(path / "again.png", result)
    verdict = Verdict("signal", "ok", text)
    model = create_model("resgcn", in_feats=2, hidden_feats=2, out_feats=2, num_layers=2)
    graph = dgl.graph(([0, 1], [1, 0])).add_self_loop()
    found = diagnose(model, graph, torch.ones(2, 2), draws=1)
    found.verdicts.append(verdict)
    found.plot("diagnosis.png")


# Code

EVIL = """
from pathlib import Path
Path("mark").touch()
from dgl_deepgnn.data import load_data
def load():
    return load_data("karate")
"""


@pytest.fixture
def evil(tmp_path: Path) -> Any:
    write(EVIL, "evil_data.py")
    yield write(KARATE.replace("karate", "python:evil_data:load"))
    sys.modules.pop("evil_data", None)


def command(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    monkeypatch.setattr(sys, "argv", ["dgl-deepgnn", *map(str, words)])
    with pytest.raises(SystemExit) as caught:
        run()
    return caught.value.code or 0  # type: ignore[return-value]


def test_a_recipe_imports_nothing_unasked(
    evil: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for name in ("train", "speedup", "diagnose", "tune", "check"):
        assert command(monkeypatch, name, evil) == 2
        error = capsys.readouterr().err
        assert "the module evil_data and calls its function load" in error
        assert "--allow-code" in error
    for call in (train, measure_speedup, tune):
        with pytest.raises(UserError, match="allow_code=True"):
            call(evil, progress=False)
    with pytest.raises(UserError, match="allow_code=True"):
        check_recipe(evil)
    load_recipe(evil)
    assert not Path("mark").exists()
    assert not Path("runs").exists()


def test_a_recipe_runs_code_where_the_user_allows_it(
    evil: str, limit: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Training, resuming and publishing ask, each for itself: the folder may be another's."""
    with limit(300):  # eight commands
        assert command(monkeypatch, "diagnose", evil, "--draws", 1, "--allow-code") == 0
        small = ("--seeds", 1, "--allow-code")
        assert command(monkeypatch, "tune", evil, "--layers", 2, "--width", 2, *small) == 0
        sizes = ("--depths", "2,3", "--widths", "2,3", "--steps", 1)
        assert command(monkeypatch, "check", evil, *sizes, *small) == 0
        train(evil, "run", progress=False, allow_code=True)
        measure_speedup(evil, "run.speedup", progress=False, allow_code=True)
        Path("mark").unlink()
        del sys.modules["evil_data"]
        for name, folder in (("train", "run"), ("speedup", "run.speedup")):
            assert command(monkeypatch, name, "--resume", folder) == 2
        assert command(monkeypatch, "publish", "run", "--zoo", "zoo") == 2
        assert capsys.readouterr().err.count("--allow-code") == 3
        with pytest.raises(UserError, match="allow_code=True"):
            publish("run", zoo="zoo")
        assert not Path("mark").exists()
        assert command(monkeypatch, "train", "--resume", "run", "--allow-code") == 0
        assert command(monkeypatch, "publish", "run", "--zoo", "zoo", "--allow-code") == 0


def trapped_cache(raw_dir: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (Path("mark"),))

    class Nowhere(TUDataset):
        def _load(self) -> None:
            pass

    paths = Nowhere("X", raw_dir=str(raw_dir))
    Path(paths.raw_path).mkdir(parents=True)
    dgl.save_graphs(paths.graph_path, [dgl.graph(([0], [1]))], {"labels": torch.zeros(1)})
    Path(paths.info_path).write_bytes(pickle.dumps(Trap()))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("TUDataset", "name: X, raw_dir: theirs"),
        ("dgl:TUDataset", "name: X, raw_dir: ./theirs"),
        ("TUDataset", "name: ../theirs/X"),
        ("DGLBuiltinDataset", "name: x, url: 'http://127.0.0.1:9/x.zip'"),
        ("CSVDataset", "data_path: theirs"),
        ("SSTDataset", "vocab_file: theirs"),
        ("QM9Dataset", "label_keys: [../x]"),
    ],
)
def test_a_recipe_names_no_place_to_unpickle_unasked(
    name: str, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("requests.get", lambda *_, **__: pytest.fail("a download was tried"))
    trapped_cache(Path("theirs"))
    recipe = write(KARATE.replace("karate", f"'{name}', options: {{{options}}}"))
    with pytest.raises(UserError, match=r"unpickles.*--allow-code"):
        train(recipe, progress=False)
    assert not Path("mark").exists()


def test_data_that_runs_nothing_needs_no_leave(evil: str) -> None:
    """DGL's own classes, and files, are opened as they are."""
    recipe = Recipe.model_validate(
        {
            "name": "x",
            "data": {"name": "MiniGCDataset", "options": {"num_graphs": 20, "min_num_v": 10}},
            "model": {"num_layers": 2, "hidden_feats": 2},
            "training": {"epochs": 1},
        }
    )
    options: dict[str, Any] = {"max_num_v": 20, "save_graph": False}
    recipe.data.options.update(options)
    train(recipe, "run", progress=False)


# What does nothing


def test_a_batch_size_that_does_nothing(capsys: Any, recwarn: Callable[..., Any]) -> None:
    recipe = load_recipe(write(KARATE), {"training.batch_size": 4})
    with pytest.warns(UserWarning, match=r"batching\.size=4 \(batch_size\) does nothing.*clusters"):
        train(recipe, "run", progress=False)
