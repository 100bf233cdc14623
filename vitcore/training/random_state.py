# SPDX-License-Identifier: MIT
"""The random numbers of a process: seeded, written down, put back."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from .._inputs import check_whole
from .arguments import checked
from .files import Weights


@checked(seed=check_whole)
def set_seed(seed: int) -> None:
    """Seed Python's, numpy's (where it is in use) and torch's random numbers, all devices."""
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextlib.contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Whatever is drawn or seeded inside, random numbers go on afterwards as if it had not been."""
    # set_seed seeds every GPU, not the run's alone.
    gpus = torch.cuda.is_available() and (device.type == "cuda" or torch.cuda.is_initialized())
    kept = pack_random(device)
    with torch.random.fork_rng(range(torch.cuda.device_count()) if gpus else []):
        try:
            yield
        finally:
            unpack_random(*kept, device)


def pack_random(
    device: torch.device, generators: Sequence[torch.Generator] = ()
) -> tuple[Weights, dict[str, Any]]:
    """The state of all random numbers that training may draw: tensors, and the rest as JSON."""
    tensors = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        tensors["mps"] = torch.mps.get_rng_state()
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
    if "cuda" in tensors:
        torch.cuda.set_rng_state(tensors["cuda"], device)
    if "mps" in tensors:
        torch.mps.set_rng_state(tensors["mps"])
    for index, generator in enumerate(generators):
        generator.set_state(tensors[f"generator.{index}"])
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "numpy" in values:
        import numpy

        numpy.random.set_state(tuple(values["numpy"]))  # noqa: NPY002
