"""Initializer hooks of DGL's own layers that aggregate with fixed weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch
from dgl.nn import (
    APPNPConv,
    DenseGraphConv,
    DenseSAGEConv,
    GCN2Conv,
    GINConv,
    GraphConv,
    JumpingKnowledge,
    SAGEConv,
    SGConv,
    TAGConv,
)
from torch import Tensor, nn

from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    UnknownModuleError,
    collect_stages,
    multiply_radius,
    register_initializer,
)
from dgl_deepgnn.operator.growth import spectral_radius
from dgl_deepgnn.operator.matrix import Norm

GAIN = nn.init.calculate_gain("relu")  # most of DGL's layers draw their weights with it
_NEAR = 0.01  # of one, a spectral radius
_MOST = 4.0  # what layers without weights may multiply the features by, all together


def other_stages(module: nn.Module, context: GraphContext, *known: nn.Module | None) -> list[Stage]:
    """Stages of the children that the layer's formula does not name: activation, norm."""
    return [
        stage
        for child in module.children()
        if not any(child is other for other in known)
        for stage in collect_stages(child, context)
    ]


@register_initializer(GraphConv)
def _graph_conv(conv: Any, context: GraphContext) -> list[Stage]:
    radius = context.spectral_radius(conv, conv._norm)
    if conv.weight is None:
        _require_neutral(conv, context, radius)
        _zero(conv.bias)
        return other_stages(conv, context)
    fan_in, fan_out = conv.weight.shape
    linear = LinearMap(conv, conv.weight, fan_in, fan_out, conv.bias, radius)
    return [[linear], *other_stages(conv, context)]


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
        glorot_gain=GAIN,
    )
    if kind == "gcn":
        radius = _radius_with_self_loops(conv, context)
        stages = [[replace(neigh, bias=conv.bias, spectral_radius=radius)]]
        return stages + other_stages(conv, context, conv.fc_neigh)
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
        return stages + other_stages(conv, context, conv.fc_self, conv.fc_neigh)
    pool = collect_stages(conv.fc_pool, context)
    stages = [[replace(m, glorot_gain=GAIN) for m in stage] for stage in pool]
    stages.append([own, replace(neigh, share=0.5)])
    return stages + other_stages(conv, context, conv.fc_pool, conv.fc_self, conv.fc_neigh)


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
    return [first, *others, *other_stages(conv, context, conv.apply_func)]


# --- several hops in one layer -------------------------------------------------------------------


def _symmetric_radius(conv: Any, context: GraphContext) -> float:
    """Radius of the normalisation of SGConv, TAGConv and GCN2Conv.

    Without weights both sides are divided by the roots of the in-degrees, which has the
    eigenvalues of the mean.
    """
    if context.edge_weight is None:
        return context.spectral_radius(conv, "right")
    return context.weighted(_by_weighted_degrees).spectral_radius(conv, "none")


def _by_weighted_degrees(graph: AnyGraph, weight: Tensor) -> Tensor:
    """``EdgeWeightNorm("both")``: divided by the roots of the weights' sums at both ends."""
    return weight.reshape(-1) * (_sums(graph, weight, 0) * _sums(graph, weight, 1)) ** -0.5


def _sums(graph: AnyGraph, weight: Tensor, end: int) -> Tensor:
    """Of every edge, the sum of all weights at its source (0) or destination (1)."""
    nodes = graph.edges(order="eid")[end].long()
    weight = weight.reshape(-1)
    return weight.new_zeros(graph.num_nodes()).index_add(0, nodes, weight)[nodes]


@register_initializer(SGConv)
def _sg_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe k aggregations in front of one weight."""
    hops = math.prod(_symmetric_radius(conv, context) for _ in range(conv._k))
    first, *others = collect_stages(conv.fc, context)
    norm = isinstance(conv.norm, nn.Module)  # of what stands before it nothing is left
    stages = [multiply_radius(first, 1.0 if norm else hops), *others]
    return stages + other_stages(conv, context, conv.fc)


@register_initializer(TAGConv)
def _tag_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe one weight on the concatenated results of 0 to k aggregations.

    Deep features are those of the Perron vector, where j aggregations are a factor radius^j: of
    the blocks' mean square the weight divides by the mean.
    """
    radii = [1.0]
    for _ in range(conv._k):
        radii.append(radii[-1] * _symmetric_radius(conv, context))
    mean = math.sqrt(sum(radius**2 for radius in radii) / len(radii))
    first, *others = collect_stages(conv.lin, context)
    stages = [[replace(m, glorot_gain=GAIN) for m in multiply_radius(first, mean)], *others]
    return stages + other_stages(conv, context, conv.lin)


