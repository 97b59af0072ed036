from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from dgl_deepgnn.hub import transfer
from dgl_deepgnn.hub.transfer import SLOWEST, CheckedDownload


class Clock:
    """A hundred seconds a look, in which `speed` bytes a second arrive; done after twenty."""

    def __init__(self, speed: float) -> None:
        self.now, self.speed, self.done = 0, speed, threading.Event()

    def monotonic(self) -> float:
        self.now += 100
        if self.now >= 2000:
            self.done.set()
        return self.now

    def tell(self) -> int:
        return int(self.now * self.speed)


def download(speed: float, monkeypatch: pytest.MonkeyPatch) -> int:
    """Seconds that a download was given."""
    clock: Any = Clock(speed)
    monkeypatch.setattr(transfer, "time", SimpleNamespace(monotonic=clock.monotonic))
    checked = CheckedDownload(10**9, timeout=0.05)
    checked._timeout = 500.0
    monkeypatch.setattr(threading.Thread, "join", lambda self, timeout: None)
    try:
        checked._within_time(clock.done.wait, clock)
    finally:
        clock.done.set()
    return clock.now


def test_a_server_that_is_fast_enough_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert download(SLOWEST * 1.1, monkeypatch) >= 2000


@pytest.mark.parametrize(("share", "seconds"), [(0.0, 600), (0.5, 1100)])
def test_a_slower_one_is_given_up(
    share: float, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it sends gives it time, but less than it takes."""
    with pytest.raises(Exception, match="stalled") as caught:
        download(SLOWEST * share, monkeypatch)
    (said,) = [int(word) for word in str(caught.value).split() if word.isdigit()][1:2]
    assert seconds <= said <= seconds + 300


def test_what_goes_wrong_in_the_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        CheckedDownload(1, 20.0)._within_time(lambda: 1 / 0, Clock(0))  # type: ignore[arg-type]
