"""From a run and its speed-up record to an entry of a zoo, atomically."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock
from pydantic import ValidationError
from torch import Tensor

import dgl_deepgnn
from dgl_deepgnn.data import TaskData
from dgl_deepgnn.files import remove, save_tensors, write_json, write_text
from dgl_deepgnn.hub.card import model_card
from dgl_deepgnn.hub.config import (
    CONFIG_FORMAT,
    Config,
    DataFacts,
    ModelFacts,
    ReferenceFacts,
    WeightFacts,
    has_self_loops,
    load_model,
    read_config,
)
from dgl_deepgnn.hub.errors import ZooError, explain
from dgl_deepgnn.hub.evaluation import FP16_TOLERANCE, TOLERANCE, agrees, score_model
from dgl_deepgnn.hub.index import (
    CONFIG,
    METRICS,
    WEIGHTS,
    Entry,
    FileFacts,
    Index,
    Ratio,
    check_file,
)
from dgl_deepgnn.hub.origin import check_fingerprint, load_trained_data
from dgl_deepgnn.hub.published import SPEEDUP, read_record
from dgl_deepgnn.hub.store import INDEX, OLD, FolderZoo, open_zoo
from dgl_deepgnn.recipe import Recipe, list_recipes, load_recipe
from dgl_deepgnn.speedup.arms import COMBINED, PRINCIPLED
from dgl_deepgnn.speedup.comparison import Comparison
from dgl_deepgnn.speedup.report import plot_speedup, speedup_csv
from dgl_deepgnn.training.folder import ModelBuilt, RunFolder, Summary
from dgl_deepgnn.training.run import load_task, plot_run, summarize

__all__ = ["publish", "refresh"]

STAGING = ".staging-"
LOADER_FACTS = ("citation", "licence", "description", "options", "preparation", "features")
"""Of `TaskData.info`: they have their own keys in the config."""


def publish(
    run: str | Path,
    speedup: str | Path | None = None,
    zoo: str | Path | None = None,
    *,
    replace: bool = False,
    dtype: Literal["fp32", "fp16"] = "fp32",
    licence: str = "Apache-2.0",
    allow_code: bool = False,
) -> Path:
    """Turn a finished run and its speed-up record into an entry of a zoo.

    The entry is named after the recipe. The published weights are those of the seed with the
    best validation score; their test metric is computed anew before anything is written. A
    crash at any moment leaves the zoo as it was.

    Parameters
    ----------
    run : Path
        Folder written by :func:`dgl_deepgnn.training.train`.
    speedup : Path, optional
        Folder written by :func:`dgl_deepgnn.speedup.measure_speedup`; by default ``RUN.speedup``,
        or of a run ``NAME-2`` also ``NAME.speedup-2``.
    zoo : str or Path, optional
        The zoo's folder (made if need be; a folder with other things in it is refused); by
        default see :func:`open_zoo`.
    replace : bool
        Whether an entry of that name may be replaced.
    dtype : {"fp32", "fp16"}
        How the weights are stored. They load as float32 either way.
    licence : str
        Of the weights, as an SPDX identifier.
    allow_code : bool
        Whether data that runs code (``python:...``, or a folder that is unpickled) may be
        loaded. Say so only of a run that you trust.

    Returns
    -------
    Path
        The entry's folder.

    Raises
    ------
    ZooError
        If the run is not finished, the speed-up record is missing or of another recipe or
        data, the name is taken, or is that of a packaged recipe that this run did not follow,
        or the weights do not reproduce the recorded metric (to a relative 0.002; stored as
        fp16, to 0.01).
    UserError
        If the run's data would run code that is not allowed.
    """
    if not licence.strip():
        raise ZooError("The licence is empty. Give an SPDX identifier, such as Apache-2.0.")
    target = _folder_to_write(zoo)
    folder = RunFolder.open(Path(run), kind="training")
    recipe = folder.recipe
    name = recipe.name
    _check_name(recipe)
    speedups = _read_speedup(folder, Path(speedup) if speedup else _record_of(folder.path))
    summary = _finished(folder)
    _check_free(target, name, replace)
    data = load_task(recipe, allow_code)
    RunFolder.open(folder.path, data)  # holds the fingerprint to the run's
    try:
        config = _config(folder, data, dtype, licence, summary["best_seed"])
    except ValidationError as error:
        raise ZooError(f"{folder.path} cannot be published: {explain(error)}.") from None
    with _locked(target), _staging(target.path / f"{STAGING}{name}") as staging:
        _check_free(target, name, replace)
        tensors, _ = folder.load(WEIGHTS)
        save_tensors(staging / WEIGHTS, _cast(tensors, dtype), {"seed": config.weights.seed})
        metrics = {**summary, "weights": _reproduce(config, staging, data, summary)}
        write_json(staging / CONFIG, config.model_dump(mode="json"))
        write_json(staging / METRICS, metrics)
        # Drawn anew from what carries a checksum, rather than copied.
        _write_speedup(staging, speedups)
        plot_run(staging / "loss.png", folder)
        write_text(staging / "README.md", model_card(config, metrics, speedups))
        _swap_in(target, name, staging, make_entry(staging, config, metrics, speedups))
    return target.path / name


def refresh(
    name: str,
    zoo: str | Path | None = None,
    *,
    data: TaskData | str | None = None,
    options: Mapping[str, Any] | None = None,
    speedup: str | Path | None = None,
    references: list[ReferenceFacts] | None = None,
) -> Path:
    """Write the config and the card of a published model anew, as this version writes them.

    A config of version 0.1 says nothing of what was done to raw graphs and of the range of the
    features: this adds it. Weights and results stay; the metric is computed anew first. What lies
    in the model's folder beside the files that the index lists is not kept.

    Parameters
    ----------
    name : str
        The model.
    zoo : str or Path, optional
        The zoo's folder; by default see :func:`open_zoo`.
    data : TaskData or str, optional
        The model's data, or what :func:`load_data` calls it, where its config may not name it.
    options : mapping, optional
        Options of `data`, beside those in the config.
    speedup : Path, optional
        Folder of a new speed-up record of the same model, in place of the published one.
    references : list of ReferenceFacts, optional
        Scores of other networks for the card, in place of those that it has.

    Returns
    -------
    Path
        The entry's folder.

    Raises
    ------
    ZooError
        If the zoo is no folder, the model is damaged, or the data is not what it was trained on
        or does not give the recorded metric.
    """
    target = _folder_to_write(zoo)
    entry = target.index().entry(name, target.location)
    old = target.fetch(name, [*entry.files, CONFIG, METRICS, SPEEDUP, WEIGHTS])
    config = read_config(old / CONFIG)
    if isinstance(data, TaskData):
        check_fingerprint(config.name, config.data, data)
    else:
        data = load_trained_data(config.name, config.data, data, options)
    metrics, speedups = read_record(old, config.weights.seed)
    if speedup is not None:
        measured = _open_speedup(
            Path(speedup), config.recipe, config.data.fingerprint, f"the published {name}"
        )
        speedups = measured.read("speedup.json", Comparison)
        config.recipe = config.recipe.model_copy(update={"speedup": measured.recipe.speedup})
    _reproduce(config, old, data, metrics)
    # Of its arguments the card tells those, too, that the config leaves to the constructor.
    config.model.arguments = load_model(config, old / WEIGHTS).config
    found = data_facts(
        data,
        config.data.options,
        config.data.fingerprint,
        reads_edges=bool(config.model.arguments.get("edge_feats")),
    )
    record = {key: getattr(found, key) for key in ("features", "preparation", "weighted")}
    config.data = config.data.model_copy(update=record)
    config.format = CONFIG_FORMAT
    if references is not None:
        config.references = references
    with _locked(target), _staging(target.path / f"{STAGING}{name}") as staging:
        if target.index().models.get(name) != entry:
            raise ZooError(f"{name} was published anew meanwhile. Refresh it again.")
        for file, facts in entry.files.items():
            shutil.copyfile(old / file, staging / file)
            check_file(staging / file, facts)
        if speedup is not None:
            _write_speedup(staging, speedups)
        write_json(staging / CONFIG, config.model_dump(mode="json"))
        write_text(staging / "README.md", model_card(config, metrics, speedups))
        _swap_in(target, name, staging, make_entry(staging, config, metrics, speedups))
    return target.path / name


def make_entry(folder: Path, config: Config, metrics: dict[str, Any], speedups: Any) -> Entry:
    """Index entry of a folder with its files.

    Raises
    ------
    ZooError
        If a name or number is not one that an index may hold.
    """
    test = metrics["test"][metrics["metric"]]
    try:
        return Entry(
            files={file.name: FileFacts.of(file) for file in sorted(folder.iterdir())},
            architecture=config.model.name,
            depth=config.model.arguments["num_layers"],
            parameters=metrics["parameters"],
            data=config.data.name,
            metric=metrics["metric"],
            **{key: test[key] for key in ("mean", "std", "n")},
            target_share=speedups["target_shares"][0],
            speedup={
                pair.removeprefix(f"{PRINCIPLED} "): Ratio(**ratios[0])
                for pair, ratios in speedups["speedups"].items()
                if not pair.startswith(COMBINED)  # not the model that is published
            },
        )
    except ValidationError as error:
        raise ZooError(f"{config.name} cannot be published: {explain(error)}.") from None


def _folder_to_write(zoo: str | Path | None) -> FolderZoo:
    target = open_zoo(zoo)
    if not isinstance(target, FolderZoo):
        raise ZooError(f"The zoo {target.location} is an address; publish into a folder (--zoo).")
    path = target.path
    if path.is_dir() and not (path / INDEX).exists():
        for other in path.iterdir():
            # __init__.py makes the packaged zoo a package.
            if not other.name.startswith((".", "__")) and not _is_leftover(other, other.name):
                raise ZooError(
                    f"{path} is no zoo: it holds {other.name}, but no {INDEX}. Publish into a "
                    "zoo, or an empty or new folder (--zoo)."
                )
    return target


def _check_name(recipe: Recipe) -> None:
    """Refuse a recipe's name for what was trained by another recipe."""
    _check_packaged(recipe)
    if recipe.changed:
        raise ZooError(
            f"The run is of another network than the name {recipe.name} stands for: "
            f"{', '.join(recipe.changed)} was set. Give it a name of its own: train ... --set "
            "name=NAME (and speedup likewise)."
        )


