"""Parts of one large graph: what a step sees, the same one again after a resume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from pydantic import ValidationError

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.nn import DeepGNN, create_model
from dgl_deepgnn.operator.aggregation import aggregation_operator
from dgl_deepgnn.recipe import BatchingSection, ModelSection, Recipe, TrainingSection
from dgl_deepgnn.training import RunFolder, build_model, sampling, train
from dgl_deepgnn.training.batches import Batch, Batches

CPU = torch.device("cpu")
SHADOW = {"kind": "shadow", "size": 8, "fanouts": [3, 2]}
WALKS = {"kind": "saint", "size": 40, "walk_length": 3}
NODES = {"kind": "saint", "size": 40, "walk_length": 0}


@pytest.fixture(scope="module")
def data() -> TaskData:
    return load_data("csbm", num_nodes=120, feature_dim=4, avg_degree=6.0)


def model_for(data: TaskData) -> DeepGNN:
    return create_model(
        "resgcn",
        in_feats=data.in_feats,
        hidden_feats=4,
        out_feats=data.num_outputs,
        num_layers=3,
        head=data.level,
    )


def epoch(data: TaskData, batching: dict[str, Any], seed: int = 0) -> list[Batch]:
    section = BatchingSection.model_validate(batching)
    batches = Batches(data, 0, model_for(data), section, CPU)
    drawn = list(batches.training(torch.Generator().manual_seed(seed)))
    assert len(drawn) == batches.steps_per_epoch
    return drawn


def numbers(batch: Batch, data: TaskData) -> torch.Tensor:
    """Which nodes of the whole graph those of a batch are, by their features."""
    whole = data.graphs[0].ndata["feat"]
    found = (batch.feat[:, None] == whole[None]).all(dim=2)
    assert (found.sum(dim=1) == 1).all()
    return found.int().argmax(dim=1)


@pytest.mark.parametrize("batching", [SHADOW, WALKS, NODES])
def test_a_batch_is_an_induced_subgraph(data: TaskData, batching: dict[str, Any]) -> None:
    (graph,) = data.graphs
    for batch in epoch(data, batching):
        inside = numbers(batch, data)
        assert len(inside.unique()) == len(inside) < graph.num_nodes()
        assert torch.equal(batch.labels, data.labels[inside])
        induced = dgl.node_subgraph(graph, inside)
        src, dst = batch.operator.graph.edges(order="eid")
        edges = sorted(zip(src.tolist(), dst.tolist(), strict=True))
        other = (ends.tolist() for ends in induced.edges(order="eid"))
        assert edges == sorted(zip(*other, strict=True))
        # Normalized by the degrees in the subgraph, not in the whole graph.
        own = aggregation_operator(induced, "both", batch.operator.t)
        torch.testing.assert_close(batch.operator @ batch.feat, own @ batch.feat)


@pytest.mark.parametrize(
    "batching",
    [
        {},
        {"kind": "clusters", "parts": 4, "size": 2},
        {"kind": "shadow", "size": 20},
        {"kind": "saint", "size": 60},
    ],
    ids=lambda batching: batching.get("kind", "full"),
)
def test_batches_have_the_weights_of_their_edges(data: TaskData, batching: dict[str, Any]) -> None:
    """Of all-different weights: each operator is the model's for its graph with those weights."""
    (graph,) = data.graphs
    graph = graph.local_var()
    nodes = graph.num_nodes()
    src, dst = graph.edges(order="eid")
    table = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(0))
    graph.edata["weight"] = table[src, dst]
    weighted = replace(data, graphs=[graph])
    assert weighted.weighted and not data.weighted
    assert weighted.fingerprint() != data.fingerprint()
    model = model_for(data)
    for some in epoch(weighted, batching):
        inside = numbers(some, data)
        inner = some.operator.graph
        start, end = inner.edges(order="eid")
        weight = table[inside[start], inside[end]]
        expected = model.operator(inner, weight) @ torch.eye(len(inside))
        torch.testing.assert_close(some.operator @ torch.eye(len(inside)), expected)
        plain = model.operator(inner) @ torch.eye(len(inside))
        assert not torch.allclose(expected, plain)


