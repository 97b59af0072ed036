"""The page of the speed-up records: its one line by hand, and that it is that of the records."""

from __future__ import annotations

import json
from typing import Any

from benchmarks.speedups import (
    BOTH,
    README,
    RECORDS,
    TABLE,
    in_the_end,
    page,
    summary,
    with_summary,
)


def record(recipe: str, *ratios: tuple[float, float, float] | None) -> dict[str, Any]:
    keys = ("ratio", "low", "high")
    return {
        "recipe": recipe,
        "speedups": {
            "principled vs usual practice": [
                dict(zip(keys, ratio or [None] * 3, strict=True), bound=None) for ratio in ratios
            ]
        },
    }


RECORDS_BY_HAND = [
    record("resgcn64.digits", (8.0, 6.0, 9.0), (4.0, 0.9, 5.0)),
    record("resgin16.mutag", (0.5, 0.4, 0.8), None),
    record("resgcn16.pubmed", None, None),
]


def test_one_line() -> None:
    line = summary(RECORDS_BY_HAND, "usual practice")
    assert line is not None
    assert "of 2 recipes and 3 targets, is 4.0 (0.5 to 6.0)" in line
    assert "above 1 for 1 of them, the upper end below 1 for 1." in line


def test_one_line_of_deep_recipes() -> None:
    line = summary(RECORDS_BY_HAND, "usual practice", least=64)
    assert line is not None and "of 1 recipe of at least 64 layers and 2 targets, is 6.0 (" in line
    assert summary(RECORDS_BY_HAND, "usual practice", least=1000) is None
    assert summary(RECORDS_BY_HAND, "batch normalization") is None


def test_one_line_with_the_same_normalization_in_both() -> None:
    """Of a recipe that has batch normalization itself, the recipe; of others, that with it."""
    ratio = {"ratio": 1.5, "low": 1.2, "high": 2.0, "bound": None}
    pairs = ("principled", "principled + batch normalization")
    named = {
        f"{arm} vs batch normalization": [{**ratio, "ratio": number}]
        for arm, number in zip(pairs, (3.0, 1.5), strict=True)
    }
    plain = {"recipe": "resgcn64.digits", "speedups": named}
    own = {"recipe": "resgin16.mutag", "speedups": {next(iter(named)): [{**ratio, "ratio": 0.5}]}}
    line = summary([plain, own], BOTH)
    assert line is not None
    assert "with batch normalization in both, of 2 recipes and 2 targets, is 1.0 (" in line
    line = summary([plain, own], "batch normalization")
    assert line is not None and "2 targets, is 1.8 (" in line


def test_one_line_on_the_scores_in_the_end() -> None:
    """By hand: above, above in one seed of three, below, and beside trainings that diverged."""
    finals = [
        ([0.9, 0.91, 0.92], [0.8, 0.82, 0.81]),
        ([0.9, 0.6, 0.6], [0.6, 0.6, 0.6]),
        ([0.5, 0.51, 0.52], [0.8, 0.82, 0.81]),
        ([0.9, 0.91, 0.92], [None, None, None]),
        (None, None),
    ]
    made = [
        {
            "metric": "accuracy",
            "arms": {"principled": {"final": ours}, "stock": {"final": theirs}}
            if ours
            else {"principled": {}},
        }
        for ours, theirs in finals
    ]
    line = in_the_end(made, "stock")
    assert line is not None
    assert "of 4 recipes, is above that of stock in 2, level in 1, below in 1" in line
    assert in_the_end(made, "usual practice") is None


def test_the_page_is_that_of_the_records() -> None:
    records = [json.loads(file.read_text("utf-8")) for file in sorted(RECORDS.glob("*.json"))]
    assert TABLE.read_text("utf-8") == page(records)
    readme = README.read_text("utf-8")
    assert readme == with_summary(readme, records)
    for base in ("usual practice", "batch normalization", BOTH):
        line = summary(records, base)
        assert line is None or line in readme
