"""Our own graph against dense matrices and, where DGL is installed, against DGL's.

Runs with DGL and, by ``-p tests.without_dgl``, as on a machine that has none.
"""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch_geometric.data import Batch, Data, HeteroData

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE, aggregation_operator, load_data
from dgl_deepgnn.data.transforms import undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import Graph, as_graph, batch, make_graph, u_mul_e_sum
from dgl_deepgnn.nn import DeepGNN

try:
    import dgl
except ImportError:
    dgl = None

needs_dgl = pytest.mark.skipif(dgl is None, reason="compares with DGL")
ROOT = Path(__file__).parents[1]


@st.composite
def edges(draw: st.DrawFn) -> tuple[Tensor, Tensor, int]:
    """Multigraphs with self-loops and nodes without edges."""
    num_nodes = draw(st.integers(1, 6))
    ends = st.lists(st.integers(0, num_nodes - 1), min_size=0, max_size=12)
    src = draw(ends)
    dst = draw(st.lists(st.integers(0, num_nodes - 1), min_size=len(src), max_size=len(src)))
    return torch.tensor(src).long(), torch.tensor(dst).long(), num_nodes


def dense(graph: Any) -> Tensor:
    """Number of edges from i (column) to j (row)."""
    matrix = torch.zeros(graph.num_nodes(), graph.num_nodes())
    for src, dst in zip(*(end.tolist() for end in graph.edges()), strict=True):
        matrix[dst, src] += 1
    return matrix


@given(edges())
def test_edges_as_matrices(example: tuple[Tensor, Tensor, int]) -> None:
    src, dst, num_nodes = example
    graph = Graph((src, dst), num_nodes)
    matrix = dense(graph)
    assert torch.equal(graph.in_degrees(), matrix.sum(dim=1).long())
    assert torch.equal(dense(graph.reverse()), matrix.T)
    assert torch.equal(dense(graph.add_self_loop()), matrix + torch.eye(num_nodes))
    assert torch.equal(dense(graph.remove_self_loop()), matrix - torch.diag(matrix.diag()))
    whole = dense(batch([graph, graph.reverse()]))
    assert torch.equal(whole, torch.block_diag(matrix, matrix.T))
    simple = ((matrix + matrix.T) > 0).float().fill_diagonal_(0)
    assert torch.equal(dense(undirected(graph)), simple + torch.eye(num_nodes))
    assert torch.equal(dense(undirected(graph, self_loops=False)), simple)


@needs_dgl
@given(edges())
def test_edges_in_the_order_of_dgl(example: tuple[Tensor, Tensor, int]) -> None:
    src, dst, num_nodes = example
    ours, theirs = Graph((src, dst), num_nodes), dgl.graph((src, dst), num_nodes=num_nodes)
    for mine, its in (
        (ours, theirs),
        (ours.reverse(), theirs.reverse()),
        (ours.add_self_loop(), theirs.add_self_loop()),
        (ours.remove_self_loop(), theirs.remove_self_loop()),
        (undirected(ours, self_loops=False), dgl.to_bidirected(theirs.remove_self_loop())),
        (batch([ours, ours.add_self_loop()]), dgl.batch([theirs, theirs.add_self_loop()])),
    ):
        for mine_end, its_end in zip(mine.edges(), its.edges(order="eid"), strict=True):
            assert torch.equal(mine_end, its_end)
        assert mine.num_nodes() == its.num_nodes()
        assert torch.equal(mine.batch_num_nodes(), its.batch_num_nodes())
        assert torch.equal(mine.batch_num_edges(), its.batch_num_edges())


def test_data_of_nodes_and_edges() -> None:
    graph = Graph(([0, 1], [1, 2]), 3)
    graph.ndata["feat"], graph.edata["weight"] = torch.eye(3), torch.ones(2)
    local = graph.local_var()
    local.ndata["feat"] = torch.zeros(3, 1)
    assert torch.equal(graph.ndata["feat"], torch.eye(3))
    both = batch([graph, graph])
    assert torch.equal(both.ndata["feat"], torch.cat([torch.eye(3)] * 2))
    assert torch.equal(both.edata["weight"], torch.ones(4))
    assert "feat" in graph.add_self_loop().ndata and not graph.add_self_loop().edata
    for frame, rows in ((graph.ndata, 3), (graph.edata, 2)):
        with pytest.raises(DGLError, match=f"has 4 rows: expected {rows}"):
            frame["feat"] = torch.zeros(4)
    for other in (copy.deepcopy(graph), pickle.loads(pickle.dumps(graph)), graph.to("cpu")):
        assert torch.equal(torch.stack(other.edges()), torch.stack(graph.edges()))
        assert torch.equal(other.ndata["feat"], torch.eye(3))
    assert graph.to("meta").ndata["feat"].device.type == "meta"
    assert graph.to("meta").device.type == "meta" and graph.device.type == "cpu"


