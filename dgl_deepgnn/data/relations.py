"""Heterogeneous graphs as one graph: node types as features, relations as those of edges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from dgl_deepgnn.data.columns import Columns, Record
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, make_graph

__all__ = ["RELATION", "TARGET", "Relations"]

RELATION, TARGET = "relation", "is_target"
"""Fields of the flat graph: the number of each edge's relation, and which nodes have labels."""


class Relations(Record):
    """Types of the nodes and edges of heterogeneous graphs, in the order of their numbers."""

    node_types: dict[str, list[Columns]] = Field(min_length=1)
    """Feature columns of every type; a type without any is known by its type alone."""
    edge_types: list[Annotated[list[str], Field(min_length=3, max_length=3)]] = Field(min_length=1)
    reversed: bool
    """Whether every relation has another one with its edges reversed, behind all of them."""
    target: str | None = None
    """Type of the nodes that have labels; None where whole graphs have them."""

    @model_validator(mode="after")
    def _check(self) -> Relations:
        if self.target is not None and self.target not in self.node_types:
            raise ValueError("target is none of the node types")
        return self

    @property
    def width(self) -> int:
        """Of the features, as far as their columns tell: one of numbers may be several."""
        columns = [column for some in self.node_types.values() for column in some]
        return sum(column.least_width for column in columns) + (
            len(self.node_types) if len(self.node_types) > 1 else 0
        )

    @property
    def number(self) -> int:
        """Of relations."""
        return len(self.edge_types) * (1 + self.reversed)

    @classmethod
    def of(
        cls,
        graphs: Sequence[AnyGraph],
        features: Sequence[str],
        target: str | None,
        *,
        reversed: bool,
    ) -> Relations:
        """Types of some graphs, which must be the same; features are the first field there is."""
        first = graphs[0]
        node_types: dict[str, list[Columns]] = {}
        for kind in first.ntypes:
            frames = [graph.nodes[kind].data for graph in graphs if kind in graph.ntypes]
            field = next((f for f in features if all(f in frame for frame in frames)), None)
            node_types[kind] = []
            if field is not None:
                rows = [frame[field] for frame in frames]
                whole = rows[0].dim() == 1 and not rows[0].is_floating_point()
                if whole and not any(map(len, rows)):
                    continue  # no nodes, no values
                columns = Columns.indicators(field, rows) if whole else Columns(field=field)
                node_types[kind] = [columns]
        return cls(
            node_types=node_types,
            edge_types=[list(kind) for kind in first.canonical_etypes],
            reversed=reversed,
            target=target,
        )

    def flatten(self, graph: Any, where: str) -> AnyGraph:
        """One graph of all nodes, type by type, and all edges, relation by relation.

        Features ("feat") are the columns of every type side by side, zeros for other types, and
        behind them indicators of the type. ``edata["relation"]`` counts the relations.

        Parameters
        ----------
        graph : DGLGraph
            Heterogeneous.
        where : str
            Which one it is, for messages.

        Raises
        ------
        DGLError
            If it has other types, or a field is missing.
        """
        self._check_types(graph, where)
        first = self.first_of(graph)
        sizes = [graph.num_nodes(kind) for kind in self.node_types]
        blocks = []
        for kind, columns in self.node_types.items():
            frame, place = graph.nodes[kind].data, f"{where}: nodes of type {kind!r}"
            some = [column.of(graph, frame, place).cpu() for column in columns]
            blocks.append(torch.cat(some, dim=1) if some else torch.zeros(0, 0))
        kinds = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
        feat = torch.zeros(len(kinds), sum(block.shape[1] for block in blocks))
        column = 0
        for index, block in enumerate(blocks):
            if block.shape[1]:
                feat[kinds == index, column : column + block.shape[1]] = block
                column += block.shape[1]
        if len(sizes) > 1:
            feat = torch.cat([feat, torch.nn.functional.one_hot(kinds, len(sizes)).float()], dim=1)
        ends: list[Tensor] = []
        for source, edge, destination in self.edge_types:
            src, dst = graph.edges(etype=(source, edge, destination), order="eid")
            ends.append(torch.stack([src + first[source], dst + first[destination]]).cpu().long())
        if self.reversed:
            ends += [pair.flip(0) for pair in ends]
        made = make_graph(tuple(torch.cat(ends, dim=1)), len(kinds))
        made.ndata["feat"] = feat
        target = -1 if self.target is None else list(self.node_types).index(self.target)
        made.ndata[TARGET] = kinds == target
        lengths = torch.tensor([pair.shape[1] for pair in ends])
        made.edata[RELATION] = torch.arange(len(ends)).repeat_interleave(lengths)
        return made

    def first_of(self, graph: Any) -> dict[str, int]:
        """Number that the first node of every type has in the flat graph."""
        first, before = {}, 0
        for kind in self.node_types:
            first[kind] = before
            before += graph.num_nodes(kind)
        return first

    def _check_types(self, graph: Any, where: str) -> None:
        for what, known, found in (
            ("node types", list(self.node_types), graph.ntypes),
            ("edge types", [tuple(kind) for kind in self.edge_types], graph.canonical_etypes),
        ):
            if sorted(known) != sorted(found):
                raise DGLError(
                    f"{where} has the {what} {found}, expected {known}. A type that is not there "
                    "may be empty, but must be named."
                )
