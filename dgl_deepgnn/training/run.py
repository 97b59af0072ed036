"""A recipe trained over its seeds, in a run folder that survives being killed."""

from __future__ import annotations

import json
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dgl
import torch
from filelock import FileLock, Timeout
from tqdm import tqdm

import dgl_deepgnn
from dgl_deepgnn.data import TaskData, load_data, main_metric
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import load_tensors, save_tensors, write_json, write_text
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training.plot import plot_losses
from dgl_deepgnn.training.trainer import Step, Trainer, find_device, is_better

__all__ = ["RunFolder", "make_folder", "new_folder", "summarize", "train"]


CHECKPOINT = "checkpoint.safetensors"


class RunFolder:
    """The folder of one training.

    ::

        recipe.yaml           the recipe, every default written out
        run.json              fingerprint of the data, versions, device
        seed-0/metrics.jsonl  one line an epoch
        seed-0/checkpoint.safetensors   all that the next epoch needs, while the seed is trained
        seed-0/model.safetensors, result.json   best epoch by validation, once it is done
        model.safetensors     weights of the seed with the best validation score
        config.json           the model's name and constructor arguments
        summary.json          mean, spread, every seed
        loss.png              training loss by step

    Parameters
    ----------
    path : Path
        The folder.
    recipe : Recipe
        What is trained in it.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    @classmethod
    def create(
        cls, path: Path, recipe: Recipe, data: TaskData, device: str, kind: str = "training"
    ) -> RunFolder:
        """Make a new folder.

        Raises
        ------
        UserError
            If it exists (a run folder is never overwritten) or cannot be made.
        """
        facts = {"kind": kind, "fingerprint": data.fingerprint(), **environment(device)}
        make_folder(path, advice=f"Continue it with `--resume {path}`. ")
        write_text(path / "recipe.yaml", recipe.to_yaml())
        write_json(path / "run.json", facts)
        return cls(path, recipe)

    @classmethod
    def open(cls, path: Path, data: TaskData | None = None, kind: str | None = None) -> RunFolder:
        """Open a folder that exists.

        Raises
        ------
        UserError
            If it is not a run folder, not of this `kind` ("training" or "speed-up record"), or
            `data` is not what it was started with.
        """
        try:
            recipe = load_recipe(path / "recipe.yaml")
            facts = json.loads((path / "run.json").read_text())
            fingerprint, found = facts["fingerprint"], facts["kind"]
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} is not a run folder: {error}") from None
        if kind not in (None, found):
            raise UserError(f"{path} holds a {found}, not a {kind}.")
        if data is not None and fingerprint != data.fingerprint():
            raise UserError(
                f"{path} was started with other data than {recipe.data.name} gives now "
                "(the fingerprints differ). Start a new run."
            )
        return cls(path, recipe)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; released even by a kill."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.path} is being trained by another process.") from None
        try:
            yield
        finally:
            lock.release()

    def seed_folder(self, seed: int) -> Path:
        """Folder of one seed."""
        return self.path / f"seed-{seed}"

    def result(self, seed: int) -> dict[str, Any] | None:
        """Result of a seed, None while it is not done."""
        file = self.seed_folder(seed) / "result.json"
        return json.loads(file.read_text()) if file.exists() else None

    def metrics(self, seed: int) -> list[dict[str, Any]]:
        """One entry an epoch."""
        file = self.seed_folder(seed) / "metrics.jsonl"
        if not file.exists():
            return []
        # A kill can leave half a line at the end; its epoch is trained again.
        lines = file.read_text().splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def train(
    recipe: Recipe | str | Path,
    output: Path | str | None = None,
    *,
    resume: bool = False,
    device: str = "cpu",
    progress: bool = True,
    tensorboard: bool = False,
) -> RunFolder:
    """Train a recipe over all its seeds.

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
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    progress : bool
        Whether to draw a progress bar.
    tensorboard : bool
        Whether to write TensorBoard events too (needs the package ``tensorboard``).

    Returns
    -------
    RunFolder
        With weights, metrics, summary and plot.

    Raises
    ------
    UserError
        If the folder exists (or, to resume, does not), the device is not there, or the loss
        stops being finite.

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
    if tensorboard:
        _summary_writer()
    data = load_data(recipe.data.name, **recipe.data.options)
    if resume:
        if output is None:
            raise UserError("To resume, say which run folder.")
        folder = RunFolder.open(Path(output), data, "training")
        if folder.recipe != recipe:
            raise UserError(f"{output} was started with another recipe: see its recipe.yaml.")
    else:
        # Whatever is wrong with the recipe shows before the folder is made.
        Trainer(recipe, data, recipe.seeds[0], target_device)
        path = Path(output) if output is not None else new_folder(Path("runs"), recipe.name)
        folder = RunFolder.create(path, recipe, data, device)
    if progress:
        print(f"Run folder: {folder.path}", file=sys.stderr)
    with folder.locked(), torch.random.fork_rng():
        for seed in recipe.seeds:
            if folder.result(seed) is None:
                _train_seed(folder, data, seed, target_device, progress, tensorboard)
            (folder.seed_folder(seed) / CHECKPOINT).unlink(missing_ok=True)
        _finish(folder, data)
    return folder


