"""The networks: those of the time to accuracy, a GCN of few layers, an interaction network."""

from __future__ import annotations

from itertools import pairwise

import torch
from dgl import DGLGraph
from dgl import function as fn
from dgl.nn import GraphConv
from torch import Tensor, nn

from benchmarks.time_to_accuracy.libraries import Library
from benchmarks.time_to_accuracy.networks import GCNII, build
from benchmarks.time_to_accuracy.tasks import Peer

__all__ = ["GCN", "InteractionNetwork", "dropout", "make_network"]


def dropout(feat: Tensor, p: float, training: bool) -> Tensor:
    """What PyTorch's does, whose draws take more than half of GCNII's time on a processor.

    Of a sparse matrix only what is not zero is drawn, since the rest stays zero.
    """
    if not training or p == 0:
        return feat
    if not feat.is_sparse:
        return feat * (torch.rand_like(feat) >= p) / (1 - p)
    return torch.sparse_coo_tensor(
        feat.indices(),
        dropout(feat.values(), p, training),
        feat.shape,
        is_coalesced=True,
        check_invariants=False,
    )


class _GCNII(GCNII):
    def _drop(self, feat: Tensor) -> Tensor:
        return dropout(feat, self.dropout, self.training)


class GCN(nn.Module):
    """GCN as its authors have it: dropout before each layer, ReLU in between.

    Parameters
    ----------
    in_feats, out_feats : int
        Widths of features and scores.
    peer : Peer
        The settings.
    """

    def __init__(self, in_feats: int, out_feats: int, peer: Peer) -> None:
        super().__init__()
        self.dropout = peer.dropout
        widths = [in_feats, *[peer.width] * (peer.layers - 1), out_feats]
        self.convs = nn.ModuleList(GraphConv(*ends) for ends in pairwise(widths))

    def forward(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """Scores of the nodes."""
        h = feat
        for index, conv in enumerate(self.convs):
            h = torch.relu(h) if index else h
            h = conv(graph, dropout(h, self.dropout, self.training))
        return h


class InteractionNetwork(nn.Module):
    """Interaction network for tracks, as DeZoort et al. have it (arXiv:2103.16701).

    Effects of edges, summed at the nodes they point to, change these; what both ends have become,
    and the effect, score an edge.

    Parameters
    ----------
    in_feats, edge_feats : int
        Widths of the features of nodes and edges.
    width : int
        Of the hidden layers, two in each of the three networks.
    """

    EFFECT, NODE = 4, 3
    """Widths of an edge's effect, and of what a node becomes."""

    def __init__(self, in_feats: int, edge_feats: int, width: int) -> None:
        super().__init__()
        self.relation = _mlp(2 * in_feats + edge_feats, width, self.EFFECT)
        self.object = _mlp(in_feats + self.EFFECT, width, self.NODE)
        self.score = _mlp(2 * self.NODE + self.EFFECT, width, 1)

    def forward(self, graph: DGLGraph, feat: Tensor, edge_feat: Tensor) -> Tensor:
        """Scores of the edges, shape (E,)."""
        source, target = graph.edges(order="eid")
        effect = self.relation(torch.cat([feat[target], feat[source], edge_feat], dim=1))
        with graph.local_scope():
            graph.edata["effect"] = effect
            graph.update_all(fn.copy_e("effect", "m"), fn.sum("m", "effect"))
            hidden = self.object(torch.cat([feat, graph.ndata["effect"]], dim=1))
        return self.score(torch.cat([hidden[target], hidden[source], effect], dim=1))[:, 0]


def _mlp(in_feats: int, width: int, out_feats: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(in_feats, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, out_feats),
    )


def make_network(library: Library, in_feats: int, out_feats: int, peer: Peer) -> nn.Module:
    """Network of a reference."""
    if peer.network == "GraphConv":
        return GCN(in_feats, out_feats, peer)
    if peer.network == "GCN2Conv":
        return _GCNII(library, in_feats, out_feats, peer)
    return build(library, in_feats, out_feats, peer)
