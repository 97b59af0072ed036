"""Measure, write ``results.json``, and make the page of tables and the plots from it."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.cost.report import report
from benchmarks.cost.steps import GRID, measure_steps

SECTIONS: dict[str, Callable[[bool], Any]] = {
    section: partial(measure_steps, section) for section in GRID
}


def main() -> None:
    """Run the sections asked for; the others are kept as they are in ``results.json``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="measure these sections only")
    parser.add_argument("--quick", action="store_true", help="smoke run, into runs/benchmark")
    arguments = parser.parse_args()
    here = Path(__file__).parents[1]
    folder = here.parent / "runs" / "benchmark" if arguments.quick else here
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "results.json"
    results = json.loads(file.read_text("utf-8")) if file.exists() else {"sections": {}}
    for name in arguments.only or SECTIONS:
        start = time.perf_counter()
        results["sections"][name] = SECTIONS[name](arguments.quick)
        results.setdefault("seconds", {})[name] = time.perf_counter() - start
        file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = report(results)
    (folder / "README.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
