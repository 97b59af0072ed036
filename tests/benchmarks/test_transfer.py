"""Learning-rate curves: where the best rate lies, and what a killed measurement leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import transfer


def parabola(bottom: float) -> transfer.Curve:
    return {power: dict.fromkeys(range(3), (power - bottom) ** 2 + 1) for power in range(-9, 0)}


@pytest.mark.parametrize("bottom", [-6.0, -5.7, -3.2])
def test_best_rate_is_the_bottom_of_the_parabola(bottom: float) -> None:
    assert transfer.best_rate(parabola(bottom)) == pytest.approx(transfer.RATIO**bottom)
    assert transfer.shift([parabola(bottom), parabola(-4)]) == pytest.approx(
        transfer.RATIO ** abs(bottom + 4)
    )


def test_what_was_measured_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "RESULTS", tmp_path)
    key = ("digits", "resgcn", "adam", 4)
    line = {"transfer": True, "size": "8x32", "power": -7, "seed": 0, "losses": [1.0, 0.5, 3.0]}
    file = transfer.Measurements(key).file
    file.write_text(json.dumps(line) + "\n" + json.dumps(line)[:30])  # killed in the second line
    found = transfer.Measurements(key)
    # Losses above the cap count as the cap, and so do those after a divergence.
    assert found.scores[True, "8x32"] == {-7: {0: (1.0 + 0.5 + 2 + 2) / 4}}
    assert transfer.complete(found) == []
    assert file.read_text() == json.dumps(line) + "\n"  # so that the next line stands alone
