# SPDX-License-Identifier: MIT
"""MNIST and CIFAR-100: classes, sums, addresses, and readers that believe no file (chapter 6)."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# The five classes of each group. Both are numbered in alphabetical order.
_MEMBERS = {
    "aquatic_mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food_containers": "bottle bowl can cup plate",
    "fruit_and_vegetables": "apple mushroom orange pear sweet_pepper",
    "household_electrical_devices": "clock keyboard lamp telephone television",
    "household_furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large_carnivores": "bear leopard lion tiger wolf",
    "large_man-made_outdoor_things": "bridge castle house road skyscraper",
    "large_natural_outdoor_scenes": "cloud forest mountain plain sea",
    "large_omnivores_and_herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium_mammals": "fox porcupine possum raccoon skunk",
    "non-insect_invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small_mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles_1": "bicycle bus motorcycle pickup_truck train",
    "vehicles_2": "lawn_mower rocket streetcar tank tractor",
}
_GROUP_OF = {name: g for g, names in enumerate(_MEMBERS.values()) for name in names.split()}
CIFAR100_GROUPS = tuple(_MEMBERS)
CIFAR100_CLASSES = tuple(sorted(_GROUP_OF))
CIFAR100_GROUP_OF = tuple(_GROUP_OF[name] for name in CIFAR100_CLASSES)


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

# Where to ask for them, in this order: for MNIST as torchvision (the first two) and TensorFlow
# Datasets do; for CIFAR-100 as Apache MXNet does, then the data set's home, slow since June 2026
# (pytorch/vision#9536). None has been tried yet: the tests ask a server of their own. What arrives
# counts only if its checksum is right, so a mirror can be gone but not lie.
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

MAX_BYTES = 4 * 2**30  # of one array in a .npz file; that of CIFAR-100 has 150 MB
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


def read_npz(path: Path, known: Known) -> dict[str, Any]:
    """Read the four arrays and the optional ``split`` of a .npz file; nothing is unpickled."""
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile) or file.zip is None:
                raise ValueError("it holds one array")
            missing = [name for name in ARRAYS if name not in file.files]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            for name in ARRAYS:
                _check_claim(file.zip, name)
            arrays: dict[str, Any] = {name: file[name] for name in ARRAYS}
            arrays["split"] = str(file["split"]) if "split" in file.files else ""
    except MemoryError:
        raise
    except Exception as error:  # NumPy lets through whatever a damaged file provokes
        if isinstance(error, OSError) and error.errno is not None:
            raise
        wanted = "a readable .npz file with x_train, y_train, x_test and y_test"
        problem = f"{path} is not {wanted} ({error})"
        raise ValueError(f"{problem}: put a whole one in its place") from error
    for part in ("train", "test"):
        _check_part(arrays, part, known, path)
    return arrays


def _check_claim(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ValueError unless an array's file is as long as its header announces.

    Looked at before anything is read: memory for the array is taken before its values are missed.
    """
    form = np.lib.format
    read = {(1, 0): form.read_array_header_1_0, (2, 0): form.read_array_header_2_0}
    with archive.open(f"{name}.npy") as file:
        shape, _, dtype = read[form.read_magic(file)](file)
        claimed = file.tell() + math.prod(shape) * dtype.itemsize
    if claimed != archive.getinfo(f"{name}.npy").file_size or claimed > MAX_BYTES:
        raise ValueError(f"{name} claims {claimed:,} bytes")


def _check_part(arrays: dict[str, Any], part: str, known: Known, path: Path) -> None:
    """Raise ValueError unless a part is what a data set of this name must hold."""
    x, y = f"x_{part} in {path}", f"y_{part} in {path}"
    images, labels = arrays[f"x_{part}"], arrays[f"y_{part}"]
    if labels.shape == (len(images), 1):  # as Keras keeps the labels of CIFAR
        labels = arrays[f"y_{part}"] = labels[:, 0]
    last = len(known.classes) - 1
    if images.dtype != np.uint8:
        problem = f"{x} has the type {images.dtype}; store uint8 from 0 to 255, not normalised"
    elif images.shape[1:] != known.shape or not len(images):
        shape = ", ".join(map(str, ("N", *known.shape)))
        problem = f"{x} has the shape {images.shape}; give ({shape}), one image at least"
    elif not np.issubdtype(labels.dtype, np.integer):
        problem = f"{y} has the type {labels.dtype}; give whole numbers from 0 to {last}"
    elif labels.shape != (len(images),):
        problem = f"{y} has the shape {labels.shape}; give a label for each of {len(images)} images"
    elif labels.min() < 0 or labels.max() > last:
        problem = f"{y} holds labels from {labels.min()} to {labels.max()}; give 0 to {last}"
    else:
        return
    raise ValueError(problem)


def parse_raw(name: str, contents: Callable[[str], bytes]) -> dict[str, Any]:
    """Turn the files that the official homes hand out into the four arrays."""
    if name == "mnist":
        parts = [_parse_idx(contents(file)) for file in FILES[name]]
    else:
        (archive,) = FILES[name]
        with tarfile.open(fileobj=io.BytesIO(contents(archive)), mode="r:gz") as tar:
            parts = [*_parse_cifar(tar, "train.bin"), *_parse_cifar(tar, "test.bin")]
    return {**dict(zip(ARRAYS, parts, strict=True)), "split": "official"}


def _parse_idx(raw: bytes) -> np.ndarray:
    """One gzipped IDX file: two zeros, the type (8: uint8), the rank, the sizes, the values."""
    data = gzip.decompress(raw)
    if data[:3] != b"\0\0\x08":
        raise ValueError("it is not an IDX file of bytes")
    sizes = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + sizes.nbytes).reshape(sizes)


def _parse_cifar(tar: tarfile.TarFile, member: str) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-100's binary version: group, class, then 3 x 32 x 32 values, image after image."""
    file = tar.extractfile(f"cifar-100-binary/{member}")
    if file is None:
        raise ValueError(f"{member} is not a file")
    records = np.frombuffer(file.read(), np.uint8).reshape(-1, 2 + 3072)
    images = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 1].copy()
