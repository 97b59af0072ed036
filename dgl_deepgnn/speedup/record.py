"""Early-training speed-up: arms x seeds, each arm with its own best learning rate."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from dgl_deepgnn.data import TaskData, main_metric
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import new_folder, write_text
from dgl_deepgnn.progress import Progress
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.speedup.report import PRINCIPLED, STOCK, USUAL, plot_speedup, speedup_csv
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import DivergenceError, Step, Trainer, find_device

__all__ = ["Trial", "arms_of", "measure_speedup", "steps_to_target"]

HOLD = 3
"""Steps for which a target loss has to be held."""
MAX_WIDENINGS = 3
"""How often the grid of learning rates is widened at most."""
RESAMPLES = 10_000


class _Facts(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class Trial(_Facts):
    """One training of one arm: loss before every step, time, final score.

    ``losses`` is shorter than the budget if the training diverged.
    """

    arm: str
    lr: float
    seed: int
    losses: list[float]
    seconds: list[float]
    score: float | None

    def mean_loss(self, budget: int) -> float:
        """Mean loss over the budget; infinite if the training diverged."""
        return float(np.mean(self.losses)) if len(self.losses) == budget else math.inf


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class ArmFacts(_Facts):
    """What is kept of an arm: a list a target, or a value a seed."""

    lr: Positive
    steps: list[list[int | None]]
    seconds: list[list[float | None]]
    mean_loss: list[float | None]
    score: list[float | None]
    losses: list[list[float]]


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

    @model_validator(mode="after")
    def _check(self) -> Comparison:
        counts = [len(self.target_shares), *map(len, self.speedups.values())]
        if set(counts) != {len(self.targets)}:
            raise ValueError("there is not one value for every target")
        for arm in self.arms.values():
            if not len(arm.steps) == len(arm.seconds) == len(self.targets):
                raise ValueError("an arm has not one list for every target")
            counts = [len(arm.mean_loss), len(arm.score), len(arm.losses)]
            counts += [*map(len, arm.steps), *map(len, arm.seconds)]
            if set(counts) != {len(self.seeds)}:
                raise ValueError("an arm has not one value for every seed")
            if any(len(losses) > self.budget for losses in arm.losses):
                raise ValueError("an arm has more losses than the budget has steps")
        return self


def arms_of(recipe: Recipe, ablation: bool = False) -> dict[str, dict[str, Any]]:
    """What each arm changes in the recipe's model.

    Parameters
    ----------
    recipe : Recipe
        Its model is the principled arm.
    ablation : bool
        All eight combinations of the three principles, beside the usual practice.

    Returns
    -------
    dict of str to dict
        Values of ``init``, ``t`` and ``residual`` by the arm's name.

    Examples
    --------
    >>> from dgl_deepgnn.recipe import load_recipe
    >>> list(arms_of(load_recipe("resgcn64.digits")))
    ['stock', 'usual practice', 'principled']
    """
    model = recipe.model
    off = {"init": "glorot", "t": 1.0, "residual": None}
    on = {"init": model.init, "t": model.t, "residual": model.residual}
    arms: dict[str, dict[str, Any]] = {STOCK: off, USUAL: {**off, "residual": "plain"}}
    if ablation:
        words = {"init": "init", "t": "aggregation", "residual": "residual"}
        for mask in range(1, 7):
            chosen = [key for bit, key in enumerate(off) if mask >> bit & 1]
            arms[" + ".join(words[key] for key in chosen)] = {
                **off,
                **{key: on[key] for key in chosen},
            }
    arms[PRINCIPLED] = on
    return arms


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


def chance_loss(data: TaskData, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Training loss of a uniform guess; of a regression, of guessing the training mean."""
    labels = data.labels[data.splits[0]["train"]]
    guess = torch.zeros(len(labels), data.num_outputs)
    if data.target == "regression":
        guess += labels.float().mean(dim=0)
    return loss(guess, labels).item()


