"""The models by name: how each is made and called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import dgl
import dgl.nn as dglnn
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.hooks import handwritten as by_hand
from benchmarks.hooks import stacks
from benchmarks.hooks.inputs import Inputs

__all__ = ["CASES", "Case"]


def _graph_and_feat(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.graph, inputs.feat


@dataclass(frozen=True)
class Case:
    """A kind of model.

    Parameters
    ----------
    make : callable
        ``make(depth, inputs)`` builds one of so many layers.
    arguments : callable
        What the model is called with, of the inputs; by default ``(graph, feat)``.
    kind : str
        The graph, see ``inputs.GRAPHS``.
    weighted : bool
        Whether it uses the edge weights.
    sums : bool
        Whether terms are added up over the layers without any scale, so that the best one can
        ask for is growth by their number.
    """

    make: Callable[[int, Inputs], nn.Module]
    arguments: Callable[[Inputs], tuple[Any, ...]] = _graph_and_feat
    kind: str = "undirected"
    weighted: bool = False
    sums: bool = False

    def run(self, model: nn.Module, inputs: Inputs) -> Tensor:
        """Scores of the model."""
        return model(*self.arguments(inputs))


def _of_depth(make: Callable[..., nn.Module], *args: Any, **options: Any) -> Any:
    return lambda depth, inputs: make(depth, *args, **options)


def _edges(inputs: Inputs) -> tuple[Any, ...]:
    return inputs.graph, inputs.feat, inputs.edge_feat


def _blocks(inputs: Inputs) -> tuple[Any, ...]:
    """As many of a sampler's blocks as any depth wants; here all neighbours are sampled."""
    return [dgl.to_block(inputs.graph)] * 128, inputs.feat


def _gcn(**options: Any) -> Case:
    return Case(_of_depth(stacks.GCN, **options))


def _by_hand(layer: type[nn.Module], sums: bool = False, **options: Any) -> Case:
    return Case(_of_depth(by_hand.Stack, layer, **options), sums=sums)


def _hetero(sage: bool) -> Case:
    return Case(
        lambda depth, inputs: stacks.Hetero(depth, inputs.graph, sage),
        lambda inputs: (inputs.graph, {"user": inputs.feat, "item": inputs.other_feat}),
        kind="two types",
    )


