"""The speed-up record: its arithmetic by brute force, its protocol on a faked trainer."""

from __future__ import annotations

import csv
import itertools
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.speedup import record
from dgl_deepgnn.speedup.arms import arms_of
from dgl_deepgnn.speedup.comparison import Trial, compare_steps, steps_to_target
from dgl_deepgnn.speedup.record import chance_loss, measure_speedup
from dgl_deepgnn.training import train
from dgl_deepgnn.training.trainer import DivergenceError, Trainer

QUICK = settings(max_examples=200, deadline=None)


def recipe(data: str = "karate", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {"name": data},
            "model": {"num_layers": 3, "hidden_feats": 8, "t": 0.5, **sections.pop("model", {})},
            "training": {"epochs": 4, **sections.pop("training", {})},
            "speedup": {
                "steps": 10,
                "seeds": [0, 1, 2],
                "learning_rates": [0.001, 0.01, 0.1],
                **sections.pop("speedup", {}),
            },
            **sections,
        }
    )


# --- steps to a target ---


@QUICK
@given(st.lists(st.sampled_from([0.5, 1.0, 1.5]), max_size=12))
def test_steps_to_target(losses: list[float]) -> None:
    found = steps_to_target(losses, 1.0)
    windows = [max(losses[i : i + 3]) <= 1.0 for i in range(len(losses) - 2)]
    assert found == (windows.index(True) + 1 if any(windows) else None)


def test_a_diverged_training_never_held() -> None:
    assert steps_to_target([], 1.0) is None
    assert steps_to_target([0.5, 0.5], 1.0) is None
    assert steps_to_target([0.5, 0.5, math.nan], 1.0) is None
    trial = Trial(arm="a", lr=0.1, seed=0, losses=[1.0, 2.0], seconds=[], score=None)
    assert trial.mean_loss(3) == math.inf
    assert trial.mean_loss(2) == 1.5


# --- ratios ---

steps = st.lists(st.none() | st.integers(1, 50), min_size=1, max_size=7)


@settings(QUICK, max_examples=40)
@given(steps, steps)
def test_ratio_of_medians_and_censoring(slow: list, fast: list) -> None:
    result = compare_steps(slow, fast, budget=50)

    def half_never(values: list) -> bool:
        return 2 * values.count(None) >= len(values)

    if half_never(slow) and half_never(fast):
        assert set(result.values()) == {None}
        return
    medians = [
        float(np.median([50 if value is None else value for value in values]))
        for values in (slow, fast)
    ]
    assert result["ratio"] == pytest.approx(medians[0] / medians[1])
    assert result["low"] <= result["ratio"] * 1.0000001
    assert result["ratio"] <= result["high"] * 1.0000001
    expected = "lower" if half_never(slow) else "upper" if half_never(fast) else None
    assert result["bound"] == expected


@pytest.mark.parametrize(
    ("slow", "fast"),
    [
        ([30, 34, 41], [5, 6, 9]),
        ([30, 34, 41, 44], [5, 6, 9, 13]),
        ([None, None, 80], [5, 6, 9]),
        ([20, 20, 20], [10, 10, 10]),
        ([7, 9, 30], [8, None, 10]),
    ],
)
def test_interval_against_the_exact_bootstrap(slow: list, fast: list) -> None:
    """All n**n resamples of each arm, equally likely: no random numbers at all."""

    def medians(values: list) -> np.ndarray:
        filled = [100 if value is None else value for value in values]
        resamples = itertools.product(filled, repeat=len(filled))
        return np.array([np.median(resample) for resample in resamples])

    ratios = (medians(slow)[:, None] / medians(fast)[None]).ravel()
    result = compare_steps(slow, fast, budget=100)
    slack = 0.006  # four standard errors of a share of 0.025 in 10,000 resamples
    for end, share in (("low", 0.025), ("high", 0.975)):
        below = np.mean(ratios < result[end] * (1 - 1e-9))
        up_to = np.mean(ratios <= result[end] * (1 + 1e-9))
        assert below - slack <= share <= up_to + slack
    assert result == compare_steps(slow, fast, budget=100)  # the same each time


# --- arms ---


