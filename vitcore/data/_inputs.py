# SPDX-License-Identifier: MIT
"""What refuses bad input for data and augmentation, beside the core's own checks."""

from __future__ import annotations

import math
import os
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._inputs import check_images, check_number, shown


def check_seed(seed: Any) -> int:
    """Raise one clear sentence unless ``seed`` is a whole number, of any size and sign."""
    if not isinstance(seed, Integral) or isinstance(seed, bool):
        raise TypeError(f"seed is {shown(seed)}; give a whole number.")
    return int(seed)


def check_path(name: str, path: Any) -> Path:
    """Turn an argument into a Path, with ~ for the user's home, or raise one clear sentence."""
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise TypeError(f"{name} is {shown(path)}; give the path of a file or folder.")
    return Path(path).expanduser()


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
        raise TypeError(f"generator is {shown(generator)}; give a torch.Generator or None.")
    if generator is not None and generator.device.type != images.device.type:
        raise ValueError(
            f"generator is on {generator.device} and images on {images.device}; give both on one "
            "device."
        )
    for name, value in amounts.items():
        if not isinstance(value, Tensor) or value.is_complex():
            raise TypeError(f"{name} is {shown(value)}; give a tensor of real numbers.")
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
        raise TypeError(f"{name} is {shown(value)}; give a pair (low, high).")
    low, high = (check_number(f"a value of {name}", number) for number in value)
    if not least <= low <= high <= most:
        raise ValueError(f"{name} is {value!r}; give {least:g} <= low <= high <= {most:g}.")
    return low, high


def check_affine(degrees: Any, translate: Any, scale: Any) -> tuple[float, float, float]:
    """Raise one clear sentence unless these are amounts that can be drawn up to."""
    made = []
    for name, value in (("degrees", degrees), ("translate", translate), ("scale", scale)):
        made.append(check_number(name, value))
        if made[-1] < 0 or (name == "scale" and made[-1] >= 1):
            allowed = "a fraction from 0 to below 1" if name == "scale" else "zero or more"
            raise ValueError(f"{name} is {value}; give {allowed}, the largest amount to draw.")
    return made[0], made[1], made[2]
