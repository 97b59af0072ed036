"""The aggregation operator against dense algebra, DGL's layers and finite differences."""

from __future__ import annotations

import copy

import dgl
import numpy as np
import pytest
import torch
from dgl import DGLError
from dgl.nn import GraphConv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from dgl_deepgnn import aggregation_operator, spectral_radius
from dgl_deepgnn.operator.matrix import NORMS


def dense_adjacency(graph: dgl.DGLGraph, norm: str, weight: Tensor | None = None) -> Tensor:
    """Aggregation matrix from its definition, edge by edge; parallel edges add up."""
    matrix = torch.zeros(graph.num_dst_nodes(), graph.num_src_nodes(), dtype=torch.float64)
    source, target = (ends.long() for ends in graph.edges(order="eid"))
    out = torch.bincount(source, minlength=graph.num_src_nodes()).clamp(min=1).double()
    into = torch.bincount(target, minlength=graph.num_dst_nodes()).clamp(min=1).double()
    for edge, (u, v) in enumerate(zip(source.tolist(), target.tolist(), strict=True)):
        scale = {
            "both": (out[u] * into[v]) ** -0.5,
            "right": 1 / into[v],
            "left": 1 / out[u],
            "none": torch.tensor(1.0),
        }[norm]
        matrix[v, u] += scale * (1 if weight is None else weight.reshape(-1)[edge].double())
    return matrix


def dense_operator(
    graph: dgl.DGLGraph, norm: str, t: float, weight: Tensor | None = None
) -> Tensor:
    """``A_t`` of one graph with a dense eigenvalue solver."""
    matrix = dense_adjacency(graph, norm, weight)
    radius = torch.linalg.eigvals(matrix.detach()).abs().max() if len(matrix) else 1.0
    return (1 - t) * torch.eye(len(matrix), dtype=torch.float64) + t * matrix / radius


@st.composite
def graphs(draw: st.DrawFn) -> dgl.DGLGraph:
    """Directed multigraphs with a cycle, most with nodes that have no edges."""
    size = draw(st.integers(1, 9))
    node = st.integers(0, size - 1)
    edges = draw(st.lists(st.tuples(node, node), max_size=25))
    first = draw(node)
    source, target = zip(*edges, (first, first), strict=True)
    return dgl.graph((source, target), num_nodes=size)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)
    dgl.seed(0)


@pytest.fixture
def graph() -> dgl.DGLGraph:
    """Directed, two cycles, a self-loop, a parallel edge, an isolated node; not symmetric."""
    return dgl.graph(([0, 1, 2, 2, 0, 3, 4, 4, 1], [1, 2, 0, 1, 3, 4, 3, 4, 2]), num_nodes=6)


@settings(deadline=None, max_examples=60)
@given(graphs(), st.sampled_from(NORMS), st.floats(0.05, 1), st.booleans(), st.booleans())
def test_equals_dense_algebra(
    graph: dgl.DGLGraph, norm: str, t: float, weighted: bool, short: bool
) -> None:
    torch.manual_seed(0)
    weight = torch.rand(graph.num_edges(), 1) + 0.1 if weighted else None
    feat = torch.randn(graph.num_nodes(), 3, dtype=torch.float64, requires_grad=True)
    dense = dense_operator(graph, norm, t, weight)
    operator = aggregation_operator(graph.int() if short else graph, norm, t, weight)
    out = operator @ feat
    torch.testing.assert_close(out, dense @ feat, rtol=1e-5, atol=1e-5)
    cotangent = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, feat, cotangent)
    torch.testing.assert_close(gradient, dense.T @ cotangent, rtol=1e-5, atol=1e-5)
    assert operator.shape == dense.shape and operator.t == t


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_graph_conv(graph: dgl.DGLGraph, norm: str, weighted: bool) -> None:
    conv = GraphConv(4, 4, norm=norm, weight=False, bias=False, allow_zero_in_degree=True)
    weight = torch.rand(graph.num_edges()) if weighted else None
    feat = torch.randn(6, 4, requires_grad=True)
    ours = aggregation_operator(graph, norm, edge_weight=weight, spectral_radius=1.0) @ feat
    theirs = conv(graph, feat, edge_weight=weight)
    torch.testing.assert_close(ours, theirs)
    cotangent = torch.randn_like(ours)
    torch.testing.assert_close(
        *(torch.autograd.grad(out, feat, cotangent)[0] for out in (ours, theirs))
    )


