"""The recipes that come with the package, on data that needs no network."""

from __future__ import annotations

import copy
from functools import cache
from itertools import product

import pytest
import torch

from dgl_deepgnn.data import TaskData, load_data
from dgl_deepgnn.recipe import list_recipes, load_recipe
from dgl_deepgnn.training import Trainer

EMBEDDED = ("digits", "digits-grid", "karate", "csbm", "tracks", "long-range", "ring-transfer")
EMBEDDED += ("eccentricity", "opinions")
WITHIN_REACH = {"ring-transfer": {"num_nodes": 4}}
"""Options with which four layers get a gradient at all."""
RECIPES = [name for name in list_recipes() if load_recipe(name).data.name in EMBEDDED]


@cache
def data_of(name: str) -> TaskData:
    section = load_recipe(name).data
    reach = WITHIN_REACH.get(section.name, {})
    return load_data(section.name, **{**section.options, **reach})


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_takes_a_step(name: str) -> None:
    smaller = {"model.num_layers": 4, "model.hidden_feats": 4, "training.epochs": None}
    # Behind scores that start at zero, from the second step on: the first moves the scores' layer.
    steps = 2 if load_recipe(name).model.options.get("output_gain") == 0 else 1
    recipe = load_recipe(name, {**smaller, "training.steps": steps, "training.batch_size": None})
    trainer = Trainer(recipe, data_of(name), seed=0)
    before = copy.deepcopy(trainer.model.convs)
    while trainer.step < steps:
        for step in trainer.run_epoch():
            assert 0 < step.loss < 100
    # Every convolution learns from the first step on, those of zero-started branches too.
    for old, new in zip(before, trainer.model.convs, strict=True):
        pairs = zip(old.parameters(), new.parameters(), strict=True)
        assert any(not torch.equal(*pair) for pair in pairs)


def test_every_family_has_a_recipe_at_every_level() -> None:
    cells = {(load_recipe(name).model.name, data_of(name).level) for name in RECIPES}
    assert cells >= set(product(("resgcn", "resgraphsage", "resgin"), ("node", "edge", "graph")))
