"""References beside which the zoo's models are to be judged, trained in our protocol.

Writes ``benchmarks/baselines.jsonl``, a row a training as soon as it is done, and from it and the
zoo ``baselines.md``. Trainings that are there are not repeated, so that it can be stopped at any
time and run in parts.
"""

from __future__ import annotations

import argparse
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.baselines.cards import write_cards
from benchmarks.baselines.measure import measure
from benchmarks.baselines.references import SEEDS, TASKS
from benchmarks.baselines.report import COMMAND, report
from benchmarks.baselines.rows import Rows
from dgl_deepgnn.files import write_text

BENCHMARKS = Path(__file__).parents[1]


def main() -> None:
    """Make the trainings that are asked for, and write the page of all that there are."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument(
        "--tasks", nargs="*", choices=TASKS, default=list(TASKS), help="none: the page alone"
    )
    parser.add_argument("--references", default="*", metavar="PATTERN", help="such as 'GCNII*'")
    parser.add_argument(
        "--seeds", type=int, nargs="*", choices=SEEDS, default=list(SEEDS), metavar="SEED"
    )
    parser.add_argument(
        "--cards", action="store_true", help="write them into the cards of the zoo, too"
    )
    parser.add_argument("--out", type=Path, default=BENCHMARKS / "baselines.jsonl")
    arguments = parser.parse_args()
    for name in arguments.tasks:
        wanted = [
            reference
            for reference in TASKS[name].references
            if fnmatch(reference.name, arguments.references)
        ]
        measure(name, wanted, arguments.seeds, arguments.out)
    rows = Rows.of_file(arguments.out)
    text = report(rows)
    write_text(arguments.out.with_suffix(".md"), text)
    if arguments.cards:
        write_cards(rows)
    print(text)


if __name__ == "__main__":
    main()
