"""From DGL graphs with the usual field names to a `TaskData`; shared by all outside data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dgl_deepgnn.data.columns import Columns
from dgl_deepgnn.data.preparation import Preparation
from dgl_deepgnn.data.relations import RELATION, TARGET, Relations
from dgl_deepgnn.data.task_data import PARTS, Level, Split, Target, TaskData
from dgl_deepgnn.data.transforms import (
    deal_graphs,
    deal_parts,
    split_items,
)
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.wording import counted

__all__ = ["OPTIONS", "collect", "task_from_graphs", "unread_fields"]

LABELS = ("label", "labels")
FEATURES = ("feat", "feature", "features", "attr")
OPTIONS = dict.fromkeys(
    ("level", "target", "self_loops", "bidirected", "edge_weight", "edge_feats", "seed")
)
"""Of every loader of outside data: plain values, see `register_dataset`."""
MASKS = tuple(f"{part}_mask" for part in PARTS)


def collect(dataset: Iterable[Any]) -> tuple[list[AnyGraph], dict[str, Tensor]]:
    """Graphs of a DGL data set and, where its items are pairs, what belongs to each graph."""
    graphs, rows = [], []
    for index in range(len(dataset)):  # type: ignore[arg-type]
        item = dataset[index]  # type: ignore[index]
        graph, extra = item if isinstance(item, tuple) else (item, {})
        graphs.append(graph)
        rows.append(extra if isinstance(extra, Mapping) else {"label": extra})
    columns = {
        key: torch.stack([torch.as_tensor(row[key]).squeeze() for row in rows]) for key in rows[0]
    }
    return graphs, columns


def task_from_graphs(
    name: str,
    graphs: list[AnyGraph],
    graph_data: Mapping[str, Tensor],
    *,
    level: Level | None = None,
    target: Target | None = None,
    self_loops: bool = True,
    bidirected: bool = False,
    edge_weight: str | None = None,
    edge_feats: str | None = None,
    parts: list[str] | None = None,
    splits: list[Split] | None = None,
    node_columns: list[Columns] | None = None,
    seed: int = 0,
    info: Mapping[str, Any],
) -> TaskData:
    """Read features, labels and masks from the fields DGL's own data sets use.

    Parameters
    ----------
    name : str
        For messages.
    graphs : list of DGLGraph
        Features under "feat" (or "feature", "features", "attr"): floats, or integers of one
        dimension, which become indicator columns. Without any, in-degrees become indicator
        columns.
    graph_data : mapping of str to Tensor
        What belongs to whole graphs, one row each.
    level : {"node", "edge", "graph"}, optional
        Where to look for "label" (or "labels") and for "train_mask", "val_mask", "test_mask" of
        shape ``(items,)`` or, for several splits, ``(items, splits)``. By default the one level
        that has labels.
    target : str, optional
        See `TaskData`. By default floats are "regression", integers "multiclass", bools
        "binary", and zeros and ones of several columns "multilabel".
    self_loops : bool, optional
        Give each node exactly one self-loop (on the edge level: add one to those there are).
    bidirected : bool, optional
        Add the reverse of every edge.
    edge_weight : str, optional
        Field of the edges that holds the weights of the aggregation, one number an edge, finite
        and not negative; by default all count alike. An edge that is added has the weight of the
        edge that it reverses, a self-loop the mean of its graph.
    edge_feats : str, optional
        Field of the edges that holds their features; integers become indicator columns. On the edge
        level "feat" (or "feature", ...) is read anyway. An edge that is added has the features of
        the edge that it reverses, a self-loop zeros.
    parts : list of str, optional
        "train", "val" or "test" for each graph.
    splits : list of dict, optional
        Masks, where the caller has them.
    node_columns : list of Columns, optional
        Of what to make the node features instead.
    seed : int, optional
        Of the 60/20/20 % split that is drawn where there are no masks: of whole graphs if there
        are several, else of items.
    info : mapping
        For `TaskData.info`.

    Raises
    ------
    DGLError
        If labels are missing or ambiguous, masks are incomplete, or the result is not a valid
        `TaskData`.
    """
    relations = None
    if not all(graph.is_homogeneous for graph in graphs):
        if edge_weight is not None or edge_feats is not None:
            raise DGLError(
                f"Data set {name!r} is heterogeneous: its relations are the edge features. "
                "edge_weight and edge_feats are for homogeneous graphs."
            )
        relations = _relations(name, graphs, graph_data, level, bidirected)
        graphs = [
            _flat(graph, relations, f"Data set {name!r}: graph {index}")
            for index, graph in enumerate(graphs)
        ]
        level = "graph" if relations.target is None else "node"
        self_loops = bidirected = False
        node_columns = [Columns(field="feat")]
    level = level or _find_level(name, graphs, graph_data)
    frames: dict[str, list[Mapping[str, Tensor]]] = {
        "node": [graph.ndata for graph in graphs],
        "edge": [graph.edata for graph in graphs],
        "graph": [graph_data],
    }
    if level not in frames:
        raise DGLError(f"Data set {name!r}: level={level!r}; allowed: {', '.join(frames)}.")
    columns = node_columns or _columns(name, frames["node"]) or [Columns.degrees(graphs)]
    preparation = Preparation(
        level=level,
        self_loops=self_loops,
        bidirected=bidirected,
        node=columns,
        edge=_edge_columns(name, frames["edge"], level, edge_feats),
        edge_weight=edge_weight,
        relations=relations,
    )
    if relations is not None:
        of_relation = Columns(field=RELATION, values=[list(range(relations.number))])
        preparation = preparation.model_copy(update={"edge": [of_relation]})
    made = [
        preparation.apply(graph, f"Data set {name!r}: graph {index}")
        for index, graph in enumerate(graphs)
    ]
    sources = [preparation.edge_sources(graph) for graph in graphs] if level == "edge" else []

    def read(names: tuple[str, ...]) -> Tensor | None:
        for key in names:
            if all(key in frame for frame in frames[level]):
                rows = [torch.as_tensor(frame[key]) for frame in frames[level]]
                if level == "edge":
                    is_mask = key in MASKS
                    rows = [
                        _spread(row, source, is_mask)
                        for row, source in zip(rows, sources, strict=True)
                    ]
                return torch.cat(rows)
        return None

    labels = read(LABELS)
    if labels is None:
        raise DGLError(f"Data set {name!r} has no {level} labels (under 'label' or 'labels').")
    if len(labels) == 0:
        raise DGLError(f"Data set {name!r} has no {level}s: there is nothing to learn.")
    if level == "graph" and len(labels) != len(made):
        raise DGLError(
            f"Data set {name!r} has {counted(len(made), 'graph')}, but "
            f"{counted(len(labels), 'label')}: there must be one for every graph."
        )
    labels, target = _as_target(name, labels, target)
    if target == "multiclass":
        outputs = int(labels.max()) + 1
    else:
        outputs = 1 if labels.dim() == 1 else labels.shape[1]
    items = [1] * len(made)
    if level != "graph":
        items = [g.num_nodes() if level == "node" else g.num_edges() for g in made]
    if splits is None and parts is not None:
        splits = [deal_graphs(items, parts)]
    if splits is None:
        masks = {part: read((f"{part}_mask",)) for part in PARTS}
        splits = _splits_from_masks(name, masks)
    if splits is None and level != "graph" and len(made) >= 5:
        order = torch.randperm(len(made), generator=torch.Generator().manual_seed(seed))
        dealt = deal_parts(len(made))
        splits = [deal_graphs(items, [dealt[place] for place in order.argsort().tolist()])]
    own = None
    if relations is not None and level == "node":
        own = torch.cat([graph.ndata[TARGET] for graph in graphs])
    if splits is None:
        splits = [
            _split_pairs(made, labels, seed) if level == "edge" else _split(labels, own, seed)
        ]
    if level == "edge":
        own = torch.cat(
            [torch.arange(len(s)) < g.num_edges() for s, g in zip(sources, graphs, strict=True)]
        )
    if own is not None:
        splits = [{part: mask & own for part, mask in masks.items()} for masks in splits]
    facts = {**info, "preparation": preparation.model_dump()}
    return TaskData(name, made, level, target, labels, splits, outputs, facts)


def _relations(
    name: str,
    graphs: list[AnyGraph],
    graph_data: Mapping[str, Tensor],
    level: Level | None,
    bidirected: bool,
) -> Relations:
    """Types of heterogeneous graphs, one type of nodes of which has labels (or the graphs have)."""
    labelled = [
        kind
        for kind in graphs[0].ntypes
        if any(key in graphs[0].nodes[kind].data for key in LABELS)
    ]
    of_graphs = any(key in graph_data for key in LABELS)
    if level == "graph" or (level is None and of_graphs and not labelled):
        target = None
    elif level in (None, "node") and len(labelled) == 1 and not (level is None and of_graphs):
        (target,) = labelled
    else:
        raise DGLError(
            f"Data set {name!r} is heterogeneous: one type of nodes, or the graphs, must have "
            f"labels (under 'label'). Node types with labels: {', '.join(labelled) or 'none'}; "
            f"labels of graphs: {'yes' if of_graphs else 'no'}; level: {level or 'not given'}."
        )
    return Relations.of(graphs, FEATURES, target, reversed=bidirected)


def _flat(graph: AnyGraph, relations: Relations, where: str) -> AnyGraph:
    """One graph of a heterogeneous one, with the labels and masks of the target's nodes."""
    flat = relations.flatten(graph, where)
    if relations.target is not None:
        rows = flat.ndata[TARGET]
        for key, value in graph.nodes[relations.target].data.items():
            if key in (*LABELS, *MASKS):
                whole = value.new_zeros(flat.num_nodes(), *value.shape[1:])
                whole[rows] = value
                flat.ndata[key] = whole
    return flat


