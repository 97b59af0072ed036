"""A recipe trained over its seeds, in a run folder that survives being killed."""

from __future__ import annotations

import math
import statistics
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from dgl_deepgnn.data import TaskData, main_metric
from dgl_deepgnn.data.trust import load_recipe_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import new_folder
from dgl_deepgnn.progress import Progress
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training.folder import CheckpointFacts, RunFolder
from dgl_deepgnn.training.loggers import Loggers, check_loggers
from dgl_deepgnn.training.part import Part, connected
from dgl_deepgnn.training.plot import plot_losses
from dgl_deepgnn.training.processes import ONE, Processes, join
from dgl_deepgnn.training.trainer import (
    DivergenceError,
    Step,
    Trainer,
    build_model,
    find_device,
    is_better,
)

__all__ = ["load_task", "plot_run", "summarize", "train"]


CHECKPOINT = "checkpoint.safetensors"


def train(
    recipe: Recipe | str | Path,
    output: Path | str | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    loggers: Sequence[str] = (),
    tensorboard: bool = False,
    blind: bool = False,
    allow_code: bool = False,
    partition: Path | None = None,
) -> RunFolder:
    """Train a recipe over all its seeds.

    Started by ``torchrun``, several processes share the graphs of every batch (PyTorch's
    DistributedDataParallel) and make the steps that one would make; the first one evaluates and
    writes. They have to see the same disk.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or its name or path, see :func:`dgl_deepgnn.load_recipe`.
    output : Path, optional
        The run folder; by default a new one under ``runs/``, named after the recipe.
    resume : bool
        Continue in `output` after its last finished epoch. The weights are the same as those
        of a run that was never interrupted.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ... Of several processes on ``"cuda"`` each has a
        GPU of its own.
    progress : bool
        Whether to draw a progress bar.
    loggers : sequence of str
        Where else metrics go: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, ``"trackio"``, each
        with a package of its own; each seed is a run. They say by their own variables where to.
    tensorboard : bool
        The same as ``loggers=["tensorboard"]``.
    blind : bool
        Whether test scores are kept from you while you choose settings: loggers do not get
        them, and neither the command line nor :func:`compare` shows them. They are in the folder.
    allow_code : bool
        Whether data that runs code (``python:...``, or a folder that is unpickled) may be
        loaded. Say so only of a recipe that you trust.
    partition : Path, optional
        What ``dgl-deepgnn partition`` has written, in a trainer that ``train --distributed`` has
        started on one of several machines.

    Returns
    -------
    RunFolder
        With weights, metrics, summary and plot.

    Raises
    ------
    UserError
        If the folder exists (or, to resume, does not), the device is not there, the loss stops
        being finite, the data would run code that is not allowed, or another process has ended.

    Examples
    --------
    >>> import tempfile
    >>> from dgl_deepgnn.recipe import load_recipe
    >>> recipe = load_recipe("resgcn64.digits", ["training.epochs=1", "seeds=[0]"])
    >>> folder = train(recipe, Path(tempfile.mkdtemp()) / "run", progress=False)
    >>> sorted(file.name for file in folder.path.glob("*.json"))
    ['config.json', 'run.json', 'summary.json']
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    target_device = find_device(device)
    loggers = list(dict.fromkeys([*loggers, *(["tensorboard"] if tensorboard else [])]))
    check_loggers(loggers)
    part: AbstractContextManager[Part | None] = nullcontext()
    if partition is not None:
        part = connected(partition, recipe)
    # DGL wants its connections made before PyTorch's.
    with part as mine, join() as processes, torch.random.fork_rng():
        target_device = processes.device(target_device)
        if processes.rank:
            return _follow(processes, recipe, target_device, allow_code, mine)
        data = mine or load_task(recipe, allow_code)
        folder = _folder(recipe, data, output, resume, device, target_device, processes, blind)
        if mine is None:  # a part of the data does not tell
            _doubt_validation(recipe, data)
        if progress:
            print(f"Run folder: {folder.path}", file=sys.stderr)
        processes.share(folder.path)
        with folder.locked():
            for seed in recipe.seeds:
                folder.make(f"seed-{seed}")
                if folder.result(seed) is None:
                    _train_seed(folder, data, seed, target_device, progress, loggers, processes)
                (folder.seed_folder(seed) / CHECKPOINT).unlink(missing_ok=True)
            _finish(folder, data)
        processes.share(None)
    return folder


def _folder(
    recipe: Recipe,
    data: TaskData,
    output: Path | str | None,
    resume: bool,
    device: str,
    target_device: torch.device,
    processes: Processes,
    blind: bool,
) -> RunFolder:
    """Open the folder to resume, or make a new one."""
    if not resume:
        # Whatever is wrong with the recipe shows before the folder is made.
        Trainer(recipe, data, recipe.seeds[0], target_device, processes)
        path = Path(output) if output is not None else new_folder(Path("runs"), recipe.name)
        more: dict[str, Any] = {} if processes.size == 1 else {"processes": processes.size}
        if blind:
            more["blind"] = True
        return RunFolder.create(path, recipe, data, device, **more)
    if output is None:
        raise UserError("To resume, say which run folder.")
    folder = RunFolder.open(Path(output), data, "training")
    if folder.recipe != recipe:
        raise UserError(f"{output} was started with another recipe: see its recipe.yaml.")
    before = folder.facts.get("processes", 1)
    if before != processes.size:
        warnings.warn(
            f"Number of processes: {before} when {output} was started, now {processes.size}. The "
            "weights will not be those of a run that was never interrupted.",
            stacklevel=3,
        )
    return folder


def _follow(
    processes: Processes,
    recipe: Recipe,
    device: torch.device,
    allow_code: bool,
    part: Part | None,
) -> RunFolder:
    """Train beside the first process, which says which seed, from which state, and how long."""
    path = processes.share()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the first process has said it
        data = part or load_task(recipe, allow_code)
    while (start := processes.share()) is not None:
        seed, state = start
        trainer = Trainer(recipe, data, seed, device, processes)
        trainer.load_state(*state)
        try:
            while task := processes.share():
                trainer.run_epoch() if task == "train" else trainer.evaluate()
        except DivergenceError:  # that of all: the first process reports it, and ends
            with suppress(RuntimeError, UserError):
                processes.share()
            sys.exit(2)
    # On another machine the folder may not be there.
    return RunFolder.open(path) if path.exists() else RunFolder(path, recipe, {}, "")


def _doubt_validation(recipe: Recipe, data: TaskData) -> None:
    """Warn of a validation part that cannot rank epochs by the metric."""
    if data.target != "binary" or recipe.training.select_by == "loss":
        return
    used = sorted({seed % len(data.splits) for seed in recipe.seeds})
    equal = [i for i in used if len(data.labels[data.splits[i]["val"]].unique()) < 2]
    if equal:
        warnings.warn(
            f"All validation labels of split {equal[0]} are equal: roc_auc is not defined there, "
            "and the lowest validation loss picks the epoch (training.select_by: loss).",
            stacklevel=3,
        )


def load_task(recipe: Recipe, allow_code: bool = False) -> TaskData:
    """Data of a recipe.

    Raises
    ------
    UserError
        If loading it would run code, which is not allowed.
    """
    data = load_recipe_data(recipe.data.name, recipe.data.options, allow_code)
    batching = recipe.training.batching
    if batching.kind == "graphs" and len(data.graphs) == 1:
        warnings.warn(
            f"training.batching.size={batching.size} (batch_size) does nothing: it counts graphs, "
            f"and {data.name} is one. Of the kinds clusters, shadow and saint, each trains on "
            "parts of it; or leave batching out.",
            stacklevel=3,
        )
    return data


def summarize(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (of the sample) and number of values; NaN of what is undefined."""
    spread = None
    if len(values) > 1:
        spread = statistics.stdev(values) if all(map(math.isfinite, values)) else math.nan
    return {"mean": statistics.fmean(values), "std": spread, "n": len(values)}