@pytest.mark.parametrize(
    "batching",
    [{}, {"kind": "clusters", "parts": 4, "size": 2}, SHADOW, WALKS],
    ids=lambda batching: batching.get("kind", "full"),
)
def test_batches_have_the_features_of_their_edges(data: TaskData, batching: dict[str, Any]) -> None:
    graph = data.graphs[0].local_var()
    nodes = graph.num_nodes()
    table = torch.rand(nodes, nodes, 2, generator=torch.Generator().manual_seed(0))
    graph.edata["feat"] = table[graph.edges(order="eid")]
    section = BatchingSection.model_validate(batching)
    recipe = {"hidden_feats": 4, "num_layers": 3, "options": {"edge_messages": True}}
    model = build_model(ModelSection.model_validate(recipe), replace(data, graphs=[graph]))
    batches = Batches(replace(data, graphs=[graph]), 0, model, section, CPU)
    for some in batches.training(torch.Generator().manual_seed(0)):
        start, end = some.operator.graph.edges(order="eid")
        inside = numbers(some, data)
        assert torch.equal(some.edge_feat, table[inside[start], inside[end]])
        assert some.scores(model).shape == (len(inside), data.num_outputs)


@pytest.mark.parametrize(
    ("batching", "message"),
    [
        (NODES | {"size": 2}, "A drawn subgraph has no .* larger training.batching.size"),
        (
            {"kind": "clusters", "parts": 100, "size": 1},
            "A part of the graph has no .* fewer training.batching.parts",
        ),
    ],
)
def test_a_piece_without_a_cycle_is_named(
    data: TaskData, batching: dict[str, Any], message: str
) -> None:
    bare = replace(data, graphs=[dgl.remove_self_loop(graph) for graph in data.graphs])
    epoch(bare, {"kind": "full"})  # the whole trains
    with pytest.raises(DGLError, match=message):
        epoch(bare, batching)


def test_shadow_learns_from_every_training_node_once(data: TaskData) -> None:
    train_nodes = data.splits[0]["train"].nonzero().flatten()
    drawn = epoch(data, SHADOW)
    learned = [numbers(batch, data)[batch.masks["train"]] for batch in drawn]
    assert torch.equal(torch.cat(learned).sort().values, train_nodes)
    assert {len(nodes) for nodes in learned[:-1]} == {8}
    (graph,) = data.graphs
    for batch, nodes in zip(drawn, learned, strict=True):
        # At most three neighbours, and two of theirs, of each.
        assert len(batch.labels) <= len(nodes) * (1 + 3 + 4 * 2)
        assert int(batch.masks["val"].sum()) == 0
    assert graph.num_nodes() > max(len(batch.labels) for batch in drawn)


@pytest.mark.parametrize("batching", [WALKS, NODES])
def test_saint_draws_about_as_many_nodes_as_asked(data: TaskData, batching: Any) -> None:
    drawn = epoch(data, batching)
    assert len(drawn) == 3  # of 40 nodes each, over 120
    assert all(10 <= len(batch.labels) <= 40 for batch in drawn)


@pytest.mark.parametrize("batching", [SHADOW, WALKS, NODES])
def test_the_same_epoch_again(data: TaskData, batching: dict[str, Any]) -> None:
    """Whatever else was drawn meanwhile, and drawing leaves PyTorch's generator alone."""
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = epoch(data, batching)
    model_for(data)
    torch.set_rng_state(before)
    list(
        Batches(data, 0, model_for(data), BatchingSection(**batching), CPU).training(
            torch.Generator().manual_seed(5)
        )
    )
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    model_for(data)
    assert torch.equal(after, torch.get_rng_state())
    again, other = epoch(data, batching), epoch(data, batching, seed=1)
    assert all(torch.equal(a.feat, b.feat) for a, b in zip(first, again, strict=True))
    assert not all(
        a.feat.shape == b.feat.shape and torch.equal(a.feat, b.feat)
        for a, b in zip(first, other, strict=True)
    )


def test_other_processes_draw_the_same(data: TaskData) -> None:
    alone, helped = epoch(data, SHADOW), epoch(data, {**SHADOW, "workers": 2})
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.operator @ a.feat, b.operator @ b.feat)


