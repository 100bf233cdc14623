# SPDX-License-Identifier: MIT
"""Mixup and CutMix: each image blended with another of its batch, and their labels (chapter 7).

Mixing is a callable ``(images, labels, generator) -> (images, targets)``; the targets (B, K) say
how much of each class is in an image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import check_above_zero, check_tensor, check_whole
from ._inputs import check_labels, check_pictures, check_share
from .geometry import column, host_generator, inside_box

Mix = Callable[[Tensor, Tensor, torch.Generator | None], tuple[Tensor, Tensor]]


def _soft(labels: Any, num_classes: int, images: Tensor) -> Tensor:
    """Class numbers (B,) as distributions (B, K); soft labels stay."""
    if isinstance(labels, Tensor) and (labels.ndim == 2 or labels.is_floating_point()):
        return _check_targets(images, labels.to(images.dtype), num_classes)
    check_pictures(images, labels=labels)
    if labels.device.type == "cpu" and len(labels):  # reading from a GPU would make the loop wait
        check_labels(labels, num_classes)
    return F.one_hot(labels.long(), num_classes).to(images.dtype)


def _check_targets(images: Tensor, targets: Any, classes: Any = "K") -> Tensor:
    check_tensor("targets", targets, f"{len(images)}, {classes}")
    if targets.device != images.device:
        raise ValueError(f"targets is on {targets.device}; give it on {images.device}.")
    return targets


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Blend each image (B, C, H, W) with the one before it, and their targets (B, K) alike.

    share (B,): how much is the image's own. The batch is shuffled already, so the one before is a
    random other image. Source: Zhang et al. (2018), equation 1.
    """
    check_pictures(images, share=share)
    _check_targets(images, targets)
    mixed = torch.lerp(images.roll(1, 0), images, column(share.to(images.dtype)))
    own = share.view(-1, 1).to(targets.dtype)
    return mixed, torch.lerp(targets.roll(1, 0), targets, own)


def cutmix(images: Tensor, targets: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
    """Paste a box of the image before it into each image (B, C, H, W), and share the targets.

    box (B, 4): top, left, bottom, right in pixels, the last two outside the box. The targets
    (B, K) are shared by area. Source: Yun et al. (2019), equation 1.
    """
    check_pictures(images, box=box)
    _check_targets(images, targets)
    rows, cols = images.shape[-2:]
    top, left, bottom, right = box.unbind(dim=1)
    mixed = torch.where(inside_box(images, top, left, bottom, right), images.roll(1, 0), images)
    share = 1 - ((bottom - top) * (right - left)).to(targets.dtype) / (rows * cols)
    return mixed, torch.lerp(targets.roll(1, 0), targets, share.view(-1, 1))


def _beta(alpha: float, count: int, generator: torch.Generator | None) -> Tensor:
    """(count,) draws from Beta(alpha, alpha), on the CPU."""
    gammas = torch._standard_gamma(torch.full((2, count), alpha), generator=generator)
    return gammas[0] / gammas.sum(dim=0).clamp(min=torch.finfo(gammas.dtype).tiny)


def _draw_mixes(
    count: int,
    size: torch.Size,
    alphas: tuple[float, float],
    probability: float,
    cutmix_share: float,
    generator: torch.Generator | None,
) -> Tensor:
    """Draw (B, 6) on the CPU: whether to cut, the box of CutMix, and the image's share in mixup.

    On the CPU because the gamma distribution is not drawn on every device, and in one tensor
    because each copy to a device costs as much as a small operation on it.
    """
    draw = torch.rand((4, count), generator=generator)
    mixed, cut = draw[0] < probability, draw[1] < cutmix_share
    blended, pasted = (_beta(alpha, count, generator) for alpha in alphas)
    drawn = torch.empty(count, 6)
    drawn[:, 0] = cut
    # The box of CutMix's equation 2, clipped at the rim; where nothing is cut it is empty.
    side = 0.5 * torch.sqrt(1 - pasted) * (mixed & cut)
    for axis, length in enumerate(size):
        centre, half = (draw[2 + axis] * length).long(), (side * length).long()
        drawn[:, 1 + axis] = (centre - half).clamp(min=0)
        drawn[:, 3 + axis] = (centre + half).clamp(max=length)
    drawn[:, 5] = torch.where(mixed & ~cut, blended, torch.ones(()))
    return drawn


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
    num_classes = check_whole("num_classes", num_classes, least=2)
    mixup_alpha = check_above_zero("mixup_alpha", mixup_alpha)
    alphas = mixup_alpha, check_above_zero("cutmix_alpha", cutmix_alpha)
    check_share("probability", probability)
    check_share("cutmix_share", cutmix_share)

    def mix(
        images: Tensor, labels: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        check_pictures(images, generator)
        targets = _soft(labels, num_classes, images)
        size, host = images.shape[-2:], host_generator(generator, images.device)
        drawn = _draw_mixes(len(images), size, alphas, probability, cutmix_share, host)
        drawn = drawn.to(images.device, non_blocking=True)
        cut = drawn[:, 0] > 0
        by_mixup = mixup(images, targets, drawn[:, 5])
        by_cutmix = cutmix(images, targets, drawn[:, 1:5])
        mixed = torch.where(column(cut), by_cutmix[0], by_mixup[0])
        return mixed, torch.where(cut.view(-1, 1), by_cutmix[1], by_mixup[1])

    return mix
