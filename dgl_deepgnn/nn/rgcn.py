"""Deep relational graph convolutional network (RGCN), for graphs with several kinds of edges."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.init.hooks import GraphContext, LinearMap, Stage, register_initializer
from dgl_deepgnn.nn.body import DeepGNN, register_model
from dgl_deepgnn.nn.conv import ResidualConv
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.memory import remembered_operator
from dgl_deepgnn.operator.sparse import SparseMatrix, SparseProduct, both_ways
from dgl_deepgnn.options import Bases

__all__ = ["ResRGCN", "ResRelGraphConv"]


class ResRelGraphConv(ResidualConv):
    r"""Relational graph convolution, critical whatever relations lead to a node.

    .. math:: h'_v = W_0 h_v + \frac{1}{\sqrt{|R_v|}} \sum_{r \in R_v} W_r
        \Bigl((1 - t) h_v + \frac{t}{|N_r(v)|} \sum_{u \in N_r(v)} h_u\Bigr) + b

    with :math:`R_v` the relations that lead to v. After RGCN (Schlichtkrull et al.,
    arXiv:1703.06103), whose sum over relations grows with their number: here all of them share
    half of the critical variance, and the node itself has the other half (all of it where no edge
    leads to it: its product counts :math:`\sqrt 2`). Features that are alike keep their mean square
    where the same relations lead to all nodes. Elsewhere nodes come to differ, and a mean takes
    a part of that away in every layer: residual connections keep it, or
    ``critical_(model, forward=...)`` measures it.

    Parameters
    ----------
    in_feats, out_feats, num_rels : int
        Widths of the features, and the number of relations.
    num_bases : int
        Weights of the relations as combinations of so many matrices; 0 for a matrix each.
    t : float
        Interpolation between the identity and the aggregation, 0 <= t <= 1.
    bias : bool
        Whether to add a bias.
    init : {"critical", "he", "glorot"}
        Initialization of the weights.
    spectral_radius : float, optional
        None or 1: a mean over neighbours has no other.

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(5, 12)
    >>> relation = torch.nn.functional.one_hot(torch.arange(12) % 3, 3).float()
    >>> conv = ResRelGraphConv(4, 8, num_rels=3)
    >>> conv(graph, torch.ones(5, 4), edge_feat=relation).shape
    torch.Size([5, 8])
    """

    def __init__(
        self,
        in_feats: int,
        out_feats: int,
        num_rels: int,
        *,
        num_bases: int = 0,
        t: float = 1.0,
        bias: bool = True,
        init: str = "critical",
        spectral_radius: float | None = None,
    ) -> None:
        super().__init__(in_feats, out_feats, "right", t, init, None)
        if num_rels < 1:
            raise DGLError(f"num_rels must be at least 1, got {num_rels}.")
        if not 0 <= num_bases <= num_rels:
            raise DGLError(f"num_bases must lie in 0 to num_rels={num_rels}, got {num_bases}.")
        if spectral_radius not in (None, 1.0):
            raise DGLError(
                f"spectral_radius={spectral_radius!r}: a relational layer takes means, whose "
                "spectral radius is 1. Leave it out."
            )
        self.edge_feats = num_rels
        self.weight_self = nn.Parameter(torch.empty(in_feats, out_feats))
        self.weight = nn.Parameter(torch.empty(num_bases or num_rels, in_feats, out_feats))
        self.coefficients = nn.Parameter(torch.empty(num_rels, num_bases)) if num_bases else None
        self.bias = nn.Parameter(torch.zeros(out_feats)) if bias else None
        self.reset_parameters()

    def operator(
        self, graph: AnyGraph, edge_weight: Tensor | None = None, *, folded: bool = True
    ) -> AggregationOperator:
        """Edges of `graph` and their weights, to be reused; each layer makes its means of them."""
        if edge_weight is not None and edge_weight.requires_grad:
            raise DGLError("Edge weights of a relational layer are constants: detach them.")
        return remembered_operator(
            graph, "none", 1.0, edge_weight, spectral_radius=1.0, edgewise=True
        )

    def transform(self, operator: AggregationOperator, src: Tensor, dst: Tensor | None) -> Tensor:
        """Aggregate by relation, multiply, add up."""
        if dst is None:
            raise DGLError(
                "A relational layer needs features of the destination nodes: between two node "
                "types pass feat as a pair (source, destination)."
            )
        relations = _relations(operator, src)
        mean = SparseProduct.apply(src, *relations.means)
        if self.t < 1:
            mean = torch.lerp(dst.index_select(0, relations.node), mean, self.t)
        weight: Tensor = self.weight
        if self.coefficients is not None:
            weight = torch.einsum("rb,bio->rio", self.coefficients, weight)
        parts = mean.split(relations.sizes)
        products = torch.cat([part @ weight[r] for r, part in enumerate(parts)]).to(src.dtype)
        out = SparseProduct.apply(products, *relations.sums)
        own = dst if relations.alone is None else dst * relations.alone.to(dst)[:, None]
        out = out + own @ self.weight_self
        return out if self.bias is None else out + self.bias

    def beside_skip(
        self, operator: AggregationOperator, feat: Tensor, x: Tensor, scale: float, skip: float
    ) -> Tensor:
        """Refused: no one operator aggregates the skip connection."""
        raise DGLError("residual='initial' aggregates the skip connection: not over relations.")

    def extra_repr(self) -> str:
        """Constructor arguments."""
        bases = 0 if self.coefficients is None else len(self.weight)
        return (
            f"in_feats={self.in_feats}, out_feats={self.out_feats}, num_rels={self.edge_feats}, "
            f"num_bases={bases}, t={self.t:g}"
        )


@register_initializer(ResRelGraphConv)
def _describe(conv: nn.Module, context: GraphContext) -> list[Stage]:
    assert isinstance(conv, ResRelGraphConv)
    widths = conv.in_feats, conv.out_feats
    if conv.coefficients is not None and conv.coefficients.requires_grad:
        # No map of features: a combination of B matrices has the mean square of one.
        nn.init.normal_(conv.coefficients, std=conv.coefficients.shape[1] ** -0.5)
    return [
        [
            LinearMap(conv, conv.weight_self, *widths, conv.bias, share=0.5),
            LinearMap(conv, conv.weight, *widths, share=0.5),
        ]
    ]


@dataclass(frozen=True)
class _Relations:
    """Pairs of a relation and a node that it leads to, ordered by relation."""

    feat: Tensor
    version: int
    sizes: list[int]
    """Pairs of each relation."""
    node: Tensor
    """Of each pair."""
    means: tuple[SparseMatrix, SparseMatrix]
    """From source nodes to pairs, and back."""
    sums: tuple[SparseMatrix, SparseMatrix]
    """From pairs to destination nodes, over the root of the number of pairs there, and back."""
    alone: Tensor | None
    """The root of 2 for nodes that no relation leads to, 1 for others; None if there are none."""


def _relations(operator: AggregationOperator, src: Tensor) -> _Relations:
    """What the layers of a model share; found again while the edge features are the same."""
    feat = operator.edge_feat
    assert feat is not None
    key = "relations", src.device, src.dtype
    found = operator.derived.get(key)
    version = -1 if feat.is_inference() else feat._version  # inference tensors count none
    if found is None or found.feat is not feat or found.version != version:
        found = _read(operator, feat, version, src.device, src.dtype)
        operator.derived[key] = found
    return found


def _read(
    operator: AggregationOperator,
    feat: Tensor,
    version: int,
    device: torch.device,
    dtype: torch.dtype,
) -> _Relations:
    if operator.per_edge is None or operator.t != 1:
        raise DGLError("Make the operator by the relational layer's own operator(graph).")
    table = feat.detach().cpu()
    if not bool(((table == 0) | (table == 1)).all() and (table.sum(dim=1) <= 1).all()):
        raise DGLError(
            "Edge features of a relational layer say which relation an edge belongs to: rows of "
            "zeros and a single 1 (torch.nn.functional.one_hot(relation, num_rels).float())."
        )
    edges, relation = (ids.numpy() for ids in table.nonzero(as_tuple=True))
    src, dst = (ends.cpu().numpy() for ends in operator.graph.edges(order="eid"))
    nodes, num_src = operator.shape
    pairs, pair, count = np.unique(
        relation * nodes + dst[edges], return_inverse=True, return_counts=True
    )
    node = pairs % max(nodes, 1)
    degree = np.bincount(node, minlength=nodes)
    means = sp.csr_matrix(
        (operator.per_edge[edges] / count[pair], (pair, src[edges])),
        shape=(len(pairs), num_src),
    )
    sums = sp.csr_matrix(
        (1 / np.sqrt(degree[node]), (node, np.arange(len(pairs)))), shape=(nodes, len(pairs))
    )
    alone = None
    if (degree == 0).any():
        alone = torch.from_numpy(np.where(degree == 0, np.sqrt(2), 1.0)).to(device)
    return _Relations(
        feat,
        version,
        np.bincount(pairs // max(nodes, 1), minlength=feat.shape[1]).tolist(),
        torch.from_numpy(node).to(device),
        both_ways(means, device, dtype),
        both_ways(sums, device, dtype),
        alone,
    )


@register_model("resrgcn")
class ResRGCN(DeepGNN):
    """Deep RGCN of :class:`ResRelGraphConv` layers.

    A heterogeneous graph is one graph with features that say the type of each node, and the
    relation of each edge: ``dgl_deepgnn.data.load_data("file:...")`` makes that of one.

    Parameters
    ----------
    in_feats, hidden_feats, out_feats, num_layers : int
        Widths, and the number of graph convolutions.
    edge_feats : int
        Number of relations: edge features are their indicators, shape (E, edge_feats).
    num_bases : int
        Weights of the relations as combinations of so many matrices; 0 for a matrix each.
    **body
        Keyword arguments of :class:`DeepGNN`: `t`, `residual` (not "initial"), `init`,
        `dropout`, `head`, ...

    Examples
    --------
    >>> import dgl
    >>> graph = dgl.rand_graph(20, 60)
    >>> relation = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).float()
    >>> model = ResRGCN(8, 16, 3, num_layers=32, edge_feats=3)
    >>> model(graph, torch.randn(20, 8), edge_feat=relation).shape
    torch.Size([20, 3])
    """

    needs_edge_feats = True

    def __init__(
        self,
        in_feats: int,
        hidden_feats: int,
        out_feats: int,
        num_layers: int,
        *,
        edge_feats: int = 0,
        num_bases: Bases = 0,
        **body: Any,
    ) -> None:
        for name, number in (("edge_feats", edge_feats), ("num_bases", num_bases)):
            if isinstance(number, bool) or not isinstance(number, int):
                raise DGLError(f"{name} must be a whole number, got {number!r}.")
        if edge_feats < 1:
            raise DGLError(
                f"{type(self).__name__} needs edge_feats, the number of relations: edge features "
                "are their indicators, torch.nn.functional.one_hot(relation, edge_feats).float(). "
                "In a recipe data.options.edge_feats names the field of the edges that holds them."
            )
        for name, allowed in (("residual", "initial"), ("spectral_radius", "growth")):
            if body.get(name) == allowed:
                raise DGLError(f"{name}={allowed!r} needs one operator: not over relations.")
        if body.pop("edge_messages", False):
            raise DGLError("edge_messages: a relational model reads its edge features anyway.")
        conv = partial(ResRelGraphConv, num_rels=edge_feats, num_bases=num_bases)
        body = {**body, "edge_feats": edge_feats}
        super().__init__(conv, in_feats, hidden_feats, out_feats, num_layers, **body)
        self.config.update(num_bases=num_bases)
