"""YAML of people one does not know: no aliases, no key twice, nothing nested without end."""

from __future__ import annotations

from typing import Any

import yaml

__all__ = ["StrictYAMLError", "read_yaml"]

MAX_DEPTH = 30


class StrictYAMLError(ValueError):
    """Text that is not YAML, or YAML that a recipe must not use; the message names the line."""


def read_yaml(text: str) -> Any:
    r"""Read one YAML document of plain values.

    Raises
    ------
    StrictYAMLError
        If it is not YAML, or has an alias (a few lines of which stand for millions of values, or
        for a value inside itself), a key twice, or more than 30 levels.

    Examples
    --------
    >>> read_yaml("{a: [1, 2]}")
    {'a': [1, 2]}
    >>> read_yaml("a: 1\nb: 2\na: 3")
    Traceback (most recent call last):
    ...
    dgl_deepgnn.strict_yaml.StrictYAMLError: line 3: the key 'a' is there already, in line 1
    """
    try:
        return yaml.load(text, _Loader)
    except StrictYAMLError:
        raise
    except Exception as error:  # PyYAML lets others than its own escape: a date of month 13
        raise StrictYAMLError(f"not valid YAML: {str(error)[:500]}") from None


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise StrictYAMLError(
                f"{_line(event)}: aliases (*{event.anchor}) are not allowed; write the value out"
            )
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise StrictYAMLError(f"{_line(event)}: nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[tuple[str, str], yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                first = seen.setdefault((key.tag, key.value), key)
                if first is not key:
                    raise StrictYAMLError(
                        f"{_line(key)}: the key {key.value[:100]!r} is there already, in "
                        f"{_line(first)}"
                    )
        return super().construct_mapping(node, deep)


def _line(place: Any) -> str:
    return f"line {place.start_mark.line + 1}"
