"""What `evaluate` computes on a loaded data set, `predict` computes on the source's raw graphs."""

from __future__ import annotations

import copy
import csv
import hashlib
import itertools
import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dgl
import pytest
import torch
from dgl import DGLError, DGLGraph
from safetensors.torch import save_file
from sklearn import metrics
from torch import Tensor

from dgl_deepgnn import create_model
from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.hub import ZooError, evaluate, from_pretrained, predict
from dgl_deepgnn.hub.config import Config, ModelFacts, WeightFacts, read_config
from dgl_deepgnn.hub.evaluation import score_model
from dgl_deepgnn.hub.index import Entry, FileFacts, Index
from dgl_deepgnn.hub.publishing import data_facts
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training import build_model

NAME = "tiny.karate"


@pytest.fixture
def enter(published: Path, tmp_path: Path) -> Callable[[TaskData], Path]:
    """Function that makes a zoo of one model "mine" for some data, with random weights.

    Its messages depend on the edge features, if there are any.
    """

    def make(data: TaskData) -> Path:
        torch.manual_seed(0)
        scaled = data.info["features"].get("edge", {"transform": "none"})["transform"] != "none"
        reads = data.edge_feats > 0 and (scaled or data.level != "edge")  # no score of exactly 1
        recipe = Recipe.model_validate(
            {
                "name": "mine",
                "data": {"name": data.name},
                "model": {
                    "hidden_feats": 8,
                    "num_layers": 3,
                    "t": 1.0,
                    "residual": "plain",
                    "options": {"edge_messages": reads},
                },
                "training": {"epochs": 1, "batch_size": 4},
            }
        )
        model = build_model(recipe.model, data)
        config = Config(
            name="mine",
            licence="",
            citation="",
            model=ModelFacts(name="resgcn", arguments=model.config),
            weights=WeightFacts(seed=0, dtype="fp32"),
            seeds=[0],
            data=data_facts(data, {}, data.fingerprint()),
            recipe=recipe,
            environment={},
        )
        folder = tmp_path / "zoo" / "mine"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(config.model_dump_json())
        save_file(model.state_dict(), folder / "model.safetensors")
        found = {"weights": {"test": score_model(model, config, data)}}
        (folder / "metrics.json").write_text(json.dumps(found))
        entry = Index.parse((published / "index.json").read_bytes(), "").models[NAME].model_dump()
        entry["files"] = {file.name: FileFacts.of(file) for file in folder.iterdir()}
        index = Index(models={"mine": Entry(**entry)})
        (tmp_path / "zoo" / "index.json").write_text(index.dump())
        return tmp_path / "zoo"

    return make


