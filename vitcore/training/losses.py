# SPDX-License-Identifier: MIT
"""What training lowers and what evaluation counts; chapter 6 builds the cross-entropy."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from .._inputs import check_rate, shown
from .arguments import checked, is_tensor

Loss = Callable[..., Tensor]
Metric = Callable[[Tensor, Tensor], Tensor]


def _kind(value: Tensor) -> str:
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} of shape {tuple(value.shape)} on {value.device}"


def _is_logits(name: str, value: Any) -> Tensor:
    if not is_tensor(name, value).is_floating_point() or value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name} is {_kind(value)}; give floating point (B, K).")
    return cast(Tensor, value)


def _is_targets(name: str, value: Any) -> Tensor:
    if is_tensor(name, value).is_complex():
        raise ValueError(f"{name} is {_kind(value)}; give real numbers.")
    return cast(Tensor, value)


@checked(logits=_is_logits, targets=_is_targets, label_smoothing=check_rate)
def cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy of logits (B, K), in nats.

    targets: class numbers, int64 (B,), or a distribution over the classes, float (B, K), as mixup
    makes it. The logits go in as the model gives them: the softmax is part of the loss.

    Raises ValueError for other targets. Class numbers out of range are found on the CPU alone: on
    a GPU each look at them would make it wait.
    """
    by_class = targets.shape == logits.shape[:1] and not targets.is_floating_point()
    soft = targets.shape == logits.shape and targets.is_floating_point()
    if logits.shape[1] < 2 or targets.device != logits.device or not (by_class or soft):
        raise ValueError(
            f"cross_entropy got targets {_kind(targets)} for logits {_kind(logits)}; give "
            "logits (B, K) of two classes or more, and class numbers (B,) or float distributions "
            "(B, K): one-hot rows become class numbers by targets.argmax(dim=1), a column by "
            "targets.squeeze(1), and where an image can have several labels, the loss is "
            "binary_cross_entropy."
        )
    if soft:
        return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
    if targets.device.type == "cpu" and len(targets):
        low, high = int(targets.min()), int(targets.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(
                f"the class numbers of a batch lie between {low} and {high}, but the model has "
                f"{logits.shape[1]} classes: give numbers from 0 to {logits.shape[1] - 1}."
            )
    return F.cross_entropy(logits, targets.long(), label_smoothing=label_smoothing)


@checked(logits=_is_logits, targets=_is_targets, label_smoothing=check_rate)
def binary_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean over images and labels of the yes-or-no cross-entropy: targets (B, K) of 0 and 1."""
    _check_labels("binary_cross_entropy", logits, targets)
    wanted = targets.to(logits.dtype)
    if label_smoothing:
        wanted = wanted * (1 - label_smoothing) + label_smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, wanted)


def _check_labels(what: str, logits: Tensor, targets: Tensor) -> None:
    if targets.shape != logits.shape or targets.device != logits.device:
        raise ValueError(
            f"{what} got targets {_kind(targets)} for logits {_kind(logits)}; give one 0 or 1 per "
            "label, in the shape of the logits."
        )


@checked(logits=_is_logits, targets=_is_targets)
def accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,) of 1 where the highest logit is the right class, else 0.

    targets: class numbers (B,), or float distributions (B, K), whose right class is the heaviest.
    """
    if targets.shape == logits.shape and targets.is_floating_point():
        targets = targets.argmax(dim=1)
    if targets.shape != logits.shape[:1] or targets.device != logits.device:
        raise ValueError(
            f"accuracy got targets {_kind(targets)} for logits {_kind(logits)}; give class numbers "
            "(B,) or float distributions (B, K); where an image can have several labels, "
            "the metric is label_accuracy."
        )
    return (logits.argmax(dim=1) == targets).float()


@checked(logits=_is_logits, targets=_is_targets)
def label_accuracy(logits: Tensor, targets: Tensor) -> Tensor:
    """(B,): the share of an image's labels (B, K) that the sign of the logit gets right."""
    _check_labels("label_accuracy", logits, targets)
    return ((logits > 0) == (targets > 0.5)).float().mean(dim=1)


def choose(loss: Loss | None, metric: Metric | None) -> tuple[Loss, Metric]:
    """The loss and the metric asked for, or those that suit."""
    if metric is None:
        several = (binary_cross_entropy, F.binary_cross_entropy_with_logits)
        by_label = loss in several or isinstance(loss, nn.BCEWithLogitsLoss)
        metric = label_accuracy if by_label else accuracy
    return loss or cross_entropy, metric


def mean_loss(loss: Loss, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss of a batch as one number; a loss may also give one for each image."""
    value = loss(logits, targets)
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise TypeError(f"the loss must return a floating point tensor, not {_returned(value)}.")
    return value.mean()


def score(metric: Metric, logits: Tensor, targets: Tensor) -> Tensor:
    """The scores of a batch, one for each image (B,)."""
    value = metric(logits, targets)
    if not isinstance(value, Tensor) or value.shape != logits.shape[:1]:
        raise TypeError(
            f"the metric must return a tensor with one score for each of the {len(logits)} images "
            f"of a batch, not {_returned(value)}: leave out the mean."
        )
    return value


def _returned(value: object) -> str:
    return _kind(value) if isinstance(value, Tensor) else shown(value)


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
