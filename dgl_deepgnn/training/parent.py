"""Fine-tuning: a training that starts from the layers of a published model."""

from __future__ import annotations

import hashlib

from dgl_deepgnn.errors import UserError
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.recipe import ParentSection

__all__ = ["body_of", "start_from", "weights_sha256"]

FREE = ("out_feats", "dropout", "output_gain", "checkpoint")
"""Arguments of the model that may differ from the parent's: no weight of the body depends on it."""


def start_from(model: DeepGNN, parent: ParentSection) -> None:
    """Give a model the layers of its parent; the head stays as it was drawn.

    With a rate of zero they are frozen.

    Parameters
    ----------
    model : DeepGNN
        A new model of the recipe.
    parent : ParentSection
        Which model, and where.

    Raises
    ------
    UserError
        If the parent is another network, or not the one that the recipe was made for.
    ZooError
        If it cannot be loaded.
    """
    source = type(model).from_pretrained(parent.name, parent.zoo)
    differing = [
        f"{key}: {source.config.get(key)!r} there, {value!r} here"
        for key, value in model.config.items()
        if key not in FREE and source.config.get(key) != value
    ]
    if differing:
        raise UserError(
            f"{parent.name} is another network than the recipe's ({'; '.join(differing)}). Its "
            "layers fit features of the same number, scores of the same kind (of nodes, graphs or "
            "edges), and the same model section."
        )
    found = weights_sha256(source)
    if parent.sha256 is not None and found != parent.sha256:
        raise UserError(
            f"The weights of {parent.name} are not those that this training was started from "
            f"(SHA-256 {found[:12]}..., then {parent.sha256[:12]}...). Say where those are: "
            "parent.zoo."
        )
    inside = body_of(model)
    model.load_state_dict(
        {name: tensor for name, tensor in source.state_dict().items() if name in inside},
        strict=False,
    )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in inside or parent.body_rate > 0)


def body_of(model: DeepGNN) -> set[str]:
    """Names of the parameters and buffers that fine-tuning keeps: all but those of the head."""
    return {name for name in model.state_dict() if not name.startswith(model.head_prefix)}


def weights_sha256(model: DeepGNN) -> str:
    """SHA-256 of all weights of a model, by name.

    Examples
    --------
    >>> from dgl_deepgnn import ResGCN
    >>> model = ResGCN.from_pretrained("resgcn64.digits")
    >>> weights_sha256(model) == weights_sha256(ResGCN.from_pretrained("resgcn64.digits"))
    True
    """
    digest = hashlib.sha256()
    state = model.state_dict()
    for name in sorted(state):
        values = state[name].detach().cpu().numpy()
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode() + values.tobytes())
    return digest.hexdigest()