@pytest.mark.parametrize("norm", NORMS)
def test_spectral_radius_of_the_operator_is_one(graph: dgl.DGLGraph, norm: str) -> None:
    for t in (0.3, 1.0):
        operator = aggregation_operator(graph, norm, t)
        dense = operator @ torch.eye(6, dtype=torch.float64)
        assert torch.linalg.eigvals(dense).abs().max().item() == pytest.approx(1, rel=1e-5)
        assert operator.spectral_radius == pytest.approx(spectral_radius(graph, norm).item())


def test_gradients_by_finite_differences(graph: dgl.DGLGraph) -> None:
    operator = aggregation_operator(graph, "both", 0.4)
    feat = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: operator @ x, feat)
    assert gradgradcheck(lambda x: (operator @ x).tanh(), feat)


@pytest.mark.parametrize("t", [0.4, 1.0])
@pytest.mark.parametrize("column", [False, True])
def test_trainable_edge_weights(graph: dgl.DGLGraph, t: float, column: bool) -> None:
    weight = torch.rand(graph.num_edges(), dtype=torch.float64) + 0.5
    weight = (weight[:, None] if column else weight).requires_grad_()
    feat = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    radius = spectral_radius(graph, "both", weight).item()

    def aggregate(weight: Tensor, feat: Tensor) -> Tensor:
        # The divisor is a constant: the gradient is that of A alone.
        return aggregation_operator(graph, "both", t, weight, spectral_radius=radius) @ feat

    assert gradcheck(aggregate, (weight, feat))
    trainable = aggregation_operator(graph, "both", t, weight) @ feat
    fixed = aggregation_operator(graph, "both", t, weight.detach()) @ feat
    torch.testing.assert_close(trainable, fixed)
    assert torch.autograd.grad(trainable.sum(), weight)[0].shape == weight.shape


def test_each_graph_of_a_batch_has_its_own_divisor(graph: dgl.DGLGraph) -> None:
    parts = [graph, dgl.rand_graph(5, 20).add_self_loop(), dgl.graph(([0, 1], [1, 0]))]
    batch = dgl.batch(parts)
    weight = torch.rand(batch.num_edges(), dtype=torch.float64) + 0.1
    weights = weight.split([part.num_edges() for part in parts])
    feat = torch.randn(batch.num_nodes(), 3, dtype=torch.float64)
    expected = torch.cat(
        [
            dense_operator(part, "none", 0.7, w) @ x
            for part, w, x in zip(
                parts, weights, feat.split([part.num_nodes() for part in parts]), strict=True
            )
        ]
    )
    for w in (weight, weight.clone().requires_grad_()):
        operator = aggregation_operator(batch, "none", 0.7, w)
        torch.testing.assert_close((operator @ feat).detach(), expected, rtol=1e-5, atol=1e-5)
    assert operator.spectral_radius == max(operator.spectral_radii)
    np.testing.assert_allclose(operator.spectral_radii, spectral_radius(batch, "none", weight))


