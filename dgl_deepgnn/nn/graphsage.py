"""Deep GraphSAGE with mean aggregation."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage, register_initializer
from dgl_deepgnn.nn.body import DeepGNN, register_model
from dgl_deepgnn.nn.conv import ResidualConv, describe_edge_map, undivided_radius
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.matrix import Norm

__all__ = ["ResGraphSAGE", "ResSAGEConv"]

Interpolation = Literal["operator", "variance"]


class ResSAGEConv(ResidualConv):
    r"""GraphSAGE convolution with residual aggregation.

    .. math:: H' = H W_\mathrm{self} + A_t H W_\mathrm{neigh} + b

    The critical variance is shared by the two weights, :math:`C_\mathrm{self} +
    C_\mathrm{neigh} = 2`. Residual aggregation comes in two forms:

    - ``interpolation="operator"``: :math:`A_t = (1 - t) I + t A / \lambda`, both shares 1;
    - ``interpolation="variance"``: the operator stays :math:`A / \lambda` and the shares are
      :math:`C_\mathrm{self} = 2 (1 - t)`, :math:`C_\mathrm{neigh} = 2 t`: an initialization
      only, which training is free to leave.

    With ``t=1``, ``interpolation="operator"`` and ``spectral_radius=1.0`` it is
    :class:`dgl.nn.SAGEConv` with mean aggregation (Hamilton et al., arXiv:1706.02216).

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    norm : {"right", "both", "left", "none"}
        Normalisation of the aggregation; ``"right"`` is the mean.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1.
    interpolation : {"operator", "variance"}
        The form of residual aggregation.
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
    >>> ResSAGEConv(3, 4, t=0.5)(graph, torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        *,
        norm: Norm = "right",
        t: float = 1.0,
        interpolation: Interpolation = "operator",
        bias: bool = True,
        init: str = "critical",
        spectral_radius: float | None = None,
        edge_feats: int = 0,
    ) -> None:
        if interpolation not in ("operator", "variance"):
            raise DGLError(
                f"interpolation must be 'operator' or 'variance', got {interpolation!r}."
            )
        self_share = 0.5
        if interpolation == "variance":
            self_share, t = 1 - t, 1.0
        super().__init__(in_feats, out_feats, norm, t, init, spectral_radius, edge_feats)
        self.self_share = self_share
        self.weight_self = nn.Parameter(torch.empty(in_feats, out_feats))
        self.weight_neigh = nn.Parameter(torch.empty(in_feats, out_feats))
        self.bias = nn.Parameter(torch.zeros(out_feats)) if bias else None
        self.reset_parameters()

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Add both products."""
        if dst is None:
            raise DGLError(
                "GraphSAGE needs features of the destination nodes: between two node types pass "
                "feat as a pair (source, destination)."
            )
        neighbours = self.aggregate_and_multiply(operator, src, dst, self.weight_neigh)
        if self.bias is None:
            out = dst @ self.weight_self
        elif dst.layout != torch.strided:
            out = dst @ self.weight_self + self.bias
        else:
            out = torch.addmm(self.bias, dst, self.weight_self)
        return out.add_(neighbours)


@register_initializer(ResSAGEConv)
def _describe(conv: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(conv, ResSAGEConv)
    widths = conv.in_feats, conv.out_feats
    gain = nn.init.calculate_gain("relu")  # dgl.nn.SAGEConv draws its weights with it
    share, radius = conv.self_share, undivided_radius(conv, context)
    edges, left = describe_edge_map(conv)
    return [
        *edges,
        [
            LinearMap(conv, conv.weight_self, *widths, conv.bias, 1.0, share, gain),
            LinearMap(conv, conv.weight_neigh, *widths, None, radius, left * (1 - share), gain),
        ],
    ]


@register_model("resgraphsage")
class ResGraphSAGE(DeepGNN):
    """Deep GraphSAGE of :class:`ResSAGEConv` layers.

    Parameters
    ----------
    in_feats, hidden_feats, out_feats, num_layers : int
        Widths, and the number of graph convolutions.
    norm : {"right", "both", "left", "none"}
        Normalisation of the aggregation; ``"right"`` is the mean.
    interpolation : {"operator", "variance"}
        The form of residual aggregation, see :class:`ResSAGEConv`.
    **body
        Keyword arguments of :class:`DeepGNN`: `t`, `residual`, `init`, `dropout`, `head`, ...

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(20, 60).add_self_loop()
    >>> model = ResGraphSAGE(8, 16, 3, num_layers=32)
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
        norm: Norm = "right",
        interpolation: Interpolation = "operator",
        **body: Any,
    ) -> None:
        conv = partial(ResSAGEConv, norm=norm, interpolation=interpolation)
        super().__init__(conv, in_feats, hidden_feats, out_feats, num_layers, **body)
        self.config.update(norm=norm, interpolation=interpolation)
