# SPDX-License-Identifier: MIT
"""Proves `vitcore/models.py`: the named sizes are those that were published."""

import pytest
import torch

from vitcore import MODELS, create_model


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit_tiny_patch16_224", 5_717_416),
        ("vit_small_patch16_224", 22_050_664),
        ("vit_base_patch16_224", 86_567_656),
        ("vit_large_patch16_224", 304_326_632),
    ],
)
def test_named_sizes_have_the_published_number_of_parameters(name, count):
    with torch.device("meta"):
        model = create_model(name)
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def test_small_named_sizes():
    mnist = create_model("vit_mnist")
    assert mnist(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert mnist.cls_token is None
    assert mnist.grid == (4, 4)
    cifar = create_model("vit_cifar", depth=1)
    assert cifar(torch.zeros(2, 3, 32, 32)).shape == (2, 100)
    assert cifar.grid == (8, 8)
    assert len(cifar.blocks) == 1
    assert set(MODELS) == {
        "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224",
        "vit_large_patch16_224", "vit_mnist", "vit_cifar",
    }  # fmt: skip
