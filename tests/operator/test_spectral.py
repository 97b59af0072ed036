"""The spectral radius against dense eigenvalues, closed forms and similarity transforms."""

from __future__ import annotations

import dgl
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from dgl import DGLError
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn import spectral_radius
from dgl_deepgnn.operator.growth import growth, growth_by_layer
from dgl_deepgnn.operator.matrix import NORMS
from dgl_deepgnn.operator.spectral import block_spectral_radii


def dense_radius(matrix: np.ndarray) -> float:
    return float(np.abs(np.linalg.eigvals(matrix)).max(initial=0.0)) if len(matrix) else 1.0


def one_block(matrix: np.ndarray | sp.spmatrix) -> float:
    size = matrix.shape[0]
    (radius,) = block_spectral_radii(sp.csr_matrix(matrix), np.array([size]), np.ones(size))
    return float(radius)


def path(num_nodes: int) -> sp.csr_matrix:
    ones = np.ones(num_nodes - 1)
    return sp.diags([ones, ones], [1, -1], format="csr")


def random_matrix(rng: np.random.Generator) -> np.ndarray:
    """Directed or not, with or without self-loops, weighted or not, often of many components."""
    size = int(rng.integers(1, 25))
    matrix = (rng.random((size, size)) < rng.choice([0.05, 0.1, 0.3])).astype(float)
    if rng.random() < 0.5:
        matrix = matrix + matrix.T  # where both directions were drawn: a multigraph's 2
    if rng.random() < 0.5:
        np.fill_diagonal(matrix, 0)
    if rng.random() < 0.5:
        matrix *= rng.uniform(0.01, 3, matrix.shape)
    if rng.random() < 0.2:  # bipartite
        side = rng.random(size) < 0.5
        matrix[side[:, None] == side] = 0
    return matrix


def test_random_matrices_agree_with_dense_eigenvalues() -> None:
    rng = np.random.default_rng(0)
    matrices = [random_matrix(rng) for _ in range(600)]
    sizes = np.array([len(matrix) for matrix in matrices])
    batch = sp.block_diag(matrices, format="csr")
    radii = block_spectral_radii(batch, sizes, rng.uniform(0.5, 2, sizes.sum()))
    expected = [dense_radius(matrix) for matrix in matrices]
    for matrix, radius, dense in zip(matrices, radii, expected, strict=True):
        nilpotent = not np.linalg.matrix_power(matrix > 0, len(matrix)).any()
        # The dense eigenvalues of a nilpotent matrix are no zeros, but eps ** (1 / size).
        assert radius == 0 if nilpotent else radius == pytest.approx(dense, rel=2e-6)
    assert 50 < (radii == 0).sum() < 300


@settings(deadline=None, max_examples=60)
@given(
    size=st.integers(1, 12),
    edges=st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), max_size=30),
    exponent=st.floats(-12, 12),
)
def test_scales_with_the_weights(size: int, edges: list[tuple[int, int]], exponent: float) -> None:
    matrix = np.zeros((size, size))
    for row, column in edges:
        matrix[row % size, column % size] += 1.0
    radius = one_block(matrix)
    assert one_block(10**exponent * matrix) == pytest.approx(10**exponent * radius, rel=2e-6)
    assert one_block(matrix.T) == pytest.approx(radius, rel=2e-6)
    assert one_block(matrix + np.eye(size)) == pytest.approx(radius + 1, rel=2e-6)


@pytest.mark.parametrize("size", [30, 700])
def test_weights_from_1e_minus_12_to_1e12(size: int) -> None:
    rng = np.random.default_rng(1)
    matrix = sp.random(size, size, 5 / size, random_state=1, format="csr") + sp.diags(
        [np.ones(size - 1), np.ones(size - 1)], [1, -1]
    )
    radius = one_block(matrix)
    assert radius == pytest.approx(dense_radius(matrix.toarray()), rel=2e-6)
    # A similarity transform keeps every eigenvalue.
    scale = sp.diags(10 ** rng.uniform(-6, 6, size))
    assert one_block(scale @ matrix @ sp.diags(1 / scale.diagonal())) == pytest.approx(
        radius, rel=2e-6
    )


@pytest.mark.parametrize("size", [2, 3, 50, 400, 3000, 30000])
def test_path_of_any_length(size: int) -> None:
    """Bipartite, and its eigenvalues crowd: the hardest case for an iteration."""
    assert one_block(path(size)) == pytest.approx(2 * np.cos(np.pi / (size + 1)), rel=2e-6)


