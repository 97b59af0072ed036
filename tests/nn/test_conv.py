"""What the three convolutions share: DGL's kinds of input, operators, interpolation, errors."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph
from dgl.dataloading import NeighborSampler
from torch import Tensor

from dgl_deepgnn import ResGINConv, ResGraphConv, ResSAGEConv, spectral_radius
from dgl_deepgnn.nn import ResidualConv
from dgl_deepgnn.operator.sparse import to_sparse

ConvClass = Callable[..., ResidualConv]
CONVS = [ResGraphConv, ResSAGEConv, ResGINConv]


@pytest.fixture(params=CONVS)
def conv_class(request: pytest.FixtureRequest) -> ConvClass:
    return request.param


@pytest.fixture
def large() -> DGLGraph:
    """Undirected random graph of 60 nodes with self-loops."""
    src, dst = torch.randint(60, (2, 150), generator=torch.Generator().manual_seed(5))
    return dgl.to_bidirected(dgl.graph((src, dst), num_nodes=60)).add_self_loop()


def apply_dense(conv: ResidualConv, neighbours: Tensor, dst: Tensor) -> Tensor:
    """The layer's formula, from already aggregated float64 features."""
    if isinstance(conv, ResGraphConv):
        return neighbours @ conv.weight + conv.bias
    if isinstance(conv, ResSAGEConv):
        return dst @ conv.weight_self + neighbours @ conv.weight_neigh + conv.bias
    first, second = conv.mlp
    hidden = (neighbours @ first.weight.T + first.bias).relu()
    return hidden @ second.weight.T + second.bias


@pytest.mark.parametrize("t", [1.0, 0.4])
@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_layer_is_its_formula(
    conv_class: ConvClass,
    graph: DGLGraph,
    t: float,
    widths: tuple[int, int],
    critical_aggregation: Callable[..., Tensor],
) -> None:
    conv = conv_class(*widths, t=t).double()
    feat = torch.randn(graph.num_nodes(), widths[0], dtype=torch.float64)
    weight = torch.rand(graph.num_edges()) + 0.1
    aggregated = critical_aggregation(graph, conv.norm, weight) @ feat
    expected = apply_dense(conv, (1 - t) * feat + t * aggregated, feat)
    torch.testing.assert_close(conv(graph, feat, weight), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ["right", "none"])
@pytest.mark.parametrize("t", [1.0, 0.4])
def test_blocks_give_what_the_full_graph_gives(
    conv_class: ConvClass, large: DGLGraph, norm: str, t: float
) -> None:
    radius = spectral_radius(large, norm).item()
    widths = [(4, 6), (6, 6), (6, 3)]
    convs = [conv_class(*ends, norm=norm, t=t, spectral_radius=radius) for ends in widths]
    feat, weight = torch.randn(60, 4), torch.rand(large.num_edges())
    seeds = torch.tensor([7, 0, 33, 21])
    inputs, _, blocks = NeighborSampler([-1, -1, -1]).sample_blocks(large, seeds)
    full, sampled, paired = feat, feat[inputs], feat[inputs]
    for conv, block in zip(convs, blocks, strict=True):
        full = conv(large, full, weight).relu()
        own = weight[block.edata[dgl.EID]]
        sampled = conv(block, sampled, own).relu()
        paired = conv(block, (paired, paired[: block.num_dst_nodes()]), own).relu()
    torch.testing.assert_close(sampled, full[seeds])
    torch.testing.assert_close(paired, full[seeds])


def test_block_of_a_sum_asks_for_the_spectral_radius(large: DGLGraph) -> None:
    _, _, (block,) = NeighborSampler([-1]).sample_blocks(large, torch.tensor([0]))
    with pytest.raises(DGLError, match=r"block.*Pass spectral_radius"):
        ResGINConv(3, 4)(block, torch.ones(block.num_src_nodes(), 3))


FOLLOWS, BUYS, BOUGHT = (
    ("user", "follows", "user"),
    ("user", "buys", "item"),
    ("item", "bought-by", "user"),
)


