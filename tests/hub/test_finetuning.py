"""Fine-tuning: what starts where the parent is, what moves how fast, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import ZooError, evaluate, finetune, from_pretrained, publish
from dgl_deepgnn.hub.finetuning import finetuning_recipe
from dgl_deepgnn.nn import create_model
from dgl_deepgnn.recipe import RecipeError, load_recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import RunFolder, Trainer, train
from dgl_deepgnn.training.parent import body_of, weights_sha256

NAME = "tiny.karate"
SHORT: dict[str, Any] = {"training.epochs": 3, "seeds": [0, 1]}


def trainer(zoo: Path, seed: int = 0, **options: Any) -> Trainer:
    return Trainer(finetuning_recipe(NAME, "karate", zoo=zoo, **options), load_data("karate"), seed)


def test_the_body_is_the_parent_s_and_the_head_is_drawn(zoo: Path) -> None:
    parent = from_pretrained(NAME, zoo).state_dict()
    models = [trainer(zoo, seed).model for seed in (0, 1)]
    inside = body_of(models[0])
    assert {name.partition(".")[2][0] for name in parent.keys() - inside} == {"2"}  # convs.2.
    for model in models:
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, parent[name]) == (name in inside)
    heads = [model.convs[-1].weight for model in models]
    assert not torch.equal(*heads)


@pytest.mark.parametrize("transfer", [False, True])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_body_moves_at_its_rate(zoo: Path, rate: float, transfer: bool) -> None:
    """The first step of SGD, beside that at the full rate."""
    moves = []
    for body_rate in (1.0, rate):
        sgd = {"optimizer.name": "sgd", "optimizer.lr": 0.01, "optimizer.transfer": transfer}
        one = trainer(zoo, body_rate=body_rate, overrides=sgd)
        before = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
        one.run_epoch()
        moves.append({k: v - before[k] for k, v in one.model.state_dict().items()})
    inside = body_of(one.model)
    for name, whole in moves[0].items():
        assert whole.any()
        expected = rate * whole if name in inside else whole  # up to the rounding of weights
        assert torch.allclose(moves[1][name], expected, rtol=1e-2, atol=1e-7)


def test_frozen_layers_stay(zoo: Path, tmp_path: Path) -> None:
    folder = finetune(
        NAME, "karate", tmp_path / "run", zoo=zoo, body_rate=0.0, overrides=SHORT, progress=False
    )
    parent = from_pretrained(NAME, zoo).state_dict()
    trained = load_file(folder.path / "seed-1" / "model.safetensors")
    inside = {name for name in parent if not name.startswith("convs.2.")}
    for name, tensor in trained.items():
        assert torch.equal(tensor, parent[name]) == (name in inside)


def test_a_killed_run_goes_on_to_the_same_bits(
    zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finetune(NAME, "karate", tmp_path / "whole", zoo=zoo, overrides=SHORT, progress=False)
    run_epoch = Trainer.run_epoch

    def dying(self: Trainer) -> Any:
        if (self.seed, self.epoch) == (1, 1):
            raise KeyboardInterrupt
        return run_epoch(self)

    monkeypatch.setattr(Trainer, "run_epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        finetune(NAME, "karate", tmp_path / "cut", zoo=zoo, overrides=SHORT, progress=False)
    monkeypatch.undo()
    cut = train(whole.recipe, tmp_path / "cut", resume=True, progress=False)
    for seed in (0, 1):
        first, second = (
            load_file(folder.path / f"seed-{seed}" / "model.safetensors") for folder in (whole, cut)
        )
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_recipe_is_the_parent_s(zoo: Path, tmp_path: Path) -> None:
    recipe = finetuning_recipe(NAME, "karate", zoo=zoo, options={"features": "standardize"})
    assert (recipe.name, recipe.model.name) == ("tiny.karate-from-karate", "resgcn")
    assert (recipe.model.hidden_feats, recipe.model.num_layers) == (4, 3)
    assert recipe.data.options == {"features": "standardize"}
    assert finetuning_recipe(NAME, "karate", zoo=zoo).data.options == {"features": "none"}
    assert recipe.parent is not None
    assert recipe.parent.sha256 == weights_sha256(from_pretrained(NAME, zoo))
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


def test_it_is_published_and_names_its_parent(zoo: Path, tmp_path: Path) -> None:
    short = {**SHORT, "speedup.steps": 4, "speedup.seeds": [0], "speedup.learning_rates": [0.01]}
    run = finetune(NAME, "karate", tmp_path / "run", zoo=zoo, overrides=short, progress=False)
    # Of the network that is trained anew.
    folder, _ = measure_speedup(run.recipe, tmp_path / "run.speedup", progress=False)
    assert RunFolder.open(folder, kind="speed-up record").recipe.parent is None
    publish(run.path, zoo=tmp_path / "zoo")
    name = "tiny.karate-from-karate"
    assert evaluate(name, tmp_path / "zoo")["agrees"]
    card = (tmp_path / "zoo" / name / "README.md").read_text()
    assert run.recipe.parent is not None and str(run.recipe.parent.sha256) in card
    assert f"| fine-tuned from | {NAME}, its layers' weights at 0.1 of the head's rate" in card
    config = json.loads((tmp_path / "zoo" / name / "config.json").read_text())
    assert config["recipe"]["parent"]["name"] == NAME


@pytest.mark.parametrize(
    ("data", "changes", "message"),
    [
        ("digits", {}, "in_feats: 34 there, 64 here"),
        ("karate", {"model.num_layers": 4}, "num_layers: 3 there, 4 here"),
        ("tracks", {}, "head: 'node' there, 'edge' here"),
        ("karate", {"parent.sha256": "0" * 64}, "not those that this training was started from"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_folder_is_made(
    data: str, changes: dict[str, Any], message: str, zoo: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        finetune(NAME, data, tmp_path / "run", zoo=zoo, overrides=changes, progress=False)
    assert not (tmp_path / "run").exists()


def test_wrong_names(zoo: Path) -> None:
    with pytest.raises(ZooError, match=r"tiny\.karate"):
        finetuning_recipe("tiny.karat", "karate", zoo=zoo)
    with pytest.raises(RecipeError, match=r"tiny\.karate, fine-tuned: parent\.body_rate"):
        finetuning_recipe(NAME, "karate", zoo=zoo, body_rate=2)
    with pytest.raises(RecipeError, match="unknown key"):
        finetuning_recipe(NAME, "karate", zoo=zoo, overrides=["optimizer.rl=0.1"])


def test_a_saved_model_is_a_parent_too(tmp_path: Path) -> None:
    """It has no recipe: the optimizer is the default one."""
    model = create_model("resgcn", in_feats=34, hidden_feats=5, out_feats=3, num_layers=4)
    model.save_pretrained(tmp_path / "mine")
    recipe = finetuning_recipe(str(tmp_path / "mine"), "karate", overrides=SHORT)
    assert recipe.name == "mine.karate-from-mine"
    tuned = Trainer(recipe, load_data("karate"), 0).model
    assert torch.equal(tuned.convs[1].weight, model.convs[1].weight)
