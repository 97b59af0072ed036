"""Candidate graphs over the hits of a tracking detector, shared by `tracks` and `trackml`.

Coordinates are cylindrical around the beam axis: radius ``r``, azimuth ``phi``, and ``z`` along
the beam. Lengths are in whatever unit the caller uses throughout.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dgl_deepgnn.data.task_data import Split
from dgl_deepgnn.data.transforms import deal_graphs
from dgl_deepgnn.graph import AnyGraph, make_graph

__all__ = [
    "EDGE_FEATURES",
    "HitGraph",
    "candidate_edges",
    "deal_candidates",
    "hit_graph",
    "steps_along_track",
    "wrap_angle",
]

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]

EDGE_FEATURES = ["dr", "dphi", "dz", "dR", "dphi_dr", "z0"]


class HitGraph(NamedTuple):
    """A graph over hits: candidates first, then their reverses, then self-loops."""

    graph: AnyGraph
    labels: torch.Tensor
    """int64, per edge: 1 where both hits follow each other on one track."""
    is_candidate: torch.Tensor
    """bool, per edge: True for candidates, False for reverses and self-loops."""


def wrap_angle(angle: Floats) -> Floats:
    """Angles moved into [-pi, pi).

    Examples
    --------
    >>> wrap_angle(np.array([3 * np.pi / 2])) / np.pi
    array([-0.5])
    """
    return (angle + np.pi) % (2 * np.pi) - np.pi


def candidate_edges(
    r: Floats,
    phi: Floats,
    z: Floats,
    layer: Ints,
    layer_pairs: list[tuple[int, int]],
    *,
    max_slope: float,
    max_z0: float,
) -> tuple[Ints, Ints]:
    """Pairs of hits that could belong to one track, from inner to outer layer.

    A pair passes if ``|dphi / dr| <= max_slope`` (a bound on the curvature, so on the transverse
    momentum) and the straight line through both meets the beam axis within ``|z0| <= max_z0``.

    Parameters
    ----------
    r, phi, z, layer : ndarray, shape (hits,)
        Hits.
    layer_pairs : list of (int, int)
        Layers that may follow each other, the inner one first.
    max_slope : float
        In radians per unit of length.
    max_z0 : float
        In units of length.

    Returns
    -------
    src, dst : ndarray of int64, shape (candidates,)
        Inner and outer hits.
    """
    found: list[NDArray[np.int64]] = []
    for inner, outer in layer_pairs:
        a, b = np.nonzero(layer == inner)[0], np.nonzero(layer == outer)[0]
        dr = r[b][None] - r[a][:, None]
        # Beyond the last disc a track may move on along the beam with hardly any step in r.
        far = np.abs(dr) > 1e-9
        dr = np.where(far, dr, 1.0)
        dphi = wrap_angle(phi[b][None] - phi[a][:, None])
        z0 = z[a][:, None] - r[a][:, None] * (z[b][None] - z[a][:, None]) / dr
        passed = far & (np.abs(dphi / dr) <= max_slope) & (np.abs(z0) <= max_z0)
        i, j = np.nonzero(passed)
        found.append(np.stack([a[i], b[j]]))
    src, dst = np.concatenate(found, axis=1) if found else np.zeros((2, 0), dtype=np.int64)
    return src, dst


def steps_along_track(particle: Ints, layer: Ints, distance: Floats) -> Ints:
    """Number of layers its particle has crossed before each hit; -1 for noise (particle 0).

    Two hits of one layer share a step, so hits whose steps differ by one follow each other.

    Parameters
    ----------
    particle, layer : ndarray of int, shape (hits,)
        Particle (0 is noise) and layer of each hit.
    distance : ndarray, shape (hits,)
        Distance from the centre of the detector; layers are ordered by their first hit.

    Examples
    --------
    >>> steps_along_track(np.array([5, 5, 0, 5]), np.array([2, 1, 1, 2]), np.array([3, 1, 1, 2.9]))
    array([ 1,  0, -1,  1])
    """
    steps = np.full(len(particle), -1)
    order = np.lexsort((distance, particle))
    crossed: dict[int, dict[int, int]] = {}
    for hit in order[particle[order] != 0]:
        mine = crossed.setdefault(int(particle[hit]), {})
        steps[hit] = mine.setdefault(int(layer[hit]), len(mine))
    return steps


def hit_graph(
    r: Floats,
    phi: Floats,
    z: Floats,
    features: Floats,
    edges: tuple[Ints, Ints],
    particle: Ints,
    steps: Ints,
) -> HitGraph:
    """Graph of candidate edges, both ways, with self-loops, edge features and labels.

    Edge features are `EDGE_FEATURES`: the steps ``dr, dphi, dz`` (negated on reverse edges), the
    distance ``dR = sqrt(deta**2 + dphi**2)``, the slope ``dphi / dr`` and the intercept ``z0``;
    zero on self-loops.

    Parameters
    ----------
    r, phi, z : ndarray, shape (hits,)
    features : ndarray, shape (hits, columns)
        Node features.
    edges : pair of ndarray of int
        From `candidate_edges`.
    particle, steps : ndarray of int, shape (hits,)
        Truth; see `steps_along_track`.
    """
    src, dst = edges
    dr, dz = r[dst] - r[src], z[dst] - z[src]
    dphi = wrap_angle(phi[dst] - phi[src])
    eta = np.arcsinh(z / r)
    distance, slope = np.hypot(eta[dst] - eta[src], dphi), dphi / dr
    forward = np.column_stack([dr, dphi, dz, distance, slope, z[src] - r[src] * dz / dr])
    mirror = np.array([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    columns = np.concatenate([forward, forward * mirror, np.zeros((len(r), len(mirror)))])
    follows = (particle[src] == particle[dst]) & (particle[src] != 0)
    follows &= steps[dst] == steps[src] + 1

    loops = np.arange(len(r))
    graph = make_graph(
        (
            torch.from_numpy(np.concatenate([src, dst, loops])),
            torch.from_numpy(np.concatenate([dst, src, loops])),
        ),
        num_nodes=len(r),
    )
    graph.ndata["feat"] = torch.from_numpy(features.astype(np.float32))
    graph.edata["feat"] = torch.from_numpy(columns.astype(np.float32))
    labels = np.concatenate([follows, follows, np.zeros(len(r), dtype=bool)])
    is_candidate = torch.arange(len(labels)) < len(src)
    return HitGraph(graph, torch.from_numpy(labels.astype(np.int64)), is_candidate)


def deal_candidates(
    graphs: list[AnyGraph], items: list[torch.Tensor], part_of_graph: list[str]
) -> Split:
    """Masks of a split by graph in which only `items` (bool, per edge) are scored."""
    masks = deal_graphs([graph.num_edges() for graph in graphs], part_of_graph)
    scored = torch.cat(items)
    return {part: mask & scored for part, mask in masks.items()}
