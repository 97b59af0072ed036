"""Models into folders of their own, and into repositories of the Hugging Face Hub."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from dgl_deepgnn.data.metrics import main_metric
from dgl_deepgnn.files import make_folder, save_tensors, write_json, write_text
from dgl_deepgnn.hub.card import model_card
from dgl_deepgnn.hub.config import Config, DataFacts, ModelFacts, SavedConfig, read_config
from dgl_deepgnn.hub.errors import ZooError, explain
from dgl_deepgnn.hub.huggingface import ENTRY, Repository, upload
from dgl_deepgnn.hub.index import CONFIG, WEIGHTS, Index
from dgl_deepgnn.hub.published import read_record
from dgl_deepgnn.hub.publishing import publish
from dgl_deepgnn.hub.store import FolderZoo
from dgl_deepgnn.nn import MODELS, DeepGNN
from dgl_deepgnn.nn.body import constructor_arguments
from dgl_deepgnn.wording import counted

__all__ = ["push", "push_to_hub", "save_pretrained"]

LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "mpl-2.0", "unlicense"),
)
"""That the Hub knows, by the names that it has for them; others are named as they are."""


def save_pretrained(model: DeepGNN, folder: str | Path, *, name: str | None = None) -> Path:
    """Write a model into a folder that ``from_pretrained`` reads.

    Parameters
    ----------
    model : DeepGNN
        Of a registered class.
    folder : Path
        Not there yet. It gets ``config.json``, by which the model is built anew, and
        ``model.safetensors``. Of a model that came from a zoo, the record of its data comes
        along, so that ``prepare`` works; what it scored does not, since nothing says that it was
        not trained since.
    name : str, optional
        For messages; by default the folder's.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ZooError
        If the class is not registered, a weight is not finite, or the name has other letters
        than a model's.
    UserError
        If the folder exists.

    Examples
    --------
    >>> import tempfile
    >>> from dgl_deepgnn import ResGCN
    >>> model = ResGCN(in_feats=8, hidden_feats=16, out_feats=3, num_layers=32)
    >>> with tempfile.TemporaryDirectory() as parent:
    ...     folder = model.save_pretrained(f"{parent}/mine")
    ...     again = ResGCN.from_pretrained(str(folder))
    >>> torch.equal(again.convs[31].weight, model.convs[31].weight)
    True
    """
    folder = Path(folder)
    config = _saved_config(model, name or folder.resolve().name)
    with make_folder(folder) as draft:
        _write(draft, config, model)
    return folder


def push_to_hub(
    model: DeepGNN,
    repo_id: str,
    *,
    commit_message: str = "Push model using dgl-deepgnn.",
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Put a model into a repository of the Hugging Face Hub: what `save_pretrained` writes, a card.

    Parameters
    ----------
    model : DeepGNN
        Of a registered class.
    repo_id : str
        ``"user/repo"``; the repository is made if need be.
    commit_message, private, token, branch, create_pr
        As in ``huggingface_hub``.

    Returns
    -------
    str
        Address of the commit, or of the pull request.

    Raises
    ------
    ZooError
        As :func:`save_pretrained`, or if the Hub refuses or cannot be reached.
    """
    config = _saved_config(model, Repository.parse(repo_id).repo_id.partition("/")[2])
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder), config, model)
        write_text(Path(folder) / "README.md", _saved_card(config, model, repo_id))
        return upload(
            Path(folder),
            repo_id,
            message=commit_message,
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )


def push(
    run: str | Path,
    repo_id: str,
    *,
    speedup: str | Path | None = None,
    dtype: Literal["fp32", "fp16"] = "fp32",
    licence: str = "Apache-2.0",
    allow_code: bool = False,
    private: bool | None = None,
    token: str | bool | None = None,
    branch: str | None = None,
    create_pr: bool | None = None,
) -> str:
    """Publish a finished run as a repository of the Hugging Face Hub.

    It holds what an entry of a zoo holds, see :func:`publish`, and the hashes of all files,
    ``entry.json``. Its card has the header that the Hub reads: licence, tags, and every metric
    with its spread.

    Parameters
    ----------
    run, speedup, dtype, licence, allow_code
        As in :func:`publish`.
    repo_id, private, token, branch, create_pr
        As in :func:`push_to_hub`.

    Returns
    -------
    str
        Address of the commit, or of the pull request.

    Raises
    ------
    ZooError
        As :func:`publish`, or if the Hub refuses or cannot be reached.
    UserError
        If the run's data would run code that is not allowed.
    """
    Repository.parse(repo_id)  # before the work
    with tempfile.TemporaryDirectory() as parent:
        zoo = FolderZoo(Path(parent) / "zoo")
        folder = publish(
            run, speedup, zoo.path, dtype=dtype, licence=licence, allow_code=allow_code
        )
        config = read_config(folder / CONFIG)
        metrics, speedups = read_record(folder, config.weights.seed)
        card = model_card(config, metrics, speedups, repo_id)
        write_text(folder / "README.md", card_header(config, metrics, repo_id) + card)
        entry = zoo.index().models[folder.name]
        # The card may be edited on the Hub's page; all else is held to its hash.
        files = {file: facts for file, facts in entry.files.items() if file != "README.md"}
        listed = Index(models={folder.name: entry.model_copy(update={"files": files})})
        write_text(folder / ENTRY, listed.dump())
        return upload(
            folder,
            repo_id,
            message=f"Publish {folder.name}.",
            private=private,
            token=token,
            branch=branch,
            create_pr=create_pr,
        )


