"""Published models by name."""

from __future__ import annotations

import warnings
from pathlib import Path

from dgl_deepgnn.hub.config import head_prefix, load_model, read_config
from dgl_deepgnn.hub.errors import ZooError
from dgl_deepgnn.hub.index import CONFIG, WEIGHTS
from dgl_deepgnn.hub.origin import Origin
from dgl_deepgnn.hub.store import open_zoo
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.wording import counted

__all__ = ["download", "from_pretrained", "list_pretrained"]


def list_pretrained(pattern: str = "*", zoo: str | Path | None = None) -> list[str]:
    """Names of the published models that match a shell-style pattern.

    Parameters
    ----------
    pattern : str
        For example ``"resgcn*.cora"``.
    zoo : str or Path, optional
        A folder or an http(s) address; by default what ``DGL_DEEPGNN_ZOO`` says, else the zoo
        that comes with the package.

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
    return open_zoo(zoo).fetch(name)


def from_pretrained(
    name: str,
    zoo: str | Path | None = None,
    *,
    out_feats: int | None = None,
    architecture: type[DeepGNN] = DeepGNN,
) -> DeepGNN:
    """Load a published model.

    Parameters
    ----------
    name : str
        One of :func:`list_pretrained`.
    zoo : str or Path, optional
        A folder or an http(s) address; by default what ``DGL_DEEPGNN_ZOO`` says, else the zoo
        that comes with the package.
    out_feats : int, optional
        For fine-tuning: number of outputs of a new head, which replaces the trained one (a
        warning says so). For node scores the head is the last convolution. The new weights are
        drawn by the model's own initialization from PyTorch's global generator.
    architecture : type
        The class that the model must be of.

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
    folder = open_zoo(zoo).fetch(name, [CONFIG, WEIGHTS])
    config = read_config(folder / CONFIG)
    model = load_model(config, folder / WEIGHTS, out_feats)
    if not isinstance(model, architecture):
        kind = type(model).__name__
        raise ZooError(
            f"{name} is a {kind}, not a {architecture.__name__}: use {kind}.from_pretrained."
        )
    model.pretrained = config.model_dump(mode="json")
    model.origin = origin = Origin(config)
    model.register_forward_pre_hook(origin.before_call, with_kwargs=True)
    if out_feats is not None:
        warnings.warn(
            f"{name}: the head ({head_prefix(model)}*) was reset to "
            f"{counted(out_feats, 'output')} with new weights: train it before use.",
            stacklevel=2,
        )
    return model
