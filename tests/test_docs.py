"""The Python blocks of README and the pages run as they stand, and their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import dgl
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from dgl_deepgnn.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CARDS = sorted((ROOT / "zoo").glob("*/README.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)\)", page.read_text("utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def run_blocks(page: Path, namespace: dict[str, object]) -> None:
    """Run the Python blocks of a page, from top to bottom."""
    for block in blocks_of(page):
        exec(compile(block, page.name, "exec"), namespace)


def blocks_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("page", filter(blocks_of, PAGES), ids=lambda page: page.name)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    run_blocks(page, namespace)
    if page.name == "README.md":  # and what it says of the example holds
        verdicts = namespace["result"].verdicts  # type: ignore[attr-defined]
        for verdict, status in zip(verdicts, ("healthy", *2 * ("oversmoothed",)), strict=True):
            assert verdict.status == status or verdict.near


def test_graphstorm_trains_our_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/graphstorm.md has it, where GraphStorm is installed."""
    pytest.importorskip("graphstorm", reason="GraphStorm pins versions that are not ours")
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "graphstorm.md"
    (command,) = commands_of(page)[:1]
    done = CliRunner().invoke(app, [*shlex.split(command)[1:], "--set", "data.name=karate"])
    assert done.exit_code == 0, done.output
    namespace: dict[str, object] = {}
    for block in re.findall(r"```py\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL):
        exec(compile(block, page.name, "exec"), namespace)


def commands_of(page: Path) -> list[str]:
    """Command lines of ours: indented, in shell blocks, or between backticks."""
    text = page.read_text("utf-8").replace("\\\n", " ")
    found = re.findall(r"^(?:    )?(dgl-deepgnn .*)$", text, flags=re.MULTILINE)
    # In a sentence only what goes on behind the command's name is meant to be typed.
    found += [" ".join(line.split()) for line in re.findall(r"`(dgl-deepgnn \w[^`]*)`", text)]
    return [line.split("  #")[0] for line in found if "..." not in line]


@pytest.mark.parametrize("page", filter(commands_of, PAGES), ids=lambda page: page.name)
def test_commands_are_ones_that_there_are(page: Path) -> None:
    """Each is parsed as the command line parses it, options and all, and not run."""
    for line in commands_of(page):
        command, arguments = get_command(app), shlex.split(line)[1:]
        context = None
        while True:
            context = command.make_context(line, arguments, parent=context)
            if not hasattr(command, "resolve_command"):
                break
            rest = [*context._protected_args, *context.args]
            if not rest:
                break
            _, found, arguments = command.resolve_command(context, rest)
            assert found is not None, f"{page.name}: {line}"
            if not arguments:  # a sentence names the command, and no more
                break
            command = found


@pytest.mark.parametrize("page", CARDS, ids=lambda page: page.parent.name)
@pytest.mark.filterwarnings("ignore:.*far outside their range:UserWarning")
def test_python_blocks_of_model_cards_run(page: Path) -> None:
    """On a graph of the reader's: that is what their `graph` stands for."""
    config = json.loads((page.parent / "config.json").read_text("utf-8"))
    graph = dgl.rand_graph(20, 60).add_self_loop()
    widths = config["model"]["arguments"]
    graph.ndata["feat"] = torch.randn(20, widths["in_feats"])
    graph.edata["feat"] = torch.randn(graph.num_edges(), widths["edge_feats"])
    if config["model"]["name"] == "resrgcn":  # indicators of the relations
        graph.edata["feat"] = torch.eye(widths["edge_feats"])[torch.arange(graph.num_edges()) % 2]
    for columns in (config["data"]["preparation"] or {"node": []})["node"]:
        if columns["values"] is not None:  # node labels
            (values,) = columns["values"]
            graph.ndata[columns["field"]] = torch.full((20,), values[0])
            widths["in_feats"] -= len(values)
        elif columns["field"] != "feat":  # what else there is
            graph.ndata[columns["field"]] = torch.randn(20, widths["in_feats"])
    assert blocks_of(page)
    run_blocks(page, {"graph": graph})


def test_readme_has_the_current_table_of_models() -> None:
    table = CliRunner().invoke(app, ["models", "--markdown"], env={"DGL_DEEPGNN_ZOO": ""}).stdout
    assert table.strip() in (ROOT / "README.md").read_text("utf-8"), "dgl-deepgnn models --markdown"
