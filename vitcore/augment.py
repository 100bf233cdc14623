# SPDX-License-Identifier: MIT
"""Random changes to whole batches of images on their device, as chapters 6 and 7 use them.

An augmentation is a callable ``(images, generator) -> images``. It takes and gives floating point
images (B, C, H, W) in [0, 1], before normalisation, and draws anew for every image: one draw for
a whole batch would move all its images alike, which teaches the model less.

Mixing is a callable ``(images, labels, generator) -> (images, targets)``: it blends every image
with another of its batch, and the targets (B, K) say how much of each class is in it.

Each operation is a function of the batch and of one parameter an image, the same as torchvision's
for one image; the drawing of parameters stands apart from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator | None], Tensor]
Mix = Callable[[Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


def _check_images(name: str, images: Tensor) -> None:
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        given = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"{name} takes floating point images, given {given}: divide uint8 images by 255"
        )
    if images.ndim != 4:
        raise ValueError(f"{name} takes images (B, C, H, W), given the shape {tuple(images.shape)}")


def _column(values: Tensor) -> Tensor:
    """One number an image (B,), to be broadcast over images (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)


def _host_generator(
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


# --- geometry --------------------------------------------------------------------------------


def _sample(images: Tensor, theta: Tensor, fill: float) -> Tensor:
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
    return _sample(images, theta, fill)


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

    Raises TypeError for images that are not floating point, ValueError for another rank than four
    and for amounts out of range.
    """
    _check_images("random_affine", images)
    _check_affine(degrees, translate, scale)
    if not (degrees or translate or scale) or not len(images):
        return images
    # Always four draws an image, so that switching one kind off leaves the others as they were.
    draw = torch.rand((len(images), 4), generator=generator, device=images.device) * 2 - 1
    return affine(
        images, draw[:, 0] * degrees, draw[:, 1:3] * translate, 1 + draw[:, 3] * scale, fill=fill
    )


def _check_affine(degrees: float, translate: float, scale: float) -> None:
    amounts = {"degrees": degrees, "translate": translate, "scale": scale}
    for name, value in amounts.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise TypeError(
                f"{name} is a number, given {value!r} ({type(value).__name__}): "
                "the draw goes from minus to plus this number"
            )
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name} must be zero or more, given {value}: give its largest amount")
    if scale >= 1:
        raise ValueError(
            f"scale is a fraction below 1, given {scale}: 0.1 draws factors from 0.9 to 1.1"
        )


def digits(
    *, degrees: float = 10.0, translate: float = 2.0, scale: float = 0.1, fill: float = 0.0
) -> Augment:
    """Small rotations, shifts and scales, which leave a digit the digit that it was."""
    _check_affine(degrees, translate, scale)

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return random_affine(
            images,
            degrees=degrees,
            translate=translate,
            scale=scale,
            fill=fill,
            generator=generator,
        )

    return augment


def hflip(images: Tensor, which: Tensor) -> Tensor:
    """Swap left and right in the images (B, C, H, W) for which ``which`` (B,) is true."""
    return torch.where(_column(which), images.flip(-1), images)


def crop(images: Tensor, top: Tensor, left: Tensor, *, padding: int, fill: float = 0.0) -> Tensor:
    """Pad each image (B, C, H, W) by ``padding`` pixels of ``fill``, cut its size out again.

    top, left (B,): where the cut begins, from 0 to twice the padding; the padding itself is the
    middle, which leaves the image as it is.
    """
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
    corner = (top.long() * cols + left.long()).view(-1, 1, 1)
    starts = planes * (rows * cols) + corner + lines * cols  # (B, C, H)
    return stretches.index_select(0, starts.flatten()).view(images.shape)


def resized_crop(
    images: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor
) -> Tensor:
    """Cut a box out of each image (B, C, H, W) and enlarge it to the image's size, bilinearly.

    top, left, height, width (B,) in whole pixels. What lies outside the box is never seen, as if
    it had been cut out first.
    """
    rows, cols = images.shape[-2:]

    def places(size: int, start: Tensor, extent: Tensor) -> Tensor:
        """(B, size) in [-1, 1]: where the pixel centres of one axis are read."""
        steps = torch.arange(size, device=images.device, dtype=images.dtype) + 0.5
        inside = steps * extent.to(images.dtype).view(-1, 1) / size - 0.5
        inside = torch.minimum(inside.clamp(min=0), extent.to(images.dtype).view(-1, 1) - 1)
        return (2 * (inside + start.to(images.dtype).view(-1, 1)) + 1) / size - 1

    down, across = places(rows, top, height), places(cols, left, width)
    grid = torch.stack(
        [across[:, None, :].expand(-1, rows, -1), down[:, :, None].expand(-1, -1, cols)], dim=-1
    )
    return F.grid_sample(images, grid, mode="bilinear", align_corners=False)


def erase(
    images: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    *,
    value: float = 0.0,
) -> Tensor:
    """Set a box of each image (B, C, H, W) to ``value``; top, left, height, width (B,) in pixels.

    A box without height or width erases nothing. Source: Zhong et al. (2020), random erasing.
    """
    return images.masked_fill(_box(images, top, left, top + height, left + width), value)


def _box(images: Tensor, top: Tensor, left: Tensor, bottom: Tensor, right: Tensor) -> Tensor:
    """Mark (B, 1, H, W) the pixels of one box an image."""
    rows = torch.arange(images.shape[-2], device=images.device).view(1, 1, -1, 1)
    cols = torch.arange(images.shape[-1], device=images.device).view(1, 1, 1, -1)
    down = (rows >= _column(top)) & (rows < _column(bottom))
    across = (cols >= _column(left)) & (cols < _column(right))
    return down & across


_TRIES = 10  # as torchvision: boxes are drawn until one lies within the image, at most so often


def _draw_boxes(
    images: Tensor,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator | None,
    *,
    inside: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Draw a box an image: (top, left, height, width, whether any try fitted), all (B,).

    Its share of the area is uniform in ``scale``, the logarithm of height by width (of the inverse
    ratio too, being symmetric) uniform in that of ``ratio``. ``inside``: a side of the box must be
    smaller than the image's, not only fit.
    """
    count, _, rows, cols = images.shape
    draw = torch.rand((count, 2 * _TRIES + 2), generator=generator, device=images.device)
    area = rows * cols * (scale[0] + (scale[1] - scale[0]) * draw[:, :_TRIES])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * draw[:, _TRIES : 2 * _TRIES])
    heights = torch.round(torch.sqrt(area * shape)).clamp(min=0 if inside else 1)
    widths = torch.round(torch.sqrt(area / shape)).clamp(min=0 if inside else 1)
    slack = 1 if inside else 0
    fits = (heights <= rows - slack) & (widths <= cols - slack)  # (B, tries)
    first = fits.int().argmax(dim=1, keepdim=True)
    height = heights.gather(1, first).squeeze(1)
    width = widths.gather(1, first).squeeze(1)
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
    image of 32 pixels. Where ten tries give no box within the image, it stays whole.

    Source: Szegedy et al. (2015), section 6.
    """
    _check_images("random_resized_crop", images)
    top, left, height, width, found = _draw_boxes(images, scale, ratio, generator, inside=False)
    whole = torch.zeros_like(top)
    return resized_crop(
        images,
        torch.where(found, top, whole),
        torch.where(found, left, whole),
        torch.where(found, height, whole + images.shape[-2]),
        torch.where(found, width, whole + images.shape[-1]),
    )


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

    Source: Zhong et al. (2020), algorithm 1, with torchvision's ranges.
    """
    _check_images("random_erasing", images)
    chosen = torch.rand(len(images), generator=generator, device=images.device) < probability
    top, left, height, width, found = _draw_boxes(images, scale, ratio, generator, inside=True)
    return erase(images, top, left, height * (chosen & found), width, value=value)


