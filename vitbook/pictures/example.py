# SPDX-License-Identifier: MIT
"""The picture that diagrams and pages take as their example; drawn, so that it needs no data."""

from __future__ import annotations

from typing import Any

import numpy as np

from .frames import as_pixels
from .look import PALETTE, tint


def motif(size: int = 64) -> np.ndarray:
    """A drawn picture, a house under the sun, as uint8 (3, size, size): the diagrams' example."""
    if size < 8:
        raise ValueError(f"size is {size}, but the motif needs at least 8 pixels.")
    # Drawn four times larger and averaged, so that edges are smooth.
    scale = 4
    y, x = (np.mgrid[0 : size * scale, 0 : size * scale] + 0.5) / (size * scale)
    sky_top, sky_low = np.array([0.55, 0.80, 0.95]), np.array([0.88, 0.95, 1.0])
    pixels = sky_top + (sky_low - sky_top) * y[..., None]

    def paint(where: np.ndarray, colour: str, amount: float = 1.0) -> None:
        pixels[where] = tint(colour, amount)

    paint((x - 0.8) ** 2 + (y - 0.2) ** 2 < 0.11**2, "#F5C518")
    paint(y > 0.70 + 0.05 * np.sin(4.2 * x + 0.6), PALETTE["green"], 0.85)
    paint((x > 0.2) & (x < 0.62) & (y > 0.45) & (y < 0.83), "#F3DDBE")
    paint((y < 0.47) & (y > 0.21 + np.abs(x - 0.41) * 0.95), PALETTE["vermillion"])
    paint((x > 0.26) & (x < 0.37) & (y > 0.54) & (y < 0.65), PALETTE["blue"])
    paint((x > 0.45) & (x < 0.56) & (y > 0.58) & (y < 0.83), "#7A4A1E")
    paint((x > 0.80) & (x < 0.835) & (y > 0.6) & (y < 0.8), "#7A4A1E")
    paint((x - 0.817) ** 2 + (y - 0.55) ** 2 < 0.095**2, "#00694D")
    small = pixels.reshape(size, scale, size, scale, 3).mean((1, 3))
    return (small * 255).round().astype(np.uint8).transpose(2, 0, 1)


def example_pixels(image: Any) -> np.ndarray:
    """Pixels (H, W, C) of the image (C, H, W), or of the ``motif`` without one."""
    return as_pixels(motif() if image is None else image, "image")