def measure_speedup(
    recipe: Recipe | str | Path,
    output: Path | str | None = None,
    *,
    ablation: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    allow_code: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Record how much earlier the principles reach the target losses of a recipe.

    Every arm has the same data, splits, width, depth, optimizer, batch order and seeds. Each
    gets its own learning rate: from the recipe's grid, on a seed that is not reported, the one
    that reaches the first target soonest (if none does, the lowest mean loss); where that lies
    on an edge, the grid is widened. Learning rates are constant during the trials.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or its name or path, see :func:`dgl_deepgnn.load_recipe`.
    output : Path, optional
        Folder to write; by default a new one under ``runs/``, named after the recipe.
    ablation : bool
        All eight combinations of the principles instead of three arms.
    resume : bool
        Continue in `output`: finished trials are kept. A folder of an ablation stays one, and
        `ablation` turns one of three arms into it.
    device : str
        Where to train.
    progress : bool
        Whether to draw a progress bar.
    allow_code : bool
        Whether data that runs code (``python:...``, or a folder that is unpickled) may be
        loaded. Say so only of a recipe that you trust.

    Returns
    -------
    Path
        The folder, with ``speedup.json``, ``speedup.csv``, ``speedup.png`` and a file a trial.
    dict
        The content of ``speedup.json``.

    Raises
    ------
    UserError
        If the folder exists (or, to resume, belongs to another recipe), or the data would run
        code that is not allowed.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    target_device = find_device(device)
    data = load_task(recipe, allow_code)
    # On the CPU like the labels; whatever is wrong with the recipe shows before the folder is made.
    chance = chance_loss(data, Trainer(recipe, data, recipe.seeds[0]).loss)
    if resume:
        if output is None:
            raise UserError("To resume, say which folder.")
        folder = RunFolder.open(Path(output), data, "speed-up record")
        if folder.recipe != recipe:
            raise UserError(f"{output} was started with another recipe: see its recipe.yaml.")
    else:
        path = Path(output) if output else new_folder(Path("runs"), f"{recipe.name}.speedup")
        folder = RunFolder.create(path, recipe, data, device, "speed-up record")
    if progress:
        print(f"Folder: {folder.path}", file=sys.stderr)
    with folder.locked(), torch.random.fork_rng():
        ablation = ablation or folder.facts.get("ablation", False)
        folder.add_facts(ablation=ablation)
        arms = arms_of(recipe, ablation)
        trials = _Trials(folder, data, target_device, arms, chance, progress)
        result = trials.run()
        folder.write("speedup.json", result)
        write_text(folder.path / "speedup.csv", speedup_csv(result))
        plot_speedup(folder.path / "speedup.png", result)
    return folder.path, result


class _Trials:
    """All trials of a folder; a finished one is read back instead of repeated."""

    def __init__(
        self,
        folder: RunFolder,
        data: TaskData,
        device: torch.device,
        arms: dict[str, dict[str, Any]],
        chance: float,
        progress: bool,
    ) -> None:
        self.folder, self.data, self.device, self.arms = folder, data, device, arms
        self.spec = folder.recipe.speedup
        self.targets = [share * chance for share in self.spec.targets]
        folder.make("trials")
        count = len(arms) * (len(self.spec.learning_rates) + len(self.spec.seeds))
        self.bar = Progress(total=count * self.spec.steps, unit="step", disable=not progress)

    def run(self) -> dict[str, Any]:
        """Choose every arm's learning rate, train every seed, and compare."""
        with self.bar:
            chosen = {arm: self._choose_rate(arm) for arm in self.arms}
            trials = {
                arm: [self._trial(arm, rate, seed) for seed in self.spec.seeds]
                for arm, (rate, _) in chosen.items()
            }
        return self._compare(chosen, trials)

    def _choose_rate(self, arm: str) -> tuple[float, dict[float, float | None]]:
        """Best learning rate on the held-back seed, and the steps that each one took."""
        rates = sorted(self.spec.learning_rates)
        ratio = rates[-1] / rates[-2] if len(rates) > 1 else 10**0.5
        trials = {rate: self._trial(arm, rate, self.spec.selection_seed) for rate in rates}
        for _ in range(MAX_WIDENINGS):
            best = min(trials, key=lambda rate: self._rank(trials[rate]))
            edges = {min(trials): best / ratio, max(trials): best * ratio}
            if best not in edges:
                break
            self.bar.total = (self.bar.total or 0) + self.spec.steps
            trials[edges[best]] = self._trial(arm, edges[best], self.spec.selection_seed)
        best = min(trials, key=lambda rate: self._rank(trials[rate]))
        target = self.targets[0]
        return best, {r: steps_to_target(trials[r].losses, target) for r in sorted(trials)}

    def _rank(self, trial: Trial) -> tuple[float, float]:
        steps = steps_to_target(trial.losses, self.targets[0])
        return (math.inf if steps is None else steps, trial.mean_loss(self.spec.steps))

    def _trial(self, arm: str, rate: float, seed: int) -> Trial:
        slug = arm.replace(" + ", "+").replace(" ", "-")
        name = f"trials/{slug}-lr{rate:.3g}-seed{seed}.json"
        if (self.folder.path / name).exists():
            self.bar.update(self.spec.steps)
            trial = Trial(**self.folder.read(name, Trial))
            if (trial.arm, trial.seed) != (arm, seed) or not math.isclose(trial.lr, rate):
                raise self.folder.damaged(name, "it is of another trial")
            return trial
        self.bar.set_description(f"{arm}, lr {rate:.2g}, seed {seed}")
        trial = self._train(arm, rate, seed)
        self.folder.write(name, trial.model_dump())
        return trial

    def _train(self, arm: str, rate: float, seed: int) -> Trial:
        base = self.folder.recipe
        recipe = base.model_copy(
            update={
                "model": base.model.model_copy(update=self.arms[arm]),
                "optimizer": base.optimizer.model_copy(update={"lr": rate}),
                "schedule": type(base.schedule)(),
                "training": base.training.model_copy(
                    update={"steps": self.spec.steps, "epochs": None, "patience": None}
                ),
            }
        )
        trainer = Trainer(recipe, self.data, seed, self.device)
        steps: list[Step] = []
        shown, score = 0, None
        try:
            while trainer.step < self.spec.steps:
                steps += trainer.run_epoch()
                self.bar.update(len(steps) - shown)
                shown = len(steps)
            score = trainer.evaluate(["test"])["test"][main_metric(self.data.target)[0]]
        except DivergenceError as error:  # of the loss, or of a score
            steps += error.steps
        except DGLError:  # the metric is not defined
            pass
        self.bar.update(self.spec.steps - shown)
        losses = [step.loss for step in steps]
        seconds = [round(step.seconds, 6) for step in steps]
        return Trial(arm=arm, lr=rate, seed=seed, losses=losses, seconds=seconds, score=score)

    def _compare(
        self,
        chosen: dict[str, tuple[float, dict[float, float | None]]],
        trials: dict[str, list[Trial]],
    ) -> dict[str, Any]:
        budget = self.spec.steps
        arms: dict[str, dict[str, Any]] = {}
        for arm, (rate, grid) in chosen.items():
            scores = [trial.score for trial in trials[arm]]
            arms[arm] = {
                "model": self.arms[arm],
                "lr": rate,
                "lr_grid": {f"{r:.3g}": steps for r, steps in grid.items()},
                "steps": [
                    [steps_to_target(trial.losses, target) for trial in trials[arm]]
                    for target in self.targets
                ],
                "seconds": [
                    [_seconds_to_target(trial, target) for trial in trials[arm]]
                    for target in self.targets
                ],
                "mean_loss": [_finite(trial.mean_loss(budget)) for trial in trials[arm]],
                "score": scores,
                "losses": [[round(loss, 6) for loss in trial.losses] for trial in trials[arm]],
            }
        speedups = {
            f"{PRINCIPLED} vs {base}": [
                compare_steps(arms[base]["steps"][i], arms[PRINCIPLED]["steps"][i], budget)
                for i in range(len(self.targets))
            ]
            for base in (STOCK, USUAL)
        }
        return {
            "recipe": self.folder.recipe.title,
            "date": time.strftime("%Y-%m-%d"),
            "budget": budget,
            "targets": [round(target, 6) for target in self.targets],
            "target_shares": self.spec.targets,
            "seeds": self.spec.seeds,
            "metric": main_metric(self.data.target)[0],
            "arms": arms,
            "speedups": speedups,
        }


def compare_steps(
    baseline: Sequence[float | None], principled: Sequence[float | None], budget: float
) -> dict[str, Any]:
    """Ratio of median steps to a target with a bootstrap 95 % interval.

    Parameters
    ----------
    baseline, principled : sequence of float or None
        Steps, or seconds, of every seed; None for one that never got there within the budget.
    budget : float
        What stands in for None; the ratio is then only a bound.

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
    slow = np.array([budget if steps is None else steps for steps in baseline], dtype=float)
    fast = np.array([budget if steps is None else steps for steps in principled], dtype=float)
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


def _seconds_to_target(trial: Trial, target: float) -> float | None:
    steps = steps_to_target(trial.losses, target)
    return None if steps is None else round(sum(trial.seconds[:steps]), 4)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
