"""Progress bars, and what stands for them where nobody looks."""

from __future__ import annotations

import sys
import time
from typing import Any

from tqdm import tqdm

__all__ = ["Progress"]

INTERVAL = 30.0
"""Seconds between two lines in a file or pipe."""


class Progress(tqdm):
    """A progress bar of the standard error; a line every 30 seconds if that is no terminal.

    Parameters
    ----------
    **options
        Those of ``tqdm``.

    Examples
    --------
    >>> with Progress(total=2, unit="epoch", disable=True) as bar:
    ...     bar.update()
    """

    def __init__(self, **options: Any) -> None:
        self._lines = not sys.stderr.isatty()
        self._next = time.monotonic() + INTERVAL
        self._end = "\n"
        if self._lines:
            options["bar_format"] = (
                "{desc}: {n_fmt}/{total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"
            )
        super().__init__(**options)

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Draw the bar, or write the line that is due."""
        if not self._lines:
            super().display(msg, pos)
        elif time.monotonic() >= self._next or not self._end:
            self._next = time.monotonic() + INTERVAL
            self.fp.write(f"{self}{self._end}")
            self.fp.flush()

    def close(self) -> None:
        """Write the last line; tqdm ends it."""
        self._end = ""
        super().close()
