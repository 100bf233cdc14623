# SPDX-License-Identifier: MIT
"""What chapter 11 (11_pretrained.ipynb) measures: several starts, and five images of each class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import transfer
from vitbook import pretraining, studies
from vitbook.torchvision import import_torchvision
from vitcore import ViT
from vitcore.data import ImageDataset, Split, load_dataset
from vitcore.training import TrainConfig

import_torchvision()  # before timm, which imports it


def drawn_data() -> ImageDataset:
    """Ten classes, of which each has a colour."""
    whole = load_dataset("cifar100", stand_in=True)

    def part(count: int, seed: int) -> Split:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 10
        colours = torch.randint(256, (10, 3, 1, 1), generator=torch.Generator().manual_seed(9))
        noise = torch.randint(-40, 40, (count, 3, 32, 32), generator=generator)
        return Split((colours[labels] + noise).clamp(0, 255).to(torch.uint8), labels)

    names = [str(k) for k in range(10)]
    parts: dict[str, Any] = {"train": part(320, 0), "val": part(40, 1), "test": part(80, 2)}
    return replace(whole, classes=names, groups=None, group_of=None, **parts)


def small_plan() -> transfer.Plan:
    model = replace(transfer.RECIPE.model, num_classes=5, dim=16, depth=1, heads=2, patch_size=8)
    recipe = replace(transfer.RECIPE, model=model).with_train(epochs=2, batch_size=16)
    return transfer.Plan(
        recipe=recipe, shots=4, tune=TrainConfig(epochs=2, batch_size=10), rates=(1e-3, 3e-3)
    )


def test_the_halves_share_no_class() -> None:
    data = drawn_data()
    base, new = transfer.half_of(data, 0), transfer.half_of(data, 1)
    assert (base.classes, new.classes) == (["0", "2", "4", "6", "8"], ["1", "3", "5", "7", "9"])
    for half, first in ((base, 0), (new, 1)):
        assert torch.equal(half.test.images, data.test.images[data.test.labels % 2 == first])
        assert torch.equal(half.train.labels.bincount(), torch.full((5,), 32))
    few = transfer.few_of(new.train, 4, seed=1)
    assert few.labels.tolist() == [k for k in range(5) for _ in range(4)]
    assert not torch.equal(few.images, transfer.few_of(new.train, 4, seed=2).images)
    known = {tuple(image.flatten().tolist()) for image in new.train.images}
    assert all(tuple(image.flatten().tolist()) in known for image in few.images)


def test_a_study_stops_and_goes_on(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is a development dependency")
    data, plan = drawn_data(), small_plan()
    said: list[str] = []
    options: dict[str, Any] = {"seeds": (0,), "precision": "fp32", "say": said.append}
    record = transfer.run(tmp_path, data, plan, limit=2, **options)
    assert transfer.todo(record) == [(0, "distilled"), (0, "scratch"), (0, "pixels")]
    first = json.loads((tmp_path / "record.json").read_text("utf-8"))
    assert not first["complete"]
    record = transfer.run(tmp_path, data, plan, **options)
    assert len(said) == len(transfer.STARTS)
    assert record["complete"]
    starts = record["starts"]
    assert starts["supervised"] == first["starts"]["supervised"]
    for name in ("supervised", "autoencoder", "distilled", "scratch"):
        assert list(starts[name]["scores"]) == ["fine-tuned", "probe", "nearest"]
        assert starts[name]["rate"][0] in plan.rates
    assert list(starts["pixels"]["scores"]) == ["nearest"]
    assert starts["pixels"]["scores"]["nearest"][0] > 0.9  # each class has its colour
    assert starts["scratch"]["tflop"] == [0.0]
    assert "base_accuracy" in starts["distilled"]
    assert "base_accuracy" not in starts["autoencoder"]
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    with pytest.raises(ValueError, match="another plan"):
        transfer.run(tmp_path, data, replace(plan, shots=3), **options)


def test_the_test_images_are_seen_by_the_chosen_model_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    new, plan = transfer.half_of(drawn_data(), 1), small_plan()
    seen: list[tuple[bool, ViT]] = []
    real = transfer.answer

    def answer(model: ViT, split: Split, *rest: Any) -> float:
        seen.append((split is new.test, model))
        return real(model, split, *rest)

    monkeypatch.setattr(transfer, "answer", answer)
    start = transfer.Start(ViT(plan.recipe.model))
    found = transfer.score(start, new, plan, 0, "fp32")
    assert [test for test, _ in seen] == [False] * len(plan.rates) + [True]
    chosen = [model for _, model in seen[:-1]].index(seen[-1][1])
    values = [real(model, new.val, new, "fp32") for _, model in seen[:-1]]
    assert found["rate"] == plan.rates[chosen]
    assert values[chosen] == max(values)


def test_a_record_of_transfer_is_checked() -> None:
    values = transfer._begin(drawn_data(), small_plan(), (0, 1), "fp32")
    studies.TransferRecord.from_dict(values)
    rows = {"seeds": [0], "tflop": [1.0], "cpu_seconds": [2.0], "scores": {"probe": [0.5]}}
    values["starts"]["supervised"] |= rows
    studies.TransferRecord.from_dict(values)
    for wrong, says in (
        ({"seeds": [1]}, "not declared"),
        ({"tflop": []}, "one number for each"),
        ({"scores": {"probe": [50.0]}}, "between 0 and 1"),
        ({"scores": {"probe": []}}, "one number for each"),
    ):
        changed = {**values, "starts": {"supervised": {**values["starts"]["supervised"], **wrong}}}
        with pytest.raises(ValueError, match=says):
            studies.TransferRecord.from_dict(changed)
    with pytest.raises(ValueError, match="says it is complete"):
        studies.TransferRecord.from_dict({**values, "complete": True})


def test_every_start_costs_the_same_arithmetic() -> None:
    """With the plan as it is: to a few per cent, which whole epochs leave."""
    pytest.importorskip("timm", reason="timm is a development dependency")
    plan = transfer.Plan()
    images = torch.zeros(22_500, 1, 1, 1, dtype=torch.uint8).expand(-1, 3, 32, 32)
    labels = torch.arange(22_500) % 50
    data = replace(drawn_data(), classes=[str(k) for k in range(50)],
                   train=Split(images, labels), val=Split(images[:50], labels[:50]),
                   test=Split(images[:50], labels[:50]))  # fmt: skip
    work = transfer.Work(plan, plan.recipe, data, Path())
    vit = ViT(plan.recipe.model)
    autoencoder = pretraining.MaskedAutoencoder(ViT(plan.recipe.model, num_classes=0))
    epochs, budget = work.epochs(1.0, vit)
    assert epochs == plan.recipe.train.epochs
    assert work.epochs(1.0, autoencoder)[1] == pytest.approx(budget, rel=0.05)
    teacher = transfer.resnet.build(plan.recipe.model)
    taught, cost = work.epochs(plan.teacher_share, teacher)
    student = pretraining.DistilledViT(plan.recipe.model)
    rest = work.epochs(1 - plan.teacher_share, student, cost / taught / 3000)[1]
    assert cost + rest == pytest.approx(budget, rel=0.1)
