"""Heterogeneous graphs in files: one graph with types and relations, the same again to predict."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch

from dgl_deepgnn import ResRGCN, from_pretrained
from dgl_deepgnn.data import load_data, prepare
from dgl_deepgnn.data.preparation import Preparation, checked_features
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.hub import predict
from dgl_deepgnn.hub.config import Config
from dgl_deepgnn.hub.publishing import publish
from dgl_deepgnn.recipe import ModelSection, Recipe
from dgl_deepgnn.speedup import measure_speedup
from dgl_deepgnn.training import build_model, train

SIZES = {"author": 20, "paper": 30, "venue": 4}
EDGES = {("author", "writes", "paper"): 60, ("paper", "appears", "venue"): 30,
         ("paper", "cites", "paper"): 40}  # fmt: skip


def make(seed: int = 0, labels: bool = True) -> Any:
    draw = torch.Generator().manual_seed(seed)
    edges = {
        kind: (torch.randint(SIZES[kind[0]], (n,), generator=draw),
               torch.randint(SIZES[kind[2]], (n,), generator=draw))
        for kind, n in EDGES.items()
    }  # fmt: skip
    graph = dgl.heterograph(edges, num_nodes_dict=SIZES)
    graph.nodes["paper"].data["feat"] = torch.randn(30, 3, generator=draw)
    graph.nodes["author"].data["feature"] = torch.randint(5, 8, (20,), generator=draw)
    if labels:
        graph.nodes["paper"].data["label"] = torch.arange(30) % 3
    return graph


@pytest.fixture
def file(tmp_path: Path) -> str:
    dgl.save_graphs(str(tmp_path / "library.bin"), [make()])
    return f"file:{tmp_path / 'library.bin'}"


@pytest.mark.parametrize("bidirected", [False, True])
def test_types_and_relations_are_features(file: str, bidirected: bool) -> None:
    graph, data = make(), load_data(file, bidirected=bidirected, features="none")
    (flat,) = data.graphs
    assert (data.level, data.target, data.num_outputs) == ("node", "multiclass", 3)
    assert flat.num_nodes() == sum(SIZES.values())
    kinds = {kind: index for index, kind in enumerate(graph.ntypes)}
    offsets = {kind: sum(graph.num_nodes(k) for k in graph.ntypes[:i]) for kind, i in kinds.items()}
    paper = slice(offsets["paper"], offsets["paper"] + 30)
    feat = flat.ndata["feat"]
    assert feat.shape[1] == 3 + 3 + 3  # papers' numbers, authors' indicators, types
    assert torch.equal(feat[paper, 3:6], graph.nodes["paper"].data["feat"])
    author = feat[offsets["author"] : offsets["author"] + 20]
    known = graph.nodes["author"].data["feature"] - 5
    assert torch.equal(author[:, :3].argmax(1), known) and not author[:, 3:6].any()
    of_type = torch.cat([torch.full((graph.num_nodes(k),), i) for k, i in kinds.items()])
    assert torch.equal(feat[:, 6:], torch.nn.functional.one_hot(of_type).float())
    assert torch.equal(data.labels[paper], torch.arange(30) % 3)
    masks = torch.stack(list(data.splits[0].values())).any(0)
    assert masks[paper].all() and int(masks.sum()) == 30
    assert data.edge_feats == 3 * (1 + bidirected)
    found = set()
    for src, dst, row in zip(*flat.edges(order="eid"), flat.edata["feat"], strict=True):
        assert row.sum() == 1
        found.add((int(src), int(dst), int(row.argmax())))
    expected = set()
    for r, kind in enumerate(graph.canonical_etypes):
        for u, v in zip(*graph.edges(etype=kind), strict=True):
            a, b = int(u) + offsets[kind[0]], int(v) + offsets[kind[2]]
            expected.add((a, b, r))
            if bidirected:
                expected.add((b, a, r + 3))
    assert found == expected


def test_a_new_graph_is_prepared_alike(file: str) -> None:
    data = load_data(file, features="standardize", bidirected=True)
    widths = {"node": data.in_feats, "edge": data.edge_feats}
    ready = prepare(make(labels=False), data.info, widths, "it")
    assert torch.equal(ready.ndata["feat"], data.graphs[0].ndata["feat"])
    assert torch.equal(ready.edata["feat"], data.graphs[0].edata["feat"])
    assert json.loads(json.dumps(data.info)) == data.info
    other = dgl.heterograph({("author", "writes", "book"): ([0], [0])})
    with pytest.raises(DGLError, match=r"it has the node types \['author', 'book'\], expected"):
        prepare(other, data.info, widths, "it")


def test_a_relational_model_from_recipe_to_predictions(file: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate(
        {
            "name": "library",
            "data": {"name": file, "options": {"bidirected": True}},
            "model": {
                "name": "resrgcn",
                "hidden_feats": 8,
                "num_layers": 4,
                "options": {"num_bases": 2},
            },
            "training": {"epochs": 3},
            "seeds": [0],
            "speedup": {"steps": 4, "learning_rates": [0.01], "seeds": [0, 1]},
        }
    )
    train(recipe, tmp_path / "run", progress=False)
    measure_speedup(recipe, tmp_path / "run.speedup", progress=False)
    publish(tmp_path / "run", zoo=tmp_path / "zoo")
    dgl.save_graphs(str(tmp_path / "new.bin"), [make(1, labels=False)])
    rows = predict("library", tmp_path / "new.bin", tmp_path / "new.csv", tmp_path / "zoo")
    assert rows == 30
    with open(tmp_path / "new.csv", newline="") as lines:
        table = list(csv.DictReader(lines))
    assert [int(row["node"]) for row in table] == list(range(30))
    model = from_pretrained("library", tmp_path / "zoo")
    assert isinstance(model, ResRGCN)
    ready = model.prepare(make(1, labels=False))
    with torch.no_grad():
        scores = model(ready, ready.ndata["feat"], edge_feat=ready.edata["feat"])
    expected = scores[20:50].softmax(1)[:, 0].tolist()  # authors come first
    assert [float(row["probability_0"]) for row in table] == pytest.approx(expected, rel=1e-4)


def test_labels_of_graphs(tmp_path: Path) -> None:
    graphs = [make(seed, labels=False) for seed in range(10)]
    dgl.save_graphs(str(tmp_path / "g.bin"), graphs, {"label": torch.arange(10) % 2})
    data = load_data(f"file:{tmp_path / 'g.bin'}")
    assert (data.level, len(data.graphs), data.edge_feats) == ("graph", 10, 3)


def test_what_is_no_task(tmp_path: Path) -> None:
    graph = make()
    graph.nodes["author"].data["label"] = torch.zeros(20).long()
    dgl.save_graphs(str(tmp_path / "g.bin"), [graph])
    with pytest.raises(DGLError, match="Node types with labels: author, paper"):
        load_data(f"file:{tmp_path / 'g.bin'}")
    with pytest.raises(DGLError, match="its relations are the edge features"):
        load_data(f"file:{tmp_path / 'g.bin'}", edge_feats="x")


def test_a_homogeneous_graph_is_told_what_is_expected(file: str) -> None:
    data = load_data(file)
    widths = {"node": data.in_feats, "edge": data.edge_feats}
    with pytest.raises(
        DGLError, match=r"homogeneous; a heterogeneous one with .*'author', 'paper'"
    ):
        prepare(dgl.to_homogeneous(make()), data.info, widths, "it")
    ready = prepare(make(labels=False), data.info, widths, "it")
    assert torch.equal(ready.ndata["is_target"].nonzero().flatten(), torch.arange(20, 50))


def test_a_model_that_reads_no_relations_says_so(file: str, tmp_path: Path) -> None:
    section = ModelSection.model_validate({"hidden_feats": 4, "num_layers": 3})
    with pytest.warns(UserWarning, match="resgcn does not read the edge features of file:"):
        build_model(section, load_data(file))
    recipe = Recipe.model_validate(
        {
            "name": "without",
            "data": {"name": file},
            "model": {"hidden_feats": 4, "num_layers": 3},
            "training": {"epochs": 1},
            "seeds": [0],
            "speedup": {"steps": 4, "learning_rates": [0.01], "seeds": [0, 1]},
        }
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(recipe, tmp_path / "run", progress=False)
        measure_speedup(recipe, tmp_path / "run.speedup", progress=False)
    publish(tmp_path / "run", zoo=tmp_path / "zoo")
    dgl.save_graphs(str(tmp_path / "new.bin"), [make(1, labels=False)])
    assert predict("without", tmp_path / "new.bin", tmp_path / "new.csv", tmp_path / "zoo") == 30


def test_scaling_leaves_relations_alone(file: str) -> None:
    data = load_data(file, features="standardize")
    assert set(data.graphs[0].edata["feat"].unique().tolist()) == {0.0, 1.0}


def test_a_type_without_nodes_has_no_columns(tmp_path: Path) -> None:
    graph = dgl.heterograph(
        {("a", "to", "b"): ([], []), ("b", "with", "b"): ([0, 1], [1, 0])},
        num_nodes_dict={"a": 0, "b": 20},
    )
    graph.nodes["a"].data["feat"] = torch.zeros(0).long()
    graph.nodes["b"].data["label"] = torch.arange(20) % 2
    dgl.save_graphs(str(tmp_path / "g.bin"), [graph])
    assert load_data(f"file:{tmp_path / 'g.bin'}").in_feats == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target": "nope"}, "none of the node types"),
        ({"target": None}, "the type with labels"),
    ],
)
def test_a_config_that_contradicts_itself(file: str, change: dict[str, Any], says: str) -> None:
    record = load_data(file).info["preparation"]
    record["relations"] |= change
    with pytest.raises(ValueError, match=says):
        Preparation.model_validate(record)


def test_more_columns_than_the_model_reads_are_refused(file: str) -> None:
    relations = Preparation.model_validate(load_data(file).info["preparation"]).relations
    assert relations is not None and relations.width == 1 + 3 + 3
    zoo = Path(__file__).parents[1] / "frozen" / "0.2" / "zoo"
    config = json.loads((zoo / "tiny.types" / "config.json").read_text("utf-8"))
    Config.model_validate_json(json.dumps(config))
    config["data"]["preparation"]["relations"]["node_types"]["b"] *= 99
    with pytest.raises(ValueError, match="node makes more columns than in_feats"):
        Config.model_validate_json(json.dumps(config))


def test_prepared_graphs_are_homogeneous() -> None:
    with pytest.raises(DGLError, match="a prepared graph is one graph"):
        checked_features(make(), {"node": 3}, "it")
