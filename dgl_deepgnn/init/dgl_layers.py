"""Initializer hooks of DGL's own layers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from dgl.nn import GATConv, GATv2Conv, GINConv, GraphConv, SAGEConv
from torch import nn

from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    UnknownModuleError,
    collect_stages,
    multiply_radius,
    register_initializer,
)
from dgl_deepgnn.operator.aggregation import Norm, spectral_radius

_GAIN = nn.init.calculate_gain("relu")  # all of these but GraphConv draw their weights with it


def _other_stages(
    module: nn.Module, context: GraphContext, *known: nn.Module | None
) -> list[Stage]:
    """Stages of the children that the layer's formula does not name: activation, norm."""
    return [
        stage
        for child in module.children()
        if not any(child is other for other in known)
        for stage in collect_stages(child, context)
    ]


@register_initializer(GraphConv)
def _graph_conv(conv: Any, context: GraphContext) -> list[Stage]:
    if conv.weight is None:
        raise UnknownModuleError(
            conv,
            "GraphConv(weight=False) has no weight to initialize: it comes with every call. Draw "
            "it where it is made, with variance 2 / (lambda^2 fan_in) and lambda from "
            "dgl_deepgnn.spectral_radius.",
        )
    radius = context.spectral_radius(conv, conv._norm)
    fan_in, fan_out = conv.weight.shape
    linear = LinearMap(conv, conv.weight, fan_in, fan_out, conv.bias, radius)
    return [[linear], *_other_stages(conv, context)]


@register_initializer(SAGEConv)
def _sage_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a GraphSAGE layer.

    The maximum over neighbours is not linear, but the features of all nodes become alike with
    depth, and of equal entries the maximum is the mean: asymptotically its spectral radius is 1.
    """
    kind = conv._aggre_type
    if kind == "lstm" or (kind == "pool" and context.edge_weight is not None):
        what = "'lstm'" if kind == "lstm" else "'pool' with edge weights"
        raise UnknownModuleError(
            conv,
            f"SAGEConv with aggregator {what} has no critical scale: it is not homogeneous or "
            "not linear in the aggregation. Use 'mean', 'gcn' or 'pool' without edge weights.",
        )
    neigh = LinearMap(
        conv,
        conv.fc_neigh.weight,
        conv.fc_neigh.in_features,
        conv.fc_neigh.out_features,
        glorot_gain=_GAIN,
    )
    if kind == "gcn":
        radius = _radius_with_self_loops(conv, context)
        stages = [[replace(neigh, bias=conv.bias, spectral_radius=radius)]]
        return stages + _other_stages(conv, context, conv.fc_neigh)
    own = replace(
        neigh,
        weight=conv.fc_self.weight,
        fan_in=conv.fc_self.in_features,
        bias=conv.fc_self.bias,
        share=0.5,
    )
    if kind == "mean":
        radius = context.spectral_radius(conv, "right")
        stages = [[own, replace(neigh, share=0.5, spectral_radius=radius)]]
        return stages + _other_stages(conv, context, conv.fc_self, conv.fc_neigh)
    pool = collect_stages(conv.fc_pool, context)
    stages = [[replace(m, glorot_gain=_GAIN) for m in stage] for stage in pool]
    stages.append([own, replace(neigh, share=0.5)])
    return stages + _other_stages(conv, context, conv.fc_pool, conv.fc_self, conv.fc_neigh)


def _radius_with_self_loops(conv: Any, context: GraphContext) -> float:
    """Spectral radius of the mean over a node and its neighbours; without weights it is 1."""
    if context.edge_weight is None or context.graph is None:
        return 1.0
    weight = context.edge_weight.reshape(-1)
    weight = torch.cat([weight, weight.new_ones(context.graph.num_nodes())])
    return float(spectral_radius(context.graph.add_self_loop(), "right", weight).max())


@register_initializer(GINConv)
def _gin_conv(conv: Any, context: GraphContext) -> list[Stage]:
    kind, self_weight = conv._aggregator_type, 1 + conv.eps.item()
    if kind == "max":
        raise UnknownModuleError(
            conv,
            "GINConv with aggregator 'max' has no critical scale: it adds a maximum to the node's "
            "own features. Use 'sum' or 'mean'.",
        )
    if self_weight < 0:
        raise UnknownModuleError(
            conv,
            f"GINConv with eps = {self_weight - 1:g} weighs a node's own features negatively; the "
            "critical scale is defined for eps >= -1.",
        )
    inner = (
        collect_stages(conv.apply_func, context) if isinstance(conv.apply_func, nn.Module) else []
    )
    if not inner:
        raise UnknownModuleError(
            conv,
            "GINConv has no linear layer in apply_func, so that nothing can balance its sum over "
            "neighbours. Pass apply_func=torch.nn.Linear(in_feats, out_feats) or an MLP.",
        )
    first, *others = inner
    norm: Norm = "none" if kind == "sum" else "right"
    first = multiply_radius(first, context.spectral_radius(conv, norm, self_weight))
    return [first, *others, *_other_stages(conv, context, conv.apply_func)]


@register_initializer(GATConv)
@register_initializer(GATv2Conv)
def _gat_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a graph attention layer.

    Attention sums to one over the in-edges of a node, so it is a mean. The attention vectors,
    and the projection of destination nodes that only attention reads, keep the layer's own
    initialization. Heads are taken to be concatenated.
    """
    second = isinstance(conv, GATv2Conv)
    if second:  # it takes no edge weights
        context = replace(context, edge_weight=None)
    project = conv.fc if hasattr(conv, "fc") else conv.fc_src
    value = LinearMap(
        conv,
        project.weight,
        project.in_features,
        project.out_features,
        project.bias if second else conv.bias,
        context.spectral_radius(conv, "right"),
        glorot_gain=_GAIN,
    )
    stage = [value]
    if isinstance(conv.res_fc, nn.Linear):
        residual = replace(
            value,
            weight=conv.res_fc.weight,
            fan_in=conv.res_fc.in_features,
            bias=conv.res_fc.bias,
            spectral_radius=1.0,
        )
        stage = [replace(m, share=0.5) for m in (value, residual)]
    elif conv.res_fc is not None:
        name = type(conv).__name__
        raise UnknownModuleError(
            conv,
            f"{name}(residual=True) of equal widths adds its input as it is, so that no scale of "
            f"its weights keeps the signal at order one. Use {name}(residual=False) with the "
            "connection around it, and dgl_deepgnn.init.fixup_ or rezero_ for such branches.",
        )
    conv.reset_parameters()
    known = [getattr(conv, name, None) for name in ("fc", "fc_src", "fc_dst", "res_fc")]
    return [stage, *_other_stages(conv, context, *known)]
