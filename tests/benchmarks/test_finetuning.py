"""Fine-tuning beside training anew: the choice among the arms, the page."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import finetuning
from benchmarks.finetuning import ARMS, RATES, TUNING, Rows, choice, report


def made(arm: str, val: float, tests: list[float | None]) -> list[dict[str, object]]:
    """Trainings of an arm, for which the second rate is the best."""
    rows: list[dict[str, object]] = []
    for place, rate in enumerate(RATES):
        row = {"arm": arm, "labels": 10, "rate": rate, "val": val - (place != 1)}
        rows += [{**row, "seed": seed} for seed in TUNING]
    rows += [
        {"arm": arm, "labels": 10, "rate": RATES[1], "seed": seed, "val": 1.0, "test": test}
        for seed, test in enumerate(tests)
    ]
    return rows


def test_the_arm_is_chosen_without_a_look_at_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "train", None)  # nothing is missing
    anew, second, third, last = ARMS
    rows = Rows()
    some = [
        *made(anew, 0.7, [0.5, 0.6, 0.7]),
        *made(second, 0.8, [0.6, 0.5, None]),
        *made(third, 0.6, [0.9, 0.9, 0.9]),
        *made(last, 0.5, [0.9, 0.9, 0.9]),
    ]
    rows.rows = {rows._key(row): row for row in some}
    said = choice(rows, 10, 3)
    assert f"choose {second}; in the test +0.0000 beside {anew}, higher in 1 of 2 seeds." in said
    for row in made(anew, 0.9, [0.5, 0.6, 0.7]):
        rows.rows[rows._key(row)] = row
    assert choice(rows, 10, 3).endswith(f"choose {anew}.")


def test_the_page_is_that_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "train", None)
    page = Path(finetuning.__file__).with_suffix(".md").read_text("utf-8")
    assert page == report(Rows(), [30, 300], 5)
