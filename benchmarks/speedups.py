"""Table of the early-training speed-ups, ``docs/speedups.md``.

    python benchmarks/speedups.py [FOLDER ...]

takes the records of the given folders (made by ``dgl-deepgnn speedup RECIPE``) into
``benchmarks/speedups/`` and writes the table, and their CSVs and plots, anew from all that are
there.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np

from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup.report import (
    PRINCIPLED,
    STOCK,
    USUAL,
    describe_ratio,
    median_steps,
    plot_speedup,
    speedup_csv,
)

RECORDS = Path(__file__).parent / "speedups"
TABLE = Path(__file__).parent.parent / "docs" / "speedups.md"

INTRODUCTION = """\
# Early-training speed-ups

How many optimizer steps a deep network needs to a target training loss, three ways: **stock**
(DGL's layers as they are: Glorot, fixed operator, no residual connections), **usual practice**
(the same with plain residual connections) and **principled** (the recipe). Same data, splits,
width, depth, optimizer, batch order and seeds; every arm has its own learning rate, the best of
one grid on a seed that is not reported, and the grid is widened where the best lies on its edge.
A target counts as reached when the loss stays there for three steps. Targets are shares of the
loss of a uniform guess.

Steps are medians over the seeds; speed-ups are ratios of medians with a bootstrap 95 % interval.
`>` marks an arm that does not get there within the budget, and a speed-up that is therefore only a
lower bound. The score is the mean test score at the end of the budget, not of the full training.

This page is written by `python benchmarks/speedups.py`; the records, with every loss of every
seed, are in `benchmarks/speedups/`.
"""


def describe_score(score: float) -> str:
    """Three digits; of an arm that diverged there is none."""
    return f"{score:.3f}" if np.isfinite(score) else "diverged"


def rows(record: dict[str, Any]) -> list[list[str]]:
    """One row a target."""
    arms, budget = record["arms"], record["budget"]
    model = load_recipe(record["recipe"]).model
    result = []
    for index, share in enumerate(record["target_shares"]):
        scores = {
            arm: np.mean([s for s in arms[arm]["score"] if s is not None] or [np.nan])
            for arm in (STOCK, USUAL, PRINCIPLED)
        }
        result.append(
            [
                f"[{record['recipe']}](../benchmarks/speedups/{record['recipe']}.png)",
                f"{model.num_layers} x {model.hidden_feats}",
                f"{share:.0%}",
                *(median_steps(arms[arm]["steps"][index], budget) for arm in scores),
                describe_ratio(record["speedups"][f"{PRINCIPLED} vs {STOCK}"][index]),
                describe_ratio(record["speedups"][f"{PRINCIPLED} vs {USUAL}"][index]),
                " / ".join(map(describe_score, scores.values())) + f" {record['metric']}",
                str(len(record["seeds"])),
            ]
        )
    return result


def unhelped(records: list[dict[str, Any]]) -> list[str]:
    """Sentences on the cases in which the principles do not help."""
    found = []
    for record in records:
        for pair, ratios in record["speedups"].items():
            for share, ratio in zip(record["target_shares"], ratios, strict=True):
                where = f"{record['recipe']}, {share:.0%} of chance level, {pair}"
                if ratio["ratio"] is None:
                    found.append(f"- {where}: neither arm gets there in {record['budget']} steps.")
                elif ratio["low"] <= 1:
                    found.append(f"- {where}: {describe_ratio(ratio)}.")
    return found


def main() -> None:
    RECORDS.mkdir(exist_ok=True)
    for folder in map(Path, sys.argv[1:]):
        name = json.loads((folder / "speedup.json").read_text())["recipe"]
        shutil.copyfile(folder / "speedup.json", RECORDS / f"{name}.json")
    records = [json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))]
    for record in records:
        (RECORDS / f"{record['recipe']}.csv").write_text(speedup_csv(record))
        plot_speedup(RECORDS / f"{record['recipe']}.png", record)
    header = ["recipe", "layers x width", "target", "stock", "usual", "principled"]
    header += ["speed-up over stock", "over usual practice"]
    header += ["score: stock / usual / principled", "seeds"]
    table = [header, ["---"] * len(header), *(row for record in records for row in rows(record))]
    lines = [INTRODUCTION, *("| " + " | ".join(row) + " |" for row in table)]
    lines += ["", "## Where the principles do not help", ""]
    lines += unhelped(records) or ["In none of these records does the interval reach 1."]
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"{TABLE}: {len(records)} recipes")


if __name__ == "__main__":
    main()
