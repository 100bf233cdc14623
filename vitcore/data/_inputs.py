# SPDX-License-Identifier: MIT
"""What refuses bad input for data and augmentation, beside the core's own checks."""

from __future__ import annotations

import math
import os
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._inputs import check_number, check_rate, check_tensor, shown


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
    check_tensor("images", images, "B, C, H, W")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator is {shown(generator)}; give a torch.Generator or None.")
    if generator is not None and generator.device.type != images.device.type:
        places = f"generator is on {generator.device} and images on {images.device}"
        raise ValueError(f"{places}; give both on one device.")
    for name, value in amounts.items():
        flags = isinstance(value, Tensor) and value.dtype == torch.bool and name != "which"
        if not isinstance(value, Tensor) or value.is_complex() or flags:
            raise TypeError(f"{name} is {shown(value)}; give a tensor of real numbers.")
        shape = (len(images), *_COLUMNS.get(name, ()))
        if value.shape != shape or value.device != images.device:
            given, wanted = f"{tuple(value.shape)} on {value.device}", f"{shape} on {images.device}"
            raise ValueError(f"{name} has shape {given}; give {wanted}, a row for each image.")


check_share = partial(
    check_number, fits=lambda number: 0 <= number <= 1, allowed="a number between 0 and 1"
)


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
    largest = "the largest amount to draw"
    check = partial(check_number, fits=lambda n: 0 <= n < 3e38, allowed=f"zero or more, {largest}")
    return check("degrees", degrees), check("translate", translate), check_rate("scale", scale)
