# SPDX-License-Identifier: MIT
"""Random changes to whole batches of images on their device, as chapters 6 and 7 use them.

An augmentation is a callable ``(images, generator) -> images``. It takes and gives floating point
images (B, C, H, W) in [0, 1], before normalisation, and draws anew for every image: one draw for
a whole batch would move all its images alike, which teaches the model less.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator | None], Tensor]


def affine(
    images: Tensor, angle: Tensor, shift: Tensor, scale: Tensor, *, fill: float = 0.0
) -> Tensor:
    """Rotate, scale and shift each image by its own amounts, about its centre, bilinearly.

    images (B, C, H, W) floating point; angle (B,) in degrees, clockwise; shift (B, 2) in pixels,
    (right, down); scale (B,), above 1 enlarges. Pixels from outside the image take ``fill``.
    The conventions are those of torchvision's ``functional.affine``.
    """
    height, width = images.shape[-2:]
    radians = angle * (math.pi / 180)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    # Output pixel p shows input pixel R⁻¹(p - shift) / scale. affine_grid counts both axes from
    # -1 to 1, so each entry that crosses from one axis to the other carries the ratio of the two.
    dx, dy = shift[:, 0] * (2 / width), shift[:, 1] * (2 / height)
    across, down = sin * (height / width), sin * (width / height)
    theta = torch.stack(
        [cos, across, -(cos * dx + across * dy), -down, cos, down * dx - cos * dy], dim=1
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta.to(images.dtype), list(images.shape), align_corners=False)
    # grid_sample pads with zeros: shifting the values by fill makes that zero mean fill.
    moved = images - fill if fill else images
    moved = F.grid_sample(moved, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved + fill if fill else moved


def random_affine(
    images: Tensor,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    fill: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rotate, scale and shift each image (B, C, H, W) by its own random amounts.

    The angle is uniform in ±degrees, the shift along each axis in ±translate pixels, the factor in
    1 ± scale. ``generator`` lives on the images' device. Where all three are zero the images come
    back as they are.

    Raises TypeError for images that are not floating point, ValueError for another rank than four
    and for amounts out of range.
    """
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"random_affine takes floating point images, given {given}: divide uint8 images by 255"
        )
    if images.ndim != 4:
        raise ValueError(
            f"random_affine takes images (B, C, H, W), given the shape {tuple(images.shape)}"
        )
    _check_affine(degrees, translate, scale)
    if not (degrees or translate or scale) or not len(images):
        return images
    # Always four draws an image, so that switching one kind off leaves the others as they were.
    draw = torch.rand((len(images), 4), generator=generator, device=images.device) * 2 - 1
    return affine(
        images, draw[:, 0] * degrees, draw[:, 1:3] * translate, 1 + draw[:, 3] * scale, fill=fill
    )


def _check_affine(degrees: float, translate: float, scale: float) -> None:
    amounts = {"degrees": degrees, "translate": translate, "scale": scale}
    for name, value in amounts.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"{name} is a number, given {value!r} ({type(value).__name__}): "
                "the draw goes from minus to plus this number"
            )
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be zero or more, given {value}: give its largest amount")
    if scale >= 1:
        raise ValueError(
            f"scale is a fraction below 1, given {scale}: 0.1 draws factors from 0.9 to 1.1"
        )


def digits(
    *, degrees: float = 10.0, translate: float = 2.0, scale: float = 0.1, fill: float = 0.0
) -> Augment:
    """Small rotations, shifts and scales, which leave a digit the digit that it was."""
    _check_affine(degrees, translate, scale)

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return random_affine(
            images,
            degrees=degrees,
            translate=translate,
            scale=scale,
            fill=fill,
            generator=generator,
        )

    return augment


AUGMENTS: dict[str, Callable[..., Augment]] = {"digits": digits}


def build_augment(name: str | None, **options: Any) -> Augment | None:
    """Return the augmentation of that name with these options, or None for None.

    Raises ValueError for an unknown name, TypeError for an option that it does not have.
    """
    if name is None:
        if options:
            raise TypeError(
                f"no augmentation was named, yet options were given: {sorted(options)}; "
                f"name one of {sorted(AUGMENTS)}"
            )
        return None
    if name not in AUGMENTS:
        raise ValueError(f"there is no augmentation {name!r}: use one of {sorted(AUGMENTS)}")
    try:
        return AUGMENTS[name](**options)
    except TypeError as error:
        raise TypeError(f"the augmentation {name!r} was given wrong options: {error}") from None
