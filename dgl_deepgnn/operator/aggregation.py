"""Aggregation operators: ``A_t = (1 - t) I + t A / lambda`` of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, Graph, as_graph, u_mul_e_sum
from dgl_deepgnn.operator.growth import as_depth, mean_growth, spectral_radii
from dgl_deepgnn.operator.matrix import (
    Norm,
    aggregation_matrix,
    batch_sizes,
    concatenated_ranges,
)
from dgl_deepgnn.operator.sparse import SparseMatrix, SparseProduct, both_ways

__all__ = ["AggregationOperator", "aggregation_operator"]


class AggregationOperator:
    r"""Sparse operator :math:`A_t = (1 - t) I + t A / \lambda` of a graph.

    Made by :func:`aggregation_operator`. ``operator @ feat`` aggregates features of shape
    (source nodes, width) to (destination nodes, width); it is differentiable in ``feat``, and
    in the edge weights where they require a gradient.

    Parameters
    ----------
    graph : DGLGraph
        The graph the operator belongs to.
    matrix : scipy.sparse.csr_matrix
        :math:`A_t`, rows are destination nodes.
    t : float
        The interpolation between the identity (0) and the aggregation (1).
    spectral_radii : numpy.ndarray
        The divisor :math:`\lambda` of each graph of the batch.
    trainable : tuple of Tensor, optional
        Edge weights that require a gradient, and what each is multiplied with.
    transpose : scipy.sparse.csr_matrix, optional
        The transposed matrix, if it is at hand.
    per_edge : numpy.ndarray, optional
        What the message of every edge is multiplied with, for :meth:`messages`.
    """

    edge_feat: Tensor | None = None
    """Features that messages depend on, shape (E, width); see :meth:`with_edge_feat`."""

    def __init__(
        self,
        graph: AnyGraph,
        matrix: sp.csr_matrix,
        t: float,
        spectral_radii: np.ndarray,
        trainable: tuple[Tensor, Tensor] | None = None,
        transpose: sp.csr_matrix | None = None,
        per_edge: np.ndarray | None = None,
    ) -> None:
        self.graph = graph
        self.t = t
        self.spectral_radii = spectral_radii
        self.shape: tuple[int, int] = matrix.shape
        self.matrix = matrix
        self._transpose = transpose
        self._trainable = trainable
        self.per_edge = per_edge
        # Matrix and transpose for every device and type that features came in.
        self._tensors: dict[
            tuple[torch.device, torch.dtype], tuple[SparseMatrix, SparseMatrix]
        ] = {}
        self.derived: dict[Any, Any] = {}
        """What layers make of the graph and want to find again."""
        self._graphs: dict[torch.device, AnyGraph] = {}

    @property
    def spectral_radius(self) -> float:
        r"""Spectral radius :math:`\lambda` that :math:`A` was divided by (a batch: the largest).

        :math:`A_t` itself has spectral radius one.
        """
        return float(self.spectral_radii.max(initial=0.0)) or 1.0

    def to(
        self, device: torch.device | str, dtype: torch.dtype = torch.float32
    ) -> AggregationOperator:
        """Copy the matrix to `device` now rather than at the first product there; returns itself.

        The graph may stay where it is: a CPU-only DGL serves features on a GPU.
        """
        self.matrices(torch.device(device), dtype)
        return self

    def __matmul__(self, feat: Tensor) -> Tensor:
        if feat.dim() != 2 or feat.shape[0] != self.shape[1]:
            raise DGLError(
                f"Features of shape {tuple(feat.shape)} do not fit an operator of shape "
                f"{self.shape}: expected ({self.shape[1]}, width), one row a node."
            )
        if not feat.is_floating_point():
            raise DGLError(f"Features have type {feat.dtype}: convert them, feat.float().")
        if self._trainable is not None:
            return self._message_passing(feat)
        return SparseProduct.apply(feat, *self.matrices(feat.device, feat.dtype))

    @property
    def is_trainable(self) -> bool:
        """Whether edge weights require a gradient."""
        return self._trainable is not None

    def _message_passing(self, feat: Tensor) -> Tensor:
        """Same product along the edges, which has the gradient in their weights."""
        weight, scale = self._trainable  # type: ignore[misc]
        message = (weight * scale.to(weight)).to(feat.dtype).unsqueeze(-1)
        aggregated = u_mul_e_sum(self.graph, feat, message)
        return aggregated + (1 - self.t) * feat[: self.shape[0]] if self.t < 1 else aggregated

    def with_edge_feat(self, edge_feat: Tensor) -> AggregationOperator:
        """The same operator with edge features, for :meth:`messages`; memory is shared."""
        edges = self.graph.num_edges()
        if edge_feat.dim() != 2 or edge_feat.shape[0] != edges:
            raise DGLError(
                f"Edge features have shape {tuple(edge_feat.shape)}, but the graph has {edges} "
                f"edges: expected ({edges}, width), one row an edge."
            )
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)  # a copy would leave out what has been computed
        other.edge_feat = edge_feat
        return other

    def messages(self, feat: Tensor, edge_map: nn.Linear) -> Tensor:
        r"""Aggregate ``relu(h_u + edge_map(e_uv))`` in place of the neighbours' features ``h_u``.

        .. math:: (1 - t) h_v + \sum_u \frac{t a_{vu}}{\lambda} \mathrm{relu}(h_u + W e_{uv})

        The messages of GINE, Hu et al., arXiv:1905.12265. An edge without features (zeros) hands
        on relu(h_u). The operator needs `edge_feat`, and must have been made ``edgewise``.
        """
        if self.edge_feat is None or (self.per_edge is None and self._trainable is None):
            raise DGLError(
                "The layer reads edge features, but the operator holds none: pass edge_feat, or "
                "make the operator by the layer's operator(graph) and give with_edge_feat to it."
            )
        graph = self.graph_on(feat.device)
        message = edge_map(self.edge_feat.to(feat))
        message = torch.relu(message + feat.index_select(0, graph.edges(order="eid")[0].long()))
        if self._trainable is not None:
            weight, scale = self._trainable
            message = message * (weight * scale.to(weight)).to(feat.dtype).unsqueeze(-1)
        out = SparseProduct.apply(message, *self._summing_edges(feat.device, feat.dtype))
        return out + (1 - self.t) * feat[: self.shape[0]] if self.t < 1 else out

    def edge_sums(self) -> sp.csr_matrix:
        """Matrix of shape (destination nodes, E) that sums over the in-edges of every node."""
        edges = self.graph.num_edges()
        destination = self.graph.edges(order="eid")[1].cpu().numpy()
        values = np.ones(edges) if self.per_edge is None else self.per_edge
        return sp.csr_matrix(
            (values, (destination, np.arange(edges))), shape=(self.shape[0], edges)
        )

    def _summing_edges(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[SparseMatrix, SparseMatrix]:
        key = "edge sums", device, dtype
        if key not in self.derived:
            self.derived[key] = both_ways(self.edge_sums(), device, dtype)
        return self.derived[key]

    def matrices(
        self, device: torch.device, dtype: torch.dtype
    ) -> tuple[SparseMatrix, SparseMatrix]:
        """Matrix and transpose as constants: their products take part in no gradient."""
        if (device, dtype) not in self._tensors:
            self._tensors[device, dtype] = both_ways(self.matrix, device, dtype, self._transposed())
        return self._tensors[device, dtype]

    def _transposed(self) -> sp.csr_matrix:
        if self._transpose is None:
            self._transpose = self.matrix.T.tocsr()
        return self._transpose

    def rows(self, rows: slice, device: torch.device, dtype: torch.dtype) -> SparseMatrix:
        """Some rows of the matrix alone: aggregation to those nodes, without a gradient.

        Raises
        ------
        DGLError
            If the edge weights require a gradient.
        """
        if self._trainable is not None:
            raise DGLError("An operator with trainable edge weights cannot be cut into parts.")
        return SparseMatrix(self.matrix[rows], device, dtype)

    def graph_on(self, device: torch.device) -> AnyGraph:
        """The graph with its ids on a device, copied there once."""
        if self.graph.device == device:
            return self.graph
        if device not in self._graphs:
            copy = Graph(self.graph.edges(order="eid"), self.graph.num_nodes())
            copy.set_batch_num_nodes(self.graph.batch_num_nodes())
            copy.set_batch_num_edges(self.graph.batch_num_edges())
            self._graphs[device] = copy.to(device)
        return self._graphs[device]

    def select(self, which: Sequence[int]) -> AggregationOperator:
        """Operator of some graphs of the batch, cut out of this one's matrix.

        Much cheaper than a new operator for mini-batches of small graphs: neither are they
        batched again nor is a spectral radius computed.

        Parameters
        ----------
        which : sequence of int
            Indices of the graphs in the batch that the operator was made of.

        Returns
        -------
        AggregationOperator
            Equal to that made of those graphs, batched in this order; without their features.

        Raises
        ------
        DGLError
            If the edge weights require a gradient.

        Examples
        --------
        >>> from dgl_deepgnn.graph import batch
        >>> graphs = [Graph((range(n), [0] * n)).add_self_loop() for n in (3, 4, 5)]
        >>> aggregation_operator(batch(graphs)).select([2, 0]).shape
        (8, 8)
        """
        if self._trainable is not None:
            raise DGLError("An operator with trainable edge weights cannot be cut into parts.")
        chosen = np.asarray(which, dtype=np.int64)
        num_nodes, num_edges = batch_sizes(self.graph), self.graph.batch_num_edges().cpu().numpy()
        first = (np.cumsum(num_nodes) - num_nodes)[chosen]
        sizes = num_nodes[chosen]
        shift = np.cumsum(sizes) - sizes - first
        nodes = concatenated_ranges(num_nodes, chosen)
        matrices = []
        for matrix in (self.matrix, self._transposed()):
            per_node = np.diff(matrix.indptr)
            per_graph = np.diff(matrix.indptr[np.append(0, np.cumsum(num_nodes))])
            entries = concatenated_ranges(per_graph, chosen)
            counts = per_node[nodes]
            indptr = np.concatenate([[0], np.cumsum(counts)])
            indices = matrix.indices[entries] + np.repeat(np.repeat(shift, sizes), counts)
            matrices.append(
                sp.csr_matrix((matrix.data[entries], indices, indptr), shape=(len(nodes),) * 2)
            )
        edges = concatenated_ranges(num_edges, chosen)
        offset = torch.from_numpy(np.repeat(shift, num_edges[chosen]))
        src, dst = (ends.cpu()[edges] + offset for ends in self.graph.edges(order="eid"))
        graph = Graph((src, dst), len(nodes))
        graph.set_batch_num_nodes(torch.from_numpy(sizes))
        graph.set_batch_num_edges(torch.from_numpy(num_edges[chosen]))
        return AggregationOperator(
            graph,
            matrices[0],
            self.t,
            self.spectral_radii[chosen],
            transpose=matrices[1],
            per_edge=None if self.per_edge is None else self.per_edge[edges],
        )

    def __getstate__(self) -> dict[str, Any]:
        # PyTorch cannot copy CSR tensors; they are made again when needed.
        return {**self.__dict__, "_tensors": {}, "derived": {}, "_graphs": {}}

    def __repr__(self) -> str:
        return (
            f"AggregationOperator(shape={self.shape}, t={self.t:g}, "
            f"spectral_radius={self.spectral_radius:.4g})"
        )


def aggregation_operator(
    graph: AnyGraph,
    norm: Norm = "both",
    t: float = 1.0,
    edge_weight: Tensor | None = None,
    *,
    spectral_radius: float | None = None,
    depth: int | None = None,
    edgewise: bool = False,
) -> AggregationOperator:
    r"""Residual aggregation operator of a graph.

    .. math:: A_t = (1 - t) I + t A / \lambda(A)

    The identity is folded into the sparse matrix, so that interpolating costs nothing. The
    spectral radius of :math:`A_t` is one, so the critical weight variance is
    :math:`2 / \mathrm{fan\_in}` for every aggregation. Residual aggregation is the second
    principle of DeZoort and Hanin, arXiv:2306.11668; the division by :math:`\lambda` is
    derived here.

    Parameters
    ----------
    graph : DGLGraph
        A homogeneous graph, a batch of them (each is divided by its own spectral radius), a
        sampler's block, or one relation of a heterogeneous graph.
    norm : {"both", "right", "left", "none"}
        As in :class:`dgl.nn.GraphConv`: symmetric by the degrees, mean over the in-edges,
        divided by the source's out-degree, or plain sum.
    t : float
        Interpolation, 0 < t <= 1. At 1 it is the graph's aggregation alone.
    edge_weight : Tensor, optional
        One non-negative weight an edge, shape (E,). Degrees stay unweighted, as in DGL.
    spectral_radius : float, optional
        Divide by this instead of the graph's own. A sampler's block has none of its own: it is
        taken as 1 for the normalised aggregations and must be given (the full graph's) for
        ``norm="none"``. 1.0 leaves :math:`A` as DGL computes it.
    depth : int, optional
        Divide by the graph's :func:`growth` over so many layers in place of its spectral radius.
    edgewise : bool
        Whether to keep what the message of every edge is multiplied with, for layers that read edge
        features, :meth:`AggregationOperator.messages`.

    Returns
    -------
    AggregationOperator
        Use it as ``operator @ feat``.

    Raises
    ------
    DGLError
        If the graph (or one graph of the batch) has no directed cycle, so that no critical
        scale exists, if an edge weight is negative or not finite, or an argument is out of range.

    Examples
    --------
    >>> graph = Graph(([0, 1, 1, 2], [1, 0, 2, 1]))
    >>> operator = aggregation_operator(graph, norm="none", t=0.5)
    >>> round(operator.spectral_radius, 4)
    1.4142
    >>> operator @ torch.eye(3)
    tensor([[0.5000, 0.3536, 0.0000],
            [0.3536, 0.5000, 0.3536],
            [0.0000, 0.3536, 0.5000]])
    """
    if not (isinstance(t, int | float) and 0 < t <= 1):
        raise DGLError(
            f"t must be a number in (0, 1], got {t!r}. (Models also take schedules by layer.)"
        )
    graph = as_graph(graph)
    matrix, edge_scale = aggregation_matrix(graph, norm, edge_weight)
    sizes = batch_sizes(graph)
    if spectral_radius is not None:
        if not 0 < spectral_radius < float("inf"):
            raise DGLError(f"spectral_radius must be positive and finite, got {spectral_radius}.")
        radii = np.full(len(sizes), float(spectral_radius))
    elif depth is not None:
        radii = mean_growth(spectral_radii(graph, matrix, norm, depth=as_depth(depth)))
    else:
        radii = spectral_radii(graph, matrix, norm)
    divisor = np.repeat(radii, sizes)[:, None]
    matrix = sp.csr_matrix(matrix.multiply(t / divisor))
    if t < 1:
        if not _dst_in_src(graph):
            raise DGLError(
                "Interpolation with the identity (t < 1) needs the destination nodes among the "
                "source nodes; in a relation between two node types they are not. Use t=1 there."
            )
        matrix = sp.csr_matrix(matrix + (1 - t) * sp.eye(*matrix.shape, format="csr"))
    trainable = per_edge = None
    requires_grad = edge_weight is not None and edge_weight.requires_grad
    if requires_grad or edgewise:
        per_edge = edge_scale * (t / divisor[graph.edges(order="eid")[1].cpu().numpy(), 0])
    if edge_weight is not None and requires_grad:
        trainable = edge_weight.reshape(-1), torch.from_numpy(per_edge).to(edge_weight.device)
        per_edge = None
    elif edge_weight is not None and per_edge is not None:
        per_edge = per_edge * edge_weight.detach().reshape(-1).double().cpu().numpy()
    return AggregationOperator(graph, matrix, t, radii, trainable, per_edge=per_edge)


def _dst_in_src(graph: AnyGraph) -> bool:
    """Whether the destination nodes are the first source nodes (DGL's rule for blocks)."""
    return graph.srctypes == graph.dsttypes
