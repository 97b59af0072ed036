"""DGL's own data sets, the heterophilous ones it lacks, the TU collection, and OGB."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch

from dgl_deepgnn.data.catalog import is_dgl_class, register_dataset
from dgl_deepgnn.data.columns import Columns
from dgl_deepgnn.data.from_graphs import OPTIONS, collect, task_from_graphs
from dgl_deepgnn.data.task_data import Level, Target, TaskData
from dgl_deepgnn.data.transforms import k_fold, split_items
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, require_dgl
from dgl_deepgnn.options import FieldName, Seed
from dgl_deepgnn.registry import did_you_mean
from dgl_deepgnn.wording import quoted

__all__ = ["dgl_class", "heterophilous", "ogb", "planetoid", "tu"]

WORDS = ("name", "mode", "feature_name", "label_keys")
"""Arguments of DGL's classes that choose among what a class knows."""

LARGEST = 1_000_000_000
"""Of the sizes of what a class of DGL makes itself, multiplied with each other."""

SPLITS = 10
"""Of the random ones."""

PLANETOID = {
    "cora": "CoraGraphDataset",
    "citeseer": "CiteseerGraphDataset",
    "pubmed": "PubmedGraphDataset",
}
HETEROPHILOUS: dict[str, Target] = {
    "minesweeper": "binary",
    "tolokers": "binary",
    "questions": "binary",
    "roman-empire": "multiclass",
    "amazon-ratings": "multiclass",
}


def planetoid(
    name: str,
    split: Literal["public", "random"] = "public",
    seed: Seed = 0,
    self_loops: bool = True,
) -> TaskData:
    """Cora, Citeseer or Pubmed, with few labels or with many.

    Features are row-normalized by DGL; edges go both ways.

    Parameters
    ----------
    name : {"cora", "citeseer", "pubmed"}
    split : {"public", "random"}, optional
        That of Yang et al. (2016), 20 labels a class to train on; or ten random ones of 60, 20 and
        20 % of each class (full-supervised, as in Pei et al., 2020).
    seed : int, optional
        Of the first random split; the others take the numbers after it.
    self_loops : bool, optional
        Give each node exactly one self-loop.
    """
    reader = _reader(name)
    info = {
        "citation": "Yang, Cohen and Salakhutdinov, Revisiting Semi-Supervised Learning with "
        "Graph Embeddings, ICML 2016",
        "licence": "MIT (kimiyoung/planetoid)",
        "description": f"the citation graph {name}, "
        + ("public split" if split == "public" else f"{SPLITS} random splits"),
    }
    dataset = reader.open_dataset(name, getattr(reader.dgl.data, PLANETOID[name]), verbose=False)
    task = task_from_graphs(name, *collect(dataset), self_loops=self_loops, info=info)
    if split == "random":
        task.splits[:] = [split_items(task.labels, seed=seed + i) for i in range(SPLITS)]
    return task


def heterophilous(name: str, self_loops: bool = True) -> TaskData:
    """A graph of Platonov et al. (2023) with its ten fixed splits.

    Parameters
    ----------
    name : {"minesweeper", "tolokers", "questions", "roman-empire", "amazon-ratings"}
    self_loops : bool, optional
        Give each node exactly one self-loop.
    """
    reader = _reader(name)
    info = {
        "citation": "Platonov, Kuznedelev, Diskin, Babenko and Prokhorenkova, A critical look at "
        "the evaluation of GNNs under heterophily, ICLR 2023",
        "licence": "MIT (yandex-research/heterophilous-graphs)",
        "description": f"the heterophilous graph {name}, ten fixed splits",
    }
    graphs, _ = collect(reader.open_dataset(name, reader.HeterophilousGraphDataset, name=name))
    return task_from_graphs(
        name, graphs, {}, target=HETEROPHILOUS[name], self_loops=self_loops, info=info
    )


def _register_named() -> None:
    """Enter each data set with its name filled in, so that its options are the rest."""
    options = {"split": None, "seed": None, "self_loops": None}
    for name in PLANETOID:
        register_dataset(name, safe=True, values=options)(partial(planetoid, name))
    for name in HETEROPHILOUS:
        register_dataset(name, "standardize", safe=True, values={"self_loops": None})(
            partial(heterophilous, name)
        )


_register_named()


