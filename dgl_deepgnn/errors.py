"""The errors that mean: a person can mend this."""

from dgl import DGLError

from dgl_deepgnn.wording import printable

__all__ = ["DGLError", "UserError"]


class UserError(ValueError):
    """Wrong input, with a message that says what was wrong, where, and what is allowed.

    The command line prints it (and DGL's ``DGLError``) without a traceback. What it quotes may
    come from anywhere, so nothing in it controls a terminal.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(str(message)))
