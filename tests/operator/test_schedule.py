"""Schedules of the interpolation: totals, defaults, errors."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn import interpolation_schedule
from dgl_deepgnn.errors import DGLError


@settings(deadline=None)
@given(st.floats(0.01, 100), st.integers(1, 200))
def test_schedules(total: float, depth: int) -> None:
    per_depth = interpolation_schedule(f"per-depth:{total}", depth)
    harmonic = interpolation_schedule(f"harmonic:{total}", depth)
    assert len(per_depth) == len(harmonic) == depth
    assert sum(per_depth) == pytest.approx(min(total, depth))
    for step, (a, b) in enumerate(itertools.zip_longest(per_depth, harmonic), start=1):
        assert a == per_depth[0] and 0 < a <= 1
        assert b == pytest.approx(min(1, total / step))


def test_schedule_defaults() -> None:
    assert interpolation_schedule("per-depth", 8) == [0.5] * 8
    assert interpolation_schedule("harmonic", 2) == [1.0, 0.5]
    assert interpolation_schedule(0.3, 2) == interpolation_schedule("0.3", 2) == [0.3, 0.3]


@pytest.mark.parametrize(
    "t",
    [
        0,
        -1,
        1.5,
        float("nan"),
        10**400,
        "per-depth:0",
        "per-depth:x",
        "harmonic:-1",
        "depth",
        "",
        None,
    ],
)
def test_bad_schedules(t: object) -> None:
    with pytest.raises(DGLError, match="not an interpolation schedule"):
        interpolation_schedule(t, 4)
