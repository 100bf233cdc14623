# SPDX-License-Identifier: MIT
"""Loss and accuracy over all images, and logits, without a gradient; chapter 6 builds it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from .._inputs import check_positive
from .arguments import checked, is_batches, is_function, is_model, optional
from .device import autocast, distributed_rank, model_device, resolve_device, resolve_precision
from .losses import Loss, Metric, choose, mean_loss, score


class Totals:
    """Sums of loss, score and images that stay on the device until somebody asks."""

    def __init__(self, device: torch.device):
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(2, dtype=dtype, device=device)
        self.count = 0
        self.device = device

    def add(self, loss: Tensor, scores: Tensor, count: int) -> None:
        # A batch's mean weighs as much as the batch has images: the last one is often smaller.
        self.sums[0] += loss.detach() * count
        self.sums[1] += scores.sum()
        self.count += count

    def read(self, world_size: int) -> tuple[float, float, int]:
        """Mean loss, mean score, number of images, over all ranks."""
        sums = torch.cat([self.sums, self.sums.new_tensor([float(self.count)])])
        if world_size > 1:
            torch.distributed.all_reduce(sums)
        loss, score, count = sums.tolist()
        return loss / max(count, 1), score / max(count, 1), int(count)


def check_batch(batch: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """The images and targets of a batch, on the device."""
    if not (isinstance(batch, (tuple, list)) and len(batch) == 2):
        raise TypeError(
            f"a batch must be a pair (images, targets), not {type(batch).__name__}"
            + (f" of {len(batch)}." if isinstance(batch, (tuple, list)) else ".")
        )
    images, targets = batch
    for name, value in (("images", images), ("targets", targets)):
        if not isinstance(value, Tensor):
            raise TypeError(f"the {name} of a batch must be a tensor, not {type(value).__name__}.")
    counts = [len(value) if value.ndim else 0 for value in (images, targets)]
    if counts[0] != counts[1] or not counts[0]:
        raise ValueError(
            f"a batch has {counts[0]} images and {counts[1]} targets: give one target for each "
            "image, and no batch without images."
        )
    return images.to(device, non_blocking=True), targets.to(device, non_blocking=True)


def compute_logits(model: Callable[[Tensor], Any], images: Tensor, precision: str) -> Tensor:
    """The model's output for a batch, computed in `precision` and given in fp32."""
    with autocast(images.device, precision):
        logits = model(images)
    if not isinstance(logits, Tensor) or logits.shape[:1] != images.shape[:1]:
        given = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits)
        raise TypeError(
            f"the model must return one tensor of logits (B, K) for {len(images)} images, "
            f"not {given}; wrap a model that returns something else."
        )
    return logits.float()


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; then every part has the mode that it had before."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@checked(
    model=is_model,
    batches=is_batches,
    loss=optional(is_function),
    metric=optional(is_function),
    world_size=optional(check_positive),
)
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    loss: Loss | None = None,
    metric: Metric | None = None,
    device: str | torch.device | None = None,
    precision: str = "fp32",
    world_size: int | None = None,
) -> dict[str, float]:
    """Mean loss and mean score over all images: {"loss", "accuracy", "count"}.

    Sums over images divided by their number, never a mean of batch means. With several processes
    each evaluates its own share and the sums are added, so that every image counts once.
    loss: (logits, targets) -> mean over the batch. metric: (logits, targets) -> one score per
    image, whose mean is reported as "accuracy". device: where to compute; the model's by default.
    """
    loss, metric = choose(loss, metric)
    _, world_size = distributed_rank(None, world_size)
    where = model_device(model) if device is None else resolve_device(device)
    model.to(where)
    precision = resolve_precision(precision, where)
    totals = Totals(where)
    with evaluation_mode(model), torch.inference_mode():
        for batch in batches:
            images, targets = check_batch(batch, where)
            logits = compute_logits(model, images, precision)
            totals.add(
                mean_loss(loss, logits, targets), score(metric, logits, targets), len(images)
            )
    mean, mean_score, count = totals.read(world_size)
    if count == 0:
        raise ValueError("there is nothing to evaluate: the batches hold no image.")
    return {"loss": mean, "accuracy": mean_score, "count": count}


@checked(model=is_model, images=is_batches, batch_size=check_positive)
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
    where = model_device(model) if device is None else resolve_device(device)
    model.to(where)
    precision = resolve_precision(precision, where)
    parts: Iterable[Any] = images
    if isinstance(images, Tensor):
        parts = images.split(min(batch_size, max(1, len(images))))
    logits = []
    with evaluation_mode(model), torch.inference_mode():
        for part in parts:
            part = part[0] if isinstance(part, (tuple, list)) and part else part
            if not isinstance(part, Tensor):
                raise TypeError(
                    "predict takes images (B, C, H, W), or batches of them with or without "
                    f"targets, not a batch that is a {type(part).__name__}."
                )
            logits.append(compute_logits(model, part.to(where), precision).cpu())
    if not logits:
        raise ValueError("there is nothing to predict: no image was given.")
    return torch.cat(logits)
