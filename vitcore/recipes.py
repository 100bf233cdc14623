# SPDX-License-Identifier: MIT
"""Training recipes as data, and the one function that runs them; chapters 6 and 7 compare them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .augment import build_augment
from .training import (
    History,
    TrainConfig,
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

__all__ = ["RECIPES", "Recipe", "Run", "confusion_matrix", "get_recipe", "train_recipe"]

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Recipe:
    """Everything that is decided before training starts, as plain values.

    name: under which RECIPES lists it. dataset: a name that `vitcore.data.load_dataset` knows.
    model: the ViT. train: the optimisation. augment, augment_options: a name in
    `vitcore.augment.AUGMENTS` and its options, or None. images: how many (training, validation,
    test) images to use, by class; None for all. note: a line on what it is for.
    """

    name: str
    dataset: str
    model: ViTConfig
    train: TrainConfig
    augment: str | None = None
    augment_options: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[int, int, int] | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values; `from_dict` gives the recipe back."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "model": self.model.to_dict(),
            "train": self.train.to_dict(),
            "augment": self.augment,
            "augment_options": dict(self.augment_options),
            "images": None if self.images is None else list(self.images),
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
        """The same code path in seconds: two epochs on a few hundred images."""
        images = (1024, 256, 256)
        if self.images is not None:
            images = tuple(min(a, b) for a, b in zip(images, self.images, strict=True))  # type: ignore[assignment]
        short = dataclasses.replace(self, images=images)
        return short.with_train(
            epochs=min(2, self.train.epochs), batch_size=min(64, self.train.batch_size)
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

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="mnist",
            dataset="mnist",
            model=MODELS["vit_mnist"],
            train=TrainConfig(
                epochs=16,
                batch_size=128,
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
}


def get_recipe(dataset: str, name: str | None = None) -> Recipe:
    """The recipe `name` of a data set, also without the data set's name before it ("long" for
    "mnist-long"); the one that bears the data set's name by default. ValueError lists the known."""
    known = [recipe.name for recipe in RECIPES.values() if recipe.dataset == dataset]
    if not known:
        names = ", ".join(sorted({recipe.dataset for recipe in RECIPES.values()}))
        raise ValueError(f"there is no recipe for {dataset!r}: data sets with recipes are {names}.")
    for candidate in (name or dataset, f"{dataset}-{name}"):
        if candidate in known:
            return RECIPES[candidate]
    raise ValueError(f"{dataset} has no recipe {name!r}: choose one of {', '.join(known)}.")


@dataclass
class Run:
    """What `train_recipe` gives back. seconds: training with its validation, over all parts of a
    resumed run; test_seconds: the one look at the test set."""

    recipe: Recipe
    model: ViT
    history: History
    test: dict[str, float]
    confusion: Tensor
    seconds: float
    test_seconds: float
    device: torch.device
    precision: str


def confusion_matrix(logits: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(K, K) counts, int64: row the true class, column the predicted one."""
    pairs = labels.cpu() * classes + logits.argmax(dim=1).cpu()
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


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
) -> Batches:
    """The batches of one split as the recipe wants them: shuffled and augmented in training."""
    from .data import Batches

    augment = build_augment(recipe.augment, **recipe.augment_options) if training else None
    return Batches(
        split,
        recipe.train.batch_size if training else 500,
        mean=dataset.mean,
        std=dataset.std,
        shuffle=training,
        seed=recipe.train.seed,
        augment=augment,
        device=device,
    )


def train_recipe(
    recipe: Recipe,
    dataset: ImageDataset,
    *,
    device: str | torch.device = "auto",
    out: str | os.PathLike[str] | None = None,
    resume: bool = False,
    progress: bool = True,
) -> Run:
    """Train the recipe's model on `dataset`, choose the weights on the validation images, then
    look at the test images once. `out` takes the checkpoint and model.safetensors."""
    where = resolve_device(device)
    if recipe.images is not None:
        dataset = dataset.subset(*recipe.images)
    recipe = recipe.fitted_to(dataset)
    set_seed(recipe.train.seed)
    model = ViT(recipe.model)
    described = recipe.to_dict()
    # The configuration is compared under its own name; a note is only words.
    for name in ("train", "note"):
        del described[name]
    history = fit(
        model,
        make_batches(recipe, dataset, dataset.train, device=where, training=True),
        make_batches(recipe, dataset, dataset.val, device=where),
        recipe.train,
        device=where,
        out=out,
        resume=resume,
        progress=progress,
        metadata={"recipe": described, "data": _fingerprint(dataset)},
    )
    started = time.perf_counter()
    precision = resolve_precision(recipe.train.precision, where)
    batches = make_batches(recipe, dataset, dataset.test, device=where)
    test = evaluate(model, batches, device=where, precision=precision)
    logits = predict(model, batches, device=where, precision=precision)
    confusion = confusion_matrix(logits, dataset.test.labels, dataset.num_classes)
    test_seconds = time.perf_counter() - started
    if out is not None:
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
        recipe, model, history, test, confusion, history.seconds, test_seconds, where, precision
    )
