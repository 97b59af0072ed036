"""Data sets by name: registration, options and the choice of feature scaling."""

from __future__ import annotations

import inspect
import re
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dgl_deepgnn.data.scaling import FEATURE_TRANSFORMS, transform_features
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.graph import dgl
from dgl_deepgnn.options import checked_option
from dgl_deepgnn.registry import Registry, UnknownNameError, did_you_mean, load_plugins

__all__ = [
    "Loader",
    "find_loader",
    "is_dgl_class",
    "list_datasets",
    "load_data",
    "register_dataset",
]


Load = Callable[..., TaskData]


@dataclass(frozen=True)
class Loader:
    """A registered loader, see `register_dataset`."""

    load: Load
    features: str
    safe: bool
    values: Mapping[str, float | None]
    runs: Callable[..., str | None]


DATASETS: Registry[Loader] = Registry("data set")


def register_dataset(
    name: str,
    features: str = "none",
    *,
    safe: bool = False,
    values: Mapping[str, float | None] | None = None,
    runs: Callable[..., str | None] = lambda *_, **__: None,
) -> Callable[[Load], Load]:
    """Decorate a loader, a function of keyword options that returns a `TaskData`.

    Parameters
    ----------
    name : str
        The name users load it by. A name such as ``"tu:NAME"`` registers the prefix ``tu:``;
        what the user writes behind the colon is the loader's first argument.
    features : {"none", "row-normalize", "standardize", "rescale", "rescale-nonzero"}, optional
        Feature scaling unless the user asks for another; see `load_data`.
    safe : bool, optional
        Whether a downloaded config may name it: it neither imports what a name says, nor
        unpickles, nor opens a place that a name or one of `values` chooses.
    values : dict, optional
        The options that are plain values, which a downloaded config may set; the largest
        number that it may ask for, or None where the loader itself bounds it. An option that
        names a file, folder, address or module is never among them.
    runs : callable, optional
        Of what `load` takes; says in words what code of others the loader would run, or None.
        A recipe that asks for it needs ``allow_code=True``.

    Examples
    --------
    >>> @register_dataset("doctest-ring", safe=True, values={"nodes": 1000})
    ... def ring(nodes: int = 6) -> TaskData: ...
    >>> list_datasets("doctest-*")
    ['doctest-ring']
    """

    def enter(load: Load) -> Load:
        DATASETS.register(name)(Loader(load, features, safe, values or {}, runs))
        return load

    return enter


def list_datasets(pattern: str = "*") -> list[str]:
    """Names that match a shell-style pattern.

    ``tu:NAME`` and the like stand for families: put a name (or path) behind the colon.

    Examples
    --------
    >>> list_datasets("dig*")
    ['digits', 'digits-grid']
    """
    load_plugins()
    return DATASETS.names(pattern)


