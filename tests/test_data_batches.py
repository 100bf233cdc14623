# SPDX-License-Identifier: MIT
"""Batches: every image once an epoch, repeated exactly from seed and epoch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from data_helpers import (
    PLAIN,
    labels_of,
    noise,
    numbered,
)

from vitcore.data import (
    Batches,
    Split,
)


def test_batches_normalise_and_keep_image_and_label_together(small_cifar100):
    for shuffle in (False, True):
        batches = Batches(
            small_cifar100.train,
            64,
            mean=small_cifar100.mean,
            std=small_cifar100.std,
            shuffle=shuffle,
        )
        order = batches.order()
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        expected = small_cifar100.normalise(small_cifar100.train.images[order])
        torch.testing.assert_close(images, expected)
        assert images.dtype == torch.float32
        assert torch.equal(labels, small_cifar100.train.labels[order])
        assert len(batches) == 7
        assert batches.num_images == 400


def test_batches_do_not_write_to_the_data_set():
    split = numbered()
    for images, labels in Batches(split, 8, **PLAIN):
        images += 1
        labels += 1
    assert torch.equal(split.images, numbered().images)
    assert torch.equal(split.labels, numbered().labels)


def test_every_image_once_an_epoch_in_an_order_of_its_own():
    batches = Batches(numbered(), 10, shuffle=True, seed=3, **PLAIN)
    epochs = []
    for epoch in range(3):
        batches.set_epoch(epoch)
        epochs.append(labels_of(batches))
        assert sorted(epochs[-1]) == list(range(103))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    # What is seen follows from seed and epoch alone: a fresh object, another random state.
    torch.manual_seed(99)
    fresh = Batches(numbered(), 10, shuffle=True, seed=3, **PLAIN)
    fresh.set_epoch(2)
    assert labels_of(fresh) == epochs[2]
    other = Batches(numbered(), 10, shuffle=True, seed=4, **PLAIN)
    other.set_epoch(2)
    assert labels_of(other) != epochs[2]
    assert labels_of(Batches(numbered(), 10, **PLAIN)) == list(range(103))


def test_augmentation_repeats_from_seed_and_epoch_and_batch():
    def run(epoch: int, seed: int = 0, rank: int = 0, world: int = 1) -> torch.Tensor:
        split = Split(torch.zeros(40, 1, 2, 2, dtype=torch.uint8), torch.zeros(40).long())
        batches = Batches(split, 10, augment=noise, seed=seed, rank=rank, world_size=world, **PLAIN)
        batches.set_epoch(epoch)
        return torch.cat([images for images, _ in batches])

    first = run(1)
    torch.rand(7)
    assert torch.equal(first, run(1))
    assert not torch.equal(first, run(2))
    assert not torch.equal(first, run(1, seed=1))
    blocks = first.split(10)
    assert not any(torch.equal(blocks[0], block) for block in blocks[1:])
    assert not torch.equal(run(1, rank=0, world=2), run(1, rank=1, world=2))


def test_augmentation_sees_values_from_0_to_1_and_comes_before_normalisation():
    seen = []

    def spy(images, generator):
        seen.append((images.min().item(), images.max().item(), images.dtype))
        return images * 0 + 0.75

    split = Split(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1), torch.zeros(2).long())
    ((images, _),) = Batches(split, 2, mean=(0.5,), std=(0.25,), augment=spy)
    assert seen == [(0.0, 1.0, torch.float32)]
    assert images.flatten().tolist() == [1.0, 1.0]


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("shuffle", [False, True])
def test_ranks_share_without_repeating_or_losing(world, shuffle):
    def share(rank: int, **options) -> list[int]:
        options = {"shuffle": shuffle, "rank": rank, "world_size": world, **options}
        return labels_of(Batches(numbered(), 8, **PLAIN, **options))

    assert sorted(x for rank in range(world) for x in share(rank)) == list(range(103))
    dropped = [share(rank, drop_last=True) for rank in range(world)]
    full = 103 // (8 * world) * 8
    assert [len(one) for one in dropped] == [full] * world
    assert len({x for one in dropped for x in one}) == full * world


@pytest.mark.parametrize(("count", "expected"), [(15, 0), (16, 8), (31, 8), (32, 16)])
def test_all_ranks_drop_the_same(count, expected):
    """A rank's own share may hold a full batch more than that of the others."""
    for rank in range(2):
        batches = Batches(numbered(count), 8, drop_last=True, rank=rank, world_size=2, **PLAIN)
        assert len(labels_of(batches)) == batches.num_images == expected
        assert len(batches) == expected // 8


