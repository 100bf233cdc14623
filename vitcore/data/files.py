# SPDX-License-Identifier: MIT
"""Reads the files of the named data sets, without believing them (chapter 6)."""

from __future__ import annotations

import gzip
import io
import math
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from .known import FILES, Known

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
        raise ValueError(
            f"{path} is not a readable .npz file with x_train, y_train, x_test and y_test "
            f"({error}): put a whole one in its place"
        ) from error
    for part in ("train", "test"):
        _check_part(arrays, part, known, path)
    return arrays


def _check_claim(archive: zipfile.ZipFile, name: str) -> None:
    """Raise ValueError unless what an array claims to be is what its file holds."""
    with archive.open(f"{name}.npy") as file:
        claimed = claimed_bytes(file)
    if claimed != archive.getinfo(f"{name}.npy").file_size or claimed > MAX_BYTES:
        raise ValueError(f"{name} claims {claimed:,} bytes")


def claimed_bytes(file: IO[bytes]) -> int:
    """How long a .npy file has to be for the array that its header announces.

    Looked at before anything is read: memory for the array is taken before its values are missed.
    """
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"its format {version} is that of tables")
    return file.tell() + math.prod(shape) * dtype.itemsize


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
        x_train, y_train, x_test, y_test = (_parse_idx(contents(file)) for file in FILES[name])
    else:
        (archive,) = FILES[name]
        with tarfile.open(fileobj=io.BytesIO(contents(archive)), mode="r:gz") as tar:
            x_train, y_train = _parse_cifar(tar, "cifar-100-binary/train.bin")
            x_test, y_test = _parse_cifar(tar, "cifar-100-binary/test.bin")
    parts = (x_train, y_train, x_test, y_test)
    return {**dict(zip(ARRAYS, parts, strict=True)), "split": "official"}


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
