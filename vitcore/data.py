# SPDX-License-Identifier: MIT
"""Data sets as uint8 tensors that say where they came from, and batches of them (chapter 6).

Images are kept as uint8 (N, C, H, W) and become floating point one batch at a time: a quarter of
the memory, and a whole data set fits on the device. A file is believed for its content, not for
its name: the official MNIST and CIFAR-100 splits are recognised by fingerprints, whatever order
their images stand in, and what cannot be recognised is called unverified.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import http.client
import io
import os
import shutil
import socket
import tarfile
import tempfile
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ._torchvision import import_torchvision
from .augment import Augment, Mix

# --------------------------------------------------------------------------------------------------
# What is known of the two data sets
# --------------------------------------------------------------------------------------------------

CIFAR100_GROUPS = (
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables",
    "household_electrical_devices", "household_furniture", "insects", "large_carnivores",
    "large_man-made_outdoor_things", "large_natural_outdoor_scenes",
    "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates", "people",
    "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
)  # fmt: skip

CIFAR100_CLASSES = (
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
    "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
    "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
    "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
    "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
    "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
    "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
    "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
    "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone",
    "television", "tiger", "tractor", "train", "trout", "tulip", "turtle", "wardrobe", "whale",
    "willow_tree", "wolf", "woman", "worm",
)  # fmt: skip

# The group of each class, in the order of CIFAR100_CLASSES.
CIFAR100_GROUP_OF = (
    4, 1, 14, 8, 0, 6, 7, 7, 18, 3, 3, 14, 9, 18, 7, 11, 3, 9, 7, 11, 6, 11, 5, 10, 7, 6, 13, 15,
    3, 15, 0, 11, 1, 10, 12, 14, 16, 9, 11, 5, 5, 19, 8, 8, 15, 13, 14, 17, 18, 10, 16, 4, 17, 4,
    2, 0, 17, 4, 18, 17, 10, 3, 2, 12, 12, 16, 12, 1, 9, 19, 2, 10, 0, 1, 16, 12, 9, 13, 15, 13,
    16, 19, 2, 4, 6, 19, 5, 5, 8, 19, 18, 1, 2, 15, 6, 0, 17, 8, 14, 13,
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """What a named data set looks like, and how its official content is recognised."""

    shape: tuple[int, ...]  # of one image in the .npz file: (H, W) or (H, W, C)
    classes: tuple[str, ...]
    everything: str  # fingerprint of all official images with their labels, both parts together
    train: str | None = None  # fingerprint of the official training part, where it is known
    train_sums: tuple[int, ...] | None = None  # else: the sum of its pixel values, per channel
    groups: tuple[str, ...] | None = None
    group_of: tuple[int, ...] | None = None


KNOWN: dict[str, Known] = {
    "mnist": Known(
        shape=(28, 28),
        classes=tuple("0123456789"),
        everything="65d7d98e7be4a5ddeda5102683f2dd914762f62bb0e1bdb22d0519f4060c496f",
        train="efb0d4dfb3297d29f03ba77d302dff657724c12a047eff65d851f7e0b82be3d2",
    ),
    # The sums follow from the mean of the official training part that is widely published to
    # sixteen digits, (0.5070751592371323, 0.48654887331495095, 0.4409178433670343): times
    # 255 * 50,000 * 1,024 it gives three whole numbers. A random split of the same images meets
    # one of them about once in ten million.
    "cifar100": Known(
        shape=(32, 32, 3),
        classes=CIFAR100_CLASSES,
        everything="9b0c8f7372bf2d10862a683cbac510542ad902c0bc79431b0e53fb99b70d0c03",
        train_sums=(6620373279, 6352382090, 5756623363),
        groups=CIFAR100_GROUPS,
        group_of=CIFAR100_GROUP_OF,
    ),
}

# The files that the official homes hand out, with the MD5 sums that torchvision (MNIST) and the
# CIFAR page (the binary version, which is plain bytes: nothing has to be unpickled) give for them.
FILES: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
        "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
        "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
    },
    "cifar100": {"cifar-100-binary.tar.gz": "03b5dce01913d631647c71ecec9e9cb8"},
}

# Where to ask for them, in this order. All are known from documentation: the first two of MNIST
# from torchvision, the third from TensorFlow Datasets; of CIFAR-100 the first from Apache MXNet
# (gluon.data.vision.CIFAR100), the second is the data set's home, slow since June 2026
# (pytorch/vision#9536). None of these addresses has been tried yet: the tests ask a server of their
# own. What arrives counts only if its checksum is right, so a mirror can be gone but not lie.
MIRRORS: dict[str, tuple[str, ...]] = {
    "mnist": (
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "http://yann.lecun.com/exdb/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    "cifar100": (
        "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/dataset/cifar100/",
        "https://www.cs.toronto.edu/~kriz/",
    ),
}

DOWNLOAD_TIMEOUT = 30.0  # seconds of silence from a server before the next one is asked
DOWNLOAD_ATTEMPTS = 2  # times that one mirror is asked for one file

_ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class DataUnavailableError(RuntimeError):
    """The images are neither in a directory nor in the cache, and no mirror gave them."""


# --------------------------------------------------------------------------------------------------
# A data set in memory
# --------------------------------------------------------------------------------------------------

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
        if self.split not in SPLITS:
            raise ValueError(f"unknown split {self.split!r}: use one of {sorted(SPLITS)}")

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
        scaled = images.float() / 255 if images.dtype == torch.uint8 else images
        mean, std = _channel_columns(self.mean, self.std, images.device)
        return (scaled - mean) / std

    def denormalise(self, images: Tensor) -> Tensor:
        """Undo ``normalise``: floating point images (…, C, H, W) back to [0, 1]."""
        mean, std = _channel_columns(self.mean, self.std, images.device)
        return (images * std + mean).clamp(0, 1)

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


def _channel_columns(
    mean: Sequence[float], std: Sequence[float], device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """mean and std as (C, 1, 1), to be broadcast over images."""
    column = (len(mean), 1, 1)
    return (
        torch.tensor(mean, dtype=torch.float32, device=device).view(column),
        torch.tensor(std, dtype=torch.float32, device=device).view(column),
    )


def _shrink(part: Split, n: int | None, name: str, num_classes: int) -> Split:
    if n is None:
        return part
    if isinstance(n, bool) or not isinstance(n, int) or not 0 <= n <= len(part.labels):
        raise ValueError(
            f"{name} is a number of images from 0 to {len(part.labels)}, the size of that part, "
            f"given {n!r}"
        )
    labels = part.labels.numpy()
    shares = _allocate(np.bincount(labels, minlength=num_classes), n)
    keep = torch.from_numpy(np.flatnonzero(_rank_in_class(labels) < shares[labels]))
    return Split(part.images[keep], part.labels[keep])


# --------------------------------------------------------------------------------------------------
# Validation split: by the content of each image, whatever order the file has
# --------------------------------------------------------------------------------------------------


def _digests(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Sixteen bytes for each image with its label (N, 16), in about 4 microseconds an image."""
    out = bytearray()
    for image, label in zip(np.ascontiguousarray(images), labels, strict=True):
        out += hashlib.blake2b(image.tobytes() + bytes([int(label)]), digest_size=16).digest()
    return np.frombuffer(bytes(out), np.uint8).reshape(len(labels), 16)


