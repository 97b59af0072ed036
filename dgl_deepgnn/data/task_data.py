"""`TaskData`: graphs, labels and splits of one task, checked when it is made."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NoReturn, get_args

import torch
from torch import Tensor

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.wording import counted

__all__ = ["Level", "Split", "Target", "TaskData"]

Level = Literal["node", "edge", "graph"]
Target = Literal["multiclass", "binary", "multilabel", "regression"]
Split = dict[str, Tensor]

PARTS = ("train", "val", "test")
ROWS = 2**13
"""Of features that are looked at together, which may be in a file and larger than the memory."""


@dataclass(frozen=True, eq=False)
class TaskData:
    """Graphs with features, the labels of their items, and splits of the items.

    An *item* is what gets a label: a node, an edge or a graph, after `level`. Items are
    numbered through all graphs in order. An item in no part of a split (the reverse of a
    candidate edge, say) takes part in message passing but is neither trained on nor scored.

    Parameters
    ----------
    name : str
        What `load_data` was asked for.
    graphs : list of DGLGraph
        Homogeneous graphs. ``ndata["feat"]`` is float32 of shape ``(N, in_feats)``;
        ``edata["feat"]``, where present, float32 of shape ``(E, edge_feats)``;
        ``edata["weight"]``, where present, float32 of shape ``(E,)``: the weights of the
        aggregation, not negative.
    level : {"node", "edge", "graph"}
        What an item is.
    target : {"multiclass", "binary", "multilabel", "regression"}
        What is predicted of it.
    labels : Tensor
        ``(items,)`` int64 classes for "multiclass" and 0 or 1 for "binary";
        ``(items, num_outputs)`` zeros and ones for "multilabel"; ``(items,)`` or
        ``(items, num_outputs)`` floats for "regression".
    splits : list of dict
        Each maps "train", "val" and "test" to disjoint bool masks of shape ``(items,)``.
        More than one for k-fold cross-validation or a data set with several fixed splits.
    num_outputs : int
        Columns of the model's output: classes, 1 for "binary", labels for "multilabel",
        targets (mostly 1) for "regression".
    info : dict
        Facts the loader reports (citation, licence, cuts, bounds); must be JSON-able.

    Raises
    ------
    DGLError
        If parts disagree in shape, masks overlap or are empty, a label is out of range, or a
        feature is not finite (the message names graph, node or edge, and column).

    Examples
    --------
    >>> from dgl_deepgnn.graph import make_graph
    >>> graph = make_graph(([0, 1, 2], [1, 2, 0]))
    >>> graph.ndata["feat"] = torch.eye(3)
    >>> one = torch.eye(3, dtype=torch.bool)
    >>> split = {"train": one[0], "val": one[1], "test": one[2]}
    >>> task = TaskData("ring", [graph], "node", "binary", torch.tensor([0, 1, 1]), [split], 1)
    >>> task.in_feats, task.edge_feats, task.num_items, task.is_inductive()
    (3, 0, 3, False)
    """

    name: str
    graphs: list[AnyGraph]
    level: Level
    target: Target
    labels: Tensor
    splits: list[Split]
    num_outputs: int
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.level not in get_args(Level):
            self._fail(f"level is {self.level!r}; allowed: {', '.join(get_args(Level))}")
        if self.target not in get_args(Target):
            self._fail(f"target is {self.target!r}; allowed: {', '.join(get_args(Target))}")
        if not self.graphs:
            self._fail("there are no graphs")
        self._check_features()
        self._check_weights()
        self._check_splits()
        self._check_labels()
        try:
            json.dumps(self.info)
        except TypeError as error:
            self._fail(f"info must hold only what JSON can hold: {error}")

    @property
    def in_feats(self) -> int:
        """Columns of the node features."""
        return int(self.graphs[0].ndata["feat"].shape[1])

    @property
    def edge_feats(self) -> int:
        """Columns of the edge features, 0 if there are none."""
        edata = self.graphs[0].edata
        return int(edata["feat"].shape[1]) if "feat" in edata else 0

    @property
    def weighted(self) -> bool:
        """Whether the edges have weights."""
        return "weight" in self.graphs[0].edata

    @cached_property
    def items_per_graph(self) -> list[int]:
        """Number of items in each graph."""
        if self.level == "node":
            return [graph.num_nodes() for graph in self.graphs]
        if self.level == "edge":
            return [graph.num_edges() for graph in self.graphs]
        return [1] * len(self.graphs)

    @property
    def num_items(self) -> int:
        """Number of items in all graphs."""
        return sum(self.items_per_graph)

    def is_inductive(self, split: int = 0) -> bool:
        """Whether no graph holds items of two parts of split number `split`."""
        masks = self.splits[split]
        parts = torch.stack([masks[part] for part in PARTS])
        return all(
            int(chunk.any(dim=1).sum()) <= 1 for chunk in parts.split(self.items_per_graph, dim=1)
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of features, edges, labels and splits: equal data, equal fingerprint.

        Examples
        --------
        >>> from dgl_deepgnn.data import load_data
        >>> load_data("karate").fingerprint() == load_data("karate").fingerprint()
        True
        """
        digest = hashlib.sha256()

        def add(key: str, value: Tensor) -> None:
            value = value.detach().cpu().contiguous()
            digest.update(f"{key}:{value.dtype}:{tuple(value.shape)};".encode())
            digest.update(value.numpy().data)

        digest.update(f"{self.level}:{self.target}:{self.num_outputs};".encode())
        for graph in self.graphs:
            src, dst = graph.edges(order="eid")
            add("nodes", torch.tensor(graph.num_nodes()))
            add("src", src.long())
            add("dst", dst.long())
            add("feat", graph.ndata["feat"])
            if "feat" in graph.edata:
                add("edge_feat", graph.edata["feat"])
            if self.weighted:
                add("edge_weight", graph.edata["weight"])
        add("labels", self.labels)
        for masks in self.splits:
            for part in PARTS:
                add(part, masks[part])
        return digest.hexdigest()

    def __repr__(self) -> str:
        sizes = "/".join(str(int(self.splits[0][part].sum())) for part in PARTS)
        return (
            f"TaskData({self.name!r}, {self.level} {self.target}, graphs={len(self.graphs)}, "
            f"nodes={sum(g.num_nodes() for g in self.graphs)}, "
            f"edges={sum(g.num_edges() for g in self.graphs)}, in_feats={self.in_feats}, "
            f"edge_feats={self.edge_feats}, num_outputs={self.num_outputs}, "
            f"train/val/test={sizes}, splits={len(self.splits)})"
        )

    def _fail(self, what: str) -> NoReturn:
        raise DGLError(f"Data set {self.name!r}: {what}.")

    def _check_features(self) -> None:
        for index, graph in enumerate(self.graphs):
            if not graph.is_homogeneous:
                self._fail(
                    f"graph {index} is heterogeneous (node types {graph.ntypes}); convert it with "
                    "dgl.to_homogeneous first"
                )
            if "feat" not in graph.ndata:
                self._fail(f"graph {index} has no node features under ndata['feat']")
            if graph.ndata["feat"].dim() == 2 and not graph.ndata["feat"].shape[1]:
                self._fail(
                    f"ndata['feat'] of graph {index} has no columns; leave it out for degrees"
                )
            if ("feat" in graph.edata) != ("feat" in self.graphs[0].edata):
                self._fail(f"edge features: graph 0 and graph {index} disagree on having them")
            for kind, frame in (("node", graph.ndata), ("edge", graph.edata)):
                if "feat" not in frame:
                    continue
                feat, first = frame["feat"], getattr(self.graphs[0], f"{kind[0]}data")["feat"]
                if feat.dim() != 2 or feat.dtype != torch.float32:
                    self._fail(
                        f"{kind} features of graph {index} are {feat.dtype} of shape "
                        f"{tuple(feat.shape)}; they must be torch.float32 with two dimensions"
                    )
                if feat.shape[1] != first.shape[1]:
                    self._fail(
                        f"{kind} features of graph {index} have "
                        f"{counted(feat.shape[1], 'column')}, those of graph 0 have "
                        f"{first.shape[1]}"
                    )
                if not all(bool(torch.isfinite(rows).all()) for rows in feat.split(ROWS)):
                    row, column = (~torch.isfinite(feat)).nonzero()[0].tolist()
                    bad = int((~torch.isfinite(feat)).sum())
                    self._fail(
                        f"a feature is {feat[row, column].item()}: graph {index}, {kind} {row}, "
                        f"column {column} ({counted(bad, 'such value')} in this graph); clean "
                        "the features before training"
                    )

    def _check_weights(self) -> None:
        for index, graph in enumerate(self.graphs):
            if ("weight" in graph.edata) != self.weighted:
                self._fail(f"edge weights: graph 0 and graph {index} disagree on having them")
            if not self.weighted:
                continue
            weight = graph.edata["weight"]
            if weight.dtype != torch.float32 or weight.dim() != 1:
                self._fail(
                    f"edge weights of graph {index} are {weight.dtype} of shape "
                    f"{tuple(weight.shape)}; they must be torch.float32 with one dimension"
                )
            if len(weight) and not bool(weight.any()):
                self._fail(f"all edge weights of graph {index} are zero, so that nothing is summed")
            wrong = (~torch.isfinite(weight) | (weight < 0)).nonzero()
            if len(wrong):
                edge = int(wrong[0])
                self._fail(
                    f"an edge weight is {weight[edge].item():g}: graph {index}, edge {edge}; "
                    "weights of the aggregation are finite and not negative"
                )

    def _check_splits(self) -> None:
        if not self.splits:
            self._fail("there are no splits; give at least one dict of train, val and test masks")
        for index, masks in enumerate(self.splits):
            if set(masks) != set(PARTS):
                self._fail(f"split {index} has the keys {sorted(masks)}; needed: train, val, test")
            for part in PARTS:
                mask = masks[part]
                if mask.dtype != torch.bool or tuple(mask.shape) != (self.num_items,):
                    self._fail(
                        f"the {part} mask of split {index} is {mask.dtype} of shape "
                        f"{tuple(mask.shape)}; needed: torch.bool of shape ({self.num_items},), "
                        f"one per {self.level}"
                    )
                if not bool(mask.any()):
                    self._fail(f"the {part} mask of split {index} is empty")
            twice = torch.stack([masks[part] for part in PARTS]).sum(dim=0) > 1
            if bool(twice.any()):
                self._fail(
                    f"items in two parts of split {index}: {int(twice.sum())} "
                    f"(the first is {self.level} {int(twice.nonzero()[0])}); masks must be disjoint"
                )

    def _check_labels(self) -> None:
        labels, outputs = self.labels, self.num_outputs
        if len(labels) != self.num_items:
            self._fail(f"there are {len(labels)} labels for {counted(self.num_items, self.level)}")
        expected: dict[str, tuple[tuple[int, ...], ...]] = {
            "multiclass": ((self.num_items,),),
            "binary": ((self.num_items,),),
            "multilabel": ((self.num_items, outputs),),
            "regression": ((self.num_items, outputs), *([(self.num_items,)] * (outputs == 1))),
        }
        if tuple(labels.shape) not in expected[self.target]:
            self._fail(
                f"{self.target} labels have shape {tuple(labels.shape)}; needed with "
                f"num_outputs={outputs}: {' or '.join(map(str, expected[self.target]))}"
            )
        if self.target == "binary" and outputs != 1:
            self._fail(f"a binary target has one output, num_outputs is {outputs}")
        if self.target in ("multiclass", "binary") and labels.dtype != torch.int64:
            self._fail(f"{self.target} labels are {labels.dtype}; they must be torch.int64")
        masks = [masks[part] for masks in self.splits for part in PARTS]
        used = labels[torch.stack(masks).any(dim=0)]
        if self.target == "regression":
            if not bool(torch.isfinite(used).all()):
                self._fail("a regression label is not finite")
            return
        top = outputs - 1 if self.target == "multiclass" else 1
        wrong = (used < 0) | (used > top) | (used != used.round())
        if bool(wrong.any()):
            self._fail(
                f"a {self.target} label is {used[wrong][0].item()}; allowed: 0 to {top} "
                f"(num_outputs={outputs})"
                + (
                    ". An item without a label must be in none of the train, val and test masks"
                    if used.min() < 0
                    else ""
                )
            )
        if self.target == "multiclass" and outputs > self.num_items:
            self._fail(
                f"there are {outputs} classes for {counted(self.num_items, self.level)}; number "
                "the classes from 0 without gaps"
            )
        if self.target != "multilabel" and bool((used == used[0]).all()):
            self._fail(f"every label is {used[0].item()}: there is nothing to learn")