CASES: dict[str, Case] = {
    # Stacks of DGL's layers.
    "GraphConv, ReLU": _gcn(),
    "GraphConv, dgl.nn.Sequential": Case(_of_depth(stacks.sequential_gcn)),
    "GraphConv, no activation": _gcn(activation=nn.Identity()),
    "GraphConv, GELU": _gcn(activation=F.gelu),
    "GraphConv, SiLU": _gcn(activation=nn.SiLU()),
    "GraphConv, tanh": _gcn(activation=torch.tanh),
    "GraphConv, ELU": _gcn(activation=F.elu),
    "GraphConv, leaky ReLU": _gcn(activation=nn.LeakyReLU(0.2)),
    "GraphConv, dropout 0.5": _gcn(dropout=0.5),
    "GraphConv, layer norm": _gcn(norm=nn.LayerNorm),
    "GraphConv, batch norm": _gcn(norm=nn.BatchNorm1d),
    "GraphConv, graph norm": _gcn(norm=stacks.GraphNorm),
    "GraphConv, sum, edge weights": Case(
        _of_depth(stacks.GCN, aggregation="none"),
        lambda inputs: (inputs.graph, inputs.feat, inputs.edge_weight),
        weighted=True,
    ),
    "GraphConv, acyclic graph": Case(_of_depth(stacks.GCN), kind="acyclic"),
    "GraphConv, one layer shared": Case(_of_depth(stacks.Shared)),
    "GraphConv, subclass with a gate": Case(_of_depth(stacks.subclassed)),
    "GraphConv, embedding, PReLU": Case(
        _of_depth(stacks.Embedded), lambda inputs: (inputs.graph, inputs.tokens)
    ),
    "GraphConv, residual": Case(_of_depth(stacks.Residual), sums=True),
    "GraphConv, residual, GELU": Case(_of_depth(stacks.Residual, F.gelu), sums=True),
    "GraphConv, residual, norm first": Case(_of_depth(stacks.Residual, norm=True), sums=True),
    "GraphConv, jumping knowledge": Case(_of_depth(stacks.JumpingKnowledge)),
    "GraphConv, dense connections": Case(_of_depth(stacks.Dense)),
    "GraphConv, U-Net": Case(_of_depth(stacks.UNet)),
    "SAGEConv, mean": Case(_of_depth(stacks.SAGE)),
    "SAGEConv, mean, dropout 0.5": Case(_of_depth(stacks.SAGE, dropout=0.5)),
    "SAGEConv, pool": Case(_of_depth(stacks.SAGE, "pool")),
    "SAGEConv, blocks": Case(_of_depth(stacks.SAGE), _blocks),
    "GINConv": Case(_of_depth(stacks.GIN, batch_norm=False)),
    "GINConv, batch norm, scores of all layers": Case(
        _of_depth(stacks.GIN, batch_norm=True, readouts=True), sums=True
    ),
    "GATConv": Case(_of_depth(stacks.GAT)),
    "GATConv, dropout of attention and features": Case(
        _of_depth(stacks.GAT, attn_drop=0.5, feat_drop=0.5)
    ),
    "GATv2Conv, residual": Case(_of_depth(stacks.GAT, dglnn.GATv2Conv, residual=True), sums=True),
    "EdgeGATConv": Case(_of_depth(stacks.Edged, "EdgeGAT"), _edges),
    "EGATConv": Case(_of_depth(stacks.Edged, "EGAT"), _edges),
    "GINEConv": Case(_of_depth(stacks.Edged, "GINE"), _edges),
    "GCN2Conv": Case(_of_depth(stacks.GCNII)),
    "APPNPConv": Case(_of_depth(stacks.APPNP)),
    "SGConv": Case(_of_depth(stacks.Hops, "SGC")),
    "TAGConv": Case(_of_depth(stacks.Hops, "TAG")),
    "ChebConv": Case(_of_depth(stacks.Hops, "Cheb")),
    "HeteroGraphConv of SAGEConv": _hetero(sage=True),
    "HeteroGraphConv of GraphConv": _hetero(sage=False),
    "RelGraphConv": Case(
        _of_depth(stacks.Relational), lambda inputs: (inputs.graph, inputs.feat, inputs.etypes)
    ),
    # Written by hand.
    "self beside mean, concatenated": _by_hand(by_hand.MeanAndSelf),
    "A(h) + sum of B(h)": _by_hand(by_hand.SelfPlusSum),
    "user-defined functions, SiLU": _by_hand(by_hand.UserFunctions),
    "gated sum": _by_hand(by_hand.GatedSum),
    "gated, edge features": Case(_of_depth(by_hand.GatedGCN, residual=False, norm=False), _edges),
    "gated, edge features, residual": Case(
        _of_depth(by_hand.GatedGCN, residual=True, norm=False), _edges, sums=True
    ),
    "gated, edge features, residual, batch norm": Case(
        _of_depth(by_hand.GatedGCN, residual=True, norm=True), _edges, sums=True
    ),
    "graph transformer": _by_hand(by_hand.TransformerLayer, dropout=0.1),
    "graph transformer without norm": _by_hand(by_hand.TransformerLayer, sums=True, norm=False),
    "matmul with parameters, tanh": _by_hand(by_hand.WeightsByHand),
    "einsum over heads, ELU": _by_hand(by_hand.EinsumHeads),
    "keeps its graph, leaky ReLU": Case(
        lambda depth, inputs: by_hand.KeepsGraph(depth, inputs.graph),
        lambda inputs: (inputs.feat,),
    ),
    "virtual node": Case(_of_depth(by_hand.VirtualNode), sums=True),
    "input again in every layer, GELU": Case(_of_depth(by_hand.InputAgain)),
    "own part and largest message": _by_hand(by_hand.MaxPool),
    "differences along edges": _by_hand(by_hand.EdgeDifference),
}
