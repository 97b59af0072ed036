"""The table of DGL's convolutions in docs/hooks.md: whole, and as the code is."""

from __future__ import annotations

import json

import dgl
import pytest

from benchmarks.hooks.dgl_classes import GRAPHS, HERE, NOT_MADE, STACKS, bare, graph_for
from benchmarks.hooks.table import ARMS, END, PAGE, RESULTS, RULES, START, measure, table
from dgl_deepgnn.init import UnknownModuleError, collect_stages
from dgl_deepgnn.init.dgl_refused import REASONS
from dgl_deepgnn.init.hooks import GraphContext

ROWS = json.loads(RESULTS.read_text("utf-8"))["rows"]


def test_the_page_holds_the_table_of_the_data() -> None:
    text = PAGE.read_text("utf-8")
    assert text.split(START)[1].split(END)[0].strip() == table(ROWS).strip()


def test_no_class_is_missed() -> None:
    assert [row["name"] for row in ROWS] == list(STACKS)
    shown = {line.split("`")[1] for line in table(ROWS).splitlines() if line.startswith("| `")}
    assert {bare(name) for name in shown} >= set(dgl.nn.pytorch.conv.__all__)
    assert shown == set(STACKS) | set(NOT_MADE)
    described = set(RULES) | set(REASONS)
    assert described == set(map(bare, STACKS)) | set(NOT_MADE)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if row["name"] in HERE], ids=lambda row: row["name"]
)
def test_what_is_refused_and_why_is_what_the_code_says(row: dict) -> None:
    name, graph = row["name"], GRAPHS["undirected"]()
    said = row["closed form"][0]
    try:
        collect_stages(STACKS[name](2), GraphContext(graph_for(name, graph)))
    except UnknownModuleError as error:
        assert said == error.reason
    else:
        assert isinstance(said, float)
    assert all(len(row[arm]) == len(GRAPHS) for arm in ARMS)


def test_what_is_not_refused_is_of_order_one() -> None:
    for row in ROWS:
        for value in row["closed form"]:
            assert isinstance(value, str) or 1e-4 < value < 1e3, row["name"]


def test_the_figures_are_measured() -> None:
    """One cell anew: other machines round otherwise."""
    (row,) = (row for row in ROWS if row["name"] == "GraphConv")
    assert measure("GraphConv", "undirected", "stock") == pytest.approx(row["stock"][0], rel=0.1)
