"""Batches: every item once, and every label, mask and feature with its item."""

from __future__ import annotations

from typing import Any

import dgl
import pytest
import torch
from dgl import DGLError
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.nn import create_model
from dgl_deepgnn.recipe import BatchingSection, TrainingSection
from dgl_deepgnn.training.batches import Batch, Batches

CPU = torch.device("cpu")
PARTS = ("train", "val", "test")


def numbered_task(level: str, sizes: list[int], inductive: bool, seed: int = 0) -> TaskData:
    """Random graphs in which every node, edge and label carries its own number."""
    random = torch.Generator().manual_seed(seed)
    graphs = []
    nodes = edges = 0
    for index, size in enumerate(sizes):
        ends = torch.randint(size, (2, 3 * size), generator=random)
        graph = dgl.graph((ends[0], ends[1]), num_nodes=size)
        number = torch.arange(nodes, nodes + size).float()
        graph.ndata["feat"] = torch.stack([number, torch.full((size,), float(index))], dim=1)
        graph.edata["feat"] = torch.arange(edges, edges + 3 * size).float()[:, None]
        nodes, edges = nodes + size, edges + 3 * size
        graphs.append(graph)
    per_graph = {
        "node": torch.tensor(sizes),
        "edge": 3 * torch.tensor(sizes),
        "graph": torch.ones(len(sizes), dtype=torch.long),
    }[level]
    items = int(per_graph.sum())
    if inductive:  # graph i is in part i mod 4; the fourth is in none
        part_of = (torch.arange(len(sizes)) % 4).repeat_interleave(per_graph)
    else:
        part_of = torch.randint(4, (items,), generator=random)
        part_of[:3] = torch.arange(3)
    masks = {part: part_of == index for index, part in enumerate(PARTS)}
    other = {part: part_of == (index + 1) % 3 for index, part in enumerate(PARTS)}
    labels = torch.arange(items).float()
    return TaskData("numbered", graphs, level, "regression", labels, [masks, other], 1)


def model_for(data: TaskData, **arguments: Any):
    if data.level == "edge":
        arguments["edge_feats"] = data.edge_feats
    return create_model(
        "resgcn",
        in_feats=data.in_feats,
        hidden_feats=4,
        out_feats=data.num_outputs,
        num_layers=3,
        head=data.level,
        **arguments,
    )


def batching(batch_size: int | None = None, clusters: int | None = None) -> BatchingSection:
    """From version 0.1's keys."""
    older = {"epochs": 1, "batch_size": batch_size, "clusters": clusters}
    return TrainingSection.model_validate(older).batching


def batches_of(data: TaskData, batch_size=None, clusters=None, split: int = 0) -> Batches:
    return Batches(data, split, model_for(data), batching(batch_size, clusters), CPU)


def check_alignment(batch: Batch, data: TaskData, split: int = 0) -> list[int]:
    """Every label, mask and feature belongs to the same item; numbers of the items."""
    items = batch.labels.long()
    for part in PARTS:
        assert torch.equal(batch.masks[part], data.splits[split][part][items])
    graph = batch.operator.graph
    if data.level == "node":
        assert torch.equal(batch.feat[:, 0], batch.labels)
    elif data.level == "edge":
        assert torch.equal(batch.edge_feat[:, 0], batch.labels)
        src, dst = (torch.cat(ends) for ends in zip(*(g.edges() for g in data.graphs), strict=True))
        shift = torch.tensor([g.num_nodes() for g in data.graphs]).cumsum(0)
        which = torch.tensor([g.num_edges() for g in data.graphs])
        offset = torch.cat([torch.zeros(1, dtype=torch.long), shift[:-1]]).repeat_interleave(which)
        got = graph.edges(order="eid")
        assert torch.equal(batch.feat[got[0], 0], (src + offset)[items].float())
        assert torch.equal(batch.feat[got[1], 0], (dst + offset)[items].float())
    else:
        firsts = graph.batch_num_nodes().cumsum(0) - 1
        assert torch.equal(batch.feat[firsts, 1], batch.labels)
    return items.tolist()


levels = st.sampled_from(["node", "edge", "graph"])