def off(**changes: Any) -> dict[str, Any]:
    return {"init": "glorot", "t": 1.0, "residual": None, "options": {}, **changes}


def usual(norm_layer: str) -> list[dict[str, Any]]:
    plain = off(residual="plain", norm_layer=norm_layer)
    return [plain, {**plain, "options": {"output_gain": 0.0}}]


def test_arms() -> None:
    options = {"norm": "right", "output_gain": 0.1}
    arms = arms_of(recipe(model={"t": "per-depth:2", "residual": "scaled", "options": options}))
    kept = {"norm": "right"}
    assert arms["stock"] == [off(options=kept)]
    assert arms["usual practice"] == [
        off(residual="plain", norm_layer="none", options=kept),
        off(residual="plain", norm_layer="none", options={**kept, "output_gain": 0.0}),
    ]
    assert arms["principled"] == [
        {"init": "critical", "t": "per-depth:2", "residual": "scaled", "options": options}
    ]
    both = "principled + batch normalization"
    assert list(arms) == ["stock", "usual practice", "batch normalization", "principled", both]
    on = {**arms["principled"][0], "norm_layer": "batch"}
    assert arms[both] == [on, {**on, "options": {**options, "output_gain": 0.0}}]
    assert arms_of(recipe())["batch normalization"] == usual("batch")
    assert arms_of(recipe(model={"norm_layer": "batch"}))["usual practice"] == usual("none")
    # Which batch normalization does not go with.
    bare = arms_of(recipe(model={"options": {"checkpoint": True}}))
    assert list(bare) == ["stock", "usual practice", "principled"]
    # Where the recipe has it, there is nothing to add.
    assert list(arms_of(recipe(model={"norm_layer": "batch"})))[-1] == "principled"


def test_ablation_has_all_eight_combinations() -> None:
    arms = arms_of(recipe(), ablation=True)
    assert arms.pop("usual practice") == usual("none")
    assert arms.pop("batch normalization") == usual("batch")
    del arms["principled + batch normalization"]
    wanted = itertools.product(("glorot", "critical"), (1.0, 0.5), (None, "fixup"))
    assert all(len(some) == 1 for some in arms.values())
    got = [(arm["init"], arm["t"], arm["residual"]) for (arm,) in arms.values()]
    assert sorted(map(str, got)) == sorted(map(str, wanted))
    first, *_, last = arms
    assert (first, last) == ("stock", "principled")
    for name, (arm,) in list(arms.items())[1:-1]:
        words = set(name.split(" + "))
        assert ("init" in words) == (arm["init"] == "critical")
        assert ("aggregation" in words) == (arm["t"] == 0.5)
        assert ("residual" in words) == (arm["residual"] == "fixup")


# --- chance level ---


@pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel", "regression"])
def test_chance_level(target: str) -> None:
    karate = load_data("karate")
    labels = {
        "multiclass": torch.arange(34) % 4,
        "binary": karate.labels,
        "multilabel": torch.stack([karate.labels, 1 - karate.labels], dim=1),
        "regression": torch.randn(34),
    }[target]
    outputs = {"multiclass": 4, "binary": 1, "multilabel": 2, "regression": 1}[target]
    data = record.TaskData("t", karate.graphs, "node", target, labels, karate.splits, outputs)
    train = labels[karate.splits[0]["train"]].double()
    expected = {
        "multiclass": math.log(4),
        "binary": math.log(2),
        "multilabel": math.log(2),
        "regression": np.var(train.numpy()) if target == "regression" else None,
    }[target]
    loss = Trainer(recipe(), data, 0).loss
    assert chance_loss(data, loss) == pytest.approx(expected, rel=1e-5)


def test_chance_level_of_a_weighted_binary_loss() -> None:
    karate = load_data("karate")
    labels = torch.zeros(34, dtype=torch.long)
    labels[[0, 3, 9]] = 1  # one of the six for training
    data = record.TaskData("t", karate.graphs, "node", "binary", labels, karate.splits, 1)
    loss = Trainer(recipe(training={"class_weights": "balanced"}), data, 0).loss
    # Five negatives and a positive that weighs five, each log 2, over six.
    assert chance_loss(data, loss) == pytest.approx(10 / 6 * math.log(2), rel=1e-5)