@register_dataset(
    "tu:NAME",
    features="standardize",
    safe=True,
    values={"folds": 100, "seed": None, "self_loops": None, "edge_feats": None},
)
def tu(
    name: str,
    folds: int = 10,
    seed: Seed = 0,
    self_loops: bool = True,
    edge_feats: FieldName | None = None,
) -> TaskData:
    """Graph classification from the TU collection, with stratified k-fold splits.

    Node labels become indicator columns, beside the node attributes where there are any; graphs
    with neither get their degrees as indicator columns. In split i, fold i is the test part and
    fold i + 1 the validation part, so that early stopping does not see the test graphs. (The GIN
    paper reports the best mean over epochs on the test folds themselves, which reads higher.)

    Parameters
    ----------
    name : str
        For example "MUTAG", "PROTEINS" or "ENZYMES".
    folds : int, optional
        Number of folds and splits.
    seed : int, optional
        Of the folds.
    self_loops : bool, optional
        Give each node exactly one self-loop.
    edge_feats : str, optional
        "edge_labels" or "edge_attr": edge features, see `task_from_graphs`.
    """
    _check_word("tu", name)
    reader = _reader(f"tu:{name}")
    graphs, graph_data = collect(reader.open_dataset(f"tu:{name}", reader.TUDataset, name=name))
    labels = graph_data["label"]
    if labels.is_floating_point() or labels.dim() > 1:
        raise DGLError(f"tu:{name} has no graph classes; only classification is supported.")
    columns = []
    if "node_labels" in graphs[0].ndata:
        rows = [graph.ndata["node_labels"] for graph in graphs]
        columns.append(Columns.indicators("node_labels", rows))
    if "node_attr" in graphs[0].ndata:
        columns.append(Columns(field="node_attr"))
    info = {
        "citation": "Morris, Kriege, Bause, Kersting, Mutzel and Neumann, TUDataset, 2020, "
        "arXiv:2007.08663",
        "licence": "see the TUDataset collection",
        "description": f"TU data set {name}, {folds} stratified folds: fold i test, fold i + 1 "
        "validation",
    }
    return task_from_graphs(
        f"tu:{name}",
        graphs,
        {"label": labels},
        level="graph",
        self_loops=self_loops,
        edge_feats=edge_feats,
        splits=k_fold(labels.long(), folds, seed),
        node_columns=columns or None,
        info=info,
    )


def _describe_places(name: str, /, **options: Any) -> str | None:
    """What of a DGL data set's options chooses where it reads what it unpickles."""
    places = [
        key
        for key, value in options.items()
        if not (
            value is None or isinstance(value, bool | int | float) or key in ("features", *OPTIONS)
        )
        and not (key in WORDS and all(map(_is_word, value if isinstance(value, list) else [value])))
    ]
    if not places:
        return None
    return f"chooses by {', '.join(places)} what dgl.data.{name} reads and unpickles"


@register_dataset("dgl:CLASS", values=OPTIONS, runs=_describe_places)
def dgl_class(
    name: str,
    /,
    level: Level | None = None,
    target: Target | None = None,
    self_loops: bool = True,
    bidirected: bool = False,
    edge_weight: FieldName | None = None,
    edge_feats: FieldName | None = None,
    seed: Seed = 0,
    **arguments: Any,
) -> TaskData:
    """Any homogeneous data set class of ``dgl.data``, by class name.

    Labels, masks and features are found as in `task_from_graphs`. A class with a ``mode``
    (train, valid, test) is loaded in all three, which make the split.

    Parameters
    ----------
    name : str
        Class name, for example "PPIDataset".
    level, target, self_loops, bidirected, edge_weight, edge_feats, seed : optional
        See `task_from_graphs`; a class that takes a seed gets this one, too.
    **arguments
        Arguments of the class. Whole numbers are sizes of what it makes itself, at most
        1,000,000,000 if multiplied with each other; a `tree_height` counts as a power of two.
    """
    reader = _reader(name)
    if not is_dgl_class(name):
        names = [entry for entry in dir(reader.dgl.data) if is_dgl_class(entry)]
        raise DGLError(f"dgl.data has no data set class {name!r}. {did_you_mean(name, names)}")
    cls = getattr(reader.dgl.data, name)
    accepted = list(inspect.signature(cls).parameters)
    for argument in arguments:
        if argument not in accepted:
            own = [*OPTIONS, "features"]
            raise DGLError(
                f"Data set {name!r} has no option {argument!r}. Its options: "
                f"{', '.join([*own, *accepted])}."
            )
    parameters = inspect.signature(cls).parameters.values()
    missing = [
        parameter.name
        for parameter in parameters
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        and parameter.name not in (*arguments, "mode")
    ]
    if missing:
        raise DGLError(f"Data set {name!r} is not loaded without: {', '.join(missing)}.")
    _check_sizes(name, arguments)
    if "verbose" in accepted:
        arguments.setdefault("verbose", False)
    if "seed" in accepted:
        arguments["seed"] = seed
    parts: list[str] | None = None
    if "mode" in accepted and "mode" not in arguments:
        graphs: list[AnyGraph] = []
        pieces: list[dict[str, torch.Tensor]] = []
        parts = []
        for part, mode in (("train", "train"), ("val", "valid"), ("test", "test")):
            more, data = collect(reader.open_dataset(name, cls, mode=mode, **arguments))
            graphs += more
            pieces.append(data)
            parts += [part] * len(more)
        graph_data = {key: torch.cat([piece[key] for piece in pieces]) for key in pieces[0]}
    else:
        graphs, graph_data = collect(reader.open_dataset(name, cls, **arguments))
    return task_from_graphs(
        name,
        graphs,
        graph_data,
        level=level,
        target=target,
        self_loops=self_loops,
        bidirected=bidirected,
        edge_weight=edge_weight,
        edge_feats=edge_feats,
        parts=parts,
        seed=seed,
        info={
            "citation": f"see the documentation of dgl.data.{name}",
            "licence": "see its source",
            "description": f"dgl.data.{name}",
        },
    )


