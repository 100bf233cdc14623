# SPDX-License-Identifier: MIT
"""Training recipes as data, and the one function that runs them; chapters 6 and 7 compare them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .augment import build_augment, build_mix
from .training import (
    History,
    TrainConfig,
    distributed_rank,
    evaluate,
    fit,
    predict,
    resolve_device,
    resolve_precision,
    save_weights,
    set_seed,
)
from .vit import MODELS, ViT, ViTConfig

if TYPE_CHECKING:
    from .data import Batches, ImageDataset, Split

__all__ = [
    "CIFAR100_LADDER",
    "RECIPES",
    "Recipe",
    "Run",
    "calibration_error",
    "confusion_matrix",
    "get_recipe",
    "group_accuracy",
    "top_k_accuracy",
    "train_recipe",
]

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that is decided before training starts, as plain values.

    name: under which RECIPES lists it. dataset: a name that `vitcore.data.load_dataset` knows.
    model: the ViT. train: the optimisation. augment, augment_options: a name in
    `vitcore.augment.AUGMENTS` and its options, or None. mix, mix_options: the same of
    `vitcore.augment.MIXES`. images: how many (training, validation, test) images to use, by class;
    None for all. sizes: progressive resizing (Tan and Le, 2021): pairs (share of the epochs, side
    in pixels), from which on training images are shown at which size; none for their own. note: a
    line on what it is for.
    """

    name: str
    dataset: str
    model: ViTConfig
    train: TrainConfig
    augment: str | None = None
    augment_options: Mapping[str, Any] = field(default_factory=dict)
    mix: str | None = None
    mix_options: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[int, int, int] | None = None
    sizes: tuple[tuple[float, int], ...] = ()
    note: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple((float(a), b) for a, b in self.sizes))
        starts = [start for start, _ in self.sizes]
        if starts and (starts[0] != 0 or starts != sorted(starts) or starts[-1] >= 1):
            raise ValueError(
                f"sizes begin at shares {starts} of the epochs: give 0 first, then rising numbers "
                "below 1, such as ((0, 24), (0.6, 32))."
            )

    def size_by_epoch(self) -> list[int]:
        """The side in pixels of the training images of each epoch; empty where it never changes."""
        epochs = self.train.epochs if self.sizes else 0
        return [
            [size for start, size in self.sizes if start * self.train.epochs <= epoch][-1]
            for epoch in range(epochs)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `from_dict` gives the recipe back."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
            "augment": self.augment,
            "augment_options": dict(self.augment_options),
            "mix": self.mix,
            "mix_options": dict(self.mix_options),
            "images": None if self.images is None else list(self.images),
            "sizes": [list(pair) for pair in self.sizes],
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Recipe:
        values = dict(values)
        values["model"] = ViTConfig.from_dict(values["model"])
        values["train"] = TrainConfig.from_dict(values["train"])
        if values.get("images") is not None:
            values["images"] = tuple(values["images"])
        return cls(**values)

    def with_train(self, **changes: Any) -> Recipe:
        """The same recipe with other training settings: `recipe.with_train(epochs=3, seed=1)`."""
        return dataclasses.replace(self, train=dataclasses.replace(self.train, **changes))

    def quick(self) -> Recipe:
        """The same code path in seconds: two epochs on a few hundred images, not compiled."""
        images = (1024, 256, 256)
        if self.images is not None:
            images = tuple(min(a, b) for a, b in zip(images, self.images, strict=True))  # type: ignore[assignment]
        short = dataclasses.replace(self, images=images)
        return short.with_train(
            epochs=min(2, self.train.epochs),
            batch_size=min(64, self.train.batch_size),
            compile=False,
        )

    def fitted_to(self, dataset: ImageDataset) -> Recipe:
        """The same recipe with the model's image size, channels and classes taken from the data,
        so that it serves a folder of one's own images as well."""
        model = dataclasses.replace(
            self.model,
            image_size=dataset.image_size,
            in_channels=dataset.in_channels,
            num_classes=dataset.num_classes,
        )
        return dataclasses.replace(self, dataset=dataset.name, model=model)


# Small digits turned, shifted and scaled by amounts that leave a 6 a 6.
_DIGITS = {"degrees": 10.0, "translate": 2.0, "scale": 0.1}

_MNIST = (
    Recipe(
        name="mnist",
        dataset="mnist",
        model=MODELS["vit_mnist"],
        train=TrainConfig(
            epochs=10,
            batch_size=128,
            optimizer="muon",
            lr=3e-3,
            weight_decay=0.05,
            warmup_epochs=0.5,
            min_lr=1e-5,
            clip_norm=1.0,
            ema=0.998,
        ),
        augment="digits",
        augment_options=_DIGITS,
        note="MNIST in at most four minutes on two cores",
    ),
    Recipe(
        name="mnist-long",
        dataset="mnist",
        model=dataclasses.replace(MODELS["vit_mnist"], patch_size=4),
        train=TrainConfig(
            epochs=32,
            batch_size=128,
            lr=3e-3,
            weight_decay=0.05,
            warmup_epochs=0.5,
            min_lr=1e-5,
            clip_norm=1.0,
            ema=0.999,
        ),
        augment="digits",
        augment_options=_DIGITS,
        note="MNIST with patches of 4 pixels, in at most 25 minutes on two cores",
    ),
)


_CROPS = {"flip": True, "padding": 4}
_STRONG = {**_CROPS, "trivial": True, "erasing": 0.25}
_MEAN_POOL: dict[str, Any] = {"class_token": False, "pool": "mean"}
_STEM: dict[str, Any] = {"patch_embed": "conv_stem"}


LADDER_RUNGS = ("plain", "schedule", "augment", "mix", "pool", "stem", "ema", "muon", "longer")
LONG_RUNGS = ("augment", "mix")
"""The rungs that pay in long training only: a short ladder measures them and goes on without."""


def _cifar100_ladder(
    prefix: str,
    size: Mapping[str, Any],
    epochs: int,
    longer: int,
    lr: float,
    short: bool = False,
    **train: Any,
) -> tuple[Recipe, ...]:
    """Nine recipes, each the one before with one thing changed, from the one that most tutorials
    print (Dosovitskiy et al.'s model, Adam, no augmentation) to that of the best small models.
    short: the rung after LONG_RUNGS builds on the one before them."""
    plain: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
    plain |= {"warmup_epochs": 0.0, "schedule": "constant", "clip_norm": None}
    rungs = [
        Recipe(
            name=f"{prefix}-plain",
            dataset="cifar100",
            model=dataclasses.replace(MODELS["vit_cifar"], class_token=True, pool="cls", **size),
            train=TrainConfig(epochs=epochs, **plain, **train),
            note="the bare model of published tutorials: the bottom rung",
        )
    ]

    def add(
        name: str, note: str, model: Mapping[str, Any], train: Mapping[str, Any], **rest: Any
    ) -> None:
        last = rungs[-1]
        if short and name not in LONG_RUNGS:
            last = [rung for rung in rungs if not rung.name.endswith(LONG_RUNGS)][-1]
        rungs.append(
            dataclasses.replace(
                last,
                name=f"{prefix}-{name}",
                model=dataclasses.replace(last.model, **model),
                train=dataclasses.replace(last.train, **train),
                note=note,
                **rest,
            )
        )

    # The warmup is what allows a higher rate.
    schedule: dict[str, Any] = {"optimizer": "adamw", "lr": lr, "weight_decay": 0.05}
    schedule |= {"warmup_epochs": epochs / 8, "schedule": "cosine", "min_lr": 1e-5}
    add("schedule", "AdamW with warmup, cosine and clipping", {}, schedule | {"clip_norm": 1.0})
    add("augment", "and flips and padded crops", {}, {}, augment="cifar", augment_options=_CROPS)
    add("mix", "and mixup and CutMix, which pay in long training", {}, {}, mix="mixup_cutmix")
    mean = "the mean of the tokens for a class token"
    add("pool", f"in place of these two, {mean}" if short else f"and {mean}", _MEAN_POOL, {})
    add("stem", "and a convolutional stem for linear patches", _STEM, {})
    add("ema", "and a moving average of the weights", {}, {"ema": 0.998})
    add("muon", "and Muon for the matrices of the blocks", {}, {"optimizer": "muon", "lr": 2e-3})
    add("longer", f"and {longer / epochs:g} times as long", {}, {"epochs": longer})
    return tuple(rungs)


# Small enough for eight minutes a rung on two cores, and the same rungs at a GPU's size.
_SMALL: dict[str, Any] = {"dim": 48, "depth": 4, "heads": 3, "mlp_ratio": 2.0}
_LARGE: dict[str, Any] = {"dim": 320, "depth": 9, "heads": 5}

_CIFAR100_CPU = Recipe(
    name="cifar100-cpu",
    dataset="cifar100",
    model=dataclasses.replace(MODELS["vit_cifar"], dim=128, depth=6, heads=4, **_STEM),
    train=TrainConfig(
        epochs=23,
        batch_size=64,
        optimizer="muon",
        lr=4e-3,
        weight_decay=0.1,
        warmup_epochs=1.0,
        label_smoothing=0.1,
        ema=0.998,
    ),
    augment="cifar",
    augment_options=_CROPS,
    # Without mixing, so many epochs are enough for this model to learn its images by heart.
    mix="mixup_cutmix",
    mix_options={"probability": 0.5, "cutmix_share": 1.0},
    # At 24 pixels an image is 36 tokens in place of 64 and costs little more than half the time,
    # which serves well enough to begin with.
    sizes=((0.0, 24), (0.67, 32)),
    note="for 75 minutes on two cores",
)

_CIFAR100_CPU_BF16 = dataclasses.replace(
    # In bf16 a step takes about half the time; twice the epochs ask for more varied images.
    _CIFAR100_CPU.with_train(epochs=44, precision="bf16"),
    name="cifar100-cpu-bf16",
    augment_options={**_CROPS, "trivial": True},
    sizes=((0.0, 24), (0.6, 32)),
    note="for 75 minutes on two cores that compute in bf16 (avx512_bf16)",
)

_CIFAR100_GPU = Recipe(
    name="cifar100-gpu",
    dataset="cifar100",
    model=dataclasses.replace(MODELS["vit_cifar"], **_LARGE, drop_path=0.1, **_STEM),
    train=TrainConfig(
        epochs=200,
        batch_size=512,
        optimizer="muon",
        lr=2e-3,
        weight_decay=0.1,
        warmup_epochs=10.0,
        label_smoothing=0.1,
        ema=0.999,
        compile=True,
    ),
    augment="cifar",
    augment_options=_STRONG,
    mix="mixup_cutmix",
    note="under ten million parameters, for ten minutes on one data-centre GPU",
)

_CIFAR100 = (
    *_cifar100_ladder("cifar100", _SMALL, 4, 8, lr=3e-3, short=True),
    _CIFAR100_CPU,
    _CIFAR100_CPU_BF16,
    _CIFAR100_GPU,
    dataclasses.replace(
        _CIFAR100_GPU,
        name="cifar100-gpu-linear",
        model=dataclasses.replace(_CIFAR100_GPU.model, patch_embed="linear"),
        note="the same with linear patches",
    ),
    dataclasses.replace(
        _CIFAR100_GPU,
        name="cifar100-t4",
        model=dataclasses.replace(_CIFAR100_GPU.model, dim=256, depth=7, heads=4),
        train=dataclasses.replace(
            _CIFAR100_GPU.train, batch_size=256, weight_decay=0.05, compile=False
        ),
        note="for one session on a free T4, in fp16",
    ),
    *_cifar100_ladder("cifar100-gpu", _LARGE, 50, 100, lr=2e-3, batch_size=512, compile=True),
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_MNIST, *_CIFAR100)}
"""All recipes by name."""

