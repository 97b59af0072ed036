"""By which power of depth or width a quantity goes, and what that means in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

__all__ = ["Axis", "Status", "Trend", "fit_trend", "verdict"]

Axis = Literal["depth", "width"]
Status = Literal["transfers", "grows", "shrinks", "still", "unclear", "diverges"]
LEVEL = 0.25
"""A quantity transfers if it goes like a power of depth or width below this: less than twofold
over a factor of 16."""
MISFIT = 3.0
"""Values further from the fitted power than by this factor follow none."""
SIGNAL = 1.0
"""Features, or a gradient, at the start that go like a power of depth beyond this vanish or
explode: no learning rate makes up for it."""


@dataclass(frozen=True)
class Trend:
    """How one quantity goes with depth or width: like its power.

    Parameters
    ----------
    axis : {"depth", "width"}
        What is changed.
    quantity : str
        "features", "update", "scores", "scores' update" or "gradient".
    power, low, high : float
        The fit's power, mean over the seeds, and its 95 % interval (of one seed there is none);
        nan where it is not defined.
    status : {"transfers", "grows", "shrinks", "still", "unclear", "diverges"}
        "transfers" if the power lies within 1/4 of 0, its interval within 1/2 and every size within
        a factor of 3 of it; "grows" or "shrinks" if the power lies beyond and the interval does not
        reach 0; "still" if nothing moves at any size; "diverges" if a value is not finite;
        "unclear" otherwise.
    """

    axis: Axis
    quantity: str
    power: float
    low: float
    high: float
    status: Status

    @property
    def text(self) -> str:
        """The power and its interval."""
        if self.status == "diverges":
            return "not finite"
        if math.isnan(self.power):
            return f"zero at {'all sizes' if self.status == 'still' else 'some sizes only'}"
        if math.isnan(self.low):
            return f"{self.power:.2f}"
        return f"{self.power:.2f} ({self.low:.2f} to {self.high:.2f})"

    @property
    def said(self) -> str:
        """The same as the end of a sentence."""
        return f"is {self.text}" if math.isnan(self.power) else f"goes like {self.axis}^{self.text}"


def fit_trend(
    axis: Axis, quantity: str, values: Mapping[int, Sequence[float]], *, moves: bool
) -> Trend:
    """Fit a power to the values of every seed, by size.

    `moves` says whether zero at all sizes means that nothing was learned.
    """
    sizes = np.log(list(values))
    by_seed = np.array(list(values.values())).T
    if not np.isfinite(by_seed).all():
        return Trend(axis, quantity, math.nan, math.nan, math.nan, "diverges")
    if moves and not by_seed.any():
        return Trend(axis, quantity, math.nan, math.nan, math.nan, "still")
    powers, rests = [], []
    for some in by_seed:
        if (some == 0).all():  # as the scores of a zero-started output layer
            powers.append(0.0)
        elif (some == 0).any():  # a layer that reads the data, say, at the smallest size alone
            return Trend(axis, quantity, math.nan, math.nan, math.nan, "unclear")
        else:
            slope, level = np.polyfit(sizes, np.log(some), 1)
            powers.append(float(slope))
            rests.append(np.log(some) - slope * sizes - level)
    power, low, high = float(np.mean(powers)), math.nan, math.nan
    if len(powers) > 1:
        error = float(np.std(powers, ddof=1)) / math.sqrt(len(powers))
        margin = float(stats.t.ppf(0.975, len(powers) - 1)) * error
        low, high = power - margin, power + margin
    status = _status(power, low, high)
    if status == "transfers" and rests and np.abs(np.mean(rests, 0)).max() > math.log(MISFIT):
        status = "unclear"
    return Trend(axis, quantity, power, low, high, status)


def _status(power: float, low: float, high: float) -> Status:
    if math.isnan(low):
        low = high = power
    if abs(power) <= LEVEL:
        return "transfers" if max(-low, high) <= 2 * LEVEL else "unclear"
    if low <= 0 <= high:
        return "unclear"
    return "grows" if power > 0 else "shrinks"


_DIAGNOSE = "look at dgl_deepgnn.diagnose(model, graph, feat) first"
_GROUPS = (
    "dgl_deepgnn.optim.param_groups(model, lr) gives every parameter its own (optimizer.transfer "
    "in recipes); where it is in use, name the model's branches and inputs"
)
_ADVICE = {
    "transfers": "",
    "grows": f"The larger network needs a smaller learning rate: {_GROUPS}.",
    "shrinks": f"The larger network learns less from the same learning rate: {_GROUPS}.",
    "still": "Nothing was learned there, so nothing is compared: take more steps or a larger "
    f"learning rate; if it stays, no gradient arrives, {_DIAGNOSE}.",
    "unclear": "The seeds differ too much to tell, or the sizes follow no power: look at the "
    "table, take more seeds, or sizes further apart.",
    "diverges": "Values are finite at the start: take a smaller learning rate.",
}
_UPDATES = {"update": "features' change", "scores' update": "scores' change"}
# What is certain comes before what is not.
_RANKS: tuple[Status, ...] = ("diverges", "still", "grows", "shrinks", "unclear", "transfers")


def verdict(axis: Axis, trends: Sequence[Trend]) -> str:
    """One paragraph: whether the first steps carry over along an axis, and what to change."""
    mine = {trend.quantity: trend for trend in trends if trend.axis == axis}
    updates = {quantity: mine[quantity] for quantity in _UPDATES if quantity in mine}
    if not updates:
        return f"{axis}: one size only, nothing to compare."
    status = min((trend.status for trend in updates.values()), key=_RANKS.index)
    said = "; ".join(f"the {_UPDATES[q]} {trend.said}" for q, trend in updates.items())
    word, advice = status.upper(), _ADVICE[status]
    at_start = [mine[quantity] for quantity in ("features", "scores", "gradient")]
    if status == "diverges" and any(trend.status == "diverges" for trend in at_start):
        advice = f"Values are not finite at the start: {_DIAGNOSE}."
    elif status != "diverges" and axis == "depth":
        for trend, what in zip(at_start[::2], ("features", "gradient"), strict=True):
            bounds = (trend.power,) if math.isnan(trend.low) else (trend.low, trend.high)
            if min(bounds) > SIGNAL or max(bounds) < -SIGNAL:
                word = "EXPLODES" if trend.power > 0 else "VANISHES"
                advice = f"At the start the {what} {'go' if what == 'features' else 'goes'} like "
                advice += f"depth^{trend.text}: no learning rate makes up for it, {_DIAGNOSE}."
                break
    return f"{axis}: {word}. After the first steps {said}. {advice}".rstrip()
