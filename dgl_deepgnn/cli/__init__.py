"""The command line, ``dgl-deepgnn``."""

from dgl_deepgnn.cli import machines, transfer  # noqa: F401 (they register their commands)
from dgl_deepgnn.cli.commands import app, run

__all__ = ["app", "run"]
