"""The reference pages of the documentation's site: nothing public is missing."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dgl_deepgnn.cli import app
from dgl_deepgnn.recipe import json_schema

pytest.importorskip("latex2mathml", reason="wants the extra docs")
DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site() -> Iterator[Any]:
    sys.path.insert(0, str(DOCS))
    spec = importlib.util.spec_from_file_location("docs_site", DOCS / "site.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    sys.path.remove(str(DOCS))


def test_every_public_name_has_its_place(site: Any) -> None:
    text = site.python_reference()
    listed = [line.removeprefix("::: ") for line in text.splitlines() if line.startswith(":::")]
    assert len(set(listed)) == len(listed)
    names = {name.rpartition(".")[2] for name in listed}
    import dgl_deepgnn

    assert set(dgl_deepgnn.__all__) <= names
    for module in ("nn", "init", "data", "hub", "diagnostics", "training"):
        found = importlib.import_module(f"dgl_deepgnn.{module}")
        public = {n for n in found.__all__ if callable(getattr(found, n)) and n[0].islower()}
        assert public <= names, module


def test_every_key_of_a_recipe_is_listed(site: Any) -> None:
    text = site.recipe_reference()
    schema = json.loads(json_schema())
    sections = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    for section in sections:
        for key in section["properties"]:
            assert f"| `{key}` |" in text
    assert "[Optimizer](#optimizer)" in text and "## Optimizer" in text
    assert '`"metric"`, `"loss"`' in text  # values of a key


def test_every_command_is_listed(site: Any) -> None:
    text = site.commands_reference()
    for command in (*app.registered_commands, *app.registered_groups):
        name = command.name or command.callback.__name__  # type: ignore[union-attr]
        assert f"## dgl-deepgnn {name}" in text
    assert "`--set`" in text and "## dgl-deepgnn recipes show" in text


def test_formulas_but_not_code(site: Any) -> None:
    code = ("`$HOME`", "    echo $HOME $PATH", "```sh\n$a$\n```")
    text = site.with_formulas("a $x_1$ and {}\n\n{}\n\n{}\n$$ y $$".format(*code))
    assert text.count("<math") == 2 and 'display="block"' in text
    assert all(kept in text for kept in code)
    from roles import without_roles

    block = "    .. math::\n        x = y\n        + z"
    found = without_roles(f"A.\n\n{block}\n\n    :math:`t`, :class:`~a.B`")
    assert found.count("<math") == 2 and found.endswith(", `B`") and "math::" not in found
