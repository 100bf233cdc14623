# SPDX-License-Identifier: MIT
"""Moves, crops and erases whole batches of images, each image by its own draw (chapters 6 and 7).

Each operation is a function of the batch and of one parameter an image, the same as torchvision's
for one image; the drawing of parameters stands apart from it.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import check_number, check_whole
from ._inputs import check_affine, check_pictures, check_range, check_share


def column(values: Tensor) -> Tensor:
    """One number an image (B,), to be broadcast over images (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def host_generator(
    generator: torch.Generator | None, device: torch.device
) -> torch.Generator | None:
    """A generator on the CPU that follows from one on ``device`` and moves it on.

    What decides how many images take which way has to be known on the CPU, and reading it back
    from a GPU would make the loop wait for all work before it.
    """
    if generator is None or device.type == "cpu":
        return generator
    if device.type == "cuda":
        seed = (generator.initial_seed() + 0x9E3779B97F4A7C15 * generator.get_offset()) % 2**63
        torch.rand(1, generator=generator, device=device)
    else:
        seed = int(torch.randint(2**31, (1,), generator=generator, device=device).item())
    return torch.Generator().manual_seed(seed)


def sample(images: Tensor, theta: Tensor, fill: float) -> Tensor:
    """Read images at the places that theta (B, 2, 3) gives for each pixel; axes from -1 to 1."""
    theta = theta.to(images.dtype)
    # What F.affine_grid gives, without its matrix product an image, which takes longer than the
    # reading: the place of a pixel is a part that its column decides plus one that its row does.
    rows, cols = (
        (torch.arange(size, device=images.device, dtype=images.dtype) * 2 + 1) / size - 1
        for size in images.shape[-2:]
    )
    across = theta[:, :, 0:1] * cols  # (B, 2, W)
    down = theta[:, :, 1:2] * rows + theta[:, :, 2:3]  # (B, 2, H)
    grid = (across[:, :, None, :] + down[:, :, :, None]).permute(0, 2, 3, 1)  # (B, H, W, 2)
    # grid_sample pads with zeros: shifting the values by fill makes that zero mean fill.
    moved = images - fill if fill else images
    moved = F.grid_sample(moved, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return moved + fill if fill else moved


def affine(
    images: Tensor, angle: Tensor, shift: Tensor, scale: Tensor, *, fill: float = 0.0
) -> Tensor:
    """Rotate, scale and shift each image by its own amounts, about its centre, bilinearly.

    images (B, C, H, W) floating point; angle (B,) in degrees, clockwise; shift (B, 2) in pixels,
    (right, down); scale (B,), above 1 enlarges. Pixels from outside the image take ``fill``.
    The conventions are those of torchvision's ``functional.affine``.
    """
    check_pictures(images, angle=angle, shift=shift, scale=scale)
    fill = check_number("fill", fill)
    height, width = images.shape[-2:]
    radians = angle * (math.pi / 180)
    cos, sin = torch.cos(radians) / scale, torch.sin(radians) / scale
    # Output pixel p shows input pixel R⁻¹(p - shift) / scale. affine_grid counts both axes from
    # -1 to 1, so each entry that crosses from one axis to the other carries the ratio of the two.
    dx, dy = shift[:, 0] * (2 / width), shift[:, 1] * (2 / height)
    across, down = sin * (height / width), sin * (width / height)
    theta = torch.stack(
        [cos, across, -(cos * dx + across * dy), -down, cos, down * dx - cos * dy], dim=1
    ).view(-1, 2, 3)
    return sample(images, theta, fill)


def random_affine(
    images: Tensor,
    *,
    degrees: float = 0.0,
    translate: float = 0.0,
    scale: float = 0.0,
    fill: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rotate, scale and shift each image (B, C, H, W) by its own random amounts.

    The angle is uniform in ±degrees, the shift along each axis in ±translate pixels, the factor in
    1 ± scale. ``generator`` lives on the images' device. Where all three are zero the images come
    back as they are.

    Raises TypeError for images that are not floating point, ValueError for another rank or amounts
    out of range.
    """
    check_pictures(images, generator)
    degrees, translate, scale = check_affine(degrees, translate, scale)
    fill = check_number("fill", fill)
    if not (degrees or translate or scale) or not len(images):
        return images
    # Always four draws an image, so that switching one kind off leaves the others as they were.
    draw = torch.rand((len(images), 4), generator=generator, device=images.device) * 2 - 1
    return affine(
        images, draw[:, 0] * degrees, draw[:, 1:3] * translate, 1 + draw[:, 3] * scale, fill=fill
    )


def hflip(images: Tensor, which: Tensor) -> Tensor:
    """Swap left and right in the images (B, C, H, W) for which ``which`` (B,) is true."""
    check_pictures(images, which=which)
    return torch.where(column(which).bool(), images.flip(-1), images)


def crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int, fill: float = 0.0) -> Tensor:
    """Pad each image (B, C, H, W) by ``padding`` pixels of ``fill``, cut its size out again.

    top, left (B,): where the cut begins, from 0 to twice the padding, to which they are clamped;
    the padding itself is the middle, which leaves the image as it is.
    """
    check_pictures(images, top=top, left=left)
    padding = check_whole("padding", padding)
    fill = check_number("fill", fill)
    count, channels, height, width = images.shape
    if not count:
        return images
    padded = F.pad(images, [padding] * 4, value=fill).contiguous()
    rows, cols = padded.shape[-2:]
    # Every stretch of a row's length that lies in memory, by its start, as a view: what is copied
    # is whole rows, not single pixels.
    stretches = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    planes = torch.arange(count * channels, device=images.device).view(count, channels, 1)
    lines = torch.arange(height, device=images.device)
    top, left = (start.long().clamp(0, 2 * padding) for start in (top, left))
    corner = (top * cols + left).view(-1, 1, 1)
    starts = planes * (rows * cols) + corner + lines * cols  # (B, C, H)
    return stretches.index_select(0, starts.flatten()).view(images.shape)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Cut a box out of each image (B, C, H, W) and enlarge it to the image's size, bilinearly.

    top, left, height, width (B,) in whole pixels. What lies outside the box is never seen, as if
    it had been cut out first.
    """
    check_pictures(images, top=top, left=left, height=height, width=width)
    rows, cols = images.shape[-2:]

    def places(size: int, start: Tensor, extent: Tensor) -> Tensor:
        """(B, size) in [-1, 1]: where the pixel centres of one axis are read."""
        start, extent = (values.to(images.dtype).view(-1, 1) for values in (start, extent))
        steps = torch.arange(size, device=images.device, dtype=images.dtype) + 0.5
        inside = torch.minimum((steps * extent / size - 0.5).clamp(min=0), extent - 1)
        return (2 * (inside + start) + 1) / size - 1

    down, across = places(rows, top, height), places(cols, left, width)
    grid = torch.stack(torch.broadcast_tensors(across[:, None, :], down[:, :, None]), dim=-1)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def erase(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, *, value: float = 0.0
) -> Tensor:
    """Set a box of each image (B, C, H, W) to ``value``; top, left, height, width (B,) in pixels.

    A box without height or width erases nothing. Source: Zhong et al. (2020), random erasing.
    """
    check_pictures(images, top=top, left=left, height=height, width=width)
    value = check_number("value", value)
    return images.masked_fill(inside_box(images, top, left, top + height, left + width), value)


def inside_box(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Mark (B, 1, H, W) the pixels of one box an image."""
    rows = torch.arange(images.shape[-2], device=images.device).view(1, 1, -1, 1)
    cols = torch.arange(images.shape[-1], device=images.device).view(1, 1, 1, -1)
    down = (rows >= column(top)) & (rows < column(bottom))
    across = (cols >= column(left)) & (cols < column(right))
    return down & across


_TRIES = 10  # as torchvision: boxes are drawn until one lies within the image, at most so often


def _draw_boxes(
    images: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator | None,
    *,
    slack: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a box an image: (top, left, height, width, whether any try fitted), all (B,).

    Its share of the area is uniform in ``scale``, the logarithm of height by width uniform in that
    of ``ratio``. slack: how many pixels a side must stay below the image's; with 1, it may be 0.
    """
    count, _, rows, cols = images.shape
    draw = torch.rand((count, 2 * _TRIES + 2), generator=generator, device=images.device)
    area = rows * cols * (scale[0] + (scale[1] - scale[0]) * draw[:, :_TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * draw[:, _TRIES : 2 * _TRIES])
    heights = torch.round(torch.sqrt(area * shape)).clamp(min=1 - slack)
    widths = torch.round(torch.sqrt(area / shape)).clamp(min=1 - slack)
    fits = (heights <= rows - slack) & (widths <= cols - slack)  # (B, tries)
    first = fits.int().argmax(dim=1, keepdim=True)
    height, width = (sides.gather(1, first).squeeze(1) for sides in (heights, widths))
    top = torch.floor(draw[:, -2] * (rows - height + 1)).clamp(min=0)
    left = torch.floor(draw[:, -1] * (cols - width + 1)).clamp(min=0)
    return top, left, height, width, fits.any(dim=1)


def random_resized_crop(
    images: Tensor,
    *,
    scale: tuple[float, float] = (0.8, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut a random box out of each image (B, C, H, W) and enlarge it to the image's size.

    scale: the range of the box's share of the area; ImageNet's usual 0.08 leaves too little of an
    image of 32 pixels. ratio: the range of width by height, as torchvision has it. Where ten tries
    give no box within the image, it stays whole.

    Source: Szegedy et al. (2015), section 6.
    """
    check_pictures(images, generator)
    scale, (low, high) = check_range("scale", scale, 0, 1), check_range("ratio", ratio, 1e-3, 1e3)
    inverse = (1 / high, 1 / low)  # height by width
    *box, found = _draw_boxes(images, scale, inverse, generator, slack=0)
    sides = zip(box, (0, 0, *images.shape[-2:]), strict=True)
    return resized_crop(images, *(torch.where(found, side, whole) for side, whole in sides))


def random_erasing(
    images: Tensor,
    *,
    probability: float = 0.25,
    scale: tuple[float, float] = (0.02, 0.33),
    ratio: tuple[float, float] = (0.3, 3.3),
    value: float = 0.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Set a random box of each image (B, C, H, W) to ``value``, with the given probability.

    scale: the range of its share of the area; ratio: that of height by width.
    Source: Zhong et al. (2020), algorithm 1, with torchvision's ranges.
    """
    check_pictures(images, generator)
    check_share("probability", probability)
    scale, ratio = check_range("scale", scale, 0, 1), check_range("ratio", ratio, 1e-3, 1e3)
    chosen = torch.rand(len(images), generator=generator, device=images.device) < probability
    top, left, height, width, found = _draw_boxes(images, scale, ratio, generator, slack=1)
    return erase(images, top, left, height * (chosen & found), width, value=value)
