# SPDX-License-Identifier: MIT
"""Loss and accuracy over all images, and logits, without a gradient; chapter 6 builds it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import checked, is_tensor, kind_of
from .device import distributed_rank, resolve_device, resolve_precision
from .losses import Loss, Metric, choose, mean_loss, score

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


class Totals:
    """Sums of loss, score and images that stay on the device until somebody asks."""

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=dtype, device=device)

    def add(self, loss: Tensor, scores: Tensor) -> None:
        # A batch's mean weighs as much as the batch has images: the last one is often smaller.
        self.sums[0] += loss.detach() * len(scores)
        self.sums[1] += scores.sum()
        self.sums[2] += len(scores)

    def read(self) -> tuple[float, float, int]:
        """Mean loss, mean score, number of images, over all ranks."""
        sums = self.sums.clone()
        if distributed_rank()[1] > 1:
            torch.distributed.all_reduce(sums)
        loss, score, count = sums.tolist()
        return loss / max(count, 1), score / max(count, 1), int(count)


def check_batch(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """The images and targets of a batch, on the device."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        size = f" of {len(batch)}" if isinstance(batch, (tuple, list)) else ""
        raise TypeError(f"a batch is a {type(batch).__name__}{size}; give a pair (images, targets)")
    images = is_tensor("the images of a batch", batch[0])
    targets = is_tensor("the targets of a batch", batch[1])
    counts = [len(part) if part.ndim else 0 for part in (images, targets)]
    if counts[0] != counts[1] or not counts[0]:
        given = f"a batch has {counts[0]} images and {counts[1]} targets"
        raise ValueError(f"{given}; give one target an image, and no batch without images.")
    return images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def compute_logits(model: Callable[[Tensor], Any], images: Tensor, precision: str) -> Tensor:
    """The model's output for a batch, computed in `precision` and given in fp32."""
    with torch.autocast(images.device.type, _LOW.get(precision), enabled=precision in _LOW):
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.shape[:1] != images.shape[:1]:
        wanted = f"one tensor of logits (B, K) for {len(images)} images"
        raise TypeError(f"the model returned {kind_of(logits)}; wrap it so that it gives {wanted}.")
    return logits.float()


@contextlib.contextmanager
def _evaluating(model: nn.Module, device: Any, precision: str) -> Iterator[tuple[Any, str]]:
    """Where and how to compute (the model's own device by default), in evaluation mode and
    without gradients; at the end every part of the model has the mode that it had before."""
    own = next((p.device for p in model.parameters()), torch.device("cpu"))
    where = own if device is None else resolve_device(device)
    modes = [(module, module.training) for module in model.to(where).modules()]
    model.eval()
    try:
        with torch.inference_mode():
            yield where, resolve_precision(precision, where)
    finally:
        for module, training in modes:
            module.training = training


@checked
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> dict[str, float]:
    """Mean loss and mean score over all images: {"loss", "accuracy", "count"}.

    Sums over images divided by their number, never a mean of batch means. Of several processes
    all call it: each evaluates its own share and the sums are added, so that every image counts
    once. loss: (logits, targets) -> mean over the batch. metric: (logits, targets) -> one score
    per image, whose mean is reported as "accuracy". device: the model's by default.
    """
    loss, metric = choose(loss, metric)
    with _evaluating(model, device, precision) as (where, precision):
        totals = Totals(where)
        for batch in batches:
            images, targets = check_batch(batch, where)
            logits = compute_logits(model, images, precision)
            totals.add(mean_loss(loss, logits, targets), score(metric, logits, targets))
        mean, mean_score, count = totals.read()
    if count == 0:
        raise ValueError("there is nothing to evaluate: the batches hold no image.")
    return {"loss": mean, "accuracy": mean_score, "count": count}


@checked
def predict(
    model: nn.Module,
    images: Tensor | Iterable[Any],
    *,
    batch_size: int = 256,
    device: str | torch.device | None = None,
    precision: str = "fp32",
) -> Tensor:
    """Logits (B, K), float32 on the CPU, of images (B, C, H, W) or of batches of them.

    Batches may be image tensors or pairs (images, targets), whose targets are left aside.
    """
    parts: Iterable[Any] = images.split(batch_size) if isinstance(images, Tensor) else images
    logits = []
    with _evaluating(model, device, precision) as (where, precision):
        for part in parts:
            part = part[0] if isinstance(part, (tuple, list)) and part else part
            part = is_tensor("the images of a batch", part).to(where)
            logits.append(compute_logits(model, part, precision).cpu())
    if not logits:
        raise ValueError("there is nothing to predict: no image was given.")
    return torch.cat(logits)