def test_one_rank_and_several_see_the_same_global_batches():
    whole = [set(labels.tolist()) for _, labels in Batches(numbered(), 8, shuffle=True, **PLAIN)]
    parts = [
        [
            set(labels.tolist())
            for _, labels in Batches(numbered(), 4, shuffle=True, rank=r, world_size=2, **PLAIN)
        ]
        for r in range(2)
    ]
    assert [a | b for a, b in zip(*parts, strict=True)] == whole


@pytest.mark.parametrize(
    ("count", "size", "drop_last", "expected"),
    [
        (103, 10, False, 11),
        (103, 10, True, 10),
        (100, 10, True, 10),
        (5, 10, True, 0),
        (0, 4, False, 0),
    ],
)
def test_len(count, size, drop_last, expected):
    batches = Batches(numbered(count), size, drop_last=drop_last, **PLAIN)
    assert len(batches) == len(list(batches)) == expected
    assert batches.num_images == sum(len(labels) for _, labels in batches)


def test_each_iteration_is_an_epoch_of_its_own():
    """In somebody's own loop, which never calls set_epoch."""

    def seen(batches: Batches) -> list[torch.Tensor]:
        return [torch.cat([images for images, _ in batches]) for _ in range(3)]

    options: dict[str, Any] = {"shuffle": True, "seed": 3, "augment": noise, **PLAIN}
    batches = Batches(numbered(), 10, **options)
    first = seen(batches)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0].sort(0).values, first[1].sort(0).values)  # other noise, too
    # The same epochs as in a loop that names them, and set_epoch goes back to any of them.
    named = Batches(numbered(), 10, **options)
    for epoch, expected in enumerate(first):
        named.set_epoch(epoch)
        assert torch.equal(torch.cat([images for images, _ in named]), expected)
    batches.set_epoch(1)
    assert torch.equal(seen(batches)[0], first[1])
    # A loop that breaks off has begun its epoch, and begins another one next time.
    some = Batches(numbered(), 10, **options)
    assert not torch.equal(next(iter(some))[0], next(iter(some))[0])
    for wrong in (-1, 0.5, None, True):
        with pytest.raises((TypeError, ValueError), match=f"epoch is {wrong}; give a whole"):
            batches.set_epoch(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("split", "changes", "error", "words"),
    [
        (None, {}, TypeError, r"a split is None; give a pair \(images, labels\)"),
        (numbered(3), {"batch_size": None}, TypeError, "batch_size is None; give a whole number"),
        (numbered(3), {"batch_size": 2.0}, TypeError, "batch_size is 2.0"),
        (numbered(3), {"mean": None}, TypeError, "mean is .*give a number per channel"),
        (numbered(3), {"mean": "a"}, TypeError, "mean is .*give a number per channel"),
        (numbered(3), {"std": ("a",)}, TypeError, "value of std is 'a'"),
        (numbered(3), {"std": (float("nan"),)}, ValueError, "value of std is nan; give a positive"),
        (numbered(3), {"augment": "digits"}, TypeError, "augment is .*give a function or None"),
        (numbered(3), {"mix": 1}, TypeError, "mix is 1; give a function or None"),
        (numbered(3), {"shuffle": "yes"}, TypeError, "shuffle is .*give True or False"),
        (numbered(3), {"device": "warp"}, ValueError, "device 'warp' cannot be used"),
        (numbered(3), {"device": 1.5}, ValueError, "device 1.5 cannot be used"),
        (numbered(3), {"sizes": 16}, TypeError, "sizes is 16; give a list"),
        (numbered(3), {"rank": None}, TypeError, "rank is None"),
        (numbered(3), {"world_size": 0}, ValueError, "world_size is 0"),
        (
            (numbered(3).images, torch.tensor([0, -1, 2])),
            {},
            ValueError,
            "from -1 to 2; give numbers from 0",
        ),
        (
            (numbered(3).images, torch.ones(3).bool()),
            {},
            TypeError,
            "labels of a split are torch.bool .*class numbers or shares",
        ),
        ((numbered(3).images, [0, 1, 2]), {}, TypeError, "labels of a split is a list"),
        (Split(torch.zeros(3, 1, 2, 2), torch.zeros(3)), {}, TypeError, "give uint8"),
        (
            Split(numbered(3).images[:, 0], torch.zeros(3)),
            {},
            ValueError,
            r"give \(N, C, H, W\)",
        ),
        (
            Split(numbered(3).images, torch.zeros(4)),
            {},
            ValueError,
            "labels of a split has shape",
        ),
        (numbered(3), {"batch_size": 0}, ValueError, "batch_size is 0; give a whole number"),
        (
            numbered(3),
            {"mean": (0.0, 0.0)},
            ValueError,
            "2 and 1 values; give one for each of the images' 1 channels",
        ),
        (numbered(3), {"std": (0.0,)}, ValueError, "value of std is 0.0; give a positive"),
        (
            numbered(3),
            {"rank": 2, "world_size": 2},
            ValueError,
            "rank is 2; give a number below world_size, 2",
        ),
        (numbered(3), {"seed": "a"}, TypeError, "seed is 'a'; give a whole number"),
    ],
)
def test_batches_bad_input(split, changes, error, words):
    with pytest.raises(error, match=words):
        Batches(split, **{"batch_size": 2, **PLAIN, **changes})