@settings(max_examples=25, deadline=None)
@given(
    level=levels,
    sizes=st.lists(st.integers(2, 6), min_size=4, max_size=9),
    inductive=st.booleans(),
    batch_size=st.none() | st.integers(1, 12),
    split=st.integers(0, 1),
)
def test_every_item_once_and_in_line(level, sizes, inductive, batch_size, split) -> None:
    data = numbered_task(level, sizes, inductive)
    batches = batches_of(data, batch_size, split=split)
    seen = [item for batch in batches.evaluation for item in check_alignment(batch, data, split)]
    assert seen == list(range(data.num_items))

    # By hand: the graphs that hold at least one training item.
    starts = [sum(data.items_per_graph[:i]) for i in range(len(sizes))]
    groups = [
        range(start, start + size) for start, size in zip(starts, data.items_per_graph, strict=True)
    ]
    mask = data.splits[split]["train"]
    expected = sorted(i for group in groups if any(mask[i] for i in group) for i in group)

    epoch = list(batches.training(torch.Generator().manual_seed(0)))
    assert len(epoch) == batches.steps_per_epoch
    seen = [item for batch in epoch for item in check_alignment(batch, data, split)]
    assert sorted(seen) == expected
    if batch_size is not None:
        sizes_seen = [batch.operator.graph.batch_size for batch in epoch]
        assert all(size == batch_size for size in sizes_seen[:-1])
        assert 1 <= sizes_seen[-1] <= batch_size


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
def test_operator_is_the_model_s_for_the_batched_graph(level: str) -> None:
    data = numbered_task(level, [3, 4, 5, 6, 2], inductive=False)
    model = model_for(data)
    (batch,) = Batches(data, 0, model, batching(), CPU).evaluation
    graph = dgl.batch(data.graphs)
    feat = torch.randn(graph.num_nodes(), 3)
    assert torch.equal(batch.operator @ feat, model.operator(graph) @ feat)
    expected = model(graph, graph.ndata["feat"], edge_feat=batch.edge_feat)
    assert torch.equal(batch.scores(model), expected)


@pytest.mark.parametrize("norm", ["both", "right", "none"])
@pytest.mark.parametrize("level", ["node", "edge", "graph"])
def test_scores_do_not_depend_on_the_batching(level: str, norm: str) -> None:
    data = numbered_task(level, [3, 4, 5, 6, 2], inductive=True)
    model = model_for(data, norm=norm)
    whole = Batches(data, 0, model, batching(), CPU).evaluation
    pieces = Batches(data, 0, model, batching(2), CPU).evaluation
    assert len(pieces) == 3
    torch.testing.assert_close(
        torch.cat([b.scores(model) for b in pieces]),
        torch.cat([b.scores(model) for b in whole]),
        rtol=1e-4,
        atol=1e-4,
    )


def test_transductive_trains_on_what_it_evaluates() -> None:
    data = load_data("karate")
    batches = batches_of(data)
    (batch,) = batches.training(torch.Generator())
    assert batch is batches.evaluation[0]  # made once
    assert torch.equal(batch.feat.to_dense(), data.graphs[0].ndata["feat"])
    assert torch.equal(batch.labels, data.labels)
    assert all(torch.equal(batch.masks[part], data.splits[0][part]) for part in PARTS)


def test_features_of_one_graph_are_not_copied() -> None:
    data = numbered_task("edge", [9], inductive=False)
    (batch,) = batches_of(data).training(torch.Generator())
    (graph,) = data.graphs
    assert batch.feat.data_ptr() == graph.ndata["feat"].data_ptr()
    assert batch.edge_feat.data_ptr() == graph.edata["feat"].data_ptr()


def test_epochs_are_shuffled_and_reproducible() -> None:
    data = numbered_task("graph", [3] * 40, inductive=True)
    batches = batches_of(data, batch_size=1)

    def order(generator: torch.Generator) -> list[float]:
        return [batch.labels.item() for batch in batches.training(generator)]

    generator = torch.Generator().manual_seed(3)
    first, second = order(generator), order(generator)
    assert first != second and sorted(first) == sorted(second) == list(range(0, 40, 4))
    assert order(torch.Generator().manual_seed(3)) == first


# --- clusters of one large graph ---


def one_graph(level: str, nodes: int = 200) -> TaskData:
    data = numbered_task(level, [nodes], inductive=False)
    return data


