# SPDX-License-Identifier: MIT
"""What refuses bad input for augmentation: images, one amount for each, and ranges to draw from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._inputs import check_images, check_number

_COLUMNS = {"shift": (2,), "box": (4,)}


def check_pictures(images: Any, generator: Any = None, **amounts: Any) -> None:
    """Raise one clear sentence unless images are (B, C, H, W) and each amount has a row for each.

    generator: None or one on the images' device.
    """
    check_images(images)
    if 0 in images.shape[1:]:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; give channels, rows and columns."
        )
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {generator!r}; give a torch.Generator or None.")
    if generator is not None and generator.device.type != images.device.type:
        raise ValueError(
            f"generator is on {generator.device} and images on {images.device}; give both on one "
            "device."
        )
    for name, value in amounts.items():
        if not isinstance(value, Tensor) or value.is_complex():
            raise TypeError(f"{name} is {value!r:.60}; give a tensor of real numbers.")
        shape = (len(images), *_COLUMNS.get(name, ()))
        if value.shape != shape or value.device != images.device:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)} on {value.device}; give {shape} on "
                f"{images.device}, a row for each image."
            )


def check_share(name: str, value: Any) -> float:
    """Raise one clear sentence unless ``value`` is a number from 0 to 1."""
    if not 0 <= check_number(name, value) <= 1:
        raise ValueError(f"{name} is {value}; give a number between 0 and 1.")
    return float(value)


def check_range(name: str, value: Any, least: float, most: float = math.inf) -> tuple[float, float]:
    """Raise one clear sentence unless ``value`` is (low, high) between ``least`` and ``most``."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; give a pair (low, high).")
    low, high = (check_number(f"a value of {name}", number) for number in value)
    if not least <= low <= high <= most:
        raise ValueError(f"{name} is {value!r}; give {least:g} <= low <= high <= {most:g}.")
    return low, high


def check_affine(degrees: Any, translate: Any, scale: Any) -> None:
    """Raise one clear sentence unless these are amounts that can be drawn up to."""
    for name, value in {"degrees": degrees, "translate": translate, "scale": scale}.items():
        if check_number(name, value) < 0:
            raise ValueError(
                f"{name} must be zero or more, given {value}: give its largest amount."
            )
    if scale >= 1:
        raise ValueError(
            f"scale is a fraction below 1, given {scale}: 0.1 draws factors from 0.9 to 1.1."
        )