def _check_packaged(recipe: Recipe) -> None:
    if recipe.name not in list_recipes():
        return
    packaged = load_recipe(recipe.name)
    sections = ("data", "model", "optimizer", "schedule", "training")
    changed = [key for key in sections if getattr(recipe, key) != getattr(packaged, key)]
    if changed:
        raise ZooError(
            f"The run did not follow the recipe {recipe.name} that comes with the package: "
            f"{', '.join(changed)} differ{'s' if len(changed) == 1 else ''}. Give it a name of "
            "its own: train ... --set name=NAME (and speedup likewise)."
        )


def _record_of(run: Path) -> Path:
    """Where a run's speed-up record lies, if nothing else is said."""
    usual = Path(f"{run}.speedup")
    numbered = re.fullmatch(r"(.+)-(\d+)", run.name)  # see `new_folder`
    if numbered and not usual.exists():
        other = run.with_name(f"{numbered[1]}.speedup-{numbered[2]}")
        return other if other.exists() else usual
    return usual


def _read_speedup(run: RunFolder, path: Path) -> dict[str, Any]:
    if not (path / "speedup.json").exists():
        how = f"--resume {path}" if path.exists() else f"{run.path}/recipe.yaml --output {path}"
        raise ZooError(
            f"There is no finished speed-up record at {path}. Make it with `dgl-deepgnn speedup "
            f"{how}`, or say where it is (--speedup)."
        )
    record = _open_speedup(path, run.recipe, run.facts["fingerprint"], str(run.path))
    return record.read("speedup.json", Comparison)


