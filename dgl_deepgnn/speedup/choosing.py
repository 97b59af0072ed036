"""Which learning rate, and which of its variants, an arm of a comparison gets."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np

from dgl_deepgnn.recipe import SpeedupSection
from dgl_deepgnn.speedup.comparison import Trial, steps_to_target

__all__ = ["FINALISTS", "Choice", "choose"]

Choice = tuple[int, float]
"""Variant of an arm, and learning rate."""

MAX_WIDENINGS = 3
"""How often the grid of learning rates is widened at most."""
FINALISTS = 3
"""Learning rates, of all variants of an arm, that go on to the second held-back seed."""


def choose(
    arm: str,
    variants: int,
    spec: SpeedupSection,
    targets: list[float],
    trial: Callable[[Choice, int], Trial],
) -> tuple[Choice, dict[Choice, list[Trial]]]:
    """Choose variant and learning rate by the steps to all targets, on the held-back seeds.

    All rates are tried on the first of these seeds, and the grid is widened where the best lies on
    its edge; the best three go on to the other seeds, with what lies beyond the grid if the best of
    all seeds is on its edge.

    Parameters
    ----------
    arm : str
        For the warning that there is no end of the grid at which it gets worse.
    variants : int
        How many there are of the arm.
    spec : SpeedupSection
        Grid, seeds and budget.
    targets : list of float
        Training losses.
    trial : callable
        ``trial(choice, seed)`` trains.

    Returns
    -------
    tuple
        The choice.
    dict
        Trials of all that was tried.
    """
    return _Search(arm, spec, targets, trial).choose(variants)


class _Search:
    def __init__(
        self,
        arm: str,
        spec: SpeedupSection,
        targets: list[float],
        trial: Callable[[Choice, int], Trial],
    ) -> None:
        self.arm, self.spec, self.targets, self.trial = arm, spec, targets, trial
        self.tried: dict[Choice, list[Trial]] = {}

    def choose(self, variants: int) -> tuple[Choice, dict[Choice, list[Trial]]]:
        for variant in range(variants):
            self._try_rates(variant)
        best = sorted(self.tried, key=self._rank)[:FINALISTS]
        if self._reached(best[0]):  # else the others would cost the most and tell the least
            best = [choice for choice in best if self._reached(choice)]
            for choice in best if len(best) > 1 else ():
                self._try_all_seeds(choice)
            best += self._beyond(min(best, key=self._rank))
        return min(best, key=self._rank), self.tried

    def _try_rates(self, variant: int) -> None:
        """All learning rates of the grid, and beyond it where the best lies on its edge."""
        for rate in sorted(self.spec.learning_rates):
            self._try_first_seed((variant, rate))
        for _ in range(MAX_WIDENINGS):
            beyond = self._next(min(self._of(variant), key=self._rank))
            if beyond is None:
                break
            self._try_first_seed((variant, beyond))

    def _beyond(self, best: Choice) -> list[Choice]:
        """What lies beyond the grid, where the best of all seeds is on its edge."""
        added: list[Choice] = []
        for _ in range(MAX_WIDENINGS):
            rate = self._next(best)
            if rate is None:
                return added
            added.append((best[0], rate))
            for choice in (best, added[-1]):
                self._try_all_seeds(choice)
            best = min(best, added[-1], key=self._rank)
        if self._next(best):
            warnings.warn(
                f"{self.arm}: the best learning rate, {best[1]:.2g}, lies on the edge of those "
                "tried. Give others (speedup.learning_rates).",
                stacklevel=2,
            )
        return added

    def _next(self, best: Choice) -> float | None:
        """The rate beyond the best one of its variant, if that is the lowest or highest."""
        grid = sorted(self.spec.learning_rates)
        ratio = grid[-1] / grid[-2] if len(grid) > 1 else 10**0.5
        rates = [rate for _, rate in self._of(best[0])]
        return {min(rates): best[1] / ratio, max(rates): best[1] * ratio}.get(best[1])

    def _of(self, variant: int) -> Iterable[Choice]:
        return [choice for choice in self.tried if choice[0] == variant]

    def _try_first_seed(self, choice: Choice) -> None:
        self.tried[choice] = [self.trial(choice, self.spec.selection_seeds[0])]

    def _try_all_seeds(self, choice: Choice) -> None:
        mine = self.tried.setdefault(choice, [])
        mine += [self.trial(choice, seed) for seed in self.spec.selection_seeds[len(mine) :]]

    def _reached(self, choice: Choice) -> bool:
        return any(steps_to_target(t.losses, self.targets[0]) for t in self.tried[choice])

    def _rank(self, choice: Choice) -> tuple[float, float]:
        """Geometric mean, over the targets, of the median of steps; then the mean loss."""
        budget, trials = self.spec.steps, self.tried[choice]
        logs = [
            np.log(np.median([steps_to_target(trial.losses, t) or 2 * budget for trial in trials]))
            for t in self.targets
        ]
        return float(np.mean(logs)), float(np.median([t.mean_loss(budget) for t in trials]))
