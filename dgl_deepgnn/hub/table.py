"""Tables that are written as their rows come: CSV, and Parquet by pyarrow."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from torch import Tensor

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import open_whole

__all__ = ["Table", "open_table"]

PARQUET = ".parquet"


class Table(Protocol):
    """What rows are written to."""

    def write(self, columns: Mapping[str, Tensor]) -> None:
        """Append rows: one value of every column each; all calls have the same columns."""


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Open a table, by the name's end; it stands at `path`, whole, once the block has ended.

    Raises
    ------
    UserError
        If it is to be Parquet, and pyarrow is not installed.

    Examples
    --------
    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> with open_table(path) as table:
    ...     table.write({"node": torch.arange(2), "value": torch.ones(2)})
    >>> path.read_text().split()
    ['node,value', '0,1.0', '1,1.0']
    """
    if path.suffix == PARQUET:
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError as error:
            raise UserError(
                f"{path}: writing Parquet needs pyarrow ({error}). pip install "
                "'dgl-deepgnn[parquet]', or give a name that ends with .csv."
            ) from None
    with open_whole(path) as file:
        table = _Parquet(file) if path.suffix == PARQUET else _CSV(file)
        try:
            yield table
        finally:  # pyarrow's writer wants to be closed before its file, after an error, too
            table.close()


class _CSV:
    def __init__(self, file: BinaryIO) -> None:
        self._text = io.TextIOWrapper(file, "utf-8", newline="", write_through=True)
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._begun = False

    def write(self, columns: Mapping[str, Tensor]) -> None:
        if not self._begun:
            self._writer.writerow(columns)
            self._begun = True
        self._writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))

    def close(self) -> None:
        self._text.flush()
        self._text.detach()  # the file is another's to close


class _Parquet:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._writer: Any = None

    def write(self, columns: Mapping[str, Tensor]) -> None:
        import pyarrow
        import pyarrow.parquet

        table = pyarrow.table({name: values.numpy() for name, values in columns.items()})
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
