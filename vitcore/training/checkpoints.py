# SPDX-License-Identifier: MIT
"""The checkpoint of a run: all it needs to go on as if it had not stopped."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .config import History, TrainConfig
from .device import full_tensor, shard_like, unwrap
from .files import CHECKSUM, Weights, checksum, read_tensors, write_tensors

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "vitcore-checkpoint-2"
_TENSOR = "$"  # stands in JSON for a tensor, with its name


@dataclass
class State:
    """What has been reached: the weights of the last epoch and of the best, and the history."""

    model: Weights
    best: Weights | None = None
    average: Weights | None = None
    history: History = field(default_factory=History)

    @property
    def judged(self) -> Weights:
        """The weights that validation looks at."""
        return self.average or self.model


def snapshot(model: nn.Module) -> Weights:
    """A copy of the weights, under the names that they have without a wrapper."""
    state = unwrap(model).state_dict()
    return {name: full_tensor(value.detach()).clone() for name, value in state.items()}


def restore(model: nn.Module, weights: Weights) -> None:
    """Put back what `snapshot` gave."""
    inner = unwrap(model)
    state = inner.state_dict()
    inner.load_state_dict({name: shard_like(w, state[name]) for name, w in weights.items()})


def _pack(value: Any, name: str, tensors: Weights) -> Any:
    """`value` as JSON; its tensors go into `tensors`, each under the name of its place."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        value = torch.from_numpy(np.array(value))
    if isinstance(value, Tensor) and not value.is_meta:
        tensors[name] = full_tensor(value)
        return {_TENSOR: name}
    if isinstance(value, dict):
        names = {key: f"{name}.{key}" if name else key for key in value}
        return {str(key): _pack(part, names[key], tensors) for key, part in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [_pack(part, f"{name}.{index}", tensors) for index, part in enumerate(value)]
    return value


def _load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, dict[str, Any]]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbered = {
        int(index): {name: shard_like(value, parameters[int(index)]) for name, value in own.items()}
        for index, own in state.items()
    }
    optimizer.load_state_dict({**optimizer.state_dict(), "state": numbered})


def describe_function(function: Callable[..., Any]) -> str:
    """The name of a loss or a metric; one without a name of its own is known by what it does."""
    if isinstance(function, functools.partial):
        return f"{describe_function(function.func)} {function.args} {function.keywords}"
    if isinstance(function, nn.Module):
        values = {k: v for k, v in vars(function).items() if isinstance(v, (int, float, str))}
        return f"{type(function).__name__} {json.dumps(values, sort_keys=True)}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    if "<" not in name or code is None:
        return str(name)
    return f"{name} {hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()[:8]}"


# Where data sets of vitcore, torch and torchvision keep images and labels.
_CONTENT = ("images", "labels", "tensors", "data", "targets", "indices")


def digest_data(batches: Any) -> str:
    """A digest of the images and labels that lie behind batches, without drawing one; what is
    read from files when it is asked for is noticed by labels and numbers alone."""
    tensors: Weights = {}
    found: list[Any] = []
    while batches is not None:
        listed = isinstance(batches, (list, tuple))
        parts = list(batches) if listed else [getattr(batches, name, None) for name in _CONTENT]
        found.append(_pack(parts, str(len(found)), tensors))
        batches = getattr(batches, "dataset", None)
    text = json.dumps(found, default=lambda value: type(value).__name__)
    return checksum(tensors, {"rest": text})[:16]


def find_generators(*loaders: Any) -> list[torch.Generator]:
    """The generators from which DataLoaders and their samplers draw, each once."""
    found: dict[int, torch.Generator] = {}
    for loader in loaders:
        inner = getattr(loader, "batch_sampler", None)
        for holder in (loader, getattr(loader, "sampler", None), getattr(inner, "sampler", None)):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator):
                found[id(generator)] = generator
    return list(found.values())


