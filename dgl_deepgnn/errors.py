"""The error that means: a person can mend this."""

__all__ = ["UserError"]


class UserError(ValueError):
    """Wrong input, with a message that says what was wrong, where, and what is allowed.

    The command line prints it (and DGL's ``DGLError``) without a traceback.
    """