# --- the protocol, on a faked trainer ---

Outcome = Callable[[str, float, int], list[float]]


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch):
    """Function that replaces training by an outcome; returns the list of trials made.

    The second variant of an arm is called "... from zero".
    """

    def fake(outcome: Outcome) -> list[tuple[str, float, int]]:
        made: list[tuple[str, float, int]] = []

        def train(self: record._Trials, arm: str, choice: record.Choice, seed: int) -> Trial:
            variant, rate = choice
            made.append((f"{arm} from zero" if variant else arm, rate, seed))
            losses = outcome(*made[-1])
            score = 0.5 if len(losses) == 10 else None
            seconds = [0.25] * len(losses)
            return Trial(arm=arm, lr=rate, seed=seed, losses=losses, seconds=seconds, score=score)

        monkeypatch.setattr(record._Trials, "_train", train)
        return made

    return fake


def reach(step: int | None, level: float = 0.0) -> list[float]:
    """Ten losses that are at most 0.1 from a step on; before, or never, a level above."""
    return [0.01 if step is not None and number >= step else 1.0 + level for number in range(1, 11)]


def measure(
    folder: Path, spec: Recipe | str | Path | None = None, **options: Any
) -> dict[str, Any]:
    return measure_speedup(spec or recipe(), folder, progress=False, **options)[1]


def test_record(tmp_path: Path, faked: Any) -> None:
    def outcome(arm: str, rate: float, seed: int) -> list[float]:
        if rate != 0.01:
            return reach(None)
        steps = {
            "stock": [None] * 3,
            "usual practice": [8, 6, 7],
            "batch normalization": [4, 4, 4],
            "principled": [2, 4, 3],
            "principled + batch normalization": [2, 2, 2],
        }
        if "zero" in arm:
            return reach(10)
        return reach(8 if seed >= 1000 else steps[arm][seed])

    made = faked(outcome)
    result = measure(tmp_path / "r")
    # Learning rates on the held-back seeds, the reported seeds with the chosen one only.
    two = ["usual practice", "batch normalization", "principled + batch normalization"]
    variants = [*result["arms"], *(f"{arm} from zero" for arm in two)]
    assert {(arm, seed) for arm, rate, seed in made if rate != 0.01} == {
        (arm, 1000) for arm in variants
    }
    # One rate alone reaches the targets: the other held-back seeds have nothing to decide.
    assert len(made) == len(set(made)) == 8 * 3 + 5 * 3
    assert result["selection_seeds"] == [1000, 1001, 1002]
    assert result["seeds"] == [0, 1, 2] and result["budget"] == 10
    assert result["targets"] == pytest.approx([0.5 * math.log(2), 0.1 * math.log(2)], abs=1e-6)
    arms = result["arms"]
    assert arms["stock"]["steps"] == [[None] * 3] * 2
    assert arms["usual practice"]["steps"] == [[8, 6, 7]] * 2
    assert arms["principled"]["steps"] == [[2, 4, 3]] * 2
    assert arms["principled"]["seconds"] == [[0.5, 1.0, 0.75]] * 2
    assert arms["principled"]["lr"] == 0.01
    assert arms["principled"]["lr_grid"] == {"0.001": [None], "0.01": [8], "0.1": [None]}
    assert arms["principled"]["mean_loss"][0] == pytest.approx((1 + 9 * 0.01) / 10)
    stock, plain, normalized = (
        result["speedups"][f"principled vs {x}"]
        for x in ("stock", "usual practice", "batch normalization")
    )
    assert stock[0]["ratio"] == pytest.approx(10 / 3) and stock[0]["bound"] == "lower"
    assert plain[0]["ratio"] == pytest.approx(7 / 3) and plain[0]["bound"] is None
    assert normalized[0]["ratio"] == pytest.approx(4 / 3)
    both = result["speedups"]["principled + batch normalization vs batch normalization"]
    assert both[0]["ratio"] == pytest.approx(4 / 2)
    # A quarter of a second each: of the clock the ratios are the same.
    of_steps = {pair: some for pair, some in result["speedups"].items() if "+" not in pair}
    assert result["wall_clock"] == of_steps
    written = json.loads((tmp_path / "r" / "speedup.json").read_text())
    assert len(written.pop("checksum")) == 64 and written == result

    rows = list(csv.DictReader((tmp_path / "r" / "speedup.csv").open()))
    assert len(rows) == 15
    first, second = "50%_of_chance", "10%_of_chance"
    for row in rows:
        index = [0, 1, 2].index(int(row["seed"]))
        facts = arms[row["arm"]]
        assert row["recipe"] == "test" and float(row["lr"]) == facts["lr"]
        for number, target in enumerate((first, second)):
            for kind in ("steps", "seconds"):
                value = facts[kind][number][index]
                assert row[f"{kind}_to_{target}"] == ("" if value is None else str(value))
        assert float(row["mean_loss"]) == facts["mean_loss"][index]
        assert float(row["test_roc_auc"]) == 0.5
    assert (tmp_path / "r" / "speedup.png").stat().st_size > 10_000


