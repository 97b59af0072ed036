"""Deep stacks of DGL's own layers, written as in its tutorials and by its users."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dgl
import dgl.nn as dglnn
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

from benchmarks.hooks.inputs import CLASSES, EDGE_FEATS, RELATIONS, TOKENS, WIDTH

Activation = Callable[[Tensor], Tensor]


class GCN(nn.Module):
    """Graph convolutions with whatever stands between them."""

    def __init__(
        self,
        depth: int,
        activation: Activation = F.relu,
        dropout: float = 0.0,
        norm: Callable[[int], nn.Module] = lambda width: nn.Identity(),
        aggregation: str = "both",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            dglnn.GraphConv(WIDTH, WIDTH, norm=aggregation) for _ in range(depth - 1)
        )
        self.layers.append(dglnn.GraphConv(WIDTH, CLASSES, norm=aggregation))
        self.norms = nn.ModuleList(norm(WIDTH) for _ in range(depth - 1))
        self.dropout = nn.Dropout(dropout)
        self.activation = activation

    def forward(self, graph: DGLGraph, h: Tensor, edge_weight: Tensor | None = None) -> Tensor:
        """Score the nodes."""
        for i, layer in enumerate(self.layers):
            h = layer(graph, h) if edge_weight is None else layer(graph, h, None, edge_weight)
            if i != len(self.layers) - 1:
                h = self.dropout(self.activation(self.norms[i](h)))
        return h


def sequential_gcn(depth: int) -> nn.Module:
    """Activations inside the layers."""
    return dglnn.Sequential(
        *(dglnn.GraphConv(WIDTH, WIDTH, activation=F.relu) for _ in range(depth - 1)),
        dglnn.GraphConv(WIDTH, CLASSES),
    )


class GraphNorm(nn.Module):
    """Each channel standardized over the nodes, with a learnt share of the mean."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(width))
        self.gamma = nn.Parameter(torch.ones(width))
        self.beta = nn.Parameter(torch.zeros(width))

    def forward(self, h: Tensor) -> Tensor:
        """Normalize."""
        centred = h - self.alpha * h.mean(0, keepdim=True)
        return self.gamma * centred / (centred.square().mean(0) + 1e-5).sqrt() + self.beta


class SAGE(nn.Module):
    """GraphSAGE with dropout, on a graph or on a sampler's blocks."""

    def __init__(self, depth: int, aggregator: str = "mean", dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            dglnn.SAGEConv(WIDTH, WIDTH, aggregator) for _ in range(depth - 1)
        )
        self.layers.append(dglnn.SAGEConv(WIDTH, CLASSES, aggregator))
        self.dropout = nn.Dropout(dropout)

    def forward(self, graph: DGLGraph | list[DGLGraph], x: Tensor) -> Tensor:
        """Score the nodes."""
        blocks = graph if isinstance(graph, list) else [graph] * len(self.layers)
        h = x
        for i, (layer, block) in enumerate(zip(self.layers, blocks, strict=False)):
            h = layer(block, h)
            if i < len(self.layers) - 1:
                h = self.dropout(F.relu(h))
        return h


class MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, width: int, out: int, batch_norm: bool) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, out)])
        self.batch_norm = nn.BatchNorm1d(width) if batch_norm else nn.Identity()

    def forward(self, h: Tensor) -> Tensor:
        """Apply."""
        return self.linears[1](F.relu(self.batch_norm(self.linears[0](h))))


class GIN(nn.Module):
    """Graph isomorphism network; with `readouts` every layer is scored and the scores summed."""

    def __init__(self, depth: int, batch_norm: bool, readouts: bool = False) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            dglnn.GINConv(MLP(WIDTH, WIDTH, batch_norm), "sum", learn_eps=False)
            for _ in range(depth - 1)
        )
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(WIDTH) if batch_norm else nn.Identity() for _ in range(depth - 1)
        )
        self.readouts = nn.ModuleList(
            nn.Linear(WIDTH, CLASSES) for _ in range(depth if readouts else 0)
        )
        self.last = None if readouts else dglnn.GINConv(nn.Linear(WIDTH, CLASSES), "sum")

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        hidden = [h]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = F.relu(norm(conv(graph, h)))
            hidden.append(h)
        if self.last is not None:
            return self.last(graph, h)
        return sum(read(h) for read, h in zip(self.readouts, hidden, strict=True))


