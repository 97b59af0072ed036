from __future__ import annotations

import dgl
import numpy as np
import pytest
import torch
from dgl import DGLError
from sklearn.preprocessing import OneHotEncoder

from dgl_deepgnn.data import load_data, prepare
from dgl_deepgnn.data.columns import Columns
from dgl_deepgnn.data.preparation import Preparation


def test_indicators_are_sklearns():
    rows = torch.tensor([[7, 1], [3, 0], [7, 0], [5, 1]])
    graph = dgl.graph(([0], [1]), num_nodes=4)
    graph.ndata["kind"] = rows
    columns = Columns.indicators("kind", [rows])
    expected = OneHotEncoder(sparse_output=False).fit_transform(rows.numpy())
    assert np.array_equal(columns.of(graph, graph.ndata, "here").numpy(), expected)
    graph.ndata["kind"] = rows.float()  # as a CSV file may have them
    assert np.array_equal(columns.of(graph, graph.ndata, "here").numpy(), expected)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (torch.tensor([3, 5, 4, 7]), r"row 2 has the value of 'kind' 4, .* training data: 3, 5, 7"),
        (torch.tensor([3, 5, 9, 7]), "row 2 has the value of 'kind' 9"),
        (torch.tensor([3, 5, 3.5, 7]), "row 2 has the value of 'kind' 3.5"),
        (torch.tensor([3, 5, float("nan"), 7]), "row 2 has the value of 'kind' nan"),
        (torch.tensor([[3, 5]] * 4), "has 2 columns, expected 1"),
        (None, r"ndata has no 'kind', of which the features are made: it has other"),
    ],
)
def test_what_has_no_column_is_told(value, says):
    graph = dgl.graph(([0], [1]), num_nodes=4)
    graph.ndata["other"] = torch.zeros(4)
    if value is not None:
        graph.ndata["kind"] = value
    columns = Columns.indicators("kind", [torch.tensor([7, 3, 5])])
    with pytest.raises(DGLError, match=says):
        columns.of(graph, graph.ndata, "graph 0: ndata")


def test_degrees_are_capped_and_unknown_ones_told():
    star = dgl.graph((torch.arange(1, 100), torch.zeros(99, dtype=torch.int64)))
    smaller = dgl.graph((torch.arange(1, 71), torch.zeros(70, dtype=torch.int64)))
    columns = Columns.degrees([star])
    assert columns.values == [[0, 64]]
    assert columns.of(smaller, {}, "here").sum(dim=0).tolist() == [70, 1]
    with pytest.raises(DGLError, match="row 1 has the in-degree 1"):
        columns.of(dgl.graph(([0], [1])), {}, "here")


def dense(graph: dgl.DGLGraph) -> torch.Tensor:
    counts = torch.zeros(graph.num_nodes(), graph.num_nodes())
    return counts.index_put_(graph.edges(), torch.ones(graph.num_edges()), accumulate=True)


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("bidirected", [True, False])
def test_edges_against_a_dense_matrix(level, self_loops, bidirected):
    """Of a graph that has self-loops and double edges already."""
    torch.manual_seed(0)
    graph = dgl.graph((torch.randint(0, 9, (40,)), torch.randint(0, 9, (40,))), num_nodes=9)
    graph.ndata["feat"] = torch.ones(9, 1)
    graph.edata["feat"] = torch.arange(1.0, 41)
    plan = Preparation(
        level=level,
        self_loops=self_loops,
        bidirected=bidirected,
        node=[Columns(field="feat")],
        edge=[Columns(field="feat")] if level == "edge" else [],
    )
    made = plan.apply(graph, "here")
    raw = dense(graph)
    loops = torch.eye(9) * raw
    if level == "edge":
        expected = raw + bidirected * (raw - loops).T + self_loops * torch.eye(9)
        src, dst = made.edges(order="eid")
        assert all(map(torch.equal, (src[:40], dst[:40]), graph.edges(order="eid")))
        feat = made.edata["feat"].squeeze(1)
        for edge, source in enumerate((feat.long() - 1).tolist()):
            if source < 0:
                assert src[edge] == dst[edge] and edge >= 40
            else:
                ends = {int(end[source]) for end in graph.edges(order="eid")}
                assert {int(src[edge]), int(dst[edge])} == ends
    elif bidirected:
        expected = (torch.maximum(raw, raw.T) > 0).float().fill_diagonal_(float(self_loops))
    else:
        expected = raw - loops + torch.eye(9) if self_loops else raw
    assert torch.equal(dense(made), expected)