def new_folder(parent: Path, name: str) -> Path:
    """First of ``name``, ``name-2``, ``name-3``, ... that does not exist."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


def make_folder(path: Path, advice: str = "") -> None:
    """Make a folder that is not there yet; `advice` is what else than another one would do.

    Raises
    ------
    UserError
        If it exists (it is never overwritten) or cannot be made.
    """
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        raise UserError(
            f"{path} exists, and a run folder is never overwritten. {advice}Give another folder "
            "with --output."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path} cannot be made ({error.strerror}). Give another folder with --output."
        ) from None


def summarize(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation (of the sample) and number of values."""
    spread = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "std": spread, "n": len(values)}


def environment(device: str) -> dict[str, Any]:
    """Versions that a result depends on."""
    return {
        "versions": {
            "dgl_deepgnn": dgl_deepgnn.__version__,
            "dgl": dgl.__version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": device,
        "threads": torch.get_num_threads(),
    }


class _Best:
    """Best epoch so far: its weights, metrics, and how long ago it was."""

    def __init__(self) -> None:
        self.weights: dict[str, torch.Tensor] = {}
        self.facts: dict[str, Any] = {"epoch": 0, "metrics": None}

    def update(self, trainer: Trainer, metrics: dict[str, Any]) -> None:
        previous = self.facts["metrics"]
        if is_better(trainer.target, metrics["val"], previous and previous["val"]):
            self.weights = {k: v.clone() for k, v in trainer.model.state_dict().items()}
            self.facts = {"epoch": trainer.epoch, "metrics": metrics}


def _train_seed(
    folder: RunFolder,
    data: TaskData,
    seed: int,
    device: torch.device,
    progress: bool,
    tensorboard: bool,
) -> None:
    recipe, place = folder.recipe, folder.seed_folder(seed)
    place.mkdir(exist_ok=True)
    trainer, best, seconds = Trainer(recipe, data, seed, device), _Best(), 0.0
    checkpoint = place / CHECKPOINT
    if checkpoint.exists():
        tensors, facts = load_tensors(checkpoint)
        trainer.load_state(tensors, facts["counters"])
        best.facts, seconds = facts["best"], facts["seconds"]
        best.weights = {
            name.removeprefix("best."): value
            for name, value in tensors.items()
            if name.startswith("best.")
        }
    # Epochs after the checkpoint are trained again: their lines go.
    lines = [line for line in folder.metrics(seed) if line["epoch"] <= trainer.epoch]
    write_text(place / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    writer = _summary_writer()(str(place)) if tensorboard else None
    name, _ = main_metric(data.target)
    every = recipe.training.evaluate_every
    patience = recipe.training.patience or trainer.total_epochs
    bar = tqdm(
        total=trainer.total_epochs,
        initial=trainer.epoch,
        desc=f"{recipe.name} seed {seed}",
        unit="epoch",
        disable=not progress,
    )
    with bar, open(place / "metrics.jsonl", "a", encoding="utf-8") as log:
        # Patience is asked for before an epoch, so that a resumed run stops where it would have.
        while trainer.epoch < trainer.total_epochs and (
            trainer.epoch % every or trainer.epoch - best.facts["epoch"] < patience
        ):
            start = time.perf_counter()
            steps = trainer.run_epoch()
            metrics = None
            last = trainer.epoch == trainer.total_epochs
            if last or trainer.epoch % every == 0:
                metrics = trainer.evaluate()
                best.update(trainer, metrics)
                bar.set_postfix(
                    {"loss": f"{steps[-1].loss:.3g}", f"val {name}": metrics["val"][name]}
                )
            seconds += time.perf_counter() - start
            line = _metrics_line(trainer, steps, metrics)
            log.write(json.dumps(line) + "\n")
            log.flush()
            _save_checkpoint(checkpoint, trainer, best, seconds)
            if writer is not None:
                _write_events(writer, line)
            bar.update()
    result = {
        "seed": seed,
        "best_epoch": best.facts["epoch"],
        "epochs": trainer.epoch,
        "steps": trainer.step,
        "seconds": seconds,
        **best.facts["metrics"],
    }
    save_tensors(place / "model.safetensors", best.weights, {"seed": seed})
    write_json(place / "result.json", result)


def _save_checkpoint(path: Path, trainer: Trainer, best: _Best, seconds: float) -> None:
    tensors, counters = trainer.state()
    tensors.update({f"best.{name}": value for name, value in best.weights.items()})
    save_tensors(path, tensors, {"counters": counters, "best": best.facts, "seconds": seconds})


def _metrics_line(
    trainer: Trainer, steps: list[Step], metrics: dict[str, Any] | None
) -> dict[str, Any]:
    return {
        "epoch": trainer.epoch,
        "step": trainer.step,
        "lr": trainer.optimizer.param_groups[0]["lr"],
        "step_losses": [step.loss for step in steps],
        "step_seconds": [round(step.seconds, 6) for step in steps],
        **(metrics or {}),
    }


def _finish(folder: RunFolder, data: TaskData) -> None:
    """Summary, weights of the best seed, and plot, from the seeds' results."""
    recipe, (name, greater) = folder.recipe, main_metric(data.target)
    results = [folder.result(seed) or {} for seed in recipe.seeds]
    sign = 1 if greater else -1
    best = max(results, key=lambda result: sign * result["val"][name])
    trainer = Trainer(recipe, data, best["seed"])
    tensors, _ = load_tensors(folder.seed_folder(best["seed"]) / "model.safetensors")
    save_tensors(folder.path / "model.safetensors", tensors, {"seed": best["seed"]})
    write_json(
        folder.path / "config.json", {"model": recipe.model.name, "arguments": trainer.model.config}
    )
    write_json(
        folder.path / "summary.json",
        {
            "recipe": recipe.name,
            "metric": name,
            "parameters": sum(p.numel() for p in trainer.model.parameters()),
            "best_seed": best["seed"],
            "test": {
                metric: summarize([result["test"][metric] for result in results])
                for metric in results[0]["test"]
            },
            "val": summarize([result["val"][name] for result in results]),
            "seeds": results,
        },
    )
    plot_losses(
        folder.path / "loss.png",
        f"{recipe.name}: training loss by step",
        {
            seed: [loss for line in folder.metrics(seed) for loss in line["step_losses"]]
            for seed in recipe.seeds
        },
    )


def _summary_writer() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError(
            "--tensorboard needs the package tensorboard: pip install tensorboard."
        ) from None
    return SummaryWriter


def _write_events(writer: Any, line: dict[str, Any]) -> None:
    first = line["step"] - len(line["step_losses"])
    for index, loss in enumerate(line["step_losses"]):
        writer.add_scalar("train/step_loss", loss, first + index + 1)
    for part in ("train", "val", "test"):
        for name, value in line.get(part, {}).items():
            writer.add_scalar(f"{part}/{name}", value, line["step"])
    writer.flush()
