"""Accuracy by depth: what the arms are, which scores are computed, the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import accuracy_by_depth
from benchmarks.accuracy_by_depth import (
    DEPTHS,
    GCNII,
    RATES,
    ROWS,
    SEEDS,
    TUNING,
    ByRecipe,
    OfDGL,
    Rows,
    bound,
    report,
    train,
)
from dgl_deepgnn.speedup.arms import PRINCIPLED, STOCK, USUAL


def test_no_network_can_do_it_in_fewer_layers() -> None:
    assert [bound(depth) for depth in DEPTHS] == [0.2, 0.2, 1.0, 1.0, 1.0, 1.0]
    assert bound(31) == 0.2


def test_arms_are_of_the_depth_and_rate_asked_for() -> None:
    ours, usual = (ByRecipe(arm, 16, 0.006, 0)._trainer for arm in (PRINCIPLED, USUAL))
    assert ours.recipe.model.num_layers == usual.recipe.model.num_layers == 16
    assert ours.recipe.optimizer.lr == usual.recipe.optimizer.lr == 0.006
    assert (ours.recipe.model.residual, usual.recipe.model.residual) == ("initial", "plain")
    assert len(OfDGL(16, 0.01, 0)._model.convs) == 16


def test_gcnii_reads_the_rings_one_by_one() -> None:
    training = OfDGL(2, 0.01, 0)
    graph, feat = training._whole
    alone = accuracy_by_depth.rings().graphs[0]
    nodes = alone.num_nodes()
    assert graph.batch_size > 1
    training._model.eval()
    with torch.no_grad():
        assert torch.allclose(
            training._model(graph, feat)[:nodes],
            training._model(alone, alone.ndata["feat"]),
            atol=1e-6,
        )


def test_test_scores_are_of_reported_seeds_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accuracy_by_depth, "EPOCHS", 5)
    assert "test" not in train(STOCK, 4, 0.002, TUNING)
    assert train(GCNII, 4, 0.01, SEEDS[0])["test"] == 0.2  # never above the bound


def test_a_rate_is_chosen_by_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trained(arm: str, depth: int, rate: float, seed: int) -> dict[str, object]:
        row = {"arm": arm, "depth": depth, "rate": rate, "seed": seed, "epoch": 5}
        val = {0.002: 0.4, 0.006: 0.6, 0.02: 0.5}[rate]
        if arm == PRINCIPLED and rate == 0.006:
            val = 1.0
        return row | {"val": val} | ({} if seed == TUNING else {"test": val - 0.1 * seed})

    monkeypatch.setattr(accuracy_by_depth, "train", trained)
    rows = Rows(tmp_path / "rows.jsonl")
    rows.measure(USUAL, 64)
    assert [row["rate"] for row in rows.rows.values()] == [*RATES[USUAL], 0.006, 0.006, 0.006]
    assert rows.tests(USUAL, 64) == pytest.approx([0.6, 0.5, 0.4])
    rows.measure(PRINCIPLED, 64)
    tried = [key[2] for key in rows.rows if key[0] == PRINCIPLED and key[3] == TUNING]
    assert tried == [0.002, 0.006]  # which is perfect
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(rows.rows.values())
    text = report(Rows(tmp_path / "rows.jsonl"))
    assert "| usual practice | - | - | - | 0.50 (0.40 to 0.60), rate 0.006 | - | - |" in text


def test_the_page_is_that_of_the_rows() -> None:
    assert ROWS.with_suffix(".md").read_text("utf-8") == report(Rows())