@pytest.mark.parametrize("which", [[2, 0, 1], [1], [1, 1], []])
def test_selection_from_a_batch(graph: dgl.DGLGraph, which: list[int]) -> None:
    parts = [graph, dgl.rand_graph(5, 20).add_self_loop(), dgl.graph(([0, 1], [1, 0]))]
    batch = dgl.batch(parts)
    weight = torch.rand(batch.num_edges())
    weights = weight.split([part.num_edges() for part in parts])
    selected = aggregation_operator(batch, "none", 0.7, weight).select(which)
    sizes = [parts[index].num_nodes() for index in which]
    assert selected.graph.batch_num_nodes().tolist() == sizes
    assert selected.shape == (sum(sizes), sum(sizes))
    if not which:
        return
    again = dgl.batch([parts[index] for index in which])
    again_weight = torch.cat([weights[index] for index in which])
    feat = torch.randn(sum(sizes), 2, dtype=torch.float64, requires_grad=True)
    outs = [selected @ feat, aggregation_operator(again, "none", 0.7, again_weight) @ feat]
    torch.testing.assert_close(*outs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        *(torch.autograd.grad(out.sin().sum(), feat)[0] for out in outs), rtol=1e-5, atol=1e-5
    )
    for ours, theirs in zip(selected.graph.edges(), again.edges(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("norm", ["both", "right", "left", "none"])
@pytest.mark.parametrize("t", [0.5, 1.0])
def test_block_of_a_sampler(norm: str, t: float) -> None:
    graph = dgl.rand_graph(40, 300).add_self_loop()
    sampler = dgl.dataloading.NeighborSampler([3, 4])
    _, _, blocks = sampler.sample(graph, torch.tensor([3, 17, 5]))
    for block in blocks:
        feat = torch.randn(block.num_src_nodes(), 2, dtype=torch.float64)
        operator = aggregation_operator(block, norm, t, spectral_radius=2.0)
        expected = dense_adjacency(block, norm) @ feat * t / 2
        expected += (1 - t) * feat[: block.num_dst_nodes()]
        torch.testing.assert_close(operator @ feat, expected)
        weight = torch.ones(block.num_edges(), requires_grad=True)
        trainable = aggregation_operator(block, norm, t, weight, spectral_radius=2.0)
        torch.testing.assert_close((trainable @ feat).detach(), expected)
        if norm == "none":
            with pytest.raises(DGLError, match=r"no spectral radius.*spectral_radius\(graph\)"):
                aggregation_operator(block, norm, t)
        else:
            assert aggregation_operator(block, norm, t).spectral_radius == 1


def test_one_relation_of_a_heterogeneous_graph() -> None:
    hetero = dgl.heterograph(
        {
            ("user", "follows", "user"): ([0, 1, 2], [1, 0, 0]),
            ("user", "rates", "item"): ([0, 0, 2], [1, 0, 3]),
        }
    )
    follows, rates = hetero["follows"], hetero["rates"]
    feat = torch.randn(3, 2, dtype=torch.float64)
    torch.testing.assert_close(
        aggregation_operator(follows, "none", 0.5) @ feat,
        dense_operator(follows, "none", 0.5) @ feat,
        rtol=1e-5,
        atol=1e-8,
    )
    torch.testing.assert_close(
        aggregation_operator(rates, "right") @ feat, dense_adjacency(rates, "right") @ feat
    )
    with pytest.raises(DGLError, match=r"two node types.*Use t=1"):
        aggregation_operator(rates, "right", 0.5)
    with pytest.raises(DGLError, match="between two node types"):
        aggregation_operator(rates, "none")
    with pytest.raises(DGLError, match=r"2 edge types.*HeteroGraphConv"):
        aggregation_operator(hetero)


def test_graph_is_not_changed(graph: dgl.DGLGraph) -> None:
    graph.ndata["x"] = torch.ones(6, 1)
    weight = torch.rand(graph.num_edges(), requires_grad=True)
    for w in (None, weight):
        aggregation_operator(graph, "both", 0.5, w) @ torch.ones(6, 2)
    assert set(graph.ndata) == {"x"} and not graph.edata
    assert graph.num_edges() == 9


@settings(deadline=None, max_examples=30)
@given(graphs(), st.sampled_from(NORMS), st.randoms(use_true_random=False))
def test_permutation_equivariance(graph: dgl.DGLGraph, norm: str, random) -> None:
    order = list(range(graph.num_nodes()))
    random.shuffle(order)
    position = torch.tensor(order)
    source, target = graph.edges()
    moved = dgl.graph((position[source], position[target]), num_nodes=graph.num_nodes())
    feat = torch.randn(graph.num_nodes(), 2, dtype=torch.float64)
    shuffled = torch.empty_like(feat)
    shuffled[position] = feat
    out = aggregation_operator(graph, norm, 0.6) @ feat
    torch.testing.assert_close(
        (aggregation_operator(moved, norm, 0.6) @ shuffled)[position], out, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float16, torch.float64])
def test_type_of_the_weights_does_not_matter(graph: dgl.DGLGraph, dtype: torch.dtype) -> None:
    feat = torch.randn(6, 2)
    ones = torch.ones(graph.num_edges(), dtype=dtype)
    torch.testing.assert_close(
        aggregation_operator(graph, edge_weight=ones) @ feat, aggregation_operator(graph) @ feat
    )


@pytest.mark.parametrize("exponent", [-12, 12])
def test_scale_of_the_weights_does_not_matter(graph: dgl.DGLGraph, exponent: int) -> None:
    feat = torch.randn(6, 2)
    weight = torch.rand(graph.num_edges())
    torch.testing.assert_close(
        aggregation_operator(graph, edge_weight=weight.double() * 10.0**exponent) @ feat,
        aggregation_operator(graph, edge_weight=weight) @ feat,
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_type_of_the_features_is_kept(graph: dgl.DGLGraph, dtype: torch.dtype) -> None:
    operator = aggregation_operator(graph)
    feat = torch.randn(6, 2, dtype=dtype)
    out = operator @ feat
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), operator @ feat.float(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64])
def test_features_must_be_floating_point(graph: dgl.DGLGraph, dtype: torch.dtype) -> None:
    with pytest.raises(DGLError, match=r"feat\.float\(\)"):
        aggregation_operator(graph) @ torch.ones(6, 2, dtype=dtype)


