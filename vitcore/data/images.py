# SPDX-License-Identifier: MIT
"""Reads one picture as a uint8 tensor of the wanted size and channels (chapter 6)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from .._inputs import check_flag, check_positive, shown, to_pair
from ._inputs import check_path

IMAGE_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm",
)  # fmt: skip
_COVERING = 8  # times the wanted side: more of a long, thin picture is cut off before it is resized


def read_image(
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int],
    channels: int | None = None,
    *,
    invert: bool = False,
) -> Tensor:
    """Read one picture as uint8 (C, H, W): resized to cover the size, then cut about its centre.

    channels=1 turns colour into grey, 3 repeats grey, None keeps what the file has (transparent
    places become white). A .npy file holds (H, W) or (H, W, C) with any number of channels; 16-bit
    values are brought to 8. invert=True swaps dark and light: MNIST is white on black, ink on
    paper is not. A photographed digit needs more than that: see ``read_digit``.

    Raises ValueError that names a file which cannot be read, FileNotFoundError.
    """
    size = to_pair(image_size)
    if channels is not None:
        check_positive("channels", channels)
    check_flag("invert", invert)
    file = check_path("path", path)
    image = fit_image(decode(file), size, channels, file)
    return 255 - image if invert else image


def decode(path: Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, C), with as many channels as the file has."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    except MemoryError:
        raise
    except Exception as error:  # Pillow and NumPy let through whatever a damaged file provokes
        reason = shown(str(error))[1:-1]
        raise ValueError(f"{path} cannot be read as an image: {reason}") from error


def _read_array(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        claimed = claimed_bytes(file)
    if claimed != path.stat().st_size:
        raise ValueError(f"its header announces {claimed:,} bytes")
    values = np.load(path, allow_pickle=False)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or 0 in values.shape:
        raise ValueError(f"its shape is {values.shape}, but must be (H, W) or (H, W, C)")
    return _to_bytes(values)


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
        return _to_bytes(values.astype(np.uint16))[..., None]
    if picture.mode == "F":
        return _to_bytes(np.asarray(picture))[..., None]
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        # What shows through is white, as on paper; dropping alpha would show what lay beneath it.
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture)
        grey = mode in ("LA", "La")
        picture = paper.convert("L" if grey else "RGB")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def _to_bytes(values: np.ndarray) -> np.ndarray:
    """Bring uint8, uint16, bool or floating point values in [0, 1] to uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:
        return np.round(values / 257).astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("its values lie outside [0, 1]: scale them, or store uint8")
        return np.round(values * 255).astype(np.uint8)
    allowed = "uint8, uint16 or floating point in [0, 1]"
    raise ValueError(f"its values have the type {values.dtype}: store {allowed}")


def claimed_bytes(file: IO[bytes]) -> int:
    """How long a .npy file has to be for the array that its header announces.

    Looked at before anything is read: memory for the array is taken before its values are missed.
    """
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"its format {version} is that of tables")
    form = np.lib.format
    read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
    shape, _, dtype = read(file)
    return file.tell() + math.prod(shape) * dtype.itemsize


def fit_image(
    values: np.ndarray, size: tuple[int, int], channels: int | None, path: Path
) -> Tensor:
    """Give uint8 (H, W, C) the wanted channels, resize it to cover ``size`` and cut its centre."""
    given = values.shape[2]
    if channels is not None and given != channels:
        if (given, channels) == (1, 3):
            values = values.repeat(3, axis=2)
        elif (given, channels) == (3, 1):  # the luma of ITU-R 601, as Pillow and MNIST tools do
            values = np.round(values @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
        else:
            problem = f"{path} has {given} channels, but {channels} are wanted"
            raise ValueError(
                f"{problem}: only grey (1) and colour (3) can be turned into each other"
            )
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
