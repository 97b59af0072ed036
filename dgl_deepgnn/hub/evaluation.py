"""The recorded metric of a published model, computed anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dgl_deepgnn.data import TaskData, load_data, loss_function, main_metric
from dgl_deepgnn.hub.config import Config, load_model, read_config
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import CONFIG, METRICS, WEIGHTS
from dgl_deepgnn.hub.store import open_zoo
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.training.batches import Batches
from dgl_deepgnn.training.trainer import score

__all__ = ["FP16_TOLERANCE", "TOLERANCE", "agrees", "evaluate", "score_model"]

TOLERANCE = 0.002
"""Relative difference of a metric that other machines and numbers of threads may make."""
FP16_TOLERANCE = 0.01
"""The same for rounding weights to half precision."""


def agrees(found: float, recorded: float, tolerance: float = TOLERANCE) -> bool:
    """Whether two values of a metric differ by no more than a fraction.

    Examples
    --------
    >>> agrees(0.8451, 0.8450), agrees(0.84, 0.85), agrees(float("nan"), 0.85)
    (True, False, False)
    """
    return abs(found - recorded) <= tolerance * abs(recorded)


def score_model(model: DeepGNN, config: Config, data: TaskData) -> dict[str, float]:
    """Test metrics of a model on the split of the published seed."""
    training = config.recipe.training
    split = config.weights.seed % len(data.splits)
    # Clusters are for training: a graph is scored whole.
    size = None if training.clusters is not None else training.batch_size
    batches = Batches(data, split, model, size, None, torch.device("cpu"))
    loss = loss_function(data.target)
    test = score(model, batches.evaluation, data.target, loss, ["test"])["test"]
    return {metric: value for metric, value in test.items() if metric != "loss"}


def evaluate(
    name: str, zoo: str | Path | None = None, *, data: TaskData | None = None
) -> dict[str, Any]:
    """Compute the test metric of a published model anew and compare it with the record.

    Parameters
    ----------
    name : str
        One of :func:`list_pretrained`.
    zoo : str or Path, optional
        See :func:`open_zoo`.
    data : TaskData, optional
        The model's data, if it should not (or cannot) be loaded by the name in its config.

    Returns
    -------
    dict
        ``name``, ``data``, ``metric``, ``seed``, ``recorded``, ``recomputed``, and ``agrees``:
        whether they differ by no more than a relative 0.002.

    Raises
    ------
    ZooError
        If the model cannot be loaded, or the data is not what it was trained on.
    """
    folder = open_zoo(zoo).fetch(name, [CONFIG, METRICS, WEIGHTS])
    config = read_config(folder / CONFIG)
    if data is None:
        data = _load_data(config)
    if data.fingerprint() != config.data.fingerprint:
        raise ZooError(
            f"{name} was trained on other data than {data.name} gives here: the fingerprints "
            "differ, so the record says nothing about it."
        )
    metric, _ = main_metric(data.target)
    try:
        recorded = float(json.loads((folder / METRICS).read_text())["weights"]["test"][metric])
    except (ValueError, TypeError, KeyError):
        raise ZooError(f"{folder / METRICS} records no {metric} of the weights.") from None
    found = score_model(load_model(config, folder / WEIGHTS), config, data)[metric]
    return {
        "name": name,
        "data": data.name,
        "metric": metric,
        "seed": config.weights.seed,
        "recorded": recorded,
        "recomputed": found,
        "agrees": agrees(found, recorded),
    }


def _load_data(config: Config) -> TaskData:
    if config.data.name.startswith("python:"):
        raise ZooError(
            f"The data of {config.name} comes from the function {config.data.name!r}, and a "
            "downloaded file does not get to run code. If you trust it, call the function "
            "yourself and pass what it returns: evaluate(name, data=...)."
        )
    return load_data(config.data.name, **config.data.options)
