"""Aggregation operators: ``A_t = (1 - t) I + t A / lambda`` of a graph."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, Graph, as_graph, u_mul_e_sum
from dgl_deepgnn.operator.sparse import SparseMatrix, SparseProduct, both_ways
from dgl_deepgnn.operator.spectral import block_spectral_radii

__all__ = [
    "NORMS",
    "AggregationOperator",
    "Norm",
    "aggregation_operator",
    "growth",
    "growth_by_layer",
    "spectral_radius",
]

Norm = Literal["both", "right", "left", "none"]
NORMS: tuple[Norm, ...] = ("both", "right", "left", "none")


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
        other = copy.copy(self)
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
        num_nodes, num_edges = _batch_sizes(self.graph), self.graph.batch_num_edges().cpu().numpy()
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
    matrix, edge_scale = _aggregation_matrix(graph, norm, edge_weight)
    sizes = _batch_sizes(graph)
    if spectral_radius is not None:
        if not 0 < spectral_radius < float("inf"):
            raise DGLError(f"spectral_radius must be positive and finite, got {spectral_radius}.")
        radii = np.full(len(sizes), float(spectral_radius))
    elif depth is not None:
        radii = _mean_growth(_spectral_radii(graph, matrix, norm, depth=_as_depth(depth)))
    else:
        radii = _spectral_radii(graph, matrix, norm)
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


def spectral_radius(
    graph: AnyGraph,
    norm: Norm = "none",
    edge_weight: Tensor | None = None,
    *,
    self_weight: float = 0.0,
) -> Tensor:
    r"""Spectral radius :math:`\lambda` (Perron root) of a graph's aggregation matrix.

    Parameters
    ----------
    graph : DGLGraph
        A homogeneous graph or a batch of them.
    norm : {"both", "right", "left", "none"}
        The aggregation, as in :class:`dgl.nn.GraphConv`.
    edge_weight : Tensor, optional
        One non-negative weight an edge, shape (E,).
    self_weight : float
        Non-negative multiple of the identity to add to the matrix, as GIN's ``1 + eps``.

    Returns
    -------
    Tensor
        One value a graph of the batch, shape (B,), float64; 1 for a graph without nodes.

    Raises
    ------
    DGLError
        If a graph has no directed cycle (and there is no `self_weight`), or a weight is negative
        or not finite.

    Examples
    --------
    >>> star = Graph(([0, 0, 0, 0, 1, 2, 3, 4], [1, 2, 3, 4, 0, 0, 0, 0]))
    >>> spectral_radius(star)
    tensor([2.], dtype=torch.float64)
    """
    return torch.from_numpy(_radii(graph, norm, edge_weight, self_weight, None))


def growth(
    graph: AnyGraph,
    norm: Norm,
    depth: int,
    edge_weight: Tensor | None = None,
    *,
    self_weight: float = 0.0,
) -> Tensor:
    r"""Factor by which a graph's aggregation grows in one of `depth` layers.

    What a network feels is the spectral radius :math:`\lambda` only where the graph is strongly
    connected, as every undirected one is, component by component. Where paths lead from one
    strongly connected component to another, as in a directed acyclic graph with self-loops,
    the powers of the aggregation A grow or shrink for long before they settle. There it is

    .. math:: \lambda_L = (\lVert A^L 1 \rVert / \lVert 1 \rVert)^{1/L},

    since features of different nodes soon are alike in a deep network. With depth it tends to
    :math:`\lambda`. Derived here.

    Parameters
    ----------
    graph, norm, edge_weight, self_weight
        As in :func:`spectral_radius`.
    depth : int
        Number L of aggregations one after the other, at least 1.

    Returns
    -------
    Tensor
        One value a graph of the batch, shape (B,), float64; 1 for a graph without nodes. Weights
        of variance :math:`2 / (\mathrm{fan\_in}\, \lambda_L^2)` are critical for L layers.

    Raises
    ------
    DGLError
        As in :func:`spectral_radius`, or if `depth` is not a positive whole number.

    Examples
    --------
    >>> path = Graph((range(99), range(1, 100))).add_self_loop()
    >>> spectral_radius(path, "none").item()
    1.0
    >>> [round(growth(path, "none", depth).item(), 2) for depth in (10, 100, 1000, 10000)]
    [1.99, 1.99, 1.37, 1.06]
    """
    steps = _radii(graph, norm, edge_weight, self_weight, _as_depth(depth))
    return torch.from_numpy(_mean_growth(steps))


def growth_by_layer(
    graph: AnyGraph,
    norm: Norm,
    depth: int,
    edge_weight: Tensor | None = None,
    *,
    self_weight: float = 0.0,
) -> Tensor:
    r"""Factor by which a graph's aggregation grows in each of `depth` layers.

    In layer l :math:`\lVert A^l 1 \rVert / \lVert A^{l-1} 1 \rVert`, or the spectral radius, where
    :func:`growth` is that: their geometric mean is :func:`growth`. Weights that suit every layer by
    itself keep the layers in between at order one, too.

    Parameters
    ----------
    graph, norm, depth, edge_weight, self_weight
        As in :func:`growth`.

    Returns
    -------
    Tensor
        Shape (depth, B), float64.

    Raises
    ------
    DGLError
        As in :func:`growth`.

    Examples
    --------
    >>> path = Graph((range(3), range(1, 4))).add_self_loop()
    >>> growth_by_layer(path, "none", 3)[:, 0].square().round(decimals=2).tolist()
    [3.25, 3.23, 3.1]
    """
    return torch.from_numpy(_radii(graph, norm, edge_weight, self_weight, _as_depth(depth)))


def _as_depth(depth: object) -> int:
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise DGLError(f"depth must be a whole number of at least 1, got {depth!r}.")
    return int(depth)


def _mean_growth(steps: np.ndarray) -> np.ndarray:
    """Geometric mean over the layers, shape (B,); exactly what is the same in all of them."""
    with np.errstate(divide="ignore"):
        mean = np.exp(np.log(steps).mean(axis=0))
    return np.where((steps == steps[0]).all(axis=0), steps[0], mean)


def concatenated_ranges(sizes: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Positions of the chosen groups' members, where groups of these sizes follow one another.

    Examples
    --------
    >>> concatenated_ranges(np.array([2, 3, 1]), np.array([2, 0])).tolist()
    [5, 0, 1]
    """
    lengths = sizes[which]
    starts = (np.cumsum(sizes) - sizes)[which]
    inside = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return np.repeat(starts, lengths) + inside


