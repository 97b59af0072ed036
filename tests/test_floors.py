"""Imports go one way: from a floor to the floors above it in docs/architecture.md."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "dgl_deepgnn"

FLOORS = [
    ["_environment", "progress", "wording"],
    ["errors"],
    ["registry", "options", "strict_yaml", "files", "graph"],
    ["operator"],
    ["init"],
    ["theory", "nn", "optim"],
    ["diagnostics", "data", "export"],
    ["recipe"],
    ["training"],
    ["speedup"],
    ["hub"],
    ["cli"],
]
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}


def imports() -> Iterator[tuple[str, str, str]]:
    """Folder (or file) of the package, what it imports of the package, and where."""
    for file in sorted(PACKAGE.rglob("*.py")):
        place = file.relative_to(PACKAGE)
        inside = place.parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            for name in names:
                package, _, rest = name.partition(".")
                if package == "dgl_deepgnn" and rest:
                    yield inside, rest.partition(".")[0], f"{place}:{node.lineno}"


def test_a_folder_imports_only_from_floors_above_it() -> None:
    wrong = [
        f"{where}: {importer} imports {imported}"
        for importer, imported, where in imports()
        if importer not in (imported, "__init__", "__main__")  # the package's face and its command
        and imported != "__version__"
        and FLOOR[imported] >= FLOOR[importer]
    ]
    assert not wrong


def test_every_folder_has_a_floor_and_a_sentence() -> None:
    names = {
        entry.name.removesuffix(".py")
        for entry in PACKAGE.iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    } - {"__init__", "__main__"}
    assert names == set(FLOOR)
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text("utf-8")
    for name in names:
        assert f"| `{name}/`" in page or f"| `{name}.py`" in page, name