class GAT(nn.Module):
    """Attention with concatenated heads and ELU; the last layer averages its heads."""

    def __init__(self, depth: int, version: type[nn.Module] = dglnn.GATConv, **options: Any):
        super().__init__()
        heads = 4
        self.layers = nn.ModuleList(
            version(WIDTH, WIDTH // heads, heads, activation=F.elu, **options)
            for _ in range(depth - 1)
        )
        self.layers.append(version(WIDTH, CLASSES, heads, **options))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for layer in self.layers[:-1]:
            h = layer(graph, h).flatten(1)
        return self.layers[-1](graph, h).mean(1)


class Edged(nn.Module):
    """Convolutions that also read features of the edges; EGAT updates them, too."""

    def __init__(self, depth: int, kind: str) -> None:
        super().__init__()
        self.kind = kind
        heads = 4

        def layer(out: int) -> nn.Module:
            if kind == "EdgeGAT":
                return dglnn.EdgeGATConv(WIDTH, EDGE_FEATS, out // heads, heads)
            if kind == "EGAT":
                return dglnn.EGATConv(WIDTH, EDGE_FEATS, out // heads, EDGE_FEATS // heads, heads)
            return dglnn.GINEConv(nn.Linear(WIDTH, out))

        self.layers = nn.ModuleList(layer(WIDTH) for _ in range(depth - 1))
        self.last = nn.Linear(WIDTH, CLASSES)
        self.embed = nn.Linear(EDGE_FEATS, WIDTH) if kind == "GINE" else nn.Identity()

    def forward(self, graph: DGLGraph, h: Tensor, e: Tensor) -> Tensor:
        """Score the nodes."""
        e = self.embed(e)
        for layer in self.layers:
            if self.kind == "EGAT":
                h, e = layer(graph, h, e)
                h, e = F.relu(h.flatten(1)), F.relu(e.flatten(1))
            else:
                h = F.relu(layer(graph, h, e).flatten(1))
        return self.last(h)


class GCNII(nn.Module):
    """Initial residual and identity mapping, between two linear layers."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.convs = nn.ModuleList(
            dglnn.GCN2Conv(WIDTH, layer=i + 1, alpha=0.1, lambda_=0.5) for i in range(depth - 2)
        )

    def forward(self, graph: DGLGraph, x: Tensor) -> Tensor:
        """Score the nodes."""
        h = first = F.relu(self.first(x))
        for conv in self.convs:
            h = F.relu(conv(graph, h, first))
        return self.last(h)


class APPNP(nn.Module):
    """Many steps of personalized propagation behind an MLP."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList([nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, CLASSES)])
        self.propagate = dglnn.APPNPConv(k=depth - 2, alpha=0.1)
        self.dropout = nn.Dropout(0.5)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        h = self.linears[1](self.dropout(F.relu(self.linears[0](h))))
        return self.propagate(graph, h)


class Hops(nn.Module):
    """Layers of several hops each: SGC, TAG or Chebyshev."""

    def __init__(self, depth: int, kind: str) -> None:
        super().__init__()

        def layer(out: int) -> nn.Module:
            if kind == "SGC":
                return dglnn.SGConv(WIDTH, out, k=2)
            if kind == "TAG":
                return dglnn.TAGConv(WIDTH, out, k=2)
            return dglnn.ChebConv(WIDTH, out, 3, activation=None)

        self.layers = nn.ModuleList(layer(WIDTH) for _ in range(depth - 1))
        self.layers.append(layer(CLASSES))
        self.options = {"lambda_max": [2.0]} if kind == "Cheb" else {}

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for layer in self.layers[:-1]:
            h = F.relu(layer(graph, h, **self.options))
        return self.layers[-1](graph, h, **self.options)


class Hetero(nn.Module):
    """A convolution a relation, summed at every node type."""

    def __init__(self, depth: int, graph: DGLGraph, sage: bool) -> None:
        super().__init__()

        def conv(out: int) -> nn.Module:
            return dglnn.SAGEConv(WIDTH, out, "mean") if sage else dglnn.GraphConv(WIDTH, out)

        self.layers = nn.ModuleList(
            dglnn.HeteroGraphConv({relation: conv(WIDTH) for relation in graph.etypes}, "sum")
            for _ in range(depth - 1)
        )
        self.last = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, h: dict[str, Tensor]) -> Tensor:
        """Score the users."""
        for layer in self.layers:
            h = {kind: F.relu(feat) for kind, feat in layer(graph, h).items()}
        return self.last(h["user"])


class Relational(nn.Module):
    """R-GCN with basis matrices."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            dglnn.RelGraphConv(WIDTH, out, RELATIONS, "basis", 2)
            for out in [*[WIDTH] * (depth - 1), CLASSES]
        )

    def forward(self, graph: DGLGraph, h: Tensor, etypes: Tensor) -> Tensor:
        """Score the nodes."""
        for layer in self.layers[:-1]:
            h = F.relu(layer(graph, h, etypes))
        return self.layers[-1](graph, h, etypes)


class MyGraphConv(dglnn.GraphConv):
    """A user's own kind of GraphConv: a gate of the node's own features on what comes in."""

    def __init__(self, in_feats: int, out_feats: int) -> None:
        super().__init__(in_feats, out_feats)
        self.gate = nn.Linear(in_feats, out_feats)

    def forward(self, graph: DGLGraph, feat: Tensor) -> Tensor:
        """Aggregate behind the gate."""
        return torch.sigmoid(self.gate(feat)) * super().forward(graph, feat)


def subclassed(depth: int) -> nn.Module:
    """Stack of a subclass of GraphConv."""
    model = GCN(depth)
    for i in range(depth - 1):
        model.layers[i] = MyGraphConv(WIDTH, WIDTH)
    return model


class JumpingKnowledge(nn.Module):
    """All layers' features concatenated in front of the scores."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(depth - 1))
        self.jump = dglnn.JumpingKnowledge("cat")
        self.output = nn.Linear(WIDTH * (depth - 1), CLASSES)
        self.dropout = nn.Dropout(0.5)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        hidden = []
        for layer in self.layers:
            h = self.dropout(F.relu(layer(graph, h)))
            hidden.append(h)
        return self.output(self.jump(hidden))


class Residual(nn.Module):
    """``h + F(h)`` around convolutions, plain or with a norm in front (DeeperGCN's order)."""

    def __init__(self, depth: int, activation: Activation = F.relu, norm: bool = False) -> None:
        super().__init__()
        self.embed = nn.Linear(WIDTH, WIDTH)
        self.convs = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(depth - 2))
        self.norms = nn.ModuleList(
            nn.LayerNorm(WIDTH) if norm else nn.Identity() for _ in range(depth - 1)
        )
        self.output = nn.Linear(WIDTH, CLASSES)
        self.activation, self.first = activation, norm

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        h = self.embed(h)
        for conv, norm in zip(self.convs, self.norms, strict=False):
            if self.first:
                h = h + conv(graph, self.activation(norm(h)))
            else:
                h = h + self.activation(conv(graph, h))
        return self.output(self.norms[-1](h))


class Dense(nn.Module):
    """Every layer reads all before it, as in a DenseNet; narrow, so that widths stay small."""

    def __init__(self, depth: int, growth: int = 8) -> None:
        super().__init__()
        widths = [WIDTH + growth * i for i in range(depth)]
        self.convs = nn.ModuleList(dglnn.GraphConv(w, growth) for w in widths[:-1])
        self.output = nn.Linear(widths[-1], CLASSES)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for conv in self.convs:
            h = torch.cat([h, F.relu(conv(graph, h))], dim=1)
        return self.output(h)


class Shared(nn.Module):
    """One convolution, applied again and again."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv = dglnn.GraphConv(WIDTH, WIDTH)
        self.output = nn.Linear(WIDTH, CLASSES)
        self.depth = depth

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for _ in range(self.depth - 1):
            h = F.relu(self.conv(graph, h))
        return self.output(h)


class Embedded(nn.Module):
    """Learnt vectors in place of features."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        self.body = GCN(depth, activation=nn.PReLU())

    def forward(self, graph: DGLGraph, tokens: Tensor) -> Tensor:
        """Score the nodes."""
        return self.body(graph, self.embedding(tokens))


class UNet(nn.Module):
    """Half of the nodes kept by a learnt score, a deep body there, and back up beside a skip."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        down = depth // 3
        self.down = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(down))
        self.inner = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(down))
        self.up = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(depth - 2 * down - 1))
        self.score = nn.Linear(WIDTH, 1)
        self.output = nn.Linear(WIDTH, CLASSES)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Score the nodes."""
        for conv in self.down:
            h = F.relu(conv(graph, h))
        score = torch.sigmoid(self.score(h)).squeeze(1)
        keep = score.topk(graph.num_nodes() // 2).indices
        small = dgl.add_self_loop(dgl.remove_self_loop(dgl.node_subgraph(graph, keep)))
        pooled = h[keep] * score[keep, None]
        for conv in self.inner:
            pooled = F.relu(conv(small, pooled))
        h = h.index_add(0, keep, pooled)
        for conv in self.up:
            h = F.relu(conv(graph, h))
        return self.output(h)
