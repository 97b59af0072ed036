"""Table of the early-training speed-ups, ``docs/speedups.md``, and the lines on them in README.

    python benchmarks/speedups.py [FOLDER ...]

takes the records of the given folders (made by ``dgl-deepgnn speedup RECIPE``) into
``benchmarks/speedups/`` and writes the table, and their CSVs and plots, anew from all that are
there.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from dgl_deepgnn.data import main_metric
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup.arms import COMBINED, NORMALIZED, PRINCIPLED, STOCK, USUAL
from dgl_deepgnn.speedup.report import (
    describe_ratio,
    describe_score,
    describe_target,
    median_steps,
    plot_speedup,
    speedup_csv,
)
from dgl_deepgnn.wording import counted

RESAMPLES = 10_000
RECORDS = Path(__file__).parent / "speedups"
TABLE = Path(__file__).parent.parent / "docs" / "speedups.md"
README = Path(__file__).parent.parent / "README.md"

BASELINES = (STOCK, USUAL, NORMALIZED)
ARMS = (*BASELINES, PRINCIPLED, COMBINED)
BOTH = f"{NORMALIZED} in both"
"""The recipe with batch normalization over usual practice with it."""

INTRODUCTION = """\
# Early-training speed-ups

How many optimizer steps a deep network needs to a target training loss: **stock** (DGL's layers
as they are: Glorot, fixed operator, no residual connections), **usual practice** (the same with
plain residual connections), the same with **batch normalization**, **principled** (the recipe), and
the recipe with batch normalization, where it has none. Same data, features, splits, width, depth,
optimizer, batch order and seeds. Of usual practice, and of both arms with batch normalization, the
better of two starts is taken: the output layer as it is drawn, or at zero. Every arm has its own
learning rate of one grid, widened where the best lies on its edge, chosen on three seeds that are
not reported, of which no test score is computed: the one with the fewest steps to both targets. A
target counts as reached when the loss stays there for three steps. Targets are shares of the loss
of a uniform guess.

Steps are medians over the seeds; speed-ups are ratios of medians with a bootstrap 95 % interval, in
steps, and on the clock. `>` marks an arm that does not get there within the budget, and a speed-up
that is therefore only a lower bound. Scores are means of the test score at the end of the budget,
not of the full training, and where it was measured (`--final`) after equal epochs of the whole
training, at the same rate. An arm that reaches no target at any rate has that of the lowest mean
loss, which need not be its best for a whole training.

