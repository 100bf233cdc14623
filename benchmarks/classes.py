# SPDX-License-Identifier: MIT
"""A part of a data set's classes, for benchmarks that learn some first and others later."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from vitcore.data import ImageDataset, Split

__all__ = ["keep_classes"]


def keep_classes(dataset: ImageDataset, chosen: range) -> ImageDataset:
    """Keep the images of these classes, which are counted from 0 again, without their groups."""

    def keep(split: Split) -> Split:
        kept = torch.isin(split.labels, torch.tensor(chosen))
        return Split(split.images[kept], (split.labels[kept] - chosen.start) // chosen.step)

    parts: dict[str, Any] = {n: keep(getattr(dataset, n)) for n in ("train", "val", "test")}
    names = dataset.classes[chosen.start : chosen.stop : chosen.step]
    return replace(dataset, classes=names, groups=None, group_of=None, **parts)
