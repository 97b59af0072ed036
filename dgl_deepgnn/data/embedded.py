"""Data sets that need no network: handwritten digits, the karate club, a block model."""

from __future__ import annotations

from typing import Annotated

import networkx
import numpy as np
import torch
from annotated_types import Le
from numpy.typing import NDArray

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import masks_from_indices, split_items, undirected
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import make_graph
from dgl_deepgnn.options import Count, Seed

__all__ = ["csbm", "digits", "digits_grid", "karate"]

MAX_FEATURES = 10**9
"""Numbers, all together."""
_DIGITS = {
    "citation": "Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998",
    "licence": "CC BY 4.0",
}


@register_dataset("digits", features="rescale", safe=True, values={"neighbors": None})
def digits(neighbors: int = 8) -> TaskData:
    """Handwritten digits as the nodes of a nearest-neighbour graph, 10 classes.

    The 1797 images of 8 x 8 pixels that scikit-learn carries (pixels divided by 16) are joined
    to their nearest neighbours in pixel space, both ways, with self-loops. One fixed stratified
    split: 200 train, 397 val, 1200 test.

    Parameters
    ----------
    neighbors : int, optional
        Neighbours an image chooses.

    Raises
    ------
    DGLError
        If `neighbors` is not between 1 and 1796.
    """
    from sklearn.metrics.pairwise import euclidean_distances

    pixels, classes = _digits()
    if not 1 <= neighbors < len(pixels):
        raise DGLError(
            f"Data set 'digits': option 'neighbors' is {neighbors}; allowed: 1 to "
            f"{len(pixels) - 1}."
        )
    # Distances of such small numbers are exact, and ties, of which there are some, go to the
    # lower index: the graph is the same on every machine, with any number of threads.
    squared = euclidean_distances(pixels.astype(np.float64), squared=True)
    np.fill_diagonal(squared, np.inf)
    nearest = squared.argsort(axis=1, kind="stable")[:, :neighbors]
    chooser = np.arange(len(pixels)).repeat(neighbors)
    graph = undirected(make_graph((chooser, nearest.ravel()), num_nodes=len(pixels)))
    graph.ndata["feat"] = torch.from_numpy(pixels)
    labels = torch.from_numpy(classes)
    splits = [split_items(labels, (200, 397, 1200))]
    info = {
        **_DIGITS,
        "description": f"digits joined to their {neighbors} nearest neighbours in pixel space",
    }
    return TaskData("digits", [graph], "node", "multiclass", labels, splits, 10, info)


@register_dataset("digits-grid", features="standardize", safe=True, values={"neighbors": None})
def digits_grid(neighbors: int = 8) -> TaskData:
    """Handwritten digits, each image a graph of its 64 pixels, 10 classes.

    Pixels are joined to those beside them (and diagonally, with 8 neighbours), with self-loops;
    features are intensity, row and column. One fixed stratified split: 1000 train, 297 val,
    500 test.

    Parameters
    ----------
    neighbors : {8, 4}, optional
        Neighbours of an inner pixel.

    Raises
    ------
    DGLError
        If `neighbors` is neither 4 nor 8.
    """
    if neighbors not in (4, 8):
        raise DGLError(
            f"Data set 'digits-grid': option 'neighbors' is {neighbors}; allowed: 4 or 8."
        )
    pixels, classes = _digits()
    place = np.stack(np.divmod(np.arange(64), 8), axis=1)
    step = np.abs(place[:, None] - place[None])
    near = step.sum(-1) <= 1 if neighbors == 4 else step.max(-1) <= 1  # self-loops included
    src, dst = map(torch.from_numpy, np.nonzero(near))
    graphs = []
    for image in pixels:
        graph = make_graph((src, dst), num_nodes=64)
        columns = np.column_stack([image, place / 7])
        graph.ndata["feat"] = torch.from_numpy(columns.astype(np.float32))
        graphs.append(graph)
    labels = torch.from_numpy(classes)
    splits = [split_items(labels, (1000, 297, 500))]
    info = {
        **_DIGITS,
        "description": f"each digit a grid of 64 pixels with {neighbors} neighbours",
        "feature_names": ["intensity", "row", "column"],
    }
    return TaskData("digits-grid", graphs, "graph", "multiclass", labels, splits, 10, info)


@register_dataset("karate", safe=True)
def karate() -> TaskData:
    """Zachary's karate club: 34 members, which side they took, identity features.

    Binary: 1 for the members who left with the officer. Train on three members of each side,
    among them the two leaders; eight members for validation, the other twenty for the test.
    """
    club = networkx.karate_club_graph()
    graph = undirected(make_graph(([u for u, _ in club.edges], [v for _, v in club.edges])))
    graph.ndata["feat"] = torch.eye(34)
    labels = torch.tensor([int(club.nodes[i]["club"] == "Officer") for i in range(34)])
    train = [0, 1, 2, 32, 33, 23]
    val = [3, 4, 7, 8, 26, 27, 29, 30]
    test = sorted(set(range(34)) - {*train, *val})
    info = {
        "citation": "Zachary, An information flow model for conflict and fission in small "
        "groups, Journal of Anthropological Research, 1977",
        "licence": "public domain (as distributed with NetworkX)",
        "description": "members of a karate club and the side they took",
    }
    splits = [masks_from_indices(34, train, val, test)]
    return TaskData("karate", [graph], "node", "binary", labels, splits, 1, info)


