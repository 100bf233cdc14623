# SPDX-License-Identifier: MIT
"""Where and how a run computes: device, precision and processes."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from .config import PRECISIONS


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """The device meant by a name; "auto" takes CUDA, then Apple's MPS, then the CPU."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"unknown device {device!r}: use auto, cpu, cuda or mps.") from error
    if chosen.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device {device!r} was asked for, but torch finds no CUDA; use cpu.")
        if (chosen.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"there is no device {device!r}: torch finds {torch.cuda.device_count()} CUDA "
                "devices, counted from 0."
            )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {device!r} was asked for, but torch finds no MPS; use cpu.")
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" as one of fp32, bf16, fp16 for this device; anything else is checked and kept."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    if precision == "auto":
        if device.type != "cuda":
            return "fp32"
        # is_bf16_supported() also says yes where bf16 is only emulated, slower than fp32.
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    if precision == "fp16" and device.type != "cuda":
        raise ValueError(f"precision fp16 needs CUDA, not {device.type}; use fp32 or bf16.")
    if precision == "bf16" and device.type not in ("cuda", "cpu"):
        raise ValueError(f"precision bf16 needs CUDA or the CPU, not {device.type}; use fp32.")
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