def metric_of(file: Path, data: TaskData, truth: Tensor, test: Tensor) -> float:
    """The metric of `evaluate`, from the rows of a CSV."""
    with open(file, newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(truth)

    def column(name: str) -> Tensor:
        return torch.tensor([float(row[name]) for row in rows])[test]

    if data.target == "multiclass":
        return float(metrics.accuracy_score(truth[test], column("label")))
    if data.target == "binary":
        return float(metrics.roc_auc_score(truth[test], column("probability")))
    return float(metrics.mean_absolute_error(truth[test], column("value_0")))


def bounds_of_auc(file: Path, truth: Tensor, test: Tensor) -> tuple[float, float]:
    """Areas under the curve that rounding can make of the scores of a CSV.

    Of few degrees many scores of edges are equal but for rounding, which the processor orders.
    """
    with open(file, newline="") as lines:
        score = torch.tensor([float(row["probability"]) for row in csv.DictReader(lines)])[test]
    labels = truth[test].bool()
    gap = score[labels][:, None] - score[~labels][None]
    low, high = (float((gap > end).double().mean()) for end in (1e-6, -1e-6))
    return low - 1e-9, high + 1e-9


def check(
    data: TaskData, raw: list[DGLGraph], labels: dict[str, Tensor], enter: Any, tmp_path: Path
) -> None:
    """Hold `predict` on raw graphs to `evaluate`, and `prepare` to the loader, bit by bit."""
    zoo = enter(data)
    model = from_pretrained("mine", zoo)
    for graph, loaded in zip(raw, data.graphs, strict=True):
        ready = model.prepare(graph)
        for ends, others in zip(ready.edges(order="eid"), loaded.edges(order="eid"), strict=True):
            assert torch.equal(ends, others)
        assert torch.equal(ready.ndata["feat"], loaded.ndata["feat"])
        if data.edge_feats:
            assert torch.equal(ready.edata["feat"], loaded.edata["feat"])
        if data.weighted:
            assert torch.equal(ready.edata["weight"], loaded.edata["weight"])
    dgl.save_graphs(str(tmp_path / "raw.bin"), raw, labels)
    predict("mine", tmp_path / "raw.bin", tmp_path / "raw.csv", zoo)
    test, truth = data.splits[0]["test"], data.labels
    if data.level == "edge":  # of the file's own edges
        sizes = [graph.num_edges() for graph in raw]
        own = torch.cat(
            [
                torch.arange(items) < size
                for items, size in zip(data.items_per_graph, sizes, strict=True)
            ]
        )
        test, truth = test[own], truth[own]
        assert int(test.sum()) == int(data.splits[0]["test"].sum())
    expected = evaluate("mine", zoo, data=data)["recomputed"]
    found = metric_of(tmp_path / "raw.csv", data, truth, test)
    if data.target == "binary":
        low, high = bounds_of_auc(tmp_path / "raw.csv", truth, test)
        assert low <= found <= high and low <= expected <= high
        assert expected < 1
    if data.level != "edge":
        assert found == pytest.approx(expected, rel=1e-5)


def graphs_of(level: str, feat: str) -> tuple[list[DGLGraph], dict[str, Tensor]]:
    """Six raw graphs with loops and double edges, and labels of whole graphs."""
    torch.manual_seed(0)
    graphs = []
    for _ in range(6):
        graph = dgl.graph((torch.randint(0, 15, (40,)), torch.randint(0, 15, (40,))), num_nodes=15)
        if feat == "floats":
            graph.ndata["feature"] = 50 * torch.randn(15, 3)
            graph.edata["feat"] = torch.randn(40, 2)
        elif feat == "labels":
            graph.ndata["attr"] = 3 * torch.randint(0, 4, (15,))
            graph.edata["attr"] = torch.randint(5, 8, (40,))
        if level == "node":
            graph.ndata["label"] = torch.randint(0, 3, (15,))
        graph.edata["strength"] = 5 * torch.rand(40)
        graph.edata["kind"], graph.edata["pull"] = torch.arange(40) % 3, torch.rand(40, 2)
        if level == "edge":
            graph.edata["label"] = torch.randint(0, 2, (40,)) == 1
        graphs.append(graph)
    return graphs, {"label": torch.rand(6)} if level == "graph" else {}


OPTIONS: list[dict[str, Any]] = [
    *({"self_loops": a, "bidirected": b} for a, b in itertools.product((True, False), repeat=2)),
    *({"features": how} for how in ("standardize", "row-normalize", "rescale")),
    *(
        {"bidirected": both, "edge_weight": "strength", "features": "standardize"}
        for both in (True, False)
    ),
    *(
        {"bidirected": both, "edge_feats": field, "features": "rescale"}
        for both, field in ((True, "kind"), (False, "kind"), (True, "pull"))
    ),
]


@pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "-".join(map(str, options.values()))
)
@pytest.mark.parametrize("feat", ["floats", "labels", "degrees"])
@pytest.mark.parametrize("level", ["node", "edge", "graph"])
def test_a_file_of_graphs(
    level: str, feat: str, options: dict[str, Any], enter: Any, tmp_path: Path
) -> None:
    graphs, labels = graphs_of(level, feat)
    dgl.save_graphs(str(tmp_path / "mine.bin"), graphs, labels)
    data = load_data(f"file:{tmp_path / 'mine.bin'}", **options)
    check(data, graphs, labels, enter, tmp_path)
    if "edge_feats" in options:
        assert data.edge_feats == {"kind": 3, "pull": 2}[options["edge_feats"]]
    if feat == "labels":
        dgl.save_graphs(str(tmp_path / "odd.bin"), graphs[:1])
        graphs[0].ndata["attr"][4] = 7
        dgl.save_graphs(str(tmp_path / "odd.bin"), graphs[:1])
        with pytest.raises(DGLError, match=r"odd.bin: graph 0: ndata: row 4 has .* 7, for which"):
            predict("mine", tmp_path / "odd.bin", tmp_path / "odd.csv", tmp_path / "zoo")


