# SPDX-License-Identifier: MIT
"""Images with several labels: what training lowers, and the average precision of a ranking.

Targets are float (B, K): 1 where an image shows a class, 0 where it does not, and UNKNOWN where
neither counts, as for objects that Pascal VOC calls difficult and regions that COCO calls a crowd.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import checked, kind_of

UNKNOWN = -1.0


def _check(logits: Tensor, targets: Tensor) -> None:
    """Raise one clear sentence unless targets are float (B, K) as the logits; see the module."""
    fits = targets.shape == logits.shape and targets.is_floating_point()
    if not fits or targets.device != logits.device:
        raise ValueError(
            f"targets are {kind_of(targets)} for logits {kind_of(logits)}; give float (B, K): 1 "
            "where an image shows a class, 0 where not, -1 where that is unknown."
        )
    if targets.device.type == "cpu":  # each look at a GPU makes it wait
        odd = targets[~((targets >= 0) & (targets <= 1) | (targets == UNKNOWN))]
        if len(odd):
            raise ValueError(f"a target is {odd[0]:g}; give 0 to 1, or -1 where it is unknown.")


@checked
def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of yes against no, in nats: (B,), each the mean over an image's known classes.

    logits (B, K) as the model gives them: the sigmoid is part of the loss. targets float (B, K): 1
    for a class that the image shows, 0 for another, a number between for a soft label, -1 for what
    is unknown, which counts for nothing. Raises ValueError for other targets.
    """
    _check(logits, targets)
    known = (targets >= 0).to(logits.dtype)
    losses = F.binary_cross_entropy_with_logits(
        logits, targets.to(logits.dtype).clamp(min=0), weight=known, reduction="none"
    )
    return losses.sum(dim=1) / known.sum(dim=1).clamp(min=1)


@checked
def average_precision(logits: Tensor, targets: Tensor) -> Tensor:
    """(K,) float64 on the CPU: the average precision of each class, in [0, 1].

    The images are ranked by their logit (B, K); AP is the sum over thresholds n of
    (R_n - R_{n-1}) P_n, with recall R and precision P of the images at or above the threshold, and
    images of equal logit pass together. Nothing is interpolated: scikit-learn's
    ``average_precision_score``. targets as in ``binary_cross_entropy``, and a soft one is a yes
    from one half on; unknown ones are left out of their class. A class without a yes has NaN.
    """
    _check(logits, targets)
    scores, truth = logits.detach().cpu(), targets.cpu()
    columns = zip(scores.unbind(dim=1), truth.unbind(dim=1), strict=True)
    return torch.stack([_average_precision(s[t >= 0], t[t >= 0] >= 0.5) for s, t in columns])


def _average_precision(scores: Tensor, right: Tensor) -> Tensor:
    """Of one class: scores (n,) and whether each image shows it (n,)."""
    scores, order = scores.sort(descending=True)
    last = torch.ones(len(scores), dtype=torch.bool)  # of the images with an equal score
    last[:-1] = scores[1:] != scores[:-1]
    hits = right[order].double().cumsum(dim=0)[last]
    precision = hits / torch.arange(1, len(scores) + 1)[last]
    gained = hits.diff(prepend=hits.new_zeros(1))
    return (gained * precision).sum() / gained.sum()  # 0 / 0 without a yes


@checked
def mean_average_precision(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of ``average_precision`` over the classes that some image shows, a number in [0, 1];
    0 where none does. `fit` and `evaluate` take it as their metric: it sees all images at once."""
    return average_precision(logits, targets).nanmean().nan_to_num(0.0)


mean_average_precision.of_all = True  # type: ignore[attr-defined]
