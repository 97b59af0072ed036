"""What a downloaded config, and what a recipe, may make a loader do. See docs/trust.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dgl_deepgnn.data.catalog import Loader, find_loader, load_data
from dgl_deepgnn.data.task_data import TaskData
from dgl_deepgnn.errors import DGLError, UserError
from dgl_deepgnn.registry import did_you_mean

__all__ = ["load_config_data", "load_recipe_data", "plain_options"]


def load_config_data(name: str, options: Mapping[str, Any]) -> TaskData:
    """Load what a downloaded config names, if its loader is safe and its options are values.

    Parameters
    ----------
    name : str
        The name in the config.
    options : mapping
        The options in the config.

    Raises
    ------
    DGLError
        If the loader, an option or the size of a number is not for a config to choose, or the
        data is absent or unfit.

    Examples
    --------
    >>> load_config_data("python:os:getcwd", {})
    Traceback (most recent call last):
    ...
    dgl...DGLError: A downloaded config may not name the data 'python:os:getcwd': ...
    """
    loader, _ = find_loader(name)
    if not loader.safe:
        raise DGLError(
            f"A downloaded config may not name the data {name!r}: it would choose what is opened "
            "or run on this machine."
        )
    for key, value in options.items():
        if key != "features":
            _check_value(name, loader, key, value)
    return load_data(name, **options)


def plain_options(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a downloaded config that are plain values, for data that the user has named.

    Parameters
    ----------
    name : str
        What the user has typed.
    options : mapping
        The options in the config.

    Examples
    --------
    >>> plain_options("file:mine.bin", {"bidirected": True, "raw_dir": "/tmp"})
    {'bidirected': True}
    """
    loader, _ = find_loader(name)
    kept = {key: value for key, value in options.items() if key in ("features", *loader.values)}
    for key, value in kept.items():
        if key != "features":
            _check_value(name, loader, key, value)
    return kept


def load_recipe_data(name: str, options: Mapping[str, Any], allow_code: bool = False) -> TaskData:
    """Load what a recipe names; what would run code is asked about first.

    Parameters
    ----------
    name : str
        The name in the recipe.
    options : mapping
        The options in the recipe.
    allow_code : bool
        Whether the recipe is trusted to run code.

    Raises
    ------
    UserError
        If the data runs code, which is not allowed.
    DGLError
        As of `load_data`.

    Examples
    --------
    >>> load_recipe_data("python:mine:load", {})
    Traceback (most recent call last):
    ...
    dgl_deepgnn.errors.UserError: The recipe's data imports the module mine and calls its ...
    """
    loader, arguments = find_loader(name)
    code = loader.runs(*arguments, **options)
    if code and not allow_code:
        error = UserError(
            f"The recipe's data {code}: that runs code. If you trust the recipe, allow it: "
            "--allow-code, or allow_code=True in Python."
        )
        error.page = "docs/trust.md"
        raise error
    return load_data(name, **options)


def _check_value(name: str, loader: Loader, key: str, value: Any) -> None:
    if key not in loader.values:
        raise DGLError(
            f"A downloaded config may not set the option {key!r} of the data {name!r}. "
            f"{did_you_mean(key, [*loader.values, 'features'])}"
        )
    limit = loader.values[key]
    number = isinstance(value, int | float)
    if limit is not None and not (number and abs(value) <= limit):
        raise DGLError(
            f"A downloaded config asks for {key}={value!r} of the data {name!r}; what it may ask "
            f"for ends at {limit:,}."
        )