# --- TrivialAugment --------------------------------------------------------------------------


def _grey(images: Tensor) -> Tensor:
    """(B, 1, H, W) the luma of colour images; the images themselves where they have no colour."""
    if images.shape[1] != 3:
        return images
    weights = images.new_tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    return (images * weights).sum(dim=1, keepdim=True)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    """other + factor (images - other), kept within [0, 1]; factor (B,)."""
    return torch.lerp(other.expand_as(images), images, _column(factor)).clamp(0, 1)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Multiply each image (B, C, H, W) by its factor (B,)."""
    return (images * _column(factor)).clamp(0, 1)


def colour(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its grey self: 0 is grey, 1 the image, 2 twice as colourful."""
    return _blend(images, _grey(images), factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with the mean of its grey self: 0 is flat, 1 the image."""
    return _blend(images, _grey(images).mean(dim=(1, 2, 3), keepdim=True), factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Blend each image with its blurred self: 0 is blurred, 1 the image; the rim stays."""
    if min(images.shape[-2:]) <= 2:
        return images
    channels = images.shape[1]
    kernel = images.new_ones(3, 3)
    kernel[1, 1] = 5
    kernel = (kernel / kernel.sum()).expand(channels, 1, 3, 3)
    blurred = images.clone()
    blurred[:, :, 1:-1, 1:-1] = F.conv2d(images, kernel, groups=channels)
    return _blend(images, blurred, factor)


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Leave 2 ** bits levels of each channel; bits (B,)."""
    levels = _column(torch.exp2(bits.to(images.dtype)))
    return torch.minimum((images * levels).floor(), levels - 1) / levels


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Invert the values at and above the threshold (B,)."""
    return torch.where(images >= _column(threshold), 1 - images, images)


def autocontrast(images: Tensor) -> Tensor:
    """Stretch every channel of each image so that it reaches from 0 to 1."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    flat = low == high
    return (images - low.masked_fill(flat, 0)) / (high - low).masked_fill(flat, 1)


def equalize(images: Tensor) -> Tensor:
    """Spread the values of every channel evenly over 256 levels, as Pillow does."""
    count, channels, rows, cols = images.shape
    # The largest number below 256 makes 1.0 the last level and nothing more.
    levels = (images * (256 - 1e-3)).long().flatten(2)  # (B, C, H·W)
    counts = levels.new_zeros(count, channels, 256)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    below = counts.cumsum(dim=2) - counts  # how many values are smaller than each level
    step = (rows * cols - counts.gather(2, levels.amax(dim=2, keepdim=True))) // 255
    table = ((below + step // 2) // step.clamp(min=1)).clamp(max=255).to(images.dtype) / 255
    spread = table.gather(2, levels).view_as(images)
    return torch.where((step == 0)[..., None], images, spread)


# Each with the largest amount and whether its sign is drawn; 31 amounts from nothing to it.
# TrivialAugment's wide space (Müller and Hutter, 2021, table 5), in torchvision's order.
TRIVIAL: dict[str, tuple[float, bool]] = {
    "identity": (0.0, False),
    "shear_x": (0.99, True),
    "shear_y": (0.99, True),
    "translate_x": (32.0, True),
    "translate_y": (32.0, True),
    "rotate": (135.0, True),
    "brightness": (0.99, True),
    "colour": (0.99, True),
    "contrast": (0.99, True),
    "sharpness": (0.99, True),
    "posterize": (6.0, False),
    "solarize": (1.0, False),
    "autocontrast": (0.0, False),
    "equalize": (0.0, False),
}
_TRIVIAL_BINS = 31


def trivial_operation(name: str, images: Tensor, amount: Tensor, fill: float = 0.0) -> Tensor:
    """Apply one operation of ``TRIVIAL`` to images (B, C, H, W), by an amount for each (B,).

    Shears are slopes about the upper left corner, translations whole pixels, rotations degrees
    counter-clockwise; the four enhancements blend with the factor 1 + amount; posterize takes
    ``amount`` bits away from 8, solarize lowers its threshold from 1 by the amount.
    """
    if name in _ENHANCE:
        return _ENHANCE[name](images, 1 + amount)
    if name == "identity":
        return images
    if name == "posterize":
        return posterize(images, 8 - amount.round())
    if name == "solarize":
        return solarize(images, 1 - amount)
    if name == "autocontrast":
        return autocontrast(images)
    if name == "equalize":
        return equalize(images)
    rows, cols = images.shape[-2:]
    zero, one = torch.zeros_like(amount), torch.ones_like(amount)
    if name == "rotate":
        return affine(images, -amount, torch.stack([zero, zero], dim=1), one, fill=fill)
    # One pixel in numbers that count the axis from -1 to 1; see affine.
    entries = {
        "shear_x": [one, amount * rows / cols, amount * rows / cols, zero, one, zero],
        "shear_y": [one, zero, zero, amount * cols / rows, one, amount * cols / rows],
        "translate_x": [one, zero, -amount.trunc() * 2 / cols, zero, one, zero],
        "translate_y": [one, zero, zero, zero, one, -amount.trunc() * 2 / rows],
    }
    return _sample(images, torch.stack(entries[name], dim=1).view(-1, 2, 3), fill)


_ENHANCE: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
}


def trivial_augment(
    images: Tensor, *, fill: float = 0.0, generator: torch.Generator | None = None
) -> Tensor:
    """Change each image (B, C, H, W) by one random operation of a random amount.

    Source: Müller and Hutter (2021), TrivialAugment, algorithm 1 with the wide space. Images are
    moved with bilinear interpolation.
    """
    _check_images("trivial_augment", images)
    host = _host_generator(generator, images.device)
    chosen = torch.randint(len(TRIVIAL), (len(images),), generator=host)
    draw = torch.rand((len(images), 2), generator=generator, device=images.device)
    strength = torch.floor(draw[:, 0] * _TRIVIAL_BINS) / (_TRIVIAL_BINS - 1)
    sign = torch.where(draw[:, 1] < 0.5, -1.0, 1.0)
    changed = images.clone()
    for number, (name, (largest, signed)) in enumerate(TRIVIAL.items()):
        mine = (chosen == number).nonzero().squeeze(1)
        if name == "identity" or not len(mine):
            continue
        mine = mine.to(images.device, non_blocking=True)
        amount = strength[mine] * largest
        amount = amount * sign[mine] if signed else amount
        changed[mine] = trivial_operation(name, images[mine], amount.to(images.dtype), fill)
    return changed


# --- mixing images and labels ----------------------------------------------------------------


def _check_share(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} is a number from 0 to 1, given {value!r}")
    if not 0 <= value <= 1:
        raise ValueError(f"{name} lies between 0 and 1, given {value}")


def _soft(labels: Tensor, num_classes: int, like: Tensor) -> Tensor:
    """Class numbers (B,) as distributions (B, K); soft labels stay."""
    if labels.ndim == 2:
        return labels.to(like.dtype)
    return F.one_hot(labels, num_classes).to(like.dtype)


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image (B, C, H, W) with the one before it, and their targets (B, K) alike.

    share (B,): how much is the image's own. The batch is shuffled already, so the one before is a
    random other image. Source: Zhang et al. (2018), equation 1.
    """
    mixed = torch.lerp(images.roll(1, 0), images, _column(share))
    return mixed, torch.lerp(targets.roll(1, 0), targets, share.view(-1, 1))


def cutmix(images: Tensor, targets: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box of the image before it into each image (B, C, H, W), and share the targets.

    box (B, 4): top, left, bottom, right in pixels, the last two outside the box. The targets
    (B, K) are shared by area. Source: Yun et al. (2019), equation 1.
    """
    rows, cols = images.shape[-2:]
    top, left, bottom, right = box.unbind(dim=1)
    mixed = torch.where(_box(images, top, left, bottom, right), images.roll(1, 0), images)
    share = 1 - ((bottom - top) * (right - left)).to(targets.dtype) / (rows * cols)
    return mixed, torch.lerp(targets.roll(1, 0), targets, share.view(-1, 1))


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> Tensor:
    """(count,) draws from Beta(alpha, alpha), on the CPU."""
    gammas = torch._standard_gamma(torch.full((2, count), alpha), generator=generator)
    return gammas[0] / gammas.sum(dim=0).clamp(min=torch.finfo(gammas.dtype).tiny)


def mixup_cutmix(
    *,
    num_classes: int,
    mixup_alpha: float = 0.8,
    cutmix_alpha: float = 1.0,
    probability: float = 1.0,
    cutmix_share: float = 0.5,
) -> Mix:
    """Mix every image with another of its batch, by mixup or by CutMix, drawn image by image.

    probability: of an image to be mixed at all. cutmix_share: the share of CutMix among the mixed.
    The share of each image is drawn from Beta(alpha, alpha); DeiT's alphas (Touvron et al., 2021,
    table 9) are the default.
    """
    if isinstance(num_classes, bool) or not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(f"num_classes is a whole number of at least 2, given {num_classes!r}")
    for name, alpha in (("mixup_alpha", mixup_alpha), ("cutmix_alpha", cutmix_alpha)):
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
            raise ValueError(f"{name} is a number above zero, given {alpha!r}")
    _check_share("probability", probability)
    _check_share("cutmix_share", cutmix_share)

    def mix(
        images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        _check_images("mixup_cutmix", images)
        count, device = len(images), images.device
        rows, cols = images.shape[-2:]
        targets = _soft(labels, num_classes, images)
        # On the CPU: the gamma distribution is not drawn on every device.
        host = _host_generator(generator, device)
        draw = torch.rand((4, count), generator=host)
        mixed, cut = draw[0] < probability, draw[1] < cutmix_share
        blended, pasted = (_beta(a, count, host) for a in (mixup_alpha, cutmix_alpha))
        share = torch.where(mixed & ~cut, blended, torch.ones(()))
        # The box of CutMix's equation 2, clipped at the rim; where nothing is cut it is empty.
        side = 0.5 * torch.sqrt(1 - pasted) * (mixed & cut)
        box = torch.empty(count, 4, dtype=torch.long)
        for axis, size in ((0, rows), (1, cols)):
            centre, half = (draw[2 + axis] * size).long(), (side * size).long()
            box[:, axis] = (centre - half).clamp(min=0)
            box[:, 2 + axis] = (centre + half).clamp(max=size)
        by_mixup = mixup(images, targets, share.to(device, images.dtype))
        by_cutmix = cutmix(images, targets, box.to(device))
        cut = cut.to(device)
        return (
            torch.where(_column(cut), by_cutmix[0], by_mixup[0]),
            torch.where(cut.view(-1, 1), by_cutmix[1], by_mixup[1]),
        )

    return mix


# --- by name ---------------------------------------------------------------------------------


def cifar(
    *,
    flip: bool = True,
    padding: int = 4,
    min_scale: float = 1.0,
    trivial: bool = False,
    erasing: float = 0.0,
    fill: float = 0.0,
) -> Augment:
    """What photographs of 32 pixels bear: each option is one operation, 0 or False leaves it out.

    flip: left and right swapped in half of the images. padding: pixels around the image from which
    a crop of its size is cut. min_scale: the smallest share of the area of a random resized crop;
    1 for none. trivial: one operation of TrivialAugment. erasing: the probability of random
    erasing. fill: the value of what is not image, in [0, 1].
    """
    for name, switch in (("flip", flip), ("trivial", trivial)):
        if not isinstance(switch, bool):
            raise TypeError(f"{name} is True or False, given {switch!r}")
    if isinstance(padding, bool) or not isinstance(padding, int) or padding < 0:
        raise ValueError(f"padding is a whole number of pixels, zero or more, given {padding!r}")
    for name, share in (("min_scale", min_scale), ("erasing", erasing), ("fill", fill)):
        _check_share(name, share)
    if not min_scale:
        raise ValueError("min_scale is a share of the area above 0, such as 0.8, given 0")

    def augment(images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        _check_images("cifar", images)
        count, device = len(images), images.device
        if min_scale < 1:
            images = random_resized_crop(images, scale=(min_scale, 1.0), generator=generator)
        if padding:
            size = (2, count)
            corner = torch.randint(2 * padding + 1, size, generator=generator, device=device)
            images = crop(images, corner[0], corner[1], padding=padding, fill=fill)
        if flip:
            images = hflip(images, torch.rand(count, generator=generator, device=device) < 0.5)
        if trivial:
            images = trivial_augment(images, fill=fill, generator=generator)
        if erasing:
            images = random_erasing(images, probability=erasing, value=fill, generator=generator)
        return images

    return augment


AUGMENTS: dict[str, Callable[..., Augment]] = {"digits": digits, "cifar": cifar}
MIXES: dict[str, Callable[..., Mix]] = {"mixup_cutmix": mixup_cutmix}


def build_augment(name: str | None, **options: Any) -> Augment | None:
    """Return the augmentation of that name with these options, or None for None.

    Raises ValueError for an unknown name, TypeError for an option that it does not have.
    """
    if name is None:
        if options:
            raise TypeError(
                f"no augmentation was named, yet options were given: {sorted(options)}; "
                f"name one of {sorted(AUGMENTS)}"
            )
        return None
    if name not in AUGMENTS:
        raise ValueError(f"there is no augmentation {name!r}: use one of {sorted(AUGMENTS)}")
    try:
        return AUGMENTS[name](**options)
    except TypeError as error:
        raise TypeError(f"the augmentation {name!r} was given wrong options: {error}") from None


def build_mix(name: str | None, *, num_classes: int, **options: Any) -> Mix | None:
    """Return the mixing of that name for ``num_classes`` classes, or None for None.

    Raises ValueError for an unknown name, TypeError for an option that it does not have.
    """
    if name is None:
        if options:
            raise TypeError(
                f"no mixing was named, yet options were given: {sorted(options)}; "
                f"name one of {sorted(MIXES)}"
            )
        return None
    if name not in MIXES:
        raise ValueError(f"there is no mixing {name!r}: use one of {sorted(MIXES)}")
    try:
        return MIXES[name](num_classes=num_classes, **options)
    except TypeError as error:
        raise TypeError(f"the mixing {name!r} was given wrong options: {error}") from None
