# SPDX-License-Identifier: MIT
"""What the pictures share: reading tensors and images, and making figures and axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .look import MAX_WIDTH, wrap_title
from .output import Picture


def as_array(values: Any, name: str, dims: int | tuple[int, ...] | None = None) -> np.ndarray:
    """Any tensor or array as a NumPy array; a ValueError when its rank is not one of ``dims``."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.float()
        values = values.numpy()
    array = np.asarray(values)
    if array.dtype == object:
        raise ValueError(f"{name} is ragged: every row needs the same length.")
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
    if dims is not None:
        allowed = (dims,) if isinstance(dims, int) else dims
        if array.ndim not in allowed:
            wanted = " or ".join(str(d) for d in allowed)
            raise ValueError(
                f"{name} has shape {tuple(array.shape)}, but must have {wanted} dimensions."
            )
    return array


def read_pixels(images: Any, name: str, batch: bool) -> np.ndarray:
    """Images (B, C, H, W), or one (C, H, W), as floats in [0, 1] with the channels last."""
    array = as_array(images, name, 4 if batch else 3)
    if not batch:
        array = array[None]
    channels = array.shape[1]
    if channels not in (1, 3):
        raise ValueError(
            f"{name} has {channels} channels in shape {tuple(array.shape)}, but a picture has "
            "1 or 3 channels, placed before height and width: choose some, as in images[:, :3]."
        )
    if array.dtype == np.uint8:
        array = array / 255.0
    elif array.dtype.kind == "f":
        if array.size and (array.min() < -0.01 or array.max() > 1.01):
            raise ValueError(
                f"{name} has values from {array.min():.3g} to {array.max():.3g}, but floats must "
                "lie in [0, 1]: undo the normalisation first, as dataset.denormalise(images) does."
            )
    else:
        raise TypeError(f"{name} has type {array.dtype}, but must be uint8 or float in [0, 1].")
    array = np.clip(array, 0, 1).transpose(0, 2, 3, 1)
    return array if batch else array[0]


def as_pixels(image: Any, name: str) -> np.ndarray:
    """One image (C, H, W), uint8 or float in [0, 1], as floats (H, W, C); errors name it."""
    return read_pixels(image, name, batch=False)


def label_texts(labels: Any, count: int, classes: Sequence[str] | None, name: str) -> list[str]:
    """One text for each of ``count`` labels, through the class names where they are given."""
    items = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    if len(items) != count:
        raise ValueError(f"{name} has {len(items)} entries for {count} images: give one for each.")
    if classes is not None:
        wrong = [i for i in items if not 0 <= int(i) < len(classes)]
        if wrong:
            raise ValueError(
                f"{name} holds {wrong[0]}, but there are {len(classes)} classes, "
                f"0 to {len(classes) - 1}."
            )
        items = [classes[int(i)] for i in items]
    return [str(item).replace("_", " ") for item in items]


def patch_numbers(values: Sequence[int] | int, count: int, name: str) -> list[int]:
    """Numbers of patches as a list; a ValueError names one that is not among ``count``."""
    items = [values] if isinstance(values, int) else [int(v) for v in values]
    wrong = [i for i in items if not 0 <= i < count]
    if wrong:
        raise ValueError(f"{name} holds {wrong[0]}, but the patches are 0 to {count - 1}.")
    return items


def cut(image: np.ndarray, patch_size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """An image (H, W, C) as (N, P, P, C), grid row by row, and its grid (rows, columns)."""
    if isinstance(patch_size, bool) or not isinstance(patch_size, int) or patch_size < 1:
        raise ValueError(f"patch_size is {patch_size!r}, but must be a whole number above zero.")
    height, width, channels = image.shape
    if height % patch_size or width % patch_size:
        raise ValueError(
            f"an image of {height} x {width} pixels does not divide into patches of "
            f"{patch_size}: choose a patch_size that divides both."
        )
    rows, cols = height // patch_size, width // patch_size
    patches = image.reshape(rows, patch_size, cols, patch_size, channels).transpose(0, 2, 1, 3, 4)
    return patches.reshape(rows * cols, patch_size, patch_size, channels), (rows, cols)


def draw_image(ax: Any, image: np.ndarray, **options: Any) -> None:
    """Draw pixels (H, W, C) into axes, one channel as grey."""
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, **options)
    else:
        ax.imshow(image, **options)


def new_figure(
    title: str | None, figsize: tuple[float, float] | None, default: tuple[float, float]
) -> Picture:
    """A figure of the book with its title, wrapped; a ValueError where it would not fit a page."""
    width, height = figsize or default
    if width > MAX_WIDTH:
        raise ValueError(
            f"figsize is {width:g} in wide, but at most {MAX_WIDTH:g} in can be read on a page."
        )
    lines = wrap_title(title, width)
    if figsize is None:
        height += 0.22 * len(lines)
    fig = Picture(figsize=(width, height), layout="constrained")
    if lines:
        fig.suptitle("\n".join(lines))
    return fig


def plain_axes(ax: Any) -> None:
    """Take ticks and edges from axes that hold a picture."""
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def grid_of_axes(fig: Figure, count: int, columns: int) -> list[Any]:
    """``count`` plain axes in rows of ``columns``."""
    rows = math.ceil(count / columns)
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        plain_axes(ax)
    for ax in axes[count:]:
        ax.set_visible(False)
    return axes[:count]


def fit_columns(columns: int | None, default: int, count: int) -> int:
    """How many columns to draw: those asked for, or the default, and no more than ``count``."""
    if columns is not None and columns < 1:
        raise ValueError(f"columns is {columns}, but must be at least 1.")
    return max(1, min(columns or default, count))


def legend_below(fig: Figure, ax: Any) -> None:
    """A legend under the axes, where it never covers a curve."""
    handles, labels = ax.get_legend_handles_labels()
    longest = max(len(label) for label in labels)
    columns = 3 if longest <= 9 else 2 if longest <= 17 else 1
    columns = min(columns, len(labels))
    rows = math.ceil(len(labels) / columns)
    fig.set_figheight(fig.get_figheight() + 0.24 * rows)
    fig.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2)
