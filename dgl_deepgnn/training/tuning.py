"""A learning rate found on a small network, for the recipe's size: successive halving."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import new_folder, write_text
from dgl_deepgnn.progress import Progress
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import DivergenceError, Trainer, find_device
from dgl_deepgnn.wording import counted

__all__ = ["tune"]

KIND = "tuning"
RATIO = 10**0.25
GRIDS = {"adam": range(-12, 1), "adamw": range(-12, 1), "sgd": range(-12, 5)}
"""Learning rates that are tried, as powers of RATIO: 0.001 to 1, of SGD to 10."""
KEPT = 3
"""One in so many goes on to a round of so many times the epochs."""
ROUNDS = 3
MAX_WIDENINGS = 4
"""Learning rates that are tried beyond the grid at most, if its edge is the best."""
MAX_SEEDS = 1000

Epoch = Annotated[str, Field(pattern=r"^[1-9][0-9]{0,18}$")]
Loss = Annotated[float, Field(allow_inf_nan=False)]


class TuningTrial(BaseModel):
    """Header of a trial's file: where it stands, and its validation losses so far.

    The loss of the epoch in which it diverged is None.
    """

    model_config = ConfigDict(strict=True)

    counters: dict[str, Annotated[int, Field(ge=0)]]
    val_loss: dict[Epoch, Loss | None] = Field(min_length=1)


def tune(
    recipe: Recipe | str | Path,
    output: Path | str | None = None,
    *,
    num_layers: int = 8,
    hidden_feats: int = 32,
    seeds: int = 3,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    allow_code: bool = False,
) -> tuple[Path, dict[str, Any]]:
    r"""Find a recipe's learning rate on a small network, by its validation loss.

    The network is the recipe's but for depth and width; `optimizer.transfer` carries the rate
    over (:mod:`dgl_deepgnn.optim`). Successive halving: all learning rates, a factor of
    :math:`10^{1/4}` apart, are trained for a ninth of the recipe's epochs, the best third of them
    for a third, the best third of those to the end. A rate is as good as the lowest validation
    loss so far, in the mean over the seeds; the test part is not looked at. If the edge of the grid
    is the best after the first round, it is widened.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or its name or path, see :func:`dgl_deepgnn.load_recipe`.
    output : Path, optional
        Folder to write; by default a new one under ``runs/``, named after the recipe.
    num_layers, hidden_feats : int
        Size of the small network, if the recipe's is not smaller. A network without residual
        connections keeps the recipe's depth, over which its rates do not carry.
    seeds : int
        Number of seeds, from the recipe's ``speedup.selection_seeds`` on, none of which the recipe
        is trained with.
    resume : bool
        Continue in `output`; its size and seeds are those it was started with.
    device : str
        Where to train.
    progress : bool
        Whether to print the budget and draw a progress bar.
    allow_code : bool
        As in :func:`dgl_deepgnn.train`.

    Returns
    -------
    Path
        The folder, with ``tuned.yaml`` (the recipe with the rate found) and ``tuning.json``.
    dict
        The content of ``tuning.json``.

    Raises
    ------
    UserError
        If the folder exists (or, to resume, is of another recipe), or every rate diverges.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "tuning"
    >>> small = load_recipe("resgcn64.digits", ["data.name=karate", "training.epochs=9"])
    >>> _, result = tune(small, folder, num_layers=3, hidden_feats=4, seeds=1, progress=False)
    >>> tuned = load_recipe(folder / "tuned.yaml")
    >>> tuned.optimizer.transfer, tuned.optimizer.lr == result["lr"], tuned.model.num_layers
    (True, True, 64)
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    target_device = find_device(device)
    data = load_task(recipe, allow_code)
    if resume:
        if output is None:
            raise UserError("To resume, say which folder.")
        folder = RunFolder.open(Path(output), data, KIND)
        if folder.recipe != recipe:
            raise UserError(f"{output} was started with another recipe: see its recipe.yaml.")
    else:
        for name, value in (
            ("num_layers", num_layers),
            ("hidden_feats", hidden_feats),
            ("seeds", seeds),
        ):
            if value < 1:
                raise UserError(f"{name} must be at least 1, got {value}.")
        if seeds > MAX_SEEDS:
            raise UserError(f"seeds must be at most {MAX_SEEDS:,}, got {seeds}.")
        size = {
            "num_layers": recipe.model.num_layers
            if recipe.model.residual is None
            else min(num_layers, recipe.model.num_layers),
            "hidden_feats": min(hidden_feats, recipe.model.hidden_feats),
        }
        first = recipe.speedup.selection_seeds[0]
        settings = {**size, "seeds": [first + index for index in range(seeds)]}
        _Tuning.check(recipe, data, settings, target_device)
        path = Path(output) if output else new_folder(Path("runs"), f"{recipe.name}.tuning")
        folder = RunFolder.create(path, recipe, data, device, KIND, tuning=settings)
    with folder.locked(), torch.random.fork_rng():
        tuning = _Tuning(folder, data, target_device, progress)
        if progress:
            print(f"Folder: {folder.path}\n{tuning.budget}", file=sys.stderr)
        result = tuning.run()
        folder.write("tuning.json", result)
        write_text(folder.path / "tuned.yaml", _transferred(recipe, result["lr"]).to_yaml())
    return folder.path, result


