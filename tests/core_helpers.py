# SPDX-License-Identifier: MIT
"""What the tests of the model core (chapters 1 to 5) share: small models, weights, one sentence."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn

import vitcore
from vitcore import ViT

PACKAGE = Path(vitcore.__file__).parent


def small_vit(**options: Any) -> ViT:
    """A ViT of a few thousand parameters on images of 12 by 16 pixels, seed 0."""
    torch.manual_seed(0)
    fields: dict[str, Any] = {
        "image_size": (12, 16), "patch_size": 4, "in_channels": 3, "num_classes": 5,
        "dim": 24, "depth": 2, "heads": 3,
    }  # fmt: skip
    return ViT(**{**fields, **options}).eval()


def small_images(count: int = 2, size: tuple[int, int] = (12, 16), channels: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, channels, *size, generator=generator)


Model = TypeVar("Model", bound=nn.Module)


def randomise(model: Model, seed: int = 0) -> Model:
    """Draw every parameter anew so that each matters: norms, biases and layer scale as well."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            elif parameter.ndim == 1 and name.endswith(("weight", "gamma")):
                parameter.copy_(1 + 0.2 * noise)
            else:
                parameter.copy_(0.3 * noise)
    return model


def largest_difference(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    return (a - b).abs().max().item()


def says_in_one_sentence(kind: type[Exception], call: Callable[[], object], *words: object) -> str:
    """Check that a call is refused by vitcore itself, in one sentence that holds these words."""
    with pytest.raises(kind) as caught:
        call()
    assert type(caught.value) is kind
    frame = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert Path(frame.filename).parent == PACKAGE, f"raised outside vitcore, in {frame.filename}"
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert ". " not in message, f"more than one sentence: {message}"
    assert 20 < len(message) < 400, message
    assert ";" in message or "so " in message, f"does not say how to mend it: {message}"
    for word in words:
        assert str(word) in message, f"{word!r} is not in: {message}"
    return message
