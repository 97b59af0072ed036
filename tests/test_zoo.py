"""Every published model, held to its files, and its metric computed anew."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.hub import evaluate, from_pretrained, list_pretrained
from dgl_deepgnn.hub.card import model_card
from dgl_deepgnn.hub.config import Config, read_config
from dgl_deepgnn.hub.index import Index
from dgl_deepgnn.hub.publishing import make_entry
from dgl_deepgnn.training.run import summarize

ZOO = Path(str(files("dgl_deepgnn.zoo")))
NAMES = list_pretrained(zoo=ZOO)
MAX_BYTES = 30e6
PLANETOID = ("cora", "citeseer", "pubmed")


def read(name: str) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    folder = ZOO / name
    return (
        read_config(folder / "config.json"),
        json.loads((folder / "metrics.json").read_text()),
        json.loads((folder / "speedup.json").read_text()),
    )


def test_the_zoo_is_small_and_holds_nothing_else() -> None:
    everything = {path.name for path in ZOO.iterdir() if not path.name.startswith((".", "_"))}
    assert everything - {"index.json"} == set(NAMES)
    assert sum(file.stat().st_size for file in ZOO.rglob("*") if file.is_file()) < MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_agrees_with_its_files(name: str) -> None:
    config, metrics, speedups = read(name)
    entry = Index.parse((ZOO / "index.json").read_bytes(), "index.json").models[name]
    # Sizes, hashes and everything that a listing shows, from the files.
    assert entry == make_entry(ZOO / name, config, metrics, speedups)
    assert config.name == config.recipe.name == speedups["recipe"] == name
    assert (ZOO / name / "README.md").read_text() == model_card(config, metrics, speedups)
    model = from_pretrained(name, ZOO)  # shapes
    stored = load_file(ZOO / name / "model.safetensors")
    assert entry.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert stored.keys() == model.state_dict().keys()
    results = metrics["seeds"]
    assert [result["seed"] for result in results] == config.seeds == config.recipe.seeds
    for metric, summary in metrics["test"].items():
        assert summary == summarize([result["test"][metric] for result in results])
    assert entry.n >= (10 if config.data.name in PLANETOID else 5)
    assert len(speedups["seeds"]) >= 5


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_metric_is_reproduced(name: str) -> None:
    config, _, _ = read(name)
    try:
        data = load_data(config.data.name, **config.data.options)
    except DGLError as error:
        pytest.skip(f"the data of {name} is not at hand: {error}")
    result = evaluate(name, ZOO, data=data)
    assert result["agrees"], result
