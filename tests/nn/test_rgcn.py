"""The relational layer and model: DGL's layer, a dense formula, and the critical scale."""

from __future__ import annotations

import math
from typing import Any

import dgl
import pytest
import torch
from torch import Tensor

from dgl_deepgnn import Graph, ResRelGraphConv, ResRGCN
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import batch
from dgl_deepgnn.init import critical_
from dgl_deepgnn.nn.inference import layerwise_inference
from dgl_deepgnn.optim import learning_rate_factors

NODES, RELS = 30, 4


def make(seed: int = 0, nodes: int = NODES) -> tuple[Graph, Tensor, Tensor]:
    """A graph, features, and the relation of every edge; relation 3 leads to a third of the nodes.

    Nothing leads to the last node.
    """
    draw = torch.Generator().manual_seed(seed)
    src = torch.randint(nodes, (5 * nodes,), generator=draw)
    dst = torch.randint(nodes - 1, (5 * nodes,), generator=draw)
    relation = torch.randint(RELS - 1, (5 * nodes,), generator=draw)
    relation[dst < nodes // 3] = RELS - 1
    return Graph((src, dst), nodes), torch.randn(nodes, 5, generator=draw), relation


def indicators(relation: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(relation, RELS).float()


def by_hand(
    conv: ResRelGraphConv, graph: Graph, feat: Tensor, relation: Tensor, weight: Tensor
) -> Tensor:
    """Node by node, as the formula says."""
    src, dst = graph.edges()
    rows = []
    for node in range(graph.num_nodes()):
        into = [r for r in range(RELS) if bool(((dst == node) & (relation == r)).any())]
        row = feat[node] @ conv.weight_self * (1.0 if into else math.sqrt(2))
        for r in into:
            edges = ((dst == node) & (relation == r)).nonzero().flatten()
            mean = (weight[edges, None] * feat[src[edges]]).sum(0) / len(edges)
            if conv.coefficients is None:
                matrix = conv.weight[r]
            else:
                matrix = torch.tensordot(conv.coefficients[r], conv.weight, dims=1)
            row = row + ((1 - conv.t) * feat[node] + conv.t * mean) @ matrix / len(into) ** 0.5
        rows.append(row + conv.bias)
    return torch.stack(rows)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("num_bases", [0, 2])
@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_the_formula(t: float, num_bases: int, weighted: bool) -> None:
    graph, feat, relation = make()
    weight = torch.rand(len(relation)) if weighted else torch.ones(len(relation))
    conv = ResRelGraphConv(5, 6, RELS, num_bases=num_bases, t=t)
    torch.nn.init.normal_(conv.bias)
    got = conv(graph, feat, weight if weighted else None, edge_feat=indicators(relation))
    torch.testing.assert_close(got, by_hand(conv, graph, feat, relation, weight))


def test_gradients_by_finite_differences() -> None:
    graph, feat, relation = make(nodes=9)
    conv = ResRelGraphConv(5, 3, RELS, num_bases=2, t=0.4).double()
    edge_feat = indicators(relation).double()
    feat = feat.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: conv(graph, x, edge_feat=edge_feat), (feat,))
    conv(graph, feat, edge_feat=edge_feat).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in conv.parameters())


def test_it_is_dgl_s_layer_with_its_norm() -> None:
    graph, feat, relation = make()
    src, dst = graph.edges()
    theirs = dgl.nn.RelGraphConv(5, 6, RELS, layer_norm=False)
    conv = ResRelGraphConv(5, 6, RELS)
    with torch.no_grad():
        theirs.linear_r.W.copy_(conv.weight)
        theirs.loop_weight.copy_(conv.weight_self)
        theirs.h_bias.copy_(torch.nn.init.normal_(conv.bias))
    count = torch.zeros(NODES, RELS)
    count.index_put_((dst, relation), torch.ones(len(dst)), accumulate=True)
    norm = 1 / (count[dst, relation] * (count > 0).sum(1)[dst] ** 0.5)
    expected = theirs(dgl.graph((src, dst), num_nodes=NODES), feat, relation, norm[:, None])
    got = conv(graph, feat, edge_feat=indicators(relation))
    torch.testing.assert_close(got[:-1], expected[:-1])  # nothing leads to the last node


def ring(nodes: int) -> tuple[Graph, Tensor]:
    """Every relation leads to every node."""
    node = torch.arange(nodes).repeat(RELS)
    relation = torch.arange(RELS).repeat_interleave(nodes)
    return Graph(((node + 1 + relation) % nodes, node), nodes), relation


