# SPDX-License-Identifier: MIT
"""Pictures of data, of training and of attention in the book's one style, used by every chapter.

Every function returns a matplotlib Figure and leaves pyplot alone; ``show`` puts the figure into
a notebook as an image with alternative text. Tensors and arrays are taken alike.
"""

from __future__ import annotations

import base64
import contextlib
import html
import io
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.rcsetup import cycler
from matplotlib.ticker import MaxNLocator, NullFormatter

__all__ = [
    "CYCLE",
    "FONT_SIZE",
    "PALETTE",
    "ROLES",
    "STYLE",
    "WIDTH",
    "plot_attention_arrows",
    "plot_attention_map",
    "plot_bars",
    "plot_confusion",
    "plot_heatmap",
    "plot_history",
    "plot_ladder",
    "plot_lines",
    "plot_mistakes",
    "plot_reliability",
    "plot_shares",
    "plot_similarity",
    "show",
    "show_groups",
    "show_images",
    "show_patches",
    "show_token_sequence",
    "style",
    "to_html",
    "to_png",
    "use_style",
]

# Okabe and Ito, "Color Universal Design" (2008): told apart with every common colour vision.
PALETTE: dict[str, str] = {
    "black": "#000000",
    "orange": "#E69F00",
    "sky": "#56B4E9",
    "green": "#009E73",
    "yellow": "#F0E442",
    "blue": "#0072B2",
    "vermillion": "#D55E00",
    "purple": "#CC79A7",
}
# What a colour means in every picture of the book.
ROLES: dict[str, str] = {
    "image": PALETTE["orange"],
    "token": PALETTE["sky"],
    "class_token": PALETTE["blue"],
    "position": PALETTE["yellow"],
    "attention": PALETTE["vermillion"],
    "mlp": PALETTE["green"],
    "norm": PALETTE["purple"],
    "head": "#777777",
    "plain": "#FFFFFF",
}
# Yellow is left out of the cycle: a yellow line on white cannot be seen.
CYCLE: tuple[str, ...] = tuple(
    PALETTE[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
)
FONT_SIZE = 11.0
# At this width 11 points are 11 pixels where a phone shows the figure 350 pixels wide.
WIDTH = 4.8
MAX_WIDTH = 7.0
DPI = 150
# CSS pixels to an inch when a page has room: letters come out the size of the page's text.
CSS_PIXELS_PER_INCH = 110

STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": FONT_SIZE,
    "mathtext.fontset": "dejavusans",
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "legend.title_fontsize": FONT_SIZE,
    "legend.frameon": False,
    "figure.titlesize": FONT_SIZE,
    "figure.titleweight": "bold",
    "figure.figsize": (WIDTH, 3.2),
    "figure.dpi": DPI,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "savefig.facecolor": "white",
    "savefig.transparent": False,
    "savefig.dpi": DPI,
    "axes.prop_cycle": cycler(color=list(CYCLE)),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "axes.unicode_minus": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 5.0,
    "text.color": "black",
    "axes.labelcolor": "black",
    "xtick.color": "black",
    "ytick.color": "black",
    "image.interpolation": "nearest",
    "svg.hashsalt": "vitcore",
    "svg.fonttype": "path",
}


def use_style() -> None:
    """Make the book's style the default for every matplotlib figure that follows."""
    matplotlib.rcParams.update(STYLE)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The book's style inside a ``with`` block or a decorated function, the old one afterwards."""
    with matplotlib.rc_context(STYLE):
        yield


def tint(colour: str, amount: float) -> tuple[float, float, float]:
    """The colour mixed with white: 1 is the colour itself, 0 is white."""
    red, green, blue = to_rgb(colour)
    return (
        1 - amount * (1 - red),
        1 - amount * (1 - green),
        1 - amount * (1 - blue),
    )


SEQUENTIAL = LinearSegmentedColormap.from_list(
    "vitcore_blue", ["#FFFFFF", "#B5D9EE", PALETTE["blue"], "#002B45"]
)
DIVERGING = LinearSegmentedColormap.from_list(
    "vitcore_diverging", [PALETTE["blue"], "#FFFFFF", PALETTE["vermillion"]]
)


# --- from a figure to the page ----------------------------------------------------------------


class Picture(Figure):
    """A matplotlib figure that shows itself in a notebook when it is the value of a cell."""

    alt: str = ""

    def _repr_html_(self) -> str:
        return to_html(self, self.alt or _title_of(self) or "figure")


