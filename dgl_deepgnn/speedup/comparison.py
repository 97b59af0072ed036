"""Content of a speed-up record, and its arithmetic: steps to a target, ratios of medians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Comparison", "Trial", "compare_steps", "steps_to_target"]

HOLD = 3
"""Steps for which a target loss has to be held."""
RESAMPLES = 10_000


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Trial(_Facts):
    """One training of one arm: loss before every step, time, final score.

    ``losses`` is shorter than the budget if the training diverged, or was ended since no more had
    to be known of it.
    """

    arm: str
    lr: float
    seed: int
    losses: list[float]
    seconds: list[float]
    score: float | None
    ended: bool = False

    def mean_loss(self, budget: int) -> float:
        """Mean loss over the budget; infinite if the training diverged."""
        whole = len(self.losses) == budget or self.ended
        return float(np.mean(self.losses)) if whole else math.inf


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ArmFacts(_Facts):
    """What is kept of an arm: a list a target, or a value a seed."""

    lr: Positive
    steps: list[list[int | None]]
    seconds: list[list[float | None]]
    mean_loss: list[float | None]
    score: list[float | None]
    losses: list[list[float]]
    final: list[float | None] | None = None
    """Test score after the whole training, where that was asked for."""


class RatioFacts(_Facts):
    """See :func:`compare_steps`."""

    ratio: float | None
    low: float | None
    high: float | None
    bound: Literal["lower", "upper"] | None

    @model_validator(mode="after")
    def _check(self) -> RatioFacts:
        if len({number is None for number in (self.ratio, self.low, self.high)}) > 1:
            raise ValueError("ratio, low and high are all numbers or all null")
        return self


class Comparison(_Facts):
    """What ``speedup.json`` has to hold at least."""

    recipe: str
    budget: int = Field(ge=1, le=10**6)
    targets: list[Positive] = Field(min_length=1)
    target_shares: list[Positive]
    seeds: list[int] = Field(min_length=1)
    metric: str
    arms: dict[str, ArmFacts] = Field(min_length=1)
    speedups: dict[str, list[RatioFacts]]
    wall_clock: dict[str, list[RatioFacts]] = {}
    """Ratios of seconds in place of steps."""

    @model_validator(mode="after")
    def _check(self) -> Comparison:
        counts = [len(self.target_shares), *map(len, self.speedups.values())]
        counts += map(len, self.wall_clock.values())
        if set(counts) != {len(self.targets)}:
            raise ValueError("there is not one value for every target")
        for arm in self.arms.values():
            if not len(arm.steps) == len(arm.seconds) == len(self.targets):
                raise ValueError("an arm has not one list for every target")
            counts = [len(arm.mean_loss), len(arm.score), len(arm.losses)]
            counts += [*map(len, arm.steps), *map(len, arm.seconds)]
            counts += [] if arm.final is None else [len(arm.final)]
            if set(counts) != {len(self.seeds)}:
                raise ValueError("an arm has not one value for every seed")
            if any(len(losses) > self.budget for losses in arm.losses):
                raise ValueError("an arm has more losses than the budget has steps")
        return self


def steps_to_target(losses: list[float], target: float) -> int | None:
    """Number of steps until the loss is at most `target` for three steps on end.

    Examples
    --------
    >>> steps_to_target([2.0, 0.9, 1.5, 0.9, 0.8, 0.7], target=1.0)
    4
    >>> steps_to_target([2.0, 0.9, 0.9], target=1.0) is None
    True
    """
    below = 0
    for index, loss in enumerate(losses):
        below = below + 1 if loss <= target else 0
        if below == HOLD:
            return index + 2 - HOLD
    return None


def compare_steps(
    baseline: Sequence[float | None],
    principled: Sequence[float | None],
    budget: float | tuple[float, float],
) -> dict[str, Any]:
    """Ratio of median steps to a target with a bootstrap 95 % interval.

    Parameters
    ----------
    baseline, principled : sequence of float or None
        Steps, or seconds, of every seed; None for one that never got there within the budget.
    budget : float or (float, float)
        What stands in for None, in either or in each of them; the ratio is then only a bound.

    Returns
    -------
    dict
        ``ratio``; ``low`` and ``high`` of the interval; ``bound``: ``"lower"`` if the baseline's
        median is the budget (the true ratio is larger), ``"upper"`` if only the principled
        arm's is, ``None`` if neither; all None if neither arm got there.

    Examples
    --------
    >>> result = compare_steps([None, None, None], [5, 5, 5], budget=100)
    >>> result["ratio"], result["bound"]
    (20.0, 'lower')
    """
    budgets = budget if isinstance(budget, tuple) else (budget, budget)
    slow, fast = (
        np.array([most if number is None else number for number in some], dtype=float)
        for some, most in zip((baseline, principled), budgets, strict=True)
    )
    censored = [
        float(np.median([steps is None for steps in some])) >= 0.5
        for some in (baseline, principled)
    ]
    if all(censored):
        return {"ratio": None, "low": None, "high": None, "bound": None}
    random = np.random.default_rng(0)
    medians = [
        np.median(random.choice(some, size=(RESAMPLES, len(some))), axis=1) for some in (slow, fast)
    ]
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    return {
        "ratio": float(np.median(slow) / np.median(fast)),
        "low": float(low),
        "high": float(high),
        "bound": "lower" if censored[0] else "upper" if censored[1] else None,
    }
