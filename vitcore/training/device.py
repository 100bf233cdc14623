# SPDX-License-Identifier: MIT
"""Where and how a run computes: device, precision, processes and random numbers."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._inputs import shown
from .arguments import checked


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant by a name; "auto" takes CUDA, then Apple's MPS, then the CPU."""
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {"cuda": cuda, "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if isinstance(device, str) and device == "auto":
        kind = next(kind for kind, count in found.items() if count)
        return torch.device(kind, torch.cuda.current_device()) if cuda else torch.device(kind)
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"unknown device {shown(device)}; give auto, cpu, cuda or mps.") from error
    if (chosen.index or 0) >= found.get(chosen.type, 0):
        kinds = ", ".join(f"{count} {name}" for name, count in found.items())
        raise ValueError(f"device is {device!r}; torch finds {kinds} here, so use cpu.")
    return chosen


@checked
def resolve_precision(precision: str, device: str | torch.device) -> str:
    """ "auto" as one of fp32, bf16, fp16 for this device; anything else is checked and kept."""
    device = device if isinstance(device, torch.device) else resolve_device(device)
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        # is_bf16_supported() also says yes where bf16 is only emulated, slower than fp32.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type not in {"fp16": ("cuda",), "bf16": ("cuda", "cpu")}.get(precision, device.type):
        raise ValueError(f"precision {precision} is not for {device.type}; use fp32.")
    return precision


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and DistributedDataParallel, whose names have no prefix."""
    while hasattr(model, "_orig_mod") or isinstance(model, nn.parallel.DistributedDataParallel):
        model = getattr(model, "_orig_mod", None) or model.module  # type: ignore[assignment]
    return model


def distributed_rank() -> tuple[int, int]:
    """(rank, world size) of this process as torch.distributed says; (0, 1) without it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def gather_lists(own: list[Any]) -> list[Any]:
    """The lists of all processes, one after another. All ranks take part."""
    lists = [own] * distributed_rank()[1]
    if len(lists) > 1:
        torch.distributed.all_gather_object(lists, own)
    return [value for part in lists for value in part]


def full_tensor(value: Tensor) -> Tensor:
    """A sharded tensor (`fully_shard`) as a whole; any other as it is. All ranks take part."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def shard_like(value: Any, sharded: Any) -> Any:
    """`value` divided among the ranks as `sharded` is, if of its shape; no rank waits."""
    if not hasattr(sharded, "full_tensor") or getattr(value, "shape", None) != sharded.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    value, mesh = value.to(sharded.device), sharded.device_mesh
    return distribute_tensor(value, mesh, sharded.placements, src_data_rank=None)


@checked
def set_seed(seed: int) -> None:
    """Seed Python's, numpy's and torch's random numbers, on all devices."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (a reader's own augmentation may draw from it)
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
            unpack_random(kept, device)


def pack_random(device: torch.device, generators: Sequence[torch.Generator] = ()) -> dict[str, Any]:
    """The state of the random numbers that training may draw: tensors and JSON values."""
    drawn: dict[str, Any] = {"cpu": torch.get_rng_state(), "python": random.getstate()}
    if device.type == "cuda":
        drawn["cuda"] = torch.cuda.get_rng_state(device)
    if device.type == "mps":
        drawn["mps"] = torch.mps.get_rng_state()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    drawn["numpy"] = [name, np.asarray(keys).tolist(), *rest]
    return {**drawn, "generators": [generator.get_state() for generator in generators]}


def unpack_random(
    drawn: dict[str, Any], device: torch.device, generators: Sequence[torch.Generator] = ()
) -> None:
    """Put back what `pack_random` gave."""
    torch.set_rng_state(drawn["cpu"])
    if "cuda" in drawn:
        torch.cuda.set_rng_state(drawn["cuda"], device)
    if "mps" in drawn:
        torch.mps.set_rng_state(drawn["mps"])
    version, numbers, gauss = drawn["python"]
    random.setstate((version, tuple(numbers), gauss))
    np.random.set_state(tuple(drawn["numpy"]))  # noqa: NPY002
    for generator, state in zip(generators, drawn["generators"], strict=True):
        generator.set_state(state)