def _differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = {key: f"{name}.{key}".lstrip(".") for key in sorted({*then, *now})}
        return [d for k, n in keys.items() for d in _differences(then.get(k), now.get(k), n)]
    before, after = json.dumps(then), json.dumps(now)
    return [f"{name} was {before} and is {after} now"] if before != after else []


@dataclass
class Checkpoint:
    """The checkpoint of one run in its folder: written at every epoch's end, read on resuming.

    Where the best epoch lies behind, its weights have a file of their own, written once.
    """

    out: Path
    identity: dict[str, Any]
    optimizers: Sequence[torch.optim.Optimizer]
    scaler: torch.amp.GradScaler
    best: dict[str, str] | None = None  # the best weights' file and its checksum
    epochs: int = 0  # that are on the disk

    def __post_init__(self) -> None:
        self.path = self.out / CHECKPOINT
        self.identity = json.loads(json.dumps(self.identity))

    def write(self, state: State, drawn: list[dict[str, Any]], *, write: bool = True) -> None:
        """Replace the checkpoint. drawn: every rank's random numbers. With sharded weights all
        ranks come here, to gather them, and only one of them has `write`."""
        tensors: Weights = {}
        content = {
            "identity": self.identity,
            "history": list(state.history),
            "model": state.model,
            "average": state.average,
            "optimizer": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            "scaler": self.scaler.state_dict(),
            "random": drawn,
        }
        packed = _pack(content, "", tensors)
        if not write:
            return
        if state.best is None or state.best is state.judged:
            self.best = None  # the checkpoint itself holds them
        else:
            name = f"best-{state.history.best['epoch']}.safetensors"
            if self.best is None or self.best["file"] != name:
                digest = write_tensors(self.out / name, state.best, {})
                self.best = {"file": name, "checksum": digest}
        text = json.dumps({**packed, "best": self.best})
        write_tensors(self.path, tensors, {"format": FORMAT, "content": text})
        self.epochs = len(state.history)
        for old in self.out.glob("best-*.safetensors"):
            if self.best is None or old.name != self.best["file"]:
                old.unlink(missing_ok=True)

    def read(self, model: nn.Module, rank: int) -> tuple[State, dict[str, Any]]:
        """What the checkpoint holds, put into model, optimisers and scaler; last what `rank` is
        to draw from. Raises ValueError, in one sentence, where it does not belong to this run."""
        tensors, metadata = read_tensors(self.path, "checkpoint")
        if metadata.get("format") != FORMAT:
            given = metadata.get("format", "no format named")
            wrong = f"{self.path} is not a checkpoint of this version of vitcore ({given})"
            raise ValueError(f"{wrong}; choose another out folder.")
        try:
            content = json.loads(
                metadata["content"],
                object_hook=lambda part: tensors[part[_TENSOR]] if _TENSOR in part else part,
            )
        except KeyError as error:
            lacking = f"{self.path} lacks the tensor {error}"
            raise ValueError(f"{lacking}; choose another out folder.") from error
        then = content["identity"]  # settings that came later have their defaults
        then["config"] = {**TrainConfig(epochs=1).to_dict(), **then["config"]}
        if found := _differences(then, self.identity):
            more = f"; and {len(found) - 4} more" if len(found) > 4 else ""
            mend = "go back to the earlier settings, or choose another out folder"
            raise ValueError(f"cannot resume {self.path}: {'; '.join(found[:4])}{more}; {mend}.")
        state = State(content["model"], None, content["average"], History(content["history"]))
        self.best, self.epochs = content["best"], len(state.history)
        state.best = state.judged if state.history else None
        if self.best is not None:
            path = self.out / self.best["file"]
            state.best, metadata = read_tensors(path, "file of the best weights")
            if metadata.get(CHECKSUM) != self.best["checksum"]:
                raise ValueError(f"{path} belongs to another run than {self.path}; remove both.")
        restore(model, state.model)
        for optimizer, own in zip(self.optimizers, content["optimizer"], strict=True):
            _load_optimizer(optimizer, own)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        return state, content["random"][rank]
