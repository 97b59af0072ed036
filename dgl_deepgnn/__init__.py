"""Deep graph neural networks that train: a DGL plugin and model zoo."""

from dgl_deepgnn import _environment

__version__ = "0.1.0"

if _environment.dgl_imports():
    from dgl_deepgnn.aggregation import (
        AggregationOperator,
        aggregation_operator,
        interpolation_schedule,
        spectral_radius,
    )
    from dgl_deepgnn.nn import (
        DeepGNN,
        ResGCN,
        ResGIN,
        ResGINConv,
        ResGraphConv,
        ResGraphSAGE,
        ResSAGEConv,
        create_model,
        list_models,
        register_model,
    )

__all__ = [
    "AggregationOperator",
    "DeepGNN",
    "ResGCN",
    "ResGIN",
    "ResGINConv",
    "ResGraphConv",
    "ResGraphSAGE",
    "ResSAGEConv",
    "aggregation_operator",
    "create_model",
    "interpolation_schedule",
    "list_models",
    "register_model",
    "spectral_radius",
]
