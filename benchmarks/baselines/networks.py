"""The networks: those of the time to accuracy, with a faster dropout, and a GCN of few layers."""

from __future__ import annotations

from itertools import pairwise

import torch
from dgl import DGLGraph
from dgl.nn import GraphConv
from torch import Tensor, nn

from benchmarks.time_to_accuracy.libraries import Library
from benchmarks.time_to_accuracy.networks import GCNII, build
from benchmarks.time_to_accuracy.tasks import Peer

__all__ = ["GCN", "dropout", "make_network"]


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


def make_network(library: Library, in_feats: int, out_feats: int, peer: Peer) -> nn.Module:
    """Network of a reference."""
    if peer.network == "GraphConv":
        return GCN(in_feats, out_feats, peer)
    if peer.network == "GCN2Conv":
        return _GCNII(library, in_feats, out_feats, peer)
    return build(library, in_feats, out_feats, peer)