@pytest.fixture(params=[9, 6], ids=["more users", "as many items as users"])
def shop(request: pytest.FixtureRequest) -> DGLGraph:
    generator = torch.Generator().manual_seed(6)
    users, items = request.param, 6
    buyer = torch.randint(users, (20,), generator=generator)
    item = torch.arange(20) % items  # everything is bought
    follower, followed = torch.randint(users, (2, 20), generator=generator)
    everyone = torch.arange(users)
    return dgl.heterograph(
        {
            FOLLOWS: (torch.cat([follower, everyone]), torch.cat([followed, everyone])),
            BUYS: (buyer, item),
            BOUGHT: (item, buyer),
        },
        {"user": users, "item": items},
    )


@pytest.mark.parametrize("t", [1.0, 0.4])
def test_heterogeneous_graph(
    conv_class: ConvClass, shop: DGLGraph, t: float, dense_aggregation: Callable[..., Tensor]
) -> None:
    make = partial(conv_class, 3, 4, norm="right", t=t)
    convs = {etype: make() for _, etype, _ in shop.canonical_etypes}
    layer = dgl.nn.HeteroGraphConv(convs, aggregate="sum").double()
    feat = {
        ntype: torch.randn(shop.num_nodes(ntype), 3, dtype=torch.float64) for ntype in shop.ntypes
    }
    expected = {
        ntype: torch.zeros(shop.num_nodes(ntype), 4, dtype=torch.float64) for ntype in shop.ntypes
    }
    for source, etype, destination in shop.canonical_etypes:
        matrix = dense_aggregation(shop[etype], "right")  # rows sum to one: nothing to divide by
        dst = feat[destination]
        mixed = (1 - t) * dst + t * matrix @ feat[source]
        expected[destination] = expected[destination] + apply_dense(convs[etype], mixed, dst)
    found = layer(shop, feat)
    for ntype in shop.ntypes:
        torch.testing.assert_close(found[ntype], expected[ntype])

    seeds = {"user": torch.tensor([2, 0]), "item": torch.tensor([5])}
    inputs, _, (block,) = NeighborSampler([-1]).sample_blocks(shop, seeds)
    sampled = layer(block, {ntype: feat[ntype][inputs[ntype]] for ntype in shop.ntypes})
    for ntype in shop.ntypes:
        torch.testing.assert_close(sampled[ntype], expected[ntype][seeds[ntype]])


def test_interpolation_between_types_needs_the_destination(shop: DGLGraph) -> None:
    feat = torch.ones(shop.num_nodes("user"), 3)
    ResGraphConv(3, 4)(shop[BUYS], feat)  # fine with t = 1
    with pytest.raises(DGLError, match=r"between two node types needs.*pair \(source, dest"):
        ResGraphConv(3, 4, t=0.5)(shop[BUYS], feat)


def test_sequential(conv_class: ConvClass, large: DGLGraph) -> None:
    first, second = conv_class(3, 5, t=0.5), conv_class(5, 2, t=0.5)
    feat = torch.randn(60, 3)
    torch.testing.assert_close(
        dgl.nn.Sequential(first, second)(large, feat), second(large, first(large, feat))
    )


def test_graph_is_not_changed(conv_class: ConvClass, large: DGLGraph) -> None:
    large.ndata["feat"], large.edata["w"] = torch.ones(60, 3), torch.ones(large.num_edges())
    before = large.ndata["feat"].clone(), large.edata["w"].clone()
    edges = torch.stack(large.edges())
    conv_class(3, 4, t=0.5)(large, large.ndata["feat"], large.edata["w"]).sum().backward()
    assert set(large.ndata) == {"feat"}
    assert set(large.edata) == {"w"}
    assert torch.equal(large.ndata["feat"], before[0])
    assert torch.equal(large.edata["w"], before[1])
    assert torch.equal(torch.stack(large.edges()), edges)


@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_operator_in_place_of_the_graph(
    conv_class: ConvClass, large: DGLGraph, widths: tuple[int, int]
) -> None:
    conv = conv_class(*widths, t=0.3)
    feat, weight = torch.randn(60, widths[0]), torch.rand(large.num_edges())
    expected = conv(large, feat, weight)
    torch.testing.assert_close(conv(conv.operator(large, weight), feat), expected)
    unfolded = conv.operator(large, weight, folded=False)
    assert unfolded.t == 1
    torch.testing.assert_close(conv(unfolded, feat), expected)
    with pytest.raises(DGLError, match="give edge_weight to it"):
        conv(unfolded, feat, weight)


