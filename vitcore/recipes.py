# SPDX-License-Identifier: MIT
"""Training recipes as data: everything that is decided before a run starts (chapters 6 and 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

from ._inputs import check_mapping, check_positive, check_rate, to_pair
from .data import ImageDataset, build_augment, build_mix
from .models import MODELS
from .patches import patch_grid
from .training import TrainConfig
from .training.arguments import Check, Settings, each, of_kind, optional
from .vit import ViTConfig

__all__ = ["RECIPES", "Recipe", "folder_recipe", "get_recipe"]

_is_text = of_kind(str, "a string")
_is_dataset = of_kind(ImageDataset, "an ImageDataset")


def __getattr__(name: str) -> Any:
    """`from vitcore.recipes import train_recipe` gives what vitcore.runs holds."""
    from . import runs

    return getattr(runs, name)


def _options(name: str, value: Any) -> dict[str, Any]:
    for key in (options := check_mapping(name, value)):
        _is_text(f"an option in {name}", key)
    return options


def _settings(kind: Any, name: str, value: Any) -> Any:
    return value if isinstance(value, kind) else kind.from_dict(check_mapping(name, value))


def _sizes(name: str, value: Any) -> tuple[Any, ...]:
    pairs = of_kind((tuple, list), "pairs (share of the epochs, pixels)")(name, value)
    return tuple(each(check_rate, check_positive)(f"a pair of {name}", pair) for pair in pairs)


@dataclass(frozen=True)
class Recipe(Settings):
    """Everything that is decided before training starts, as plain values.

    TypeError and ValueError name what cannot be run.
    """

    CHECKS: ClassVar[Mapping[str, Check]] = {
        **dict.fromkeys(("name", "dataset", "note"), _is_text),
        "model": partial(_settings, ViTConfig),
        "train": partial(_settings, TrainConfig),
        **dict.fromkeys(("augment", "mix"), optional(_is_text)),
        **dict.fromkeys(("augment_options", "mix_options"), _options),
        "images": optional(each(check_positive, check_positive, check_positive)),
        "sizes": _sizes,
    }

    name: str  # under which RECIPES lists it
    dataset: str  # a name that `vitcore.data.load_dataset` or `load_standard` knows
    model: ViTConfig  # the ViT
    train: TrainConfig  # the optimisation
    augment: str | None = None  # a name in `vitcore.augment.AUGMENTS`
    augment_options: Mapping[str, Any] = field(default_factory=dict)
    mix: str | None = None  # a name in `vitcore.augment.MIXES`
    mix_options: Mapping[str, Any] = field(default_factory=dict)
    # How many (training, validation, test) images to use, by class; None for all.
    images: tuple[int, int, int] | None = None
    # Progressive resizing (Tan and Le, 2021): pairs (share of the epochs, side in pixels), from
    # which on training images are shown at which size; none for their own.
    sizes: tuple[tuple[float, int], ...] = ()
    note: str = ""  # a line on what it is for

    def __post_init__(self) -> None:
        super().__post_init__()
        # Built once here, so that an unknown name or option is refused before anything starts.
        build_augment(self.augment, **self.augment_options)
        build_mix(self.mix, num_classes=max(2, self.model.num_classes), **self.mix_options)
        for _, size in self.sizes:
            patch_grid(size, self.model.patch_size)
        starts = [start for start, _ in self.sizes]
        if starts and (starts[0] != 0 or starts != sorted(set(starts))):
            wanted = "0 first, then rising numbers below 1, such as ((0, 24), (0.6, 32))"
            raise ValueError(f"sizes begin at shares {starts} of the epochs: give {wanted}.")

    def size_by_epoch(self) -> list[int]:
        """The side in pixels of the training images of each epoch; empty where it never changes."""
        epochs = self.train.epochs if self.sizes else 0
        rows = [[size for start, size in self.sizes if start * epochs <= e] for e in range(epochs)]
        return [row[-1] for row in rows]

    def with_train(self, **changes: Any) -> Recipe:
        """The same recipe with other training settings: `recipe.with_train(epochs=3, seed=1)`."""
        return replace(self, train=TrainConfig.from_dict({**vars(self.train), **changes}))

    def quick(self) -> Recipe:
        """The same code path in seconds: two epochs on a few hundred images, not compiled."""
        limit = (1024, 256, 256)
        images: Any = tuple(min(pair) for pair in zip(limit, self.images or limit, strict=True))
        epochs, batch_size = min(2, self.train.epochs), min(64, self.train.batch_size)
        short = self.with_train(epochs=epochs, batch_size=batch_size, compile=False)
        return replace(short, images=images)

    def fitted_to(self, dataset: ImageDataset) -> Recipe:
        """The same recipe with the model's image size, channels and classes taken from the data."""
        _is_dataset("dataset", dataset)
        size, channels = dataset.image_size, dataset.in_channels
        fitted: dict[str, Any] = {"image_size": size, "in_channels": channels}
        model = replace(self.model, **fitted, num_classes=dataset.num_classes)
        return replace(self, dataset=dataset.name, model=model)


