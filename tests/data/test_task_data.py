from __future__ import annotations

from dataclasses import replace

import dgl
import pytest
import torch
from dgl import DGLError

from dgl_deepgnn.data import TaskData


def ring(nodes: int = 6, feats: int = 3, seed: int = 0) -> dgl.DGLGraph:
    graph = dgl.graph((torch.arange(nodes), (torch.arange(nodes) + 1) % nodes))
    graph.ndata["feat"] = torch.randn(nodes, feats, generator=torch.Generator().manual_seed(seed))
    return graph


def masks(items: int, train=(0, 1), val=(2,), test=(3,)) -> dict[str, torch.Tensor]:
    made = {part: torch.zeros(items, dtype=torch.bool) for part in ("train", "val", "test")}
    for part, index in (("train", train), ("val", val), ("test", test)):
        made[part][list(index)] = True
    return made


def task(**changes) -> TaskData:
    fields = {
        "name": "rings",
        "graphs": [ring(), ring(4, seed=1)],
        "level": "node",
        "target": "multiclass",
        "labels": torch.arange(10) % 3,
        "splits": [masks(10)],
        "num_outputs": 3,
    }
    return TaskData(**{**fields, **changes})


@pytest.mark.parametrize(
    ("level", "items"), [("node", [6, 4]), ("edge", [6, 4]), ("graph", [1, 1])]
)
def test_items(level, items):
    total = sum(items)
    if level == "graph":
        graphs = [ring(), ring(4), ring(5), ring(3)]
        made = task(level=level, graphs=graphs, labels=torch.arange(4) % 3, splits=[masks(4)])
        assert made.items_per_graph == [1, 1, 1, 1]
    else:
        made = task(level=level)
        assert made.items_per_graph == items
        assert made.num_items == total
    assert made.in_feats == 3
    assert made.edge_feats == 0


def test_edge_features_are_counted():
    graphs = [ring(), ring(4)]
    for graph in graphs:
        graph.edata["feat"] = torch.zeros(graph.num_edges(), 5)
    assert task(graphs=graphs).edge_feats == 5


def test_inductive_means_whole_graphs():
    by_graph = masks(10, train=range(6), val=(6, 7), test=(8, 9))
    three = [ring(6), ring(2), ring(2)]
    assert task(graphs=three, splits=[by_graph]).is_inductive()
    assert not task(graphs=three, splits=[by_graph, masks(10)]).is_inductive(1)
    assert not task(splits=[by_graph]).is_inductive()


def test_fingerprint_sees_every_part():
    base = task()
    assert base.fingerprint() == task().fingerprint() == task(name="other").fingerprint()
    changed_features = [ring(), ring(4, seed=2)]
    rewired = dgl.graph(([0, 1, 2, 3], [1, 2, 0, 3]))
    rewired.ndata["feat"] = ring(4, seed=1).ndata["feat"]
    labels = base.labels.clone()
    labels[9] = 1
    others = [
        task(graphs=changed_features),
        task(graphs=[ring(), rewired]),
        task(labels=labels),
        task(splits=[masks(10, test=(4,))]),
        task(splits=[masks(10), masks(10)]),
        task(num_outputs=4),
    ]
    assert len({base.fingerprint(), *(other.fingerprint() for other in others)}) == 7


def bad_feature(value: float) -> list[dgl.DGLGraph]:
    graphs = [ring(), ring(4)]
    graphs[1].ndata["feat"][2, 1] = value
    return graphs


def without_features() -> dgl.DGLGraph:
    return dgl.graph(([0], [1]))


def double_features() -> dgl.DGLGraph:
    graph = ring(4)
    graph.ndata["feat"] = graph.ndata["feat"].double()
    return graph


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"graphs": bad_feature(float("nan"))}, "nan: graph 1, node 2, column 1"),
        ({"graphs": bad_feature(float("inf"))}, "inf: graph 1, node 2, column 1"),
        ({"graphs": [ring(), ring(4, feats=2)]}, "graph 1 have 2 columns"),
        ({"graphs": [ring(), without_features()]}, "graph 1 has no node features"),
        ({"graphs": [ring(), double_features()]}, "torch.float64"),
        ({"graphs": []}, "no graphs"),
        ({"level": "nodes"}, "allowed: node, edge, graph"),
        ({"target": "classes"}, "allowed: multiclass"),
        ({"labels": torch.arange(9) % 3}, "9 labels for 10 nodes"),
        ({"labels": torch.full((10,), 3)}, "label is 3; allowed: 0 to 2"),
        ({"labels": torch.full((10,), -1)}, "label is -1; .* in none of the train, val"),
        ({"labels": torch.zeros(10)}, "must be torch.int64"),
        ({"labels": torch.zeros(10, 2).long()}, "shape \\(10, 2\\)"),
        ({"target": "binary"}, "one output"),
        ({"target": "binary", "num_outputs": 1}, "label is 2; allowed: 0 to 1"),
        ({"target": "multilabel"}, "needed with num_outputs=3: \\(10, 3\\)"),
        (
            {"target": "regression", "num_outputs": 1, "labels": torch.full((10,), float("nan"))},
            "not finite",
        ),
        ({"splits": []}, "no splits"),
        ({"splits": [masks(9)]}, "shape \\(9,\\)"),
        ({"splits": [masks(10, val=(0,))]}, "node 0\\); masks must be disjoint"),
        ({"splits": [masks(10, test=())]}, "test mask of split 0 is empty"),
        ({"splits": [{"train": torch.ones(10, dtype=torch.bool)}]}, "needed: train, val, test"),
        ({"info": {"weights": torch.ones(1)}}, "JSON"),
    ],
)
def test_unfit_parts_are_named(changes, words):
    with pytest.raises(DGLError, match=words):
        task(**changes)


def test_unused_items_may_have_any_label():
    labels = torch.arange(10) % 3
    labels[9] = -1
    assert task(labels=labels).labels[9] == -1


def test_heterogeneous_graph_is_refused():
    graph = dgl.heterograph({("user", "likes", "film"): ([0], [0])})
    with pytest.raises(DGLError, match="heterogeneous"):
        task(graphs=[graph])


def test_replace_checks_again():
    with pytest.raises(DGLError, match="labels for"):
        replace(task(), labels=torch.zeros(3).long())
