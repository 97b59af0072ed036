from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.strict_yaml import StrictYAMLError, read_yaml

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


class NoAliases(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@settings(max_examples=100, deadline=None)
@given(value=VALUES)
def test_values_are_read_as_pyyaml_reads_them(value: Any) -> None:
    text = yaml.dump(value, Dumper=NoAliases)
    assert read_yaml(text) == yaml.safe_load(text) == value


def test_a_key_twice_in_different_places_is_no_key_twice() -> None:
    assert read_yaml("a: {x: 1}\nb: {x: 1}\n'1': 2\n1: 3") == {
        "a": {"x": 1},
        "b": {"x": 1},
        "1": 2,
        1: 3,
    }
    assert read_yaml("<<: {a: 1}\na: 2") == {"a": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1\nb: *x", r"^line 2: aliases \(\*x\)"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "^line 4: the key 'c' is there already, in line 3$"),
        ("[" * 31, "^line 1: nested more than 30 levels deep$"),
        ("{", "^not valid YAML: "),
        ("a: !!python/name:os.system", "^not valid YAML: "),
        ("a: 2001-13-45", "^not valid YAML: "),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(StrictYAMLError, match=says):
        read_yaml(text)


def test_as_deep_as_allowed() -> None:
    assert read_yaml("[" * 30 + "]" * 30)