def test_grid_marks_of_the_held_back_seed(tmp_path: Path, faked: Any) -> None:
    faked(lambda arm, rate, seed: reach({0.001: None, 0.01: 4, 0.1: 6}[rate]))
    facts = measure(tmp_path / "r")["arms"]["stock"]
    assert facts["lr_grid"] == {"0.001": [None], "0.01": [4] * 3, "0.1": [6] * 3}
    assert facts["lr"] == 0.01


def test_the_other_held_back_seeds_have_their_say(tmp_path: Path, faked: Any) -> None:
    """The best rate on the first of them is the worst of the three on the others."""
    rates = [0.001, 0.003, 0.01, 0.03, 0.1]
    first = dict(zip(rates, (8, 2, 3, 4, 8), strict=True))
    others = dict(zip(rates, (1, 8, 6, 5, 1), strict=True))
    made = faked(lambda arm, rate, seed: reach((first if seed == 1000 else others)[rate]))
    facts = measure(tmp_path / "r", recipe(speedup={"learning_rates": rates}))["arms"]["stock"]
    assert facts["lr"] == 0.03
    tried = {rate for arm, rate, seed in made if (arm, seed) == ("stock", 1001)}
    assert tried == {0.003, 0.01, 0.03}  # the best three of the first seed
    assert facts["lr_grid"]["0.03"] == [4, 5, 5] and facts["lr_grid"]["0.001"] == [8]


def test_all_targets_count(tmp_path: Path, faked: Any) -> None:
    """Not the first one alone: 2 and never is worse than 4 and 5."""
    half, tenth = 0.5 * math.log(2), 0.1 * math.log(2)

    def outcome(arm: str, rate: float, seed: int) -> list[float]:
        if rate == 0.01:
            return [1.0, *[half] * 9]
        return [1.0, 1.0, 1.0, half, *[tenth] * 6] if rate == 0.1 else reach(None)

    faked(outcome)
    assert measure(tmp_path / "r")["arms"]["stock"]["lr"] == 0.1


def test_the_better_variant_is_reported(tmp_path: Path, faked: Any) -> None:
    made = faked(lambda arm, rate, seed: reach(3 if "zero" in arm and rate == 0.1 else 6))
    result = measure(tmp_path / "r", recipe(speedup={"learning_rates": [0.01, 0.1, 1.0]}))
    chosen = result["arms"]["usual practice"]
    assert chosen["model"]["options"] == {"output_gain": 0.0} and chosen["lr"] == 0.1
    assert chosen["steps"][0] == [3, 3, 3]
    assert set(chosen["lr_grid"]) == {"0.01", "0.1", "1"}
    assert ("usual practice from zero", 0.1, 0) in made
    assert ("usual practice", 0.1, 0) not in made


