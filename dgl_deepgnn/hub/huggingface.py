"""Models on the Hugging Face Hub: read from a repository, and put into one.

A repository holds either one model, its files at the root and their hashes in ``entry.json``, or
a whole zoo, as a folder does. The files are kept in the Hub's own cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import dgl_deepgnn
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import (
    CONFIG,
    INDEX,
    MAX_FILE,
    MAX_INDEX,
    MAX_JSON,
    WEIGHTS,
    Entry,
    Index,
    check_file,
)
from dgl_deepgnn.hub.transfer import is_offline

__all__ = ["ENTRY", "SCHEME", "HubZoo", "Repository", "upload"]

SCHEME = "hf://"
ENTRY = "entry.json"
"""Beside the files of one model: the index of a zoo that holds nothing else."""
RECORD = (ENTRY, "metrics.json", "speedup.json", "speedup.csv", "speedup.png", "loss.png")
"""Files that speak of the weights beside them."""
EXTRA = "pip install 'dgl-deepgnn[huggingface]'"
_ADDRESS = re.compile(r"([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)


@dataclass
class Repository:
    """A repository of the Hub at one commit, once a file of it has been read.

    Parameters
    ----------
    repo_id : str
        ``"user/repo"``.
    revision : str, optional
        Branch, tag or commit; by default the main branch.
    token : str or bool, optional
        As huggingface_hub takes it; by default that of `hf auth login` or ``HF_TOKEN``.
    cache_dir : Path, optional
        By default the Hub's own cache.
    local_files_only : bool
        Whether to use the cache and nothing else, as with ``DGL_DEEPGNN_OFFLINE=1``.
    force_download : bool
        Whether to download what the cache holds, too.
    """

    repo_id: str
    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    _commit: str | None = field(default=None, init=False, repr=False)

    @classmethod
    def parse(cls, address: str, revision: str | None = None, **options: Any) -> Repository:
        """Repository at ``user/repo`` or ``user/repo@revision``.

        Raises
        ------
        ZooError
            If the address is another, or there are two revisions.

        Examples
        --------
        >>> Repository.parse("user/repo@v1").revision
        'v1'
        """
        found = _ADDRESS.fullmatch(address)
        if found is None or any(part in address for part in ("..", "--")):
            raise ZooError(
                f"{address!r} is no repository of the Hugging Face Hub: user/repo, or "
                "user/repo@revision, is expected. (A folder must exist and hold a config.json.)"
            )
        if found[2] and revision:
            raise ZooError(
                f"{address} names a revision, and revision={revision} another. Give one."
            )
        return cls(found[1], found[2] or revision, **options)

    @property
    def _offline(self) -> bool:
        return self.local_files_only or is_offline()

    @property
    def location(self) -> str:
        """The address."""
        return f"{SCHEME}{self.repo_id}" + (f"@{self.revision}" if self.revision else "")

    def fetch(self, wanted: Iterable[str] | None = None) -> Path:
        """Folder with the wanted files (by default all that are listed) of the one model here.

        Where the repository has hashes, they are checked.

        Raises
        ------
        ZooError
            If the repository, revision or a file is not there or cannot be had, or a file is not
            what ``entry.json`` says.
        """
        # First, since it is there in every repository of a model.
        path = self.file(CONFIG, MAX_JSON)
        entry = self._entry()
        if entry is not None:
            return self.fetch_listed(entry, wanted or entry.files)
        for file in wanted or (CONFIG, WEIGHTS):
            path = self.file(file, MAX_FILE if file == WEIGHTS else MAX_JSON)
        return path.parent

    def fetch_listed(self, entry: Entry, wanted: Iterable[str], folder: str = "") -> Path:
        """The same of a model in a folder of the repository, by its line of the index."""
        places = []
        for file in wanted:
            if file not in entry.files:
                raise ZooError(f"{self.location} lists no file {file} of this model.")
            facts = entry.files[file]
            places.append(self.file(folder + file, facts.size))
            check_file(places[-1], facts)
        if not places:
            raise ZooError(f"{self.location} lists no files of this model.")
        return places[0].parent

    def file(self, name: str, most: int) -> Path:
        """A file in the cache, downloaded where need be; of at most so many bytes."""
        options = {
            "token": self.token,
            "cache_dir": self.cache_dir,
            "local_files_only": self._offline,
            "force_download": self.force_download and not self._offline,
            "library_name": "dgl-deepgnn",
            "library_version": dgl_deepgnn.__version__,
            # All files are of the commit that the first one is of.
            "revision": self._commit or self.revision,
        }
        with self._explained(name):
            hub = _library()
            facts = hub.hf_hub_download(self.repo_id, name, dry_run=True, **options)
            if facts.file_size > most:
                raise ZooError(
                    f"{self.location}: {name} has {facts.file_size:,} bytes; at most {most:,} are "
                    "read."
                )
            path = Path(hub.hf_hub_download(self.repo_id, name, **options))
        # The cache keeps the files of a commit in a folder of its name. The size may have been that
        # of an earlier commit.
        self._commit = path.parents[name.count("/")].name
        if path.stat().st_size > most:
            raise ZooError(f"{self.location}: {name} has more than {most:,} bytes.")
        return path

    def _entry(self) -> Entry | None:
        hub = _library()
        known = hub.try_to_load_from_cache(
            self.repo_id, ENTRY, cache_dir=self.cache_dir, revision=self._commit
        )
        if known is hub._CACHED_NO_EXIST:  # of this commit there is none, server or no server
            return None
        try:
            path = self.file(ENTRY, MAX_INDEX)
        except _MissingError:
            return None
        models = Index.parse(path.read_bytes(), f"{self.location}/{ENTRY}").models
        if len(models) != 1:
            raise ZooError(f"{self.location}/{ENTRY} lists {len(models)} models, not one.")
        (entry,) = models.values()
        return entry

    @contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        """Turn the many errors of the Hub's library, which differ by its version, into one."""
        errors = _library().errors
        where = f"{self.location}/{name}"
        try:
            yield
        except ZooError:
            raise
        except errors.GatedRepoError:
            raise ZooError(
                f"{self.location} is gated: ask for access on its page, then `hf auth login`."
            ) from None
        except errors.RepositoryNotFoundError:
            raise ZooError(
                f"There is no repository {self.location}, or it is private: `hf auth login`, "
                "HF_TOKEN or token= says who you are."
            ) from None
        except errors.RevisionNotFoundError:
            raise ZooError(f"{self.location}: there is no such revision.") from None
        except errors.LocalEntryNotFoundError:
            if self._offline or _library().constants.HF_HUB_OFFLINE:
                raise _MissingError(f"Offline, and {where} is not in the cache.") from None
            raise ZooError(
                f"{where}: the server cannot be reached, and it is not in the cache. Try again "
                "later."
            ) from None
        except errors.EntryNotFoundError:
            raise _MissingError(
                f"{self.location} has no {name}. Is it a model of dgl-deepgnn? Of a whole zoo, "
                f"name the model, and the repository as zoo: zoo={SCHEME}{self.repo_id}."
            ) from None
        except Exception as error:
            raise ZooError(f"{where}: {type(error).__name__}: {error}") from None


