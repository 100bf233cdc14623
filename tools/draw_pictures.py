# SPDX-License-Identifier: MIT
"""Draw the front page's picture, the card for links, the logo and the favicon: make pictures.

All but the card are plain SVG written by hand, so that the same text comes out on every machine and
a test can hold the committed files to this code. The digit is drawn here too; it is nobody's
picture.
"""

from __future__ import annotations

import itertools
import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
# Okabe and Ito's palette: told apart by colour-blind readers.
BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, INK, QUIET, PAPER, LINE = "#56B4E9", "#1b2733", "#5b6b7a", "#ffffff", "#c9d3dc"
PIXELS, PATCH = 28, 7
FONT = "font-family='Helvetica, Arial, sans-serif'"


def digit() -> list[list[float]]:
    """Return a "2" of 28 x 28 pixels in [0, 1], drawn with a round pen along a path."""
    path = [(8.2, 10.4), (8.8, 7.2), (11.6, 5.0), (15.6, 4.8), (18.6, 6.8), (19.4, 10.0)]
    path += [(18.2, 13.2), (15.4, 16.2), (12.0, 19.2), (8.6, 22.4), (14.0, 22.2), (20.6, 21.8)]

    def distance(x: float, y: float) -> float:
        best = math.inf
        for (ax, ay), (bx, by) in itertools.pairwise(path):
            length = (bx - ax) ** 2 + (by - ay) ** 2
            along = min(1.0, max(0.0, ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length))
            best = min(best, math.hypot(x - ax - along * (bx - ax), y - ay - along * (by - ay)))
        return best

    return [
        [min(1.0, max(0.0, 2.1 - distance(column + 0.5, row + 0.5))) for column in range(PIXELS)]
        for row in range(PIXELS)
    ]


def rect(x: float, y: float, w: float, h: float, fill: str, extra: str = "") -> str:
    """Return one rectangle."""
    return f"<rect x='{x:g}' y='{y:g}' width='{w:g}' height='{h:g}' fill='{fill}' {extra}/>"


def text(x: float, y: float, words: str, size: float = 17, fill: str = INK, extra: str = "") -> str:
    """Return one line of text, centred at ``x``."""
    return (
        f"<text x='{x:g}' y='{y:g}' font-size='{size:g}' fill='{fill}' text-anchor='middle' "
        f"{FONT} {extra}>{words}</text>"
    )


def arrow(x1: float, y1: float, x2: float, y2: float) -> str:
    """Return a straight arrow."""
    return (
        f"<line x1='{x1:g}' y1='{y1:g}' x2='{x2:g}' y2='{y2:g}' stroke='{QUIET}' "
        "stroke-width='2' marker-end='url(#tip)'/>"
    )


def patch(x: float, y: float, scale: float, row: int, column: int, ink: str = INK) -> str:
    """Return patch (row, column) of the digit with its upper left corner at (x, y)."""
    picture = digit()
    parts = [rect(x, y, PATCH * scale, PATCH * scale, "#eef2f5")]
    for i in range(PATCH):
        for j in range(PATCH):
            value = picture[row * PATCH + i][column * PATCH + j]
            if value > 0.02:
                parts.append(
                    rect(
                        round(x + j * scale, 2),
                        round(y + i * scale, 2),
                        scale,
                        scale,
                        ink,
                        f"fill-opacity='{value:.2f}'",
                    )
                )
    return "".join(parts)


def document(width: int, height: int, title: str, body: list[str]) -> str:
    """Wrap ``body`` into an SVG with an opaque ground, readable in dark mode too."""
    return "\n".join(
        [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
            f"width='{width}' height='{height}' role='img' aria-label='{title}'>",
            f"<title>{title}</title>",
            "<defs><marker id='tip' viewBox='0 0 8 8' refX='7' refY='4' markerWidth='7' "
            f"markerHeight='7' orient='auto'><path d='M0 0L8 4L0 8z' fill='{QUIET}'/>"
            "</marker></defs>",
            rect(0, 0, width, height, PAPER, "rx='10'"),
            *body,
            "</svg>",
            "",
        ]
    )


