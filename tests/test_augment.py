# SPDX-License-Identifier: MIT
"""vitcore.augment: the geometry equals torchvision's, every image has its own draw."""

from __future__ import annotations

import pytest
import torch

from vitcore._torchvision import import_torchvision
from vitcore.augment import AUGMENTS, affine, build_augment, random_affine


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(28, 28), (20, 31), (33, 16)])
def test_affine_equals_torchvision(size):
    import_torchvision()
    from torchvision.transforms.v2.functional import InterpolationMode
    from torchvision.transforms.v2.functional import affine as reference

    images = torch.rand(6, 2, *size, generator=generator())
    angle = torch.tensor([0.0, 10, -25, 90, 3, 45])
    shift = torch.tensor([[0.0, 0], [2, 3], [-1.5, 4], [0, 0], [5, -2.25], [0, 1]])
    scale = torch.tensor([1.0, 1.1, 0.8, 1, 1.3, 0.5])
    ours = affine(images, angle, shift, scale)
    for i in range(6):
        theirs = reference(
            images[i],
            angle=float(angle[i]),
            translate=shift[i].tolist(),
            scale=float(scale[i]),
            shear=[0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )
        torch.testing.assert_close(ours[i], theirs, atol=1e-4, rtol=0)


def test_directions_without_a_reference():
    """A shift of (1, 2) goes right and down; a positive angle turns the top to the right."""
    image = torch.zeros(1, 1, 9, 9)
    image[0, 0, 1, 4] = 1  # above the centre
    one, zero = torch.ones(1), torch.zeros(1)
    moved = affine(image, zero, torch.tensor([[1.0, 2.0]]), one)
    assert moved[0, 0, 3, 5] == pytest.approx(1, abs=1e-5)
    turned = affine(image, zero + 90, torch.zeros(1, 2), one)
    assert turned[0, 0, 4, 7] == pytest.approx(1, abs=1e-5)
    nearer = affine(image, zero, torch.zeros(1, 2), one / 3)
    assert nearer[0, 0, 3, 4] == pytest.approx(1, abs=1e-5)


def test_fill_stands_where_the_image_ends():
    images = torch.ones(3, 2, 8, 8) * 0.25
    moved = affine(images, torch.zeros(3), torch.tensor([[3.0, 0.0]] * 3), torch.ones(3), fill=0.75)
    torch.testing.assert_close(moved[..., :3], torch.full((3, 2, 8, 3), 0.75))
    torch.testing.assert_close(moved[..., 3:], torch.full((3, 2, 8, 5), 0.25))


def test_every_image_has_its_own_draw_and_the_seed_repeats_it():
    images = torch.rand(1, 1, 28, 28, generator=generator()).expand(16, -1, -1, -1)
    amounts = {"degrees": 10, "translate": 2, "scale": 0.1}
    first = random_affine(images, **amounts, generator=generator(3))
    assert all(not torch.equal(first[0], first[i]) for i in range(1, 16))
    assert torch.equal(first, random_affine(images, **amounts, generator=generator(3)))
    assert not torch.equal(first, random_affine(images, **amounts, generator=generator(4)))
    assert first.shape == images.shape
    assert first.dtype == images.dtype


def test_draws_stay_in_their_range_and_fill_it(monkeypatch):
    seen: dict[str, torch.Tensor] = {}

    def spy(images, angle, shift, scale, *, fill):
        seen.update(angle=angle, shift=shift, scale=scale)
        return images

    monkeypatch.setattr("vitcore.augment.affine", spy)
    images = torch.rand(4000, 1, 2, 2)
    random_affine(images, degrees=10, translate=2, scale=0.1, generator=generator())
    for values, low, high in (
        (seen["angle"], -10, 10),
        (seen["shift"], -2, 2),
        (seen["scale"], 0.9, 1.1),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)
    assert seen["shift"].shape == (4000, 2)
    assert not torch.equal(seen["shift"][:, 0], seen["shift"][:, 1])


def test_nothing_to_do_changes_nothing():
    images = torch.rand(2, 3, 5, 7)
    assert random_affine(images) is images
    assert random_affine(images[:0], degrees=5).shape == (0, 3, 5, 7)


def test_images_are_not_written_to():
    images = torch.rand(4, 1, 8, 8)
    before = images.clone()
    random_affine(images, degrees=30, translate=2, scale=0.3, fill=0.5)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    ("images", "amounts", "error", "words"),
    [
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), {}, TypeError, "divide uint8 images by 255"),
        ([[0.0]], {}, TypeError, "given list"),
        (torch.zeros(1, 4, 4), {}, ValueError, r"\(B, C, H, W\), given the shape \(1, 4, 4\)"),
        (torch.zeros(1, 1, 4, 4), {"degrees": -1}, ValueError, "degrees must be zero or more"),
        (torch.zeros(1, 1, 4, 4), {"translate": float("nan")}, ValueError, "translate must be"),
        (torch.zeros(1, 1, 4, 4), {"scale": 1.0}, ValueError, "fraction below 1"),
        (torch.zeros(1, 1, 4, 4), {"degrees": (-5, 5)}, TypeError, "degrees is a number"),
    ],
)
def test_bad_input(images, amounts, error, words):
    with pytest.raises(error, match=words):
        random_affine(images, **amounts)


def test_build_augment():
    assert build_augment(None) is None
    images = torch.rand(8, 1, 28, 28)
    augment = build_augment("digits", degrees=5, translate=1, scale=0.05)
    assert augment is not None
    expected = random_affine(images, degrees=5, translate=1, scale=0.05, generator=generator(1))
    assert torch.equal(augment(images, generator(1)), expected)
    assert set(AUGMENTS) >= {"digits"}


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("numbers", {}, ValueError, "no augmentation 'numbers'.*digits"),
        ("digits", {"degreees": 3}, TypeError, "wrong options.*degreees"),
        ("digits", {"degrees": -3}, ValueError, "zero or more"),
        (None, {"degrees": 3}, TypeError, "no augmentation was named"),
    ],
)
def test_build_augment_bad_input(name, options, error, words):
    with pytest.raises(error, match=words):
        build_augment(name, **options)
