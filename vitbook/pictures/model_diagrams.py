# SPDX-License-Identifier: MIT
"""Diagrams of the whole model and of one block; chapters 4 and 5 open with them."""

from __future__ import annotations

from typing import Any, NamedTuple

from matplotlib.figure import Figure

from .canvas import INK, MUTED_INK, SHAPE_INK, Box, Canvas
from .example import example_pixels
from .look import WIDTH, style

HIGHLIGHTS = ("patches", "embeddings", "attention", "blocks", "head")


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

    pixels = example_pixels(None)
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