@pytest.mark.parametrize("level", ["node", "edge", "graph"])
def test_one_graph_without_nodes(level: str, enter: Any, tmp_path: Path) -> None:
    graphs, labels = graphs_of(level, "floats")
    empty = dgl.graph(([], []))
    empty.ndata["feature"], empty.edata["feat"] = torch.zeros(0, 3), torch.zeros(0, 2)
    for key in ("strength", "kind"):
        empty.edata[key] = torch.zeros(0)
    empty.edata["pull"] = torch.zeros(0, 2)
    if level == "node":
        empty.ndata["label"] = torch.zeros(0, dtype=torch.long)
    elif level == "edge":  # nodes, but no edges
        empty = dgl.graph(([], []), num_nodes=3)
        empty.ndata["feature"], empty.edata["feat"] = torch.zeros(3, 3), torch.zeros(0, 2)
        empty.edata["label"] = torch.zeros(0, dtype=torch.bool)
        empty.edata["strength"] = empty.edata["kind"] = torch.zeros(0)
        empty.edata["pull"] = torch.zeros(0, 2)
    graphs[2] = empty
    dgl.save_graphs(str(tmp_path / "mine.bin"), graphs, labels)
    data = load_data(f"file:{tmp_path / 'mine.bin'}", bidirected=True, features="standardize")
    check(data, graphs, labels, enter, tmp_path)


def test_weights_reach_the_scores(enter: Any, tmp_path: Path) -> None:
    """And a call that forgets them is warned of, once."""
    graphs, labels = graphs_of("node", "floats")
    dgl.save_graphs(str(tmp_path / "mine.bin"), graphs, labels)
    data = load_data(f"file:{tmp_path / 'mine.bin'}", edge_weight="strength")
    model = from_pretrained("mine", enter(data))
    ready = model.prepare(graphs[0])
    feat, weight = ready.ndata["feat"], ready.edata["weight"]
    with pytest.warns(UserWarning, match=r"trained with edge weights, and is called without"):
        without = model(ready, feat)
    scores = model(ready, feat, edge_weight=weight)
    assert torch.equal(scores, model(model.operator(ready, weight), feat))
    assert not torch.allclose(scores, without)
    dgl.save_graphs(str(tmp_path / "raw.bin"), graphs[:1])
    predict("mine", tmp_path / "raw.bin", tmp_path / "raw.csv", tmp_path / "zoo")
    with open(tmp_path / "raw.csv", newline="") as lines:
        shares = [float(row["probability_0"]) for row in csv.DictReader(lines)]
    assert shares == pytest.approx(scores.softmax(dim=1)[:, 0].tolist(), rel=1e-5)
    del graphs[0].edata["strength"]
    with pytest.raises(DGLError, match="edata has no 'strength', the edge weights: it has feat"):
        model.prepare(graphs[0])
    dgl.save_graphs(str(tmp_path / "raw.bin"), [ready])
    one = tmp_path / "one.csv"
    predict("mine", tmp_path / "raw.bin", one, tmp_path / "zoo", prepared=True)
    assert one.read_text() == (tmp_path / "raw.csv").read_text()
    del ready.edata["weight"]
    dgl.save_graphs(str(tmp_path / "raw.bin"), [ready])
    with pytest.raises(DGLError, match=r"no edata\['weight'\]; the model was trained with"):
        predict("mine", tmp_path / "raw.bin", tmp_path / "no.csv", tmp_path / "zoo", prepared=True)


