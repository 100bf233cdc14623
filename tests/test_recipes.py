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
from vitcore.data import ImageDataset, Source, Split
from vitcore.recipes import RECIPES, Recipe, folder_recipe, get_recipe
from vitcore.vit import ViT, ViTConfig


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_recipes_are_data(name):
    recipe = RECIPES[name]
    assert recipe.name == name
    assert recipe.note
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    short = recipe.quick()
    assert Recipe.from_dict(json.loads(json.dumps(short.to_dict()))) == short
    assert short.train.epochs <= 2
    assert not short.train.compile  # minutes to begin with
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
        get_recipe("places365")


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
        with pytest.raises(ValueError, match=r"such as \(\(0, 24\)|a pair of sizes is"):
            dataclasses.replace(recipe, sizes=wrong)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 3}, "name is 3"),
        ({"note": None}, "note is None"),
        ({"model": 3}, "model is 3"),
        ({"train": {}}, "argument: 'epochs'"),
        ({"augment": "none"}, "the augmentation is 'none'; give one of"),
        ({"augment_options": {"degree": 1}}, "the augmentation 'digits': got an unexpected"),
        ({"augment_options": {1: 1}}, "option in augment_options is 1"),
        ({"augment_options": 3}, "augment_options is 3"),
        ({"mix": "mixup"}, "the mixing is 'mixup'; give one of"),
        ({"images": 3}, "give 3 values"),
        ({"images": (1, 2)}, "give 3 values"),
        ({"images": (1, 2, -3)}, "a value of images is -3"),
        ({"sizes": 3}, "give pairs"),
        ({"sizes": ((0,),)}, "a pair of sizes is .* give 2 values"),
        ({"sizes": ((0, 24),)}, "24 x 24 pixels does not divide into patches of 7"),
        ({"sizes": ((0, 14), (0, 28))}, "rising numbers"),
        ({"sizes": ((0, 14), (1.5, 28))}, "a value of a pair of sizes is 1.5"),
    ],
)
def test_a_recipe_that_cannot_run_is_refused_at_once(changes, words):
    with pytest.raises((TypeError, ValueError), match=words):
        dataclasses.replace(RECIPES["mnist"], **changes)


def test_what_is_no_recipe_is_refused(small_mnist):
    values = RECIPES["mnist"].to_dict()
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        Recipe.from_dict({**values, "colour": 1})
    with pytest.raises(TypeError, match="argument: 'model'"):
        Recipe.from_dict({"name": "mine", "dataset": "mnist"})
    with pytest.raises(TypeError, match="unexpected keyword argument 'epoch'"):
        RECIPES["mnist"].with_train(epoch=3)
    with pytest.raises(TypeError, match="give an ImageDataset"):
        RECIPES["mnist"].fitted_to("mnist")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="dataset is 3"):
        get_recipe(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("size", "count", "patch", "batch_size", "epochs"),
    [((64, 64), 400, 8, 50, 50), ((60, 42), 80, 3, 10, 50), ((28, 28), 30, 2, 8, 100),
     ((7, 5), 4000, 1, 64, 10)],
)  # fmt: skip
def test_a_recipe_for_a_folder_follows_from_its_images(size, count, patch, batch_size, epochs):
    split = Split(torch.zeros(count, 3, *size, dtype=torch.uint8), torch.arange(count) % 2)
    few = Split(*(part[:4] for part in split))
    own = ImageDataset("folder", split, few, few, ["a", "b"], (0.5,) * 3, (0.5,) * 3,
                       Source("own", "drawn"))  # fmt: skip
    recipe = folder_recipe(own)
    assert recipe == recipe.fitted_to(own)
    assert (recipe.model.patch_size, recipe.model.num_classes) == (patch, 2)
    assert (recipe.train.batch_size, recipe.train.epochs) == (batch_size, epochs)
    assert recipe.augment_options["flip"] is False  # a mirrored letter is another letter
    ViT(recipe.model)(torch.zeros(1, 3, *size))


def test_what_runs_a_recipe_is_found_under_the_old_path():
    from vitcore.recipes import make_batches, train_recipe

    assert (make_batches, train_recipe) == (runs.make_batches, runs.train_recipe)
    with pytest.raises(ImportError, match="no_such"):
        from vitcore.recipes import no_such  # noqa: F401
    assert not hasattr(recipes, "no_such")
