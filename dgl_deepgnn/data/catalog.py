"""Data sets by name: registration, options and the choice of feature scaling."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.data.transforms import FEATURE_TRANSFORMS, transform_features
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import dgl
from dgl_deepgnn.options import checked_option
from dgl_deepgnn.registry import Registry, did_you_mean, load_plugins

__all__ = ["is_dgl_class", "list_datasets", "load_data", "register_dataset"]


@dataclass(frozen=True)
class _Loader:
    load: Callable[..., TaskData]
    features: str


DATASETS: Registry[_Loader] = Registry("data set")

Load = Callable[..., TaskData]


def register_dataset(name: str, features: str = "none") -> Callable[[Load], Load]:
    """Decorate a loader, a function of keyword options that returns a `TaskData`.

    Parameters
    ----------
    name : str
        The name users load it by. A name such as ``"tu:NAME"`` registers the prefix ``tu:``;
        what the user writes behind the colon is the loader's first argument.
    features : {"none", "row-normalize", "standardize", "rescale"}, optional
        Feature scaling unless the user asks for another; see `load_data`.

    Examples
    --------
    >>> @register_dataset("doctest-ring")
    ... def ring(nodes: int = 6) -> TaskData: ...
    >>> list_datasets("doctest-*")
    ['doctest-ring']
    """

    def enter(load: Load) -> Load:
        DATASETS.register(name)(_Loader(load, features))
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

        features : {"none", "row-normalize", "standardize", "rescale"}
            Scaling of node and edge features; the default depends on the data set.
            "row-normalize" divides each row by its sum of absolute values, "standardize"
            gives every column mean 0 and variance 1, "rescale" centres the columns and
            divides all of them by one number, so that the mean square is 1. Means and
            scales come from graphs that hold training items, and are kept in
            ``info["features"]`` so that new graphs can be treated alike.

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
    loader, arguments = _find(name)
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
    task = loader.load(*arguments, **options)
    graphs, record = transform_features(task, features)
    facts = {**task.info, "options": options, "features": record}
    return replace(task, name=name, graphs=graphs, info=facts)


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


def _find(name: str) -> tuple[_Loader, tuple[str, ...]]:
    load_plugins()
    prefix, colon, rest = name.partition(":")
    if colon and rest and re.fullmatch(r"[\w-]+", prefix):
        for family in DATASETS.names(f"{prefix}:*"):
            return DATASETS[family], (rest,)
    if is_dgl_class(name):
        return DATASETS["dgl:CLASS"], (name,)
    return DATASETS[name], ()
