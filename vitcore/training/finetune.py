# SPDX-License-Identifier: MIT
"""What a pretrained model is turned to: another head, a frozen backbone, features (chapter 11)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import _inputs as inputs
from ..vit import ViT
from .arguments import checked, kind_of, of_kind
from .evaluation import check_targets, predict

_is_vit = of_kind(ViT, "a ViT")


def reset_head(model: ViT, num_classes: int) -> None:
    """Give a ViT a new head for so many classes, as it starts in training: N(0, 0.02²), no bias.

    0 classes leave the head out: the model gives pooled features (B, D).
    """
    _is_vit("model", model)
    num_classes = inputs.check_whole("num_classes", num_classes)
    model.config = replace(model.config, num_classes=num_classes)
    if not num_classes:
        model.head = nn.Identity()
        return
    head = nn.Linear(model.config.dim, num_classes)
    nn.init.trunc_normal_(head.weight, std=0.02, a=-0.04, b=0.04)
    nn.init.zeros_(head.bias)
    model.head = head.to(next(model.parameters()))


def freeze_backbone(model: ViT, frozen: bool = True) -> None:
    """Let training change the head alone, the rest being as in evaluation, or all again."""
    for name, part in _is_vit("model", model).named_children():
        if name != "head":
            part.train(not frozen)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not frozen or name.startswith("head."))


class _Features(nn.Module):
    """A ViT without its head."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model.pool(self.model.forward_features(images))


def extract_features(model: ViT, images: Any, **options: Any) -> Tensor:
    """What the head would read of images or batches of them, (N, D) float32 on the CPU.

    options: batch_size, device and precision, as in `predict`.
    """
    return predict(_Features(_is_vit("model", model)), images, **options)


@checked
def linear_probe(
    features: Tensor, labels: Tensor, *, num_classes: int | None = None, weight_decay: float = 1e-3
) -> nn.Linear:
    """A head for features (N, D) and class numbers (N,): logistic regression, solved by L-BFGS.

    The features are brought to mean 0 and deviation 1 for it, and the head takes them as they
    are. weight_decay: half the squared weights count by it, as in the mean loss of all images.
    Put it into the model as ``model.head`` after ``reset_head``.
    """
    classes = int(labels.max()) + 1 if num_classes is None else num_classes
    _check_features(features, labels, classes)
    mean, std = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    scaled = (features - mean) / std
    head = nn.Linear(features.shape[1], classes).to(features)
    nn.init.zeros_(head.weight), nn.init.zeros_(head.bias)
    solver = torch.optim.LBFGS(head.parameters(), max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(head(scaled), labels)
        value = value + weight_decay / 2 * head.weight.square().sum()
        value.backward()
        return value

    solver.step(loss)  # type: ignore[arg-type]
    with torch.no_grad():
        head.weight.div_(std)
        head.bias.sub_(head.weight @ mean)
    return head


@checked
def nearest_neighbours(
    features: Tensor, labels: Tensor, queries: Tensor, *, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """Log shares (M, K) of the classes among the k nearest of features (N, D) to queries (M, D).

    A neighbour votes for its class, labels (N,), by exp(cosine / temperature). A class without a
    neighbour has -inf. Source: Wu et al. (2018), "Unsupervised feature learning", section 3.4.
    """
    classes = int(labels.max()) + 1
    _check_features(features, labels, classes)
    inputs.check_tensor("queries", queries, f"M, {features.shape[1]}")
    temperature = inputs.check_above_zero("temperature", temperature)
    likeness = F.normalize(queries, dim=1) @ F.normalize(features, dim=1).T  # (M, N)
    best, where = likeness.topk(min(k, len(features)), dim=1)
    votes = queries.new_zeros(len(queries), classes)
    votes.scatter_add_(1, labels[where], (best / temperature).softmax(dim=1))
    return votes.log()


def _check_features(features: Any, labels: Tensor, classes: int) -> None:
    inputs.check_tensor("features", features, "N, D")
    check_targets(features.new_empty(len(features), classes), labels, soft=False)
    if not features.isfinite().all():
        raise ValueError(
            f"features are {kind_of(features)} with NaN or infinity; give finite ones."
        )
