"""Same seed, same threads: the same bits, in one process and in two."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest
import torch

from dgl_deepgnn.data import load_data
from dgl_deepgnn.recipe import load_recipe
from dgl_deepgnn.training.trainer import Trainer

FAMILIES = ("resgcn", "resgraphsage", "resgin")
TASKS = {
    "node": ["data.name=csbm", "data.options={num_nodes: 200}"],
    "graph": ["data.name=digits-grid", "data.options={}", "training.batch_size=100"],
    "edge": ["data.name=tracks", "data.options={events: 8, particles: 8}"],
}
CHANGES = ["model.num_layers=6", "model.dropout=0.2", "training.epochs=null", "training.steps=3"]
THREADS = (1, 2)


def fingerprint(family: str, level: str) -> str:
    """SHA-256 of everything that a short training leaves behind."""
    recipe = load_recipe("resgcn64.digits", [f"model.name={family}", *TASKS[level], *CHANGES])
    trainer = Trainer(recipe, load_data(recipe.data.name, **recipe.data.options), seed=3)
    while trainer.step < trainer.total_steps:
        trainer.run_epoch()
    digest = hashlib.sha256(repr(trainer.evaluate()).encode())
    for name, value in sorted(trainer.state()[0].items()):
        digest.update(name.encode() + value.detach().numpy().tobytes())
    return digest.hexdigest()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", TASKS)
def test_in_one_process(family: str, level: str) -> None:
    assert fingerprint(family, level) == fingerprint(family, level)


def test_another_seed_gives_other_bits() -> None:
    recipe = load_recipe("resgcn64.digits", [*TASKS["node"], *CHANGES])
    data = load_data(recipe.data.name, **recipe.data.options)
    first, second = (list(Trainer(recipe, data, seed).model.parameters()) for seed in (0, 1))
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("threads", THREADS)
def test_in_two_processes(threads: int) -> None:
    command = [sys.executable, __file__, str(threads)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=300)[0] for process in running)
    assert len(first.split()) == len(FAMILIES)
    assert first == second


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    for name in FAMILIES:
        print(fingerprint(name, "graph"))
