"""Files and folders that are there whole or not at all, and that tell when they are damaged.

A file with a ``place`` carries a checksum: SHA-256 of its place and of its content, in which
sixty-four zeros stand for the checksum itself. The place, for example "seed-0/result.json" of a
certain run, tells a damaged file from a whole one that belongs somewhere else.
"""

from __future__ import annotations

import glob
import hashlib
import io
import itertools
import json
import os
import platform
import re
import shutil
import stat
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dgl_deepgnn.errors import UserError

__all__ = [
    "DamagedError",
    "append_line",
    "load_tensors",
    "make_folder",
    "new_folder",
    "open_whole",
    "read_json",
    "read_limited",
    "read_lines",
    "read_plain",
    "remove",
    "require_new",
    "save_tensors",
    "write_figure",
    "write_json",
    "write_lines",
    "write_text",
]


class DamagedError(UserError):
    """A file that does not hold what was written into it."""

    page = "docs/reliability.md"


KEY = "checksum"
BLANK = "0" * 64
_CHECKSUM = re.compile(KEY.encode() + rb'\\?": ?\\?"([0-9a-f]{64})\\?"')
_SEARCHED = 128  # the checksum is the first key of the first object
_OWNER = re.compile(r"-([0-9]{1,9})-[0-9]+\.tmp$")
_HERE = f"{zlib.crc32(platform.node().encode()):08x}"
_count = itertools.count()
_Parts = tuple["bytes | memoryview", ...]


def read_limited(path: Path, most: int) -> bytes:
    """Content of a file of somebody else: a plain one, of at most so many bytes.

    Raises
    ------
    OSError
        If it cannot be opened.
    UserError
        If it is a folder, device or pipe, or larger.
    """
    # A pipe would be waited for without O_NONBLOCK, which plain files do not heed.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "a device or pipe"
            raise UserError(f"{path} is {what}, not a plain file.")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise UserError(f"{path} is larger than the {most:,} bytes that are read.")
    return content


def read_plain(path: Path) -> bytes:
    """Content of a plain file of any size; a pipe in its place is not waited for.

    Raises
    ------
    OSError
        If it cannot be opened.
    DamagedError
        If it is a folder, device or pipe.
    """
    try:
        return read_limited(path, path.stat().st_size)
    except UserError as error:
        raise DamagedError(str(error)) from None


# --- whole or not at all ---


@contextmanager
def open_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to be written bit by bit; it stands at `path` once the block has ended."""
    with _named(path), _temporary(path) as temporary:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write a file so that a crash leaves either the old or the new one."""
    with open_whole(path) as file:
        file.writelines(parts)


def write_text(path: Path, content: str) -> None:
    """Write text, whole or not at all."""
    write_bytes(path, content.encode("utf-8"))


