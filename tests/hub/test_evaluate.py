from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from dgl_deepgnn.cli import app
from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import ZooError, evaluate, from_pretrained, publish, refresh

NAME = "tiny.karate"


def test_the_metric_is_computed_anew(published: Path) -> None:
    data = load_data("karate")
    (graph,) = data.graphs
    scores = from_pretrained(NAME, published)(graph, graph.ndata["feat"]).detach()[:, 0]
    test = data.splits[0]["test"]
    expected = roc_auc_score(data.labels[test], scores[test])
    result = evaluate(NAME, published)
    assert result["metric"] == "roc_auc"
    assert result["recomputed"] == pytest.approx(expected)
    assert result["recorded"] == pytest.approx(expected)
    assert result["agrees"]
    assert evaluate(NAME, published, data=data) == result
    layerwise = evaluate(NAME, published, memory="1MB")
    assert layerwise == {**result, "recomputed": pytest.approx(expected)}


def test_a_device_that_is_not_there_is_told_before_anything_is_loaded() -> None:
    with pytest.raises(UserError, match="--device gpu: not a device"):
        evaluate("absent", "absent", device="gpu")


def test_a_record_that_is_too_good(zoo: Path, reindex: Callable[..., None]) -> None:
    file = zoo / NAME / "metrics.json"
    content = json.loads(file.read_text())
    recorded = content["weights"]["test"]["roc_auc"]
    content["weights"]["test"]["roc_auc"] = recorded + 0.01
    file.write_text(json.dumps(content))
    reindex(zoo)
    result = evaluate(NAME, zoo)
    assert not result["agrees"]
    assert (result["recomputed"], result["recorded"]) == (recorded, recorded + 0.01)
    file.write_text("{}")
    reindex(zoo)
    with pytest.raises(ZooError, match="records no roc_auc"):
        evaluate(NAME, zoo)


def test_other_data(published: Path) -> None:
    data = load_data("karate")
    with pytest.raises(ZooError, match="fingerprints differ"):
        evaluate(NAME, published, data=replace(data, labels=1 - data.labels))


def test_a_config_cannot_run_code(zoo: Path, reindex: Callable[..., None]) -> None:
    file = zoo / NAME / "config.json"
    content = json.loads(file.read_text())
    content["data"]["name"] = "python:os:getcwd"
    file.write_text(json.dumps(content))
    reindex(zoo)
    with pytest.raises(ZooError, match=r"evaluate tiny\.karate --data"):
        evaluate(NAME, zoo)
    assert evaluate(NAME, zoo, data=load_data("karate"))["agrees"]


def test_each_seed_has_its_split(other_run: Callable[..., Path], tmp_path: Path) -> None:
    """Seed 3 is scored on split 3, and in batches."""
    import dgl
    import torch

    torch.manual_seed(0)
    dgl.seed(0)  # ten graphs are scored, and on some draws all are right
    graphs = []
    for index in range(40):
        graph = dgl.rand_graph(6, 14).add_self_loop()
        graph.ndata["feat"] = torch.randn(6, 3) + 0.3 * (index % 2)
        graphs.append(graph)
    parts = torch.stack([torch.randperm(40) // 2 % 4 for _ in range(4)], dim=1)  # of 4 splits
    tensors = {
        "label": torch.arange(40) % 2,
        "train_mask": parts < 2,
        "val_mask": parts == 2,
        "test_mask": parts == 3,
    }
    dgl.save_graphs(str(tmp_path / "graphs.bin"), graphs, tensors)
    data = {"name": f"file:{tmp_path / 'graphs.bin'}"}
    run = other_run(
        name="tiny.graphs",
        data=data,
        seeds=[3],
        training={"epochs": 2, "batch_size": 7},
        model={"name": "resgin", "hidden_feats": 4, "num_layers": 3, "norm_layer": "batch"},
    )
    publish(run, zoo=tmp_path / "zoo")
    with pytest.raises(ZooError, match="may not name the data 'file:"):
        evaluate("tiny.graphs", tmp_path / "zoo")
    result = evaluate("tiny.graphs", tmp_path / "zoo", data=data["name"])
    recorded = json.loads((run / "summary.json").read_text())["seeds"][0]["test"]
    assert result["recorded"] == result["recomputed"] == recorded[result["metric"]] < 1
    card = (tmp_path / "zoo" / "tiny.graphs" / "README.md").read_text()
    assert "batch normalization" in card
    assert "Transductive" not in card


def test_data_that_the_user_names(
    other_run: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config's own options come along where they are plain values; the user's go first."""
    import dgl

    monkeypatch.chdir(tmp_path)
    data = load_data("karate")
    (graph,) = data.graphs
    graph.ndata["label"] = data.labels
    dgl.save_graphs("theirs.bin", [graph])
    data_section = {"name": "file:theirs.bin", "options": {"target": "binary", "seed": 5}}
    run = other_run(name="tiny.own", data=data_section)
    publish(run, zoo="zoo")
    (tmp_path / "theirs.bin").rename("mine.bin")
    assert evaluate("tiny.own", "zoo", data="file:mine.bin")["agrees"]
    with pytest.raises(ZooError, match="fingerprints differ"):
        evaluate("tiny.own", "zoo", data="file:mine.bin", options={"seed": 6})
    with pytest.raises(ZooError, match="may not name the data"):
        refresh("tiny.own", "zoo")
    made = refresh("tiny.own", "zoo", data="file:mine.bin")
    assert evaluate("tiny.own", "zoo", data="file:mine.bin")["agrees"]
    command = ["refresh", "tiny.own", "--zoo", "zoo", "--data", "file:mine.bin"]
    assert CliRunner().invoke(app, command).exit_code == 0 and made.is_dir()
