from __future__ import annotations

import dgl
import pytest
import torch
from dgl import DGLError
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.data.transforms import (
    deal_graphs,
    deal_parts,
    k_fold,
    split_items,
    undirected,
)


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
