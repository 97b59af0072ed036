"""Options of data sets and models: values of the types that a signature names."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from annotated_types import Ge, Le, Lt, MaxLen

from dgl_deepgnn.wording import quoted

__all__ = ["Bases", "Count", "FieldName", "InnerLayers", "Seed", "checked_option"]

Count = Annotated[int, Le(10**6)]
"""Of what a generated data set has: more is not computed in any time."""

Seed = Annotated[int, Ge(0), Lt(2**32)]
"""Of a data set: what NumPy and scikit-learn take."""
FieldName = Annotated[str, MaxLen(100)]
"""Of ``ndata`` or ``edata``: a key of a dictionary, never a place."""
InnerLayers = Annotated[int, Ge(1), Le(1000)]
"""Linear layers inside one convolution."""
Bases = Annotated[int, Ge(0), Le(1000)]
"""Matrices that the weights of relations are combined of; 0: a matrix each."""


def checked_option(annotation: Any, value: Any) -> Any:
    """Convert a value to the type that a parameter declares.

    Parameters
    ----------
    annotation : type
        The parameter's annotation.
    value : object
        What the user wrote.

    Raises
    ------
    ValueError
        If it is not of that type.

    Examples
    --------
    >>> checked_option(float, "1e-1")
    0.1
    >>> checked_option(int, True)
    Traceback (most recent call last):
    ...
    ValueError: a truth value does not belong here, got True
    """
    from pydantic import TypeAdapter, ValidationError  # the layers do without

    allowed = (annotation, *get_args(annotation))
    if isinstance(value, bool) and bool not in allowed and Any not in allowed:
        # YAML reads yes, no, on and off as truth values, which would pass for 1 and 0.
        raise ValueError(f"a truth value does not belong here, got {value}")
    try:
        return TypeAdapter(annotation).validate_python(value)
    except ValidationError as error:
        raise ValueError(f"{error.errors()[0]['msg']}, got {quoted(value)}") from None
