# SPDX-License-Identifier: MIT
"""Diagrams of attention and of its heads, for chapter 3."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from .canvas import SHAPE_INK, Canvas
from .look import WIDTH, style


@style()
def attention_diagram(*, shapes: bool = True, title: str | None = None) -> Figure:
    """Attention from tokens to tokens: queries, keys, values, scores, softmax, weighted sum.

    Args:
        shapes: write the shape beside each arrow.
    """
    canvas = Canvas(WIDTH, 8.0, title)
    left, wide, high, gap = 0.1, 1.46, 0.38, 0.36
    columns = [left + i * (wide + 0.11) for i in range(3)]
    middle = WIDTH / 2
    pair = left + wide + 0.055

    def shape(x: float, y: float, text: str) -> None:
        if shapes:
            canvas.label(x, y, text, ha="left", colour=SHAPE_INK)

    y = 0.06
    canvas.box(middle - 0.73, y, wide, high, "tokens", "token")
    y += high
    canvas.line((middle, y), (middle, y + 0.26))
    shape(middle + 0.1, y + 0.12, "(B, N, D)")
    y += 0.26
    for x in columns:
        canvas.arrow((middle, y), (x + wide / 2, y), (x + wide / 2, y + 0.2))
    y += 0.2
    for x, text in zip(columns, ("queries q", "keys k", "values v"), strict=True):
        canvas.box(x, y, wide, high, text, "attention")
    y += high
    for x in columns[:2]:
        canvas.arrow((x + wide / 2, y), (x + wide / 2, y + gap))
    shape(columns[0] + wide / 2 + 0.06, y + 0.17, "(B, h, N, d)")
    values_from = y
    y += gap
    double = 2 * wide + 0.11
    weights = np.array(
        [[0.5, 0.2, 0.1, 0.2], [0.1, 0.6, 0.2, 0.1], [0.05, 0.15, 0.7, 0.1], [0.3, 0.1, 0.1, 0.5]]
    )
    for text in ("scores: q · kᵀ / √d", "softmax over the keys"):
        box = canvas.box(left, y, double, high, text, "attention")
        canvas.arrow((pair, box.bottom[1]), (pair, box.bottom[1] + gap))
        shape(pair + 0.1, box.bottom[1] + 0.17, "(B, h, N, N)")
        y += high + gap
    size = 0.2
    for (i, j), value in np.ndenumerate(weights):
        canvas.cell(
            columns[2] - 0.06 + j * size,
            y - gap - 0.94 + i * size,
            size,
            size,
            "attention",
            strength=0.06 + float(value),
        )
    canvas.label(columns[2] + 0.34, y - gap + 0.1, "each row\nsums to 1", colour=SHAPE_INK)
    lane = columns[2] + 1.25
    canvas.arrow((lane, values_from), (lane, y))
    if shapes:
        canvas.label(lane - 0.07, values_from + 0.17, "(B, h, N, d)", ha="right", colour=SHAPE_INK)
    box = canvas.box(left, y, WIDTH - 2 * left, high, "sum of the values, weighted", "attention")
    y += high
    canvas.arrow((middle, y), (middle, y + gap))
    shape(middle + 0.1, y + 0.17, "(B, h, N, d)")
    y += gap
    canvas.box(
        left, y, WIDTH - 2 * left, high, "heads side by side, output projection", "attention"
    )
    y += high
    canvas.arrow((middle, y), (middle, y + gap))
    shape(middle + 0.1, y + 0.17, "(B, N, D)")
    y += gap
    canvas.box(middle - 0.73, y, wide, high, "tokens", "token")
    canvas.resize(y + high + 0.06)
    return canvas.figure


@style()
def heads_diagram(heads: int = 3, *, title: str | None = None) -> Figure:
    """The heads share what the maps make of a token: each gets a part of q, of k and of v.

    Args:
        heads: h, from 2 to 4 (more cannot be read on a phone).
    """
    if heads not in (2, 3, 4):
        raise ValueError(f"heads is {heads!r}, but the picture has room for 2, 3 or 4.")
    canvas = Canvas(WIDTH, 8.0, title)
    left, width, high = 0.12, WIDTH - 0.24, 0.24
    middle = WIDTH / 2
    gap, letter = 0.1, 0.2  # between heads; room for q, k and v in front of the first
    group = (width - letter - gap * (heads - 1)) / heads
    starts = [left + letter + i * (group + gap) for i in range(heads)]
    centres = [start + group / 2 for start in starts]
    strengths = np.linspace(0.3, 0.9, heads)

    def strip(y: float, x: float, wide: float, role: str, strength: float, count: int) -> None:
        for i in range(count):
            canvas.cell(x + i * wide / count, y, wide / count, high, role, strength=strength)

    y = 0.36
    canvas.brace(left, y, width, "D numbers of one token", side="top")
    strip(y + 0.06, left, width, "token", 0.6, 12)
    y += 0.06 + high
    canvas.arrow((middle, y), (middle, y + 0.24))
    box = canvas.box(left, y + 0.24, width, 0.62, "three maps, each of\nall D numbers", "attention")
    y = box.bottom[1]
    for x in centres:
        canvas.arrow((x, y), (x, y + 0.24))
    y += 0.28
    for name in "qkv":
        canvas.label(left + 0.06, y + high / 2, name)
        for start, strength in zip(starts, strengths, strict=True):
            strip(y, start, group, "attention", float(strength), 12 // heads)
        y += high + 0.04
    canvas.brace(starts[0], y, group, "d = D/h", side="bottom")
    for i, x in enumerate(centres):
        canvas.arrow((x, y + (0.36 if i == 0 else 0)), (x, y + 0.6))
        canvas.box(x - group / 2, y + 0.6, group, 0.62, f"head {i}\nattends", "attention")
        canvas.arrow((x, y + 1.22), (x, y + 1.46))
    y += 1.5
    whole = width / heads
    for i, strength in enumerate(strengths):
        strip(y, left + i * whole, whole, "attention", float(strength), 12 // heads)
    canvas.arrow((middle, y + high), (middle, y + high + 0.24))
    y += high + 0.24
    box = canvas.box(left, y, width, 0.38, "output projection mixes the heads", "attention")
    canvas.arrow(box.bottom, (middle, box.bottom[1] + 0.26))
    canvas.label(middle, box.bottom[1] + 0.38, "D numbers again")
    canvas.resize(box.bottom[1] + 0.52)
    return canvas.figure
