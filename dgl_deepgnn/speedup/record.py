"""Early-training speed-up: arms x seeds, each arm with its own best learning rate."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from dgl_deepgnn.data import TaskData, main_metric
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import new_folder, write_text
from dgl_deepgnn.progress import Progress
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.speedup.arms import COMBINED, NORMALIZED, PRINCIPLED, STOCK, USUAL, arms_of
from dgl_deepgnn.speedup.choosing import FINALISTS, Choice, choose
from dgl_deepgnn.speedup.comparison import Trial, compare_steps, steps_to_target
from dgl_deepgnn.speedup.report import plot_speedup, speedup_csv
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import DivergenceError, Step, Trainer, find_device, is_better

__all__ = ["chance_loss", "measure_speedup"]


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
    final: bool = False,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    allow_code: bool = False,
) -> tuple[Path, dict[str, Any]]:
    """Record how much earlier the principles reach the target losses of a recipe.

    Every arm has the same data, splits, width, depth, optimizer, batch order and seeds. Each gets
    its own learning rate from the recipe's grid, on seeds that are not reported: the one with the
    fewest steps to the targets (geometric mean over them of the median over the seeds; a target
    that is missed counts as twice the budget; if all are, the lowest mean loss), and the better of
    an arm's variants likewise. All rates are tried on the first of these seeds, and the grid is
    widened where the best lies on its edge; the best three go on to the other seeds, with what is
    beyond the grid if the best of all is on its edge. Learning
    rates are constant during the trials. No test score is computed but of the reported ones. Of a
    recipe that fine-tunes, the network is trained anew.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or its name or path, see :func:`dgl_deepgnn.load_recipe`.
    output : Path, optional
        Folder to write; by default a new one under ``runs/``, named after the recipe.
    ablation : bool
        All eight combinations of the principles, too.
    final : bool
        Also train every arm and seed for as many epochs as the recipe says, with its schedule, at
        the arm's learning rate, for the test score of the best epoch by validation.
    resume : bool
        Continue in `output`: finished trials are kept. A folder of an ablation stays one, and
        `ablation` turns one without into it; likewise `final`.
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
    # What is compared is how networks start; one that is fine-tuned has started already.
    recipe = recipe.model_copy(update={"parent": None})
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
        final = final or folder.facts.get("final", False)
        folder.add_facts(ablation=ablation, **({"final": True} if final else {}))
        arms = arms_of(recipe, ablation)
        trials = _Trials(folder, data, target_device, arms, chance, progress, final)
        result = trials.run()
        folder.write("speedup.json", result)
        write_text(folder.path / "speedup.csv", speedup_csv(result))
        plot_speedup(folder.path / "speedup.png", result)
    return folder.path, result


class _Final(BaseModel):
    model_config = ConfigDict(strict=True)
    arm: str
    lr: float
    seed: int
    score: float | None


