"""Downloads that trust no server: no redirects, no HTML, no byte more than expected."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, BinaryIO

import pooch
import requests

from dgl_deepgnn.hub.errors import ZooError

__all__ = ["SLOWEST", "CheckedDownload", "explained", "is_offline"]

SLOWEST = 10_000
"""Bytes a second, on average."""
LONGEST = 200
"""Letters of an address that a message quotes."""


def is_offline() -> bool:
    """Whether ``DGL_DEEPGNN_OFFLINE`` says to use nothing but the cache."""
    return os.environ.get("DGL_DEEPGNN_OFFLINE", "") not in ("", "0")


class _RefusedError(Exception):
    """An answer that another attempt would not change; pooch retries a ValueError."""


class _TruncatedError(requests.exceptions.RequestException):
    """Fewer bytes than expected; worth another attempt."""


class CheckedDownload(pooch.HTTPDownloader):
    """Pooch's download, with headers and sizes checked before and while the body is read.

    Parameters
    ----------
    size : int
        Bytes that are expected.
    timeout : float
        Seconds that a silent server is waited for, and that a slow one may be behind a server
        that sends `SLOWEST` bytes a second: so the whole takes no longer than
        ``timeout + size / SLOWEST``.
    exact : bool
        Whether the file must have `size` bytes, not just at most.
    """

    def __init__(self, size: int, timeout: float, exact: bool = True) -> None:
        super().__init__(
            progressbar=exact and sys.stderr.isatty(),
            chunk_size=2**13,
            timeout=timeout,
            allow_redirects=False,
            headers={"Accept-Encoding": "identity"},
            hooks={"response": self._check_answer},
        )
        self.size, self.exact, self._timeout = size, exact, timeout
        self._response: requests.Response | None = None

    def __call__(self, url: str, output_file: str, pooch: Any, check_only: bool = False) -> None:
        """Download to a path, as pooch calls it."""
        with open(output_file, "wb") as file:
            self.write(url, file)

    def write(self, url: str, file: BinaryIO) -> None:
        """Download into an open file."""
        self._within_time(partial(super().__call__, url, _Limited(file, self.size), None), file)
        if self.exact and file.tell() < self.size:
            raise _TruncatedError(
                f"it is truncated: {file.tell()} bytes, the index says {self.size}"
            )

    def _within_time(self, work: Callable[[], object], file: BinaryIO) -> None:
        """Do the work, or give up.

        A timeout of a socket starts anew with every byte, so a server that sends one now and
        then is never given up: the work is done in a thread that is left behind.
        """
        failure: list[BaseException] = []

        def target() -> None:
            try:
                work()
            except BaseException as error:
                failure.append(error)

        thread, start = threading.Thread(target=target, daemon=True), time.monotonic()
        thread.start()
        while thread.is_alive():
            thread.join(min(self._timeout / 10, 1.0))
            late = time.monotonic() - start - file.tell() / SLOWEST
            if thread.is_alive() and late > self._timeout:
                with suppress(Exception):  # there may be no answer yet
                    self._response.raw.shutdown()  # type: ignore[union-attr]  # wakes the thread
                seconds = time.monotonic() - start
                raise _RefusedError(
                    f"the server has stalled: {file.tell()} bytes in {seconds:.0f} seconds "
                    "(DGL_DEEPGNN_TIMEOUT allows more)"
                )
        if failure:
            if self._response is not None:
                self._response.close()
            raise failure[0]

    def _check_answer(self, response: requests.Response, **_: Any) -> None:
        self._response = response
        if response.is_redirect:
            raise _RefusedError(
                f"the server redirects to {response.headers['location'][:200]}; redirects are not "
                "followed. If you trust that address, give it as the zoo"
            )
        if response.status_code != 200:
            reason = str(response.reason)[:100]
            raise _RefusedError(f"the server answers {response.status_code} {reason}")
        if "html" in response.headers.get("content-type", ""):
            raise _RefusedError("the server sends an HTML page instead of the file")
        if response.headers.get("content-encoding", "identity") != "identity":
            # A few bytes can stand for more than the memory holds.
            raise _RefusedError("the server sends it compressed, which it was asked not to")
        length = response.headers.get("content-length", "")
        if length.isdecimal():
            if int(length) > self.size:
                raise _too_long(self.size, f"announces {length}")
            if self.exact and int(length) < self.size:
                raise _RefusedError(
                    f"it is truncated: the server announces {length} bytes, the index says "
                    f"{self.size}"
                )


class _Limited:
    """A file that refuses more bytes than expected."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._size = file, size

    def write(self, chunk: bytes) -> None:
        if self._file.tell() + len(chunk) > self._size:
            raise _too_long(self._size, "sends more")
        self._file.write(chunk)

    def flush(self) -> None:
        pass


def _too_long(size: int, what: str) -> _RefusedError:
    return _RefusedError(f"it is too long: at most {size} bytes are expected, the server {what}")


@contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn the many errors of a download into one that says what happened, and to what.

    Raises
    ------
    ZooError
        For every error of the server, the connection, the hash or the cache.
    """
    if len(address) > LONGEST:
        address = f"{address[:LONGEST]} ..."
    try:
        yield
    except (_RefusedError, _TruncatedError) as error:
        raise ZooError(f"{address}: {error}.") from None
    except requests.exceptions.SSLError as error:
        raise ZooError(f"{address}: no secure connection: {error}.") from None
    except requests.exceptions.RequestException as error:
        if "timed out" in str(error).lower():
            what = "the server has stalled: no answer in time (DGL_DEEPGNN_TIMEOUT, in seconds)"
        elif isinstance(error, requests.exceptions.ChunkedEncodingError) or (
            "incomplete" in str(error).lower()
        ):
            what = "the connection broke off before the end"
        else:
            what = f"the server cannot be reached ({type(error).__name__})"
        raise ZooError(
            f"{address}: {what}. Try again later; DGL_DEEPGNN_OFFLINE=1 uses what the cache holds."
        ) from None
    except ValueError as error:
        if "hash" not in str(error):  # pooch's word for a hash that differs
            raise ZooError(f"{address}: this is no address of a server.") from None
        raise ZooError(
            f"{address}: damaged or changed: its SHA-256 is not the index's. Nothing was kept."
        ) from None
    except OSError as error:
        raise ZooError(f"{address}: the cache cannot be written: {error}.") from None
