# SPDX-License-Identifier: MIT
"""Diagrams of how an image becomes tokens: cut, embedding, order, what a token sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from .canvas import SHAPE_INK, Canvas
from .example import motif
from .frames import as_pixels, cut
from .look import PALETTE, WIDTH, style


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
    pixels = as_pixels(motif(32) if image is None else image, "image")
    if patch_size is None:
        if image is not None:
            raise ValueError("patch_size is missing: say how many pixels a patch's side has.")
        patch_size = 8
    patches, (rows, cols) = cut(pixels, patch_size)
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
    pixels = as_pixels(motif(32) if image is None else image, "image")
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
