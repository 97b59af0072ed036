"""Scores of a graph that is too large for one forward pass: layer by layer, in chunks of nodes."""

from __future__ import annotations

import mmap
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import scipy.sparse as sp
import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor

from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.nn.body import DeepGNN
from dgl_deepgnn.nn.conv import ResidualConv
from dgl_deepgnn.nn.heads import EdgeHead
from dgl_deepgnn.operator.aggregation import AggregationOperator
from dgl_deepgnn.operator.sparse import SparseMatrix
from dgl_deepgnn.progress import Progress
from dgl_deepgnn.wording import quoted

__all__ = ["layerwise_chunks", "layerwise_inference", "memory_size"]

SMALLEST = 10**6
"""Bytes below which a limit of memory makes no sense."""
LARGEST = 10**18
_SIZE = re.compile(r" *[0-9]{1,20}(\.[0-9]{1,20})? *[A-Za-z]{0,4} *")
PER_ENTRY = 40
"""Bytes that an entry of a sparse matrix takes while its row is multiplied, copies included."""
PER_KEPT = 16
"""Bytes that an entry takes while its part of the matrix is kept."""
CACHE = 32e6
"""Bytes of a chunk on a processor: more of them would leave its cache between two steps."""
ROWS_KEPT = 8
"""Intermediate results of a layer, of its larger width, at the same time."""


def memory_size(text: str | int) -> int:
    """Bytes of a size such as ``"2GB"``, ``"500MiB"`` or a number of bytes.

    Raises
    ------
    UserError
        If it is no size, less than a megabyte, or more than any machine has.

    Examples
    --------
    >>> memory_size("2GB"), memory_size("1.5 GiB")
    (2000000000, 1610612736)
    """
    size = 0
    if isinstance(text, int) or _SIZE.fullmatch(text):
        with suppress(ValidationError):
            size = int(TypeAdapter(ByteSize).validate_python(text))
    if not SMALLEST <= size <= LARGEST:
        raise UserError(
            f"memory={quoted(text)} is not a size of at least 1MB, such as 500MB or 2GB."
            if size < SMALLEST
            else f"memory={quoted(text)} is more than any machine has: at most 1EB."
        )
    return size


def layerwise_inference(
    model: DeepGNN,
    graph: AnyGraph | AggregationOperator,
    feat: Tensor,
    edge_weight: Tensor | None = None,
    edge_feat: Tensor | None = None,
    *,
    memory: str | int = "2GB",
    folder: str | Path | None = None,
    progress: bool = False,
) -> Tensor:
    """Score nodes, graphs or edges as ``model(graph, feat)`` in evaluation mode, in less memory.

    One layer after the other is computed for all nodes, in chunks of them: so no node is computed
    twice, however deep the network, and no neighbour is left out.

    Parameters
    ----------
    model : DeepGNN
        The network; it is evaluated and then is in the mode that it was in.
    graph, feat, edge_weight, edge_feat
        As in :meth:`DeepGNN.forward`. `feat` may be mapped from a file (``torch.from_file``).
    memory : str or int
        What the features of the layers and the chunks may take together, such as ``"2GB"``, or
        bytes. If the features of the layers take more than half of it, they are in files, of which
        the system keeps in memory what there is room for. Graph, `feat` and scores come on top.
    folder : Path, optional
        Where those files are, until the end; by default the folder for temporary files. They
        take two to five times the nodes times the width, of four bytes.
    progress : bool
        Whether to draw a progress bar.

    Returns
    -------
    Tensor
        Scores, shape (nodes, graphs or edges, out_feats).

    Raises
    ------
    DGLError
        As of :meth:`DeepGNN.forward`, or if the model's class has a forward pass of its own.
    UserError
        If `memory` is not a size.
    OSError
        If there is no room for the files.

    Examples
    --------
    >>> from dgl_deepgnn import ResGCN
    >>> from dgl_deepgnn.graph import Graph
    >>> graph = Graph((range(50), [*range(1, 50), 0])).add_self_loop()
    >>> model, feat = ResGCN(3, 8, 2, num_layers=16).eval(), torch.randn(50, 3)
    >>> scores = layerwise_inference(model, graph, feat, memory="1MB")
    >>> bool(torch.isclose(scores, model(graph, feat), atol=1e-5).all())
    True
    """
    chunks = layerwise_chunks(
        model,
        graph,
        feat,
        edge_weight,
        edge_feat,
        memory=memory,
        folder=folder,
        progress=progress,
    )
    return torch.cat(list(chunks))


