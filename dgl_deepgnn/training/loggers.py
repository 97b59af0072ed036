"""Metrics of a training for the tools that show them: TensorBoard, W&B, MLflow, trackio.

They get what the run folder's ``metrics.jsonl`` gets, an epoch at a time, each seed as a run of its
own. Where they send or keep it is theirs to say: ``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``,
``TRACKIO_DIR``, ...
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.recipe import Recipe, dotted
from dgl_deepgnn.registry import did_you_mean

__all__ = ["LOGGERS", "Logger", "Loggers", "check_loggers"]

PROJECT = "dgl-deepgnn"


class Logger(Protocol):
    """Where the metrics of one seed go."""

    def log(self, line: Mapping[str, Any]) -> None:
        """Take the line of an epoch, as in ``metrics.jsonl``."""

    def close(self) -> None:
        """The seed is done, or was interrupted."""


def scalars(line: Mapping[str, Any]) -> dict[str, float]:
    """Values at the end of an epoch, by name.

    Examples
    --------
    >>> scalars({"epoch": 2, "step": 8, "lr": 0.1, "step_losses": [2.0, 1.0], "val": {"loss": 3.0}})
    {'epoch': 2, 'lr': 0.1, 'train/epoch_loss': 1.5, 'val/loss': 3.0}
    """
    losses = line["step_losses"]
    found = {"epoch": line["epoch"]}
    if "lr" in line:  # version 0.1 did not write it
        found["lr"] = line["lr"]
    found["train/epoch_loss"] = sum(losses) / len(losses)
    for part in ("train", "val", "test"):
        found |= {f"{part}/{name}": value for name, value in line.get(part, {}).items()}
    return found


class TensorBoard:
    """Event files beside the metrics of the seed."""

    def __init__(self, recipe: Recipe, seed: int, place: Path) -> None:
        self._writer = _module("tensorboard").SummaryWriter(str(place))

    def log(self, line: Mapping[str, Any]) -> None:
        """Write events: of every step its loss."""
        first = line["step"] - len(line["step_losses"])
        for index, loss in enumerate(line["step_losses"]):
            self._writer.add_scalar("train/step_loss", loss, first + index + 1)
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


class _LikeWandb:
    """A tool with the interface of Weights & Biases."""

    name: str

    def __init__(self, recipe: Recipe, seed: int, place: Path) -> None:
        self._module = _module(self.name)
        self._run = self._module.init(
            project=PROJECT,
            name=f"{place.parent.name} seed {seed}",
            group=place.parent.name,
            config=recipe.model_dump(mode="json"),
            **self._options(place),
        )

    def _options(self, place: Path) -> dict[str, Any]:
        return {}

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the end of an epoch, at its step."""
        self._run.log(scalars(line), step=line["step"])

    def close(self) -> None:
        """End the run."""
        self._module.finish()


class Wandb(_LikeWandb):
    """Weights & Biases."""

    name = "wandb"

    def _options(self, place: Path) -> dict[str, Any]:
        # A seed that is continued is the run that it was, of this folder: the recipe is written
        # once, when the folder is made.
        made = (place.parent / "recipe.yaml").stat().st_mtime_ns
        name = f"{place.resolve()} {made}"
        return {"dir": str(place), "resume": "allow", "id": _digest(name)}


class Trackio(_LikeWandb):
    """Hugging Face's trackio."""

    name = "trackio"


class MLflow:
    """MLflow."""

    def __init__(self, recipe: Recipe, seed: int, place: Path) -> None:
        self._mlflow = _module("mlflow")
        self._mlflow.set_experiment(PROJECT)
        name = f"{place.parent.name} seed {seed}"
        self._mlflow.start_run(run_name=name)
        self._mlflow.log_params(dotted(recipe.model_dump(mode="json")))

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the end of an epoch, at its step."""
        self._mlflow.log_metrics(scalars(line), step=line["step"])

    def close(self) -> None:
        """End the run."""
        self._mlflow.end_run()


LOGGERS: dict[str, Any] = {
    "tensorboard": TensorBoard,
    "wandb": Wandb,
    "mlflow": MLflow,
    "trackio": Trackio,
}


def check_loggers(names: Iterable[str]) -> None:
    """Refuse a logger that is not known, or not installed, before any work.

    Raises
    ------
    UserError
        The message says which there are, or what to install.
    """
    for name in names:
        if name not in LOGGERS:
            raise UserError(f"There is no logger {name!r}. {did_you_mean(name, list(LOGGERS))}")
        _module(name)


class Loggers:
    """All loggers of a seed. One that fails on the way is left out: the training goes on.

    Parameters
    ----------
    names : iterable of str
        Of `LOGGERS`.
    recipe : Recipe
        What is trained.
    seed : int
        The seed.
    place : Path
        Its folder in the run folder.
    required : bool
        Whether to stop if one cannot be opened: before any work, not in the middle of it.

    Raises
    ------
    UserError
        If one cannot be opened.
    """

    def __init__(
        self, names: Iterable[str], recipe: Recipe, seed: int, place: Path, required: bool
    ) -> None:
        self._open: dict[str, Logger] = {}
        for name in names:
            try:
                with redirect_stdout(sys.stderr):  # the standard output is for results
                    self._open[name] = LOGGERS[name](recipe, seed, place)
            except Exception as error:  # each tool has errors of its own
                problem = f"The logger {name} cannot be opened: {type(error).__name__}: {error}"
                if required:
                    self.close()
                    raise UserError(problem) from None
                warnings.warn(f"{problem}. It gets nothing of this seed.", stacklevel=3)

    def log(self, line: Mapping[str, Any]) -> None:
        """Hand on the line of an epoch."""
        self._each(lambda logger: logger.log(line))

    def close(self) -> None:
        """Close all."""
        self._each(lambda logger: logger.close())
        self._open = {}

    def _each(self, act: Callable[[Logger], None]) -> None:
        for name, logger in list(self._open.items()):
            try:
                with redirect_stdout(sys.stderr):
                    act(logger)
            except Exception as error:
                del self._open[name]
                warnings.warn(
                    f"The logger {name} has failed, and gets nothing more of this seed: "
                    f"{type(error).__name__}: {error}. metrics.jsonl has everything.",
                    stacklevel=4,
                )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _module(name: str) -> Any:
    module = "torch.utils.tensorboard" if name == "tensorboard" else name
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"The logger {name} needs a package: pip install 'dgl-deepgnn[{name}]'."
        ) from None
