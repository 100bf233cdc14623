# SPDX-License-Identifier: MIT
"""The random numbers of a process: seeded, written down, put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .config import whole_number
from .files import Weights


def set_seed(seed: int) -> None:
    """Seed Python's, numpy's (where it is in use) and torch's random numbers, all devices."""
    seed = whole_number("seed", seed)
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn or seeded inside, random numbers go on afterwards as if it had not been."""
    python, numpy = random.getstate(), sys.modules.get("numpy")
    state = numpy.random.get_state() if numpy else None
    # set_seed seeds every GPU, not the run's alone.
    gpus = torch.cuda.is_available() and (device.type == "cuda" or torch.cuda.is_initialized())
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count()) if gpus else []):
            yield
    finally:
        random.setstate(python)
        if numpy:
            numpy.random.set_state(state)
        if mps is not None:
            torch.mps.set_rng_state(mps)


def pack_random(
    device: torch.device, generators: Sequence[torch.Generator] = ()
) -> tuple[Weights, dict[str, Any]]:
    """The state of all random numbers that training may draw: tensors, and the rest as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    tensors |= {f"generator.{i}": g.get_state() for i, g in enumerate(generators)}
    version, numbers, gauss = random.getstate()
    values: dict[str, Any] = {"python": [version, list(numbers), gauss]}
    if "numpy" in sys.modules:
        # A reader's own augmentation may draw from numpy.
        name, keys, position, has_gauss, cached = sys.modules["numpy"].random.get_state()
        values["numpy"] = [name, keys.tolist(), int(position), int(has_gauss), float(cached)]
    return tensors, values


def unpack_random(
    tensors: Weights,
    values: dict[str, Any],
    device: torch.device,
    generators: Sequence[torch.Generator] = (),
) -> None:
    """Put back what `pack_random` gave."""
    torch.set_rng_state(tensors["cpu"])
    if device.type == "cuda" and "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
    for index, generator in enumerate(generators):
        generator.set_state(tensors[f"generator.{index}"])
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in values:
        import numpy

        numpy.random.set_state(tuple(values["numpy"]))  # noqa: NPY002
