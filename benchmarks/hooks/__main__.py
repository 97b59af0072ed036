"""Models as DGL's users write them: as they come, after `critical_` in closed form, and measured.

Writes ``benchmarks/hooks.json`` and from it the tables ``hooks.md``. Every model of every arm is a
row that replaces its former self, so that a part can be run alone. ``--steps 0`` leaves out
training, which takes the most of its time.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatch
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.hooks.cases import CASES
from benchmarks.hooks.measure import ARMS, measure_named
from benchmarks.hooks.report import STEPS, report
from dgl_deepgnn.files import write_json, write_text

COMMAND = "python -m benchmarks.hooks"
DEPTHS = (16, 32)


def main() -> None:
    """Measure what is asked for, and write the tables of all that there is."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--models", default="*", help="pattern of names, for example 'GraphConv*'")
    parser.add_argument("--arms", nargs="*", choices=ARMS, default=ARMS)
    parser.add_argument("--depths", nargs="*", type=int, default=DEPTHS)
    parser.add_argument("--steps", type=int, default=STEPS, help="of training; 0: the start alone")
    parser.add_argument("--workers", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "hooks.json")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"commands": [], "rows": []}
    if arguments.out.exists():
        results = json.loads(arguments.out.read_text(encoding="utf-8"))
    rows = {_key(row): row for row in results["rows"]}
    if (command := _command(arguments)) not in results["commands"]:
        results["commands"].append(command)
    todo = [
        (name, depth, arm)
        for name in CASES
        if fnmatch(name, arguments.models)
        for depth in arguments.depths
        for arm in arguments.arms
    ]
    pool = ProcessPoolExecutor(
        arguments.workers, get_context("spawn"), torch.set_num_threads, initargs=(1,)
    )
    with pool:
        runs = {pool.submit(measure_named, *key, arguments.steps): key for key in todo}
        for run in tqdm(as_completed(runs), total=len(runs)):
            (name, depth, arm), found = runs[run], run.result()
            former = rows.get((name, depth, arm), {})
            if not arguments.steps and "losses" in found and "losses" in former:
                found["losses"] = former["losses"]
            rows[name, depth, arm] = {"model": name, "depth": depth, "arm": arm, **found}
            results["rows"] = [rows[key] for key in sorted(rows, key=_order)]
            write_json(arguments.out, results)
    text = report(results)
    write_text(arguments.out.with_suffix(".md"), text)
    print(text.split("\n## ")[0])


def _command(arguments: argparse.Namespace) -> str:
    """Return the command line, but for the file that it writes and the number of workers."""
    parts = [COMMAND]
    if arguments.models != "*":
        parts.append(f"--models '{arguments.models}'")
    if tuple(arguments.arms) != ARMS:
        parts.append(
            "--arms " + " ".join(f"'{arm}'" if " " in arm else arm for arm in arguments.arms)
        )
    if tuple(arguments.depths) != DEPTHS:
        parts.append("--depths " + " ".join(map(str, arguments.depths)))
    if arguments.steps != STEPS:
        parts.append(f"--steps {arguments.steps}")
    return " ".join(parts)


def _key(row: dict[str, Any]) -> tuple[str, int, str]:
    return row["model"], row["depth"], row["arm"]


def _order(key: tuple[str, int, str]) -> tuple[int, int, int]:
    name, depth, arm = key
    return list(CASES).index(name), depth, ARMS.index(arm)


if __name__ == "__main__":
    main()
