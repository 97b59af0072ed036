"""Predictions of a published model for a file of graphs, as CSV."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.data import apply_scaling
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import write_text
from dgl_deepgnn.graph import AnyGraph, require_dgl
from dgl_deepgnn.hub.config import has_self_loops
from dgl_deepgnn.hub.load import from_pretrained
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.wording import counted

__all__ = ["predict"]


def predict(
    name: str,
    graph: str | Path,
    output: str | Path,
    zoo: str | Path | None = None,
    *,
    scaling: bool = True,
    force: bool = False,
) -> int:
    """Predict for every node, edge or graph of a file, and write a CSV.

    One row an item. ``graph`` counts the graphs of the file; ``node``, or ``edge``, ``src`` and
    ``dst``, count within it. Classes have ``probability_0``, ``probability_1``, ... and
    ``label``; a binary target has ``probability`` (of 1) and ``label``; several labels have
    ``probability_i`` and ``label_i``; a regression has ``value_i``.

    Parameters
    ----------
    name : str
        One of :func:`list_pretrained`.
    graph : Path
        File written by ``dgl.save_graphs``: homogeneous graphs with raw features, float, in
        ``ndata["feat"]`` and, where the model reads them, ``edata["feat"]``. Edges are taken as
        they are; a warning says if self-loops are missing that training had.
    output : Path
        The CSV.
    zoo : str or Path, optional
        See :func:`from_pretrained`.
    scaling : bool
        Whether to scale the features as in training; False if they are already.
    force : bool
        Whether the CSV may be overwritten.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    UserError
        If the CSV exists or cannot be written there, the file holds no such graphs, or the
        model cannot be loaded.
    DGLError
        If the features' width is not the model's.
    """
    _check_output(Path(output), force)
    graphs = _read(Path(graph))
    model = from_pretrained(name, zoo)
    assert model.pretrained is not None
    facts = model.pretrained["data"]
    reads_edges = bool(model.config["edge_feats"])
    if facts["self_loops"] and not has_self_loops(graphs):
        warnings.warn(
            f"{graph}: nodes lack self-loops, which all graphs had when {name} was trained. "
            "dgl.add_self_loop adds them.",
            stacklevel=2,
        )
    record = {k: v for k, v in facts["features"].items() if k == "node" or reads_edges}
    rows: list[list[Any]] = []
    header: list[str] = []
    for index, one in enumerate(graphs):
        where = f"{graph}: graph {index}"
        _check_features(one, where, model.in_feats, model.config["edge_feats"])
        scores = _scores(model, apply_scaling(one, record) if scaling else one, reads_edges)
        columns = _columns(facts["target"], scores)
        header = [*_item_names(facts["level"]), *columns]
        values = zip(*(column.tolist() for column in columns.values()), strict=True)
        items = _items(facts["level"], index, one)
        rows += [[*item, *value] for item, value in zip(items, values, strict=True)]
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([header, *rows])
    try:
        write_text(Path(output), table.getvalue())
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from None
    return len(rows)


def _check_output(path: Path, force: bool) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the path of the CSV.")
    if path.exists() and not force:
        raise UserError(f"{path} exists. --force overwrites it.")
    if not path.parent.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {path.parent}.")


def _read(path: Path) -> list[AnyGraph]:
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path} {what}. Give a file written by dgl.save_graphs.")
    dgl = require_dgl(f"Reading {path}")
    try:
        graphs, _ = dgl.load_graphs(str(path))
    except Exception as error:  # DGL's reader raises several kinds
        # DGL's C++ puts its own source in front of the reason, and its stack behind.
        reason = str(error).partition("\n")[0].rpartition(" : ")[2].rstrip(".")
        raise UserError(f"{path} was not written by dgl.save_graphs: {reason}.") from None
    for index, graph in enumerate(graphs):
        if not graph.is_homogeneous:
            raise UserError(f"{path}: graph {index} is heterogeneous; use dgl.to_homogeneous.")
    return graphs


def _check_features(graph: AnyGraph, where: str, in_feats: int, edge_feats: int) -> None:
    needed = [("ndata", graph.ndata, in_feats)]
    needed += [("edata", graph.edata, edge_feats)] if edge_feats else []
    for name, frame, width in needed:
        if "feat" not in frame:
            raise UserError(
                f"{where} has no {name}['feat']; the model reads {counted(width, 'feature')}."
            )
        feat = frame["feat"] = frame["feat"].float()
        if feat.dim() != 2 or feat.shape[1] != width:
            raise DGLError(
                f"{where}: {name}['feat'] has shape {tuple(feat.shape)}; the model was trained on "
                f"{counted(width, 'feature')}: expected ({len(feat)}, {width})."
            )
        if not bool(torch.isfinite(feat).all()):
            raise UserError(f"{where}: {name}['feat'] holds values that are not finite.")


def _scores(model: DeepGNN, graph: AnyGraph, reads_edges: bool) -> Tensor:
    edge_feat = graph.edata["feat"] if reads_edges else None
    with torch.no_grad():
        return model(graph, graph.ndata["feat"], edge_feat=edge_feat)


def _columns(target: str, scores: Tensor) -> dict[str, Tensor]:
    if target == "multiclass":
        shares = scores.softmax(dim=1)
        named = {f"probability_{i}": column for i, column in enumerate(shares.T)}
        return {**named, "label": scores.argmax(dim=1)}
    if target == "binary":
        return {"probability": scores[:, 0].sigmoid(), "label": (scores[:, 0] > 0).long()}
    if target == "multilabel":
        named = {f"probability_{i}": column for i, column in enumerate(scores.sigmoid().T)}
        return named | {f"label_{i}": (column > 0).long() for i, column in enumerate(scores.T)}
    return {f"value_{i}": column for i, column in enumerate(scores.T)}


def _item_names(level: str) -> list[str]:
    return {"node": ["graph", "node"], "edge": ["graph", "edge", "src", "dst"]}.get(
        level, ["graph"]
    )


def _items(level: str, index: int, graph: AnyGraph) -> Iterator[tuple[int, ...]]:
    if level == "graph":
        yield (index,)
    elif level == "node":
        yield from ((index, node) for node in range(graph.num_nodes()))
    else:
        src, dst = (ends.tolist() for ends in graph.edges(order="eid"))
        yield from ((index, edge, *ends) for edge, ends in enumerate(zip(src, dst, strict=True)))
