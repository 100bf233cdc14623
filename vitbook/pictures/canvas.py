# SPDX-License-Identifier: MIT
"""A sheet in inches to draw diagrams on: boxes, arrows, tokens, images, braces."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from .look import ROLES, tint, wrap_title
from .look import halo as white_edge
from .output import Picture

INK = "#000000"
# Shapes and remarks: dark enough to read, lighter than what they stand beside.
SHAPE_INK = "#444444"
# Parts of the model that a chapter does not speak of.
MUTED_INK = "#6E6E6E"
MUTED_EDGE = "#BDBDBD"
MUTED_FACE = "#F4F4F4"
LINE = 1.5
Point = tuple[float, float]


class Box(NamedTuple):
    """A rectangle on a canvas, in inches, y downwards."""

    x: float
    y: float
    width: float
    height: float

    @property
    def centre(self) -> Point:
        return self.x + self.width / 2, self.y + self.height / 2

    @property
    def top(self) -> Point:
        return self.x + self.width / 2, self.y

    @property
    def bottom(self) -> Point:
        return self.x + self.width / 2, self.y + self.height

    @property
    def left(self) -> Point:
        return self.x, self.y + self.height / 2

    @property
    def right(self) -> Point:
        return self.x + self.width, self.y + self.height / 2


class Canvas:
    """A white sheet of ``width`` by ``height`` inches to draw on; (0, 0) is its upper left corner.

    Args:
        title: stands above the sheet, which grows for it.
    """

    def __init__(self, width: float, height: float, title: str | None = None) -> None:
        lines = wrap_title(title, width)
        above = 0.22 * len(lines) + (0.1 if lines else 0)
        self.width, self.height = width, height
        self.figure = Picture(figsize=(width, height + above))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, -above)
        self.axes.set_axis_off()
        if lines:
            self.figure.alt = " ".join(lines)
            self.label(width / 2, 0.06 - above, "\n".join(lines), va="top", bold=True)

    def label(
        self,
        x: float,
        y: float,
        text: str,
        *,
        ha: str = "center",
        va: str = "center",
        colour: str = INK,
        bold: bool = False,
        halo: bool = False,
        rotation: float = 0,
    ) -> None:
        """Text at a point."""
        self.axes.text(
            x,
            y,
            text,
            ha=ha,
            va=va,
            color=colour,
            fontweight="bold" if bold else "normal",
            linespacing=1.25,
            rotation=rotation,
            zorder=6,
            path_effects=white_edge() if halo else None,
        )

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        text: str = "",
        role: str = "plain",
        *,
        muted: bool = False,
        strong: bool = False,
    ) -> Box:
        """A rounded box with its text; ``role`` gives the colour, ``muted`` takes it away."""
        colour = ROLES[role]
        edge = MUTED_EDGE if muted else ("#555555" if role == "plain" else colour)
        face: Any = MUTED_FACE if muted else ("white" if role == "plain" else tint(colour, 0.42))
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.07",
                facecolor=face,
                edgecolor=edge,
                linewidth=2.6 if strong else LINE,
                zorder=3,
            )
        )
        if text:
            self.label(
                x + width / 2, y + height / 2, text, colour=MUTED_INK if muted else INK, bold=strong
            )
        return Box(x, y, width, height)

    def frame(self, x: float, y: float, width: float, height: float, *, muted: bool = False) -> Box:
        """A dashed frame around several boxes."""
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y),
                width,
                height,
                boxstyle="round,pad=0,rounding_size=0.1",
                facecolor="none",
                edgecolor=MUTED_EDGE if muted else "#555555",
                linewidth=LINE,
                linestyle=(0, (4, 2.5)),
                zorder=1,
            )
        )
        return Box(x, y, width, height)

    def line(self, *points: Point, colour: str = INK, width: float = LINE) -> None:
        """A line through the points."""
        self.axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=colour,
            linewidth=width,
            zorder=2,
            solid_capstyle="butt",
            solid_joinstyle="round",
        )

    def arrow(
        self,
        *points: Point,
        colour: str = INK,
        width: float = LINE,
        bend: float = 0,
    ) -> None:
        """An arrow through the points; its head is at the last."""
        if len(points) > 2:
            self.line(*points[:-1], colour=colour, width=width)
        self.axes.add_patch(
            FancyArrowPatch(
                points[-2],
                points[-1],
                arrowstyle="-|>,head_length=4,head_width=2.4",
                mutation_scale=1 + 0.12 * width,
                color=colour,
                linewidth=width,
                shrinkA=0,
                shrinkB=0,
                connectionstyle=f"arc3,rad={bend}",
                zorder=4,
                joinstyle="miter",
                capstyle="butt",
            )
        )

    def sum(self, x: float, y: float, radius: float = 0.13, *, muted: bool = False) -> None:
        """The sign of addition in a circle, where a branch joins a stream."""
        ink = MUTED_INK if muted else INK
        self.axes.add_patch(
            Circle((x, y), radius, facecolor="white", edgecolor=ink, linewidth=LINE, zorder=5)
        )
        arm = 0.6 * radius
        for dx, dy in ((arm, 0), (0, arm)):
            self.axes.plot([x - dx, x + dx], [y - dy, y + dy], color=ink, linewidth=LINE, zorder=6)

    def cell(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        role: str,
        text: str = "",
        *,
        strength: float = 0.75,
        bold_edge: bool = False,
    ) -> Box:
        """A small square-cornered cell, as of a vector or a grid."""
        self.axes.add_patch(
            Rectangle(
                (x, y),
                width,
                height,
                facecolor=tint(ROLES[role], strength),
                edgecolor=INK if bold_edge else "white",
                linewidth=2.2 if bold_edge else 0.8,
                zorder=4 if bold_edge else 3,
            )
        )
        if text:
            dark = role == "class_token" and strength > 0.6
            self.label(x + width / 2, y + height / 2, text, colour="white" if dark else INK)
        return Box(x, y, width, height)

    def tokens(
        self,
        x: float,
        y: float,
        count: int,
        *,
        size: tuple[float, float] = (0.2, 0.5),
        gap: float = 0.07,
        role: str = "token",
        class_token: bool = False,
        parts: int = 4,
        strength: float = 0.75,
        texts: Sequence[str] | None = None,
    ) -> Box:
        """A row of vectors, each a column of ``parts`` cells; a class token stands in front."""
        width, height = size
        total = count + int(class_token)
        for i in range(total):
            kind = "class_token" if class_token and i == 0 else role
            left = x + i * (width + gap)
            for j in range(parts):
                self.cell(
                    left, y + j * height / parts, width, height / parts, kind, strength=strength
                )
            if texts is not None:
                self.label(left + width / 2, y + height + 0.12, texts[i])
        return Box(x, y, total * (width + gap) - gap, height)

    def brace(
        self, x: float, y: float, length: float, text: str, side: str = "bottom", size: float = 0.1
    ) -> None:
        """A brace that begins at (x, y) and spans ``length``; its text stands on ``side``."""
        sign = 1 if side in ("bottom", "right") else -1
        t = np.linspace(0, 1, 60)
        half = np.where(t < 0.5, t, 1 - t)
        # Two logistic steps: the brace's ends and its tip.
        depth = (
            sign
            * size
            * (0.5 / (1 + np.exp(-60 * (half - 0.04))) + 0.5 / (1 + np.exp(-60 * (half - 0.46))))
        )
        middle = sign * (size + 0.05)
        if side in ("top", "bottom"):
            self.axes.plot(x + t * length, y + depth, color=INK, linewidth=1.2, zorder=4)
            va = "top" if side == "bottom" else "bottom"
            self.label(x + length / 2, y + middle, text, va=va)
        else:
            self.axes.plot(x + depth, y + t * length, color=INK, linewidth=1.2, zorder=4)
            ha = "left" if side == "right" else "right"
            self.label(x + middle, y + length / 2, text, ha=ha)

    def grid_line(self, start: Point, end: Point) -> None:
        """A thin line of a patch grid over an image."""
        self.axes.plot(
            [start[0], end[0]], [start[1], end[1]], color=ROLES["image"], linewidth=1.0, zorder=4
        )

    def cell_frame(self, x: float, y: float, size: float, colour: str = ROLES["attention"]) -> None:
        """The frame around the patch that is spoken of."""
        self.axes.add_patch(
            Rectangle(
                (x, y),
                size,
                size,
                fill=False,
                edgecolor=colour,
                linewidth=3.0,
                zorder=5,
            )
        )

    def outline(self, x: float, y: float, width: float, height: float) -> None:
        """A thin grey edge, so that a white picture ends visibly."""
        self.axes.add_patch(
            Rectangle(
                (x, y), width, height, fill=False, edgecolor="#888888", linewidth=0.8, zorder=3
            )
        )

    def measure(self, start: Point, end: Point) -> None:
        """A line with a head at both ends, along what is measured."""
        self.axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="<|-|>,head_length=3.5,head_width=2",
                mutation_scale=1.1,
                color=INK,
                linewidth=1.2,
                shrinkA=0,
                shrinkB=0,
                zorder=4,
                joinstyle="miter",
            )
        )

    def ray(self, start: Point, end: Point, colour: str, width: float) -> None:
        """One of many lines that leave a point, with a dot at its end."""
        self.axes.plot(
            [start[0], end[0]],
            [start[1], end[1]],
            color=colour,
            linewidth=width,
            zorder=4,
            solid_capstyle="round",
        )
        self.axes.plot(end[0], end[1], marker="o", markersize=3 + width, color=colour, zorder=4)

    def arc(self, start: float, end: float, y: float, depth: float, role: str) -> None:
        """A half ellipse from (start, y) to (end, y), ``depth`` inches deep, with a head."""
        t = np.linspace(0, math.pi, 40)
        x = (start + end) / 2 + (start - end) / 2 * np.cos(t)
        self.axes.plot(
            x[:-2], (y + depth * np.sin(t))[:-2], color=ROLES[role], linewidth=2.4, zorder=4
        )
        tip = (float(x[-4]), float(y + depth * np.sin(t[-4]))), (float(x[-1]), y)
        self.arrow(*tip, colour=ROLES[role], width=2.4)

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> Box:
        """An image (H, W, C) of floats in [0, 1]."""
        options: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
        self.axes.imshow(
            pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
            extent=(x, x + width, y + height, y),
            zorder=3,
            aspect="auto",
            **(options if pixels.shape[-1] == 1 else {}),
        )
        # imshow takes the limits of the axes for itself.
        self._restore_limits()
        return Box(x, y, width, height)

    def resize(self, height: float) -> None:
        """Give the sheet another height; what is drawn stays where it is."""
        above = self.figure.get_figheight() - self.height
        self.height = height
        self.figure.set_figheight(height + above)
        self._restore_limits()

    def _restore_limits(self) -> None:
        above = self.figure.get_figheight() - self.height
        self.axes.set_xlim(0, self.width)
        self.axes.set_ylim(self.height, -above)

    def cut_image(
        self, x: float, y: float, size: float, pixels: np.ndarray, cells: int, gap: float = 0.05
    ) -> Box:
        """An image cut into ``cells`` by ``cells`` patches with gaps between them."""
        side = (size - gap * (cells - 1)) / cells
        height, width = pixels.shape[:2]
        for row in range(cells):
            for col in range(cells):
                patch = pixels[
                    row * height // cells : (row + 1) * height // cells,
                    col * width // cells : (col + 1) * width // cells,
                ]
                self.image(x + col * (side + gap), y + row * (side + gap), side, side, patch)
        return Box(x, y, size, size)
