# SPDX-License-Identifier: MIT
"""Small files and splits that look like the real ones, for the tests of ``vitcore.data``."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vitcore import data
from vitcore.data import (
    Batches,
    ImageDataset,
    Split,
    content,
    load_dataset,
)


def tiny(name: str = "mnist", train: int = 120, test: int = 40, seed: int = 1) -> dict:
    """Random arrays of the right shapes; every class is there in both parts where it fits."""
    known = data.KNOWN[name]
    classes = len(known.classes)
    values = int(np.prod(known.shape))
    # Not from numpy's generators, whose numbers may differ from version to version.
    noise = hashlib.shake_128(bytes([seed])).digest((train + test) * values)
    images = np.frombuffer(noise, np.uint8).reshape(train + test, *known.shape)
    return {
        "x_train": images[:train].copy(),
        "y_train": (np.arange(train) % classes).astype(np.uint8),
        "x_test": images[train:].copy(),
        "y_test": (np.arange(test) % classes).astype(np.uint8),
    }


def save(folder: Path, arrays: dict, name: str = "mnist") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.npz"
    np.savez(path, **arrays)
    return path


def know(monkeypatch, name: str, arrays: dict) -> None:
    """Let these arrays be the official ones."""
    train = content.digest_images(arrays["x_train"], arrays["y_train"])
    test = content.digest_images(arrays["x_test"], arrays["y_test"])
    changes: dict[str, Any] = {"everything": content.fingerprint(train, test)}
    if data.KNOWN[name].train:
        changes["train"] = content.fingerprint(train)
    else:
        sums = arrays["x_train"].astype(np.int64).sum((0, 1, 2))
        changes["train_sums"] = tuple(map(int, sums))
    known = replace(data.KNOWN[name], **changes)
    monkeypatch.setitem(data.KNOWN, name, known)


def load(folder: Path, name: str = "mnist", **options) -> ImageDataset:
    return load_dataset(name, folder, **{"validation": 20, **options})


def as_set(part: Split) -> Counter:
    return Counter(
        (image.numpy().tobytes(), int(label))
        for image, label in zip(part.images, part.labels, strict=True)
    )


def numbered(count: int = 103, channels: int = 1) -> Split:
    """Images that carry their number, so that a batch tells which images it holds."""
    images = torch.arange(count).to(torch.uint8).view(-1, 1, 1, 1).expand(-1, channels, 4, 4)
    return Split(images.contiguous(), torch.arange(count))


PLAIN: dict[str, Any] = {"mean": (0.0,), "std": (1.0,)}


def labels_of(batches: Batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def noise(images, generator):
    return images + torch.rand(images.shape, generator=generator)


def picture(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image.convert(mode) if mode else image).save(path)
    return path


def colours(seed: int = 0, size: tuple[int, ...] = (20, 30, 3)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def real(name: str, **options) -> ImageDataset:
    directory = os.environ.get("VITCORE_DATA")
    if not directory or not (Path(directory) / f"{name}.npz").exists():
        pytest.skip(f"VITCORE_DATA holds no {name}.npz with the real images")
    return load_dataset(name, directory, **options)
