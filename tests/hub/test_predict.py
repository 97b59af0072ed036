from __future__ import annotations

import csv
import gc
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import dgl
import pandas as pd
import pytest
import torch
from dgl import DGLError
from torch import Tensor

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.hub import from_pretrained, predict, prediction, publish
from dgl_deepgnn.hub.prediction import _columns
from dgl_deepgnn.hub.table import open_table
from dgl_deepgnn.nn import create_model
from dgl_deepgnn.nn.inference import memory_size

try:
    import pyarrow  # noqa: F401
except ImportError as error:
    no_parquet = str(error)
else:
    no_parquet = ""
needs_pyarrow = pytest.mark.skipif(bool(no_parquet), reason=no_parquet)
NAME = "tiny.karate"


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as lines:
        return list(csv.DictReader(lines))


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    dgl.save_graphs(str(tmp_path / "graphs.bin"), load_data("karate").graphs * 2)
    return tmp_path / "graphs.bin"


def test_one_row_a_node(published: Path, graph_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    assert predict(NAME, graph_file, output, published) == 68
    rows = rows_of(output)
    assert list(rows[0]) == ["graph", "node", "probability", "label"]
    assert [(int(r["graph"]), int(r["node"])) for r in rows] == [
        (graph, node) for graph in (0, 1) for node in range(34)
    ]
    (graph,) = load_data("karate").graphs
    scores = from_pretrained(NAME, published)(graph, graph.ndata["feat"])[:, 0].tolist()
    for row, score in zip(rows, scores * 2, strict=True):
        assert float(row["probability"]) == pytest.approx(1 / (1 + math.exp(-score)), abs=1e-6)
        assert row["label"] == str(int(score > 0))


@needs_pyarrow
def test_in_bounded_memory_the_table_is_the_same(
    published: Path, other_run: Callable[..., Path], graph_file: Path, tmp_path: Path
) -> None:
    """Both formats, in one pass and layer by layer; original ids, in their order."""
    graph = dgl.rand_graph(4000, 20000).remove_self_loop().add_self_loop()
    graph.ndata["feat"] = torch.rand(4000, 34)
    dgl.save_graphs(str(graph_file), [graph, graph])
    tables = []
    for name, memory in (("a.csv", None), ("b.csv", "1MB"), ("a.parquet", "1MB")):
        output = tmp_path / name
        assert predict(NAME, graph_file, output, published, memory=memory) == 8000
        tables.append(pd.read_csv(output) if name.endswith("csv") else pd.read_parquet(output))
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], atol=1e-5, check_dtype=False)
    assert list(tables[2].dtypes.astype(str)) == ["int64", "int64", "float32", "int64"]
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(UserError, match="memory='a lot' is not a size"):
        predict(NAME, graph_file, tmp_path / "c.csv", published, memory="a lot")


def test_parquet_says_what_it_needs(
    published: Path, graph_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'dgl-deepgnn\[parquet\]'"):
        predict(NAME, graph_file, tmp_path / "out.parquet", published)
    assert not (tmp_path / "out.parquet").exists()


@needs_pyarrow
def test_an_error_behind_the_first_rows_is_the_only_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(KeyError), open_table(tmp_path / "t.parquet") as table:
        table.write({"node": torch.arange(3)})
        raise KeyError
    del table
    gc.collect()  # a writer left open complains when it is deleted
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())


def test_a_csv_is_not_overwritten_unless_told(
    published: Path, graph_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    output.write_text("precious")
    with pytest.raises(UserError, match=r"out\.csv exists.*--force"):
        predict(NAME, graph_file, output, published)
    assert output.read_text() == "precious"
    for place, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "absent" / "p.csv", "no folder .*absent"),
    ):
        # Said before anything is read: there is no such model.
        with pytest.raises(UserError, match=says):
            predict("absent", graph_file, place, published, force=True)
    predict(NAME, graph_file, output, published, force=True)
    assert len(rows_of(output)) == 68


def test_a_device_that_is_not_there_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device cuda:99: there is no such CUDA device"):
        predict("absent", "absent", tmp_path / "out.csv", device="cuda:99")


