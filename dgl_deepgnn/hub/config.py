"""``config.json``: everything a published model was made from, and the model built from it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from dgl_deepgnn.data.preparation import Preparation
from dgl_deepgnn.data.scaling import FEATURE_TRANSFORMS, SCALED
from dgl_deepgnn.data.task_data import Level, Target
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import read_limited
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import MAX_JSON, Component, parse_json
from dgl_deepgnn.nn import MODELS, DeepGNN, create_model
from dgl_deepgnn.nn.body import constructor_arguments
from dgl_deepgnn.options import checked_option
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.registry import did_you_mean, load_plugins

__all__ = [
    "CONFIG_FORMAT",
    "AnyConfig",
    "Config",
    "ReferenceFacts",
    "SavedConfig",
    "has_self_loops",
    "load_model",
    "read_any_config",
    "read_config",
]


CONFIG_FORMAT = 2
"""1 was that of version 0.1, which kept no preparation."""
FLOAT32 = torch.finfo(torch.float32)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ModelFacts(_Section):
    """The registered name of the architecture and the arguments of its constructor."""

    name: str
    arguments: dict[str, Any]


class DataFacts(_Section):
    """What the model was trained on."""

    name: str
    options: dict[str, Any]
    fingerprint: str
    level: Level
    target: Target
    splits: int = Field(ge=1, le=10_000)
    inductive: bool
    self_loops: bool
    """Whether every node of the training graphs has a self-loop."""
    weighted: bool = False
    """Whether the edges have weights."""
    features: dict[str, dict[str, Any]]
    """Scaling of the features, see `apply_scaling`; since format 2 also their range."""
    preparation: Preparation | None = None
    """What the loader did to raw graphs; None if it gives them as they are, and in format 1."""
    citation: str
    licence: str
    description: str
    facts: dict[str, Any]
    """What else the loader reports: cuts, bounds, names of features."""


class WeightFacts(_Section):
    """Which of the trained weights are published, and how they are stored."""

    seed: int
    dtype: Literal["fp32", "fp16"]


class ReferenceFacts(_Section):
    """Another network's test scores, one a seed, in the same protocol."""

    name: str
    scores: list[float] = Field(min_length=1)
    source: str
    """Where its settings are from, and how they were chosen."""


class Config(_Section):
    """Content of ``config.json``."""

    format: int = CONFIG_FORMAT
    name: Component
    licence: str
    citation: str
    model: ModelFacts
    weights: WeightFacts
    seeds: list[int]
    data: DataFacts
    recipe: Recipe
    environment: dict[str, Any]
    references: list[ReferenceFacts] = []
    """What to judge the scores beside, if that was measured."""

    @model_validator(mode="after")
    def _check(self) -> Config:
        _check_data(self.model, self.data)
        return self


class SavedConfig(_Section):
    """Content of the ``config.json`` of a model that was saved by itself, without a record."""

    format: int = CONFIG_FORMAT
    name: Component
    parent: Component | None = None
    """The published model that it was loaded from."""
    model: ModelFacts
    data: DataFacts | None = None
    """What the parent was trained on."""

    @model_validator(mode="after")
    def _check(self) -> SavedConfig:
        if self.data is not None:
            _check_data(self.model, self.data)
        return self


AnyConfig = Config | SavedConfig


