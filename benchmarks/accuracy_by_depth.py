"""Test accuracy by depth where a shallow network cannot do it: ``accuracy_by_depth.md``.

    python -m benchmarks.accuracy_by_depth [--depths 4 16 ...] [--arms NAME ...]

On ``ring-transfer`` (64 nodes), whose label is 32 hops away: resgraphsage64.ring-transfer at other
depths, stock layers, usual practice with and without batch normalization, and GCNII of DGL's
layers. Every arm has its own learning rate at every depth, the best of three by validation on a
seed that is not reported; test scores are computed of the reported ones alone. Trainings are kept,
one by one, in ``accuracy_by_depth.jsonl``: it can be stopped at any time, and run in parts.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import dgl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.baselines.networks import make_network
from benchmarks.cost.report import table
from benchmarks.rows import append_row, read_rows
from benchmarks.time_to_accuracy.contenders import PeerTraining
from benchmarks.time_to_accuracy.tasks import Peer
from dgl_deepgnn.data import TaskData
from dgl_deepgnn.files import write_text
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.speedup.arms import NORMALIZED, PRINCIPLED, STOCK, USUAL, arms_of
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import DivergenceError, Trainer

HERE = Path(__file__).parent
ROWS, PLOT = HERE / "accuracy_by_depth.jsonl", HERE.parent / "docs/accuracy_by_depth.png"
RECIPE = "resgraphsage64.ring-transfer"
GCNII = "GCNII"
DEPTHS = (4, 16, 32, 64, 128, 256)
RATES = {
    **dict.fromkeys((PRINCIPLED, USUAL, NORMALIZED, STOCK), (0.002, 0.006, 0.02)),
    GCNII: (0.001, 0.003, 0.01),
}
"""By arm. The recipe's are scaled by depth and width, for all arms of its layers."""
TUNING, SEEDS = 1000, (0, 1, 2)
EPOCHS, EVERY = 200, 5
COLOURS = {PRINCIPLED: "C3", USUAL: "C0", NORMALIZED: "C1", STOCK: "C7", GCNII: "C2"}


class Training(Protocol):
    """What is trained."""

    def epoch(self) -> None:
        """Train on everything once."""

    def accuracy(self, part: str) -> float:
        """Of a part of the split."""


class ByRecipe:
    """An arm of the recipe."""

    def __init__(self, arm: str, depth: int, rate: float, seed: int) -> None:
        changes = {"model.num_layers": depth, "optimizer.lr": rate, "training.epochs": EPOCHS}
        recipe = load_recipe(RECIPE, changes)
        model = recipe.model.model_copy(update=arms_of(recipe)[arm][0])
        self._trainer = Trainer(recipe.model_copy(update={"model": model}), rings(), seed)

    def epoch(self) -> None:
        """Train on everything once."""
        self._trainer.run_epoch()

    def accuracy(self, part: str) -> float:
        """Of a part of the split."""
        return self._trainer.evaluate([part])[part]["accuracy"]


class OfDGL(PeerTraining):
    """GCNII of DGL's layers, at the settings that its authors have for deep networks on Cora.

    Without decay of the weights and dropout, which the others do not have either.
    """

    def __init__(self, depth: int, rate: float, seed: int) -> None:
        data = dataclasses.replace(rings(), graphs=[dgl.batch(rings().graphs)])
        peer = Peer("DGL", "GCN2Conv", depth, 64, 0.0, options={"alpha": 0.1, "lambda_": 0.5})
        super().__init__(peer, "accuracy", data, seed, rate, make_network)

    def accuracy(self, part: str) -> float:
        """Of a part of the split."""
        scores, labels = self.scores(part)
        return round((scores.argmax(dim=1) == labels).float().mean().item(), 6)


@cache
def rings() -> TaskData:
    """The data of the recipe."""
    return load_task(load_recipe(RECIPE))


def train(arm: str, depth: int, rate: float, seed: int) -> dict[str, Any]:
    """Validation and, of seeds that are reported, test accuracy of the best epoch by validation."""
    training: Training = (
        OfDGL(depth, rate, seed) if arm == GCNII else ByRecipe(arm, depth, rate, seed)
    )
    row: dict[str, Any] = {"arm": arm, "depth": depth, "rate": rate, "seed": seed, "val": 0.0}
    try:
        for epoch in range(1, EPOCHS + 1):
            training.epoch()
            if epoch % EVERY == 0 and (val := training.accuracy("val")) > row["val"]:
                row |= {"val": val, "epoch": epoch}
                if seed != TUNING:
                    row["test"] = training.accuracy("test")
                if val == 1:
                    break
    except DivergenceError:
        row["diverged"] = True
    return row