@torch.no_grad()
def layerwise_chunks(
    model: DeepGNN,
    graph: AnyGraph | AggregationOperator,
    feat: Tensor,
    edge_weight: Tensor | None = None,
    edge_feat: Tensor | None = None,
    *,
    memory: str | int = "2GB",
    folder: str | Path | None = None,
    progress: bool = False,
    exchange: Callable[[Tensor], None] = lambda _: None,
) -> Iterator[Tensor]:
    """Scores of :func:`layerwise_inference` in their order, as many at once as there is room for.

    Of an operator that aggregates to the first of its source nodes only, `exchange` gets features
    of the nodes whose first rows are computed, and fills in the others.

    Yields
    ------
    Tensor
        Scores of the next nodes, graphs or edges, shape (some, out_feats).
    """
    size = memory_size(memory)
    for name in ("forward", "features", "_run_layers", "_activate"):
        if getattr(type(model), name) is not getattr(DeepGNN, name):
            raise DGLError(
                f"{type(model).__name__} has a {name} of its own, which is not known to go layer "
                "by layer. Call the model, on a machine with enough memory."
            )
    model.check_features(feat)
    if not isinstance(graph, AggregationOperator):
        graph = model.operator(graph, None if edge_weight is None else edge_weight.detach())
    elif edge_weight is not None:
        raise DGLError("The operator holds its edge weights: give edge_weight to it.")
    if model.reads_edges and model.inner_conv.edge_map is None:
        raise DGLError(
            f"{type(model).__name__} reads the relations of edges, which is not done layer by "
            "layer. Call the model, on a machine with enough memory."
        )
    graph, edge_feat = model.with_edge_feat(graph, edge_feat)
    if feat.shape[0] != graph.shape[1]:
        raise DGLError(f"There are {feat.shape[0]} rows of features for {graph.shape[1]} nodes.")
    training = model.training
    model.eval()
    try:
        bar = Progress(total=model.num_layers, unit="layer", disable=not progress)
        with bar:
            run = _Layerwise(model, graph, feat, size, folder, bar, exchange)
            yield from run.scores(edge_feat)
    finally:
        model.train(training)


class _Aggregated(AggregationOperator):
    """In the operator's place for features that are aggregated already."""

    def __init__(self, operator: AggregationOperator, rows: int) -> None:
        self.graph, self.t, self.shape = operator.graph, operator.t, (rows, rows)
        self.edge_feat = operator.edge_feat

    is_trainable = False

    def __matmul__(self, feat: Tensor) -> Tensor:
        return feat

    def messages(self, feat: Tensor, edge_map: torch.nn.Linear) -> Tensor:
        return feat


