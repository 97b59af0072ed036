from __future__ import annotations

import dgl
import numpy as np
import pytest
import torch
from dgl import DGLError
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.preprocessing import StandardScaler, normalize

from dgl_deepgnn.data import TaskData, apply_scaling
from dgl_deepgnn.data.transforms import (
    deal_graphs,
    deal_parts,
    degree_features,
    k_fold,
    one_hot,
    split_items,
    transform_features,
    undirected,
)


def two_graphs() -> TaskData:
    generator = torch.Generator().manual_seed(0)
    graphs = []
    for nodes in (30, 20, 20):
        graph = dgl.rand_graph(nodes, 60)
        graph.ndata["feat"] = 3 + 5 * torch.randn(nodes, 4, generator=generator)
        graph.ndata["feat"][:, 3] = 7.0
        graph.edata["feat"] = torch.rand(60, 2, generator=generator)
        graphs.append(graph)
    splits = [deal_graphs([30, 20, 20], ["train", "val", "test"])]
    return TaskData("two", graphs, "node", "binary", torch.arange(70) % 2, splits, 1)


def test_standardize_uses_training_graphs_only():
    task = two_graphs()
    graphs, record = transform_features(task, "standardize")
    scaler = StandardScaler().fit(task.graphs[0].ndata["feat"].numpy())
    for before, after in zip(task.graphs, graphs, strict=True):
        expected = scaler.transform(before.ndata["feat"].numpy())
        np.testing.assert_allclose(after.ndata["feat"].numpy(), expected, atol=1e-5)
    edges = StandardScaler().fit_transform(task.graphs[0].edata["feat"].numpy())
    np.testing.assert_allclose(graphs[0].edata["feat"].numpy(), edges, atol=1e-5)
    assert set(record) == {"node", "edge"}


def test_rescale_keeps_proportions():
    task = two_graphs()
    graphs, _ = transform_features(task, "rescale")
    before, after = task.graphs[0].ndata["feat"], graphs[0].ndata["feat"]
    assert float(after.square().mean()) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(after.mean(dim=0), torch.zeros(4), atol=1e-5)
    ratio = after[:, :3].std(dim=0) / before[:, :3].std(dim=0)
    assert torch.allclose(ratio, ratio[:1].expand(3))


def test_row_normalize_is_sklearns_l1():
    task = two_graphs()
    task.graphs[0].ndata["feat"][4] = 0
    graphs, _ = transform_features(task, "row-normalize")
    expected = normalize(task.graphs[0].ndata["feat"].numpy(), norm="l1")
    np.testing.assert_allclose(graphs[0].ndata["feat"].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("how", ["none", "row-normalize", "standardize", "rescale"])
def test_the_record_treats_new_graphs_alike(how):
    task = two_graphs()
    graphs, record = transform_features(task, how)
    again = apply_scaling(task.graphs[2], record)
    assert torch.equal(again.ndata["feat"], graphs[2].ndata["feat"])
    assert torch.equal(again.edata["feat"], graphs[2].edata["feat"])
    assert task.graphs[2].ndata["feat"][:, 3].eq(7).all()  # the input is left as it was


def test_undirected_against_a_dense_matrix():
    graph = dgl.rand_graph(12, 40)
    graph.ndata["mark"] = torch.arange(12)
    dense = torch.zeros(12, 12)
    dense[graph.edges()] = 1
    both = torch.maximum(dense, dense.T).fill_diagonal_(1)
    made = undirected(graph)
    assert torch.equal(made.adj_external().to_dense(), both)
    assert torch.equal(made.ndata["mark"], torch.arange(12))
    assert undirected(graph, self_loops=False).num_edges() == int(both.sum()) - 12


def test_degree_features_are_capped():
    star = dgl.graph((torch.arange(1, 9), torch.zeros(8, dtype=torch.int64)))
    feats = degree_features([star, dgl.graph(([0], [1]))], most=5)
    assert [tuple(feat.shape) for feat in feats] == [(9, 3), (2, 3)]  # degrees 0, 1, at most 5
    assert feats[0].sum(dim=0).tolist() == [8, 0, 1]
    assert torch.equal(one_hot(torch.tensor([2, 2])), torch.ones(2, 1))


@settings(deadline=None, max_examples=20)
@given(st.integers(30, 80), st.integers(2, 4), st.integers(0, 100))
def test_stratified_split_keeps_class_shares(items, classes, seed):
    labels = torch.arange(items) % classes
    masks = split_items(labels, seed=seed)
    assert torch.equal(sum(mask.long() for mask in masks.values()), torch.ones(items).long())
    for mask in masks.values():
        for c in range(classes):
            share = float((labels[mask] == c).float().mean())
            assert abs(share - 1 / classes) <= 1.5 / int(mask.sum())
    assert torch.equal(split_items(labels, seed=seed)["test"], masks["test"])


def test_split_without_strata():
    assert int(split_items(torch.rand(50))["train"].sum()) == 30
    rare = torch.tensor([0] * 49 + [1])
    assert int(split_items(rare)["test"].sum()) == 10
    with pytest.raises(DGLError, match="4 items cannot be split"):
        split_items(torch.arange(4))


def test_folds_test_every_item_once():
    labels = torch.arange(53) % 3
    splits = k_fold(labels, folds=5, seed=1)
    tested = torch.stack([split["test"] for split in splits]).sum(dim=0)
    assert torch.equal(tested, torch.ones(53).long())
    for i, split in enumerate(splits):
        assert torch.equal(split["val"], splits[(i + 1) % 5]["test"])
        assert not bool((split["train"] & (split["val"] | split["test"])).any())
        assert torch.bincount(labels[split["test"]]).min() >= 3
    with pytest.raises(DGLError, match="at most 17"):
        k_fold(labels, folds=18)


def test_parts_of_graphs():
    assert deal_parts(10).count("train") == 6
    masks = deal_graphs([2, 3, 1], ["val", "train", "test"])
    assert masks["train"].tolist() == [False, False, True, True, True, False]
