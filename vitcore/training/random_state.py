# SPDX-License-Identifier: MIT
"""The random numbers of a process: seeded, written down, put back."""

from __future__ import annotations

import random
import sys
from typing import Any

import torch

from .files import Weights


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's (where it is in use) and torch's random numbers, all devices."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)


def pack_random(device: torch.device) -> tuple[Weights, dict[str, Any]]:
    """The state of all random numbers that training may draw: tensors, and the rest as JSON."""
    tensors = {"random.cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    version, numbers, gauss = random.getstate()
    values: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if "numpy" in sys.modules:
        # A reader's own augmentation may draw from numpy.
        name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
        values["numpy"] = [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
    return tensors, values


def unpack_random(tensors: Weights, values: dict[str, Any], device: torch.device) -> None:
    """Put back what `pack_random` gave."""
    torch.set_rng_state(tensors["random.cpu"])
    if device.type == "cuda" and "random.cuda" in tensors:
        torch.cuda.set_rng_state(tensors["random.cuda"], device)
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in values:
        import numpy

        numpy.random.set_state(tuple(values["numpy"]))  # noqa: NPY002