def weights_by_hand(graph: dgl.DGLGraph, self_loops: bool, bidirected: bool) -> dict:
    """Weight of every pair of ends, as a mean over the raw edges that it stands for."""
    src, dst = graph.edges()
    pairs: dict[tuple[int, int], list[float]] = {}
    others = []
    for u, v, w in zip(src.tolist(), dst.tolist(), graph.edata["w"].tolist(), strict=True):
        if u == v:
            continue
        others.append(w)
        pairs.setdefault((u, v), []).append(w)
        if bidirected:
            pairs.setdefault((v, u), []).append(w)
    found = {pair: sum(some) / len(some) for pair, some in pairs.items()}
    if self_loops:
        mean = sum(others) / len(others) if others else 1.0
        found |= {(u, u): mean for u in range(graph.num_nodes())}
    return found


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("level", ["node", "graph", "edge"])
def test_weights_against_those_by_hand(level, self_loops):
    torch.manual_seed(0)
    for nodes, edges in ((8, 30), (5, 0), (1, 3), (0, 0)):
        graph = dgl.graph(
            (torch.randint(nodes, (2, edges)) if nodes else torch.zeros(2, 0).long()).unbind(),
            num_nodes=nodes,
        )
        graph.edata["w"] = torch.rand(edges)
        graph.ndata["feat"] = torch.ones(nodes, 1)
        options = {"level": level, "self_loops": self_loops, "node": [Columns(field="feat")]}
        both = Preparation(bidirected=True, edge_weight="w", **options).apply(graph, "it")
        one_way = Preparation(bidirected=False, edge_weight="w", **options).apply(graph, "it")
        for made in (both, one_way):
            assert made.edata["weight"].shape == (made.num_edges(),)
        if level != "edge":
            found = list(zip(*(e.tolist() for e in both.edges()), strict=True))
            by_hand = weights_by_hand(graph, self_loops, True)
            assert set(found) == set(by_hand) and len(found) == len(by_hand)
            expected = torch.tensor([by_hand[pair] for pair in found])
            torch.testing.assert_close(both.edata["weight"], expected)
            # Parallel edges stay as they are: their weights add up as theirs did.
            by_hand = weights_by_hand(graph, self_loops, False)
            src, dst = one_way.edges()
            loops = src == dst
            if self_loops:
                raw = graph.edata["w"][graph.edges()[0] != graph.edges()[1]]
                assert torch.equal(one_way.edata["weight"][~loops], raw)
                mean = torch.tensor([by_hand[u, u] for u in range(nodes)])
                torch.testing.assert_close(one_way.edata["weight"][loops], mean)
            else:
                assert torch.equal(one_way.edata["weight"], graph.edata["w"])
        else:
            assert torch.equal(one_way.edata["weight"][:edges], graph.edata["w"])
            other = graph.edges()[0] != graph.edges()[1]
            reverse = both.edata["weight"][edges : edges + int(other.sum())]
            assert torch.equal(reverse, graph.edata["w"][other])


@pytest.mark.parametrize("bidirected", [True, False])
@pytest.mark.parametrize("level", ["node", "graph"])
def test_edge_features_are_weights_but_for_the_loops(level, bidirected):
    torch.manual_seed(0)
    graph = dgl.graph((torch.randint(8, (30,)), torch.randint(8, (30,))), num_nodes=8)
    graph.edata["w"], graph.ndata["feat"] = torch.rand(30), torch.ones(8, 1)
    graph.edata["pair"] = torch.stack([graph.edata["w"], 2 - graph.edata["w"]], dim=1)
    made = Preparation(
        level=level,
        self_loops=True,
        bidirected=bidirected,
        node=[Columns(field="feat")],
        edge=[Columns(field="pair")],
        edge_weight="w",
    ).apply(graph, "it")
    src, dst = made.edges()
    feat, weight = made.edata["feat"], made.edata["weight"]
    assert not feat[src == dst].any() and int((src == dst).sum()) == 8
    other = src != dst
    expected = torch.stack([weight, 2 - weight], dim=1)[other]
    torch.testing.assert_close(feat[other], expected)


