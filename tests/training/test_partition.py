"""Partitions: what is refused, and that DGL and users find in them what they expect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.operator.aggregation import aggregation_operator
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.partition import partition

dgl = pytest.importorskip("dgl")


def recipe(data: str = "karate", batching: Any = None, **model: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "parts",
            "data": {"name": data},
            "model": {"num_layers": 3, "hidden_feats": 4, **model},
            "training": {
                "epochs": 1,
                "batching": batching or {"kind": "clusters", "parts": 4, "size": 2},
            },
        }
    )


def test_dgl_reads_it(tmp_path: Path) -> None:
    """With the columns that its own examples, and GraphStorm, look for."""
    result = partition(recipe(), 2, tmp_path / "out")
    (whole,) = load_data("karate").graphs
    assert sum(part["nodes"] for part in result["parts"]) == whole.num_nodes()
    assert sum(part["edges"] for part in result["parts"]) == whole.num_edges()
    for index, facts in enumerate(result["parts"]):
        graph, nodes, edges, *_ = dgl.distributed.load_partition(
            str(tmp_path / "out" / "deepgnn.json"), index
        )
        own = int(graph.ndata["inner_node"].sum())
        assert own == facts["nodes"]
        src, dst = graph.edges()
        assert int(((dst < own) & (src >= own)).sum()) == facts["edges_cut"]
        original = nodes["_N/orig_id"]
        assert torch.equal(nodes["_N/feat"], whole.ndata["feat"][original])
        assert sorted(nodes) == [
            f"_N/{name}"
            for name in (
                "cluster",
                "feat",
                "label",
                "orig_id",
                "test_mask",
                "train_mask",
                "val_mask",
            )
        ]
        assert nodes["_N/train_mask"].dim() == 1
        assert set(nodes["_N/cluster"].tolist()) == {0, 1}
        assert list(edges) == ["_N:_E:_N/aggregation"]


@pytest.mark.parametrize("norm", ["both", "right", "none"])
def test_edges_bear_the_aggregation_of_the_whole(tmp_path: Path, norm: Any) -> None:
    partition(recipe(options={"norm": norm}), 2, tmp_path / "out")
    (whole,) = load_data("karate").graphs
    expected = aggregation_operator(whole, norm).matrix.toarray()
    found = torch.zeros(expected.shape)
    config = str(tmp_path / "out" / "deepgnn.json")
    loaded = [dgl.distributed.load_partition(config, index) for index in range(2)]
    original = torch.cat([nodes["_N/orig_id"] for _, nodes, *_ in loaded])
    values = torch.cat([edges["_N:_E:_N/aggregation"] for _, _, edges, *_ in loaded])
    for graph, *_ in loaded:
        inside = graph.edges()[1] < int(graph.ndata["inner_node"].sum())
        src, dst = (original[graph.ndata[dgl.NID][end[inside]]] for end in graph.edges())
        found[dst, src] += values[graph.edata[dgl.EID][inside]]
    torch.testing.assert_close(found.double(), torch.from_numpy(expected), rtol=1e-6, atol=1e-7)


def test_several_splits_are_columns(tmp_path: Path) -> None:
    partition(recipe("csbm"), 1, tmp_path / "one")
    nodes = dgl.distributed.load_partition(str(tmp_path / "one" / "deepgnn.json"), 0)[1]
    splits = len(load_data("csbm").splits)
    assert nodes["_N/val_mask"].shape == ((1000,) if splits == 1 else (1000, splits))


@pytest.mark.parametrize(
    "some, machines, message",
    [
        (recipe(batching={"kind": "full"}), 2, "trains by kind full. Several machines train on"),
        (recipe(), 3, "parts 4 cannot be shared evenly among 3 machines: make it a multiple"),
        (recipe("tracks"), 2, "Several machines share one large graph with labels of nodes"),
        (
            recipe(batching={"kind": "clusters", "parts": 36, "size": 2}),
            2,
            r"karate has 34 nodes, fewer than training\.batching\.parts \(36\)",
        ),
    ],
)
def test_what_is_refused_leaves_nothing(
    tmp_path: Path, some: Recipe, machines: int, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        partition(some, machines, tmp_path / "out")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists"):
        partition(recipe(), 2, tmp_path / "out")
    assert not any((tmp_path / "out").iterdir())
