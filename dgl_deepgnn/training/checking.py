"""The depth check of a recipe: its model, data, loss and optimizer at other sizes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from dgl_deepgnn.diagnostics.depth_check import DepthCheck, depth_check
from dgl_deepgnn.nn import DeepGNN
from dgl_deepgnn.recipe import Recipe, load_recipe
from dgl_deepgnn.training.batches import Batch, Batches
from dgl_deepgnn.training.run import load_task
from dgl_deepgnn.training.trainer import Trainer, build_model, make_optimizer

__all__ = ["check_recipe"]


def check_recipe(
    recipe: Recipe | str | Path,
    depths: Sequence[int] = (8, 32, 128),
    widths: Sequence[int] = (16, 64, 256),
    *,
    steps: int = 3,
    seeds: int = 4,
    allow_code: bool = False,
) -> DepthCheck:
    """Compare a recipe's first steps over depth and width.

    All steps are on the first batch of the first seed's split, with the recipe's full learning
    rate: without schedule, dropout and clipping.

    Parameters
    ----------
    recipe : Recipe, str or Path
        A recipe, or its name or path; its own depth and width do not matter.
    depths, widths, steps, seeds
        As in :func:`dgl_deepgnn.diagnostics.depth_check`.
    allow_code : bool
        As in :func:`dgl_deepgnn.train`.

    Returns
    -------
    DepthCheck
        The verdicts.

    Raises
    ------
    DGLError
        If a number is not positive or there is nothing to compare.
    """
    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    data = load_task(recipe, allow_code)
    first = recipe.seeds[0]
    size = {"num_layers": min(depths, default=1), "hidden_feats": min(widths, default=1)}
    smallest = recipe.model_copy(update={"model": recipe.model.model_copy(update=size)})
    loss = Trainer(smallest, data, first).loss
    batches: WeakKeyDictionary[nn.Module, Batch] = WeakKeyDictionary()
    labels: list[Tensor] = []

    def make_model(num_layers: int, hidden_feats: int) -> DeepGNN:
        update = {"num_layers": num_layers, "hidden_feats": hidden_feats}
        return build_model(recipe.model.model_copy(update=update), data)

    def forward(model: nn.Module) -> Tensor:
        assert isinstance(model, DeepGNN)
        if model not in batches:
            found = Batches(
                data,
                first % len(data.splits),
                model,
                recipe.training.batching,
                torch.device("cpu"),
            )
            batches[model] = next(found.training(torch.Generator().manual_seed(first)))
        batch = batches[model]
        mask = batch.masks["train"]
        labels[:] = [batch.labels[mask]]
        return batch.scores(model)[mask]

    return depth_check(
        make_model,
        None,
        depths,
        widths,
        make_optimizer=lambda model: make_optimizer(recipe.optimizer, cast(DeepGNN, model)),
        forward=forward,
        loss=lambda scores: loss(scores, labels[0]),
        steps=steps,
        seeds=seeds,
    )
