"""The templates' settings, each changed alone, by validation: ``templates.md``.

    python -m benchmarks.templates [--data NAME ...] [--variants NAME ...] [--seeds 1000 1001]

What `dgl-deepgnn init` proposes for a data set is trained, and then with one thing changed. A
variant's score is the best validation score of a training, which also chooses a model's epoch. No
test score is computed. Trainings are kept, one by one, in ``templates.jsonl``: it can be stopped at
any time, and run in parts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.cost.report import table
from benchmarks.rows import append_row, read_rows
from dgl_deepgnn.data import TaskData, main_metric
from dgl_deepgnn.files import write_text
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training.proposing import (
    CITATIONS,
    MANY_LABELLED,
    Proposal,
    propose_recipe,
)
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import DivergenceError, Trainer, is_better
from dgl_deepgnn.wording import counted

ROWS = Path(__file__).parent / "templates.jsonl"
SEEDS = (1000, 1001)
"""None of them is reported anywhere."""
PROPOSED, ALONE = "as proposed", "the template alone"
LONGER, HALF = "twice the epochs", "half the epochs"


class Data(NamedTuple):
    """A data set as `init` is given it."""

    name: str
    options: Mapping[str, Any] = {}

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.options.items())])


RANDOM = {"split": "random"}
DATA = {
    "node": (
        Data("minesweeper"),
        Data("tolokers"),
        Data("cora", RANDOM),
        Data("citeseer", RANDOM),
        Data("pubmed", RANDOM),
        Data("digits"),
        Data("csbm"),
        Data("cora"),
        Data("citeseer"),
    ),
    "graph": (
        Data("tu:MUTAG"),
        Data("tu:PROTEINS"),
        Data("tu:NCI1"),
        Data("tu:ENZYMES"),
        Data("digits-grid"),
    ),
    "edge": (Data("tracks"), Data("trackml")),
}
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "node": {
        PROPOSED: {},
        "no normalization": {"model.norm_layer": "none"},
        "layer normalization": {"model.norm_layer": "layer"},
        "t per-depth:8": {"model.t": "per-depth:8"},
        "initial residual": {"model.residual": "initial"},
        "GCN": {"model.name": "resgcn"},
        "width 128": {"model.hidden_feats": 128},
        "dropout 0": {"model.dropout": 0.0},
        "dropout 0.5": {"model.dropout": 0.5},
        "rate 0.003": {"optimizer.lr": 0.003},
        "rate 0.03": {"optimizer.lr": 0.03},
        "constant rate": {"schedule.name": "none"},
        LONGER: {},
        "weight decay 0.001": {"optimizer.weight_decay": 0.001},
        "settings of citation graphs": CITATIONS,
        "settings of few labels": {**CITATIONS, "model.options.alpha": 0.1},
        "settings of many labels": MANY_LABELLED,
        ALONE: {},
    },
    "graph": {
        PROPOSED: {},
        "no normalization": {"model.norm_layer": "none"},
        "t per-depth:8": {"model.t": "per-depth:8"},
        "branches not from zero": {"model.residual": "scaled"},
        "readout mean": {"model.options.readout": "mean"},
        "output from zero": {"model.options.output_gain": 0.0},
        "width 64": {"model.hidden_feats": 64},
        "dropout 0.1": {"model.dropout": 0.1},
        "dropout 0.3": {"model.dropout": 0.3},
        "rate 0.003": {"optimizer.lr": 0.003},
        "rate 0.03": {"optimizer.lr": 0.03},
        "constant rate": {"schedule.name": "none"},
        LONGER: {},
        HALF: {},
    },
    "edge": {
        PROPOSED: {},
        "no normalization": {"model.norm_layer": "none"},
        "t per-depth:8": {"model.t": "per-depth:8"},
        "messages do not read edges": {"model.options.edge_messages": False},
        "output from zero": {"model.options.output_gain": 0.0},
        "GCN": {"model.name": "resgcn"},
        "width 64": {"model.hidden_feats": 64},
        "rate 0.003": {"optimizer.lr": 0.003},
        "rate 0.03": {"optimizer.lr": 0.03},
        "constant rate": {"schedule.name": "none"},
        LONGER: {},
    },
}


@cache
def proposed(data: str) -> Proposal:
    """What `init` proposes."""
    (found,) = (some for each in DATA.values() for some in each if str(some) == data)
    return propose_recipe(found.name, found.options)


def recipe_of(level: str, data: str, variant: str) -> Recipe:
    """The recipe that would be written, as the variant has it."""
    proposal = proposed(data)
    settings = {"data": proposal.data, **(proposal.changes if variant != ALONE else {})}
    recipe = load_recipe(proposal.template, {**settings, **VARIANTS[level][variant]})
    if variant in (LONGER, HALF):
        assert recipe.training.epochs
        factor = 2 if variant == LONGER else 0.5
        settings["training.epochs"] = round(factor * recipe.training.epochs)
        recipe = load_recipe(proposal.template, settings)
    return recipe


@cache
def loaded(level: str, data: str) -> TaskData:
    """The data, which no variant changes."""
    return load_task(recipe_of(level, data, PROPOSED), True)


def train(level: str, data: str, variant: str, seed: int) -> dict[str, Any]:
    """The best validation score, its epoch, and what it took."""
    recipe = recipe_of(level, data, variant)
    trainer = Trainer(recipe, loaded(level, data), seed)
    metric = main_metric(trainer.target)[0]
    best: dict[str, float] | None = None
    began = time.process_time()
    try:
        while trainer.epoch < trainer.total_epochs:
            trainer.run_epoch()
            if trainer.epoch % recipe.training.evaluate_every == 0:
                scores = trainer.evaluate(["val"])["val"]
                if is_better(trainer.target, scores, best):
                    best, chosen = scores, trainer.epoch
                patience = recipe.training.patience
                if patience and trainer.epoch - chosen >= patience:
                    break
    except DivergenceError:
        pass
    return {
        "data": data,
        "variant": variant,
        "seed": seed,
        "val": best and round(best[metric], 6),
        "epoch": best and chosen,
        "seconds": round(time.process_time() - began, 1),
    }


class Rows:
    """Trainings by what they are of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = {self._key(row): row for row in read_rows(path)}

    def make(self, level: str, data: str, variant: str, seed: int) -> None:
        """Train, unless that is done."""
        if (data, variant, seed) not in self.rows:
            row = train(level, data, variant, seed)
            print(json.dumps(row), flush=True)
            self.rows[self._key(row)] = row
            append_row(self.path, row)

    def scores(self, data: str, variant: str) -> dict[int, float]:
        """Validation scores by seed; a training that diverged before any has 0."""
        return {
            seed: row["val"] or 0.0
            for (of, called, seed), row in self.rows.items()
            if (of, called) == (data, variant)
        }

    @staticmethod
    def _key(row: Mapping[str, Any]) -> tuple[str, str, int]:
        return row["data"], row["variant"], row["seed"]


