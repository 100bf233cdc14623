# SPDX-License-Identifier: MIT
"""Images as patches and as sequences of tokens, and how alike their positions are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .frames import (
    as_array,
    cut,
    draw_image,
    fit_columns,
    grid_of_axes,
    new_figure,
    patch_numbers,
    plain_axes,
    read_pixels,
)
from .look import DIVERGING, PALETTE, ROLES, SEQUENTIAL, WIDTH, halo, style


def _number_step(cell: float, largest: int) -> int:
    """Every how many-th patch has room for its number, in cells of ``cell`` inches."""
    return max(1, math.ceil((0.1 * len(str(largest)) + 0.06) / cell))


@style()
def show_patches(
    image: Any,
    patch_size: int,
    *,
    numbers: bool = True,
    gap: float = 0.12,
    highlight: Sequence[int] = (),
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """An image cut into its patches, with gaps between them, numbered row by row from 0.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        patch_size: P, which must divide H and W.
        gap: the space between patches, as a part of a patch.
        highlight: numbers of patches to frame.
    """
    pixels = read_pixels(image, "image", batch=False)
    patches, (rows, cols) = cut(pixels, patch_size)
    marked = patch_numbers(highlight, len(patches), "highlight")
    width = min(WIDTH, max(2.6, cols * 0.62))
    fig = new_figure(title, figsize, (width, width * rows / cols))
    ax = fig.subplots()
    plain_axes(ax)
    step = _number_step(fig.get_figwidth() / (cols * (1 + gap)), len(patches) - 1)
    for index, patch in enumerate(patches):
        row, col = divmod(index, cols)
        left, top = col * (1 + gap), row * (1 + gap)
        draw_image(ax, patch, extent=(left, left + 1, top + 1, top), zorder=1)
        framed = index in marked
        ax.add_patch(
            Rectangle(
                (left, top),
                1,
                1,
                fill=False,
                zorder=2,
                edgecolor=ROLES["attention"] if framed else ROLES["image"],
                linewidth=3.0 if framed else 1.0,
            )
        )
        if numbers and row % step == 0 and col % step == 0:
            ax.text(
                left + 0.05,
                top + 0.04,
                str(index),
                ha="left",
                va="top",
                zorder=3,
                path_effects=halo(),
            )
    ax.set_xlim(-0.04, cols * (1 + gap) - gap + 0.04)
    ax.set_ylim(rows * (1 + gap) - gap + 0.04, -0.04)
    ax.set_aspect("equal")
    return fig


@style()
def show_token_sequence(
    image: Any,
    patch_size: int,
    *,
    order: Any = None,
    class_token: bool = False,
    columns: int | None = None,
    highlight: Sequence[int] = (),
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """The patches as the sequence that the model sees, wrapped into rows as text is.

    Under each token stands its patch's number in the image.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        patch_size: P, which must divide H and W.
        order: N patch numbers, to show the sequence in another order.
        class_token: put a class token in front.
        columns: tokens in a row of the picture; without it, 8 or the width of the image's grid.
        highlight: numbers of patches to frame.
    """
    pixels = read_pixels(image, "image", batch=False)
    patches, (_, cols) = cut(pixels, patch_size)
    count = len(patches)
    numbers = list(range(count))
    if order is not None:
        numbers = [int(i) for i in as_array(order, "order", 1)]
        if sorted(numbers) != list(range(count)):
            raise ValueError(f"order must hold each of the numbers 0 to {count - 1} once.")
    marked = patch_numbers(highlight, count, "highlight")
    cells: list[int | None] = [*([None] if class_token else []), *numbers]
    columns = fit_columns(columns, 8 if cols <= 8 else min(cols, 14), len(cells))
    rows = math.ceil(len(cells) / columns)
    cell = WIDTH / columns
    step = _number_step(cell, count - 1)
    line = 1.1 + 0.2 / cell
    fig = new_figure(title, figsize, (WIDTH, rows * line * cell))
    ax = fig.subplots()
    plain_axes(ax)
    for place, index in enumerate(cells):
        row, col = divmod(place, columns)
        left, top = float(col), row * line
        text = "cls" if index is None else str(index)
        if index is None:
            face = ROLES["class_token"]
            ax.add_patch(Rectangle((left, top), 0.88, 0.88, facecolor=face, linewidth=0))
        else:
            extent = (left, left + 0.88, top + 0.88, top)
            draw_image(ax, patches[index], extent=extent, zorder=1)
            framed = index in marked
            ax.add_patch(
                Rectangle(
                    (left, top),
                    0.88,
                    0.88,
                    fill=False,
                    zorder=2,
                    edgecolor=ROLES["attention"] if framed else ROLES["image"],
                    linewidth=3.0 if framed else 1.0,
                )
            )
        if index is None or place % step == 0:
            ax.text(left + 0.44, top + 0.92, text, ha="center", va="top")
    ax.set_xlim(-0.04, columns - 0.08)
    ax.set_ylim(rows * line - 0.05, -0.04)
    ax.set_aspect("equal")
    return fig


@style()
def plot_similarity(
    table: Any,
    grid: tuple[int, int],
    *,
    patches: Sequence[int] | None = None,
    prefix_tokens: int = 0,
    columns: int = 3,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """How alike the position of a patch is to the position of every patch, as small pictures.

    Each picture is the grid of patches; its colour is the cosine similarity (-1 to 1) of that
    patch's row in the table with the row of the framed patch. Where no similarity is below zero
    the scale begins near the least one.

    Args:
        table: (N, D) or (1, N, D), one row a token.
        grid: (rows, columns) with rows * columns = N - prefix_tokens.
        patches: numbers of the patches to frame; without it, nine spread over the grid.
        prefix_tokens: rows in front that belong to no patch (class token, registers); left out.
    """
    rows_of = as_array(table, "table", (2, 3)).astype(float)
    if rows_of.ndim == 3:
        if len(rows_of) != 1:
            raise ValueError(f"table has shape {rows_of.shape}, but must be (N, D) or (1, N, D).")
        rows_of = rows_of[0]
    rows, cols = (int(side) for side in grid)
    vectors = rows_of[prefix_tokens:]
    if len(vectors) != rows * cols:
        raise ValueError(
            f"table has {len(rows_of)} rows, {prefix_tokens} of them in front, but a grid of "
            f"{rows} x {cols} needs {rows * cols} more: mend grid or prefix_tokens."
        )
    if patches is None:
        lines = sorted({round(f * (rows - 1)) for f in (0.12, 0.5, 0.88)})
        places = sorted({round(f * (cols - 1)) for f in (0.12, 0.5, 0.88)})
        chosen = [r * cols + c for r in lines for c in places]
        columns = len(places)
    else:
        chosen = patch_numbers(patches, rows * cols, "patches")
    columns = fit_columns(columns, 3, len(chosen))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = vectors / np.where(norms > 0, norms, 1)
    similarity = unit @ unit.T
    # Where nothing points away, the whole scale goes to the differences that there are.
    least = float(similarity[chosen].min())
    parts = 10 if least < 0.9 else 100
    low = -1.0 if least < -1e-6 else math.floor(parts * min(max(0.0, least), 0.989)) / parts
    colours = DIVERGING if low < 0 else SEQUENTIAL
    down = math.ceil(len(chosen) / columns)
    cell = min(WIDTH / columns, 2.2)
    fig = new_figure(title, figsize, (WIDTH, down * (cell * rows / cols + 0.24) + 0.7))
    axes = grid_of_axes(fig, len(chosen), columns)
    mesh: Any = None
    for ax, index in zip(axes, chosen, strict=True):
        mesh = ax.imshow(similarity[index].reshape(rows, cols), cmap=colours, vmin=low, vmax=1)
        row, col = divmod(index, cols)
        ax.add_patch(
            Rectangle(
                (col - 0.5, row - 0.5),
                1,
                1,
                fill=False,
                edgecolor=PALETTE["vermillion"] if low >= 0 else "black",
                linewidth=2,
            )
        )
        ax.set_title(f"patch {index}", pad=3)
        for spine in ax.spines.values():
            spine.set_visible(True)
            spine.set_color("#AAAAAA")
    bar = fig.colorbar(mesh, ax=axes, location="bottom", shrink=0.8, aspect=35, pad=0.03)
    bar.set_label("cosine similarity")
    bar.set_ticks([-1, 0, 1] if low < 0 else [low, (1 + low) / 2, 1])
    bar.outline.set_visible(False)
    return fig
