"""Names for models, initializers and data sets, with room for third parties."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import entry_points
from itertools import takewhile
from typing import Generic, TypeVar

from dgl_deepgnn.errors import UserError

__all__ = ["Registry", "UnknownNameError", "did_you_mean", "load_plugins"]

T = TypeVar("T")

PLUGIN_GROUP = "dgl_deepgnn.plugins"
MAX_LENGTH, MAX_COMPARED, MAX_LISTED = 100, 300, 100
"""Of names that a mistyped one is compared with, and that a message lists."""


class UnknownNameError(UserError):
    """A name that is not registered; the message lists the nearest ones."""


def did_you_mean(name: str, names: list[str]) -> str:
    """Sentence that proposes the nearest of `names`, or lists them.

    Examples
    --------
    >>> did_you_mean("resgccn", ["resgcn", "resgin"])
    "Did you mean 'resgcn'?"
    >>> did_you_mean("xyz", ["resgcn", "resgin"])
    'Allowed: resgcn, resgin.'
    """
    # Long names, and many, take minutes to compare: those that begin alike are.
    short = [other for other in names if max(len(other), len(name)) <= MAX_LENGTH]
    short.sort(key=lambda other: _common(name, other), reverse=True)
    near = difflib.get_close_matches(name, short[:MAX_COMPARED], n=1)
    if near:
        return f"Did you mean {near[0]!r}?"
    listed = [*names[:MAX_LISTED], "..."] if len(names) > MAX_LISTED else names
    return f"Allowed: {', '.join(listed) or '(none)'}."


def _common(one: str, other: str) -> int:
    """Letters at the beginning that two names share."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class Registry(Generic[T]):
    """Mapping from names to objects that decorators fill.

    Parameters
    ----------
    kind : str
        What is registered, in words; used in error messages.

    Examples
    --------
    >>> shapes = Registry("shape")
    >>> @shapes.register("square")
    ... def square():
    ...     return 4
    >>> shapes["square"]()
    4
    >>> shapes["sqare"]
    Traceback (most recent call last):
    ...
    dgl_deepgnn.registry.UnknownNameError: There is no shape 'sqare'. Did you mean 'square'?
    >>> shapes.names("s*")
    ['square']
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate an object to enter it under `name`.

        Raises
        ------
        ValueError
            If `name` is taken.
        """

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(
                    f"A {self.kind} {name!r} is registered already; choose a new name."
                )
            self._entries[name] = entry
            return entry

        return enter

    def names(self, pattern: str = "*") -> list[str]:
        """Sorted names that match a shell-style `pattern`."""
        return sorted(fnmatch.filter(self._entries, pattern))

    def __getitem__(self, name: str) -> T:
        if name not in self._entries:
            raise UnknownNameError(
                f"There is no {self.kind} {name!r}. {did_you_mean(name, self.names())}"
            )
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


@cache  # a failure is not kept: it is reported again at the next look-up
def load_plugins() -> None:
    """Import every third-party module of the entry-point group ``dgl_deepgnn.plugins``.

    Called before a name is looked up, never when the package is imported: a plugin registers
    its models, data sets and initializers as it is imported, once.

    Raises
    ------
    UserError
        If a plugin fails to import.
    """
    for plugin in entry_points(group=PLUGIN_GROUP):
        try:
            plugin.load()
        except Exception as error:
            raise UserError(
                f"The plugin {plugin.name!r} ({plugin.value}) failed to import: {error}. "
                "Repair or uninstall the package that brings it."
            ) from error
