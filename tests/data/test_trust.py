from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest

from dgl_deepgnn.data import catalog, list_datasets, load_data, register_dataset
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.trust import load_config_data, load_recipe_data, plain_options
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.options import FieldName

# Loaders of doctests that ran in this process apart.
NAMES = [name for name in list_datasets() if not name.startswith("doctest")]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaders of a third party, gone afterwards."""
    entries = dict(catalog.DATASETS._entries)
    monkeypatch.setattr(catalog.DATASETS, "_entries", entries)

    @register_dataset("theirs-safe", safe=True, values={"size": 10})
    def safe(size: int = 1, path: str = "") -> TaskData:
        return load_data("karate")

    @register_dataset("theirs", values={"size": 10})
    def unsafe(size: int = 1) -> TaskData:
        return load_data("karate")

    @register_dataset(
        "theirs-code:WHAT", runs=lambda what, loud=False: f"runs {what}" if loud else None
    )
    def code(what: str, loud: bool = False) -> TaskData:
        return load_data("karate")


def test_a_loader_says_what_a_config_may_ask_of_it(loaders: None) -> None:
    data = load_config_data("theirs-safe", {"size": 10, "features": "standardize"})
    assert data.info["options"] == {"size": 10}
    assert data.info["features"]["node"]["transform"] == "standardize"
    for name, options, says in (
        ("theirs", {}, "may not name the data 'theirs'"),
        ("theirs-safe", {"size": 11}, "size=11 .*ends at 10"),
        ("theirs-safe", {"size": -11}, "ends at 10"),
        ("theirs-safe", {"size": float("nan")}, "ends at 10"),
        ("theirs-safe", {"size": "10"}, "ends at 10"),
        ("theirs-safe", {"path": "x"}, "may not set the option 'path'.*size, features"),
    ):
        with pytest.raises(DGLError, match=says):
            load_config_data(name, options)
    # A user is not bounded.
    assert load_data("theirs-safe", size=11, path="x").name == "theirs-safe"


def test_options_that_come_along_to_data_of_the_user(loaders: None) -> None:
    assert plain_options("theirs", {"size": 3, "path": "x", "features": "none"}) == {
        "size": 3,
        "features": "none",
    }
    with pytest.raises(DGLError, match="ends at 10"):
        plain_options("theirs", {"size": 11})


def test_code_is_asked_about(loaders: None) -> None:
    load_recipe_data("theirs-code:x", {})
    with pytest.raises(UserError, match=r"recipe's data runs x: .*--allow-code"):
        load_recipe_data("theirs-code:x", {"loud": True})
    load_recipe_data("theirs-code:x", {"loud": True}, allow_code=True)


def is_value(annotation: Any) -> bool:
    """Whether all that an option takes are numbers, truth values, words of a list or fields."""
    if get_origin(annotation) in (Literal, Annotated):
        return get_origin(annotation) is Literal or is_value(get_args(annotation)[0])
    return all(
        part in (int, float, bool, NoneType, FieldName) or get_origin(part) is Literal
        for part in get_args(annotation) or (annotation,)
    )


def test_no_option_that_a_config_may_set_names_a_place() -> None:
    for name in NAMES:
        loader = catalog.DATASETS[name]
        parameters = inspect.signature(loader.load, eval_str=True).parameters
        for option in loader.values:
            assert is_value(parameters[option].annotation), (name, option)
        assert not (loader.safe and loader.runs("x")), name


def test_the_page_lists_what_a_config_may_name() -> None:
    text = (DOCS / "trust.md").read_text().partition("| may be named")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in text.splitlines()[2:]]
    listed = {
        name: set(re.findall(r"`([^`]+)`", options))
        for names, options in rows
        for name in re.findall(r"`([^`]+)`", names)
    }
    safe = {
        name: set(catalog.DATASETS[name].values) for name in NAMES if catalog.DATASETS[name].safe
    }
    heterophilous = safe.keys() - listed.keys()
    assert heterophilous == {
        "minesweeper",
        "tolokers",
        "questions",
        "roman-empire",
        "amazon-ratings",
    }
    assert listed == {name: safe[name] for name in listed}