def _check_data(model: ModelFacts, data: DataFacts) -> None:
    """Refuse facts of the data that are not those of the model."""
    arguments = model.arguments
    if arguments.get("head") != data.level:
        raise ValueError(f"data.level {data.level!r} is not what model.arguments.head scores")
    if data.target == "binary" and arguments.get("out_feats") != 1:
        raise ValueError("a binary target has one output: model.arguments.out_feats")
    if data.preparation is not None and data.preparation.level != data.level:
        raise ValueError(f"data.preparation.level is not data.level, {data.level!r}")
    if data.preparation is not None and data.weighted != (data.preparation.edge_weight is not None):
        raise ValueError("data.weighted does not agree with data.preparation.edge_weight")
    for kind, width in (("node", "in_feats"), ("edge", "edge_feats")):
        made = sum(some.least_width for some in getattr(data.preparation, kind, []))
        relations = None if data.preparation is None else data.preparation.relations
        if relations is not None and kind == "node":
            made = max(made, relations.width)
        most = arguments.get(width)
        if type(most) is int and made > most:
            raise ValueError(f"data.preparation.{kind} makes more columns than {width}={most}")
    if "node" not in data.features:
        raise ValueError("data.features: the record of node features is missing")
    _check_scaling(data.features["node"], "node", arguments.get("in_feats"))
    if arguments.get("edge_feats"):
        _check_scaling(data.features.get("edge"), "edge", arguments["edge_feats"])


def read_config(path: Path) -> Config:
    """Read and check the ``config.json`` of a published model.

    Raises
    ------
    ZooError
        If it is of a newer format, has unknown keys or values of the wrong type, or is of a model
        that was saved by itself.
    """
    config = read_any_config(path)
    if isinstance(config, SavedConfig):
        raise ZooError(
            f"{path} is of a model that was saved without its run (save_pretrained): there is no "
            "record of what it scores. `dgl-deepgnn publish` and `push` make models with one."
        )
    return config


def read_any_config(path: Path) -> AnyConfig:
    """Read and check the ``config.json`` of a published or saved model.

    Raises
    ------
    ZooError
        As `read_config`, but for the last reason.
    """
    try:
        content = read_limited(path, MAX_JSON)
    except (OSError, UserError) as error:
        raise ZooError(f"{path} cannot be read: {error}") from None
    try:
        saved = "recipe" not in json.loads(content)
    except (ValueError, TypeError, RecursionError):
        saved = False  # what is wrong with it, the next line says
    return parse_json(SavedConfig if saved else Config, content, str(path))


def load_model(config: AnyConfig, weights: Path, out_feats: int | None = None) -> DeepGNN:
    """Build the model of a config and give it stored weights, as float32.

    Parameters
    ----------
    config : Config or SavedConfig
        Says which model.
    weights : Path
        The safetensors file.
    out_feats : int, optional
        Number of outputs of a new head, drawn by the model's own initialization; the stored
        head is left out. By default the stored head.

    Returns
    -------
    DeepGNN
        In evaluation mode.

    Raises
    ------
    ZooError
        If the file is not safetensors, the config does not describe a model, or a tensor is
        missing, unknown, of the wrong shape, or not finite.
    """
    try:
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(weights).items()
        }
    except SafetensorError as error:
        raise ZooError(f"{weights} is not a safetensors file: {error}.") from None
    except OSError as error:
        raise ZooError(f"{weights} cannot be read: {error}.") from None
    for name, tensor in tensors.items():
        if not tensor.numel():
            raise ZooError(f"{weights}: tensor {name!r} is empty.")
        if not bool(torch.isfinite(tensor).all()):
            raise ZooError(f"{weights}: tensor {name!r} holds values that are not finite.")
    _check_arguments(config, tensors, weights)
    # On the meta device nothing is allocated or drawn before the shapes are checked.
    with torch.device("meta"), _at_most(len(tensors), weights):
        model = _create(config)
    _check_shapes(model, tensors, weights)
    if out_feats is None:
        model.load_state_dict(tensors, assign=True)
        return model.eval()
    head = model.head_prefix
    model = _create(config, out_feats=out_feats)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    model.load_state_dict(body, strict=False)
    return model.eval()


def has_self_loops(graphs: list[AnyGraph]) -> bool:
    """Whether every node of every graph has an edge to itself."""

    def complete(graph: AnyGraph) -> bool:
        src, dst = graph.edges(order="eid")
        return len(src[src == dst].unique()) == graph.num_nodes()

    return all(map(complete, graphs))


