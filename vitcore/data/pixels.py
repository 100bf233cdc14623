# SPDX-License-Identifier: MIT
"""Pixel values: their mean and deviation, and the normalisation by both (chapter 6)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._inputs import check_above_zero, check_number, check_tensor, shown


def channel_columns(*values: Sequence[float], device: torch.device) -> list[Tensor]:
    """mean and std as (C, 1, 1), to be broadcast over images."""
    columns = (torch.tensor(value, dtype=torch.float32, device=device) for value in values)
    return [column.view(-1, 1, 1) for column in columns]


def histograms(images: np.ndarray) -> np.ndarray:
    """How often each value stands in each channel of (N, H, W) or (N, H, W, C): (C, 256)."""
    channels = images.shape[3] if images.ndim == 4 else 1
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 2048):  # bincount needs eight bytes a pixel
        block = images[start : start + 2048].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(block[:, channel], minlength=256)
    return counts


def statistics(histograms: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for values in [0, 1], exact in float64."""
    values = np.arange(256) / 255
    total = histograms.sum(1)
    mean = histograms @ values / total
    variance = (histograms * (values - mean[:, None]) ** 2).sum(1) / total
    std = np.maximum(np.sqrt(variance), 1 / 255)  # a channel without contrast would divide by zero
    return tuple(map(float, mean)), tuple(map(float, std))


def to_tensor(images: np.ndarray, keep: np.ndarray) -> Tensor:
    """Copy those images (N, H, W) or (N, H, W, C) into one uint8 tensor (N, C, H, W)."""
    chosen = torch.from_numpy(images[keep])
    return chosen[:, None] if chosen.ndim == 3 else chosen.permute(0, 3, 1, 2).contiguous()


def check_statistics(mean: Any, std: Any, channels: int) -> tuple[tuple[float, ...], ...]:
    """Return (mean, std) as floats, or raise one clear sentence: one usable number per channel."""
    made = []
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, (Tensor, np.ndarray)) and values.ndim == 1:
            values = values.tolist()
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{name} is {shown(values)}; give a number per channel, as in (0.5,).")
        check = check_number if name == "mean" else check_above_zero
        made.append(tuple(check(f"a value of {name}", value) for value in values))
    if not len(made[0]) == len(made[1]) == channels:
        counts = f"{len(made[0])} and {len(made[1])}"
        wanted = f"give one for each of the images' {channels} channels"
        raise ValueError(f"mean and std have {counts} values; {wanted}.")
    return made[0], made[1]


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map images (…, C, H, W), uint8 or floating point in [0, 1], to mean 0 and deviation 1.

    mean and std are per channel, for pixel values in [0, 1].

    Raises TypeError for images of another type, ValueError for a number of channels that differs.
    """
    means, stds = columns_for(images, mean, std)
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    return (scaled - means) / stds


def columns_for(images: Any, mean: Any, std: Any) -> list[Tensor]:
    """mean and std as (C, 1, 1) for images (…, C, H, W), or one clear sentence."""
    pixels = isinstance(images, Tensor) and images.dtype == torch.uint8
    check_tensor("images", images, "..., C, H, W", floating=not pixels)
    return channel_columns(*check_statistics(mean, std, images.shape[-3]), device=images.device)
