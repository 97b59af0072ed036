from __future__ import annotations

import io
import sys
import types

import dgl
import numpy as np
import pytest
import requests
import torch
from dgl import DGLError

from dgl_deepgnn.data import load_data
from dgl_deepgnn.data.dgl_readers import TUDataset


def sizes(task):
    return [int(task.splits[0][part].sum()) for part in ("train", "val", "test")]


# Nodes, directed edges without self-loops, features, classes, split. DGL counts 9228 edges for
# Citeseer and 88651 for Pubmed because of 124 and 3 self-loops in the raw data.
PLANETOID = {
    "cora": (2708, 10556, 1433, 7, [140, 500, 1000]),
    "citeseer": (3327, 9228 - 124, 3703, 6, [120, 500, 1000]),
    "pubmed": (19717, 88651 - 3, 500, 3, [60, 500, 1000]),
}


@pytest.mark.parametrize("name", PLANETOID)
def test_planetoid(name, real_data_dir, capsys):
    real_data_dir("cora_v2_" if name == "cora" else f"{name}_")
    nodes, edges, feats, classes, split = PLANETOID[name]
    task = load_data(name)
    graph = task.graphs[0]
    assert graph.num_nodes() == nodes
    assert graph.num_edges() == edges + nodes
    src, dst = graph.edges()
    assert int((src == dst).sum()) == nodes
    assert (task.in_feats, task.num_outputs, sizes(task)) == (feats, classes, split)
    rows = graph.ndata["feat"].sum(dim=1)
    assert torch.allclose(rows[rows > 0], torch.ones(()), atol=1e-5)
    assert capsys.readouterr().out == ""


def test_planetoid_without_self_loops(real_data_dir):
    real_data_dir("cora_v2_")
    assert load_data("cora", self_loops=False).graphs[0].num_edges() == 10556
    again = load_data("CoraGraphDataset")
    assert again.fingerprint() == load_data("cora").fingerprint()


def test_planetoid_with_random_splits(real_data_dir):
    real_data_dir("cora_v2_")
    task, again, public = (
        load_data("cora", **options)
        for options in ({"split": "random"}, {"split": "random", "seed": 3}, {})
    )
    assert len(task.splits) == 10
    counts = torch.bincount(task.labels)
    for masks in task.splits:
        assert torch.equal(sum(mask.int() for mask in masks.values()), torch.ones(2708).int())
        for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
            of_class = torch.bincount(task.labels[masks[part]])
            assert ((of_class - share * counts).abs() <= 1).all()
    for mine, theirs in zip(task.splits[3:], again.splits, strict=False):
        assert torch.equal(mine["train"], theirs["train"])
    assert not torch.equal(task.splits[0]["test"], task.splits[1]["test"])
    assert torch.equal(task.graphs[0].ndata["feat"], public.graphs[0].ndata["feat"])
    with pytest.raises(DGLError, match="split"):
        load_data("cora", split="60/20/20")


def test_minesweeper(real_data_dir):
    real_data_dir("minesweeper_")
    task = load_data("minesweeper")
    graph = task.graphs[0]
    assert graph.num_nodes() == 10000
    assert graph.num_edges() == 2 * 39402 + 10000
    assert (task.target, task.in_feats, len(task.splits)) == ("binary", 7, 10)
    assert sizes(task) == [5000, 2500, 2500]
    assert float(task.labels.float().mean()) == pytest.approx(0.2)
    assert not torch.equal(task.splits[0]["test"], task.splits[9]["test"])


@pytest.mark.parametrize(
    ("name", "graphs", "nodes", "classes", "feats"),
    [
        ("MUTAG", 188, 3371, 2, 7),
        ("PROTEINS", 1113, 43471, 2, 3 + 1),
        ("ENZYMES", 600, 19580, 6, 21),
    ],
)
def test_tu(name, graphs, nodes, classes, feats, real_data_dir):
    real_data_dir(f"{name}_")
    task = load_data(f"tu:{name}")
    assert len(task.graphs) == graphs
    assert sum(graph.num_nodes() for graph in task.graphs) == nodes
    assert (task.level, task.num_outputs, task.in_feats) == ("graph", classes, feats)
    tested = torch.stack([split["test"] for split in task.splits]).sum(dim=0)
    assert len(task.splits) == 10 and bool((tested == 1).all())
    assert len(load_data(f"tu:{name}", folds=5).splits) == 5


def test_tu_labels_given_as_a_column():
    """With pandas installed, DGL hands labels over as a column, and fails on them."""
    column = np.array([[1], [-1], [1]])
    assert TUDataset._idx_reset(column).tolist() == [1, 0, 1]
    assert TUDataset._idx_reset(column.ravel()).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("cora", "cora_v2_d697a464"),
        ("pubmed", "pubmed_35464cad"),
        ("minesweeper", "minesweeper_61c0a166"),
        ("roman-empire", "roman_empire_"),
        ("tu:MUTAG", "MUTAG_47395044"),
        ("CoraFullDataset", "cora_full_"),
    ],
)
def test_absent_and_offline_is_one_error_at_once(name, folder, offline, capsys):
    with pytest.raises(DGLError, match="cannot be downloaded") as caught:
        load_data(name)
    assert folder in str(caught.value) and "DGL_DOWNLOAD_DIR" in str(caught.value)
    assert len(offline) == 1
    assert capsys.readouterr().out == ""