def _title_of(fig: Figure) -> str:
    title = fig.get_suptitle() if hasattr(fig, "get_suptitle") else ""
    return " ".join(str(title).split())


def to_png(fig: Figure, *, dpi: int = DPI, colours: int = 256) -> bytes:
    """The figure as PNG bytes: opaque, at most 256 colours (a third of the size), no dates.

    The same figure gives the same bytes with the same versions of matplotlib and Pillow.
    """
    from PIL import Image

    buffer = io.BytesIO()
    with style():
        fig.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None}, facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    picture = picture.quantize(colors=colours, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


def to_html(fig: Figure, alt: str) -> str:
    """An ``<img>`` element with the figure inside it and ``alt`` as its alternative text."""
    width = round(fig.get_figwidth() * CSS_PIXELS_PER_INCH)
    data = base64.b64encode(to_png(fig)).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" alt="{html.escape(alt, quote=True)}" '
        f'width="{width}" style="max-width: 100%; height: auto; background: white;">'
    )


def show(fig: Figure, alt: str) -> None:
    """Show a figure in a notebook, with alternative text for readers who cannot see it.

    The output is an ``<img>`` element (text/html), which keeps its text on the site, in Colab and
    in the .ipynb file; where only plain text is shown, the alternative text stands alone.
    The figure is closed. Outside a notebook nothing happens.

    Args:
        fig: the figure.
        alt: one or two sentences that say what the picture shows.
    """
    if not isinstance(fig, Figure):
        raise TypeError(
            f"show takes a matplotlib Figure, but got {type(fig).__name__}: "
            "pass what a function of vitcore.plots or vitcore.diagrams returned."
        )
    if not isinstance(alt, str) or not alt.strip():
        raise ValueError(
            "show needs alt, the alternative text: one sentence that says what the picture shows."
        )
    alt = " ".join(alt.split())
    if _in_notebook():
        from IPython.display import display

        display({"text/html": to_html(fig, alt), "text/plain": alt}, raw=True)
    if "matplotlib.pyplot" in sys.modules:
        # A figure that the reader made with pyplot would be shown a second time at the cell's end.
        sys.modules["matplotlib.pyplot"].close(fig)


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    if ipython is None:
        return False
    shell = ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


# --- what the functions share -----------------------------------------------------------------


def _array(values: Any, name: str, dims: int | tuple[int, ...] | None = None) -> np.ndarray:
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


def _pixels(images: Any, name: str, batch: bool) -> np.ndarray:
    """Images (B, C, H, W), or one (C, H, W), as floats in [0, 1] with the channels last."""
    array = _array(images, name, 4 if batch else 3)
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
    return _pixels(image, name, batch=False)


def _draw_image(ax: Any, image: np.ndarray, **options: Any) -> None:
    if image.shape[-1] == 1:
        ax.imshow(image[..., 0], cmap="gray", vmin=0, vmax=1, **options)
    else:
        ax.imshow(image, **options)


def _figure(
    title: str | None, figsize: tuple[float, float] | None, default: tuple[float, float]
) -> Picture:
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


def wrap_title(text: str | None, width: float) -> list[str]:
    """A title's lines in a figure ``width`` inches wide; none without a title."""
    # Bold DejaVu Sans of 11 points takes about 0.105 in for each letter.
    room = max(8, int(width / 0.105))
    lines = (text or "").split("\n")
    # "re-split" stays whole.
    return [row for line in lines for row in textwrap.wrap(line, room, break_on_hyphens=False)]


def _names(labels: Any, count: int, classes: Sequence[str] | None, name: str) -> list[str]:
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


def _plain_axes(ax: Any) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)


def _grid_of_axes(fig: Figure, count: int, columns: int) -> list[Any]:
    rows = math.ceil(count / columns)
    axes = list(fig.subplots(rows, columns, squeeze=False).flat)
    for ax in axes:
        _plain_axes(ax)
    for ax in axes[count:]:
        ax.set_visible(False)
    return axes[:count]


def _columns(columns: int | None, default: int, count: int) -> int:
    if columns is not None and columns < 1:
        raise ValueError(f"columns is {columns}, but must be at least 1.")
    return max(1, min(columns or default, count))


def halo(colour: str = "white", width: float = 3.0) -> list[withStroke]:
    """A white edge around text that stands on a picture."""
    return [withStroke(linewidth=width, foreground=colour)]


