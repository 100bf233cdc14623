# SPDX-License-Identifier: MIT
"""vitcore.recipes: recipes are data, which fit themselves to other images."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from vitbook import ladders  # noqa: F401  (the tests below serve its recipes as well)
from vitcore import recipes, runs
from vitcore.recipes import RECIPES, Recipe, get_recipe
from vitcore.vit import ViTConfig


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_data(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.note
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    short = recipe.quick()
    assert Recipe.from_dict(json.loads(json.dumps(short.to_dict()))) == short
    assert short.train.epochs <= 2
    # Only the length changes: the code that runs is the same.
    same = {"model", "augment", "augment_options", "mix", "mix_options", "dataset", "name"}
    assert all(getattr(short, key) == getattr(recipe, key) for key in same)
    assert short.quick() == short


def test_the_default_recipe_bears_the_data_sets_name():
    assert get_recipe("mnist") is RECIPES["mnist"]
    assert get_recipe("mnist", "long") is get_recipe("mnist", "mnist-long") is RECIPES["mnist-long"]
    assert get_recipe("cifar100") is get_recipe("cifar100", "cpu") is RECIPES["cifar100-cpu"]
    with pytest.raises(ValueError, match="mnist, mnist-long"):
        get_recipe("mnist", "short")
    with pytest.raises(ValueError, match="data sets with recipes"):
        get_recipe("imagenet")


def test_a_recipe_fits_itself_to_other_data(small_cifar100):
    recipe = RECIPES["mnist"].with_train(seed=4)
    assert recipe.train.seed == 4
    assert RECIPES["mnist"].train.seed == 0
    other = Recipe.from_dict({**recipe.to_dict(), "model": ViTConfig(patch_size=8).to_dict()})
    fitted = other.fitted_to(small_cifar100)
    model = fitted.model
    assert (model.image_size, model.in_channels, model.num_classes) == (32, 3, 100)
    assert fitted.dataset == "cifar100"


def test_progressive_resizing_is_data(small_cifar100):
    recipe = dataclasses.replace(
        RECIPES["cifar100-plain"].with_train(epochs=5), sizes=((0, 16), (0.4, 24), (0.8, 32))
    )
    assert recipe.size_by_epoch() == [16, 16, 24, 24, 32]
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    cpu = torch.device("cpu")
    batches = runs.make_batches(
        recipe, small_cifar100, small_cifar100.train, device=cpu, training=True
    )
    assert batches.sizes == (16, 16, 24, 24, 32)
    assert not runs.make_batches(recipe, small_cifar100, small_cifar100.val, device=cpu).sizes
    assert RECIPES["cifar100-plain"].size_by_epoch() == []
    for wrong in (((0.2, 24),), ((0, 24), (1, 32)), ((0, 24), (0.7, 28), (0.3, 32))):
        with pytest.raises(ValueError, match=r"such as \(\(0, 24\)"):
            dataclasses.replace(recipe, sizes=wrong)


def test_what_runs_a_recipe_is_found_under_the_old_path():
    from vitcore.recipes import make_batches, train_recipe

    assert (make_batches, train_recipe) == (runs.make_batches, runs.train_recipe)
    with pytest.raises(ImportError, match="no_such"):
        from vitcore.recipes import no_such  # noqa: F401
    assert not hasattr(recipes, "no_such")
