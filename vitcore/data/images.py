# SPDX-License-Identifier: MIT
"""Reads one picture as a uint8 tensor of the wanted size and channels (chapter 6)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._inputs import check, shown, to_pair
from ._inputs import check_path

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm",
)  # fmt: skip
_COVERING = 8  # times the wanted side: more of a long, thin picture is cut off before it is resized


def read_image(
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int],
    channels: int | None = None,
) -> Tensor:
    """Read one picture as uint8 (C, H, W): resized to cover the size, then cut about its centre.

    channels=1 turns colour into grey, 3 repeats grey, None keeps what the file has (transparent
    places become white); 16-bit values are brought to 8. MNIST is white on black and ink on
    paper is not: for a photographed digit see ``read_digit``.

    Raises ValueError that names a file which cannot be read, FileNotFoundError.
    """
    size = to_pair(image_size)
    return fit_image(decode(check_path("path", path)), size, check_channels(channels))


def check_channels(channels: Any) -> int | None:
    """Raise one clear sentence unless ``channels`` is 1, 3 or None."""
    if channels is None:
        return None
    return check("channels", channels, Integral, "1, 3 or None", (1, 3).__contains__, int)


def decode(path: Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, C), with C = 1 if it is grey and 3 if it has colour."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return _read_picture(path)
    except MemoryError:
        raise
    except Exception as error:  # Pillow lets through whatever a damaged file provokes
        reason = shown(str(error))[1:-1]
        raise ValueError(f"{path} cannot be read as an image: {reason}") from error


def _read_picture(path: Path) -> np.ndarray:
    from PIL import Image, ImageOps

    with Image.open(path) as file:
        mode = file.mode
        picture: Image.Image = ImageOps.exif_transpose(file)  # as the camera was held
        picture.load()
    if picture.mode.startswith("I"):  # 16 bits a pixel; some versions of Pillow widen it to 32
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("it has more than 16 bits a pixel: store 8 or 16")
        return np.round(values / 257).astype(np.uint8)[..., None]
    if picture.mode == "F":
        raise ValueError("its pixels are floating point: store 8 or 16 bits")
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        # What shows through is white, as on paper; dropping alpha would show what lay beneath it.
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture)
        picture = paper.convert("L" if mode in ("LA", "La") else "RGB")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def fit_image(values: np.ndarray, size: tuple[int, int], channels: int | None) -> Tensor:
    """Give uint8 (H, W, C) the wanted channels, resize it to cover ``size`` and cut its centre."""
    given = values.shape[2]
    if (given, channels) == (1, 3):
        values = values.repeat(3, axis=2)
    elif (given, channels) == (3, 1):  # the luma of ITU-R 601, as Pillow and MNIST tools do
        values = np.round(values @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
    image = torch.from_numpy(np.array(values)).permute(2, 0, 1)
    sides = list(zip(size, image.shape[1:], strict=True))
    factor = max(s / n for s, n in sides)
    # A picture so long that to resize all of it would take gigabytes loses its ends first.
    image = _centre(image, [min(n, math.ceil(_COVERING * s / factor)) for s, n in sides])
    covering = [max(round(n * factor), s) for s, n in zip(size, image.shape[1:], strict=True)]
    if covering != list(image.shape[1:]):
        image = torch.nn.functional.interpolate(
            image[None].float(), covering, mode="bilinear", antialias=True, align_corners=False
        )[0]
        image = image.round().clamp(0, 255).to(torch.uint8)
    return _centre(image, size).contiguous()


def _centre(image: Tensor, size: Sequence[int]) -> Tensor:
    """Cut the middle of a picture (C, H, W)."""
    top, left = ((n - s) // 2 for n, s in zip(image.shape[1:], size, strict=True))
    return image[:, top : top + size[0], left : left + size[1]]
