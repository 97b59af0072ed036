"""Recipes: whatever is wrong with one is said in one clear error."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dgl_deepgnn import ResGCN
from dgl_deepgnn.nn import MODELS
from dgl_deepgnn.recipe import (
    SCHEMA_COMMENT,
    ModelSection,
    Recipe,
    RecipeError,
    json_schema,
    list_recipes,
    load_recipe,
)

RECIPES = Path(__file__).parents[1] / "recipes"
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SMALL = {
    "data": {"name": "karate"},
    "model": {"num_layers": 3, "hidden_feats": 8},
    "training": {"epochs": 2},
}


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), "utf-8")
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write(tmp_path / "small.yaml", SMALL)


# --- the recipes that come with the package ---


@pytest.mark.parametrize("name", list_recipes())
def test_packaged_recipe(name: str) -> None:
    text = (RECIPES / f"{name}.yaml").read_text("utf-8")
    assert text.startswith(SCHEMA_COMMENT)
    jsonschema.validate(yaml.safe_load(text), json.loads((RECIPES / "schema.json").read_text()))
    recipe = load_recipe(name)
    dataset = recipe.data.name.rpartition(":")[2].lower()
    dataset += f"-{split}" if (split := recipe.data.options.get("split")) else ""
    if not name.startswith("template."):
        assert recipe.name == name == f"{recipe.model.name}{recipe.model.num_layers}.{dataset}"
    assert recipe.description.strip()


def test_schema_file_is_current() -> None:
    command = "dgl-deepgnn recipes schema > recipes/schema.json"
    assert (RECIPES / "schema.json").read_text("utf-8") == json_schema(), f"run: {command}"


def test_schema_allows_what_recipes_allow(small: Path) -> None:
    schema = json.loads(json_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    for content in (
        SMALL,
        {"extends": "small.yaml"},
        {"extends": "small.yaml", "data": {"options": {"neighbors": 4}}},
        {**SMALL, "optimizer": {"weight_decay": 0.1}},
        {**SMALL, "optimizer": {"weight_decay": {"ends": 0.1}}},
        {**SMALL, "model": {"residual": None}},
    ):
        jsonschema.validate(content, schema)
    for content in ({"modle": {}}, {"model": {"num_layers": 0}}, {"optimizer": {"name": "adan"}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content, schema)


# --- what a valid recipe means ---


def test_defaults_and_name(small: Path) -> None:
    recipe = load_recipe(small)
    assert recipe.name == "small"
    assert recipe.model.hidden_feats == 8 and recipe.model.residual == "fixup"
    assert load_recipe(str(small), {"name": "other"}).name == "other"


def test_one_weight_decay_for_all_groups(small: Path) -> None:
    for value in (0.01, "1e-2"):  # YAML 1.1 reads 1e-2 as a string
        decay = load_recipe(small, {"optimizer.weight_decay": value}).optimizer.weight_decay
        assert (decay.branches, decay.ends) == (0.01, 0.01)


def test_a_switch_takes_a_truth_value(small: Path) -> None:
    assert load_recipe(small).optimizer.transfer is False
    recipe = load_recipe(small, ["optimizer.transfer=yes"])
    assert recipe.optimizer.transfer is True
    small.write_text(recipe.to_yaml())
    assert load_recipe(small) == recipe


def test_options_are_converted_as_the_constructor_declares(small: Path) -> None:
    assert load_recipe(small, ["model.options.alpha=1e-1"]).model.options == {"alpha": 0.1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.num_layers=256", 256),
        ("model.num_layers= 7", 7),
        ("model.num_layers =7", 7),
        ("training={steps: 4}", None),
    ],
)
def test_override(small: Path, text: str, expected: int | None) -> None:
    recipe = load_recipe(small, [text])
    if expected:
        assert recipe.model.num_layers == expected
    else:
        assert recipe.training.steps == 4 and recipe.training.epochs is None


def test_later_override_wins_and_makes_sections(small: Path) -> None:
    recipe = load_recipe(small, ["optimizer.lr=1", "optimizer.lr=1e-3", "seeds=[3, 4]"])
    assert recipe.optimizer.lr == 1e-3
    assert recipe.seeds == [3, 4]


json_values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@QUICK
@given(
    description=st.text(),
    options=st.dictionaries(st.text(), json_values, max_size=3),
    lr=st.floats(1e-12, 1e3),
    layers=st.integers(1, 10**5),
    t=st.sampled_from(["per-depth", "per-depth:48", "harmonic:0.5", 1, 0.25]),
    residual=st.sampled_from([None, "plain", "scaled", "fixup", "initial"]),
    decay=st.floats(0, 1),
    seeds=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=4, unique=True),
    targets=st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=3, unique=True),
)
def test_yaml_round_trip(tmp_path: Path, **drawn: Any) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "round-trip.1",
            "description": drawn["description"],
            "data": {"name": "karate", "options": drawn["options"]},
            "model": {
                "num_layers": drawn["layers"],
                "t": drawn["t"],
                "residual": drawn["residual"],
            },
            "optimizer": {"lr": drawn["lr"], "weight_decay": drawn["decay"]},
            "training": {"steps": 3},
            "seeds": drawn["seeds"],
            "speedup": {"targets": drawn["targets"]},
        }
    )
    assert load_recipe(write(tmp_path / "other.yaml", recipe.to_yaml())) == recipe


# --- extends ---


def test_extends_chain_relative_to_each_file(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir("/")
    base = {
        **SMALL,
        "name": "base",
        "description": "the base",
        "optimizer": {"lr": 0.5, "name": "sgd"},
        "seeds": [1, 2, 3],
    }
    write(tmp_path / "base.yaml", base)
    write(tmp_path / "sub" / "middle.yaml", {"extends": "../base.yaml", "optimizer": {"lr": 0.25}})
    top = write(
        tmp_path / "top.yaml",
        {
            "extends": "sub/middle.yaml",
            "training": {"epochs": None, "steps": 9},
            "seeds": [4],
            "description": "the top",
        },
    )
    recipe = load_recipe(top)
    assert recipe.name == "top" and recipe.description == "the top"  # never the base's
    assert (recipe.optimizer.name, recipe.optimizer.lr) == ("sgd", 0.25)
    assert recipe.training.steps == 9 and recipe.training.epochs is None
    assert recipe.seeds == [4]
    assert load_recipe(tmp_path / "sub" / "middle.yaml").description == ""


def test_extends_a_packaged_recipe_even_under_the_same_name(tmp_path: Path) -> None:
    own = write(
        tmp_path / "resgcn64.digits.yaml",
        {"extends": "resgcn64.digits", "model": {"num_layers": 5}},
    )
    recipe = load_recipe(own)
    assert recipe.model.num_layers == 5
    assert recipe.training == load_recipe("resgcn64.digits").training


def test_a_name_means_the_packaged_recipe(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "resgcn64.digits", "not: a recipe")
    write(tmp_path / "resgcn64.digits.yaml", SMALL)
    assert load_recipe("resgcn64.digits").data.name == "digits"
    assert load_recipe("resgcn64.digits.yaml").data.name == "karate"


@pytest.mark.parametrize("spelling", ["a.yaml", "../DIR/a.yaml", "./b.yaml"])
def test_extends_in_a_circle(tmp_path: Path, spelling: str) -> None:
    folder = tmp_path / "dir"
    write(folder / "b.yaml", {"extends": spelling.replace("DIR", "dir")})
    a = write(folder / "a.yaml", {"extends": "b.yaml"})
    with pytest.raises(RecipeError, match=r"circle: .*b\.yaml"):
        load_recipe(a)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("resgcn64.digit", "Did you mean 'resgcn64.digits'"),
        ("missing.yaml", "missing.yaml: cannot be read"),
        ([1], r"extends: expected a recipe's name or path, got \[1\]"),
        ("", "There is no recipe ''"),
        ("x" * 400, "There is no recipe"),
        ("a\0b.yaml", "cannot be read"),
    ],
)
def test_extends_nothing(tmp_path: Path, base: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path / "r.yaml", {"extends": base}))


# --- wrong input: one error that names file, key, what is allowed ---

WRONG_VALUES = [
    ("model.num_layers", -3, "greater than or equal to 1, got -3"),
    ("model.num_layers", "deep", "valid integer.*got 'deep'"),
    ("model.num_layers", True, "truth value"),
    ("model.num_layers", 2.5, "valid integer.*got 2.5"),
    ("model.hidden_feats", 0, "greater than or equal to 1"),
    ("model.dropout", 1.0, "less than 1"),
    ("model.t", [1], r"number in \(0, 1\]"),
    ("model.t", 1.5, r"number in \(0, 1\]"),
    ("model.t", "per-dept:3", "'per-depth:c'"),
    ("model.name", "resgc", "no model 'resgc'. Did you mean 'resgcn'"),
    ("model.residual", "none", "'plain', 'scaled', 'fixup' or 'initial' or null, got 'none'"),
    ("model.init", "xavier", "'critical', 'he' or 'glorot', got 'xavier'"),
    ("model.options", 3, "a mapping of keys"),
    ("optimizer.name", "adan", "'adam', 'adamw' or 'sgd'"),
    ("optimizer.lr", 0, "greater than 0"),
    ("optimizer.lr", True, "truth value"),
    ("optimizer.transfer", "rule", "valid boolean.*got 'rule'"),
    ("optimizer.lr", float("nan"), "finite"),
    ("optimizer.lr", float("inf"), "finite"),
    ("optimizer.clip_norm", 0, "greater than 0"),
    ("optimizer.weight_decay.ends", -1, "greater than or equal to 0"),
    ("training.batching.size", 0, "greater than or equal to 1"),
    ("training.batching.size", 10**30, "less than"),
    ("training.evaluate_every", 0, "greater than or equal to 1"),
    ("schedule.name", "cosin", "'none' or 'cosine'"),
    ("schedule.warmup_steps", -1, "greater than or equal to 0"),
    ("seeds.0", None, "valid integer, got None"),
    ("seeds", [], "at least 1 item"),
    ("seeds", 3, "valid list, got 3"),
    ("speedup.learning_rates", [], "at least 1 item"),
    ("name", "a/b", "pattern.*got 'a/b'"),
    ("name", "../x", "pattern"),
    ("name", 7, "valid string, got 7"),
    ("data.name", 3, "valid string, got 3"),
    ("data", None, "a mapping of keys"),
    ("data.options.since", "date", "JSON value"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG_VALUES)
def test_wrong_value(small: Path, key: str, value: Any, message: str) -> None:
    if value == "date":
        value = yaml.safe_load("2020-02-03")
    overrides = {"seeds": [value]} if key == "seeds.0" else {key: value}
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(small, overrides)
    assert f"{small}: {key}: " in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("seed", [-1, 2**63])
def test_seed_that_torch_would_not_take(small: Path, seed: int) -> None:
    for key in ("seeds", "speedup.seeds"):
        with pytest.raises(RecipeError, match=f"{key}.0: "):
            load_recipe(small, {key: [seed]})
    with pytest.raises(RecipeError, match=r"speedup\.selection_seeds\.0: "):
        load_recipe(small, {"speedup.selection_seed": seed})


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"training.steps": 3}, "training: give either epochs or steps"),
        ({"training.epochs": None}, "training: give either epochs or steps"),
        ({"training.clusters": 3}, "training: clusters needs batch_size"),
        ({"training.clusters": 3, "training.batch_size": 4}, "training.batching: size is larger"),
        ({"seeds": [1, 2, 1]}, "seeds must differ"),
        ({"speedup.seeds": [1, 1]}, "speedup: seeds must differ"),
        ({"speedup.learning_rates": [0.1, 0.1]}, "speedup: learning_rates must differ"),
        ({"speedup.targets": [0.1, 0.1]}, "speedup: targets must differ"),
        ({"speedup.targets": [1.0]}, "speedup: targets are fractions"),
        ({"speedup.learning_rates": [0.0]}, "speedup: learning_rates must be positive"),
        ({"speedup.seeds": [1000]}, "speedup: selection_seeds must not be"),
        ({"model.options": {"alpa": 1}}, "resgcn has no option 'alpa'. Did you mean 'alpha'"),
        ({"model.options": {"alpha": True}}, "option 'alpha': a truth value .* got True"),
        ({"model.options": {"alpha": "x"}}, "option 'alpha': .*valid number.*got 'x'"),
        ({"model.options": {"norm": "x"}}, "option 'norm': .*'both'.*got 'x'"),
        ({"model.options": {"mlp_layers": 3}}, "resgcn has no option 'mlp_layers'"),
        ({"model.options": {"in_feats": 3}}, "resgcn has no option 'in_feats'"),
        ({"model.options": {"dropout": 0.1}}, "resgcn has no option 'dropout'"),
    ],
)
def test_impossible_combination(small: Path, overrides: dict, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(small, overrides)
    assert str(small) in str(caught.value)


def test_all_problems_at_once(small: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(small, {"model.num_layers": 0, "optimizer.name": "x", "trainig": {}})
    for key in ("model.num_layers", "optimizer.name", "trainig"):
        assert f"{key}: " in str(caught.value)


@pytest.mark.parametrize("missing", ["data", "model", "training"])
def test_missing_section(tmp_path: Path, missing: str) -> None:
    content = {key: value for key, value in SMALL.items() if key != missing}
    with pytest.raises(RecipeError, match=f"r.yaml: {missing}: this key is missing"):
        load_recipe(write(tmp_path / "r.yaml", content))


FULL = load_recipe("resgcn64.digits").model_dump(mode="json")
SECTIONS = [
    (),
    *((key,) for key, value in FULL.items() if isinstance(value, dict)),
    ("optimizer", "weight_decay"),
]


def at(tree: dict, path: tuple[str, ...]) -> dict:
    for part in path:
        tree = tree[part]
    return tree


@QUICK
@given(st.data())
def test_misspelt_key_is_named(tmp_path: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(SECTIONS))
    content = json.loads(json.dumps(FULL))
    section = at(content, path)
    key = data.draw(st.sampled_from(sorted(section)))
    position = data.draw(st.integers(0, len(key)))
    letter = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz_-0"))
    cut = data.draw(st.sampled_from([0, 1]))
    typo = key[:position] + letter + key[position + cut :]
    assume(typo not in section and not (path == () and typo == "extends"))
    section[typo] = section.pop(key)
    file = write(tmp_path / "typo.yaml", content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    line = next(
        line for line in str(caught.value).splitlines() if f"{'.'.join((*path, typo))}: u" in line
    )
    known = {*section, key} - {typo}
    proposed = re.search(r"unknown key. Did you mean '(.*)'\?$", line)
    if proposed:
        assert proposed[1] in known
    else:
        assert set(re.search("Allowed: (.*).$", line)[1].split(", ")) == known
    assert str(caught.value).startswith(f"{file}: ")
    if len(key) > 5:
        assert proposed


# --- hostile files ---


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "- 1",
        "text",
        "[",
        "a: b: c",
        "\t- x",
        "a: 2001-13-45",
        "a: !!timestamp x",
        "a: !!int ''",
        "a: !!bool x",
        "!!python/object/apply:os.system [echo]",
        "[" * 5000,
        "a: &a {b: *a}",
        "&a [*a]",
        "1: 2",
        "{a: 1}: 2",
        "? [a]\n: 1",
        "data: {name: karate, options: &x {a: *x}}\nmodel: {}\ntraining: {epochs: 1}",
        "data: {name: karate, options: {1: 2}}\nmodel: {}\ntraining: {epochs: 1}",
        "a: 1\n---\nb: 2",
        "a: \x07",
    ],
)
def test_odd_yaml(tmp_path: Path, text: str) -> None:
    file = write(tmp_path / "odd.yaml", text)
    with pytest.raises(RecipeError, match=re.escape(str(file))):
        load_recipe(file)


@QUICK
@given(st.text(max_size=60))
def test_random_text(tmp_path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match=r"random\.yaml"):
        load_recipe(write(tmp_path / "random.yaml", text))


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.dates()
    | st.binary(max_size=4)
    | st.sampled_from(["1e-4", "none", "per-depth", "adam", "resgin", 0, 1, -1, 0.5])
)
yaml_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(QUICK, max_examples=200)
@given(st.data())
def test_random_value_anywhere_is_accepted_or_a_recipe_error(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = json.loads(json.dumps(FULL))
    section = at(content, data.draw(st.sampled_from(SECTIONS)))
    section[data.draw(st.sampled_from(sorted(section)))] = data.draw(yaml_values)
    file = write(tmp_path / "random.yaml", content)
    try:
        recipe = load_recipe(file)
    except RecipeError as error:
        assert str(error).startswith(f"{file}: ")
    else:
        assert load_recipe(write(tmp_path / "again.yaml", recipe.to_yaml())) == recipe


@pytest.mark.parametrize("name", ["folder.yaml", "folder"])
def test_folder_instead_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(RecipeError, match=f"{name}: cannot be read as a recipe: .*directory"):
        load_recipe(tmp_path / name)


def test_bytes_that_are_not_text(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(RecipeError, match=r"r\.yaml: cannot be read as a recipe"):
        load_recipe(tmp_path / "r.yaml")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_file_without_permission(small: Path) -> None:
    small.chmod(0)
    with pytest.raises(RecipeError, match=r"cannot be read as a recipe: .*Permission"):
        load_recipe(small)


@pytest.mark.parametrize(
    "source", ["", "resgcn64.digts", "no/such", "x" * 5000, "no such.yaml", "~", "a\0b"]
)
def test_no_such_recipe(source: str) -> None:
    with pytest.raises(RecipeError, match=r"There is no recipe|cannot be read"):
        load_recipe(source)
    if source == "resgcn64.digts":
        with pytest.raises(RecipeError, match=r"Did you mean 'resgcn64\.digits'"):
            load_recipe(source)


@pytest.mark.parametrize(
    "text",
    [
        "foo",
        "=3",
        "",
        "model.num_layers=[",
        "model.num_layers=2001-13-45",
        "model.num_layers.x=1",
        "model..x=1",
        ".=1",
        "extends=x",
        "model.num_layer=1",
        "model=3",
    ],
)
def test_bad_override(small: Path, text: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(small, [text])


def test_unicode_path(tmp_path: Path) -> None:
    file = write(tmp_path / "数据 é" / "r 1.yaml", {**SMALL, "name": "r1"})
    assert load_recipe(file).name == "r1"
    with pytest.raises(RecipeError, match=r"name: .*got 'é'"):
        load_recipe(write(tmp_path / "é.yaml", SMALL))


def test_another_network_is_reported_under_another_name(tmp_path: Path) -> None:
    recipe = load_recipe("resgcn64.digits", ["model.num_layers=16", "model.residual=null"])
    assert recipe.title == "resgcn64.digits, changed: model.num_layers=16, model.residual=null"
    assert recipe.name == "resgcn64.digits"  # of its run folder
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    again = load_recipe(tmp_path / "again.yaml")
    assert again == recipe
    third = load_recipe(
        tmp_path / "again.yaml", ["model.num_layers=8", "model.options={norm: left}"]
    )
    assert third.title == (
        "resgcn64.digits, changed: model.num_layers=8, model.residual=null, model.options.norm=left"
    )
    for overrides in (
        [],
        ["training.epochs=3", "seeds=[4]"],  # the same network
        ["model.num_layers=64"],  # nothing new
        ["model.num_layers=16", "name=mine"],
    ):
        recipe = load_recipe("resgcn64.digits", overrides)
        assert recipe.title == recipe.name
        assert "changed" not in recipe.to_yaml()
    (tmp_path / "half.yaml").write_text("data: {name: karate}\nmodel: {}\n")
    both = load_recipe(tmp_path / "half.yaml", ["training.epochs=3", "model.hidden_feats=8"])
    assert both.title == "half, changed: model.hidden_feats=8"


def test_options_of_a_model_that_extends_another(monkeypatch: pytest.MonkeyPatch) -> None:
    class Extended(ResGCN):
        def __init__(self, *widths: int, gain: float = 1.0, **body: Any) -> None:
            super().__init__(*widths, **body)

    monkeypatch.setattr(MODELS, "_entries", {**MODELS._entries, "extended": Extended})
    options = {"gain": "2", "norm": "right"}  # its own, and those of what it extends
    made = ModelSection.model_validate({"name": "extended", "options": options})
    assert made.options == {"gain": 2.0, "norm": "right"}
    with pytest.raises(ValidationError, match="Did you mean 'gain'"):
        ModelSection.model_validate({"name": "extended", "options": {"gian": 2}})


def test_the_older_selection_seed_is_read(small: Path) -> None:
    """Its default, and that of the rates beside it, were written out: they are today's now."""
    today = load_recipe(small).speedup
    older = {"speedup.selection_seed": 1000, "speedup.learning_rates": [1e-4, 1e-3, 1e-2]}
    assert load_recipe(small, older).speedup == today
    assert load_recipe(small, {"speedup.selection_seed": 7}).speedup.selection_seeds == [7]
    kept = load_recipe(small, {"speedup.selection_seed": 7, "speedup.learning_rates": [0.5]})
    assert kept.speedup.learning_rates == [0.5]
