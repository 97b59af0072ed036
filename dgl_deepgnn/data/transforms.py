"""What loaders share: message-passing edges and splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dgl_deepgnn.data.task_data import PARTS, Split
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, make_graph
from dgl_deepgnn.wording import counted

__all__ = [
    "deal_graphs",
    "deal_parts",
    "k_fold",
    "masks_from_indices",
    "split_items",
    "undirected",
]


def undirected(graph: AnyGraph, *, self_loops: bool = True) -> AnyGraph:
    """Simple graph with both directions of every edge, and one self-loop per node if asked.

    Edges are sorted by source and destination, with the self-loops behind them; edge data is
    dropped.

    Examples
    --------
    >>> undirected(make_graph(([0, 1, 1], [1, 1, 0]))).num_edges()
    4
    """
    num_nodes = graph.num_nodes()
    src, dst = (end.cpu() for end in graph.edges(order="eid"))
    src, dst = src[src != dst].long(), dst[src != dst].long()
    both = torch.cat([src * num_nodes + dst, dst * num_nodes + src]).unique()
    made = make_graph((both // max(num_nodes, 1), both % max(num_nodes, 1)), num_nodes)
    if self_loops:
        made = made.add_self_loop()
    made.ndata.update(graph.ndata)
    return made


def split_items(
    labels: Tensor | NDArray[Any],
    sizes: tuple[int, int, int] | None = None,
    seed: int = 0,
) -> Split:
    """Masks of a random split, stratified by class where `labels` are classes.

    Parameters
    ----------
    labels : Tensor or ndarray
        One row per item. Integers of one dimension are classes (unless one of them occurs
        fewer than four times); other labels are split without strata.
    sizes : tuple of int, optional
        Items for train, val and test. By default 60, 20 and 20 %.
    seed : int, optional
        Seed of the split: the same numbers give the same split.

    Examples
    --------
    >>> masks = split_items(torch.arange(10) % 2, (4, 2, 4))
    >>> {part: int(mask.sum()) for part, mask in masks.items()}
    {'train': 4, 'val': 2, 'test': 4}
    """
    from sklearn.model_selection import train_test_split

    labels = np.asarray(labels)
    items = len(labels)
    if sizes is None:
        fifth = items // 5
        sizes = (items - 2 * fifth, fifth, fifth)
    if min(sizes) < 1 or sum(sizes) > items:
        raise DGLError(
            f"{counted(items, 'item')} cannot be split into {sizes} for train, val and test: each "
            "part needs at least one item. Give masks, or more data."
        )
    classes = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
    if classes:
        counts = np.unique(labels, return_counts=True)[1]
        classes = bool(counts.min() >= 4 and len(counts) <= min(sizes))
    strata = labels if classes else None
    train, rest = train_test_split(
        np.arange(items),
        train_size=sizes[0],
        test_size=sizes[1] + sizes[2],
        random_state=seed,
        stratify=strata,
    )
    val, test = train_test_split(
        rest,
        train_size=sizes[1],
        test_size=sizes[2],
        random_state=seed,
        stratify=strata[rest] if strata is not None else None,
    )
    return masks_from_indices(items, train, val, test)


def k_fold(labels: Tensor, folds: int = 10, seed: int = 0) -> list[Split]:
    """Stratified k-fold splits: fold i is the test part, fold i + 1 the val part of split i.

    Early stopping and model choice then never look at the fold they are scored on.

    Examples
    --------
    >>> splits = k_fold(torch.arange(40) % 2)
    >>> len(splits), int(splits[0]["test"].sum()), int(splits[0]["train"].sum())
    (10, 4, 32)
    """
    from sklearn.model_selection import StratifiedKFold

    if not 3 <= folds <= int(labels.unique(return_counts=True)[1].min()):
        raise DGLError(
            f"folds={folds} does not work here: at least 3, and at most "
            f"{int(labels.unique(return_counts=True)[1].min())}, the size of the smallest class."
        )
    dealt = StratifiedKFold(folds, shuffle=True, random_state=seed)
    parts = [test for _, test in dealt.split(np.zeros(len(labels)), labels.numpy())]
    splits = []
    for fold, test in enumerate(parts):
        val = parts[(fold + 1) % folds]
        train = np.setdiff1d(np.arange(len(labels)), np.concatenate([val, test]))
        splits.append(masks_from_indices(len(labels), train, val, test))
    return splits


def deal_graphs(items_per_graph: list[int], part_of_graph: list[str]) -> Split:
    """Masks of a split that gives every item of a graph to that graph's part.

    Examples
    --------
    >>> deal_graphs([2, 1, 1], ["train", "val", "test"])["train"].tolist()
    [True, True, False, False]
    """
    repeats = torch.tensor(items_per_graph)
    return {
        part: torch.tensor([mine == part for mine in part_of_graph]).repeat_interleave(repeats)
        for part in PARTS
    }


def deal_parts(graphs: int) -> list[str]:
    """Parts of independent graphs in order: 60 % train, 20 % val, 20 % test.

    Examples
    --------
    >>> deal_parts(5)
    ['train', 'train', 'train', 'val', 'test']
    """
    fifth = graphs // 5
    return ["train"] * (graphs - 2 * fifth) + ["val"] * fifth + ["test"] * fifth


def masks_from_indices(items: int, *indices: Any) -> Split:
    """Bool masks from the indices of train, val and test items."""
    masks = {part: torch.zeros(items, dtype=torch.bool) for part in PARTS}
    for part, index in zip(PARTS, indices, strict=True):
        masks[part][torch.as_tensor(index)] = True
    return masks
