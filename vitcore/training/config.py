# SPDX-License-Identifier: MIT
"""How to train, as plain data, and what training gave back; used from chapter 1 on."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from .arguments import CHECKS, Settings, of_kind


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How to train; plain data, so that it can be written down beside the result.

    Raises TypeError, ValueError: one sentence on the first value that does not fit.
    """

    CHECKS = CHECKS

    epochs: int  # passes over the training images
    batch_size: int = 128  # images a step, for whoever makes batches; `fit` takes them as they come
    # "adamw" (Loshchilov and Hutter, 2019), "adam" (no weight decay at all) or "muon" (Jordan et
    # al., 2024) for the matrices inside the blocks and AdamW for the rest.
    optimizer: str = "adamw"
    lr: float = 1e-3  # the highest learning rate, reached at the end of the warmup
    weight_decay: float = 0.05  # on matrices only (see `param_groups`)
    # What the rate of each layer is of that of the next, counted from the head; below 1 the early
    # layers of a pretrained model hardly move (Clark et al., 2020; Bao et al., 2022).
    layer_decay: float = 1.0
    betas: tuple[float, float] = (0.9, 0.999)  # of Adam and AdamW
    warmup_epochs: float = 1.0  # epochs of linear rise to `lr`, never more than half of the run
    min_lr: float = 1e-5  # where the cosine ends
    schedule: str = "cosine"  # or "constant", after the warmup
    label_smoothing: float = 0.0  # share of the target spread over all classes, in training alone
    clip_norm: float | None = 1.0  # largest norm of all gradients together; None for no limit
    # "auto" is bf16 on CUDA devices that compute in it, fp16 with a loss scaler on older ones,
    # fp32 everywhere else.
    precision: str = "auto"
    # Decay of the moving average of the weights (Polyak and Juditsky, 1992), which is then what is
    # validated and kept: 0.998 averages over some 500 steps; 0 for none.
    ema: float = 0.0
    compile: bool = False  # whether steps go through torch.compile, which takes minutes to begin
    seed: int = 0  # of the random numbers drawn during training (drop path and the like)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr is {self.min_lr}; give at most lr, which is {self.lr}.")


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

        def rank(row: dict[str, Any]) -> tuple[float, float]:
            accuracy = row["val_accuracy"]
            return -math.inf if math.isnan(accuracy) else accuracy, -row["val_loss"]

        return max(self, key=rank)  # of equal ones the first

    @property
    def seconds(self) -> float:
        """Time of all epochs, validation included, summed over the parts of a resumed run."""
        return float(sum(row["seconds"] for row in self))

    def last_line(self, epochs: int) -> str:
        """The last row as a line to print, of a run of so many epochs."""
        row = self[-1]
        text = f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}"
        for part in ("train", "val") if row["val_accuracy"] is not None else ("train",):
            text += (
                f"  {part} loss {row[f'{part}_loss']:.4f}, accuracy {row[f'{part}_accuracy']:.4f}"
            )
        return f"{text}  {row['seconds']:.1f} s"


def quick_mode() -> bool:
    """True when VITCORE_QUICK=1 asks notebooks to shorten training to seconds."""
    return os.environ.get("VITCORE_QUICK", "") == "1"