def test_a_place_that_cannot_be_written_to(published: Path, graph_file: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: No such file"):
        predict(NAME, graph_file, "/proc/x.csv", published)


def test_raw_features_are_scaled_as_in_training(
    other_run: Callable[..., Path], tmp_path: Path
) -> None:
    """Edges of a simulated detector: raw features of the file against those of the loader."""
    options = {"events": 5, "particles": 6}
    run = other_run(name="tiny.tracks", data={"name": "tracks", "options": options})
    publish(run, zoo=tmp_path / "zoo")
    raw = load_data("tracks", features="none", **options).graphs[:2]
    scaled = load_data("tracks", **options).graphs[:2]
    assert not torch.equal(raw[0].ndata["feat"], scaled[0].ndata["feat"])
    dgl.save_graphs(str(tmp_path / "raw.bin"), raw)
    dgl.save_graphs(str(tmp_path / "scaled.bin"), scaled)
    results = {}
    for name, prepared in (("raw", False), ("scaled", True)):
        output = tmp_path / f"{name}.csv"
        predict(
            "tiny.tracks", tmp_path / f"{name}.bin", output, tmp_path / "zoo", prepared=prepared
        )
        results[name] = rows_of(output)
    assert list(results["raw"][0]) == ["graph", "edge", "src", "dst", "probability", "label"]
    assert results["raw"] == results["scaled"]
    model = from_pretrained("tiny.tracks", tmp_path / "zoo")
    scores = torch.cat(
        [model(g, g.ndata["feat"], edge_feat=g.edata["feat"]).detach()[:, 0] for g in scaled]
    )
    found = torch.tensor([float(row["probability"]) for row in results["raw"]])
    assert torch.allclose(found, scores.sigmoid(), atol=1e-6)
    src, dst = scaled[1].edges(order="eid")
    last = results["raw"][-1]
    assert (last["graph"], last["edge"]) == ("1", str(scaled[1].num_edges() - 1))
    assert (int(last["src"]), int(last["dst"])) == (int(src[-1]), int(dst[-1]))


@pytest.mark.parametrize(
    ("target", "names"),
    [
        ("multiclass", ["probability_0", "probability_1", "probability_2", "label"]),
        ("binary", ["probability", "label"]),
        ("multilabel", [f"{kind}_{i}" for kind in ("probability", "label") for i in range(3)]),
        ("regression", ["value_0", "value_1", "value_2"]),
    ],
)
def test_columns_by_target(target: str, names: list[str]) -> None:
    scores = torch.tensor([[2.0, -1.0, 0.5], [-3.0, 0.0, 1.0]])
    columns: dict[str, Tensor] = _columns(target, scores[:, :1] if target == "binary" else scores)
    assert list(columns) == names
    if target == "multiclass":
        assert columns["label"].tolist() == [0, 2]
        total = columns["probability_0"] + columns["probability_1"] + columns["probability_2"]
        assert torch.allclose(total, torch.ones(2))
    if target == "multilabel":
        assert [columns[f"label_{i}"].tolist() for i in range(3)] == [[1, 0], [0, 0], [1, 1]]
    if target == "binary":
        assert columns["label"].tolist() == [1, 0]


def test_files_that_do_not_fit(published: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "graphs.bin", tmp_path / "out.csv"

    def attempt(feat: Tensor | None) -> None:
        graph = dgl.graph(([0, 1], [0, 1]))
        if feat is not None:
            graph.ndata["feat"] = feat
        dgl.save_graphs(str(file), [graph])
        predict(NAME, file, output, published)

    with pytest.raises(UserError, match="does not exist"):
        predict(NAME, tmp_path / "absent.bin", output, published)
    file.write_text("no graphs")
    with pytest.raises(UserError, match="not written by") as caught:
        predict(NAME, file, output, published)
    assert "\n" not in str(caught.value)  # DGL's stack
    with pytest.raises(DGLError, match=r"graph 0 has no ndata\['feat'\]"):
        attempt(None)
    with pytest.raises(DGLError, match=r"shape \(2, 3\).*expected \(2, 34\)"):
        attempt(torch.ones(2, 3))
    with pytest.raises(DGLError, match="not finite"):
        attempt(torch.full((2, 34), float("nan")))
    hetero = dgl.heterograph({("a", "to", "b"): ([0], [0])})
    dgl.save_graphs(str(file), [hetero])
    with pytest.raises(DGLError, match="heterogeneous"):
        predict(NAME, file, output, published)
    assert not output.exists()
    attempt(torch.ones(2, 34, dtype=torch.float64))
    assert len(rows_of(output)) == 2


def test_missing_self_loops_are_told(published: Path, tmp_path: Path) -> None:
    graph = dgl.graph(([0, 1], [1, 0]))
    graph.ndata["feat"] = torch.ones(2, 34)
    dgl.save_graphs(str(tmp_path / "graphs.bin"), [graph])
    with pytest.warns(UserWarning, match="lack self-loops"):
        predict(NAME, tmp_path / "graphs.bin", tmp_path / "out.csv", published)


@needs_pyarrow
@pytest.mark.parametrize("level", ["node", "edge", "graph"])
@pytest.mark.parametrize("sizes", [[0], [0, 0], [0, 2], [2, 0]])
def test_graphs_of_nothing_have_a_table_too(
    level: str, sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layer by layer as in one pass: a header, a schema."""
    model = create_model(
        "resgcn", in_feats=3, hidden_feats=4, out_feats=2, num_layers=2, head=level
    )
    model.pretrained = {"data": {"level": level, "target": "multiclass", "weighted": False}}
    record = SimpleNamespace(check_prepared=lambda graph, where: graph)
    model.origin = record
    monkeypatch.setattr(prediction, "Origin", SimpleNamespace)
    monkeypatch.setattr(prediction, "from_pretrained", lambda *_: model.eval())
    graphs = [dgl.graph(([], []), num_nodes=size).add_self_loop() for size in sizes]
    for graph in graphs:
        graph.ndata["feat"] = torch.ones(graph.num_nodes(), 3)
    dgl.save_graphs(str(tmp_path / "g.bin"), graphs)
    tables = []
    for name, memory in (
        ("a.csv", None),
        ("b.csv", "1MB"),
        ("a.parquet", None),
        ("b.parquet", "1MB"),
    ):
        output = tmp_path / name
        predict(NAME, tmp_path / "g.bin", output, prepared=True, memory=memory)
        tables.append(pd.read_csv(output) if name.endswith("csv") else pd.read_parquet(output))
    assert "probability_0" in tables[0] and "label" in tables[0]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_dtype=False)
    assert list(tables[2].dtypes) == list(tables[3].dtypes)


@pytest.mark.parametrize(
    "size", ["9" * 500, "9" * 20 + "EB", 10**500, "2GB\x1b", "2GB\n", "٣GB", "1_0GB", "", "-2GB"]
)
def test_memory_of_a_size_that_is_none(size: str | int) -> None:
    with pytest.raises(UserError, match=r"memory=.* is (not a size of at least|more than any)"):
        predict(NAME, "g.bin", "p.csv", memory=size)
    with pytest.raises(UserError) as caught:
        memory_size(size)
    assert len(str(caught.value)) < 300 and str(caught.value).isprintable()
