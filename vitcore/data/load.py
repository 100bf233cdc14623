# SPDX-License-Identifier: MIT
"""Finds a named data set in a directory, the cache or the network, and builds it (chapter 6)."""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .._inputs import check_flag, check_whole, shown
from . import _standin
from ._inputs import check_path, check_seed
from .content import digest_images, fingerprint, held_out, ranks
from .dataset import ImageDataset, Source, Split
from .download import DataUnavailableError, cache_dir, checksum, fetch, store, workspace
from .known import FILES, KNOWN, MIRRORS, Known, parse_raw, read_npz
from .pixels import histograms, statistics, to_tensor


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    stand_in: bool | None = None,
    validation: int = 5000,
    seed: int = 0,
) -> ImageDataset:
    """Load "mnist" or "cifar100", from the first of these places that has it:

    1. ``data_dir``, or the directory that VITCORE_DATA names: ``NAME.npz`` with the uint8 arrays
       x_train, y_train, x_test, y_test (as in Keras's file), or the files of the official homes;
    2. the user's cache (VITCORE_CACHE names another);
    3. a download with checksums from several mirrors, which is then kept in the cache.

    stand_in=True (or VITCORE_STANDIN=1, if None) puts generated drawings of the same shapes and
    types in the place of the download; False never does.

    ``validation`` images are taken from the training part, class by class in the classes'
    proportions. Which ones, and the order of the training images, follows from a hash of each
    image and ``seed``: not from the order in the file, nor from any random state. mean and std
    are those of the training images that are left. The test images keep the file's order.

    ``source`` says which split it is, from the content: a file's own word is not taken for it.

    Raises ValueError for an unknown name or a file that does not hold what it should,
    FileNotFoundError for a directory that is not there, DataUnavailableError where the images
    cannot be had, OSError for a full disk.
    """
    if not isinstance(name, str) or name not in KNOWN:
        choice = f"give one of {sorted(KNOWN)}, or use load_folder for images of your own"
        raise ValueError(f"there is no data set {shown(name)}; {choice}.")
    if stand_in is None:
        stand_in = os.environ.get("VITCORE_STANDIN", "").lower() in ("1", "true", "yes", "on")
    check_flag("stand_in", stand_in)
    validation = check_whole("validation", validation)
    seed = check_seed("seed", seed)
    cache, arrays, where = cache_dir(), None, ""
    named = os.environ.get("VITCORE_DATA") or None
    directory = named if data_dir is None or str(data_dir) == "" else data_dir
    if directory is not None:
        folder = check_path("data_dir", directory)
        if not folder.is_dir():
            by = ", which VITCORE_DATA names" if directory is named else ""
            advice = f"name one that holds {name}.npz, or none"
            raise FileNotFoundError(f"there is no directory {folder}{by}: {advice}")
        arrays, where = _find(name, folder), "in a directory"
    if arrays is None:
        try:
            arrays, where = _find(name, cache), "in the cache"
        except ValueError as error:  # whatever broke the cached copy, it can be had again
            warnings.warn(f"the cached copy is not used: {error}", stacklevel=2)
    if arrays is not None:
        origin = f"{arrays['file']} {where}"
    elif stand_in:
        arrays, origin = _standin.generate(name), "generated"
    else:
        arrays, origin = download_dataset(name, cache), "download"
    return build_dataset(name, arrays, origin, validation, seed)


def build_dataset(
    name: str, arrays: dict[str, Any], origin: str, validation: int, seed: int
) -> ImageDataset:
    """Recognise the four arrays of a named data set and divide them into parts."""
    known, y_train = KNOWN[name], arrays["y_train"]
    if validation >= len(y_train):
        wanted = f"a number of images from 0 to {len(y_train) - 1}"
        taken = f"to be taken from the {len(y_train)} training images of {name}"
        raise ValueError(f"validation is {validation}; give {wanted}, {taken}.")
    digests = [digest_images(arrays[f"x_{key}"], arrays[f"y_{key}"]) for key in ("train", "test")]
    source = Source(_recognise(arrays, known, *digests), origin)
    order = np.argsort(ranks(digests[0], seed), kind="stable")
    held = held_out(y_train[order].astype(np.int64), validation, len(known.classes))

    def part(name: str, keep: np.ndarray) -> Split:
        labels = torch.from_numpy(arrays[f"y_{name}"][keep].astype(np.int64))
        return Split(to_tensor(arrays[f"x_{name}"], keep), labels)

    train, val = part("train", order[~held]), part("train", order[held])
    test = part("test", np.arange(len(digests[1])))
    mean, std = statistics(histograms(train.images.permute(0, 2, 3, 1).numpy()))
    groups = list(known.groups) if known.groups else None
    group_of = torch.tensor(known.group_of) if known.group_of else None
    classes = list(known.classes)
    return ImageDataset(name, train, val, test, classes, mean, std, source, groups, group_of)


def _recognise(arrays: dict[str, Any], known: Known, train: np.ndarray, test: np.ndarray) -> str:
    """Say which split the arrays are, from what they hold.

    A file's own word counts only where it claims less than the official images ("stand-in").
    """
    if arrays["split"] == "stand-in":
        return "stand-in"
    if fingerprint(train, test) != known.everything:
        return "unverified"
    if known.train is not None:
        return "official" if fingerprint(train) == known.train else "re-split"
    sums = histograms(arrays["x_train"]) @ np.arange(256)
    return "official" if tuple(map(int, sums)) == known.train_sums else "re-split"


def _find(name: str, directory: Path) -> dict[str, Any] | None:
    """Read NAME.npz or the official files in one directory, if they are there, and check them."""
    path = directory / f"{name}.npz"
    if path.exists():
        return {**read_npz(path, KNOWN[name]), "file": path.name}
    paths = {directory / file: md5 for file, md5 in FILES[name].items()}
    if not all(path.exists() for path in paths):
        return None
    for path, md5 in paths.items():
        if checksum(path, "md5") != md5:
            problem = f"another checksum than the official file ({md5})"
            raise ValueError(f"{path} has {problem}: download it again")
    arrays = parse_raw(name, lambda file: (directory / file).read_bytes())
    return {**arrays, "file": "the official files"}


def download_dataset(name: str, cache: Path) -> dict[str, Any]:
    """Fetch a data set, keep it in the cache as NAME.npz and return its arrays."""
    ask, target = list(MIRRORS[name]), cache / f"{name}.npz"
    with workspace(target) as folder:
        with contextlib.suppress(ValueError, FileNotFoundError):
            return read_npz(target, KNOWN[name])  # put there while this process waited
        try:
            raw = {file: fetch(file, md5, ask, folder) for file, md5 in FILES[name].items()}
        except DataUnavailableError as error:
            problem = f"{name} could not be downloaded ({error}); {_advice(name)}"
            raise DataUnavailableError(problem) from None
        arrays = parse_raw(name, raw.__getitem__)
        store(target, lambda part: np.savez(part, **arrays), folder)
    return arrays


def _advice(name: str) -> str:
    count = len(FILES[name])
    files = f"its {count} .gz files" if count > 1 else next(iter(FILES[name]))
    return (
        f"by hand, put {name}.npz (uint8 arrays x_train, y_train, x_test, y_test) or, as they are "
        f"handed out, {files} into {cache_dir()}, or into a directory named by data_dir, --data or "
        "VITCORE_DATA; to go on without them, stand_in=True, --stand-in or VITCORE_STANDIN=1 "
        "generates drawings that stand in for the images"
    )
