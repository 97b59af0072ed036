"""Several processes train as one would, started by torchrun; whichever dies, the run goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from dgl_deepgnn.data import class_weights, load_data, loss_function, loss_weight
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.processes import Processes
from dgl_deepgnn.training.run import train
from dgl_deepgnn.training.trainer import Trainer

torchrun = pytest.mark.skipif(
    sys.version_info >= (3, 12) and torch.__version__.startswith("2.2."),
    reason="torchrun of PyTorch 2.2 crashes on Python 3.12",
)
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
CLUSTERS = {"kind": "clusters", "parts": 7, "size": 5}


def recipe(data: Any = "csbm", **sections: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "shared",
            "data": {"name": data} if isinstance(data, str) else data,
            "model": {"num_layers": 4, "hidden_feats": 8, **sections.pop("model", {})},
            "training": {"epochs": 2, "batching": CLUSTERS, **sections.pop("training", {})},
            **sections,
        }
    )


def trainer(recipe: Recipe, processes: Processes = Processes()) -> Trainer:  # noqa: B008 (frozen)
    return Trainer(recipe, load_data(recipe.data.name, **recipe.data.options), 0, None, processes)


# --- the loss of the shares ---


@pytest.mark.parametrize("target", ["multiclass", "binary", "multilabel", "regression"])
@given(cuts=st.lists(st.integers(0, 12), max_size=3), seed=st.integers(0, 99))
def test_the_mean_loss_is_that_of_the_shares_by_weight(
    target: Any, cuts: list[int], seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    columns = {"multiclass": 3, "multilabel": 4}.get(target, 1)
    scores = torch.randn(12, columns, generator=draw, dtype=torch.float64)
    labels, weights = torch.randint(3, (12,), generator=draw), None
    if target in ("binary", "multilabel"):
        labels = torch.randint(2, (12, columns), generator=draw)
        labels[0], labels[1] = 0, 1
    if target == "regression":
        labels = torch.randn(12, generator=draw)
    else:
        weights = class_weights(labels, target, 3).double()
    loss = loss_function(target, weights)
    bounds = [0, *sorted(cuts), 12]
    shares = [slice(a, b) for a, b in pairwise(bounds) if a < b]
    weight = [loss_weight(target, labels[share], weights) for share in shares]
    mean = sum(loss(scores[s], labels[s]) * w for s, w in zip(shares, weight, strict=True))
    torch.testing.assert_close(mean / sum(weight), loss(scores, labels))


# --- what cannot be shared ---


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"training": {"batching": {"kind": "full"}}}, "kind full a batch of csbm is a single one"),
        (
            {"training": {"batching": {"kind": "shadow", "size": 20}}},
            "kind shadow a batch of csbm is a single one. Use kind clusters",
        ),
        ({"model": {"norm_layer": "batch"}}, "norm_layer batch takes its statistics"),
    ],
)
def test_what_two_processes_cannot_share(sections: Any, message: str) -> None:
    trainer(recipe(**sections))
    with pytest.raises(UserError, match=message):
        trainer(recipe(**sections), Processes(0, 2))


@torchrun
def test_only_train_runs_in_several_processes(tmp_path: Path) -> None:
    done = subprocess.run(
        [*TORCHRUN, "2", "-m", "dgl_deepgnn", "speedup", "resgcn64.digits"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode != 0
    assert "only train shares its work among several. Run speedup by itself." in done.stderr
    assert not any(tmp_path.iterdir())


# --- the gradient ---

SCRIPT = """
import json, sys
from safetensors.torch import save_file
from dgl_deepgnn.data import load_data
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.processes import join
from dgl_deepgnn.training.trainer import Trainer

with join() as processes:
    for name, content in json.load(open(sys.argv[1])).items():
        recipe = Recipe.model_validate(content)
        data = load_data(recipe.data.name, **recipe.data.options)
        trainer = Trainer(recipe, data, 0, None, processes)
        trainer.optimizer.step = lambda: None
        steps = trainer.run_epoch()
        save_file(
            {name: p.grad for name, p in trainer.model.named_parameters()},
            f"{name}-{processes.rank}.safetensors",
            {"loss": repr([step.loss for step in steps]), "nodes": repr(steps[0].nodes)},
        )
