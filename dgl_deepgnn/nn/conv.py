"""What the three convolutions share: the operator, DGL's kinds of input, residual aggregation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, is_graph
from dgl_deepgnn.init import SCHEMES
from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.matrix import NORMS, Norm
from dgl_deepgnn.operator.memory import remembered_operator

__all__ = [
    "Features",
    "ResidualConv",
    "describe_edge_map",
    "is_hooked",
    "is_plain_call",
    "multiply_share",
    "undivided_radius",
    "with_edge_feat",
]

_is_compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # from PyTorch 2.3 on

Features = Tensor | tuple[Tensor, Tensor]
"""Node features, or a pair for source and destination nodes, as DGL's layers take them."""


class ResidualConv(nn.Module):
    """Base of the convolutions: aggregates with ``A_t`` and leaves the weights to subclasses.

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    norm : {"both", "right", "left", "none"}
        Normalisation of the aggregation.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1; at 0 the layer does
        not aggregate.
    init : {"critical", "he", "glorot"}
        Initialization of the weights, see :mod:`dgl_deepgnn.init`.
    spectral_radius : float, optional
        What the aggregation is divided by; by default the graph's own spectral radius. A
        sampler's block has none: give the full graph's for ``norm="none"``. 1.0 leaves the
        aggregation as DGL computes it.
    edge_feats : int
        Width of the edge features that the messages depend on, after GINE; 0 for none: see
        :meth:`AggregationOperator.messages`.
    """

    depth: int | None = None
    """Layers whose growth the aggregation is divided by in place of the spectral radius, if any."""

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        norm: Norm,
        t: float,
        init: str,
        spectral_radius: float | None,
        edge_feats: int = 0,
    ) -> None:
        super().__init__()
        for name, width in (("in_feats", in_feats), ("out_feats", out_feats)):
            if width < 1:
                raise DGLError(f"{name} must be at least 1, got {width}.")
        if norm not in NORMS:
            raise DGLError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
        if not 0 <= t <= 1:
            raise DGLError(f"t must lie in [0, 1], got {t}.")
        if edge_feats < 0:
            raise DGLError(f"edge_feats must be at least 0, got {edge_feats}.")
        self.in_feats, self.out_feats = in_feats, out_feats
        self.edge_feats = edge_feats if t > 0 else 0
        """Width of the edge features that the layer reads; a layer that does not aggregate: 0."""
        reads = self.edge_feats > 0
        self.edge_map = nn.Linear(edge_feats, in_feats, bias=False) if reads else None
        self.norm, self.t, self.init = norm, t, init
        self.spectral_radius = spectral_radius

    def reset_parameters(self) -> None:
        """Draw the weights anew by the layer's initialization."""
        SCHEMES[self.init](self)

    def operator(
        self, graph: AnyGraph, edge_weight: Tensor | None = None, *, folded: bool = True
    ) -> AggregationOperator:
        """Aggregation operator of `graph` for this layer, to be reused over many calls.

        It is remembered while `graph` lives and neither it nor the weights change.
        Without `folded`, the identity is left to :meth:`aggregate`: so layers of different t
        share one operator.
        """
        between_types = is_graph(graph) and graph.srctypes != graph.dsttypes
        make = remembered_operator
        if _is_compiling():  # it is not tensors that are computed with there
            make = torch.compiler.disable(make)
        return make(
            graph,
            self.norm,
            self.t if folded and self.t > 0 and not between_types else 1.0,
            edge_weight,
            spectral_radius=self.spectral_radius,
            depth=self.depth,
            edgewise=self.edge_feats > 0,
        )

    def forward(
        self,
        graph: AnyGraph | AggregationOperator,
        feat: Features,
        edge_weight: Tensor | None = None,
        edge_feat: Tensor | None = None,
    ) -> Tensor:
        """Apply the layer.

        Parameters
        ----------
        graph : DGLGraph or AggregationOperator
            A homogeneous graph, a batch, a sampler's block, one relation of a heterogeneous
            graph, or the operator that :meth:`operator` made of one. It is not changed.
        feat : Tensor or pair of Tensor
            Node features of shape (N, in_feats); a pair for source and destination nodes. One
            matrix may be sparse (CSR).
        edge_weight : Tensor, optional
            Non-negative weights, shape (E,).
        edge_feat : Tensor, optional
            Edge features, shape (E, edge_feats), if the layer reads them and the operator does not
            hold them. Node features are to be those behind a ReLU: a message is ``relu(h + W e)``.

        Returns
        -------
        Tensor
            Shape (destination nodes, out_feats).

        Raises
        ------
        DGLError
            If shapes do not fit, an edge weight is negative or the graph has no critical scale.
        """
        if isinstance(graph, AggregationOperator):
            if edge_weight is not None:
                raise DGLError("The operator holds its edge weights: give edge_weight to it.")
            operator = graph
        else:
            operator = self.operator(graph, edge_weight)
        operator = with_edge_feat(operator, edge_feat, self.edge_feats)
        src, dst = feat if isinstance(feat, tuple) else (feat, None)
        num_dst, num_src = operator.shape
        for name, part, nodes in (
            ("feat", src, num_src),
            ("feat of the destination nodes", dst, num_dst),
        ):
            if part is not None and part.shape != (nodes, self.in_feats):
                raise DGLError(
                    f"{name} has shape {tuple(part.shape)}, but the layer was built with "
                    f"in_feats={self.in_feats} and the graph has {nodes} such nodes: expected "
                    f"({nodes}, {self.in_feats})."
                )
        if src.layout != torch.strided and (self.in_feats <= self.out_feats or self.edge_feats):
            src = src.to_dense()  # only the product with narrower weights is worth a sparse one
        if dst is None and operator.graph.srctypes == operator.graph.dsttypes:
            # A sampler's block has its destination nodes first among its source nodes.
            dst = src if num_dst == num_src else src[:num_dst]
        return self.transform(operator, src, dst)

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Aggregate and multiply by the weights; `dst` is None where there are no such features."""
        raise NotImplementedError

    def aggregate(
        self,
        operator: AggregationOperator,
        src: Tensor,
        dst: Tensor | None,
        edge_map: nn.Linear | None = None,
    ) -> Tensor:
        """``A_t`` applied to features, whether or not the operator has this layer's t folded in.

        With `edge_map` to messages that depend on edge features.
        """
        if self.t == 0 and dst is not None:
            return dst
        if operator.t == self.t:
            return _product(operator, src, edge_map)
        if operator.t != 1:
            raise DGLError(
                f"The operator has t={operator.t:g}, but the layer t={self.t:g}: make the operator "
                "by the layer's own operator(graph)."
            )
        if dst is None:
            raise DGLError(
                "Interpolation with the identity (t < 1) between two node types needs features of "
                "the destination nodes: pass feat as a pair (source, destination), or use t=1."
            )
        return torch.lerp(dst, _product(operator, src, edge_map), self.t)

    def aggregate_and_multiply(
        self, operator: AggregationOperator, src: Tensor, dst: Tensor | None, weight: Tensor
    ) -> Tensor:
        """``A_t feat @ weight``, aggregated on the narrower side of the weight, as DGL does.

        Of equal sides the product comes first: then aggregated features need not be kept. Where
        messages depend on edge features, they are made of features as they come.
        """
        if self.in_feats < self.out_feats or self.edge_map is not None:
            return self.aggregate(operator, src, dst, self.edge_map) @ weight
        projected = src @ weight
        if dst is not None and operator.t != self.t:
            dst = projected if dst is src else dst @ weight
        return self.aggregate(operator, projected, dst)

    @classmethod
    def add_in_turn(
        cls, convs: Sequence[ResidualConv], operator: AggregationOperator, x: Tensor, scale: float
    ) -> Tensor:
        """``x + scale * conv(relu(x))`` of one convolution after another: residual connections."""
        x = x.clone()
        for conv in convs:
            conv.add_branch_(operator, x, scale)
        return x

    def add_branch_(self, operator: AggregationOperator, x: Tensor, scale: float) -> None:
        """Add ``scale * conv(relu(x))`` to `x` in place: ReLU keeps its result, not `x`."""
        x.add_(self(operator, torch.relu(x)), alpha=scale)

    def beside_skip(
        self, operator: AggregationOperator, feat: Tensor, x: Tensor, scale: float, skip: float
    ) -> Tensor:
        """``scale * conv(feat) + skip * A_t x``, for a skip connection that aggregates too."""
        aggregated = self.aggregate(operator, x, x)
        return torch.add(scale * self(operator, feat), aggregated, alpha=skip)

    def extra_repr(self) -> str:
        """Constructor arguments, as DGL's layers print them."""
        return (
            f"in_feats={self.in_feats}, out_feats={self.out_feats}, norm={self.norm}, t={self.t:g}"
        )


