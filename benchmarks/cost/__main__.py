"""Measure time, memory and growth; write ``results.json``, and from it the tables and the plot."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cost.batches import measure_batches
from benchmarks.cost.checkpoint import measure_checkpoint
from benchmarks.cost.forms import measure_forms
from benchmarks.cost.growth import measure_growth, plot_growth
from benchmarks.cost.imports import measure_import
from benchmarks.cost.machine import machine
from benchmarks.cost.memory import measure_memory
from benchmarks.cost.operations import measure_profile
from benchmarks.cost.report import PLOT, report
from benchmarks.cost.steps import GRID, measure_steps

SECTIONS: dict[str, Callable[[bool], Any]] = {
    **{section: partial(measure_steps, section) for section in GRID},
    "memory": measure_memory,
    "checkpoint": measure_checkpoint,
    "import": measure_import,
    "forms": measure_forms,
    "batches": measure_batches,
    "growth": measure_growth,
    "profile": measure_profile,
}


def main() -> None:
    """Run the sections asked for; the others stay as they are in ``results.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=SECTIONS, help="measure only these, or none")
    parser.add_argument("--quick", action="store_true", help="smoke run, into runs/benchmark")
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    folder = here.parent / "runs" / "benchmark" if arguments.quick else here
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    results = {"machine": machine(), "quick": arguments.quick, "seconds": {}, "sections": {}}
    if arguments.only is not None and file.exists():
        earlier = json.loads(file.read_text("utf-8"))
        if earlier["machine"] != results["machine"]:
            parser.error(f"{file} is of another machine or other versions: measure all sections.")
        results = earlier
    for name in SECTIONS if arguments.only is None else arguments.only:
        start = time.perf_counter()
        results["sections"][name] = SECTIONS[name](arguments.quick)
        results["seconds"][name] = time.perf_counter() - start
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = report(results)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if "growth" in results["sections"]:
        plot_growth(results["sections"]["growth"], folder / PLOT)
    print(text)


if __name__ == "__main__":
    main()
