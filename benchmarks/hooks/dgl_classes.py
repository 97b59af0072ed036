"""A deep stack of every class of ``dgl.nn.pytorch.conv``, and of layers that hold such."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dgl
import dgl.nn as dglnn
import torch
import torch.nn.functional as F
from dgl import DGLGraph
from torch import Tensor, nn

__all__ = ["GRAPHS", "HERE", "NOT_MADE", "STACKS", "WIDTH", "Stack", "bare", "graph_for"]

WIDTH, EDGE_FEATS, RELATIONS, HEADS = 64, 8, 3, 4

NOT_MADE = {
    "EdgeWeightNorm": "no layer: it normalises edge weights",
    "CuGraphGATConv": "cugraph-ops is not there",
    "CuGraphRelGraphConv": "cugraph-ops is not there",
    "CuGraphSAGEConv": "cugraph-ops is not there",
}
"""Classes of which there is no stack, and why."""

Call = Callable[[Any, DGLGraph, Tensor, Tensor], Tensor]
"""``call(layer, graph, features, features in front of the first layer)``."""


def _plain(layer: Any, graph: DGLGraph, h: Tensor, first: Tensor) -> Tensor:
    return layer(graph, h).flatten(1)


class Stack(nn.Module):
    """Layers with ReLU between them, called as ``model(graph, feat)``.

    What else a layer reads is data of the graph.
    """

    def __init__(self, make: Callable[[int], nn.Module], depth: int, call: Call) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make(i) for i in range(depth))
        self.call = call

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features behind the last layer."""
        first = h
        for i, layer in enumerate(self.layers):
            h = self.call(layer, graph, F.relu(h) if i else h, first)
        return h


class Relations(nn.Module):
    """A HeteroGraphConv a layer, on a graph of users and some relations between them."""

    def __init__(self, make: Callable[[], nn.Module], depth: int, aggregate: str) -> None:
        super().__init__()
        names = [f"r{kind}" for kind in range(RELATIONS)]
        self.layers = nn.ModuleList(
            dglnn.HeteroGraphConv({name: make() for name in names}, aggregate) for _ in range(depth)
        )

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features behind the last layer."""
        for i, layer in enumerate(self.layers):
            h = layer(graph, {"user": F.relu(h) if i else h})["user"]
        return h


def graph_for(name: str, graph: DGLGraph) -> DGLGraph:
    """Return the graph as the stack of this name wants it: its relations apart, or as it is."""
    if not name.startswith("HeteroGraphConv"):
        return graph
    src, dst = graph.edges()
    kind = graph.edata[dgl.ETYPE]
    relations = {
        ("user", f"r{k}", "user"): (src[kind == k], dst[kind == k]) for k in range(RELATIONS)
    }
    return dgl.heterograph(relations, {"user": graph.num_nodes()})


class Jump(nn.Module):
    """Convolutions and a JumpingKnowledge over all of them, in front of a linear layer."""

    def __init__(self, depth: int, mode: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dglnn.GraphConv(WIDTH, WIDTH) for _ in range(depth - 1))
        self.jump = dglnn.JumpingKnowledge(mode, WIDTH, depth - 1)
        self.last = nn.Linear(WIDTH * (depth - 1 if mode == "cat" else 1), WIDTH)

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features behind the linear layer."""
        hidden = []
        for layer in self.layers:
            h = F.relu(layer(graph, h))
            hidden.append(h)
        return self.last(self.jump(hidden))


class Aggregations(nn.Module):
    """Layers without weights, each behind a linear one."""

    def __init__(self, make: Callable[[], nn.Module], depth: int) -> None:
        super().__init__()
        self.linears = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(depth))
        self.aggregations = nn.ModuleList(make() for _ in range(depth))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features behind the last layer."""
        layers = zip(self.linears, self.aggregations, strict=True)
        for i, (linear, aggregate) in enumerate(layers):
            h = linear(aggregate(graph, F.relu(h) if i else h))
        return h


class EdgesToo(nn.Module):
    """Layers that update edge features, too."""

    def __init__(self, make: Callable[[], nn.Module], depth: int, edges: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(make() for _ in range(depth))
        self.edges = edges

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features of the nodes behind the last layer."""
        e = graph.edata[self.edges]
        for i, layer in enumerate(self.layers):
            h, e = (x.flatten(1) for x in layer(graph, F.relu(h) if i else h, e))
        return h


