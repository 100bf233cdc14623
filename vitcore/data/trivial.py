# SPDX-License-Identifier: MIT
"""TrivialAugment: one random operation of a random amount for each image (chapter 7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import check_choice, check_number
from ._inputs import check_pictures
from .geometry import affine, column, host_generator, sample


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W) the luma of colour images; the images themselves where they have no colour."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """other + factor (images - other), kept within [0, 1]; factor (B,)."""
    return torch.lerp(other.expand_as(images), images, column(factor)).clamp(0, 1)


def _brightness(images: Tensor, amount: Tensor, _: float) -> Tensor:
    return (images * column(1 + amount)).clamp(0, 1)


def _colour(images: Tensor, amount: Tensor, _: float) -> Tensor:
    return _blend(images, _grey(images), 1 + amount)


def _contrast(images: Tensor, amount: Tensor, _: float) -> Tensor:
    return _blend(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), 1 + amount)


def _sharpness(images: Tensor, amount: Tensor, _: float) -> Tensor:
    """Blend each image with its blurred self; the rim stays."""
    if min(images.shape[-2:]) <= 2:
        return images
    kernel = images.new_tensor([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    kernel = kernel.expand(images.shape[1], 1, 3, 3)
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=images.shape[1])
    return _blend(images, blurred, 1 + amount)


def _posterize(images: Tensor, amount: Tensor, _: float) -> Tensor:
    levels = column(torch.exp2(8 - amount.round()))
    return torch.minimum((images * levels).floor(), levels - 1) / levels


def _solarize(images: Tensor, amount: Tensor, _: float) -> Tensor:
    return torch.where(images >= column(1 - amount), 1 - images, images)


def _autocontrast(images: Tensor, *_: object) -> Tensor:
    """Stretch every channel of each image so that it reaches from 0 to 1."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    return (images - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)


def _equalize(images: Tensor, *_: object) -> Tensor:
    """Spread the values of every channel evenly over 256 levels, as Pillow does."""
    count, channels, rows, cols = images.shape
    # The largest number below 256 makes 1.0 the last level and nothing more.
    levels = (images * (256 - 1e-3)).long().clamp(0, 255).flatten(2)  # (B, C, H·W)
    counts = levels.new_zeros(count, channels, 256)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    below = counts.cumsum(dim=2) - counts  # how many values are smaller than each level
    step = (rows * cols - counts.gather(2, levels.amax(dim=2, keepdim=True))) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(images.dtype) / 255
    spread = table.gather(2, levels).view_as(images)
    return torch.where((step == 0)[..., None], images, spread)


def _shear(images: Tensor, amount: Tensor, fill: float, axis: int) -> Tensor:
    """Slant images along x (axis 0) or y (1); one pixel in axes from -1 to 1 as in ``affine``."""
    slope = amount * images.shape[axis - 2] / images.shape[-1 - axis]
    return _slide(images, slope, slope, fill, axis)


def _translate(images: Tensor, amount: Tensor, fill: float, axis: int) -> Tensor:
    shift = -amount.trunc() * 2 / images.shape[-1 - axis]
    return _slide(images, torch.zeros_like(shift), shift, fill, axis)


def _slide(images: Tensor, slope: Tensor, shift: Tensor, fill: float, axis: int) -> Tensor:
    theta = torch.eye(2, 3, device=images.device, dtype=images.dtype).repeat(len(images), 1, 1)
    theta[:, axis, 1 - axis], theta[:, axis, 2] = slope, shift
    return sample(images, theta, fill)


def _rotate(images: Tensor, amount: Tensor, fill: float) -> Tensor:
    zero = torch.zeros_like(amount)
    return affine(images, -amount, torch.stack([zero, zero], dim=1), zero + 1, fill=fill)


# Each with what it does to (images, amount, fill), the largest amount, and whether its sign is
# drawn; 31 amounts from nothing to the largest. TrivialAugment's wide space (Müller and Hutter,
# 2021, table 5), in torchvision's order.
_SPACE: dict[str, tuple[Callable[[Tensor, Tensor, float], Tensor], float, bool]] = {
    "identity": (lambda images, *_: images, 0.0, False),
    "shear_x": (partial(_shear, axis=0), 0.99, True),
    "shear_y": (partial(_shear, axis=1), 0.99, True),
    "translate_x": (partial(_translate, axis=0), 32.0, True),
    "translate_y": (partial(_translate, axis=1), 32.0, True),
    "rotate": (_rotate, 135.0, True),
    "brightness": (_brightness, 0.99, True),
    "colour": (_colour, 0.99, True),
    "contrast": (_contrast, 0.99, True),
    "sharpness": (_sharpness, 0.99, True),
    "posterize": (_posterize, 6.0, False),
    "solarize": (_solarize, 1.0, False),
    "autocontrast": (_autocontrast, 0.0, False),
    "equalize": (_equalize, 0.0, False),
}
TRIVIAL = {name: (largest, signed) for name, (_, largest, signed) in _SPACE.items()}
_TRIVIAL_BINS = 31


def trivial_operation(name: str, images: Tensor, amount: Tensor, fill: float = 0.0) -> Tensor:
    """Apply one operation of ``TRIVIAL`` to images (B, C, H, W), by an amount for each (B,).

    Shears are slopes about the upper left corner, translations whole pixels, rotations degrees
    counter-clockwise; the four enhancements blend with the factor 1 + amount; posterize takes
    ``amount`` bits away from 8, solarize lowers its threshold from 1 by the amount.
    """
    check_choice("name", name, TRIVIAL)
    check_pictures(images, amount=amount)
    return _SPACE[name][0](images, amount.to(images.dtype), check_number("fill", fill))


def trivial_augment(
    images: Tensor, *, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Change each image (B, C, H, W) by one random operation of a random amount.

    Source: Müller and Hutter (2021), TrivialAugment, algorithm 1 with the wide space. Images are
    moved with bilinear interpolation.
    """
    check_pictures(images, generator)
    fill = check_number("fill", fill)
    host = host_generator(generator, images.device)
    chosen = torch.randint(len(TRIVIAL), (len(images),), generator=host)
    draw = torch.rand((len(images), 2), generator=generator, device=images.device)
    strength = torch.floor(draw[:, 0] * _TRIVIAL_BINS) / (_TRIVIAL_BINS - 1)
    sign = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    changed = images.clone()
    # The images of one operation after those of another, so that one copy to the device suffices.
    counts = torch.bincount(chosen, minlength=len(TRIVIAL)).tolist()
    order = chosen.argsort(stable=True).to(images.device, non_blocking=True).split(counts)
    for mine, (name, (largest, signed)) in zip(order, TRIVIAL.items(), strict=True):
        if name != "identity" and len(mine):
            amount = strength[mine] * largest * (sign[mine] if signed else 1)
            changed[mine] = trivial_operation(name, images[mine], amount, fill)
    return changed
