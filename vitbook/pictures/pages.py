# SPDX-License-Identifier: MIT
"""The pictures that pages of the book show from files: python -m vitbook.pictures writes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .canvas import INK, Canvas
from .example import example_pixels
from .look import ROLES, WIDTH, style
from .model_diagrams import model_diagram
from .output import to_svg


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
"""The letters of the book's shapes, and names that differ on disks that know no capitals."""
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
    """The small picture of one letter of the book's shapes: those of ``LETTER_NAMES``."""
    if letter not in LETTER_NAMES:
        known = " ".join(LETTER_NAMES)
        raise ValueError(f"letter is {letter!r}, but must be one of {known}.")
    canvas = Canvas(*PICTURE, title)
    _draw_letter(canvas, letter, 0, 0)
    return canvas.figure


def page_pictures() -> dict[str, Callable[[], Figure]]:
    """File name (without its ending) -> what draws it, for all pages of the book."""
    letters = {
        f"notation-{name}": partial(notation_picture, letter)
        for letter, name in LETTER_NAMES.items()
    }
    return {"model": model_diagram, "comparison": comparison_diagram, **letters}


def write_pictures(folder: str | Path) -> list[Path]:
    """Write every picture that a page of the book shows as an SVG file; returns their paths.

    The pictures are drawn without any data, and the same version of matplotlib gives the same
    bytes. The site adds each in the colours of the dark theme.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in page_pictures().items():
        path = target / f"{name}.svg"
        path.write_text(to_svg(draw()) + "\n", encoding="utf-8")
        written.append(path)
    return written