def _aggregation_matrix(
    graph: AnyGraph, norm: Norm, edge_weight: Tensor | None
) -> tuple[sp.csr_matrix, np.ndarray]:
    """Matrix A (rows are destinations) and the normalisation of every edge, shape (E,)."""
    if norm not in NORMS:
        raise DGLError(f"norm must be one of {', '.join(map(repr, NORMS))}, got {norm!r}.")
    if len(graph.canonical_etypes) != 1:
        raise DGLError(
            f"The graph has {len(graph.canonical_etypes)} edge types; one relation at a time "
            "is aggregated. Wrap the layer in dgl.nn.HeteroGraphConv."
        )
    num_edges = graph.num_edges()
    if edge_weight is None:
        weight = np.ones(num_edges)
    else:
        if edge_weight.numel() != num_edges:
            raise DGLError(
                f"edge_weight has shape {tuple(edge_weight.shape)}, but the graph has "
                f"{num_edges} edges: expected ({num_edges},)."
            )
        weight = edge_weight.detach().reshape(-1).double().cpu().numpy()
        if not np.isfinite(weight).all() or (weight < 0).any():
            raise DGLError(
                "Edge weights must be finite and non-negative: the critical initialization is "
                "defined for non-negative aggregation only. "
                f"Edge {int(np.flatnonzero(~(weight >= 0) | np.isinf(weight))[0])} is not."
            )
    src, dst = (ends.cpu().numpy() for ends in graph.edges(order="eid"))
    out_degree = np.bincount(src, minlength=graph.num_src_nodes()).clip(min=1).astype(np.float64)
    in_degree = np.bincount(dst, minlength=graph.num_dst_nodes()).clip(min=1).astype(np.float64)
    scale = {
        "both": 1 / np.sqrt(out_degree[src] * in_degree[dst]),
        "right": 1 / in_degree[dst],
        "left": 1 / out_degree[src],
        "none": np.ones(num_edges),
    }[norm]
    shape = (graph.num_dst_nodes(), graph.num_src_nodes())
    return sp.csr_matrix((scale * weight, (dst, src)), shape=shape), scale


def _is_square(graph: AnyGraph) -> bool:
    return not graph.is_block and graph.srctypes == graph.dsttypes


def _dst_in_src(graph: AnyGraph) -> bool:
    """Whether the destination nodes are the first source nodes (DGL's rule for blocks)."""
    return graph.srctypes == graph.dsttypes


def _batch_sizes(graph: AnyGraph) -> np.ndarray:
    if _is_square(graph):
        return graph.batch_num_nodes().cpu().numpy()
    return np.array([graph.num_dst_nodes()])


def _radii(
    graph: AnyGraph, norm: Norm, edge_weight: Tensor | None, self_weight: float, depth: int | None
) -> np.ndarray:
    if not 0 <= self_weight < float("inf"):
        raise DGLError(f"self_weight must be finite and non-negative, got {self_weight}.")
    graph = as_graph(graph)
    matrix, _ = _aggregation_matrix(graph, norm, edge_weight)
    return _spectral_radii(graph, matrix, norm, self_weight, depth)


def _spectral_radii(
    graph: AnyGraph,
    matrix: sp.csr_matrix,
    norm: Norm,
    self_weight: float = 0.0,
    depth: int | None = None,
) -> np.ndarray:
    if not _is_square(graph):
        if norm == "none":
            raise DGLError(
                "A sampler's block, or a relation between two node types, has no spectral radius "
                "of its own. Pass spectral_radius=..., for a block that of the full graph: "
                "dgl_deepgnn.spectral_radius(graph)."
            )
        return np.full(1 if depth is None else (depth, 1), 1 + self_weight)
    sizes = _batch_sizes(graph)
    # On an undirected unweighted graph these are the exact Perron vectors.
    degree = np.maximum(graph.in_degrees().cpu().numpy(), 1).astype(np.float64)
    start = degree ** {"right": 0.0, "none": 0.0, "both": 0.5, "left": 1.0}[norm]
    radii = block_spectral_radii(matrix, sizes, start, self_weight=self_weight, depth=depth)
    if (radii == 0).any():
        which = int(np.nonzero(radii == 0)[-1][0])
        where = "The graph" if radii.shape[-1] == 1 else f"Graph {which} of the batch"
        raise DGLError(
            f"{where} has no directed cycle (of positive weight), so its spectral radius is 0 and "
            "no weight scale is critical: after as many layers as its longest path all features "
            "are zero. Add self-loops: graph = graph.add_self_loop()."
        )
    return radii
