"""The recorded metric of a published model, computed anew."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dgl_deepgnn.data import TaskData, loss_function, main_metric
from dgl_deepgnn.hub.config import Config, load_model, read_config
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import CONFIG, METRICS, WEIGHTS, read_json
from dgl_deepgnn.hub.load import find_model
from dgl_deepgnn.hub.origin import check_fingerprint, load_trained_data
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import memory_size
from dgl_deepgnn.recipe import BatchingSection
from dgl_deepgnn.training.batches import Batches
from dgl_deepgnn.training.trainer import find_device, score

__all__ = ["FP16_TOLERANCE", "TOLERANCE", "agrees", "evaluate", "score_model"]

TOLERANCE = 0.002
"""Relative difference of a metric that other machines and numbers of threads may make."""
FP16_TOLERANCE = 0.01
"""The same for rounding weights to half precision."""
CPU = torch.device("cpu")


def agrees(found: float, recorded: float, tolerance: float = TOLERANCE) -> bool:
    """Whether two values of a metric differ by no more than a fraction.

    Examples
    --------
    >>> agrees(0.8451, 0.8450), agrees(0.84, 0.85), agrees(float("nan"), 0.85)
    (True, False, False)
    """
    return abs(found - recorded) <= tolerance * abs(recorded)


def score_model(
    model: DeepGNN,
    config: Config,
    data: TaskData,
    device: torch.device = CPU,
    memory: int | None = None,
) -> dict[str, float]:
    """Test metrics of a model on the split of the published seed."""
    batching = config.recipe.training.batching
    split = config.weights.seed % len(data.splits)
    if batching.kind != "graphs":  # parts of one graph are for training: it is scored whole
        batching = BatchingSection()
    batches = Batches(data, split, model.to(device), batching, device)
    loss = loss_function(data.target)
    test = score(model, batches.evaluation, data.target, loss, ["test"], memory)["test"]
    return {metric: value for metric, value in test.items() if metric != "loss"}


def evaluate(
    name: str,
    zoo: str | Path | None = None,
    *,
    data: TaskData | str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str = "cpu",
    memory: str | int | None = None,
) -> dict[str, Any]:
    """Compute the test metric of a published model anew and compare it with the record.

    Parameters
    ----------
    name : str
        As in :func:`from_pretrained`.
    zoo : str or Path, optional
        See :func:`open_zoo`.
    data : TaskData or str, optional
        The model's data, where it should not (or cannot) be loaded by the name in its config; a
        string is a name of :func:`load_data`, such as ``"file:graphs.bin"``, and is trusted.
    options : dict, optional
        Options of the data named by `data`, beside those in the config that are plain values.
    device : str
        Where to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    memory : str or int, optional
        Compute layer by layer in chunks, within this memory (``"2GB"``), see
        :func:`~dgl_deepgnn.layerwise_inference`.

    Returns
    -------
    dict
        ``name``, ``data``, ``metric``, ``seed``, ``recorded``, ``recomputed``, and ``agrees``:
        whether they differ by no more than a relative 0.002.

    Raises
    ------
    ZooError
        If the model cannot be loaded, the data is not what it was trained on, or its config
        names data that is not for a downloaded file to choose, see docs/trust.md.
    UserError
        If there is no such device, or `memory` is not a size.
    """
    target_device = find_device(device)
    size = None if memory is None else memory_size(memory)
    config = read_config(find_model(name, zoo, [CONFIG]) / CONFIG)
    folder = find_model(name, zoo, [CONFIG, METRICS, WEIGHTS])
    if not isinstance(data, TaskData):
        data = load_trained_data(config.name, config.data, data, options or {})
    else:
        check_fingerprint(config.name, config.data, data)
    metric, _ = main_metric(data.target)
    recorded = _recorded(folder / METRICS, metric)
    model = load_model(config, folder / WEIGHTS)
    found = score_model(model, config, data, target_device, size)[metric]
    return {
        "name": name,
        "data": data.name,
        "metric": metric,
        "seed": config.weights.seed,
        "recorded": recorded,
        "recomputed": found,
        "agrees": agrees(found, recorded),
    }


def _recorded(path: Path, metric: str) -> float:
    try:
        value = float(read_json(path)["weights"]["test"][metric])
    except (ValueError, TypeError, LookupError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ZooError(f"{path} records no {metric} of the weights.")
    return value
