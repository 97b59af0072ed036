"""One large graph, cut up for several machines, in DGL's distributed format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.data import TaskData
from dgl_deepgnn.data.task_data import PARTS
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.files import make_folder, write_json
from dgl_deepgnn.graph import AnyGraph, reason, require_dgl
from dgl_deepgnn.operator.aggregation import aggregation_operator
from dgl_deepgnn.recipe import Recipe
from dgl_deepgnn.training.part import FACTS, GRAPH, sha256
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.sampling import metis, without_chatter
from dgl_deepgnn.training.trainer import build_model
from dgl_deepgnn.wording import counted

__all__ = ["partition"]


def partition(
    recipe: Recipe, machines: int, output: Path | str, *, allow_code: bool = False
) -> dict[str, Any]:
    """Write a recipe's graph, cut by METIS, in the format of ``dgl.distributed``.

    Nodes get, beside features, labels and masks, the number of their cluster, of
    ``training.batching.parts`` in all machines; edges what the aggregation of the whole graph
    multiplies with.

    Parameters
    ----------
    recipe : Recipe
        With ``training.batching.kind: clusters``.
    machines : int
        Into how many parts.
    output : Path
        Folder to make.
    allow_code : bool
        As in :func:`dgl_deepgnn.train`.

    Returns
    -------
    dict
        Nodes, edges, and edges that are cut, of every part.

    Raises
    ------
    UserError
        If the recipe cannot be trained on several machines, or the folder exists.
    """
    batching = recipe.training.batching
    if batching.kind != "clusters" or batching.parts is None:
        raise UserError(
            f"{recipe.name} trains by kind {batching.kind}. Several machines train on clusters, "
            "each on its own: --set 'training.batching={kind: clusters, parts: 64, size: 8}'."
        )
    if batching.parts % machines:
        raise UserError(
            f"training.batching.parts {batching.parts} cannot be shared evenly among "
            f"{counted(machines, 'machine')}: make it a multiple."
        )
    data = load_task(recipe, allow_code)
    if len(data.graphs) != 1 or data.level != "node":
        raise UserError(
            f"{data.name} has {counted(len(data.graphs), 'graph')} and {data.level} labels. "
            "Several machines share one large graph with labels of nodes; many small graphs are "
            "shared by torchrun (docs/scaling.md)."
        )
    model = build_model(recipe.model, data)
    if model.reads_edges:
        raise UserError(
            "The model reads edge features, which is not done on several machines: train it in "
            "one, or set model.options.edge_messages to false."
        )
    dgl = require_dgl("A partition")
    if data.num_items < batching.parts:
        raise UserError(
            f"{data.name} has {counted(data.num_items, 'node')}, fewer than "
            f"training.batching.parts ({batching.parts})."
        )
    with make_folder(Path(output)) as draft:
        try:
            with without_chatter():
                dgl.distributed.partition_graph(
                    _with_columns(dgl, data, model.inner_conv.norm),
                    GRAPH,
                    machines,
                    str(draft),
                    balance_ntypes=data.splits[0]["train"] if machines > 1 else None,
                )
            parts = [
                _add_clusters(dgl, draft, index, batching.parts // machines, len(data.splits))
                for index in range(machines)
            ]
        except (DGLError, KeyError) as error:  # a part without nodes, a full disk
            raise UserError(
                f"DGL cannot write {data.name} ({counted(data.num_items, 'node')}) in "
                f"{counted(machines, 'part')} of {batching.parts // machines} clusters: "
                f"{reason(error) or error!r}."
            ) from None
        facts = {
            "data": recipe.data.model_dump(mode="json"),
            "name": data.name,
            "target": data.target,
            "num_outputs": data.num_outputs,
            "info": data.info,
            "fingerprint": data.fingerprint(),
            "norm": model.inner_conv.norm,
            "machines": machines,
            "clusters": batching.parts,
            "train_clusters": [part.pop("train_clusters") for part in parts],
            "files": {
                str(file.relative_to(draft)): sha256(file)
                for file in sorted(draft.rglob("*"))
                if file.is_file()
            },
        }
        write_json(draft / FACTS, facts, FACTS)
    return {"folder": str(output), "clusters": batching.parts, "parts": parts}


def _with_columns(dgl: Any, data: TaskData, norm: Any) -> AnyGraph:
    """The graph with all that a trainer needs as data of its nodes and edges."""
    (graph,) = data.graphs
    weight = graph.edata["weight"] if data.weighted else None
    result = dgl.graph(graph.edges(order="eid"), num_nodes=graph.num_nodes())
    result.ndata["feat"] = graph.ndata["feat"]
    result.ndata["label"] = data.labels
    result.ndata["orig_id"] = torch.arange(graph.num_nodes())
    for part in PARTS:
        masks = torch.stack([masks[part] for masks in data.splits], dim=1)
        # DGL has no truth values in its files, and one column for one split.
        result.ndata[f"{part}_mask"] = masks.squeeze(1).to(torch.uint8)
    if weight is not None:
        result.edata["weight"] = weight
    operator = aggregation_operator(graph, norm, 1.0, weight, edgewise=True)
    assert operator.per_edge is not None
    result.edata["aggregation"] = torch.from_numpy(operator.per_edge).float()
    return result


def _add_clusters(dgl: Any, folder: Path, index: int, clusters: int, splits: int) -> dict[str, Any]:
    """Cut one part into clusters, and add their numbers to its data of nodes."""
    config = folder / f"{GRAPH}.json"
    graph = dgl.distributed.load_partition(str(config), index, load_feats=False)[0]
    own = int(graph.ndata["inner_node"].sum())
    if own < clusters:
        raise UserError(
            f"A part of the graph has {counted(own, 'node')}, fewer than its {clusters} clusters: "
            "make training.batching.parts smaller."
        )
    local = dgl.graph(graph.edges(order="eid"), num_nodes=graph.num_nodes())
    inner = dgl.node_subgraph(local, torch.arange(own))
    cluster = metis(dgl, inner, clusters) if clusters > 1 else torch.zeros(own, dtype=torch.int64)
    path = str(folder / json.loads(config.read_text())[f"part-{index}"]["node_feats"])
    columns: dict[str, Tensor] = dgl.data.load_tensors(path)
    columns["_N/cluster"] = cluster
    dgl.data.save_tensors(path, columns)
    masks = columns["_N/train_mask"].reshape(-1, splits)
    trained = [len(cluster[mask.bool()].unique()) for mask in masks.T]
    edges = int((local.edges(order="eid")[1] < own).sum())
    return {
        "nodes": own,
        "edges": edges,
        "edges_cut": edges - inner.num_edges(),
        "train_clusters": trained,
    }
