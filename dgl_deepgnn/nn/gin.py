"""Deep graph isomorphism network (GIN)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.init.hooks import (
    GraphContext,
    Stage,
    collect_stages,
    multiply_radius,
    register_initializer,
)
from dgl_deepgnn.nn.body import DeepGNN, register_model
from dgl_deepgnn.nn.conv import (
    ResidualConv,
    describe_edge_map,
    is_hooked,
    is_plain_call,
    multiply_share,
    undivided_radius,
)
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.matrix import Norm
from dgl_deepgnn.options import InnerLayers

__all__ = ["ResGIN", "ResGINConv"]


class ResGINConv(ResidualConv):
    r"""GIN convolution: a sum over neighbours, scaled to be critical, then an MLP.

    .. math:: H' = \mathrm{MLP}(A_t H), \qquad A_t = (1 - t) I + t A / \lambda

    :math:`\lambda` is the spectral radius of each graph of the batch. GIN's own
    :math:`(1 + \epsilon) x + \sum` (Xu et al., arXiv:1810.00826) is the same operator in another
    parametrization: with ``spectral_radius=1.0`` and ``t=1`` on a graph with self-loops the layer
    is :class:`dgl.nn.GINConv` on the graph without them.

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of the features.
    mlp_layers : int
        Number m of linear layers in the MLP, with ReLU between them.
    norm : {"none", "both", "right", "left"}
        Normalisation of the aggregation; ``"none"`` is the sum.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1.
    init : {"critical", "he", "glorot"}
        Initialization of the weights.
    spectral_radius : float, optional
        What the aggregation is divided by; by default each graph's own spectral radius.
    edge_feats : int
        Width of the edge features that messages depend on, see :class:`ResidualConv`; 0 for none.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(5, 12).add_self_loop()
    >>> ResGINConv(3, 4, t=0.5)(graph, torch.ones(5, 3)).shape
    torch.Size([5, 4])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        *,
        mlp_layers: int = 2,
        norm: Norm = "none",
        t: float = 1.0,
        init: str = "critical",
        spectral_radius: float | None = None,
        edge_feats: int = 0,
    ) -> None:
        super().__init__(in_feats, out_feats, norm, t, init, spectral_radius, edge_feats)
        if mlp_layers < 1:
            raise DGLError(f"mlp_layers must be at least 1, got {mlp_layers}.")
        widths = [in_feats, *[out_feats] * mlp_layers]
        self.mlp = nn.ModuleList(nn.Linear(width, after) for width, after in pairwise(widths))
        self.reset_parameters()

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Aggregate, then apply the MLP."""
        return self._apply_mlp(operator, src, dst, list(self.mlp))

    def _apply_mlp(
        self, operator: AggregationOperator, src: Tensor, dst: Tensor | None, mlp: list[nn.Module]
    ) -> Tensor:
        first = mlp[0]
        assert isinstance(first, nn.Linear)
        out = self.aggregate_and_multiply(operator, src, dst, first.weight.T).add_(first.bias)
        for linear in mlp[1:]:
            out = linear(torch.relu(out))
        return out

    def add_branch_(self, operator: AggregationOperator, x: Tensor, scale: float) -> None:
        """The last product adds to `x`; its weights are scaled, since they are fewer than `x`."""
        *inner, last = self.mlp
        assert isinstance(last, nn.Linear)
        if not inner or is_hooked(last) or not is_plain_call(self, ResGINConv, operator, x):
            return super().add_branch_(operator, x, scale)
        feat = torch.relu(x)
        hidden = torch.relu(self._apply_mlp(operator, feat, feat, inner))
        x.addmm_(hidden, scale * last.weight.T).add_(scale * last.bias)


@register_initializer(ResGINConv)
def _describe(conv: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(conv, ResGINConv)
    edges, share = describe_edge_map(conv)
    first, *others = collect_stages(conv.mlp, context)
    first = multiply_share(multiply_radius(first, undivided_radius(conv, context)), share)
    return [*edges, first, *others]


@register_model("resgin")
class ResGIN(DeepGNN):
    """Deep GIN of :class:`ResGINConv` layers.

    Parameters
    ----------
    in_feats, hidden_feats, out_feats, num_layers : int
        Widths, and the number of graph convolutions.
    mlp_layers : int
        Linear layers in each convolution.
    norm : {"none", "both", "right", "left"}
        Normalisation of the aggregation; ``"none"`` is the sum.
    **body
        Keyword arguments of :class:`DeepGNN`: `t`, `residual`, `init`, `dropout`, `head`, ...

    Examples
    --------
    >>> import dgl
    >>> graphs = dgl.batch([dgl.rand_graph(20, 60).add_self_loop() for _ in range(4)])
    >>> model = ResGIN(8, 16, 3, num_layers=32, head="graph")
    >>> model(graphs, torch.randn(80, 8)).shape
    torch.Size([4, 3])
    """

    def __init__(
        self,
        in_feats: int,
        hidden_feats: int,
        out_feats: int,
        num_layers: int,
        *,
        mlp_layers: InnerLayers = 2,
        norm: Norm = "none",
        **body: Any,
    ) -> None:
        conv = partial(ResGINConv, mlp_layers=mlp_layers, norm=norm)
        super().__init__(conv, in_feats, hidden_feats, out_feats, num_layers, **body)
        self.config.update(mlp_layers=mlp_layers, norm=norm)
