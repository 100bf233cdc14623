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

from .._inputs import check_above_zero, check_choice, check_flag, check_options, check_whole
from ._inputs import check_affine, check_pictures, check_share
from .geometry import crop, hflip, random_affine, random_erasing, random_resized_crop
from .mixing import Mix, mixup_cutmix
from .trivial import trivial_augment

Augment = Callable[[Tensor, torch.Generator | None], Tensor]


def digits(
    *, degrees: float = 10.0, translate: float = 2.0, scale: float = 0.1, fill: float = 0.0
) -> Augment:
    """Small rotations, shifts and scales, which leave a digit the digit that it was."""
    check_affine(degrees, translate, scale)
    fill = check_share("fill", fill)
    amounts = {"degrees": degrees, "translate": translate, "scale": scale, "fill": fill}

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return random_affine(images, **amounts, generator=generator)

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
    check_flag("flip", flip)
    check_flag("trivial", trivial)
    padding = check_whole("padding", padding)
    for name, share in (("min_scale", min_scale), ("erasing", erasing), ("fill", fill)):
        check_share(name, share)
    check_above_zero("min_scale", min_scale)

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_pictures(images, generator)
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
    return _build("augmentation", AUGMENTS, name, options)


def build_mix(name: str | None, *, num_classes: int, **options: Any) -> Mix | None:
    """Return the mixing of that name for ``num_classes`` classes, or None for None; raises so."""
    return _build("mixing", MIXES, name, options, num_classes=num_classes)


def _build(what: str, table: Any, name: Any, options: dict[str, Any], **given: Any) -> Any:
    if name is None and not options:
        return None
    make = table[check_choice(f"the {what}", name, table)]
    return make(**given, **check_options(f"the {what} {name!r}", options, make, **given))
