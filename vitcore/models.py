# SPDX-License-Identifier: MIT
"""Models by name: the published sizes and those that the book trains; chapter 5 counts them."""

from __future__ import annotations

from typing import Any

from ._inputs import check_choice
from .vit import ViT, ViTConfig

MODELS: dict[str, ViTConfig] = {
    "vit_tiny_patch16_224": ViTConfig(dim=192, heads=3),
    "vit_small_patch16_224": ViTConfig(dim=384, heads=6),
    "vit_base_patch16_224": ViTConfig(dim=768, heads=12),
    "vit_large_patch16_224": ViTConfig(dim=1024, heads=16, depth=24),
    "vit_mnist": ViTConfig(
        image_size=28, patch_size=7, in_channels=1, num_classes=10, dim=64, depth=4, heads=4,
        mlp_ratio=2.0, class_token=False, pool="mean", init_std=0.08,
    ),
    "vit_cifar": ViTConfig(
        image_size=32, patch_size=4, in_channels=3, num_classes=100, dim=192, depth=9, heads=3,
        mlp_ratio=2.0, class_token=False, pool="mean",
    ),
}  # fmt: skip
"""Named sizes: tiny to large for ImageNet (Dosovitskiy et al., 2021, table 1; Touvron et al.,
2021, table 1) and the small ones that the book trains."""


def create_model(name: str, **options: Any) -> ViT:
    """Make a model named in ``MODELS``, untrained, with some options changed; raises as ViT."""
    return ViT(MODELS[check_choice("model", name, MODELS)], **options)
