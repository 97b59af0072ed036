"""Measure a million nodes; write ``scale.json``, and from it the page and the plot.

Every stage runs in a process of its own, in a folder that is removed afterwards.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cost.machine import machine
from benchmarks.scale.plot import plot
from benchmarks.scale.problem import Plan
from benchmarks.scale.report import COMMAND, report, summary
from benchmarks.scale.stages import measure_stages, measure_width
from benchmarks.scale.throughput import measure_throughput
from dgl_deepgnn.files import write_json, write_text

SIZES = {"100k": 100_000, "200k": 200_000, "500k": 500_000, "1M": 1_000_000}
WIDE, WIDTHS = 240_000, (128, 512)
"""Nodes and features of the section "width"."""
ROUNDS = 5
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
START, END = "<!-- benchmarks.scale: begin -->", "<!-- benchmarks.scale: end -->"
QUICK = 25
"""So many times smaller is a smoke run."""


def sections(quick: bool, folder: Path) -> dict[str, Callable[[], Any]]:
    """What can be measured, by name."""
    layers, part = (4, 200) if quick else (32, 2000)

    def plan(nodes: int, in_feats: int = 128) -> Plan:
        return Plan(nodes // QUICK if quick else nodes, in_feats, part, layers=layers)

    return {
        **{
            name: lambda nodes=nodes: measure_stages(plan(nodes), folder)  # type: ignore[misc]
            for name, nodes in SIZES.items()
        },
        "width": lambda: measure_width([plan(WIDE, width) for width in WIDTHS], folder),
        "throughput": lambda: measure_throughput(plan(100_000), 2 if quick else ROUNDS, folder),
    }


def main() -> None:
    """Measure the sections asked for; the others stay as they are in ``scale.json``."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    known = list(sections(True, Path()))
    parser.add_argument("--only", nargs="*", choices=known, help="measure only these, or none")
    parser.add_argument("--quick", action="store_true", help="smoke run, into runs/benchmark")
    parser.add_argument("--folder", type=Path, help="where the graphs are put meanwhile (2 GB)")
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    place = here.parent / "runs" / "benchmark" if arguments.quick else here
    place.mkdir(parents=True, exist_ok=True)
    file = place / "scale.json"
    results = {"machine": machine(), "quick": arguments.quick, "seconds": {}, "sections": {}}
    if arguments.only is not None and file.exists():
        earlier = json.loads(file.read_text("utf-8"))
        if earlier["machine"] != results["machine"]:
            parser.error(f"{file} is of another machine or other versions: measure all sections.")
        results = earlier
    for name in known if arguments.only is None else arguments.only:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            results["sections"][name] = sections(arguments.quick, Path(folder))[name]()
        results["seconds"][name] = time.perf_counter() - start
        write_json(file, results)
    text = report(results)
    write_text(place / "scale.md", text)
    plot(results["sections"], place / "scale.png")
    if not arguments.quick:
        before, _, rest = PAGE.read_text("utf-8").partition(START)
        _, _, after = rest.partition(END)
        write_text(PAGE, f"{before}{START}\n\n{summary(results)}\n\n{END}{after}")
    print(text)


if __name__ == "__main__":
    main()
