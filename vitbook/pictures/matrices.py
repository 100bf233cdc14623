# SPDX-License-Identifier: MIT
"""Matrices as colours: any table of numbers, and which class was taken for which."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .frames import as_array, fit_columns, new_figure
from .look import DIVERGING, ON_DARK, ON_LIGHT, SEQUENTIAL, WIDTH, style


@style()
def plot_heatmap(
    matrix: Any,
    *,
    row_labels: Sequence[Any] | None = None,
    column_labels: Sequence[Any] | None = None,
    xlabel: str | None = None,
    ylabel: str | None = None,
    titles: Sequence[str] | None = None,
    annotate: bool | None = None,
    number_format: str = "{:.2f}",
    diverging: bool = False,
    vmin: float | None = None,
    vmax: float | None = None,
    columns: int | None = None,
    tall: bool = False,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """A matrix, or several side by side, as coloured cells on one scale.

    Args:
        matrix: (rows, columns), as attention weights (N, N): row the query, column the key;
            or (m, rows, columns), as those of m heads.
        tall: cells as high as a line of text, however narrow they are: for many rows with names.
        titles: m texts above the matrices.
        annotate: write the numbers into the cells; without it, where they fit.
        diverging: colours for values on both sides of zero.
    """
    array = as_array(matrix, "matrix", (2, 3)).astype(float)
    stack = array if array.ndim == 3 else array[None]
    count, rows, cols = stack.shape
    if stack.size == 0:
        raise ValueError(f"matrix has shape {array.shape}, but holds no value.")
    for labels, size, name in (
        (row_labels, rows, "row_labels"),
        (column_labels, cols, "column_labels"),
        (titles, count, "titles"),
    ):
        if labels is not None and len(labels) != size:
            raise ValueError(f"{name} holds {len(labels)} entries, but {size} are needed.")
    finite = stack[np.isfinite(stack)]
    low = vmin if vmin is not None else float(finite.min()) if finite.size else 0.0
    high = vmax if vmax is not None else float(finite.max()) if finite.size else 1.0
    if diverging:
        high = max(abs(low), abs(high)) if vmax is None else vmax
        low = -high if vmin is None else vmin
    elif vmin is None and low >= 0:
        low = 0.0
    if high <= low:
        high = low + 1
    across = fit_columns(columns, 1 if count == 1 else 2, count)
    down = math.ceil(count / across)
    panel = (WIDTH - 0.6 * across) / across
    ratio = min(max(rows / cols, 0.25), 1.6)
    extra = (0.25 if titles else 0) + (0.25 if column_labels is None else 0.3)
    body = 0.2 * rows if tall else panel * ratio
    fig = new_figure(title, figsize, (WIDTH, down * (body + extra) + 0.75))
    axes = fig.subplots(down, across, squeeze=False)
    if annotate is None:
        widest = max(len(number_format.format(value)) for value in (low, high, high / 3))
        annotate = cols * widest * 0.1 < panel
    mesh = None
    for i, ax in enumerate(axes.flat):
        if i >= count:
            ax.set_visible(False)
            continue
        mesh = ax.imshow(
            stack[i],
            cmap=DIVERGING if diverging else SEQUENTIAL,
            vmin=low,
            vmax=high,
            aspect="equal" if 0.25 <= rows / cols <= 1.6 and not tall else "auto",
        )
        if annotate:
            _write_cells(ax, stack[i], low, high, diverging, number_format)
        _cell_ticks(ax, "x", cols, column_labels)
        _cell_ticks(ax, "y", rows, row_labels)
        if titles is not None:
            ax.set_title(titles[i])
        if i % across == 0 and ylabel:
            ax.set_ylabel(ylabel)
        if i >= count - across and xlabel:
            ax.set_xlabel(xlabel)
        for spine in ax.spines.values():
            spine.set_visible(True)
            spine.set_color("#AAAAAA")
    if not annotate and mesh is not None:
        bar = fig.colorbar(
            mesh, ax=axes, location="bottom", shrink=0.8, aspect=35, pad=0.04 if down > 1 else 0.08
        )
        bar.outline.set_visible(False)
        bar.locator = MaxNLocator(4)
        bar.update_ticks()
    return fig


def _write_cells(
    ax: Any, values: np.ndarray, low: float, high: float, diverging: bool, number_format: str
) -> None:
    for (i, j), value in np.ndenumerate(values):
        if not math.isfinite(value):
            continue
        level = (value - low) / (high - low)
        dark = abs(level - 0.5) > 0.36 if diverging else level > 0.5
        ax.text(
            j,
            i,
            number_format.format(value),
            ha="center",
            va="center",
            color=ON_DARK if dark else ON_LIGHT,
        )


def _cell_ticks(ax: Any, axis: str, size: int, labels: Sequence[Any] | None) -> None:
    set_ticks = ax.set_xticks if axis == "x" else ax.set_yticks
    if labels is not None:
        set_ticks(range(size), [str(label) for label in labels])
        if axis == "x" and max(len(str(label)) for label in labels) * size * 0.1 > 4:
            ax.tick_params(axis="x", rotation=90)
    elif size <= 10:
        set_ticks(range(size), [str(i) for i in range(size)])
    else:
        step = math.ceil(size / 5)
        step = next((s for s in (2, 4, 5, 7, 8, 10, 14, 16, 20, 25, 32) if s >= step), step)
        set_ticks(range(0, size, step), [str(i) for i in range(0, size, step)])
    ax.tick_params(axis=axis, length=0 if size <= 12 else 3)


@style()
def plot_confusion(
    matrix: Any,
    classes: Sequence[str] | None = None,
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """How often each true class (row) was taken for each class (column).

    The colour shows the mistakes alone, since the diagonal would drown them; with at most
    12 classes the counts are written into the cells.

    Args:
        matrix: (K, K) counts, rows the true class, columns the predicted one.
        classes: K names.
    """
    counts = as_array(matrix, "matrix", 2)
    size = len(counts)
    if counts.shape != (size, size) or size == 0:
        raise ValueError(f"matrix has shape {counts.shape}, but must be square, (K, K).")
    if classes is not None and len(classes) != size:
        raise ValueError(f"classes holds {len(classes)} names for a matrix of {size} classes.")
    names = [str(name).replace("_", " ") for name in (classes or range(size))]
    wrong = counts.astype(float).copy()
    np.fill_diagonal(wrong, 0)
    fig = new_figure(title, figsize, (5.0, 4.7))
    ax = fig.subplots()
    top = max(wrong.max(), 1)
    # The square root keeps a cell of one mistake visible beside a cell of thirty.
    ax.imshow(np.sqrt(wrong), cmap=SEQUENTIAL, vmin=0, vmax=1.3 * math.sqrt(top))
    for i in range(size):
        ax.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, color="#E4E4E4", linewidth=0))
    if size <= 12:
        for i in range(size):
            for j in range(size):
                if counts[i, j]:
                    on_colour = ON_DARK if wrong[i, j] > 0.42 * top else ON_LIGHT
                    ax.text(
                        j,
                        i,
                        f"{counts[i, j]:g}",
                        ha="center",
                        va="center",
                        # The grey of the diagonal follows the theme, the map does not.
                        color="black" if i == j else on_colour,
                    )
    ticks = list(range(0, size, 1 if size <= 12 else math.ceil(size / 10)))
    ax.set_xticks(ticks, [names[i] for i in ticks])
    ax.set_yticks(ticks, [names[i] for i in ticks])
    if max(len(names[i]) for i in ticks) > 3:
        ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=0 if size <= 12 else 3)
    ax.set_xlabel("predicted class")
    ax.set_ylabel("true class")
    for spine in ax.spines.values():
        spine.set_visible(True)
        spine.set_color("#AAAAAA")
    return fig
