# SPDX-License-Identifier: MIT
"""What training lowers, what evaluation counts, and logits without a gradient (chapter 6)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import checked, is_tensor, kind_of
from .device import distributed_rank, gather_lists, resolve_device, resolve_precision

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]

_LOW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def check_targets(logits: Tensor, targets: Tensor, soft: bool = True, look: bool = True) -> None:
    """Raise one clear sentence unless targets are class numbers (B,) of the logits (B, K), within
    their range as far as `look` says, or, where `soft` ones may be, distributions (B, K)."""
    numbers = targets.shape == logits.shape[:1] and not targets.is_floating_point()
    spread = soft and targets.shape == logits.shape and targets.is_floating_point()
    classes = logits.shape[1]
    if not (numbers or spread) or classes < 2 or targets.device != logits.device:
        raise ValueError(
            f"targets are {kind_of(targets)} for logits {kind_of(logits)}; give logits (B, K) of "
            "two classes or more, and class numbers (B,) or float distributions (B, K): one-hot "
            "rows become class numbers by targets.argmax(dim=1), a column by targets.squeeze(1), "
            "and images with several labels need a loss and a metric of their own, as "
            "binary_cross_entropy and mean_average_precision."
        )
    if numbers and look and not 0 <= targets.min() <= targets.max() < classes:
        given = f"class numbers of a batch lie between {targets.min()} and {targets.max()}"
        raise ValueError(f"the {given}; give 0 to {classes - 1} to {classes} classes.")


@checked
def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K), in nats.

    targets: class numbers, int64 (B,), or a distribution over the classes, float (B, K), as mixup
    makes it. The logits go in as the model gives them: the softmax is part of the loss.

    Raises ValueError for other targets. Class numbers out of range are found on the CPU alone: on
    a GPU each look at them would make it wait.
    """
    check_targets(logits, targets, look=targets.device.type == "cpu")
    targets = targets.long() if targets.ndim == 1 else targets
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


@checked
def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of 1 where the highest logit is the right class, else 0.

    targets: class numbers (B,), or float distributions (B, K), whose right class is the heaviest.
    """
    check_targets(logits, targets, look=False)
    right = targets if targets.ndim == 1 else targets.argmax(dim=1)
    return (logits.argmax(dim=1) == right).float()


class Totals:
    """Sums of loss, score and images that stay on the device until somebody asks."""

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(3, dtype=dtype, device=device)
        self.kept: list[tuple[Tensor, Tensor]] = []  # for a metric of all images at once

    def add(self, loss: Loss, metric: Metric, logits: Tensor, targets: Tensor) -> Tensor:
        """Count a batch and return its mean loss; a loss may also give one for each image."""
        value = loss(logits, targets)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"the loss returned {kind_of(value)}; give a floating point tensor.")
        value, count = value.mean(), len(logits)
        if getattr(metric, "of_all", False):
            self.kept.append((logits.detach(), targets))
            scores: Any = logits.new_zeros(count)
        else:
            with torch.no_grad():
                scores = metric(logits, targets)
        if not isinstance(scores, Tensor) or scores.shape != logits.shape[:1]:
            wanted = f"a tensor with one score for each of the {count} images, without a mean"
            raise TypeError(f"the metric returned {kind_of(scores)}; give {wanted}.")
        # A batch's mean weighs as much as the batch has images: the last one is often smaller.
        self.sums[0] += value.detach() * count
        self.sums[1] += scores.sum()
        self.sums[2] += count
        return value

    def read(self) -> tuple[float, float, int]:
        """Mean loss, mean score, number of images, over all ranks."""
        sums = self.sums.clone()
        if distributed_rank()[1] > 1:
            torch.distributed.all_reduce(sums)
        loss, score, count = sums.tolist()
        return loss / max(count, 1), score / max(count, 1), int(count)

    def finish(self, metric: Metric) -> tuple[float, float, int]:
        """As `read`, with the score of a metric that sees all images at once."""
        loss, score, count = self.read()
        if getattr(metric, "of_all", False) and count:
            kept = gather_lists([(logits.cpu(), targets.cpu()) for logits, targets in self.kept])
            score = float(metric(*map(torch.cat, zip(*kept, strict=True))))
        return loss, score, count


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
    per image, whose mean is reported as "accuracy"; one with the attribute `of_all = True` sees
    the logits and targets of all images at once and gives one number. device: the model's by
    default.
    """
    loss, metric = loss or cross_entropy, metric or accuracy
    with _evaluating(model, device, precision) as (where, precision):
        totals = Totals(where)
        for batch in batches:
            images, targets = check_batch(batch, where)
            logits = compute_logits(model, images, precision)
            totals.add(loss, metric, logits, targets)
        mean, mean_score, count = totals.finish(metric)
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