def test_operator_of_another_layer(conv_class: ConvClass, large: DGLGraph) -> None:
    operator = conv_class(3, 4, t=0.5).operator(large)
    with pytest.raises(DGLError, match=r"operator has t=0\.5, but the layer t=0\.25"):
        conv_class(3, 4, t=0.25)(operator, torch.ones(60, 3))


@pytest.mark.parametrize("idtype", [torch.int32, torch.int64])
def test_index_and_feature_types(
    conv_class: ConvClass, large: DGLGraph, idtype: torch.dtype
) -> None:
    conv, feat = conv_class(3, 4, t=0.5), torch.randn(60, 3)
    single = conv(large, feat)
    typed = large.int() if idtype == torch.int32 else large
    assert single.dtype == torch.float32
    torch.testing.assert_close(conv(typed, feat), single)
    double = conv.double()(typed, feat.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(double, single.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"in_feats": 0}, "in_feats must be at least 1, got 0"),
        ({"out_feats": -2}, "out_feats must be at least 1, got -2"),
        ({"norm": "mean"}, r"norm must be one of 'both', 'right', 'left', 'none', got 'mean'"),
        ({"t": -0.1}, r"t must lie in \[0, 1\], got -0.1"),
        ({"t": 1.5}, r"t must lie in \[0, 1\], got 1.5"),
        ({"init": "xavier"}, "There is no initialization 'xavier'. Allowed:.*critical"),
    ],
)
def test_wrong_arguments(conv_class: ConvClass, arguments: dict, message: str) -> None:
    with pytest.raises((DGLError, ValueError), match=message):
        conv_class(**{"in_feats": 3, "out_feats": 4, **arguments})


@pytest.mark.parametrize(
    ("feat", "message"),
    [
        (torch.ones(60, 7), r"\(60, 7\).*in_feats=3.*expected \(60, 3\)"),
        (torch.ones(59, 3), r"\(59, 3\).*60 such nodes: expected \(60, 3\)"),
        (torch.ones(60), r"\(60,\).*expected \(60, 3\)"),
        ((torch.ones(60, 3), torch.ones(60, 2)), r"destination nodes has shape \(60, 2\)"),
        ((torch.ones(60, 3), torch.ones(1, 3)), r"destination nodes has shape \(1, 3\)"),
    ],
)
def test_features_that_do_not_fit(
    conv_class: ConvClass, large: DGLGraph, feat: Tensor | tuple[Tensor, Tensor], message: str
) -> None:
    with pytest.raises(DGLError, match=message):
        conv_class(3, 4)(large, feat)


def test_graphs_without_a_critical_scale(conv_class: ConvClass) -> None:
    path = dgl.graph(([0, 1, 2], [1, 2, 3]))
    with pytest.raises(DGLError, match=r"no directed cycle.*add_self_loop"):
        conv_class(3, 4)(path, torch.ones(4, 3))
    looped = path.add_self_loop()
    assert conv_class(3, 4)(looped, torch.ones(4, 3)).shape == (4, 4)
    with pytest.raises(DGLError, match="must be finite and non-negative"):
        conv_class(3, 4)(looped, torch.ones(4, 3), -torch.ones(looped.num_edges()))


def test_the_base_class_has_no_formula(large: DGLGraph) -> None:
    conv = ResidualConv(3, 4, "both", 1.0, "critical", None)
    with pytest.raises(NotImplementedError):
        conv(large, torch.ones(60, 3))


@pytest.mark.parametrize("t", [1.0, 0.4])
@pytest.mark.parametrize("folded", [True, False], ids=["t in the operator", "t in the layer"])
@pytest.mark.parametrize("widths", [(3, 5), (5, 3)])
def test_sparse_features(
    conv_class: ConvClass, large: DGLGraph, t: float, folded: bool, widths: tuple[int, int]
) -> None:
    conv = conv_class(*widths, t=t)
    feat = torch.randn(60, widths[0]) * (torch.rand(60, widths[0]) < 0.3)
    operator = conv.operator(large, folded=folded)
    results = []
    for form in (feat, to_sparse(feat)):
        scores = conv(operator, form)
        gradients = torch.autograd.grad(scores.square().sum(), list(conv.parameters()))
        results.append((scores, *gradients))
    torch.testing.assert_close(*results)