def test_host_that_answers_404(monkeypatch, tmp_path):
    def missing(self, method, url, **options):
        response = requests.Response()
        response.status_code, response.url, response.raw = 404, url, io.BytesIO()
        return response

    monkeypatch.setattr(requests.Session, "request", missing)
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path))
    with pytest.raises(DGLError, match="HTTPError"):
        load_data("tu:NO_SUCH_SET")


def test_broken_folder(offline, tmp_path):
    (tmp_path / "minesweeper_61c0a166").mkdir()
    with pytest.raises(DGLError, match=r"cannot be loaded .*delete the folder"):
        load_data("minesweeper")
    assert offline == []


def test_classes_that_dgl_makes_itself(offline):
    grids = load_data("MiniGCDataset", num_graphs=40, min_num_v=10, max_num_v=20)
    assert (grids.level, grids.num_outputs, len(grids.graphs)) == ("graph", 8, 40)
    club = load_data("dgl:KarateClubDataset", target="binary")
    assert club.graphs[0].num_edges() == 2 * 78 + 34
    cycles = [load_data("TreeCycleDataset", seed=seed).fingerprint() for seed in (1, 1, 2)]
    assert cycles[0] == cycles[1] != cycles[2]
    with pytest.raises(DGLError, match=r"no option 'x'.*target, self_loops"):
        load_data("KarateClubDataset", x=1)
    with pytest.raises(DGLError, match="Did you mean 'KarateClubDataset'"):
        load_data("dgl:KarateClubDatset")
    with pytest.raises(DGLError, match="num_graphs"):
        load_data("MiniGCDataset")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("MiniGCDataset", {"num_graphs": 10**12, "min_num_v": 10, "max_num_v": 20}),
        ("MiniGCDataset", {"num_graphs": 10**6, "min_num_v": 10, "max_num_v": 10**4}),
        ("TreeCycleDataset", {"tree_height": 40}),
        ("BAShapeDataset", {"num_base_nodes": 10**400}),
    ],
)
def test_a_generator_is_not_asked_for_more_than_it_can_make(offline, name, options):
    with pytest.raises(DGLError, match="multiplied with each other") as error:
        load_data(name, **options)
    assert len(str(error.value)) < 300


def test_classes_with_modes_split_by_mode(monkeypatch):
    class ModalDataset(dgl.data.DGLDataset):
        def __init__(self, mode="train"):
            self.mode = mode
            super().__init__("modal")

        def process(self):
            self.count = {"train": 3, "valid": 2, "test": 1}[self.mode]

        def __getitem__(self, i):
            graph = dgl.rand_graph(5, 9)
            graph.ndata["feat"] = torch.ones(5, 2)
            graph.ndata["label"] = torch.zeros(5, 3)
            return graph

        def __len__(self):
            return self.count

    monkeypatch.setattr(dgl.data, "ModalDataset", ModalDataset, raising=False)
    task = load_data("ModalDataset")
    assert sizes(task) == [15, 10, 5]
    assert task.is_inductive() and task.target == "multilabel"


def fake_ogb(monkeypatch):
    """A stand-in with the interface of the ogb package."""

    class Node:
        task_type = "multiclass classification"

        def __init__(self, name, root):
            self.graph = dgl.rand_graph(10, 20)
            self.graph.ndata["feat"] = torch.ones(10, 2)

        def get_idx_split(self):
            return {
                "train": torch.arange(6),
                "valid": torch.tensor([6, 7]),
                "test": torch.tensor([8, 9]),
            }

        def __getitem__(self, i):
            return self.graph, (torch.arange(10) % 3).unsqueeze(1)

        def __len__(self):
            return 1

    class Graph(Node):
        task_type = "binary classification"

        def __getitem__(self, i):
            return self.graph, torch.tensor([i % 2])

        def __len__(self):
            return 10

    for module, name, cls in (
        ("ogb.nodeproppred", "DglNodePropPredDataset", Node),
        ("ogb.graphproppred", "DglGraphPropPredDataset", Graph),
    ):
        stub = types.ModuleType(module)
        setattr(stub, name, cls)
        monkeypatch.setitem(sys.modules, module, stub)
    monkeypatch.setitem(sys.modules, "ogb", types.ModuleType("ogb"))


def test_ogb(monkeypatch, tmp_path):
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path))
    fake_ogb(monkeypatch)
    nodes = load_data("ogb:ogbn-toy")
    assert (nodes.level, nodes.target, nodes.num_outputs) == ("node", "multiclass", 3)
    assert sizes(nodes) == [6, 2, 2]
    graphs = load_data("ogb:ogbg-toy")
    assert (graphs.level, graphs.target, len(graphs.graphs)) == ("graph", "binary", 10)
    with pytest.raises(DGLError, match="only ogbn-"):
        load_data("ogb:ogbl-toy")


def test_ogb_absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "ogb", None)
    monkeypatch.setitem(sys.modules, "ogb.graphproppred", None)
    with pytest.raises(DGLError, match="pip install"):
        load_data("ogb:ogbn-arxiv")