@pytest.mark.parametrize(
    ("best", "tried", "chosen"),
    [
        (0.01, [0.001, 0.01, 0.1], 0.01),
        (1.0, [0.001, 0.01, 0.1, 1.0, 10.0], 1.0),
        (1e-4, [1e-5, 1e-4, 0.001, 0.01, 0.1], 1e-4),
        (1e9, [0.001, 0.01, 0.1, 1.0, 10.0, 100.0], 100.0),  # three widenings at most
    ],
)
def test_grid_is_widened_at_its_edge(
    tmp_path: Path, faked: Any, best: float, tried: list[float], chosen: float
) -> None:
    # Nobody reaches the target: the lowest mean loss decides.
    made = faked(lambda arm, rate, seed: reach(None, abs(math.log10(rate / best))))
    result = measure(tmp_path / "r")
    held_back = sorted(rate for arm, rate, seed in made if arm == "stock" and seed == 1000)
    assert held_back == pytest.approx(tried)
    assert result["arms"]["stock"]["lr"] == pytest.approx(chosen)
    assert len(result["arms"]["stock"]["lr_grid"]) == len(tried)


def test_grid_is_widened_at_the_edge_that_all_seeds_find(tmp_path: Path, faked: Any) -> None:
    """The first held-back seed alone has its best rate in the middle."""
    first = {0.001: 8, 0.01: 4, 0.1: 5, 1.0: 1, 10.0: 9}
    others = {**first, 0.01: 8, 0.1: 3}
    made = faked(lambda arm, rate, seed: reach((first if seed == 1000 else others)[round(rate, 9)]))
    facts = measure(tmp_path / "r")["arms"]["stock"]
    assert facts["lr"] == pytest.approx(1.0) and facts["lr_grid"]["1"] == [1, 1, 1]
    tried = sorted(rate for arm, rate, seed in made if (arm, seed) == ("stock", 1002))
    assert tried == pytest.approx([0.001, 0.01, 0.1, 1.0, 10.0])


def test_an_arm_without_a_best_rate_is_doubted(tmp_path: Path, faked: Any) -> None:
    faked(lambda arm, rate, seed: reach(7 - round(math.log10(rate)) if arm == "stock" else 3))
    with pytest.warns(
        UserWarning, match=r"stock: the best learning rate, 1e\+05, lies on the edge"
    ):
        measure(tmp_path / "r")


def test_one_learning_rate_is_a_grid_with_two_edges(tmp_path: Path, faked: Any) -> None:
    made = faked(lambda arm, rate, seed: reach(None, abs(math.log10(rate / 0.1))))
    result = measure(tmp_path / "r", recipe(speedup={"learning_rates": [0.1]}))
    assert result["arms"]["stock"]["lr"] == 0.1
    rates = sorted({rate for _, rate, _ in made})
    assert rates == pytest.approx([0.1 / 10**0.5, 0.1, 0.1 * 10**0.5])


def test_targets_decide_before_the_mean_loss(tmp_path: Path, faked: Any) -> None:
    def outcome(arm: str, rate: float, seed: int) -> list[float]:
        early_then_worse = [1.0, 0.3, 0.3, 0.3, *[9.0] * 6]
        return early_then_worse if rate == 0.01 else reach(None)

    faked(outcome)
    assert measure(tmp_path / "r")["arms"]["stock"]["lr"] == 0.01


def test_diverged_arms(tmp_path: Path, faked: Any) -> None:
    def outcome(arm: str, rate: float, seed: int) -> list[float]:
        if arm == "stock":
            return []
        if "usual practice" in arm:
            return [1.0, 2.0] if seed == 1 or rate == 0.1 else reach(5)
        return reach(2)

    faked(outcome)
    result = measure(tmp_path / "r")
    assert result["arms"]["stock"]["mean_loss"] == [None] * 3
    assert result["arms"]["stock"]["score"] == [None] * 3
    assert result["arms"]["usual practice"]["steps"][0] == [5, None, 5]
    assert result["arms"]["usual practice"]["lr"] != 0.1
    # Without a step of its own, the budget at the other's pace.
    for ratios in (result["speedups"], result["wall_clock"]):
        ratio = ratios["principled vs stock"][0]
        assert ratio["bound"] == "lower" and ratio["ratio"] == pytest.approx(10 / 2)
    text = (tmp_path / "r" / "speedup.json").read_text()
    assert "Infinity" not in text and "NaN" not in text
    assert (tmp_path / "r" / "speedup.png").stat().st_size > 10_000


