# SPDX-License-Identifier: MIT
"""Drawings that stand in for MNIST and CIFAR-100 where the real images are not there (chapter 6).

They have the shapes, types and class names of the real sets, fewer images, and are easier: a
result on them says that the code works and nothing about the method. Digits are drawn as strokes.
For CIFAR-100 a class is a coloured shape: its group of five classes shares the shape, the place in
the group gives the colour.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from .content import rank_in_class
from .geometry import affine
from .known import CIFAR100_GROUP_OF

VERSION = 1  # part of the file name in the cache: raise it when a drawing changes
TRAIN, TEST = 15_000, 2_000


def generate(name: str, seed: int = 0, *, train: int = TRAIN, test: int = TEST) -> dict[str, Any]:
    """Draw training and test images of "mnist" or "cifar100", as the arrays of a .npz file.

    The same arguments give the same images. Classes have equal shares.
    """
    classes, draw = {"mnist": (10, _digits), "cifar100": (100, _shapes)}[name]
    arrays: dict[str, Any] = {"split": "stand-in"}
    for part, (suffix, count) in enumerate((("train", train), ("test", test))):
        generator = torch.Generator().manual_seed(2 * seed + part)
        labels = torch.arange(count) % classes
        labels = labels[torch.randperm(count, generator=generator)]
        # Drawn in blocks: the distances of all pixels to all strokes would need gigabytes.
        images = torch.cat([draw(block, generator) for block in labels.split(512)])
        arrays[f"x_{suffix}"] = images.numpy()
        arrays[f"y_{suffix}"] = labels.to(torch.uint8).numpy()
    return arrays


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, generator=generator)


# Digits: strokes in a box from -1 to 1, x to the right, y down


def _arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 8
) -> list[tuple[float, float]]:
    """Points on an ellipse about (x, y); angles in degrees, 0 to the right, 90 down."""
    angles = [math.radians(start + (end - start) * i / steps) for i in range(steps + 1)]
    return [(x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles]


_STROKES: list[list[list[tuple[float, float]]]] = [
    [_arc(0, 0, 0.6, 1, 0, 360, 12)],
    [[(-0.35, -0.6), (0.05, -1), (0.05, 1)]],
    [[*_arc(0, -0.45, 0.55, 0.55, 190, 395), (-0.6, 1), (0.65, 1)]],
    [_arc(0, -0.5, 0.5, 0.5, 200, 450), _arc(0, 0.5, 0.58, 0.5, 270, 520)],
    [[(0.3, 1), (0.3, -1), (-0.65, 0.35), (0.65, 0.35)]],
    [[(0.55, -1), (-0.45, -1), (-0.5, -0.1), *_arc(0, 0.4, 0.58, 0.6, 235, 505)]],
    [[(0.4, -1), (-0.3, -0.4), (-0.52, 0.4), *_arc(0, 0.45, 0.52, 0.52, 180, 540, 10)]],
    [[(-0.6, -1), (0.6, -1), (-0.15, 1)]],
    [_arc(0, -0.5, 0.45, 0.48, 90, 450, 10), _arc(0, 0.5, 0.55, 0.5, 270, 630, 10)],
    [[*_arc(0, -0.45, 0.52, 0.52, 0, 360, 10), (0.45, 0.3), (0.2, 1)]],
]


def _segments() -> tuple[Tensor, Tensor]:
    """All strokes as segments (10, S, 2 ends, 2), padded, and which of them count (10, S)."""
    digits = [[pair for stroke in strokes for pair in pairwise(stroke)] for strokes in _STROKES]
    counts = torch.tensor([len(segments) for segments in digits])
    points = pad_sequence([torch.tensor(segments) for segments in digits], batch_first=True)
    return points, torch.arange(points.shape[1]) < counts[:, None]


def _digits(labels: Tensor, generator: torch.Generator) -> Tensor:
    """White digits on black (B, 28, 28) uint8, each turned, slanted, stretched, moved and noisy."""
    count = len(labels)
    points, used = _segments()
    ends = points[labels]  # (B, S, 2, 2)
    angle = _uniform(count, -0.2, 0.2, generator)
    slant = _uniform(count, -0.2, 0.25, generator)
    wide, high = (_uniform(count, 6.5, 9, generator) for _ in range(2))
    cos, sin = torch.cos(angle), torch.sin(angle)
    matrix = torch.stack(
        [cos * wide, -(cos * slant + sin) * high, sin * wide, (cos - sin * slant) * high], dim=1
    ).view(-1, 1, 1, 2, 2)
    middle = 13.5 + _uniform(count * 2, -1.5, 1.5, generator).view(-1, 1, 1, 2)
    ends = (matrix @ ends[..., None]).squeeze(-1) + middle

    axis = torch.arange(28.0)
    pixels = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1).view(-1, 2)
    nearest = torch.full((count, 28 * 28), 1e6)
    squares = pixels.square().sum(-1)
    for segment in range(ends.shape[1]):  # the squared distance of each pixel to each stroke
        start, along = ends[:, segment, 0], ends[:, segment, 1] - ends[:, segment, 0]
        length = along.square().sum(-1, keepdim=True).clamp_min(1e-6)  # (B, 1), squared
        reach = along @ pixels.T - (along * start).sum(-1, keepdim=True)  # (B, 784)
        share = (reach / length).clamp_(0, 1)
        away = squares - 2 * (start @ pixels.T) + start.square().sum(-1, keepdim=True)
        distance = away + share * (share * length - 2 * reach)
        skipped = ~used[labels, segment]
        nearest = torch.minimum(nearest, distance.masked_fill_(skipped[:, None], 1e6))
    thick = _uniform(count, 0.9, 1.8, generator)[:, None]
    ink = (thick + 0.5 - nearest.clamp_min(0).sqrt()).clamp(0, 1)
    noise = torch.randn(ink.shape, generator=generator) * 0.04 * (ink > 0)
    return ((ink + noise).clamp(0, 1) * 255).round().to(torch.uint8).view(-1, 28, 28)


# Coloured shapes: sky blue, orange, bluish green, purple and yellow, apart for colour-blind readers
_COLOURS = torch.tensor([
    (0.34, 0.71, 0.91), (0.90, 0.45, 0.05), (0.0, 0.55, 0.35), (0.75, 0.35, 0.75), (0.95, 0.9, 0.2),
])  # fmt: skip


def _outlines() -> Tensor:
    """Twenty shapes as masks (20, 1, 32, 32), one for each group."""
    axis = (torch.arange(32.0) - 15.5) / 12
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    r, box = torch.hypot(x, y), torch.maximum(x.abs(), y.abs())
    inside = box < 1
    star = 0.65 + 0.35 * torch.cos(5 * torch.atan2(y, x))
    shapes = [
        r < 1,
        (r < 1) & (r > 0.55),
        inside,
        inside & (box > 0.6),
        x.abs() + y.abs() < 1,
        inside & (x.abs() < (y + 1) / 2),
        inside & (x.abs() < (1 - y) / 2),
        r < star,
        inside & (torch.minimum(x.abs(), y.abs()) < 0.3),
        inside & ((x.abs() - y.abs()).abs() < 0.3),
        inside & (y.abs() < 0.35),
        inside & (x.abs() < 0.35),
        inside & (y.abs() > 0.4),
        inside & (x.abs() > 0.4),
        inside & ((y < -0.5) | (x.abs() < 0.25)),
        inside & ((y > 0.5) | (x < -0.5)),
        (r < 1) & (y < 0),
        (r < 1) & (x > 0),
        inside & (x * y > 0),
        inside & ((x.abs() > 0.5) | (y > 0.5)),
    ]
    return torch.stack(shapes).float()[:, None]


def _shapes(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Coloured shapes on dark noise (B, 32, 32, 3) uint8, each turned, scaled and moved."""
    count = len(labels)
    groups = torch.tensor(CIFAR100_GROUP_OF)
    place = torch.from_numpy(rank_in_class(groups.numpy()))  # of each class in its group of five
    mask = affine(
        _outlines()[groups[labels]],
        _uniform(count, -5, 5, generator),
        _uniform(count * 2, -1, 1, generator).view(-1, 2),
        _uniform(count, 0.95, 1.15, generator),
    )
    colour = _COLOURS[place[labels]] + torch.randn((count, 3), generator=generator) * 0.04
    ground = _uniform(count * 3, 0.1, 0.2, generator).view(-1, 3, 1, 1)
    image = ground + (colour[:, :, None, None] - ground) * mask
    image = image + torch.randn(image.shape, generator=generator) * 0.05
    return (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
