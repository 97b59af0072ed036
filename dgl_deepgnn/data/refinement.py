"""How well can a message-passing network of so many layers do? Bounds by colour refinement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

__all__ = ["depth_bounds"]


def depth_bounds(
    graphs: Sequence[csr_matrix],
    colours: Sequence[NDArray[np.integer]],
    classes: Sequence[NDArray[np.integer]],
    most: int,
    scored: Sequence[NDArray[np.bool_]] | None = None,
) -> list[float]:
    """Upper bounds on the accuracy of message-passing networks of 0, 1, ..., `most` layers.

    A network of L layers gives equal outputs to nodes that L rounds of colour refinement leave
    equal (Xu et al., ICLR 2019, lemma 2; Morris et al., AAAI 2019). On the given nodes, it can
    do no better than to answer each colour with its most frequent class: this is the bound, and
    it holds whatever the network was trained on. Where nearly every node has a colour of its own
    it says nothing: no network has to tell them apart as well as that.

    What a layer reads beside the features of its neighbours is not in it: their degrees, with
    symmetric normalization (unless the first colours tell them, one round more bounds it), and a
    spectral radius that differs from graph to graph.

    Parameters
    ----------
    graphs : sequence of csr_matrix
        Symmetric adjacencies.
    colours, classes : sequences of int or bool ndarray, shape (nodes,)
        First colours, equal where all features are, and what is to be predicted.
    most : int
        Largest number of layers.
    scored : sequence of bool ndarray, shape (nodes,), optional
        Which nodes count; by default all.

    Returns
    -------
    list of float
        Entry L is the bound for L layers; it never falls.

    Examples
    --------
    >>> path = csr_matrix(np.diag(np.ones(3), 1) + np.diag(np.ones(3), -1))
    >>> marked = np.array([1, 0, 0, 0])
    >>> depth_bounds([path], [marked], [np.array([2, 1, 1, 0])], 2)
    [0.75, 1.0, 1.0]
    """
    neighbors: list[NDArray[np.int32]] = []
    offset = 0
    for graph in graphs:
        neighbors += [row + offset for row in np.split(graph.indices, graph.indptr[1:-1])]
        offset += graph.shape[0]
    truth = np.concatenate(classes).astype(int).tolist()
    counts = range(offset) if scored is None else np.flatnonzero(np.concatenate(scored)).tolist()
    refined = np.concatenate(colours).astype(int).tolist()
    bounds = []
    for _ in range(most + 1):
        best: Counter[int] = Counter()
        for (colour, _), number in Counter((refined[i], truth[i]) for i in counts).items():
            best[colour] = max(best[colour], number)
        bounds.append(best.total() / len(counts))
        names: dict[tuple[int, ...], int] = {}
        refined = [
            names.setdefault((mine, *sorted(refined[j] for j in near)), len(names))
            for mine, near in zip(refined, neighbors, strict=True)
        ]
    return bounds