@pytest.mark.parametrize("size", [50, 600, 3000])
@pytest.mark.parametrize("decades", [1, 8])
def test_weighted_cycle(size: int, decades: float) -> None:
    """All eigenvalues have the same modulus, the geometric mean of the weights.

    They are so badly conditioned that ARPACK converges to numbers that are none of them.
    """
    weight = 10 ** np.random.default_rng(2).uniform(-decades, decades, size)
    matrix = sp.csr_matrix((weight, (np.arange(size), (np.arange(size) + 1) % size)))
    assert one_block(matrix) == pytest.approx(np.exp(np.log(weight).mean()), rel=2e-6)


def test_large_grid() -> None:
    side = 60
    identity = sp.eye(side)
    grid = sp.kron(path(side), identity) + sp.kron(identity, path(side))
    assert one_block(grid) == pytest.approx(4 * np.cos(np.pi / (side + 1)), rel=2e-6)


def test_vector_that_underflows() -> None:
    """A long path of random weights: the Perron vector falls below the smallest double."""
    rng = np.random.default_rng(3)
    upper, lower = rng.uniform(0.1, 2, (2, 4999))
    matrix = sp.diags([upper, lower], [1, -1], format="csr")
    symmetric = np.sqrt(upper * lower)  # similar to it
    expected = sp.linalg.eigsh(
        sp.diags([symmetric, symmetric], [1, -1], format="csr"),
        k=1,
        which="LA",
        return_eigenvectors=False,
    )[0]
    assert one_block(matrix) == pytest.approx(expected, rel=2e-6)


def test_slow_components_of_a_batch_each_have_their_own() -> None:
    sizes = np.array([120, 700, 5, 0, 260, 1])
    matrix = sp.block_diag(
        [path(120), path(700), path(5), np.zeros((0, 0)), 3 * path(260), [[0.25]]], format="csr"
    )
    expected = [2 * np.cos(np.pi / (size + 1)) for size in sizes]
    expected[3], expected[4], expected[5] = 1.0, 3 * expected[4], 0.25
    np.testing.assert_allclose(
        block_spectral_radii(matrix, sizes, np.ones(sizes.sum())), expected, rtol=2e-6
    )


def test_the_matrix_is_not_changed() -> None:
    matrix = sp.csr_matrix(np.array([[0.0, 2.0], [2.0, 0.0]]))
    matrix.data[0] = 0.0
    before = matrix.copy()
    assert one_block(matrix) == 0
    assert (matrix.indices == before.indices).all() and (matrix.data == before.data).all()


# --- of graphs ---------------------------------------------------------------------------------


def dense_aggregation(graph: dgl.DGLGraph, norm: str, weight: torch.Tensor | None) -> np.ndarray:
    adjacency = np.zeros((graph.num_nodes(), graph.num_nodes()))
    counts = adjacency.copy()
    values = np.ones(graph.num_edges()) if weight is None else weight.double().numpy().ravel()
    for source, target, value in zip(*map(torch.Tensor.tolist, graph.edges()), values, strict=True):
        adjacency[target, source] += value
        counts[target, source] += 1
    out, into = counts.sum(0).clip(1), counts.sum(1).clip(1)
    left = {"both": into**-0.5, "right": 1 / into}.get(norm, np.ones(len(into)))
    right = {"both": out**-0.5, "left": 1 / out}.get(norm, np.ones(len(out)))
    return left[:, None] * adjacency * right


def random_graph(rng: np.random.Generator) -> dgl.DGLGraph:
    """Directed, with parallel edges and a self-loop at every node."""
    size = int(rng.integers(1, 20))
    source, target = rng.integers(0, size, (2, int(rng.integers(0, 3 * size))))
    return dgl.graph((source, target), num_nodes=size).add_self_loop()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("weighted", [False, True])
