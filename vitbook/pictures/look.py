# SPDX-License-Identifier: MIT
"""The book's one style: palette, colours by meaning, sizes, titles."""

from __future__ import annotations

import contextlib
import textwrap
from collections.abc import Iterator
from typing import Any

import matplotlib
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.patheffects import withStroke
from matplotlib.rcsetup import cycler

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
# Text on coloured pixels: the site's dark theme changes every colour but these and the pixels.
ON_DARK, ON_LIGHT = "#FEFEFE", "#010101"
# Yellow is left out of the cycle: a yellow line on white cannot be seen.
CYCLE: tuple[str, ...] = tuple(
    PALETTE[name] for name in ("blue", "vermillion", "green", "purple", "orange", "sky", "black")
)
FONT_SIZE = 11.0
# At this width 11 points are 11 pixels where a phone shows the figure 350 pixels wide.
WIDTH = 4.8
MAX_WIDTH = 7.0
DPI = 150
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


def wrap_title(text: str | None, width: float) -> list[str]:
    """A title's lines in a figure ``width`` inches wide; none without a title."""
    # Bold DejaVu Sans of 11 points takes about 0.105 in for each letter.
    room = max(8, int(width / 0.105))
    lines = (text or "").split("\n")
    # "re-split" stays whole.
    return [row for line in lines for row in textwrap.wrap(line, room, break_on_hyphens=False)]


def halo(colour: str = "white", width: float = 3.0) -> list[withStroke]:
    """A white edge around text that stands on a picture."""
    return [withStroke(linewidth=width, foreground=colour)]
