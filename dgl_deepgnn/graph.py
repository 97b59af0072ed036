"""The graph that the package needs, and what else users have for one.

A ``DGLGraph`` is taken as it is. Where there is none, `Graph` stands in its place: source and
destination ids, number of nodes, sizes of the graphs of a batch, data of nodes and edges. Its
methods bear DGL's names and mean the same, so that code reads the same for both.
"""

from __future__ import annotations

import copy
import sys
from collections import UserDict
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from dgl_deepgnn.errors import DGLError

try:
    import dgl
except ImportError:
    dgl = None

__all__ = [
    "DGL_VERSION",
    "AnyGraph",
    "Graph",
    "as_graph",
    "batch",
    "is_graph",
    "make_graph",
    "reason",
    "require_dgl",
    "u_mul_e_sum",
]

DGL_VERSION: str | None = None if dgl is None else dgl.__version__

AnyGraph: TypeAlias = Any
"""A ``DGLGraph``, a `Graph`, or what `as_graph` makes one of."""

KINDS = (
    "a DGLGraph, a dgl_deepgnn.Graph, a pair (edge_index, num_nodes), a SciPy sparse matrix, or "
    "PyTorch Geometric's Data or Batch"
)


class Graph:
    """Directed graph, or batch of graphs, with data of nodes and edges.

    Its structure does not change: methods return new graphs.

    Parameters
    ----------
    edges : pair of Tensor
        Source and destination node of every edge, integers of shape (E,); also one tensor of
        shape (2, E).
    num_nodes : int, optional
        By default one more than the largest id.

    Raises
    ------
    DGLError
        If the ids are not whole numbers of such a shape, or out of range.

    Examples
    --------
    >>> graph = Graph(([0, 1, 2], [1, 2, 0])).add_self_loop()
    >>> graph
    Graph(num_nodes=3, num_edges=6)
    >>> graph.ndata["feat"] = torch.ones(3, 2)
    >>> graph.in_degrees()
    tensor([2, 2, 2])
    """

    is_block = False
    is_homogeneous = True
    ntypes = srctypes = dsttypes = ("_N",)
    canonical_etypes = (("_N", "_E", "_N"),)

    def __init__(self, edges: Any, num_nodes: int | None = None) -> None:
        ends = [torch.as_tensor(end) for end in edges]
        if len(ends) != 2 or any(end.dim() != 1 for end in ends) or len(ends[0]) != len(ends[1]):
            shapes = ", ".join(str(tuple(end.shape)) for end in ends)
            raise DGLError(
                f"Edges have the shapes {shapes}: expected source and destination ids, each of "
                "shape (E,)."
            )
        for end in ends:
            if len(end) and (end.is_floating_point() or end.dtype in (torch.bool, torch.complex64)):
                raise DGLError(f"Ids of nodes are {end.dtype}: they must be whole numbers.")
        src, dst = (end.long() for end in ends)
        least, most = 0, -1
        if len(src):
            (low, high), (other_low, other_high) = src.aminmax(), dst.aminmax()
            least, most = int(torch.minimum(low, other_low)), int(torch.maximum(high, other_high))
        if num_nodes is None:
            num_nodes = most + 1
        if least < 0 or most >= num_nodes:
            raise DGLError(
                f"An edge has the end {least if least < 0 else most}, but the graph has "
                f"{num_nodes} nodes: allowed are 0 to {num_nodes - 1}."
            )
        self._ends = src, dst
        self._num_nodes = int(num_nodes)
        self._batch_num_nodes = torch.tensor([self._num_nodes], device=src.device)
        self._batch_num_edges = torch.tensor([len(src)], device=src.device)
        self.ndata = _Frame("node", self._num_nodes)
        self.edata = _Frame("edge", len(src))

    @property
    def device(self) -> torch.device:
        """Where the ids are."""
        return self._ends[0].device

    @property
    def batch_size(self) -> int:
        """Number of graphs in the batch."""
        return len(self._batch_num_nodes)

    def num_nodes(self) -> int:
        """Nodes of all graphs of the batch."""
        return self._num_nodes

    num_src_nodes = num_dst_nodes = num_nodes

    def num_edges(self) -> int:
        """Edges of all graphs of the batch."""
        return len(self._ends[0])

    def edges(self, form: str = "uv", order: str = "eid") -> tuple[Tensor, Tensor]:
        """Source and destination ids, in the order in which the edges were given."""
        return self._ends

    def batch_num_nodes(self) -> Tensor:
        """Nodes of each graph of the batch, shape (B,)."""
        return self._batch_num_nodes

    def batch_num_edges(self) -> Tensor:
        """Edges of each graph of the batch, shape (B,)."""
        return self._batch_num_edges

    def set_batch_num_nodes(self, sizes: Tensor) -> None:
        """Say how many nodes each graph of the batch has, in order."""
        self._batch_num_nodes = sizes

    def set_batch_num_edges(self, sizes: Tensor) -> None:
        """Say how many edges each graph of the batch has, in order."""
        self._batch_num_edges = sizes

    def in_degrees(self) -> Tensor:
        """Edges that end in each node, shape (N,)."""
        return torch.bincount(self._ends[1], minlength=self._num_nodes)

    def local_var(self) -> Graph:
        """Copy that shares everything, but whose data may be set without changing this one's."""
        other = copy.copy(self)
        other.ndata, other.edata = self.ndata.copy(), self.edata.copy()
        return other

    def to(self, device: torch.device | str) -> Graph:
        """Graph with ids and data on a device."""
        other = self.local_var()
        other._ends = self._ends[0].to(device), self._ends[1].to(device)
        other._batch_num_nodes = self._batch_num_nodes.to(device)
        other._batch_num_edges = self._batch_num_edges.to(device)
        for frame in (other.ndata, other.edata):
            frame.update({key: value.to(device) for key, value in frame.items()})
        return other

    def reverse(self) -> Graph:
        """Graph whose edges point the other way; node data is kept."""
        other = Graph(self._ends[::-1], self._num_nodes)
        other._batch_num_nodes = self._batch_num_nodes
        other._batch_num_edges = self._batch_num_edges
        other.ndata.update(self.ndata)
        return other

    def add_self_loop(self) -> Graph:
        """Graph with an edge more of every node to itself, behind the others; no edge data."""
        nodes = torch.arange(self._num_nodes, device=self.device)
        return self._with_edges(*(torch.cat([end, nodes]) for end in self._ends))

    def remove_self_loop(self) -> Graph:
        """Graph without the edges of nodes to themselves; no edge data."""
        src, dst = self._ends
        return self._with_edges(src[src != dst], dst[src != dst])

    def _with_edges(self, src: Tensor, dst: Tensor) -> Graph:
        if self.batch_size != 1:
            raise DGLError("Change the edges of the graphs first, and batch them then.")
        other = Graph((src, dst), self._num_nodes)
        other.ndata.update(self.ndata)
        return other

    def __repr__(self) -> str:
        graphs = f", graphs={self.batch_size}" if self.batch_size != 1 else ""
        return f"Graph(num_nodes={self._num_nodes}, num_edges={self.num_edges()}{graphs})"


