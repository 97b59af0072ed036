"""Deep graph convolutional network (GCN)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage, register_initializer
from dgl_deepgnn.nn.body import DeepGNN, register_model
from dgl_deepgnn.nn.conv import (
    ResidualConv,
    describe_edge_map,
    is_hooked,
    is_plain_call,
    undivided_radius,
)
from dgl_deepgnn.nn.residual_step import ResidualConnections, add_in_turn
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.matrix import Norm

__all__ = ["ResGCN", "ResGraphConv"]


class ResGraphConv(ResidualConv):
    r"""Graph convolution with residual aggregation.

    .. math:: H' = A_t H W + b, \qquad A_t = (1 - t) I + t A / \lambda

    With ``t=1`` and ``spectral_radius=1.0`` it is :class:`dgl.nn.GraphConv` (Kipf and Welling,
    arXiv:1609.02907).

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    norm : {"both", "right", "left", "none"}
        Normalisation, as in :class:`dgl.nn.GraphConv`.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1.
    bias : bool
        Whether to add a bias.
    init : {"critical", "he", "glorot"}
        Initialization of the weights.
    spectral_radius : float, optional
        What the aggregation is divided by; by default the graph's own spectral radius.
    edge_feats : int
        Width of the edge features that messages depend on, see :class:`ResidualConv`; 0 for none.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(5, 12).add_self_loop()
    >>> ResGraphConv(3, 4, t=0.5)(graph, torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        *,
        norm: Norm = "both",
        t: float = 1.0,
        bias: bool = True,
        init: str = "critical",
        spectral_radius: float | None = None,
        edge_feats: int = 0,
    ) -> None:
        super().__init__(in_feats, out_feats, norm, t, init, spectral_radius, edge_feats)
        self.weight = nn.Parameter(torch.empty(in_feats, out_feats))
        self.bias = nn.Parameter(torch.zeros(out_feats)) if bias else None
        self.reset_parameters()

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Aggregate, multiply, add the bias."""
        out = self.aggregate_and_multiply(operator, src, dst, self.weight)
        return out if self.bias is None else out + self.bias

    @classmethod
    def add_in_turn(
        cls, convs: Sequence[ResidualConv], operator: AggregationOperator, x: Tensor, scale: float
    ) -> Tensor:
        """All residual connections in one step, which keeps one matrix of features a layer."""
        if operator.is_trainable or not all(
            operator.t == conv.t
            and conv.edge_map is None
            and conv.bias is not None
            and is_plain_call(conv, ResGraphConv, operator, x)
            for conv in convs
        ):
            return super().add_in_turn(convs, operator, x, scale)
        parameters = tuple(cast(Tensor, p) for conv in convs for p in (conv.weight, conv.bias))
        if torch.is_grad_enabled():
            return ResidualConnections.apply(x, scale, operator, *parameters)
        return add_in_turn(x, scale, operator, parameters)

    def beside_skip(
        self, operator: AggregationOperator, feat: Tensor, x: Tensor, scale: float, skip: float
    ) -> Tensor:
        """Both parts in one aggregation, since this layer is linear."""
        if is_hooked(self) or self.edge_map is not None:
            return super().beside_skip(operator, feat, x, scale, skip)
        mixed = torch.addmm(x, feat, self.weight, beta=skip, alpha=scale)
        out = self.aggregate(operator, mixed, mixed)
        return out if self.bias is None else torch.add(out, self.bias, alpha=scale)


@register_initializer(ResGraphConv)
def _describe(conv: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(conv, ResGraphConv)
    edges, share = describe_edge_map(conv)
    radius, widths = undivided_radius(conv, context), (conv.in_feats, conv.out_feats)
    return [*edges, [LinearMap(conv, conv.weight, *widths, conv.bias, radius, share)]]


@register_model("resgcn")
class ResGCN(DeepGNN):
    """Deep GCN of :class:`ResGraphConv` layers.

    Parameters
    ----------
    in_feats, hidden_feats, out_feats, num_layers : int
        Widths, and the number of graph convolutions.
    norm : {"both", "right", "left", "none"}
        Normalisation of the aggregation, as in :class:`dgl.nn.GraphConv`.
    **body
        Keyword arguments of :class:`DeepGNN`: `t`, `residual`, `init`, `dropout`, `head`, ...

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(20, 60).add_self_loop()
    >>> model = ResGCN(8, 16, 3, num_layers=64)
    >>> model(graph, torch.randn(20, 8)).shape
    torch.Size([20, 3])
    """

    def __init__(
        self,
        in_feats: int,
        hidden_feats: int,
        out_feats: int,
        num_layers: int,
        *,
        norm: Norm = "both",
        **body: Any,
    ) -> None:
        conv = partial(ResGraphConv, norm=norm)
        super().__init__(conv, in_feats, hidden_feats, out_feats, num_layers, **body)
        self.config["norm"] = norm