def _fingerprint(*digests: np.ndarray) -> str:
    """One checksum of a set of images with labels that does not depend on their order."""
    rows = np.concatenate(digests)
    return hashlib.sha256(b"".join(sorted(row.tobytes() for row in rows))).hexdigest()


def _mix(values: np.ndarray) -> np.ndarray:
    """The splitmix64 finaliser: integers that look random, the same in every version of numpy."""
    z = values.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def _ranks(digests: np.ndarray, seed: int) -> np.ndarray:
    """A number for each image (N,) that depends on the image and the seed, and on nothing else."""
    content = np.ascontiguousarray(digests[:, :8]).view("<u8").ravel()
    salt = _mix(np.array([seed % 2**64], np.uint64))
    return _mix(content ^ salt)


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """For each position (N,), how many earlier positions have the same label."""
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels)
    starts = np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - starts
    return ranks


def _allocate(counts: np.ndarray, total: int, spare: int = 0) -> np.ndarray:
    """Divide ``total`` over classes in proportion to ``counts``, leaving ``spare`` in each.

    What rounding down leaves over goes to the largest remainders, on a tie to the earlier class.
    """
    room = np.maximum(counts - spare, 0)
    exact = counts * (total / max(int(counts.sum()), 1))
    shares = np.minimum(np.floor(exact).astype(np.int64), room)
    wanted = np.argsort(-(exact - np.floor(exact)), kind="stable")
    while shares.sum() < total and (shares < room).any():
        for label in wanted[: len(counts)]:
            if shares.sum() < total and shares[label] < room[label]:
                shares[label] += 1
    return shares


