# SPDX-License-Identifier: MIT
"""Attention laid over the image that it looks at: as a map and as arrows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle

from .frames import (
    as_array,
    fit_columns,
    grid_of_axes,
    new_figure,
    patch_numbers,
    plain_axes,
    read_pixels,
)
from .look import ROLES, WIDTH, halo, style


def _patch_weights(
    weights: Any, grid: tuple[int, int] | None, prefix_tokens: int, dims: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Weights of one query as (m, rows, columns), prefix tokens left out."""
    array = as_array(weights, "weights", dims).astype(float)
    if array.size and array.min() < 0:
        raise ValueError(
            f"weights go down to {array.min():.3g}, but attention weights are never negative: "
            "take them after the softmax."
        )
    array = np.atleast_2d(array)[:, prefix_tokens:]
    count = array.shape[1]
    if grid is None:
        side = math.isqrt(count)
        if side * side != count:
            raise ValueError(
                f"weights cover {count} patches, which is no square: say grid=(rows, columns), "
                "and prefix_tokens where a class token or registers stand in front."
            )
        grid = (side, side)
    rows, cols = (int(side) for side in grid)
    if rows * cols != count:
        raise ValueError(
            f"weights cover {count} patches, but a grid of {rows} x {cols} has {rows * cols}: "
            "mend grid or prefix_tokens."
        )
    return array.reshape(-1, rows, cols), (rows, cols)


def _grey(image: np.ndarray) -> np.ndarray:
    """The image as pale grey RGB, on which coloured weights and arrows stand out."""
    light = image @ np.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else image[..., 0]
    return np.repeat(light[..., None], 3, axis=-1)


@style()
def plot_attention_map(
    image: Any,
    weights: Any,
    *,
    query: int | None = None,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int = 0,
    titles: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """The attention of one query laid over the image: the redder a patch, the more it is looked at.

    Each picture is scaled to its own greatest weight, which is written above it.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        weights: (N,), the row of the query; or (m, N), as one row for each head.
        query: the number of the patch that asks, framed in the image (None for a class token).
        grid: (rows, columns) of the patches; without it, a square.
        prefix_tokens: weights in front that belong to no patch; left out.
        titles: m texts, as ["head 0", ...].
    """
    pixels = read_pixels(image, "image", batch=False)
    maps, (rows, cols) = _patch_weights(weights, grid, prefix_tokens, (1, 2))
    count = len(maps)
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles holds {len(titles)} entries, but there are {count} maps.")
    framed = patch_numbers(query, rows * cols, "query") if query is not None else []
    columns = fit_columns(columns, 1 if count == 1 else 2 if count <= 4 else 3, count)
    down = math.ceil(count / columns)
    height, width = pixels.shape[:2]
    full = 3.6 if columns == 1 else WIDTH
    cell = full / columns
    lines = 2 if titles is not None else 1
    fig = new_figure(title, figsize, (full, down * (cell * height / width + 0.2 * lines + 0.06)))
    for i, ax in enumerate(grid_of_axes(fig, count, columns)):
        ax.imshow(0.25 + 0.75 * _grey(pixels), extent=(0, cols, rows, 0))
        top = maps[i].max()
        layer = np.zeros((rows, cols, 4))
        layer[..., :3] = to_rgb(ROLES["attention"])
        layer[..., 3] = 0.85 * maps[i] / top if top > 0 else 0
        ax.imshow(layer, extent=(0, cols, rows, 0))
        for index in framed:
            row, col = divmod(index, cols)
            _frame_patch(ax, row, col)
        text = f"greatest {top:.2f}"
        ax.set_title(f"{titles[i]}\n{text}" if titles is not None else text, pad=3)
    return fig


def _frame_patch(ax: Any, row: int, col: int) -> None:
    for colour, width in (("white", 4.5), (ROLES["class_token"], 2.5)):
        ax.add_patch(
            Rectangle((col, row), 1, 1, fill=False, edgecolor=colour, linewidth=width, zorder=3)
        )


@style()
def plot_attention_arrows(
    image: Any,
    weights: Any,
    *,
    query: int,
    grid: tuple[int, int] | None = None,
    prefix_tokens: int = 0,
    top: int = 5,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Arrows from one patch to the patches it looks at, the wider the greater the weight.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        weights: (N,), the row of the query.
        query: the number of the patch that asks.
        grid: (rows, columns) of the patches; without it, a square.
        prefix_tokens: weights in front that belong to no patch; left out.
        top: how many of the greatest weights to draw, each with its share in per cent.
    """
    pixels = read_pixels(image, "image", batch=False)
    maps, (rows, cols) = _patch_weights(weights, grid, prefix_tokens, (1,))
    row_of = maps[0].ravel()
    (start,) = patch_numbers(query, rows * cols, "query")
    if top < 1:
        raise ValueError(f"top is {top}, but must be at least 1.")
    height, width = pixels.shape[:2]
    fig = new_figure(title, figsize, (WIDTH, WIDTH * height / width))
    ax = fig.subplots()
    plain_axes(ax)
    ax.imshow(0.2 + 0.8 * _grey(pixels), extent=(0, cols, rows, 0))
    for i in range(rows + 1):
        ax.axhline(i, color=ROLES["image"], linewidth=0.8)
    for i in range(cols + 1):
        ax.axvline(i, color=ROLES["image"], linewidth=0.8)
    from_row, from_col = divmod(start, cols)
    order = [int(i) for i in np.argsort(-row_of, kind="stable")[:top] if row_of[i] > 0]
    greatest = row_of[order[0]] if order else 1.0
    # The greatest last, so that it lies on top.
    for index in reversed(order):
        row, col = divmod(index, cols)
        share = row_of[index] / greatest
        if index != start:
            arrow = FancyArrowPatch(
                (from_col + 0.5, from_row + 0.5),
                (col + 0.5, row + 0.5),
                arrowstyle="-|>",
                mutation_scale=10 + 14 * share,
                linewidth=1.0 + 5.0 * share,
                color=ROLES["attention"],
                connectionstyle="arc3,rad=0.12",
                shrinkA=6,
                shrinkB=2,
                zorder=4,
                path_effects=halo("white", 1.0 + 5.0 * share + 2.0),
            )
            ax.add_patch(arrow)
        ax.text(
            col + 0.5,
            row + 0.96,
            f"{100 * row_of[index]:.0f} %",
            ha="center",
            va="bottom",
            path_effects=halo(),
            zorder=6,
        )
    _frame_patch(ax, from_row, from_col)
    ax.set_xlim(-0.03, cols + 0.03)
    ax.set_ylim(rows + 0.03, -0.03)
    return fig
