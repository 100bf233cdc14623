# SPDX-License-Identifier: MIT
"""Augmentation and mixing, gathered from ``vitcore.data`` (chapters 6 and 7)."""

from .data.augment import AUGMENTS, MIXES, Augment, build_augment, build_mix, cifar, digits
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
from .data.mixing import Mix, cutmix, mixup, mixup_cutmix
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

__all__ = [
    "AUGMENTS",
    "MIXES",
    "TRIVIAL",
    "Augment",
    "Mix",
    "affine",
    "autocontrast",
    "brightness",
    "build_augment",
    "build_mix",
    "cifar",
    "colour",
    "contrast",
    "crop",
    "cutmix",
    "digits",
    "equalize",
    "erase",
    "hflip",
    "mixup",
    "mixup_cutmix",
    "posterize",
    "random_affine",
    "random_erasing",
    "random_resized_crop",
    "resized_crop",
    "sharpness",
    "solarize",
    "trivial_augment",
    "trivial_operation",
]
