"""The pixel detector of one TrackML event, cut into sectors: real edge classification data."""

from __future__ import annotations

import itertools
import math
import os
from pathlib import Path

import numpy as np
import torch

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
from dgl_deepgnn.errors import DGLError

__all__ = ["trackml"]

FILE = "trackml_event21000_pixel_sectors.npz"

# Pixel layers: 7 to 10 the barrel from the inside, 6 down to 0 and 11 up to 17 the discs
# on either side, each from the inside; a track leaves the barrel through any of its layers.
_BARREL = (7, 8, 9, 10)
LAYER_PAIRS = [
    *itertools.pairwise(_BARREL),
    *((layer, 6) for layer in _BARREL),
    *((layer, 11) for layer in _BARREL),
    *((layer, layer - 1) for layer in range(6, 0, -1)),
    *((layer, layer + 1) for layer in range(11, 17)),
]

FIELD = 2.0  # T
MAX_RADIUS = 180.0  # of the pixel detector, mm


@register_dataset(
    "trackml", features="standardize", safe=True, values={"pt_min": 10, "max_z0": 10_000}
)
def trackml(path: str | None = None, pt_min: float = 0.9, max_z0: float = 200.0) -> TaskData:
    """Edge classification on the pixel hits of a simulated LHC collision (TrackML challenge).

    Each of the 32 azimuthal sectors is a graph over its hits, in azimuth relative to the middle
    of the sector; candidate edges join hits on layers that may follow each other, whose slope
    ``dphi/dr`` allows ``pt >= pt_min`` and whose line meets the beam within `max_z0`. A candidate
    is positive if its hits follow each other on the path of one particle. Hits of particles below
    `pt_min` are left out, as is usual since DeZoort et al. (2021); noise hits stay.

    Neighbouring sectors overlap: candidates are scored only where the inner hit lies in the
    sector's own 1/32 of the circle, the margin beyond is context. Sectors 0 to 19 train, 20 to
    25 val, 26 to 31 test: contiguous, so that few margins are shared.

    Parameters
    ----------
    path : str, optional
        The npz file or its folder. By default the environment variable
        ``DGL_DEEPGNN_TRACKML``, then ``npz`` in or beside ``DGL_DOWNLOAD_DIR``.
    pt_min : float, optional
        Least transverse momentum of a particle in GeV; 0.1 or more.
    max_z0 : float, optional
        In mm.

    Raises
    ------
    DGLError
        If the file is nowhere, or an option is out of range.
    """
    if pt_min < 0.1 or max_z0 <= 0:
        raise DGLError(f"trackml: pt_min={pt_min}, max_z0={max_z0}; needed: >= 0.1 and > 0.")
    with np.load(_find(path), allow_pickle=False) as archive:
        data = {key: archive[key] for key in archive.files}
    names = data["feature_names"].tolist()
    x = data["x"].astype(np.float64)
    r, phi, z = (x[:, names.index(name)] for name in ("r", "phi", "z"))
    steps = steps_along_track(data["particle_id"], data["layer"], np.hypot(r, z))
    kept = (data["pt"] >= pt_min) | (data["particle_id"] == 0)
    diameter = 2 * 1000 * pt_min / (0.299792458 * FIELD)  # mm
    max_slope = 1.1 / math.sqrt(max(diameter**2 - MAX_RADIUS**2, 1.0))

    width = 2 * math.pi / (len(data["sector_ptr"]) - 1)
    graphs, labels, items, positives, segments = [], [], [], 0, 0
    for start, stop in zip(data["sector_ptr"][:-1], data["sector_ptr"][1:], strict=True):
        hits = np.arange(start, stop)[kept[start:stop]]
        middle = np.angle(np.exp(1j * phi[start:stop]).mean())
        middle = width * round(middle / width)  # sectors are centred on multiples of their width
        local = wrap_angle(phi[hits] - middle)
        columns = x[hits].copy()
        columns[:, names.index("phi")] = local
        columns[:, names.index("gphi")] = wrap_angle(columns[:, names.index("gphi")] - middle)
        columns[:, names.index("u")] = np.cos(local) / r[hits]
        columns[:, names.index("v")] = np.sin(local) / r[hits]
        who, where, step = (a[hits] for a in (data["particle_id"], data["layer"], steps))
        edges = candidate_edges(
            r[hits], local, z[hits], where, LAYER_PAIRS, max_slope=max_slope, max_z0=max_z0
        )
        sector = hit_graph(r[hits], local, z[hits], columns, edges, who, step)
        own = np.abs(local) <= width / 2
        scored = sector.is_candidate & torch.from_numpy(own)[sector.graph.edges(order="eid")[0]]
        graphs.append(sector.graph)
        labels.append(sector.labels)
        items.append(scored)
        positives += int(sector.labels[scored].sum())
        follows = (who[:, None] == who[None]) & (step[None] == step[:, None] + 1)
        segments += int(follows[own & (who != 0)].sum())
    parts = ["train"] * 20 + ["val"] * 6 + ["test"] * 6
    info = {
        "citation": "Amrouche et al., The Tracking Machine Learning Challenge: Accuracy Phase, "
        "2019, arXiv:1904.06778",
        "licence": "MIT (gnn-tracking/test-data)",
        "description": f"pixel hits of one TrackML event in {len(graphs)} sectors, "
        f"pt >= {pt_min} GeV",
        "feature_names": names,
        "edge_feature_names": EDGE_FEATURES,
        "hits": sum(graph.num_nodes() for graph in graphs),
        "candidates": int(torch.cat(items).sum()),
        "positive_share": positives / int(torch.cat(items).sum()),
        "candidate_efficiency": positives / segments,
        "cuts": {"pt_min_gev": pt_min, "max_slope_rad_per_mm": max_slope, "max_z0_mm": max_z0},
        "noise": "kept; hits of particles below pt_min are left out",
    }
    splits = [deal_candidates(graphs, items, parts)]
    return TaskData("trackml", graphs, "edge", "binary", torch.cat(labels), splits, 1, info)


def _find(path: str | None) -> Path:
    places = [Path(path)] if path is not None else []
    if not places:
        if "DGL_DEEPGNN_TRACKML" in os.environ:
            places.append(Path(os.environ["DGL_DEEPGNN_TRACKML"]))
        if "DGL_DOWNLOAD_DIR" in os.environ:
            downloads = Path(os.environ["DGL_DOWNLOAD_DIR"])
            places += [downloads / "npz", downloads.parent / "npz"]
    for place in places:
        for file in (place, place / FILE):
            if file.is_file():
                return file
    raise DGLError(
        f"trackml: found no {FILE}; looked in {', '.join(map(str, places)) or 'no folder'}. Give "
        "path= (the file or its folder) or the environment variable DGL_DEEPGNN_TRACKML."
    )