def _open_speedup(path: Path, recipe: Recipe, fingerprint: str, what: str) -> RunFolder:
    """Record that belongs to a recipe and its data."""
    record = RunFolder.open(path, kind="speed-up record")
    for key in ("name", "data", "model"):
        if getattr(record.recipe, key) != getattr(recipe, key):
            raise ZooError(
                f"The speed-up record {path} belongs to another recipe: its key {key} differs "
                f"from that of {what}."
            )
    if record.facts["fingerprint"] != fingerprint:
        raise ZooError(f"The speed-up record {path} was made on other data than {what}.")
    return record


def _write_speedup(folder: Path, speedups: dict[str, Any]) -> None:
    write_json(folder / SPEEDUP, speedups)
    write_text(folder / "speedup.csv", speedup_csv(speedups))
    plot_speedup(folder / "speedup.png", speedups)


def _finished(run: RunFolder) -> dict[str, Any]:
    """Summary of a run, its means computed anew from the seeds' own results."""
    results = [run.result(seed) for seed in run.recipe.seeds]
    if None in results or not (run.path / "summary.json").exists():
        raise ZooError(
            f"The run {run.path} is not finished: continue it with "
            f"`dgl-deepgnn train --resume {run.path}`."
        )
    summary = run.read("summary.json", Summary)
    tests = [result["test"] for result in results if result]
    for seed, test in zip(run.recipe.seeds, tests, strict=True):
        for metric, value in test.items():
            if not isfinite(value):
                raise ZooError(
                    f"The run {run.path} cannot be published: the test {metric} of seed {seed} is "
                    "undefined (as where all items are of one class, or there is only one). Train "
                    "with a split on which it is defined."
                )
    agree = (
        summary["seeds"] == results
        and summary["best_seed"] in run.recipe.seeds
        and summary["metric"] in tests[0]
        and all(test.keys() == tests[0].keys() for test in tests)
        and summary["test"]
        == {metric: summarize([test[metric] for test in tests]) for metric in tests[0]}
    )
    if not agree:
        raise ZooError(f"{run.path}: summary.json does not agree with the results of the seeds.")
    return summary


