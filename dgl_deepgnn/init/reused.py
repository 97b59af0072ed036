"""Weights used again and again in one run: their products keep their scale from use to use."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

from dgl_deepgnn.init.running import mean_square

__all__ = ["GivenUp", "Reused"]

_Key = tuple[object, ...]
_USES = 4  # fewer are the sides of something, such as the two ends of an edge
_BOUND = 10.0  # of the growth from the second use (the first sees other features) to the last one
_CHANGE = 1e-3  # of the growth, for twice the weight: less is no change
_HUGE = 1e20  # growth, or one over it, after which a run is given up: numbers soon come to an end


class GivenUp(Exception):
    """A run was given up: what a weight makes, used again and again, is beyond all measure."""


class Reused:
    """A layer called at every depth is scaled at its first call only: does its scale serve all?

    Products of one weight with what it made of the features itself may grow by the same factor
    from each use to the next. In a plain stack the weight is divided by that factor; beside a
    residual connection the factor is ``1 + b weight``, and two runs tell what b is.
    """

    def __init__(self) -> None:
        self.squares: dict[_Key, list[float]] = {}  # of the products of this run
        self._tried: dict[_Key, list[tuple[float, float]]] = {}  # start, and growth from use to use
        self._starts: dict[_Key, float] = {}
        self._looking = True

    def start(self, key: _Key) -> float:
        """Mean square that the first product is to have, in units of what it is otherwise."""
        return self._starts.get(key, 1.0)

    def see(self, key: _Key, product: Tensor) -> None:
        """Note another product of a weight that is scaled already.

        Raises
        ------
        GivenUp
            If it is larger or smaller by far than the first.
        """
        if self._looking and key in self.squares:
            square = mean_square(product)
            first = self.squares[key][0]
            if square == 0:  # a state of zeros, such as of padding
                return
            self.squares[key].append(square)
            if not 1 / _HUGE < square / first < _HUGE:
                raise GivenUp

    @contextmanager
    def looking_away(self) -> Iterator[None]:
        """See nothing: a layer is tried once more."""
        self._looking = False
        try:
            yield
        finally:
            self._looking = True

    def choose(self, last: bool) -> bool:
        """Choose starts for the next run, in front of the last one the best that were tried.

        Returns
        -------
        bool
            Whether any of them is another one.
        """
        before = dict(self._starts)
        for key, squares in self.squares.items():
            uses = len(squares)
            if uses < _USES or not math.isfinite(squares[-1]):
                continue
            growth = (squares[-1] / squares[1]) ** (0.5 / (uses - 2))
            tried = self._tried.setdefault(key, [])
            tried.append((self.start(key), growth))
            if 1 / _BOUND < squares[-1] / squares[1] < max(_BOUND, uses):
                continue
            # Of growths that are the same the first: uses side by side do not depend on the start.
            best = min(tried, key=lambda trial: round(abs(math.log(trial[1])), 3))[0]
            self._starts[key] = best if last else _next(tried, uses) or best
        return self._starts != before


def _next(tried: list[tuple[float, float]], uses: int) -> float | None:
    """Start that would bring the growth from use to use near one."""
    start, growth = tried[-1]
    if len(tried) == 1:
        return start / growth**2
    (x, fx), (y, fy) = ((math.sqrt(start), growth) for start, growth in tried[-2:])
    slope = (fy - fx) / (y - x) if x != y else 0.0
    if slope * y < _CHANGE:
        return None
    # Sums may grow like the number of their terms: its root is well within that, and above one.
    new = y + (uses ** (0.25 / (uses - 2)) - fy) / slope
    return new**2 if new > 0 else start / 10  # a bias has its share in the growth, too