def card_header(config: Config, metrics: dict[str, Any], repo_id: str) -> str:
    """The card's YAML header: what the Hub shows, sorts and searches by.

    Parameters
    ----------
    config : Config
        Content of ``config.json``.
    metrics : dict
        Content of ``metrics.json``.
    repo_id : str
        Where the card is read.
    """
    data = config.data
    results = []
    for metric, test in metrics["test"].items():
        spread = "" if test["std"] is None else f", standard deviation {test['std']:.4f}"
        results.append(
            {
                "task": {"type": "graph-ml", "name": f"{data.level} {data.target}"},
                "dataset": {"type": data.name, "name": data.name, "split": "test"},
                "metrics": [
                    {
                        "type": metric,
                        "name": f"{metric} (mean of {counted(test['n'], 'seed')}{spread})",
                        "value": test["mean"],
                    }
                ],
                "source": {
                    "name": "metrics.json of the run",
                    "url": f"https://huggingface.co/{repo_id}/blob/main/metrics.json",
                },
            }
        )
    main, _ = main_metric(data.target)
    licence = config.licence.lower()
    known = licence in LICENCES
    return _header(
        {
            "license": licence if known else "other",
            **({} if known else {"license_name": licence.replace(" ", "-")}),
            "metrics": [main],
            "model-index": [{"name": config.name, "results": results}],
        },
        config.model.name,
        [data.name],
    )


def _header(facts: dict[str, Any], architecture: str, tags: list[str]) -> str:
    content = {
        "library_name": "dgl-deepgnn",
        "pipeline_tag": "graph-ml",
        "tags": ["dgl", "graph-neural-network", architecture, *tags],
        **facts,
    }
    return f"---\n{yaml.safe_dump(content, sort_keys=False, allow_unicode=True)}---\n\n"


def _saved_config(model: DeepGNN, name: str) -> SavedConfig:
    kinds = [known for known in MODELS.names() if MODELS[known] is type(model)]
    if not kinds:
        raise ZooError(
            f"{type(model).__name__} has no registered name by which it could be built anew: give "
            "it one, @dgl_deepgnn.register_model(NAME), in a package that the reader installs."
        )
    for key, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ZooError(f"The weight {key} holds values that are not finite.")
    lost = [key for key in constructor_arguments(type(model)) if key not in model.config]
    if lost:
        raise ZooError(
            f"{type(model).__name__} takes {', '.join(lost)}, of which model.config says nothing: "
            "it could not be built anew. Its constructor must put it there."
        )
    facts: dict[str, Any] = {}
    if model.pretrained is not None:
        facts["parent"] = model.pretrained["name"]
        arguments = model.pretrained["model"]["arguments"]
        # A new head may score something else.
        same = all(model.config[key] == arguments[key] for key in ("out_feats", "head"))
        if model.origin is not None and same:
            facts["data"] = DataFacts.model_validate(model.pretrained["data"])
    try:
        config = SavedConfig(
            name=name, model=ModelFacts(name=kinds[0], arguments=model.config), **facts
        )
        config.model_dump_json()
    except ValidationError as error:
        raise ZooError(f"The model cannot be saved as {name!r}: {explain(error)}.") from None
    except PydanticSerializationError as error:
        raise ZooError(f"The model's arguments are no JSON: {error}.") from None
    return config


def _write(folder: Path, config: SavedConfig, model: DeepGNN) -> None:
    save_tensors(folder / WEIGHTS, model.state_dict(), {})
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def _saved_card(config: SavedConfig, model: DeepGNN, repo_id: str) -> str:
    arguments = config.model.arguments
    facts = {
        "architecture": config.model.name,
        "depth": counted(arguments["num_layers"], "graph convolution"),
        "width": arguments["hidden_feats"],
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "loaded from": config.parent or "-",
    }
    rows = "\n".join(f"| {key} | {value} |" for key, value in facts.items())
    kind = type(model).__name__
    return (
        _header({}, config.model.name, []) + f"# {config.name}\n\nA deep graph neural network of "
        "[dgl-deepgnn](https://pypi.org/project/dgl-deepgnn/). How it was trained and what it "
        f"scores, its author has not recorded here.\n\n|  |  |\n| --- | --- |\n{rows}\n\n"
        f"```python\nfrom dgl_deepgnn import {kind}\n\n"
        f'model = {kind}.from_pretrained("{repo_id}")\n```\n'
    )
