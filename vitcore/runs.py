# SPDX-License-Identifier: MIT
"""Runs a recipe, from its first batch to the one look at the test images (chapters 6 and 7)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .data import Batches, ImageDataset, Split, build_augment, build_mix
from .recipes import Recipe
from .training import (
    History,
    distributed_rank,
    evaluate,
    fit,
    predict,
    resolve_device,
    resolve_precision,
    save_weights,
    set_seed,
)
from .vit import ViT, ViTConfig

__all__ = [
    "Run",
    "calibration_error",
    "confusion_matrix",
    "group_accuracy",
    "make_batches",
    "top_k_accuracy",
    "train_recipe",
]

WEIGHTS = "model.safetensors"


@dataclass
class Run:
    """What `train_recipe` gives back. seconds: training with its validation, over all parts of a
    resumed run; test_seconds: the one look at the test set. more: further numbers on the test
    images, where there are many classes: see `_further_scores`."""

    recipe: Recipe
    model: nn.Module
    history: History
    test: dict[str, float]
    confusion: Tensor
    seconds: float
    test_seconds: float
    device: torch.device
    precision: str
    more: dict[str, float] = field(default_factory=dict)


def confusion_matrix(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, K) counts, int64: row the true class, column the predicted one."""
    pairs = labels.cpu() * classes + logits.argmax(dim=1).cpu()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def top_k_accuracy(logits: Tensor, labels: Tensor, k: int = 5) -> float:
    """Share of images whose class (B,) is among the k highest logits (B, K)."""
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == labels.view(-1, 1)).any(dim=1).double().mean().item()


def group_accuracy(logits: Tensor, labels: Tensor, group_of: Tensor) -> float:
    """Share of images whose best class is of the right group, be it the right class or not.

    logits (B, K); labels (B,); group_of (K,): the group of each class.
    """
    return (group_of[logits.argmax(dim=1)] == group_of[labels]).double().mean().item()


def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """How far confidence and accuracy lie apart: the expected calibration error, in [0, 1].

    The images are sorted into ``bins`` equal ranges of the highest probability; the gap between
    its mean and the accuracy in each range counts by the range's share of the images.

    Source: Guo et al. (2017), equation 3.
    """
    confidence, best = logits.double().softmax(dim=1).max(dim=1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = confidence - (best == labels).double()
    sums = torch.zeros(bins, dtype=torch.float64).index_add_(0, which, gaps)
    return sums.abs().sum().item() / len(labels)


def _further_scores(logits: Tensor, labels: Tensor, dataset: ImageDataset) -> dict[str, float]:
    """top5_accuracy and calibration_error where there are many classes, coarse_accuracy where
    they have groups; of logits and labels on the CPU."""
    scores: dict[str, float] = {}
    if dataset.num_classes > 10:
        scores["top5_accuracy"] = top_k_accuracy(logits, labels)
        scores["calibration_error"] = calibration_error(logits, labels)
    if dataset.group_of is not None:
        scores["coarse_accuracy"] = group_accuracy(logits, labels, dataset.group_of)
    return scores


def make_batches(
    recipe: Recipe,
    dataset: ImageDataset,
    split: Split,
    *,
    device: torch.device,
    training: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> Batches:
    """The batches of one split as the recipe wants them: shuffled and changed in training.

    Of several processes each has its share of every batch; they train on whole batches alone,
    because all must make the same number of steps. So does a compiled model, which would be
    compiled once more for the smaller last batch.
    """
    if training and recipe.train.batch_size % world_size:
        raise ValueError(
            f"a batch of {recipe.train.batch_size} images cannot be shared among {world_size} "
            "processes: start a number of them that divides it."
        )
    augment = mix = None
    if training:
        augment = build_augment(recipe.augment, **recipe.augment_options)
        mix = build_mix(recipe.mix, num_classes=dataset.num_classes, **recipe.mix_options)
    return Batches(
        split,
        recipe.train.batch_size // world_size if training else 250,  # larger leaves the cache
        mean=dataset.mean,
        std=dataset.std,
        shuffle=training,
        seed=recipe.train.seed,
        augment=augment,
        mix=mix,
        sizes=recipe.size_by_epoch() if training else (),
        device=device,
        drop_last=training and (world_size > 1 or recipe.train.compile),
        rank=rank,
        world_size=world_size,
    )


def _gathered(part: Tensor, count: int, world_size: int) -> Tensor:
    """The rows of all processes in their order, each having brought every world_size-th one."""
    if world_size == 1:
        return part
    parts: list[Any] = [None] * world_size
    torch.distributed.all_gather_object(parts, part)
    whole = part.new_empty(count, *part.shape[1:])
    for rank, rows in enumerate(parts):
        whole[rank::world_size] = rows
    return whole


def train_recipe(
    recipe: Recipe,
    dataset: ImageDataset,
    *,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    build: Callable[[ViTConfig], nn.Module] = ViT,
) -> Run:
    """Train the recipe's model on `dataset`, choose the weights on the validation images, then
    look at the test images once. `out` takes the checkpoint and model.safetensors.

    build: makes the model from the recipe's configuration; a model that is no ViT trains as well,
    for comparison, but its weights stay in the checkpoint.

    Where torch.distributed is initialised, all processes call it alike: each computes its share
    of every batch and of every evaluation, and rank 0 writes.
    """
    where = resolve_device(device)
    rank, world_size = distributed_rank()
    if recipe.images is not None:
        dataset = dataset.subset(*recipe.images)
    recipe = recipe.fitted_to(dataset)
    set_seed(recipe.train.seed)
    model = build(recipe.model)
    described = recipe.to_dict()
    # The configuration is compared under its own name; a note is only words.
    for name in ("train", "note"):
        del described[name]
    trained: nn.Module = model
    if world_size > 1:
        trained = nn.parallel.DistributedDataParallel(
            model.to(where), device_ids=[where.index] if where.type == "cuda" else None
        )

    def batches(split: Split, training: bool = False) -> Batches:
        return make_batches(
            recipe,
            dataset,
            split,
            device=where,
            training=training,
            rank=rank,
            world_size=world_size,
        )

    history = fit(
        trained,
        batches(dataset.train, training=True),
        batches(dataset.val),
        recipe.train,
        device=where,
        out=out,
        resume=resume,
        progress=progress,
        metadata={"recipe": described, "data": dataset.fingerprint()},
    )
    started = time.perf_counter()
    precision = resolve_precision(recipe.train.precision, where)
    share = batches(dataset.test)
    test = evaluate(model, share, device=where, precision=precision)
    logits = predict(model, share, device=where, precision=precision)
    logits = _gathered(logits, len(dataset.test.labels), world_size)
    confusion = confusion_matrix(logits, dataset.test.labels, dataset.num_classes)
    more = _further_scores(logits, dataset.test.labels, dataset)
    test_seconds = time.perf_counter() - started
    if out is not None and rank == 0 and isinstance(model, ViT):
        save_weights(
            Path(out) / WEIGHTS,
            model,
            classes=dataset.classes,
            mean=dataset.mean,
            std=dataset.std,
            extra={
                "recipe": recipe.name,
                "dataset": dataset.name,
                "source": str(dataset.source),
                "seed": recipe.train.seed,
                "epoch": history.best["epoch"],
                "val_accuracy": history.best["val_accuracy"],
                "test_accuracy": test["accuracy"],
            },
        )
    return Run(
        recipe=recipe,
        model=model,
        history=history,
        test=test,
        confusion=confusion,
        seconds=history.seconds,
        test_seconds=test_seconds,
        device=where,
        precision=precision,
        more=more,
    )