class Killed(BaseException):
    pass


def test_resume_keeps_finished_trials(tmp_path: Path, faked: Any) -> None:
    def good(arm: str, rate: float, seed: int) -> list[float]:
        steps = {"stock": 7, "usual practice": 5, "batch normalization": 4, "principled": 2}
        steps["principled + batch normalization"] = 1
        return reach(steps[arm.removesuffix(" from zero")] + seed % 2)

    whole_trials = list(faked(good))
    expected = measure(tmp_path / "whole")
    folder, done, total = tmp_path / "cut", 0, 0
    for after in (1, 4, 4, 15, 20, 100):

        def dying(arm: str, rate: float, seed: int) -> list[float]:
            if len(made) > after:  # noqa: B023
                raise Killed
            return good(arm, rate, seed)

        made = faked(dying)
        try:
            result = measure(folder, resume=folder.exists())
            total += len(made)
        except Killed:
            total += len(made) - 1
        done = len(list((folder / "trials").iterdir()))
        assert done == total
    assert result == expected
    assert len(whole_trials) == 0
    # Equal rates: the lowest counts as the best, so one more is tried, which is no better.
    assert total == 8 * (3 + 1) + 5 * (3 * 2 + 3)


def test_resume_with_ablation_adds_the_other_arms(tmp_path: Path, faked: Any) -> None:
    first = faked(lambda arm, rate, seed: reach(3))
    measure(tmp_path / "r")
    made = faked(lambda arm, rate, seed: reach(3))
    result = measure(tmp_path / "r", ablation=True, resume=True)
    assert len(result["arms"]) == 11
    assert not {arm for arm, _, _ in first} & {arm for arm, _, _ in made}
    assert len({arm for arm, _, _ in made}) == 6


def test_refusals(tmp_path: Path, faked: Any) -> None:
    faked(lambda arm, rate, seed: reach(3))
    measure(tmp_path / "r")
    with pytest.raises(UserError, match="never overwritten"):
        measure(tmp_path / "r")
    with pytest.raises(UserError, match="another recipe"):
        measure(tmp_path / "r", recipe(speedup={"steps": 11}), resume=True)
    with pytest.raises(UserError, match="is not a run folder"):
        measure(tmp_path, resume=True)
    with pytest.raises(UserError, match="say which folder"):
        measure(None, resume=True)
    with pytest.raises(UserError, match="--device"):
        measure(tmp_path / "new", device="cuda:77")
    with pytest.raises(record.DGLError, match="alpha"):
        measure(tmp_path / "new", recipe(model={"options": {"alpha": 3}}))
    assert not (tmp_path / "new").exists()


# --- a real one ---


def test_real_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trial is the recipe's training with the arm's model, its rate, and no schedule."""
    spec = recipe(
        schedule={"name": "cosine", "warmup_steps": 3},
        optimizer={"weight_decay": 0.01},
        speedup={"steps": 6, "seeds": [0, 1], "learning_rates": [0.01, 0.1]},
    )
    result = measure(tmp_path / "r", spec)
    for arm, variants in arms_of(spec).items():
        facts = result["arms"][arm]
        assert facts["model"] in variants
        for index, seed in enumerate((0, 1)):
            single = recipe(
                model=facts["model"],
                optimizer={"weight_decay": 0.01, "lr": facts["lr"]},
                training={"epochs": 6},
            )
            trainer = Trainer(single, load_data("karate"), seed)
            losses = [step.loss for _ in range(6) for step in trainer.run_epoch()]
            assert facts["losses"][index] == pytest.approx(losses, abs=1e-6)
            assert facts["score"][index] == trainer.evaluate()["test"]["roc_auc"]
    again = measure(tmp_path / "again", spec)
    timeless = [
        {arm: {**facts, "seconds": None} for arm, facts in record["arms"].items()}
        for record in (result, again)
    ]
    assert timeless[0] == timeless[1]


def test_final_scores(tmp_path: Path) -> None:
    """Those of the whole training by `train`, with the arm's model and rate and the schedule."""
    sections: dict[str, Any] = {
        "schedule": {"name": "cosine", "warmup_steps": 2},
        "seeds": [0, 1],
        "training": {"epochs": 7, "evaluate_every": 2, "patience": 1},
        "speedup": {"steps": 5, "seeds": [0, 1], "learning_rates": [0.01, 0.1]},
    }
    result = measure(tmp_path / "r", recipe(**sections))
    assert not any("final" in facts for facts in result["arms"].values())
    result = measure(tmp_path / "r", recipe(**sections), resume=True, final=True)
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "r" / "trials").iterdir()}
    assert measure(tmp_path / "r", recipe(**sections), resume=True) == result
    assert {path: path.stat().st_mtime_ns for path in made} == made
    sections["training"]["patience"] = None
    for facts in result["arms"].values():
        single = recipe(model=facts["model"], optimizer={"lr": facts["lr"]}, **sections)
        folder = train(single, tmp_path / "trained", progress=False)
        seeds = json.loads((folder.path / "summary.json").read_text())["seeds"]
        assert facts["final"] == pytest.approx([seed["test"]["roc_auc"] for seed in seeds])
        shutil.rmtree(folder.path)


