from __future__ import annotations

import networkx
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError


def sizes(task):
    return [int(task.splits[0][part].sum()) for part in ("train", "val", "test")]


def is_symmetric(graph) -> bool:
    dense = torch.zeros(graph.num_nodes(), graph.num_nodes())
    dense[graph.edges()] = 1
    return torch.equal(dense, dense.T) and bool(dense.diagonal().eq(1).all())


def test_digits_are_joined_to_their_nearest():
    task = load_data("digits", neighbors=5, features="none")
    images, classes = load_digits(return_X_y=True)
    assert sizes(task) == [200, 397, 1200]
    assert torch.equal(task.labels, torch.from_numpy(classes))
    graph = task.graphs[0]
    np.testing.assert_allclose(graph.ndata["feat"].numpy() * 16, images)
    assert is_symmetric(graph)
    src, dst = graph.edges()
    for node in (0, 17, 1000):
        gaps = np.square(images - images[node]).sum(axis=1)
        gaps[node] = np.inf
        near = set(dst[src == node].tolist())
        within = set(np.nonzero(gaps < np.sort(gaps)[4])[0].tolist())
        assert within <= near  # beyond them, ties, and those that chose this node


def test_ties_between_digits_go_to_the_lower_index():
    # Whole numbers leave no room for rounding: the graph must not depend on threads or machine.
    images = load_digits(return_X_y=True)[0].astype(np.int64)
    squared = (images**2).sum(1)[:, None] + (images**2).sum(1) - 2 * images @ images.T
    edges = set()
    for node, row in enumerate(squared):
        order = sorted((gap, other) for other, gap in enumerate(row.tolist()) if other != node)
        edges |= {(node, other) for _, other in order[:8]} | {(o, node) for _, o in order[:8]}
    src, dst = load_data("digits").graphs[0].edges()
    assert edges | {(node, node) for node in range(1797)} == set(
        zip(src.tolist(), dst.tolist(), strict=True)
    )


def test_more_neighbors_more_edges():
    few, many = (load_data("digits", neighbors=n).graphs[0].num_edges() for n in (4, 10))
    assert few < load_data("digits").graphs[0].num_edges() < many
    with pytest.raises(DGLError, match="option 'neighbors' is 0; allowed: 1 to 1796"):
        load_data("digits", neighbors=0)


@pytest.mark.parametrize(("neighbors", "edges"), [(4, 2 * 2 * 7 * 8 + 64), (8, 4 * 7 * 15 + 64)])
def test_digits_grid_is_a_grid(neighbors, edges):
    task = load_data("digits-grid", neighbors=neighbors, features="none")
    assert sizes(task) == [1000, 297, 500]
    assert task.level == "graph" and task.is_inductive()
    graph = task.graphs[5]
    assert graph.num_edges() == edges and is_symmetric(graph)
    image = load_digits().images[5]
    feat = graph.ndata["feat"].numpy()
    np.testing.assert_allclose(feat[:, 0].reshape(8, 8) * 16, image)
    src, dst = graph.edges()
    steps = np.abs(feat[src] - feat[dst])[:, 1:] * 7
    assert steps.max() == pytest.approx(1)
    if neighbors == 4:
        assert steps.sum(axis=1).max() == pytest.approx(1)


def test_digits_grid_takes_four_or_eight():
    with pytest.raises(DGLError, match="4 or 8"):
        load_data("digits-grid", neighbors=6)


def test_karate():
    task = load_data("karate")
    assert task.target == "binary" and sizes(task) == [6, 8, 20]
    assert task.graphs[0].num_edges() == 2 * 78 + 34 and is_symmetric(task.graphs[0])
    assert int(task.labels.sum()) == 17
    assert (task.labels[0], task.labels[33]) == (0, 1)
    assert set(task.labels[task.splits[0]["train"]].tolist()) == {0, 1}


@pytest.mark.parametrize("homophily", [0.1, 0.5, 0.9])
def test_csbm_has_the_degree_and_homophily_asked_for(homophily):
    task = load_data("csbm", num_nodes=3000, num_classes=3, avg_degree=12, homophily=homophily)
    graph = task.graphs[0]
    src, dst = graph.edges()
    real = src != dst
    same = task.labels[src[real]] == task.labels[dst[real]]
    assert float(same.float().mean()) == pytest.approx(homophily, abs=0.02)
    assert int(real.sum()) / 3000 == pytest.approx(12, abs=0.3)
    assert is_symmetric(graph)


def test_csbm_signal_is_the_length_of_class_means():
    task = load_data("csbm", num_nodes=4000, num_classes=2, signal=3.0, feature_dim=8)
    feat = task.graphs[0].ndata["feat"]
    for c in (0, 1):
        mine = feat[task.labels == c]
        assert float(mine.mean(dim=0).norm()) == pytest.approx(3, abs=0.1)
        assert float(mine.std(dim=0).mean()) == pytest.approx(1, abs=0.03)


def test_csbm_seed_and_limits():
    assert load_data("csbm", seed=1).fingerprint() != load_data("csbm").fingerprint()
    for options in ({"homophily": 1.5}, {"avg_degree": 5000}, {"num_classes": 1}, {"num_nodes": 9}):
        with pytest.raises(DGLError, match="csbm"):
            load_data("csbm", **options)


def test_karate_is_networkxs():
    src, dst = load_data("karate").graphs[0].edges()
    made = networkx.Graph(
        [(u, v) for u, v in zip(src.tolist(), dst.tolist(), strict=True) if u != v]
    )
    assert networkx.utils.edges_equal(made.edges, networkx.karate_club_graph().edges)