def load_data(name: str, /, **options: Any) -> TaskData:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        A name of `list_datasets`, the name of a class in ``dgl.data``, or a family with what it
        asks for: ``tu:MUTAG``, ``csv:FOLDER``, ``file:graphs.bin``,
        ``python:package.module:function``, ``ogb:ogbn-arxiv``.
    **options
        The loader's own options (an unknown one is an error that lists them), and

        features : {"none", "row-normalize", "standardize", "rescale", "rescale-nonzero"}
            Scaling of node and edge features; the default depends on the data set.
            "row-normalize" divides each row by its sum of absolute values, "standardize"
            gives every column mean 0 and variance 1, "rescale" centres the columns and
            divides all of them by one number, so that the mean square is 1, "rescale-nonzero"
            divides by one number, so that the mean square of what is not zero is 1. Means and
            scales come from graphs that hold training items, and are kept in
            ``info["features"]`` so that new graphs can be treated alike. Features of edges that
            are not scored, but read by messages, are not moved, and indicators are left alone.

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    DGLError
        If an option is unknown or data is absent or unfit.

    Examples
    --------
    >>> load_data("digits", neighbors=10)
    TaskData('digits', node multiclass, graphs=1, nodes=1797, edges=...,
             in_feats=64, edge_feats=0, num_outputs=10, train/val/test=200/397/1200, splits=1)
    """
    loader, arguments = find_loader(name)
    features = options.pop("features", loader.features)
    allowed = list(inspect.signature(loader.load).parameters)[len(arguments) :]
    # The families python: and dgl: hand the rest on to what they call, and check it there.
    takes_any = any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD
        for parameter in inspect.signature(loader.load).parameters.values()
    )
    for option in options:
        if option not in allowed and not takes_any:
            known = [*allowed, "features"]
            raise DGLError(
                f"Data set {name!r} has no option {option!r}. {did_you_mean(option, known)} "
                f"Its options: {', '.join(known)}."
            )
    if features not in FEATURE_TRANSFORMS:
        raise DGLError(
            f"Data set {name!r}: features={features!r} is not known. "
            f"Allowed: {', '.join(FEATURE_TRANSFORMS)}."
        )
    options = {**options, **_checked(name, loader.load, options)}
    task = _load(name, loader, arguments, options)
    graphs, record = transform_features(task, features)
    # A task that was loaded by name is raw to who scales it again, say in a function of python:.
    preparation = None if "features" in task.info else task.info.get("preparation")
    facts = {**task.info, "options": options, "preparation": preparation, "features": record}
    return replace(task, name=name, graphs=graphs, info=facts)


def _load(
    name: str, loader: Loader, arguments: tuple[str, ...], options: dict[str, Any]
) -> TaskData:
    """What a loader returns; whatever else it raises is an error that names it."""
    try:
        return loader.load(*arguments, **options)
    except (DGLError, UserError, MemoryError):
        raise
    except Exception as error:
        raise DGLError(
            f"Data set {name!r} cannot be loaded: its loader {_place(error)} raised "
            f"{type(error).__name__}: {error}."
        ) from error


def _place(error: Exception) -> str:
    """Where an error was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"({last.filename}, line {last.lineno})"


def _checked(name: str, load: Load, options: dict[str, Any]) -> dict[str, Any]:
    """Options of the types that the loader's signature names."""
    checked = {}
    for key, parameter in inspect.signature(load, eval_str=True).parameters.items():
        if key in options and parameter.annotation is not inspect.Parameter.empty:
            try:
                checked[key] = checked_option(parameter.annotation, options[key])
            except ValueError as error:
                raise DGLError(f"Data set {name!r}: option {key!r}: {error}.") from None
    return checked


def is_dgl_class(name: str) -> bool:
    """Whether `name` is a data set class of ``dgl.data``, or could be one if DGL were here."""
    if dgl is None:
        return re.fullmatch(r"[A-Z]\w*Dataset", name) is not None
    entry = getattr(dgl.data, name, None)
    return inspect.isclass(entry) and issubclass(entry, dgl.data.DGLDataset)


def find_loader(name: str) -> tuple[Loader, tuple[str, ...]]:
    """Loader of a data set, and what the name says to it.

    Raises
    ------
    UnknownNameError
        If there is no such data set.
    """
    load_plugins()
    prefix, colon, rest = name.partition(":")
    if colon and rest and re.fullmatch(r"[\w-]+", prefix):
        for family in DATASETS.names(f"{prefix}:*"):
            return DATASETS[family], (rest,)
    if is_dgl_class(name):
        return DATASETS["dgl:CLASS"], (name,)
    of_a_kind = colon and len(prefix) > 1  # one letter is a drive
    if name not in DATASETS and not of_a_kind and re.search(r"[/\\]|\.\w+$", name):
        raise UnknownNameError(
            f"There is no data set {name!r}. Data of your own have their kind in front: "
            f"'file:{name}' for what dgl.save_graphs wrote, 'csv:FOLDER' for a folder of DGL's CSV."
        )
    return DATASETS[name], ()
