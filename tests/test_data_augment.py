# SPDX-License-Identifier: MIT
"""vitcore.data.augment: what is drawn has the distribution that its source names."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pytest
import torch

from vitcore.data import build_augment
from vitcore.data.geometry import (
    host_generator,
    random_affine,
    random_erasing,
    random_resized_crop,
)
from vitcore.data.trivial import trivial_augment, trivial_operation


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def made(images, **options):
    plain = {"flip": False, "padding": 0}
    augment = build_augment("cifar", **{**plain, **options})
    assert augment is not None
    return augment(images, generator())


def numbered(count, size):
    """Images whose pixel (row, column) is row + column / 100."""
    image = torch.arange(size)[:, None] + torch.arange(size) / 100
    return image.expand(count, 1, size, size)


def test_half_of_the_images_are_flipped():
    images = torch.arange(8.0).expand(4000, 1, 8, 8)
    flipped = made(images, flip=True)[:, 0, 0, 0] == 7
    assert flipped.double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_crops_begin_at_every_row_and_column_alike():
    """From 0 to twice the padding, the last included, and a row says nothing of a column."""
    images = made(numbered(2700, 9), padding=1)
    middle = images[:, 0, 4, 4]
    rows, cols = middle.floor() - 4, ((middle - middle.floor()) * 100).round() - 4
    counts = [((rows == r) & (cols == c)).sum().item() for r in (-1, 0, 1) for c in (-1, 0, 1)]
    assert sum(counts) == 2700
    assert min(counts) > 230
    assert max(counts) < 370


def boxes(changed):
    """The box of nonzero pixels in each image that has one: (top, left, height, width)."""
    marked = changed[:, 0] != 0
    rows, cols = marked.any(dim=2), marked.any(dim=1)
    found = rows.any(dim=1)
    rows, cols = rows[found].float(), cols[found].float()
    return rows.argmax(1).float(), cols.argmax(1).float(), rows.sum(1), cols.sum(1)


def erased(ratio, count=3000):
    images = torch.zeros(count, 1, 64, 64)
    return boxes(
        random_erasing(
            images, probability=1, scale=(0.05, 0.05), ratio=ratio, value=1, generator=generator()
        )
    )


def test_boxes_are_tall_as_often_as_wide():
    """The logarithm of height by width is uniform: from 1/4 to 4, half lie below 1."""
    _, _, height, width = erased((0.25, 4.0))
    aspect = (height / width).log()
    assert (aspect < 0).double().mean().item() == pytest.approx(0.5, abs=0.05)
    quarters = torch.quantile(aspect, torch.tensor([0.25, 0.75]))
    assert quarters.tolist() == pytest.approx([-0.69, 0.69], abs=0.12)


def test_the_place_of_a_box_is_drawn_for_each_axis():
    top, left, height, width = erased((0.99, 1.01))
    assert abs(torch.corrcoef(torch.stack([top, left]))[0, 1].item()) < 0.08
    assert top.min() == 0
    assert (top + height).max() == 64
    assert left.min() == 0
    assert (left + width).max() == 64


def test_a_resized_crop_is_as_often_from_above_as_from_the_left():
    images = random_resized_crop(
        numbered(3000, 32), scale=(0.25, 0.25), ratio=(0.99, 1.01), generator=generator()
    )
    middle = images[:, 0].mean(dim=(1, 2))
    rows, cols = middle.floor(), middle - middle.floor()
    assert abs(torch.corrcoef(torch.stack([rows, cols]))[0, 1].item()) < 0.08


FILL = torch.tensor(0.3).item()  # as float32 holds it


def test_digits_pass_their_fill_on():
    images = torch.rand(20, 1, 28, 28, generator=generator(1))
    augment = build_augment("digits", degrees=40.0, translate=5.0, scale=0.3, fill=FILL)
    assert augment is not None
    expected = random_affine(
        images, degrees=40.0, translate=5.0, scale=0.3, fill=FILL, generator=generator()
    )
    assert torch.equal(augment(images, generator()), expected)
    black = random_affine(torch.zeros(20, 1, 9, 9), degrees=40.0, fill=1.0, generator=generator())
    assert black[:, 0, 0, 0].mean() > 0.3
    assert black[:, 0, 4, 4].abs().max() < 1e-5


def test_photographs_pass_their_fill_on():
    images = torch.zeros(50, 3, 16, 16)
    assert set(made(images, padding=2, fill=FILL).unique().tolist()) == {0.0, FILL}
    erased = random_erasing(images, probability=1.0, value=FILL, generator=generator())
    assert erased.max() == FILL
    assert torch.equal(made(images, erasing=1.0, fill=FILL), erased)
    images = torch.rand(50, 3, 16, 16, generator=generator(1))
    changed = trivial_augment(images, fill=FILL, generator=generator())
    assert not torch.equal(changed, trivial_augment(images, generator=generator()))
    assert torch.equal(made(images, trivial=True, fill=FILL), changed)


@pytest.mark.parametrize(
    ("name", "amount"),
    [
        ("rotate", 45.0),
        ("shear_x", 0.9),
        ("shear_y", 0.9),
        ("translate_x", 5.0),
        ("translate_y", 5.0),
    ],
)
def test_what_moves_is_filled(name, amount):
    corners = []
    for sign in (1, -1):
        moved = trivial_operation(
            name, torch.ones(1, 1, 16, 16), torch.tensor([sign * amount]), FILL
        )
        assert moved.max() == pytest.approx(1, abs=1e-5)
        corners += [moved[0, 0, r, c].item() for r in (0, -1) for c in (0, -1)]
    assert min(corners) == pytest.approx(FILL, abs=1e-5)


def test_what_the_host_draws_follows_from_the_device(monkeypatch):
    asked = []

    def randint(high, size, *, generator, device):
        asked.append((generator, device))
        return torch.tensor([7])

    monkeypatch.setattr(torch, "randint", randint)
    ours, device = generator(), torch.device("mps")
    host = host_generator(ours, device)
    assert asked == [(ours, device)]
    assert host is not None
    assert host.device.type == "cpu"
    assert host.initial_seed() == 7
    assert host_generator(ours, torch.device("cpu")) is ours
