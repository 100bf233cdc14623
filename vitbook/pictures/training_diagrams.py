# SPDX-License-Identifier: MIT
"""Diagrams of training, for chapters 6 and 7."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.patches import Circle

from .canvas import INK, SHAPE_INK, Box, Canvas
from .look import WIDTH, style


@style()
def training_diagram(rungs: Sequence[str] = (), *, title: str | None = None) -> Figure:
    """One step of training from images to new weights, and where a recipe's parts take hold of it.

    Args:
        rungs: up to eight names, written beside their places with their numbers: schedule,
            augmentation, mixing, pooling, stem, moving average, optimiser, length. Without them
            the places bear no numbers.
    """
    if len(rungs) > 8:
        raise ValueError(f"rungs holds {len(rungs)} names, but the picture has eight places.")
    left, width, high, gap = 0.42, 2.2, 0.36, 0.3
    middle = left + width / 2
    beside = left + width + 0.3
    canvas = Canvas(WIDTH, 8.0, title)
    y = 0.06

    def rung(number: int, at: float, touch: float | None = None) -> None:
        """A number in a circle, its name behind it, a thin line to what it changes."""
        if number > len(rungs):
            return
        canvas.line((left + width if touch is None else touch, at), (beside, at), colour="#888888")
        canvas.axes.add_patch(
            Circle((beside + 0.12, at), 0.13, facecolor="white", edgecolor=INK, zorder=5)
        )
        canvas.label(beside + 0.12, at - 0.01, str(number), bold=True)
        canvas.label(beside + 0.32, at, rungs[number - 1], ha="left")

    def step(shape: str = "") -> None:
        nonlocal y
        canvas.arrow((middle, y), (middle, y + gap))
        if shape:
            canvas.label(middle + 0.1, y + gap / 2 - 0.01, shape, ha="left", colour=SHAPE_INK)
        y += gap

    def part(text: str, role: str, *numbers: int) -> Box:
        nonlocal y
        box = canvas.box(left, y, width, high, text, role)
        for number in numbers:
            rung(number, box.centre[1])
        y += high
        return box

    first = part("a batch of images", "image", 8)
    step("(B, C, H, W)")
    part("change each image", "image", 2)
    step()
    part("mix pairs of images", "image", 3)
    step()
    top = y
    y += 0.12
    inset = 0.14
    for text, role, number in (
        ("cut into tokens", "token", 5),
        ("L blocks", "attention", 0),
        ("pool, head", "head", 4),
    ):
        box = canvas.box(left + inset, y, width - 2 * inset, high, text, role)
        if number:
            rung(number, box.centre[1], touch=left + width - inset)
        y += high
        if text != "pool, head":
            canvas.arrow((middle, y), (middle, y + 0.2))
            y += 0.2
    y += 0.12
    canvas.frame(left, top, width, y - top)
    canvas.label(beside, top + 0.12 + high + 0.2 + high / 2, "the model", ha="left", bold=True)
    step("(B, K)")
    part("loss against targets", "plain")
    step("gradients")
    part("set the rate", "plain", 1)
    step()
    last = part("optimiser: new weights", "plain", 7)
    # Round again: the next batch meets the new weights.
    back = left - 0.16
    canvas.arrow(last.left, (back, last.centre[1]), (back, first.centre[1]), first.left)
    canvas.label(back - 0.12, (first.y + y) / 2, "next batch", rotation=90)
    step()
    part("average of the weights", "plain", 6)
    step()
    canvas.label(middle, y + 0.1, "validation chooses the epoch")
    canvas.resize(y + 0.28)
    return canvas.figure
