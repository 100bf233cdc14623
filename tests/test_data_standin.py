# SPDX-License-Identifier: MIT
"""The stand-in has the real shapes and is learned in seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vitcore import MODELS, ViT, data
from vitcore.data import (
    Batches,
    _standin,
    load_dataset,
)
from vitcore.data.known import ARRAYS


@pytest.mark.parametrize("name", ["mnist", "cifar100"])
def test_the_stand_in_has_the_real_shapes(name):
    arrays = _standin.generate(name, train=200, test=100)
    known = data.KNOWN[name]
    assert arrays["x_train"].shape == (200, *known.shape)
    assert arrays["x_test"].shape == (100, *known.shape)
    assert arrays["x_train"].dtype == arrays["y_train"].dtype == np.uint8
    classes = len(known.classes)
    assert np.bincount(arrays["y_train"]).tolist() == [200 // classes] * classes
    again = _standin.generate(name, train=200, test=100)
    assert all(np.array_equal(arrays[key], again[key]) for key in ARRAYS)
    other = _standin.generate(name, 1, train=200, test=100)
    assert not np.array_equal(arrays["x_train"], other["x_train"])
    # No test image is a training image, also where both parts have the same size.
    equal = _standin.generate(name, train=100, test=100)
    train, test = ({image.tobytes() for image in equal[f"x_{part}"]} for part in ("train", "test"))
    assert not train & test


def accuracy(model: ViT, batches: Batches) -> float:
    model.eval()
    with torch.inference_mode():
        right = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in batches)
    return right / batches.num_images


@pytest.mark.parametrize(("name", "epochs"), [("mnist", 3), ("cifar100", 5)])
def test_the_stand_in_is_learned_in_seconds(no_data, name, epochs):
    loaded = load_dataset(name, stand_in=True)
    assert loaded.source.split == "stand-in"
    assert str(loaded.source).startswith("stand-in: generated drawings")
    assert [len(p.labels) for p in (loaded.train, loaded.val, loaded.test)] == [
        10_000,
        5_000,
        2_000,
    ]
    torch.manual_seed(0)
    config = MODELS["vit_mnist"]
    if name == "cifar100":
        config = replace(
            config, image_size=32, patch_size=8, in_channels=3, num_classes=100, depth=2
        )
    model = ViT(config)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    common: dict[str, Any] = {"mean": loaded.mean, "std": loaded.std}
    batches = Batches(loaded.train, 128, shuffle=True, **common)
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for images, labels in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    assert accuracy(model, Batches(loaded.test, 500, **common)) > 0.9
