# SPDX-License-Identifier: MIT
"""Pictures of images: side by side, in groups, and those that a model got wrong."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .frames import (
    as_array,
    draw_image,
    fit_columns,
    grid_of_axes,
    label_texts,
    new_figure,
    plain_axes,
    read_pixels,
)
from .look import WIDTH, style


@style()
def show_images(
    images: Any,
    labels: Any = None,
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Images side by side, each with its label above it.

    Args:
        images: (B, C, H, W), uint8 or float in [0, 1], C 1 or 3.
        labels: B texts or numbers; with ``classes``, numbers that are looked up there.
        columns: images in a row; without it, as many as the labels leave room for (3 to 8).
        title: ends with ``dataset.source.note`` where the images are of a data set.
    """
    pixels = read_pixels(images, "images", batch=True)
    count = len(pixels)
    if count == 0:
        raise ValueError("images holds no image, but at least one is needed.")
    names = label_texts(labels, count, classes, "labels") if labels is not None else None
    longest = max((len(name) for name in names), default=0) if names else 0
    room = 8 if longest <= 3 else 5 if longest <= 8 else 4 if longest <= 11 else 3
    columns = fit_columns(columns, room, count)
    rows = math.ceil(count / columns)
    cell = min(WIDTH / columns, 2.2)
    texts = [textwrap.fill(name, max(3, int(cell / 0.095))) for name in names] if names else []
    lines = max((text.count("\n") + 1 for text in texts), default=0)
    ratio = pixels.shape[1] / pixels.shape[2]
    fig = new_figure(title, figsize, (WIDTH, rows * (cell * ratio + 0.19 * lines) + 0.05))
    for i, ax in enumerate(grid_of_axes(fig, count, columns)):
        draw_image(ax, pixels[i])
        if texts:
            ax.set_title(texts[i], pad=3)
    return fig


@style()
def plot_mistakes(
    images: Any,
    true: Any,
    predicted: Any,
    confidence: Any = None,
    *,
    classes: Sequence[str] | None = None,
    columns: int | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Images that a model got wrong, with the true class and what the model said.

    Args:
        images: (B, C, H, W), uint8 or float in [0, 1].
        true, predicted: B class numbers (or texts, without ``classes``).
        confidence: B probabilities in [0, 1] that the model gave to its answer.
    """
    pixels = read_pixels(images, "images", batch=True)
    count = len(pixels)
    if count == 0:
        raise ValueError("images holds no image: with no mistakes there is nothing to show.")
    truth = label_texts(true, count, classes, "true")
    said = label_texts(predicted, count, classes, "predicted")
    sure: list[float] | None = None
    if confidence is not None:
        values = as_array(confidence, "confidence", 1)
        if len(values) != count or values.min() < 0 or values.max() > 1 + 1e-6:
            raise ValueError(f"confidence must hold {count} probabilities from 0 to 1.")
        sure = [float(v) for v in values]
    longest = max(len(name) for name in truth + said)
    columns = fit_columns(columns, 4 if longest <= 3 else 3 if longest <= 8 else 2, count)
    rows = math.ceil(count / columns)
    cell = min(WIDTH / columns, 1.7)
    lines = 3 if sure else 2
    ratio = pixels.shape[1] / pixels.shape[2]
    fig = new_figure(title, figsize, (WIDTH, rows * (cell * ratio + 0.19 * lines + 0.08)))
    for i, ax in enumerate(grid_of_axes(fig, count, columns)):
        draw_image(ax, pixels[i])
        text = f"true: {truth[i]}\nsaid: {said[i]}"
        if sure:
            text += f"\n{100 * sure[i]:.0f} % sure"
        ax.set_title(text, pad=3)
    return fig


@style()
def show_groups(
    images: Any,
    group_of: Any,
    groups: Sequence[str],
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """One image of each class, a row for each group of classes with the group's name before it.

    Args:
        images: (K, C, H, W), one for each class, uint8 or float in [0, 1].
        group_of: (K,), the number of the group of each class.
        groups: the names of the groups.
    """
    pixels = read_pixels(images, "images", batch=True)
    numbers = as_array(group_of, "group_of", 1)
    if len(numbers) != len(pixels):
        raise ValueError(
            f"group_of has {len(numbers)} entries for {len(pixels)} images: give one for each."
        )
    if len(numbers) == 0 or numbers.min() < 0 or numbers.max() >= len(groups):
        raise ValueError(f"group_of must hold numbers from 0 to {len(groups) - 1}, one at least.")
    across = int(np.bincount(numbers).max())
    cell = min(0.52, 2.7 / across)
    room = WIDTH - across * cell
    texts = [
        textwrap.fill(str(name).replace("_", " "), max(8, int(room / 0.098))) for name in groups
    ]
    high = [max(cell, 0.17 * (text.count("\n") + 1) + 0.06) for text in texts]
    fig = new_figure(title, figsize, (WIDTH, sum(high)))
    ax = fig.subplots()
    plain_axes(ax)
    top = 0.0
    for group, (text, step) in enumerate(zip(texts, high, strict=True)):
        ax.text(room - 0.1, top + step / 2, text, ha="right", va="center", linespacing=1.1)
        for place, index in enumerate(np.flatnonzero(numbers == group)):
            left, upper = room + place * cell, top + (step - cell) / 2
            extent = (left, left + 0.94 * cell, upper + 0.94 * cell, upper)
            draw_image(ax, pixels[index], extent=extent)
        top += step
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(top, 0)
    ax.set_aspect("equal")
    return fig
