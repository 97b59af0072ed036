"""Initializer hooks of DGL's attention layers, and of those with gates that sum to one.

Attention sums to one over the in-edges of a node, so it is a mean. What only attention reads
(attention vectors, projections of destination nodes) is drawn as the layer itself draws it. Heads
are taken to be concatenated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from dgl import nn as dglnn
from dgl.nn import AGNNConv, DotGatConv, EdgeGATConv, EGATConv, GATConv, GATv2Conv
from torch import nn

from dgl_deepgnn.init.dgl_layers import GAIN, other_stages
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    UnknownModuleError,
    register_initializer,
)


@register_initializer(GATConv)
@register_initializer(GATv2Conv)
def _gat_conv(conv: Any, context: GraphContext) -> list[Stage]:
    second = isinstance(conv, GATv2Conv)
    if second:  # it takes no edge weights
        context = context.weighted(None)
    project = _values(conv)
    value = LinearMap(
        conv,
        project.weight,
        project.in_features,
        project.out_features,
        project.bias if second else conv.bias,
        context.spectral_radius(conv, "right"),
        glorot_gain=GAIN,
    )
    stage = [value]
    if isinstance(conv.res_fc, nn.Linear):
        stage = [replace(m, share=0.5) for m in (value, _beside(value, conv.res_fc))]
    elif conv.res_fc is not None:
        raise _adds_its_input(conv)
    target = getattr(conv, "fc_dst", None)
    _redraw(*([conv.attn] if second else [conv.attn_l, conv.attn_r]))
    if target is not None and target is not project:
        _redraw(target.weight, target.bias)
    return [stage, *other_stages(conv, context, project, target, conv.res_fc)]


@register_initializer(DotGatConv)
def _dot_gat_conv(conv: Any, context: GraphContext) -> list[Stage]:
    project = _values(conv)
    value = LinearMap(conv, project.weight, project.in_features, project.out_features)
    target = getattr(conv, "fc_dst", None)
    if target is not None:
        _redraw(target.weight)
    radius = context.weighted(None).spectral_radius(conv, "right")
    return [[replace(value, spectral_radius=radius)]]


@register_initializer(EdgeGATConv)
def _edge_gat_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a mean of projected neighbours, to whom projected edge features are added.

    All layers read edge features: each adds one part in as many as there are layers, lest they
    drown those of the nodes.
    """
    project = _values(conv)
    context = context.weighted(None)
    value = LinearMap(
        conv,
        project.weight,
        project.in_features,
        project.out_features,
        conv.bias,
        context.spectral_radius(conv, "right"),
        glorot_gain=GAIN,
    )
    stage = [value]
    if conv.res_fc is not None:
        stage = [replace(m, share=0.5) for m in (value, _beside(value, conv.res_fc))]
    edges = replace(_beside(value, conv.fc_edge), share=0.5 / max(context.depth or 1, 1))
    target = getattr(conv, "fc_dst", None)
    _redraw(conv.attn_l, conv.attn_r, conv.attn_edge, None if target is None else target.weight)
    return [
        [*stage, edges],
        *other_stages(conv, context, project, target, conv.res_fc, conv.fc_edge),
    ]


@register_initializer(EGATConv)
def _egat_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a mean of projected neighbours, and new edge features of both ends and the old.

    Edge features are the sum of three parts, and only attention reads them.
    """
    source = conv.fc_node_src
    value = LinearMap(
        conv,
        source.weight,
        source.in_features,
        source.out_features,
        spectral_radius=context.spectral_radius(conv, "right"),
        glorot_gain=GAIN,
    )
    parts = [conv.fc_ni, conv.fc_nj, conv.fc_fij]
    edges = [replace(_beside(value, part), share=1 / 3) for part in parts]
    edges[-1] = replace(edges[-1], bias=conv.bias)
    _redraw(conv.attn)
    return [[value, *edges]]


def _gated_gcn_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a node beside a mean of its neighbours, weighted by gates channel by channel.

    Gates are sigmoids of the edge features, the sum of three parts.
    """
    if conv.residual:
        raise _adds_its_input(conv)
    value = LinearMap(
        conv,
        conv.B.weight,
        conv.B.in_features,
        conv.B.out_features,
        conv.B.bias,
        context.weighted(None).spectral_radius(conv, "right"),
    )
    nodes = [replace(m, share=0.5) for m in (_beside(value, conv.A), value)]
    edges = [replace(_beside(value, part), share=1 / 3) for part in (conv.D, conv.E, conv.C)]
    linears = (conv.A, conv.B, conv.C, conv.D, conv.E)
    return [[*nodes, *edges], *other_stages(conv, context, *linears)]


if hasattr(dglnn, "GatedGCNConv"):  # since DGL 2.0
    register_initializer(dglnn.GatedGCNConv)(_gated_gcn_conv)


@register_initializer(AGNNConv)
def _agnn_conv(conv: nn.Module, context: GraphContext) -> list[Stage]:
    """Describe a mean of neighbours weighted by their likeness; beta is not drawn."""
    return []


def _adds_its_input(conv: nn.Module) -> UnknownModuleError:
    name = type(conv).__name__
    return UnknownModuleError(
        conv,
        f"{name}(residual=True) of equal widths adds its input as it is, so that no scale of "
        f"its weights keeps the signal at order one. Use {name}(residual=False) with the "
        "connection around it, and dgl_deepgnn.init.fixup_ or rezero_ for such branches.",
    )


def _values(conv: Any) -> nn.Linear:
    """Return what makes the values that are averaged."""
    return conv.fc if hasattr(conv, "fc") else conv.fc_src


def _beside(value: LinearMap, linear: nn.Linear) -> LinearMap:
    """Return a linear layer that is not aggregated, whose result is added."""
    return replace(
        value,
        weight=linear.weight,
        fan_in=linear.in_features,
        fan_out=linear.out_features,
        bias=linear.bias,
        spectral_radius=1.0,
    )


def _redraw(*parameters: nn.Parameter | None) -> None:
    """Draw what only attention reads, as DGL does; biases are zero."""
    for parameter in parameters:
        if parameter is not None and parameter.requires_grad:
            if parameter.dim() > 1:
                nn.init.xavier_normal_(parameter, gain=GAIN)
            else:
                nn.init.zeros_(parameter)
