"""``make torture``: kills, damaged files and fuzzing at full size, and the table of what came out.

    python -m tests.faults.torture --kills 100 --fuzz 10000 --damage 0.05   # a small share
    python -m tests.faults.torture --case recipe-text 12345              # one case of the fuzzing

The table goes into docs/reliability.md with ``--write``. The exit code is 1 if anything was lost,
gave a traceback or hung.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import torch

from tests.faults import damage, fuzz, kills
from tests.faults.scene import Scene
from tests.faults.workers import HANG, REFUSED, TRACEBACK, WHOLE, Part, Tally, spread

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
START, END = "<!-- written by make torture -->", "<!-- end -->"
LIVES: list[tuple[str, type[kills.Life], float]] = [
    ("train", kills.Train, 0.2),
    ("speedup", kills.Speedup, 0.2),
    ("tune", kills.Tune, 0.1),
    ("check", kills.Check, 0.1),
    ("publish", kills.Publish, 0.2),
    ("download", kills.Download, 0.2),
]


def main() -> None:
    """Run what the options ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--fuzz", type=int, default=1_000_000, help="cases")
    parser.add_argument("--damage", type=float, default=1.0, help="share of all damaged files")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    parser.add_argument("--case", nargs=2, metavar=("KIND", "NUMBER"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        folder = Path(name)
        scene = Scene(folder / "scene").make()
        if arguments.case:
            kind, number = arguments.case
            parts = fuzz.make_parts(scene, folder / "fuzz", 1, 1)
            next(part for part in parts if part.name == kind).attempt(int(number))
            return
        start = time.monotonic()
        count = arguments.processes
        lines = [
            *kill(scene, folder / "kills", arguments.kills, count),
            *break_files(scene, folder / "damage", arguments.damage, count),
            *feed(scene, folder / "fuzz", arguments.fuzz, count),
        ]
        minutes = (time.monotonic() - start) / 60
        failed = [line.strip() for log in folder.glob("*/log") for line in log.open()]
    text = "\n".join([*lines, "", *_where(minutes, arguments)])
    print(text)
    print("\n".join(failed[:100]), file=sys.stderr)
    if arguments.write:
        page = PAGE.read_text("utf-8")
        before, after = page.split(START)[0], page.split(END)[1]
        PAGE.write_text(f"{before}{START}\n\n{text}\n\n{END}{after}", "utf-8")
    sys.exit(1 if failed else 0)


def kill(scene: Scene, folder: Path, count: int, processes: int) -> list[str]:
    """Kill commands until there have been `count` kills of them; rows of a table."""
    folder.mkdir()
    rows = [["command", "kills", "restarted to the end, same bits", "lost or changed", "hung"]]
    total: list[int] = [0, 0, 0, 0]
    with ExitStack() as stack:
        address = stack.enter_context(kills.slow_server(scene.zoo))
        chains: dict[str, list[kills.Chain]] = {}
        for name, life, _ in LIVES:
            places = [folder / f"{name}-{index}" for index in range(processes)]
            chains[name] = [
                kills.Chain(
                    kills.Download(scene, place, address)
                    if life is kills.Download
                    else life(scene, place),
                    place.with_suffix(".log"),
                )
                for place in places
            ]
        tallies = {name: Tally() for name, _, _ in LIVES}
        first = 0
        while True:
            parts = []
            for name, _, share in LIVES:
                missing = round(count * share) - sum(chain.kills for chain in chains[name])
                each = -(-max(0, missing) // processes)
                parts += [
                    Part(name, chain, range(first + i * each, first + (i + 1) * each))
                    for i, chain in enumerate(chains[name])
                    if each
                ]
            if not parts:
                break
            first += count
            for name, tally in spread(parts, processes, 30.0, folder / "log").items():
                tallies[name].counts.update(tally.counts)
            if (folder / "log").exists():  # what is wrong now would be wrong again
                break
    for name, tally in tallies.items():
        row = [sum(chain.kills for chain in chains[name])]
        row += [tally.counts[WHOLE], tally.counts[TRACEBACK] + tally.counts[REFUSED]]
        row += [tally.counts[HANG]]
        total = [a + b for a, b in zip(total, row, strict=True)]
        rows.append([f"`{name}`", *(f"{value:,}" for value in row)])
    return _table([*rows, ["all", *(f"{value:,}" for value in total)]])


def break_files(scene: Scene, folder: Path, share: float, processes: int) -> list[str]:
    """Damage every file; rows of a table."""
    folder.mkdir()
    parts = damage.make_parts(scene, folder, share, processes)
    return ["", *_outcomes("damaged files of", parts, processes, 30.0, folder / "log")]


def feed(scene: Scene, folder: Path, count: int, processes: int) -> list[str]:
    """Feed mutated files to their readers; rows of a table."""
    folder.mkdir()
    slices = max(processes, count // 50_000)
    parts = fuzz.make_parts(scene, folder, count, slices)
    return ["", *_outcomes("mutated", parts, processes, 1.0, folder / "log")]


def _outcomes(what: str, parts: list[Part], processes: int, limit: float, log: Path) -> list[str]:
    rows = [[what, "cases", "as if nothing was", "refused in words", "tracebacks", "hangs"]]
    tallies = spread(parts, processes, limit, log)
    total = Tally()
    for name, tally in tallies.items():
        rows.append([name.replace("-", " "), *_cells(tally)])
        total.counts.update(tally.counts)
    return _table([*rows, ["all", *_cells(total)]])


def _cells(tally: Tally) -> list[str]:
    counts = tally.counts
    return [
        f"{n:,}" for n in (tally.cases, *(counts[o] for o in (WHOLE, REFUSED, TRACEBACK, HANG)))
    ]


def _table(rows: list[list[str]]) -> list[str]:
    rows.insert(1, ["---", *["---:"] * (len(rows[0]) - 1)])
    return [f"| {' | '.join(row)} |" for row in rows]


def _where(minutes: float, arguments: argparse.Namespace) -> list[str]:
    return [
        f"`python -m tests.faults.torture --kills {arguments.kills} --fuzz {arguments.fuzz} "
        f"--damage {arguments.damage:g}`: {minutes:.0f} minutes on {arguments.processes} cores, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"{time.strftime('%Y-%m-%d')}."
    ]


if __name__ == "__main__":
    main()
