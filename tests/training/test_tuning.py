"""A learning rate from a small network: successive halving, by validation alone, resumable."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dgl_deepgnn.cli import app
from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training import tuning
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.trainer import Trainer
from dgl_deepgnn.training.tuning import tune


def recipe(**sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {
                "name": "csbm",
                "options": {"num_nodes": 60, "feature_dim": 4, "avg_degree": 6},
            },
            "model": {"num_layers": 12, "hidden_feats": 16, **sections.pop("model", {})},
            "training": {"epochs": 9},
            "speedup": {"selection_seed": 70},
            **sections,
        }
    )


def run(some: Recipe, folder: Path, **options: Any) -> dict[str, Any]:
    size = {} if options.get("resume") else {"num_layers": 3, "hidden_feats": 4, "seeds": 2}
    return tune(some, folder, progress=False, **{**size, **options})[1]


@pytest.fixture(autouse=True)
def short_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tuning.GRIDS, "adam", range(-10, -1, 2))


def lowest_loss(lr: float, epochs: int) -> float:
    """What a training of the small network by hand gives."""
    losses = []
    for seed in (70, 71):
        small = load_recipe_with(lr)
        trainer = Trainer(small, load_data(small.data.name, **small.data.options), seed)
        seen = []
        for _ in range(epochs):
            trainer.run_epoch()
            seen.append(trainer.evaluate()["val"]["loss"])
        losses.append(min(seen))
    return sum(losses) / 2


def load_recipe_with(lr: float) -> Recipe:
    return recipe(
        model={"num_layers": 3, "hidden_feats": 4}, optimizer={"lr": lr, "transfer": True}
    )


def test_rounds_are_those_of_trainings_by_hand(tmp_path: Path) -> None:
    result = run(recipe(), tmp_path / "t")
    assert [part["epochs"] for part in result["rounds"]] == [1, 3, 9]
    kept = None
    for part in result["rounds"]:
        losses = {float(rate): loss for rate, loss in part["val_loss"].items()}
        assert kept is None or set(losses) == kept
        for rate in (min(losses), max(losses)):
            assert losses[rate] == pytest.approx(lowest_loss(rate, part["epochs"]), rel=1e-6)
        count = -(-len(losses) // 3)
        kept = set(sorted(losses, key=lambda rate: losses[rate])[:count])
    assert kept == {result["lr"]}
    tuned = load_recipe(tmp_path / "t" / "tuned.yaml")
    assert tuned.optimizer.transfer and tuned.optimizer.lr == result["lr"]
    assert tuned.model == recipe().model and tuned.seeds == recipe().seeds


def test_budget_holds_and_nobody_looks_at_the_test_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    epochs, evaluate, run_epoch = 0, Trainer.evaluate, Trainer.run_epoch

    def counting(self: Trainer) -> Any:
        nonlocal epochs
        epochs += 1
        assert "at most" in capsys.readouterr().err or epochs > 1  # stated before it is spent
        return run_epoch(self)

    def guarded(self: Trainer, parts: Any = ("train", "val", "test")) -> Any:
        assert list(parts) == ["val"]
        return evaluate(self, parts)

    monkeypatch.setattr(Trainer, "run_epoch", counting)
    monkeypatch.setattr(Trainer, "evaluate", guarded)
    _, result = tune(recipe(), tmp_path / "t", num_layers=3, hidden_feats=4, seeds=2)
    # Nine rates at most: 9 x 1 epoch, 3 x 2 more, 1 x 6 more, by two seeds.
    assert epochs <= 2 * (9 + 6 + 6)
    assert "at most 42 optimizer steps of 3 layers of width 4" in result["budget"]
    assert "test" not in json.dumps(result).replace('"recipe": "test"', "")


def test_killed_and_resumed_it_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(recipe(), tmp_path / "whole")
    save, count = RunFolder.save, 0

    def killed(self: RunFolder, *arguments: Any) -> None:
        nonlocal count
        count += 1
        if count in (4, 13):
            raise KeyboardInterrupt
        save(self, *arguments)

    monkeypatch.setattr(RunFolder, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path / "t")
    with pytest.raises(KeyboardInterrupt):
        run(recipe(), tmp_path / "t", resume=True)
    assert run(recipe(), tmp_path / "t", resume=True) == whole
    for name in ("tuned.yaml", "tuning.json"):
        assert (tmp_path / "t" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    with pytest.raises(UserError, match="another recipe"):
        run(recipe(training={"epochs": 4}), tmp_path / "t", resume=True)
    with pytest.raises(UserError, match="holds a tuning"):
        RunFolder.open(tmp_path / "t", kind="training")


def test_an_edge_is_widened_and_divergence_is_the_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tuning.GRIDS, "adam", (-6, 120))
    (first, *_) = run(recipe(), tmp_path / "t")["rounds"]
    rates = sorted(map(float, first["val_loss"]))
    assert first["val_loss"]["1e+30"] is None
    assert 3 <= len(rates) <= 6 and rates[-2] <= 0.04
    monkeypatch.setitem(tuning.GRIDS, "adam", (120, 124))
    with pytest.raises(UserError, match="diverges at every learning rate"):
        run(recipe(), tmp_path / "u")


def test_a_best_rate_on_the_edge_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning._Tuning, "_score", lambda self, power, epochs: 0.5 - power / 100)
    with pytest.warns(
        UserWarning, match=r"3\.162, lies on the edge of those tried, 0\.003162 to 3"
    ):
        run(recipe(), tmp_path / "t")


def test_without_residual_connections_the_depth_stays(tmp_path: Path) -> None:
    some = recipe(model={"residual": None, "num_layers": 5}, training={"epochs": 1})
    result = run(some, tmp_path / "t", seeds=1)
    assert (result["num_layers"], result["hidden_feats"]) == (5, 4)


def test_commands(tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(recipe(training={"epochs": 3}).to_yaml())
    runner = CliRunner()
    options = ["--layers", "3", "--width", "4", "--seeds", "1", "--output", str(tmp_path / "t")]
    tuned = runner.invoke(app, ["tune", str(file), *options])
    assert tuned.exit_code == 0, tuned.output
    assert "after 1 epoch" in tuned.stdout and str(tmp_path / "t" / "tuned.yaml") in tuned.stdout
    again = runner.invoke(app, ["tune", "--resume", str(tmp_path / "t"), "--json"])
    assert json.loads(again.stdout)["lr"] > 0
    other = runner.invoke(app, ["tune", "--resume", str(tmp_path / "t"), "--layers", "4"])
    assert "omit them" in str(other.exception)
    trained = runner.invoke(
        app, ["train", str(tmp_path / "t" / "tuned.yaml"), "--output", str(tmp_path / "run")]
    )
    assert trained.exit_code == 0, trained.output
    assert load_recipe(tmp_path / "run" / "recipe.yaml").optimizer.transfer


def test_a_choice_among_networks_that_learned_nothing_is_doubted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tuning.GRIDS, "adam", range(-40, -37))
    with pytest.warns(UserWarning, match=r"a blind guess, 1\.39, in 3 epochs.*Train longer"):
        run(recipe(training={"epochs": 3}), tmp_path / "tuning")
