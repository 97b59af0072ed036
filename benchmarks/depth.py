"""Depth, ``docs/depth.md``: steps to a target from 16 to 1024 layers, and every family at 1024.

    python benchmarks/depth.py [--only curve digits digits-grid]

The speed-up records of the curve are kept in ``runs/depth`` and continued if there are any.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt
from tqdm import tqdm

from dgl_deepgnn.data import load_data, main_metric
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.speedup.arms import PRINCIPLED, STOCK, USUAL
from dgl_deepgnn.speedup.report import describe_steps
from dgl_deepgnn.training.trainer import Trainer
from dgl_deepgnn.wording import counted

HERE = Path(__file__).parent
RESULTS, PAGE, PLOT = (
    HERE / "depth.json",
    HERE.parent / "docs/depth.md",
    HERE.parent / "docs/depth.png",
)
RECORDS = HERE.parent / "runs" / "depth"
DEPTHS = (16, 64, 256, 1024)
DEEPEST = 1024
ARMS = (STOCK, USUAL, PRINCIPLED)
BUDGET = 60
TARGET = 0.5
FAMILIES = ("resgcn", "resgraphsage", "resgin")


class Deep(NamedTuple):
    """Training of 1024 layers: the recipe it starts from, and what it changes there."""

    recipe: str
    lr: float
    batch_size: int | None
    steps: int
    seeds: tuple[int, ...]


DATA = {
    "digits": Deep("resgcn64.digits", 0.003, None, 120, (0, 1, 2)),
    "digits-grid": Deep("resgin32.digits-grid", 0.001, 50, 240, (0,)),
}

INTRODUCTION = """\
# Depth

This page is written by `python benchmarks/depth.py`; the numbers are in `benchmarks/depth.json`.
"""


def curve_recipe(depth: int) -> Recipe:
    """Digits as in resgcn64.digits, narrower, by a GCN of that depth."""
    return load_recipe(
        "resgcn64.digits",
        {
            "name": f"resgcn{depth}.digits-depth",
            "model.num_layers": depth,
            "model.hidden_feats": 32,
            "speedup.steps": BUDGET,
            "speedup.targets": [TARGET],
            "speedup.seeds": [0, 1, 2] if depth == DEEPEST else [0, 1, 2, 3, 4],
        },
    )


def measure_curve() -> dict[str, Any]:
    """Steps to the target by arm and depth, of every seed."""
    held_back = curve_recipe(DEPTHS[0]).speedup.selection_seeds
    curve: dict[str, Any] = {"budget": BUDGET, "target": TARGET, "depths": {}}
    curve["selection_seeds"] = held_back
    for depth in DEPTHS:
        recipe = curve_recipe(depth)
        folder = RECORDS / recipe.name
        _, record = measure_speedup(recipe, folder, resume=folder.exists())
        curve["depths"][depth] = {
            arm: {"lr": record["arms"][arm]["lr"], "steps": record["arms"][arm]["steps"][0]}
            for arm in ARMS
        }
    return curve


def family_recipe(family: str, data: str) -> Recipe:
    """1024 layers without normalization layers, otherwise as the data set's own recipe."""
    deep = DATA[data]
    return load_recipe(
        deep.recipe,
        {
            "name": f"{family}{DEEPEST}.{data}",
            "model.name": family,
            "model.num_layers": DEEPEST,
            "model.hidden_feats": 16,
            "optimizer": {"lr": deep.lr, "clip_norm": 1.0},
            "schedule": {"name": "cosine", "warmup_steps": 10},
            "training.epochs": None,
            "training.steps": deep.steps,
            "training.batch_size": deep.batch_size,
        },
    )


def measure_families(data: str) -> list[dict[str, Any]]:
    """Training losses, and the test score after them, of every family."""
    rows = []
    for family in tqdm(FAMILIES, desc=f"{DEEPEST} layers on {data}"):
        recipe = family_recipe(family, data)
        task = load_data(recipe.data.name, **recipe.data.options)
        metric, _ = main_metric(task.target)
        losses, scores = [], []
        for seed in DATA[data].seeds:
            trainer = Trainer(recipe, task, seed)
            steps = []
            while trainer.step < trainer.total_steps:
                steps += trainer.run_epoch()
            losses.append([step.loss for step in steps])
            scores.append(trainer.evaluate(["test"])["test"][metric])
        rows.append(
            {
                "data": data,
                "family": family,
                "losses": losses,
                "metric": metric,
                "scores": scores,
            }
        )
    return rows


