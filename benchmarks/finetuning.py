"""Fine-tuning beside training anew, on few labels: ``finetuning.md``.

    python -m benchmarks.finetuning [--labels 30 300] [--seeds 5]

The parent is the published resgraphsage32.tracks; the data is of another detector: a weaker field
and five times the noise. Every arm has its own learning rate, the best of five by validation on
seeds that are not reported; test scores are computed of the reported ones alone. Each seed has
collisions of its own: three to train on, of which so many candidate edges are labelled, one for
validation, one for the test. Trainings are kept, one by one, in ``finetuning.jsonl``: it can be
stopped at any time.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cost.report import table
from benchmarks.rows import append_row, read_rows
from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.files import write_text
from dgl_deepgnn.hub.finetuning import finetuning_recipe
from dgl_deepgnn.training.trainer import DivergenceError, Trainer, is_better
from dgl_deepgnn.wording import counted

ROWS = Path(__file__).parent / "finetuning.jsonl"
PARENT = "resgraphsage32.tracks"
DETECTOR = {"field": 2.0, "noise": 0.5, "events": 5}
ARMS = {"trained anew": None, "fine-tuned": 0.1, "fine-tuned, one rate": 1.0, "frozen": 0.0}
RATES = (0.003, 0.01, 0.03, 0.1, 0.3)
TUNING = (1000, 1001)
EPOCHS = 30


def with_labels(data: TaskData, number: int, seed: int) -> TaskData:
    """The same, with so many of the training part's labels, drawn at random."""
    (split,) = data.splits
    items = split["train"].nonzero()[:, 0]
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros_like(split["train"])
    mask[items[order[:number]]] = True
    return dataclasses.replace(data, splits=[{**split, "train": mask}])


def train(arm: str, labels: int, rate: float, seed: int) -> dict[str, Any]:
    """Validation and test score of the best epoch by validation; None if it diverged."""
    options = {**DETECTOR, "seed": 10_000 + seed}
    body_rate = ARMS[arm]
    recipe = finetuning_recipe(
        PARENT,
        "tracks",
        options=options,
        body_rate=1.0 if body_rate is None else body_rate,
        overrides={"training.epochs": EPOCHS, "optimizer.lr": rate},
    )
    if body_rate is None:
        recipe = recipe.model_copy(update={"parent": None})
    data = with_labels(load_data("tracks", **recipe.data.options), labels, seed)
    trainer = Trainer(recipe, data, seed)
    best: dict[str, Any] = {"val": None}
    reported = ["val"] if seed in TUNING else ["val", "test"]
    try:
        while trainer.epoch < trainer.total_epochs:
            trainer.run_epoch()
            scores = trainer.evaluate(reported)
            if is_better(data.target, scores["val"], best["val"]):
                best = scores
    except DivergenceError:
        best = {"val": None}
    found = {part: facts and facts["roc_auc"] for part, facts in best.items()}
    return {"arm": arm, "labels": labels, "rate": rate, "seed": seed, **found}


class Rows:
    """Trainings by what they are of; those that there are not yet are made."""

    def __init__(self) -> None:
        self.rows = {self._key(row): row for row in read_rows(ROWS)}

    def get(self, *key: Any) -> dict[str, Any]:
        """Row of arm, labels, rate and seed."""
        if key not in self.rows:
            self.rows[key] = train(*key)
            append_row(ROWS, self.rows[key])
        return self.rows[key]

    def tuned(self, arm: str, labels: int, rate: float) -> float:
        """Mean validation score on the seeds that are not reported."""
        scores = [self.get(arm, labels, rate, seed)["val"] or 0.0 for seed in TUNING]
        return float(np.mean(scores))

    def rate(self, arm: str, labels: int) -> float:
        """An arm's learning rate."""
        return max(RATES, key=lambda rate: self.tuned(arm, labels, rate))

    def tests(self, arm: str, labels: int, seeds: int) -> list[float | None]:
        """Test scores of the reported seeds at an arm's learning rate; None where it diverged."""
        rate = self.rate(arm, labels)
        return [self.get(arm, labels, rate, seed).get("test") for seed in range(seeds)]

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["arm"], row["labels"], row["rate"], row["seed"]


def choice(rows: Rows, labels: int, seeds: int) -> str:
    """Who would be chosen without a look at the test, and what that gains over training anew."""
    best = max(ARMS, key=lambda arm: rows.tuned(arm, labels, rows.rate(arm, labels)))
    anew, *_ = ARMS
    pairs = zip(rows.tests(best, labels, seeds), rows.tests(anew, labels, seeds), strict=True)
    apart = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    said = f"- {labels} labels: by validation on the other seeds one would choose {best}"
    if best == anew or not apart:
        return said + "."
    higher = sum(difference > 0 for difference in apart)
    return said + (
        f"; in the test {np.mean(apart):+.4f} beside {anew}, higher in {higher} of "
        f"{counted(len(apart), 'seed')}."
    )


def report(rows: Rows, labels: list[int], seeds: int) -> str:
    """Markdown: a row an arm and number of labels."""
    lines = []
    for count in labels:
        for arm in ARMS:
            rate = rows.rate(arm, count)
            found = [score for score in rows.tests(arm, count, seeds) if score is not None]
            cells = (
                [f"{np.mean(found):.4f}", f"{np.std(found, ddof=1):.4f}"] if found else ["-"] * 2
            )
            lines.append([str(count), arm, f"{rate:g}", *cells])
    header = ["labels", "arm", "learning rate"]
    header += ["test ROC AUC, mean", "standard deviation"]
    page = [
        "# Fine-tuning on few labels",
        "",
        "Made by `python -m benchmarks.finetuning`.",
        "",
        f"The published {PARENT} (a field of 3 T, a tenth of noise) on a detector of "
        f"{DETECTOR['field']:g} T and {DETECTOR['noise']:g} noise hits a particle hit, beside the "
        f"same network trained anew. {EPOCHS} epochs, the best of them by validation; "
        f"{counted(seeds, 'seed')}, each with collisions of its own, three to train on, one for "
        "validation, one for the test; labels: of candidate edges, at random; learning rates the "
        f"best of {', '.join(f'{rate:g}' for rate in RATES)} by validation on "
        f"{counted(len(TUNING), 'other seed')}.",
        "",
        *table(header, lines),
        "",
        *[choice(rows, count, seeds) for count in labels],
    ]
    return "\n".join(page) + "\n"


def main() -> None:
    """Make what is missing, and the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labels", type=int, nargs="*", default=[30, 300])
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    text = report(Rows(), arguments.labels, arguments.seeds)
    write_text(ROWS.with_suffix(".md"), text)
    print(text)


if __name__ == "__main__":
    main()
