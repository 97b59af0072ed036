"""A user's own data: a CSV folder, a file of saved graphs, or a Python function."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from dgl_deepgnn.data.catalog import register_dataset
from dgl_deepgnn.data.from_graphs import OPTIONS, collect, task_from_graphs, unread_fields
from dgl_deepgnn.data.task_data import Level, Target, TaskData
from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph, reason, require_dgl
from dgl_deepgnn.options import FieldName, Seed

__all__ = ["csv", "file", "python"]


@register_dataset("csv:PATH", values=OPTIONS)
def csv(
    path: str,
    level: Level | None = None,
    target: Target | None = None,
    self_loops: bool = True,
    bidirected: bool = False,
    edge_weight: FieldName | None = None,
    edge_feats: FieldName | None = None,
    seed: Seed = 0,
) -> TaskData:
    """A folder in the format of ``dgl.data.CSVDataset``: meta.yaml and CSV files.

    Columns "feat", "label" and "train_mask", "val_mask", "test_mask" are understood; the rest is
    found as in `task_from_graphs`. Nothing is written into the folder. Needs pandas.

    Parameters
    ----------
    path : str
        The folder.
    level, target, self_loops, bidirected, edge_weight, edge_feats, seed : optional
        See `task_from_graphs`.
    """
    kind: Any = require_dgl(f"csv:{path}").data.CSVDataset

    class Uncached(kind):
        """A cache would outlive changes of the files, and fill the user's folder."""

        def has_cache(self) -> bool:
            return False

        def save(self) -> None:
            pass

    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise DGLError(f"csv:{path} is not a folder. Give one that holds meta.yaml and CSV files.")
    try:
        dataset = Uncached(str(folder), verbose=False)
    except ImportError as error:
        raise DGLError(
            f"csv:{path} needs {error.name or 'a package'}, with which DGL reads CSV files: "
            "pip install 'dgl-deepgnn[csv]'."
        ) from error
    except DGLError:
        raise
    except Exception as error:
        raise DGLError(
            f"csv:{path} cannot be read ({type(error).__name__}: {error}). DGL reads "
            'numbers alone, several of one item as text ("0.5,1"): number classes that are words '
            "from 0. Its guide to loading data from CSV files has the format."
        ) from error
    graphs, graph_data = collect(dataset)
    task = task_from_graphs(
        f"csv:{path}",
        graphs,
        graph_data,
        level=level,
        target=target,
        self_loops=self_loops,
        bidirected=bidirected,
        edge_weight=edge_weight,
        edge_feats=edge_feats,
        seed=seed,
        info=_own(path),
    )
    return _with_unread(task, graphs)


@register_dataset("file:PATH", values=OPTIONS)
def file(
    path: str,
    level: Level | None = None,
    target: Target | None = None,
    self_loops: bool = True,
    bidirected: bool = False,
    edge_weight: FieldName | None = None,
    edge_feats: FieldName | None = None,
    seed: Seed = 0,
) -> TaskData:
    """A file written by ``dgl.save_graphs(path, graphs, labels)``.

    Labels and masks of nodes and edges lie in the graphs, those of whole graphs in the dict of
    labels, under the names that `task_from_graphs` understands.

    Parameters
    ----------
    path : str
        The file.
    level, target, self_loops, bidirected, edge_weight, edge_feats, seed : optional
        See `task_from_graphs`.
    """
    dgl = require_dgl(f"file:{path}")
    source = Path(path).expanduser()
    if not source.is_file():
        what = (
            "is no file" if source.exists() else f"does not exist (in {source.parent.absolute()})"
        )
        raise DGLError(f"file:{path} {what}. Give a file written by dgl.save_graphs.")
    try:
        graphs, graph_data = dgl.load_graphs(str(source))
    except Exception as error:
        raise DGLError(
            f"file:{path} was not written by dgl.save_graphs: {reason(error)}."
        ) from error
    task = task_from_graphs(
        f"file:{path}",
        graphs,
        graph_data,
        level=level,
        target=target,
        self_loops=self_loops,
        bidirected=bidirected,
        edge_weight=edge_weight,
        edge_feats=edge_feats,
        seed=seed,
        info=_own(path),
    )
    return _with_unread(task, graphs)


def _with_unread(task: TaskData, graphs: list[AnyGraph]) -> TaskData:
    if unread := unread_fields(graphs, task.info["preparation"]):
        task.info["unread"] = unread
    return task


def _describe_call(entry: str, /, **arguments: Any) -> str:
    module, _, function = entry.partition(":")
    return f"imports the module {module} and calls its function {function}"


@register_dataset("python:MODULE:FUNCTION", runs=_describe_call)
def python(entry: str, /, **arguments: Any) -> TaskData:
    """What a function ``package.module:function`` returns: a `TaskData`.

    Parameters
    ----------
    entry : str
        Module and function; modules in the working directory are found.
    **arguments
        Passed to the function.
    """
    module_name, colon, function_name = entry.partition(":")
    if not colon:
        raise DGLError(f"python:{entry} names no function; write python:package.module:function.")
    sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise DGLError(f"python:{entry} cannot be imported: {error}.") from error
    finally:
        sys.path.remove(os.getcwd())
    try:
        inspect.signature(function).bind(**arguments)
    except TypeError as error:
        raise DGLError(
            f"python:{entry}: {error}. The function is {function_name}"
            f"{inspect.signature(function)}."
        ) from error
    task = function(**arguments)
    if not isinstance(task, TaskData):
        raise DGLError(f"python:{entry} returned {type(task).__name__}, not a TaskData.")
    return task


def _own(path: str) -> dict[str, str]:
    return {"citation": "", "licence": "", "description": f"own data from {path}"}
