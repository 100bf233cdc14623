# SPDX-License-Identifier: MIT
"""Brings a digit photographed on paper to what MNIST's makers made of theirs (chapter 6).

MNIST's digits are light on black, fill the grey values from end to end, lie in a box of 20 x 20
pixels and have their centre of mass in the middle of 28 x 28 (LeCun et al., 1998, section III).
"""

from __future__ import annotations

import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import check_positive
from ._inputs import check_path
from .images import check_channels, decode, fit_image

_SIDE = 256  # pixels of the longer side on which ink is looked for


class Digit(NamedTuple):
    """A digit as MNIST's makers would have cut it, uint8 (C, H, W), and what was done to it."""

    image: Tensor
    note: str


def read_digit(path: str | os.PathLike[str], image_size: int = 28, channels: int = 1) -> Digit:
    """Read a photograph of one handwritten digit for a model trained on MNIST.

    The paper may be lit unevenly, and ink may be darker or lighter than it. The paper is told from
    the ink and taken away, the ink stretched to white on black, cut out, scaled to a box of 20
    pixels (of 28) and placed with its centre of mass in the middle. Returns ``Digit(image, note)``:
    uint8 (channels, image_size, image_size), and one sentence on what was done.

    Raises ValueError for a file that cannot be read or on which there is no ink,
    FileNotFoundError.
    """
    check_positive("image_size", image_size)
    channels = check_channels(channels) or 1
    file = check_path("path", path)
    values = decode(file)
    height, width = values.shape[:2]
    shrink = max(height, width) / _SIDE
    size = (max(1, round(height / shrink)), max(1, round(width / shrink)))
    grey = fit_image(values, size if shrink > 1 else (height, width), 1)[0].float()
    away = grey - _paper(grey)
    dark = bool((away**3).sum() < 0)  # the long tail is the ink: paper is most of the picture
    ink, found = _cut_out((-away if dark else away).clamp(min=0))
    if not found:
        advice = "photograph one digit, large, with a broad pen on plain paper"
        raise ValueError(f"there is no ink on {file}: {advice}")
    box = max(1, round(image_size * 20 / 28))
    scale = box / max(ink.shape)
    sides = [max(1, round(side * scale)) for side in ink.shape]
    small = F.interpolate(ink[None, None], sides, mode="bilinear", antialias=True)[0, 0]
    # Thin strokes become grey when they are scaled down; MNIST's are white in the middle.
    small = (small / torch.quantile(small[small > 0.1 * small.max()], 0.9)).clamp(0, 1)
    image = _centred(small, image_size)
    note = (
        f"{'dark' if dark else 'light'} ink of {ink.shape[0]} x {ink.shape[1]} pixels was "
        f"{'inverted, ' if dark else ''}stretched to the full contrast, scaled to {sides[0]} x "
        f"{sides[1]} and centred by its mass"
    )
    return Digit((image * 255).round().to(torch.uint8).expand(channels, -1, -1).clone(), note)


def _paper(grey: Tensor) -> Tensor:
    """The light that the paper alone would give (H, W): a surface of second order.

    It is fitted again and again to the pixels near it, so that ink drops out.
    """
    sides = (torch.linspace(-1, 1, side) for side in grey.shape)
    y, x = torch.meshgrid(*sides, indexing="ij")
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], dim=-1).view(-1, 6)
    values = grey.flatten()
    surface = values.median().expand_as(values)
    for _ in range(12):
        away = (values - surface).abs()
        near = away <= (3.7 * away.median()).clamp(min=2)  # 2.5 deviations of normal noise
        fit = torch.linalg.lstsq(terms[near], values[near, None], driver="gelsd").solution
        surface = (terms @ fit).squeeze(1)
    return surface.view_as(grey)


def _cut_out(ink: Tensor) -> tuple[Tensor, bool]:
    """The ink (h, w) in [0, 1] of the part that is written on, and whether there is any.

    Specks are smaller than a stroke: what a blur leaves below half of its strongest ink is paper.
    """
    width = max(1, round(max(ink.shape) / 85)) * 2 - 1
    blurred = F.avg_pool2d(ink[None, None], width, 1, width // 2, count_include_pad=False)[0, 0]
    top = blurred.max()
    noise = 1.4826 * blurred.median()
    if top < 12 or top < 6 * noise:
        return ink, False
    strong = blurred > 0.35 * top
    rows, cols = strong.any(1).nonzero().flatten(), strong.any(0).nonzero().flatten()
    part = blurred[rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    low = 0.15 * top
    return ((part - low) / (top - low)).clamp(0, 1), True


def _centred(small: Tensor, side: int) -> Tensor:
    """Place a small image in the middle of (side, side), by its centre of mass."""
    image = torch.zeros(side, side)
    corner = []
    for axis, length in enumerate(small.shape):
        mass = small.sum(1 - axis)
        centre = float((mass * (torch.arange(length) + 0.5)).sum() / mass.sum())
        corner.append(min(max(round(side / 2 - centre), 0), side - length))
    top, left = corner
    image[top : top + small.shape[0], left : left + small.shape[1]] = small
    return image
