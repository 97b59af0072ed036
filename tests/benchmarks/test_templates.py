"""The templates' settings: what a variant changes, that scores are of validation, the page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import templates
from benchmarks.templates import (
    ALONE,
    DATA,
    HALF,
    LONGER,
    PROPOSED,
    VARIANTS,
    Rows,
    recipe_of,
    report,
    train,
)
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.training import Trainer
from dgl_deepgnn.training.proposing import propose_recipe


@pytest.mark.parametrize("level", VARIANTS)
def test_every_variant_changes_the_template(level: str) -> None:
    template = load_recipe(f"template.{level}")
    for variant, changes in VARIANTS[level].items():
        changed = load_recipe(f"template.{level}", changes)
        assert (changed == template) == (variant in (PROPOSED, LONGER, HALF, ALONE)), variant
    assert all(PROPOSED in some and LONGER in some for some in VARIANTS.values())


def test_a_variant_is_the_proposal_but_for_its_change() -> None:
    proposed = recipe_of("node", "digits", PROPOSED)
    slower = recipe_of("node", "digits", "rate 0.003")
    optimizer = proposed.optimizer.model_copy(update={"lr": 0.003})
    assert slower == proposed.model_copy(update={"optimizer": optimizer})
    longer = recipe_of("node", "digits", LONGER)
    assert longer.training.epochs == 2 * proposed.training.epochs
    assert longer.model == proposed.model
    half = recipe_of("graph", "digits-grid", HALF)
    assert 2 * half.training.epochs == recipe_of("graph", "digits-grid", PROPOSED).training.epochs


def test_the_template_alone_is_without_what_init_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = replace(propose_recipe("digits"), changes={"model.dropout": 0.5})
    monkeypatch.setattr(templates, "proposed", lambda data: changed)
    assert recipe_of("node", "digits", PROPOSED).model.dropout == 0.5
    assert recipe_of("node", "digits", ALONE).model == load_recipe("template.node").model


def test_no_test_score_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    evaluate = Trainer.evaluate

    def watched(self: Trainer, parts: list[str]) -> object:
        asked.append(parts)
        return evaluate(self, parts)

    monkeypatch.setattr(Trainer, "evaluate", watched)
    small = {"model.num_layers": 2, "model.hidden_feats": 8, "training.epochs": 10}
    monkeypatch.setitem(VARIANTS["node"], "small", small)
    row = train("node", "digits", "small", 1000)
    assert asked and all(parts == ["val"] for parts in asked)
    assert 0.1 < row["val"] <= 1 and 1 <= row["epoch"] <= 10


def test_rows_are_kept_and_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def trained(level: str, data: str, variant: str, seed: int) -> dict[str, object]:
        made.append(variant)
        score = {PROPOSED: 0.5, LONGER: 0.52}[variant] + (0.1 if seed == 1001 else 0)
        row = {"data": data, "variant": variant, "seed": seed, "val": score, "seconds": 30}
        return row

    monkeypatch.setattr(templates, "train", trained)
    rows = Rows(tmp_path / "rows.jsonl")
    for seed in (1000, 1001):
        rows.make("edge", "tracks", PROPOSED, seed)
    rows.make("edge", "tracks", LONGER, 1001)
    rows.make("edge", "tracks", LONGER, 1001)
    assert made == [PROPOSED, PROPOSED, LONGER]
    again = Rows(tmp_path / "rows.jsonl")
    assert again.rows == rows.rows
    text = report(again)
    assert "| as proposed |  |  | 55.0 |" in text
    assert "| twice the epochs | +2.00 | 1 of 1 | +2.0 |" in text  # of the seed that both have
    assert "3 trainings, 2 minutes" in text


def test_the_page_is_that_of_the_rows() -> None:
    path = Path(templates.ROWS)
    assert path.with_suffix(".md").read_text("utf-8") == report(Rows(path))
    names = {str(data) for each in DATA.values() for data in each}
    assert {row["data"] for row in Rows(path).rows.values()} <= names
