"""From a raw graph to what a model reads: edges, feature columns, scaling; recorded and replayed.

`TaskData.info`, and with it the config of a published model, says what was done to the graphs of
a data set: "preparation" (edges and columns, None where a loader's graphs are used as they are)
and "features" (scaling, and the range it led to). `prepare` does the same to a new graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from dgl_deepgnn.data.task_data import Level, TaskData
from dgl_deepgnn.data.transforms import undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph, make_graph
from dgl_deepgnn.wording import counted, fixed

__all__ = [
    "FEATURE_TRANSFORMS",
    "Columns",
    "Preparation",
    "apply_scaling",
    "checked_features",
    "far_outside",
    "prepare",
    "transform_features",
]

FEATURE_TRANSFORMS = ("none", "row-normalize", "standardize", "rescale")
MOST_DEGREE = 64
"""In-degrees above count as this one."""
OUTSIDE = 0.02
"""Share of the features, zeros left out, that may lie far outside their range in training."""
SMALL = 20
"""How many times smaller than in training (root mean square) features may be."""

Frame = Mapping[str, Tensor]
Label = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Columns(_Record):
    """Feature columns made of one field of a graph."""

    field: str | None
    """Key in ``ndata`` or ``edata``; None for the in-degrees."""
    values: list[list[Label]] | None = None
    """Indicator columns of these values, for each column of the field; None: its own numbers."""

    @field_validator("values")
    @classmethod
    def _check(cls, values: list[list[int]] | None) -> list[list[int]] | None:
        if values is not None and any(not some or some != sorted(set(some)) for some in values):
            raise ValueError("values must ascend, and there must be some")
        return values

    @classmethod
    def indicators(cls, field: str | None, rows: Iterable[Tensor]) -> Columns:
        """Indicator columns of all values that occur in a field of some graphs."""
        table = torch.cat([_two_dimensional(row) for row in rows])
        return cls(field=field, values=[column.unique().tolist() for column in table.T.long()])

    @classmethod
    def degrees(cls, graphs: Iterable[AnyGraph]) -> Columns:
        """Indicator columns of the in-degrees of some graphs."""
        return cls.indicators(None, [_degrees(graph) for graph in graphs])

    def of(self, graph: AnyGraph, frame: Frame, place: str) -> Tensor:
        """Columns for the nodes or edges of a graph.

        Parameters
        ----------
        graph : DGLGraph
            Has the in-degrees.
        frame : mapping of str to Tensor
            Its ``ndata`` or ``edata``.
        place : str
            For messages: which graph, and ndata or edata.

        Raises
        ------
        DGLError
            If the field is not there, or holds a value that has no column.
        """
        if self.field is not None and self.field not in frame:
            others = ", ".join(sorted(frame)) or "nothing"
            raise DGLError(
                f"{place} has no {self.field!r}, of which the features are made: it has {others}."
            )
        rows = _two_dimensional(_degrees(graph) if self.field is None else frame[self.field])
        if self.values is None:
            return rows.float()
        if rows.shape[1] != len(self.values):
            raise DGLError(
                f"{place}[{self.field!r}] has {counted(rows.shape[1], 'column')}, expected "
                f"{len(self.values)}."
            )
        return torch.cat(
            [self._indicate(c, v, place) for c, v in zip(rows.T, self.values, strict=True)], dim=1
        )

    def _indicate(self, column: Tensor, values: list[int], place: str) -> Tensor:
        known = torch.tensor(values)
        column = column.cpu().contiguous()
        index = torch.searchsorted(known, column.long()).clamp(max=len(known) - 1)
        unknown = (known[index] != column).nonzero()
        if len(unknown):
            what = "in-degree" if self.field is None else f"value of {self.field!r}"
            listed = ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
            raise DGLError(
                f"{place}: row {int(unknown[0])} has the {what} {column[unknown[0]].item():g}, for "
                f"which there is no column. Columns stand for the values of the training data: "
                f"{listed}."
            )
        return torch.nn.functional.one_hot(index, len(known)).float()


class Preparation(_Record):
    """What a loader does to raw graphs: which edges it adds, of what it makes the features."""

    level: Level
    self_loops: bool
    bidirected: bool
    node: list[Columns] = Field(min_length=1)
    edge: list[Columns] = []
    """Read where edges are scored."""
    edge_weight: str | None = None
    """Key in ``edata`` of the weights of the aggregation; None: there are none."""

    def apply(self, graph: AnyGraph, where: str) -> AnyGraph:
        """Graph with the edges, columns ("feat") and weights ("weight") of the preparation alone.

        Where edges are scored they keep their places, and new ones come behind: the reverse of
        every edge that is not a loop, then a loop for every node. Elsewhere the graph has each
        self-loop and, if `bidirected`, each edge once. Of weights, the edge that stands for
        several has their mean, and a new self-loop has the mean of its graph, so that weights of
        one are no weights.

        Parameters
        ----------
        graph : DGLGraph
            Homogeneous and raw.
        where : str
            Which one it is, for messages.

        Raises
        ------
        DGLError
            If a field is not there, holds a value that has no column, or is no weight.
        """
        made = make_graph(graph.edges(order="eid"), graph.num_nodes())
        if self.level == "edge":
            if self.bidirected:
                src, dst = made.edges(order="eid")
                other = src != dst
                both = torch.cat([src, dst[other]]), torch.cat([dst, src[other]])
                made = make_graph(both, made.num_nodes())
            if self.self_loops:
                made = made.add_self_loop()
            if self.edge:
                source = self.edge_sources(graph)
                feat = self._columns(graph, "edge", where)[source.clamp(min=0)]
                made.edata["feat"] = feat * (source >= 0).unsqueeze(1)
        elif self.bidirected:
            made = undirected(made, self_loops=self.self_loops)
        elif self.self_loops:
            made = made.remove_self_loop().add_self_loop()
        made.ndata["feat"] = self._columns(graph, "node", where)
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
        raw = raw.reshape(-1).float()
        src, dst = (ends.cpu().long() for ends in graph.edges(order="eid"))
        other = src != dst
        mean = raw[other].mean() if bool(other.any()) else torch.tensor(1.0)
        if self.level == "edge":
            return torch.cat([raw, mean.reshape(1)])[self.edge_sources(graph)]  # a loop's is -1
        if not self.bidirected:
            loops = mean.expand(graph.num_nodes())
            return torch.cat([raw[other], loops]) if self.self_loops else raw
        nodes = graph.num_nodes()
        keys = torch.cat([src * nodes + dst, dst * nodes + src])[other.repeat(2)]
        known, inverse, counts = keys.unique(return_inverse=True, return_counts=True)
        sums = torch.zeros(len(known)).index_add_(0, inverse, raw[other].repeat(2))
        # Of a self-loop no pair of ends is known.
        table = torch.cat([sums / counts, mean.reshape(1)])
        src, dst = (ends.cpu().long() for ends in made.edges(order="eid"))
        place = torch.searchsorted(known, src * nodes + dst)
        return table[torch.where(src == dst, len(known), place)]

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
        A homogeneous graph, or whatever `as_graph` makes one of.
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
    if not graph.is_homogeneous:
        raise DGLError(f"{where} is heterogeneous; use dgl.to_homogeneous.")
    made = graph
    if record.get("preparation") is not None:
        if graph.batch_size != 1:
            raise DGLError(f"{where} is a batch: prepare the graphs first, and batch them then.")
        preparation = Preparation.model_validate(record["preparation"])
        made = preparation.apply(graph.to("cpu"), where).to(graph.device)
        kept = {key: value for key, value in graph.ndata.items() if key != "feat"}
        made.ndata.update(kept)
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

    def known(graphs: Sequence[AnyGraph], kind: str) -> Tensor:
        """Features of the graphs that hold training items."""
        frames = [getattr(g, f"{kind[0]}data") for g, use in zip(graphs, seen, strict=True) if use]
        return torch.cat([frame["feat"] for frame in frames])

    record: dict[str, dict[str, Any]] = {
        kind: {"transform": how, **_statistics(known(task.graphs, kind).double(), how)}
        for kind in ("node", "edge")
        if "feat" in getattr(task.graphs[0], f"{kind[0]}data")
    }
    graphs = [apply_scaling(graph, record) for graph in task.graphs]
    for kind, entry in record.items():
        feat = known(graphs, kind)
        if len(feat) == 0:  # no edges, say
            continue
        low, high = (ends.tolist() for ends in (feat.amin(dim=0), feat.amax(dim=0)))
        entry.update(low=[_short(value) for value in low], high=[_short(value) for value in high])
        entry["rms"] = _short(float(feat.square().mean().sqrt()))
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

    A feature is far outside if it lies beyond the range of its column by more than half of it.
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
    if share <= OUTSIDE:
        return None
    worst = int(beyond.argmax())
    column = int(feat.col_indices()[worst]) if sparse else worst % values.shape[1]
    value, least, most = float(values.flatten()[worst]), entry["low"][column], entry["high"][column]
    how = f"up to {value:.3g}, then {most:.3g}"
    if value < least:
        how = f"down to {value:.3g}, then {least:.3g}"
    return (
        f"{share:.0%} of the features lie far outside their range in training "
        f"(column {column}: {how})"
    )


def _statistics(feat: Tensor, how: str) -> dict[str, list[float]]:
    if how not in ("standardize", "rescale"):
        return {}
    mean = feat.mean(dim=0)
    variance = feat.var(dim=0, unbiased=False)
    if how == "rescale":
        variance = variance.mean().expand_as(mean)
    # A constant column becomes zero rather than noise of rounding.
    scale = variance.sqrt()
    scale = torch.where(scale <= 1e-7 * feat.abs().amax(dim=0), torch.ones_like(scale), scale)
    return {"mean": mean.float().tolist(), "scale": scale.float().tolist()}


def _degrees(graph: AnyGraph) -> Tensor:
    return graph.in_degrees().clamp(max=MOST_DEGREE)


def _two_dimensional(rows: Tensor) -> Tensor:
    return rows.unsqueeze(1) if rows.dim() == 1 else rows.flatten(1)


def _short(value: float) -> float:
    return float(f"{value:.4g}")