def _check_scaling(record: dict[str, Any] | None, kind: str, width: Any) -> None:
    """Refuse a record of feature scaling that `apply_scaling` cannot follow."""
    how = record.get("transform") if record else None
    if how not in FEATURE_TRANSFORMS:
        raise ValueError(
            f"data.features.{kind}.transform: one of {', '.join(FEATURE_TRANSFORMS)} is expected"
        )
    assert record is not None
    needed = ["mean", "scale"] if how in SCALED else []
    needed += [] if record.keys().isdisjoint(("low", "high", "rms")) else ["low", "high"]
    if "low" in needed and not _is_number(record.get("rms")):
        raise ValueError(f"data.features.{kind}.rms: a number is expected")
    for key in needed:
        numbers = record.get(key)
        if not (
            isinstance(numbers, list)
            and (len(numbers) == width or not isinstance(width, int))
            and all(map(_is_number, numbers))
            and (key != "scale" or all(abs(number) >= FLOAT32.tiny for number in numbers))
        ):
            raise ValueError(
                f"data.features.{kind}.{key}: a number for each of {width} features is expected"
            )


def _is_number(value: Any) -> bool:
    # An integer of 400 digits is beyond what `math.isfinite` takes.
    return type(value) in (int, float) and abs(value) <= FLOAT32.max


def _check_arguments(config: AnyConfig, tensors: dict[str, Tensor], weights: Path) -> None:
    """Hold the arguments to what the constructor takes, and numbers to what the file can hold."""
    load_plugins()
    try:
        model = MODELS[config.model.name]
    except UserError as error:
        raise ZooError(
            f"{config.name}: {error} If a plugin brings this architecture, install it."
        ) from None
    known = constructor_arguments(model)
    # Every layer has its tensors, and every width is a side of one.
    most = max([len(tensors), *(side for tensor in tensors.values() for side in tensor.shape)])
    for name, value in config.model.arguments.items():
        where = f"{config.name}: config.json: model.arguments.{name}"
        if name not in known:
            raise ZooError(f"{where}: unknown key. {did_you_mean(name, sorted(known))}")
        try:
            checked_option(known[name], value)
        except ValueError as error:
            raise ZooError(f"{where}: {error}.") from None
        if type(value) is int and abs(value) > most:
            raise ZooError(
                f"{where} is {value!r}, but {weights} holds only {len(tensors)} tensors, of which "
                f"no side is longer than {most}."
            )


@contextmanager
def _at_most(parameters: int, weights: Path) -> Iterator[None]:
    """Stop a constructor that makes far more parameters than the file holds tensors.

    A few more are let through, so that `_check_shapes` can name the one that is missing.
    """
    made = 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        made += parameter is not None
        if made > 2 * parameters + 100:
            raise ZooError(f"{weights} holds only {parameters} tensors; config.json asks for more.")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def _create(config: AnyConfig, **changes: Any) -> DeepGNN:
    try:
        return create_model(config.model.name, **{**config.model.arguments, **changes})
    except ZooError:
        raise
    except (
        DGLError,
        TypeError,
        ValueError,
        RuntimeError,
        ArithmeticError,
        LookupError,
        MemoryError,
    ) as error:
        raise ZooError(f"{config.name}: no model can be built from config.json: {error}") from None


def _check_shapes(model: DeepGNN, tensors: dict[str, Tensor], weights: Path) -> None:
    expected = model.state_dict()
    for name, tensor in expected.items():
        if name not in tensors:
            raise ZooError(f"{weights} has no tensor {name!r}, which config.json asks for.")
        found = tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise ZooError(
                f"{weights}: tensor {name!r} is {found.dtype} of shape {tuple(found.shape)}, but "
                f"config.json asks for {tensor.dtype} of shape {tuple(tensor.shape)}."
            )
    for name in tensors:
        if name not in expected:
            raise ZooError(f"{weights} has a tensor {name!r} that config.json does not know.")