def _split(labels: Tensor, own: Tensor | None, seed: int) -> Split:
    """Drawn split of all items, or of some alone."""
    if own is None:
        return split_items(labels, seed=seed)
    drawn = split_items(labels[own], seed=seed)
    return {part: own.clone().masked_scatter(own, mask) for part, mask in drawn.items()}


def _split_pairs(graphs: list[AnyGraph], labels: Tensor, seed: int) -> Split:
    """Drawn split in which the edges between two nodes, in either direction, are in one part."""
    keys, offset = [], 0
    total = sum(graph.num_nodes() for graph in graphs)
    for graph in graphs:
        ends = torch.stack(graph.edges(order="eid")).long() + offset
        keys.append(ends.amin(dim=0) * total + ends.amax(dim=0))
        offset += graph.num_nodes()
    pairs, pair = torch.cat(keys).unique(return_inverse=True)
    if len(pairs) == len(pair):
        return _split(labels, None, seed)
    first = torch.full((len(pairs),), len(pair)).scatter_reduce(
        0, pair, torch.arange(len(pair)), "amin"
    )
    drawn = split_items(labels[first], seed=seed)
    return {part: mask[pair] for part, mask in drawn.items()}


def unread_fields(graphs: list[AnyGraph], preparation: Mapping[str, Any]) -> list[str]:
    """Fields of graphs that are neither features, weights, labels nor masks.

    Parameters
    ----------
    graphs : list of graphs
        Homogeneous or heterogeneous ones.
    preparation : mapping
        What `task_from_graphs` has left in ``info["preparation"]``.

    Examples
    --------
    >>> from dgl_deepgnn.graph import make_graph
    >>> graph = make_graph(([0], [1]))
    >>> graph.edata["bond"] = torch.ones(1)
    >>> task = task_from_graphs(
    ...     "pairs", [graph] * 5, {"label": torch.arange(5.0)}, info={}
    ... )
    >>> unread_fields([graph], task.info["preparation"])
    ["edata['bond']"]
    """
    same = {*LABELS, *MASKS}
    weight = preparation["edge_weight"]
    # What the fields are called, where they lie, and which of them are read.
    places: list[tuple[str, list[Mapping[str, Tensor]], set[str | None]]]
    if all(graph.is_homogeneous for graph in graphs):
        nodes, edges = (
            {column["field"] for column in preparation[kind]} for kind in ("node", "edge")
        )
        places = [
            ("ndata", [graph.ndata for graph in graphs], same | nodes),
            ("edata", [graph.edata for graph in graphs], same | edges | {weight}),
        ]
    else:
        places = [
            (f"nodes[{name!r}].data", [g.nodes[name].data for g in graphs], same | {*FEATURES})
            for name in graphs[0].ntypes
        ] + [
            (f"edges[{name!r}].data", [g.edges[name].data for g in graphs], same | {weight})
            for name in graphs[0].canonical_etypes
        ]
    return [
        f"{place}[{key!r}]"
        for place, frames, read in places
        for key in sorted({key for frame in frames for key in frame} - read)
        if not key.startswith("_")
    ]


