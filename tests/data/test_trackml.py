from __future__ import annotations

import numpy as np
import pytest
import torch

from dgl_deepgnn.data import load_data
from dgl_deepgnn.errors import DGLError


def test_trackml(trackml_file):
    task = load_data("trackml", path=str(trackml_file), features="none")
    assert (len(task.graphs), task.level, task.in_feats) == (32, "edge", 14)
    assert task.is_inductive()
    assert task.info["cuts"]["pt_min_gev"] == 0.9
    assert 0.2 < task.info["positive_share"] < 0.5
    assert task.info["candidate_efficiency"] > 0.9
    phi = task.info["feature_names"].index("phi")
    width = 2 * np.pi / 32
    used = torch.stack(list(task.splits[0].values())).any(dim=0)
    for graph, mask in zip(task.graphs, used.split(task.items_per_graph), strict=True):
        angle = graph.ndata["feat"][:, phi]
        assert float(angle.abs().max()) < width  # the same frame for every sector
        src, dst = graph.edges(order="eid")
        assert float(angle[src[mask]].abs().max()) <= width / 2 + 1e-6
        pairs = torch.stack([src[mask], dst[mask]]).sort(dim=0).values
        assert pairs.unique(dim=1).shape[1] == pairs.shape[1]  # scored once


def test_no_scored_segment_is_in_two_parts(trackml_file):
    """Sectors overlap; their own wedges do not."""
    task = load_data("trackml", path=str(trackml_file), features="none")
    names = task.info["feature_names"]
    keep = [names.index(name) for name in ("r", "z", "eta", "charge_frac", "leta", "lphi")]
    seen: dict[str, set] = {}
    for part, mask in task.splits[0].items():
        seen[part] = set()
        for graph, scored in zip(task.graphs, mask.split(task.items_per_graph), strict=True):
            src, dst = (ends[scored] for ends in graph.edges(order="eid"))
            table = graph.ndata["feat"][:, keep]
            seen[part] |= set(map(tuple, torch.cat([table[src], table[dst]], dim=1).tolist()))
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]


def test_lower_threshold_more_hits(trackml_file):
    options = {"path": str(trackml_file.parent)}  # the folder is found, too
    few = load_data("trackml", pt_min=2.0, **options).info
    more = load_data("trackml", pt_min=1.0, **options).info
    assert few["hits"] < more["hits"]
    assert few["cuts"]["max_slope_rad_per_mm"] < more["cuts"]["max_slope_rad_per_mm"]


def test_found_by_environment(trackml_file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DGL_DEEPGNN_TRACKML", str(trackml_file))
    assert load_data("trackml", pt_min=2.0).num_outputs == 1
    monkeypatch.delenv("DGL_DEEPGNN_TRACKML")
    (tmp_path / "npz").symlink_to(trackml_file.parent)
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path / "dgl_raw"))
    assert load_data("trackml", pt_min=2.0).num_outputs == 1


def test_absent(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DGL_DEEPGNN_TRACKML", raising=False)
    monkeypatch.setenv("DGL_DOWNLOAD_DIR", str(tmp_path / "dgl_raw"))
    with pytest.raises(DGLError, match=r"looked in .*npz.*DGL_DEEPGNN_TRACKML"):
        load_data("trackml")
    with pytest.raises(DGLError, match="pt_min=0"):
        load_data("trackml", pt_min=0)
