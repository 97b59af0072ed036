"""The error of everything that has to do with a zoo."""

from __future__ import annotations

from pydantic import ValidationError

from dgl_deepgnn.errors import UserError

__all__ = ["ZooError", "explain"]

LONGEST = 1000


class ZooError(UserError):
    """A model, file or address of a zoo that is missing, damaged or not to be trusted.

    The message quotes what a server sent: one line, and not a long one.
    """

    page = "docs/zoo.md"

    def __init__(self, message: object = "") -> None:
        line = " ".join(str(message).split())
        super().__init__(line if len(line) <= LONGEST else f"{line[:LONGEST]} ...")


def explain(error: ValidationError) -> str:
    """First problems of a file's content in one line, each with its key."""
    problems = []
    for detail in error.errors(include_url=False, include_context=False, include_input=False)[:10]:
        key = ".".join(map(str, detail["loc"])) or "the whole"
        text = detail["msg"].removeprefix("Value error, ").rstrip(".")
        what = "unknown key" if detail["type"] == "extra_forbidden" else text
        problems.append(f"{key[-100:]}: {what}")
    return "; ".join(problems)
