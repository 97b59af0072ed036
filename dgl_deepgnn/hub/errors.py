"""The error of everything that has to do with a zoo."""

from __future__ import annotations

from pydantic import ValidationError

from dgl_deepgnn.errors import UserError

__all__ = ["ZooError", "explain"]


class ZooError(UserError):
    """A model, file or address of a zoo that is missing, damaged or not to be trusted."""


def explain(error: ValidationError) -> str:
    """All problems of a file's content in one line, each with its key."""
    problems = []
    for detail in error.errors():
        key = ".".join(map(str, detail["loc"])) or "the whole"
        text = detail["msg"].removeprefix("Value error, ").rstrip(".")
        problems.append(f"{key}: {'unknown key' if detail['type'] == 'extra_forbidden' else text}")
    return "; ".join(problems)
