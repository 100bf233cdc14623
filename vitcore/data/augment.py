# SPDX-License-Identifier: MIT
"""Augmentation and mixing by name, as chapters 6 and 7 and the recipes use them.

An augmentation is a callable ``(images, generator) -> images``. It takes and gives floating point
images (B, C, H, W) in [0, 1], before normalisation, and draws anew for every image: one draw for
a whole batch would move all its images alike, which teaches the model less.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..patches import check_images
from .geometry import (
    check_affine,
    crop,
    hflip,
    random_affine,
    random_erasing,
    random_resized_crop,
)
from .mixing import Mix, check_share, mixup_cutmix
from .trivial import trivial_augment

Augment = Callable[[Tensor, torch.Generator | None], Tensor]


def digits(
    *, degrees: float = 10.0, translate: float = 2.0, scale: float = 0.1, fill: float = 0.0
) -> Augment:
    """Small rotations, shifts and scales, which leave a digit the digit that it was."""
    check_affine(degrees, translate, scale)

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


def cifar(
    *,
    flip: bool = True,
    padding: int = 4,
    min_scale: float = 1.0,
    trivial: bool = False,
    erasing: float = 0.0,
    fill: float = 0.0,
) -> Augment:
    """What photographs of 32 pixels bear: each option is one operation, 0 or False leaves it out.

    flip: left and right swapped in half of the images. padding: pixels around the image from which
    a crop of its size is cut. min_scale: the smallest share of the area of a random resized crop;
    1 for none. trivial: one operation of TrivialAugment. erasing: the probability of random
    erasing. fill: the value of what is not image, in [0, 1].
    """
    for name, switch in (("flip", flip), ("trivial", trivial)):
        if not isinstance(switch, bool):
            raise TypeError(f"{name} is True or False, given {switch!r}")
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding is a whole number of pixels, zero or more, given {padding!r}")
    for name, share in (("min_scale", min_scale), ("erasing", erasing), ("fill", fill)):
        check_share(name, share)
    if not min_scale:
        raise ValueError("min_scale is a share of the area above 0, such as 0.8, given 0")

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_images(images)
        count, device = len(images), images.device
        if min_scale < 1:
            images = random_resized_crop(images, scale=(min_scale, 1.0), generator=generator)
        if padding:
            size = (2, count)
            corner = torch.randint(2 * padding + 1, size, generator=generator, device=device)
            images = crop(images, corner[0], corner[1], padding=padding, fill=fill)
        if flip:
            images = hflip(images, torch.rand(count, generator=generator, device=device) < 0.5)
        if trivial:
            images = trivial_augment(images, fill=fill, generator=generator)
        if erasing:
            images = random_erasing(images, probability=erasing, value=fill, generator=generator)
        return images

    return augment


AUGMENTS: dict[str, Callable[..., Augment]] = {"digits": digits, "cifar": cifar}

MIXES: dict[str, Callable[..., Mix]] = {"mixup_cutmix": mixup_cutmix}


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


def build_mix(name: str | None, *, num_classes: int, **options: Any) -> Mix | None:
    """Return the mixing of that name for ``num_classes`` classes, or None for None.

    Raises ValueError for an unknown name, TypeError for an option that it does not have.
    """
    if name is None:
        if options:
            raise TypeError(
                f"no mixing was named, yet options were given: {sorted(options)}; "
                f"name one of {sorted(MIXES)}"
            )
        return None
    if name not in MIXES:
        raise ValueError(f"there is no mixing {name!r}: use one of {sorted(MIXES)}")
    try:
        return MIXES[name](num_classes=num_classes, **options)
    except TypeError as error:
        raise TypeError(f"the mixing {name!r} was given wrong options: {error}") from None
