"""Deep models whose layers are written by hand on DGL's message passing."""

from __future__ import annotations

from typing import Any

import dgl
import dgl.function as fn
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from dgl.nn.functional import edge_softmax
from torch import Tensor, nn

from benchmarks.hooks.inputs import CLASSES, EDGE_FEATS, WIDTH


class Stack(nn.Module):
    """Layers ``layer(graph, h)`` and a linear readout."""

    def __init__(self, depth: int, layer: Any, **options: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layer(**options) for _ in range(depth - 1))
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for layer in self.layers:
            h = layer(graph, h)
        return self.readout(h)


class MeanAndSelf(nn.Module):
    """A linear layer on a node's features beside the mean of its neighbours'."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        with graph.local_scope():
            graph.ndata["h"] = h
            graph.update_all(fn.copy_u("h", "m"), fn.mean("m", "neigh"))
            return F.relu(self.linear(torch.cat([h, graph.ndata["neigh"]], dim=1)))


class SelfPlusSum(nn.Module):
    """``A(h) + sum of B(h)`` over the neighbours."""

    def __init__(self) -> None:
        super().__init__()
        self.A, self.B = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        with graph.local_scope():
            graph.ndata["Bh"] = self.B(h)
            graph.update_all(fn.copy_u("Bh", "m"), fn.sum("m", "sum"))
            return F.relu(self.A(h) + graph.ndata["sum"])


class UserFunctions(nn.Module):
    """Message, reduce and apply functions in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.message, self.update = nn.Linear(2 * WIDTH, WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def messages(self, edges: Any) -> dict[str, Tensor]:
        """Make messages of both ends."""
        both = torch.cat([edges.src["h"], edges.dst["h"]], dim=1)
        return {"m": F.silu(self.message(both))}

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        with graph.local_scope():
            graph.ndata["h"] = h
            graph.update_all(self.messages, lambda nodes: {"r": nodes.mailbox["m"].sum(1)})
            return F.silu(self.update(torch.cat([h, graph.ndata["r"]], dim=1)))


class GatedLayer(nn.Module):
    """Gated graph convolution with edge features (after Bresson and Laurent), by hand."""

    def __init__(self, residual: bool, norm: bool) -> None:
        super().__init__()
        self.A, self.B, self.C, self.D, self.E = (nn.Linear(WIDTH, WIDTH) for _ in range(5))
        self.norm_h = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        self.norm_e = nn.BatchNorm1d(WIDTH) if norm else nn.Identity()
        self.residual = residual

    def forward(self, graph: DGLGraph, h: Tensor, e: Tensor) -> tuple[Tensor, Tensor]:
        """Update nodes and edges."""
        with graph.local_scope():
            graph.ndata.update({"B": self.B(h), "D": self.D(h), "E": self.E(h)})
            graph.apply_edges(fn.u_add_v("D", "E", "DE"))
            e_new = graph.edata["DE"] + self.C(e)
            graph.edata["gate"] = torch.sigmoid(e_new)
            graph.update_all(fn.u_mul_e("B", "gate", "m"), fn.sum("m", "num"))
            graph.update_all(fn.copy_e("gate", "m"), fn.sum("m", "den"))
            h_new = self.A(h) + graph.ndata["num"] / (graph.ndata["den"] + 1e-6)
        h_new, e_new = F.relu(self.norm_h(h_new)), F.relu(self.norm_e(e_new))
        return (h + h_new, e + e_new) if self.residual else (h_new, e_new)


class GatedGCN(nn.Module):
    """Stack of gated layers with linear embeddings of nodes and edges."""

    def __init__(self, depth: int, residual: bool, norm: bool) -> None:
        super().__init__()
        self.embed_h, self.embed_e = nn.Linear(WIDTH, WIDTH), nn.Linear(EDGE_FEATS, WIDTH)
        self.layers = nn.ModuleList(GatedLayer(residual, norm) for _ in range(depth - 2))
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, h: Tensor, e: Tensor) -> Tensor:
        """Score the nodes."""
        h, e = self.embed_h(h), self.embed_e(e)
        for layer in self.layers:
            h, e = layer(graph, h, e)
        return self.readout(h)


