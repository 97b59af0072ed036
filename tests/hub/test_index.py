from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgl_deepgnn.hub import ZooError
from dgl_deepgnn.hub.index import Index, check_component


@given(st.text(max_size=20) | st.sampled_from(["..", "a/b", "a\\b", "C:x", "/a", "~", ".", "a.b"]))
@settings(max_examples=200, deadline=None)
def test_an_accepted_name_stays_directly_in_its_folder(name: str) -> None:
    root = Path("/zoo")
    try:
        accepted = check_component(name)
    except ValueError:
        return
    assert (root / accepted).resolve().parent == root
    assert not accepted.startswith(".")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../x", "leads out"),
        ("a..b", "leads out"),
        ("/etc/passwd", "absolute"),
        ("\\\\host\\share", "absolute"),
        ("http://other/x", "scheme"),
        ("file:x", "scheme"),
        ("a/b", "not allowed"),
        ("a\\b", "not allowed"),
        ("", "not allowed"),
        (".hidden", "not allowed"),
        ("a?b", "not allowed"),
        ("a%2e%2e", "not allowed"),
        ("a\n", "not allowed"),
    ],
)
def test_names_that_are_refused(name: str, says: str, published: Path) -> None:
    content = json.loads((published / "index.json").read_text())
    entry = content["models"]["tiny.karate"]
    as_model = {**content, "models": {name: entry}}
    as_file = {**content, "models": {"m": {**entry, "files": {name: entry["files"]["loss.png"]}}}}
    for bad in (as_model, as_file):
        with pytest.raises(ZooError, match=says):
            Index.parse(json.dumps(bad).encode(), "here")


def _changed(content: dict[str, Any], path: str, value: Any) -> bytes:
    *parents, last = path.split("/")
    place = content
    for parent in parents:
        place = place[parent]
    place[last] = value
    return json.dumps(content).encode()


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("format", 2, r"format 2, newer than .* \(1\)\. Upgrade"),
        ("format", "1", "names no format"),
        ("colour", "red", "colour: unknown key"),
        ("models/tiny.karate/colour", "red", r"models\.tiny\.karate\.colour: unknown key"),
        ("models/tiny.karate/depth", "three", "depth: Input should be a valid integer"),
        ("models/tiny.karate/files/loss.png/size", -1, "size: .*greater than or equal to 0"),
        ("models/tiny.karate/files/loss.png/sha256", "00", "sha256: .*pattern"),
    ],
)
def test_an_index_that_is_not_understood(path: str, value: Any, says: str, published: Path) -> None:
    content = _changed(json.loads((published / "index.json").read_text()), path, value)
    with pytest.raises(ZooError, match=f"^here.*{says}"):
        Index.parse(content, "here")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[]", "names no format"),
    ],
)
def test_what_is_not_an_index_at_all(content: bytes, says: str) -> None:
    with pytest.raises(ZooError, match=says):
        Index.parse(content, "here")


def test_a_dump_reads_back(published: Path) -> None:
    index = Index.parse((published / "index.json").read_bytes(), "here")
    assert Index.parse(index.dump().encode(), "here") == index
    assert index.names("tiny.*") == ["tiny.karate"]
    assert index.names("big*") == []
    with pytest.raises(ZooError, match=r"no model 'tiny.karat'.*Did you mean 'tiny.karate'"):
        index.entry("tiny.karat", "here")