def _transferred(recipe: Recipe, lr: float, model: Mapping[str, Any] | None = None) -> Recipe:
    """The recipe with that learning rate, at its own size or another one."""
    return recipe.model_copy(
        update={
            "model": recipe.model.model_copy(update=dict(model or {})),
            "optimizer": recipe.optimizer.model_copy(update={"lr": lr, "transfer": True}),
        }
    )


class _Tuning:
    """All trainings of a folder; what is done is read back instead of repeated."""

    def __init__(
        self, folder: RunFolder, data: TaskData, device: torch.device, progress: bool
    ) -> None:
        self.folder, self.data, self.device = folder, data, device
        self.settings = folder.facts["tuning"]
        self.seeds: list[int] = self.settings["seeds"]
        self.grid = GRIDS[folder.recipe.optimizer.name]
        small = self._trainer(1.0, self.seeds[0])
        self.rounds = _rounds(small.total_epochs)
        per_epoch = small.batches.steps_per_epoch
        self.most_epochs = _most_epochs(self.rounds, len(self.grid), len(self.seeds))
        large = Trainer(folder.recipe, data, folder.recipe.seeds[0], device)
        self.budget = (
            f"{len(self.grid)} learning rates and {counted(len(self.seeds), 'seed')}: at most "
            f"{self.most_epochs * per_epoch:,} optimizer steps of {_size(small)}. The recipe "
            f"trains {large.total_steps * len(folder.recipe.seeds):,} steps of {_size(large)}."
        )
        self.progress = progress
        folder.make("trials")

    @staticmethod
    def check(
        recipe: Recipe, data: TaskData, settings: dict[str, Any], device: torch.device
    ) -> None:
        """Whatever is wrong with the recipe shows before a folder is made."""
        model = {key: settings[key] for key in ("num_layers", "hidden_feats")}
        for some in (recipe, _transferred(recipe, recipe.optimizer.lr, model)):
            Trainer(some, data, settings["seeds"][0], device)

    def _trainer(self, rate: float, seed: int) -> Trainer:
        size = {key: self.settings[key] for key in ("num_layers", "hidden_feats")}
        return Trainer(_transferred(self.folder.recipe, rate, size), self.data, seed, self.device)

    def run(self) -> dict[str, Any]:
        """Halve the learning rates until the last round is done."""
        powers, rounds = list(self.grid), []
        tried: set[int] = set()
        self.bar = Progress(total=self.most_epochs, unit="epoch", disable=not self.progress)
        with self.bar:
            for number, epochs in enumerate(self.rounds):
                scores = {power: self._score(power, epochs) for power in powers}
                for _ in range(MAX_WIDENINGS if number == 0 else 0):
                    best = min(scores, key=lambda power: scores[power])
                    if best not in (min(scores), max(scores)):
                        break
                    beyond = best - 1 if best == min(scores) else best + 1
                    scores[beyond] = self._score(beyond, epochs)
                tried |= set(scores)
                ranked = sorted(scores, key=lambda power: scores[power])
                if math.isinf(scores[ranked[0]]):
                    raise UserError(
                        f"{self.folder.recipe.title} diverges at every learning rate from "
                        f"{RATIO ** min(scores):.2g} to {RATIO ** max(scores):.2g}: look at "
                        "`dgl-deepgnn diagnose`."
                    )
                rounds.append(
                    {
                        "epochs": epochs,
                        "val_loss": {
                            f"{_rate(power):.4g}": scores[power]
                            if scores[power] < math.inf
                            else None
                            for power in sorted(scores)
                        },
                    }
                )
                powers = ranked[: -(-len(ranked) // KEPT)]
        self._doubt(scores[powers[0]])
        if powers[0] in (min(tried), max(tried)):
            warnings.warn(
                f"The best learning rate, {_rate(powers[0]):.4g}, lies on the edge of those tried, "
                f"{_rate(min(tried)):.4g} to {_rate(max(tried)):.4g}: a better one may lie beyond.",
                stacklevel=3,
            )
        return {
            "recipe": self.folder.recipe.title,
            "lr": _rate(powers[0]),
            **self.settings,
            "budget": self.budget,
            "rounds": rounds,
        }

    def _doubt(self, loss: float) -> None:
        """Warn if the best network has learned nothing, as one that a large rate has killed."""
        if self.data.target == "regression":
            return
        blind = []
        for seed in self.seeds:
            labels = self.data.labels[self.data.splits[seed % len(self.data.splits)]["val"]]
            guess = torch.zeros(len(labels), self.data.num_outputs, device=self.device)
            blind.append(self._trainer(1.0, seed).loss(guess, labels.to(self.device)).item())
        if loss > 0.99 * sum(blind) / len(blind):
            warnings.warn(
                f"No learning rate has led below the validation loss of a blind guess, "
                f"{sum(blind) / len(blind):.3g}, in {counted(self.rounds[-1], 'epoch')}: the one "
                "chosen means little. Train longer (training.epochs).",
                stacklevel=4,
            )

    def _score(self, power: int, epochs: int) -> float:
        """Lowest validation loss within so many epochs, mean over the seeds."""
        lowest = [self._train(_rate(power), seed, epochs) for seed in self.seeds]
        return sum(lowest) / len(lowest)

    def _train(self, rate: float, seed: int, epochs: int) -> float:
        """Continue one training; what its header says is trained already is not repeated."""
        name = f"trials/lr{rate:.4g}-seed{seed}.safetensors"
        self.bar.set_description(f"lr {rate:.2g}, seed {seed}")
        losses: dict[str, float | None] = {}
        trainer = self._trainer(rate, seed)
        if (self.folder.path / name).exists():
            tensors, facts = self.folder.load(name, TuningTrial)
            losses = facts["val_loss"]
            fits = min(map(int, losses)) <= epochs
            if fits and None not in losses.values():
                try:
                    trainer.load_state(tensors, facts["counters"])
                    fits = trainer.epoch == max(map(int, losses))
                    fits = fits and trainer.step <= trainer.total_steps
                except (LookupError, RuntimeError, TypeError, ValueError):
                    fits = False
            if not fits:
                raise self.folder.damaged(name, "it is not of this tuning")
        started = trainer.epoch
        every = trainer.recipe.training.evaluate_every
        if None not in losses.values() and started < epochs:
            try:
                while trainer.epoch < epochs:
                    trainer.run_epoch()
                    if trainer.epoch == epochs or trainer.epoch % every == 0:
                        losses[str(trainer.epoch)] = trainer.evaluate(["val"])["val"]["loss"]
                    self.bar.update()
                tensors, counters = trainer.state()
            except DivergenceError:
                losses[str(min(trainer.epoch + 1, epochs))] = None
                tensors, counters = {}, {}
            self.folder.save(name, tensors, {"counters": counters, "val_loss": losses})
        seen = [loss for epoch, loss in losses.items() if int(epoch) <= epochs]
        return math.inf if None in seen else min(loss for loss in seen if loss is not None)


def _rate(power: int) -> float:
    """Four digits, so that recipe, file names and tables say the same."""
    return float(f"{RATIO**power:.4g}")


def _rounds(epochs: int) -> list[int]:
    """Epochs after which the best are chosen."""
    return sorted({-(-epochs // KEPT**back) for back in range(ROUNDS)})


def _most_epochs(rounds: list[int], rates: int, seeds: int) -> int:
    """Epochs of all trainings together, with the widest grid."""
    total, before = 0, 0
    rates += MAX_WIDENINGS
    for epochs in rounds:
        total += rates * seeds * (epochs - before)
        rates, before = -(-rates // KEPT), epochs
    return total


def _size(trainer: Trainer) -> str:
    model = trainer.recipe.model
    weights = sum(p.numel() for p in trainer.model.parameters())
    return (
        f"{counted(model.num_layers, 'layer')} of width {model.hidden_feats} ({weights:,} weights)"
    )
