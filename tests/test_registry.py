"""Names, near misses, duplicates and third-party plugins."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from dgl_deepgnn import registry
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.registry import Registry, UnknownNameError, did_you_mean, load_plugins


@pytest.fixture
def shapes() -> Registry[str]:
    shapes: Registry[str] = Registry("shape")
    for name in ("square", "circle", "cube"):
        shapes.register(name)(name.upper())
    return shapes


def test_registered_objects_are_found(shapes: Registry[str]) -> None:
    assert shapes["cube"] == "CUBE"
    assert "cube" in shapes and "ball" not in shapes
    assert list(shapes) == ["square", "circle", "cube"]


def test_decorator_returns_the_object(shapes: Registry) -> None:
    @shapes.register("triangle")
    def triangle() -> int:
        return 3

    assert triangle() == 3 and shapes["triangle"] is triangle


def test_wildcards_are_sorted(shapes: Registry[str]) -> None:
    assert shapes.names() == ["circle", "cube", "square"]
    assert shapes.names("c*") == ["circle", "cube"]
    assert shapes.names("*e?") == []


def test_unknown_name_proposes_the_nearest(shapes: Registry[str]) -> None:
    with pytest.raises(UnknownNameError, match=r"no shape 'sqare'. Did you mean 'square'\?"):
        shapes["sqare"]
    with pytest.raises(ValueError, match=r"Allowed: circle, cube, square\."):
        shapes["?"]
    with pytest.raises(UnknownNameError, match=r"\(none\)"):
        Registry("thing")["x"]


def test_duplicate_is_an_error_and_keeps_the_first(shapes: Registry[str]) -> None:
    with pytest.raises(ValueError, match="shape 'cube' is registered already"):
        shapes.register("cube")("other")
    assert shapes["cube"] == "CUBE"


def test_did_you_mean() -> None:
    assert did_you_mean("qube", ["cube", "ball"]) == "Did you mean 'cube'?"
    assert did_you_mean("zzz", []) == "Allowed: (none)."


def test_plugins_are_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return [EntryPoint("json", "json", group)]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    load_plugins.cache_clear()
    load_plugins()
    load_plugins()
    assert asked == ["dgl_deepgnn.plugins"]


def test_broken_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    load_plugins.cache_clear()
    monkeypatch.setattr(
        registry, "entry_points", lambda group: [EntryPoint("mine", "no_such_module_x", group)]
    )
    for _ in range(2):  # a failure is reported again, not forgotten
        with pytest.raises(UserError, match=r"plugin 'mine' \(no_such_module_x\).*uninstall"):
            load_plugins()