@pytest.mark.parametrize("bidirected", [True, False])
def test_a_csv_folder(bidirected: bool, enter: Any, tmp_path: Path) -> None:
    pytest.importorskip("pandas", reason="DGL reads CSV files with pandas")
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "meta.yaml").write_text(
        "dataset_name: mine\nedge_data:\n- file_name: e.csv\nnode_data:\n- file_name: n.csv\n"
    )
    rows = [f'{i},{i % 3},"{i % 7},{-i}"\n' for i in range(40)]
    (folder / "n.csv").write_text("node_id,label,feat\n" + "".join(rows))
    edges = [f"{i},{i * i % 40},{i % 5}\n" for i in range(40)]
    (folder / "e.csv").write_text("src_id,dst_id,strength\n" + "".join(edges))
    options = {"bidirected": bidirected, "features": "rescale", "edge_weight": "strength"}
    data = load_data(f"csv:{folder}", **options)
    raw = dgl.data.CSVDataset(str(folder), verbose=False, force_reload=True)[0]
    check(data, [raw], {}, enter, tmp_path)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("KarateClubDataset", {}),  # nodes, degrees
        ("KarateClubDataset", {"self_loops": False, "features": "standardize"}),
        ("MiniGCDataset", {"num_graphs": 40, "min_num_v": 10, "max_num_v": 20, "bidirected": True}),
    ],
)
def test_a_class_of_dgl(name: str, options: dict[str, Any], enter: Any, tmp_path: Path) -> None:
    data = load_data(name, **options)
    loader = {k: v for k, v in options.items() if k not in ("self_loops", "features", "bidirected")}
    if name == "MiniGCDataset":
        loader |= {"seed": 0, "verbose": False}
    source = getattr(dgl.data, name)(**loader)
    items = [source[index] for index in range(len(source))]
    raw = [item[0] if isinstance(item, tuple) else item for item in items]
    check(data, raw, {}, enter, tmp_path)


