"""A zoo's files: from a folder, an http(s) address or a repository of the Hugging Face Hub.

They come through a cache and are checked.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Protocol

import pooch
from filelock import FileLock

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.files import read_limited, write_bytes, write_text
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.huggingface import SCHEME, HubZoo
from dgl_deepgnn.hub.index import INDEX, MAX_INDEX, Entry, FileFacts, Index, check_file
from dgl_deepgnn.hub.transfer import CheckedDownload, explained, is_offline

__all__ = ["FolderZoo", "RemoteZoo", "Zoo", "open_zoo"]

SNAPSHOT = ".entry.json"
"""In the cache, beside a model's files: the index entry that they were downloaded by."""
MAX_TIMEOUT = 86_400
"""Seconds, a day."""
OLD = ".old-"
"""In front of an entry's name while it is replaced, see `publish`."""


class Zoo(Protocol):
    """A place that holds an index and models."""

    location: str

    def index(self) -> Index:
        """Which models there are."""

    def fetch(self, name: str, wanted: Iterable[str] | None = None) -> Path:
        """Folder with the wanted files (by default all) of a model, checked."""


def open_zoo(zoo: str | Path | None = None) -> Zoo:
    """Zoo at a folder or address.

    Parameters
    ----------
    zoo : str or Path, optional
        A folder, an http(s) address, or ``"hf://user/repo"`` on the Hugging Face Hub, with
        ``@revision`` behind it or not. By default what the environment variable
        ``DGL_DEEPGNN_ZOO`` says, else the zoo that comes with the package.

    Returns
    -------
    Zoo
        Nothing has been read yet.

    Raises
    ------
    ZooError
        If the address is of another scheme or has a query, or there is no such folder.
    """
    location = str(zoo or os.environ.get("DGL_DEEPGNN_ZOO") or files("dgl_deepgnn.zoo"))
    if location.startswith(("http://", "https://")):
        return RemoteZoo(location)
    if location.startswith(SCHEME):
        return HubZoo(location)
    if "://" in location:
        raise ZooError(f"The zoo {location} is neither a folder nor an http(s) or hf:// address.")
    return FolderZoo(Path(location).expanduser())