class HubZoo:
    """A zoo in a repository of the Hub.

    Parameters
    ----------
    location : str
        ``"hf://user/repo"`` or ``"hf://user/repo@revision"``.
    """

    def __init__(self, location: str) -> None:
        self.repository = Repository.parse(location.removeprefix(SCHEME))
        self.location = self.repository.location
        self._index: Index | None = None

    def index(self) -> Index:
        """Get the index.

        Raises
        ------
        ZooError
            If the repository has none, or cannot be reached.
        """
        if self._index is None:
            path = self.repository.file(INDEX, MAX_INDEX)
            self._index = Index.parse(path.read_bytes(), f"{self.location}/{INDEX}")
        return self._index

    def fetch(self, name: str, wanted: Iterable[str] | None = None) -> Path:
        """Folder of a model in the cache, its files checked.

        Raises
        ------
        ZooError
            If there is no such model, or a file is not what the index says.
        """
        entry = self.index().entry(name, self.location)
        return self.repository.fetch_listed(entry, list(wanted or entry.files), f"{name}/")


class _MissingError(ZooError):
    """The repository is there, the file is not."""


def upload(
    folder: Path,
    repo_id: str,
    *,
    message: str,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Put the files of a folder into a repository, which is made if need be.

    Returns
    -------
    str
        Address of the commit, or of the pull request.

    Raises
    ------
    ZooError
        If the Hub refuses, or cannot be reached.
    """
    hub = _library()
    repository = Repository.parse(repo_id)
    if repository.revision:
        raise ZooError(f"{repo_id}: give the branch to write to as branch (--branch).")
    api = hub.HfApi(
        token=token, library_name="dgl-deepgnn", library_version=dgl_deepgnn.__version__
    )
    with repository._explained("commit"):
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            if branch is not None:
                api.create_branch(repo_id, branch=branch, exist_ok=True)
            info = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                commit_message=message,
                revision=branch,
                create_pr=create_pr,
                # What is said of a model that was here before is not said of this one.
                delete_patterns=[file for file in RECORD if not (folder / file).exists()],
            )
        except hub.errors.HfHubHTTPError as error:
            if getattr(error.response, "status_code", None) in (401, 403):
                raise ZooError(
                    f"You may not write to {repository.location}: `hf auth login`, HF_TOKEN or "
                    "token= says who you are."
                ) from None
            raise
    return str(info.pr_url or info.commit_url)


def _library() -> ModuleType:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError:
        raise ZooError(
            f"The Hugging Face Hub needs a package that is not installed: {EXTRA}."
        ) from None
    return huggingface_hub