@pytest.mark.parametrize("bidirected", [True, False])
@pytest.mark.parametrize("level", ["node", "edge"])
def test_weights_of_one_are_no_weights(level, bidirected):
    torch.manual_seed(0)
    graph = dgl.rand_graph(10, 40)
    graph.edata["w"] = torch.full((40, 1), 3.0)  # nor are those that are all alike
    graph.ndata["feat"] = torch.ones(10, 1)
    made = Preparation(
        level=level,
        self_loops=True,
        bidirected=bidirected,
        node=[Columns(field="feat")],
        edge_weight="w",
    ).apply(graph, "it")
    torch.testing.assert_close(made.edata["weight"], torch.full((made.num_edges(),), 3.0))


@pytest.mark.parametrize(
    ("weight", "says"),
    [
        (torch.full((40,), -1.0), "an edge weight is -1: graph 0, edge 0; weights of the aggr"),
        (torch.full((40,), float("nan")), "an edge weight is nan"),
        (torch.zeros(40), "all edge weights of graph 0 are zero"),
        (torch.ones(40, 2), r"edata\['w'\] has shape \(40, 2\); edge weights are one number"),
        (None, "edata has no 'w', the edge weights: it has nothing"),
    ],
)
def test_what_is_no_weight(tmp_path, weight, says):
    graph = dgl.rand_graph(10, 40)
    graph.ndata["feat"], graph.ndata["label"] = torch.rand(10, 2), torch.arange(10) % 2
    if weight is not None:
        graph.edata["w"] = weight
    dgl.save_graphs(str(tmp_path / "mine.bin"), [graph])
    with pytest.raises(DGLError, match=says):
        load_data(f"file:{tmp_path / 'mine.bin'}", edge_weight="w")


def test_a_batch_is_told_to_wait():
    graph = dgl.graph(([0, 1], [1, 2]))
    graph.ndata["feat"] = torch.rand(3, 3)
    graph.ndata["mine"] = torch.arange(3)
    plan = Preparation(
        level="graph", self_loops=True, bidirected=True, node=[Columns(field="feat")]
    )
    record = {"preparation": plan.model_dump(), "features": {"node": {"transform": "none"}}}
    ready = prepare(graph, record, {"node": 3}, "The graph")
    assert torch.equal(ready.ndata["mine"], graph.ndata["mine"])
    with pytest.raises(DGLError, match="prepare the graphs first"):
        prepare(dgl.batch([graph, graph]), record, {"node": 3}, "The batch")
    record["preparation"] = None  # scaling alone
    assert prepare(dgl.batch([graph, graph]), record, {"node": 3}, "The batch").batch_size == 2


def test_a_graph_without_dgl():
    edges = torch.tensor([[0, 1], [1, 2]])
    plan = Preparation(
        level="node", self_loops=True, bidirected=True, node=[Columns(field=None, values=[[0, 1]])]
    )
    record = {"preparation": plan.model_dump(), "features": {"node": {"transform": "none"}}}
    ready = prepare((edges, 3), record, {"node": 2}, "The graph")
    assert ready.num_edges() == 7
    assert ready.ndata["feat"].tolist() == [[1, 0], [0, 1], [0, 1]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g.ndata.pop("feat"), r"has no ndata\['feat'\]; the model reads 3 features"),
        (lambda g: g.ndata.update(feat=torch.ones(4, 2)), r"\(4, 2\).*expected \(4, 3\)"),
        (lambda g: g.ndata["feat"].fill_(float("inf")), "not finite"),
    ],
)
def test_graphs_that_cannot_be_prepared(change, says):
    graph = dgl.graph(([0, 1], [1, 2]), num_nodes=4)
    graph.ndata["feat"] = torch.ones(4, 3)
    record = {"preparation": None, "features": {"node": {"transform": "none"}}}
    assert prepare(graph, record, {"node": 3}, "Mine").num_edges() == 2
    change(graph)
    with pytest.raises(DGLError, match=says):
        prepare(graph, record, {"node": 3}, "Mine")
    with pytest.raises(DGLError, match="Mine is heterogeneous"):
        prepare(dgl.heterograph({("a", "b", "c"): ([0], [0])}), record, {}, "Mine")
