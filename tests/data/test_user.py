from __future__ import annotations

import re
import sys
from pathlib import Path

import dgl
import pytest
import torch
from dgl import DGLError

from dgl_deepgnn.data import load_data


def ring(nodes: int = 12) -> dgl.DGLGraph:
    graph = dgl.graph((torch.arange(nodes), (torch.arange(nodes) + 1) % nodes))
    graph.ndata["feat"] = torch.arange(2.0 * nodes).reshape(nodes, 2)
    return graph


@pytest.fixture
def csv_folder(tmp_path):
    (tmp_path / "meta.yaml").write_text(
        "dataset_name: mine\n"
        "edge_data:\n- file_name: edges.csv\n"
        "node_data:\n- file_name: nodes.csv\n"
    )
    rows = [f'{i},{i % 2},{i < 6},{6 <= i < 9},{i >= 9},"{i / 10},{-i}"\n' for i in range(12)]
    header = "node_id,label,train_mask,val_mask,test_mask,feat\n"
    (tmp_path / "nodes.csv").write_text(header + "".join(rows))
    edges = [f"{i},{(i + 1) % 12}\n" for i in range(12)]
    (tmp_path / "edges.csv").write_text("src_id,dst_id\n" + "".join(edges))
    return tmp_path


def test_csv_folder(csv_folder):
    pytest.importorskip("pandas", reason="DGL reads CSV files with pandas")
    before = sorted(csv_folder.iterdir())
    task = load_data(f"csv:{csv_folder}", target="binary", bidirected=True)
    assert task.graphs[0].num_edges() == 3 * 12
    assert [int(mask.sum()) for mask in task.splits[0].values()] == [6, 3, 3]
    expected = torch.tensor([[i / 10, -i] for i in range(12)])
    assert torch.allclose(task.graphs[0].ndata["feat"], expected)
    assert sorted(csv_folder.iterdir()) == before  # no cache beside the user's files
    (csv_folder / "edges.csv").write_text("src_id,dst_id\n0,1\n1,2\n")
    assert load_data(f"csv:{csv_folder}").graphs[0].num_edges() == 2 + 12


def test_csv_errors(csv_folder, monkeypatch):
    with pytest.raises(DGLError, match="not a folder"):
        load_data("csv:/no/such/folder")
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pandas", None)
        patch.delitem(sys.modules, "dgl.data.csv_dataset_base", raising=False)
        with pytest.raises(DGLError, match="needs pandas"):
            load_data(f"csv:{csv_folder}")
    pytest.importorskip("pandas", reason="DGL reads CSV files with pandas")
    nodes = (csv_folder / "nodes.csv").read_text()
    (csv_folder / "nodes.csv").write_text(re.sub(r"(?m)^(\d+),\d", r"\1,cat", nodes))
    with pytest.raises(DGLError, match="number classes that are words from 0"):
        load_data(f"csv:{csv_folder}")
    (csv_folder / "nodes.csv").unlink()
    with pytest.raises(DGLError, match="cannot be read"):
        load_data(f"csv:{csv_folder}")
    (csv_folder / "meta.yaml").unlink()
    with pytest.raises(DGLError, match=r"meta\.yaml"):
        load_data(f"csv:{csv_folder}")


def test_saved_graphs(tmp_path):
    graph = ring()
    graph.ndata["label"] = torch.arange(12) % 3
    path = tmp_path / "one.bin"
    dgl.save_graphs(str(path), [graph])
    task = load_data(f"file:{path}")
    assert (task.level, task.num_outputs) == ("node", 3)
    assert task.name == f"file:{path}"

    dgl.save_graphs(str(path), [ring(4) for _ in range(10)], {"label": torch.arange(10) % 2})
    graphs = load_data(f"file:{path}", target="binary", features="standardize")
    assert (graphs.level, graphs.target) == ("graph", "binary")


def test_saved_graphs_errors(tmp_path):
    with pytest.raises(DGLError, match="does not exist"):
        load_data(f"file:{tmp_path / 'no.bin'}")
    (tmp_path / "text.bin").write_text("not graphs")
    with pytest.raises(DGLError, match="not written by dgl"):
        load_data(f"file:{tmp_path / 'text.bin'}")


def test_python_function(tmp_path, monkeypatch):
    (tmp_path / "my_own_data.py").write_text(
        "from dgl_deepgnn.data import load_data\n"
        "def make(homophily=0.5):\n"
        "    return load_data('csbm', num_nodes=60, homophily=homophily)\n"
        "def wrong():\n"
        "    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    task = load_data("python:my_own_data:make", homophily=0.9)
    assert task.name == "python:my_own_data:make"
    assert task.fingerprint() == load_data("csbm", num_nodes=60, homophily=0.9).fingerprint()
    for entry, options, words in (
        ("my_own_data", {}, "names no function"),
        ("my_own_data:absent", {}, "cannot be imported"),
        ("no_such_module:f", {}, "cannot be imported"),
        ("my_own_data:make", {"x": 1}, "make\\(homophily=0.5\\)"),
        ("my_own_data:wrong", {}, "returned int"),
    ):
        with pytest.raises(DGLError, match=words):
            load_data(f"python:{entry}", **options)
    assert str(tmp_path) not in sys.path


def test_a_file_of_no_graphs_is_an_error_of_ours_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("root:x:0:0:root:/root:/bin/bash\n" * 10)
    with pytest.raises(DGLError, match=r"was not written by dgl\.save_graphs") as caught:
        load_data(f"file:{tmp_path / 'x'}")
    assert ".cc" not in str(caught.value)


@pytest.mark.parametrize("name", ["DGLDataset", "dgl:CSVDataset"])
def test_a_class_says_what_it_needs(name: str) -> None:
    with pytest.raises(DGLError, match=r"is not loaded without: (name|data_path)"):
        load_data(name)


def test_both_directions_of_an_edge_are_in_one_part(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    ends = torch.randint(0, 60, (2, 300))
    graph = dgl.graph((torch.cat([ends[0], ends[1]]), torch.cat([ends[1], ends[0]])))
    graph.ndata["feat"] = torch.randn(graph.num_nodes(), 3)
    graph.edata["label"] = torch.arange(300).repeat(2) % 2
    dgl.save_graphs("edges.bin", [graph])
    task = load_data("file:edges.bin")
    src, dst = task.graphs[0].edges(order="eid")
    pair = torch.minimum(src, dst) * 60 + torch.maximum(src, dst)
    (split,) = task.splits
    of_part = [set(pair[mask].tolist()) for mask in split.values()]
    assert not (of_part[0] & of_part[1] or of_part[0] & of_part[2] or of_part[1] & of_part[2])
    sizes = [int(mask.sum()) for mask in split.values()]
    assert sum(sizes) == 600 and 0.55 < sizes[0] / 600 < 0.65 and min(sizes) > 90


def test_features_that_only_some_graphs_have_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graphs = [dgl.rand_graph(5, 8) for _ in range(10)]
    for graph in graphs[:7] + graphs[8:]:
        graph.ndata["feat"] = torch.randn(5, 2)
    dgl.save_graphs("some.bin", graphs, {"label": torch.arange(10) % 2})
    with pytest.raises(DGLError, match=r"graph 7 of 10 has no 'feat', which graph 0 has"):
        load_data("file:some.bin")
