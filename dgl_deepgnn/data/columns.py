"""Feature columns made of one field of a graph, as a record that can be replayed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field, field_validator
from torch import Tensor

from dgl_deepgnn.errors import DGLError
from dgl_deepgnn.graph import AnyGraph
from dgl_deepgnn.wording import counted

__all__ = ["Columns", "Record"]

MOST_DEGREE = 64
"""In-degrees above count as this one."""
Frame = Mapping[str, Tensor]
Label = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Record(BaseModel):
    """Part of a config: nothing else, and of exactly these types."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Columns(Record):
    """Feature columns made of one field of a graph."""

    field: str | None
    """Key in ``ndata`` or ``edata``; None for the in-degrees."""
    values: list[list[Label]] | None = None
    """Indicator columns of these values, for each column of the field; None: its own numbers."""

    @field_validator("values")
    @classmethod
    def _check(cls, values: list[list[int]] | None) -> list[list[int]] | None:
        if values is not None and any(not some or some != sorted(set(some)) for some in values):
            raise ValueError("values must ascend, and there must be some")
        return values

    @property
    def least_width(self) -> int:
        """Columns at least; numbers may have several."""
        return 1 if self.values is None else sum(map(len, self.values))

    @classmethod
    def indicators(cls, field: str | None, rows: Iterable[Tensor]) -> Columns:
        """Indicator columns of all values that occur in a field of some graphs."""
        table = torch.cat([_two_dimensional(row) for row in rows])
        return cls(field=field, values=[column.unique().tolist() for column in table.T.long()])

    @classmethod
    def degrees(cls, graphs: Iterable[AnyGraph]) -> Columns:
        """Indicator columns of the in-degrees of some graphs."""
        return cls.indicators(None, [_degrees(graph) for graph in graphs])

    def of(self, graph: AnyGraph, frame: Frame, place: str) -> Tensor:
        """Columns for the nodes or edges of a graph.

        Parameters
        ----------
        graph : DGLGraph
            Has the in-degrees.
        frame : mapping of str to Tensor
            Its ``ndata`` or ``edata``.
        place : str
            For messages: which graph, and ndata or edata.

        Raises
        ------
        DGLError
            If the field is not there, or holds a value that has no column.
        """
        if self.field is not None and self.field not in frame:
            others = ", ".join(sorted(frame)) or "nothing"
            raise DGLError(
                f"{place} has no {self.field!r}, of which the features are made: it has {others}."
            )
        rows = _two_dimensional(_degrees(graph) if self.field is None else frame[self.field])
        if self.values is None:
            return rows.float()
        if rows.shape[1] != len(self.values):
            raise DGLError(
                f"{place}[{self.field!r}] has {counted(rows.shape[1], 'column')}, expected "
                f"{len(self.values)}."
            )
        return torch.cat(
            [self._indicate(c, v, place) for c, v in zip(rows.T, self.values, strict=True)], dim=1
        )

    def _indicate(self, column: Tensor, values: list[int], place: str) -> Tensor:
        known = torch.tensor(values)
        column = column.cpu().contiguous()
        index = torch.searchsorted(known, column.long()).clamp(max=len(known) - 1)
        unknown = (known[index] != column).nonzero()
        if len(unknown):
            what = "in-degree" if self.field is None else f"value of {self.field!r}"
            listed = ", ".join(map(str, values[:10])) + (", ..." if len(values) > 10 else "")
            raise DGLError(
                f"{place}: row {int(unknown[0])} has the {what} {column[unknown[0]].item():g}, for "
                f"which there is no column. Columns stand for the values of the training data: "
                f"{listed}."
            )
        return torch.nn.functional.one_hot(index, len(known)).float()


def _degrees(graph: AnyGraph) -> Tensor:
    return graph.in_degrees().clamp(max=MOST_DEGREE)


def _two_dimensional(rows: Tensor) -> Tensor:
    return rows.unsqueeze(1) if rows.dim() == 1 else rows.flatten(1)