def test_batches_of_random_graphs(norm: str, weighted: bool) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(4)
    graphs = [random_graph(rng) for _ in range(30)]
    graphs += [dgl.to_bidirected(dgl.rand_graph(10, 30)) for _ in range(10)]
    batch = dgl.batch(graphs)
    weight = torch.rand(batch.num_edges(), 1) if weighted else None
    parts = [None] * len(graphs)
    if weight is not None:
        parts = list(weight.split([graph.num_edges() for graph in graphs]))
    expected = [
        dense_radius(dense_aggregation(*case))
        for case in zip(graphs, [norm] * len(graphs), parts, strict=True)
    ]
    radii = spectral_radius(batch, norm, weight)
    np.testing.assert_allclose(radii.numpy(), expected, rtol=2e-6)
    if norm == "none":  # the identity moves every eigenvalue
        shifted = spectral_radius(batch, norm, weight, self_weight=1.5)
        np.testing.assert_allclose(shifted, radii + 1.5)


def test_bipartite_star_without_self_loops() -> None:
    star = dgl.graph(([0] * 9 + list(range(1, 10)), [*range(1, 10)] + [0] * 9))
    assert spectral_radius(star).item() == pytest.approx(3)
    assert spectral_radius(star, "both").item() == pytest.approx(1)


def test_normalised_aggregations_of_undirected_graphs_need_no_iteration() -> None:
    graph = dgl.to_bidirected(dgl.rand_graph(5000, 20000))
    for norm in ("both", "right", "left"):
        assert spectral_radius(graph, norm).item() == pytest.approx(1, abs=1e-12)


def test_multigraph_counts_parallel_edges() -> None:
    graph = dgl.graph(([0, 0, 0, 1], [1, 1, 1, 0]))
    assert spectral_radius(graph).item() == pytest.approx(3**0.5)


def test_isolated_nodes_do_not_matter() -> None:
    graph = dgl.add_nodes(dgl.graph(([0, 1, 2], [1, 2, 0])), 4)
    assert spectral_radius(graph).item() == pytest.approx(1)


def test_one_node() -> None:
    assert spectral_radius(dgl.graph(([0, 0], [0, 0]))).item() == pytest.approx(2)
    with pytest.raises(DGLError, match="add_self_loop"):
        spectral_radius(dgl.graph(([], []), num_nodes=1))


def test_graph_without_nodes() -> None:
    empty = dgl.graph(([], []), num_nodes=0)
    assert spectral_radius(empty).tolist() == [1]
    assert spectral_radius(dgl.batch([empty, dgl.graph(([0], [0]))])).tolist() == [1, 1]


def test_acyclic_graph_is_an_error_that_proposes_self_loops() -> None:
    graph = dgl.graph(([0, 0, 1, 2], [1, 2, 3, 3]))
    for norm in NORMS:
        with pytest.raises(DGLError, match=r"no directed cycle.*graph\.add_self_loop"):
            spectral_radius(graph, norm)
    with pytest.raises(DGLError, match="Graph 1 of the batch"):
        spectral_radius(dgl.batch([graph.add_self_loop(), graph]))
    assert spectral_radius(graph.add_self_loop()).item() == pytest.approx(1)
    assert spectral_radius(graph, self_weight=1.0).item() == 1


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_edge_weights_are_named(bad: float) -> None:
    graph = dgl.graph(([0, 1, 1], [1, 0, 1]))
    with pytest.raises(DGLError, match=r"non-negative.*Edge 2 is not"):
        spectral_radius(graph, edge_weight=torch.tensor([1.0, 1.0, bad]))


def test_zero_weights_cut_edges() -> None:
    graph = dgl.graph(([0, 1, 1], [1, 0, 1]))
    assert spectral_radius(graph, edge_weight=torch.tensor([1.0, 0.0, 0.5])).item() == 0.5
    with pytest.raises(DGLError, match="of positive weight"):
        spectral_radius(graph, edge_weight=torch.zeros(3))


@pytest.mark.parametrize("bad", [-0.5, float("nan"), float("inf")])
def test_self_weight_must_be_non_negative(bad: float) -> None:
    with pytest.raises(DGLError, match="self_weight"):
        spectral_radius(dgl.graph(([0], [0])), self_weight=bad)


# --- growth at finite depth --------------------------------------------------------------------


def acyclic(num_nodes: int, num_edges: int, seed: int) -> dgl.DGLGraph:
    """Random directed acyclic graph with self-loops."""
    ends = np.sort(np.random.default_rng(seed).integers(0, num_nodes, (2, num_edges)), axis=0)
    earlier, later = ends[:, ends[0] != ends[1]]
    return dgl.graph((earlier, later), num_nodes=num_nodes).add_self_loop()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("depth", [1, 2, 7, 40])