def _check_free(zoo: FolderZoo, name: str, replace: bool) -> None:
    if zoo.path.exists() and name in zoo.index().models:
        if not replace:
            raise ZooError(f"The zoo {zoo.path} has a model {name} already; --replace replaces it.")
        return
    folder = zoo.path / name
    if folder.exists() and not _is_leftover(folder, name):
        raise ZooError(
            f"{folder} exists and is no entry of a zoo. Move it, or publish into another folder "
            "(--zoo)."
        )


def _is_leftover(folder: Path, name: str) -> bool:
    """Whether a folder that the index does not know is of a `publish` that crashed."""
    try:
        return read_config(folder / CONFIG).name == name
    except (OSError, ZooError):
        return False


def _config(folder: RunFolder, data: TaskData, dtype: Any, licence: str, seed: int) -> Config:
    built = folder.read(CONFIG, ModelBuilt)
    environment = {key: folder.facts[key] for key in ("versions", "device", "threads")}
    recipe = folder.recipe
    return Config(
        name=recipe.name,
        licence=licence,
        citation=f"{recipe.name}, dgl-deepgnn {dgl_deepgnn.__version__}. The method: DeZoort and "
        "Hanin, Principles for Initialization and Architecture Selection in Graph Neural "
        "Networks with ReLU Activations, arXiv:2306.11668",
        model=ModelFacts(name=built["model"], arguments=built["arguments"]),
        weights=WeightFacts(seed=seed, dtype=dtype),
        seeds=recipe.seeds,
        data=data_facts(
            data,
            recipe.data.options,
            folder.facts["fingerprint"],
            reads_edges=bool(built["arguments"].get("edge_feats")),
        ),
        recipe=recipe,
        environment=environment,
    )


