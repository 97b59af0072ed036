"""Models by name: of a zoo, a repository of the Hugging Face Hub or a folder of their own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dgl_deepgnn.hub.config import load_model, read_any_config
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.huggingface import Repository
from dgl_deepgnn.hub.index import CONFIG, WEIGHTS
from dgl_deepgnn.hub.origin import Origin
from dgl_deepgnn.hub.store import open_zoo
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.wording import counted

__all__ = ["download", "find_model", "from_pretrained", "list_pretrained"]


def list_pretrained(pattern: str = "*", zoo: str | Path | None = None) -> list[str]:
    """Names of the published models that match a shell-style pattern.

    Parameters
    ----------
    pattern : str
        For example ``"resgcn*.cora"``.
    zoo : str or Path, optional
        See :func:`open_zoo`.

    Returns
    -------
    list of str
        Sorted.

    Raises
    ------
    ZooError
        If the zoo cannot be reached or its index is not valid.

    Examples
    --------
    >>> list_pretrained("no-such-model*")
    []
    """
    return open_zoo(zoo).index().names(pattern)


def download(name: str, zoo: str | Path | None = None) -> Path:
    """All files of a published model.

    Parameters
    ----------
    name, zoo
        As in :func:`from_pretrained`.

    Returns
    -------
    Path
        The folder that holds them: in the cache, or in the zoo itself if that is a folder.

    Raises
    ------
    ZooError
        As in :func:`from_pretrained`.
    """
    return find_model(name, zoo, None)


def find_model(name: str, zoo: str | Path | None, wanted: Sequence[str] | None, **hub: Any) -> Path:
    """Folder with the wanted files (by default all) of a model, checked.

    Parameters
    ----------
    name, zoo
        As in :func:`from_pretrained`.
    wanted : sequence of str, optional
        Names of files.
    **hub
        Options of :class:`Repository`.

    Raises
    ------
    ZooError
        If there is no such model, a file is damaged or the server fails.
    """
    given = [key for key, value in hub.items() if value]
    folder = Path(name).expanduser() if zoo is None and "/" in name else None
    if folder is not None:
        is_model = (folder / CONFIG).is_file()
        if not (is_model or name.startswith((".", "~", os.sep))):
            return Repository.parse(name, **hub).fetch(wanted)
        if not is_model:
            raise ZooError(f"There is no model at {name}: no {CONFIG} is there.")
    if given:
        what = "is a folder here" if folder is not None else "is none ('user/repo')"
        raise ZooError(
            f"{', '.join(given)}: of repositories of the Hugging Face Hub alone; {name!r} {what}."
        )
    if folder is not None:
        return folder
    return open_zoo(zoo).fetch(name, wanted)


def from_pretrained(
    name: str,
    zoo: str | Path | None = None,
    *,
    out_feats: int | None = None,
    architecture: type[DeepGNN] = DeepGNN,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> DeepGNN:
    """Load a published or saved model.

    Parameters
    ----------
    name : str
        One of :func:`list_pretrained`; or, without `zoo`, a repository of the Hugging Face Hub
        (``"user/repo"``, ``"user/repo@revision"``) or a folder that ``model.save_pretrained`` has
        written (``"./folder"``).
    zoo : str or Path, optional
        A folder, an http(s) address or ``"hf://user/repo"``; by default what
        ``DGL_DEEPGNN_ZOO`` says, else the zoo that comes with the package.
    out_feats : int, optional
        For fine-tuning: number of outputs of a new head, which replaces the trained one (a
        warning says so). For node scores the head is the last convolution. The new weights are
        drawn by the model's own initialization from PyTorch's global generator.
    architecture : type
        The class that the model must be of.
    revision : str, optional
        Of a repository of the Hub: branch, tag or commit. Its other options are those of
        ``huggingface_hub``, too.
    token : str or bool, optional
        By default that of ``hf auth login``, or ``HF_TOKEN``.
    cache_dir : Path, optional
        By default the Hub's own cache.
    local_files_only : bool
        Whether to use the cache and nothing else.
    force_download : bool
        Whether to download what the cache holds, too.

    Returns
    -------
    DeepGNN
        In evaluation mode, float32; ``model.pretrained`` is the content of its
        ``config.json``.

    Raises
    ------
    ZooError
        If there is no such model, it is of another class, a file is damaged or not what the
        index says, or the server fails.

    Examples
    --------
    >>> model = from_pretrained("resgcn64.digits")
    >>> tuned = from_pretrained("resgcn64.digits", out_feats=5)
    """
    folder = find_model(
        name,
        zoo,
        [CONFIG, WEIGHTS],
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        force_download=force_download,
    )
    config = read_any_config(folder / CONFIG)
    model = load_model(config, folder / WEIGHTS, out_feats)
    if not isinstance(model, architecture):
        kind = type(model).__name__
        raise ZooError(
            f"{name} is a {kind}, not a {architecture.__name__}: use {kind}.from_pretrained."
        )
    model.pretrained = config.model_dump(mode="json")
    if config.data is not None:
        model.origin = origin = Origin(config, config.data)
        model.register_forward_pre_hook(origin.before_call, with_kwargs=True)
    if out_feats is not None:
        warnings.warn(
            f"{name}: the head ({model.head_prefix}*) was reset to "
            f"{counted(out_feats, 'output')} with new weights: train it before use.",
            stacklevel=2,
        )
    return model
