# SPDX-License-Identifier: MIT
"""A sketch of the training images tells them again among others, whatever their order."""

from __future__ import annotations

import pytest
import torch
from data_helpers import real

from vitcore.data import Overlap, Split, image_digests, overlap, sketch_images


def grains(count: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, 1, 4, 5), generator=generator, dtype=torch.uint8)
    return Split(images, torch.zeros(count).long())


def join(*splits: Split) -> Split:
    return Split(*(torch.cat(parts) for parts in zip(*splits, strict=True)))


def test_digests_follow_from_the_pixels_alone():
    images = grains(50, 0).images
    digests = image_digests(images)
    assert len(set(digests.tolist())) == 50
    assert (image_digests(images.flip(0)) == digests[::-1]).all()
    assert (image_digests(images.clone(memory_format=torch.channels_last)) == digests).all()
    changed = images.clone()
    changed[7, 0, 3, 4] ^= 1
    assert (image_digests(changed) != digests).nonzero()[0].tolist() == [7]
    assert not set(image_digests(images.mT.contiguous()).tolist()) & set(digests.tolist())
    # Pinned: weights carry them from version to version.
    assert image_digests(torch.arange(20, dtype=torch.uint8).view(1, 1, 4, 5)).tolist() == [PINNED]


PINNED = 10264247693245624884


def test_a_small_set_is_compared_image_by_image():
    seen, new = grains(300, 1), grains(200, 2)
    assert overlap(sketch_images(seen), new) == Overlap(0, 200)
    few = Split(seen.images[:3].flip(0), seen.labels[:3])
    assert overlap(sketch_images(seen), join(new, few)) == Overlap(3, 203)
    assert overlap(sketch_images(new, few), seen).found == 3
    assert overlap(sketch_images(seen, seen), seen) == Overlap(300, 300)
    assert overlap(sketch_images(seen), Split(seen.images[:0], seen.labels[:0])) == Overlap(0, 0)


def test_a_large_set_is_sampled():
    seen, new = grains(20_000, 3), grains(8_000, 4)
    sketch = sketch_images(seen)
    assert len(sketch) < 17_000
    assert overlap(sketch, new).found == 0
    half = join(
        Split(seen.images[::5], seen.labels[::5]), Split(new.images[:4000], new.labels[:4000])
    )
    found, compared = overlap(sketch, half)
    assert found / compared == pytest.approx(0.5, abs=0.06)
    assert 500 < compared < 750
    assert overlap(sketch, seen) == Overlap(1536, 1536)


def test_another_division_of_the_same_images_is_noticed():
    """Ten thousand images, nine in ten of which were trained on, and the ones held out."""
    dataset = real("mnist")
    sketch = sketch_images(dataset.train)
    assert overlap(sketch, dataset.test).found == 0
    assert overlap(sketch, dataset.val).found == 0
    again = real("mnist", seed=1)
    found, compared = overlap(sketch, again.val)
    assert found / compared == pytest.approx(55 / 60, abs=0.08)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "12",
        "5:abc",
        "x:AAAAAAAAAAA=",
        "1:AAAAAAAAAA==",
        "2:" + "A" * 22 + "==",
        None,
        7,
        b"1:A",
    ],
)
def test_what_is_no_sketch(text):
    with pytest.raises(ValueError, match="not a sketch that sketch_images made") as caught:
        overlap(text, grains(3, 0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "error", "words"),
    [
        (None, TypeError, "a split is .*; give a pair"),
        (torch.zeros(3, 1, 2, 2), TypeError, "a split is .*; give a pair"),
        ((torch.zeros(3, 1, 2, 2), torch.zeros(3)), TypeError, "give uint8"),
        (([1], torch.zeros(3)), TypeError, "images of a split is a list"),
        (
            (grains(3, 0).images, torch.zeros(4)),
            ValueError,
            r"has shape \(4,\); give \(3\)",
        ),
    ],
)
def test_what_is_no_split(split, error, words):
    with pytest.raises(error, match=words):
        sketch_images(split)
    with pytest.raises(TypeError, match="give uint8"):
        image_digests(torch.zeros(2, 1, 4, 4))
