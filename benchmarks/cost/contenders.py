"""Everything that is timed against everything else, as a training step and an inference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from benchmarks.cost.bound import PRODUCTS, BareProducts
from benchmarks.cost.graphs import CLASSES, Problem
from benchmarks.cost.stacks import WIDTH, dgl_stack, pyg_stack
from dgl_deepgnn import create_model
from dgl_deepgnn.operator.sparse import to_sparse

__all__ = [
    "BOUNDS",
    "CONTENDERS",
    "OURS",
    "SPARSE_FEATURES",
    "Once",
    "Steps",
    "build",
    "our_model",
    "trainer",
]

OURS = {"GCN": "ResGCN", "GraphSAGE": "ResGraphSAGE", "GIN": "ResGIN"}
PLAIN, FRESH, CSR = ", plain", ", operator anew", ", sparse matrix"
SPARSE_FEATURES = ", sparse features"
BOUNDS = {f"bare products, {product}": product for product in PRODUCTS}

CONTENDERS = {
    "GCN": (
        *BOUNDS,
        "ResGCN",
        "ResGCN" + PLAIN,
        "ResGCN" + FRESH,
        "ResGCN" + SPARSE_FEATURES,
        "DGL GraphConv",
        "PyG GCNConv",
        "PyG GCNConv" + CSR,
        "PyG GCNConv" + SPARSE_FEATURES,
        "DGL GCN2Conv",
        "PyG GCN2Conv",
    ),
    "GraphSAGE": ("ResGraphSAGE", "ResGraphSAGE" + PLAIN, "DGL SAGEConv", "PyG SAGEConv"),
    "GIN": ("ResGIN", "ResGIN" + PLAIN, "DGL GINConv", "PyG GINConv"),
}
"""By family: the bare products, ours, DGL's and PyTorch Geometric's."""


class Steps(NamedTuple):
    """What is timed of one contender; both return the scores of the nodes."""

    train: Callable[[], Tensor]
    infer: Callable[[], Tensor]


class Once(nn.Module):
    """A model that gets a graph it has not seen at every call, so that no operator is remembered.

    Parameters
    ----------
    model : nn.Module
        One of ours.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """Scores, from a copy of the graph that shares everything."""
        return self.model(graph.local_var(), feat)


def build(name: str, problem: Problem, layers: int) -> Steps:
    """Contender `name` of `layers` layers, ready to run."""
    torch.manual_seed(0)
    if name in BOUNDS:
        products = BareProducts(problem, layers, BOUNDS[name])
        return Steps(products.train, products.infer)
    model, inputs = _model(name, problem, layers)
    return trainer(model, inputs, problem.labels)


def _model(name: str, problem: Problem, layers: int) -> tuple[nn.Module, tuple[Any, ...]]:
    """Model and what it is called with."""
    network = name.partition(",")[0]
    feat = to_sparse(problem.feat) if name.endswith(SPARSE_FEATURES) else problem.feat
    if name.startswith("Res"):
        ours = our_model(network, problem, layers, plain=name.endswith(PLAIN))
        if name.endswith(FRESH):
            return Once(ours), (problem.graph, feat)
        return ours, (ours.operator(problem.graph), feat)
    library, _, layer = network.partition(" ")
    if library == "DGL":
        return dgl_stack(layer, problem, layers), (feat,)
    return pyg_stack(layer, problem, layers, csr=name.endswith(CSR)), (feat,)


def our_model(
    name: str, problem: Problem, layers: int, *, plain: bool = False, checkpoint: bool = False
) -> Any:
    """Model with the defaults, or `plain` without residual connections and aggregation."""
    options: dict[str, Any] = {"t": 1.0, "residual": None} if plain else {}
    if checkpoint:
        options["checkpoint"] = True
    return create_model(
        name.lower(),
        in_feats=problem.feat.shape[1],
        hidden_feats=WIDTH,
        out_feats=CLASSES,
        num_layers=layers,
        **options,
    )


def trainer(model: nn.Module, inputs: tuple[Any, ...], labels: Tensor) -> Steps:
    """Training step (forward, backward, Adam) and inference of any model."""
    # A small rate, so that hundreds of steps on random labels leave the weights' scale alone.
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)

    def train() -> Tensor:
        scores = model(*inputs)
        optimizer.zero_grad()
        F.cross_entropy(scores, labels).backward()
        optimizer.step()
        return scores.detach()

    @torch.no_grad()
    def infer() -> Tensor:
        return model(*inputs)

    return Steps(train, infer)
