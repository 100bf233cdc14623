# SPDX-License-Identifier: MIT
"""Runs a recipe, from its first batch to the one look at the test images (chapters 6 and 7)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from . import training
from ._inputs import to_pair
from .data import (
    Batches,
    DiskSplit,
    ImageDataset,
    Split,
    build_augment,
    build_mix,
    overlap,
    sketch_images,
)
from .recipes import Recipe
from .training import History, LoadedModel, distributed_rank, resolve_device, resolve_precision
from .training.arguments import checked, of_kind
from .training.device import gather_lists
from .training.evaluation import check_targets
from .vit import ViT, ViTConfig

WEIGHTS = "model.safetensors"
CLEAN_IMAGES = 10_000  # training images, as they are, on which a finished model is judged
SEEN_BY_CHANCE = 0.01  # the share of test images that may turn up twice in honest data

_is_recipe = of_kind(Recipe, "a Recipe")
_is_dataset = of_kind(ImageDataset, "an ImageDataset")
_is_function = of_kind(Callable, "a function of a ViTConfig")


@dataclass
class Run:
    """What `train_recipe` gives back."""

    recipe: Recipe
    model: nn.Module
    history: History
    test: dict[str, float]  # loss, accuracy and count, from one look at the test images
    confusion: Tensor  # (K, K) counts of that look
    # Further scores of it: top5_accuracy and calibration_error of many classes, coarse_accuracy
    # where they have groups.
    more: dict[str, float]
    # Of the chosen weights on up to 10,000 training images without augmentation.
    clean_train_accuracy: float
    train_pflop: float  # arithmetic of all training steps, see `training_pflop`
    # How many cores other work kept busy during training (of a resumed run, its last part), on
    # average; None where the system does not say.
    other_cores: float | None
    device: torch.device
    precision: str
    test_seconds: float = 0.0  # what followed training


@checked
def confusion_matrix(logits: Tensor, labels: Tensor) -> Tensor:
    """(K, K) counts, int64: row the true class, column the predicted one."""
    check_targets(logits, labels, soft=False)
    classes = logits.shape[1]
    pairs = labels.long().cpu() * classes + logits.argmax(dim=1).cpu()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


@checked
def top_k_accuracy(logits: Tensor, labels: Tensor, k: int = 5) -> float:
    """Share of images whose class (B,) is among the k highest logits (B, K)."""
    check_targets(logits, labels, soft=False)
    best = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (best == labels.view(-1, 1)).any(dim=1).double().mean().item()


@checked
def group_accuracy(logits: Tensor, labels: Tensor, group_of: Tensor) -> float:
    """Share of images whose best class is of the right group, be it the right class or not.

    logits (B, K); labels (B,); group_of (K,): the group of each class.
    """
    check_targets(logits, labels, soft=False)
    if group_of.shape != logits.shape[1:]:
        raise ValueError(f"group_of has shape {tuple(group_of.shape)}; give a group a class, (K,).")
    return (group_of[logits.argmax(dim=1)] == group_of[labels.long()]).double().mean().item()


@checked
def calibration_error(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """How far confidence and accuracy lie apart: the expected calibration error, in [0, 1].

    The images are sorted into ``bins`` equal ranges of the highest probability; the gap between
    its mean and the accuracy in each range counts by the range's share of the images.

    Source: Guo et al. (2017), equation 3.
    """
    check_targets(logits, labels, soft=False)
    if not logits.isfinite().all():
        raise ValueError("logits hold NaN or infinity; give finite ones.")
    confidence, best = logits.double().softmax(dim=1).max(dim=1)
    which = (confidence * bins).long().clamp(max=bins - 1)
    gaps = confidence - (best == labels).double()
    sums = gaps.new_zeros(bins).index_add_(0, which, gaps)
    return sums.abs().sum().item() / len(labels)


def check_unseen(loaded: LoadedModel, split: Split) -> None:
    """Raise ValueError where images of ``split`` are among those that the weights were trained on,
    or chosen on as validation images, beyond a stray duplicate.

    The weights know them by their content. Of weights that keep no such sketch nothing is known,
    and they pass.
    """
    sketch = of_kind(LoadedModel, "what load_weights gives")("loaded", loaded).metadata
    if "seen_images" not in sketch:
        return
    seen = overlap(sketch["seen_images"], split)
    if seen.found > SEEN_BY_CHANCE * seen.compared:
        raise ValueError(
            f"of {seen.compared} test images compared, {seen.found} are among those that these "
            "weights were trained or chosen on, so their accuracy says nothing of new images; give "
            "the division that they were trained with, or your own images (or eval --allow-seen)."
        )


def _count_flops(model: nn.Module, channels: int, image_size: int | tuple[int, int]) -> int:
    """Floating-point operations of one forward pass of one image: of matrix products and
    convolutions, a multiplication with its addition being two; the rest is a few per cent more."""
    image = next(model.parameters()).new_zeros(1, channels, *to_pair(image_size))
    # What one fused kernel computes is seen in parts, so that it counts on every device.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops()


def training_pflop(recipe: Recipe, model: nn.Module, images: int) -> float:
    """Arithmetic of training on so many images an epoch, in 10^15 operations: three forward passes
    for each, as the backward pass has twice the products. Validation does not count."""
    config = recipe.model
    sizes: list[Any] = recipe.size_by_epoch() or [config.image_size] * recipe.train.epochs
    each = {size: _count_flops(model, config.in_channels, size) for size in set(sizes)}
    return float(f"{3 * images * sum(each[size] for size in sizes) / 1e15:.4g}")


def _other_seconds() -> float:
    """Seconds that other work has kept the cores open to this process busy, since the machine
    started; NaN where the system does not say."""
    try:
        rows = [line.split() for line in Path("/proc/stat").read_text("utf-8").splitlines()]
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    except (OSError, AttributeError):
        return math.nan
    # user, nice, system, irq, softirq, and what a hypervisor gave to others
    busy = sum(int(row[i]) for row in rows if row[0] in cores for i in (1, 2, 3, 6, 7, 8))
    return busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def make_batches(
    recipe: Recipe,
    dataset: ImageDataset,
    split: Split,
    *,
    device: torch.device,
    training: bool = False,
) -> Batches:
    """The batches of one split as the recipe wants them: shuffled and changed in training.

    Of several processes each has its share of every batch; they train on whole batches alone,
    because all must make the same number of steps. So does a compiled model, which would be
    compiled once more for the smaller last batch.
    """
    _is_recipe("recipe", recipe), _is_dataset("dataset", dataset)
    rank, world_size = distributed_rank()
    place: dict[str, Any] = {"device": device, "rank": rank, "world_size": world_size}
    place |= {"mean": dataset.mean, "std": dataset.std}
    if not training:
        return Batches(split, 250, **place)  # larger ones leave the cache
    batch_size = recipe.train.batch_size
    if batch_size % world_size:
        shared = f"a batch of {batch_size} images cannot be shared among {world_size} processes"
        raise ValueError(f"{shared}: start a number of them that divides it.")
    return Batches(
        split,
        batch_size // world_size,
        shuffle=True,
        seed=recipe.train.seed,
        augment=build_augment(recipe.augment, **recipe.augment_options),
        mix=build_mix(recipe.mix, num_classes=dataset.num_classes, **recipe.mix_options),
        sizes=recipe.size_by_epoch(),
        drop_last=recipe.train.compile or world_size > 1,
        **place,
    )


def measures(dataset: ImageDataset) -> dict[str, Any]:
    """The loss and the metric of `fit` and `evaluate` that suit the labels of a data set."""
    if _is_dataset("dataset", dataset).multi_label:
        loss: Any = training.binary_cross_entropy
        return {"loss": loss, "metric": training.mean_average_precision}
    return {"loss": training.cross_entropy, "metric": training.accuracy}


def _answers(model: nn.Module, batches: Batches, precision: str) -> tuple[Tensor, Tensor]:
    """Logits and labels of the images of all processes, but of those that cannot be read."""
    labels: list[Tensor] = []

    def watched() -> Iterator[Tensor]:
        for images, targets in batches:
            labels.append(targets.cpu())
            yield images

    logits = training.predict(model, watched(), device=batches.device, precision=precision)
    rows = gather_lists([(logits, torch.cat(labels))])
    return torch.cat([row[0] for row in rows]), torch.cat([row[1] for row in rows])


def _judge(model: nn.Module, recipe: Recipe, dataset: ImageDataset, device: Any) -> dict[str, Any]:
    """What a run says of its model: the one look at the test images, and clean training ones."""
    precision = resolve_precision(recipe.train.precision, device)
    loss, metric = measures(dataset).values()

    def answers(split: Split) -> tuple[Tensor, Tensor]:
        return _answers(model, make_batches(recipe, dataset, split, device=device), precision)

    logits, labels = answers(dataset.test)
    clean = dataset.subset(min(CLEAN_IMAGES, len(dataset.train.labels)), 0, 0).train
    scores = (metric(*part).double().mean().item() for part in ((logits, labels), answers(clean)))
    test: dict[str, float] = {"loss": loss(logits, labels).mean().item()}
    test["accuracy"], clean_score = scores
    found = {"test": {**test, "count": len(labels)}, "clean_train_accuracy": clean_score}
    found |= {"precision": precision, "more": (more := {})}
    if dataset.multi_label:
        return {**found, "confusion": labels.new_zeros(0, 0)}
    if dataset.num_classes > 10:
        more["top5_accuracy"] = top_k_accuracy(logits, labels)
        more["calibration_error"] = calibration_error(logits, labels)
    if dataset.group_of is not None:
        more["coarse_accuracy"] = group_accuracy(logits, labels, dataset.group_of)
    return {**found, "confusion": confusion_matrix(logits, labels)}


def _save(path: Path, run: Run, dataset: ImageDataset) -> None:
    """Write the chosen weights with all that the command line needs to know of them."""
    known = {name: run.history.best[name] for name in ("epoch", "val_accuracy")}
    known |= {"recipe": run.recipe.name, "seed": run.recipe.train.seed, "dataset": dataset.name}
    known |= {"source": str(dataset.source), "test_accuracy": run.test["accuracy"]}
    if not isinstance(dataset.train, DiskSplit):  # to look at all of the disk again takes hours
        known["seen_images"] = sketch_images(dataset.train, dataset.val)
    known |= {"multi_label": True} if dataset.multi_label else {}
    images: dict[str, Any] = {"classes": dataset.classes, "mean": dataset.mean, "std": dataset.std}
    training.save_weights(path, run.model, **images, extra=known)


def train_recipe(
    recipe: Recipe,
    dataset: ImageDataset,
    *,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: Callable[[dict[str, Any], nn.Module], None] | None = None,
    build: Callable[[ViTConfig], nn.Module] = ViT,
) -> Run:
    """Train the recipe's model on `dataset`, choose the weights on the validation images, then
    look at the test images once. `out` takes the checkpoint and model.safetensors; on_epoch as in
    `fit`.

    build: makes the model from the recipe's configuration; the weights of one that is no ViT stay
    in the checkpoint. Where torch.distributed is initialised, all processes call it alike: each
    computes its share of every batch and of every evaluation, and rank 0 writes.
    """
    _is_recipe("recipe", recipe), _is_dataset("dataset", dataset), _is_function("build", build)
    dataset = dataset.subset(*recipe.images) if recipe.images else dataset
    if not all(len(split.labels) for split in (dataset.train, dataset.val, dataset.test)):
        raise ValueError("the data lacks images to train, validate or test on; give all three.")
    recipe, where = recipe.fitted_to(dataset), resolve_device(device)
    rank, world_size = distributed_rank()
    training.set_seed(recipe.train.seed)
    model = of_kind(nn.Module, "a function that makes a model")("build", build(recipe.model))
    train = make_batches(recipe, dataset, dataset.train, device=where, training=True)
    val = make_batches(recipe, dataset, dataset.val, device=where)
    options: dict[str, Any] = {"out": out, "resume": resume, "progress": progress}
    # What must be the same when a run is resumed, beside the configuration; a note is words.
    known = {k: v for k, v in recipe.to_dict().items() if k not in ("train", "note")}
    options |= {"on_epoch": on_epoch, "device": where, "metadata": {"recipe": known}}
    options |= measures(dataset)
    trained: nn.Module = model
    if world_size > 1:
        gpu = [where.index] if where.type == "cuda" else None
        trained = DistributedDataParallel(model.to(where), device_ids=gpu)
    started, before = time.perf_counter(), _other_seconds()
    history = training.fit(trained, train, val, recipe.train, **options)
    ended, others = time.perf_counter(), _other_seconds() - before
    alone = world_size == 1 and math.isfinite(others)
    count = len(train) * recipe.train.batch_size if train.drop_last else len(dataset.train.labels)
    run = Run(
        recipe=recipe,
        model=model,
        history=history,
        train_pflop=training_pflop(recipe, model, count),
        other_cores=round(max(0.0, others) / (ended - started), 2) if alone else None,
        device=where,
        **_judge(model, recipe, dataset, where),
    )
    run.test_seconds = time.perf_counter() - ended
    if out is not None and rank == 0 and isinstance(model, ViT):
        _save(Path(out) / WEIGHTS, run, dataset)
    return run
