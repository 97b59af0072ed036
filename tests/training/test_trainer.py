"""One seed's training: steps, schedules, metrics and state against formulas."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.trainer import (
    DivergenceError,
    Trainer,
    build_model,
    find_device,
    is_better,
)

KARATE = load_data("karate")
CSBM = load_data("csbm", num_nodes=120, num_classes=3, feature_dim=6, avg_degree=6.0)


def recipe(data: str = "karate", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "data": {"name": data},
            "model": {"num_layers": 3, "hidden_feats": 8, **sections.pop("model", {})},
            "training": {"epochs": 10, **sections.pop("training", {})},
            **sections,
        }
    )


def run(trainer: Trainer, epochs: int) -> list[float]:
    return [step.loss for _ in range(epochs) for step in trainer.run_epoch()]


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_learns() -> None:
    trainer = Trainer(recipe(optimizer={"lr": 0.02}, training={"epochs": 60}), KARATE, 0)
    losses = run(trainer, 60)
    assert losses[-1] < 0.2 * losses[0]
    assert trainer.evaluate()["test"]["roc_auc"] > 0.9


@pytest.mark.dgl
def test_counts_epochs_and_stops_at_the_last_step() -> None:
    spec = recipe("csbm", training={"epochs": None, "steps": 7, "clusters": 6, "batch_size": 2})
    trainer = Trainer(spec, CSBM, 0)
    assert trainer.batches.steps_per_epoch == 3 and trainer.total_epochs == 3
    lengths = [len(trainer.run_epoch()) for _ in range(3)]
    assert lengths == [3, 3, 1]
    assert (trainer.epoch, trainer.step, trainer.total_steps) == (3, 7, 7)
    by_epochs = Trainer(recipe("csbm", training={"clusters": 6, "batch_size": 4}), CSBM, 0)
    assert (by_epochs.total_steps, by_epochs.total_epochs) == (20, 10)


# --- the optimizer ---


def test_weight_decay_groups() -> None:
    spec = recipe(
        model={"num_layers": 5},
        optimizer={"name": "adamw", "weight_decay": {"branches": 0.3, "ends": 0.1}},
    )
    trainer = Trainer(spec, KARATE, 0)
    decay = {
        id(p): group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for p in group["params"]
    }
    names = {name: decay.pop(id(p)) for name, p in trainer.model.named_parameters()}
    assert not decay
    inner = {name for name, amount in names.items() if amount == 0.3}
    assert inner == {f"convs.{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")}
    assert {amount for name, amount in names.items() if name not in inner} == {0.1}


@pytest.mark.parametrize("layers", [1, 2])
def test_networks_without_branches_train(layers: int) -> None:
    trainer = Trainer(recipe(model={"num_layers": layers}), KARATE, 0)
    before = weights(trainer)
    run(trainer, 2)
    assert not same(before, weights(trainer))


def gradients(trainer: Trainer, labels: torch.Tensor, mask: torch.Tensor) -> dict[str, Any]:
    """Gradient of the mean binary cross-entropy, written out."""
    trainer.model.train()
    scores = trainer.model(KARATE.graphs[0], KARATE.graphs[0].ndata["feat"])[mask, 0]
    y = labels[mask].float()
    loss = (torch.log1p(torch.exp(scores)) - y * scores).mean()
    parameters = dict(trainer.model.named_parameters())
    grads = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, grads, strict=True))


@pytest.mark.parametrize("clip", [None, 1e-2])
def test_sgd_step_by_hand(clip: float | None) -> None:
    spec = recipe(
        optimizer={
            "name": "sgd",
            "lr": 0.1,
            "momentum": 0.0,
            "weight_decay": {"branches": 0.3, "ends": 0.2},
            "clip_norm": clip,
        }
    )
    trainer = Trainer(spec, KARATE, 0)
    before = weights(trainer)
    grads = gradients(trainer, KARATE.labels, KARATE.splits[0]["train"])
    norm = math.sqrt(sum(g.square().sum().item() for g in grads.values()))
    scale = 1.0 if clip is None else clip / norm
    assert scale <= 1
    trainer.run_epoch()
    after = weights(trainer)
    for name, grad in grads.items():
        decay = 0.3 if name.startswith("convs.1.") else 0.2
        expected = before[name] - 0.1 * (scale * grad + decay * before[name])
        torch.testing.assert_close(after[name], expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)],
)
def test_optimizer_by_name(name: str, kind: type) -> None:
    trainer = Trainer(recipe(optimizer={"name": name, "momentum": 0.7}), KARATE, 0)
    assert type(trainer.optimizer) is kind
    if name == "sgd":
        assert trainer.optimizer.param_groups[0]["momentum"] == 0.7


def test_optimizer_where_the_fused_step_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldAdam(torch.optim.Adam):
        """As before PyTorch 2.4 on a CPU."""

        def __init__(self, params: Any, **arguments: Any) -> None:
            super().__init__(params, **arguments)
            if any(group["fused"] for group in self.param_groups):
                raise RuntimeError("`fused=True` requires all the params to be CUDA tensors.")

    monkeypatch.setattr(torch.optim, "Adam", OldAdam)
    trainer = Trainer(recipe(), KARATE, 0)
    assert not any(group["fused"] for group in trainer.optimizer.param_groups)
    trainer.run_epoch()


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("name", ["none", "cosine"])
def test_schedule(name: str, warmup: int) -> None:
    spec = recipe(
        optimizer={"lr": 0.3},
        schedule={"name": name, "warmup_steps": warmup},
        training={"epochs": None, "steps": 10},
    )
    trainer = Trainer(spec, KARATE, 0)
    rates = []
    for _ in range(10):
        trainer.run_epoch()
        (rate,) = {group["lr"] for group in trainer.optimizer.param_groups}
        rates.append(rate)
    expected = []
    for step in range(10):
        rate = 0.3
        if step < warmup:
            rate *= (step + 1) / warmup
        if name == "cosine":
            rate *= math.cos(math.pi * step / 20) ** 2
        expected.append(rate)
    assert rates == pytest.approx(expected)


def test_schedule_scales_transferred_rates_and_keeps_the_decay_by_group() -> None:
    spec = recipe(
        model={"num_layers": 10, "hidden_feats": 16},
        optimizer={
            "name": "adamw",
            "lr": 0.3,
            "transfer": True,
            "weight_decay": {"branches": 0.2, "ends": 0.1},
        },
        schedule={"name": "cosine", "warmup_steps": 4},
        training={"epochs": None, "steps": 10},
    )
    trainer = Trainer(spec, KARATE, 0)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    branch = 4 / math.sqrt(8)  # eight branches of scale 1/sqrt(8)
    expected = {"convs.0": (1, 1), "convs.1": (2 * branch, branch), "convs.9": (2, 1)}
    for step in range(10):
        trainer.run_epoch()
        factor = min(1.0, (step + 1) / 4) * math.cos(math.pi * step / 20) ** 2
        assert trainer.lr == pytest.approx(0.3 * factor)
        found = {
            names[id(p)]: (group["lr"], group["weight_decay"])
            for group in trainer.optimizer.param_groups
            for p in group["params"]
        }
        for conv, pair in expected.items():
            for kind, times in zip(("weight", "bias"), pair, strict=True):
                lr, decay = found[f"{conv}.{kind}"]
                assert lr == pytest.approx(0.3 * times * factor)
                assert decay * times == pytest.approx(0.2 if conv == "convs.1" else 0.1)


# --- loss and metrics ---


def test_first_loss_with_and_without_class_weights() -> None:
    uneven = (torch.arange(120) % 10).clamp(7) - 7
    data = replace(CSBM, labels=uneven)
    for kind in ("none", "balanced"):
        trainer = Trainer(recipe("csbm", training={"class_weights": kind}), data, 0)
        mask = CSBM.splits[0]["train"]
        labels = uneven[mask]
        assert 0 < min(labels.bincount()) * 2 < max(labels.bincount())
        with torch.no_grad():
            trainer.model.train()
            scores = trainer.model(CSBM.graphs[0], CSBM.graphs[0].ndata["feat"])[mask]
        every = torch.ones(3)
        if kind == "balanced":
            every = torch.tensor(
                compute_class_weight("balanced", classes=np.arange(3), y=labels.numpy())
            ).float()
        losses = -scores.log_softmax(1)[range(len(labels)), labels]
        expected = (losses * every[labels]).sum() / every[labels].sum()
        assert run(trainer, 1)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_of_a_regression_are_refused() -> None:
    data = replace(KARATE, target="regression", labels=KARATE.labels.float())
    with pytest.raises(DGLError, match="regression"):
        Trainer(recipe(training={"class_weights": "balanced"}), data, 0)


def test_evaluation_against_scikit_learn() -> None:
    trainer = Trainer(recipe("csbm", model={"dropout": 0.5}), CSBM, 0)
    run(trainer, 5)
    result = trainer.evaluate()
    trainer.model.eval()
    with torch.no_grad():
        scores = trainer.model(CSBM.graphs[0], CSBM.graphs[0].ndata["feat"])
    for part, mask in CSBM.splits[0].items():
        predicted, labels = scores[mask].argmax(1), CSBM.labels[mask]
        assert result[part]["accuracy"] == metrics.accuracy_score(labels, predicted)
        assert result[part]["macro_f1"] == metrics.f1_score(labels, predicted, average="macro")
        loss = metrics.log_loss(labels, scores[mask].double().softmax(1), labels=[0, 1, 2])
        assert result[part]["loss"] == pytest.approx(loss, rel=1e-5)
    assert trainer.evaluate(["test"]) == {"test": result["test"]}


def test_evaluation_does_not_touch_training() -> None:
    spec = recipe("csbm", model={"dropout": 0.5, "norm_layer": "batch"})
    expected = run(Trainer(spec, CSBM, 0), 4)
    trainer = Trainer(spec, CSBM, 0)
    losses = []
    for _ in range(4):
        losses += run(trainer, 1)
        trainer.evaluate()
    assert losses == expected


def test_better() -> None:
    assert is_better("multiclass", {"accuracy": 0.1, "loss": 9.0}, None)
    best = {"accuracy": 0.5, "loss": 1.0}
    assert is_better("multiclass", {"accuracy": 0.6, "loss": 9.0}, best)
    assert is_better("multiclass", {"accuracy": 0.5, "loss": 0.9}, best)
    assert not is_better("multiclass", dict(best), best)
    assert not is_better("multiclass", {"accuracy": 0.4, "loss": 0.1}, best)
    assert is_better("regression", {"mae": 0.4, "loss": 9.0}, {"mae": 0.5, "loss": 1.0})
    assert not is_better("regression", {"mae": 0.6, "loss": 0.1}, {"mae": 0.5, "loss": 1.0})
    assert is_better("multiclass", {"accuracy": 0.4, "loss": 0.9}, best, "loss")
    assert not is_better("multiclass", {"accuracy": 0.9, "loss": 1.1}, best, "loss")
    assert is_better("multiclass", {"accuracy": 0.6, "loss": 1.0}, best, "loss")
    assert is_better("regression", {"mae": 0.4, "loss": 1.0}, {"mae": 0.5, "loss": 1.0}, "loss")
    assert not is_better("multiclass", dict(best), best, "loss")
    nan = float("nan")  # then the loss decides
    assert is_better("binary", {"roc_auc": nan, "loss": 0.1}, {"roc_auc": nan, "loss": 0.2})
    assert not is_better("binary", {"roc_auc": nan, "loss": 0.3}, {"roc_auc": nan, "loss": 0.2})
    assert is_better("binary", {"roc_auc": 0.1, "loss": 0.3}, {"roc_auc": nan, "loss": 0.2})
    assert not is_better("binary", {"roc_auc": nan, "loss": 0.1}, {"roc_auc": 0.1, "loss": 0.2})


def with_splits(data: TaskData, count: int) -> TaskData:
    """Split i rotates the items by i."""
    first = data.splits[0]
    return replace(
        data,
        splits=[{part: mask.roll(shift) for part, mask in first.items()} for shift in range(count)],
    )


@pytest.mark.parametrize("seed", [0, 1, 5, 9])
def test_seed_picks_the_fold(seed: int) -> None:
    data = with_splits(KARATE, 4)
    (batch,) = Trainer(recipe(), data, seed).batches.evaluation
    for part in ("train", "val", "test"):
        assert torch.equal(batch.masks[part], KARATE.splits[0][part].roll(seed % 4))


@pytest.mark.dgl
def test_edge_level_with_edge_features() -> None:
    graph = CSBM.graphs[0]
    src, dst = graph.edges()
    graph = graph.clone()
    same_class = (CSBM.labels[src] == CSBM.labels[dst]).long()
    graph.edata["feat"] = torch.randn(graph.num_edges(), 2)
    part = torch.arange(graph.num_edges()) % 3
    data = TaskData(
        "edges",
        [graph],
        "edge",
        "binary",
        same_class,
        [{name: part == i for i, name in enumerate(("train", "val", "test"))}],
        1,
    )
    trainer = Trainer(recipe(training={"class_weights": "balanced"}), data, 0)
    losses = run(trainer, 10)
    assert losses[-1] < losses[0]
    assert 0 <= trainer.evaluate()["test"]["roc_auc"] <= 1


# --- seeds and state ---


@pytest.mark.dgl
def test_seed_fixes_every_bit() -> None:
    spec = recipe(
        "csbm", model={"dropout": 0.3}, training={"clusters": 4, "batch_size": 2, "epochs": 5}
    )
    torch.manual_seed(123)
    first = Trainer(spec, CSBM, 7)
    losses = run(first, 5)
    torch.randn(10)
    second = Trainer(spec, CSBM, 7)
    assert run(second, 5) == losses
    assert same(weights(first), weights(second))
    other = Trainer(spec, CSBM, 8)
    assert run(other, 5) != losses


@pytest.mark.dgl
@settings(max_examples=8, deadline=None)
@given(
    optimizer=st.sampled_from(["adam", "adamw", "sgd"]),
    momentum=st.sampled_from([0.0, 0.9]),
    schedule=st.sampled_from(["none", "cosine"]),
    norm_layer=st.sampled_from(["none", "batch"]),
    transfer=st.booleans(),
    batched=st.booleans(),
    epochs=st.integers(0, 4),
)
def test_state_mid_training(
    optimizer, momentum, schedule, norm_layer, transfer, batched, epochs
) -> None:
    spec = recipe(
        "csbm",
        model={"dropout": 0.3, "norm_layer": norm_layer},
        optimizer={
            "name": optimizer,
            "momentum": momentum,
            "weight_decay": 0.01,
            "transfer": transfer,
        },
        schedule={"name": schedule, "warmup_steps": 3},
        training={"epochs": 5, **({"clusters": 4, "batch_size": 3} if batched else {})},
    )
    trainer = Trainer(spec, CSBM, 1)
    run(trainer, epochs)
    state = copy.deepcopy(trainer.state())  # its tensors are the live ones
    rest = run(trainer, 5 - epochs)

    again = Trainer(spec, CSBM, 1)
    run(again, 2)
    torch.randn(3)
    again.load_state(*state)
    assert (again.epoch, again.step) == (epochs, state[1]["step"])
    assert run(again, 5 - epochs) == rest
    assert same(weights(trainer), weights(again))


# --- divergence ---


def test_divergence_by_weights_names_step_and_layer() -> None:
    trainer = Trainer(recipe(), KARATE, 3)
    run(trainer, 4)
    with torch.no_grad():
        trainer.model.convs[1].weight[0, 0] = math.nan
    with pytest.raises(DivergenceError) as caught:
        trainer.run_epoch()
    message = str(caught.value)
    assert "loss is nan at step 5 of test, seed 3" in message
    assert "the weights convs.1.weight" in message
    assert "optimizer.lr" in message and "clip_norm" in message


def test_divergence_by_features_names_the_first_layer() -> None:
    spec = recipe(model={"num_layers": 12, "residual": "plain", "init": "glorot", "t": 1.0})
    trainer = Trainer(spec, KARATE, 0)
    with torch.no_grad():
        for conv in list(trainer.model.convs)[:6]:
            conv.weight.mul_(1e9)
    firsts = []
    for index, conv in enumerate(trainer.model.convs):
        conv.register_forward_hook(
            lambda module, inputs, output, index=index: (
                firsts.append(index) if not output.isfinite().all() else None
            )
        )
    trainer.model(KARATE.graphs[0], KARATE.graphs[0].ndata["feat"])
    assert 0 < firsts[0] < 6
    with pytest.raises(DivergenceError) as caught:
        trainer.run_epoch()
    assert f"the output of convs.{firsts[0]}" in str(caught.value)
    for advice in ("model.init: critical", "model.residual: fixup"):
        assert advice in str(caught.value)


def test_divergence_found_by_evaluation_names_step_and_layer() -> None:
    # With one batch an epoch, evaluation comes before the next step's loss.
    trainer = Trainer(recipe(optimizer={"lr": 1e30}), KARATE, 0)
    trainer.run_epoch()
    with pytest.raises(DivergenceError, match=r"after step 1 of test, seed 0.*convs\.\d"):
        trainer.evaluate()


def test_divergence_is_not_blamed_for_other_errors() -> None:
    trainer = Trainer(recipe(), with_splits(KARATE, 1), 0)  # a copy, since others use KARATE
    for batch in trainer.batches.evaluation:
        batch.masks["val"][:] = False
    with pytest.raises(DGLError, match="non-zero length") as caught:
        trainer.evaluate()
    assert not isinstance(caught.value, DivergenceError)


# --- devices and widths ---


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "--device gpu: not a device"),
        ("", "--device : not a device"),
        ("cuda:x", "not a device"),
        ("meta", "only cpu and cuda"),
        ("cuda:99", "no such CUDA device"),
    ],
)
def test_no_such_device(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_device(name)


def test_cuda_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="--device cuda: there is no such CUDA device here"):
        find_device("cuda")
    assert find_device("cpu") == torch.device("cpu")


def test_model_takes_widths_and_head_from_the_data() -> None:
    model = build_model(recipe("csbm", model={"options": {"norm": "right"}}).model, CSBM)
    assert model.config["in_feats"] == 6 and model.config["out_feats"] == 3
    assert model.config["head"] == "node" and model.config["norm"] == "right"
    assert isinstance(model, nn.Module)