@pytest.mark.parametrize("clusters", [2, 7])
@pytest.mark.parametrize("level", ["node", "edge"])
def test_clusters(level: str, clusters: int, capfd: pytest.CaptureFixture[str]) -> None:
    data = one_graph(level)
    batches = batches_of(data, batch_size=1, clusters=clusters)
    epoch = list(batches.training(torch.Generator().manual_seed(0)))
    assert len(epoch) == batches.steps_per_epoch <= clusters
    items = [item for batch in epoch for item in check_alignment_of_cut(batch, data)]
    assert len(items) == len(set(items))
    # Node n is in the cluster of the batch it was seen in; an edge within a cluster is kept.
    cluster = torch.full((data.graphs[0].num_nodes(),), -1)
    for index, batch in enumerate(epoch):
        assert batch.feat.shape[0] < 0.75 * data.graphs[0].num_nodes()
        cluster[batch.feat[:, 0].long()] = index
    assert (cluster >= 0).all()
    src, dst = data.graphs[0].edges(order="eid")
    inside = cluster[src] == cluster[dst]
    assert sum(batch.operator.graph.num_edges() for batch in epoch) == int(inside.sum())
    if level == "node":
        assert sorted(items) == list(range(data.num_items))
    else:
        assert sorted(items) == inside.nonzero().flatten().tolist()
    # Evaluation is on the uncut graph.
    (batch,) = batches.evaluation
    assert batch.labels.tolist() == data.labels.tolist()
    assert capfd.readouterr() == ("", "")  # C++'s, too


def check_alignment_of_cut(batch: Batch, data: TaskData) -> list[int]:
    items = batch.labels.long()
    for part in PARTS:
        assert torch.equal(batch.masks[part], data.splits[0][part][items])
    if data.level == "node":
        assert torch.equal(batch.feat[:, 0], batch.labels)
        return items.tolist()
    assert torch.equal(batch.edge_feat[:, 0], batch.labels)
    src, dst = data.graphs[0].edges(order="eid")
    got = batch.operator.graph.edges(order="eid")
    assert torch.equal(batch.feat[got[0], 0].long(), src[items])
    assert torch.equal(batch.feat[got[1], 0].long(), dst[items])
    return items.tolist()


def test_clusters_keep_most_edges_and_do_not_change() -> None:
    # Two communities, self-loops included: METIS finds them, the same way each time.
    options = {"num_nodes": 300, "num_classes": 2, "homophily": 0.95, "avg_degree": 12.0}
    cuts = []
    for _ in range(3):
        data = load_data("csbm", **options)
        epoch = list(batches_of(data, 1, 2).training(torch.Generator().manual_seed(0)))
        kept = sum(batch.operator.graph.num_edges() for batch in epoch)
        assert kept > 0.9 * data.graphs[0].num_edges()
        cuts.append([batch.labels.tolist() for batch in epoch])
    assert cuts[0] == cuts[1] == cuts[2]


def test_clusters_several_a_step() -> None:
    data = one_graph("node")
    epoch = list(batches_of(data, 3, 7).training(torch.Generator().manual_seed(0)))
    assert [batch.operator.graph.batch_size for batch in epoch] == [3, 3, 1]


@pytest.mark.parametrize(
    ("data", "clusters", "message"),
    [
        (numbered_task("node", [4] * 4, True), 2, "4 graphs and node labels"),
        (numbered_task("graph", [4] * 4, True), 2, "4 graphs and graph labels"),
        (load_data("karate"), 35, "parts is 35, but the graph of karate has only 34 nodes"),
    ],
)
def test_clusters_that_cannot_be(data: TaskData, clusters: int, message: str) -> None:
    with pytest.raises(DGLError, match=message):
        batches_of(data, 1, clusters)


def test_as_many_clusters_as_nodes() -> None:
    data = load_data("karate")
    epoch = list(batches_of(data, 1, 34).training(torch.Generator()))
    assert sum(int(batch.masks["train"].sum()) for batch in epoch) == 6


def test_bags_of_words_are_sparse_and_score_the_same() -> None:
    data = numbered_task("node", [30], inductive=False)
    (graph,) = data.graphs
    words = (torch.rand(30, 40, generator=torch.Generator().manual_seed(0)) < 0.05).float()
    graph.ndata["feat"] = words
    model = model_for(data)
    batches = Batches(data, 0, model, batching(), CPU)
    (batch,) = batches.evaluation
    assert batch.feat.layout == torch.sparse_csr
    torch.testing.assert_close(batch.scores(model), model(graph, words))
