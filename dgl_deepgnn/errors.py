"""The errors that mean: a person can mend this."""

from dgl import DGLError

__all__ = ["DGLError", "UserError"]


class UserError(ValueError):
    """Wrong input, with a message that says what was wrong, where, and what is allowed.

    The command line prints it (and DGL's ``DGLError``) without a traceback.
    """
