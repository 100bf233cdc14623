# SPDX-License-Identifier: MIT
"""What a data set is: three parts of images with labels, and where they came from (chapter 6)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._inputs import check, check_choice, check_tensor, check_whole, shown
from ._inputs import check_labels
from .content import held_out
from .disk import DiskSplit
from .pixels import check_statistics, columns_for, normalise

SPLITS = {
    "official": "official split",
    "re-split": "re-split: the official images, divided anew into training and test",
    "stand-in": "stand-in: generated drawings, not the real images",
    "own": "own images",
    "unverified": "unverified: the content is not recognised as the official images",
}


@dataclass(frozen=True)
class Source:
    """Where images came from and which split they are, without any path.

    split is one of ``SPLITS``: what the content shows, whatever a file says of itself.
    """

    split: str
    origin: str

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)

    def __str__(self) -> str:
        return f"{SPLITS[self.split]} ({self.origin})"

    @property
    def note(self) -> str:
        """What to append to the title of a plot or a result: nothing for official and own."""
        return "" if self.split in ("official", "own") else f" ({self.split})"


class Split(NamedTuple):
    """Images uint8 (N, C, H, W) and their labels int64 (N,)."""

    images: Tensor
    labels: Tensor


def check_split(split: Any, classes: int | None = None) -> Split:
    """``split`` as a Split, or one clear sentence on why its images and labels are none."""
    disk = isinstance(split, DiskSplit)
    if not disk and (not isinstance(split, (tuple, list)) or len(split) != 2):
        raise TypeError(f"a split is {shown(split)}; give a pair (images, labels) of tensors.")
    images, labels = (split.images, split.labels) if disk else split
    if not disk:
        check_tensor("images of a split", images, "N, C, H, W", floating=False)
    classes_axis = ", K" if getattr(labels, "ndim", 1) > 1 else ""
    check_tensor("labels of a split", labels, f"{len(images)}{classes_axis}", floating=False)
    if not disk and (images.dtype != torch.uint8 or images.is_meta):
        raise TypeError(f"images of a split are {images.dtype} on {images.device}; give uint8.")
    if labels.dtype == torch.bool or labels.is_complex() or labels.is_meta:
        given = f"{labels.dtype} on {labels.device}"
        raise TypeError(f"labels of a split are {given}; give class numbers or shares of classes.")
    if len(labels) and not labels.is_floating_point():
        check_labels(labels, classes)
    return split if disk else Split(images, labels)


@dataclass
class ImageDataset:
    """Three parts of a data set, and what a model needs to know of it.

    mean and std are per channel, for pixel values in [0, 1], from the training part without the
    validation images. groups and group_of (K,) give CIFAR-100's twenty superclasses. The parts may
    be DiskSplits, whose images stay on the disk.
    """

    name: str
    train: Split
    val: Split
    test: Split
    classes: list[str]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source
    groups: list[str] | None = None
    group_of: Tensor | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.classes, (list, tuple)) or not self.classes:
            raise TypeError(f"classes is {shown(self.classes)}; give a list of the classes' names.")
        check("source", self.source, Source, "a Source")
        count, parts = len(self.classes), (self.train, self.val, self.test)
        self.train, self.val, self.test = (check_split(part, count) for part in parts)
        shapes = {tuple(p.images.shape[1:]) for p in (self.train, self.val, self.test)}
        if len(shapes) > 1:
            raise ValueError(f"the parts hold images of {sorted(shapes)}; give one shape.")
        self.mean, self.std = check_statistics(self.mean, self.std, self.in_channels)
        groups = self.group_of
        if groups is not None and (not isinstance(groups, Tensor) or groups.shape != (count,)):
            wanted = f"a tensor with a group for each of the {count} classes"
            raise ValueError(f"group_of is {shown(groups)}; give {wanted}.")

    @property
    def in_channels(self) -> int:
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int | tuple[int, int]:
        """One number for square images, else (H, W)."""
        height, width = self.train.images.shape[-2:]
        return height if height == width else (height, width)

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def multi_label(self) -> bool:
        """Whether an image may show several classes: labels are then float (N, K)."""
        return self.train.labels.ndim == 2

    @property
    def score_name(self) -> str:
        """What a model is judged by, in words."""
        return "mean average precision" if self.multi_label else "accuracy"

    @property
    def unreadable(self) -> list[str]:
        """The pictures on the disk that could not be read so far."""
        parts: Any = (self.train, self.val, self.test)
        return [path for part in parts if isinstance(part, DiskSplit) for path in part.unreadable]

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 images, or floating point ones in [0, 1], to mean 0 and deviation 1."""
        return normalise(images, self.mean, self.std)

    def denormalise(self, images: Tensor) -> Tensor:
        """Undo ``normalise``: floating point images (…, C, H, W) back to [0, 1]."""
        means, stds = columns_for(images, self.mean, self.std)
        return (images * stds + means).clamp(0, 1)

    def subset(
        self, n_train: int, n_val: int | None = None, n_test: int | None = None
    ) -> ImageDataset:
        """Return a smaller data set with the shares of the classes kept; None keeps a whole part.

        The same sizes give the same images every time. mean and std stay those of the whole
        training part, so that models of both can be compared.
        """
        sizes = {"train": n_train, "val": n_val, "test": n_test}
        parts: Any = {part: self._shrink(part, n) for part, n in sizes.items() if n is not None}
        few = len(parts.get("train", self.train).labels)
        few_of_all = f"{few:,} of {len(self.train.labels):,} training images"
        source = replace(self.source, origin=f"{self.source.origin}; {few_of_all}")
        return replace(self, source=source, **parts)

    def _shrink(self, name: str, n: int) -> Any:
        split = getattr(self, name)
        labels = split.labels
        if check_whole(f"n_{name}", n) > len(labels):
            raise ValueError(f"n_{name} is {n}; give a number of images from 0 to {len(labels)}.")
        classes = labels.argmax(dim=1) if self.multi_label else labels
        keep = torch.from_numpy(np.flatnonzero(held_out(classes.numpy(), n, self.num_classes)))
        return (
            split.take(keep)
            if isinstance(split, DiskSplit)
            else Split(split.images[keep], labels[keep])
        )
