# SPDX-License-Identifier: MIT
"""Loads one's own images from a folder that has a sub-folder for each class (chapter 6)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..patches import to_pair
from .content import check_seed, digest_images, held_out, ranks
from .dataset import ImageDataset, Source, Split
from .images import IMAGE_SUFFIXES, decode, fit_image
from .pixels import histograms, statistics


def load_folder(
    path: str | os.PathLike[str],
    *,
    image_size: int | tuple[int, int],
    channels: int | None = None,
    validation: float | int = 0.1,
    test: float | int = 0.1,
    seed: int = 0,
) -> ImageDataset:
    """Load one's own images: every sub-folder of ``path`` is a class and holds its images.

    Grey and colour pictures in the usual formats, or .npy arrays (H, W, C) with any number of
    channels. channels=None takes three if any picture has colour, else one; .npy files must agree.
    Every image is resized to cover ``image_size`` and cut about its centre.

    validation and test are fractions of all images, or numbers of them. They are drawn class by
    class from a hash of each image and ``seed``, as in load_dataset; at least one image of each
    class is left for training.

    Raises FileNotFoundError and ValueError, with a sentence that names the folder or the file.
    """
    root = Path(path).expanduser()
    size = to_pair(image_size)
    check_seed(seed)
    if channels is not None and (isinstance(channels, bool) or channels < 1):
        raise ValueError(f"channels is a whole number above zero or None, given {channels!r}")
    files = _class_files(root)
    # Read once to small tensors, with the channels that each file has.
    images = [[fit_image(decode(f), size, channels, f) for f in group] for group in files.values()]
    channels = channels or _common_channels(images, list(files.values()))
    stacked = torch.stack(
        [
            fit_image(image.permute(1, 2, 0).numpy(), size, channels, file)
            for group, names in zip(images, files.values(), strict=True)
            for image, file in zip(group, names, strict=True)
        ]
    )
    counts = np.array([len(group) for group in images])
    labels = np.repeat(np.arange(len(counts)), counts)
    n_test = _count_share("test", test, len(labels))
    n_val = _count_share("validation", validation, len(labels))
    if n_val + n_test > len(labels) - len(counts):
        raise ValueError(
            f"{root} holds {len(labels)} images of {len(counts)} classes: with {n_val} for "
            f"validation and {n_test} for the test no class would keep one for training; add "
            "images or make validation and test smaller"
        )
    digests = digest_images(stacked.numpy(), np.zeros(len(labels), np.uint8))
    order = np.argsort(ranks(digests, seed), kind="stable")
    held = held_out(labels[order], n_val + n_test, len(counts), spare=1)
    held_order = order[held]
    tested = held_out(labels[held_order], n_test, len(counts))

    def part(keep: np.ndarray) -> Split:
        return Split(stacked[torch.from_numpy(keep)], torch.from_numpy(labels[keep]))

    train = part(order[~held])
    mean, std = statistics(histograms(train.images.permute(0, 2, 3, 1).numpy()))
    return ImageDataset(
        name="folder",
        train=train,
        val=part(held_order[~tested]),
        test=part(held_order[tested]),
        classes=list(files),
        mean=mean,
        std=std,
        source=Source("own", f"{len(labels):,} images in {len(counts)} folders"),
    )


def _class_files(root: Path) -> dict[str, list[Path]]:
    """The image files of each sub-folder, both in alphabetical order."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no directory {root}")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        raise ValueError(
            f"{root} has {len(folders)} sub-folder{'s' if len(folders) != 1 else ''}: make one for "
            "each class, at least two, and put its images there"
        )
    parts = {"train", "training", "test", "testing", "val", "valid", "validation"}
    if {folder.name.lower() for folder in folders} <= parts:
        raise ValueError(
            f"the sub-folders of {root} are {', '.join(f.name for f in folders)}, which are parts "
            "and not classes: name one of them, or put the classes side by side"
        )
    files = {}
    for folder in folders:
        suffixes = (*IMAGE_SUFFIXES, ".npy")
        found = sorted(
            p
            for p in folder.iterdir()
            if p.is_file() and p.suffix.lower() in suffixes and not p.name.startswith(".")
        )
        if not found:
            raise ValueError(
                f"{folder} holds no images: remove it, or put files there that end in one of "
                f"{', '.join(suffixes)}"
            )
        files[folder.name] = found
    return files


def _common_channels(images: list[list[Tensor]], files: list[list[Path]]) -> int:
    """Three if grey and colour are mixed, else what all images have."""
    first: dict[int, Path] = {}
    for group, names in zip(images, files, strict=True):
        for image, file in zip(group, names, strict=True):
            first.setdefault(image.shape[0], file)
    if set(first) <= {1, 3}:
        return max(first)
    if len(first) > 1:
        listed = ", ".join(f"{n} in {file}" for n, file in sorted(first.items()))
        raise ValueError(f"the images differ in their number of channels: {listed}")
    return next(iter(first))


def _count_share(name: str, share: float | int, total: int) -> int:
    """Turn a fraction below 1, or a number of images, into a number of images."""
    whole = isinstance(share, int) and not isinstance(share, bool)
    if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 <= share < total:
        raise ValueError(
            f"{name} is a fraction from 0 to below 1 or a number of images below {total}, "
            f"given {share!r}"
        )
    if not whole and share >= 1:
        raise ValueError(f"{name} as a fraction lies below 1, given {share}")
    return int(share) if whole else max(round(share * total), 1 if share else 0)