# --- images -----------------------------------------------------------------------------------


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
    pixels = _pixels(images, "images", batch=True)
    count = len(pixels)
    if count == 0:
        raise ValueError("images holds no image, but at least one is needed.")
    names = _names(labels, count, classes, "labels") if labels is not None else None
    longest = max((len(name) for name in names), default=0) if names else 0
    room = 8 if longest <= 3 else 5 if longest <= 8 else 4 if longest <= 11 else 3
    columns = _columns(columns, room, count)
    rows = math.ceil(count / columns)
    cell = min(WIDTH / columns, 2.2)
    texts = [textwrap.fill(name, max(3, int(cell / 0.095))) for name in names] if names else []
    lines = max((text.count("\n") + 1 for text in texts), default=0)
    ratio = pixels.shape[1] / pixels.shape[2]
    fig = _figure(title, figsize, (WIDTH, rows * (cell * ratio + 0.19 * lines) + 0.05))
    for i, ax in enumerate(_grid_of_axes(fig, count, columns)):
        _draw_image(ax, pixels[i])
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
    pixels = _pixels(images, "images", batch=True)
    count = len(pixels)
    if count == 0:
        raise ValueError("images holds no image: with no mistakes there is nothing to show.")
    truth = _names(true, count, classes, "true")
    said = _names(predicted, count, classes, "predicted")
    sure: list[float] | None = None
    if confidence is not None:
        values = _array(confidence, "confidence", 1)
        if len(values) != count or values.min() < 0 or values.max() > 1 + 1e-6:
            raise ValueError(f"confidence must hold {count} probabilities from 0 to 1.")
        sure = [float(v) for v in values]
    longest = max(len(name) for name in truth + said)
    columns = _columns(columns, 4 if longest <= 3 else 3 if longest <= 8 else 2, count)
    rows = math.ceil(count / columns)
    cell = min(WIDTH / columns, 1.7)
    lines = 3 if sure else 2
    ratio = pixels.shape[1] / pixels.shape[2]
    fig = _figure(title, figsize, (WIDTH, rows * (cell * ratio + 0.19 * lines + 0.08)))
    for i, ax in enumerate(_grid_of_axes(fig, count, columns)):
        _draw_image(ax, pixels[i])
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
    pixels = _pixels(images, "images", batch=True)
    numbers = _array(group_of, "group_of", 1)
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
    fig = _figure(title, figsize, (WIDTH, sum(high)))
    ax = fig.subplots()
    _plain_axes(ax)
    top = 0.0
    for group, (text, step) in enumerate(zip(texts, high, strict=True)):
        ax.text(room - 0.1, top + step / 2, text, ha="right", va="center", linespacing=1.1)
        for place, index in enumerate(np.flatnonzero(numbers == group)):
            left, upper = room + place * cell, top + (step - cell) / 2
            extent = (left, left + 0.94 * cell, upper + 0.94 * cell, upper)
            _draw_image(ax, pixels[index], extent=extent)
        top += step
    ax.set_xlim(0, WIDTH)
    ax.set_ylim(top, 0)
    ax.set_aspect("equal")
    return fig


# --- training ---------------------------------------------------------------------------------


