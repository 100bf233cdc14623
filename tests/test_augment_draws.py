# SPDX-License-Identifier: MIT
"""What augmentation and mixing draw: its distributions, its fill, and its copies to a device."""

# mypy: disable-error-code="arg-type"
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from vitcore.augment import (
    TRIVIAL,
    build_augment,
    build_mix,
    random_affine,
    random_erasing,
    random_resized_crop,
    trivial_augment,
    trivial_operation,
)
from vitcore.data import geometry

MANY = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(height: int, width: int) -> torch.Tensor:
    """An image (2, H, W) whose pixels say where they stand."""
    grid = torch.meshgrid(
        torch.arange(1.0, height + 1), torch.arange(1.0, width + 1), indexing="ij"
    )
    return torch.stack(grid) / 100


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a.flatten().float(), b.flatten().float()]))[0, 1])


def test_half_of_the_images_are_flipped():
    augment: Any = build_augment("cifar", padding=0)
    images = places(3, 4).expand(MANY, -1, -1, -1)
    flipped = augment(images, generator())[:, 1, 0, 0] > 0.02
    assert flipped.float().mean() == pytest.approx(0.5, abs=0.03)


def test_crops_reach_every_place_along_both_axes_on_their_own():
    augment: Any = build_augment("cifar", padding=2, flip=False)
    images = places(8, 9).expand(MANY, -1, -1, -1)
    cut = augment(images, generator())
    middle = (cut[:, :, 4, 4] * 100).round().long()  # where what stands in the middle came from
    top, left = middle[:, 0] - 3, middle[:, 1] - 3
    for start in (top, left):
        shares = torch.bincount(start, minlength=5) / MANY
        torch.testing.assert_close(shares, torch.full((5,), 0.2), atol=0.03, rtol=0)
    assert abs(correlation(top, left)) < 0.06


@pytest.fixture
def boxes(monkeypatch):
    seen: dict[str, torch.Tensor] = {}

    def watch(images, top, left, height, width, **_):
        seen.update(top=top, left=left, height=height, width=width)
        return images

    for name in ("resized_crop", "erase"):
        monkeypatch.setattr(geometry, name, watch)
    return seen


@pytest.mark.parametrize("function", [random_resized_crop, random_erasing])
def test_boxes_are_drawn_log_uniformly_and_anywhere(boxes, function):
    options: dict[str, Any] = {"probability": 1.0} if function is random_erasing else {}
    images = torch.zeros(1, 1, 1, 1).expand(MANY, 1, 400, 400)
    function(images, scale=(0.02, 0.04), ratio=(1 / 4, 4.0), generator=generator(), **options)
    ratio = (boxes["height"] / boxes["width"]).log() / math.log(4)
    # Uniform from -1 to 1: half lie below 0, a quarter below -1/2.
    for quantile, expected in ((0.25, -0.5), (0.5, 0.0), (0.75, 0.5)):
        assert ratio.quantile(quantile) == pytest.approx(expected, abs=0.06)
    down = boxes["top"] / (400 - boxes["height"])
    across = boxes["left"] / (400 - boxes["width"])
    for place in (down, across):
        assert place.mean() == pytest.approx(0.5, abs=0.02)
        assert place.std() == pytest.approx(1 / math.sqrt(12), abs=0.015)
    assert abs(correlation(down, across)) < 0.06


def test_a_ratio_is_width_by_height_in_crops_and_height_by_width_in_erasing(boxes):
    """As torchvision has both: RandomResizedCrop and RandomErasing differ."""
    images = torch.zeros(1, 1, 1, 1).expand(200, 1, 100, 100)
    random_resized_crop(images, scale=(0.1, 0.2), ratio=(2.0, 3.0), generator=generator())
    shape = boxes["width"] / boxes["height"]
    assert 1.9 < shape.min() < 2.1
    assert 2.9 < shape.max() < 3.1
    random_erasing(
        images, probability=1.0, scale=(0.1, 0.2), ratio=(2.0, 3.0), generator=generator()
    )
    shape = boxes["height"] / boxes["width"]
    assert 1.9 < shape.min() < 2.1
    assert 2.9 < shape.max() < 3.1


