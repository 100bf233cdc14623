# SPDX-License-Identifier: MIT
"""Augmentation and mixing, gathered from the rooms of ``vitcore.data`` (chapters 6 and 7)."""

# ruff: noqa: F401
from .data.augment import AUGMENTS, MIXES, Augment, Mix, build_augment, build_mix, cifar, digits
from .data.geometry import (
    affine,
    crop,
    erase,
    hflip,
    random_affine,
    random_erasing,
    random_resized_crop,
    resized_crop,
)
from .data.mixing import cutmix, mixup, mixup_cutmix
from .data.trivial import (
    TRIVIAL,
    autocontrast,
    brightness,
    colour,
    contrast,
    equalize,
    posterize,
    sharpness,
    solarize,
    trivial_augment,
    trivial_operation,
)