CIFAR100_LADDER = tuple(f"cifar100-{rung}" for rung in LADDER_RUNGS)
"""Names of the recipes that chapter 7 climbs: each is the one before it with one change, but the
one after LONG_RUNGS builds on the one before them. The same rungs at the size of a GPU, all of them
carried on, are named cifar100-gpu-RUNG."""


def get_recipe(dataset: str, name: str | None = None) -> Recipe:
    """The recipe `name` of a data set, also without the data set's name before it ("long" for
    "mnist-long"); by default the one that bears the data set's name, or that for two cores.
    ValueError lists the known."""
    known = [recipe.name for recipe in RECIPES.values() if recipe.dataset == dataset]
    if not known:
        names = ", ".join(sorted({recipe.dataset for recipe in RECIPES.values()}))
        raise ValueError(f"there is no recipe for {dataset!r}: data sets with recipes are {names}.")
    for candidate in (name or dataset, f"{dataset}-{name or 'cpu'}"):
        if candidate in known:
            return RECIPES[candidate]
    raise ValueError(f"{dataset} has no recipe {name!r}: choose one of {', '.join(known)}.")


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


def _fingerprint(dataset: ImageDataset) -> str:
    """Changes with every image and label that training or the choice of weights sees."""
    digest = hashlib.sha256()
    for split in (dataset.train, dataset.val):
        for values in (split.images, split.labels):
            digest.update(repr((tuple(values.shape), values.dtype)).encode())
            digest.update(values.contiguous().numpy().data)
    return digest.hexdigest()


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
    from .data import Batches

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
        metadata={"recipe": described, "data": _fingerprint(dataset)},
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