"""
FAMILIES = {
    name: recipe(model={"name": name, "residual": residual}, training={"class_weights": "balanced"})
    for name, residual in (("resgcn", "fixup"), ("resgraphsage", "scaled"), ("resgin", "plain"))
}
SHARED = {
    **FAMILIES,
    # Of 3 processes one has no graph of the last batch, which is smaller.
    "graphs": recipe(
        "digits-grid",
        training={"batching": {"kind": "graphs", "size": 4}, "steps": 3, "epochs": None},
    ),
    "few": recipe(training={"batching": {"kind": "clusters", "parts": 4, "size": 3}}),
    "full": recipe("long-range", training={"batching": {"kind": "full"}}),
    "edges": recipe(
        {"name": "tracks", "options": {}},
        training={"batching": {"kind": "graphs", "size": 5}, "steps": 2, "epochs": None},
    ),
}


@torchrun
def test_three_processes_have_the_gradient_of_one(tmp_path: Path) -> None:
    """Of the same batch: families, levels, class weights, more processes than graphs."""
    cases = {name: some.model_dump(mode="json") for name, some in SHARED.items()}
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [*TORCHRUN, "3", "script.py", "cases.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    for name, some in SHARED.items():
        alone = trainer(some)
        alone.optimizer.step = lambda: None  # type: ignore[method-assign]
        alone.run_epoch()
        for rank in range(3):
            found = load_file(tmp_path / f"{name}-{rank}.safetensors")
            for key, parameter in alone.model.named_parameters():
                assert parameter.grad is not None
                norm = parameter.grad.norm()
                difference = (found[key] - parameter.grad).norm()
                assert difference <= 1e-4 * norm + 1e-9, (name, rank, key)


# --- whole runs ---


@pytest.fixture
def start(background: Any) -> Any:
    """Function that starts ``torchrun ... -m dgl_deepgnn train`` in the background."""
    return lambda processes, *arguments: background(
        *TORCHRUN, processes, "-m", "dgl_deepgnn", "train", *arguments
    )


def files(folder: Path) -> dict[str, str]:
    """Weights and step losses of a run; names only of what holds times."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = ""
        if path.name == "model.safetensors":
            found[name] = path.read_bytes().hex()
        elif path.name == "metrics.jsonl":
            lines = path.read_text().splitlines()
            found[name] = str([json.loads(line)["step_losses"] for line in lines])
    return found


def worker(process: subprocess.Popen[str], rank: int) -> psutil.Process:
    children = psutil.Process(process.pid).children(recursive=True)
    (found,) = [child for child in children if child.environ().get("RANK") == str(rank)]
    return found


@torchrun
def test_a_worker_that_dies_ends_the_job_which_goes_on_to_the_same_bits(
    tmp_path: Path, start: Any
) -> None:
    some = recipe(
        model={"dropout": 0.3}, training={"epochs": 60, "evaluate_every": 7}, seeds=[3, 4]
    )
    (tmp_path / "recipe.yaml").write_text(some.to_yaml())
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = start(2, "recipe.yaml", "--output", whole)
    out, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert out.count("test accuracy") == 1  # the first process alone reports
    assert err.count("Run folder:") == 1
    with pytest.warns(UserWarning, match="Number of processes: 2 when .* was started, now 1"):
        train(some, whole, resume=True, progress=False)

    process = start(2, "recipe.yaml", "--output", killed)
    for rank, epochs in ((1, 20), (0, 75)):
        limit = time.monotonic() + 300
        while sum(log.read_text().count("\n") for log in killed.glob("*/metrics.jsonl")) < epochs:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < limit, "no progress"
            time.sleep(0.01)
        worker(process, rank).send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert process.returncode != 0
        last = f"Process {1 - rank} of 2 stops: another one has ended"
        assert last in err and "`train --resume`" in err, err
        process = start(2, "--resume", killed)
    _, err = process.communicate(timeout=500)
    assert process.returncode == 0, err
    assert files(killed) == files(whole)


@torchrun
def test_a_divergence_is_reported_once(tmp_path: Path, start: Any) -> None:
    some = recipe(model={"init": "glorot"}, optimizer={"name": "sgd", "lr": 1e30})
    (tmp_path / "recipe.yaml").write_text(some.to_yaml())
    process = start(2, "recipe.yaml", "--output", "run")
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    assert err.count("\nError: ") == 1 and "Try a learning rate below 1e+30" in err
