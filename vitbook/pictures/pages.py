# SPDX-License-Identifier: MIT
"""The pictures that pages of the book show from files: python -m vitbook.pictures writes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .canvas import INK, Canvas
from .example import example_pixels
from .look import ROLES, WIDTH, style
from .model_diagrams import block_diagram, model_diagram
from .output import to_png


@style()
def comparison_diagram(*, title: str | None = None) -> Figure:
    """What one output sees, and with which weights: feed-forward, convolution, attention."""
    canvas = Canvas(WIDTH, 8.0, title)
    pixels = example_pixels(None)
    cells = 5
    patches = pixels[:60, :60].reshape(cells, 12, cells, 12, 3).swapaxes(1, 2)
    colours = patches.mean((2, 3))
    asks = (1, 3)
    # Attention's weights here come from the patches' colours, so that like looks at like.
    distance = ((colours - colours[asks]) ** 2).sum(-1)
    alike = np.exp(-distance / 0.03)
    drawn = np.random.default_rng(4).uniform(0.1, 1, (cells, cells))
    near = np.zeros((cells, cells))
    near[asks[0] - 1 : asks[0] + 2, asks[1] - 1 : asks[1] + 2] = [
        [0.35, 0.6, 0.35],
        [0.6, 1.0, 0.6],
        [0.35, 0.6, 0.35],
    ]
    rows = (
        (
            "feed-forward layer",
            drawn,
            ROLES["mlp"],
            "sees the whole image;\na fixed weight for each\nplace, learned apart",
        ),
        (
            "convolution",
            near,
            "#555555",
            "sees the neighbours;\nthe same fixed weights\nat every place",
        ),
        (
            "attention",
            alike,
            ROLES["attention"],
            "sees the whole image;\nweights come from what\nis in the image",
        ),
    )
    size, y = 1.8, 0.08
    side = size / cells
    for k, (name, weights, colour, text) in enumerate(rows):
        for (i, j), weight in np.ndenumerate(weights):
            # What weighs little is pale; a feed-forward layer has no patches that it slights.
            seen = 0.8 if k == 0 else 0.2 + 0.6 * float(weight)
            x, top = 0.08 + j * side, y + i * side
            canvas.image(x, top, side - 0.03, side - 0.03, 1 - seen * (1 - patches[i, j]))
        centre = 0.065 + (asks[1] + 0.5) * side, y - 0.015 + (asks[0] + 0.5) * side
        for (i, j), weight in np.ndenumerate(weights):
            if weight > 0.08 and (i, j) != asks:
                end = 0.065 + (j + 0.5) * side, y - 0.015 + (i + 0.5) * side
                canvas.ray(centre, end, colour, 0.5 + 3.0 * float(weight))
        canvas.cell_frame(0.08 + asks[1] * side, y + asks[0] * side, side - 0.03, INK)
        canvas.label(2.12, y + 0.42, name, ha="left", bold=True)
        canvas.label(2.12, y + 1.02, text, ha="left")
        y += size + (0.26 if k < 2 else 0.04)
        if k < 2:
            canvas.line((0.08, y - 0.14), (WIDTH - 0.08, y - 0.14), colour="#CCCCCC", width=0.8)
    canvas.resize(y)
    return canvas.figure


LETTERS = ("B", "C", "H", "W", "P", "N", "D", "h", "d")
MEANINGS: dict[str, str] = {
    "B": "images in a batch",
    "C": "channels",
    "H": "height in pixels",
    "W": "width in pixels",
    "P": "side of a patch",
    "N": "tokens",
    "D": "width of a token",
    "h": "heads",
    "d": "width of a head, D/h",
    "L": "blocks",
    "K": "classes",
}
# The size of a letter's picture, in inches.
PICTURE = (2.2, 1.3)


def _draw_letter(canvas: Canvas, letter: str, x: float, y: float) -> None:
    """The picture of one letter inside a field of 2.2 by 1.3 inches at (x, y)."""
    pixels = example_pixels(None)
    small = 0.72
    if letter == "B":
        for i in range(3):
            canvas.image(x + 0.52 + 0.22 * i, y + 0.22 - 0.1 * i, small, small, pixels)
            canvas.outline(x + 0.52 + 0.22 * i, y + 0.22 - 0.1 * i, small, small)
        canvas.brace(x + 0.52, y + 0.99, 1.16, "", size=0.08)
        canvas.label(x + 1.1, y + 1.18, "B", bold=True)
    elif letter == "C":
        for i, tones in enumerate(((1, 0, 0), (0, 1, 0), (0, 0, 1))):
            level = pixels @ np.asarray(tones, dtype=float)
            plane = 1 - (1 - level)[..., None] * (1 - 0.55 * np.asarray(tones, dtype=float))
            canvas.image(x + 0.52 + 0.22 * i, y + 0.22 - 0.1 * i, small, small, plane)
            canvas.outline(x + 0.52 + 0.22 * i, y + 0.22 - 0.1 * i, small, small)
        canvas.brace(x + 0.52, y + 0.99, 1.16, "", size=0.08)
        canvas.label(x + 1.1, y + 1.18, "C", bold=True)
    elif letter in "HW":
        canvas.image(x + 0.68, y + 0.08, 0.86, 0.86, pixels)
        if letter == "H":
            canvas.measure((x + 0.54, y + 0.08), (x + 0.54, y + 0.94))
            canvas.label(x + 0.36, y + 0.51, "H", bold=True)
        else:
            canvas.measure((x + 0.68, y + 1.06), (x + 1.54, y + 1.06))
            canvas.label(x + 1.68, y + 1.08, "W", bold=True)
    elif letter == "P":
        canvas.cut_image(x + 0.6, y + 0.06, 0.94, pixels, 4, gap=0.04)
        side = (0.94 - 0.12) / 4
        left = x + 0.6 + side + 0.04
        canvas.cell_frame(left, y + 0.06 + 3 * (side + 0.04), side)
        canvas.measure((left, y + 1.1), (left + side, y + 1.1))
        canvas.label(left + side + 0.18, y + 1.14, "P", bold=True)
    elif letter == "N":
        canvas.tokens(x + 0.26, y + 0.16, 7, size=(0.17, 0.6), gap=0.08)
        canvas.brace(x + 0.26, y + 0.84, 1.67, "", size=0.1)
        canvas.label(x + 1.095, y + 1.06, "N", bold=True)
    elif letter == "D":
        canvas.tokens(x + 0.86, y + 0.1, 1, size=(0.3, 1.08), parts=9)
        canvas.brace(x + 1.22, y + 0.1, 1.08, "", side="right")
        canvas.label(x + 1.48, y + 0.64, "D", bold=True)
    elif letter in "hd":
        for k, strength in enumerate((0.35, 0.6, 0.9)):
            for i in range(3):
                canvas.cell(
                    x + 0.86, y + 0.1 + k * 0.39 + i * 0.1, 0.3, 0.1, "attention", strength=strength
                )
        if letter == "h":
            canvas.brace(x + 1.22, y + 0.1, 1.08, "", side="right")
            canvas.label(x + 1.42, y + 0.64, "h parts", ha="left", bold=True)
        else:
            canvas.brace(x + 1.22, y + 0.1, 0.3, "", side="right", size=0.07)
            canvas.label(x + 1.45, y + 0.25, "d", bold=True)
    elif letter == "L":
        for i in range(3):
            canvas.box(x + 0.55, y + 0.08 + i * 0.4, 1.0, 0.3, "", "attention")
        canvas.brace(x + 1.62, y + 0.08, 1.1, "", side="right")
        canvas.label(x + 1.86, y + 0.63, "L", bold=True)
    else:
        for i, value in enumerate((0.2, 0.45, 1.0, 0.3, 0.15, 0.25)):
            canvas.cell(
                x + 0.44 + i * 0.22,
                y + 0.9 - 0.78 * value,
                0.16,
                0.78 * value,
                "head",
                strength=1.0 if value > 0.5 else 0.45,
            )
        canvas.brace(x + 0.44, y + 0.95, 1.26, "", size=0.08)
        canvas.label(x + 1.07, y + 1.15, "K", bold=True)


@style()
def notation_picture(letter: str, *, title: str | None = None) -> Figure:
    """The small picture of one letter of the book's shapes: B C H W P N D h d, and L and K."""
    if letter not in MEANINGS:
        raise ValueError(f"letter is {letter!r}, but must be one of {' '.join(MEANINGS)}.")
    canvas = Canvas(*PICTURE, title)
    _draw_letter(canvas, letter, 0, 0)
    return canvas.figure


