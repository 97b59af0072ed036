"""The folder of a run: whole from its first moment, every file of it held to a checksum."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from filelock import FileLock, Timeout
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from torch import Tensor

import dgl_deepgnn
from dgl_deepgnn.data import TaskData
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import (
    DamagedError,
    append_line,
    load_tensors,
    make_folder,
    read_json,
    read_lines,
    read_plain,
    save_tensors,
    write_json,
    write_lines,
    write_text,
)
from dgl_deepgnn.graph import DGL_VERSION
from dgl_deepgnn.recipe import Recipe, load_recipe

__all__ = ["RunFolder"]

COMMANDS = {"training": "train", "speed-up record": "speedup", "tuning": "tune"}
"""What continues a run of each kind."""
RECIPE, FACTS, LOG = "recipe.yaml", "run.json", "metrics.jsonl"


class _Content(BaseModel):
    """What a file has to hold at least."""

    model_config = ConfigDict(strict=True, extra="allow")


class TuningFacts(_Content):
    """Size of the networks that a tuning compares, and its seeds."""

    num_layers: int = Field(ge=1, le=10**5)
    hidden_feats: int = Field(ge=1, le=10**6)
    seeds: list[Annotated[int, Field(ge=0, lt=2**64)]] = Field(min_length=1, max_length=1000)


class RunFacts(_Content):
    """Of ``run.json``."""

    kind: str
    fingerprint: str
    recipe: str | None = None
    """SHA-256 of recipe.yaml; version 0.1 wrote neither this nor any checksum."""
    versions: dict[str, str]
    device: str
    threads: int
    ablation: bool = False
    blind: bool = False
    """Whether nobody is to see the test scores yet."""
    tuning: TuningFacts | None = Field(None, validate_default=True)

    @field_validator("tuning")
    @classmethod
    def _check(cls, tuning: TuningFacts | None, info: ValidationInfo) -> TuningFacts | None:
        if (info.data.get("kind") == "tuning") != (tuning is not None):
            raise ValueError("a tuning has settings, nothing else has them")
        return tuning


class EpochFacts(_Content):
    """Of a line of ``metrics.jsonl``."""

    epoch: int
    step: int
    step_losses: list[float]


class Scores(_Content):
    """Loss and metrics by part of the split."""

    train: dict[str, float]
    val: dict[str, float]
    test: dict[str, float]


class SeedResult(Scores):
    """Of a seed's ``result.json``."""

    seed: int
    best_epoch: int
    epochs: int = Field(ge=0)
    steps: int
    seconds: float


class ModelBuilt(_Content):
    """Of ``config.json``."""

    model: str
    arguments: dict[str, Any]


class Mean(_Content):
    """Of a metric over the seeds."""

    mean: float
    std: float | None
    n: int


class Summary(_Content):
    """Of ``summary.json``."""

    recipe: str
    metric: str
    parameters: int
    best_seed: int
    test: dict[str, Mean]
    val: Mean
    seeds: list[SeedResult]


class Best(_Content):
    """Of the best epoch so far."""

    epoch: int
    metrics: Scores | None


class Counters(_Content):
    """Finished epochs and steps."""

    epoch: int = Field(ge=0)
    step: int = Field(ge=0)


class CheckpointFacts(_Content):
    """Of the header of ``checkpoint.safetensors``."""

    counters: Counters
    best: Best
    seconds: float


Kind = TypeVar("Kind", bound=BaseModel)


