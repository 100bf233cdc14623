# SPDX-License-Identifier: MIT
"""Pixel values: their mean and deviation, and the normalisation by both (chapter 6)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .._inputs import check_number


def channel_columns(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """mean and std as (C, 1, 1), to be broadcast over images."""
    column = (len(mean), 1, 1)
    return (
        torch.tensor(mean, dtype=torch.float32, device=device).view(column),
        torch.tensor(std, dtype=torch.float32, device=device).view(column),
    )


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
    # A channel without any contrast would be divided by zero.
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(map(float, mean)), tuple(map(float, std))


def to_tensor(images: np.ndarray, keep: np.ndarray) -> Tensor:
    """Copy the images at ``keep`` into one uint8 tensor (N, C, H, W), a block at a time."""
    if images.ndim == 3:
        images = images[..., None]
    height, width, channels = images.shape[1:]
    out = torch.empty((len(keep), channels, height, width), dtype=torch.uint8)
    for start in range(0, len(keep), 2048):
        block = images[keep[start : start + 2048]]
        out[start : start + len(block)] = torch.from_numpy(block).permute(0, 3, 1, 2)
    return out


def check_statistics(mean: Sequence[float], std: Sequence[float], channels: int) -> None:
    """Raise one clear sentence unless mean and std hold a usable number for every channel."""
    for name, values in (("mean", mean), ("std", std)):
        if isinstance(values, str) or not isinstance(values, (Sequence, Tensor, np.ndarray)):
            raise TypeError(f"{name} has one number per channel, such as (0.5,), given {values!r}")
        for value in values:
            check_number(f"a value of {name}", float(value) if hasattr(value, "item") else value)
    if not len(mean) == len(std) == channels:
        raise ValueError(
            f"mean and std have one value per channel: the images have {channels} "
            f"channels, given {len(mean)} and {len(std)} values"
        )
    if not all(math.isfinite(value) for value in (*mean, *std)):
        raise ValueError(f"mean and std must be finite, given {tuple(mean)} and {tuple(std)}")
    if min(std) <= 0:
        raise ValueError(f"every value of std must be above zero, given {tuple(std)}")


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Map images (…, C, H, W), uint8 or floating point in [0, 1], to mean 0 and deviation 1.

    mean and std are per channel, for pixel values in [0, 1].

    Raises TypeError for images of another type, ValueError for a number of channels that differs.
    """
    check_pixels(images)
    check_statistics(mean, std, images.shape[-3])
    scaled = images.float() / 255 if images.dtype == torch.uint8 else images
    columns = channel_columns(mean, std, images.device)
    return (scaled - columns[0]) / columns[1]


def denormalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Undo ``normalise``: floating point images (…, C, H, W) back to [0, 1]."""
    check_pixels(images)
    check_statistics(mean, std, images.shape[-3])
    columns = channel_columns(mean, std, images.device)
    return (images * columns[1] + columns[0]).clamp(0, 1)


def check_pixels(images: object) -> None:
    """Raise one clear sentence unless ``images`` is a tensor (…, C, H, W) of pixel values."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}; give a torch tensor (…, C, H, W)")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"images is {images.dtype}; give uint8, or floating point in [0, 1]")
    if images.ndim < 3:
        raise ValueError(f"images has the shape {tuple(images.shape)}; give (…, C, H, W)")
