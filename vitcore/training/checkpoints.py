# SPDX-License-Identifier: MIT
"""The checkpoint of a run: all it needs to go on as if it had not stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .config import History
from .device import full_tensor, shard_like, unwrap
from .files import Weights, read_tensors, write_tensors
from .identity import differences

CHECKPOINT = "checkpoint.safetensors"
FORMAT = "vitcore-checkpoint-2"

# What one process draws from: tensors, and the rest as JSON (see random_state.pack_random).
Randomness = tuple[Weights, dict[str, Any]]


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


def _pack_optimizers(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[Weights, list[Any]]:
    """The optimisers' state as tensors with plain names, and what is not a tensor as JSON."""
    tensors: Weights = {}
    numbers: list[Any] = []
    for index, optimizer in enumerate(optimizers):
        rest: dict[str, dict[str, Any]] = {}
        for parameter, state in optimizer.state_dict()["state"].items():
            for key, value in state.items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{index}.{parameter}.{key}"] = full_tensor(value)
                else:
                    rest.setdefault(str(parameter), {})[key] = value
        numbers.append(rest)
    return tensors, numbers


def _unpack_optimizers(
    optimizers: Sequence[torch.optim.Optimizer], tensors: Weights, numbers: list[Any]
) -> None:
    for index, optimizer in enumerate(optimizers):
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state: dict[int, dict[str, Any]] = {int(p): dict(v) for p, v in numbers[index].items()}
        for name, value in tensors.items():
            kind, which, parameter, key = [*name.split(".", 3), "", "", ""][:4]
            if kind == "optimizer" and which == str(index):
                sharded = shard_like(value, parameters[int(parameter)])
                state.setdefault(int(parameter), {})[key] = sharded
        optimizer.load_state_dict(
            {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
        )


class Checkpoint:
    """The checkpoint of one run in its folder: written at every epoch's end, read on resuming.

    Where the best epoch lies behind, its weights have a file of their own, written once.
    """

    def __init__(
        self,
        out: Path,
        identity: dict[str, Any],
        optimizers: Sequence[torch.optim.Optimizer],
        scaler: torch.amp.GradScaler,
    ):
        self.path = out / CHECKPOINT
        self.optimizers, self.scaler = optimizers, scaler
        self.identity = json.loads(json.dumps(identity))
        self.best: dict[str, str] | None = None  # the best weights' file and its checksum
        self.epochs = 0  # as many as the file on disk holds

    def write(self, state: State, randomness: Sequence[Randomness], write: bool = True) -> None:
        """Replace the checkpoint. `randomness`: of every rank. With sharded weights all ranks
        come here, to gather them, and only one of them has `write`."""
        tensors = {f"model.{name}": value for name, value in state.model.items()}
        tensors |= {f"average.{name}": value for name, value in (state.average or {}).items()}
        optimizer_tensors, numbers = _pack_optimizers(self.optimizers)
        tensors |= optimizer_tensors
        if not write:
            return
        for rank, (drawn, _) in enumerate(randomness):
            tensors |= {f"random.{rank}.{name}": value for name, value in drawn.items()}
        self._write_best(state)
        content = {
            "identity": self.identity,
            "history": list(state.history),
            "best": self.best,
            "optimizers": numbers,
            "scaler": self.scaler.state_dict(),
            "random": [values for _, values in randomness],
            "tensors": sorted(tensors),
        }
        write_tensors(self.path, tensors, {"format": FORMAT, "content": json.dumps(content)})
        self.epochs = len(state.history)
        for old in self.path.parent.glob("best-*.safetensors"):
            if self.best is None or old.name != self.best["file"]:
                old.unlink(missing_ok=True)

    def _write_best(self, state: State) -> None:
        if state.best is None or state.best is state.judged:
            self.best = None  # the checkpoint itself holds them
            return
        name = f"best-{state.history.best['epoch']}.safetensors"
        if self.best is None or self.best["file"] != name:
            path = self.path.with_name(name)
            self.best = {"file": name, "checksum": write_tensors(path, state.best, {})}

    def read(self, model: nn.Module, rank: int) -> tuple[State, Randomness]:
        """What the checkpoint holds, put into model, optimisers and scaler; last what `rank` is
        to draw from. Raises ValueError, in one sentence, where it does not belong to this run."""
        tensors, metadata = read_tensors(self.path, "checkpoint")
        if metadata.get("format") != FORMAT:
            raise ValueError(
                f"{self.path} is not a checkpoint of this version of vitcore "
                f"({metadata.get('format', 'no format named')}): choose another out folder."
            )
        content = json.loads(metadata["content"])
        self._compare(content["identity"])
        if content["tensors"] != sorted(tensors):
            raise ValueError(f"{self.path} lacks tensors that it names: choose another out folder.")
        weights, average, drawn = (
            {k[len(kind) :]: v for k, v in tensors.items() if k.startswith(kind)}
            for kind in ("model.", "average.", f"random.{rank}.")
        )
        history = History(content["history"])
        state = State(weights, average=average or None, history=history)
        self.best, self.epochs = content["best"], len(history)
        if self.best is not None:
            state.best = self._read_best(self.best)
        elif history:
            state.best = state.judged
        restore(model, weights)
        _unpack_optimizers(self.optimizers, tensors, content["optimizers"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(content["scaler"])
        return state, (drawn, content["random"][rank])

    def _read_best(self, best: dict[str, str]) -> Weights:
        path = self.path.with_name(best["file"])
        weights, metadata = read_tensors(path, "file of the best weights")
        if metadata.get("sha256") != best["checksum"]:
            raise ValueError(f"{path} belongs to another run than {self.path}: remove both.")
        return weights

    def _compare(self, identity: dict[str, Any]) -> None:
        found = differences(identity, self.identity)
        if found:
            shown = "; ".join(found[:4])
            if len(found) > 4:
                shown += f"; and {len(found) - 4} more"
            raise ValueError(
                f"cannot resume {self.path}: {shown}; "
                "go back to the earlier settings, or choose another out folder."
            )
