"""Predictions of a published model for a file of graphs, as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.data.relations import Relations
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.graph import AnyGraph, reason, require_dgl
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.load import from_pretrained
from dgl_deepgnn.hub.origin import Origin
from dgl_deepgnn.hub.table import open_table
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.nn.inference import layerwise_chunks, memory_size
from dgl_deepgnn.training.trainer import find_device

__all__ = ["predict"]


def predict(
    name: str,
    graph: str | Path,
    output: str | Path,
    zoo: str | Path | None = None,
    *,
    prepared: bool = False,
    force: bool = False,
    device: str = "cpu",
    memory: str | int | None = None,
) -> int:
    """Predict for every node, edge or graph of a file, and write a CSV or Parquet file.

    One row an item. ``graph`` counts the graphs of the file; ``node``, or ``edge``, ``src`` and
    ``dst``, count within it. Classes have ``probability_0``, ``probability_1``, ... and
    ``label``; a binary target has ``probability`` (of 1) and ``label``; several labels have
    ``probability_i`` and ``label_i``; a regression has ``value_i``.

    Parameters
    ----------
    name : str
        As in :func:`from_pretrained`.
    graph : Path
        File written by ``dgl.save_graphs``: raw graphs as the source of the training data has
        them; of heterogeneous ones the nodes of the type that had labels are predicted. They are
        prepared as in training, see :meth:`~dgl_deepgnn.DeepGNN.prepare`; a warning says if
        self-loops are missing that training had, or features are far outside their range.
    output : Path
        The table: Parquet if the name ends with ``.parquet`` (needs ``pyarrow``), else CSV. Rows
        are written as they are computed; the file is there once all of them are.
    zoo : str or Path, optional
        See :func:`from_pretrained`.
    prepared : bool
        Whether the graphs are prepared already, and are to be taken as they are.
    force : bool
        Whether the table may be overwritten.
    device : str
        Where to compute: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
    memory : str or int, optional
        Compute layer by layer in chunks, within this memory (``"2GB"``), see
        :func:`~dgl_deepgnn.layerwise_inference`; by default every graph in one forward pass.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    UserError
        If the table exists or cannot be written there, the file holds no such graphs, there is no
        such device, the model cannot be loaded, or a score is not finite.
    DGLError
        If a graph cannot be prepared: a feature is missing, or of another width than the
        model's, or a label is not one of those of the training data.
    """
    _check_output(Path(output), force)
    if memory is not None:
        memory = memory_size(memory)
    target_device = find_device(device)
    graphs = _read(Path(graph))
    model = from_pretrained(name, zoo).to(target_device)
    assert model.pretrained is not None
    origin, facts = model.origin, model.pretrained["data"]
    if not isinstance(origin, Origin):
        raise ZooError(
            f"{name} was saved without a record of its data, so that it is not known how to "
            "prepare graphs for it. Load it in Python, from_pretrained, and call it."
        )
    count = 0
    try:
        with open_table(Path(output)) as table:
            for index, one in enumerate(graphs):
                where = f"{graph}: graph {index}"
                ready = (origin.check_prepared if prepared else origin.prepare)(one, where)
                # Edges that the preparation has added come behind those of the file, nodes of
                # other types than the one that has labels around its own.
                first, size = _span(facts, one)
                before, start = 0, 0
                folder = Path(output).parent
                weight = ready.edata["weight"] if facts["weighted"] else None
                for scores in _scores(model, ready, weight, target_device, memory, folder):
                    if not bool(torch.isfinite(scores).all()):
                        raise UserError(
                            f"{where}: {name} gives scores that are not finite: its weights, or "
                            "these features, are too large. Nothing was written."
                        )
                    own = scores[max(first - before, 0) : max(first + size - before, 0)]
                    before += len(scores)
                    items = _items(facts["level"], index, one, range(start, start + len(own)))
                    table.write({**items, **_columns(facts["target"], own)})
                    start += len(own)
                count += size
    except OSError as error:
        raise UserError(f"{output} cannot be written: {error.strerror}.") from None
    return count


def _check_output(path: Path, force: bool) -> None:
    if path.is_dir():
        raise UserError(f"{path} is a folder. Give the path of the table.")
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
        raise UserError(f"{path} was not written by dgl.save_graphs: {reason(error)}.") from None
    return graphs


def _scores(
    model: DeepGNN,
    graph: AnyGraph,
    edge_weight: Tensor | None,
    device: torch.device,
    memory: str | int | None,
    folder: Path,
) -> Iterator[Tensor]:
    # The graph stays: a CPU-only DGL serves features on a GPU.
    feat = graph.ndata["feat"].to(device)
    edge_feat = graph.edata["feat"].to(device) if model.config["edge_feats"] else None
    if memory is None:
        with torch.no_grad():
            yield model(graph, feat, edge_weight=edge_weight, edge_feat=edge_feat).cpu()
        return
    for scores in layerwise_chunks(
        model,
        graph,
        feat,
        edge_weight=edge_weight,
        edge_feat=edge_feat,
        memory=memory,
        folder=folder,
    ):
        yield scores.cpu()


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


def _span(facts: Mapping[str, Any], graph: AnyGraph) -> tuple[int, int]:
    """Which of the scores are those of the file's items: the first one, and how many."""
    relations = (facts.get("preparation") or {}).get("relations")
    target = None if relations is None else relations["target"]
    if target is not None and not graph.is_homogeneous:
        first = Relations.model_validate(relations).first_of(graph)
        return first[target], graph.num_nodes(target)
    return 0, {"node": graph.num_nodes(), "edge": graph.num_edges()}.get(facts["level"], 1)


def _items(level: str, index: int, graph: AnyGraph, some: range) -> dict[str, Tensor]:
    """Columns that name those nodes or edges of a graph."""
    columns = {"graph": torch.full((len(some),), index)}
    if level == "node":
        columns["node"] = torch.arange(some.start, some.stop)
    elif level == "edge":
        ends = graph.edges(order="eid")
        columns["edge"] = torch.arange(some.start, some.stop)
        columns |= {
            name: end[some.start : some.stop]
            for name, end in zip(("src", "dst"), ends, strict=True)
        }
    return columns