def data_facts(
    data: TaskData, options: dict[str, Any], fingerprint: str, *, reads_edges: bool = True
) -> DataFacts:
    """What a config says of the data; without edge features that the model does not read."""
    info = data.info
    preparation = info["preparation"]
    if preparation is not None and not reads_edges:
        preparation = {**preparation, "edge": []}
    return DataFacts(
        name=data.name,
        options=options,
        fingerprint=fingerprint,
        level=data.level,
        target=data.target,
        splits=len(data.splits),
        inductive=data.is_inductive(),
        self_loops=has_self_loops(data.graphs),
        weighted=data.weighted,
        features=info["features"],
        preparation=preparation,
        facts={key: value for key, value in info.items() if key not in LOADER_FACTS},
        **{key: info.get(key, "") for key in ("citation", "licence", "description")},
    )


def _cast(tensors: dict[str, Tensor], dtype: str) -> dict[str, Tensor]:
    kind = torch.float16 if dtype == "fp16" else torch.float32
    return {
        name: tensor.to(kind) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }


def _reproduce(
    config: Config, staging: Path, data: TaskData, summary: dict[str, Any]
) -> dict[str, Any]:
    """Test metrics of the weights as they are stored, held to the run's record."""
    seed, metric = config.weights.seed, summary["metric"]
    (recorded,) = [result["test"] for result in summary["seeds"] if result["seed"] == seed]
    found = score_model(load_model(config, staging / WEIGHTS), config, data)
    tolerance = FP16_TOLERANCE if config.weights.dtype == "fp16" else TOLERANCE
    if not agrees(found[metric], recorded[metric], tolerance):
        advice = " Store them as fp32." if config.weights.dtype == "fp16" else ""
        raise ZooError(
            f"The weights of {config.name} do not reproduce their recorded metric: test {metric} "
            f"of seed {seed} is {found[metric]:.6g}, the run says {recorded[metric]:.6g}."
            f"{advice} Nothing was published."
        )
    return {"seed": seed, "test": found}


@contextmanager
def _locked(zoo: FolderZoo) -> Iterator[None]:
    """Hold the zoo against other publishers; whatever goes wrong, it stays whole."""
    try:
        zoo.path.mkdir(parents=True, exist_ok=True)
        with FileLock(zoo.path / ".lock"):
            _recover(zoo)
            try:
                yield
            except BaseException:
                _recover(zoo)
                raise
    except OSError as error:
        raise ZooError(f"The zoo {zoo.path} cannot be written: {error}.") from error


@contextmanager
def _staging(path: Path) -> Iterator[Path]:
    path.mkdir()
    try:
        yield path
    finally:
        remove(path)


def _swap_in(zoo: FolderZoo, name: str, staging: Path, entry: Entry) -> None:
    """Move a staged entry to its place; the index line makes it visible."""
    for path in (*staging.iterdir(), staging):
        _sync(path)
    place, old = zoo.path / name, zoo.path / f"{OLD}{name}"
    if os.path.lexists(place):
        os.rename(place, old)
    os.rename(staging, place)
    _sync(zoo.path)
    index = zoo.index()
    write_text(zoo.path / INDEX, Index(models={**index.models, name: entry}).dump())
    _sync(zoo.path)
    remove(old)


def _recover(zoo: FolderZoo) -> None:
    """Finish or undo what a crash has left; the zoo is locked."""
    for leftover in zoo.path.glob(f"{STAGING}*"):
        remove(leftover)
    models = zoo.index().models
    for old in zoo.path.glob(f"{OLD}*"):
        name = old.name.removeprefix(OLD)
        entry = models.get(name)
        if entry and all(facts.match(old / file) for file, facts in entry.files.items()):
            remove(zoo.path / name)
            os.rename(old, zoo.path / name)
        else:
            remove(old)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
