"""The notebooks run as they stand, from top to bottom, behind the line that installs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def run(path: Path) -> tuple[dict[str, Any], list[Any]]:
    """Names that a notebook defines, and what its cells show."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert code[0] == "%pip install --quiet dgl-deepgnn"
    assert all(not cell.get("outputs") for cell in cells)  # what it shows is made, not kept
    names: dict[str, Any] = {}
    shown = []
    for text in code[1:]:
        tree = ast.parse(text)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, path.name, "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    return names, shown


@pytest.fixture(autouse=True)
def _no_windows() -> None:
    mpl.use("agg")


def test_there_are_two() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["deep_network", "repair"]


def test_deep_network() -> None:
    names, shown = run(NOTEBOOKS[0])
    stock, ours = shown[-1]
    assert stock < 0.5 < 0.9 < ours
    assert names["losses"][-1] < names["stock_losses"][-1] / 10


def test_repair() -> None:
    names, shown = run(NOTEBOOKS[1])
    assert 0.01 < shown[-1] < 100
    assert hasattr(names["before"], "_repr_html_") or hasattr(names["before"], "_repr_png_")
    assert names["before"].verdicts[0].status == "vanishing"
    assert names["after"].verdicts[0].status == "healthy"
