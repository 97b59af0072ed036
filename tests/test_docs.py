"""The Python blocks of README and the pages run as they stand, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dgl_deepgnn.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("name", ["README.md", "docs/recipes.md"])
def test_python_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / name).read_text("utf-8"), flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, name, "exec"), namespace)
    if name == "README.md":
        verdicts = namespace["result"].verdicts  # type: ignore[attr-defined]
        assert verdicts[0].status == "healthy"  # what critical_ was called for


def test_readme_has_the_current_table_of_models() -> None:
    table = CliRunner().invoke(app, ["models", "--markdown"], env={"DGL_DEEPGNN_ZOO": ""}).stdout
    assert table.strip() in (ROOT / "README.md").read_text("utf-8"), "dgl-deepgnn models --markdown"
