"""Operators that are remembered are those that would be built."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import dgl
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch_geometric.data import Batch, Data

from dgl_deepgnn import ResGCN, ResGIN, ResGraphSAGE, aggregation_operator
from dgl_deepgnn.graph import Graph
from dgl_deepgnn.operator import memory
from dgl_deepgnn.operator.memory import remembered_operator


@pytest.fixture(autouse=True)
def builds(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What was built; each test starts without memories."""
    built: list[Any] = []

    def count(*args: Any, **kwargs: Any) -> Any:
        built.append(args)
        return aggregation_operator(*args, **kwargs)

    monkeypatch.setattr(memory, "aggregation_operator", count)
    memory._entries.clear()
    yield built
    memory._entries.clear()


def ends(num_nodes: int = 12, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    loops = torch.arange(num_nodes).expand(2, -1)
    return torch.cat([torch.randint(num_nodes, (2, 30), generator=generator), loops], dim=1)


def dense(graph: Any, weight: Tensor | None = None) -> Tensor:
    return aggregation_operator(graph, "both", 0.5, weight) @ torch.eye(graph.num_nodes())


CHANGES: dict[str, Callable[[dgl.DGLGraph], Any]] = {
    "add_edges": lambda graph: graph.add_edges([0, 1], [1, 2]),
    "remove_edges": lambda graph: graph.remove_edges([0]),
    "one for another": lambda graph: (
        graph.add_edges([5], [1]),
        graph.remove_edges([0]),
    ),
    "add_nodes": lambda graph: (graph.add_nodes(1), graph.add_edges([12], [12])),
    "remove_nodes": lambda graph: graph.remove_nodes([3]),
    "sizes of the batch": lambda graph: graph.set_batch_num_nodes(torch.tensor([12])),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_in_place_are_noticed(change: str, builds: list[Any]) -> None:
    halves = [dgl.graph(tuple(ends(6, seed).clone()), num_nodes=6) for seed in (0, 1)]
    graph = dgl.batch(halves)
    for _ in range(3):
        operator = remembered_operator(graph, "both", 0.5)
        assert torch.equal(operator @ torch.eye(12), dense(graph))
    assert len(builds) == 1
    CHANGES[change](graph)
    operator = remembered_operator(graph, "both", 0.5)
    assert len(builds) == 2
    assert operator.shape == (graph.num_nodes(),) * 2
    assert torch.equal(operator @ torch.eye(graph.num_nodes()), dense(graph))
    assert remembered_operator(graph, "both", 0.5) is operator


def test_settings_are_told_apart(builds: list[Any]) -> None:
    graph = Graph(ends())
    settings = [("both", 1.0, None), ("right", 1.0, None), ("both", 0.5, None), ("both", 1.0, 2.0)]
    for _ in range(2):
        for norm, t, radius in settings:
            found = remembered_operator(graph, norm, t, spectral_radius=radius)  # type: ignore[arg-type]
            made = aggregation_operator(graph, norm, t, spectral_radius=radius)  # type: ignore[arg-type]
            assert torch.equal(found @ torch.eye(12), made @ torch.eye(12))
    assert len(builds) == len(settings)


def test_edge_weights(builds: list[Any]) -> None:
    graph = dgl.graph(tuple(ends()))
    weight = torch.rand(graph.num_edges())
    first = remembered_operator(graph, "both", 0.5, weight)
    assert remembered_operator(graph, "both", 0.5, weight.clone()) is first
    weight.data[3] += 1  # no version of the tensor tells
    second = remembered_operator(graph, "both", 0.5, weight)
    assert torch.equal(second @ torch.eye(12), dense(graph, weight))
    third = remembered_operator(graph, "both", 0.5)
    assert torch.equal(third @ torch.eye(12), dense(graph))
    assert len(builds) == 3


def test_trainable_edge_weights_are_not_remembered(builds: list[Any]) -> None:
    graph, weight = Graph(ends()), torch.ones(42, requires_grad=True)
    model = ResGCN(4, 8, 3, num_layers=3)
    for _ in range(2):
        model(graph, torch.randn(12, 4), weight).sum().backward()
    assert len(builds) == 2 and not memory._entries
    assert weight.grad is not None


def test_written_into_edge_index(builds: list[Any]) -> None:
    edge_index = ends()
    for _ in range(2):
        remembered_operator((edge_index, 12), "both", 0.5)
    assert len(builds) == 1
    edge_index[1, 0] = (edge_index[1, 0] + 1) % 12
    operator = remembered_operator((edge_index, 12), "both", 0.5)
    assert torch.equal(operator @ torch.eye(12), dense(Graph(edge_index)))
    wider = remembered_operator((edge_index, 13), "both", 0.5)
    assert wider.shape == (13, 13)


def forms() -> dict[str, Any]:
    data = Data(edge_index=ends(), num_nodes=12)
    ones = np.ones(42)
    return {
        "DGL": dgl.graph(tuple(ends())),
        "Graph": Graph(ends()),
        "SciPy": sp.coo_matrix((ones, tuple(ends().numpy())), shape=(12, 12)),
        "Data": data,
        "Batch": Batch.from_data_list([data, data]),
    }


@pytest.mark.parametrize("form", forms())
def test_memory_ends_with_the_graph(form: str, builds: list[Any]) -> None:
    graph = forms()[form]
    model = ResGIN(4, 8, 3, num_layers=3)
    feat = torch.randn(24 if form == "Batch" else 12, 4)
    for _ in range(3):
        model(graph, feat)
    assert len(builds) == 1
    kept = weakref.ref(next(iter(memory._entries.values())).operator)
    del graph, builds[:]
    gc.collect()
    assert not memory._entries
    assert kept() is None


def test_memory_is_bounded(builds: list[Any]) -> None:
    graphs = [Graph(ends(seed=seed)) for seed in range(memory.MOST + 1)]
    for graph in graphs:
        remembered_operator(graph, "both", 1.0)
    assert len(memory._entries) == memory.MOST
    remembered_operator(graphs[-1], "both", 1.0)
    assert len(builds) == len(graphs)
    remembered_operator(graphs[0], "both", 1.0)  # the one used least recently was given up
    assert len(builds) == len(graphs) + 1


class Copies(TorchFunctionMode):
    """What leaves for the host, or for another device, of at least so many numbers."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least, self.seen = least, list[str]()

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name, given = getattr(func, "__name__", ""), args[0] if args else None
        if isinstance(given, Tensor) and given.numel() >= self.least:
            moved = isinstance(out, Tensor) and out.device != given.device
            if moved or name in ("cpu", "numpy", "tolist"):
                self.seen.append(name)
        return out


def _needs_meta_csr() -> None:
    try:
        ends, indices = torch.tensor([0, 1], device="meta"), torch.tensor([0], device="meta")
        torch.sparse_csr_tensor(ends, indices, torch.ones(1, device="meta"), size=(1, 1))
    except RuntimeError:
        pytest.skip("this PyTorch has no CSR matrices on the meta device")


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
@pytest.mark.parametrize("model", [ResGCN, ResGraphSAGE, ResGIN])
@pytest.mark.parametrize("form", ["DGL", "Graph"])
def test_features_on_another_device(form: str, model: type, head: str, builds: list[Any]) -> None:
    """The graph is copied there once, when the operator is built, and never to the host again."""
    _needs_meta_csr()
    graph, net = forms()[form], model(4, 8, 3, num_layers=4, head=head).to("meta")
    feat = torch.empty(12, 4, device="meta")
    rows = {"node": 12, "graph": 1, "edge": graph.num_edges()}[head]
    for step in range(3):
        with Copies(least=12) as copies:
            scores = net(graph, feat)
            scores.sum().backward()
        assert scores.shape == (rows, 3) and scores.is_meta
        assert all(weight.grad is not None for weight in net.parameters())
        assert bool(copies.seen) == (step == 0)
    assert len(builds) == 1


@pytest.mark.parametrize("head", ["node", "graph", "edge"])
def test_graph_and_features_on_another_device(head: str) -> None:
    """A step with an operator reads nothing of the graph on the host: there it has no numbers."""
    _needs_meta_csr()
    net = ResGCN(4, 8, 3, num_layers=4, head=head).to("meta")
    operator = net.operator(Graph(ends()))
    operator.graph = operator.graph.to("meta")
    net(operator, torch.empty(12, 4, device="meta")).sum().backward()
    assert all(weight.grad is not None for weight in net.parameters())


def test_blocks_are_not_remembered(builds: list[Any]) -> None:
    block = dgl.to_block(dgl.graph(tuple(ends())))
    for _ in range(2):
        remembered_operator(block, "right", 1.0)
    assert len(builds) == 2 and not memory._entries
