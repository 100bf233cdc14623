# SPDX-License-Identifier: MIT
"""vitcore.runs: one function runs a recipe, from its first batch to the one look at the test."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import contextlib
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch

from vitbook.ladders import CIFAR100_LADDER
from vitcore import runs
from vitcore.data import Split, image_digests
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RunRecord
from vitcore.runs import (
    calibration_error,
    check_unseen,
    confusion_matrix,
    group_accuracy,
    top_k_accuracy,
    train_recipe,
)
from vitcore.training import evaluate, load_weights, predict
from vitcore.vit import ViT


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
    assert confusion_matrix(logits, labels).tolist() == [[1, 0, 0], [1, 1, 0], [0, 1, 1]]


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
    assert run.history.seconds > 0
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
    resume(tiny(), changed, "data.train was")
    images = small_mnist.val.images.clone()
    images[:, 0, 0, 0] ^= 1
    changed = dataclasses.replace(
        small_mnist, val=type(small_mnist.val)(images, small_mnist.val.labels)
    )
    resume(tiny(), changed, "data.val was")
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
    # Small whole numbers are class numbers too, and no mask.
    small = labels.to(torch.uint8)
    counted = confusion_matrix(torch.eye(100), torch.arange(100, dtype=torch.uint8))
    assert torch.equal(counted, torch.eye(100).long())
    assert group_accuracy(logits, small, group_of) == group_accuracy(logits, labels, group_of)
    assert calibration_error(logits, labels) == pytest.approx(error, abs=1e-6)
    assert top_k_accuracy(logits[:, :3], labels % 3) == 1  # fewer classes than five
    # Sure and right is calibrated, sure and wrong is as far off as it gets.
    sure = torch.eye(12)[labels] * 100
    assert calibration_error(sure, labels) == pytest.approx(0)
    assert calibration_error(sure, (labels + 1) % 12) == pytest.approx(1)


def test_calibration_keeps_its_bins_apart():
    """By hand: in two bins an underconfident and an overconfident image do not cancel out."""

    def logits(*rows):
        return torch.tensor(rows, dtype=torch.float64).clamp(min=1e-300).log()

    zero = torch.tensor([0, 1])
    two = logits((0.4, 0.3, 0.3), (0.9, 0.05, 0.05))  # right at 0.4, wrong at 0.9
    assert calibration_error(two, zero, bins=2) == pytest.approx((0.6 + 0.9) / 2)
    # A probability of exactly one lies in the top bin, with what is just below.
    top = logits((0.9, 0.05, 0.05), (1.0, 0.0, 0.0))  # right at 0.9, wrong at 1
    assert calibration_error(top, zero, bins=2) == pytest.approx((1 - 0.1) / 2)
    with pytest.raises(ValueError, match="NaN or infinity"):
        calibration_error(torch.full((2, 3), float("nan")), zero)


def test_the_seed_of_the_recipe_draws_weights_and_batches(small_mnist):
    drawn = []

    def build(config):
        drawn.append(torch.initial_seed())
        return ViT(config)

    for seed in (3, 4):
        train_recipe(
            tiny(seed=seed, epochs=1), small_mnist, device="cpu", progress=False, build=build
        )
    assert drawn == [3, 4]
    cpu = torch.device("cpu")
    orders = [
        runs.make_batches(
            tiny(seed=seed), small_mnist, small_mnist.train, device=cpu, training=True
        ).order()
        for seed in (3, 3, 4)
    ]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


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


def test_a_batch_is_shared_among_processes(small_cifar100, monkeypatch):
    recipe = RECIPES["cifar100-plain"].with_train(batch_size=30)

    def batches(rank, world_size, split, **options):
        monkeypatch.setattr(runs, "distributed_rank", lambda: (rank, world_size))
        cpu = torch.device("cpu")
        return runs.make_batches(recipe, small_cifar100, split, device=cpu, **options)

    shares = [batches(rank, 3, small_cifar100.train, training=True) for rank in range(3)]
    assert [(b.batch_size, len(b), b.drop_last) for b in shares] == [(10, 13, True)] * 3
    assert sum(batches(rank, 3, small_cifar100.test).num_images for rank in range(3)) == 100
    with pytest.raises(ValueError, match="30 images cannot be shared among 4 processes"):
        batches(0, 4, small_cifar100.train, training=True)


def test_answers_of_all_processes_come_together(small_mnist, monkeypatch):
    recipe, theirs = tiny(epochs=1), (torch.ones(2, 10), torch.zeros(2, dtype=torch.long))
    model = ViT(recipe.fitted_to(small_mnist).model)
    batches = runs.make_batches(recipe, small_mnist, small_mnist.test, device=torch.device("cpu"))
    own = runs._answers(model, batches, "fp32")
    assert torch.equal(own[0], predict(model, batches))
    assert torch.equal(own[1], small_mnist.test.labels)

    def gather(parts, mine):
        parts[:] = [mine, [theirs]]

    monkeypatch.setattr("vitcore.training.device.distributed_rank", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for found, mine, other in zip(runs._answers(model, batches, "fp32"), own, theirs, strict=True):
        assert torch.equal(found, torch.cat([mine, other]))


# --- what a run says of itself ---------------------------------------------------------------


@pytest.fixture(scope="module")
def once(small_mnist, tmp_path_factory):
    """One small run in bf16 with a folder, and what it asked of its images."""
    asked = []
    with pytest.MonkeyPatch.context() as patch:
        real = runs.make_batches

        def make_batches(recipe, dataset, split, **options):
            asked.append(len(split.labels))
            return real(recipe, dataset, split, **options)

        patch.setattr(runs, "make_batches", make_batches)
        out = tmp_path_factory.mktemp("once")
        recipe = tiny(precision="bf16", epochs=1)
        run = train_recipe(recipe, small_mnist, device="cpu", out=out, progress=False)
    return run, asked, out


def test_the_test_images_are_looked_at_once(once, small_mnist):
    run, asked, _ = once
    assert asked == [160, 60, 80, 160]  # training, validation, test, training as it is
    part = small_mnist.subset(160, 60, 80)
    images = part.normalise(part.test.images)
    exact = run.test["loss"]
    for precision, same in (("bf16", True), ("fp32", False)):
        logits = predict(run.model, images, precision=precision)
        loss = torch.nn.functional.cross_entropy(logits, part.test.labels).item()
        assert (loss == pytest.approx(exact, rel=1e-6)) is same


def test_clean_training_accuracy_is_that_of_images_as_they_are(once, small_mnist, monkeypatch):
    run, _, _ = once
    part = small_mnist.subset(160, 60, 80)
    logits = predict(run.model, part.normalise(part.train.images), precision="bf16")
    expected = (logits.argmax(dim=1) == part.train.labels).double().mean().item()
    assert run.clean_train_accuracy == pytest.approx(expected)
    # Of more images a fixed part counts, with every class in its share.
    monkeypatch.setattr(runs, "CLEAN_IMAGES", 50)
    again = train_recipe(tiny(epochs=1), small_mnist, device="cpu", progress=False)
    few = part.subset(50, 0, 0)
    logits = predict(again.model, few.normalise(few.train.images))
    expected = (logits.argmax(dim=1) == few.train.labels).double().mean().item()
    assert again.clean_train_accuracy == pytest.approx(expected)


def test_arithmetic_is_counted_by_hand(small_mnist):
    tokens, dim, hidden, pixels = 17, 16, 32, 49
    block = tokens * dim * (3 * dim + dim + 2 * hidden) + 2 * tokens * tokens * dim
    products = 16 * pixels * dim + block + dim * 10
    recipe = tiny()
    values = recipe.to_dict()
    values["model"] |= {"mlp_ratio": 2.0, "class_token": True, "pool": "cls", "registers": 0}
    recipe = Recipe.from_dict(values)
    for kernel in ("fused", "explicit"):
        model = ViT(dataclasses.replace(recipe.model, attention_options={"kernel": kernel})).eval()
        assert runs._count_flops(model, 1, 28) == 2 * products
        expected = 3 * 2 * products * 160 * recipe.train.epochs / 1e15
        assert runs.training_pflop(recipe, model, 160) == pytest.approx(expected, rel=1e-3)
    half = dataclasses.replace(recipe, sizes=((0, 14), (0.5, 28)))
    small = runs._count_flops(model, 1, 14)
    assert small < 2 * products / 3
    expected = 3 * (small + 2 * products) * 160 / 1e15
    assert runs.training_pflop(half.with_train(epochs=2), model, 160) == pytest.approx(
        expected, rel=1e-3
    )
    run = train_recipe(recipe, small_mnist, device="cpu", progress=False)
    assert run.train_pflop == pytest.approx(3 * 2 * products * 160 * 2 / 1e15, rel=1e-3)


def test_other_work_on_the_machine_is_measured(monkeypatch, small_mnist):
    at = iter([100.0, 100.0 + 1e6])
    monkeypatch.setattr(runs, "_other_seconds", lambda: next(at))
    run = train_recipe(tiny(epochs=1), small_mnist, device="cpu", progress=False)
    assert run.other_cores is not None
    assert 1e6 / (run.history.seconds + 60) < run.other_cores <= 1e6 / run.history.seconds
    monkeypatch.setattr(runs, "_other_seconds", lambda: math.nan)
    again = train_recipe(tiny(epochs=1), small_mnist, device="cpu", progress=False)
    assert again.other_cores is None


def test_weights_know_the_images_they_saw(once, small_mnist):
    _, _, out = once
    loaded = load_weights(out / "model.safetensors")
    part = small_mnist.subset(160, 60, 80)
    check_unseen(loaded, part.test)
    for split in (part.train, part.val):  # chosen on is seen as well
        with pytest.raises(ValueError, match=f"compared, {len(split.labels)} are among"):
            check_unseen(loaded, split)
    # One stray duplicate in two hundred is let pass, three are not.
    rest = small_mnist.train.images[~np.isin(image_digests(small_mnist.train.images),
                                             image_digests(part.train.images))]  # fmt: skip
    for count, refused in ((1, False), (3, True)):
        images = torch.cat([rest[:200], part.train.images[:count]])
        split = Split(images, torch.zeros(len(images), dtype=torch.int64))
        with pytest.raises(ValueError) if refused else contextlib.nullcontext():
            check_unseen(loaded, split)
    loaded.metadata.pop("seen_images")
    check_unseen(loaded, part.train)


def test_odd_arguments_are_refused_in_a_sentence(small_mnist, tmp_path):
    empty = dataclasses.replace(small_mnist, val=Split(*(x[:0] for x in small_mnist.val)))
    logits, labels = torch.rand(4, 3), torch.tensor([0, 1, 2, 0])
    text: Any = "mnist"
    number: Any = lambda config: 3  # noqa: E731
    given: list[tuple[Any, type[Exception], str]] = [
        (lambda: train_recipe(text, small_mnist), TypeError, "give a Recipe"),
        (lambda: train_recipe(RECIPES["mnist"], text), TypeError, "give an ImageDataset"),
        (lambda: train_recipe(tiny(), empty), ValueError, r"n_val|the data lacks images"),
        (lambda: train_recipe(tiny(), small_mnist, build=number), TypeError, "build is 3"),
        (lambda: check_unseen(text, small_mnist.test), TypeError, "what load_weights gives"),
        (lambda: top_k_accuracy(logits, labels + 1), ValueError, "between 1 and 3"),
        (lambda: top_k_accuracy(logits, labels[:3]), ValueError, r"\(3,\) on cpu for .*\(4, 3\)"),
        (
            lambda: top_k_accuracy(logits[0], labels),
            ValueError,
            r"logits is .*\(3,\).* give .*\(B, K\)",
        ),
        (lambda: group_accuracy(logits, labels, labels), ValueError, r"shape \(4,\)"),
        (lambda: calibration_error(logits, labels, 0), ValueError, "bins is 0"),
    ]
    for call, error, words in given:
        with pytest.raises(error, match=words):
            call()


def test_seconds_of_other_work(monkeypatch, tmp_path):
    """Cores that are not ours do not count, nor what this process did itself, nor idle time."""
    rows = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 {} 2 3 9000 9000 4 5 6 0 0\ncpu7 900 0 0 0 0 0 0 0 0 0\n"
    monkeypatch.setattr(runs.os, "sched_getaffinity", lambda process: {0}, raising=False)
    monkeypatch.setattr(runs.os, "sysconf", lambda name: 100)
    monkeypatch.setattr(runs.os, "times", lambda: (0.5, 0.25, 0.25, 0.0, 7.0))
    monkeypatch.setattr(runs.Path, "read_text", lambda path, encoding: rows.format(280))
    assert runs._other_seconds() == pytest.approx(3.0 - 1.0)

    def missing(path, encoding):
        raise FileNotFoundError

    monkeypatch.setattr(runs.Path, "read_text", missing)
    assert math.isnan(runs._other_seconds())


def test_the_recipes_seed_orders_the_images(small_mnist):
    def order(seed):
        train = small_mnist.train
        batches = runs.make_batches(
            tiny(seed=seed), small_mnist, train, device=torch.device("cpu"), training=True
        )
        return batches.order().tolist()

    assert order(3) == order(3)
    assert order(3) != order(4)


def test_the_test_images_are_judged_in_the_precision_of_training(small_mnist):
    run = train_recipe(tiny(precision="bf16"), small_mnist, device="cpu", progress=False)
    part = small_mnist.subset(160, 60, 80)
    batches = runs.make_batches(run.recipe, part, part.test, device=torch.device("cpu"))
    losses = {p: evaluate(run.model, batches, precision=p)["loss"] for p in ("bf16", "fp32")}
    assert run.precision == "bf16"
    assert run.test["loss"] == pytest.approx(losses["bf16"], rel=1e-6)
    assert run.test["loss"] != pytest.approx(losses["fp32"], rel=1e-6)
