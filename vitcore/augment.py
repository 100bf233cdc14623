# SPDX-License-Identifier: MIT
"""Augmentation and mixing, gathered from the rooms of ``vitcore.data`` (chapters 6 and 7)."""

# ruff: noqa: F403
from .data.augment import *
from .data.geometry import *
from .data.mixing import *
from .data.trivial import *