_MNIST = Recipe(
    name="mnist",
    dataset="mnist",
    model=MODELS["vit_mnist"],
    train=TrainConfig(epochs=10, optimizer="muon", lr=3e-3, warmup_epochs=0.5, ema=0.998),
    augment="digits",
    # Small digits turned, shifted and scaled by amounts that leave a 6 a 6.
    augment_options={"degrees": 10.0, "translate": 2.0, "scale": 0.1},
    note="MNIST in at most four minutes on two cores",
)

# Overlapping tokens of four pixels, and a convolution beside attention: digits are strokes.
_MNIST_STROKES = replace(
    MODELS["vit_mnist"], patch_size=4, patch_embed="conv_stem", attention="locally_enhanced"
)

_MUON: dict[str, Any] = {"optimizer": "muon", "weight_decay": 0.1, "label_smoothing": 0.1}
_CROPS = {"flip": True, "padding": 4}

_SMALL: dict[str, Any] = {"dim": 128, "depth": 6, "heads": 4, "patch_embed": "conv_stem"}
_CIFAR100_CPU = Recipe(
    name="cifar100-cpu",
    dataset="cifar100",
    model=replace(MODELS["vit_cifar"], **_SMALL, attention="locally_enhanced"),
    train=TrainConfig(epochs=42, batch_size=64, lr=4e-3, ema=0.998, **_MUON),
    augment="cifar",
    augment_options=_CROPS,
    # With flips and crops it costs accuracy in short training and gains in long: chapter 7.
    mix="mixup_cutmix",
    mix_options={"probability": 0.75, "cutmix_share": 1.0},
    # At 24 pixels an image is 36 tokens in place of 64 and costs little more than half the time,
    # which serves well enough to begin with.
    sizes=((0.0, 24), (0.6, 32)),
    note="for 75 minutes on two cores with bf16; twice as long in fp32",
)

_LARGE: dict[str, Any] = {"dim": 320, "depth": 9, "heads": 5, "drop_path": 0.1}
_CIFAR100_GPU = Recipe(
    name="cifar100-gpu",
    dataset="cifar100",
    model=replace(MODELS["vit_cifar"], **_LARGE, patch_embed="conv_stem"),
    train=TrainConfig(
        epochs=200, batch_size=512, lr=2e-3, warmup_epochs=10.0, ema=0.999, compile=True, **_MUON
    ),
    augment="cifar",
    augment_options={**_CROPS, "trivial": True, "erasing": 0.25},
    mix="mixup_cutmix",
    note="under ten million parameters, for ten minutes on one data-centre GPU",
)