This page is written by `python benchmarks/speedups.py` of what `dgl-deepgnn speedup RECIPE` has
recorded; the records, with every loss of every seed, are in `benchmarks/speedups/`.
"""
OLDER = """\
Of the older protocol still (one seed to choose the learning rate on, rates a factor of 3 to 10
apart, usual practice with the recipe's normalization, its output layer as it is drawn): {}.
"""


def of_arms(record: dict[str, Any], describe: Callable[[dict[str, Any]], str]) -> str:
    """Something of every arm; ``-`` of one that the record does not have."""
    arms = record["arms"]
    return " / ".join(describe(arms[arm]) if arm in arms else "-" for arm in ARMS)


def pair_of(record: dict[str, Any], base: str) -> str:
    """The comparison with an arm, or with the same normalization in both, as records call it."""
    if base != BOTH:
        return f"{PRINCIPLED} vs {base}"
    own = load_recipe(record["recipe"]).model.norm_layer == "batch"
    return f"{PRINCIPLED if own else COMBINED} vs {NORMALIZED}"


def _steps(facts: dict[str, Any], index: int, budget: int) -> str:
    return median_steps(facts["steps"][index], budget)


def rows(record: dict[str, Any]) -> list[list[str]]:
    """One row a target."""
    budget = record["budget"]
    model = load_recipe(record["recipe"]).model
    result = []
    for index, share in enumerate(record["target_shares"]):
        ratios = [
            describe_ratio(record["speedups"][pair][index]) if pair in record["speedups"] else "-"
            for pair in (pair_of(record, base) for base in (*BASELINES, BOTH))
        ]
        clock = record.get("wall_clock", {}).get(f"{PRINCIPLED} vs {USUAL}")
        trained = all("final" in facts for facts in record["arms"].values())
        result.append(
            [
                f"[{record['recipe']}](../benchmarks/speedups/{record['recipe']}.png)",
                f"{model.num_layers} x {model.hidden_feats}",
                describe_target(share),
                of_arms(record, partial(_steps, index=index, budget=budget)),
                *ratios,
                "-" if clock is None else describe_ratio(clock[index]),
                of_arms(record, lambda facts: describe_score(facts["score"]))
                + f" {record['metric']}",
                of_arms(record, lambda facts: describe_score(facts["final"])) if trained else "-",
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
                where = f"{record['recipe']}, {describe_target(share)}, {pair}"
                if ratio["ratio"] is None:
                    found.append(f"- {where}: neither arm gets there in {record['budget']} steps.")
                elif ratio["low"] <= 1:
                    found.append(f"- {where}: {describe_ratio(ratio)}.")
    return found


def summary(records: list[dict[str, Any]], base: str, least: int = 0) -> str | None:
    """One line: the median speed-up over an arm, of recipes with so many layers at least."""
    found = [
        [ratio for ratio in record["speedups"].get(pair_of(record, base), []) if ratio["ratio"]]
        for record in records
        if load_recipe(record["recipe"]).model.num_layers >= least
    ]
    found = [ratios for ratios in found if ratios]
    if not found:
        return None
    random = np.random.default_rng(0)
    drawn = [
        np.median([ratio["ratio"] for index in chosen for ratio in found[index]])
        for chosen in random.integers(len(found), size=(RESAMPLES, len(found)))
    ]
    flat = [ratio for ratios in found for ratio in ratios]
    middle, (low, high) = np.median([r["ratio"] for r in flat]), np.quantile(drawn, [0.025, 0.975])
    faster = sum(ratio["low"] > 1 for ratio in flat)
    slower = sum(ratio["high"] < 1 for ratio in flat)
    depth = f" of at least {least} layers" if least else ""
    over = f"with {BOTH}" if base == BOTH else f"over {base}"
    return (
        f"**The median speed-up {over}, of {counted(len(found), 'recipe')}{depth} and "
        f"{len(flat)} targets, is {middle:.1f} ({low:.1f} to {high:.1f})**; the lower end of the "
        f"interval is above 1 for {faster} of them, the upper end below 1 for {slower}."
    )


def in_the_end(records: list[dict[str, Any]], base: str) -> str | None:
    """One line: the test score after equal epochs beside that of an arm, seed by seed.

    Above or below if the 95 % interval (Student's t) of the mean difference does not hold 0; a
    training that diverged counts as a score of 0. Of errors, which are better small, there is no
    record.
    """
    counts = {"above": 0, "level": 0, "below": 0}
    for record in records:
        ours, theirs = (record["arms"].get(arm, {}).get("final") for arm in (PRINCIPLED, base))
        if ours is None or theirs is None:
            continue
        assert record["metric"] != main_metric("regression")[0]
        pairs = np.array([[score or 0.0 for score in scores] for scores in (ours, theirs)])
        gain = pairs[0] - pairs[1]
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.inf
        margin = stats.t.ppf(0.975, max(len(gain) - 1, 1)) * error
        where = "above" if gain.mean() > margin else "below" if -gain.mean() > margin else "level"
        counts[where] += 1
    if not (total := sum(counts.values())):
        return None
    return (
        f"**After equal epochs the test score, of {counted(total, 'recipe')}, is above that of "
        f"{base} in {counts['above']}, level in {counts['level']}, below in {counts['below']}**."
    )


def page(records: list[dict[str, Any]]) -> str:
    """The whole page."""
    arms = " / ".join(ARMS)
    header = ["recipe", "layers x width", "target", f"steps: {arms}"]
    header += [f"speed-up over {arm}" for arm in BASELINES]
    header += [f"with {BOTH}"]
    header += [f"over {USUAL}, on the clock", "score", "score in the end", "seeds"]
    table = [header, ["---"] * len(header), *(row for record in records for row in rows(record))]
    older = [record["recipe"] for record in records if "selection_seeds" not in record]
    lines = [INTRODUCTION, *([OLDER.format(", ".join(older))] if older else [])]
    lines += ["| " + " | ".join(row) + " |" for row in table]
    lines += ["", "## Where the principles do not help", ""]
    lines += unhelped(records) or ["In none of these records does the interval reach 1."]
    lines += ["", "## In one line", ""]
    lines += ["Medians over recipes and targets, with a bootstrap 95 % interval over recipes.", ""]
    lines += [
        f"- {line}"
        for base, least in ((USUAL, 0), (USUAL, 64), (NORMALIZED, 0), (BOTH, 0), (STOCK, 0))
        if (line := summary(records, base, least))
    ]
    lines += [f"- {line}" for base in BASELINES if (line := in_the_end(records, base))]
    return "\n".join(lines) + "\n"


def with_summary(readme: str, records: list[dict[str, Any]]) -> str:
    """README, its lines on usual practice made anew."""
    for base in (USUAL, NORMALIZED, BOTH):
        line = summary(records, base)
        if line:
            pattern = rf"\*\*The median speed-up (?:over|with) {re.escape(base)}, .*"
            readme = re.sub(pattern, line.replace("\\", r"\\"), readme)
    for base in (USUAL, NORMALIZED):
        if line := in_the_end(records, base):
            pattern = rf"\*\*After equal epochs [^*]* that of {re.escape(base)} in [^*]*\*\*\."
            readme = re.sub(pattern, line, readme)
    return readme


def main() -> None:
    """Take records in, and write everything anew."""
    RECORDS.mkdir(exist_ok=True)
    for folder in map(Path, sys.argv[1:]):
        name = json.loads((folder / "speedup.json").read_text())["recipe"]
        shutil.copyfile(folder / "speedup.json", RECORDS / f"{name}.json")
    records = [json.loads(file.read_text()) for file in sorted(RECORDS.glob("*.json"))]
    for record in records:
        (RECORDS / f"{record['recipe']}.csv").write_text(speedup_csv(record))
        plot_speedup(RECORDS / f"{record['recipe']}.png", record)
    TABLE.write_text(page(records))
    README.write_text(with_summary(README.read_text("utf-8"), records))
    print(f"{TABLE}: {len(records)} recipes")


if __name__ == "__main__":
    main()