@style()
def notation_pictures(*, title: str | None = None) -> Figure:
    """All letters of the book's shapes, each with its picture and its meaning."""
    width, high = PICTURE
    pitch = high + 0.5
    canvas = Canvas(WIDTH, pitch * math.ceil(len(MEANINGS) / 2), title)
    for i, (letter, meaning) in enumerate(MEANINGS.items()):
        row, col = divmod(i, 2)
        x = col * WIDTH / 2 + (WIDTH / 2 - width) / 2
        _draw_letter(canvas, letter, x, row * pitch + 0.04)
        canvas.label(x + width / 2, row * pitch + high + 0.17, f"{letter}: {meaning}")
    return canvas.figure


@style()
def front_picture(image: Any = None, *, title: str | None = None) -> Figure:
    """The book's front picture: an image, its patches, tokens, blocks, and what the model says.

    Args:
        image: (C, H, W), uint8 or float in [0, 1], C 1 or 3; None takes the drawn ``motif``.
    """
    pixels = example_pixels(image)
    canvas = Canvas(WIDTH, 4.22, title)
    size = 1.85
    canvas.image(0.12, 0.1, size, size, pixels)
    canvas.arrow((2.1, 0.1 + size / 2), (2.58, 0.1 + size / 2), width=2.2)
    canvas.cut_image(2.7, 0.06, size + 0.1, pixels, 4, gap=0.08)
    turn = 2.2
    canvas.arrow(
        (2.7 + size / 2, 2.06), (2.7 + size / 2, turn), (0.83, turn), (0.83, 2.5), width=2.2
    )
    canvas.tokens(0.12, 2.58, 6, size=(0.18, 1.1), gap=0.06, class_token=True, parts=6)
    canvas.arrow((1.88, 3.13), (2.1, 3.13), width=2.2)
    for i in range(3):
        shift = 0.09 * (2 - i)
        canvas.box(2.2 + shift, 2.58 - shift + 0.14, 1.02, 1.0, "", "attention")
    canvas.box(2.32, 2.84, 0.78, 0.34, "", "attention")
    canvas.box(2.32, 3.28, 0.78, 0.34, "", "mlp")
    canvas.arrow((3.44, 3.13), (3.66, 3.13), width=2.2)
    for i, value in enumerate((0.14, 0.3, 1.0, 0.2)):
        canvas.cell(
            3.76 + i * 0.24,
            3.68 - 1.0 * value,
            0.18,
            value,
            "head",
            strength=1.0 if value > 0.5 else 0.45,
        )
    canvas.line((3.72, 3.7), (4.7, 3.7))
    for x, text in ((0.9, "tokens"), (2.76, "blocks"), (4.21, "class")):
        canvas.label(x, 3.92, text)
    canvas.resize(4.08)
    return canvas.figure


