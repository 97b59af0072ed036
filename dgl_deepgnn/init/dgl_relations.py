"""Initializer hooks of DGL's layers on graphs with several relations.

What several relations add to one node shares its variance among them.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace
from typing import Any

import dgl
import torch
from dgl.nn import GINConv, HeteroGraphConv, RelGraphConv, SAGEConv
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.dgl_layers import GAIN, other_stages
from dgl_deepgnn.init.hooks import (
    GraphContext,
    LinearMap,
    Stage,
    UnknownModuleError,
    WithoutGraph,
    collect_stages,
    register_initializer,
)

_WIDTH = 256  # of the random features that find a relational graph's growth
_DEPTH = 8  # layers that they go through at least


@register_initializer(HeteroGraphConv)
def _hetero_graph_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a layer a relation, whose results are added up or averaged at every node type.

    A layer of several relations shares as the node type with the most of them does.
    """
    kind = getattr(getattr(conv.agg_fn, "keywords", {}).get("fn"), "__name__", "")
    stack = getattr(conv.agg_fn, "__name__", "") == "_stack_agg_func"
    if not stack and kind not in ("_sum_reduce_func", "_mean_reduce_func"):
        raise UnknownModuleError(
            conv,
            "HeteroGraphConv takes the largest of its relations' results, or a function of them of "
            "your own: how that scales depends on their number at every node. aggregate='sum', "
            "'mean' and 'stack' have a critical scale.",
        )
    inner = context.of_relation()
    branches: list[list[Stage]] = []
    for module, (number, reached) in _relations_into_the_same_type(conv, context).items():
        stages = collect_stages(module, inner)
        if stages:
            part = 1.0 if stack else 1 / max(reached, 1e-9)
            if kind == "_mean_reduce_func":
                part *= number**2
            stages[-1] = [replace(m, share=m.share * part) for m in stages[-1]]
            branches.append(stages)
    longest = max(map(len, branches), default=0)
    return [  # the last stages of all are added
        [m for stages in branches if len(stages) >= back for m in stages[-back]]
        for back in range(longest, 0, -1)
    ]


def _relations_into_the_same_type(
    conv: Any, context: GraphContext
) -> dict[nn.Module, tuple[int, float]]:
    """Of every layer: relations that end where its own does, and how many reach a node there."""
    graph: Any = context.graph
    relations = [
        (conv._get_module(relation), relation)
        for relation in getattr(graph, "canonical_etypes", ())
        if relation in conv.mod_dict or relation[1] in conv.mod_dict
    ]
    if not relations and all(isinstance(name, tuple) for name in conv.mod_dict):
        graph = None  # their names say where they end
        relations = [(module, name) for name, module in conv.mod_dict.items()]
    if not relations:
        if isinstance(context, WithoutGraph):
            return dict.fromkeys(conv.mods.values(), (1, 1.0))
        raise DGLError(
            f"HeteroGraphConv has layers for the relations {', '.join(conv.mods)}: its critical "
            "scale depends on how many of them end in a node type. Pass the heterograph that has "
            "them: critical_(module, graph)."
        )
    into: dict[str, list[float]] = defaultdict(list)
    for module, relation in relations:
        into[relation[2]].append(1.0 if graph is None else _reach(module, graph[relation]))
    result: dict[nn.Module, tuple[int, float]] = {}
    for module, relation in relations:  # one of several relations suits the type with the most
        shares = into[relation[2]]
        result[module] = max(result.get(module, (0, 0.0)), (len(shares), sum(shares)))
    return result


def _reach(module: nn.Module, graph: AnyGraph) -> float:
    """Share of the nodes to which the relation's layer adds anything."""
    own = isinstance(module, (SAGEConv, GINConv))  # theirs has a part for the node itself
    degrees = graph.in_degrees()
    return 1.0 if own or not len(degrees) else (degrees > 0).double().mean().item()


