# SPDX-License-Identifier: MIT
"""Loads one's own images from a folder that has a sub-folder for each class (chapter 6)."""

from __future__ import annotations

import os
import warnings
from numbers import Integral
from pathlib import Path

import numpy as np
import torch

from .._inputs import check_number, to_pair
from ._inputs import check_path, check_seed
from .content import digest_images, held_out, ranks
from .dataset import ImageDataset, Source, Split
from .images import IMAGE_SUFFIXES, check_channels, decode, fit_image
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

    Grey and colour pictures in the usual formats; channels=None takes three if any picture has
    colour, else one. Every image is resized to cover ``image_size`` and cut about its centre.

    validation and test are fractions of all images, or numbers of them. They are drawn class by
    class from a hash of each image and ``seed``, as in load_dataset; at least one image of each
    class is left for training. What in a class's folder is no image that can be read (a .heic
    photograph, a folder inside it) is counted and named in a warning.

    Raises FileNotFoundError and ValueError, with a sentence that names the folder or the file.
    """
    root = check_path("path", path)
    size = to_pair(image_size)
    seed = check_seed("seed", seed)
    channels = check_channels(channels)
    files = _class_files(root)
    paths = [path for group in files.values() for path in group]
    # Read once to small tensors, with the channels that each file has.
    images = [fit_image(decode(path), size, channels) for path in paths]
    common = max(map(len, images))
    stacked = torch.stack([image.expand(common, -1, -1) for image in images])
    counts = np.array([len(group) for group in files.values()])
    labels = np.repeat(np.arange(len(counts)), counts)
    n_test = _count_share("test", test, len(labels))
    n_val = _count_share("validation", validation, len(labels))
    if n_val + n_test > len(labels) - len(counts):
        wanted = f"with {n_val} for validation and {n_test} for the test"
        raise ValueError(
            f"{root} holds {len(labels)} images of {len(counts)} classes: {wanted} no class would "
            "keep one for training; add images or make validation and test smaller"
        )
    digests = digest_images(stacked.numpy(), np.zeros(len(labels), np.uint8))
    order = np.argsort(ranks(digests, seed), kind="stable")
    held = held_out(labels[order], n_val + n_test, len(counts), spare=1)
    held_order = order[held]
    tested = held_out(labels[held_order], n_test, len(counts))

    def part(keep: np.ndarray) -> Split:
        return Split(stacked[torch.from_numpy(keep)], torch.from_numpy(labels[keep]))

    train, val, test_part = map(part, (order[~held], held_order[~tested], held_order[tested]))
    mean, std = statistics(histograms(train.images.permute(0, 2, 3, 1).numpy()))
    source = Source("own", f"{len(labels):,} images in {len(counts)} folders")
    return ImageDataset("folder", train, val, test_part, list(files), mean, std, source)


def _class_files(root: Path) -> dict[str, list[Path]]:
    """The image files of each sub-folder, both in alphabetical order."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no directory {root}")
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if len(folders) < 2:
        plural = "" if len(folders) == 1 else "s"
        advice = "make one for each class, at least two, and put its images there"
        raise ValueError(f"{root} has {len(folders)} sub-folder{plural}: {advice}")
    files, passed = {}, []
    for folder in folders:
        seen = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        found = [p for p in seen if p.is_file() and p.suffix.lower() in IMAGE_SUFFIXES]
        if not found:
            there = f" but {_named(seen)}" if seen else ""
            advice = f"remove it, or put files there that end in one of {', '.join(IMAGE_SUFFIXES)}"
            raise ValueError(f"{folder} holds no images{there}: {advice}")
        files[folder.name] = found
        passed += sorted(set(seen) - set(found))
    if passed:
        problem = f"{root} holds {_named(passed)} that cannot be read and are not used"
        advice = "convert pictures to .png or .jpg, and put them right into their class's folder"
        warnings.warn(f"{problem}: {advice}", stacklevel=3)
    return files


def _named(paths: list[Path]) -> str:
    """How many of which kind, with an example of each: "3 x .heic (such as cats/a.heic)"."""
    kinds: dict[str, list[Path]] = {}
    for path in paths:
        kind = "folder" if path.is_dir() else path.suffix.lower() or "file without ending"
        kinds.setdefault(kind, []).append(path)
    return " and ".join(
        f"{len(some)} x {kind} (such as {some[0].parent.name}/{some[0].name})"
        for kind, some in kinds.items()
    )


def _count_share(name: str, share: float | int, total: int) -> int:
    """Turn a fraction below 1, or a number of images, into a number of images."""
    whole = isinstance(share, Integral)
    if not 0 <= check_number(name, share) < (total if whole else 1):
        wanted = f"a fraction from 0 to below 1, or a number of images below {total}"
        raise ValueError(f"{name} is {share}; give {wanted}")
    return int(share) if whole else max(round(share * total), 1 if share else 0)
