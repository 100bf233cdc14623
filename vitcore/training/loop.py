# SPDX-License-Identifier: MIT
"""The training loop that chapter 6 (06_mnist.ipynb) writes by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from .arguments import CHECKS, checked
from .config import History, TrainConfig
from .losses import Loss, Metric
from .run import TrainingRun


@checked
def fit(
    model: nn.Module,
    train_batches: Iterable[Any],
    val_batches: Iterable[Any] | None = None,
    config: TrainConfig | None = None,
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any], nn.Module], None] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> History:
    """Train `model` in place and return its history; at the end it holds the weights of the epoch
    with the best validation accuracy (without validation, the last), in evaluation mode.

    train_batches, val_batches: anything that can be gone through once per epoch and gives pairs
        (images, targets): a list, a DataLoader, `vitcore.data.Batches`. Where it has `set_epoch`,
        that is called with the epoch, from 0. Targets: class numbers, int64 (B,), or float
        distributions (B, K); for several labels an image, loss=binary_cross_entropy. A folder of
        images: fit(model, DataLoader(ImageFolder("my_images", transform), 64, shuffle=True), ...),
        where the transform gives float tensors (C, H, W) of one size, normalised.
    loss, metric: as in `evaluate`; the loss takes `label_smoothing` too where config asks for it.
    out: a folder for checkpoint.safetensors, written at every epoch's end, and the best weights
        where that was an earlier epoch; None keeps nothing.
    resume: go on from the checkpoint in `out`; from the start where there is none. On the CPU in
        fp32 with the same number of threads and processes, the resumed run repeats the unbroken
        one exactly, with DataLoaders, their generators and workers too. It does not with
        persistent workers, and where a data set draws from a generator of its own.
    on_epoch: called with the epoch's row and the model after each epoch.
    metadata: what else must be the same on resuming (recipe, data); JSON values.

    Random numbers drawn afterwards are those that would have been drawn without training. Parts
    of a model in training mode that are in evaluation mode stay so while it is trained.

    Where torch.distributed is initialised, the model comes wrapped in DistributedDataParallel, or
    sharded by `fully_shard` with as many validation batches in every process; each process brings
    its share of the batches and the same out, and only rank 0 writes and prints.

    Raises NonFiniteLoss when loss or weights overflow and TrainingInterrupted on Ctrl-C and on
    SIGTERM; both leave good weights in the model and the last epoch's end in the checkpoint.
    ValueError where `out` holds a checkpoint that does not belong to this run, FileExistsError
    where it holds one and resume is False, BlockingIOError where another run is writing to it.
    """
    config = CHECKS["config"]("config", config)
    with TrainingRun(
        model, train_batches, val_batches, config, loss, metric, device,
        out, resume, progress, on_epoch, metadata,
    ) as run:  # fmt: skip
        for _ in run.epochs():
            for images, targets in run.batches():
                run.set_rate()
                run.optimizer.zero_grad()
                value = run.loss(images, targets)
                run.backward(value)
                run.step()
            run.keep(run.evaluate())
    return run.history