class GatedSum(nn.Module):
    """Sum over neighbours behind a gate of both ends, nothing divided, nothing normalized."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.left, self.right = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        with graph.local_scope():
            graph.ndata.update({"v": self.value(h), "l": self.left(h), "r": self.right(h)})
            graph.apply_edges(fn.u_add_v("l", "r", "s"))
            graph.edata["s"] = torch.sigmoid(graph.edata["s"])
            graph.update_all(fn.u_mul_e("v", "s", "m"), fn.sum("m", "out"))
            return F.relu(graph.ndata["out"])


class TransformerLayer(nn.Module):
    """Attention of queries and keys along the edges, and a feed-forward part."""

    def __init__(self, norm: bool = True, dropout: float = 0.0) -> None:
        super().__init__()
        self.Q, self.K, self.V, self.O = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.norm_1 = nn.LayerNorm(WIDTH) if norm else nn.Identity()
        self.norm_2 = nn.LayerNorm(WIDTH) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.heads = 4

    def attend(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Weighted mean of the neighbours' values."""
        shape = (-1, self.heads, WIDTH // self.heads)
        with graph.local_scope():
            graph.ndata.update({n: f(h).view(shape) for n, f in (("q", self.Q), ("k", self.K))})
            graph.ndata["v"] = self.V(h).view(shape)
            graph.apply_edges(fn.u_dot_v("k", "q", "score"))
            score = graph.edata["score"] / (WIDTH // self.heads) ** 0.5
            graph.edata["a"] = edge_softmax(graph, score)
            graph.update_all(fn.u_mul_e("v", "a", "m"), fn.sum("m", "out"))
            return graph.ndata["out"].flatten(1)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        h = self.norm_1(h + self.dropout(self.O(self.attend(graph, h))))
        return self.norm_2(h + self.dropout(self.down(F.relu(self.up(h)))))


class WeightsByHand(nn.Module):
    """Parameters and torch.matmul; the normalisation is computed from the degrees."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(WIDTH, WIDTH))
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        norm = graph.in_degrees().clamp(min=1).float().pow(-0.5).unsqueeze(1)
        h = torch.matmul(h, self.weight) * norm
        return torch.tanh(dgl.ops.copy_u_sum(graph, h) * norm + self.bias)


class EinsumHeads(nn.Module):
    """One weight tensor for all heads, multiplied by einsum; additive attention."""

    def __init__(self) -> None:
        super().__init__()
        heads = 4
        self.weight = nn.Parameter(torch.randn(heads, WIDTH, WIDTH // heads) * 0.1)
        self.source, self.target = (
            nn.Parameter(torch.randn(1, heads, WIDTH // heads) * 0.1) for _ in range(2)
        )

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        z = torch.einsum("ni,hio->nho", h, self.weight)
        left, right = (z * self.source).sum(-1, keepdim=True), (z * self.target).sum(-1, True)
        score = F.leaky_relu(dgl.ops.u_add_v(graph, left, right), 0.2)
        return F.elu(dgl.ops.u_mul_e_sum(graph, z, edge_softmax(graph, score)).flatten(1))


class KeepsGraph(nn.Module):
    """The graph is an attribute, and features are left in its data."""

    def __init__(self, depth: int, graph: DGLGraph) -> None:
        super().__init__()
        self.g = graph
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth - 1))
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, h: Tensor) -> Tensor:
        """Score the nodes."""
        for linear in self.linears:
            self.g.ndata["h"] = linear(h)
            self.g.update_all(fn.copy_u("h", "m"), fn.sum("m", "h"))
            h = F.leaky_relu(self.g.ndata.pop("h"))
        return self.readout(h)


class VirtualNode(nn.Module):
    """Message passing by sums, and a node that all nodes see, updated by an MLP."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth - 1))
        self.virtual = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            for _ in range(depth - 1)
        )
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        virtual = h.new_zeros(1, WIDTH)
        for linear, update in zip(self.linears, self.virtual, strict=True):
            h = h + virtual
            virtual = virtual + update(virtual + h.mean(0, keepdim=True))
            h = F.relu(linear(h + dgl.ops.copy_u_sum(graph, h)))
        return self.readout(h)


class InputAgain(nn.Module):
    """Every layer also reads the input."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(2 * WIDTH, WIDTH) for _ in range(depth - 1))
        self.readout = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, x: Tensor) -> Tensor:
        """Score the nodes."""
        h = x
        for linear in self.linears:
            neighbours = dgl.ops.copy_u_mean(graph, h)
            h = F.gelu(linear(torch.cat([neighbours, x], dim=1)))
        return self.readout(h)


class MaxPool(nn.Module):
    """Largest message of the neighbours beside the node's own part."""

    def __init__(self) -> None:
        super().__init__()
        self.own, self.message = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        return F.relu(self.own(h) + dgl.ops.copy_u_max(graph, F.relu(self.message(h))))


class EdgeDifference(nn.Module):
    """A linear map of the node and one of the difference to each neighbour (EdgeConv, mean)."""

    def __init__(self) -> None:
        super().__init__()
        self.theta, self.phi = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Update the nodes."""
        difference = dgl.ops.u_sub_v(graph, h, h)
        return F.leaky_relu(dgl.ops.copy_e_mean(graph, self.theta(difference)) + self.phi(h), 0.2)