@register_initializer(GCN2Conv)
def _gcn2_conv(conv: Any, context: GraphContext) -> list[Stage]:
    r"""Describe a GCNII layer, :math:`(1 - \beta) s + \beta s W`.

    The identity part keeps :math:`(1 - \beta)^2` of the mean square, and W adds the rest: its
    variance is the critical one divided by :math:`\beta`. With :math:`\beta = 1` that is a plain
    layer's; with a small one the identity part passes the ReLU whole, and
    :math:`(1 - \beta)^2 + 2 \beta` is one to first order.
    """
    radius = _symmetric_radius(conv, context)
    if (1 - conv.alpha) * radius > 1 + _NEAR:
        raise UnknownModuleError(
            conv,
            f"GCN2Conv passes {1 - conv.alpha:g} of the aggregated features on as they are, and "
            f"the aggregation multiplies them by {radius:.3g}: no scale of its weights makes up "
            "for it. Normalise the edge weights.",
        )
    # Two weights, of the aggregated features and of the first ones, do not add up to alpha + rest.
    apart = 1.0 if conv.weight2 is None else (1 - conv.alpha) ** 2 + conv.alpha**2
    width = conv._in_feats
    share = 1 / max(conv.beta * apart, 1e-9)
    first = LinearMap(conv, conv.weight1, width, width, conv.bias, share=share)
    stage = [first] if conv.weight2 is None else [first, replace(first, weight=conv.weight2)]
    return [stage, *other_stages(conv, context)]


# --- dense adjacency matrices --------------------------------------------------------------------


@register_initializer(DenseGraphConv)
def _dense_graph_conv(conv: Any, context: GraphContext) -> list[Stage]:
    norm: Norm = conv._norm if conv._norm in ("both", "none") else "right"
    if context.edge_weight is not None and norm != "none":
        by = _by_dense_degrees if norm == "both" else _by_dense_in_degrees
        radius = context.weighted(by).spectral_radius(conv, "none")
    else:
        radius = context.spectral_radius(conv, norm)
    fan_in, fan_out = conv.weight.shape
    linear = LinearMap(conv, conv.weight, fan_in, fan_out, conv.bias, radius)
    return [[linear], *other_stages(conv, context)]


def _by_dense_degrees(graph: AnyGraph, weight: Tensor) -> Tensor:
    """Entries of the matrix divided by the roots of its sums of rows and columns, at least 1."""
    sums = _sums(graph, weight, 0).clamp(min=1) * _sums(graph, weight, 1).clamp(min=1)
    return weight.reshape(-1) * sums**-0.5


def _by_dense_in_degrees(graph: AnyGraph, weight: Tensor) -> Tensor:
    return weight.reshape(-1) / _sums(graph, weight, 1).clamp(min=1)


@register_initializer(DenseSAGEConv)
def _dense_sage_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe the mean of a node and its neighbours, whose radius is one for any weights."""
    first, *others = collect_stages(conv.fc, context)
    stages = [[replace(m, glorot_gain=GAIN) for m in first], *others]
    return stages + other_stages(conv, context, conv.fc)


# --- without weights of their own ----------------------------------------------------------------


@register_initializer(APPNPConv)
def _appnp_conv(conv: Any, context: GraphContext) -> list[Stage]:
    if context.edge_weight is None:
        radius = context.spectral_radius(conv, "both")
    else:
        radius = context.weighted(_by_weighted_degrees).spectral_radius(conv, "none")
    kept, growth = 1 - conv._alpha, 1.0
    for _ in range(conv._k):
        growth = kept * radius * growth + conv._alpha
    _require_neutral(conv, context, growth)
    return []


def _require_neutral(conv: nn.Module, context: GraphContext, growth: float) -> None:
    """Raise if a layer without a weight that could divide by it scales the features much."""
    if abs(math.log(max(growth, 1e-9))) * max(context.depth or 1, 1) > math.log(_MOST):
        name = type(conv).__name__ + ("(weight=False)" if isinstance(conv, GraphConv) else "")
        raise UnknownModuleError(
            conv,
            f"{name} multiplies the features by {growth:.3g} on this graph, as often as the model "
            "is deep, and has no weight that could divide by it. Normalise the edge weights, or "
            "let the features decide, critical_(model, graph, feat).",
        )


@register_initializer(JumpingKnowledge)
def _jumping_knowledge(module: nn.Module, context: GraphContext) -> list[Stage]:
    """Describe a concatenation, maximum or weighted mean of layers.

    The LSTM only weighs the layers; it keeps its initialization.
    """
    return []


def _zero(bias: Tensor | None) -> None:
    if bias is not None and bias.requires_grad:
        nn.init.zeros_(bias)
