# SPDX-License-Identifier: MIT
"""How to train, as plain data, and what training gave back; used from chapter 1 on."""

from __future__ import annotations

import dataclasses
import math
import numbers
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

OPTIMIZERS = ("adamw", "adam", "muon")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

# What the settings that are numbers may be, as a rule and in words.
_ALLOWED: dict[str, tuple[Callable[[float], bool], str]] = {
    "lr": (lambda x: x > 0, "above 0"),
    "min_lr": (lambda x: x >= 0, "between 0 and lr"),
    "weight_decay": (lambda x: x >= 0, "at least 0"),
    "warmup_epochs": (lambda x: x >= 0, "at least 0"),
    "label_smoothing": (lambda x: 0 <= x < 1, "from 0 to below 1"),
    "ema": (lambda x: 0 <= x < 1, "from 0 to below 1, such as 0.998"),
    "clip_norm": (lambda x: x > 0, "above 0, or None for no clipping"),
}


def _number(name: str, value: Any, fits: Callable[[float], bool], allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number {allowed}, not {value!r}.")
    number = float(value)
    if not (math.isfinite(number) and fits(number)):
        raise ValueError(f"{name} must be a number {allowed}, not {value!r}.")
    return number


def whole_number(name: str, value: Any, least: int = 0) -> int:
    """`value` as an int, if it is a whole number from `least` to what 63 bits hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    number = int(value)
    if not least <= number < 2**63:
        raise ValueError(f"{name} must be a whole number from {least} to 2**63 - 1, not {value!r}.")
    return number


@dataclass(frozen=True)
class TrainConfig:
    """How to train; plain data, so that it can be written down beside the result.

    epochs: passes over the training images.
    batch_size: images per step, for whoever makes the batches; `fit` takes them as they come.
    optimizer: "adamw" (Loshchilov and Hutter, 2019), "adam" (no weight decay at all) or "muon"
        (Jordan et al., 2024): torch.optim.Muon for the matrices inside the blocks, its step as
        long as AdamW's would be, and AdamW for the rest; AdamW alone where torch has no Muon.
    lr: the highest learning rate, reached at the end of the warmup.
    weight_decay: AdamW's, on matrices only (see `param_groups`).
    warmup_epochs: epochs of linear rise to `lr`, never more than half of the run.
    min_lr: where the cosine ends.
    label_smoothing: share of the target spread over all classes, in the training loss alone.
    clip_norm: largest norm of the gradient of all parameters together; None for no limit.
    precision: "auto" is bf16 on CUDA devices that compute in it, fp16 with a loss scaler on older
        ones, fp32 everywhere else.
    ema: decay of the moving average of the weights (Polyak and Juditsky, 1992), which is then what
        is validated and kept: 0.998 averages over some 500 steps; 0 for none.
    compile: whether training steps go through torch.compile, which takes minutes to begin with.
    seed: of the random numbers drawn during training (drop path and the like).
    """

    epochs: int
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 1.0
    min_lr: float = 1e-5
    schedule: str = "cosine"
    label_smoothing: float = 0.0
    clip_norm: float | None = 1.0
    precision: str = "auto"
    ema: float = 0.0
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 1), ("seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name, (fits, allowed) in _ALLOWED.items():
            value = getattr(self, name)
            if value is not None or name != "clip_norm":
                object.__setattr__(self, name, _number(name, value, fits, allowed))
        betas = self.betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers from 0 to below 1, not {betas!r}.")
        below_one = _ALLOWED["label_smoothing"]
        object.__setattr__(self, "betas", tuple(_number("betas", b, *below_one) for b in betas))
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("schedule", SCHEDULES),
            ("precision", PRECISIONS),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}: choose one of {', '.join(choices)}."
                )
        if not isinstance(self.compile, bool):
            raise TypeError(f"compile must be True or False, not {self.compile!r}.")
        if self.min_lr > self.lr:
            raise ValueError(
                f"min_lr must lie between 0 and lr ({self.lr}), not {self.min_lr}; lower it."
            )

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainConfig:
        if not isinstance(fields, Mapping):
            raise TypeError(f"training settings are a dict of options by name, not {fields!r}.")
        known = {f.name for f in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known, key=str)
        if unknown:
            raise ValueError(
                f"unknown training setting {', '.join(map(str, unknown))}: "
                f"known are {', '.join(sorted(known))}."
            )
        return cls(**fields)


class History(list[dict[str, Any]]):
    """One row per epoch: epoch (from 1), train_loss, train_accuracy, val_loss, val_accuracy
    (None without validation), lr of the last step, train_seconds, seconds with validation, and
    cpu_seconds, the processor time of this process for both."""

    @property
    def best(self) -> dict[str, Any]:
        """The row with the highest validation accuracy (equal ones: the lower loss, then the
        earlier; NaN counts as the lowest); without validation, the last row."""
        if not self:
            raise ValueError("the history is empty: no epoch was finished yet.")
        if self[-1]["val_accuracy"] is None:
            return self[-1]
        return max(
            self,
            key=lambda row: (
                -math.inf if math.isnan(row["val_accuracy"]) else row["val_accuracy"],
                -row["val_loss"],
                -row["epoch"],
            ),
        )

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included, summed over the parts of a resumed run."""
        return float(sum(row["seconds"] for row in self))


def quick_mode() -> bool:
    """True when VITCORE_QUICK=1 asks notebooks to shorten training to seconds."""
    return os.environ.get("VITCORE_QUICK", "") == "1"
