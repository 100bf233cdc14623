# SPDX-License-Identifier: MIT
"""How to train, as plain data, and what training gave back; used from chapter 1 on."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._inputs import check_mapping, check_names
from .arguments import CHECKS, of_kind


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
        for name, value in vars(self).copy().items():
            if value is not None or name != "clip_norm":
                object.__setattr__(self, name, CHECKS[name](name, value))
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr is {self.min_lr}; give at most lr, which is {self.lr}.")

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "betas": list(self.betas)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TrainConfig:
        """A configuration from plain values; raises TypeError for an unknown name."""
        fields = check_mapping("a training configuration", fields)
        if "epochs" not in fields:
            raise TypeError("a training configuration lacks epochs; give a whole number.")
        check_names("a training configuration", fields, [f.name for f in dataclasses.fields(cls)])
        return cls(**fields)


CHECKS["config"] = of_kind(TrainConfig, "a TrainConfig, such as TrainConfig(epochs=10)")


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

        def rank(row: dict[str, Any]) -> tuple[float, float, int]:
            accuracy = row["val_accuracy"]
            return -math.inf if math.isnan(accuracy) else accuracy, -row["val_loss"], -row["epoch"]

        return max(self, key=rank)

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included, summed over the parts of a resumed run."""
        return float(sum(row["seconds"] for row in self))

    def last_line(self, epochs: int) -> str:
        """The last row as a line to print, of a run of so many epochs."""
        row = self[-1]
        text = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
        text += f"  train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.4f}"
        if row["val_accuracy"] is not None:
            text += f"  val loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}"
        return f"{text}  {row['seconds']:.1f} s"


def quick_mode() -> bool:
    """True when VITCORE_QUICK=1 asks notebooks to shorten training to seconds."""
    return os.environ.get("VITCORE_QUICK", "") == "1"
