"""DGL's layers that have no critical scale in closed form, each with its reason."""

from __future__ import annotations

from dgl import nn as dglnn
from torch import nn

from dgl_deepgnn.init.hooks import GraphContext, Stage, UnknownModuleError, register_initializer

__all__ = ["REASONS"]

_CUGRAPH = "runs on cugraph-ops only, which none of the tests here has"
REASONS: dict[str, str] = {
    "AtomicConv": "has no weights that are multiplied with features, only radial filters of the "
    "distances, and its width grows with their number",
    "CFConv": "multiplies the features by a filter that a network makes of the distances, and "
    "shifted softplus has no critical point",
    "ChebConv": "adds polynomials of the Laplacian, which are negative on some features and "
    "positive on others: how much of them cancels depends on the features",
    "CuGraphGATConv": _CUGRAPH,
    "CuGraphRelGraphConv": _CUGRAPH,
    "CuGraphSAGEConv": _CUGRAPH,
    "DGNConv": "takes standard deviations, directional derivatives and factors of the degree, "
    "whose scale depends on the features, and normalizes the batch",
    "DenseChebConv": "adds polynomials of the Laplacian, which are negative on some features and "
    "positive on others: how much of them cancels depends on the features",
    "EGNNConv": "has SiLU networks on the squared distances of moving coordinates: no scale of "
    "its weights keeps both",
    "EdgeConv": "takes the largest of differences between neighbours, which shrink as nodes become "
    "alike",
    "GINEConv": "adds edge features to those of the neighbours before a ReLU: how much passes it "
    "depends on the scale of both",
    "GMMConv": "weighs the neighbours by Gaussians of the edges' coordinates: their sum is not "
    "known without them",
    "GatedGraphConv": "is recurrent and gated (GRU): its states are bounded by tanh, and a gate "
    "has no critical point",
    "GroupRevRes": "adds the results of its layers to what they were made of, group by group: "
    "start them at zero, dgl_deepgnn.init.fixup_",
    "HGTConv": "passes its input on behind a learnt gate, with two weights in a row inside every "
    "message",
    "NNConv": "makes its weights of the edge features, by a network of your own",
    "PNAConv": "takes standard deviations, maxima and factors of the degree, whose scale "
    "depends on the features, and normalizes the batch",
    "TWIRLSConv": "unfolds an optimization whose steps have no weights of their own, between two "
    "networks",
    "TWIRLSUnfoldingAndAttention": "reweighs the edges by distances between features, so that its "
    "scale is not that of its input",
}
"""Why there is none, by the class's name: the layer *...*."""


def _register(name: str, reason: str) -> None:
    layer = getattr(dglnn, name, None)
    if layer is None:  # another version of DGL
        return

    @register_initializer(layer)
    def refuse(module: nn.Module, context: GraphContext) -> list[Stage]:
        if not any(True for _ in module.parameters()):
            return []
        raise UnknownModuleError(
            module,
            f"{name} {reason}. It is not initialized in closed form; let the features decide: "
            "critical_(model, graph, feat), or critical_(model, forward=lambda model: model(...)).",
        )


for _name, _reason in REASONS.items():
    _register(_name, _reason)