def _product(operator: AggregationOperator, feat: Tensor, edge_map: nn.Linear | None) -> Tensor:
    return operator @ feat if edge_map is None else operator.messages(feat, edge_map)


def with_edge_feat(
    operator: AggregationOperator, edge_feat: Tensor | None, width: int
) -> AggregationOperator:
    """Operator with the edge features that a layer reads, of that width.

    Raises
    ------
    DGLError
        If they are missing, of another shape, or nobody reads them.
    """
    if width == 0:
        if edge_feat is not None:
            raise DGLError("The layer reads no edge features: build it with edge_feats=...")
        return operator
    if edge_feat is not None:
        operator = operator.with_edge_feat(edge_feat)
    edges = operator.graph.num_edges()
    given = None if operator.edge_feat is None else tuple(operator.edge_feat.shape)
    if given != (edges, width):
        problem = "are missing" if given is None else f"have shape {given}"
        raise DGLError(
            f"Edge features {problem}, but the layers were built with edge_feats={width}: expected "
            f"edge_feat of shape ({edges}, {width}), of a prepared graph edata['feat']."
        )
    return operator


def describe_edge_map(conv: ResidualConv) -> tuple[list[Stage], float]:
    r"""Stage of the weights that edge features meet, and the share that is left behind them.

    Of node features :math:`h = \mathrm{relu}(z)` and mapped edge features e, both of mean square 1
    and z and e normal, the message :math:`m = \mathrm{relu}(h + e)` has

    .. math:: \langle m^2 \rangle = \tfrac74 - \tfrac{3 a - \sqrt2}{2\pi}, \quad
        \langle h m \rangle = 1 - \tfrac{2 a - \sqrt2}{2\pi}, \quad a = \arctan \tfrac1{\sqrt2},

    so that :math:`(1 - t) h + t m` has 1.68 at t = 1: the weights behind it are divided by that.
    It keeps the scale of features by itself, since larger ones are changed less by an edge.
    """
    if conv.edge_map is None:
        return [], 1.0
    weight, angle = conv.edge_map.weight, math.atan(math.sqrt(0.5))
    square = 7 / 4 - (3 * angle - math.sqrt(2)) / (2 * math.pi)
    mixed = 1 - (2 * angle - math.sqrt(2)) / (2 * math.pi)
    t = conv.t
    behind = (1 - t) ** 2 + 2 * t * (1 - t) * mixed + t**2 * square
    # Half of the share of a map in front of a ReLU, which has mean square 2 there.
    edges = LinearMap(conv, weight, weight.shape[1], weight.shape[0], share=0.5)
    return [[edges]], 1 / behind