class Best:
    """Best epoch so far: its weights, metrics, and how long ago it was."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.facts: dict[str, Any] = {"epoch": 0, "metrics": None}

    def update(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        previous = self.facts["metrics"]
        by = trainer.recipe.training.select_by
        if is_better(trainer.target, metrics["val"], previous and previous["val"], by):
            self.weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
            self.facts = {"epoch": trainer.epoch, "metrics": metrics}


def _train_seed(
    folder: RunFolder,
    data: TaskData,
    seed: int,
    device: torch.device,
    progress: bool,
    loggers: Sequence[str],
    processes: Processes = ONE,
) -> None:
    recipe, place = folder.recipe, folder.seed_folder(seed)
    trainer, best, seconds = Trainer(recipe, data, seed, device, processes), Best(), 0.0
    checkpoint = f"{place.name}/{CHECKPOINT}"
    if (place / CHECKPOINT).exists():
        seconds = restore(folder, checkpoint, trainer, best)
    if processes.size > 1:
        processes.share((seed, trainer.state()))
    # Epochs after the checkpoint are trained again: their lines go.
    folder.write_metrics(seed, folder.metrics(seed, trainer.epoch))
    name, _ = main_metric(data.target)
    every = recipe.training.evaluate_every
    first = seed == recipe.seeds[0] and not trainer.epoch
    hidden = ("test",) if folder.facts.get("blind") else ()
    patience = recipe.training.patience or trainer.total_epochs
    bar = Progress(
        total=trainer.total_epochs,
        initial=trainer.epoch,
        desc=f"{recipe.title} seed {seed}",
        unit="epoch",
        disable=not progress,
    )
    with bar, closing(Loggers(loggers, recipe, seed, place, first)) as listening:
        # Patience is asked for before an epoch, so that a resumed run stops where it would have.
        while trainer.epoch < trainer.total_epochs and (
            trainer.epoch % every or trainer.epoch - best.facts["epoch"] < patience
        ):
            start = time.perf_counter()
            processes.share("train")
            steps = trainer.run_epoch()
            spent = time.perf_counter() - start
            metrics = None
            last = trainer.epoch == trainer.total_epochs
            if last or trainer.epoch % every == 0:
                if isinstance(data, Part):  # every machine scores its own nodes
                    processes.share("evaluate")
                metrics = trainer.evaluate()
                best.update(trainer, metrics)
                shown = {"loss": f"{steps[-1].loss:.3g}", f"val {name}": metrics["val"][name]}
                if recipe.training.batching.kind != "full":
                    shown["nodes/s"] = f"{sum(step.nodes for step in steps) / spent:,.0f}"
                bar.set_postfix(shown)
            seconds += time.perf_counter() - start
            line = _metrics_line(trainer, steps, metrics)
            folder.append_metrics(seed, line)
            _save_checkpoint(folder, checkpoint, trainer, best, seconds)
            listening.log({key: value for key, value in line.items() if key not in hidden})
            bar.update()
    processes.share(None)
    result = {
        "seed": seed,
        "best_epoch": best.facts["epoch"],
        "epochs": trainer.epoch,
        "steps": trainer.step,
        "seconds": seconds,
        **best.facts["metrics"],
    }
    folder.save(f"{place.name}/model.safetensors", best.weights, {"seed": seed})
    folder.write(f"{place.name}/result.json", result)


def restore(folder: RunFolder, name: str, trainer: Trainer, best: Best) -> float:
    """Continue from a checkpoint; returns the seconds trained so far.

    Raises
    ------
    DamagedError
        If it is damaged or of another model.
    """
    tensors, facts = folder.load(name, CheckpointFacts)
    best.facts = facts["best"]
    metrics, (metric, _) = best.facts["metrics"], main_metric(trainer.target)
    for key, value in tensors.items():
        if key.startswith("best."):
            best.weights[key.removeprefix("best.")] = value
    try:
        trainer.load_state(tensors, facts["counters"])
        fits = trainer.epoch <= trainer.total_epochs and trainer.step <= trainer.total_steps
        if metrics is None:
            fits = fits and trainer.epoch < trainer.total_epochs
        else:
            fits = fits and {metric, "loss"} <= metrics["val"].keys()
            fits = fits and best.weights.keys() == trainer.model.state_dict().keys()
    except (LookupError, RuntimeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise folder.damaged(name, "it is not of this recipe's training")
    return facts["seconds"]


def _save_checkpoint(
    folder: RunFolder, name: str, trainer: Trainer, best: Best, seconds: float
) -> None:
    tensors, counters = trainer.state()
    tensors.update({f"best.{key}": value for key, value in best.weights.items()})
    folder.save(name, tensors, {"counters": counters, "best": best.facts, "seconds": seconds})


def _metrics_line(
    trainer: Trainer, steps: list[Step], metrics: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "lr": trainer.lr,
        "step_losses": [step.loss for step in steps],
        "step_seconds": [round(step.seconds, 6) for step in steps],
        **(metrics or {}),
    }


def _finish(folder: RunFolder, data: TaskData) -> None:
    """Summary, weights of the best seed, and plot, from the seeds' results."""
    recipe, (name, greater) = folder.recipe, main_metric(data.target)
    results = [folder.result(seed) or {} for seed in recipe.seeds]
    for result, seed in zip(results, recipe.seeds, strict=True):
        same = result["seed"] == seed and result["test"].keys() == results[0]["test"].keys()
        if not same or name not in result["val"]:
            raise folder.damaged(
                f"seed-{seed}/result.json", "it is another seed's or another task's"
            )
    by, sign = name, 1 if greater else -1
    if recipe.training.select_by == "loss":
        by, sign = "loss", -1
    # Scores that are not defined are behind all others.
    defined = [result for result in results if not math.isnan(result["val"][by])]
    best = max(defined or results[:1], key=lambda result: sign * result["val"][by])
    if data.target == "regression" and max(result["val"]["r2"] for result in results) < 0:
        warnings.warn(
            "Every seed predicts the validation part worse than its mean would: give targets of "
            "mean 0 and standard deviation 1, or train longer (training.epochs).",
            stacklevel=3,
        )
    model = build_model(recipe.model, data)
    tensors, _ = folder.load(f"seed-{best['seed']}/model.safetensors")
    folder.save("model.safetensors", tensors, {"seed": best["seed"]})
    folder.write("config.json", {"model": recipe.model.name, "arguments": model.config})
    folder.write(
        "summary.json",
        {
            "recipe": recipe.title,
            "metric": name,
            "parameters": sum(p.numel() for p in model.parameters()),
            "best_seed": best["seed"],
            "test": {
                metric: summarize([result["test"][metric] for result in results])
                for metric in results[0]["test"]
            },
            "val": summarize([result["val"][name] for result in results]),
            "seeds": results,
        },
    )
    plot_run(folder.path / "loss.png", folder)


def plot_run(path: Path, folder: RunFolder) -> None:
    """Draw the training loss of a run's seeds by step, into a PNG file."""
    plot_losses(
        path,
        f"{folder.recipe.title}: training loss by step",
        {
            seed: [loss for line in folder.metrics(seed) for loss in line["step_losses"]]
            for seed in folder.recipe.seeds
        },
    )
