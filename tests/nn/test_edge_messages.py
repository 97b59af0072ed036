"""Messages that depend on edge features, in all three families."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import dgl
import pytest
import torch
from torch import Tensor, nn

from dgl_deepgnn import Graph, ResGCN, ResGIN, ResGraphSAGE
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.export import export_program
from dgl_deepgnn.graph import batch
from dgl_deepgnn.nn import ResGINConv, ResGraphConv, ResSAGEConv
from dgl_deepgnn.nn.conv import describe_edge_map
from dgl_deepgnn.nn.inference import layerwise_inference
from dgl_deepgnn.operator.aggregation import aggregation_operator
from dgl_deepgnn.optim import learning_rate_factors

NODES, EDGE_FEATS = 40, 3
FAMILIES = [ResGCN, ResGraphSAGE, ResGIN]


def make(seed: int = 0, nodes: int = NODES) -> tuple[Graph, Tensor, Tensor]:
    """A graph with parallel edges and self-loops, node features, edge features."""
    draw = torch.Generator().manual_seed(seed)
    ends = torch.randint(nodes, (2, 4 * nodes), generator=draw)
    ends[:, :5] = ends[:, 5:10]
    graph = Graph((ends[0], ends[1]), nodes).add_self_loop()
    feat = torch.randn(nodes, 5, generator=draw)
    return graph, feat, torch.randn(graph.num_edges(), EDGE_FEATS, generator=draw)


def model_of(kind: Any, num_layers: int = 4, **options: Any) -> Any:
    torch.manual_seed(0)
    model = kind(5, 8, 2, num_layers, edge_feats=EDGE_FEATS, edge_messages=True, **options)
    with torch.no_grad():
        for parameter in model.parameters():  # zero branches show nothing
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return model.eval()


def test_a_layer_is_that_of_dgl() -> None:
    """GINE by DGL on the graph without the self-loops, which have no features here."""
    torch.manual_seed(0)
    bare = dgl.remove_self_loop(dgl.rand_graph(NODES, 160))
    feat, edge_feat = torch.rand(NODES, 6), torch.randn(bare.num_edges(), EDGE_FEATS)
    conv = ResGINConv(6, 4, mlp_layers=1, spectral_radius=1.0, edge_feats=EDGE_FEATS)
    theirs = dgl.nn.GINEConv(conv.mlp[0])
    expected = theirs(bare, feat, conv.edge_map(edge_feat))
    of_loops = torch.zeros(NODES, EDGE_FEATS)
    got = conv(bare.add_self_loop(), feat, edge_feat=torch.cat([edge_feat, of_loops]))
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
@pytest.mark.parametrize("t", [0.3, 1.0])
def test_messages_are_the_sum_over_edges(t: float, norm: Any, weighted: bool) -> None:
    graph, feat, edge_feat = make()
    weight = torch.rand(graph.num_edges()) if weighted else None
    operator = aggregation_operator(graph, norm, t, weight, edgewise=True)
    edge_map = nn.Linear(EDGE_FEATS, 5, bias=False)
    src, dst = graph.edges()
    outs, ins = torch.bincount(src, minlength=NODES), torch.bincount(dst, minlength=NODES)
    expected = (1 - t) * feat
    for edge, (u, v) in enumerate(zip(src.tolist(), dst.tolist(), strict=True)):
        factor = {
            "both": float(outs[u] * ins[v]) ** -0.5,
            "right": 1 / float(ins[v]),
            "left": 1 / float(outs[u]),
            "none": 1.0,
        }[norm]
        if weight is not None:
            factor *= weight[edge].item()
        message = torch.relu(feat[u] + edge_map.weight @ edge_feat[edge])
        expected[v] = expected[v] + t * factor / operator.spectral_radius * message
    got = operator.with_edge_feat(edge_feat).messages(feat, edge_map)
    assert torch.allclose(got, expected, atol=1e-5)
    if weight is not None:
        trainable = weight.clone().requires_grad_()
        of_weights = aggregation_operator(graph, norm, t, trainable, edgewise=True)
        again = of_weights.with_edge_feat(edge_feat).messages(feat, edge_map)
        assert torch.allclose(again, expected, atol=1e-5)
        (gradient,) = torch.autograd.grad(again.sum(), trainable)
        # They are linear in the weights.
        assert torch.isclose((gradient * weight).sum(), (again - (1 - t) * feat).sum(), rtol=1e-4)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("options", [{"t": 1.0}, {"t": 0.5}, {"t": "harmonic:1"}])
def test_edges_without_features_are_edges_as_they_are(kind: Any, options: dict[str, Any]) -> None:
    """Features behind a ReLU plus nothing pass a ReLU: the same model without edge features."""
    graph, feat, edge_feat = make()
    model = model_of(kind, residual="scaled", **options)
    plain = kind(5, 8, 2, 4, residual="scaled", **options).eval()
    state = {key: value for key, value in model.state_dict().items() if "edge_map" not in key}
    assert state.keys() < model.state_dict().keys()
    plain.load_state_dict(state)
    got = model(graph, feat, edge_feat=torch.zeros_like(edge_feat))
    assert torch.allclose(got, plain(graph, feat), atol=1e-5)
    assert not torch.allclose(model(graph, feat, edge_feat=edge_feat), got, atol=1e-2)


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("residual", [None, "plain", "fixup", "initial"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_layer_by_layer_it_is_the_same(kind: Any, residual: Any, head: str) -> None:
    graph, feat, edge_feat = make(nodes=2000)
    model = model_of(kind, 5, residual=residual, head=head, t="per-depth:2")
    with torch.no_grad():
        expected = model(graph, feat, edge_feat=edge_feat)
    for t in ("1MB", "1GB"):
        got = layerwise_inference(model, graph, feat, edge_feat=edge_feat, memory=t)
        assert torch.allclose(got, expected, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", FAMILIES)
def test_graphs_cut_out_of_a_batch_keep_their_edges(kind: Any) -> None:
    parts = [make(seed, nodes) for seed, nodes in enumerate((7, 12, 9))]
    model = model_of(kind, head="graph")
    operator = model.operator(batch([graph for graph, _, _ in parts]))
    chosen = [2, 0]
    feat, edge_feat = (torch.cat([parts[i][k] for i in chosen]) for k in (1, 2))
    got = model(operator.select(chosen), feat, edge_feat=edge_feat)
    expected = torch.cat([model(g, x, edge_feat=e) for g, x, e in (parts[i] for i in chosen)])
    assert torch.allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("kind", FAMILIES)
def test_checkpointed_training_has_the_same_gradients(kind: Any) -> None:
    graph, feat, edge_feat = make()
    gradients = []
    for checkpoint in (False, True):
        model = model_of(kind, 9, checkpoint=checkpoint).train()
        model(graph, feat, edge_feat=edge_feat).square().sum().backward()
        gradients.append([p.grad for p in model.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", FAMILIES)
def test_an_exported_program_scores_alike(kind: Any) -> None:
    graph, feat, edge_feat = make()
    model = model_of(kind)
    program = export_program(model, graph, feat, edge_feat)
    got = program.module()(torch.stack(graph.edges()), feat, edge_feat)
    assert torch.allclose(got, model(graph, feat, edge_feat=edge_feat), atol=1e-4)


# --- the critical scale -------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_the_share_behind_messages_is_what_is_drawn(t: float) -> None:
    conv = ResGINConv(4, 4, t=t, edge_feats=EDGE_FEATS)
    _, share = describe_edge_map(conv)
    draw = torch.Generator().manual_seed(0)
    z, edge = (torch.randn(2_000_000, generator=draw, dtype=torch.float64) for _ in range(2))
    node = torch.relu(math.sqrt(2) * z)
    handed_on = (1 - t) * node + t * torch.relu(node + edge)
    assert share == pytest.approx(1 / handed_on.square().mean().item(), rel=5e-3)


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("kind", FAMILIES)
def test_features_stay_at_order_one_at_any_depth(kind: Any, alike: bool) -> None:
    """With edges that are all alike, as the share takes them, and with others, which cancel."""
    graph, _, edge_feat = make(nodes=200)
    feat = torch.randn(1, 64).expand(200, 64) if alike else torch.randn(200, 64)
    edge_feat = torch.randn(1, 32).expand(graph.num_edges(), 32) if alike else edge_feat
    squares = []
    for depth in (4, 16, 64):
        torch.manual_seed(depth)
        model = kind(
            64, 128, 128, depth, residual=None, t=1.0,
            edge_feats=edge_feat.shape[1], edge_messages=True,
        )  # fmt: skip
        squares.append(model(graph, feat, edge_feat=edge_feat).square().mean().item())
    assert all(0.05 < square < 5 for square in squares), squares


def test_edge_features_count_as_data_in_the_learning_rates() -> None:
    model = ResGCN(5, 64, 2, 18, edge_feats=EDGE_FEATS, edge_messages=True)
    factors = learning_rate_factors(model)
    assert factors["convs.3.edge_map.weight"] == factors["convs.3.bias"]


def test_sparse_node_features() -> None:
    graph, _, edge_feat = make()
    feat = (torch.rand(NODES, 50) < 0.1).float()
    conv = ResGraphConv(50, 7, edge_feats=EDGE_FEATS)
    got = conv(graph, feat.to_sparse_csr(), edge_feat=edge_feat)
    torch.testing.assert_close(got, conv(graph, feat, edge_feat=edge_feat))


# --- what is refused ----------------------------------------------------------------------------


def test_errors() -> None:
    graph, feat, edge_feat = make()
    model = model_of(ResGCN)
    with pytest.raises(DGLError, match=r"missing.*edge_feats=3.*\(200, 3\)"):
        model(graph, feat)
    with pytest.raises(DGLError, match="have shape"):
        model(graph, feat, edge_feat=edge_feat[:, :2])
    with pytest.raises(DGLError, match="200 edges"):
        model(graph, feat, edge_feat=edge_feat[:9])
    with pytest.raises(DGLError, match="needs edge features and at least two"):
        ResGCN(5, 8, 2, 3, edge_messages=True)
    with pytest.raises(DGLError, match="reads no edge features"):
        ResGraphConv(5, 8)(graph, feat, edge_feat=edge_feat)
    conv = ResSAGEConv(5, 8, edge_feats=3)
    with pytest.raises(DGLError, match="missing"):
        conv(conv.operator(graph), feat)
    with pytest.raises(DGLError, match="operator holds none"):
        aggregation_operator(graph).with_edge_feat(edge_feat).messages(feat, nn.Linear(3, 5))


@pytest.mark.parametrize("head", ["node", "graph"])
def test_edge_features_that_nobody_reads_are_refused(head: str) -> None:
    graph = dgl.rand_graph(8, 12).add_self_loop()
    model = ResGCN(3, 4, 2, num_layers=3, head=head)
    feat, edge_feat = torch.randn(8, 3), torch.randn(20, 5)
    for call in (model, partial(layerwise_inference, model)):
        with pytest.raises(DGLError, match="This ResGCN reads no edge features"):
            call(graph, feat, edge_feat=edge_feat)