def curve_lines(curve: dict[str, Any]) -> list[str]:
    """Section on the curve."""
    lines = [
        "## Steps to half the chance-level loss",
        "",
        f"GCN of width 32 on `digits`, the recipe `resgcn64.digits` otherwise: optimizer steps to "
        f"{curve['target']:.0%} of the loss of a uniform guess, held for three steps. Medians of "
        f"the seeds (range in brackets); budget {curve['budget']} steps, `>` "
        f"beyond it. Every arm has its own best learning rate at every depth, chosen on "
        # Measured by version 0.2 and before, it was a single one.
        f"{counted(len(curve.get('selection_seeds', [1000])), 'seed')} of which nothing is "
        "reported.",
        "",
        "![Steps to the target against depth](depth.png)",
        "",
        "| layers | seeds | " + " | ".join(ARMS) + " |",
        "| --- " * (len(ARMS) + 2) + "|",
    ]
    for depth, arms in curve["depths"].items():
        cells = [
            f"{describe_steps(arms[arm]['steps'], curve['budget'])}, lr {arms[arm]['lr']:g}"
            for arm in ARMS
        ]
        seeds = len(arms[PRINCIPLED]["steps"])
        lines.append(f"| {depth} | {seeds} | " + " | ".join(cells) + " |")
    return lines


def family_lines(rows: list[dict[str, Any]]) -> list[str]:
    """Section on the families."""
    lines = [
        f"## {DEEPEST} layers of every family",
        "",
        "Width 16, no normalization layer anywhere, residual connections `fixup`, Adam with "
        "warm-up and cosine: the training loss (means over the seeds) and the test score after so "
        "few steps. "
        f"A uniform guess has a loss of {np.log(10):.2f} and scores 0.1.",
        "",
        "| data | family | steps | seeds | first loss | last five | test score |",
        "| --- " * 7 + "|",
    ]
    for row in rows:
        losses, scores = np.array(row["losses"]), np.array(row["scores"])
        spread = f" ± {scores.std(ddof=1):.3f}" if len(scores) > 1 else ""
        lines.append(
            f"| {row['data']} | {row['family']} | {losses.shape[1]} | {len(scores)} | "
            f"{losses[:, 0].mean():.2f} | {losses[:, -5:].mean():.2f} | {row['metric']} "
            f"{scores.mean():.3f}{spread} |"
        )
    return lines


def plot(curve: dict[str, Any]) -> None:
    """Median and range of the steps against depth."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    budget = curve["budget"]
    depths = [int(depth) for depth in curve["depths"]]
    beyond = 1.3 * budget
    axes.axhspan(budget, 1.7 * budget, color="0.93")
    axes.text(depths[0], 1.5 * budget, f"not within the budget of {budget} steps", color="0.4")
    for shift, (arm, marker) in enumerate(zip(ARMS, "sov", strict=True)):
        steps = [
            [beyond if step is None else step for step in arms[arm]["steps"]]
            for arms in curve["depths"].values()
        ]
        place = np.array(depths) * 1.04 ** (shift - 1)  # side by side
        low, middle, high = (np.array([f(some) for some in steps]) for f in (min, np.median, max))
        spread = [middle - low, high - middle]
        axes.errorbar(place, middle, spread, marker=marker, capsize=3, label=arm, lw=1.5)
    axes.set(
        xscale="log",
        yscale="log",
        xticks=depths,
        xticklabels=depths,
        yticks=[2, 5, 10, 20, 50],
        yticklabels=[2, 5, 10, 20, 50],
        ylim=(1.5, 1.7 * budget),
        xlabel="graph convolutions",
        ylabel=f"steps to {curve['target']:.0%} of chance-level loss",
        title="GCN of width 32 on digits: median and range of the seeds",
    )
    axes.minorticks_off()
    axes.legend(loc="lower right")
    figure.savefig(PLOT, dpi=150)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python benchmarks/depth.py")
    parser.add_argument("--only", nargs="*", default=["curve", *DATA])
    # A vanishing signal ends in denormal numbers, on which a CPU is far slower.
    torch.set_flush_denormal(True)
    sections: dict[str, Callable[[], Any]] = {
        "curve": measure_curve,
        **{data: partial(measure_families, data) for data in DATA},
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in parser.parse_args().only:
        results[name] = json.loads(json.dumps(sections[name]()))
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    lines = [INTRODUCTION]
    if "curve" in results:
        plot(results["curve"])
        lines += [*curve_lines(results["curve"]), ""]
    lines += family_lines([row for data in DATA for row in results.get(data, [])])
    PAGE.write_text("\n".join(lines) + "\n")
    print(PAGE)


if __name__ == "__main__":
    main()