class _Layerwise:
    """One pass through a model."""

    def __init__(
        self,
        model: DeepGNN,
        operator: AggregationOperator,
        feat: Tensor,
        memory: int,
        folder: str | Path | None,
        bar: Progress,
        exchange: Callable[[Tensor], None],
    ) -> None:
        self._model, self._operator, self._bar = model, operator, bar
        self._exchange = exchange
        self._feat = _to_scipy(feat) if feat.layout == torch.sparse_csr else feat
        self._device, self._dtype = feat.device, feat.dtype
        self._width = model.config["hidden_feats"]
        buffers = {None: 2, "initial": 4}.get(model.residual, 2) + isinstance(model.head, EdgeHead)
        needed = buffers * feat.shape[0] * self._width * feat.element_size()
        self._branches = set(model.branches)
        self._cut: dict[tuple[int, int], SparseMatrix] = {}
        """Parts of the matrix; without room for all, they are cut out for every layer anew."""
        self._edge_sums = operator.edge_sums() if model.reads_edges else None
        self._folder = folder
        self._in_files = needed > memory / 2 and self._device.type == "cpu"
        self._room = memory / 2 if self._in_files else memory - needed
        self._room = max(self._room, memory / 4)
        kept = PER_KEPT * operator.matrix.nnz
        self._keeps = kept < memory / 8
        self._room -= kept if self._keeps else 0

    def scores(self, edge_feat: Tensor | None) -> Iterator[Tensor]:
        """Scores of all items, in their order."""
        model = self._model
        last = len(model.convs) - 1
        if last == 0 and model.head is None:
            for rows in self._chunks(model.in_feats):
                yield self._first(rows)
            return
        x = self._buffer()
        for rows in self._chunks(model.in_feats):
            x[rows] = self._first(rows)
        self._bar.update()
        first, new = (x, x)
        if model.residual == "initial":
            self._exchange(x)  # the skip connection aggregates, too
            first, new = x, self._buffer()
            x = self._buffer().copy_(first)
        active = self._buffer()
        if self._keeps:  # one after the other, so that they leave no holes among the chunks
            self._cut = {(r.start, r.stop): self._rows(r) for r in self._chunks(self._width)}
        for index in range(1, last + 1):
            for rows in self._chunks(self._width):
                active[rows] = model._activate(index - 1, x[rows])
            self._exchange(active)
            if index == last and model.head is None:
                for rows in self._chunks(self._width):
                    yield self._layer(index, rows, x, active, first)
                self._bar.update()
                return
            for rows in self._chunks(self._width):
                new[rows] = self._layer(index, rows, x, active, first)
            if model.residual == "initial":
                x, new = new, x
                self._exchange(x)
            self._bar.update()
        for rows in self._chunks(self._width):
            active[rows] = model._activate(last, x[rows])
        if isinstance(model.head, EdgeHead):
            yield from self._edges(model.head, active, x, edge_feat)
        else:
            assert model.head is not None
            yield model.head(self._operator.graph, active)

    def _first(self, rows: slice) -> Tensor:
        conv, feat = self._model.convs[0], self._feat
        if isinstance(feat, Tensor):
            return self._apply(conv, rows, self._aggregate(rows, feat), feat[rows])
        parts = self._operator.matrix[rows] @ feat, feat[rows]
        return self._apply(conv, rows, *(self._dense(part) for part in parts))

    def _layer(self, index: int, rows: slice, x: Tensor, active: Tensor, first: Tensor) -> Tensor:
        """Rows of what a layer hands on; see `DeepGNN._run_layers`."""
        model, conv = self._model, self._model.convs[index]
        assert isinstance(conv, ResidualConv)
        if conv.edge_map is None:
            aggregated = self._aggregate(rows, active)
        else:
            aggregated = self._messages(rows, active, conv.edge_map)
        out = self._apply(conv, rows, aggregated, active[rows])
        if conv not in self._branches:
            return out
        if model.residual != "initial":
            return torch.add(x[rows], out, alpha=model.branch_scale)
        ready = _Aggregated(self._operator, len(out))
        skip = conv.aggregate(ready, self._aggregate(rows, x), x[rows])
        out = torch.add(model.branch_scale * out, skip, alpha=1 - model.alpha)
        return torch.add(out, first[rows], alpha=model.alpha)

    def _apply(self, conv: torch.nn.Module, rows: slice, aggregated: Tensor, own: Tensor) -> Tensor:
        return conv(_Aggregated(self._operator, rows.stop - rows.start), (aggregated, own))

    def _aggregate(self, rows: slice, feat: Tensor) -> Tensor:
        matrix = self._cut.get((rows.start, rows.stop))
        return (self._rows(rows) if matrix is None else matrix) @ feat

    def _rows(self, rows: slice) -> SparseMatrix:
        return self._operator.rows(rows, self._device, self._dtype)

    def _messages(self, rows: slice, feat: Tensor, edge_map: torch.nn.Linear) -> Tensor:
        """Rows of ``operator.messages(feat, edge_map)``."""
        operator, sums = self._operator, self._edge_sums
        assert operator.edge_feat is not None and sums is not None
        part = sums[rows]
        edges = torch.from_numpy(part.indices.astype(np.int64)).to(self._device)
        source = operator.graph_on(self._device).edges(order="eid")[0]
        message = edge_map(operator.edge_feat[edges.to(operator.edge_feat.device)].to(feat))
        message = torch.relu(message.add_(feat[source[edges].long()]))
        in_order = (part.data, np.arange(part.nnz), part.indptr)
        part = sp.csr_matrix(in_order, shape=(part.shape[0], part.nnz))
        out = SparseMatrix(part, self._device, self._dtype) @ message
        return out.add_(feat[rows], alpha=1 - operator.t) if operator.t < 1 else out

    def _dense(self, matrix: sp.csr_matrix) -> Tensor:
        return torch.from_numpy(matrix.toarray()).to(self._device, self._dtype)

    def _edges(
        self, head: EdgeHead, active: Tensor, source: Tensor, edge_feat: Tensor | None
    ) -> Iterator[Tensor]:
        graph = self._operator.graph_on(self._device)
        head.check_edge_feat(graph, edge_feat)
        destination = self._buffer()
        for rows in self._chunks(self._width):
            source[rows], destination[rows] = head.ends(active[rows])
        src, dst = graph.edges(order="eid")
        per_edge = 4 * (4 * self._width + head.edge_feats)
        step = max(1, int(self._room / per_edge))
        for start in range(0, max(len(src), 1), step):
            some = slice(start, start + step)
            pairs = source[src[some]] + destination[dst[some]]
            yield head.pairs(pairs, None if edge_feat is None else edge_feat[some])

    def _chunks(self, width: int) -> Iterator[slice]:
        """As many rows at a time as there is room for; one at least."""
        per_row = 4 * ROWS_KEPT * max(width, self._width)
        ends = self._operator.matrix.indptr
        per_entry = PER_ENTRY
        if self._edge_sums is not None:  # two rows an edge, and its features
            ends = ends + self._edge_sums.indptr
            per_entry += 4 * (2 * self._width + self._model.config["edge_feats"])
        costs = per_entry * ends.astype(np.int64) + per_row * np.arange(len(ends), dtype=np.int64)
        start, nodes = 0, len(ends) - 1
        room = self._room if self._device.type == "cuda" else min(self._room, CACHE)
        if nodes == 0:  # nothing to score, in scores of the right width
            yield slice(0, 0)
        while start < nodes:
            stop = int(np.searchsorted(costs, costs[start] + room, side="right")) - 1
            stop = min(max(stop, start + 1), nodes)
            yield slice(start, stop)
            start = stop

    def _buffer(self) -> Tensor:
        """Features of all nodes, not yet filled."""
        shape = self._operator.shape[1], self._width
        if not self._in_files:
            return torch.empty(shape, device=self._device, dtype=self._dtype)
        size = shape[0] * shape[1] * self._dtype.itemsize
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix="dgl-deepgnn-") as file:
            # All of it now: no room later would end the process. The name goes; the map stays.
            os.posix_fallocate(file.fileno(), 0, size)
            mapped = mmap.mmap(file.fileno(), size)
        return torch.frombuffer(mapped, dtype=self._dtype).view(shape)


def _to_scipy(feat: Tensor) -> sp.csr_matrix:
    parts = feat.values(), feat.col_indices(), feat.crow_indices()
    return sp.csr_matrix(tuple(part.cpu().numpy() for part in parts), shape=tuple(feat.shape))
