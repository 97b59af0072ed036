from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError

from dgl_deepgnn.data.from_graphs import task_from_graphs

INFO = {"citation": "", "licence": "", "description": ""}


def build(graphs, graph_data=None, **options):
    return task_from_graphs("mine", graphs, graph_data or {}, info=INFO, **options)


def path(nodes: int = 20) -> dgl.DGLGraph:
    graph = dgl.graph((torch.arange(nodes - 1), torch.arange(1, nodes)))
    graph.ndata["feat"] = torch.arange(2.0 * nodes).reshape(nodes, 2)
    return graph


def thirds(items: int) -> dict[str, torch.Tensor]:
    return {
        f"{part}_mask": torch.arange(items) % 3 == i
        for i, part in enumerate(("train", "val", "test"))
    }


def test_node_task_with_masks():
    graph = path()
    graph.ndata["label"] = torch.arange(20) % 3
    graph.ndata.update(thirds(20))
    task = build([graph], bidirected=True)
    assert (task.level, task.target, task.num_outputs) == ("node", "multiclass", 3)
    assert task.graphs[0].num_edges() == 2 * 19 + 20
    assert torch.equal(task.splits[0]["val"], graph.ndata["val_mask"])
    assert set(task.graphs[0].ndata) == {"feat"}
    assert build([graph], self_loops=False).graphs[0].num_edges() == 19


def test_several_masks_become_several_splits():
    graph = path(21)
    graph.ndata["label"] = torch.arange(21) % 2
    for part, mask in thirds(21).items():
        graph.ndata[part] = torch.stack([mask, mask.roll(1)], dim=1).to(torch.uint8)
    graph.ndata["test_mask"] = graph.ndata["test_mask"]
    task = build([graph], target="binary")
    assert len(task.splits) == 2
    assert torch.equal(task.splits[1]["train"], task.splits[0]["train"].roll(1))


def test_edge_task_scores_only_the_given_edges():
    graph = path(10)
    graph.edata["label"] = torch.arange(9) % 2 == 0
    graph.edata["feat"] = torch.arange(1.0, 10.0).unsqueeze(1)
    graph.edata.update(thirds(9))
    task = build([graph], bidirected=True)
    made = task.graphs[0]
    assert (task.level, task.target, made.num_edges()) == ("edge", "binary", 9 + 9 + 10)
    src, dst = made.edges(order="eid")
    assert torch.equal(src[9:18], dst[:9]) and torch.equal(src[18:], dst[18:])
    for part, mask in task.splits[0].items():
        assert torch.equal(mask[:9], graph.edata[f"{part}_mask"])
        assert not mask[9:].any()
    assert torch.equal(task.labels[:9], task.labels[9:18])
    assert torch.equal(made.edata["feat"][:9], made.edata["feat"][9:18])
    assert not made.edata["feat"][18:].any()


def test_edge_task_draws_a_split_of_the_given_edges():
    graph = path(21)
    graph.edata["label"] = torch.arange(20) % 2
    task = build([graph], bidirected=True)
    used = sum(mask.long() for mask in task.splits[0].values())
    assert not used[20:].any()


def test_graph_task_without_features_counts_degrees():
    graphs = [dgl.rand_graph(6, 12) for _ in range(10)]
    task = build(graphs, {"labels": torch.rand(10, 1)})
    assert (task.level, task.target, task.num_outputs) == ("graph", "regression", 1)
    degrees = torch.cat([graph.in_degrees() for graph in graphs])
    assert task.in_feats == len(degrees.unique())
    assert sum(int(mask.sum()) for mask in task.splits[0].values()) == 10


def test_integer_features_become_indicators():
    graph = path(5)
    graph.ndata["feat"] = torch.tensor([3, 5, 3, 9, 5])
    graph.ndata["label"] = torch.tensor([0.5, 1, 2, 3, 4])
    task = build([graph])
    assert task.target == "regression"
    assert task.graphs[0].ndata["feat"].argmax(dim=1).tolist() == [0, 1, 0, 2, 1]


def test_as_many_labels_as_graphs():
    graphs = [dgl.rand_graph(4, 8) for _ in range(6)]
    with pytest.raises(DGLError, match="6 graphs, but 5 labels"):
        build(graphs, {"label": torch.arange(5) % 2})


def test_many_graphs_are_split_whole():
    graphs = []
    for _ in range(10):
        graph = path(6)
        graph.ndata["label"] = torch.randint(0, 2, (6, 4))
        graphs.append(graph)
    task = build(graphs)
    assert task.target == "multilabel" and task.num_outputs == 4
    assert task.is_inductive()
    assert not torch.equal(task.splits[0]["test"], build(graphs, seed=1).splits[0]["test"])


def test_ambiguous_and_missing_fields():
    graph = path()
    with pytest.raises(DGLError, match="no labels: put them under 'label'"):
        build([graph])
    graph.ndata["label"] = torch.arange(20) % 2
    graph.edata["label"] = torch.arange(19) % 2
    with pytest.raises(DGLError, match="several levels \\(node, edge\\)"):
        build([graph])
    assert build([graph], level="edge").level == "edge"
    with pytest.raises(DGLError, match="no graph labels"):
        build([graph], level="graph")
    with pytest.raises(DGLError, match="allowed: node, edge, graph"):
        build([graph], level="nodes")
    graph.ndata["train_mask"] = torch.ones(20, dtype=torch.bool)
    with pytest.raises(DGLError, match="no val_mask, test_mask"):
        build([graph], level="node")


def test_fractional_classes_are_refused():
    graph = path()
    graph.ndata["label"] = torch.rand(20)
    with pytest.raises(DGLError, match="whole numbers"):
        build([graph], target="multiclass")


def test_heterogeneous_graphs_are_refused():
    graph = dgl.heterograph({("user", "likes", "film"): ([0], [0])})
    with pytest.raises(DGLError, match="heterogeneous"):
        build([graph])


@pytest.mark.parametrize("level", ["node", "edge"])
def test_graphs_without_items(level):
    graph = dgl.graph(([], []))
    for frame, width in ((graph.ndata, 3), (graph.edata, 1)):
        frame["feat"] = torch.zeros(0, width)
    frame = graph.ndata if level == "node" else graph.edata
    frame["label"] = torch.zeros(0, dtype=torch.long)
    with pytest.raises(DGLError, match=f"'mine' has no {level}s"):
        build([graph])
