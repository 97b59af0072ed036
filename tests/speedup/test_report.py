"""Table, CSV and plot of a speed-up record, checked against the record they show."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from dgl_deepgnn.speedup.report import (
    describe_ratio,
    describe_speedup,
    plot_speedup,
    speedup_csv,
)

BUDGET = 40


def curves(rate: float, noise: float, length: int = BUDGET) -> list[list[float]]:
    random = np.random.default_rng(0)
    steps = np.arange(length)
    return [
        (2.3 * np.exp(-rate * steps) * np.exp(noise * random.standard_normal(length))).tolist()
        for _ in range(5)
    ]


def arm(lr: float, losses: list[list[float]], first: list, second: list, score: list) -> dict:
    whole = [len(some) == BUDGET for some in losses]
    return {
        "lr": lr,
        "steps": [first, second],
        "seconds": [[None if s is None else s / 8 for s in some] for some in (first, second)],
        "mean_loss": [
            float(np.mean(x)) if full else None for x, full in zip(losses, whole, strict=True)
        ],
        "score": score,
        "losses": losses,
    }


@pytest.fixture
def result() -> dict[str, Any]:
    return {
        "recipe": "resgcn64.digits",
        "budget": BUDGET,
        "targets": [1.151293, 0.230259],
        "target_shares": [0.5, 0.1],
        "seeds": [0, 1, 2, 3, 4],
        "metric": "accuracy",
        "arms": {
            "stock": arm(0.001, curves(0, 0.01), [None] * 5, [None] * 5, [0.1] * 5),
            "usual practice": arm(
                0.00316227766,
                [
                    curve[:length]
                    for curve, length in zip(curves(0.05, 0.1), (40, 40, 40, 7, 0), strict=True)
                ],
                [15, 16, 14, None, None],
                [None, 39, None, None, None],
                [0.5, 0.6, 0.7, None, None],
            ),
            "principled": arm(0.01, curves(0.2, 0.1), [4, 5, 4, 3, 4], [12] * 5, [0.9] * 5),
        },
        "speedups": {
            "principled vs stock": [
                {"ratio": 10.0, "low": 8.0, "high": 13.3, "bound": "lower"},
                {"ratio": None, "low": None, "high": None, "bound": None},
            ],
            "principled vs usual practice": [
                {"ratio": 4.0, "low": 3.0, "high": 10.0, "bound": None},
                {"ratio": 0.5, "low": 0.4, "high": 0.6, "bound": "upper"},
            ],
        },
    }


@pytest.mark.parametrize(
    ("bound", "text"),
    [("lower", "> 5.2 (4.8 to 6.0)"), ("upper", "< 5.2 (4.8 to 6.0)"), (None, "5.2 (4.8 to 6.0)")],
)
def test_ratio(bound: str | None, text: str) -> None:
    assert describe_ratio({"ratio": 5.21, "low": 4.8, "high": 5.99, "bound": bound}) == text


def test_table(result: dict[str, Any]) -> None:
    lines = describe_speedup(result).splitlines()
    header, stock, usual, principled = (
        [cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[:4]
    )
    assert header == [
        "arm", "lr", "steps to 50% of chance", "steps to 10% of chance",
        "mean loss over 40 steps", "accuracy",
    ]  # fmt: skip
    assert stock == ["stock", "0.001", "> 40", "> 40", "2.3", "0.100"]
    # Three of five get there: the median is the largest of them.
    assert usual[:4] == ["usual practice", "0.0032", "16 (14 to > 40)", "> 40 (39 to > 40)"]
    finite = [loss for loss in result["arms"]["usual practice"]["mean_loss"] if loss]
    assert usual[4] == f"{max(finite):.3g}"
    assert usual[5] == "0.600"  # of those that did not diverge
    assert principled[2:4] == ["4 (3 to 5)", "12"]
    text = "\n".join(lines)
    assert "speed-up to 50% of chance, principled vs stock: > 10.0 (8.0 to 13.3)" in text
    assert "speed-up to 10% of chance, principled vs stock: neither arm gets there" in text
    assert "speed-up to 10% of chance, principled vs usual practice: < 0.5 (0.4 to 0.6)" in text
    assert "5 seeds" in text
    assert "over 1 seed (range)" in describe_speedup({**result, "seeds": [0]})


def test_table_where_an_arm_always_diverges(result: dict[str, Any]) -> None:
    result["arms"]["stock"] = arm(0.1, [[]] * 5, [None] * 5, [None] * 5, [None] * 5)
    line = describe_speedup(result).splitlines()[1]
    assert line.endswith("diverged") and "inf" in line


def test_seconds_and_final_scores(result: dict[str, Any]) -> None:
    pair = "principled vs stock"
    assert "on the clock" not in describe_speedup(result)  # as records were to version 0.2
    result["wall_clock"] = {pair: [result["speedups"][pair][0], result["speedups"][pair][1]]}
    for facts, score in zip(result["arms"].values(), (0.25, 0.5, None), strict=True):
        facts["final"] = [score] * 5
    lines = describe_speedup(result).splitlines()
    assert lines[0].endswith("accuracy in the end")
    assert [line.split()[-1] for line in lines[1:4]] == ["0.250", "0.500", "diverged"]
    ratio = "> 10.0 (8.0 to 13.3)"
    assert f"to 50% of chance, {pair}: {ratio}; on the clock {ratio}" in "\n".join(lines)
    assert f"speed-up to 10% of chance, {pair}: neither arm gets there" in lines
    header, first, *_ = csv.reader(io.StringIO(speedup_csv(result)))
    assert (header[-1], first[-1]) == ("final_test_accuracy", "0.25")


def test_csv(result: dict[str, Any]) -> None:
    rows = list(csv.reader(io.StringIO(speedup_csv(result))))
    assert rows[0] == [
        "recipe", "arm", "lr", "seed", "steps_to_50%_of_chance", "steps_to_10%_of_chance",
        "seconds_to_50%_of_chance", "seconds_to_10%_of_chance", "mean_loss", "test_accuracy",
    ]  # fmt: skip
    assert len(rows) == 1 + 3 * 5
    assert rows[6 + 3] == [
        "resgcn64.digits", "usual practice", "0.003162", "3", "", "", "", "", "", "",
    ]  # fmt: skip
    assert rows[6 + 1][4:8] == ["16", "39", "2.0", "4.875"]
    assert [row[1] for row in rows[11:]] == ["principled"] * 5


def draw(result: dict[str, Any], path: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    figures: list[Figure] = []
    save = Figure.savefig
    with monkeypatch.context() as patch:
        patch.setattr(
            Figure, "savefig", lambda self, *a, **k: (figures.append(self), save(self, *a, **k))[1]
        )
        plot_speedup(path, result)
    image = np.asarray(Image.open(path).convert("RGB"))
    assert min(image.shape[:2]) > 500 and len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    return figures[0]


def test_plot(result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = draw(result, tmp_path / "p.png", monkeypatch).axes[0]
    assert "resgcn64.digits" in axes.get_title()
    assert axes.get_xlabel() == "optimizer step" and "5 seeds" in axes.get_ylabel()
    lines = {line.get_label().rpartition(" (lr")[0]: line for line in axes.lines}
    for name, facts in result["arms"].items():
        steps, values = lines[name].get_data()
        for step, value in zip(steps, values, strict=True):
            at_step = [losses[int(step) - 1] for losses in facts["losses"] if len(losses) >= step]
            assert value == pytest.approx(np.median(at_step))
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "stock (lr 0.001)",
        "usual practice (lr 0.0032), 2 of 5 seeds diverged",
        "principled (lr 0.01)",
    ]
    levels = [line.get_ydata()[0] for line in axes.lines if len(set(line.get_ydata())) == 1]
    assert set(result["targets"]) <= set(levels)
    low, high = axes.get_ylim()
    assert all(low < target < high for target in result["targets"])
    notes = [text.get_text() for text in axes.texts]
    assert notes == [
        "target: 50% of chance",
        "target: 10% of chance",
        "chance level:\na uniform guess",
    ]
    chance = result["targets"][0] / result["target_shares"][0]
    assert any(level == pytest.approx(chance) for level in levels)


@pytest.mark.parametrize("length", [0, 1, 3])
def test_plot_where_an_arm_diverges_at_once(
    result: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    losses = [[2.3, 1e30, 1e38][:length]] * 5
    result["arms"]["stock"] = arm(0.1, losses, [None] * 5, [None] * 5, [None] * 5)
    axes = draw(result, tmp_path / "p.png", monkeypatch).axes[0]
    # A diverging arm must not squeeze the others into one line.
    low, high = axes.get_ylim()
    assert high < 1e4 and math.isfinite(low)
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert "stock" in legend[0]
    # One that begins outside the plot says so; the others do not.
    stock = "stock (lr 0.1), 5 of 5 seeds diverged"
    result["arms"]["stock"]["losses"] = [[1.5e5, 30.0]] * 5
    axes = draw(result, tmp_path / "p.png", monkeypatch).axes[0]
    above = [text.get_text() for text in axes.get_legend().get_texts()]
    assert above == [f"{stock}, starts at 1.5e+05, above the plot", *legend[1:]]
