# SPDX-License-Identifier: MIT
"""What a data set is: three parts of images with labels, and where they came from (chapter 6)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._inputs import check_choice, check_whole
from ._inputs import shown
from .content import allocate, rank_in_class
from .pixels import check_statistics, denormalise, normalise

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

    split is one of "official" (the content was recognised), "re-split" (the official images,
    divided anew), "stand-in" (generated), "own" (the user's folder) or "unverified" (a file
    whose content is not the official one, whatever it says of itself).
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


def check_split(split: object) -> Split:
    """``split`` as a Split, or one clear sentence on why its images and labels are none."""
    if not isinstance(split, (tuple, list)) or len(split) != 2:
        raise TypeError(
            f"a split is a pair (images, labels), given {type(split).__name__}: pass "
            "dataset.train, or two tensors"
        )
    images, labels = split
    for name, values in (("images", images), ("labels", labels)):
        if not isinstance(values, Tensor):
            raise TypeError(f"the {name} of a split are a tensor, given {type(values).__name__}")
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(
            f"a split has uint8 images (N, C, H, W), given {images.dtype} "
            f"{tuple(images.shape)}: they are divided by 255 one batch at a time"
        )
    if not labels.ndim or len(images) != len(labels):
        raise ValueError(
            f"there are {len(images)} images but {len(labels) if labels.ndim else 'no'} labels; "
            "give one for each image."
        )
    if labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(f"labels is {labels.dtype}; give class numbers or shares of classes.")
    if len(labels) and not labels.is_floating_point() and labels.min() < 0:
        raise ValueError(f"labels reach down to {int(labels.min())}; give class numbers from 0.")
    return Split(images, labels)


@dataclass
class ImageDataset:
    """Three parts of a data set, and what a model needs to know of it.

    mean and std are per channel, for pixel values in [0, 1], from the training part without the
    validation images. groups and group_of (K,) give CIFAR-100's twenty superclasses.
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
        if not isinstance(self.source, Source):
            raise TypeError(f"source is {shown(self.source)}; give a Source.")
        self.train, self.val, self.test = map(check_split, (self.train, self.val, self.test))
        shape, last = self.train.images.shape[1:], len(self.classes) - 1
        for images, labels in (self.train, self.val, self.test):
            if images.shape[1:] != shape:
                raise ValueError(
                    f"the parts hold images of {tuple(shape)} and {tuple(images.shape[1:])}; give "
                    "one shape."
                )
            if labels.ndim == 1 and not labels.is_floating_point() and len(labels):
                low, high = int(labels.min()), int(labels.max())
                if low < 0 or high > last:
                    raise ValueError(
                        f"labels reach from {low} to {high}; give numbers of the {last + 1} "
                        f"classes, from 0 to {last}."
                    )
        check_statistics(self.mean, self.std, shape[0])
        if self.group_of is not None and len(self.group_of) != len(self.classes):
            raise ValueError(
                f"group_of names the groups of {len(self.group_of)} classes; give one for each of "
                f"the {len(self.classes)}."
            )

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

    def normalise(self, images: Tensor) -> Tensor:
        """Map uint8 images, or floating point ones in [0, 1], to mean 0 and deviation 1."""
        return normalise(images, self.mean, self.std)

    def denormalise(self, images: Tensor) -> Tensor:
        """Undo ``normalise``: floating point images (…, C, H, W) back to [0, 1]."""
        return denormalise(images, self.mean, self.std)

    def fingerprint(self) -> str:
        """A checksum of every image and label that training or the choice of weights sees."""
        digest = hashlib.sha256()
        for split in (self.train, self.val):
            for values in split:
                digest.update(repr((tuple(values.shape), values.dtype)).encode())
                digest.update(values.contiguous().cpu().numpy().data)
        return digest.hexdigest()

    def subset(
        self, n_train: int, n_val: int | None = None, n_test: int | None = None
    ) -> ImageDataset:
        """Return a smaller data set with the shares of the classes kept; None keeps a whole part.

        The same sizes give the same images every time. mean and std stay those of the whole
        training part, so that models of both can be compared.
        """
        parts = [
            _shrink(part, n, f"n_{name}", self.num_classes)
            for name, part, n in (
                ("train", self.train, n_train),
                ("val", self.val, n_val),
                ("test", self.test, n_test),
            )
        ]
        few = f"{len(parts[0].labels):,} of {len(self.train.labels):,} training images"
        source = replace(self.source, origin=f"{self.source.origin}; {few}")
        return replace(self, train=parts[0], val=parts[1], test=parts[2], source=source)


def _shrink(part: Split, n: int | None, name: str, num_classes: int) -> Split:
    if n is None:
        return part
    if check_whole(name, n) > len(part.labels):
        raise ValueError(
            f"{name} is {n}; give a number of images from 0 to {len(part.labels)}, the size of "
            "that part."
        )
    labels = part.labels.numpy()
    shares = allocate(np.bincount(labels, minlength=num_classes), n)
    keep = torch.from_numpy(np.flatnonzero(rank_in_class(labels) < shares[labels]))
    return Split(part.images[keep], part.labels[keep])