class Rows:
    """Trainings by what they are of; those that there are not yet are made."""

    def __init__(self, path: Path = ROWS) -> None:
        self.path = path
        self.rows = {self._key(row): row for row in read_rows(path)}

    def get(self, *key: Any) -> dict[str, Any]:
        """Row of arm, depth, rate and seed."""
        if key not in self.rows:
            self.rows[key] = train(*key)
            print(json.dumps(self.rows[key]), flush=True)
            append_row(self.path, self.rows[key])
        return self.rows[key]

    def measure(self, arm: str, depth: int) -> None:
        """Choose the rate, up from the least, and train the seeds that are reported."""
        for rate in RATES[arm]:
            if self.get(arm, depth, rate, TUNING)["val"] == 1:
                break
        for seed in SEEDS:
            self.get(arm, depth, self.rate(arm, depth), seed)

    def rate(self, arm: str, depth: int) -> float:
        """The best learning rate of those tried; of equals the least."""
        tried = [rate for rate in RATES[arm] if (arm, depth, rate, TUNING) in self.rows]
        return max(tried, key=lambda rate: self.rows[arm, depth, rate, TUNING]["val"])

    def tests(self, arm: str, depth: int) -> list[float]:
        """Test accuracies of the reported seeds; 0 of one that diverged before any."""
        rows = [row for key, row in self.rows.items() if key[:2] == (arm, depth)]
        return [row.get("test", 0.0) for row in rows if row["seed"] in SEEDS]

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["arm"], row["depth"], row["rate"], row["seed"]


def report(rows: Rows) -> str:
    """Markdown: a row an arm, a column a depth."""
    bounds = {depth: bound(depth) for depth in DEPTHS}
    lines = [["any network of so many layers", *(f"{bounds[depth]:.2f}" for depth in DEPTHS)]]
    for arm in RATES:
        cells = []
        for depth in DEPTHS:
            tests = rows.tests(arm, depth)
            spread = f" ({min(tests):.2f} to {max(tests):.2f})" if len(tests) > 1 else ""
            cells.append(
                f"{np.median(tests):.2f}{spread}, rate {rows.rate(arm, depth):g}" if tests else "-"
            )
        lines.append([arm, *cells])
    page = [
        "# Accuracy by depth",
        "",
        "Made by `python -m benchmarks.accuracy_by_depth`.",
        "",
        "Test accuracy on `ring-transfer`: rings of 64 nodes, five classes, the label of a node is "
        f"said 32 hops away. Full-batch training for {EPOCHS} epochs, the best by validation "
        f"(every {EVERY}, ended by a perfect one). Medians of {len(SEEDS)} seeds (range). "
        "Learning rates: the best of "
        f"{', '.join(f'{rate:g}' for rate in RATES[PRINCIPLED])} (GCNII: "
        f"{', '.join(f'{rate:g}' for rate in RATES[GCNII])}) by validation on one other seed, at "
        "every depth; if one is perfect, larger ones are not tried. "
        f"Principled is the recipe {RECIPE}, whose settings were chosen by validation at 64 "
        "layers; the arms beside it differ from it as in the speed-up records. GCNII has width "
        "64, alpha 0.1 and lambda 0.5, neither dropout nor decay.",
        "",
        *table(["", *(f"{depth} layers" for depth in DEPTHS)], lines),
        "",
        "![Accuracy by depth](../docs/accuracy_by_depth.png)",
    ]
    return "\n".join(page) + "\n"


def bound(depth: int) -> float:
    """The best accuracy of any message-passing network of so many layers, from the loader."""
    bounds: dict[str, float] = rings().info["bounds"]
    return bounds[str(min(depth, max(map(int, bounds))))]


def plot(rows: Rows) -> None:
    """Accuracy against depth."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    steps = range(DEPTHS[0], DEPTHS[-1] + 1)
    axes.fill_between(
        steps, list(map(bound, steps)), 1.06, color="0.9", step="post", lw=0, label="impossible"
    )
    for place, (arm, colour) in enumerate(COLOURS.items()):
        known = {depth: tests for depth in DEPTHS if (tests := rows.tests(arm, depth))}
        middle = [float(np.median(tests)) for tests in known.values()]
        ends = [[m - min(t), max(t) - m] for m, t in zip(middle, known.values(), strict=True)]
        axes.errorbar(
            [depth * 1.04 ** (place - 2) for depth in known],  # beside each other, not on top
            middle,
            np.transpose(ends) if ends else None,
            marker="o",
            ms=4,
            capsize=2,
            color=colour,
            label=arm,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(DEPTHS, list(map(str, DEPTHS)))
    axes.set_ylim(0, 1.06)
    axes.set_xlabel("layers")
    axes.set_ylabel("test accuracy")
    axes.set_title("A label 32 hops away (ring-transfer)", fontsize=10)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    figure.savefig(PLOT, dpi=150)


def main() -> None:
    """Make the trainings that are asked for; page and plot of all that there are."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy_by_depth", description=__doc__
    )
    parser.add_argument("--depths", type=int, nargs="*", choices=DEPTHS, default=list(DEPTHS))
    parser.add_argument("--arms", nargs="*", choices=list(RATES), default=list(RATES))
    arguments = parser.parse_args()
    rows = Rows()
    for depth in arguments.depths:
        for arm in arguments.arms:
            rows.measure(arm, depth)
    write_text(ROWS.with_suffix(".md"), report(rows))
    plot(rows)


if __name__ == "__main__":
    main()
