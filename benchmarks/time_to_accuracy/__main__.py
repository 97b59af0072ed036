"""Seconds to a validation score: our networks beside those of DGL's and PyTorch Geometric's layers.

Writes ``benchmarks/time_to_accuracy.json``, a row a run as soon as it is done, and from it the
tables ``time_to_accuracy.md`` and the plot ``docs/time_to_accuracy.png``. Runs that are there are
not repeated, so that it can be stopped at any time and run in parts; `--again` says whose are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.cost.isolated import isolated
from benchmarks.cost.machine import machine
from benchmarks.time_to_accuracy.measure import measure, read
from benchmarks.time_to_accuracy.plot import plot
from benchmarks.time_to_accuracy.report import COMMAND, report
from benchmarks.time_to_accuracy.results import Results
from benchmarks.time_to_accuracy.tasks import TASKS
from dgl_deepgnn.files import write_text

BENCHMARKS = Path(__file__).parents[1]


def main() -> None:
    """Make the runs that are asked for, and write the report of all that there are."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="none: the report alone"
    )
    parser.add_argument("--again", metavar="PATTERN", help="of contenders, for example 'PyG*'")
    parser.add_argument("--threads", type=int, default=1, help="the rates are those of one")
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "time_to_accuracy.json")
    parser.add_argument(
        "--plot", type=Path, default=BENCHMARKS.parent / "docs" / "time_to_accuracy.png"
    )
    arguments = parser.parse_args()
    for name in arguments.tasks:
        isolated(
            measure,
            arguments.threads,
            name=name,
            out=str(arguments.out.resolve()),
            again=arguments.again,
            machine=machine(),
        )
    machines, rows = read(arguments.out)
    results = Results(rows)
    text = report(machines, results)
    write_text(arguments.out.with_suffix(".md"), text)
    plot(results, arguments.plot)
    print(text)


if __name__ == "__main__":
    main()
