"""Files of rows: a line of JSON for every training, written as soon as it is made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dgl_deepgnn.files import write_text

__all__ = ["append_row", "read_rows"]


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Rows of a file, if there is one; half a line, as a kill can leave, is taken off it."""
    if not file.exists():
        return []
    lines = file.read_text("utf-8").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
        write_text(file, "".join(lines))
    return [json.loads(line) for line in lines]


def append_row(file: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    with open(file, "a", encoding="utf-8") as opened:
        opened.write(json.dumps(row) + "\n")
