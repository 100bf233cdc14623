# SPDX-License-Identifier: MIT
"""vitcore.recipes: recipes are data, and one function runs them to the single look at the test."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json

import pytest
import torch

from vitcore import recipes
from vitcore.recipes import RECIPES, Recipe, confusion_matrix, get_recipe, train_recipe
from vitcore.training import load_weights
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
    same = {"model", "augment", "augment_options", "dataset", "name"}
    assert all(getattr(short, key) == getattr(recipe, key) for key in same)
    assert short.quick() == short


def test_the_default_recipe_bears_the_data_sets_name():
    assert get_recipe("mnist") is RECIPES["mnist"]
    assert get_recipe("mnist", "long") is get_recipe("mnist", "mnist-long") is RECIPES["mnist-long"]
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


def test_confusion_rows_are_the_true_classes():
    logits = torch.eye(3)[[0, 1, 1, 2, 0]]
    labels = torch.tensor([0, 1, 2, 2, 1])
    assert confusion_matrix(logits, labels, 3).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


def tiny(**changes) -> Recipe:
    recipe = RECIPES["mnist"].quick().with_train(batch_size=32, **changes)
    values = recipe.to_dict()
    values["images"] = [160, 60, 80]
    values["model"] |= {"dim": 16, "depth": 1, "heads": 2}
    return Recipe.from_dict(values)


def test_a_run_from_recipe_to_weights(small_mnist, tmp_path):
    run = train_recipe(tiny(), small_mnist, device="cpu", out=tmp_path, progress=False)
    assert len(run.history) == 2
    assert run.test["count"] == 80
    assert run.confusion.sum() == 80
    assert run.confusion.diagonal().sum() / 80 == pytest.approx(run.test["accuracy"])
    part = small_mnist.subset(160, 60, 80)
    counts = torch.bincount(part.test.labels, minlength=10)
    assert run.confusion.sum(dim=1).tolist() == counts.tolist()
    assert run.seconds == run.history.seconds > 0
    loaded = load_weights(tmp_path / "model.safetensors")
    for name, value in run.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    assert loaded.classes == small_mnist.classes
    # The statistics of the images that it saw, not of those left aside.
    assert loaded.mean == pytest.approx(part.mean)
    assert loaded.metadata["dataset"] == "mnist"
    assert "stand-in" in loaded.metadata["source"]

    again = train_recipe(tiny(), small_mnist, device="cpu", progress=False)
    for name, value in run.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    other = train_recipe(tiny(seed=1), small_mnist, device="cpu", progress=False)
    one, two = (r.model.state_dict()["head.weight"] for r in (run, other))
    assert not torch.equal(one, two)


def test_resume_knows_the_recipe_and_the_images(small_mnist, tmp_path):
    train_recipe(tiny(), small_mnist, device="cpu", out=tmp_path, progress=False)

    def resume(recipe, dataset, words):
        with pytest.raises(ValueError, match=words):
            train_recipe(recipe, dataset, device="cpu", out=tmp_path, resume=True, progress=False)

    values = tiny().to_dict()
    resume(
        Recipe.from_dict({**values, "augment": None, "augment_options": {}}),
        small_mnist,
        "metadata.recipe.augment was",
    )
    resume(tiny(seed=3), small_mnist, "config.seed was 0 and is 3")
    images = small_mnist.train.images.clone()
    images[:, 0, 0, 0] ^= 1
    changed = recipes.dataclasses.replace(
        small_mnist, train=type(small_mnist.train)(images, small_mnist.train.labels)
    )
    resume(tiny(), changed, "metadata.data was")
    # A note is only words.
    train_recipe(
        Recipe.from_dict({**values, "note": "other words"}),
        small_mnist,
        device="cpu",
        out=tmp_path,
        resume=True,
        progress=False,
    )


def test_only_training_is_shuffled_and_augmented(small_mnist):
    recipe = RECIPES["mnist"]
    cpu = torch.device("cpu")
    plain = recipes.make_batches(recipe, small_mnist, small_mnist.val, device=cpu)
    assert (plain.shuffle, plain.augment, plain.drop_last) == (False, None, False)
    train = recipes.make_batches(recipe, small_mnist, small_mnist.train, device=cpu, training=True)
    assert train.shuffle
    assert train.augment is not None
    assert train.batch_size == recipe.train.batch_size