def report(rows: Rows) -> str:
    """Markdown: a row a variant, a column a data set."""
    seeds = sorted({seed for _, _, seed in rows.rows})
    page = [
        "# The templates' settings",
        "",
        "Made by `python -m benchmarks.templates`.",
        "",
        "What `dgl-deepgnn init` proposes for each data set, and the same with one thing changed: "
        "difference of the best validation scores in hundredths (accuracy or ROC AUC), means over "
        f"the seeds that both were trained with, of {', '.join(map(str, seeds))}, not reported "
        "elsewhere; no test score was computed. `better in` counts the data sets in which "
        "the variant is higher. A positive mean is a reason to doubt the template; with so few "
        "seeds a point more or less is noise in most columns. Means are of the columns that have a "
        "number.",
        "",
    ]
    for level, variants in VARIANTS.items():
        names = [str(data) for data in DATA[level] if rows.scores(str(data), PROPOSED)]
        if not names:
            continue
        lines = []
        for variant in variants:
            changes = {name: _difference(rows, name, variant) for name in names}
            known = [change for change in changes.values() if change is not None]
            if variant == PROPOSED:
                cells = [
                    f"{100 * np.mean(list(rows.scores(name, PROPOSED).values())):.1f}"
                    for name in names
                ]
                lines.append([variant, "", "", *cells])
            elif known:
                cells = ["-" if some is None else f"{some:+.1f}" for some in changes.values()]
                better = f"{sum(change > 0 for change in known)} of {len(known)}"
                lines.append([variant, f"{np.mean(known):+.2f}", better, *cells])
        header = ["", "mean", "better in", *names]
        page += [f"## template.{level}", "", *table(header, lines), ""]
    spent = sum(row["seconds"] for row in rows.rows.values()) / 60
    page.append(f"{counted(len(rows.rows), 'training')}, {spent:.0f} minutes of one processor.")
    return "\n".join(page) + "\n"


def _difference(rows: Rows, data: str, variant: str) -> float | None:
    """Hundredths by which a variant's score is above the proposal's, by seed."""
    base, changed = rows.scores(data, PROPOSED), rows.scores(data, variant)
    both = base.keys() & changed.keys()
    return 100 * float(np.mean([changed[seed] - base[seed] for seed in both])) if both else None


def main() -> None:
    """Make the trainings that are asked for, and write the page of all that there are."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.templates", description=__doc__)
    every = [str(data) for each in DATA.values() for data in each]
    names = sorted({name for each in VARIANTS.values() for name in each})
    parser.add_argument("--data", nargs="*", choices=every, default=every, metavar="NAME")
    parser.add_argument("--variants", nargs="*", choices=names, default=names, metavar="NAME")
    parser.add_argument("--seeds", type=int, nargs="*", choices=SEEDS, default=list(SEEDS))
    parser.add_argument("--out", type=Path, default=ROWS)
    arguments = parser.parse_args()
    rows = Rows(arguments.out)
    for seed in arguments.seeds:
        for level, variants in VARIANTS.items():
            for data in map(str, DATA[level]):
                for variant in variants if data in arguments.data else ():
                    if variant in arguments.variants:
                        rows.make(level, data, variant, seed)
    write_text(arguments.out.with_suffix(".md"), report(rows))


if __name__ == "__main__":
    main()
