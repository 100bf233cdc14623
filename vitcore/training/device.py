# SPDX-License-Identifier: MIT
"""Where and how a run computes: device, precision and processes."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from .._inputs import check_choice, check_positive, check_whole, shown
from .arguments import checked, of_kind, optional
from .config import PRECISIONS


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant by a name; "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if isinstance(device, str) and device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"unknown device {shown(device)}; give auto, cpu, cuda or mps.") from error
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    found = {"cpu": 1, "cuda": cuda, "mps": int(torch.backends.mps.is_available())}
    if (chosen.index or 0) >= found.get(chosen.type, 0):
        kinds = ", ".join(f"{count} {name}" for name, count in found.items())
        raise ValueError(f"device is {device!r}; torch finds {kinds} here, so use cpu.")
    return chosen


@checked(device=of_kind(torch.device, "a torch.device"))
def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" as one of fp32, bf16, fp16 for this device; anything else is checked and kept."""
    check_choice("precision", precision, PRECISIONS)
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        # is_bf16_supported() also says yes where bf16 is only emulated, slower than fp32.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if device.type not in {"fp16": ("cuda",), "bf16": ("cuda", "cpu")}.get(precision, device.type):
        raise ValueError(f"precision {precision} is not for {device.type}; use fp32.")
    return precision


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """The context in which a forward pass computes in this precision."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside torch.compile and DistributedDataParallel, whose names have no prefix."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def model_device(model: nn.Module) -> torch.device:
    """Where the model's first parameter lies."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


@checked(rank=optional(check_whole), world_size=optional(check_positive))
def distributed_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world size) of this process, by default as torch.distributed says, else (0, 1)."""
    active = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None:
        rank = torch.distributed.get_rank() if active else 0
    if world_size is None:
        world_size = torch.distributed.get_world_size() if active else 1
    if not 0 <= rank < world_size:
        raise ValueError(f"rank must lie between 0 and world_size - 1, got {rank} of {world_size}.")
    if world_size > 1 and not active:
        raise ValueError(
            f"world_size is {world_size}, but torch.distributed is not initialised: "
            "call init_process_group first, or start with torchrun."
        )
    return rank, world_size


def full_tensor(value: Tensor) -> Tensor:
    """A sharded tensor (`fully_shard`) as a whole; any other as it is. All ranks take part."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def shard_like(value: Tensor, sharded: Any) -> Tensor:
    """`value` divided among the ranks as `sharded` is; no rank waits for another."""
    if not hasattr(sharded, "full_tensor") or value.shape != sharded.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(
        value.to(sharded.device), sharded.device_mesh, sharded.placements, src_data_rank=None
    )