@register_dataset(
    "csbm",
    safe=True,
    values={
        "num_nodes": 20_000,
        "num_classes": 100,
        "avg_degree": 100,
        "homophily": 1,
        "feature_dim": 1000,
        "signal": 1e6,
        "seed": None,
    },
)
def csbm(
    num_nodes: Count = 1000,
    num_classes: Annotated[int, Le(1000)] = 4,
    avg_degree: Annotated[float, Le(1000)] = 10.0,
    homophily: float = 0.8,
    feature_dim: Count = 32,
    signal: float = 1.0,
    seed: Seed = 0,
) -> TaskData:
    """Contextual stochastic block model (Deshpande et al., NeurIPS 2018).

    Nodes of equal-sized classes are joined independently, with the probabilities that make the
    expected degree `avg_degree` and the expected share of edges within a class `homophily`.
    Features are ``signal * mu + noise``: a random unit vector ``mu`` per class and standard
    normal noise. Self-loops are added. Stratified split: 20 % train, 20 % val, 60 % test.

    Parameters
    ----------
    num_nodes, num_classes : int, optional
        Size, at most 1,000,000 and 1000; classes are as equal as they can be.
    avg_degree : float, optional
        Expected neighbours of a node, self-loop not counted, at most 1000.
    homophily : float, optional
        Share of edges within a class, from 0 to 1. ``1 / num_classes`` leaves the graph
        without information.
    feature_dim : int, optional
        Columns of the features; times `num_nodes` at most 1,000,000,000.
    signal : float, optional
        Length of the class means, in standard deviations of the noise.
    seed : int, optional
        Seed of the graph, the features and the split.

    Raises
    ------
    DGLError
        If the numbers allow no such graph.
    """
    sizes = np.full(max(num_classes, 1), num_nodes // max(num_classes, 1))
    sizes[: num_nodes % max(num_classes, 1)] += 1
    if num_classes < 2 or sizes.min() < 5 or feature_dim < 1:
        raise DGLError(
            f"csbm: num_nodes={num_nodes}, num_classes={num_classes}, feature_dim={feature_dim}; "
            "needed: at least 2 classes of 5 nodes each and one feature."
        )
    if num_nodes * feature_dim > MAX_FEATURES:
        raise DGLError(
            f"csbm: num_nodes={num_nodes} times feature_dim={feature_dim} is more than "
            f"{MAX_FEATURES:,}."
        )
    if not 0 <= homophily <= 1:
        raise DGLError(f"csbm: homophily={homophily}; allowed: 0 to 1.")
    size = num_nodes / num_classes
    within, between = (
        avg_degree * homophily / (size - 1),
        avg_degree * (1 - homophily) / (num_nodes - size),
    )
    if not (avg_degree > 0 and max(within, between) <= 1):
        raise DGLError(
            f"csbm: avg_degree={avg_degree} is out of reach with homophily={homophily} and "
            f"{num_classes} classes of {size:.0f} nodes."
        )
    rng = np.random.default_rng(seed)
    chance = np.full((num_classes, num_classes), between)
    np.fill_diagonal(chance, within)
    blocks = networkx.stochastic_block_model(sizes.tolist(), chance.tolist(), seed=seed)
    edges = np.array(blocks.edges, dtype=np.int64).reshape(-1, 2)
    graph = undirected(make_graph((edges[:, 0], edges[:, 1]), num_nodes=num_nodes))
    classes = np.repeat(np.arange(num_classes), sizes)
    means = rng.standard_normal((num_classes, feature_dim))
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    features = signal * means[classes] + rng.standard_normal((num_nodes, feature_dim))
    graph.ndata["feat"] = torch.from_numpy(features.astype(np.float32))
    labels = torch.from_numpy(classes)
    fifth = num_nodes // 5
    splits = [split_items(labels, (fifth, fifth, num_nodes - 2 * fifth), seed)]
    info = {
        "citation": "Deshpande, Sen, Montanari and Mossel, Contextual Stochastic Block Models, "
        "NeurIPS 2018",
        "licence": "generated",
        "description": f"block model of {num_classes} classes, homophily {homophily}, "
        f"feature signal {signal}",
        "homophily": float((classes[edges[:, 0]] == classes[edges[:, 1]]).mean()),
    }
    return TaskData("csbm", [graph], "node", "multiclass", labels, splits, num_classes, info)


def _digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return (bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64)