@pytest.mark.parametrize(
    "given, message",
    [
        ((torch.zeros(3, 4).long(), 5), "shape"),
        ((torch.zeros(2, 4), 5), "torch.float32: they must be whole numbers"),
        ((torch.tensor([[0, 5], [1, 1]]), 5), "end 5, but the graph has 5 nodes.*0 to 4"),
        ((torch.tensor([[0, -1], [1, 1]]), 5), "end -1"),
        (sp.csr_matrix(np.ones((2, 3))), r"must be square; this one has shape \(2, 3\)"),
        (torch.eye(3), "The graph is a Tensor; allowed: a DGLGraph, .*SciPy.*PyTorch Geometric"),
        (HeteroData(), "The graph is a HeteroData"),
        (Data(x=torch.ones(3, 1)), "no edge_index"),
        (None, "The graph is a NoneType"),
    ],
)
def test_what_is_no_graph_is_an_error(given: Any, message: str) -> None:
    with pytest.raises(DGLError, match=message):
        as_graph(given)
    with pytest.raises(DGLError, match=message):
        aggregation_operator(given)


def random_graph(num_nodes: int, seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    ends = torch.randint(num_nodes, (2, 4 * num_nodes), generator=generator)
    return Graph(ends, num_nodes).add_self_loop()


def descriptions() -> dict[str, Any]:
    """The same batch of two graphs, or the same graph, in every form that is taken."""
    parts = [random_graph(9, 0), random_graph(7, 1)]
    whole, single = batch(parts), parts[0]
    matrix = sp.coo_matrix(
        (np.ones(single.num_edges()), tuple(end.numpy() for end in single.edges())), shape=(9, 9)
    )
    geometric = [
        Data(edge_index=torch.stack(part.edges()), num_nodes=part.num_nodes()) for part in parts
    ]
    return {
        "pair": (single, (torch.stack(single.edges()), 9)),
        "pair of arrays": (single, (torch.stack(single.edges()).numpy(), np.int64(9))),
        "int32": (single, (torch.stack(single.edges()).int(), 9)),
        "scipy": (single, matrix),
        "Data": (single, geometric[0]),
        "Batch": (whole, Batch.from_data_list(geometric)),
        "made": (single, make_graph(single.edges(), 9)),
        "batch made": (whole, batch([make_graph(p.edges(), p.num_nodes()) for p in parts])),
    }


@pytest.mark.parametrize("kind", descriptions())
@pytest.mark.parametrize("model", [ResGCN, ResGIN, ResGraphSAGE])
@pytest.mark.parametrize("head", ["node", "graph", "edge"])
def test_every_form_of_a_graph_gives_the_same_bits(
    kind: str, model: type[DeepGNN], head: str
) -> None:
    graph, form = descriptions()[kind]
    torch.manual_seed(0)
    network = model(4, 8, 3, num_layers=4, head=head)  # type: ignore[call-arg, arg-type]
    for parameter in network.parameters():  # branches start at zero
        torch.nn.init.normal_(parameter, std=0.3)
    feat = torch.randn(graph.num_nodes(), 4)
    expected = network(graph, feat)
    assert torch.equal(network(form, feat), expected)
    gradients = [
        torch.autograd.grad(network(g, feat).sum(), network.parameters()) for g in (graph, form)
    ]
    assert all(map(torch.equal, *gradients))


def test_geometric_features_become_data() -> None:
    edge_index = torch.tensor([[0, 1, 1], [1, 0, 1]])
    data = Data(x=torch.randn(2, 3), edge_index=edge_index, edge_attr=torch.randn(3, 2))
    graph = as_graph(data)
    assert torch.equal(graph.ndata["feat"], data.x)
    assert torch.equal(graph.edata["feat"], data.edge_attr)
    shuffled = Data(edge_index=edge_index, num_nodes=2, batch=torch.tensor([1, 0]))
    with pytest.raises(DGLError, match="sorted by graph"):
        as_graph(shuffled)


@settings(deadline=None, max_examples=30)
@given(edges(), st.booleans())
def test_trainable_weights_of_edges(example: tuple[Tensor, Tensor, int], on_dgl: bool) -> None:
    src, dst, num_nodes = example
    graph = make_graph((src, dst), num_nodes) if on_dgl else Graph((src, dst), num_nodes)
    generator = torch.Generator().manual_seed(0)
    weight = torch.rand(len(src), 1, generator=generator, dtype=torch.float64).requires_grad_()
    feat = torch.randn(num_nodes, 3, generator=generator, dtype=torch.float64).requires_grad_()
    matrix = torch.zeros(num_nodes, num_nodes, dtype=torch.float64)
    matrix = matrix.index_put((dst, src), weight[:, 0], accumulate=True)
    product = u_mul_e_sum(graph, feat, weight)
    torch.testing.assert_close(product, matrix @ feat)
    if len(src):
        upstream = torch.randn(product.shape, generator=generator, dtype=torch.float64)
        found = torch.autograd.grad(product, (feat, weight), upstream)
        expected = torch.autograd.grad(matrix @ feat, (feat, weight), upstream)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "model",
    ["resgcn64.digits", "resgin32.digits-grid", "resgcn32.tracks", "resgraphsage32.long-range"],
)
def test_embedded_data_are_those_that_models_were_trained_on(model: str) -> None:
    """Recorded with DGL's graphs: ours must have the same edges in the same order."""
    data = json.loads((ROOT / "zoo" / model / "config.json").read_text())["data"]
    assert load_data(data["name"], **data["options"]).fingerprint() == data["fingerprint"]