@register_dataset("ogb:NAME")
def ogb(name: str, self_loops: bool = True, bidirected: bool = True) -> TaskData:
    """A node or graph property data set of the Open Graph Benchmark, with its own split.

    Needs the package ``ogb`` (``pip install dgl-deepgnn[ogb]``).

    Parameters
    ----------
    name : str
        For example "ogbn-arxiv" or "ogbg-molhiv".
    self_loops, bidirected : bool, optional
        See `task_from_graphs`.
    """
    reader = _reader(f"ogb:{name}")
    try:
        from ogb.graphproppred import DglGraphPropPredDataset
        from ogb.nodeproppred import DglNodePropPredDataset
    except ImportError as error:
        raise DGLError(
            f"Data set 'ogb:{name}' needs the package ogb: pip install 'dgl-deepgnn[ogb]'."
        ) from error
    if not name.startswith(("ogbn-", "ogbg-")):
        raise DGLError(f"ogb:{name}: only ogbn-... (nodes) and ogbg-... (graphs) are supported.")
    _check_word("ogb", name)
    is_node = name.startswith("ogbn-")
    kind = DglNodePropPredDataset if is_node else DglGraphPropPredDataset
    with reader.loading(f"ogb:{name}"):
        dataset = kind(name=name, root=reader.get_download_dir())
        index = dataset.get_idx_split()
        graphs, data = collect(dataset)
    labels = data["label"]
    if is_node:
        labels = labels.reshape(graphs[0].num_nodes(), -1)
        graphs[0].ndata["label"] = labels
    target: Target = "regression" if "regression" in dataset.task_type else "multiclass"
    if "binary" in dataset.task_type:
        target = "binary" if labels.dim() == 1 or labels.shape[1] == 1 else "multilabel"
    masks = {part: torch.zeros(len(labels), dtype=torch.bool) for part in ("train", "val", "test")}
    for part, key in (("train", "train"), ("val", "valid"), ("test", "test")):
        masks[part][torch.as_tensor(index[key])] = True
    return task_from_graphs(
        f"ogb:{name}",
        graphs,
        {} if is_node else data,
        level="node" if is_node else "graph",
        target=target,
        self_loops=self_loops,
        bidirected=bidirected,
        splits=[masks],
        info={
            "citation": "Hu et al., Open Graph Benchmark, NeurIPS 2020",
            "licence": "see ogb.stanford.edu",
            "description": f"{name} with its own split",
        },
    )


def _check_sizes(name: str, arguments: Mapping[str, Any]) -> None:
    """Refuse what a generator would work at for days, or fill the memory with."""
    size = 1
    for key, value in arguments.items():
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and not key.startswith("min_"):  # what max_ bounds, too
            size *= (
                2 ** min(value, 64) if key == "tree_height" and value > 0 else max(abs(value), 1)
            )
        if size > LARGEST:
            raise DGLError(
                f"Data set {name!r} is asked for {key}={quoted(value)}: its sizes multiplied with "
                f"each other are to be at most {LARGEST:,}."
            )


def _is_word(text: object) -> bool:
    """Whether a name can become a part of a path and of an address without leading elsewhere."""
    return (
        isinstance(text, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text) is not None
    )


def _check_word(family: str, name: str) -> None:
    if not _is_word(name):
        raise DGLError(
            f"{family}:{name}: not a name of that collection; letters, digits, '_' and '-' are "
            "allowed."
        )


def _reader(name: str) -> Any:
    """The module that reads by DGL, imported for the first data set that needs it."""
    require_dgl(f"Data set {name!r}")
    return importlib.import_module("dgl_deepgnn.data.dgl_readers")