def _check_seed(seed: int) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise TypeError(f"seed is a whole number, given {seed!r} ({type(seed).__name__})")


def _held_out(labels: np.ndarray, total: int, num_classes: int, spare: int = 0) -> np.ndarray:
    """Mark (N,) the first images of every class, ``total`` in all, in the order given."""
    shares = _allocate(np.bincount(labels, minlength=num_classes), total, spare)
    return _rank_in_class(labels) < shares[labels]


# --------------------------------------------------------------------------------------------------
# Reading a file, without believing it
# --------------------------------------------------------------------------------------------------


def _read_npz(path: Path) -> dict[str, Any]:
    """Read the four arrays and the optional ``split`` of a .npz file; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array")
            missing = [name for name in _ARRAYS if name not in file.files]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            arrays: dict[str, Any] = {name: file[name] for name in _ARRAYS}
            arrays["split"] = str(file["split"]) if "split" in file.files else ""
    except FileNotFoundError:
        raise
    except MemoryError:
        raise
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise ValueError(
            f"{path} is not a readable .npz file with x_train, y_train, x_test and y_test "
            f"({error}): put a whole one in its place"
        ) from error
    return arrays


def _check_arrays(arrays: dict[str, Any], known: Known, where: str) -> None:
    """Raise ValueError unless the arrays are what a data set of this name must hold."""
    shape = ", ".join(["N", *map(str, known.shape)])
    classes = len(known.classes)
    for part in ("train", "test"):
        images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if images.dtype != np.uint8:
            raise ValueError(
                f"x_{part} in {where} has the type {images.dtype}, but must be uint8: "
                "store pixel values from 0 to 255 as they are, not normalised"
            )
        if images.shape[1:] != known.shape:
            raise ValueError(
                f"x_{part} in {where} has the shape {images.shape}, but must be ({shape})"
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f"y_{part} in {where} has the type {labels.dtype}, but must hold whole numbers "
                f"from 0 to {classes - 1}"
            )
        if labels.shape == (len(images), 1):  # as Keras keeps the labels of CIFAR
            labels = arrays[f"y_{part}"] = labels[:, 0]
        if labels.shape != (len(images),):
            raise ValueError(
                f"{where} holds {len(images)} images in x_{part}, but y_{part} has the shape "
                f"{labels.shape}: there must be one label for each image"
            )
        if not len(images):
            raise ValueError(f"x_{part} in {where} holds no images")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"y_{part} in {where} holds labels from {labels.min()} to {labels.max()}, but "
                f"they must lie between 0 and {classes - 1}"
            )


def _recognise(arrays: dict[str, Any], known: Known, digests: tuple[np.ndarray, np.ndarray]) -> str:
    """Say which split the arrays are, from what they hold.

    A file's own word counts only where it claims less than the official images ("stand-in").
    """
    if arrays["split"] == "stand-in":
        return "stand-in"
    train, test = digests
    if _fingerprint(train, test) != known.everything:
        return "unverified"
    if known.train is not None:
        return "official" if _fingerprint(train) == known.train else "re-split"
    sums = _histograms(arrays["x_train"]) @ np.arange(256)
    return "official" if tuple(map(int, sums)) == known.train_sums else "re-split"


def _histograms(images: np.ndarray) -> np.ndarray:
    """How often each value stands in each channel of (N, H, W) or (N, H, W, C): (C, 256)."""
    channels = images.shape[3] if images.ndim == 4 else 1
    counts = np.zeros((channels, 256), np.int64)
    for start in range(0, len(images), 2048):  # bincount needs eight bytes a pixel
        block = images[start : start + 2048].reshape(-1, channels)
        for channel in range(channels):
            counts[channel] += np.bincount(block[:, channel], minlength=256)
    return counts


def _statistics(histograms: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel, for values in [0, 1], exact in float64."""
    values = np.arange(256) / 255
    total = histograms.sum(1)
    mean = histograms @ values / total
    variance = (histograms * (values - mean[:, None]) ** 2).sum(1) / total
    # A channel without any contrast would be divided by zero.
    std = np.maximum(np.sqrt(variance), 1 / 255)
    return tuple(map(float, mean)), tuple(map(float, std))


def _to_tensor(images: np.ndarray, keep: np.ndarray) -> Tensor:
    """Copy the images at ``keep`` into one uint8 tensor (N, C, H, W), a block at a time."""
    if images.ndim == 3:
        images = images[..., None]
    height, width, channels = images.shape[1:]
    out = torch.empty((len(keep), channels, height, width), dtype=torch.uint8)
    for start in range(0, len(keep), 2048):
        block = images[keep[start : start + 2048]]
        out[start : start + len(block)] = torch.from_numpy(block).permute(0, 3, 1, 2)
    return out


