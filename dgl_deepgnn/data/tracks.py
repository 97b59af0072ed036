"""Simulated charged particles in a solenoid field: which hits follow each other on a track?"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Le
from numpy.typing import NDArray

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.hits import (
    EDGE_FEATURES,
    candidate_edges,
    deal_candidates,
    hit_graph,
    steps_along_track,
    wrap_angle,
)
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import deal_parts
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.options import Count, Seed

__all__ = ["Crossings", "bending_radius", "helix_crossings", "tracks"]

Floats = NDArray[np.floating]

SPEED_OF_LIGHT = 0.299792458
"""GeV / (T m): turns charge times field times radius into transverse momentum."""

LAYER_RADII = np.array([0.032, 0.072, 0.116, 0.172, 0.26, 0.36, 0.5, 0.66, 0.82, 1.02])
"""Radii of the barrel layers in m, of the size of an LHC tracker."""

HALF_LENGTH = 1.2  # of the barrel, m
PT_MIN, PT_MEAN_EXCESS = 0.5, 1.0  # GeV
MAX_ETA = 1.0
VERTEX_SPREAD = (1e-4, 1e-4, 0.01)  # standard deviations of x, y, z in m
RESOLUTION = (1e-4, 5e-4)  # standard deviations of r * phi and of z in m
EFFICIENCY = 0.98  # of a layer to see a particle
MAX_Z0 = 0.3  # m
MAX_PARTICLES = 10**8  # of all events together


class Crossings(NamedTuple):
    """Where particles cross layers, arrays of shape (particles, layers); NaN: never."""

    arc: Floats
    """Path length in the transverse plane from the vertex, m."""
    x: Floats
    y: Floats
    z: Floats


def bending_radius(pt: Floats | float, field: float) -> Floats | float:
    """Radius in m of the circle on which a unit charge moves: ``R = pt / (0.2998 * B)``.

    The Lorentz force bends the transverse momentum ``pt`` in GeV in a field ``B`` in T along
    the beam axis.

    Examples
    --------
    >>> round(bending_radius(1.0, 2.0), 3)
    1.668
    """
    return pt / (SPEED_OF_LIGHT * field)


def helix_crossings(
    pt: Floats,
    phi0: Floats,
    eta: Floats,
    charge: Floats,
    vertex: Floats,
    radii: Floats,
    field: float,
) -> Crossings:
    r"""First crossings of helices with cylinders around the beam axis.

    In a field along z, ``s`` being the path in the transverse plane and ``q = +-1`` the charge,

    .. math::
        \phi(s) = \phi_0 - q s / R, \quad z(s) = z_0 + s \sinh\eta, \quad
        (x, y)(s) = c + R (\cos(\alpha_0 - q s / R), \sin(\alpha_0 - q s / R))

    with centre ``c = (x0 + q R sin(phi0), y0 - q R cos(phi0))``. Energy loss and multiple
    scattering are left out.

    Parameters
    ----------
    pt, phi0, eta, charge : ndarray, shape (particles,)
        Transverse momentum in GeV, direction at the vertex, pseudorapidity, +1 or -1.
    vertex : ndarray, shape (particles, 3)
        Where each starts, in m.
    radii : ndarray, shape (layers,)
        Of the cylinders, in m.
    field : float
        In T.

    Returns
    -------
    Crossings
        Arrays of shape (particles, layers).

    Examples
    --------
    >>> one = np.ones(1)
    >>> path = helix_crossings(one, 0 * one, 0 * one, one, np.zeros((1, 3)), np.array([0.1]), 2.0)
    >>> round(float(path.arc[0, 0]), 5), bool(path.y[0, 0] < 0)
    (0.10001, True)
    """
    radius = np.asarray(bending_radius(pt, field))
    centre_x = vertex[:, 0] + charge * radius * np.sin(phi0)
    centre_y = vertex[:, 1] - charge * radius * np.cos(phi0)
    start = np.arctan2(vertex[:, 1] - centre_y, vertex[:, 0] - centre_x)
    away = np.hypot(centre_x, centre_y)
    # Law of cosines: the angles, seen from the centre, at which the circle meets a cylinder.
    cosine = (radii**2 - (away**2 + radius**2)[:, None]) / (2 * away * radius)[:, None]
    with np.errstate(invalid="ignore"):
        half = np.arccos(cosine)  # NaN: the circle never gets that far out
    towards = np.arctan2(centre_y, centre_x)[:, None]
    turned = [
        (charge[:, None] * (start[:, None] - towards - side * half)) % (2 * math.pi)
        for side in (1, -1)
    ]
    turn = np.minimum(*turned)
    angle = start[:, None] - charge[:, None] * turn
    arc = radius[:, None] * turn
    return Crossings(
        arc,
        centre_x[:, None] + radius[:, None] * np.cos(angle),
        centre_y[:, None] + radius[:, None] * np.sin(angle),
        vertex[:, 2:] + arc * np.sinh(eta)[:, None],
    )


@register_dataset(
    "tracks",
    features="standardize",
    safe=True,
    values={"events": 200, "particles": 500, "noise": 1, "field": 4, "seed": None},
)
def tracks(
    events: Count = 20,
    particles: Annotated[int, Le(10_000)] = 80,
    noise: Annotated[float, Le(10)] = 0.1,
    field: float = 3.0,
    seed: Seed = 0,
) -> TaskData:
    """Edge classification in simulated particle collisions: true track segment or not?

    Each event is a graph. Particles (pt = 0.5 GeV plus an exponential of mean 1 GeV, flat in
    azimuth and in |eta| < 1, either charge) start around the collision point (Gaussian, 1 cm along
    the beam, 0.1 mm across) and move on helices (`helix_crossings`) through ten barrel layers of
    radius 3 to 102 cm and 2.4 m length, each of which sees them with probability 0.98 and
    measures r * phi to 0.1 mm and z to 0.5 mm. Noise hits lie anywhere on the layers.

    Candidate edges join hits on adjacent layers whose slope dphi/dr allows pt > 0.5 GeV and whose
    line meets the beam within 30 cm. A candidate is positive if both hits belong to the same
    particle. Messages also pass along reverse edges and self-loops, which are in no part of the
    split. Events are dealt out: 60 % train, 20 % val, 20 % test.

    Parameters
    ----------
    events : int, optional
        Graphs, from 5 to 1,000,000; times `particles` at most 100,000,000.
    particles : int, optional
        Charged particles per event, at most 10,000.
    noise : float, optional
        Noise hits per expected particle hit, at most 10.
    field : float, optional
        Magnetic field in T, from 0.1 to 3.2 (above, a particle of 0.5 GeV would not reach the
        outermost layer).
    seed : int, optional
        Seed of the simulation.

    Raises
    ------
    DGLError
        If an option is out of range.
    """
    if events < 5 or particles < 1 or noise < 0 or not 0.1 <= field <= 3.2:
        raise DGLError(
            f"tracks: events={events}, particles={particles}, noise={noise}, field={field}; "
            "needed: events >= 5, particles >= 1, noise >= 0, 0.1 <= field <= 3.2."
        )
    if events * particles > MAX_PARTICLES:
        raise DGLError(
            f"tracks: events={events} times particles={particles} is more than {MAX_PARTICLES:,}."
        )
    rng = np.random.default_rng(seed)
    pairs = [(inner, inner + 1) for inner in range(len(LAYER_RADII) - 1)]
    # dphi/dr of a track of the least momentum, steepest at the outermost layer; smearing of the
    # hits adds to it where layers are close.
    tightest = 2 * float(bending_radius(PT_MIN, field))
    max_slope = 1.1 / math.sqrt(tightest**2 - LAYER_RADII[-1] ** 2)
    graphs, labels, items = [], [], []
    hits = segments = 0
    for _ in range(events):
        r, phi, z, layer, particle = _simulate(rng, particles, noise, field)
        steps = steps_along_track(particle, layer, r)
        edges = candidate_edges(r, phi, z, layer, pairs, max_slope=max_slope, max_z0=MAX_Z0)
        columns = np.column_stack(
            [r, np.cos(phi), np.sin(phi), z, np.arcsinh(z / r), np.cos(phi) / r, np.sin(phi) / r]
        )
        event = hit_graph(r, phi, z, columns, edges, particle, steps)
        graphs.append(event.graph)
        labels.append(event.labels)
        items.append(event.is_candidate)
        hits += len(r)
        on_track = set(
            zip(particle[particle > 0].tolist(), layer[particle > 0].tolist(), strict=True)
        )
        segments += sum((who, where + 1) in on_track for who, where in on_track)

    splits = [deal_candidates(graphs, items, deal_parts(events))]
    target, candidate = torch.cat(labels), torch.cat(items)
    positives = int(target[candidate].sum())
    info = {
        "citation": "simulated here; the task follows DeZoort et al., Charged particle tracking "
        "via edge-classifying interaction networks, 2021, arXiv:2103.16701",
        "licence": "generated",
        "description": f"{events} events of {particles} charged particles in a field of {field} T",
        "feature_names": ["r", "cos(phi)", "sin(phi)", "z", "eta", "cos(phi)/r", "sin(phi)/r"],
        "edge_feature_names": EDGE_FEATURES,
        "hits": hits,
        "candidates": int(candidate.sum()),
        "positive_share": positives / int(candidate.sum()),
        "candidate_efficiency": positives / segments,
        "cuts": {"pt_min_gev": PT_MIN, "max_slope_rad_per_m": max_slope, "max_z0_m": MAX_Z0},
    }
    return TaskData("tracks", graphs, "edge", "binary", target, splits, 1, info)


def _simulate(
    rng: np.random.Generator, particles: int, noise: float, field: float
) -> tuple[Floats, Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Measured r, phi, z, layer and particle (0: noise) of the hits of one event, shuffled."""
    path = helix_crossings(
        pt=PT_MIN + rng.exponential(PT_MEAN_EXCESS, particles),
        phi0=rng.uniform(-math.pi, math.pi, particles),
        eta=rng.uniform(-MAX_ETA, MAX_ETA, particles),
        charge=rng.choice([-1.0, 1.0], particles),
        vertex=rng.normal(0.0, VERTEX_SPREAD, (particles, 3)),
        radii=LAYER_RADII,
        field=field,
    )
    seen = (np.abs(path.z) <= HALF_LENGTH) & (rng.random(path.z.shape) < EFFICIENCY)
    who, where = np.nonzero(seen)
    fakes = rng.poisson(noise * particles * len(LAYER_RADII))
    layer = np.concatenate([where, rng.integers(0, len(LAYER_RADII), fakes)])
    r = LAYER_RADII[layer]
    phi = np.concatenate(
        [np.arctan2(path.y[seen], path.x[seen]), rng.uniform(-math.pi, math.pi, fakes)]
    )
    z = np.concatenate([path.z[seen], rng.uniform(-HALF_LENGTH, HALF_LENGTH, fakes)])
    phi = wrap_angle(phi + rng.normal(0.0, RESOLUTION[0], len(r)) / r)
    z = z + rng.normal(0.0, RESOLUTION[1], len(r))
    particle = np.concatenate([who + 1, np.zeros(fakes, dtype=np.int64)])
    order = rng.permutation(len(r))
    return r[order], phi[order], z[order], layer[order], particle[order]