class _Frame(UserDict[str, Tensor]):
    """Data of all nodes, or of all edges: one row each."""

    def __init__(self, kind: str, rows: int) -> None:
        self.kind, self.rows = kind, rows
        super().__init__()

    def __setitem__(self, key: str, value: Tensor) -> None:
        if len(value) != self.rows:
            raise DGLError(
                f"Data {key!r} has {len(value)} rows: expected {self.rows}, one a {self.kind}."
            )
        super().__setitem__(key, value)


def is_graph(value: object) -> bool:
    """Whether a value is a `Graph` or a ``DGLGraph``."""
    return isinstance(value, Graph) or (dgl is not None and isinstance(value, dgl.DGLGraph))


def as_graph(value: AnyGraph) -> AnyGraph:
    """A graph of whatever describes one.

    Parameters
    ----------
    value : object
        A ``DGLGraph`` or `Graph`, which is returned; a pair (edge_index, num_nodes) with ids of
        shape (2, E), sources first; a SciPy sparse matrix, with an edge from i to j where (i, j) is
        stored, whatever its value; PyTorch Geometric's ``Data`` or ``Batch``, whose ``x`` and
        ``edge_attr`` become ``ndata["feat"]`` and ``edata["feat"]``.

    Returns
    -------
    DGLGraph or Graph
        With the edges in the given order (of a matrix: that of ``matrix.tocoo()``).

    Raises
    ------
    DGLError
        If it is none of these, or its ids are out of range.

    Examples
    --------
    >>> as_graph((torch.tensor([[0, 1], [1, 0]]), 3))
    Graph(num_nodes=3, num_edges=2)
    """
    if is_graph(value):
        return value
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], int | np.integer):
        return Graph(*value)
    if sp.issparse(value):
        coo = value.tocoo()
        if coo.shape[0] != coo.shape[1]:
            raise DGLError(f"An adjacency matrix must be square; this one has shape {coo.shape}.")
        return Graph((torch.from_numpy(coo.row), torch.from_numpy(coo.col)), coo.shape[0])
    geometric = sys.modules.get("torch_geometric.data")
    if geometric is not None and isinstance(value, geometric.Data):
        return _from_geometric(value)
    raise DGLError(f"The graph is a {type(value).__name__}; allowed: {KINDS}.")