class Moving(nn.Module):
    """EGNN: coordinates move beside the features."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(dglnn.EGNNConv(WIDTH, WIDTH, WIDTH) for _ in range(depth))

    def forward(self, graph: DGLGraph, h: Tensor) -> Tensor:
        """Features of the nodes behind the last layer."""
        x = graph.ndata["x"]
        for i, layer in enumerate(self.layers):
            h, x = layer(graph, F.relu(h) if i else h, x)
        return h


def _stack(make: Callable[[int], nn.Module], call: Call = _plain) -> Callable[[int], nn.Module]:
    return lambda depth: Stack(make, depth, call)


def _with_edges(name: str) -> Call:
    return lambda layer, graph, h, first: layer(graph, h, graph.edata[name]).flatten(1)


def _dense(layer: Any, graph: DGLGraph, h: Tensor, first: Tensor) -> Tensor:
    src, dst = graph.edges()
    matrix = torch.zeros(graph.num_nodes(), graph.num_nodes())
    return layer(matrix.index_put_((dst, src), torch.ones(len(src)), accumulate=True), h)


def _mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


STACKS: dict[str, Callable[[int], nn.Module]] = {
    "GraphConv": _stack(lambda i: dglnn.GraphConv(WIDTH, WIDTH)),
    "GraphConv(norm='none')": _stack(lambda i: dglnn.GraphConv(WIDTH, WIDTH, norm="none")),
    "GraphConv(weight=False)": lambda depth: Aggregations(
        lambda: dglnn.GraphConv(WIDTH, WIDTH, norm="right", weight=False), depth
    ),
    "GATConv": _stack(lambda i: dglnn.GATConv(WIDTH, WIDTH // HEADS, HEADS)),
    "GATv2Conv": _stack(lambda i: dglnn.GATv2Conv(WIDTH, WIDTH // HEADS, HEADS)),
    "EGATConv": lambda depth: EdgesToo(
        lambda: dglnn.EGATConv(WIDTH, EDGE_FEATS, WIDTH // HEADS, EDGE_FEATS // HEADS, HEADS),
        depth,
        "e",
    ),
    "EdgeGATConv": _stack(
        lambda i: dglnn.EdgeGATConv(WIDTH, EDGE_FEATS, WIDTH // HEADS, HEADS), _with_edges("e")
    ),
    "EdgeGATConv(residual=False)": _stack(
        lambda i: dglnn.EdgeGATConv(WIDTH, EDGE_FEATS, WIDTH // HEADS, HEADS, residual=False),
        _with_edges("e"),
    ),
    "TAGConv": _stack(lambda i: dglnn.TAGConv(WIDTH, WIDTH)),
    "RelGraphConv": _stack(
        lambda i: dglnn.RelGraphConv(WIDTH, WIDTH, RELATIONS), _with_edges(dgl.ETYPE)
    ),
    "RelGraphConv('basis')": _stack(
        lambda i: dglnn.RelGraphConv(WIDTH, WIDTH, RELATIONS, "basis", 2), _with_edges(dgl.ETYPE)
    ),
    "RelGraphConv('bdd')": _stack(
        lambda i: dglnn.RelGraphConv(WIDTH, WIDTH, RELATIONS, "bdd", 4), _with_edges(dgl.ETYPE)
    ),
    "SAGEConv": _stack(lambda i: dglnn.SAGEConv(WIDTH, WIDTH, "mean")),
    "SAGEConv('gcn')": _stack(lambda i: dglnn.SAGEConv(WIDTH, WIDTH, "gcn")),
    "SAGEConv('pool')": _stack(lambda i: dglnn.SAGEConv(WIDTH, WIDTH, "pool")),
    "SAGEConv('lstm')": _stack(lambda i: dglnn.SAGEConv(WIDTH, WIDTH, "lstm")),
    "SGConv": _stack(lambda i: dglnn.SGConv(WIDTH, WIDTH, k=2)),
    "APPNPConv": lambda depth: Aggregations(lambda: dglnn.APPNPConv(2, 0.1), depth),
    "GINConv": _stack(lambda i: dglnn.GINConv(nn.Linear(WIDTH, WIDTH), "sum")),
    "GINConv of an MLP": _stack(lambda i: dglnn.GINConv(_mlp(), "sum")),
    "GINConv('max')": _stack(lambda i: dglnn.GINConv(nn.Linear(WIDTH, WIDTH), "max")),
    "GINEConv": _stack(lambda i: dglnn.GINEConv(nn.Linear(WIDTH, WIDTH)), _with_edges("wide")),
    "GatedGCNConv": lambda depth: EdgesToo(
        lambda: dglnn.GatedGCNConv(WIDTH, WIDTH, WIDTH), depth, "wide"
    ),
    "GatedGCNConv(residual=False)": lambda depth: EdgesToo(
        lambda: dglnn.GatedGCNConv(WIDTH, WIDTH, WIDTH, batch_norm=False, residual=False),
        depth,
        "wide",
    ),
    "GatedGraphConv": _stack(lambda i: dglnn.GatedGraphConv(WIDTH, WIDTH, 2, 1)),
    "GMMConv": _stack(lambda i: dglnn.GMMConv(WIDTH, WIDTH, 2, 3), _with_edges("pseudo")),
    "ChebConv": _stack(
        lambda i: dglnn.ChebConv(WIDTH, WIDTH, 3, None),
        lambda layer, graph, h, first: layer(graph, h, [2.0]),
    ),
    "AGNNConv": lambda depth: Aggregations(dglnn.AGNNConv, depth),
    "NNConv": _stack(
        lambda i: dglnn.NNConv(WIDTH, WIDTH, nn.Linear(2, WIDTH * WIDTH)), _with_edges("pseudo")
    ),
    "DenseGraphConv": _stack(lambda i: dglnn.DenseGraphConv(WIDTH, WIDTH), _dense),
    "DenseSAGEConv": _stack(lambda i: dglnn.DenseSAGEConv(WIDTH, WIDTH), _dense),
    "DenseChebConv": _stack(
        lambda i: dglnn.DenseChebConv(WIDTH, WIDTH, 3),
        lambda layer, graph, h, first: _dense(
            lambda matrix, features: layer(matrix, features, 2.0), graph, h, first
        ),
    ),
    "EdgeConv": _stack(lambda i: dglnn.EdgeConv(WIDTH, WIDTH)),
    "AtomicConv": _stack(
        lambda i: dglnn.AtomicConv(*(torch.ones(1) for _ in range(3))), _with_edges("distance")
    ),
    "CFConv": _stack(lambda i: dglnn.CFConv(WIDTH, EDGE_FEATS, WIDTH, WIDTH), _with_edges("e")),
    "DotGatConv": _stack(lambda i: dglnn.DotGatConv(WIDTH, WIDTH // HEADS, HEADS)),
    "TWIRLSConv": _stack(lambda i: dglnn.TWIRLSConv(WIDTH, WIDTH, WIDTH, 2)),
    "TWIRLSUnfoldingAndAttention": _stack(
        lambda i: dglnn.TWIRLSUnfoldingAndAttention(WIDTH, 0.5, 1, 2, use_eta=True)
    ),
    "GCN2Conv": _stack(
        lambda i: dglnn.GCN2Conv(WIDTH, i + 1, 0.1, 0.5),
        lambda layer, graph, h, first: layer(graph, h, F.relu(first)),
    ),
    "GCN2Conv, two weights": _stack(
        lambda i: dglnn.GCN2Conv(WIDTH, i + 1, 0.3, 1.0, project_initial_features=False),
        lambda layer, graph, h, first: layer(graph, h, F.relu(first)),
    ),
    "HGTConv": _stack(
        lambda i: dglnn.HGTConv(WIDTH, WIDTH // HEADS, HEADS, 1, RELATIONS),
        lambda layer, graph, h, first: layer(
            graph, h, torch.zeros(len(h), dtype=torch.long), graph.edata[dgl.ETYPE]
        ),
    ),
    "GroupRevRes": _stack(
        lambda i: dglnn.GroupRevRes(dglnn.GraphConv(WIDTH // 2, WIDTH // 2)),
        # A leaf's storage is freed by the reversible pass.
        lambda layer, graph, h, first: layer._forward(graph, h),
    ),
    "EGNNConv": Moving,
    "PNAConv": _stack(lambda i: dglnn.PNAConv(WIDTH, WIDTH, ["mean", "max"], ["identity"], 1.0)),
    "DGNConv": _stack(
        lambda i: dglnn.DGNConv(WIDTH, WIDTH, ["mean", "dir1-av"], ["identity"], 1.0),
        lambda layer, graph, h, first: layer(graph, h, eig_vec=graph.ndata["x"]),
    ),
    "HeteroGraphConv of SAGEConv": lambda depth: Relations(
        lambda: dglnn.SAGEConv(WIDTH, WIDTH, "mean"), depth, "sum"
    ),
    "HeteroGraphConv of GraphConv, mean": lambda depth: Relations(
        lambda: dglnn.GraphConv(WIDTH, WIDTH, "right"), depth, "mean"
    ),
    "HeteroGraphConv of GINConv, sum": lambda depth: Relations(
        lambda: dglnn.GINConv(_mlp(), "mean"), depth, "sum"
    ),
    "HeteroGraphConv, max": lambda depth: Relations(
        lambda: dglnn.GraphConv(WIDTH, WIDTH, "right"), depth, "max"
    ),
    "JumpingKnowledge('cat')": lambda depth: Jump(depth, "cat"),
    "JumpingKnowledge('max')": lambda depth: Jump(depth, "max"),
}
"""How a stack of so many layers is made, by the class and what it is made with."""


def bare(name: str) -> str:
    """Class of a stack."""
    return name.split("(")[0].split(",")[0].split(" ")[0]


HERE = [name for name in STACKS if hasattr(dglnn, bare(name))]
"""Those whose class this version of DGL has."""


def _undirected() -> DGLGraph:
    """100 nodes, of degrees 3 to some 20; self-loops."""
    generator = torch.Generator().manual_seed(0)
    popular = (100 * torch.rand(300, generator=generator) ** 2).long()
    graph = dgl.graph((torch.arange(300) % 100, popular), num_nodes=100)
    return dgl.to_bidirected(graph).remove_self_loop().add_self_loop()


def _directed() -> DGLGraph:
    """60 nodes with random edges, 4 a node, and self-loops: of the norms only a mean keeps one."""
    generator = torch.Generator().manual_seed(1)
    ends = torch.randint(60, (2, 240), generator=generator)
    return (
        dgl.to_simple(dgl.graph((ends[0], ends[1]), num_nodes=60))
        .remove_self_loop()
        .add_self_loop()
    )


def _with_data(graph: DGLGraph) -> DGLGraph:
    generator = torch.Generator().manual_seed(2)

    def normal(rows: int, *width: int) -> Tensor:
        return torch.randn(rows, *width, generator=generator)

    edges = graph.num_edges()
    graph.edata["weight"] = torch.rand(edges, generator=generator) + 0.2
    graph.edata[dgl.ETYPE] = torch.randint(RELATIONS, (edges,), generator=generator)
    graph.edata["e"], graph.edata["wide"] = normal(edges, EDGE_FEATS), normal(edges, WIDTH)
    graph.edata["pseudo"], graph.edata["distance"] = normal(edges, 2), normal(edges, 1).abs()
    graph.ndata["x"] = normal(graph.num_nodes(), 3)
    return graph


GRAPHS: dict[str, Callable[[], DGLGraph]] = {
    "undirected": lambda: _with_data(_undirected()),
    "directed": lambda: _with_data(_directed()),
}
