"""Spectral radius and growth of a graph's aggregation: what an operator is divided by."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, as_graph
from dgl_deepgnn.operator.matrix import Norm, aggregation_matrix, batch_sizes, is_square
from dgl_deepgnn.operator.spectral import block_spectral_radii

__all__ = [
    "AcyclicGraphError",
    "as_depth",
    "growth",
    "growth_by_layer",
    "mean_growth",
    "spectral_radii",
    "spectral_radius",
]


class AcyclicGraphError(DGLError):
    """A graph without a directed cycle has no scale at which signals neither grow nor die."""


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
    >>> from dgl_deepgnn.graph import Graph
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
    >>> from dgl_deepgnn.graph import Graph
    >>> path = Graph((range(99), range(1, 100))).add_self_loop()
    >>> spectral_radius(path, "none").item()
    1.0
    >>> [round(growth(path, "none", depth).item(), 2) for depth in (10, 100, 1000, 10000)]
    [1.99, 1.99, 1.37, 1.06]
    """
    steps = _radii(graph, norm, edge_weight, self_weight, as_depth(depth))
    return torch.from_numpy(mean_growth(steps))


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
    >>> from dgl_deepgnn.graph import Graph
    >>> path = Graph((range(3), range(1, 4))).add_self_loop()
    >>> growth_by_layer(path, "none", 3)[:, 0].square().round(decimals=2).tolist()
    [3.25, 3.23, 3.1]
    """
    return torch.from_numpy(_radii(graph, norm, edge_weight, self_weight, as_depth(depth)))


def as_depth(depth: object) -> int:
    """Number of layers, if it is one."""
    if isinstance(depth, bool) or not isinstance(depth, int | np.integer) or depth < 1:
        raise DGLError(f"depth must be a whole number of at least 1, got {depth!r}.")
    return int(depth)


def mean_growth(steps: np.ndarray) -> np.ndarray:
    """Geometric mean over the layers, shape (B,); exactly what is the same in all of them."""
    with np.errstate(divide="ignore"):
        mean = np.exp(np.log(steps).mean(axis=0))
    return np.where((steps == steps[0]).all(axis=0), steps[0], mean)


def _radii(
    graph: AnyGraph, norm: Norm, edge_weight: Tensor | None, self_weight: float, depth: int | None
) -> np.ndarray:
    if not 0 <= self_weight < float("inf"):
        raise DGLError(f"self_weight must be finite and non-negative, got {self_weight}.")
    graph = as_graph(graph)
    matrix, _ = aggregation_matrix(graph, norm, edge_weight)
    return spectral_radii(graph, matrix, norm, self_weight, depth)


def spectral_radii(
    graph: AnyGraph,
    matrix: sp.csr_matrix,
    norm: Norm,
    self_weight: float = 0.0,
    depth: int | None = None,
) -> np.ndarray:
    """Radius, or with a depth growth by step, of each graph of a batch; an error for zero."""
    if not is_square(graph):
        if norm == "none":
            raise DGLError(
                "A sampler's block, or a relation between two node types, has no spectral radius "
                "of its own. Pass spectral_radius=..., for a block that of the full graph: "
                "dgl_deepgnn.spectral_radius(graph)."
            )
        return np.full(1 if depth is None else (depth, 1), 1 + self_weight)
    sizes = batch_sizes(graph)
    # On an undirected unweighted graph these are the exact Perron vectors.
    degree = np.maximum(graph.in_degrees().cpu().numpy(), 1).astype(np.float64)
    start = degree ** {"right": 0.0, "none": 0.0, "both": 0.5, "left": 1.0}[norm]
    radii = block_spectral_radii(matrix, sizes, start, self_weight=self_weight, depth=depth)
    if (radii == 0).any():
        which = int(np.nonzero(radii == 0)[-1][0])
        where = "The graph" if radii.shape[-1] == 1 else f"Graph {which} of the batch"
        raise AcyclicGraphError(
            f"{where} has no directed cycle (of positive weight), so its spectral radius is 0 and "
            "no weight scale is critical: after as many layers as its longest path all features "
            "are zero. Add self-loops: graph = graph.add_self_loop()."
        )
    return radii