class PagePicture(NamedTuple):
    """A picture that a page of the book shows from a file, and its alternative text."""

    draw: Callable[[], Figure]
    alt: str


LETTER_NAMES: dict[str, str] = {
    "B": "batch",
    "C": "channels",
    "H": "height",
    "W": "width",
    "P": "patch",
    "N": "tokens",
    "D": "dim",
    "h": "heads",
    "d": "head-dim",
    "L": "blocks",
    "K": "classes",
}
LETTER_ALTS: dict[str, str] = {
    "B": "Three images in a stack.",
    "C": "The red, green and blue planes of one image.",
    "H": "An image with an arrow along its height.",
    "W": "An image with an arrow along its width.",
    "P": "An image cut into patches; an arrow spans the side of one.",
    "N": "A row of tokens under one brace.",
    "D": "One token, a column of numbers, spanned by a brace.",
    "h": "The numbers that a map makes of a token, split into equal parts.",
    "d": "The numbers that a map makes of a token, split into equal parts, one spanned by a brace.",
    "L": "Blocks above one another, spanned by a brace.",
    "K": "A row of bars, one for each class, one of them the tallest.",
}


def page_pictures() -> dict[str, PagePicture]:
    """File name (without its ending) -> picture and alternative text, for all pages of the book."""
    pictures = {
        "front": PagePicture(
            front_picture,
            "A picture of a house is cut into sixteen patches; the patches become a row of tokens, "
            "the tokens pass through blocks, and bars show the class that the model chooses.",
        ),
        "model": PagePicture(
            model_diagram,
            "The Vision Transformer from top to bottom: an image is cut into patches, projected, "
            "given a class token and positions, passed through L blocks of attention and MLP, "
            "normalised, and the class token gives one score for each class.",
        ),
        "block": PagePicture(
            block_diagram,
            "One block: a straight residual stream, from which two branches leave and to which "
            "they are added back, norm and attention first, norm and MLP second.",
        ),
        "comparison": PagePicture(
            comparison_diagram,
            "What one output sees: a feed-forward layer the whole image with fixed weights, a "
            "convolution its neighbours with fixed weights, attention the whole image with weights "
            "that come from its content.",
        ),
        "notation": PagePicture(
            notation_pictures, "Each letter of the book's shapes beside a small picture of it."
        ),
    }
    for letter, name in LETTER_NAMES.items():
        pictures[f"notation-{name}"] = PagePicture(
            partial(notation_picture, letter), LETTER_ALTS[letter]
        )
    return pictures


def write_pictures(folder: str | Path) -> list[Path]:
    """Write every picture that a page of the book shows as a PNG file; returns their paths.

    The pictures are drawn without any data, and the same versions of matplotlib and Pillow give
    the same bytes.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, picture in page_pictures().items():
        path = target / f"{name}.png"
        path.write_bytes(to_png(picture.draw()))
        written.append(path)
    return written
