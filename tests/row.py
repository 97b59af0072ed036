"""Plugin for pytest: ``-p tests.row`` ends with the run's row of the table in docs/install.md."""

from __future__ import annotations

import platform
import sys
from datetime import date
from importlib.metadata import version

import pytest

NAMES = ("passed", "failed", "error", "skipped")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What it ran on, and how it ended; nothing of it is typed by hand."""
    from dgl_deepgnn import _environment  # not before a test, or what blocks DGL, is imported

    dgl = "none" if sys.modules.get("dgl") is None else version("dgl")
    if isinstance(sys.modules.get(_environment.GRAPHBOLT), _environment.GraphBoltStandIn):
        dgl += " without GraphBolt"
    versions = [version(package).partition("+")[0] for package in ("torch", "numpy")]
    counts = {name: len(terminalreporter.stats.get(name, ())) for name in NAMES}
    result = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    cells = [platform.python_version(), dgl, *versions, date.today().isoformat(), result]
    terminalreporter.write_line(f"| {' | '.join(cells)} |")
