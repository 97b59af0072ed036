"""Heads: from node features after the last convolution to scores of graphs or edges."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph

__all__ = ["READOUTS", "EdgeHead", "GraphHead"]

READOUTS = ("mean", "sum", "max")


class GraphHead(nn.Module):
    """Readout over the nodes of each graph, then a linear layer.

    Parameters
    ----------
    hidden_feats, out_feats : int
        Widths of node features and scores.
    readout : {"mean", "sum", "max"}
        How nodes are pooled.
    """

    def __init__(self, hidden_feats: int, out_feats: int, readout: str) -> None:
        super().__init__()
        if readout not in READOUTS:
            raise DGLError(f"readout must be one of {', '.join(READOUTS)}, got {readout!r}.")
        self.readout = readout
        self.linear = nn.Linear(hidden_feats, out_feats)

    def forward(self, graph: AnyGraph, feat: Tensor) -> Tensor:
        """Scores of shape (graphs, out_feats) from features of shape (N, hidden_feats)."""
        sizes = graph.batch_num_nodes().to(feat.device)
        graph_of_node = torch.arange(len(sizes), device=feat.device).repeat_interleave(
            sizes, output_size=len(feat)
        )
        return self.linear(pool(feat, graph_of_node, sizes, self.readout))


def pool(feat: Tensor, graph_of_node: Tensor, sizes: Tensor, readout: str) -> Tensor:
    """Mean, sum or maximum of the nodes of each graph, shape (B, width); 0 without nodes."""
    index = graph_of_node[:, None].expand_as(feat)
    pooled = feat.new_zeros(len(sizes), feat.shape[1])
    if readout == "max":
        return pooled.scatter_reduce(0, index, feat, "amax", include_self=False)
    pooled = pooled.scatter_add(0, index, feat)
    return pooled if readout == "sum" else pooled / sizes.clamp(min=1)[:, None]


class EdgeHead(nn.Module):
    """Pair scorer: two linear layers on source, destination and edge features.

    Parameters
    ----------
    hidden_feats, out_feats : int
        Widths of node features and scores.
    edge_feats : int
        Width of the edge features, 0 if there are none.
    """

    def __init__(self, hidden_feats: int, out_feats: int, edge_feats: int) -> None:
        super().__init__()
        self.hidden_feats, self.edge_feats = hidden_feats, edge_feats
        self.pair = nn.Linear(2 * hidden_feats + edge_feats, hidden_feats)
        self.score = nn.Linear(hidden_feats, out_feats)

    def forward(self, graph: AnyGraph, feat: Tensor, edge_feat: Tensor | None = None) -> Tensor:
        """Scores of shape (E, out_feats) from features (N, hidden_feats), (E, edge_feats)."""
        self.check_edge_feat(graph, edge_feat)
        # Nodes are fewer than edges: multiply before gathering.
        source, destination = self.ends(feat)
        src, dst = graph.edges(order="eid")
        return self.pairs(source[src] + destination[dst], edge_feat)

    def check_edge_feat(self, graph: AnyGraph, edge_feat: Tensor | None) -> None:
        """Refuse edge features of another shape than the head was built for."""
        given = (graph.num_edges(), 0) if edge_feat is None else tuple(edge_feat.shape)
        if given != (graph.num_edges(), self.edge_feats):
            problem = "are missing" if edge_feat is None else f"have shape {given}"
            raise DGLError(
                f"Edge features {problem}, but the model was built with edge_feats="
                f"{self.edge_feats}: expected edge_feat of shape "
                f"({graph.num_edges()}, {self.edge_feats})."
            )

    def ends(self, feat: Tensor) -> tuple[Tensor, Tensor]:
        """What every node adds as a source and as a destination, shapes (N, hidden_feats)."""
        source, destination, _ = self._weights()
        return F.linear(feat, source, self.pair.bias), F.linear(feat, destination)

    def pairs(self, ends: Tensor, edge_feat: Tensor | None) -> Tensor:
        """Scores of edges, from the sum of what both ends add."""
        hidden = ends if edge_feat is None else ends + F.linear(edge_feat, self._weights()[2])
        return self.score(torch.relu(hidden))

    def _weights(self) -> tuple[Tensor, ...]:
        widths = [self.hidden_feats, self.hidden_feats, self.edge_feats]
        return self.pair.weight.split(widths, dim=1)
