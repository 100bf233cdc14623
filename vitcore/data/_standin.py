# SPDX-License-Identifier: MIT
"""Drawings that stand in for MNIST and CIFAR-100 where the real images are not there (chapter 6).

They have the shapes, types and class names of the real sets, fewer images, and are easier: a
result on them says that the code works and nothing about the method. Digits are those of a printed
font. For CIFAR-100 a class is a coloured letter: its group of five classes shares the letter, the
place in the group gives the colour.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .content import rank_in_class
from .geometry import affine
from .known import CIFAR100_GROUP_OF

TRAIN, TEST = 15_000, 2_000
LETTERS = "ABCDEFGHJKLMNPRTUVXZ"  # one for each group
# Sky blue, orange, bluish green, purple and yellow, apart for colour-blind readers.
COLOURS = ((87, 181, 232), (230, 115, 13), (0, 140, 89), (191, 89, 191), (242, 230, 51))


def generate(name: str, seed: int = 0, *, train: int = TRAIN, test: int = TEST) -> dict[str, Any]:
    """Draw training and test images of "mnist" or "cifar100", as the arrays of a .npz file.

    The same arguments give the same images. Classes have equal shares.
    """
    classes, draw = {"mnist": (10, _digits), "cifar100": (100, _letters)}[name]
    arrays: dict[str, Any] = {"split": "stand-in"}
    for part, (suffix, count) in enumerate((("train", train), ("test", test))):
        generator = torch.Generator().manual_seed(2 * seed + part)
        labels = torch.arange(count) % classes
        labels = labels[torch.randperm(count, generator=generator)]
        arrays[f"x_{suffix}"] = draw(labels, generator).numpy()
        arrays[f"y_{suffix}"] = labels.to(torch.uint8).numpy()
    return arrays


def _drawn(characters: str, which: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Draw characters[which], white on black (B, 1, H, W), each turned, scaled and moved."""
    from PIL import Image, ImageDraw, ImageFont

    font, glyphs = ImageFont.load_default(0.9 * side), []
    for character in characters:
        page = Image.new("L", (side, side))
        ImageDraw.Draw(page).text((side / 2, side / 2), character, 255, font, anchor="mm")
        glyphs.append(torch.from_numpy(np.array(page)).float() / 255)
    turn, right, down, size = torch.rand((4, len(which)), generator=generator) * 2 - 1
    shift = torch.stack([right, down], dim=1) * 2
    return affine(torch.stack(glyphs)[which][:, None], turn * 10, shift, 1 + size * 0.1)


def _finish(images: Tensor, generator: torch.Generator) -> Tensor:
    """Add noise to images in [0, 1] and bring them to uint8."""
    noisy = images + torch.randn(images.shape, generator=generator) * 0.05
    return (noisy.clamp(0, 1) * 255).round().to(torch.uint8)


def _digits(labels: Tensor, generator: torch.Generator) -> Tensor:
    """White digits on black (B, 28, 28) uint8."""
    return _finish(_drawn("0123456789", labels, 28, generator)[:, 0], generator)


def _letters(labels: Tensor, generator: torch.Generator) -> Tensor:
    """Coloured letters on dark grounds (B, 32, 32, 3) uint8."""
    groups = torch.tensor(CIFAR100_GROUP_OF)
    place = torch.from_numpy(rank_in_class(groups.numpy()))  # of each class in its group of five
    ink = _drawn(LETTERS, groups[labels], 32, generator).movedim(1, -1)  # (B, 32, 32, 1)
    colour = torch.tensor(COLOURS)[place[labels]].view(-1, 1, 1, 3) / 255
    ground = 0.1 + 0.1 * torch.rand((len(labels), 1, 1, 3), generator=generator)
    return _finish(torch.lerp(ground, colour, ink), generator)