def _build(
    name: str, arrays: dict[str, Any], origin: str, where: str, validation: int, seed: int
) -> ImageDataset:
    known = KNOWN[name]
    _check_arrays(arrays, known, where)
    y_train, y_test = arrays["y_train"], arrays["y_test"]
    if not 0 <= validation < len(y_train):
        raise ValueError(
            f"validation is a number of images from 0 to {len(y_train) - 1}, to be taken from the "
            f"{len(y_train)} training images of {name}, given {validation}"
        )
    digests = _digests(arrays["x_train"], y_train), _digests(arrays["x_test"], y_test)
    split = _recognise(arrays, known, digests)

    order = np.argsort(_ranks(digests[0], seed), kind="stable")
    held = _held_out(y_train[order].astype(np.int64), validation, len(known.classes))
    parts = {"train": order[~held], "val": order[held]}
    mean, std = _statistics(
        _histograms(arrays["x_train"])
        - (_histograms(arrays["x_train"][parts["val"]]) if validation else 0)
    )

    def part(images: np.ndarray, labels: np.ndarray, keep: np.ndarray) -> Split:
        return Split(_to_tensor(images, keep), torch.from_numpy(labels[keep].astype(np.int64)))

    return ImageDataset(
        name=name,
        train=part(arrays["x_train"], y_train, parts["train"]),
        val=part(arrays["x_train"], y_train, parts["val"]),
        test=part(arrays["x_test"], y_test, np.arange(len(y_test))),
        classes=list(known.classes),
        mean=mean,
        std=std,
        source=Source(split, origin),
        groups=list(known.groups) if known.groups else None,
        group_of=torch.tensor(known.group_of) if known.group_of else None,
    )


# --------------------------------------------------------------------------------------------------
# Cache and download
# --------------------------------------------------------------------------------------------------


