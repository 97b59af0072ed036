from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from dgl_deepgnn.data import load_data
from dgl_deepgnn.data.tracks import LAYER_RADII, bending_radius, helix_crossings
from dgl_deepgnn.errors import DGLError

FIELD = 2.0


def some_particles(count: int = 40, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        "pt": 0.2 + rng.exponential(1.0, count),
        "phi0": rng.uniform(-math.pi, math.pi, count),
        "eta": rng.uniform(-1.5, 1.5, count),
        "charge": rng.choice([-1.0, 1.0], count),
        "vertex": rng.normal(0, [0.003, 0.003, 0.05], (count, 3)),
    }


def test_hits_lie_on_the_circle_and_on_the_layers():
    particles = some_particles()
    path = helix_crossings(**particles, radii=LAYER_RADII, field=FIELD)
    crossed = ~np.isnan(path.arc)
    assert crossed.any() and not crossed.all()  # soft particles curl up inside
    radius = particles["pt"] / (0.299792458 * FIELD)
    turn = particles["charge"] * radius
    centre = particles["vertex"][:, :2] + np.column_stack(
        [turn * np.sin(particles["phi0"]), -turn * np.cos(particles["phi0"])]
    )
    away = np.hypot(path.x - centre[:, :1], path.y - centre[:, 1:])
    expected = np.broadcast_to(radius[:, None], away.shape)
    np.testing.assert_allclose(away[crossed], expected[crossed], rtol=1e-9)
    on_layer = np.broadcast_to(LAYER_RADII, away.shape)
    np.testing.assert_allclose(np.hypot(path.x, path.y)[crossed], on_layer[crossed], rtol=1e-9)
    # No crossing where the circle stays inside the layer.
    reach = np.hypot(*centre.T) + radius
    np.testing.assert_array_equal(crossed, reach[:, None] >= LAYER_RADII)


def test_z_is_linear_in_the_path():
    particles = some_particles()
    path = helix_crossings(**particles, radii=LAYER_RADII, field=FIELD)
    tangent = np.sinh(particles["eta"])[:, None]
    np.testing.assert_allclose(path.z - particles["vertex"][:, 2:], path.arc * tangent, rtol=1e-9)
    assert np.nanmin(path.arc) > 0
    assert np.all(np.nan_to_num(np.diff(path.arc, axis=1), nan=1.0) > 0)


@pytest.mark.parametrize("index", range(4))
def test_against_the_lorentz_force(index):
    """Integrate dp/dt = q v x B numerically up to each crossing."""
    particles = {key: value[index : index + 1] for key, value in some_particles(4, 3).items()}
    path = helix_crossings(**particles, radii=LAYER_RADII[:5], field=FIELD)
    pt, phi, charge = (float(particles[key][0]) for key in ("pt", "phi0", "charge"))
    pz = pt * math.sinh(float(particles["eta"][0]))

    def motion(s, state):
        # s is the transverse path: dx/ds = p / pt, dp/ds = 0.2998 q (p x B) / pt
        px, py = state[3:5]
        bend = 0.299792458 * charge * FIELD / pt
        return [px / pt, py / pt, pz / pt, bend * py, -bend * px]

    start = [*particles["vertex"][0], pt * math.cos(phi), pt * math.sin(phi)]
    arcs = path.arc[0][~np.isnan(path.arc[0])]
    solved = solve_ivp(motion, (0, arcs[-1]), start, t_eval=arcs, rtol=1e-10, atol=1e-12).y
    for got, want in zip((path.x, path.y, path.z), solved[:3], strict=True):
        np.testing.assert_allclose(got[0][: len(arcs)], want, atol=1e-7)


def test_stiff_track_is_nearly_straight():
    path = helix_crossings(
        pt=np.array([1000.0]),
        phi0=np.array([0.3]),
        eta=np.array([0.0]),
        charge=np.array([1.0]),
        vertex=np.zeros((1, 3)),
        radii=LAYER_RADII,
        field=FIELD,
    )
    np.testing.assert_allclose(np.arctan2(path.y, path.x), 0.3, atol=1e-3)
    sagitta = LAYER_RADII[-1] / (2 * bending_radius(1000.0, FIELD))
    assert 0.3 - np.arctan2(path.y, path.x)[0, -1] == pytest.approx(np.arcsin(sagitta), rel=1e-6)


def test_tracks_task():
    task = load_data("tracks", features="none")
    assert (task.level, task.target, task.is_inductive()) == ("edge", "binary", True)
    assert 10_000 < task.info["hits"] < 20_000
    assert 0.2 < task.info["positive_share"] < 0.5
    assert task.info["candidate_efficiency"] > 0.99
    used = sum(mask.long() for mask in task.splits[0].values())
    assert int(used.sum()) == task.info["candidates"]
    for graph, mask in zip(task.graphs, used.split(task.items_per_graph), strict=True):
        src, dst = graph.edges(order="eid")
        r = graph.ndata["feat"][:, 0]
        # Every pair of hits is scored once, from the inner to the outer layer.
        chosen = mask.bool()
        assert bool((r[src[chosen]] < r[dst[chosen]]).all())
        assert 2 * int(chosen.sum()) + graph.num_nodes() == graph.num_edges()
        inner = np.searchsorted(LAYER_RADII, r[src[chosen]].numpy() - 1e-6)
        outer = np.searchsorted(LAYER_RADII, r[dst[chosen]].numpy() - 1e-6)
        assert set((outer - inner).tolist()) == {1}


def test_a_hit_follows_at_most_one_other():
    """A particle has one hit per layer, so no hit has two true successors."""
    task = load_data("tracks")
    used = sum(mask.long() for mask in task.splits[0].values()).bool()
    for graph, labels, mask in zip(
        task.graphs,
        task.labels.split(task.items_per_graph),
        used.split(task.items_per_graph),
        strict=True,
    ):
        src, dst = (ends[mask & (labels == 1)] for ends in graph.edges(order="eid"))
        assert len(src.unique()) == len(src) and len(dst.unique()) == len(dst)


def test_noise_lowers_the_share_and_seed_changes_the_events():
    quiet, loud = (load_data("tracks", events=5, noise=n).info for n in (0.0, 1.0))
    assert loud["positive_share"] < quiet["positive_share"]
    first, second = (load_data("tracks", events=5, seed=s).fingerprint() for s in (0, 1))
    assert first != second


@pytest.mark.parametrize("options", [{"events": 4}, {"noise": -1}, {"field": 4}, {"particles": 0}])
def test_options_out_of_range(options):
    with pytest.raises(DGLError, match="tracks: events="):
        load_data("tracks", **options)
