"""From a raw graph to what a model reads: edges, feature columns, weights; recorded and replayed.

`TaskData.info`, and with it the config of a published model, says what was done to the graphs of
a data set: "preparation" (edges and columns, None where a loader's graphs are used as they are)
and "features" (scaling, and the range it led to). `prepare` does the same to a new graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from dgl_deepgnn.data.columns import Columns, Record
from dgl_deepgnn.data.relations import RELATION, TARGET, Relations
from dgl_deepgnn.data.scaling import apply_scaling
from dgl_deepgnn.data.task_data import Level
from dgl_deepgnn.data.transforms import undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph, make_graph
from dgl_deepgnn.wording import counted

__all__ = ["Preparation", "checked_features", "prepare"]


class Preparation(Record):
    """What a loader does to raw graphs: which edges it adds, of what it makes the features."""

    level: Level
    self_loops: bool
    bidirected: bool
    node: list[Columns] = Field(min_length=1)
    edge: list[Columns] = Field(default_factory=list)
    """Read where edges are scored, or by the messages of convolutions."""
    edge_weight: str | None = None
    """Key in ``edata`` of the weights of the aggregation; None: there are none."""
    relations: Relations | None = None
    """Of heterogeneous graphs, which are made flat first; None: they are homogeneous."""

    @model_validator(mode="after")
    def _check(self) -> Preparation:
        relations = self.relations
        if relations is not None:
            if self.self_loops or self.bidirected:
                raise ValueError("relations have neither self_loops nor bidirected beside them")
            if (relations.target is None) != (self.level == "graph") or self.level == "edge":
                raise ValueError("relations.target is the type with labels, on the node level only")
        return self

    def apply(self, graph: AnyGraph, where: str) -> AnyGraph:
        """Graph with the edges, columns ("feat") and weights ("weight") of the preparation alone.

        Where edges are scored they keep their places, and new ones come behind: the reverse of
        every edge that is not a loop, then a loop for every node. Elsewhere the graph has each
        self-loop and, if `bidirected`, each edge once. Of weights and features, the edge that
        stands for several has their mean. A new self-loop has the mean weight of its graph, so that
        weights of one are no weights, and features of zero: messages along it stay as they are.

        Parameters
        ----------
        graph : DGLGraph
            Raw; homogeneous, but for the types that `relations` knows.
        where : str
            Which one it is, for messages.

        Raises
        ------
        DGLError
            If a field is not there, holds a value that has no column, or is no weight.
        """
        if self.relations is not None:
            if not graph.is_homogeneous:
                graph = self.relations.flatten(graph, where)
            elif RELATION not in graph.edata:
                raise DGLError(
                    f"{where} is homogeneous; a heterogeneous one with the node types "
                    f"{list(self.relations.node_types)} is expected."
                )
        made = make_graph(graph.edges(order="eid"), graph.num_nodes())
        if self.relations is not None:
            made.ndata[TARGET] = graph.ndata[TARGET]
        if self.level == "edge":
            if self.bidirected:
                src, dst = made.edges(order="eid")
                other = src != dst
                both = torch.cat([src, dst[other]]), torch.cat([dst, src[other]])
                made = make_graph(both, made.num_nodes())
            if self.self_loops:
                made = made.add_self_loop()
        elif self.bidirected:
            made = undirected(made, self_loops=self.self_loops)
        elif self.self_loops:
            made = made.remove_self_loop().add_self_loop()
        made.ndata["feat"] = self._columns(graph, "node", where)
        if self.edge:
            feat = self._columns(graph, "edge", where).cpu()
            made.edata["feat"] = self._rows_of(made, graph, feat, feat.new_zeros(feat.shape[1]))
        if self.edge_weight is not None:
            made.edata["weight"] = self._weights(graph, made, self.edge_weight, where)
        return made

    def _weights(self, graph: AnyGraph, made: AnyGraph, key: str, where: str) -> Tensor:
        """Weights of the edges that were made."""
        if key not in graph.edata:
            others = ", ".join(sorted(graph.edata)) or "nothing"
            raise DGLError(f"{where}: edata has no {key!r}, the edge weights: it has {others}.")
        raw = graph.edata[key].cpu()
        if raw.numel() != graph.num_edges() or raw.is_complex():
            raise DGLError(
                f"{where}: edata[{key!r}] has shape {tuple(raw.shape)}; edge weights are one "
                f"number an edge, ({graph.num_edges()},)."
            )
        raw = raw.reshape(-1).double()
        src, dst = (ends.cpu() for ends in graph.edges(order="eid"))
        other = src != dst
        mean = raw[other].mean() if bool(other.any()) else raw.new_ones(())
        return self._rows_of(made, graph, raw[:, None], mean[None]).squeeze(1)

    def _rows_of(self, made: AnyGraph, graph: AnyGraph, raw: Tensor, of_loop: Tensor) -> Tensor:
        """Rows of the edges that were made, from one a raw edge, and that of a new self-loop."""
        if self.level == "edge":
            # A loop's source is -1, the last.
            return torch.cat([raw, of_loop[None]])[self.edge_sources(graph)].float()
        src, dst = (ends.cpu().long() for ends in graph.edges(order="eid"))
        nodes, other = graph.num_nodes(), src != dst
        if not self.bidirected:
            loops = of_loop.expand(nodes, -1)
            return (torch.cat([raw[other], loops]) if self.self_loops else raw).float()
        keys = torch.cat([src * nodes + dst, dst * nodes + src])[other.repeat(2)]
        known, inverse, counts = keys.unique(return_inverse=True, return_counts=True)
        sums = raw.new_zeros(len(known), raw.shape[1])
        sums.index_add_(0, inverse, raw[other].repeat(2, 1))
        # Of a self-loop no pair of ends is known.
        table = torch.cat([sums / counts[:, None], of_loop[None]])
        src, dst = (ends.cpu().long() for ends in made.edges(order="eid"))
        place = torch.searchsorted(known, src * nodes + dst)
        return table[torch.where(src == dst, len(known), place)].float()

    def edge_sources(self, graph: AnyGraph) -> Tensor:
        """Where edges are scored: which raw edge each one is or reverses, -1 for a new loop."""
        src, dst = (ends.cpu() for ends in graph.edges(order="eid"))
        parts = [torch.arange(len(src))]
        if self.bidirected:
            parts.append(parts[0][src != dst])
        if self.self_loops:
            parts.append(torch.full((graph.num_nodes(),), -1))
        return torch.cat(parts)

    def _columns(self, graph: AnyGraph, kind: str, where: str) -> Tensor:
        name = f"{kind[0]}data"
        frame, columns = getattr(graph, name), self.node if kind == "node" else self.edge
        return torch.cat([some.of(graph, frame, f"{where}: {name}") for some in columns], dim=1)


def prepare(
    graph: AnyGraph,
    record: Mapping[str, Any],
    widths: Mapping[str, int],
    where: str,
    weighted: bool = False,
) -> AnyGraph:
    """Treat a raw graph as the graphs of a loaded data set were treated.

    Parameters
    ----------
    graph : DGLGraph
        A homogeneous graph, or whatever `as_graph` makes one of; a heterogeneous one if those of
        the data set were.
    record : mapping
        ``info`` of a loaded `TaskData`: its keys "preparation" and "features".
    widths : mapping of str to int
        Number of "node" and, if they are read, "edge" features.
    where : str
        Which graph it is, for messages.
    weighted : bool
        Whether the edges had weights.

    Returns
    -------
    DGLGraph
        A copy, its features under "feat", its edge weights, if there are any, under "weight".
        Other node data is kept.

    Raises
    ------
    DGLError
        If the graph is heterogeneous or a batch, or features or weights are missing, not finite,
        of another width or without a column.

    Examples
    --------
    >>> from dgl_deepgnn.data import load_data
    >>> record = load_data("digits", features="rescale").info
    >>> graph = make_graph(([0, 1], [1, 0]))
    >>> graph.ndata["feat"] = torch.ones(2, 64)
    >>> ready = prepare(graph, record, {"node": 64}, "two white images")
    >>> bool(ready.ndata["feat"].mean() > 2)
    True
    """
    graph = as_graph(graph)
    plan = record.get("preparation")
    preparation = None if plan is None else Preparation.model_validate(plan)
    if not graph.is_homogeneous and (preparation is None or preparation.relations is None):
        raise DGLError(f"{where} is heterogeneous; use dgl.to_homogeneous.")
    made = graph
    if preparation is not None:
        if graph.batch_size != 1:
            raise DGLError(f"{where} is a batch: prepare the graphs first, and batch them then.")
        made = preparation.apply(graph.to("cpu"), where).to(graph.device)
        if graph.is_homogeneous:
            made.ndata.update({key: value for key, value in graph.ndata.items() if key != "feat"})
    made = checked_features(made, widths, where, weighted)
    return apply_scaling(made, {kind: record["features"][kind] for kind in widths})


def checked_features(
    graph: AnyGraph, widths: Mapping[str, int], where: str, weighted: bool = False
) -> AnyGraph:
    """Copy of a graph with its features as float32, if they are what a model reads.

    Parameters
    ----------
    graph, widths, where, weighted
        As in :func:`prepare`.

    Raises
    ------
    DGLError
        If features or weights are missing, not finite or of another width.
    """
    if not graph.is_homogeneous:
        raise DGLError(f"{where} is heterogeneous: a prepared graph is one graph, see prepare.")
    graph = graph.local_var()
    for kind, width in widths.items():
        name = f"{kind[0]}data"
        frame = getattr(graph, name)
        if "feat" not in frame:
            raise DGLError(
                f"{where} has no {name}['feat']; the model reads {counted(width, 'feature')}."
            )
        feat = frame["feat"] = frame["feat"].float()
        if feat.dim() != 2 or feat.shape[1] != width:
            raise DGLError(
                f"{where}: {name}['feat'] has shape {tuple(feat.shape)}; the model was trained on "
                f"{counted(width, 'feature')}: expected ({len(feat)}, {width})."
            )
        if not bool(torch.isfinite(feat).all()):
            raise DGLError(f"{where}: {name}['feat'] holds values that are not finite.")
    if weighted:
        if "weight" not in graph.edata:
            raise DGLError(
                f"{where} has no edata['weight']; the model was trained with edge weights."
            )
        weight = graph.edata["weight"] = graph.edata["weight"].float()
        if weight.dim() != 1 or not bool((torch.isfinite(weight) & (weight >= 0)).all()):
            raise DGLError(
                f"{where}: edata['weight'] must hold one number an edge, finite and not negative."
            )
    return graph
