"""Files of rows: what a kill leaves of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from benchmarks.rows import append_row, read_rows

ROWS: list[dict[str, Any]] = [{"seed": 0, "val": 0.5}, {"seed": 1, "val": None}]


def test_rows_come_back(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    assert read_rows(file) == []
    for row in ROWS:
        append_row(file, row)
    assert read_rows(file) == ROWS


@pytest.mark.parametrize("kept", range(1, 24))
def test_half_a_line_is_no_row(kept: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    for row in ROWS:
        append_row(file, row)
    whole, torn = file.read_text().splitlines(keepends=True)
    assert kept < len(torn)
    file.write_text(whole + torn[:kept])
    assert read_rows(file) == ROWS[:1]
    append_row(file, ROWS[1])
    assert read_rows(file) == ROWS
