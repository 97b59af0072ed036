"""The command line, ``dgl-deepgnn``."""

from dgl_deepgnn.cli import transfer  # noqa: F401 (registers its commands)
from dgl_deepgnn.cli.commands import app, run

__all__ = ["app", "run"]
