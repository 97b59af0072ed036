"""Task data by name: embedded data sets, DGL's own, and a user's."""

from __future__ import annotations

from dgl_deepgnn.data import (  # noqa: F401
    dgl_datasets,
    eccentricity,
    embedded,
    long_range,
    opinions,
    ring_transfer,
    trackml,
    tracks,
    user,
)
from dgl_deepgnn.data.catalog import list_datasets, load_data, register_dataset
from dgl_deepgnn.data.metrics import (
    class_weights,
    evaluate_metrics,
    loss_function,
    loss_weight,
    main_metric,
)
from dgl_deepgnn.data.preparation import prepare
from dgl_deepgnn.data.scaling import apply_scaling
from dgl_deepgnn.data.task_data import TaskData

__all__ = [
    "TaskData",
    "apply_scaling",
    "class_weights",
    "evaluate_metrics",
    "list_datasets",
    "load_data",
    "loss_function",
    "loss_weight",
    "main_metric",
    "prepare",
    "register_dataset",
]
