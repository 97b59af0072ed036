"""A small share of `make torture`, in processes of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import torture
from tests.faults.damage import attack, cases_of

ROOT = Path(__file__).parents[2]


def test_a_small_share() -> None:
    sizes = ("--kills", "8", "--fuzz", "1000", "--damage", "0.004")
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.torture", *sizes, "--processes", "2"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for kind in (
        "train",
        "speedup",
        "tune",
        "check",
        "publish",
        "download",
        "finished run",
        "index",
        "run files",
    ):
        assert re.search(rf"{kind}`? \| [1-9]", done.stdout), done.stdout


def test_what_is_bad_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback, a hang, a process that dies: each is seen, and no other case is lost."""

    def attempt(case: int) -> None:
        if case == 1:
            raise ZeroDivisionError
        if case == 2:
            while True:
                pass
        if case == 3:
            os.kill(os.getpid(), 9)
        if case == 4:
            raise torture.kills.UserError("in words")

    parts = [torture.Part("x", attempt, range(10))]
    tally = torture.spread(parts, 1, 0.3, tmp_path / "log")["x"]
    assert tally.counts == {"whole": 6, "refused": 1, "traceback": 2, "hang": 1}
    assert "ZeroDivisionError" in tally.bad[0]


def test_damage_is_done_and_mended(tmp_path: Path) -> None:
    contents = {"a": b"some text", "b/c": b"other"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    cases = cases_of(tmp_path, flips=20)
    assert {case[0] for case in cases} == {"cut", "flip", "swap"}
    assert sum(case[0] == "flip" for case in cases) == 40

    def found() -> dict[str, bytes]:
        return {name: (tmp_path / name).read_bytes() for name in contents}

    seen: list[dict[str, bytes]] = []
    for case in cases:
        attack(tmp_path, case, lambda: seen.append(found()))
        assert seen[-1] != contents and found() == contents
