"""Progress: a bar in a terminal, lines elsewhere, nothing if it is quiet."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from dgl_deepgnn import progress
from dgl_deepgnn.progress import Progress


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def work(clock: list[float]) -> None:
    with Progress(total=100, desc="some", unit="epoch") as bar:
        for index in range(100):
            clock[0] += 1
            bar.set_postfix(loss=index)
            bar.update()


def test_a_line_every_thirty_seconds(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    work(clock)
    text = sys.stderr.getvalue()
    assert "\r" not in text and text.endswith("\n")
    lines = [line.split(" [")[0] for line in text.splitlines()]
    assert lines == [f"some: {n}/100 epochs" for n in (29, 59, 89, 100)]
    assert "loss=99" in text


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, clock: list[float]) -> None:
    monkeypatch.setattr(sys, "stderr", Screen())
    work(clock)
    assert "\r" in sys.stderr.getvalue() and "100/100" in sys.stderr.getvalue()


def test_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "dgl_deepgnn", "train", "resgcn64.digits", "--quiet"]
    settings = ["data.name=karate", "training.epochs=2", "seeds=[0]", "name=small"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "small: test roc_auc" in done.stdout
