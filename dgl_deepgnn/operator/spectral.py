"""Spectral radius (Perron root) and growth of non-negative aggregation matrices."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import ArpackError, eigs, eigsh, splu

from dgl_deepgnn.errors import DGLError

__all__ = ["block_spectral_radii"]

_POWER_ITERATIONS = 30
_NODA_ITERATIONS = 500
_ARPACK_SIZE = 500  # up to here a sparse factorisation is cheap on any graph


def block_spectral_radii(
    matrix: sp.csr_matrix,
    sizes: np.ndarray,
    start: np.ndarray,
    tol: float = 1e-6,
    *,
    self_weight: float = 0.0,
    depth: int | None = None,
) -> np.ndarray:
    r"""Spectral radius of every diagonal block of a non-negative matrix.

    The spectral radius of a non-negative matrix is the largest over the strongly connected
    components of its graph. Within a component the matrix is irreducible, so for every
    positive vector :math:`x` (Collatz-Wielandt)

    .. math:: \min_i (A x)_i / x_i \le \lambda \le \max_i (A x)_i / x_i ,

    which certifies the power iteration below. The iteration is shifted by half the current
    bound, because a bipartite graph has the eigenvalues :math:`\pm\lambda` and would make
    the plain one oscillate. Components where it converges slowly go on with ARPACK if they are
    large, and if they are small, or ARPACK is not certain (long paths, cycles), with Noda's inverse
    iteration (Numer. Math. 17, 1971), which the same bounds certify.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        Block-diagonal (one block a graph), non-negative, shape (N, N).
    sizes : numpy.ndarray
        Number of nodes of each block; sums to N.
    start : numpy.ndarray
        Positive start vector, shape (N,). With the exact Perron vector no iteration is needed.
    tol : float
        Relative width of the Collatz-Wielandt bounds at which a component counts as converged.
    self_weight : float
        Multiple of the identity to add to the matrix.
    depth : int, optional
        Return the growth in each of so many steps in place of the spectral radius for blocks
        with an entry between two strongly connected components, unless their radius is 0: there
        the matrix may grow for long before it settles to its spectral radius.

    Returns
    -------
    numpy.ndarray
        One spectral radius a block; 0 for blocks without a directed cycle, 1 for blocks
        without nodes, before the self-weight is added. With `depth` a row a step.

    Examples
    --------
    >>> path = sp.csr_matrix(np.array([[0.0, 1.0], [1.0, 0.0]]))
    >>> block_spectral_radii(path, np.array([2]), np.ones(2)).round(6).tolist()
    [1.0]
    """
    num_nodes = matrix.shape[0]
    graph_of_node = np.repeat(np.arange(len(sizes)), sizes)
    matrix = matrix.copy()
    matrix.eliminate_zeros()
    num_components, component = connected_components(matrix, directed=True, connection="strong")
    # Entries between components never lie on a cycle and do not change the spectral radius.
    coo = matrix.tocoo()
    inside = component[coo.row] == component[coo.col]
    whole = matrix
    matrix = sp.csr_matrix(
        (coo.data[inside], (coo.row[inside], coo.col[inside])), shape=matrix.shape
    )
    radii = np.zeros(num_components)
    if num_nodes:
        graph_of_component = np.zeros(num_components, dtype=np.int64)
        graph_of_component[component] = graph_of_node
        # Components dropped early lie below another one's lower bound: theirs must, too.
        radii, x, slow = _power_iteration(matrix, component, graph_of_component, start, tol)
        for index in np.flatnonzero(slow & (np.bincount(component) > _ARPACK_SIZE)):
            nodes = np.flatnonzero(component == index)
            value = _lanczos(matrix[nodes][:, nodes], x[nodes], tol)
            if value is not None:
                radii[index], slow[index] = value, False
        if slow.any():
            nodes = np.flatnonzero(slow[component])
            _, local = np.unique(component[nodes], return_inverse=True)
            radii[slow] = _noda_iteration(matrix[nodes][:, nodes], local, x[nodes], tol)
    result = np.zeros(len(sizes))
    np.maximum.at(result, graph_of_node, radii[component])
    result[sizes == 0] = 1.0
    result = result + self_weight
    if depth is None:
        return result
    steps = np.tile(result, (depth, 1))
    if not inside.all():
        passing = np.unique(graph_of_node[coo.row[~inside]])
        passing = passing[result[passing] > 0]
        growth = _growth(whole + self_weight * sp.eye(num_nodes), graph_of_node, depth)
        steps[:, passing] = growth[:, passing]
    return steps


def _growth(matrix: sp.csr_matrix, block: np.ndarray, depth: int) -> np.ndarray:
    r"""Growth :math:`|A^l 1| / |A^{l-1} 1|` of every block in step l, at least one."""
    x, steps = np.ones(len(block)), []
    with np.errstate(divide="ignore", invalid="ignore"):  # some blocks are empty or nilpotent
        for _ in range(depth):
            x = matrix @ (x / np.sqrt(np.bincount(block, x**2))[block])
            steps.append(np.sqrt(np.bincount(block, x**2)))
    return np.array(steps)


def _bounds(ratio: np.ndarray, component: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest ``(A x)_i / x_i`` of every component."""
    num_components = component.max() + 1
    lower, upper = np.full(num_components, np.inf), np.zeros(num_components)
    np.minimum.at(lower, component, ratio)
    np.maximum.at(upper, component, ratio)
    return lower, upper