def _find_level(name: str, graphs: list[AnyGraph], graph_data: Mapping[str, Tensor]) -> Level:
    places: dict[Level, Mapping[str, Tensor]] = {
        "node": graphs[0].ndata,
        "edge": graphs[0].edata,
        "graph": graph_data,
    }
    found = [level for level, frame in places.items() if any(key in frame for key in LABELS)]
    if len(found) != 1:
        fields = "; ".join(f"{level}: {sorted(frame)}" for level, frame in places.items())
        what = f"labels on several levels ({', '.join(found)}): say which with level="
        if not found:
            what = "no labels: put them under 'label' in ndata, edata or the graphs' labels"
        raise DGLError(f"Data set {name!r} has {what}. Its fields are {fields}.")
    return found[0]


def _columns(name: str, frames: list[Mapping[str, Tensor]]) -> list[Columns] | None:
    for key in FEATURES:
        having = [key in frame for frame in frames]
        if any(having) and not all(having):
            raise DGLError(
                f"Data set {name!r}: graph {having.index(False)} of {len(frames)} has no {key!r}, "
                f"which graph {having.index(True)} has. Give all graphs the same features."
            )
        if all(having):
            rows = [frame[key] for frame in frames]
            if rows[0].dim() == 1 and not rows[0].is_floating_point():
                return [Columns.indicators(key, rows)]
            return [Columns(field=key)]
    return None


