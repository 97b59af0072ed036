"""Fine-tuning: a published model's layers, a new head, data of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgl_deepgnn.hub.config import Config, read_any_config
from dgl_deepgnn.hub.index import CONFIG, WEIGHTS
from dgl_deepgnn.hub.load import find_model, from_pretrained
from dgl_deepgnn.recipe import ModelSection, Recipe, data_slug, make_recipe
from dgl_deepgnn.training.folder import RunFolder
from dgl_deepgnn.training.parent import weights_sha256
from dgl_deepgnn.training.run import train

__all__ = ["finetune", "finetuning_recipe"]

EPOCHS, PATIENCE = 100, 20
FROM_DATA = ("in_feats", "out_feats", "head", "edge_feats")
"""Arguments of a model that a recipe leaves to the data."""


def finetune(
    name: str,
    data: str,
    output: str | Path | None = None,
    *,
    zoo: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    body_rate: float = 0.1,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    device: str = "cpu",
    progress: bool = True,
    blind: bool = False,
) -> RunFolder:
    """Train a new head on the layers of a published model, and those with it, more slowly.

    The run folder is one of :func:`dgl_deepgnn.training.train`: it is resumed, compared and
    published like any other, and the card names the parent.

    Parameters
    ----------
    name, zoo
        The model, as in :func:`from_pretrained`.
    data : str
        Name of the data set, as in :func:`dgl_deepgnn.load_data`. It is trusted, even to run code.
    output : Path, optional
        The run folder; by default a new one under ``runs/``.
    options : mapping, optional
        Of the data set. Without ``features`` they are scaled in the way of the parent's data.
    body_rate : float
        Learning rate of the parent's layers over that of the head; 0 freezes them.
    overrides
        Keys of the recipe, as in :func:`load_recipe`.
    device, progress, blind
        As in :func:`dgl_deepgnn.training.train`.

    Returns
    -------
    RunFolder
        With weights, metrics and summary.

    Raises
    ------
    ZooError
        If there is no such model, or it is damaged.
    UserError
        If the data does not fit the model's layers, or a key is unknown.

    Examples
    --------
    >>> import tempfile
    >>> short = {"training.epochs": 1, "seeds": [0]}
    >>> folder = finetune("resgcn64.digits", "digits", Path(tempfile.mkdtemp()) / "run",
    ...                   options={"neighbors": 5}, overrides=short, progress=False)
    >>> folder.recipe.name
    'resgcn64.digits-from-digits'
    """
    recipe = finetuning_recipe(
        name, data, zoo=zoo, options=options, body_rate=body_rate, overrides=overrides
    )
    return train(recipe, output, device=device, progress=progress, blind=blind, allow_code=True)


def finetuning_recipe(
    name: str,
    data: str,
    *,
    zoo: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
    body_rate: float = 0.1,
    overrides: Mapping[str, Any] | Sequence[str] = (),
) -> Recipe:
    """Recipe that :func:`finetune` trains: the parent's, but for data, length and schedule.

    Parameters
    ----------
    name, data, zoo, options, body_rate, overrides
        As in :func:`finetune`.

    Returns
    -------
    Recipe
        With the section `parent`, which names the weights by their SHA-256.

    Examples
    --------
    >>> finetuning_recipe("resgcn64.digits", "digits").parent.body_rate
    0.1
    """
    config = read_any_config(find_model(name, zoo, [CONFIG, WEIGHTS]) / CONFIG)
    model = from_pretrained(name, zoo)
    known = set(ModelSection.model_fields) - {"name", "options"}
    arguments = {key: v for key, v in config.model.arguments.items() if key not in FROM_DATA}
    scaling = {} if config.data is None else config.data.features
    content: dict[str, Any] = {
        "name": _name(config.name, data),
        "description": f"Fine-tuned from {config.name}.",
        "data": {"name": data, "options": {**_features(scaling), **(options or {})}},
        "model": {
            "name": config.model.name,
            **{key: value for key, value in arguments.items() if key in known},
            "options": {key: value for key, value in arguments.items() if key not in known},
        },
        "parent": {
            "name": name,
            "zoo": None if zoo is None else str(zoo),
            "sha256": weights_sha256(model),
            "body_rate": body_rate,
        },
        "seeds": [0, 1, 2, 3, 4],
        "training": {"epochs": EPOCHS, "patience": PATIENCE},
    }
    if isinstance(config, Config):
        trained = config.recipe
        content["optimizer"] = trained.optimizer.model_dump()
        content["training"] |= {
            "select_by": trained.training.select_by,
            "class_weights": trained.training.class_weights,
            "batching": trained.training.batching.model_dump(),
        }
    return make_recipe(content, overrides, f"{name}, fine-tuned")


def _features(scaling: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    how = scaling.get("node", {}).get("transform")
    return {} if how is None else {"features": how}


def _name(parent: str, data: str) -> str:
    architecture, _, trained_on = parent.partition(".")
    return f"{architecture}.{data_slug(data)}-from-{data_slug(trained_on or parent)}"