FILLED: dict[str, Any] = {
    "random_affine": lambda x, fill: random_affine(
        x, translate=3, fill=fill, generator=generator()
    ),
    "digits": lambda x, fill: build_augment("digits", fill=fill)(x, generator()),  # type: ignore[misc]
    "crop": lambda x, fill: build_augment("cifar", fill=fill)(x, generator()),  # type: ignore[misc]
    "erasing": lambda x, fill: build_augment("cifar", padding=0, erasing=1.0, fill=fill)(  # type: ignore[misc]
        x, generator()
    ),
    "rotate": lambda x, fill: trivial_operation("rotate", x, torch.full((64,), 45.0), fill),
    "shear": lambda x, fill: trivial_operation("shear_x", x, torch.full((64,), 0.5), fill),
    "trivial": lambda x, fill: build_augment("cifar", padding=0, trivial=True, fill=fill)(  # type: ignore[misc]
        x.expand(64, 3, -1, -1), generator()
    ),
}


@pytest.mark.parametrize("name", FILLED)
def test_what_is_not_image_has_the_value_of_fill(name):
    images = torch.full((64, 1, 16, 16), 0.5)
    with_fill, without = (FILLED[name](images, fill) for fill in (0.5, 0.0))
    assert (without == 0).any()
    if name != "trivial":  # whose other operations change the values
        torch.testing.assert_close(with_fill, images)
    assert (
        not (with_fill == 0).flatten(1).any(1).logical_and((without == 0).flatten(1).any(1)).all()
    )
    light = FILLED[name](images, 0.75)
    assert (light - 0.75).abs().min() < 1e-6
    if name != "trivial":
        assert light.min() > 0.49


# --- mixing ----------------------------------------------------------------------------------


def cut_boxes(count: int = 1500, height: int = 80, width: int = 120) -> torch.Tensor:
    """Which pixels (N, H, W) CutMix alone pasted."""
    mix: Any = build_mix("mixup_cutmix", num_classes=2, cutmix_share=1.0)
    values = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 1, height, width).float()
    mixed, _ = mix(values, torch.zeros(count).long(), generator(5))
    return (mixed != values)[:, 0]


def test_the_boxes_of_cutmix():
    pasted = cut_boxes()
    # The side is the root of 1 - share (uniform for alpha = 1), clipped at the rim: for the share u
    # the mean area is E[u (1 - √u / 4)²] = 1/2 - 1/5 + 1/48.
    area = pasted.float().mean((1, 2))
    assert area.mean() == pytest.approx(0.5 - 0.2 + 1 / 48, abs=0.02)
    some = pasted[(area > 0.01) & (area < 0.1)]
    rows = (some.any(2) * torch.arange(80)).sum(1) / some.any(2).sum(1)
    cols = (some.any(1) * torch.arange(120)).sum(1) / some.any(1).sum(1)
    assert rows.mean() == pytest.approx(39.5, abs=4)
    assert cols.mean() == pytest.approx(59.5, abs=6)
    assert abs(correlation(rows, cols)) < 0.25
    # As high by 80 as wide by 120 where nothing is clipped.
    inner = pasted[
        ~pasted[:, [0, -1]].any((1, 2)) & ~pasted[:, :, [0, -1]].any((1, 2)) & (area > 0.1)
    ]
    high, wide = inner.any(2).sum(1) / 80, inner.any(1).sum(1) / 120
    torch.testing.assert_close(high, wide, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (torch.tensor([0, 5]), "labels reach from 0 to 5; give numbers from 0 to 4"),
        (torch.tensor([-1, 2]), "labels reach from -1 to 2"),
        (torch.tensor([0, 1, 2]), r"labels has shape \(3,\); give \(2\)"),
        (torch.zeros(2), r"targets has shape \(2,\); give \(2, 5\)"),
        (torch.zeros(2, 4), r"targets has shape \(2, 4\); give \(2, 5\)"),
        ([0, 1], "labels is a list; give"),
    ],
)
def test_labels_that_do_not_fit(labels, words):
    mix: Any = build_mix("mixup_cutmix", num_classes=5)
    with pytest.raises((TypeError, ValueError), match=words):
        mix(torch.zeros(2, 1, 4, 4), labels, generator())


# --- the device ------------------------------------------------------------------------------


