"""Verdicts on figures that are given, not measured."""

from __future__ import annotations

import numpy as np
import pytest

from dgl_deepgnn.diagnostics.verdicts import Verdict, judge

ROWS = 33


def scale(
    signal: np.ndarray, sensitivity: np.ndarray | float = 1.0, width: int = 1000, **more: np.ndarray
) -> Verdict:
    signal = np.atleast_2d(signal).astype(float)
    measured = {
        "mean_square": signal,
        "correlation": np.full_like(signal, 0.1),
        "dirichlet": np.full_like(signal, 1.0),
        "sensitivity": np.broadcast_to(sensitivity, signal.shape),
        **more,
    }
    rows = signal.shape[1]
    return judge(measured, np.arange(rows), np.full(rows, width))[0]


@pytest.mark.parametrize(
    ("signal", "status"),
    [
        (np.ones(ROWS), "healthy"),
        (0.5 ** np.arange(ROWS), "vanishing"),
        (2.0 ** np.arange(ROWS), "exploding"),
        (1.12 ** np.arange(ROWS), "healthy"),  # e**3.6
        (np.r_[1e6, np.ones(ROWS - 1)], "healthy"),  # raw features in front of a normalization
        (np.r_[1e-6, np.ones(ROWS - 1)], "healthy"),
        (np.r_[0.5 ** np.arange(ROWS - 1), 0.01], "vanishing"),  # lifted by the last layer's bias
        (np.r_[np.ones(20), 10.0 ** np.arange(13)], "exploding"),
        (np.r_[np.ones(20), np.full(13, np.nan)], "exploding"),
        (np.r_[np.ones(20), np.full(13, np.inf)], "exploding"),
        (np.r_[np.ones(20), np.zeros(13)], "vanishing"),
        (np.ones(2), "healthy"),
        (np.array([1, 1e4]), "exploding"),
        (np.ones(1), "healthy"),
    ],
)
def test_status_by_signal(signal: np.ndarray, status: str) -> None:
    assert scale(signal).status == status


@pytest.mark.parametrize(
    ("first", "status"), [(1.0, "healthy"), (1e6, "exploding"), (1e-6, "vanishing")]
)
def test_status_by_gradient(first: float, status: str) -> None:
    sensitivity = np.r_[first, np.ones(ROWS - 1)]
    assert scale(np.ones(ROWS), sensitivity).status == status
    # Layers that start at zero, and the output, have none.
    sensitivity[5:10], sensitivity[-1] = 0.0, np.nan
    assert scale(np.ones(ROWS), sensitivity).status == status


def test_training_mode_is_judged_too() -> None:
    training = np.atleast_2d(1.5 ** np.arange(ROWS))
    verdict = scale(np.ones(ROWS), training=training)
    assert verdict.status == "exploding"
    assert "Without dropout it would be healthy" in verdict.message
    level = scale(training, training=training)
    assert level.status == "exploding" and "Without dropout" not in level.message


def draws_at(log_change: float, spread: float, seed: int, draws: int = 10) -> np.ndarray:
    """Mean squares that change by a power of ten in ten layers, with noise between the draws."""
    generator = np.random.default_rng(seed)
    noise = 10 ** (spread * generator.standard_normal((draws, 1)))
    path = 10 ** (log_change * np.minimum(np.arange(ROWS) / 10, 1))
    return np.where(np.arange(ROWS) > 1, path * noise, path)


def test_near_the_threshold_is_said() -> None:
    """Where another set of draws changes the status, nearly every set says so."""
    # The bound is a factor 1000 behind the second row; the mean of the noise is 10**0.1.
    verdicts = [scale(draws_at(-3.44, 0.3, seed)) for seed in range(100)]
    called = [verdict.status for verdict in verdicts]
    assert 20 < called.count("healthy") < 80 and 20 < called.count("vanishing") < 80
    assert sum(verdict.near for verdict in verdicts) > 85
    assert all(("Near the threshold: other draws" in v.message) == v.near for v in verdicts)


@pytest.mark.parametrize(("change", "status"), [(-6.0, "vanishing"), (0.0, "healthy")])
def test_far_from_the_threshold_nothing_is_said(change: float, status: str) -> None:
    for seed in range(20):
        verdict = scale(draws_at(change, 0.2, seed))
        assert verdict.status == status and not verdict.near


def test_one_draw_has_no_interval() -> None:
    assert not scale(draws_at(-3.0, 0.3, 0, draws=1)).near


@pytest.mark.parametrize(
    ("width", "spread", "said"), [(32, 1.0, True), (1000, 1.0, False), (32, 0.1, False)]
)
def test_narrow_deep_draws_scatter(width: int, spread: float, said: bool) -> None:
    generator = np.random.default_rng(0)
    signal = np.ones((10, ROWS)) * np.exp(spread * generator.standard_normal((10, 1)))
    assert ("5 * depth / width = 5 " in scale(signal, width=width).message) == said


def test_rows_outside_the_body_do_not_count() -> None:
    signal = np.r_[0.5 ** np.arange(32), 5.0][None]
    other = np.full_like(signal, 0.5)
    measured = dict.fromkeys(("correlation", "dirichlet", "sensitivity"), other)
    verdict = judge({**measured, "mean_square": signal}, np.arange(32), np.full(33, 64))[0]
    assert "to 4.66e-10 over 31 layers" in verdict.message


@pytest.mark.parametrize(
    ("correlation", "dirichlet", "statuses"),
    [
        (0.9, 1.0, ["healthy", "healthy"]),
        (0.999, 1.0, ["healthy", "oversmoothed"]),
        (0.9, 1e-6, ["oversmoothed", "healthy"]),
        (np.nan, np.nan, ["healthy", "healthy"]),
    ],
)
def test_differences(correlation: float, dirichlet: float, statuses: list[str]) -> None:
    one = np.ones((1, 5))
    ends = {
        "correlation": np.where(np.arange(5) < 4, 0.0, correlation)[None],
        "dirichlet": np.where(np.arange(5) < 4, 2.0, dirichlet)[None],
    }
    verdicts = judge({"mean_square": one, "sensitivity": one, **ends}, np.arange(5), np.full(5, 64))
    assert [verdict.status for verdict in verdicts[1:]] == statuses
