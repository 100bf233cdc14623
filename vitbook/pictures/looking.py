# SPDX-License-Identifier: MIT
"""Looking inside a model: heat maps over images, heads by layers, how far heads look, filters.

Chapter 8 draws with these what `vitcore.explain` computes; `show_frames` puts several figures
behind one slider.
"""

from __future__ import annotations

import html
import math
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from .frames import (
    as_array,
    draw_image,
    fit_columns,
    grid_of_axes,
    new_figure,
    patch_numbers,
    plain_axes,
    read_pixels,
)
from .look import CYCLE, DIVERGING, PALETTE, ROLES, SEQUENTIAL, WIDTH, style
from .output import in_notebook, to_html


def _over(ax: Any, image: np.ndarray, heat: np.ndarray) -> None:
    """An image, pale and grey, under a map: red where it is above zero, blue where below."""
    rows, cols = heat.shape
    light = image @ np.array([0.299, 0.587, 0.114]) if image.shape[-1] == 3 else image[..., 0]
    ax.imshow(0.25 + 0.75 * light, cmap="gray", vmin=0, vmax=1, extent=(0, cols, rows, 0))
    top = np.abs(heat).max()
    layer = np.zeros((rows, cols, 4))
    above = (heat > 0)[..., None]
    layer[..., :3] = np.where(above, to_rgb(ROLES["attention"]), to_rgb(PALETTE["blue"]))
    layer[..., 3] = 0.85 * np.abs(heat) / top if top > 0 else 0
    ax.imshow(layer, extent=(0, cols, rows, 0))


def _heat(maps: Any, count: int) -> np.ndarray:
    """Maps as (m, rows, columns) from zero; those with values below zero stay as they are."""
    array = as_array(maps, "maps", 3).astype(float)
    if len(array) != count:
        raise ValueError(f"maps holds {len(array)} maps for {count} images: give one for each.")
    least = array.min(axis=(1, 2), keepdims=True)
    return np.where(least >= 0, array - least, array)