class FolderZoo:
    """A zoo in a folder.

    Parameters
    ----------
    path : Path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.location = path, str(path)

    def index(self) -> Index:
        """Read the index; a folder without one holds no models.

        Raises
        ------
        ZooError
            If there is no such folder, or the index is not valid.
        """
        if not self.path.is_dir():
            raise ZooError(f"There is no zoo at {self.path}: no such folder.")
        try:
            content = read_limited(self.path / INDEX, MAX_INDEX)
        except FileNotFoundError:
            return Index()
        except (OSError, UserError) as error:
            raise ZooError(f"{self.path / INDEX} cannot be read: {error}") from None
        return Index.parse(content, str(self.path / INDEX))

    def fetch(self, name: str, wanted: Iterable[str] | None = None) -> Path:
        """Folder of a model, its files checked.

        Raises
        ------
        ZooError
            If there is no such model, or a file is not what the index says.
        """
        entry = self.index().entry(name, self.location)
        chosen = _choose(entry, name, wanted)
        try:
            return _checked(self.path / name, chosen)
        except ZooError:
            # A replacement that crashed half-way has left the old entry aside.
            if (self.path / f"{OLD}{name}").is_dir():
                return _checked(self.path / f"{OLD}{name}", chosen)
            raise


class RemoteZoo:
    """A zoo at an http(s) address, cached.

    The cache is ``DGL_DEEPGNN_CACHE``, by default pooch's folder for this user. With
    ``DGL_DEEPGNN_OFFLINE=1`` nothing but the cache is used. ``DGL_DEEPGNN_TIMEOUT`` is how
    many seconds a silent or slow server is waited for (30), see `CheckedDownload`.

    Parameters
    ----------
    address : str
        Of the folder that holds ``index.json``.
    retries : int
        Further attempts when a download breaks off.
    """

    def __init__(self, address: str, retries: int = 2) -> None:
        if "?" in address or "#" in address:
            raise ZooError(f"The zoo {address} must be the plain address of a folder, without ? #.")
        self.location, self._retries = address.rstrip("/"), retries
        cache = Path(os.environ.get("DGL_DEEPGNN_CACHE") or pooch.os_cache("dgl_deepgnn"))
        self.cache = cache / hashlib.sha256(self.location.encode()).hexdigest()[:16]
        self._offline = is_offline()
        self._timeout = _timeout()
        self._index: Index | None = None

    def index(self) -> Index:
        """Get the index; offline, the last one.

        Raises
        ------
        ZooError
            If the server cannot be reached or what it sends is not a valid index.
        """
        if self._index is None:
            self._index = self._cached_index() if self._offline else self._download_index()
        return self._index

    def fetch(self, name: str, wanted: Iterable[str] | None = None) -> Path:
        """Folder of a model in the cache, downloaded where need be.

        Raises
        ------
        ZooError
            If there is no such model, the server fails, or a file is not what the index says;
            the files in the cache are then as they were.
        """
        entry = self.index().entry(name, self.location)
        chosen = _choose(entry, name, wanted)
        folder = self.cache / name
        if self._offline:
            try:
                return _checked(folder, chosen)
            except ZooError as error:
                raise ZooError(
                    f"Offline (DGL_DEEPGNN_OFFLINE is set), and {name} is not in the cache: {error}"
                ) from None
        with FileLock(self.cache / f".{name}.lock"):
            missing = {
                file: facts for file, facts in chosen.items() if not facts.match(folder / file)
            }
            if missing:
                self._download(name, missing)
            # Also if a kill came between the files and this: else it would be left out, or list the
            # files that were there before, for good.
            snapshot = Index(models={name: entry}).dump()
            if missing or not _holds(folder / SNAPSHOT, snapshot):
                write_text(folder / SNAPSHOT, snapshot)
        return folder

    def _download(self, name: str, missing: dict[str, FileFacts]) -> None:
        """Put files into the cache, all or none."""
        staging = self.cache / f".download-{name}"
        shutil.rmtree(staging, ignore_errors=True)  # of a download that was killed
        zoo = pooch.create(
            path=staging,
            base_url=f"{self.location}/{name}/",
            registry={file: f"sha256:{facts.sha256}" for file, facts in missing.items()},
            retry_if_failed=self._retries,
        )
        logger = pooch.get_logger()
        level = logger.level
        logger.setLevel("WARNING")  # the progress bar says enough
        try:
            for file, facts in missing.items():
                with explained(f"{self.location}/{name}/{file}"):
                    zoo.fetch(file, downloader=CheckedDownload(facts.size, self._timeout))
            (self.cache / name).mkdir(exist_ok=True)
            for file in missing:
                os.replace(staging / file, self.cache / name / file)
        finally:
            logger.setLevel(level)
            shutil.rmtree(staging, ignore_errors=True)

    def _download_index(self) -> Index:
        content, address = io.BytesIO(), f"{self.location}/{INDEX}"
        with explained(address):
            CheckedDownload(MAX_INDEX, self._timeout, exact=False).write(address, content)
        index = Index.parse(content.getvalue(), address)
        self.cache.mkdir(parents=True, exist_ok=True)
        write_bytes(self.cache / INDEX, content.getvalue())
        return index

    def _cached_index(self) -> Index:
        """Last index; of a model in the cache, the entry that it was downloaded by."""
        place = self.cache / INDEX
        if not place.exists():
            raise ZooError(
                f"Offline (DGL_DEEPGNN_OFFLINE is set), and the zoo {self.location} was never "
                "used before: nothing is in the cache."
            )
        models = dict(Index.parse(read_limited(place, MAX_INDEX), str(place)).models)
        for snapshot in self.cache.glob(f"*/{SNAPSHOT}"):
            models.update(Index.parse(read_limited(snapshot, MAX_INDEX), str(snapshot)).models)
        return Index(models=models)


def _choose(entry: Entry, name: str, wanted: Iterable[str] | None) -> dict[str, FileFacts]:
    for file in wanted or ():
        if file not in entry.files:
            raise ZooError(f"The index lists no file {file} of the model {name}.")
    return {file: entry.files[file] for file in (wanted or entry.files)}


def _checked(folder: Path, chosen: dict[str, FileFacts]) -> Path:
    for file, facts in chosen.items():
        check_file(folder / file, facts)
    return folder


def _holds(path: Path, text: str) -> bool:
    try:
        return read_limited(path, MAX_INDEX) == text.encode()
    except (OSError, UserError):
        return False


def _timeout() -> float:
    text = os.environ.get("DGL_DEEPGNN_TIMEOUT") or "30"
    try:
        seconds = float(text) if text.isascii() else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MAX_TIMEOUT:
        raise ZooError(
            f"DGL_DEEPGNN_TIMEOUT={text}: a number of seconds is expected, more than 0 and at most "
            f"{MAX_TIMEOUT}."
        )
    return seconds