@style()
def plot_history(
    history: Any,
    *,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Loss and accuracy, epoch by epoch, for training and validation.

    Args:
        history: a ``History`` of vitcore.training, or any sequence of rows (dicts) that hold
            "epoch" and some of "train_loss", "val_loss", "train_accuracy", "val_accuracy" (0 to 1).
    """
    rows = [dict(row) for row in history]
    if not rows:
        raise ValueError("history holds no epoch: train for at least one before plotting.")
    panels = [
        (quantity, parts)
        for quantity in ("loss", "accuracy")
        if (parts := [p for p in ("train", "val") if f"{p}_{quantity}" in rows[0]])
    ]
    if not panels:
        raise ValueError(
            f"history rows hold {sorted(rows[0])}, but need train_loss, val_loss, "
            "train_accuracy or val_accuracy."
        )
    epochs = [row.get("epoch", i + 1) for i, row in enumerate(rows)]
    fig = _figure(title, figsize, (WIDTH, 2.3 * len(panels) + 0.2))
    axes = fig.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
    colours = {"train": PALETTE["orange"], "val": PALETTE["blue"]}
    texts = {"train": "training", "val": "validation"}
    for ax, (quantity, parts) in zip(axes, panels, strict=True):
        scale = 100 if quantity == "accuracy" else 1
        for part in parts:
            values = [_number(row.get(f"{part}_{quantity}")) * scale for row in rows]
            ax.plot(epochs, values, marker="o", color=colours[part], label=texts[part])
        ax.set_ylabel("accuracy (%)" if scale == 100 else quantity)
        ax.grid(axis="y")
        ax.set_axisbelow(True)
    axes[0].legend()
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return fig


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


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
    counts = _array(matrix, "matrix", 2)
    size = len(counts)
    if counts.shape != (size, size) or size == 0:
        raise ValueError(f"matrix has shape {counts.shape}, but must be square, (K, K).")
    if classes is not None and len(classes) != size:
        raise ValueError(f"classes holds {len(classes)} names for a matrix of {size} classes.")
    names = [str(name).replace("_", " ") for name in (classes or range(size))]
    wrong = counts.astype(float).copy()
    np.fill_diagonal(wrong, 0)
    fig = _figure(title, figsize, (5.0, 4.7))
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
                    dark = i != j and wrong[i, j] > 0.42 * top
                    ax.text(
                        j,
                        i,
                        f"{counts[i, j]:g}",
                        ha="center",
                        va="center",
                        color="white" if dark else "black",
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


# --- curves, bars and matrices ----------------------------------------------------------------


@style()
def plot_lines(
    x: Any,
    lines: Mapping[str, Any],
    *,
    xlabel: str,
    ylabel: str,
    log: bool | Literal["x", "y"] = False,
    fit: Literal["power"] | int | None = None,
    spread: Literal["band", "points"] = "band",
    reference: Mapping[str, float] | None = None,
    markers: bool | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """Curves over one x axis; several seeds give their mean and their spread.

    Args:
        x: (n,) values shared by all lines.
        lines: label -> (n,), or (seeds, n), of which the mean is drawn.
        log: "x", "y", or True for both axes.
        fit: "power" adds y = a x^b as fitted in logarithms and gives b in the legend; a whole
            number adds the polynomial of that degree. With a fit, measured values are points.
        spread: "band" from the least to the greatest seed, or every seed as "points".
        reference: label -> y, drawn as dashed horizontal lines.
        markers: points on the lines; without it, where there are at most 20.
    """
    xs = _array(x, "x", 1).astype(float)
    if not lines:
        raise ValueError("lines holds no curve, but at least one is needed.")
    if log not in (False, True, "x", "y"):
        raise ValueError(f'log is {log!r}, but must be False, True, "x" or "y".')
    if spread not in ("band", "points"):
        raise ValueError(f'spread is {spread!r}, but must be "band" or "points".')
    fig = _figure(title, figsize, (WIDTH, 3.2))
    ax = fig.subplots()
    marker = "o" if (markers if markers is not None else len(xs) <= 20) else None
    colours = _cycle(len(lines))
    for colour, (label, values) in zip(colours, lines.items(), strict=True):
        ys = _array(values, f"lines[{label!r}]", (1, 2)).astype(float)
        if ys.shape[-1] != len(xs):
            raise ValueError(
                f"lines[{label!r}] has shape {ys.shape}, but x has {len(xs)} values: "
                "the last dimension must be as long as x."
            )
        seeds = ys if ys.ndim == 2 else ys[None]
        mean = seeds.mean(0)
        if len(seeds) > 1 and spread == "band":
            ax.fill_between(xs, seeds.min(0), seeds.max(0), color=colour, alpha=0.2, linewidth=0)
        elif len(seeds) > 1:
            for row in seeds:
                ax.plot(xs, row, linestyle="", marker="o", color=colour, alpha=0.4)
        if fit is None:
            ax.plot(xs, mean, color=colour, marker=marker, label=label)
        else:
            ax.plot(xs, mean, color=colour, marker="o", linestyle="", label=label)
            dense, fitted, text = _fit(xs, mean, fit)
            ax.plot(dense, fitted, color=colour, label=text)
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axhline(
            value, color="black", linestyle=("--", ":", "-.")[i % 3], linewidth=1.4, label=label
        )
    if log in (True, "x"):
        ax.set_xscale("log")
        _ticks_at(ax, xs)
    if log in (True, "y"):
        ax.set_yscale("log")
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y")
    ax.set_axisbelow(True)
    if len(lines) > 1 or fit is not None or reference:
        _legend_below(fig, ax)
    return fig


def _cycle(count: int) -> list[str]:
    return [CYCLE[i % len(CYCLE)] for i in range(count)]


def _ticks_at(ax: Any, xs: np.ndarray) -> None:
    """Label a logarithmic axis at the measured values, where they are few."""
    if len(xs) <= 8:
        ax.set_xticks(xs, [f"{value:g}" for value in xs])
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.minorticks_off()


def _legend_below(fig: Figure, ax: Any) -> None:
    """A legend under the axes, where it never covers a curve."""
    handles, labels = ax.get_legend_handles_labels()
    longest = max(len(label) for label in labels)
    columns = 3 if longest <= 9 else 2 if longest <= 17 else 1
    columns = min(columns, len(labels))
    rows = math.ceil(len(labels) / columns)
    fig.set_figheight(fig.get_figheight() + 0.24 * rows)
    fig.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.2)


def _fit(xs: np.ndarray, ys: np.ndarray, fit: str | int) -> tuple[np.ndarray, np.ndarray, str]:
    good = np.isfinite(ys)
    if fit == "power":
        if (xs <= 0).any() or (ys[good] <= 0).any():
            raise ValueError('fit="power" needs x and y above zero, since it takes logarithms.')
        power, constant = np.polyfit(np.log(xs[good]), np.log(ys[good]), 1)
        dense = np.geomspace(xs.min(), xs.max(), 100)
        return dense, np.exp(constant) * dense**power, f"fit: power {power:.2f}"
    if isinstance(fit, bool) or not isinstance(fit, int) or not 1 <= fit < int(good.sum()):
        raise ValueError(
            f'fit is {fit!r}, but must be "power" or a degree from 1 to less than the '
            f"{int(good.sum())} points."
        )
    coefficients = np.polyfit(xs[good], ys[good], fit)
    dense = np.linspace(xs.min(), xs.max(), 100)
    return dense, np.polyval(coefficients, dense), f"fit: degree {fit}"


@style()
def plot_bars(
    values: Mapping[str, Any],
    *,
    xlabel: str,
    lower: float | None = None,
    upper: float | None = None,
    reference: Mapping[str, float] | None = None,
    highlight: str | Sequence[str] = (),
    number_format: str = "{:.1f}",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """One horizontal bar for each label; several seeds give the mean, every seed and the range.

    Args:
        values: label -> a number, or a sequence with one number for each seed.
        lower: where the axis begins. Away from zero a bar's length would mislead, so that points
            are drawn instead of bars.
        reference: label -> x, drawn as dashed vertical lines.
        highlight: labels to draw in another colour.
        number_format: how the mean is written beside its bar.
    """
    if not values:
        raise ValueError("values holds no bar, but at least one is needed.")
    wanted = {highlight} if isinstance(highlight, str) else set(highlight)
    if wanted - set(values):
        raise ValueError(f"highlight names {sorted(wanted - set(values))}, which values lacks.")
    series = {}
    for label, value in values.items():
        seeds = np.atleast_1d(_array(value, f"values[{label!r}]", (0, 1)).astype(float))
        if len(seeds) == 0:
            raise ValueError(f"values[{label!r}] holds no number, but at least one is needed.")
        series[label] = seeds
    texts = [textwrap.fill(label, 20) for label in series]
    height = sum(0.26 + 0.17 * text.count("\n") + 0.12 for text in texts)
    fig = _figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    for row, (label, seeds) in enumerate(series.items()):
        colour = PALETTE["vermillion"] if label in wanted else PALETTE["blue"]
        mean = seeds.mean()
        if lower is None:
            ax.barh(row, mean, color=tint(colour, 0.55), edgecolor=colour, height=0.62)
        else:
            ax.plot(mean, row, marker="D", color=colour, markersize=8)
        if len(seeds) > 1:
            ax.hlines(row, seeds.min(), seeds.max(), color=colour, linewidth=1.6)
            ax.plot(
                seeds,
                np.full(len(seeds), row),
                linestyle="",
                marker="o",
                color="black",
                markersize=4,
                alpha=0.75,
            )
        ax.annotate(
            number_format.format(mean),
            (seeds.max(), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            path_effects=halo(),
        )
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axvline(
            value, color="black", linestyle=("--", ":", "-.")[i % 3], linewidth=1.4, label=label
        )
    ax.set_yticks(range(len(series)), texts)
    ax.set_ylim(len(series) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    greatest = max(seeds.max() for seeds in series.values())
    start = lower if lower is not None else min(0.0, *(s.min() for s in series.values()))
    # Room on the right for the number beside the longest bar.
    ax.set_xlim(start, upper if upper is not None else greatest + 0.22 * (greatest - start))
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    if reference:
        _legend_below(fig, ax)
    return fig


@style()
def plot_ladder(
    steps: Mapping[str, float | None],
    *,
    xlabel: str,
    builds_on: Mapping[str, str] | None = None,
    noise: float = 0.0,
    reference: Mapping[str, float] | None = None,
    missing: str = "not yet run",
    number_format: str = "{:.1f}",
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """What each step of a sequence adds: a bar from the value that it builds on to its own.

    Beside each bar stand the value and the change. A step that was not measured has a row with
    ``missing`` in it, and what builds on it is compared with what it builds on itself.

    Args:
        steps: label -> the value reached with it, or None; in order, the first the start.
        builds_on: label -> the earlier label that it builds on, where that is not the one before.
        noise: changes smaller than this are drawn pale, since chance could make them.
        reference: label -> x, drawn as dashed vertical lines.
        number_format: how the value is written.
    """
    known = [float(value) for value in steps.values() if value is not None]
    if not known:
        raise ValueError("steps holds no measured value, but at least one is needed.")
    labels = list(steps)
    below: list[int | None] = [None, *range(len(labels) - 1)]
    for label, base in (builds_on or {}).items():
        if label not in steps or base not in labels[: labels.index(label)]:
            raise ValueError(f"builds_on says {label!r} builds on {base!r}, no earlier step.")
        below[labels.index(label)] = labels.index(base)
    texts = [textwrap.fill(label, 17) for label in labels]
    height = sum(0.3 + 0.17 * text.count("\n") + 0.1 for text in texts)
    fig = _figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    marks = [*known, *(reference or {}).values()]
    span = max(marks) - min(marks) or 1.0
    for row, label in enumerate(labels):
        base_row = below[row]
        while base_row is not None and steps[labels[base_row]] is None:
            base_row = below[base_row]
        before = None if base_row is None else steps[labels[base_row]]
        value = steps[label]
        ends = [end for end in (value, before) if end is not None]
        beside: dict[str, Any] = {
            "xy": (max(ends, default=min(marks)), row),
            "xytext": (7, 0),
            "textcoords": "offset points",
            "va": "center",
        }
        if value is None:
            ax.annotate(missing, **beside, color="#6E6E6E")
            continue
        text = number_format.format(value)
        if base_row is None or before is None:
            ax.plot(value, row, marker="D", markersize=8, color=PALETTE["blue"])
        else:
            change = value - before
            text += f" ({change:+.1f})".replace("-", "−")
            kind, colour = ("higher", "blue") if change >= 0 else ("lower", "vermillion")
            face, edge = tint(PALETTE[colour], 0.6), PALETTE[colour]
            if abs(change) < noise:
                kind = f"change below {noise:g}: may be chance"
                face, edge = tint("#777777", 0.35), "#777777"
            drawn = ax.get_legend_handles_labels()[1]
            ax.barh(
                row,
                change,
                left=before,
                height=0.62,
                color=face,
                edgecolor=edge,
                label="" if kind in drawn else kind,
            )
            ax.vlines(before, base_row, row + 0.31, color="#777777", linewidth=1.0, zorder=0.5)
        ax.annotate(text, **beside, path_effects=halo())
    for i, (label, value) in enumerate((reference or {}).items()):
        ax.axvline(
            value,
            color="black",
            linestyle=("--", ":", "-.")[i % 3],
            linewidth=1.4,
            label=label,
            zorder=0.6,
        )
    ax.set_yticks(range(len(steps)), texts)
    ax.set_ylim(len(steps) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    # Room on the right for a value and its change, about an inch of the axes' three.
    ax.set_xlim(min(marks) - 0.06 * span, max(marks) + 0.62 * span)
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid(axis="x")
    ax.set_axisbelow(True)
    if ax.get_legend_handles_labels()[1]:
        _legend_below(fig, ax)
    return fig


@style()
def plot_shares(
    rows: Mapping[str, Any],
    parts: Sequence[str],
    *,
    xlabel: str,
    number_format: str | None = None,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """One horizontal bar for each row, divided into the same parts.

    Args:
        rows: label -> one number for each part, zero or more.
        parts: the names of the parts, in the order in which they stand in the bar.
        number_format: how the whole is written beside its bar; None leaves it out.
    """
    if not rows:
        raise ValueError("rows holds no bar, but at least one is needed.")
    if len(parts) > len(CYCLE):
        raise ValueError(f"there are {len(parts)} parts, but only {len(CYCLE)} colours.")
    values = {
        label: _array(value, f"rows[{label!r}]", 1).astype(float) for label, value in rows.items()
    }
    for label, value in values.items():
        if len(value) != len(parts) or (value < 0).any():
            raise ValueError(
                f"rows[{label!r}] must hold {len(parts)} numbers of at least 0, one for each part."
            )
    texts = [textwrap.fill(label, 20) for label in values]
    # Bars are as high as the longest label needs.
    height = len(texts) * (0.25 + 0.2 * max(text.count("\n") for text in texts))
    fig = _figure(title, figsize, (WIDTH, height + 0.75))
    ax = fig.subplots()
    left = np.zeros(len(values))
    for i, (name, colour) in enumerate(zip(parts, CYCLE, strict=False)):
        widths = np.array([value[i] for value in values.values()])
        ax.barh(
            range(len(values)),
            widths,
            left=left,
            height=0.74,
            color=tint(colour, 0.75),
            edgecolor="white",
            linewidth=0.6,
            label=name,
        )
        left += widths
    if number_format is not None:
        for row, whole in enumerate(left):
            ax.annotate(
                number_format.format(whole),
                (whole, row),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
            )
    ax.set_yticks(range(len(values)), texts)
    ax.set_ylim(len(values) - 0.45, -0.55)
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel(xlabel)
    ax.set_xlim(0, left.max() * (1.0 if number_format is None else 1.25))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    _legend_below(fig, ax)
    return fig


@style()
def plot_reliability(
    confidence: Any,
    correct: Any,
    *,
    bins: int = 10,
    title: str | None = None,
    figsize: tuple[float, float] | None = None,
) -> Figure:
    """How often a model is right against how sure it is, and how many answers are how sure.

    A bar is a range of confidence; its height is the share of right answers among those in it.
    A model whose bars end on the diagonal is right as often as it says.

    Args:
        confidence: (M,), the probability of each answer, in [0, 1].
        correct: (M,), whether it was right.
    """
    sure = _array(confidence, "confidence", 1).astype(float)
    right = _array(correct, "correct", 1).astype(float)
    if len(sure) == 0 or len(sure) != len(right):
        raise ValueError(
            f"confidence and correct must be equally long, but have {len(sure)} and {len(right)}."
        )
    if sure.min() < 0 or sure.max() > 1 + 1e-6:
        raise ValueError("confidence must hold probabilities from 0 to 1.")
    if bins < 2:
        raise ValueError(f"bins is {bins}, but must be at least 2.")
    which = np.minimum((sure * bins).astype(int), bins - 1)
    counts = np.bincount(which, minlength=bins)
    hits = np.bincount(which, weights=right, minlength=bins)
    shares = np.divide(hits, counts, out=np.full(bins, math.nan), where=counts > 0)
    middles = 100 * (np.arange(bins) + 0.5) / bins
    fig = _figure(title, figsize, (WIDTH, 4.4))
    upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    options: dict[str, Any] = {
        "width": 92 / bins,
        "color": tint(PALETTE["blue"], 0.55),
        "edgecolor": PALETTE["blue"],
    }
    upper.bar(middles, 100 * shares, **options)
    upper.plot([0, 100], [0, 100], color="black", linestyle="--", linewidth=1.4)
    upper.text(43, 57, "as sure as right", ha="right", path_effects=halo())
    upper.set_ylabel("right (%)")
    upper.set_ylim(0, 100)
    lower.bar(middles, 100 * counts / len(sure), **options)
    lower.set_ylabel("answers (%)")
    lower.set_xlabel("confidence (%)")
    lower.set_xlim(0, 100)
    lower.yaxis.set_major_locator(MaxNLocator(3))
    for ax in (upper, lower):
        ax.grid(axis="y")
        ax.set_axisbelow(True)
    fig.align_ylabels()
    return fig


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
    array = _array(matrix, "matrix", (2, 3)).astype(float)
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
    across = _columns(columns, 1 if count == 1 else 2, count)
    down = math.ceil(count / across)
    panel = (WIDTH - 0.6 * across) / across
    ratio = min(max(rows / cols, 0.25), 1.6)
    extra = (0.25 if titles else 0) + (0.25 if column_labels is None else 0.3)
    body = 0.2 * rows if tall else panel * ratio
    fig = _figure(title, figsize, (WIDTH, down * (body + extra) + 0.75))
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
            color="white" if dark else "black",
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


# --- patches and tokens -----------------------------------------------------------------------


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
    pixels = _pixels(image, "image", batch=False)
    patches, (rows, cols) = cut(pixels, patch_size)
    marked = _indices(highlight, len(patches), "highlight")
    width = min(WIDTH, max(2.6, cols * 0.62))
    fig = _figure(title, figsize, (width, width * rows / cols))
    ax = fig.subplots()
    _plain_axes(ax)
    step = _number_step(fig.get_figwidth() / (cols * (1 + gap)), len(patches) - 1)
    for index, patch in enumerate(patches):
        row, col = divmod(index, cols)
        left, top = col * (1 + gap), row * (1 + gap)
        _draw_image(ax, patch, extent=(left, left + 1, top + 1, top), zorder=1)
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


def _indices(values: Sequence[int] | int, count: int, name: str) -> list[int]:
    items = [values] if isinstance(values, int) else [int(v) for v in values]
    wrong = [i for i in items if not 0 <= i < count]
    if wrong:
        raise ValueError(f"{name} holds {wrong[0]}, but the patches are 0 to {count - 1}.")
    return items


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
    pixels = _pixels(image, "image", batch=False)
    patches, (_, cols) = cut(pixels, patch_size)
    count = len(patches)
    numbers = list(range(count))
    if order is not None:
        numbers = [int(i) for i in _array(order, "order", 1)]
        if sorted(numbers) != list(range(count)):
            raise ValueError(f"order must hold each of the numbers 0 to {count - 1} once.")
    marked = _indices(highlight, count, "highlight")
    cells: list[int | None] = [*([None] if class_token else []), *numbers]
    columns = _columns(columns, 8 if cols <= 8 else min(cols, 14), len(cells))
    rows = math.ceil(len(cells) / columns)
    cell = WIDTH / columns
    step = _number_step(cell, count - 1)
    line = 1.1 + 0.2 / cell
    fig = _figure(title, figsize, (WIDTH, rows * line * cell))
    ax = fig.subplots()
    _plain_axes(ax)
    for place, index in enumerate(cells):
        row, col = divmod(place, columns)
        left, top = float(col), row * line
        text = "cls" if index is None else str(index)
        if index is None:
            face = ROLES["class_token"]
            ax.add_patch(Rectangle((left, top), 0.88, 0.88, facecolor=face, linewidth=0))
        else:
            extent = (left, left + 0.88, top + 0.88, top)
            _draw_image(ax, patches[index], extent=extent, zorder=1)
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


# --- positions and attention ------------------------------------------------------------------


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
    rows_of = _array(table, "table", (2, 3)).astype(float)
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
        chosen = _indices(patches, rows * cols, "patches")
    columns = _columns(columns, 3, len(chosen))
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
    fig = _figure(title, figsize, (WIDTH, down * (cell * rows / cols + 0.24) + 0.7))
    axes = _grid_of_axes(fig, len(chosen), columns)
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


def _patch_weights(
    weights: Any, grid: tuple[int, int] | None, prefix_tokens: int, dims: tuple[int, ...]
) -> tuple[np.ndarray, tuple[int, int]]:
    """Weights of one query as (m, rows, columns), prefix tokens left out."""
    array = _array(weights, "weights", dims).astype(float)
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
    pixels = _pixels(image, "image", batch=False)
    maps, (rows, cols) = _patch_weights(weights, grid, prefix_tokens, (1, 2))
    count = len(maps)
    if titles is not None and len(titles) != count:
        raise ValueError(f"titles holds {len(titles)} entries, but there are {count} maps.")
    framed = _indices(query, rows * cols, "query") if query is not None else []
    columns = _columns(columns, 1 if count == 1 else 2 if count <= 4 else 3, count)
    down = math.ceil(count / columns)
    height, width = pixels.shape[:2]
    full = 3.6 if columns == 1 else WIDTH
    cell = full / columns
    lines = 2 if titles is not None else 1
    fig = _figure(title, figsize, (full, down * (cell * height / width + 0.2 * lines + 0.06)))
    for i, ax in enumerate(_grid_of_axes(fig, count, columns)):
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
    pixels = _pixels(image, "image", batch=False)
    maps, (rows, cols) = _patch_weights(weights, grid, prefix_tokens, (1,))
    row_of = maps[0].ravel()
    (start,) = _indices(query, rows * cols, "query")
    if top < 1:
        raise ValueError(f"top is {top}, but must be at least 1.")
    height, width = pixels.shape[:2]
    fig = _figure(title, figsize, (WIDTH, WIDTH * height / width))
    ax = fig.subplots()
    _plain_axes(ax)
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