def test_features_of_any_layout(graph: dgl.DGLGraph) -> None:
    operator = aggregation_operator(graph)
    feat = torch.randn(2, 6).T
    torch.testing.assert_close(operator @ feat, operator @ feat.contiguous())
    assert (operator @ torch.ones(6, 0)).shape == (6, 0)


def test_empty_graph() -> None:
    operator = aggregation_operator(dgl.graph(([], []), num_nodes=0), t=0.5)
    assert (operator @ torch.ones(0, 3)).shape == (0, 3)
    assert operator.spectral_radius == 1


def test_copy_and_transfer(graph: dgl.DGLGraph) -> None:
    operator = aggregation_operator(graph, t=0.5)
    assert operator.to("cpu") is operator
    feat = torch.randn(6, 2)
    torch.testing.assert_close(copy.deepcopy(operator) @ feat, operator @ feat)
    radius = spectral_radius(graph, "both").item()
    assert repr(operator) == (
        f"AggregationOperator(shape=(6, 6), t=0.5, spectral_radius={radius:.4g})"
    )


@pytest.mark.parametrize("shape", [(6,), (5, 2), (7, 2), (6, 2, 2)])
def test_features_of_a_wrong_shape(graph: dgl.DGLGraph, shape: tuple[int, ...]) -> None:
    with pytest.raises(DGLError, match=r"expected \(6, width\)"):
        aggregation_operator(graph) @ torch.ones(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": "sym"}, "'both', 'right', 'left', 'none', got 'sym'"),
        ({"t": 0}, r"\(0, 1\], got 0"),
        ({"t": 1.1}, r"\(0, 1\], got 1.1"),
        ({"t": float("nan")}, r"\(0, 1\], got nan"),
        ({"spectral_radius": 0.0}, "positive"),
        ({"spectral_radius": float("nan")}, "positive"),
        ({"spectral_radius": float("inf")}, "positive"),
        ({"edge_weight": torch.ones(8)}, r"shape \(8,\).*9 edges"),
        ({"edge_weight": torch.full((9,), float("nan"))}, "Edge 0 is not"),
        ({"edge_weight": -torch.ones(9)}, "Edge 0 is not"),
        ({"edge_weight": torch.zeros(9)}, "of positive weight"),
    ],
)
def test_errors(graph: dgl.DGLGraph, arguments: dict, message: str) -> None:
    with pytest.raises(DGLError, match=message):
        aggregation_operator(graph, **arguments)


def test_acyclic_graph() -> None:
    chain = dgl.graph(([0, 1], [1, 2]))
    with pytest.raises(DGLError, match="add_self_loop"):
        aggregation_operator(chain)
    given_radius = aggregation_operator(chain, "none", spectral_radius=1.0)
    assert (given_radius @ torch.ones(3, 1)).flatten().tolist() == [0, 1, 1]