_CROPPED: dict[str, Any] = {
    "augment": "cifar",
    "augment_options": {"min_scale": 0.35, "padding": 0},
}
_MEAN: dict[str, Any] = {"class_token": False, "pool": "mean"}
_VOC = Recipe(
    name="voc",
    dataset="voc",
    model=ViTConfig(image_size=128, patch_size=16, dim=192, heads=3, depth=6, **_MEAN),
    train=TrainConfig(epochs=60, batch_size=64, lr=1e-3, warmup_epochs=5.0, ema=0.998),
    **_CROPPED,
    note="Pascal VOC with several labels an image, from scratch",
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _MNIST,
        replace(
            _MNIST,
            name="mnist-long",
            model=replace(_MNIST.model, patch_size=4),
            train=TrainConfig(epochs=32, lr=3e-3, warmup_epochs=0.5, ema=0.999),
            note="MNIST with patches of 4 pixels, in at most 25 minutes on two cores",
        ),
        replace(
            _MNIST,
            name="mnist-adamw",
            train=TrainConfig(epochs=12, lr=3e-3, warmup_epochs=0.5, clip_norm=None),
            note="MNIST with no more than chapter 6 explains, in at most four minutes on two cores",
        ),
        replace(
            _MNIST.with_train(epochs=3, warmup_epochs=0.3, ema=0.995),
            name="mnist-fast",
            model=_MNIST_STROKES,
            note="MNIST in two minutes on two cores, with patches that overlap",
        ),
        replace(
            _MNIST.with_train(epochs=12),
            name="mnist-best",
            model=_MNIST_STROKES,
            note="the same for four times as many epochs, in less than ten minutes on two cores",
        ),
        _CIFAR100_CPU,
        _CIFAR100_GPU,
        replace(
            _CIFAR100_GPU,
            name="cifar100-gpu-linear",
            model=replace(_CIFAR100_GPU.model, patch_embed="linear"),
            note="the same with linear patches",
        ),
        # After Beyer et al. (2022), with this book's augmentation.
        Recipe(
            name="imagenet",
            dataset="imagenet",
            model=replace(MODELS["vit_small_patch16_224"], positions="sincos", **_MEAN),
            train=TrainConfig(epochs=90, batch_size=1024, warmup_epochs=8.0, weight_decay=0.1),
            **_CROPPED,
            mix="mixup_cutmix",
            mix_options={"mixup_alpha": 0.2, "cutmix_share": 0.0},
            note="ImageNet on a machine with several GPUs",
        ),
        _VOC,
        replace(
            _VOC.with_train(epochs=30, batch_size=256),
            name="coco",
            dataset="coco",
            model=replace(_VOC.model, image_size=160, depth=12),
            note="MS COCO with several labels an image, from scratch",
        ),
        replace(
            _CIFAR100_GPU.with_train(batch_size=256, weight_decay=0.05, compile=False),
            name="cifar100-t4",
            model=replace(_CIFAR100_GPU.model, dim=256, depth=7, heads=4),
            note="for one session on a free T4, in fp16",
        ),
    )
}
"""All recipes by name."""


def get_recipe(dataset: str, name: str | None = None) -> Recipe:
    """The recipe `name` of a data set, also without the data set's name before it ("long" for
    "mnist-long"); by default the one that bears the data set's name, or that for two cores.
    ValueError lists the known."""
    dataset, name = _is_text("dataset", dataset), optional(_is_text)("name", name)
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
    _is_dataset("dataset", dataset)
    size, count = to_pair(dataset.image_size), max(1, len(dataset.train.labels))
    patch = max(p for p in range(1, max(1, min(size) // 8) + 1) if math.gcd(*size) % p == 0)
    small: dict[str, Any] = {"dim": 64, "depth": 4, "heads": 4, "class_token": False}
    batch_size = min(64, max(8, count // 8))
    epochs = min(100, max(10, 400 * batch_size // count))
    return Recipe(
        name="folder",
        dataset=dataset.name,
        model=ViTConfig(image_size=size, patch_size=patch, pool="mean", **small),
        train=TrainConfig(epochs=epochs, batch_size=batch_size, ema=0.98),
        augment="cifar",
        # No flips: they would make another of a letter or an arrow.
        augment_options={"flip": False, "padding": min(size) // 8},
        note="for a folder of one's own images",
    ).fitted_to(dataset)
