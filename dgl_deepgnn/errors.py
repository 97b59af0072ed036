"""The errors that mean: a person can mend this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgl_deepgnn.wording import printable

__all__ = ["DGLError", "UserError"]

if TYPE_CHECKING:

    class DGLError(Exception):
        """DGL's own where DGL is installed."""

else:
    try:
        from dgl import DGLError
    except ImportError:

        class DGLError(Exception):
            """In the place of DGL's own, where DGL is not installed."""


class UserError(ValueError):
    """Wrong input, with a message that says what was wrong, where, and what is allowed.

    The command line prints it (and DGL's ``DGLError``) without a traceback. What it quotes may
    come from anywhere, so nothing in it controls a terminal.
    """

    page = ""
    """Of the documentation, that explains more; the command line names it."""
    exit_code = 2
    """With which the command line ends."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))
