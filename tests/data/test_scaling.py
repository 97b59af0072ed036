from __future__ import annotations

from dataclasses import replace

import dgl
import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler, normalize

from dgl_deepgnn.data import TaskData, apply_scaling, load_data
from dgl_deepgnn.data.scaling import FEATURE_TRANSFORMS, far_outside, transform_features
from dgl_deepgnn.data.transforms import deal_graphs


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
    # Edge features of messages are not moved: zeros stay zeros.
    edges = normalize(task.graphs[0].edata["feat"].numpy(), axis=0) * 60**0.5
    np.testing.assert_allclose(graphs[0].edata["feat"].numpy(), edges, atol=1e-5)
    assert set(record) == {"node", "edge"}


def test_standardize_moves_features_of_edges_that_are_scored():
    task = two_graphs()
    part = [deal_graphs([60, 60, 60], ["train", "val", "test"])]
    task = replace(task, level="edge", labels=torch.arange(180) % 2, splits=part)
    graphs, _ = transform_features(task, "standardize")
    edges = StandardScaler().fit_transform(task.graphs[0].edata["feat"].numpy())
    np.testing.assert_allclose(graphs[0].edata["feat"].numpy(), edges, atol=1e-5)


def test_indicators_of_edges_are_left_alone():
    task = two_graphs()
    for graph in task.graphs:
        graph.edata["feat"] = torch.nn.functional.one_hot(torch.arange(60) % 3).float()
    graphs, record = transform_features(task, "standardize")
    assert torch.equal(graphs[0].edata["feat"], task.graphs[0].edata["feat"])
    assert record["edge"]["transform"] == "none"


def test_rescale_keeps_proportions():
    task = two_graphs()
    graphs, _ = transform_features(task, "rescale")
    before, after = task.graphs[0].ndata["feat"], graphs[0].ndata["feat"]
    assert float(after.square().mean()) == pytest.approx(1, rel=1e-5)
    assert torch.allclose(after.mean(dim=0), torch.zeros(4), atol=1e-5)
    ratio = after[:, :3].std(dim=0) / before[:, :3].std(dim=0)
    assert torch.allclose(ratio, ratio[:1].expand(3))


def test_rescale_nonzero_keeps_zeros_and_proportions():
    task = two_graphs()
    for graph in task.graphs:
        graph.ndata["feat"][:, 1].clamp_(min=0)
    graphs, record = transform_features(task, "rescale-nonzero")
    before, after = task.graphs[0].ndata["feat"], graphs[0].ndata["feat"]
    assert torch.equal(before == 0, after == 0) and bool((after == 0).any())
    assert float(after[after != 0].square().mean()) == pytest.approx(1, rel=1e-5)
    ratio = (before / after)[after != 0]
    assert torch.allclose(ratio, ratio[0].expand_as(ratio))
    assert record["node"]["scale"] == pytest.approx([float(ratio[0])] * 4)


def test_features_of_zeros_stay_so():
    task = two_graphs()
    for graph in task.graphs:
        graph.ndata["feat"].zero_()
    graphs, _ = transform_features(task, "rescale-nonzero")
    assert not graphs[0].ndata["feat"].any()


def test_row_normalize_is_sklearns_l1():
    task = two_graphs()
    task.graphs[0].ndata["feat"][4] = 0
    graphs, _ = transform_features(task, "row-normalize")
    expected = normalize(task.graphs[0].ndata["feat"].numpy(), norm="l1")
    np.testing.assert_allclose(graphs[0].ndata["feat"].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("how", FEATURE_TRANSFORMS)
def test_the_record_treats_new_graphs_alike(how):
    task = two_graphs()
    graphs, record = transform_features(task, how)
    again = apply_scaling(task.graphs[2], record)
    assert torch.equal(again.ndata["feat"], graphs[2].ndata["feat"])
    assert torch.equal(again.edata["feat"], graphs[2].edata["feat"])
    assert task.graphs[2].ndata["feat"][:, 3].eq(7).all()  # the input is left as it was


def test_the_record_has_the_range_of_training_graphs():
    task = two_graphs()
    graphs, record = transform_features(task, "rescale")
    feat = graphs[0].ndata["feat"]
    assert torch.allclose(torch.tensor(record["node"]["low"]), feat.amin(dim=0), rtol=1e-3)
    assert torch.allclose(torch.tensor(record["node"]["high"]), feat.amax(dim=0), rtol=1e-3)
    assert record["node"]["rms"] == pytest.approx(float(feat.square().mean().sqrt()), rel=1e-3)


@pytest.mark.parametrize("sparse", [False, True])
def test_far_outside(sparse):
    torch.manual_seed(0)
    words = (torch.rand(200, 50) < 0.1).float()
    entry = {"low": [0.0] * 50, "high": [1.0] * 50, "rms": float(words.square().mean().sqrt())}

    def differs(feat: torch.Tensor) -> str | None:
        return far_outside(feat.to_sparse_csr() if sparse else feat, entry)

    assert differs(words) is None
    assert differs(words[:1]) is None
    assert differs(1.4 * words) is None
    assert differs(torch.zeros(5, 50)) is None
    few = words.clone()
    few[0, :3] = 7  # three odd values do not matter
    assert differs(few) is None
    assert "100% of the features" in (differs(2 * words) or "")
    assert "times smaller" in (differs(words / 100) or "")
    few[0, 0] = -999  # a code for what is missing does
    assert differs(few) == (
        "1 of the features lies very far outside the range in training "
        "(column 0: down to -999, then 0)"
    )
    some = words.clone()
    some[:, 9] = -3
    assert "column 9: down to -3, then 0" in (differs(some) or "")


def test_a_data_set_is_not_far_from_itself():
    embedded = ("digits", "csbm", "tracks", "digits-grid", "long-range", "opinions")
    for name in (*embedded, "ring-transfer", "eccentricity"):
        data = load_data(name)
        for graph in data.graphs[-20:]:
            assert far_outside(graph.ndata["feat"], data.info["features"]["node"]) is None