def group(x: float, y: float, body: list[str]) -> str:
    """Return ``body`` moved to (x, y)."""
    return f"<g transform='translate({x:g} {y:g})'>{''.join(body)}</g>"


def stage_image() -> list[str]:
    """The image, 196 wide and 196 high, its caption above."""
    scale = 7.0
    side = PIXELS * scale
    step = PATCH * scale
    body = [patch(j * step, i * step, scale, i, j) for i in range(4) for j in range(4)]
    body.append(rect(0, 0, side, side, "none", f"stroke='{INK}' stroke-width='1.5'"))
    return [*body, text(side / 2, -20, "an image")]


def stage_patches() -> list[str]:
    """The image cut into 16 patches, 201 wide and high, its caption above."""
    side, gap = PATCH * 6.2, 9.0
    body = []
    for i in range(4):
        for j in range(4):
            x, y = j * (side + gap), i * (side + gap) - 3
            body.append(patch(x, y, 6.2, i, j))
            body.append(rect(x, y, side, side, "none", f"stroke='{BLUE}' stroke-width='1.6'"))
    return [*body, text(2 * side + 1.5 * gap, -20, "cut into patches")]


def stage_tokens() -> list[str]:
    """One column of numbers for each patch, 261 wide and 180 high, its caption above."""
    step, cell = 16.5, 13.0
    picture = digit()
    body = []
    for index in range(16):
        row, column = divmod(index, 4)
        body.append(rect(index * step, 10, cell, cell, ORANGE, "rx='2' fill-opacity='.9'"))
        for k in range(PATCH):
            start = column * PATCH
            ink = sum(picture[row * PATCH + k][start : start + PATCH]) / 4
            shade = f"fill-opacity='{0.12 + 0.88 * min(1.0, ink):.2f}' rx='2'"
            body.append(rect(index * step, 28 + k * (cell + 2), cell, cell, BLUE, shade))
    middle = 8 * step - (step - cell) / 2
    return [
        *body,
        text(middle, -20, "one token for each"),
        text(middle, 158, "its content (blue)", 15, QUIET),
        text(middle, 178, "and its place (orange)", 15, QUIET),
    ]


def block(shift: int) -> list[str]:
    """One block, 210 wide and 176 high: tokens look at one another, then each is worked on."""
    body = [rect(0, 0, 210, 176, "#f6f8fa", f"stroke='{LINE}' stroke-width='1.5' rx='10'")]
    places = [24 + 27 * k for k in range(7)]
    for a in range(7):
        for b in range(7):
            strength = math.exp(-((a - b + shift) ** 2) / 5)
            if strength > 0.12:
                body.append(
                    f"<line x1='{places[a]:g}' y1='36' x2='{places[b]:g}' y2='92' "
                    f"stroke='{GREEN}' stroke-width='{2.4 * strength:.2f}' "
                    f"stroke-opacity='{0.25 + 0.7 * strength:.2f}'/>"
                )
    for place in places:
        for y in (22, 92, 142):
            body.append(rect(place - 7, y, 14, 14, BLUE, "rx='3'"))
        body.append(rect(place - 10, 114, 20, 20, PURPLE, "rx='4'"))
    return body


def stage_blocks() -> list[str]:
    """Two blocks and the dots for more, 490 wide and 250 high, the caption below."""
    return [
        group(0, 0, block(-2)),
        group(236, 0, block(1)),
        arrow(213, 88, 233, 88),
        text(105, 202, "block 1"),
        text(341, 202, "block 2"),
        text(468, 94, "…", 26, QUIET),
        text(223, 230, "attention mixes the tokens (green),", 15, QUIET),
        text(223, 250, "a small network works on each (purple)", 15, QUIET),
    ]


def stage_head() -> list[str]:
    """The head and the ten classes, 242 wide and 205 high."""
    body = [rect(0, 58, 96, 60, "#f6f8fa", f"stroke='{LINE}' stroke-width='1.5' rx='10'")]
    body += [text(48, 94, "head"), arrow(98, 88, 130, 88)]
    for k in range(10):
        found = k == 2
        length = 84.0 if found else 3.0 + 5 * ((k * 7) % 3)
        body.append(rect(158, k * 18.4, length, 12, ORANGE if found else SKY, "rx='2'"))
        body.append(text(144, k * 18.4 + 11, str(k), 14, INK if found else QUIET))
    return [*body, text(201, 202, "a class")]


