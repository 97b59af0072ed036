"""What is compared: the recipe's network, and those that one would otherwise take."""

from __future__ import annotations

from typing import Any

from dgl_deepgnn.recipe import Recipe

__all__ = ["COMBINED", "NORMALIZED", "PRINCIPLED", "STOCK", "USUAL", "arms_of"]

STOCK = "stock"
USUAL = "usual practice"
NORMALIZED = "batch normalization"
PRINCIPLED = "principled"
COMBINED = "principled + batch normalization"


def arms_of(recipe: Recipe, ablation: bool = False) -> dict[str, list[dict[str, Any]]]:
    """What each arm changes in the recipe's model, in one or more variants.

    Parameters
    ----------
    recipe : Recipe
        Its model is the principled arm, and with batch normalization the last one, unless it has
        that already.
    ablation : bool
        All eight combinations of the three principles, beside the usual practice.

    Returns
    -------
    dict of str to list of dict
        Settings of ``model`` by the arm's name. Usual practice, and the arms with batch
        normalization, have two variants: the output layer as it is drawn, or started at zero.

    Examples
    --------
    >>> from dgl_deepgnn.recipe import load_recipe
    >>> list(arms_of(load_recipe("resgcn64.digits")))
    ['stock', 'usual practice', 'batch normalization', 'principled', 'principled + batch ...']
    """
    model = recipe.model
    plain_output = {key: v for key, v in model.options.items() if key != "output_gain"}
    outputs = [plain_output, {**plain_output, "output_gain": 0.0}]
    off = {"init": "glorot", "t": 1.0, "residual": None, "options": plain_output}
    on = {key: getattr(model, key) for key in off}
    plain = {**off, "residual": "plain"}
    arms: dict[str, list[dict[str, Any]]] = {STOCK: [off]}
    for name, norm_layer in ((USUAL, "none"), (NORMALIZED, "batch")):
        arms[name] = [{**plain, "norm_layer": norm_layer, "options": some} for some in outputs]
    if model.options.get("checkpoint"):  # which batch normalization does not go with
        del arms[NORMALIZED]
    if ablation:
        words = {"init": "init", "t": "aggregation", "residual": "residual"}
        for mask in range(1, 7):
            chosen = [key for bit, key in enumerate(words) if mask >> bit & 1]
            arms[" + ".join(words[key] for key in chosen)] = [
                {**off, **{key: on[key] for key in chosen}}
            ]
    arms[PRINCIPLED] = [on]
    if NORMALIZED in arms and model.norm_layer != "batch":
        outputs = [model.options, {**model.options, "output_gain": 0.0}]
        arms[COMBINED] = [{**on, "norm_layer": "batch", "options": some} for some in outputs]
    return arms