@pytest.mark.parametrize(("depth", "num_bases"), [(4, 0), (16, 0), (64, 0), (4, 2), (16, 2)])
def test_features_that_are_alike_keep_order_one(num_bases: int, depth: int) -> None:
    """But for the scatter of a draw; few bases have more of it."""
    graph, relation = ring(20)
    feat = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).expand(20, 64)
    squares = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = ResRGCN(
            64, 256, 256, depth, edge_feats=RELS, num_bases=num_bases, t=1.0, residual=None
        )
        squares.append(model(graph, feat, edge_feat=indicators(relation)).square().mean())
    assert -2 < torch.stack(squares).log().mean() < 1


@pytest.mark.parametrize("how", ["plain", "residual", "measured"])
def test_other_relations_for_every_node(how: str) -> None:
    """Never an explosion; order one with residual connections, and measured."""
    graph, _, relation = make(nodes=60)
    feat, edge_feat = torch.randn(60, 64), indicators(relation)
    torch.manual_seed(0)
    residual: Any = "scaled" if how == "residual" else None
    model = ResRGCN(64, 128, 128, 64, edge_feats=RELS, t=1.0, residual=residual)
    if how == "measured":
        critical_(model, forward=lambda model: model(graph, feat, edge_feat=edge_feat))
    square = model(graph, feat, edge_feat=edge_feat).square().mean()
    low, high = {"plain": (1e-5, 2), "residual": (0.1, 10), "measured": (0.5, 2)}[how]
    assert low < square < high


def test_a_node_without_relations_keeps_its_scale() -> None:
    graph, _, relation = make(nodes=60)
    rows = []
    for seed in range(6):
        torch.manual_seed(seed)
        model = ResRGCN(64, 256, 256, 32, edge_feats=RELS, residual=None)
        out = model(graph, torch.randn(60, 64), edge_feat=indicators(relation))
        rows.append(out[-1].square().mean())
    assert 0.3 < torch.stack(rows).mean() < 3