def bent_arrow(x1: float, y1: float, middle: float, x2: float, y2: float) -> str:
    """Return an arrow that goes down, across at height ``middle``, and down again."""
    return (
        f"<path d='M{x1:g} {y1:g}V{middle:g}H{x2:g}V{y2:g}' fill='none' stroke='{QUIET}' "
        "stroke-width='2' marker-end='url(#tip)'/>"
    )


TITLE = (
    "An image is cut into patches; each becomes a token that knows its content and its place; "
    "blocks of attention and small networks refine the tokens; a head names the class"
)


def front() -> str:
    """The path of an image through the model, for a wide page."""
    body = [
        group(40, 78, stage_image()),
        arrow(250, 176, 304, 176),
        group(318, 78, stage_patches()),
        arrow(533, 176, 586, 176),
        group(600, 78, stage_tokens()),
        bent_arrow(730, 272, 312, 165, 350),
        group(60, 356, stage_blocks()),
        arrow(552, 444, 588, 444),
        group(594, 356, stage_head()),
    ]
    return document(900, 632, TITLE, body)


def front_phone() -> str:
    """The same for a narrow page, so that its words stay large enough to read."""
    body = [
        group(14, 66, stage_image()),
        arrow(216, 164, 246, 164),
        group(256, 66, stage_patches()),
        bent_arrow(357, 274, 292, 236, 316),
        group(106, 356, stage_tokens()),
        bent_arrow(236, 542, 560, 120, 580),
        group(14, 586, stage_blocks()),
        bent_arrow(482, 694, 860, 168, 924),
        group(120, 872, stage_head()),
    ]
    return document(500, 1092, TITLE, body)


def card() -> Image.Image:
    """The picture that a link to the book shows elsewhere, 1200 x 630 pixels."""
    picture = Image.new("RGB", (1200, 630), PAPER)
    pen = ImageDraw.Draw(picture)
    scale, gap, left, top = 14, 16, 60, 100
    values = digit()
    for row in range(PIXELS):
        for column in range(PIXELS):
            x = left + column * scale + (column // PATCH) * gap
            y = top - 6 + row * scale + (row // PATCH) * gap
            grey = round(242 - 215 * values[row][column])
            pen.rectangle((x, y, x + scale - 1, y + scale - 1), fill=(grey, grey + 3, grey + 6))
    for index, colour in enumerate([BLUE, SKY, GREEN, ORANGE, PURPLE, BLUE, SKY, GREEN]):
        pen.rounded_rectangle((590 + 66 * index, 420, 640 + 66 * index, 470), 8, fill=colour)
    pen.text((586, 170), "Vision Transformers,", fill=INK, font=ImageFont.load_default(56))
    pen.text((586, 240), "Step by Step", fill=INK, font=ImageFont.load_default(56))
    pen.text(
        (588, 330), "from pixels to a trained model", fill=QUIET, font=ImageFont.load_default(34)
    )
    return picture


def favicon() -> str:
    """A grid of patches, one of them picked out."""
    colours = [BLUE, SKY, SKY, SKY, ORANGE, BLUE, BLUE, SKY, GREEN]
    body = [
        rect(3 + 20 * (k % 3), 3 + 20 * (k // 3), 18, 18, colour, "rx='4'")
        for k, colour in enumerate(colours)
    ]
    return (
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 64 64' role='img' "
        f"aria-label='A grid of patches'>{''.join(body)}</svg>\n"
    )


PICTURES = {
    "book/_static/front.svg": front,
    "book/_static/front_phone.svg": front_phone,
    "book/_static/favicon.svg": favicon,
    "book/_static/logo.svg": favicon,
}


def main() -> None:
    """Write all pictures."""
    for name, draw in PICTURES.items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(draw(), encoding="utf-8")
        print(f"Drew {name}")
    card().save(ROOT / "book/_static/card.png", optimize=True)
    print("Drew book/_static/card.png")


if __name__ == "__main__":
    main()
