# SPDX-License-Identifier: MIT
"""Drawn diagrams of the model and its parts, in the book's one style; every chapter opens with one.

A colour means the same in all of them (``plots.ROLES``): orange the image and its patches, light
blue tokens, dark blue the class token, yellow positions, red attention, green the MLP, purple
norms, grey the head. ``python -m vitcore.diagrams OUTDIR`` writes those that pages of the book use.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from . import plots
from .plots import PALETTE, ROLES, WIDTH, Picture, style, tint

__all__ = [
    "Box",
    "Canvas",
    "attention_diagram",
    "block_diagram",
    "comparison_diagram",
    "embedding_diagram",
    "front_picture",
    "heads_diagram",
    "model_diagram",
    "motif",
    "notation_picture",
    "notation_pictures",
    "page_pictures",
    "patch_cut_diagram",
    "receptive_field_diagram",
    "sequence_order_diagram",
    "training_diagram",
    "write_pictures",
]

INK = "#000000"
# Shapes and remarks: dark enough to read, lighter than what they stand beside.
SHAPE_INK = "#444444"
# Parts of the model that a chapter does not speak of.
MUTED_INK = "#6E6E6E"
MUTED_EDGE = "#BDBDBD"
MUTED_FACE = "#F4F4F4"
LINE = 1.5
HIGHLIGHTS = ("patches", "embeddings", "attention", "blocks", "head")
LETTERS = ("B", "C", "H", "W", "P", "N", "D", "h", "d")

Point = tuple[float, float]


# --- primitives -------------------------------------------------------------------------------


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
        lines = plots.wrap_title(title, width)
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
            path_effects=plots.halo() if halo else None,
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


def motif(size: int = 64) -> np.ndarray:
    """A drawn picture, a house under the sun, as uint8 (3, size, size): the diagrams' example."""
    if size < 8:
        raise ValueError(f"size is {size}, but the motif needs at least 8 pixels.")
    # Drawn four times larger and averaged, so that edges are smooth.
    scale = 4
    y, x = (np.mgrid[0 : size * scale, 0 : size * scale] + 0.5) / (size * scale)
    sky_top, sky_low = np.array([0.55, 0.80, 0.95]), np.array([0.88, 0.95, 1.0])
    pixels = sky_top + (sky_low - sky_top) * y[..., None]

    def paint(where: np.ndarray, colour: str, amount: float = 1.0) -> None:
        pixels[where] = tint(colour, amount)

    paint((x - 0.8) ** 2 + (y - 0.2) ** 2 < 0.11**2, "#F5C518")
    paint(y > 0.70 + 0.05 * np.sin(4.2 * x + 0.6), PALETTE["green"], 0.85)
    paint((x > 0.2) & (x < 0.62) & (y > 0.45) & (y < 0.83), "#F3DDBE")
    paint((y < 0.47) & (y > 0.21 + np.abs(x - 0.41) * 0.95), PALETTE["vermillion"])
    paint((x > 0.26) & (x < 0.37) & (y > 0.54) & (y < 0.65), PALETTE["blue"])
    paint((x > 0.45) & (x < 0.56) & (y > 0.58) & (y < 0.83), "#7A4A1E")
    paint((x > 0.80) & (x < 0.835) & (y > 0.6) & (y < 0.8), "#7A4A1E")
    paint((x - 0.817) ** 2 + (y - 0.55) ** 2 < 0.095**2, "#00694D")
    small = pixels.reshape(size, scale, size, scale, 3).mean((1, 3))
    return (small * 255).round().astype(np.uint8).transpose(2, 0, 1)


def _example(image: Any) -> np.ndarray:
    return plots.as_pixels(motif() if image is None else image, "image")


# --- the whole model --------------------------------------------------------------------------


class _Letters(NamedTuple):
    """What stands in the shapes: letters, or the numbers of a configuration."""

    image: str
    patches: str
    embedded: str
    tokens: str
    pooled: str
    logits: str
    depth: str
    class_token: bool
    registers: int
    positions: str
    pool: str
    norm_first: bool