@style()
def plot_maps(
    images: Any,
    maps: Any,
    titles: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Maps over images, side by side: the redder a patch, the more a map says of it.

    Each map is drawn from its least value to its greatest. Where it has values below zero these
    are blue and zero is without colour.

    Args:
        images: (m, C, H, W), uint8 or float in [0, 1]; or one (C, H, W) for all maps.
        maps: (m, rows, columns).
        titles: m texts.
    """
    array = as_array(images, "images", (3, 4))
    many = array.ndim == 4
    pixels = read_pixels(images, "images", batch=many)
    count = len(pixels) if many else len(as_array(maps, "maps", 3))
    heat = _heat(maps, count)
    if not count:
        raise ValueError("maps holds no map, but at least one is needed.")
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles holds {len(titles)} entries, but there are {count} maps.")
    columns = fit_columns(columns, 4, count)
    down, cell = math.ceil(count / columns), min(WIDTH / columns, 2.2)
    lines = max((text.count("\n") + 1 for text in titles), default=0) if titles else 0
    height, width = pixels.shape[-3:-1]
    fig = new_figure(title, figsize, (WIDTH, down * (cell * height / width + 0.2 * lines) + 0.05))
    for i, ax in enumerate(grid_of_axes(fig, count, columns)):
        _over(ax, pixels[i] if many else pixels, heat[i])
        if titles is not None:
            ax.set_title(titles[i], pad=3)
    return fig


@style()
def plot_head_maps(
    image: Any, maps: Any, *, title: str | None = None, figsize: tuple[float, float] | None = None
) -> Figure:
    """Every head's map over one image: a row for each layer, the first on top.

    Args:
        image: (C, H, W), uint8 or float in [0, 1].
        maps: (layers, heads, rows, columns), each drawn from its least to its greatest value.
    """
    pixels = read_pixels(image, "image", batch=False)
    array = as_array(maps, "maps", 4).astype(float)
    layers, heads = array.shape[:2]
    heat = _heat(array.reshape(-1, *array.shape[2:]), layers * heads)
    cell = (WIDTH - 0.3) / heads if heads > 2 else 1.6
    ratio = pixels.shape[0] / pixels.shape[1]
    fig = new_figure(title, figsize, (WIDTH, layers * min(cell, 1.3) * ratio + 0.3))
    axes = fig.subplots(layers, heads, squeeze=False)
    for layer in range(layers):
        for head in range(heads):
            ax = axes[layer, head]
            plain_axes(ax)
            _over(ax, pixels, heat[layer * heads + head])
            if layer == 0:
                ax.set_title(f"head {head}", pad=3)
        axes[layer, 0].set_ylabel(f"layer {layer}")
    return fig


@style()
def plot_distance(
    distance: Any,
    *,
    reference: float | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """How far each head looks, by depth: a point for each head.

    Args:
        distance: (layers, heads), in pixels.
        reference: that of even attention, drawn as a dashed line.
    """
    array = as_array(distance, "distance", 2).astype(float)
    layers, heads = array.shape
    fig = new_figure(title, figsize, (WIDTH, 2.9))
    ax = fig.subplots()
    for layer in range(layers):
        values = np.sort(array[layer])
        ax.plot([layer] * heads, values, "o", color=PALETTE["blue"], alpha=0.8)
    ax.plot(range(layers), array.mean(axis=1), color=CYCLE[1])
    if reference is not None:
        ax.axhline(reference, color="black", linestyle="--", linewidth=1.4)
        ax.text(-0.3, reference, "even attention", ha="left", va="bottom")
    top = max(float(array.max()), reference or 0.0)
    ax.set_ylim(0, 1.18 * top if top > 0 else 1)
    ax.set_xlim(-0.4, layers - 0.6)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel("mean distance (pixels)")
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    return fig


@style()
def plot_grids(
    grids: Any,
    *,
    marked: Sequence[int] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Grids of patches as colours, on one scale: similarities to a marked patch, for example.

    Args:
        grids: (m, rows, columns); with values below zero, blue is below and orange above.
        marked: m numbers of patches, counted row by row, to frame.
        titles: m texts.
    """
    array = as_array(grids, "grids", 3).astype(float)
    count, rows, cols = array.shape
    if not array.size:
        raise ValueError(f"grids has shape {array.shape}, but holds no value.")
    for values, name in ((marked, "marked"), (titles, "titles")):
        if values is not None and len(values) != count:
            raise ValueError(f"{name} holds {len(values)} entries, but there are {count} grids.")
    framed = patch_numbers(list(marked), rows * cols, "marked") if marked is not None else []
    signed = array.min() < 0
    high = max(float(np.abs(array).max()), 1e-9)
    columns = fit_columns(columns, 4, count)
    down, cell = math.ceil(count / columns), min(WIDTH / columns, 2.2)
    lines = max((text.count("\n") + 1 for text in titles), default=0) if titles else 0
    fig = new_figure(title, figsize, (WIDTH, down * (cell * rows / cols + 0.22 * lines) + 0.55))
    axes = grid_of_axes(fig, count, columns)
    shown = None
    for i, ax in enumerate(axes):
        shown = ax.imshow(
            array[i],
            cmap=DIVERGING if signed else SEQUENTIAL,
            vmin=-high if signed else 0,
            vmax=high,
        )
        if framed:
            row, col = divmod(framed[i], cols)
            edge: dict[str, Any] = {"fill": False, "edgecolor": "black", "linewidth": 2.0}
            ax.add_patch(Rectangle((col - 0.5, row - 0.5), 1, 1, clip_on=False, **edge))
        if titles is not None:
            ax.set_title(titles[i], pad=3)
    assert shown is not None
    bar = fig.colorbar(shown, ax=axes, location="bottom", shrink=0.8, aspect=35, pad=0.05)
    bar.outline.set_visible(False)
    bar.locator = MaxNLocator(4)
    bar.update_ticks()
    return fig


@style()
def plot_filters(
    filters: Any,
    shares: Any,
    *,
    columns: int = 7,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Principal filters of a patch embedding, each with its share of the variance in per cent.

    Args:
        filters: (m, C, P, P), C 1 or 3; each is drawn with zero in the middle of its range.
        shares: (m,), of the whole.
    """
    array = as_array(filters, "filters", 4).astype(float)
    parts = as_array(shares, "shares", 1).astype(float)
    count, channels, height, width = array.shape
    if channels not in (1, 3) or not count or len(parts) != count:
        raise ValueError(
            f"filters has shape {array.shape} and shares {parts.shape}: give (m, C, P, P) with 1 "
            "or 3 channels, and (m,)."
        )
    columns = fit_columns(columns, 7, count)
    down, cell = math.ceil(count / columns), min(WIDTH / columns, 1.4)
    fig = new_figure(title, figsize, (WIDTH, down * (cell * height / width + 0.22) + 0.05))
    for i, ax in enumerate(grid_of_axes(fig, count, columns)):
        greatest = max(float(np.abs(array[i]).max()), 1e-9)
        picture = (array[i] / greatest).transpose(1, 2, 0)
        if channels == 3:
            draw_image(ax, 0.5 + 0.5 * picture)
        else:
            ax.imshow(picture[..., 0], cmap=DIVERGING, vmin=-1, vmax=1)
        ax.set_title(f"{100 * parts[i]:.0f} %", pad=2)
    return fig


# --- a slider -----------------------------------------------------------------------------------

# Without scripts, as on GitHub, all frames stand below one another and the slider stays away.
_SLIDER = """\
(function (box) {{
  var range = box.querySelector('input'), frames = box.querySelectorAll('figure');
  var show = function () {{
    frames.forEach(function (frame, i) {{ frame.hidden = i !== Number(range.value); }});
    range.setAttribute('aria-valuetext', frames[range.value].dataset.label);
  }};
  range.parentElement.hidden = false;
  range.addEventListener('input', show);
  show();
}})(document.getElementById('{name}'));"""


def frames_html(figures: Sequence[Figure], labels: Sequence[str], alts: Sequence[str]) -> str:
    """Give figures as HTML: one at a time behind a slider, all of them where no script runs."""
    if not figures or not len(figures) == len(labels) == len(alts):
        raise ValueError(
            f"there are {len(figures)} figures, {len(labels)} labels and {len(alts)} alts: give "
            "as many of each, and at least one."
        )
    parts = []
    for fig, label, alt in zip(figures, labels, alts, strict=True):
        told = html.escape(label, quote=True)
        parts.append(
            f'<figure data-label="{told}" style="margin: 0 0 1em">'
            f"<figcaption>{told}</figcaption>{to_html(fig, alt)}</figure>"
        )
    name = f"frames-{zlib.crc32(repr(list(labels)).encode()):08x}"  # the same in every run
    slider = (
        '<label style="color: var(--pst-color-text-base, inherit)" hidden>Moment '
        f'<input type="range" min="0" max="{len(parts) - 1}" value="{len(parts) - 1}" '
        'style="width: 20em; max-width: 90%"></label>'
    )
    script = f"<script>{_SLIDER.format(name=name)}</script>"
    return f'<div id="{name}">{slider}{"".join(parts)}{script}</div>'


def show_frames(figures: Sequence[Figure], labels: Sequence[str], alts: Sequence[str]) -> None:
    """Show figures in a notebook behind one slider, each with its label and alternative text.

    On the site, in Jupyter and in Colab the slider chooses; on GitHub, where no script runs, all
    of them stand below one another. Outside a notebook nothing happens.
    """
    text = frames_html(figures, labels, alts)
    if in_notebook():
        from IPython.display import display

        display({"text/html": text, "text/plain": "; ".join(alts)}, raw=True)
