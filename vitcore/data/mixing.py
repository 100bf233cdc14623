# SPDX-License-Identifier: MIT
"""Mixup and CutMix: each image blended with another of its batch, and their labels (chapter 7).

Mixing is a callable ``(images, labels, generator) -> (images, targets)``; the targets (B, K) say
how much of each class is in an image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..patches import check_images
from .geometry import column, host_generator, inside_box

Mix = Callable[[Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


def check_share(name: str, value: float) -> None:
    """Raise one clear sentence unless ``value`` is a number from 0 to 1."""
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
    mixed = torch.lerp(images.roll(1, 0), images, column(share))
    return mixed, torch.lerp(targets.roll(1, 0), targets, share.view(-1, 1))


def cutmix(images: Tensor, targets: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box of the image before it into each image (B, C, H, W), and share the targets.

    box (B, 4): top, left, bottom, right in pixels, the last two outside the box. The targets
    (B, K) are shared by area. Source: Yun et al. (2019), equation 1.
    """
    rows, cols = images.shape[-2:]
    top, left, bottom, right = box.unbind(dim=1)
    mixed = torch.where(inside_box(images, top, left, bottom, right), images.roll(1, 0), images)
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
    check_share("probability", probability)
    check_share("cutmix_share", cutmix_share)

    def mix(
        images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_images(images)
        count, device = len(images), images.device
        rows, cols = images.shape[-2:]
        targets = _soft(labels, num_classes, images)
        # On the CPU: the gamma distribution is not drawn on every device.
        host = host_generator(generator, device)
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
            torch.where(column(cut), by_cutmix[0], by_mixup[0]),
            torch.where(cut.view(-1, 1), by_cutmix[1], by_mixup[1]),
        )

    return mix