@pytest.mark.parametrize("batching", [SHADOW, WALKS, {"kind": "clusters", "parts": 4, "size": 2}])
def test_a_resumed_run_is_the_same(
    batching: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "test",
            "data": {"name": "csbm", "options": {"num_nodes": 120, "feature_dim": 4}},
            "model": {"num_layers": 3, "hidden_feats": 4, "dropout": 0.2},
            "training": {"epochs": 4, "batching": {**batching, "memory": "1MB"}},
        }
    )
    whole = train(recipe, tmp_path / "whole", progress=False)
    log = RunFolder.append_metrics

    def stop(self: RunFolder, seed: int, line: Any) -> None:
        log(self, seed, line)
        if line["epoch"] == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "append_metrics", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path / "part", progress=False)
    part = train(recipe, tmp_path / "part", progress=False, resume=True)
    for folder in (whole, part):
        assert RunFolder.open(folder.path).recipe.training.batching.memory == "1MB"
    first, second = (folder.load("model.safetensors")[0] for folder in (whole, part))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_large_graph_is_cut_once(
    data: TaskData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DGL_DEEPGNN_CACHE", str(tmp_path))
    monkeypatch.setattr(sampling, "LARGE", 1)
    monkeypatch.setattr(sampling, "cut", sampling.cut.__wrapped__)
    first = sampling.cut(data, 3)
    (file,) = (tmp_path / "partitions").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(sampling, "metis", lambda *_: pytest.fail("cut again"))
        assert torch.equal(sampling.cut(data, 3).nodes, first.nodes)
    for damage in (b"", b"damaged", file.read_bytes()[:-8]):
        file.write_bytes(damage)
        assert torch.equal(sampling.cut(data, 3).nodes, first.nodes)
    sampling.cut(data, 4)
    assert len(list((tmp_path / "partitions").iterdir())) == 2


@pytest.mark.parametrize("batching", [SHADOW, WALKS])
def test_data_of_another_kind_is_refused(batching: dict[str, Any]) -> None:
    graphs = load_data("tracks", events=5, particles=5)
    with pytest.raises(DGLError, match=r"5 graphs and edge labels.*clusters"):
        epoch(graphs, batching)


@pytest.mark.parametrize(
    ("batching", "message"),
    [
        ({"kind": "graphs"}, "kind graphs needs size"),
        ({"kind": "clusters", "size": 2}, "kind clusters needs parts"),
        ({"kind": "clusters", "parts": 3, "size": 4}, "larger than the number of clusters"),
        ({"kind": "graphs", "size": 2, "parts": 3}, "parts does nothing with kind graphs"),
        ({"kind": "saint", "size": 2, "fanouts": [1]}, "fanouts does nothing with kind saint"),
        ({"kind": "shadow", "size": 2, "walk_length": 0}, "walk_length does nothing with"),
        ({"kind": "clusters", "parts": 3, "size": 2, "workers": 1}, "workers does nothing with"),
        ({"size": 2}, "size does nothing with kind full"),
        ({"kind": "shadow", "size": 2, "fanouts": [0]}, "fanouts are whole numbers of at least 1"),
        ({"kind": "shadow", "size": 2, "memory": "much"}, "not a size of at least 1MB"),
        ({"kind": "neighbours", "size": 2}, "'full', 'graphs'"),
    ],
)
def test_settings_that_make_no_sense(batching: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        BatchingSection.model_validate(batching)


@pytest.mark.parametrize(
    ("older", "now"),
    [
        ({"batch_size": 5}, {"kind": "graphs", "size": 5}),
        ({"batch_size": 5, "clusters": 9}, {"kind": "clusters", "size": 5, "parts": 9}),
        ({"batch_size": None, "clusters": None}, {"kind": "full"}),
        (
            {"batch_size": 5, "batching": {"kind": "graphs", "size": 7}},
            {"kind": "graphs", "size": 5},
        ),
        (
            {"clusters": 9, "batching": {"kind": "graphs", "size": 7}},
            {"kind": "clusters", "size": 7, "parts": 9},
        ),
        ({"batch_size": 5, "batching": {"kind": "full"}}, {"kind": "graphs", "size": 5}),
    ],
)
def test_keys_of_version_0_1(older: dict[str, Any], now: dict[str, Any]) -> None:
    """Alone, as 0.1 wrote them, and given with --set beside today's."""
    found = TrainingSection.model_validate({"epochs": 1, **older}).batching
    assert found == BatchingSection.model_validate(now)
