"""Scaling of features, the range that it leads to, and features that lie far outside of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.data.task_data import ROWS, TaskData
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.wording import fixed

__all__ = [
    "FEATURE_TRANSFORMS",
    "SCALED",
    "apply_scaling",
    "far_outside",
    "transform_features",
]

SCALED = ("standardize", "rescale", "rescale-nonzero")
"""Those that subtract a mean and divide by a scale, one number a column."""
FEATURE_TRANSFORMS = ("none", "row-normalize", *SCALED)
OUTSIDE = 0.02
"""Share of the features, zeros left out, that may lie far outside their range in training."""
WILD = 100
"""How many times half the width of its range a single feature may lie outside."""
SMALL = 20
"""How many times smaller than in training (root mean square) features may be."""


def transform_features(
    task: TaskData, how: str
) -> tuple[list[AnyGraph], dict[str, dict[str, Any]]]:
    """Scale node and edge features; see `load_data` for the choices.

    Returns
    -------
    graphs : list of DGLGraph
        Copies that share structure with the task's graphs.
    record : dict
        What was done to "node" and "edge" features, for `apply_scaling` on new graphs, and as
        "low" and "high" the least and greatest value of every scaled column, as "rms" the root
        of the mean square.
    """
    trained = torch.stack([masks["train"] for masks in task.splits]).any(dim=0)
    seen = [bool(chunk.any()) for chunk in trained.split(task.items_per_graph)]

    def known(graphs: Sequence[AnyGraph], kind: str) -> list[Tensor]:
        """Features of the graphs that hold training items."""
        frames = [getattr(g, f"{kind[0]}data") for g, use in zip(graphs, seen, strict=True) if use]
        return [frame["feat"] for frame in frames]

    record: dict[str, dict[str, Any]] = {}
    for kind in ("node", "edge"):
        if "feat" in getattr(task.graphs[0], f"{kind[0]}data"):
            parts = known(task.graphs, kind)
            # Messages: an edge without features, such as a loop, is to stay one; so are relations.
            centred = kind == "node" or task.level == "edge"
            this = how if centred or not _are_indicators(parts) else "none"
            record[kind] = {"transform": this, **_statistics(parts, this, centred)}
    graphs = [apply_scaling(graph, record) for graph in task.graphs]
    for kind, entry in record.items():
        some = [rows for rows in _rows(known(graphs, kind)) if len(rows)]
        if not some:  # no edges, say
            continue
        low = torch.stack([rows.amin(dim=0) for rows in some]).amin(dim=0).tolist()
        high = torch.stack([rows.amax(dim=0) for rows in some]).amax(dim=0).tolist()
        entry.update(low=[_short(value) for value in low], high=[_short(value) for value in high])
        squares = sum(float(rows.square().sum(dtype=torch.float64)) for rows in some)
        entry["rms"] = _short(math.sqrt(squares / max(sum(rows.numel() for rows in some), 1)))
    return graphs, record


def apply_scaling(graph: AnyGraph, record: dict[str, dict[str, Any]]) -> AnyGraph:
    """Scale the features of a graph as those of a loaded data set were scaled.

    Parameters
    ----------
    graph : DGLGraph
        With ``ndata["feat"]`` and, if `record` has an "edge" entry, ``edata["feat"]``.
    record : dict
        ``info["features"]`` of a loaded `TaskData`.

    Returns
    -------
    DGLGraph
        A copy that shares everything but the features.

    Examples
    --------
    >>> from dgl_deepgnn.graph import make_graph
    >>> graph = make_graph(([0], [1]))
    >>> graph.ndata["feat"] = torch.tensor([[1.0, 3.0], [0.0, 0.0]])
    >>> apply_scaling(graph, {"node": {"transform": "row-normalize"}}).ndata["feat"].tolist()
    [[0.25, 0.75], [0.0, 0.0]]
    """
    graph = graph.local_var()
    for kind, entry in record.items():
        frame = getattr(graph, f"{kind[0]}data")
        feat = frame["feat"]
        if entry["transform"] == "row-normalize":
            total = feat.abs().sum(dim=1, keepdim=True)
            feat = feat / total.masked_fill(total == 0, 1)
        elif entry["transform"] != "none":
            mean, scale = (
                torch.tensor(entry[key], device=feat.device, dtype=torch.float32)
                for key in ("mean", "scale")
            )
            feat = ((feat.double() - mean) / scale).float()
        frame["feat"] = feat
    return graph


def far_outside(feat: Tensor, entry: Mapping[str, Any]) -> str | None:
    """Say how features differ from those of the training, if they differ much.

    A feature is far outside if it lies beyond the range of its column by more than half of it. One
    that lies fifty times the range away, a code for what is missing say, is enough.
    Zeros count only where they do: most features of a bag of words are zero. Features that were
    scaled down lie within the range, but are small.

    Parameters
    ----------
    feat : Tensor
        Features, dense or sparse (CSR), as a model is given them.
    entry : mapping
        Of ``info["features"]``: "low" and "high" of every column, "rms" of all.

    Returns
    -------
    str or None
        None if there is nothing to say.

    Examples
    --------
    >>> pixels = torch.tensor([[0.0, 0.5], [255.0, 128.0]])
    >>> training = {"low": [0.0, 0.0], "high": [1.0, 1.0], "rms": 0.5}
    >>> far_outside(pixels, training)
    '67% of the features lie far outside their range in training (column 0: up to 255, then 1)'
    >>> far_outside(pixels / 255, training) is None
    True
    """
    sparse = feat.layout == torch.sparse_csr
    values = (feat.values() if sparse else feat).detach()
    if not values.numel():
        return None
    rms = float((values.square().sum() / feat.numel()).sqrt())
    if 0 < rms < entry["rms"] / SMALL:
        return f"the features are {fixed(entry['rms'] / rms, 0)} times smaller than in training"
    low, high = (
        torch.tensor(entry[end], device=feat.device, dtype=torch.float32) for end in ("low", "high")
    )
    if sparse:
        low, high = low[feat.col_indices()], high[feat.col_indices()]
    width = high - low
    # A column that was constant in training, an indicator that did not occur, may be as wide as
    # any other.
    constant = width.max() if bool((width > 0).any()) else low.abs() / 2
    margin = torch.where(width > 0, width / 2, constant) + 1e-6
    if not sparse and bool(
        ((values.amin(dim=0) >= low - margin) & (values.amax(dim=0) <= high + margin)).all()
    ):
        return None  # the usual case, at a fraction of the time
    beyond = torch.maximum(low - values, values - high) / margin
    outside = beyond > 1
    share = int(outside.sum()) / int((outside | (values != 0)).sum().clamp(min=1))
    wild = int((beyond > WILD).sum())
    if share <= OUTSIDE and not wild:
        return None
    worst = int(beyond.argmax())
    column = int(feat.col_indices()[worst]) if sparse else worst % values.shape[1]
    value, least, most = float(values.flatten()[worst]), entry["low"][column], entry["high"][column]
    how = f"up to {value:.3g}, then {most:.3g}"
    if value < least:
        how = f"down to {value:.3g}, then {least:.3g}"
    if share <= OUTSIDE:
        many = "1 of the features lies" if wild == 1 else f"{wild:,} of the features lie"
        return f"{many} very far outside the range in training (column {column}: {how})"
    return (
        f"{share:.0%} of the features lie far outside their range in training "
        f"(column {column}: {how})"
    )


def _rows(parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """A few rows at a time, of features that may be in a file and larger than the memory."""
    for feat in parts:
        yield from feat.split(ROWS)


def _are_indicators(parts: Sequence[Tensor]) -> bool:
    return all(
        bool(((feat == 0) | (feat == 1)).all() and (feat.sum(dim=1) <= 1).all())
        for feat in _rows(parts)
    )


def _statistics(parts: Sequence[Tensor], how: str, centred: bool) -> dict[str, list[float]]:
    if how not in SCALED:
        return {}
    if how == "rescale-nonzero":
        width = parts[0].shape[1]
        return {"mean": [0.0] * width, "scale": [_rms_of_nonzero(parts)] * width}
    feat = torch.cat(list(parts)).double()
    mean = feat.mean(dim=0) if centred else feat.new_zeros(feat.shape[1])
    variance = feat.var(dim=0, unbiased=False) if centred else feat.square().mean(dim=0)
    if how == "rescale":
        variance = variance.mean().expand_as(mean)
    # A constant column becomes zero rather than noise of rounding.
    scale = variance.sqrt()
    scale = torch.where(scale <= 1e-7 * feat.abs().amax(dim=0), torch.ones_like(scale), scale)
    return {"mean": mean.float().tolist(), "scale": scale.float().tolist()}


def _rms_of_nonzero(parts: Sequence[Tensor]) -> float:
    squares, count = 0.0, 0
    for rows in _rows(parts):
        squares += float(rows.square().sum(dtype=torch.float64))
        count += int(rows.count_nonzero())
    return math.sqrt(squares / count) if squares else 1.0


def _short(value: float) -> float:
    return float(f"{value:.4g}")
