"""Test scores of references and of the zoo's models, and how far they are apart."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.baselines.references import SEEDS, Candidate, Reference, Task
from benchmarks.baselines.rows import Row, Rows, choose
from dgl_deepgnn.data import main_metric
from dgl_deepgnn.hub import download

__all__ = ["Comparison", "Difference", "Ours", "difference", "our_model", "stand"]

ZOO = Path(__file__).parents[2] / "zoo"
LEVEL = 0.95


@dataclass(frozen=True)
class Ours:
    """A model of the zoo as its files have it.

    Parameters
    ----------
    name : str
        Of the model.
    layers, width : int
        Of its network.
    scores : dict
        Test score by seed, in per cent.
    """

    name: str
    layers: int
    width: int
    scores: Mapping[int, float]


@dataclass(frozen=True)
class Difference:
    """Mean difference, ours less the reference, and its interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> Literal["higher", "lower", "undecided"]:
        """What may be said of ours."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "undecided"


@dataclass(frozen=True)
class Comparison:
    """A reference beside ours.

    Parameters
    ----------
    task : str
        Name of the task.
    reference : Reference
        Which one.
    candidate : Candidate
        Its settings, as chosen.
    rows : list of dict
        Of the seeds reported.
    scores : dict
        Test score by seed, in per cent.
    ours : Ours, optional
        None where the zoo has no model.
    difference : Difference, optional
        None with fewer than two seeds of either.
    """

    task: str
    reference: Reference
    candidate: Candidate
    rows: list[Row]
    scores: Mapping[int, float]
    ours: Ours | None
    difference: Difference | None


def our_model(name: str, zoo: Path = ZOO) -> Ours:
    """A published model, read from a zoo."""
    folder = download(name, zoo)
    metrics, config = (
        json.loads((folder / file).read_text("utf-8")) for file in ("metrics.json", "config.json")
    )
    arguments: dict[str, Any] = config["model"]["arguments"]
    scores = {row["seed"]: 100 * row["test"][metrics["metric"]] for row in metrics["seeds"]}
    return Ours(name, arguments["num_layers"], arguments["hidden_feats"], scores)


def stand(rows: Rows, name: str, task: Task) -> list[Comparison]:
    """All references of a task of which there is a test score."""
    ours = None if task.ours is None else our_model(task.ours)
    metric, _ = main_metric(task.target)
    found = []
    for reference in task.references:
        candidate = choose(rows, name, reference, task.target)
        made = [] if candidate is None else rows.of(name, reference, candidate, SEEDS)
        if candidate is None or not made:
            continue
        scores = {row["seed"]: 100 * row["test"][metric] for row in made}
        apart = None if ours is None else difference(ours.scores, scores, task.splits > 1)
        found.append(Comparison(name, reference, candidate, made, scores, ours, apart))
    return found


def difference(
    ours: Mapping[int, float], theirs: Mapping[int, float], paired: bool
) -> Difference | None:
    """Mean difference of two sets of scores with Student's interval; None of fewer than two.

    Parameters
    ----------
    ours, theirs : dict
        Score by seed.
    paired : bool
        Whether a seed is the same split for both, so that the differences on each are taken;
        otherwise the two sets are independent, of different variance (Welch).

    Examples
    --------
    >>> difference({0: 3.0, 1: 5.0, 2: 7.0}, {0: 1.0, 1: 2.0, 2: 3.0}, paired=True)
    Difference(mean=3.0, low=0.515..., high=5.484...)
    """
    from scipy.stats import t

    if paired:
        seeds = sorted(ours.keys() & theirs.keys())
        parts = [[ours[seed] - theirs[seed] for seed in seeds]]
    else:
        parts = [list(ours.values()), list(theirs.values())]
    if min(map(len, parts)) < 2:
        return None
    mean = statistics.fmean(parts[0]) - (0.0 if paired else statistics.fmean(parts[1]))
    errors = [statistics.variance(part) / len(part) for part in parts]
    total = sum(errors)
    if total == 0:
        return Difference(mean, mean, mean)
    terms = zip(errors, parts, strict=True)
    freedom = total**2 / sum(error**2 / (len(part) - 1) for error, part in terms)
    half = float(t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(total)
    return Difference(mean, mean - half, mean + half)
