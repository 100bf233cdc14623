# SPDX-License-Identifier: MIT
"""vitcore.data.disk: pictures read a batch at a time, and those that cannot be read."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from vitbook.folders import draw
from vitcore.data import Batches, DiskSplit, ImageDataset, Source, Split, read_image
from vitcore.data.standard import MEAN, STD
from vitcore.training import TrainConfig, evaluate, fit
from vitcore.training.checkpoints import digest_data
from vitcore.vit import ViT


@pytest.fixture
def files(tmp_path):
    """Ten pictures of two classes."""
    paths = [tmp_path / f"{number}.png" for number in range(10)]
    for number, path in enumerate(paths):
        draw(path, [["cat"], ["dog"]][number % 2], number)
    return paths


LABELS = torch.arange(10) % 2
SIZE = (16, 24)
OPTIONS: dict[str, Any] = {"mean": MEAN, "std": STD}


def in_memory(files):
    return Split(torch.stack([read_image(path, SIZE, 3) for path in files]), LABELS)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_from_the_disk_are_those_from_memory(files, workers):
    """Order, augmentation and rank follow from the seed alone, wherever the pictures lie."""
    split = DiskSplit(files, LABELS, SIZE, workers=workers)

    def augment(images, generator):
        return images + torch.rand(len(images), 1, 1, 1, generator=generator)

    shared = {"rank": 1, "world_size": 3}
    for options in ({}, {"shuffle": True, "augment": augment}, shared, {"sizes": [8]}):
        made = [Batches(s, 4, seed=3, **OPTIONS, **options) for s in (split, in_memory(files))]
        for _ in range(2):
            before = torch.get_rng_state()
            here, there = map(list, made)
            assert torch.equal(torch.get_rng_state(), before)
            assert len(here) == len(there) == len(made[0])
            for (x, y), (a, b) in zip(here, there, strict=True):
                assert torch.equal(x, a)
                assert torch.equal(y, b)


def test_nothing_is_read_before_it_is_asked_for(files, monkeypatch):
    read = []

    def spy(*arguments):
        read.append(arguments)
        return torch.zeros(3, *SIZE, dtype=torch.uint8)

    monkeypatch.setattr("vitcore.data.disk.read_image", spy)
    split = DiskSplit(files, LABELS, SIZE, workers=0)
    batches = iter(Batches(split, 4, **OPTIONS))
    parts = split.take(torch.tensor([3, 5]))
    assert (read, len(split), split.shape, parts.shape) == ([], 10, (10, 3, 16, 24), (2, 3, 16, 24))
    assert (parts.paths, parts.labels.tolist()) == ([str(files[3]), str(files[5])], [1, 1])
    next(batches)
    assert [path for path, *_ in read] == list(map(str, files[:4]))


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_pictures_are_left_out_and_named(files, workers):
    files[2].write_bytes(files[2].read_bytes()[:40])
    files[8].write_text("no picture")
    files[9].unlink()
    split = DiskSplit(files, LABELS, SIZE, workers=workers)
    assert split.unreadable == []
    seen = [labels.tolist() for _, labels in Batches(split, 2, **OPTIONS)]
    assert seen == [[0, 1], [1], [0, 1], [0, 1]]  # of the last batch nothing can be read
    assert split.unreadable == [str(files[n]) for n in (2, 8, 9)]
    # A worker's copy marks the same memory.
    again = DiskSplit(files, LABELS, SIZE)
    loader = DataLoader(again, 5, num_workers=workers)
    assert [len(labels) for _, labels in loader] == [4, 3]
    assert again.unreadable == split.unreadable
    with pytest.raises(
        ValueError, match=r"none of 2 pictures can be read .*8\.png.*larger batches"
    ):
        again.__getitems__([8, 9])


def test_a_data_loader_over_it_suits_fit_and_evaluate(files):
    files[4].write_text("no picture")
    centre = torch.tensor(MEAN).view(3, 1, 1)
    split = DiskSplit(files, LABELS, 16, transform=lambda image: image / 255 - centre, workers=0)
    torch.manual_seed(0)
    model = ViT(image_size=16, patch_size=8, num_classes=2, dim=16, depth=1, heads=2)
    loader = DataLoader(split, 4, shuffle=True)
    config = TrainConfig(epochs=15, lr=1e-2)
    fit(model, loader, loader, config, device="cpu", progress=False)
    scores = evaluate(model, DataLoader(split, 4))
    assert (scores["accuracy"], scores["count"]) == (1, 9)


def made(parts, classes=("cat", "dog")):
    source, parts = Source("own", "here"), dict(zip(("train", "val", "test"), parts, strict=True))
    return ImageDataset("d", **parts, classes=classes, **OPTIONS, source=source)


def test_a_data_set_on_the_disk(files):
    parts: list[Any] = [DiskSplit(files, LABELS, SIZE) for _ in range(3)]
    dataset = made(parts)
    assert (dataset.image_size, dataset.in_channels, dataset.multi_label) == (SIZE, 3, False)
    few = dataset.subset(4, 2, 0)
    assert few.train.labels.tolist() == [0, 1, 0, 1]
    assert len(few.test.labels) == 0
    assert list(Batches(few.test, 4, **OPTIONS)) == []
    swapped = Batches(DiskSplit(files, 1 - LABELS, SIZE), 4, **OPTIONS)
    assert digest_data(swapped) != digest_data(Batches(dataset.train, 4, **OPTIONS))
    files[0].write_text("no picture")
    assert dataset.unreadable == []
    list(Batches(dataset.val, 4, **OPTIONS))
    assert dataset.unreadable == [str(files[0])]
    with pytest.raises(ValueError, match="labels reach from 0 to 1"):
        made(parts, ["cat"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a"], torch.zeros(2, dtype=torch.long), 8), "labels"),
        ((["a"], [0], 8), "labels"),
        ((["a"], torch.zeros(1, dtype=torch.long), 0), "image_size"),
    ],
)
def test_odd_arguments_are_refused(arguments, words):
    with pytest.raises((TypeError, ValueError), match=words):
        DiskSplit(*arguments)
    with pytest.raises(TypeError, match="workers"):
        DiskSplit(["a"], torch.zeros(1, dtype=torch.long), 8, workers="two")  # type: ignore[arg-type]