def test_an_arm_that_diverges_later_has_no_final_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sections: dict[str, Any] = {
        "training": {"epochs": 7},
        "speedup": {"steps": 5, "seeds": [0], "learning_rates": [0.01]},
    }
    measure(tmp_path / "r", recipe(**sections))

    def diverging(trainer: Trainer) -> list[Any]:
        raise DivergenceError("too far")

    monkeypatch.setattr(Trainer, "run_epoch", diverging)
    result = measure(tmp_path / "r", recipe(**sections), resume=True, final=True)
    assert [facts["final"] for facts in result["arms"].values()] == [[None]] * len(result["arms"])


def test_no_test_score_while_rates_are_chosen(tmp_path: Path) -> None:
    measure(tmp_path / "r", recipe(speedup={"steps": 5, "learning_rates": [0.01, 0.1]}))
    for file in (tmp_path / "r" / "trials").iterdir():
        held_back = "seed100" in file.name
        assert (json.loads(file.read_text())["score"] is None) == held_back


@pytest.mark.dgl
def test_losses_before_a_divergence_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_on = Trainer._train_on

    def diverging(trainer: Trainer, batch: Any) -> float:
        if trainer.step == 5:
            raise DivergenceError("too far")
        return train_on(trainer, batch)

    monkeypatch.setattr(Trainer, "_train_on", diverging)
    # Three steps an epoch: the sixth is the last of the second epoch.
    spec = recipe(training={"clusters": 3, "batch_size": 1}, speedup={"steps": 8, "seeds": [0]})
    for facts in measure(tmp_path / "r", spec)["arms"].values():
        assert [len(losses) for losses in facts["losses"]] == [5]
        assert facts["mean_loss"] == facts["score"] == [None]


def test_an_ablation_is_resumed_as_one(tmp_path: Path, faked: Any) -> None:
    faked(lambda arm, rate, seed: reach(2))
    measure(tmp_path / "r", ablation=True)
    (tmp_path / "r" / "speedup.json").unlink()  # as if killed
    assert len(measure(tmp_path / "r", resume=True)["arms"]) == 11


@pytest.mark.parametrize("kind", [str, Path])
def test_a_recipe_by_its_path(tmp_path: Path, faked: Any, kind: Any) -> None:
    faked(lambda arm, rate, seed: reach(2))
    file = tmp_path / "own.yaml"
    file.write_text(recipe().to_yaml())
    assert measure(tmp_path / "r", kind(file)) == measure(tmp_path / "s", recipe())


def test_real_divergence_is_recorded(tmp_path: Path) -> None:
    spec = recipe(speedup={"steps": 5, "seeds": [0], "learning_rates": [1e30, 1e31]})
    result = measure(tmp_path / "r", spec)
    for facts in result["arms"].values():
        assert facts["steps"] == [[None], [None]]
        assert facts["score"] == [None] or facts["lr"] < 1e30
    assert result["speedups"]["principled vs stock"][0]["ratio"] is None
