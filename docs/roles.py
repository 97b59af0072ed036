"""Extension of griffe: roles of reStructuredText in docstrings, ``:func:`name```, as Markdown."""

from __future__ import annotations

import re
from typing import Any

import griffe
from latex2mathml.converter import convert


class Roles(griffe.Extension):
    """Formulas become MathML, names code."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object, before it is parsed."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)


def formula(tex: str, display: bool = False) -> str:
    """MathML of a formula; of one in a line within a span, which does not end the paragraph."""
    tex = " ".join(tex.split())
    return convert(tex, display="block") if display else f"<span>{convert(tex)}</span>"


def without_roles(text: str) -> str:
    """Text with Markdown in place of roles and ``.. math::`` blocks.

    Examples
    --------
    >>> without_roles("see :func:`~dgl_deepgnn.nn.create_model`")
    'see `create_model`'
    """
    block = r"^( *)\.\. math:: *(.*(?:\n(?:\1    .*|[ ]*(?=\n\1    )))*)"
    text = re.sub(
        block,
        lambda found: found[1] + formula(found[2], display=True),
        text,
        flags=re.MULTILINE,
    )
    text = re.sub(r":math:`([^`]+)`", lambda found: formula(found[1]), text)
    text = re.sub(r":\w+:`~[\w.]*\.(\w+)`", r"`\1`", text)
    return re.sub(r":\w+:`([^`]+)`", r"`\1`", text)
