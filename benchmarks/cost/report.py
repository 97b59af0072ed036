"""The page of tables, ``README.md``, made of ``results.json`` alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.cost.contenders import CONTENDERS, OURS
from benchmarks.cost.graphs import SIZES
from benchmarks.cost.steps import GRID

__all__ = ["report"]


def report(results: dict[str, Any]) -> str:
    """Markdown of all sections that there are."""
    lines = ["# Speed, memory and depth", ""]
    for section in GRID:
        for cell in results["sections"].get(section, []):
            lines += steps_table(cell)
    return "\n".join(lines)


def steps_table(cell: dict[str, Any]) -> list[str]:
    """Times of one graph, depth and number of threads."""
    size = SIZES[cell["size"]]
    threads = "one thread" if cell["threads"] == 1 else f"{cell['threads']} threads"
    rows = []
    for family, names in CONTENDERS.items():
        for name in names:
            if name in cell["train"]:
                row = [name]
                for task in ("train", "infer"):
                    ours = cell[task][OURS[family]]["median"]
                    row += [milliseconds(cell[task][name]), ratio(cell[task][name], ours)]
                rows.append([*row, str(cell["train"][name]["rounds"])])
    header = ["network", "training step, ms", "times ours", "inference, ms", "times ours", "rounds"]
    return [f"### {size}, {cell['layers']} layers, {threads}", "", *table(header, rows), ""]


def milliseconds(times: dict[str, Any]) -> str:
    """Median and quartiles."""
    median, low, high = (1e3 * times[key] for key in ("median", "q25", "q75"))
    digits = 1 if median < 100 else 0
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratio(times: dict[str, Any], ours: float) -> str:
    """How many times as long as ours."""
    return f"{times['median'] / ours:.2f}"


def table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
