"""The peers' networks as their authors and the libraries' examples write them."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.time_to_accuracy.libraries import Library
from benchmarks.time_to_accuracy.tasks import Peer

__all__ = ["GCNII", "GIN", "SAGE", "build"]


class GCNII(nn.Module):
    """Linear layer, layers with initial residual and identity mapping, linear layer.

    Parameters
    ----------
    library : Library
        Whose layers.
    in_feats, out_feats : int
        Widths of features and scores.
    peer : Peer
        The settings; its options are `alpha` and `lambda_`.
    """

    def __init__(self, library: Library, in_feats: int, out_feats: int, peer: Peer) -> None:
        super().__init__()
        self.library, self.dropout = library, peer.dropout
        self.convs = nn.ModuleList(
            library.gcn2(peer.width, index + 1, **peer.options) for index in range(peer.layers)
        )
        self.first = nn.Linear(in_feats, peer.width)
        self.last = nn.Linear(peer.width, out_feats)
        bound = 1 / math.sqrt(peer.width)
        for parameter in self.convs.parameters():
            # As its authors draw them. DGL's layer draws standard normal numbers by itself: it is
            # not to lose by that.
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, graph: Any, feat: Tensor) -> Tensor:
        """Scores of the nodes."""
        h = first = torch.relu(self.first(self._drop(feat)))
        for conv in self.convs:
            h = torch.relu(self.library.call(conv, graph, self._drop(h), first))
        return self.last(self._drop(h))

    def _drop(self, feat: Tensor) -> Tensor:
        return F.dropout(feat, self.dropout, self.training)


class SAGE(nn.Module):
    """GraphSAGE with linear skip connections and batch normalization, then a linear layer.

    Parameters
    ----------
    library, in_feats, out_feats, peer
        As in :class:`GCNII`.
    """

    def __init__(self, library: Library, in_feats: int, out_feats: int, peer: Peer) -> None:
        super().__init__()
        self.library, self.dropout = library, peer.dropout
        widths = [in_feats, *[peer.width] * peer.layers]
        ends = list(pairwise(widths))
        self.convs = nn.ModuleList(library.sage(*some) for some in ends)
        self.skips = nn.ModuleList(nn.Linear(*some) for some in ends)
        self.norms = nn.ModuleList(nn.BatchNorm1d(peer.width) for _ in ends)
        self.last = nn.Linear(peer.width, out_feats)

    def forward(self, graph: Any, feat: Tensor) -> Tensor:
        """Scores of the nodes."""
        h = feat
        for conv, skip, norm in zip(self.convs, self.skips, self.norms, strict=True):
            h = torch.relu(norm(self.library.call(conv, graph, h) + skip(h)))
            h = F.dropout(h, self.dropout, self.training)
        return self.last(h)


class GIN(nn.Module):
    """GIN with batch normalization; the scores are sums over the pooled features of every layer.

    Parameters
    ----------
    library, in_feats, out_feats, peer
        As in :class:`GCNII`.
    """

    def __init__(self, library: Library, in_feats: int, out_feats: int, peer: Peer) -> None:
        super().__init__()
        self.library, self.dropout = library, peer.dropout
        widths = [in_feats, *[peer.width] * peer.layers]
        self.convs = nn.ModuleList(
            library.gin(
                nn.Sequential(
                    nn.Linear(fan_in, peer.width),
                    nn.BatchNorm1d(peer.width),
                    nn.ReLU(),
                    nn.Linear(peer.width, peer.width),
                )
            )
            for fan_in in widths[:-1]
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(peer.width) for _ in self.convs)
        self.heads = nn.ModuleList(nn.Linear(width, out_feats) for width in widths)

    def forward(self, graph: Any, feat: Tensor) -> Tensor:
        """Scores of the graphs of a batch."""
        h, scores = feat, self._score(0, graph, feat)
        for index, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            h = torch.relu(norm(self.library.call(conv, graph, h)))
            scores = scores + self._score(index + 1, graph, h)
        return scores

    def _score(self, index: int, graph: Any, feat: Tensor) -> Tensor:
        pooled = self.heads[index](self.library.pool(graph, feat))
        return F.dropout(pooled, self.dropout, self.training)


NETWORKS: dict[str, type[GCNII] | type[SAGE] | type[GIN]] = {
    "GCN2Conv": GCNII,
    "SAGEConv": SAGE,
    "GINConv": GIN,
}


def build(library: Library, in_feats: int, out_feats: int, peer: Peer) -> nn.Module:
    """Network of a peer."""
    return NETWORKS[peer.network](library, in_feats, out_feats, peer)