def _letters(config: Any) -> _Letters:
    if config is None:
        return _Letters(
            "(B, C, H, W)",
            "(B, N, C·P·P)",
            "(B, N, D)",
            "(B, 1+N, D)",
            "(B, D)",
            "(B, K)",
            "L",
            True,
            0,
            "learned",
            "cls",
            True,
        )
    try:
        size, patch, channels = config.image_size, config.patch_size, config.in_channels
        height, width = (size, size) if isinstance(size, int) else size
        count = (height // patch) * (width // patch)
        dim, classes = config.dim, config.num_classes
        registers, class_token = int(config.registers), bool(config.class_token)
        depth, pool, positions = config.depth, config.pool, config.positions
    except AttributeError as error:
        raise TypeError(
            f"config is a {type(config).__name__} without {error.name}: pass a ViTConfig, or None "
            "for letters."
        ) from None
    total = count + registers + int(class_token)
    return _Letters(
        f"(B, {channels}, {height}, {width})",
        f"(B, {count}, {channels * patch * patch})",
        f"(B, {count}, {dim})",
        f"(B, {total}, {dim})",
        f"(B, {dim})",
        f"(B, {classes})" if classes else "",
        str(depth),
        class_token,
        registers,
        positions,
        pool,
        getattr(config, "pool_norm", "before") == "before",
    )


@style()
def model_diagram(
    highlight: str | None = None,
    *,
    shapes: bool = True,
    config: Any = None,
    title: str | None = None,
) -> Figure:
    """The whole Vision Transformer from image to classes, with the shape beside each arrow.

    Args:
        highlight: "patches", "embeddings", "attention", "blocks" or "head": the part that a
            chapter speaks of keeps its colour, the rest is grey. None colours everything.
        shapes: write the shapes.
        config: a ``ViTConfig``, whose numbers stand in place of the letters; its class token,
            registers and positions are drawn as they are.
    """
    if highlight is not None and highlight not in HIGHLIGHTS:
        raise ValueError(f"highlight is {highlight!r}, but must be one of {HIGHLIGHTS} or None.")
    text = _letters(config)

    def muted(*parts: str) -> bool:
        return highlight is not None and highlight not in parts

    def strong(*parts: str) -> bool:
        return highlight in parts

    left, width, high, gap = 0.12, 2.75, 0.36, 0.34
    middle = left + width / 2
    pictures = left + width + 0.32
    extra = {
        (True, False): "put class token in front",
        (True, True): f"class token + {text.registers} registers",
        (False, True): f"put {text.registers} registers in front",
    }.get((text.class_token, text.registers > 0))
    canvas = Canvas(WIDTH, 8.0, title)
    y = 0.06

    def step(shape: str, *parts: str) -> None:
        """An arrow to the next box with the shape of what flows along it."""
        nonlocal y
        canvas.arrow((middle, y), (middle, y + gap))
        if shapes and shape:
            ink = MUTED_INK if muted(*parts) else SHAPE_INK
            canvas.label(middle + 0.1, y + gap / 2 - 0.01, shape, ha="left", colour=ink)
        y += gap

    def part(label: str, role: str, *parts: str) -> Box:
        nonlocal y
        box = canvas.box(
            left, y, width, high, label, role, muted=muted(*parts), strong=strong(*parts)
        )
        y += high
        return box

    def vectors(top: float, count: int, role: str = "token", front: int = 0) -> None:
        canvas.tokens(
            pictures,
            top,
            count,
            size=(0.16, 0.2 if role == "position" else 0.44),
            gap=0.06,
            role=role,
            class_token=front > 0,
            parts=2 if role == "position" else 4,
            strength=0.25 if muted("embeddings") else 0.75,
        )

    pixels = _example(None)
    side = 0.8
    canvas.image(middle - side / 2, y, side, side, pixels)
    y += side
    step(text.image, "patches")
    box = part("cut into patches", "image", "patches")
    faded = 0.7 + 0.3 * pixels if muted("patches") else pixels
    canvas.cut_image(pictures, box.y - 0.44, 0.86, faded, 4)
    step(text.patches, "patches", "embeddings")
    box = part("linear projection", "token", "embeddings")
    vectors(box.y - 0.04, 5)
    step(text.embedded, "embeddings")
    front = box
    if extra:
        front = part(extra, "class_token", "embeddings")
        y += 0.1 if text.positions != "none" else 0
    if text.positions != "none":
        box = part("add positions", "position", "embeddings")
        front = front if extra else box
    if extra:
        vectors(front.y - 0.04, 4, front=1)
    if text.positions != "none":
        vectors(front.y + (0.45 if extra else 0.08), 5, "position")
    if extra or text.positions != "none":
        step(text.tokens, "embeddings", "blocks", "attention")

    frame_height = 1.7
    canvas.frame(left, y, width, frame_height, muted=muted("blocks", "attention"))
    here, there = left + 0.48, left + 2.45
    quiet = muted("blocks")
    ink = MUTED_INK if quiet else INK
    canvas.line((middle, y), (middle, y + 0.15), colour=ink)
    row = y + 0.15
    for kind, role, parts in (
        ("attention", "attention", ("attention", "blocks")),
        ("MLP", "mlp", ("blocks",)),
    ):
        # The stream forks at the height of `row`: into the branch, and past it to the sum.
        top = row + 0.2
        centre = top + high / 2
        canvas.arrow((there, row), (here, row), (here, top), colour=ink)
        canvas.arrow((there, row), (there, centre - 0.13), colour=ink)
        canvas.box(
            here - 0.36, top, 0.72, high, "norm", "norm", muted=quiet, strong=strong("blocks")
        )
        canvas.arrow((here + 0.36, centre), (here + 0.58, centre), colour=ink)
        canvas.box(
            here + 0.58, top, 1.02, high, kind, role, muted=muted(*parts), strong=strong(*parts)
        )
        canvas.arrow((here + 1.6, centre), (there - 0.13, centre), colour=ink)
        canvas.sum(there, centre, muted=quiet)
        row = top + high + 0.12
        canvas.line((there, centre + 0.13), (there, row), colour=ink)
    canvas.line((there, row), (middle, row), (middle, y + frame_height), colour=ink)
    canvas.label(
        pictures,
        y + frame_height / 2,
        f"{text.depth} blocks,\none after\nanother",
        ha="left",
        colour=MUTED_INK if muted("blocks", "attention") else INK,
        bold=strong("blocks"),
    )
    y += frame_height

    step(text.tokens, "blocks", "attention", "head")
    last = [
        ("norm", "norm"),
        ("take the class token", "class_token")
        if text.pool == "cls"
        else ("mean of the patch tokens", "token"),
    ]
    for label, role in last if text.norm_first else reversed(last):
        part(label, role, "head")
        y += 0.1
    y -= 0.1
    step(text.pooled, "head")
    if text.logits:
        box = part("linear head", "head", "head")
        for i, value in enumerate((0.12, 0.3, 0.9, 0.2, 0.1)):
            strength = 0.45 if value < 0.5 else 1.0
            canvas.cell(
                pictures + i * 0.22,
                box.y + high - 0.8 * value,
                0.16,
                0.8 * value,
                "head",
                strength=strength * (0.4 if muted("head") else 1.0),
            )
        ink = MUTED_INK if muted("head") else INK
        canvas.line(
            (pictures - 0.04, box.y + high + 0.02),
            (pictures + 1.08, box.y + high + 0.02),
            colour=ink,
        )
        step(text.logits, "head")
        canvas.label(middle, y + 0.12, "one score for each class", colour=ink)
        y += 0.26
    canvas.resize(y + 0.05)
    return canvas.figure


# --- the block --------------------------------------------------------------------------------


@style()
def block_diagram(
    pre_norm: bool = True,
    *,
    layer_scale: bool = False,
    drop_path: bool = False,
    title: str | None = None,
) -> Figure:
    """One block: the residual stream as a straight line, the two branches beside it.

    Args:
        pre_norm: norms at the head of each branch, as in the ViT; False puts them on the
            stream after each sum, as in the first transformer.
        layer_scale, drop_path: draw these parts at the end of each branch.
    """
    ends = [
        *(["layer scale"] if layer_scale else []),
        *(["drop path"] if drop_path else []),
    ]
    stream, left, width, high = 1.05, 2.0, 1.75, 0.38
    pitch = high + 0.24
    steps = 1 + int(pre_norm) + len(ends)
    branch = 0.3 + steps * pitch - 0.24 + 0.3
    after = 0.0 if pre_norm else pitch
    height = 0.42 + 2 * (branch + 0.3 + after) + 0.46
    canvas = Canvas(WIDTH, height, title)
    canvas.label(stream, 0.14, "tokens in", va="center")
    canvas.label(stream - 0.12, 0.46, "(B, N, D)", ha="right", colour=SHAPE_INK)
    y = 0.28
    start = y
    for name, role, inside in (("attention", "attention", None), ("MLP", "mlp", "4D inside")):
        fork = y + 0.2
        boxes = [("norm", "norm")] if pre_norm else []
        boxes += [(name, role), *((end, "plain") for end in ends)]
        top = fork + 0.16
        canvas.arrow((stream, fork), (left + width / 2, fork), (left + width / 2, top))
        for i, (label, kind) in enumerate(boxes):
            box = canvas.box(left, top + i * pitch, width, high, label, kind)
            if label == "MLP" and inside:
                canvas.label(
                    left + width + 0.1, box.centre[1], "D → 4D\n→ D", ha="left", colour=SHAPE_INK
                )
            if label == "attention":
                canvas.label(
                    left + width + 0.1,
                    box.centre[1],
                    "tokens\nmix here",
                    ha="left",
                    colour=SHAPE_INK,
                )
            if i:
                canvas.arrow((box.top[0], box.y - 0.24), box.top)
        join = box.y + box.height + 0.2
        canvas.arrow(box.bottom, (left + width / 2, join), (stream + 0.13, join))
        canvas.line((stream, y), (stream, join), width=3.0)
        canvas.sum(stream, join)
        y = join + 0.13
        if not pre_norm:
            canvas.arrow((stream, y), (stream, y + 0.22), width=3.0)
            canvas.box(stream - 0.5, y + 0.22, 1.0, high, "norm", "norm")
            y += 0.22 + high
    canvas.arrow((stream, y), (stream, y + 0.34), width=3.0)
    canvas.label(stream - 0.12, y + 0.14, "(B, N, D)", ha="right", colour=SHAPE_INK)
    canvas.label(stream, y + 0.46, "tokens out")
    canvas.label(0.3, (start + y) / 2, "residual stream", rotation=90, colour=SHAPE_INK)
    # The sheet ends where the drawing does.
    canvas.resize(y + 0.62)
    return canvas.figure


# --- attention --------------------------------------------------------------------------------


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
    """A token's D numbers split among the heads, each of which attends alone, and put together.

    Args:
        heads: h, from 2 to 4 (more cannot be read on a phone).
    """
    if heads not in (2, 3, 4):
        raise ValueError(f"heads is {heads!r}, but the picture has room for 2, 3 or 4.")
    canvas = Canvas(WIDTH, 8.0, title)
    left, width = 0.12, WIDTH - 0.24
    each = 12 // heads
    cell = width / 12
    strengths = np.linspace(0.3, 0.9, heads)
    gap = 0.16
    group = (width - gap * (heads - 1)) / heads
    size = group / each

    def whole(y: float) -> None:
        for i in range(12):
            canvas.cell(
                left + i * cell, y, cell, 0.3, "attention", strength=float(strengths[i // each])
            )

    def parts(y: float) -> None:
        for k in range(heads):
            for i in range(each):
                canvas.cell(
                    left + k * (group + gap) + i * size,
                    y,
                    size,
                    0.3,
                    "attention",
                    strength=float(strengths[k]),
                )

    centres = [left + k * (group + gap) + group / 2 for k in range(heads)]
    froms = [left + (k + 0.5) * each * cell for k in range(heads)]
    canvas.brace(left, 0.36, width, "D numbers of one token", side="top")
    whole(0.42)
    for a, b in zip(froms, centres, strict=True):
        canvas.arrow((a, 0.74), (b, 1.02))
    parts(1.06)
    canvas.brace(left, 1.4, group, "d = D/h", side="bottom")
    for k, x in enumerate(centres):
        canvas.arrow((x, 1.76 if k == 0 else 1.4), (x, 2.0))
        canvas.box(x - group / 2, 2.0, group, 0.62, f"head {k}\nattends", "attention")
        canvas.arrow((x, 2.62), (x, 2.9))
    parts(2.94)
    for a, b in zip(centres, froms, strict=True):
        canvas.arrow((a, 3.26), (b, 3.54))
    whole(3.58)
    canvas.arrow((WIDTH / 2, 3.9), (WIDTH / 2, 4.14))
    box = canvas.box(left, 4.14, width, 0.38, "output projection mixes the heads", "attention")
    canvas.arrow(box.bottom, (WIDTH / 2, box.bottom[1] + 0.26))
    canvas.label(WIDTH / 2, box.bottom[1] + 0.38, "D numbers again")
    canvas.resize(box.bottom[1] + 0.52)
    return canvas.figure


# --- patches and embeddings -------------------------------------------------------------------


@style()
def patch_cut_diagram(
    image: Any = None,
    patch_size: int | None = None,
    *,
    patch: int | None = None,
    title: str | None = None,
) -> Figure:
    """An image cut into patches, and one patch read out as the numbers of a vector.

    Args:
        image: (C, H, W), uint8 or float in [0, 1], C 1 or 3; None takes the drawn ``motif``.
        patch_size: P, which must divide H and W; None cuts the motif into four by four.
        patch: the number of the patch to read out; None takes the one with the most in it.
    """
    pixels = plots.as_pixels(motif(32) if image is None else image, "image")
    if patch_size is None:
        if image is not None:
            raise ValueError("patch_size is missing: say how many pixels a patch's side has.")
        patch_size = 8
    patches, (rows, cols) = plots.cut(pixels, patch_size)
    if max(rows, cols) > 8:
        raise ValueError(
            f"patch_size {patch_size} gives {rows} x {cols} patches, but the picture has room "
            "for 8 x 8: take larger patches."
        )
    # Without a wish, the patch with the most to see in it.
    chosen = int(patches.std((1, 2)).mean(-1).argmax()) if patch is None else patch
    if not 0 <= chosen < rows * cols:
        raise ValueError(f"patch is {patch}, but the patches are 0 to {rows * cols - 1}.")
    canvas = Canvas(WIDTH, 8.0, title)
    row, col = divmod(chosen, cols)
    ratio = pixels.shape[0] / pixels.shape[1]

    size = 1.9
    canvas.label(0.1 + size / 2, 0.12, "image (C, H, W)")
    box = canvas.image(0.1, 0.28, size, size * ratio, pixels)
    side = size / cols
    for i in range(rows + 1):
        canvas.grid_line((box.x, box.y + i * side), (box.x + size, box.y + i * side))
    for i in range(cols + 1):
        canvas.grid_line((box.x + i * side, box.y), (box.x + i * side, box.y + size * ratio))
    canvas.cell_frame(box.x + col * side, box.y + row * side, side)
    canvas.arrow((2.1, 0.28 + size * ratio / 2), (2.5, 0.28 + size * ratio / 2))

    gap = 0.06
    side = (2.1 - gap * (cols - 1)) / cols
    canvas.label(2.6 + 1.05, 0.12, f"{rows} · {cols} patches")
    top = 0.28 + max(0.0, (size * ratio - rows * side - gap * (rows - 1)) / 2)
    for index, piece in enumerate(patches):
        i, j = divmod(index, cols)
        canvas.image(2.6 + j * (side + gap), top + i * (side + gap), side, side, piece)
    x, y = 2.6 + col * (side + gap), top + row * (side + gap)
    canvas.cell_frame(x, y, side)

    bottom = max(0.28 + size * ratio, top + rows * (side + gap))
    y = bottom + 0.42
    canvas.image(0.1, y, 1.1, 1.1, patches[chosen])
    canvas.cell_frame(0.1, y, 1.1)
    canvas.label(0.65, y - 0.14, f"patch {chosen}")
    channels = pixels.shape[-1]
    names = ["red", "green", "blue"] if channels == 3 else ["grey"]
    high = 0.24
    first = y + (1.1 - channels * high - (channels - 1) * 0.13) / 2
    start, length = 2.12, WIDTH - 2.24
    for k, name in enumerate(names):
        strip = patches[chosen][..., k].reshape(1, -1, 1)
        top = first + k * (high + 0.13)
        canvas.label(start - 0.08, top + high / 2, name, ha="right")
        canvas.image(start, top, length, high, strip)
        canvas.outline(start, top, length, high)
    canvas.arrow((1.24, y + 0.55), (1.48, y + 0.55))
    end = first + channels * (high + 0.13) - 0.08
    each = " each" if channels > 1 else ""
    canvas.brace(start, end, length, f"P·P = {patch_size * patch_size} numbers{each}")
    last = max(end + 0.4, y + 1.2)
    canvas.label(
        WIDTH / 2,
        last + 0.14,
        f"one vector of C·P·P = {channels * patch_size * patch_size} numbers",
        bold=True,
    )
    canvas.resize(last + 0.32)
    return canvas.figure


@style()
def embedding_diagram(*, class_token: bool = True, title: str | None = None) -> Figure:
    """From patches to what enters the first block: projection, class token, positions.

    Args:
        class_token: put a class token in front; False draws a model without.
    """
    canvas = Canvas(WIDTH, 8.0, title)
    count, width, gap = 4, 0.36, 0.14
    start, right = 0.75, 3.42
    total = "1+N" if class_token else "N"
    front = width + gap

    def centre(i: int) -> float:
        return start + i * front + width / 2

    def texts(y: float, names: Sequence[str], first: int) -> None:
        for i, name in enumerate(names):
            canvas.label(centre(first + i), y, name)

    numbers = [str(i) for i in range(count)]
    shown = (["cls"] if class_token else []) + numbers
    first = int(class_token)

    y = 0.14
    texts(y, numbers, first)
    y += 0.14
    canvas.tokens(
        start + first * front, y, count, size=(width, 0.84), gap=gap, role="image", parts=6
    )
    canvas.label(right, y + 0.42, "patches\n(B, N, C·P·P)", ha="left")
    y += 0.84
    for i in range(count):
        canvas.arrow((centre(first + i), y + 0.03), (centre(first + i), y + 0.28))
    y += 0.28
    span = count * front - gap
    canvas.box(start + first * front - 0.02, y, span + 0.04, 0.38, "linear projection", "token")
    canvas.label(right, y + 0.19, "the same\nfor each patch", ha="left", colour=SHAPE_INK)
    y += 0.38
    for i in range(count):
        canvas.arrow((centre(first + i), y), (centre(first + i), y + 0.27))
    y += 0.3
    canvas.tokens(start, y, count, size=(width, 0.56), gap=gap, class_token=class_token)
    canvas.label(right, y + 0.28, f"tokens\n(B, {total}, D)", ha="left")
    if class_token:
        canvas.label(centre(0), y - 0.46, "class\ntoken")
        canvas.arrow((centre(0), y - 0.24), (centre(0), y - 0.03))
    middle = (centre(0) + centre(count - 1 + first)) / 2
    canvas.sum(middle, y + 0.56 + 0.2)
    y += 0.96
    canvas.tokens(start, y, count + first, size=(width, 0.56), gap=gap, role="position")
    canvas.label(right, y + 0.28, f"positions\n(1, {total}, D)", ha="left")
    y += 0.56
    for i in range(count + first):
        canvas.arrow((centre(i), y + 0.03), (centre(i), y + 0.27))
    y += 0.3
    for i in range(count + first):
        role = "class_token" if class_token and i == 0 else "token"
        for j in range(4):
            left, top = start + i * front, y + j * 0.14
            canvas.cell(left, top, width, 0.14, role)
            # A stripe of the position in each cell: the sum holds both.
            canvas.cell(left + width * 0.62, top, width * 0.38, 0.14, "position", strength=0.9)
    canvas.label(right, y + 0.28, f"into the blocks\n(B, {total}, D)", ha="left")
    texts(y + 0.56 + 0.13, shown, 0)
    canvas.resize(y + 0.56 + 0.3)
    return canvas.figure


@style()
def sequence_order_diagram(
    grid: tuple[int, int] = (4, 4), patch: int | None = None, *, title: str | None = None
) -> Figure:
    """Where a patch's neighbours land in the sequence: left and right stay near, above and below
    move as far as the grid is wide.

    Args:
        grid: (rows, columns) of the patches, 2 to 8 rows and 2 to 7 columns.
        patch: the number of the patch; None takes one near the middle.
    """
    rows, cols = (int(side) for side in grid)
    if not (2 <= rows <= 8 and 2 <= cols <= 7):
        raise ValueError(
            f"grid is {rows} x {cols}, but the picture has room for 2 to 8 rows and 2 to 7 columns."
        )
    count = rows * cols
    middle = (rows // 2) * cols + cols // 2 - 1 if patch is None else int(patch)
    if not 0 <= middle < count:
        raise ValueError(f"patch is {patch}, but the patches are 0 to {count - 1}.")
    row, col = divmod(middle, cols)
    beside = [middle + step for step in (-1, 1) if 0 <= col + step < cols]
    above = [middle + step * cols for step in (-1, 1) if 0 <= row + step < rows]

    def paint(index: int) -> tuple[str, float]:
        if index == middle:
            return "attention", 0.75
        if index in beside:
            return "token", 0.8
        return ("image", 0.7) if index in above else ("head", 0.14)

    canvas = Canvas(WIDTH, 8.0, title)
    side = min(0.52, 2.6 / rows)
    left = (WIDTH - cols * side) / 2
    top = 0.34
    canvas.label(WIDTH / 2, 0.14, "in the image")
    for index in range(count):
        i, j = divmod(index, cols)
        role, strength = paint(index)
        canvas.cell(
            left + j * side, top + i * side, side, side, role, str(index), strength=strength
        )
    y = top + rows * side
    canvas.arrow((WIDTH / 2, y + 0.06), (WIDTH / 2, y + 0.34))
    # The sequence, or what of it lies around the patch.
    reach = cols + 1
    first, last = max(0, middle - reach), min(count - 1, middle + reach)
    if count <= 17:
        first, last = 0, count - 1
    shown = last - first + 1
    cell = min(0.4, (WIDTH - 0.5) / shown)
    left = (WIDTH - shown * cell) / 2
    canvas.label(WIDTH / 2, y + 0.48, "in the sequence")
    y += 1.5
    for index in range(first, last + 1):
        role, strength = paint(index)
        canvas.cell(
            left + (index - first) * cell, y, cell, 0.36, role, str(index), strength=strength
        )
    for edge, hidden, x in (
        (first, first > 0, left - 0.12),
        (last, last < count - 1, left + shown * cell + 0.12),
    ):
        if hidden and 0 <= edge < count:
            canvas.label(x, y + 0.18, "…")

    def place(index: int) -> float:
        return left + (index - first + 0.5) * cell

    for group, role, below in ((above, "image", False), (beside, "token", True)):
        for index in group:
            step = index - middle
            base = y + 0.38 if below else y - 0.02
            depth = 0.2 if below else 0.42
            canvas.arc(place(middle), place(index), base, depth if below else -depth, role)
            canvas.label(
                place(index) if below else (place(middle) + place(index)) / 2,
                base + 0.34 if below else base - depth - 0.13,
                f"{step:+d}".replace("-", "−"),
                bold=True,
            )
    y += 0.36 + 0.56
    for role, text in (
        ("attention", f"patch {middle}"),
        ("token", "its left and right neighbours"),
        ("image", "its upper and lower neighbours"),
    ):
        canvas.cell(0.7, y, 0.2, 0.2, role, strength=0.75)
        canvas.label(1.0, y + 0.1, text, ha="left")
        y += 0.28
    canvas.resize(y + 0.04)
    return canvas.figure


# --- training ---------------------------------------------------------------------------------


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


@style()
def receptive_field_diagram(
    field: int = 13, patch_size: int = 4, image: Any = None, *, title: str | None = None
) -> Figure:
    """What three neighbouring tokens see: linear patches touch, a convolutional stem's overlap.

    Args:
        field: the side in pixels of what a token of the stem sees, odd, P or more. It is centred
            on the first pixel of the token's patch, as halving by pooling makes it.
        patch_size: P, the pixels from one token to the next.
        image: (C, H, W) with sides that P divides; without it, a drawn picture of 32 pixels.
    """
    pixels = plots.as_pixels(motif(32) if image is None else image, "image")
    height, width = pixels.shape[:2]
    if patch_size < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"an image of {height} x {width} pixels does not divide into patches of {patch_size}: "
            "choose a patch_size that divides both."
        )
    if field < patch_size or field % 2 == 0:
        raise ValueError(f"field is {field}, but must be odd and at least {patch_size} pixels.")
    canvas = Canvas(WIDTH, 8.0, title)
    side, gap = 2.28, 0.12
    scale = side / width
    colours = (PALETTE["vermillion"], PALETTE["blue"], "#000000")
    rows, cols = height // patch_size, width // patch_size
    row, first = rows // 2, max(0, cols // 2 - 2)
    bottom = 0.34 + height * scale
    for left, name, size, before in (
        (0.06, "linear patches", patch_size, 0),
        (0.06 + side + gap, "convolutional stem", field, (field - 1) // 2),
    ):
        canvas.label(left + side / 2, 0.16, name, bold=True)
        canvas.image(left, 0.34, side, height * scale, 0.35 + 0.65 * pixels)
        canvas.outline(left, 0.34, side, height * scale)
        for k, colour in enumerate(colours[: cols - first]):
            corner = (first + k) * patch_size - before, row * patch_size - before
            start = [max(0, c) for c in corner]
            end = [min(n, c + size) for c, n in zip(corner, (width, height), strict=True)]
            canvas.axes.add_patch(
                Rectangle(
                    (left + start[0] * scale, 0.34 + start[1] * scale),
                    (end[0] - start[0]) * scale,
                    (end[1] - start[1]) * scale,
                    fill=False,
                    edgecolor=colour,
                    linewidth=2.4,
                    zorder=5,
                )
            )
        canvas.label(left + side / 2, bottom + 0.16, f"{size} x {size} pixels a token")
        shared = max(0, size - patch_size)
        canvas.label(
            left + side / 2,
            bottom + 0.38,
            f"neighbours share {shared} columns" if shared else "neighbours share nothing",
            colour=SHAPE_INK,
        )
    canvas.resize(bottom + 0.54)
    return canvas.figure


# --- the pages of the book --------------------------------------------------------------------


@style()
def comparison_diagram(*, title: str | None = None) -> Figure:
    """What one output sees, and with which weights: feed-forward, convolution, attention."""
    canvas = Canvas(WIDTH, 8.0, title)
    pixels = _example(None)
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
    pixels = _example(None)
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
    pixels = _example(image)
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
    "h": "A token's column split into equal parts.",
    "d": "A token's column split into equal parts, one of them spanned by a brace.",
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
        path.write_bytes(plots.to_png(picture.draw()))
        written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m vitcore.diagrams OUTDIR``."""
    parser = argparse.ArgumentParser(
        prog="python -m vitcore.diagrams", description="Draw the pictures of the book's pages."
    )
    parser.add_argument("outdir", help="the folder to write the PNG files to")
    for path in write_pictures(parser.parse_args(arguments).outdir):
        print(path)


if __name__ == "__main__":
    main()
