# SPDX-License-Identifier: MIT
"""What training lowers and what evaluation counts; chapter 6 builds the cross-entropy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from .arguments import checked, kind_of

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]

_BY_CLASS = (
    "logits (B, K) of two classes or more, and class numbers (B,) or float distributions (B, K): "
    "one-hot rows become class numbers by targets.argmax(dim=1), a column by targets.squeeze(1), "
    "and where an image can have several labels, the loss is binary_cross_entropy and the metric "
    "is label_accuracy"
)
_BY_LABEL = "one 0 or 1 per label, in the shape of the logits"


def _check_targets(logits: Tensor, targets: Tensor, wanted: str) -> bool:
    """Raise one clear sentence unless targets suit the logits; say if they are class numbers."""
    numbers = targets.shape == logits.shape[:1] and not targets.is_floating_point()
    fits = targets.shape == logits.shape
    if wanted is _BY_CLASS:
        fits = logits.shape[1] > 1 and (numbers or (fits and targets.is_floating_point()))
    if not fits or targets.device != logits.device:
        given = f"targets are {kind_of(targets)} for logits {kind_of(logits)}"
        raise ValueError(f"{given}; give {wanted}.")
    return numbers


def check_labels(logits: Tensor, labels: Tensor) -> None:
    """Raise one clear sentence unless `labels` are class numbers (B,) of the logits (B, K)."""
    classes = logits.shape[1]
    if not _check_targets(logits, labels, _BY_CLASS):
        raise ValueError(f"labels are {kind_of(labels)}; give class numbers (B,).")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        given = f"class numbers of a batch lie between {low} and {high}"
        raise ValueError(f"the {given}; give 0 to {classes - 1} to {classes} classes.")


@checked
def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K), in nats.

    targets: class numbers, int64 (B,), or a distribution over the classes, float (B, K), as mixup
    makes it. The logits go in as the model gives them: the softmax is part of the loss.

    Raises ValueError for other targets. Class numbers out of range are found on the CPU alone: on
    a GPU each look at them would make it wait.
    """
    if _check_targets(logits, targets, _BY_CLASS):
        if targets.device.type == "cpu":
            check_labels(logits, targets)
        targets = targets.long()
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)


@checked
def binary_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over images and labels of the yes-or-no cross-entropy: targets (B, K) of 0 and 1."""
    _check_targets(logits, targets, _BY_LABEL)
    smoothed = targets.to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, smoothed)


@checked
def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of 1 where the highest logit is the right class, else 0.

    targets: class numbers (B,), or float distributions (B, K), whose right class is the heaviest.
    """
    if not _check_targets(logits, targets, _BY_CLASS):
        targets = targets.argmax(dim=1)
    return (logits.argmax(dim=1) == targets).float()


@checked
def label_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): the share of an image's labels (B, K) that the sign of the logit gets right."""
    _check_targets(logits, targets, _BY_LABEL)
    return ((logits > 0) == (targets > 0.5)).float().mean(dim=1)


def choose(loss: Loss | None, metric: Metric | None) -> tuple[Loss, Metric]:
    """The loss and the metric asked for, or those that suit."""
    several = (binary_cross_entropy, F.binary_cross_entropy_with_logits)
    by_label = loss in several or isinstance(loss, nn.BCEWithLogitsLoss)
    return loss or cross_entropy, metric or (label_accuracy if by_label else accuracy)


def mean_loss(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch as one number; a loss may also give one for each image."""
    value = loss(logits, targets)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"the loss returned {kind_of(value)}; give a floating point tensor.")
    return value.mean()


def score(metric: Metric, logits: Tensor, targets: Tensor) -> Tensor:
    """The scores of a batch, one for each image (B,)."""
    value = metric(logits, targets)
    if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
        wanted = f"a tensor with one score for each of the {len(logits)} images, without a mean"
        raise TypeError(f"the metric returned {kind_of(value)}; give {wanted}.")
    return value


def with_smoothing(loss: Loss, label_smoothing: float) -> Loss:
    """The loss as training takes it."""
    if not label_smoothing:
        return loss
    if "label_smoothing" not in inspect.signature(loss).parameters:
        given = f"label_smoothing is {label_smoothing}, but the loss takes no such argument"
        raise ValueError(f"{given}; set it to 0 in the configuration, or add it to the loss.")
    return partial(loss, label_smoothing=label_smoothing)