class RunFolder:
    """The folder of one training, speed-up record or tuning.

    ::

        recipe.yaml           the recipe, every default written out
        run.json              fingerprint of the data, SHA-256 of the recipe, versions, device
        seed-0/metrics.jsonl  one line an epoch
        seed-0/checkpoint.safetensors   all that the next epoch needs, while the seed is trained
        seed-0/model.safetensors, result.json   best epoch by validation, once it is done
        model.safetensors     weights of the seed with the best validation score
        config.json           the model's name and constructor arguments
        summary.json          mean, spread, every seed
        loss.png              training loss by step

    Its JSON and safetensors carry checksums. Whatever reads them raises `DamagedError`, which
    names the file and what is left to do, if one is not what was written for this place in this
    run. Folders of version 0.1 have no checksums and are read without.

    Parameters
    ----------
    path : Path
        The folder.
    recipe : Recipe
        What is trained in it.
    facts : dict
        Content of ``run.json``.
    identity : str
        What distinguishes this run from others: of its recipe and its data.
    """

    def __init__(self, path: Path, recipe: Recipe, facts: dict[str, Any], identity: str) -> None:
        self.path, self.recipe, self.facts = path, recipe, facts
        self._identity = identity

    @classmethod
    def create(
        cls,
        path: Path,
        recipe: Recipe,
        data: TaskData,
        device: str,
        kind: str = "training",
        **more: Any,
    ) -> RunFolder:
        """Make a new folder, with recipe and facts, and `more` facts, in it.

        Raises
        ------
        UserError
            If it exists (a run folder is never overwritten) or cannot be made.
        """
        text = recipe.to_yaml()
        digest = hashlib.sha256(text.encode()).hexdigest()
        facts = {
            "kind": kind,
            "fingerprint": data.fingerprint(),
            "recipe": digest,
            **environment(device),
            **more,
        }
        with make_folder(path, advice=f"Continue it with `--resume {path}`. ") as draft:
            write_text(draft / RECIPE, text)
            write_json(draft / FACTS, facts, FACTS)
        return cls(path, recipe, facts, _identity(digest, facts))

    @classmethod
    def open(cls, path: Path, data: TaskData | None = None, kind: str | None = None) -> RunFolder:
        """Open a folder that exists.

        Raises
        ------
        UserError
            If it is not a run folder, is damaged, is not of this `kind` (see `COMMANDS`), or
            `data` is not what it was started with.
        """
        advice = "Restore it from a copy, or start a new run; the other files are as they were."
        with _advising(advice):
            try:
                digest = hashlib.sha256(read_plain(path / RECIPE)).hexdigest()
                facts = read_json(path / FACTS, FACTS, required=False)
            except OSError as error:
                raise UserError(f"{path} is not a run folder: {error}.") from None
            _validate(path / FACTS, RunFacts, facts)
            # What is neither of version 0.1 nor checked has lost its checksum.
            if facts.get("recipe") is not None or set(facts) - set(RunFacts.model_fields):
                facts = read_json(path / FACTS, FACTS)
                if facts["recipe"] != digest:
                    raise DamagedError(
                        f"{path / RECIPE} is damaged, or was changed since the run was started: "
                        f"its SHA-256 is not that in {FACTS}."
                    )
        try:
            recipe = load_recipe(path / RECIPE)
        except UserError as error:
            raise UserError(f"{path} is not a run folder that can be used here: {error}") from None
        size = facts.get("tuning")
        if size and any(
            size[key] > getattr(recipe.model, key) for key in ("num_layers", "hidden_feats")
        ):
            raise DamagedError(
                f"{path / FACTS} is damaged: a tuning's network is not larger than the recipe's. "
                f"{advice}"
            )
        if kind not in (None, facts["kind"]):
            raise UserError(f"{path} holds a {facts['kind']}, not a {kind}.")
        if data is not None and facts["fingerprint"] != data.fingerprint():
            raise UserError(
                f"{path} was started with other data than {recipe.data.name} gives now "
                "(the fingerprints differ). Start a new run."
            )
        return cls(path, recipe, facts, _identity(digest, facts))

    @property
    def _checked(self) -> bool:
        """Whether every file must carry a checksum."""
        return self.facts.get("recipe") is not None

    def _place(self, name: str) -> str:
        return f"{self._identity}/{name}"

    def add_facts(self, **more: Any) -> None:
        """Add to ``run.json``."""
        self.facts = {**self.facts, **more}
        write_json(self.path / FACTS, self.facts, FACTS if self._checked else None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder against other processes; released even by a kill."""
        lock = FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.path} is being trained by another process.") from None
        except OSError as error:  # a link, say, which is not followed
            raise UserError(
                f"{self.path / '.lock'} cannot be locked ({error.strerror}). Remove it, and "
                f"continue with {self._resume}."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def seed_folder(self, seed: int) -> Path:
        """Folder of one seed."""
        return self.path / f"seed-{seed}"

    def make(self, name: str) -> None:
        """Make a folder within, if it is not there.

        Raises
        ------
        DamagedError
            If something else is in its place: a link would lead out of the folder.
        """
        place = self.path / name
        try:
            place.mkdir(exist_ok=True)
            fits = not place.is_symlink()
        except FileExistsError:
            fits = False
        if not fits:
            raise DamagedError(
                f"{place} is {'a link' if place.is_symlink() else 'a file'}, where the run has a "
                f"folder of its own. Move it away, and continue with {self._resume}."
            )

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder."""
        write_json(self.path / name, content, self._place(name))

    def read(self, name: str, kind: type[BaseModel] = _Content) -> dict[str, Any]:
        """Read a JSON file of the folder that holds at least what `kind` asks for."""
        with self._advising(name):
            content = read_json(self.path / name, self._place(name), self._checked)
            return _validate(self.path / name, kind, content)

    def save(self, name: str, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Write a safetensors file of the folder."""
        save_tensors(self.path / name, tensors, facts, self._place(name))

    def load(
        self, name: str, kind: type[BaseModel] = _Content
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read a safetensors file of the folder: tensors, and facts as `kind` asks for."""
        with self._advising(name):
            tensors, facts = load_tensors(self.path / name, self._place(name), self._checked)
            return tensors, _validate(self.path / name, kind, facts)

    def result(self, seed: int) -> dict[str, Any] | None:
        """Result of a seed, None while it is not done."""
        name = f"seed-{seed}/result.json"
        return self.read(name, SeedResult) if (self.path / name).exists() else None

    def metrics(self, seed: int, epochs: int | None = None) -> list[dict[str, Any]]:
        """One entry an epoch, of the first `epochs`; by default of all that the seed has."""
        name = f"seed-{seed}/{LOG}"
        if epochs is None:
            result = self.result(seed)
            epochs = result["epochs"] if result else None
        if not (self.path / name).exists() and not epochs:
            return []
        with self._advising(name):
            # A kill can leave half a line at the end; its epoch is trained again.
            lines = read_lines(self.path / name, self._place(name), self._checked, epochs)
            for number, line in enumerate(lines, start=1):
                _validate(self.path / name, EpochFacts, line)
                if line["epoch"] != number:
                    raise DamagedError(f"{self.path / name} is damaged: epoch {number} is missing.")
            return lines

    def write_metrics(self, seed: int, lines: list[dict[str, Any]]) -> None:
        """Write the entries of all epochs so far."""
        name = f"seed-{seed}/{LOG}"
        write_lines(self.path / name, lines, self._place(name))

    def append_metrics(self, seed: int, line: Mapping[str, Any]) -> None:
        """Append the entry of an epoch."""
        name = f"seed-{seed}/{LOG}"
        append_line(self.path / name, line, self._place(name), line["epoch"])

    def damaged(self, name: str, what: str) -> DamagedError:
        """What to raise about a file of the folder."""
        return DamagedError(f"{self.path / name} is damaged: {what}. {self._advice(name)}")

    @contextmanager
    def _advising(self, name: str) -> Iterator[None]:
        try:
            with _advising(self._advice(name)):
                yield
        except OSError as error:
            raise self.damaged(name, error.strerror or str(error)) from None

    @property
    def _resume(self) -> str:
        command = COMMANDS.get(self.facts["kind"], "train")
        return f"`dgl-deepgnn {command} --resume {self.path}`"

    def _advice(self, name: str) -> str:
        """What is left to do if a file is damaged."""
        resume, part = self._resume, name.partition("/")[0]
        if part.startswith("seed-"):
            return (
                f"Restore it from a copy, or delete the folder {self.path / part}: {resume} trains "
                "this seed again from its start. All else is as it was."
            )
        if part == "trials":
            return f"Delete it: {resume} repeats this trial. All else is as it was."
        return f"{resume} writes it anew."


@contextmanager
def _advising(advice: str) -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise DamagedError(f"{error} {advice}") from None


def _validate(file: Path, kind: type[BaseModel], content: Any) -> dict[str, Any]:
    try:
        kind.model_validate(content)
    except ValidationError as error:
        keys = [".".join(map(str, detail["loc"])) for detail in error.errors()]
        raise DamagedError(
            f"{file} is damaged: it lacks or has unfit values of {', '.join(keys[:10])[:1000]}."
        ) from None
    return content


def _identity(recipe: str, facts: dict[str, Any]) -> str:
    parts = [recipe, facts["kind"], facts["fingerprint"]]
    if facts.get("tuning") is not None:  # of one recipe and data there are tunings of every size
        parts.append({key: facts["tuning"][key] for key in TuningFacts.model_fields})
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def environment(device: str) -> dict[str, Any]:
    """Versions that a result depends on."""
    return {
        "versions": {
            "dgl_deepgnn": dgl_deepgnn.__version__,
            "dgl": DGL_VERSION or "none",
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "device": device,
        "threads": torch.get_num_threads(),
    }
