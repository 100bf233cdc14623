# SPDX-License-Identifier: MIT
"""Drawn diagrams of the model and its parts, in the book's one style; every chapter opens with one.

A colour means the same in all of them (``plots.ROLES``): orange the image and its patches, light
blue tokens, dark blue the class token, yellow positions, red attention, green the MLP, purple
norms, grey the head. ``python -m vitcore.diagrams OUTDIR`` writes those that pages of the book use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch, Rectangle

from . import plots
from .plots import PALETTE, ROLES, WIDTH, Picture, style, tint

__all__ = ["Box", "Canvas", "block_diagram", "model_diagram", "motif"]

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
            x, y, text, ha=ha, va=va, color=colour, fontweight="bold" if bold else "normal",
            linespacing=1.25, rotation=rotation, zorder=6,
            path_effects=plots.halo() if halo else None,
        )  # fmt: skip

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
                (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.07",
                facecolor=face, edgecolor=edge, linewidth=2.6 if strong else LINE, zorder=3,
            )
        )  # fmt: skip
        if text:
            self.label(
                x + width / 2, y + height / 2, text,
                colour=MUTED_INK if muted else INK, bold=strong,
            )  # fmt: skip
        return Box(x, y, width, height)

    def frame(self, x: float, y: float, width: float, height: float, *, muted: bool = False) -> Box:
        """A dashed frame around several boxes."""
        self.axes.add_patch(
            FancyBboxPatch(
                (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.1",
                facecolor="none", edgecolor=MUTED_EDGE if muted else "#555555",
                linewidth=LINE, linestyle=(0, (4, 2.5)), zorder=1,
            )
        )  # fmt: skip
        return Box(x, y, width, height)

    def line(self, *points: Point, colour: str = INK, width: float = LINE) -> None:
        """A line through the points."""
        self.axes.plot(
            [x for x, _ in points], [y for _, y in points], color=colour, linewidth=width,
            zorder=2, solid_capstyle="butt", solid_joinstyle="round",
        )  # fmt: skip

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
                points[-2], points[-1], arrowstyle="-|>,head_length=4,head_width=2.4",
                mutation_scale=1 + 0.12 * width, color=colour, linewidth=width, shrinkA=0,
                shrinkB=0, connectionstyle=f"arc3,rad={bend}", zorder=4, joinstyle="miter",
                capstyle="butt",
            )
        )  # fmt: skip

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
        self, x: float, y: float, width: float, height: float, role: str,
        text: str = "", *, strength: float = 0.75, bold_edge: bool = False,
    ) -> Box:  # fmt: skip
        """A small square-cornered cell, as of a vector or a grid."""
        self.axes.add_patch(
            Rectangle(
                (x, y), width, height, facecolor=tint(ROLES[role], strength),
                edgecolor=INK if bold_edge else "white",
                linewidth=2.2 if bold_edge else 0.8, zorder=4 if bold_edge else 3,
            )
        )  # fmt: skip
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
        depth = sign * size * (
            0.5 / (1 + np.exp(-60 * (half - 0.04))) + 0.5 / (1 + np.exp(-60 * (half - 0.46)))
        )  # fmt: skip
        middle = sign * (size + 0.05)
        if side in ("top", "bottom"):
            self.axes.plot(x + t * length, y + depth, color=INK, linewidth=1.2, zorder=4)
            va = "top" if side == "bottom" else "bottom"
            self.label(x + length / 2, y + middle, text, va=va)
        else:
            self.axes.plot(x + depth, y + t * length, color=INK, linewidth=1.2, zorder=4)
            ha = "left" if side == "right" else "right"
            self.label(x + middle, y + length / 2, text, ha=ha)

    def image(self, x: float, y: float, width: float, height: float, pixels: np.ndarray) -> Box:
        """An image (H, W, C) of floats in [0, 1]."""
        options: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1}
        self.axes.imshow(
            pixels[..., 0] if pixels.shape[-1] == 1 else pixels,
            extent=(x, x + width, y + height, y), zorder=3, aspect="auto",
            **(options if pixels.shape[-1] == 1 else {}),
        )  # fmt: skip
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


def _letters(config: Any) -> _Letters:
    if config is None:
        return _Letters(
            "(B, C, H, W)", "(B, N, C·P·P)", "(B, N, D)", "(B, 1+N, D)", "(B, D)", "(B, K)",
            "L", True, 0, "learned", "cls",
        )  # fmt: skip
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
        f"(B, {channels}, {height}, {width})", f"(B, {count}, {channels * patch * patch})",
        f"(B, {count}, {dim})", f"(B, {total}, {dim})", f"(B, {dim})",
        f"(B, {classes})" if classes else "", str(depth), class_token, registers, positions, pool,
    )  # fmt: skip


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
    extra = [
        *(["class token"] if text.class_token else []),
        *([f"{text.registers} registers"] if text.registers else []),
    ]
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
            pictures, top, count, size=(0.16, 0.2 if role == "position" else 0.44), gap=0.06,
            role=role, class_token=front > 0, parts=2 if role == "position" else 4,
            strength=0.25 if muted("embeddings") else 0.75,
        )  # fmt: skip

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
        front = part("put " + " and ".join(extra) + " in front", "class_token", "embeddings")
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
        canvas.box(here - 0.36, top, 0.72, high, "norm", "norm", muted=quiet,
                   strong=strong("blocks"))  # fmt: skip
        canvas.arrow((here + 0.36, centre), (here + 0.58, centre), colour=ink)
        canvas.box(here + 0.58, top, 1.02, high, kind, role, muted=muted(*parts),
                   strong=strong(*parts))  # fmt: skip
        canvas.arrow((here + 1.6, centre), (there - 0.13, centre), colour=ink)
        canvas.sum(there, centre, muted=quiet)
        row = top + high + 0.12
        canvas.line((there, centre + 0.13), (there, row), colour=ink)
    canvas.line((there, row), (middle, row), (middle, y + frame_height), colour=ink)
    canvas.label(
        pictures, y + frame_height / 2, f"{text.depth} blocks,\none after\nanother", ha="left",
        colour=MUTED_INK if muted("blocks", "attention") else INK, bold=strong("blocks"),
    )  # fmt: skip
    y += frame_height

    step(text.tokens, "blocks", "attention", "head")
    part("norm", "norm", "head")
    y += 0.1
    if text.pool == "cls":
        part("take the class token", "class_token", "head")
    else:
        part("mean of the patch tokens", "token", "head")
    step(text.pooled, "head")
    if text.logits:
        box = part("linear head", "head", "head")
        for i, value in enumerate((0.12, 0.3, 0.9, 0.2, 0.1)):
            strength = 0.45 if value < 0.5 else 1.0
            canvas.cell(
                pictures + i * 0.22, box.y + high - 0.8 * value, 0.16, 0.8 * value, "head",
                strength=strength * (0.4 if muted("head") else 1.0),
            )  # fmt: skip
        ink = MUTED_INK if muted("head") else INK
        canvas.line((pictures - 0.04, box.y + high), (pictures + 1.08, box.y + high), colour=ink)
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
                canvas.label(left + width + 0.1, box.centre[1], "D → 4D\n→ D", ha="left",
                             colour=SHAPE_INK)  # fmt: skip
            if label == "attention":
                canvas.label(left + width + 0.1, box.centre[1], "tokens\nmix here", ha="left",
                             colour=SHAPE_INK)  # fmt: skip
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
