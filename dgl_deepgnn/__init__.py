"""Deep graph neural networks that train: a DGL plugin and model zoo."""

import importlib
from typing import Any

from dgl_deepgnn import _environment

__version__ = "0.2.0"

if _environment.is_ready():
    from dgl_deepgnn.graph import Graph
    from dgl_deepgnn.nn import (
        DeepGNN,
        ResGCN,
        ResGIN,
        ResGINConv,
        ResGraphConv,
        ResGraphSAGE,
        ResRelGraphConv,
        ResRGCN,
        ResSAGEConv,
        create_model,
        list_models,
        register_model,
    )
    from dgl_deepgnn.operator.aggregation import AggregationOperator, aggregation_operator
    from dgl_deepgnn.operator.growth import growth, spectral_radius
    from dgl_deepgnn.operator.schedule import interpolation_schedule

    def _hub() -> Any:
        return importlib.import_module("dgl_deepgnn.hub")

    # The zoo stands on the models; that they load themselves from it is joined here, above both.
    DeepGNN.hub = staticmethod(_hub)

_LATER = {
    "diagnose": "dgl_deepgnn.diagnostics",
    "from_pretrained": "dgl_deepgnn.hub",
    "list_pretrained": "dgl_deepgnn.hub",
    "layerwise_inference": "dgl_deepgnn.nn.inference",
    "load_data": "dgl_deepgnn.data",
    "load_recipe": "dgl_deepgnn.recipe",
    "train": "dgl_deepgnn.training",
}
"""What is imported on first use, since it brings in more packages than the layers need."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "AggregationOperator",
    "DeepGNN",
    "Graph",
    "ResGCN",
    "ResGIN",
    "ResGINConv",
    "ResGraphConv",
    "ResGraphSAGE",
    "ResRGCN",
    "ResRelGraphConv",
    "ResSAGEConv",
    "aggregation_operator",
    "create_model",
    "diagnose",
    "from_pretrained",
    "growth",
    "interpolation_schedule",
    "layerwise_inference",
    "list_models",
    "list_pretrained",
    "load_data",
    "load_recipe",
    "register_model",
    "spectral_radius",
    "train",
]
