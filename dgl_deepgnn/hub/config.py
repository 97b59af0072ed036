"""``config.json``: everything a published model was made from, and the model built from it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dgl_deepgnn.data.task_data import Level, Target
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import FORMAT, Component, parse_json
from dgl_deepgnn.nn import MODELS, DeepGNN, create_model
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.registry import did_you_mean, load_plugins

__all__ = ["Config", "has_self_loops", "load_model", "read_config"]


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
    splits: int
    inductive: bool
    self_loops: bool
    """Whether every node of the training graphs has a self-loop."""
    features: dict[str, dict[str, Any]]
    """Scaling of the features, see `apply_scaling`."""
    citation: str
    licence: str
    description: str
    facts: dict[str, Any]
    """What else the loader reports: cuts, bounds, names of features."""


class WeightFacts(_Section):
    """Which of the trained weights are published, and how they are stored."""

    seed: int
    dtype: Literal["fp32", "fp16"]


class Config(_Section):
    """Content of ``config.json``."""

    format: int = FORMAT
    name: Component
    licence: str
    citation: str
    model: ModelFacts
    weights: WeightFacts
    seeds: list[int]
    data: DataFacts
    recipe: Recipe
    environment: dict[str, Any]


def read_config(path: Path) -> Config:
    """Read and check a ``config.json``.

    Raises
    ------
    ZooError
        If it is of a newer format, has unknown keys or values of the wrong type.
    """
    return parse_json(Config, path.read_bytes(), str(path))


def load_model(config: Config, weights: Path, out_feats: int | None = None) -> DeepGNN:
    """Build the model of a config and give it stored weights, as float32.

    Parameters
    ----------
    config : Config
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
        missing, unknown, or of the wrong shape.
    """
    try:
        tensors = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(weights).items()
        }
    except SafetensorError as error:
        raise ZooError(f"{weights} is not a safetensors file: {error}.") from None
    _check_arguments(config, len(tensors), weights)
    # On the meta device nothing is allocated or drawn before the shapes are checked.
    with torch.device("meta"):
        model = _create(config)
    _check_shapes(model, tensors, weights)
    if out_feats is None:
        model.load_state_dict(tensors, assign=True)
        return model.eval()
    head = head_prefix(model)
    model = _create(config, out_feats=out_feats)
    body = {name: tensor for name, tensor in tensors.items() if not name.startswith(head)}
    model.load_state_dict(body, strict=False)
    return model.eval()


def head_prefix(model: DeepGNN) -> str:
    """Prefix of the parameters that a new number of outputs redraws.

    Examples
    --------
    >>> head_prefix(create_model("resgcn", in_feats=2, hidden_feats=2, out_feats=2, num_layers=3))
    'convs.2.'
    """
    return f"convs.{model.num_layers - 1}." if model.head is None else "head."


def has_self_loops(graphs: list[AnyGraph]) -> bool:
    """Whether every node of every graph has an edge to itself."""
    return all(bool(g.has_edges_between(g.nodes(), g.nodes()).all()) for g in graphs)


def _check_arguments(config: Config, tensors: int, weights: Path) -> None:
    load_plugins()
    try:
        model = MODELS[config.model.name]
    except UserError as error:
        raise ZooError(
            f"{config.name}: {error} If a plugin brings this architecture, install it."
        ) from None
    known = {
        name
        for part in (model, DeepGNN)
        for name in inspect.signature(part).parameters
        if name not in ("conv", "body", "args", "kwargs")
    }
    for name in config.model.arguments:
        if name not in known:
            raise ZooError(
                f"{config.name}: config.json: model.arguments.{name}: unknown key. "
                f"{did_you_mean(name, sorted(known))}"
            )
    layers = config.model.arguments.get("num_layers")
    if not isinstance(layers, int) or layers > tensors:
        raise ZooError(
            f"{config.name}: config.json says num_layers={layers!r}, but {weights} holds only "
            f"{tensors} tensors."
        )


def _create(config: Config, **changes: Any) -> DeepGNN:
    try:
        return create_model(config.model.name, **{**config.model.arguments, **changes})
    except (DGLError, TypeError, ValueError, RuntimeError) as error:
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