class _Trials:
    """All trials of a folder; a finished one is read back instead of repeated."""

    def __init__(
        self,
        folder: RunFolder,
        data: TaskData,
        device: torch.device,
        arms: dict[str, list[dict[str, Any]]],
        chance: float,
        progress: bool,
        final: bool,
    ) -> None:
        self.folder, self.data, self.device, self.arms = folder, data, device, arms
        self.spec, self.final = folder.recipe.speedup, final
        self.targets = [share * chance for share in self.spec.targets]
        folder.make("trials")
        rates, seeds = len(self.spec.learning_rates), len(self.spec.selection_seeds)
        count = sum(len(some) for some in arms.values()) * rates
        count += len(arms) * (min(FINALISTS, rates) * (seeds - 1) + len(self.spec.seeds))
        self.bar = Progress(total=count * self.spec.steps, unit="step", disable=not progress)

    def run(self) -> dict[str, Any]:
        """Choose every arm's learning rate, train every seed, and compare."""
        with self.bar:
            chosen = {arm: self._choose(arm) for arm in self.arms}
            trials = {
                arm: [self._trial(arm, choice, seed) for seed in self.spec.seeds]
                for arm, (choice, _) in chosen.items()
            }
            finals = {
                arm: [self._final(arm, choice, seed) for seed in self.spec.seeds]
                for arm, (choice, _) in chosen.items()
                if self.final
            }
        return self._compare(chosen, trials, finals)

    def _choose(self, arm: str) -> tuple[Choice, dict[float, list[int | None]]]:
        """Variant and learning rate, and the steps to the first target of those tried with it."""

        def trial(choice: Choice, seed: int) -> Trial:
            return self._trial(arm, choice, seed)

        choice, tried = choose(arm, len(self.arms[arm]), self.spec, self.targets, trial)
        return choice, {
            rate: [steps_to_target(one.losses, self.targets[0]) for one in trials]
            for (variant, rate), trials in sorted(tried.items(), key=lambda item: item[0])
            if variant == choice[0]
        }

    def _recipe(self, arm: str, choice: Choice, **sections: Any) -> Recipe:
        base, (variant, rate) = self.folder.recipe, choice
        return base.model_copy(
            update={
                "model": base.model.model_copy(update=self.arms[arm][variant]),
                "optimizer": base.optimizer.model_copy(update={"lr": rate}),
                **sections,
            }
        )

    def _file(self, arm: str, choice: Choice, seed: int) -> str:
        slug = arm.replace(" + ", "+").replace(" ", "-")
        variant, rate = choice
        slug += f"-{variant + 1}" if variant else ""
        norm_layer = self.arms[arm][variant].get("norm_layer")
        # To version 0.2 all arms had the recipe's: their trials keep their names.
        if norm_layer not in (None, self.folder.recipe.model.norm_layer):
            slug += f"-norm-{norm_layer}"
        return f"{slug}-lr{rate:.3g}-seed{seed}.json"

    def _trial(self, arm: str, choice: Choice, seed: int) -> Trial:
        name = f"trials/{self._file(arm, choice, seed)}"
        if self.bar.n + self.spec.steps > (self.bar.total or 0):  # a grid that was widened
            self.bar.total = self.bar.n + self.spec.steps
        if (self.folder.path / name).exists():
            self.bar.update(self.spec.steps)
            trial = Trial(**self.folder.read(name, Trial))
            if (trial.arm, trial.seed) != (arm, seed) or not math.isclose(trial.lr, choice[1]):
                raise self.folder.damaged(name, "it is of another trial")
            return trial
        self.bar.set_description(f"{arm}, lr {choice[1]:.2g}, seed {seed}")
        trial = self._train(arm, choice, seed)
        self.folder.write(name, trial.model_dump())
        return trial

    def _train(self, arm: str, choice: Choice, seed: int) -> Trial:
        base = self.folder.recipe
        recipe = self._recipe(
            arm,
            choice,
            schedule=type(base.schedule)(),
            training=base.training.model_copy(
                update={"steps": self.spec.steps, "epochs": None, "patience": None}
            ),
        )
        reported = seed in self.spec.seeds
        trainer = Trainer(recipe, self.data, seed, self.device)
        steps: list[Step] = []
        shown, score, ended = 0, None, False
        try:
            while trainer.step < self.spec.steps and not ended:
                steps += trainer.run_epoch()
                self.bar.update(len(steps) - shown)
                shown = len(steps)
                losses = [step.loss for step in steps]
                ended = not reported and all(steps_to_target(losses, t) for t in self.targets)
            if reported:
                score = trainer.evaluate(["test"])["test"][main_metric(self.data.target)[0]]
        except DivergenceError as error:  # of the loss, or of a score
            steps += error.steps
        except DGLError:  # the metric is not defined
            pass
        self.bar.update(self.spec.steps - shown)
        return Trial(
            arm=arm,
            lr=choice[1],
            seed=seed,
            losses=[step.loss for step in steps],
            seconds=[round(step.seconds, 6) for step in steps],
            score=score,
            ended=ended and len(steps) < self.spec.steps,
        )

    def _final(self, arm: str, choice: Choice, seed: int) -> float | None:
        """Test score after the recipe's whole training; None if it diverged."""
        name = f"trials/final-{self._file(arm, choice, seed)}"
        if (self.folder.path / name).exists():
            final = _Final(**self.folder.read(name, _Final))
            if (final.arm, final.seed) != (arm, seed) or not math.isclose(final.lr, choice[1]):
                raise self.folder.damaged(name, "it is of another trial")
            return final.score
        self.bar.set_description(f"{arm}, whole training, seed {seed}")
        base = self.folder.recipe
        # Without patience: equal epochs for all.
        training = base.training.model_copy(update={"patience": None})
        trainer = Trainer(
            self._recipe(arm, choice, training=training), self.data, seed, self.device
        )
        best, score = None, None
        try:
            while trainer.epoch < trainer.total_epochs:
                trainer.run_epoch()
                due = trainer.epoch % training.evaluate_every == 0
                if due or trainer.epoch == trainer.total_epochs:
                    scores = trainer.evaluate(["val", "test"])
                    if is_better(self.data.target, scores["val"], best, training.select_by):
                        best = scores["val"]
                        score = scores["test"][main_metric(self.data.target)[0]]
        except (DivergenceError, DGLError):  # or the metric is not defined
            score = None
        final = _Final(arm=arm, lr=choice[1], seed=seed, score=score)
        self.folder.write(name, final.model_dump())
        return score

    def _compare(
        self,
        chosen: dict[str, tuple[Choice, dict[float, list[int | None]]]],
        trials: dict[str, list[Trial]],
        finals: dict[str, list[float | None]],
    ) -> dict[str, Any]:
        budget = self.spec.steps
        arms: dict[str, dict[str, Any]] = {}
        for arm, ((variant, rate), grid) in chosen.items():
            scores = [trial.score for trial in trials[arm]]
            arms[arm] = {
                "model": self.arms[arm][variant],
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
                **({"final": finals[arm]} if finals else {}),
            }
        baselines = [arm for arm in (STOCK, USUAL, NORMALIZED) if arm in arms]
        pairs = [(PRINCIPLED, base) for base in baselines]
        pairs += [(COMBINED, NORMALIZED)] if COMBINED in arms else []
        # How long the budget takes an arm that never gets there; one that has diverged at once
        # has no time of its own.
        spent = {arm: [s for trial in trials[arm] for s in trial.seconds] for arm in arms}
        tried = {
            arm: budget * float(np.median(seconds or spent[PRINCIPLED] or [0.0]))
            for arm, seconds in spent.items()
        }
        return {
            "recipe": self.folder.recipe.title,
            "date": time.strftime("%Y-%m-%d"),
            "budget": budget,
            "targets": [round(target, 6) for target in self.targets],
            "target_shares": self.spec.targets,
            "seeds": self.spec.seeds,
            "selection_seeds": self.spec.selection_seeds,
            "metric": main_metric(self.data.target)[0],
            "arms": arms,
            "speedups": {
                f"{ours} vs {base}": [
                    compare_steps(slow, fast, budget)
                    for slow, fast in zip(arms[base]["steps"], arms[ours]["steps"], strict=True)
                ]
                for ours, base in pairs
            },
            "wall_clock": {
                f"{PRINCIPLED} vs {base}": [
                    compare_steps(slow, fast, (tried[base], tried[PRINCIPLED]))
                    for slow, fast in zip(
                        arms[base]["seconds"], arms[PRINCIPLED]["seconds"], strict=True
                    )
                ]
                for base in baselines
            },
        }


def _seconds_to_target(trial: Trial, target: float) -> float | None:
    steps = steps_to_target(trial.losses, target)
    return None if steps is None else round(sum(trial.seconds[:steps]), 4)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