class Copies(TorchDispatchMode):
    """Counts the tensors that are copied from the CPU to another device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        done = func(*args, **(kwargs or {}))
        if func._schema.name in ("aten::_to_copy", "aten::copy_"):
            source = args[1] if func._schema.name == "aten::copy_" else args[0]
            self.count += source.device.type == "cpu" and done.device.type != "cpu"
        return done


def test_few_copies_to_the_device_a_batch():
    """Each small copy costs a GPU as much as a small operation; the draws travel together."""
    images = torch.zeros(64, 3, 32, 32, device="meta")
    labels = torch.zeros(64, dtype=torch.long, device="meta")
    mix: Any = build_mix("mixup_cutmix", num_classes=10)
    torch.manual_seed(0)
    for work, most in (
        (lambda: trivial_augment(images), 1),
        (lambda: mix(images, labels), 1),
        (lambda: random_resized_crop(images), 0),
        (lambda: random_erasing(images), 0),
    ):
        with Copies() as copies:
            work()
        assert copies.count == most
    with Copies() as copies:  # that the counter counts
        images[torch.arange(3)]
        torch.arange(3).to("meta")
    assert copies.count >= 1


def test_draws_on_the_host_follow_from_the_generator_on_the_device(monkeypatch):
    moved = []

    class Fake:
        def __init__(self, seed: int, offset: int) -> None:
            self.initial_seed, self.get_offset = (lambda: seed), (lambda: offset)

    monkeypatch.setattr(geometry.torch, "rand", lambda *_, **options: moved.append(options))
    device = torch.device("cuda")

    def draw(seed: int, offset: int) -> int:
        fake: Any = Fake(seed, offset)
        host = geometry.host_generator(fake, device)
        assert host is not None
        assert host.device.type == "cpu"
        assert moved.pop() == {"generator": fake, "device": device}
        return host.initial_seed()

    assert draw(1, 4) == draw(1, 4)
    assert len({draw(1, 0), draw(1, 4), draw(2, 0), draw(2, 4)}) == 4
    same = generator()
    assert geometry.host_generator(same, torch.device("cpu")) is same
    assert geometry.host_generator(None, device) is None
    assert not moved


# --- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: random_resized_crop(x, scale=0.5), "scale is 0.5; give a pair"),
        (lambda x: random_resized_crop(x, scale=(0.5, 2)), "give 0 <= low <= high <= 1"),
        (lambda x: random_resized_crop(x, ratio=(0, 1)), "ratio is"),
        (lambda x: random_erasing(x, probability=2), "probability is 2"),
        (lambda x: random_erasing(x, ratio=(2, 1)), "ratio is"),
        (lambda x: random_erasing(x, value="black"), "value is 'black'; give a"),
        (lambda x: trivial_augment(x, fill=None), "fill is None; give a"),
        (lambda x: trivial_augment(x, generator=3), "generator is 3; give a torch.Generator"),
        (lambda x: trivial_augment(x[:, :0]), r"\(2, 0, 4, 4\); give"),
        (lambda x: trivial_operation("turn", x, torch.zeros(2)), "name is 'turn'; give one of"),
        (lambda x: trivial_operation("rotate", x, 3.0), "amount is a float; give a torch tensor"),
        (lambda x: trivial_operation("rotate", x, torch.zeros(3)), r"amount has shape \(3,\)"),
        (lambda x: geometry.crop(x, torch.zeros(2), torch.zeros(2), padding=-1), "padding is -1"),
        (lambda x: random_affine(x, degrees=5, fill="grey"), "fill is 'grey'"),
        (lambda _: build_augment("digits", fill=2), "fill is 2; give a number between 0 and 1"),
        (lambda x: geometry.affine(x, *[torch.zeros(2)] * 3), r"shift has shape \(2,\)"),
    ],
)
def test_one_clear_sentence(call, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        call(torch.zeros(2, 3, 4, 4))
    assert "\n" not in str(caught.value)


def test_values_outside_the_range_do_not_break_equalize():
    images = torch.rand(1, 1, 32, 32, generator=generator()) * 3 - 1
    clamped = trivial_operation("equalize", images.clamp(0, 1), torch.zeros(1))
    assert torch.equal(trivial_operation("equalize", images, torch.zeros(1)), clamped)
    assert "equalize" in TRIVIAL