@pytest.mark.parametrize("options", [{}, {"self_loops": False, "features": "none"}])
@pytest.mark.parametrize("fields", ["labels", "attributes", "both", "neither"])
def test_tu(
    fields: str,
    options: dict[str, Any],
    enter: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = dgl.data.TUDataset._url.format("MINE")
    suffix = hashlib.sha1(address.encode()).hexdigest()[:8]
    folder = tmp_path / f"MINE_{suffix}" / "MINE"
    folder.mkdir(parents=True)
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path))
    torch.manual_seed(0)
    nodes, graphs = 8, 12

    def write(name: str, rows: list[Any]) -> None:
        (folder / f"MINE_{name}.txt").write_text("".join(f"{row}\n" for row in rows))

    pairs = (
        torch.randint(1, nodes + 1, (graphs, 20, 2)) + nodes * torch.arange(graphs)[:, None, None]
    )
    write("A", [f"{i}, {j}" for i, j in pairs.reshape(-1, 2).tolist()])
    write("graph_indicator", [1 + i // nodes for i in range(graphs * nodes)])
    write("graph_labels", [1 + i % 2 for i in range(graphs)])
    if fields in ("labels", "both"):
        write("node_labels", [5 * (i % 3) for i in range(graphs * nodes)])
    if fields == "both":
        write("edge_labels", [i % 4 for i in range(20 * graphs)])
        options = {**options, "edge_feats": "edge_labels"}
    if fields in ("attributes", "both"):
        write("node_attributes", [f"{i % 5}.5, {-i}" for i in range(graphs * nodes)])
    data = load_data("tu:MINE", folds=3, **options)
    from dgl_deepgnn.data.dgl_readers import TUDataset  # DGL's own fails beside pandas

    source = TUDataset("MINE")
    raw = [source[index][0] for index in range(len(source))]
    widths = {"labels": 3, "attributes": 2, "both": 5}
    assert data.in_feats == widths.get(fields, data.in_feats)
    assert data.edge_feats == (4 if fields == "both" else 0)
    check(data, raw, {}, enter, tmp_path)


def test_data_that_a_function_loads_is_raw_to_who_scales_it_again(
    enter: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs, labels = graphs_of("node", "labels")
    dgl.save_graphs(str(tmp_path / "mine.bin"), graphs, labels)
    (tmp_path / "my_origin_data.py").write_text(
        "from dgl_deepgnn.data import load_data\n"
        f"def make():\n    return load_data('file:{tmp_path}/mine.bin', features='rescale')\n"
    )
    monkeypatch.chdir(tmp_path)
    data = load_data("python:my_origin_data:make", features="standardize")
    inner = load_data(f"file:{tmp_path}/mine.bin", features="rescale")
    assert data.info["preparation"] is None
    check(data, inner.graphs, {}, enter, tmp_path)


def test_a_model_loads_its_data(published: Path, zoo: Path, reindex: Callable[..., None]) -> None:
    data = from_pretrained(NAME, published).load_data()
    assert data.fingerprint() == load_data("karate").fingerprint()
    file = zoo / NAME / "config.json"
    content = json.loads(file.read_text())
    content["data"]["fingerprint"] = "0" * 64
    file.write_text(json.dumps(content))
    reindex(zoo)
    with pytest.raises(ZooError, match="fingerprints differ"):
        from_pretrained(NAME, zoo).load_data()


def test_a_model_of_ones_own_has_no_record() -> None:
    model = create_model("resgcn", in_feats=4, hidden_feats=8, out_feats=2, num_layers=3)
    graph = load_data("karate").graphs[0]
    for call in (model.load_data, lambda: model.prepare(graph)):
        with pytest.raises(DGLError, match="does not come from a zoo"):
            call()


def test_features_far_from_the_training_are_told_once(enter: Any) -> None:
    data = load_data("digits")
    (graph,) = data.graphs
    zoo = enter(data)
    raw = 16 * load_data("digits", features="none").graphs[0].ndata["feat"]
    model = from_pretrained("mine", zoo)
    with pytest.warns(UserWarning, match=r"mine: \d+% of the features lie far .*model\.prepare"):
        model(graph, raw)
    for kind in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model):
        kind(graph, raw)  # told already; a warning would be an error

    model = from_pretrained("mine", zoo).train()
    model(graph, raw)  # fine-tuning learns what it is given
    model.eval()
    with pytest.warns(UserWarning, match="far outside"):
        model(graph=graph, feat=raw)
    model = from_pretrained("mine", zoo)
    model(model.operator(graph), graph.ndata["feat"].to_sparse_csr())
    model(graph, raw)  # a pass over all features is made at the first call alone

    model = from_pretrained("mine", zoo)
    graph.ndata["feat"] = raw
    with pytest.warns(UserWarning, match="far outside .*The graph was prepared as in training"):
        model.prepare(graph)
    model.prepare(graph)


def test_missing_self_loops_are_told_once(published: Path) -> None:
    graph = dgl.graph(([0, 1], [1, 0]))
    graph.ndata["feat"] = torch.ones(2, 34)
    model = from_pretrained(NAME, published)
    with pytest.warns(UserWarning, match="The graph: nodes lack self-loops"):
        model.prepare(graph)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.prepare(graph)


def test_a_config_of_version_0_1_prepares_as_it_did() -> None:
    frozen = Path(__file__).parents[1] / "frozen" / "0.1"
    config = read_config(frozen / "zoo" / "tiny.file" / "config.json")
    assert config.format == 1
    assert config.data.preparation is None
    (graph,), _ = dgl.load_graphs(str(frozen / "graphs.bin"))
    model = from_pretrained("tiny.file", frozen / "zoo")
    ready = model.prepare(graph)
    assert ready.num_edges() == graph.num_edges()
    data = load_data(f"file:{frozen}/graphs.bin", features="standardize")
    assert torch.equal(ready.ndata["feat"], data.graphs[0].ndata["feat"])
    model(ready, 1e6 * ready.ndata["feat"])  # no range, no warning