def cache_dir() -> Path:
    """The user's cache, or the directory that VITCORE_CACHE names. It may not exist yet."""
    named = os.environ.get("VITCORE_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("vitcore"))


@contextlib.contextmanager
def _workspace(directory: Path) -> Iterator[Path]:
    """A folder for unfinished files beside the place where they will end, gone afterwards."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob(".partial-*"):  # left by a process that was killed
            if time.time() - old.stat().st_mtime > 24 * 3600:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"the disk that holds {directory} is full, and nothing unfinished was left there: "
                "free about 500 MB, or name another directory by VITCORE_CACHE",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OSError(
                error.errno,
                f"{directory} cannot be written to: name another directory by VITCORE_CACHE",
            ) from error
        raise


def _store(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz file under a temporary name and put it in place when it is whole."""
    with _workspace(path.parent) as folder:
        part = folder / path.name
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


def _parse_raw(name: str, contents: Callable[[str], bytes]) -> dict[str, Any]:
    """Turn the files that the official homes hand out into the four arrays."""
    if name == "mnist":
        x_train, y_train, x_test, y_test = (_parse_idx(contents(file)) for file in FILES[name])
    else:
        (archive,) = FILES[name]
        with tarfile.open(fileobj=io.BytesIO(contents(archive)), mode="r:gz") as tar:
            x_train, y_train = _parse_cifar(tar, "cifar-100-binary/train.bin")
            x_test, y_test = _parse_cifar(tar, "cifar-100-binary/test.bin")
    parts = (x_train, y_train, x_test, y_test)
    return {**dict(zip(_ARRAYS, parts, strict=True)), "split": "official"}


def _parse_idx(raw: bytes) -> np.ndarray:
    """One gzipped IDX file: two zeros, the type (8: uint8), the rank, the sizes, the values."""
    data = gzip.decompress(raw)
    if data[:3] != b"\0\0\x08":
        raise ValueError("it is not an IDX file of bytes")
    rank = data[3]
    sizes = np.frombuffer(data, ">u4", rank, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(sizes)


def _parse_cifar(tar: tarfile.TarFile, member: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-100's binary version: group, class, then 3 x 32 x 32 values, image after image."""
    file = tar.extractfile(member)
    if file is None:
        raise ValueError(f"{member} is not a file")
    records = np.frombuffer(file.read(), np.uint8).reshape(-1, 2 + 3072)
    images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 1].copy()


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision's download waits for a silent server without end; sockets made here do not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _fetch(file: str, md5: str, mirrors: list[str], folder: Path) -> bytes:
    """Download one file with torchvision until its checksum is right, from mirror after mirror."""
    import_torchvision()
    from torchvision.datasets.utils import check_integrity, download_url

    problems = []
    for mirror in list(mirrors):
        address = mirror.rstrip("/") + "/" + file
        path = folder / file
        problem = ""
        for _ in range(DOWNLOAD_ATTEMPTS):
            path.unlink(missing_ok=True)
            try:
                # torchvision prints a line for each retry; what matters is in the error below.
                with _socket_timeout(DOWNLOAD_TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
                    download_url(address, str(folder), filename=file, md5=md5)
                mirrors.remove(mirror)  # the next file is asked for here first
                mirrors.insert(0, mirror)
                return path.read_bytes()
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                problem = str(error) or type(error).__name__
            if not path.exists() or check_integrity(str(path), md5):
                break  # nothing arrived: asking the same server again would give the same
            problem = f"{path.stat().st_size} bytes arrived, with a wrong checksum"
        problems.append(f"{address}: {problem}")
    raise DataUnavailableError("; ".join(problems))


def _download(name: str, cache: Path, mirrors: Sequence[str] | None) -> dict[str, Any]:
    """Fetch a data set, keep it in the cache as NAME.npz and return its arrays."""
    ask = list(mirrors or MIRRORS[name])
    try:
        with _workspace(cache) as folder:
            raw = {file: _fetch(file, md5, ask, folder) for file, md5 in FILES[name].items()}
    except DataUnavailableError as error:
        raise DataUnavailableError(
            f"{name} could not be downloaded. {_advice(name)} ({error})"
        ) from None
    arrays = _parse_raw(name, raw.__getitem__)
    _store(cache / f"{name}.npz", arrays)
    return arrays


def _advice(name: str) -> str:
    count = len(FILES[name])
    files = f"its {count} .gz files" if count > 1 else next(iter(FILES[name]))
    return (
        f"By hand: put {name}.npz (uint8 arrays x_train, y_train, x_test, y_test) or, as they are "
        f"handed out, {files} into {cache_dir()}, or into a directory named by data_dir, --data or "
        "VITCORE_DATA. To go on without them: stand_in=True, --stand-in or VITCORE_STANDIN=1 "
        "generates drawings that stand in for the images"
    )


def _find(name: str, directory: Path) -> tuple[dict[str, Any], str, str] | None:
    """Look in one directory for NAME.npz or the official files: (arrays, what, where)."""
    path = directory / f"{name}.npz"
    if path.exists():
        return _read_npz(path), f"{name}.npz", str(path)
    paths = [directory / file for file in FILES[name]]
    if not all(path.exists() for path in paths):
        return None
    for path, md5 in zip(paths, FILES[name].values(), strict=True):
        if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() != md5:
            raise ValueError(
                f"{path} has another checksum than the official file ({md5}): download it again"
            )
    arrays = _parse_raw(name, lambda file: (directory / file).read_bytes())
    return arrays, "the official files", str(directory)


def _wants_stand_in(stand_in: bool | str | None) -> bool | str:
    if stand_in is None:
        return os.environ.get("VITCORE_STANDIN", "").lower() in ("1", "true", "yes", "on")
    if stand_in is True or stand_in is False or stand_in == "only":
        return stand_in
    raise ValueError(f'stand_in is None, True, False or "only", given {stand_in!r}')


def _stand_in(name: str, cache: Path) -> dict[str, Any]:
    """The generated images, from the cache where they are there and whole."""
    from . import _standin

    path = cache / f"{name}-stand-in-{_standin.VERSION}.npz"
    with contextlib.suppress(ValueError, OSError):
        return _read_npz(path)
    arrays = _standin.generate(name)
    try:
        _store(path, arrays)
    except OSError as error:  # it serves as well without being kept
        warnings.warn(f"the stand-in is not kept in the cache: {error}", stacklevel=2)
    return arrays


def load_dataset(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    stand_in: bool | str | None = None,
    validation: int = 5000,
    seed: int = 0,
    mirrors: Sequence[str] | None = None,
) -> ImageDataset:
    """Load "mnist" or "cifar100", from the first of these places that has it:

    1. ``data_dir``, or the directory that VITCORE_DATA names: ``NAME.npz`` with the uint8 arrays
       x_train, y_train, x_test, y_test (as in Keras's file), or the files of the official homes;
    2. the user's cache (VITCORE_CACHE names another);
    3. a download with checksums from several mirrors, which is then kept in the cache.

    stand_in=True (or VITCORE_STANDIN=1, if None) puts generated drawings of the same shapes and
    types in the place of the download; "only" always takes them; False never does.

    ``validation`` images are taken from the training part, class by class in the classes'
    proportions. Which ones, and the order of the training images, follows from a hash of each
    image and ``seed``: not from the order in the file, nor from any random state. mean and std
    are those of the training images that are left. The test images keep the file's order.

    ``source`` says which split it is, from the content: a file's own word is not taken for it.

    Raises ValueError for an unknown name or a file that does not hold what it should,
    FileNotFoundError for a ``data_dir`` that is not there, DataUnavailableError where the images
    cannot be had, OSError for a full disk.
    """
    if name not in KNOWN:
        raise ValueError(
            f"there is no data set {name!r}: use one of {sorted(KNOWN)}, or load_folder for "
            "images of your own"
        )
    wanted = _wants_stand_in(stand_in)
    if isinstance(validation, bool) or not isinstance(validation, int):
        raise TypeError(f"validation is a number of images, given {validation!r}")
    _check_seed(seed)
    cache = cache_dir()

    def build(arrays: dict[str, Any], origin: str, where: str) -> ImageDataset:
        return _build(name, arrays, origin, where, validation, seed)

    def drawn() -> ImageDataset:
        return build(_stand_in(name, cache), "generated", f"the stand-in for {name}")

    if wanted == "only":
        return drawn()
    directory = data_dir or os.environ.get("VITCORE_DATA")
    if directory:
        folder = Path(directory).expanduser()
        if data_dir and not folder.is_dir():
            raise FileNotFoundError(
                f"there is no directory {folder}: name one that holds {name}.npz, or none"
            )
        found = _find(name, folder)
        if found:
            return build(found[0], f"{found[1]} in a directory", found[2])
    found = None
    try:
        found = _find(name, cache)
        if found:
            _check_arrays(found[0], KNOWN[name], found[2])
    except ValueError as error:
        # Whatever broke the cached copy, it can be had again.
        warnings.warn(f"the cached copy is not used: {error}", stacklevel=2)
        found = None
    if found:
        return build(found[0], f"{found[1]} in the cache", found[2])
    if wanted:
        return drawn()
    return build(_download(name, cache, mirrors), "download", f"the download of {name}")


# --------------------------------------------------------------------------------------------------
# Batches
# --------------------------------------------------------------------------------------------------


class Batches:
    """Batches of a split: (images floating point (B, C, H, W), labels int64 (B,)), over and over.

    The whole split lies on the device as uint8. A batch is taken out, divided by 255, augmented
    (``augment(images, generator)``, values in [0, 1]), mixed (``mix(images, labels, generator)``,
    whose targets, soft labels (B, K), stand in the labels' place), resized where ``sizes`` gives a
    side in pixels for the epoch (one for each; later epochs have the last), and normalised with
    mean and std.

    Order, augmentation and mixing follow from (seed, epoch) alone, so a run that is resumed at
    ``set_epoch(e)`` sees what the unbroken run saw. Every batch has its own random state, drawn
    from seed, epoch, batch and rank. With ``world_size`` above 1 each rank takes its share of
    every batch of ``world_size * batch_size`` images: none is repeated, and none is left out unless
    ``drop_last``, which gives all ranks the same number of full batches.
    """

    def __init__(
        self,
        split: Split | tuple[Tensor, Tensor],
        batch_size: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        mix: Mix | None = None,
        sizes: Sequence[int] = (),
        device: str | torch.device = "cpu",
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        images, labels = split
        _check_batches(images, labels, batch_size, mean, std, rank, world_size)
        _check_seed(seed)
        if any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
            raise ValueError(f"sizes are whole numbers of pixels above zero, given {list(sizes)}")
        self.sizes = tuple(sizes)
        self.device = torch.device(device)
        self.images = images.to(self.device)
        self.labels = labels.to(self.device)
        self.batch_size = batch_size
        self.mean, self.std = tuple(mean), tuple(std)
        self.shuffle, self.seed = shuffle, seed
        self.augment, self.mix = augment, mix
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.epoch = 0
        self._mean, self._std = _channel_columns(mean, std, self.device)
        self._generator = torch.Generator(device=self.device)

    @property
    def num_images(self) -> int:
        """How many images an epoch of this rank has."""
        whole = len(self.labels)
        if self.drop_last:
            return len(self) * self.batch_size
        return len(range(self.rank, whole, self.world_size))

    def __len__(self) -> int:
        if self.drop_last:
            return len(self.labels) // (self.batch_size * self.world_size)
        return -(-self.num_images // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, counted from 0, that the next iteration goes through."""
        self.epoch = epoch

    def _state(self, *numbers: int) -> int:
        """One seed from several numbers, such that neighbouring numbers share nothing."""
        value = np.zeros(1, np.uint64)
        for number in numbers:
            value = _mix(value ^ np.uint64(number % 2**64))
        return int(value[0] >> np.uint64(1))

    def order(self) -> Tensor:
        """The positions of this rank's images in the split, in the order of this epoch."""
        count = len(self.labels)
        if self.shuffle:
            # Drawn on the CPU, so that every device goes through the images in the same order.
            generator = torch.Generator().manual_seed(self._state(self.seed, self.epoch))
            positions = torch.randperm(count, generator=generator)
        else:
            positions = torch.arange(count)
        return positions[self.rank :: self.world_size][: self.num_images]

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        epoch = self.epoch
        # Neighbours lie together in memory where nothing is shuffled: a view saves the gathering.
        plain = not self.shuffle and self.world_size == 1
        order = None if plain else self.order().to(self.device)
        for batch in range(len(self)):
            start, end = batch * self.batch_size, (batch + 1) * self.batch_size
            if order is None:
                images, labels = self.images[start:end], self.labels[start:end].clone()
            else:
                images = self.images.index_select(0, order[start:end])
                labels = self.labels.index_select(0, order[start:end])
            changed = images.float().div_(255)
            if self.augment is None and self.mix is None and not self.sizes:
                yield changed.sub_(self._mean).div_(self._std), labels
                continue
            self._generator.manual_seed(self._state(self.seed, epoch, batch + 1, self.rank))
            if self.augment is not None:
                changed = self.augment(changed, self._generator)
            if self.mix is not None:
                changed, labels = self.mix(changed, labels, self._generator)
            if self.sizes:
                changed = self._resize(changed, self.sizes[min(epoch, len(self.sizes) - 1)])
            yield (changed - self._mean).div_(self._std), labels

    @staticmethod
    def _resize(images: Tensor, size: int) -> Tensor:
        if images.shape[-2:] == (size, size):
            return images
        return torch.nn.functional.interpolate(
            images, size=(size, size), mode="bilinear", antialias=True
        )


def _check_batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    mean: Sequence[float],
    std: Sequence[float],
    rank: int,
    world_size: int,
) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise TypeError(
            f"Batches takes uint8 images (N, C, H, W), given {images.dtype} "
            f"{tuple(images.shape)}: they are divided by 255 one batch at a time"
        )
    if len(images) != len(labels):
        raise ValueError(f"there are {len(images)} images but {len(labels)} labels")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size is a whole number above zero, given {batch_size!r}")
    if not len(mean) == len(std) == images.shape[1]:
        raise ValueError(
            f"mean and std have one value per channel: the images have {images.shape[1]} "
            f"channels, given {len(mean)} and {len(std)} values"
        )
    if min(std) <= 0:
        raise ValueError(f"every value of std must be above zero, given {tuple(std)}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank lies between 0 and world_size - 1 = {world_size - 1}, given {rank}")


# --------------------------------------------------------------------------------------------------
# Images of one's own
# --------------------------------------------------------------------------------------------------

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")


def _to_bytes(values: np.ndarray, path: Path) -> np.ndarray:
    """Bring uint8, uint16, bool or floating point values in [0, 1] to uint8."""
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype == np.uint16:
        return np.round(values / 257).astype(np.uint8)
    if np.issubdtype(values.dtype, np.floating):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError(
                f"{path} holds floating point values outside [0, 1]: scale them, or store uint8"
            )
        return np.round(values * 255).astype(np.uint8)
    raise ValueError(
        f"{path} holds values of the type {values.dtype}: store uint8, uint16 or floating point "
        "values in [0, 1]"
    )


def _decode(path: Path) -> np.ndarray:
    """Read an image file as uint8 (H, W, C), with as many channels as the file has."""
    if path.suffix.lower() == ".npy":
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, EOFError, ValueError) as error:
            raise ValueError(f"{path} cannot be read as a .npy array: {error}") from error
        if values.ndim == 2:
            values = values[..., None]
        if values.ndim != 3 or 0 in values.shape:
            raise ValueError(
                f"{path} has the shape {values.shape}, but must be (H, W) or (H, W, C)"
            )
        return _to_bytes(values, path)
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            picture: Image.Image = ImageOps.exif_transpose(file)  # as the camera was held
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} cannot be read as an image: {error}") from error
    if picture.mode.startswith("I"):  # 16 bits a pixel; some versions of Pillow widen it to 32
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"{path} has more than 16 bits a pixel: store 8 or 16")
        return _to_bytes(values.astype(np.uint16), path)[..., None]
    if picture.mode == "F":
        return _to_bytes(np.asarray(picture), path)[..., None]
    if picture.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in picture.info:
        # What shows through is white, as on paper; dropping alpha would show what lay beneath it.
        picture = picture.convert("RGBA")
        paper = Image.new("RGBA", picture.size, "white")
        paper.alpha_composite(picture)
        grey = file.mode in ("LA", "La")
        picture = paper.convert("L" if grey else "RGB")
    if picture.mode in ("1", "L"):
        return np.asarray(picture.convert("L"))[..., None]
    return np.asarray(picture.convert("RGB"))


def _check_image_size(image_size: int | tuple[int, int]) -> tuple[int, int]:
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2 or any(
        isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in sides
    ):
        raise ValueError(
            f"image_size is a whole number above zero or (height, width), given {image_size!r}"
        )
    return sides[0], sides[1]


def _fit(values: np.ndarray, size: tuple[int, int], channels: int | None, path: Path) -> Tensor:
    """Give uint8 (H, W, C) the wanted channels, resize it to cover ``size`` and cut its centre."""
    given = values.shape[2]
    if channels is not None and given != channels:
        if (given, channels) == (1, 3):
            values = values.repeat(3, axis=2)
        elif (given, channels) == (3, 1):  # the luma of ITU-R 601, as Pillow and MNIST tools do
            values = np.round(values @ np.array([0.299, 0.587, 0.114]))[..., None].astype(np.uint8)
        else:
            raise ValueError(
                f"{path} has {given} channels, but {channels} are wanted: only grey (1) and "
                "colour (3) can be turned into each other"
            )
    image = torch.from_numpy(np.array(values)).permute(2, 0, 1)
    height, width = image.shape[1:]
    factor = max(size[0] / height, size[1] / width)
    covering = (max(round(height * factor), size[0]), max(round(width * factor), size[1]))
    if covering != (height, width):
        image = torch.nn.functional.interpolate(
            image[None].float(), covering, mode="bilinear", antialias=True, align_corners=False
        )[0]
        image = image.round().clamp(0, 255).to(torch.uint8)
    top, left = (covering[0] - size[0]) // 2, (covering[1] - size[1]) // 2
    return image[:, top : top + size[0], left : left + size[1]].contiguous()


def read_image(
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int],
    channels: int | None = None,
    *,
    invert: bool = False,
) -> Tensor:
    """Read one picture as uint8 (C, H, W): resized to cover the size, then cut about its centre.

    channels=1 turns colour into grey, 3 repeats grey, None keeps what the file has (transparent
    places become white). A .npy file holds (H, W) or (H, W, C) with any number of channels; 16-bit
    values are brought to 8. invert=True swaps dark and light: MNIST is white on black, ink on
    paper is not.

    Raises ValueError that names a file which cannot be read, FileNotFoundError.
    """
    size = _check_image_size(image_size)
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"there is no file {file}")
    image = _fit(_decode(file), size, channels, file)
    return 255 - image if invert else image


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
    size = _check_image_size(image_size)
    _check_seed(seed)
    if channels is not None and (isinstance(channels, bool) or channels < 1):
        raise ValueError(f"channels is a whole number above zero or None, given {channels!r}")
    files = _class_files(root)
    # Read once to small tensors, with the channels that each file has.
    images = [[_fit(_decode(f), size, channels, f) for f in group] for group in files.values()]
    channels = channels or _common_channels(images, list(files.values()))
    stacked = torch.stack(
        [
            _fit(image.permute(1, 2, 0).numpy(), size, channels, file)
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
    digests = _digests(stacked.numpy(), np.zeros(len(labels), np.uint8))
    order = np.argsort(_ranks(digests, seed), kind="stable")
    held = _held_out(labels[order], n_val + n_test, len(counts), spare=1)
    held_order = order[held]
    tested = _held_out(labels[held_order], n_test, len(counts))

    def part(keep: np.ndarray) -> Split:
        return Split(stacked[torch.from_numpy(keep)], torch.from_numpy(labels[keep]))

    train = part(order[~held])
    mean, std = _statistics(_histograms(train.images.permute(0, 2, 3, 1).numpy()))
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
