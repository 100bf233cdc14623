# SPDX-License-Identifier: MIT
"""What training lowers and what evaluation counts; chapter 6 builds the cross-entropy."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K), in nats.

    targets: class numbers, int64 (B,), or a distribution over the classes, float (B, K), as mixup
    makes it. The logits go in as the model gives them: the softmax is part of the loss.
    """
    by_class = targets.ndim == 1 and not targets.is_floating_point()
    soft = targets.shape == logits.shape and targets.is_floating_point()
    if not (by_class or soft):
        raise ValueError(
            f"cross_entropy got {targets.dtype} targets of shape {tuple(targets.shape)} for logits "
            f"of shape {tuple(logits.shape)}: give class numbers (B,) or float distributions "
            "(B, K), or loss=binary_cross_entropy where an image can have several labels."
        )
    return F.cross_entropy(
        logits, targets if soft else targets.long(), label_smoothing=label_smoothing
    )


def binary_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over images and labels of the yes-or-no cross-entropy: targets (B, K) of 0 and 1."""
    if targets.shape != logits.shape:
        raise ValueError(
            f"binary_cross_entropy needs targets of the shape of the logits {tuple(logits.shape)}, "
            f"one 0 or 1 per label, not {tuple(targets.shape)}."
        )
    wanted = targets.to(logits.dtype)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted)


def default_loss(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Binary cross-entropy for whole-number or boolean targets (B, K), cross-entropy otherwise."""
    if targets.ndim == 2 and not targets.is_floating_point():
        return binary_cross_entropy(logits, targets, label_smoothing)
    return cross_entropy(logits, targets, label_smoothing)


def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of 1 where the highest logit is the right class, else 0.

    For soft targets the right class is the heaviest; for several labels per image (whole-number or
    boolean targets (B, K)) the score is `label_accuracy`.
    """
    if targets.ndim == 2:
        if not targets.is_floating_point():
            return label_accuracy(logits, targets)
        targets = targets.argmax(dim=1)
    return (logits.argmax(dim=1) == targets).float()


def label_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): the share of an image's labels (B, K) that the sign of the logit gets right."""
    return ((logits > 0) == (targets > 0.5)).float().mean(dim=1)


def choose(loss: Loss | None, metric: Metric | None) -> tuple[Loss, Metric]:
    """The loss and the metric asked for, or those that suit."""
    if metric is None:
        metric = label_accuracy if loss is binary_cross_entropy else accuracy
    return loss or default_loss, metric


def with_smoothing(loss: Loss, label_smoothing: float) -> Loss:
    """The loss as training takes it."""
    if not label_smoothing:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        raise ValueError(
            f"label_smoothing is {label_smoothing}, but the loss given takes no argument of that "
            "name: set it to 0 in the configuration, or add the argument to the loss."
        )

    def smoothed(logits: Tensor, targets: Tensor) -> Tensor:
        return loss(logits, targets, label_smoothing=label_smoothing)

    return smoothed