def write_figure(path: Path, figure: Any, dpi: int) -> None:
    """Write a matplotlib figure as PNG, whole or not at all."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=dpi)
    write_bytes(path, content.getvalue())


def new_folder(parent: Path, name: str) -> Path:
    """First of ``name``, ``name-2``, ``name-3``, ... that does not exist."""
    path, number = parent / name, 1
    while path.exists():
        number += 1
        path = parent / f"{name}-{number}"
    return path


@contextmanager
def make_folder(path: Path, advice: str = "") -> Iterator[Path]:
    """Make a folder that is not there yet, with all that the block writes into it, or nothing.

    Parameters
    ----------
    path : Path
        The folder.
    advice : str
        What else than giving another folder could be done if it exists.

    Yields
    ------
    Path
        Where to write; its content stands at `path` once the block has ended.

    Raises
    ------
    UserError
        If it exists (it is never overwritten) or cannot be made.
    """
    require_new(path, advice)
    try:
        with _temporary(path) as temporary:
            temporary.mkdir(parents=True)
            yield temporary
            os.rename(temporary, path)
    except OSError as error:
        if os.path.lexists(path):  # another process was faster
            raise _exists(path, advice) from None
        raise UserError(f"{path} cannot be made ({error.strerror}). Give another folder.") from None


def require_new(path: Path, advice: str = "") -> None:
    """Raise what `make_folder` would, before any work is done that it would lose."""
    if os.path.lexists(path):
        raise _exists(path, advice)


def _exists(path: Path, advice: str) -> UserError:
    return UserError(
        f"{path} exists, and what is there is never overwritten. {advice}Give another folder."
    )


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path`, gone afterwards; what killed processes have left there goes, too."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.{_HERE}-*.tmp"):
        owner = _OWNER.search(leftover.name)
        if owner and not _lives(int(owner[1])):
            remove(leftover)
    temporary = path.with_name(f".{path.name}.{_HERE}-{os.getpid()}-{next(_count)}.tmp")
    remove(temporary)  # of a killed process that had the same number
    try:
        yield temporary
    finally:
        remove(temporary)


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file or folder if it is there; of a link the link, not where it leads."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Say which file: a full disk and a limit (``ulimit -f``) do not."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from None


# --- with a checksum ---


def write_json(path: Path, content: Any, place: str | None = None) -> None:
    """Write JSON, whole or not at all; an object with a place gets a checksum."""
    if place is None:
        write_text(path, json.dumps(content, indent=2) + "\n")
    else:
        text = json.dumps({KEY: BLANK, **content}, indent=2) + "\n"
        write_bytes(path, *_seal(text.encode(), place))


def read_json(path: Path, place: str, required: bool = True) -> dict[str, Any]:
    """Read what :func:`write_json` wrote, without the checksum.

    Parameters
    ----------
    path : Path
        The file.
    place : str
        That it was written with.
    required : bool
        Whether there must be a checksum: version 0.1 wrote none.

    Raises
    ------
    DamagedError
        If it is not a JSON object or the checksum differs.
    """
    return _object(path, read_plain(path), place, required)


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]], place: str) -> None:
    """Write objects as lines of JSON with checksums, whole or not at all."""
    sealed = (_seal_line(line, place, number) for number, line in enumerate(lines, start=1))
    write_bytes(path, *itertools.chain.from_iterable(sealed))


def append_line(path: Path, line: Mapping[str, Any], place: str, number: int) -> None:
    """Append the line of that number, from 1; a kill can leave a part of it."""
    with _named(path), open(path, "ab") as file:
        file.writelines(_seal_line(line, place, number))


def _seal_line(line: Mapping[str, Any], place: str, number: int) -> _Parts:
    return _seal(f"{json.dumps({KEY: BLANK, **line})}\n".encode(), f"{place}:{number}")


def read_lines(
    path: Path, place: str, required: bool = True, count: int | None = None
) -> list[dict[str, Any]]:
    """Read the first `count` lines of :func:`write_lines`, by default all that are whole.

    Raises
    ------
    DamagedError
        If there are fewer lines, or one is not a JSON object or its checksum differs.
    """
    lines = [line for line in read_plain(path).splitlines(keepends=True) if line.endswith(b"\n")]
    if count is not None and len(lines) < count:
        raise DamagedError(f"{path} is damaged: of {count} lines it has {len(lines)}.")
    return [
        _object(path, line, f"{place}:{number}", required)
        for number, line in enumerate(lines[:count], start=1)
    ]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], place: str | None = None
) -> None:
    """Write tensors as safetensors, whole or not at all; `facts` (JSON) goes into the header."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if place is None:
        write_bytes(path, save(contiguous, {"facts": json.dumps(facts)}))
    else:
        header = {"facts": json.dumps({KEY: BLANK, **facts})}
        write_bytes(path, *_seal(save(contiguous, header), place))


def load_tensors(
    path: Path, place: str | None = None, required: bool = True
) -> tuple[dict[str, Tensor], Any]:
    """Read what :func:`save_tensors` wrote.

    Raises
    ------
    DamagedError
        If it is not safetensors or the checksum differs.
    """
    content = read_plain(path)
    if place is not None:
        _check(path, content, place, required)
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        facts = json.loads(header.get("__metadata__", {}).get("facts", "null"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DamagedError(f"{path} is damaged: not a safetensors file ({error}).") from None
    if isinstance(facts, dict):
        facts.pop(KEY, None)
    return tensors, facts


def _seal(content: bytes, place: str) -> _Parts:
    """Put the checksum where the first sixty-four zeros are; in parts, so as not to copy."""
    view, start = memoryview(content), content.index(BLANK.encode())
    return view[:start], _checksum(place, view).encode(), view[start + len(BLANK) :]


def _check(path: Path, content: bytes, place: str, required: bool) -> None:
    found = _CHECKSUM.search(content, 0, _SEARCHED)
    if found is None:
        if required:
            raise DamagedError(f"{path} is damaged: it has no checksum.")
        return
    view = memoryview(content)
    parts = view[: found.start(1)], BLANK.encode(), view[found.end(1) :]
    if _checksum(place, *parts).encode() != found[1]:
        raise DamagedError(
            f"{path} is damaged, or was changed, or belongs elsewhere: its checksum differs."
        )


def _checksum(place: str, *parts: bytes | memoryview) -> str:
    digest = hashlib.sha256(place.encode() + b"\n")
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def _object(path: Path, content: bytes, place: str, required: bool) -> dict[str, Any]:
    _check(path, content, place, required)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise DamagedError(f"{path} is damaged: not JSON.") from None
    if not isinstance(found, dict):
        raise DamagedError(f"{path} is damaged: not a JSON object.")
    found.pop(KEY, None)
    return found
