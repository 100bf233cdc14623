# SPDX-License-Identifier: MIT
"""What refuses bad input for data and augmentation, beside the core's own checks."""

from __future__ import annotations

import os
from functools import partial
from numbers import Integral
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._inputs import check, check_number, check_rate, check_tensor, shown

check_seed = partial(check, kind=Integral, allowed="a whole number", make=int)
check_share = partial(
    check_number, fits=lambda number: 0 <= number <= 1, allowed="a number between 0 and 1"
)


def check_path(name: str, path: Any) -> Path:
    """Turn an argument into a Path, with ~ for the user's home, or raise one clear sentence."""
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise TypeError(f"{name} is {shown(path)}; give the path of a file or folder.")
    return Path(path).expanduser()


def check_pictures(images: Any, generator: Any = None, **amounts: Any) -> None:
    """Raise one clear sentence unless images are (B, C, H, W) and each amount has a row for each.

    generator: None or one on the images' device. Amounts are (B,), shift (B, 2), box (B, 4).
    """
    check_tensor("images", images, "B, C, H, W")
    if generator is not None:
        check("generator", generator, torch.Generator, "a torch.Generator or None")
        if generator.device.type != images.device.type:
            places = f"generator is on {generator.device} and images on {images.device}"
            raise ValueError(f"{places}; give both on one device.")
    for name, value in amounts.items():
        row = {"shift": ", 2", "box": ", 4"}.get(name, "")
        check_tensor(name, value, f"{len(images)}{row}", floating=False)
        flags = value.dtype == torch.bool and name != "which"
        if value.is_complex() or flags or value.device != images.device:
            given = f"{name} is {value.dtype} on {value.device}"
            raise ValueError(f"{given}; give real numbers on {images.device}.")


def check_labels(labels: Tensor, classes: int | None) -> None:
    """Raise one clear sentence unless labels (N,), N > 0, are numbers of so many classes."""
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (classes is not None and high >= classes):
        last = "on" if classes is None else f"to {classes - 1}, one of {classes} classes"
        raise ValueError(f"labels reach from {low} to {high}; give numbers from 0 {last}.")


def check_range(name: str, value: Any, least: float, most: float) -> tuple[float, float]:
    """Raise one clear sentence unless ``value`` is (low, high) between ``least`` and ``most``."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"{name} is {shown(value)}; give a pair (low, high).")
    low, high = (check_number(f"a value of {name}", number) for number in value)
    if not least <= low <= high <= most:
        raise ValueError(f"{name} is {value!r}; give {least:g} <= low <= high <= {most:g}.")
    return low, high


def check_affine(degrees: Any, translate: Any, scale: Any) -> tuple[float, float, float]:
    """Raise one clear sentence unless these are amounts that can be drawn up to."""
    allowed = "zero or more, the largest amount to draw"
    check_amount = partial(check_number, fits=lambda n: 0 <= n < 3e38, allowed=allowed)
    amounts = check_amount("degrees", degrees), check_amount("translate", translate)
    return *amounts, check_rate("scale", scale)