def test_images_grow_with_the_epochs(small_cifar100):
    split = small_cifar100.train
    common = {"mean": small_cifar100.mean, "std": small_cifar100.std}
    growing = Batches(split, 50, sizes=[16, 24, 32], **common)
    sides = []
    for epoch in range(4):
        growing.set_epoch(epoch)
        images, labels = next(iter(growing))
        sides.append(tuple(images.shape[-2:]))
    assert sides == [(16, 16), (24, 24), (32, 32), (32, 32)]
    whole, same = next(iter(Batches(split, 50, **common)))
    torch.testing.assert_close(images, whole)
    assert torch.equal(labels, same)
    fine = torch.zeros(4, 3, 32, 32, dtype=torch.uint8)
    fine[..., ::4] = 255  # thin stripes become grey: what is made smaller is averaged
    ((grey, _),) = Batches((fine, labels[:4]), 4, sizes=[8], mean=(0.5,) * 3, std=(0.5,) * 3)
    assert grey.mean() == pytest.approx(-0.5, abs=0.1)
    # Half the side is the mean of four pixels, more or less: what is seen stays the same.
    growing.set_epoch(0)
    small, _ = next(iter(growing))
    pooled = torch.nn.functional.avg_pool2d(whole, 2)
    assert (small - pooled).abs().mean() < 0.2 * pooled.std()


@pytest.mark.parametrize("sizes", [[0], [2.5], [True], [24, -1]])
def test_wrong_sizes(small_cifar100, sizes):
    with pytest.raises((TypeError, ValueError), match=r"value of sizes is .*give a whole number"):
        Batches(small_cifar100.train, 5, sizes=sizes, mean=(0.5,) * 3, std=(0.5,) * 3)


def test_small_images_hold_all_pixels_of_the_large_ones():
    """A stripe that lies between the pixels of the smaller image is still seen in it."""
    images = torch.zeros(2, 1, 16, 16, dtype=torch.uint8)
    images[..., ::4] = 255
    (small, _), *_ = Batches((images, torch.zeros(2).long()), 2, mean=(0,), std=(1,), sizes=(4,))
    assert small.shape[-2:] == (4, 4)
    assert small.mean().item() == pytest.approx(0.25, abs=0.07)
