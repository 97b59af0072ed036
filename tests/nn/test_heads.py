"""Graph and edge heads against loops over graphs and edges."""

from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph
from torch import Tensor

from dgl_deepgnn import ResGCN
from dgl_deepgnn.nn.heads import EdgeHead, GraphHead

POOL = {
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "max": lambda x: x.max(0).values,
}


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
@pytest.mark.parametrize("idtype", ["int", "long"])
def test_readout_is_a_loop_over_graphs(batch: DGLGraph, readout: str, idtype: str) -> None:
    head = GraphHead(4, 3, readout)
    feat = torch.randn(batch.num_nodes(), 4, requires_grad=True)
    pooled = torch.stack([POOL[readout](x) for x in feat.split(batch.batch_num_nodes().tolist())])
    expected = pooled @ head.linear.weight.T + head.linear.bias
    found = head(getattr(batch, idtype)(), feat)
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(found)
    torch.testing.assert_close(
        *(torch.autograd.grad((out * probe).sum(), feat)[0] for out in (found, expected))
    )


@pytest.mark.parametrize("readout", ["mean", "sum", "max"])
def test_graph_without_nodes_reads_out_zero(readout: str) -> None:
    graphs = dgl.batch([dgl.graph(([0], [0])), dgl.graph(([], []))])
    head = GraphHead(4, 3, readout)
    feat = torch.randn(1, 4)
    found = head(graphs, feat)
    torch.testing.assert_close(found[0], head.linear(feat[0]))
    torch.testing.assert_close(found[1], head.linear.bias)


def pair_score(head: EdgeHead, source: Tensor, destination: Tensor, edge: Tensor) -> Tensor:
    return head.score(head.pair(torch.cat([source, destination, edge])).relu())


@pytest.mark.parametrize("edge_feats", [0, 2])
def test_edge_scores_are_a_loop_over_edges(graph: DGLGraph, edge_feats: int) -> None:
    head = EdgeHead(4, 3, edge_feats)
    feat = torch.randn(graph.num_nodes(), 4)
    edge_feat = torch.randn(graph.num_edges(), edge_feats)
    src, dst = graph.edges(order="eid")
    expected = torch.stack(
        [pair_score(head, feat[u], feat[v], e) for u, v, e in zip(src, dst, edge_feat, strict=True)]
    )
    for typed in (graph, graph.int()):
        found = head(typed, feat, edge_feat if edge_feats else None)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_scores_have_one_row_for_what_is_scored(
    batch: DGLGraph, head: str, num_layers: int
) -> None:
    model = ResGCN(5, 4, 3, num_layers, head=head)
    scores = model(batch, torch.randn(batch.num_nodes(), 5))
    rows = {
        "node": batch.num_nodes(),
        "graph": batch.batch_size,
        "edge": batch.num_edges(),
    }[head]
    assert scores.shape == (rows, 3)


def test_edge_features_reach_the_scores(graph: DGLGraph) -> None:
    # Wide, since all of a few units behind a ReLU are off at times.
    model = ResGCN(5, 64, 3, 2, head="edge", edge_feats=2, spectral_radius=1.0)
    feat, edge_feat = torch.randn(graph.num_nodes(), 5), torch.randn(graph.num_edges(), 2)
    scores = model(graph, feat, edge_feat=edge_feat)
    edge_feat[3] += 1
    changed = (model(graph, feat, edge_feat=edge_feat) != scores).any(1)
    assert changed.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize(
    ("edge_feats", "given", "message"),
    [
        (2, (10, 3), r"\(10, 3\).*edge_feats=2.*\(10, 2\)"),
        (2, (1, 2), r"\(1, 2\).*\(10, 2\)"),
        (2, None, r"Edge features are missing.*edge_feats=2.*\(10, 2\)"),
        (0, (10, 3), r"\(10, 3\).*edge_feats=0"),
    ],
)
def test_edge_features_that_do_not_fit(
    edge_feats: int, given: tuple[int, int] | None, message: str
) -> None:
    ring = dgl.graph((range(10), [*range(1, 10), 0]))
    model = ResGCN(5, 4, 3, 2, head="edge", edge_feats=edge_feats)
    with pytest.raises(DGLError, match=message):
        model(ring, torch.ones(10, 5), edge_feat=None if given is None else torch.ones(given))


def test_unknown_readout() -> None:
    with pytest.raises(DGLError, match="readout must be one of mean, sum, max, got 'median'"):
        ResGCN(5, 4, 3, 2, head="graph", readout="median")


def test_critical_variances_of_the_heads() -> None:
    torch.manual_seed(0)
    model = ResGCN(250, 300, 200, 2, head="graph", residual=None)
    weights = [*(conv.weight for conv in model.convs), model.head.linear.weight.T]
    found = [weight.shape[0] * weight.var(correction=0).item() for weight in weights]
    assert found == pytest.approx([2, 2, 1], rel=0.03)

    model = ResGCN(250, 300, 200, 1, head="edge", edge_feats=100, residual=None)
    found = [
        layer.in_features * layer.weight.var(correction=0).item()
        for layer in (model.head.pair, model.head.score)
    ]
    assert model.head.pair.in_features == 700
    assert found == pytest.approx([2, 1], rel=0.03)
    assert not model.head.pair.bias.any()
    assert not model.head.score.bias.any()
