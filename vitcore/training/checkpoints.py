# SPDX-License-Identifier: MIT
"""The checkpoint of a run: all it needs to go on as if it had not stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import History
from .device import unwrap
from .files import Weights, read_tensors, write_tensors
from .random_state import pack_random, unpack_random

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "vitcore-checkpoint-1"


@dataclass
class State:
    """Everything that a run needs to go on as if it had not stopped."""

    model: Weights
    best: Weights | None = None
    average: Weights | None = None
    history: History = field(default_factory=History)


def snapshot(model: nn.Module) -> Weights:
    """A copy of the weights, under the names that they have without a wrapper."""
    return {name: value.detach().clone() for name, value in unwrap(model).state_dict().items()}


def _pack_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[Weights, list[Any]]:
    """The optimisers' state as tensors with plain names, and what is not a tensor as JSON."""
    tensors: Weights = {}
    numbers: list[Any] = []
    for index, optimizer in enumerate(optimizers):
        rest: dict[str, dict[str, Any]] = {}
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{parameter}.{key}"] = value
                else:
                    rest.setdefault(str(parameter), {})[key] = value
        numbers.append(rest)
    return tensors, numbers


def _unpack_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Weights, numbers: list[Any]
) -> None:
    for index, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, Any]] = {int(p): dict(v) for p, v in numbers[index].items()}
        for name, value in tensors.items():
            kind, which, parameter, key = [*name.split(".", 3), "", "", ""][:4]
            if kind == "optimizer" and which == str(index):
                state.setdefault(int(parameter), {})[key] = value
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )


def _differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            label = f"{name}.{key}" if name else str(key)
            found += _differences(then.get(key), now.get(key), label)
        return found
    if json.dumps(then) == json.dumps(now):
        return []
    return [f"{name} was {json.dumps(then)} and is {json.dumps(now)} now"]


class Checkpoint:
    """The checkpoint of one run in its folder: written at every epoch's end, read on resuming."""

    def __init__(self, out: str | os.PathLike[str], identity: dict[str, Any]):
        self.path = Path(out) / CHECKPOINT
        self.identity = json.loads(json.dumps(identity))

    def write(
        self,
        state: State,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> None:
        tensors = {f"model.{name}": value for name, value in state.model.items()}
        for kind, weights in (("best", state.best), ("average", state.average)):
            tensors.update({f"{kind}.{name}": value for name, value in (weights or {}).items()})
        optimizer_tensors, optimizer_numbers = _pack_optimizers(optimizers)
        random_tensors, random_values = pack_random(device)
        content = {
            "identity": self.identity,
            "history": list(state.history),
            "optimizers": optimizer_numbers,
            "scaler": scaler.state_dict(),
            "random": random_values,
        }
        write_tensors(
            self.path,
            {**tensors, **optimizer_tensors, **random_tensors},
            {"format": FORMAT, "content": json.dumps(content)},
        )

    def read(
        self,
        model: nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
        device: torch.device,
    ) -> State:
        tensors, metadata = read_tensors(self.path, "checkpoint")
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} is not a checkpoint of this version of vitcore "
                f"({metadata.get('format', 'no format named')}): choose another out folder."
            )
        content = json.loads(metadata["content"])
        differences = _differences(content["identity"], self.identity)
        if differences:
            shown = "; ".join(differences[:4])
            if len(differences) > 4:
                shown += f"; and {len(differences) - 4} more"
            raise ValueError(
                f"cannot resume {self.path}: {shown}; "
                "go back to the earlier settings, or choose another out folder."
            )
        weights, best, average = (
            {k[len(kind) :]: v for k, v in tensors.items() if k.startswith(kind)}
            for kind in ("model.", "best.", "average.")
        )
        unwrap(model).load_state_dict(weights)
        _unpack_optimizers(optimizers, tensors, content["optimizers"])
        if scaler.is_enabled():
            scaler.load_state_dict(content["scaler"])
        unpack_random(tensors, content["random"], device)
        return State(weights, best or None, average or None, History(content["history"]))