@register_initializer(RelGraphConv)
def _rel_graph_conv(conv: Any, context: GraphContext) -> list[Stage]:
    """Describe a weight a relation, and one of the node itself.

    Features that came through different weights are not alike, so that the growth of such a sum is
    no spectral radius; random features find it.
    """
    typed = conv.linear_r
    blocks = typed.num_bases if typed.regularizer == "bdd" else 1
    radius = _relational_radius(conv, context)
    relations = LinearMap(
        conv,
        typed.W,
        typed.in_size // blocks,
        typed.out_size,
        conv.h_bias if conv.bias else None,
        radius,
    )
    if typed.regularizer == "basis" and typed.coeff.requires_grad:
        with torch.no_grad():  # so the relations' weights have the variance of the bases
            typed.coeff.copy_(_unit_rows(torch.randn(typed.coeff.shape)))
    stage = [relations]
    if conv.self_loop:
        own = replace(
            relations,
            weight=conv.loop_weight,
            fan_in=typed.in_size,
            bias=None,
            glorot_gain=GAIN,
        )
        # Behind its normalization the relations' sum has mean square one, and the rest is the
        # node's own.
        stage.append(replace(own, share=0.5, spectral_radius=1.0) if conv.layer_norm else own)
    return [stage, *other_stages(conv, context, typed)]


def _relational_radius(conv: Any, context: GraphContext) -> float:
    if isinstance(context, WithoutGraph):
        return context.spectral_radius(conv, "none")
    if conv.layer_norm:
        return 1.0
    edata = {} if context.graph is None else context.graph.edata
    if dgl.ETYPE not in edata:
        raise DGLError(
            "RelGraphConv sums over the edges of every relation: its critical scale depends on the "
            "graph, and on the relation of every edge in graph.edata[dgl.ETYPE] (dgl.to_homogeneous"
            " leaves it there); what it is called with as norm is edge_weight. Pass them, "
            "critical_(module, graph, edge_weight=norm), or let the features decide: "
            "critical_(model, forward=lambda model: model(graph, feat, etypes))."
        )
    depth = max(context.depth or 1, _DEPTH)
    bases = conv.linear_r.num_bases if conv.linear_r.regularizer == "basis" else None
    return context.once(
        ("relations", conv.self_loop, bases, depth),
        lambda: relational_growth(
            context.graph,
            edata[dgl.ETYPE],
            context.edge_weight,
            conv.self_loop,
            bases,
            depth,
        ),
    )


@torch.no_grad()
def relational_growth(
    graph: AnyGraph,
    etypes: Tensor,
    weight: Tensor | None,
    self_loop: bool,
    bases: int | None,
    depth: int,
) -> float:
    """Root of a layer's growth of the mean square, over layers of He's variance, a weight a type.

    Parameters
    ----------
    graph : DGLGraph
        The graph.
    etypes : Tensor
        Relation of every edge, shape (E,).
    weight : Tensor, optional
        Weights of the edges, shape (E,) or (E, 1).
    self_loop : bool
        Whether a node's own features have a weight, too.
    bases : int, optional
        Number of matrices that those of the relations are composed of.
    depth : int
        Layers to go through.

    Returns
    -------
    float
        Where it is one, layers of variance ``2 / fan_in`` keep the scale.
    """
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    src, dst = (end.long().cpu() for end in graph.edges(order="eid"))
    factor = None if weight is None else weight.detach().reshape(-1, 1).float().cpu()
    edges = [(etypes.cpu() == kind).nonzero().squeeze(1) for kind in etypes.unique().cpu()]
    count = len(edges) if bases is None else bases
    # Half alike, as deep features are.
    features = (normal(1, _WIDTH) + normal(graph.num_nodes(), _WIDTH)) / math.sqrt(2)
    growth = 0.0
    for _ in range(depth):
        features = features.relu()
        out = features @ normal(_WIDTH, _WIDTH) if self_loop else torch.zeros_like(features)
        matrices = normal(count, _WIDTH, _WIDTH)
        if bases is not None:
            rows = _unit_rows(normal(len(edges), bases))
            matrices = torch.einsum("rb,bio->rio", rows, matrices)
        for chosen, matrix in zip(edges, matrices, strict=True):
            message = features[src[chosen]]
            if factor is not None:
                message = message * factor[chosen]
            total = torch.zeros_like(features).index_add(0, dst[chosen], message)
            out += total @ matrix
        square = 2 / _WIDTH * out.square().mean().item()
        if not 0 < square < math.inf:
            raise DGLError(
                "After some layers a relational sum leaves nothing of the features. The graph needs"
                " RelGraphConv(self_loop=True), or cycles."
            )
        growth += math.log(square)
        features = out * math.sqrt(2 / _WIDTH / square)
    return math.exp(growth / depth / 2)


def _unit_rows(rows: Tensor) -> Tensor:
    """Random rows of norm one, at right angles where they are not too many."""
    q, r = torch.linalg.qr(rows.T if rows.shape[0] <= rows.shape[1] else rows)
    q = q * r.diagonal().sign()
    return nn.functional.normalize(q.T if rows.shape[0] <= rows.shape[1] else q, dim=1)