def _power_iteration(
    matrix: sp.csr_matrix,
    component: np.ndarray,
    graph_of_component: np.ndarray,
    start: np.ndarray,
    tol: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectral radius of every component, the last iterate, and which are undecided."""
    x = start.astype(np.float64)
    for _ in range(_POWER_ITERATIONS):
        product = matrix @ x
        lower, upper = _bounds(product / x, component)
        largest = np.zeros(graph_of_component.max() + 1)
        np.maximum.at(largest, graph_of_component, lower)
        slow = (upper - lower > tol * upper) & (upper > (1 + tol) * largest[graph_of_component])
        if not slow.any():
            break
        x = product + 0.5 * upper[component] * x
        x[upper[component] == 0] = 1.0  # a single node without self-loop: nothing to iterate
        scale = np.zeros(len(upper))
        np.maximum.at(scale, component, x)
        # An entry far below the others may underflow; the bounds need it positive.
        x = np.maximum(x / scale[component], 1e-200)
    return (lower + upper) / 2, x, slow


def _lanczos(block: sp.csr_matrix, start: np.ndarray, tol: float) -> float | None:
    """Spectral radius of one irreducible block by ARPACK, or None where that is not certain."""
    symmetric = abs(block - block.T).max() <= 1e-12 * block.max()
    solver, which = (eigsh, "LA") if symmetric else (eigs, "LR")
    accuracy = tol if symmetric else 1e-10
    try:
        value, vector = solver(block, k=1, which=which, v0=start, tol=accuracy, maxiter=20)
    except ArpackError:
        return None
    if symmetric:  # the error is at most the residual
        return float(value[0])
    # An eigenvalue may be badly conditioned; the bounds tell.
    x = np.maximum(np.abs(vector[:, 0]), 1e-200)
    component = np.zeros(len(x), dtype=np.int64)
    (radius,), _, (undecided,) = _power_iteration(block, component, component[:1], x, tol)
    return None if undecided else float(radius)


def _noda_iteration(
    matrix: sp.csr_matrix, component: np.ndarray, start: np.ndarray, tol: float
) -> np.ndarray:
    """Spectral radius of every component by inverse iteration, shifted to the upper bound.

    ``diag(x)^-1 A diag(x)`` is kept in place of x: its entries cannot overflow, and its row sums
    are the ratios. Below its upper bound the shifted matrix is a diagonally dominant M-matrix,
    which can be factorised without pivoting.
    """
    num_nodes = matrix.shape[0]
    coo = matrix.tocoo()
    entries = coo.data * start[coo.col] / start[coo.row]
    identity = sp.eye(num_nodes, format="csc")
    for _ in range(_NODA_ITERATIONS):
        lower, upper = _bounds(np.bincount(coo.row, entries, num_nodes), component)
        if (upper - lower <= tol * upper).all():
            return (lower + upper) / 2
        scaled = sp.csc_matrix(
            (entries / upper[component[coo.row]], (coo.row, coo.col)), shape=matrix.shape
        )
        factors = splu(
            (1 + 1e-10) * identity - scaled,
            permc_spec="MMD_AT_PLUS_A",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
        x = factors.solve(np.ones(num_nodes))
        entries *= x[coo.col] / x[coo.row]
    raise DGLError(
        f"The spectral radius of a component of {np.bincount(component).max()} nodes did not "
        "converge. Pass norm='right', whose spectral radius is 1, or rescale the edge weights."
    )