@pytest.mark.parametrize("options", [{"residual": None}, {"t": "harmonic:1"}, {"num_bases": 2}])
@pytest.mark.parametrize("head", ["node", "graph", "edge"])
def test_a_batch_is_its_graphs(head: str, options: dict[str, Any]) -> None:
    parts = [make(seed, nodes) for seed, nodes in enumerate((7, 12, 9))]
    model = ResRGCN(5, 8, 2, 4, edge_feats=RELS, head=head, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    operator = model.operator(batch([graph for graph, _, _ in parts]))
    chosen = [2, 0]
    feat, relation = (torch.cat([parts[i][k] for i in chosen]) for k in (1, 2))
    got = model(operator.select(chosen), feat, edge_feat=indicators(relation))
    alone = [model(g, x, edge_feat=indicators(r)) for g, x, r in (parts[i] for i in chosen)]
    torch.testing.assert_close(got, torch.cat(alone))


def test_relations_that_change_are_seen() -> None:
    graph, feat, relation = make()
    model = ResRGCN(5, 8, 2, 3, edge_feats=RELS, residual=None)
    edge_feat = indicators(relation)
    before = model(graph, feat, edge_feat=edge_feat)
    torch.testing.assert_close(model(graph, feat, edge_feat=edge_feat), before)
    edge_feat.copy_(indicators((relation + 1) % RELS))
    after = model(graph, feat, edge_feat=edge_feat)
    torch.testing.assert_close(after, model(graph, feat, edge_feat=edge_feat.clone()))
    assert not torch.allclose(after, before)


def test_edges_without_a_relation_do_not_count() -> None:
    graph, feat, relation = make()
    conv = ResRelGraphConv(5, 6, RELS)
    loops = graph.add_self_loop()
    zeros = torch.zeros(NODES, RELS)
    got = conv(loops, feat, edge_feat=torch.cat([indicators(relation), zeros]))
    torch.testing.assert_close(got, conv(graph, feat, edge_feat=indicators(relation)))


@pytest.mark.parametrize("rels", [1, 3, 20])
@pytest.mark.parametrize("num_bases", [0, 1])
def test_measured_relations_share(rels: int, num_bases: int) -> None:
    """Whatever their number: each has its part of half of the mean square, the node the other."""
    draw = torch.Generator().manual_seed(0)
    graph = Graph(torch.randint(200, (2, 8000), generator=draw), 200)
    edge_feat = torch.nn.functional.one_hot(torch.arange(8000) % rels, rels).float()
    feat = torch.randn(200, 16, generator=draw)
    model = ResRGCN(16, 64, 4, 1, edge_feats=rels, num_bases=num_bases, residual=None)
    critical_(model, forward=lambda model: model(graph, feat, edge_feat=edge_feat))
    square = model(graph, feat, edge_feat=edge_feat).square().mean().item()
    assert 0.5 < square < (2 if num_bases == 0 else 20)


def test_learning_rates_of_bases_are_those_without() -> None:
    one, other = (
        learning_rate_factors(ResRGCN(4, 64, 4, 8, edge_feats=3, num_bases=bases))
        for bases in (0, 2)
    )
    assert one.items() <= other.items()
    assert other["convs.0.coefficients"] == 1 and other["convs.2.coefficients"] < 3


def test_sparse_features_inference_mode_and_autocast() -> None:
    graph, _, relation = make()
    feat, edge_feat = (torch.rand(NODES, 50) < 0.1).float(), indicators(relation)
    model = ResRGCN(50, 8, 2, 3, edge_feats=RELS, residual=None).eval()
    expected = model(graph, feat, edge_feat=edge_feat)
    torch.testing.assert_close(model(graph, feat.to_sparse_csr(), edge_feat=edge_feat), expected)
    with torch.inference_mode():
        got = model(graph, feat, edge_feat=indicators(relation))
        torch.testing.assert_close(got, expected.detach())
    with torch.autocast("cpu", torch.bfloat16):
        short = model(graph, feat, edge_feat=edge_feat).float()
    torch.testing.assert_close(short, expected, atol=0.1, rtol=0.1)


def test_what_was_made_of_the_relations_is_kept() -> None:
    graph, feat, relation = make()
    model = ResRGCN(5, 8, 2, 3, edge_feats=RELS)
    operator, edge_feat = model.operator(graph), indicators(relation)
    model(operator, feat, edge_feat=edge_feat)
    found = dict(operator.derived)
    model(operator, feat, edge_feat=edge_feat)
    assert found and all(operator.derived[key] is value for key, value in found.items())


def test_the_hooks_know_it() -> None:
    graph, feat, relation = make()
    model = ResRGCN(5, 64, 64, 12, edge_feats=RELS, residual=None, init="glorot")
    critical_(model, forward=lambda model: model(graph, feat, edge_feat=indicators(relation)))
    out = model(graph, feat, edge_feat=indicators(relation))
    assert 0.1 < out.square().mean() < 10
    with pytest.warns(UserWarning, match="Nothing was checked"):
        critical_(model, graph)


def test_errors() -> None:
    graph, feat, relation = make()
    model = ResRGCN(5, 8, 2, 3, edge_feats=RELS)
    edge_feat = indicators(relation)
    with pytest.raises(DGLError, match="missing"):
        model(graph, feat)
    with pytest.raises(DGLError, match="a single 1"):
        model(graph, feat, edge_feat=edge_feat * 2)
    with pytest.raises(DGLError, match="reads the relations"):
        layerwise_inference(model, graph, feat, edge_feat=edge_feat)
    with pytest.raises(DGLError, match="'initial' needs one operator"):
        ResRGCN(5, 8, 2, 3, edge_feats=RELS, residual="initial")
    with pytest.raises(DGLError, match="num_bases must lie in 0 to num_rels=4"):
        ResRGCN(5, 8, 2, 3, edge_feats=RELS, num_bases=5)
    with pytest.raises(DGLError, match=r"needs edge_feats.*one_hot.*data.options.edge_feats"):
        ResRGCN(5, 8, 2, 3)
    with pytest.raises(DGLError, match="num_rels must be at least 1"):
        ResRelGraphConv(5, 8, 0)
    for wrong in ({"edge_feats": 2.0}, {"edge_feats": 3, "num_bases": True}):
        with pytest.raises(DGLError, match="must be a whole number"):
            ResRGCN(5, 8, 2, 3, **wrong)
    with pytest.raises(DGLError, match="feat is a dict"):
        model(graph, {"paper": feat}, edge_feat=edge_feat)
    with pytest.raises(DGLError, match="detach"):
        model(graph, feat, torch.rand(len(relation)).requires_grad_(), edge_feat=edge_feat)
