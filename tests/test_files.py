"""Files are there whole or not at all, and hold what was put in."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dgl_deepgnn import files
from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import (
    DamagedError,
    append_line,
    load_tensors,
    make_folder,
    read_json,
    read_limited,
    read_lines,
    save_tensors,
    write_json,
    write_lines,
    write_text,
)


class Crash(BaseException):
    pass


@pytest.mark.parametrize("where", ["fsync", "replace"])
def test_a_crash_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"old": 1})

    def crash(*args: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(os, where, crash)
        with pytest.raises(Crash):
            write_json(file, {"new": 2})
    assert json.loads(file.read_text()) == {"old": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    write_json(file, {"new": 2})
    assert json.loads(file.read_text()) == {"new": 2}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_text_is_utf8(tmp_path: Path) -> None:
    write_text(tmp_path / "数", "é\n")
    assert (tmp_path / "数").read_bytes() == b"\xc3\xa9\n"


def test_tensors_round_trip(tmp_path: Path) -> None:
    tensors = {
        "random": torch.get_rng_state(),
        "bool": torch.tensor([True, False]),
        "long": torch.arange(3),
        "double": torch.tensor(0.1, dtype=torch.float64),
        "transposed": torch.randn(3, 4).T,
        "slice": torch.randn(10)[::3],
        "empty": torch.empty(0, 3),
        "nan": torch.tensor([float("nan"), float("inf"), -0.0]),
        "parameter": torch.nn.Parameter(torch.randn(2)),
    }
    facts = {"counters": {"epoch": 3}, "text": "é", "nothing": None}
    file = tmp_path / "t.safetensors"
    save_tensors(file, tensors, facts)
    loaded, read = load_tensors(file)
    assert read == facts
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and loaded[name].shape == tensor.shape
        assert torch.equal(loaded[name].nan_to_num(), tensor.nan_to_num())
        assert not loaded[name].requires_grad


def test_no_facts(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "t.safetensors")
    assert load_tensors(tmp_path / "t.safetensors") == ({"a": torch.ones(1)}, None)


# --- checksums ---


def test_a_checksum_is_sha256_of_place_and_content(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": [1, None, float("nan")]}, "here/a.json")
    text = file.read_text()
    found = json.loads(text)["checksum"]
    blank = text.replace(found, "0" * 64)
    assert found == hashlib.sha256(f"here/a.json\n{blank}".encode()).hexdigest()
    assert list(read_json(file, "here/a.json")) == ["a"]


def flips(file: Path) -> Iterator[int]:
    """Every bit of a file, turned for as long as the caller looks at it."""
    content = file.read_bytes()
    for place in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        yield place
    file.write_bytes(content)


def test_every_flipped_bit_is_seen(tmp_path: Path) -> None:
    record, weights, lines = tmp_path / "r.json", tmp_path / "w.safetensors", tmp_path / "l.jsonl"
    write_json(record, {"score": 0.5}, "p")
    save_tensors(weights, {"w": torch.ones(2)}, {"seed": 3}, "p")
    write_lines(lines, [{"epoch": 1}], "p")
    append_line(lines, {"epoch": 2}, "p", 2)
    for file, read in (
        (record, lambda: read_json(record, "p")),
        (weights, lambda: load_tensors(weights, "p")),
        (lines, lambda: read_lines(lines, "p", count=2)),
    ):
        for place in flips(file):
            with pytest.raises(DamagedError, match=file.name):
                print(place, read())
        read()


def test_a_whole_file_of_elsewhere_is_seen(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {}, "run 1/a.json")
    with pytest.raises(DamagedError, match="belongs elsewhere"):
        read_json(tmp_path / "a.json", "run 2/a.json")
    write_lines(tmp_path / "l", [{"a": 1}, {"a": 2}], "p")
    lines = (tmp_path / "l").read_bytes().splitlines(keepends=True)
    (tmp_path / "l").write_bytes(lines[1] + lines[0])
    with pytest.raises(DamagedError, match="belongs elsewhere"):
        read_lines(tmp_path / "l", "p")
    (tmp_path / "l").write_bytes(lines[0] + lines[1][:-1])
    assert read_lines(tmp_path / "l", "p") == [{"a": 1}]
    with pytest.raises(DamagedError, match="of 2 lines it has 1"):
        read_lines(tmp_path / "l", "p", count=2)


def test_files_without_a_checksum_are_read_where_they_may_be(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": 1})
    assert read_json(tmp_path / "a.json", "p", required=False) == {"a": 1}
    with pytest.raises(DamagedError, match="no checksum"):
        read_json(tmp_path / "a.json", "p")
    for text in ("", "[]", "{", "[" * 100_000, "9" * 5000, "\x00", "é"):
        (tmp_path / "a.json").write_text(text, "latin-1")
        with pytest.raises(DamagedError, match="not"):
            read_json(tmp_path / "a.json", "p", required=False)


# --- killed processes, full disks ---


def test_what_killed_processes_left_goes_and_what_living_ones_write_stays(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    write_text(tmp_path / "x", "")
    here = files._HERE
    dead, alive = f"{here}-{gone.pid}-0", f"{here}-{os.getppid()}-0"
    for owner in (dead, alive, f"00000000-{gone.pid}-0"):  # the last: of another machine
        (tmp_path / f".a.json.{owner}.tmp").touch()
        (tmp_path / f".b.{owner}.tmp").mkdir()
    write_json(tmp_path / "a.json", {})
    with make_folder(tmp_path / "b"):
        pass
    left = {path.name for path in tmp_path.iterdir()}
    assert not any(dead in name for name in left)
    assert sum(alive in name for name in left) == sum("00000000" in name for name in left) == 2


def test_a_folder_is_made_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(Crash), make_folder(tmp_path / "deep" / "run") as draft:
        write_text(draft / "a", "a")
        assert not (tmp_path / "deep" / "run").exists()
        raise Crash
    assert list((tmp_path / "deep").iterdir()) == []
    with make_folder(tmp_path / "deep" / "run") as draft:
        write_text(draft / "a", "a")
    assert (tmp_path / "deep" / "run" / "a").read_text() == "a"
    with pytest.raises(UserError, match="never overwritten"), make_folder(tmp_path / "deep"):
        pass
    with pytest.raises(UserError, match="never overwritten"), make_folder(tmp_path / "x") as draft:
        write_text(draft / "a", "mine")
        (tmp_path / "x").mkdir()
        write_text(tmp_path / "x" / "a", "another's, who was faster")
    assert (tmp_path / "x" / "a").read_text() == "another's, who was faster"


def test_a_limit_of_size_names_the_file_and_leaves_the_old_one(tmp_path: Path) -> None:
    file, log = tmp_path / "a.json", tmp_path / "log"
    write_json(file, {"old": 1})
    write_lines(log, [{"epoch": 1}], "p")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, old[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*a\.json"):
            write_json(file, {"new": "x" * 300})
        with pytest.raises(OSError, match=r"File too large.*log"):
            append_line(log, {"epoch": 2, "x": "x" * 300}, "p", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert json.loads(file.read_text()) == {"old": 1}
    assert read_lines(log, "p") == [{"epoch": 1}]
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", "log"}


# --- files of somebody else ---


def test_a_limited_read_is_all_or_an_error(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 10)
    assert read_limited(file, 10) == b"x" * 10
    with pytest.raises(UserError, match="larger than the 9 bytes"):
        read_limited(file, 9)
    with pytest.raises(UserError, match="a directory, not a plain file"):
        read_limited(tmp_path, 10)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a device or pipe"):
        read_limited(tmp_path / "pipe", 10)
    with pytest.raises(FileNotFoundError):
        read_limited(tmp_path / "absent", 10)


def test_names_like_leftovers_that_no_process_has_made_stay(tmp_path: Path) -> None:
    here = files._HERE
    names = [f".a.json.{here}-{middle}.tmp" for middle in ("x-0", "9" * 30 + "-0", "-0", "٣-0", "")]
    for name in names:
        (tmp_path / name).touch()
    write_json(tmp_path / "a.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {*names, "a.json"}


def test_a_link_among_leftovers_goes_and_where_it_leads_stays(tmp_path: Path) -> None:
    """Also one with this process's own number: another process had it before."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "x").write_text("mine")
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (tmp_path / f".a.{files._HERE}-{gone.pid}-0.tmp").symlink_to(kept)
    number = next(files._count) + 1
    (tmp_path / f".a.{files._HERE}-{os.getpid()}-{number}.tmp").symlink_to(kept / "x")
    write_text(tmp_path / "a", "new")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", "a"}
    assert (kept / "x").read_text() == "mine"