def multiply_share(stage: Stage, share: float) -> Stage:
    """The same maps with so much of their shares of the critical variance."""
    return [replace(m, share=m.share * share) for m in stage]


def is_hooked(module: nn.Module) -> bool:
    """Whether someone listens to calls of a module: then it must be called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def is_plain_call(
    conv: ResidualConv, kind: type[ResidualConv], operator: AggregationOperator, x: Tensor
) -> bool:
    """Whether a shortcut of a kind of convolution may stand for a call: nobody would notice."""
    if type(conv) is not kind or is_hooked(conv) or _is_autocast(x):
        return False
    nodes = x.shape[0]  # len would make a constant of it in an exported program
    return operator.shape == (nodes, nodes)


def _is_autocast(x: Tensor) -> bool:
    try:
        return torch.is_autocast_enabled(x.device.type)
    except TypeError:  # before PyTorch 2.4
        return torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()
    except RuntimeError:  # a device without autocast, such as "meta"
        return False


def undivided_radius(conv: ResidualConv, context: GraphContext) -> float:
    """Spectral radius that the layer's operator still has: 1 where it divides by the graph's own.

    With a `spectral_radius` of the caller's the rest can be told only from the graph.
    """
    if conv.t == 0 or conv.spectral_radius is None or context.graph is None:
        return 1.0
    return context.spectral_radius(conv, conv.norm) / conv.spectral_radius
