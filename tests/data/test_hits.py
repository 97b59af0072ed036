from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from dgl_deepgnn.data.hits import candidate_edges, hit_graph, steps_along_track, wrap_angle


def random_hits(hits: int = 60, seed: int = 0):
    rng = np.random.default_rng(seed)
    layer = rng.integers(0, 4, hits)
    return 1.0 + layer, rng.uniform(-math.pi, math.pi, hits), rng.uniform(-2, 2, hits), layer


def test_wrap_angle():
    angles = np.linspace(-20, 20, 101)
    wrapped = wrap_angle(angles)
    assert np.all((wrapped >= -np.pi) & (wrapped < np.pi))
    np.testing.assert_allclose(np.exp(1j * wrapped), np.exp(1j * angles), atol=1e-12)


def test_candidates_against_a_plain_loop():
    r, phi, z, layer = random_hits()
    pairs = [(0, 1), (1, 2), (0, 2)]
    expected = set()
    for a, b in itertools.permutations(range(len(r)), 2):
        if (layer[a], layer[b]) not in pairs:
            continue
        turn = abs(phi[b] - phi[a])
        turn = min(turn, 2 * math.pi - turn)
        slope = (z[b] - z[a]) / (r[b] - r[a])
        if turn / (r[b] - r[a]) <= 0.7 and abs(z[a] - slope * r[a]) <= 1.5:
            expected.add((a, b))
    src, dst = candidate_edges(r, phi, z, layer, pairs, max_slope=0.7, max_z0=1.5)
    assert set(zip(src.tolist(), dst.tolist(), strict=True)) == expected
    assert len(src) == len(expected) > 20


def test_steps_follow_layers_not_hits():
    particle = np.array([1, 1, 1, 1, 2, 2, 0])
    layer = np.array([3, 1, 1, 2, 5, 2, 1])
    distance = np.array([9.0, 1.0, 1.1, 4.0, 7.0, 2.0, 3.0])
    assert steps_along_track(particle, layer, distance).tolist() == [2, 0, 0, 1, 1, 0, -1]


def test_hit_graph_orders_candidates_reverses_loops():
    r, phi, z = np.array([1.0, 2.0, 2.0]), np.array([0.0, 0.2, 3.0]), np.array([1.0, 3.0, 0.0])
    edges = (np.array([0, 0]), np.array([1, 2]))
    particle, steps = np.array([4, 4, 0]), np.array([0, 1, -1])
    graph, labels, is_candidate = hit_graph(r, phi, z, np.eye(3), edges, particle, steps)
    assert graph.edges(order="eid")[0].tolist() == [0, 0, 1, 2, 0, 1, 2]
    assert graph.edges(order="eid")[1].tolist() == [1, 2, 0, 0, 0, 1, 2]
    assert is_candidate.tolist() == [True, True, False, False, False, False, False]
    assert labels.tolist() == [1, 0, 1, 0, 0, 0, 0]
    feat = graph.edata["feat"].numpy()
    d_r = math.hypot(math.asinh(1.5) - math.asinh(1.0), 0.2)
    assert feat[0] == pytest.approx([1, 0.2, 2, d_r, 0.2, -1], rel=1e-5)
    assert feat[2] == pytest.approx([-1, -0.2, -2, d_r, 0.2, -1], rel=1e-5)
    assert not feat[4:].any()


def test_noise_never_follows_noise():
    r, phi, z = np.array([1.0, 2.0]), np.zeros(2), np.zeros(2)
    edges = (np.array([0]), np.array([1]))
    made = hit_graph(r, phi, z, np.eye(2), edges, np.zeros(2, int), np.array([-1, -1]))
    assert not made.labels.any()
