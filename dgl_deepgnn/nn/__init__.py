"""Deep layers and models: GCN, GraphSAGE, GIN and RGCN on one deep body."""

from dgl_deepgnn.nn.body import MODELS, DeepGNN, create_model, list_models, register_model
from dgl_deepgnn.nn.conv import ResidualConv
from dgl_deepgnn.nn.gcn import ResGCN, ResGraphConv
from dgl_deepgnn.nn.gin import ResGIN, ResGINConv
from dgl_deepgnn.nn.graphsage import ResGraphSAGE, ResSAGEConv
from dgl_deepgnn.nn.rgcn import ResRelGraphConv, ResRGCN

__all__ = [
    "MODELS",
    "DeepGNN",
    "ResGCN",
    "ResGIN",
    "ResGINConv",
    "ResGraphConv",
    "ResGraphSAGE",
    "ResRGCN",
    "ResRelGraphConv",
    "ResSAGEConv",
    "ResidualConv",
    "create_model",
    "list_models",
    "register_model",
]