def _from_geometric(data: Any) -> Graph:
    if data.edge_index is None:
        raise DGLError("This torch_geometric Data has no edge_index (adj_t is not read).")
    graph = Graph(data.edge_index, data.num_nodes)
    if data.x is not None:
        graph.ndata["feat"] = data.x
    if data.edge_attr is not None:
        graph.edata["feat"] = data.edge_attr
    graph_of_node = getattr(data, "batch", None)
    if graph_of_node is not None:
        of_edge = graph_of_node[graph.edges()[0]]
        if bool((graph_of_node.diff() < 0).any()) or bool((of_edge.diff() < 0).any()):
            raise DGLError("Nodes and edges of a torch_geometric Batch must be sorted by graph.")
        count = data.num_graphs
        graph.set_batch_num_nodes(torch.bincount(graph_of_node, minlength=count))
        graph.set_batch_num_edges(torch.bincount(of_edge, minlength=count))
    return graph


def make_graph(edges: Any, num_nodes: int | None = None) -> AnyGraph:
    """A new graph: DGL's where DGL is installed, else `Graph`."""
    return Graph(edges, num_nodes) if dgl is None else dgl.graph(tuple(edges), num_nodes=num_nodes)


def batch(graphs: Sequence[AnyGraph]) -> AnyGraph:
    """Several graphs as one, with the data that all of them have.

    Examples
    --------
    >>> both = batch([Graph(([0], [0])), Graph(([0, 1], [1, 0]))])
    >>> both.edges()[0].tolist(), both.batch_num_nodes().tolist()
    ([0, 1, 2], [1, 2])
    """
    if not graphs:
        raise DGLError("There are no graphs to batch.")
    if not any(isinstance(graph, Graph) for graph in graphs):
        return dgl.batch(list(graphs))
    sizes = [graph.num_nodes() for graph in graphs]
    shifts = np.cumsum(sizes) - sizes
    ends = [
        torch.stack(graph.edges(order="eid")).long() + int(shift)
        for graph, shift in zip(graphs, shifts, strict=True)
    ]
    whole = Graph(torch.cat(ends, dim=1), sum(sizes))
    whole.set_batch_num_nodes(torch.cat([graph.batch_num_nodes() for graph in graphs]))
    whole.set_batch_num_edges(torch.cat([graph.batch_num_edges() for graph in graphs]))
    for frame, name in ((whole.ndata, "ndata"), (whole.edata, "edata")):
        parts = [getattr(graph, name) for graph in graphs]
        for key in parts[0]:
            if all(key in part for part in parts):
                frame[key] = torch.cat([part[key] for part in parts])
    return whole


def u_mul_e_sum(graph: AnyGraph, feat: Tensor, weight: Tensor) -> Tensor:
    """Sum over each node's in-edges of source features times edge weight, shape (N, width).

    Differentiable in both. DGL's kernel where graph and features are in one place: it does not
    keep a row of features an edge.
    """
    if not isinstance(graph, Graph) and graph.device == feat.device:
        return dgl.ops.u_mul_e_sum(graph, feat, weight)
    src, dst = (end.long().to(feat.device) for end in graph.edges(order="eid"))
    message = feat[src] * weight
    index = dst[:, None].expand_as(message)
    return message.new_zeros(graph.num_dst_nodes(), feat.shape[1]).scatter_add(0, index, message)


def require_dgl(what: str) -> Any:
    """DGL, or an error that says what it is needed for."""
    if dgl is None:
        raise DGLError(
            f"{what} needs DGL, which is not installed here: pip install dgl, on Python 3.11 or "
            "3.12 (docs/install.md)."
        )
    return dgl


def reason(error: Exception) -> str:
    r"""Why DGL fails: its C++ puts its own source in front, and its stack behind.

    Examples
    --------
    >>> reason(DGLError("[12:00] /io.cc:1: Check failed: a == b (1 vs. 2) : No file.\nStack"))
    'No file'
    """
    return str(error).partition("\n")[0].rpartition(" : ")[2].rstrip(".")