def _edge_columns(
    name: str, frames: list[Mapping[str, Tensor]], level: Level, field: str | None
) -> list[Columns]:
    if field is None:
        return (_columns(name, frames) or []) if level == "edge" else []
    for index, frame in enumerate(frames):
        if field not in frame:
            raise DGLError(
                f"Data set {name!r}: edata of graph {index} has no {field!r}, the edge features: "
                f"it has {', '.join(sorted(frame)) or 'nothing'}."
            )
    if not any(len(frame[field]) for frame in frames):
        raise DGLError(f"Data set {name!r} has no edges, and so no edge features ({field!r}).")
    if any(frame[field].is_floating_point() for frame in frames):
        return [Columns(field=field)]
    return [Columns.indicators(field, [frame[field] for frame in frames])]


def _spread(row: Tensor, source: Tensor, is_mask: bool) -> Tensor:
    """Values of edges for those that were added: masks False, labels those of their original."""
    own = torch.arange(len(source)) < len(row)
    known = own if is_mask else source >= 0
    # Of a new loop, -1, it is the last row.
    values = torch.cat([row, row.new_zeros(1, *row.shape[1:])])[source]
    return torch.where(known.reshape(-1, *[1] * (row.dim() - 1)), values, torch.zeros_like(values))


def _as_target(name: str, labels: Tensor, target: Target | None) -> tuple[Tensor, Target]:
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if target is None:
        if labels.dim() == 2:
            ones = bool(((labels == 0) | (labels == 1)).all())
            target = "multilabel" if ones else "regression"
        # dgl.save_graphs writes bools as uint8.
        elif labels.dtype in (torch.bool, torch.uint8) and bool((labels <= 1).all()):
            target = "binary"
        else:
            target = "regression" if labels.is_floating_point() else "multiclass"
    if target in ("multilabel", "regression"):
        return labels.float(), target
    if labels.is_floating_point():
        # Where a table holds no label, classes are floats: -1 is for what has none.
        labels = torch.where(labels.isnan(), -1.0, labels)
    if labels.is_floating_point() and bool((labels != labels.round()).any()):
        raise DGLError(
            f"Data set {name!r}: {target} labels must be whole numbers, but one is "
            f"{labels[labels != labels.round()][0].item()}. Did you mean target='regression'?"
        )
    return labels.long(), target


def _splits_from_masks(name: str, masks: Mapping[str, Tensor | None]) -> list[Split] | None:
    given = {part: mask.bool() for part, mask in masks.items() if mask is not None}
    if not given:
        return None
    if len(given) < len(PARTS):
        missing = ", ".join(f"{part}_mask" for part in PARTS if part not in given)
        raise DGLError(
            f"Data set {name!r} has masks for {', '.join(given)} but no {missing}. Give all three, "
            "or none to have a 60/20/20 % split drawn."
        )
    several = {part: mask for part, mask in given.items() if mask.dim() == 2}
    count = next(iter(several.values())).shape[1] if several else 1
    return [
        {part: mask[:, i] if part in several else mask for part, mask in given.items()}
        for i in range(count)
    ]
