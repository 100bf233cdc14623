# SPDX-License-Identifier: MIT
"""Training recipes as data: everything that is decided before a run starts (chapters 6 and 7)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ._inputs import check_mapping, check_names, check_positive, check_rate, shown, to_pair
from .data import ImageDataset, build_augment, build_mix
from .patches import patch_grid
from .training import TrainConfig
from .vit import MODELS, ViTConfig

__all__ = ["RECIPES", "Recipe", "folder_recipe", "get_recipe"]


def __getattr__(name: str) -> Any:
    """`from vitcore.recipes import train_recipe` gives what vitcore.runs holds."""
    from . import runs

    if name in runs.__all__:
        return getattr(runs, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {shown(value)}; give a string.")
    return value


def _entries(name: str, value: Any, wanted: str, count: int | None = None) -> Sequence[Any]:
    if not isinstance(value, (tuple, list)) or count not in (None, len(value)):
        raise TypeError(f"{name} is {shown(value)}; give {wanted}.")
    return value


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
        for name in ("name", "dataset", "note"):
            _check_text(name, getattr(self, name))
        for name, kind in (("model", ViTConfig), ("train", TrainConfig)):
            if not isinstance(getattr(self, name), kind):
                given = shown(getattr(self, name))
                raise TypeError(f"{name} is {given}; give a {kind.__name__}.")
        for name in ("augment", "mix"):
            options = check_mapping(f"{name}_options", getattr(self, f"{name}_options"))
            for option in options:
                _check_text(f"the name of an option in {name}_options", option)
        # Built once here, so that an unknown name or option is refused before anything starts.
        build_augment(self.augment, **self.augment_options)
        build_mix(self.mix, num_classes=max(2, self.model.num_classes), **self.mix_options)
        if self.images is not None:
            images = _entries("images", self.images, "three numbers, or None for all images", 3)
            checked = tuple(check_positive("a number in images", count) for count in images)
            object.__setattr__(self, "images", checked)
        object.__setattr__(self, "sizes", self._check_sizes())

    def _check_sizes(self) -> tuple[tuple[float, int], ...]:
        pairs = []
        for pair in _entries("sizes", self.sizes, "pairs (share of the epochs, pixels)"):
            start, size = _entries("an entry of sizes", pair, "(share of the epochs, pixels)", 2)
            patch_grid(check_positive("a side in sizes", size), self.model.patch_size)
            pairs.append((check_rate("a share of the epochs in sizes", start), int(size)))
        starts = [start for start, _ in pairs]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            raise ValueError(
                f"sizes begin at shares {starts} of the epochs: give 0 first, then rising numbers "
                "below 1, such as ((0, 24), (0.6, 32))."
            )
        return tuple(pairs)

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
        values = check_mapping("a recipe", values)
        check_names("a recipe", values, [f.name for f in dataclasses.fields(cls)])
        missing = [name for name in ("name", "dataset", "model", "train") if name not in values]
        if missing:
            raise ValueError(f"the recipe lacks {', '.join(missing)}; give what to_dict gave.")
        values["model"] = ViTConfig.from_dict(values["model"])
        values["train"] = TrainConfig.from_dict(values["train"])
        return cls(**values)

    def with_train(self, **changes: Any) -> Recipe:
        """The same recipe with other training settings: `recipe.with_train(epochs=3, seed=1)`."""
        check_names("TrainConfig", changes, [f.name for f in dataclasses.fields(TrainConfig)])
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
        if not isinstance(dataset, ImageDataset):
            raise TypeError(f"dataset is of type {type(dataset).__name__}; give an ImageDataset.")
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

_CIFAR100_CPU = Recipe(
    name="cifar100-cpu",
    dataset="cifar100",
    model=dataclasses.replace(
        MODELS["vit_cifar"], dim=128, depth=6, heads=4, patch_embed="conv_stem"
    ),
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

_CIFAR100_GPU = Recipe(
    name="cifar100-gpu",
    dataset="cifar100",
    model=dataclasses.replace(
        MODELS["vit_cifar"], dim=320, depth=9, heads=5, drop_path=0.1, patch_embed="conv_stem"
    ),
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
    augment_options={**_CROPS, "trivial": True, "erasing": 0.25},
    mix="mixup_cutmix",
    note="under ten million parameters, for ten minutes on one data-centre GPU",
)

_CIFAR100 = (
    _CIFAR100_CPU,
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
)

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (*_MNIST, *_CIFAR100)}
"""All recipes by name."""


def get_recipe(dataset: str, name: str | None = None) -> Recipe:
    """The recipe `name` of a data set, also without the data set's name before it ("long" for
    "mnist-long"); by default the one that bears the data set's name, or that for two cores.
    ValueError lists the known."""
    _check_text("dataset", dataset)
    _check_text("name", "" if name is None else name)
    known = [recipe.name for recipe in RECIPES.values() if recipe.dataset == dataset]
    if not known:
        names = ", ".join(sorted({recipe.dataset for recipe in RECIPES.values()}))
        raise ValueError(f"there is no recipe for {dataset!r}: data sets with recipes are {names}.")
    for candidate in (name or dataset, f"{dataset}-{name or 'cpu'}"):
        if candidate in known:
            return RECIPES[candidate]
    raise ValueError(f"{dataset} has no recipe {name!r}: choose one of {', '.join(known)}.")


def folder_recipe(dataset: ImageDataset) -> Recipe:
    """A recipe for images of one's own, fitted to their size, channels, classes and number.

    Eight patches or more along each side, and so many epochs that few images are seen as often as
    many would be: 400 steps, in 10 to 100 epochs.
    """
    if not isinstance(dataset, ImageDataset):
        raise TypeError(f"dataset is of type {type(dataset).__name__}; give an ImageDataset.")
    count = len(dataset.train.labels)
    batch_size = min(64, max(8, count // 8))
    shorter = min(to_pair(dataset.image_size))
    sides = math.gcd(*to_pair(dataset.image_size))
    model = ViTConfig(
        image_size=dataset.image_size,
        patch_size=max(p for p in range(1, max(1, shorter // 8) + 1) if sides % p == 0),
        in_channels=dataset.in_channels,
        num_classes=dataset.num_classes,
        dim=64,
        depth=4,
        heads=4,
        class_token=False,
        pool="mean",
    )
    train = TrainConfig(
        epochs=min(100, max(10, 400 * batch_size // max(1, count))),
        batch_size=batch_size,
        ema=0.98,
    )
    return Recipe(
        name="folder",
        dataset=dataset.name,
        model=model,
        train=train,
        augment="cifar",
        # No flips: they would make another of a letter or an arrow.
        augment_options={"flip": False, "padding": shorter // 8},
        note="for a folder of one's own images",
    )
