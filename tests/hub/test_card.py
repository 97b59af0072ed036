from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dgl_deepgnn.hub.card import model_card
from dgl_deepgnn.hub.config import Config, read_config

NAME = "tiny.karate"


@pytest.fixture
def content(published: Path) -> tuple[Config, dict[str, Any], dict[str, Any]]:
    folder = published / NAME
    return (
        read_config(folder / "config.json"),
        json.loads((folder / "metrics.json").read_text()),
        json.loads((folder / "speedup.json").read_text()),
    )


def test_the_card_comes_from_the_files_alone(content: Any, published: Path) -> None:
    assert model_card(*content) == (published / NAME / "README.md").read_text()


def test_the_card_says_what_a_reader_needs(content: Any) -> None:
    config, metrics, speedups = content
    config.data.facts = {"cuts": {"pt_min_gev": 0.6}, "proper|name": "a|b"}
    metrics["test"]["roc_auc"] = {"mean": 0.87654321, "std": 0.0123456, "n": 2}
    card = model_card(config, metrics, speedups)
    assert "| roc_auc | 0.8765 | 0.0123 |" in card
    for result in metrics["seeds"]:
        best, val, test = result["best_epoch"], result["val"], result["test"]
        line = f"| {result['seed']} | {best} | {val['roc_auc']:.4f} | {test['roc_auc']:.4f} |"
        assert line in card
    assert "pt_min_gev 0.6" in card
    assert r"proper\|name" in card
    assert "Transductive" in card
    assert "deviation): smaller differences" in card
    assert config.licence in card
    assert config.data.licence in card
    assert config.data.citation in card
    assert config.data.fingerprint in card
    for picture in re.findall(r"\]\((.*?)\)", card):
        assert picture in ("loss.png", "speedup.png")


def test_the_card_says_how_to_evaluate_on_data_that_no_config_may_name(content: Any) -> None:
    config, metrics, speedups = content
    assert f"dgl-deepgnn evaluate {NAME}\n" in model_card(*content)
    config.recipe.data.name = "file:my graphs.bin"
    card = model_card(config, metrics, speedups)
    assert f"dgl-deepgnn evaluate {NAME} --data 'file:my graphs.bin'\n" in card


def test_bounds_and_failures_are_marked(content: Any) -> None:
    config, metrics, speedups = content
    speedups["budget"] = 100
    for steps in speedups["arms"].values():
        steps["steps"] = [[3, None], [None, None]]
    pair = "principled vs stock"
    none = {"ratio": None, "low": None, "high": None, "bound": None}
    bound = {"ratio": 20.0, "low": 10.0, "high": 25.0, "bound": "lower"}
    speedups["speedups"] = {pair: [bound, none]}
    card = model_card(config, metrics, speedups)
    assert f"| {pair} | > 20.0 (10.0 to 25.0) | neither arm gets there |" in card
    assert re.search(r"\| stock \| [\d.e-]+ \| > 100 \| > 100 \|", card)


def test_one_seed_has_no_spread(content: Any) -> None:
    config, metrics, speedups = content
    metrics["test"]["roc_auc"]["std"] = None
    del metrics["seeds"][1:], speedups["seeds"][1:]
    config.model.arguments["num_layers"] = config.model.arguments["in_feats"] = 1
    card = model_card(config, metrics, speedups)
    assert re.search(r"\| roc_auc \| [\d.]+ \| - \|", card)
    assert "Another seed" not in card
    assert "Test part, 1 seed, " in card and "medians of 1 seed, " in card
    assert "| 1 graph convolution |" in card and "with 1 node feature," in card
