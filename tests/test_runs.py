# SPDX-License-Identifier: MIT
"""vitcore.runs: one function runs a recipe, from its first batch to the one look at the test."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from vitbook.ladders import CIFAR100_LADDER
from vitcore import runs
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RunRecord
from vitcore.runs import (
    calibration_error,
    confusion_matrix,
    group_accuracy,
    top_k_accuracy,
    train_recipe,
)
from vitcore.training import load_weights


def test_a_compiled_model_sees_whole_batches_alone(small_cifar100):
    cpu = torch.device("cpu")
    for name, whole in (("cifar100-gpu", True), ("cifar100-cpu", False)):
        recipe = RECIPES[name].with_train(batch_size=64)
        batches = runs.make_batches(
            recipe, small_cifar100, small_cifar100.train, device=cpu, training=True
        )
        assert batches.drop_last is whole


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
    changed = dataclasses.replace(
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
    plain = runs.make_batches(recipe, small_mnist, small_mnist.val, device=cpu)
    assert (plain.shuffle, plain.augment, plain.drop_last) == (False, None, False)
    train = runs.make_batches(recipe, small_mnist, small_mnist.train, device=cpu, training=True)
    assert train.shuffle
    assert train.augment is not None
    assert train.batch_size == recipe.train.batch_size


def test_scores_of_many_classes_by_hand():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 12, generator=generator) * 2
    labels = torch.randint(12, (500,), generator=generator)
    group_of = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    top, coarse, gaps = 0, 0, [[0.0, 0.0, 0.0] for _ in range(15)]
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        order = sorted(range(12), key=lambda c: -row[c])
        top += label in order[:5]
        coarse += order[0] // 3 == label // 3
        total = sum(math.exp(value) for value in row)
        confidence = math.exp(row[order[0]]) / total
        cell = gaps[min(14, int(confidence * 15))]
        cell[0] += 1
        cell[1] += confidence
        cell[2] += order[0] == label
    error = sum(n / 500 * abs(c / n - hits / n) for n, c, hits in gaps if n)
    assert top_k_accuracy(logits, labels) == pytest.approx(top / 500)
    assert group_accuracy(logits, labels, group_of) == pytest.approx(coarse / 500)
    assert calibration_error(logits, labels) == pytest.approx(error, abs=1e-6)
    assert top_k_accuracy(logits[:, :3], labels % 3) == 1  # fewer classes than five
    # Sure and right is calibrated, sure and wrong is as far off as it gets.
    sure = torch.eye(12)[labels] * 100
    assert calibration_error(sure, labels) == pytest.approx(0)
    assert calibration_error(sure, (labels + 1) % 12) == pytest.approx(1)


def small(recipe):
    values = recipe.quick().with_train(batch_size=25, epochs=1).to_dict()
    values["images"] = [100, 100, 100]
    values["model"] |= {"dim": 12, "depth": 1}
    return Recipe.from_dict(values)


@pytest.mark.parametrize("name", [*CIFAR100_LADDER[::3], "cifar100-cpu", "cifar100-gpu"])
def test_from_a_rung_to_its_record(name, small_cifar100, tmp_path):
    recipe = small(RECIPES[name])
    if recipe.model.heads == 5:
        recipe = Recipe.from_dict(
            {**recipe.to_dict(), "model": {**recipe.model.to_dict(), "dim": 15}}
        )
    run = train_recipe(recipe, small_cifar100, device="cpu", out=tmp_path, progress=False)
    RunRecord.from_run(run, small_cifar100, "python -m vitcore train cifar100").write(
        tmp_path / "record.json"
    )
    record = RunRecord.read(tmp_path / "record.json")
    assert record.more == run.more
    assert set(record.more) == {"coarse_accuracy", "top5_accuracy", "calibration_error"}
    assert record.more["top5_accuracy"] >= record.test_accuracy
    group_of = small_cifar100.group_of.tolist()
    coarse = sum(
        count
        for i, row in enumerate(record.confusion)
        for j, count in enumerate(row)
        if group_of[i] == group_of[j]
    )
    assert record.more["coarse_accuracy"] == pytest.approx(coarse / record.test_images)
    assert record.recipe["mix"] == RECIPES[name].mix
    images, targets = next(
        iter(
            runs.make_batches(
                run.recipe,
                small_cifar100,
                small_cifar100.train,
                device=torch.device("cpu"),
                training=True,
            )
        )
    )
    side = (*recipe.size_by_epoch(), 32)[0]
    assert images.shape == (25, 3, side, side)
    assert targets.shape == ((25, 100) if recipe.mix else (25,))


def test_ten_classes_without_groups_have_no_further_scores(small_mnist):
    run = train_recipe(tiny(epochs=1), small_mnist, device="cpu", progress=False)
    assert run.more == {}


def test_a_batch_is_shared_among_processes(small_cifar100):
    recipe = RECIPES["cifar100-plain"].with_train(batch_size=30)
    options: dict[str, Any] = {"device": torch.device("cpu"), "world_size": 3}
    shares = [
        runs.make_batches(
            recipe, small_cifar100, small_cifar100.train, training=True, rank=rank, **options
        )
        for rank in range(3)
    ]
    assert [(b.batch_size, len(b), b.drop_last) for b in shares] == [(10, 13, True)] * 3
    tests = [
        runs.make_batches(recipe, small_cifar100, small_cifar100.test, rank=rank, **options)
        for rank in range(3)
    ]
    assert sum(b.num_images for b in tests) == 100
    with pytest.raises(ValueError, match="30 images cannot be shared among 4 processes"):
        runs.make_batches(
            recipe,
            small_cifar100,
            small_cifar100.train,
            device=torch.device("cpu"),
            training=True,
            world_size=4,
        )


def test_rows_of_all_processes_come_back_in_order(monkeypatch):
    whole = torch.arange(14.0).view(7, 2)

    def gather(parts, mine):
        assert torch.equal(mine, whole[1::3])
        parts[:] = [whole[rank::3] for rank in range(3)]

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert torch.equal(runs._gathered(whole[1::3], 7, 3), whole)
    assert runs._gathered(whole, 7, 1) is whole