def test_growth_is_that_of_dense_powers(norm: str, depth: int) -> None:
    graphs = [acyclic(12, 30, seed) for seed in range(4)]
    batch = dgl.batch([*graphs, dgl.graph(([], []), num_nodes=0)])
    weight = torch.rand(batch.num_edges(), generator=torch.Generator().manual_seed(0))
    parts = weight.split(batch.batch_num_edges().tolist())
    expected = []
    for graph, part in zip(graphs, parts, strict=False):
        matrix = dense_aggregation(graph, norm, part) + 0.25 * np.eye(12)
        end = np.linalg.matrix_power(matrix, depth) @ np.ones(12)
        expected.append((np.linalg.norm(end) / 12**0.5) ** (1 / depth))
    found = growth(batch, norm, depth, weight, self_weight=0.25)
    np.testing.assert_allclose(found, [*expected, 1.25], rtol=1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_growth_of_strongly_connected_components_is_the_spectral_radius(norm: str) -> None:
    torch.manual_seed(1)
    cycle = dgl.graph((range(20), [*range(1, 20), 0]))
    mixed = dgl.batch([cycle, dgl.to_bidirected(dgl.rand_graph(30, 40)), acyclic(10, 20, 0)])
    exact, found = (
        spectral_radius(mixed, norm, self_weight=0.5),
        growth(mixed, norm, 3, self_weight=0.5),
    )
    assert torch.equal(found[:2], exact[:2])
    assert norm == "right" or abs(found[2] - exact[2]) > 0.01


def test_growth_tends_to_the_spectral_radius() -> None:
    """Also where the spectral radius is a defective eigenvalue, though slowly."""
    graph = acyclic(200, 1000, 2)
    radius = spectral_radius(graph, "none").item()
    deviations = [growth(graph, "none", 10**k).item() / radius - 1 for k in range(1, 5)]
    assert (np.diff(deviations) < 0).all()
    assert 0 < deviations[-1] < 0.1


@settings(deadline=None, max_examples=20)
@given(exponent=st.floats(-100, 100), depth=st.integers(1, 100))
def test_growth_scales_with_the_weights(exponent: float, depth: int) -> None:
    graph = acyclic(15, 40, 3)
    weight = torch.full((graph.num_edges(),), 10**exponent, dtype=torch.float64)
    expected = 10**exponent * growth(graph, "none", depth).item()
    assert growth(graph, "none", depth, weight).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("depth", [8, 32])
def test_growth_makes_networks_on_acyclic_graphs_critical(depth: int) -> None:
    """The spectral radius does not: it is the largest diagonal entry there."""
    torch.manual_seed(4)
    graph, width = acyclic(300, 4500, 4), 256
    matrix = torch.from_numpy(dense_aggregation(graph, "both", None)).float()

    def mean_square(radius: float) -> float:
        draws = []
        for _ in range(5):
            x = matrix @ torch.randn(300, width)
            x = x / x.square().mean().sqrt()
            for _ in range(depth):
                x = matrix @ torch.relu(x) @ torch.randn(width, width) * (2 / width) ** 0.5 / radius
            draws.append(x.square().mean().item())
        return float(np.mean(draws))

    assert 0.1 < mean_square(growth(graph, "both", depth).item()) < 10
    assert mean_square(spectral_radius(graph, "both").item()) > 100


def test_growth_by_layer_has_growth_as_its_mean() -> None:
    graphs = dgl.batch([acyclic(40, 90, 1), dgl.graph(([0, 1], [1, 0]))])
    steps = growth_by_layer(graphs, "both", 9)
    mean = growth(graphs, "both", 9)
    assert steps.shape == (9, 2) and steps[:, 0].std() > 0.01 and (steps[:, 1] == mean[1]).all()
    torch.testing.assert_close(steps.log().mean(0).exp(), mean)
    matrix, x = dense_aggregation(acyclic(40, 90, 1), "both", None), np.ones(40)
    for step in steps[:, 0]:
        after = matrix @ x
        assert np.linalg.norm(after) / np.linalg.norm(x) == pytest.approx(step.item(), rel=1e-9)
        x = after


def test_growth_without_cycles_or_depth() -> None:
    path = dgl.graph((range(9), range(1, 10)))
    with pytest.raises(DGLError, match="Add self-loops"):
        growth(path, "both", 4)
    for depth in (0, -1, 2.5, True):
        with pytest.raises(DGLError, match="depth must be a whole number"):
            growth(path, "both", depth)  # type: ignore[arg-type]
