# SPDX-License-Identifier: MIT
"""The book's own ladders of recipes for CIFAR-100 (chapter 7), known to vitcore once imported.

On the command line: `python -m vitcore train cifar100 --import vitbook.ladders --recipe pool`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitcore.models import MODELS
from vitcore.recipes import RECIPES, Recipe
from vitcore.training import TrainConfig

__all__ = [
    "APART",
    "BOOK_RECIPES",
    "BUILDS_ON",
    "CIFAR100_LADDER",
    "CROSSING",
    "FEW_LADDER",
    "LADDER_RUNGS",
    "LONG_RUNGS",
]

BUILDS_ON: dict[str, str] = {}
"""Name of each recipe of a comparison -> name of the one that it is compared with."""

_CROPS = {"flip": True, "padding": 4}
_FIFTH = (10_000, 5_000, 10_000)  # a hundred training images of each class, all others
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
    images: tuple[int, int, int] | None = None,
    mixing: Mapping[str, Any] | None = None,
    **train: Any,
) -> tuple[Recipe, ...]:
    """Nine recipes, each the one before with one thing changed, from the one that most tutorials
    print (Dosovitskiy et al.'s model, Adam, no augmentation) to that of the best small models.
    short: the rung after LONG_RUNGS builds on the one before them. mixing: its options."""
    plain: dict[str, Any] = {"optimizer": "adam", "lr": 1e-3, "weight_decay": 0.0}
    plain |= {"warmup_epochs": 0.0, "schedule": "constant", "clip_norm": None}
    rungs = [
        Recipe(
            name=f"{prefix}-plain",
            dataset="cifar100",
            model=dataclasses.replace(MODELS["vit_cifar"], class_token=True, pool="cls", **size),
            train=TrainConfig(epochs=epochs, **plain, **train),
            images=images,
            note="the bare model of published tutorials: the bottom rung",
        )
    ]

    def add(
        name: str, note: str, model: Mapping[str, Any], train: Mapping[str, Any], **rest: Any
    ) -> None:
        last = rungs[-1]
        if short and name not in LONG_RUNGS:
            last = [rung for rung in rungs if not rung.name.endswith(LONG_RUNGS)][-1]
        BUILDS_ON[f"{prefix}-{name}"] = last.name
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
    mix: dict[str, Any] = {"mix": "mixup_cutmix", "mix_options": dict(mixing or {})}
    add("mix", "and mixing, which pays in long training", {}, {}, **mix)
    mean = "the mean of the tokens for a class token"
    add("pool", f"in place of these two, {mean}" if short else f"and {mean}", _MEAN_POOL, {})
    add("stem", "and a convolutional stem for linear patches", _STEM, {})
    add("ema", "and a moving average of the weights", {}, {"ema": 0.998})
    add("muon", "and Muon for the matrices of the blocks", {}, {"optimizer": "muon", "lr": 2e-3})
    add("longer", f"and {longer / epochs:g} times as long", {}, {"epochs": longer})
    return tuple(rungs)


# Small enough for eight minutes a rung on two cores, and the same rungs at a GPU's size. The rungs
# on a fifth of the images see each so often that the bare model can learn them by heart; patches of
# eight pixels, for a quarter of the tokens, bring 27 such runs down to two hours on one core.
_SMALL: dict[str, Any] = {"dim": 48, "depth": 4, "heads": 3, "mlp_ratio": 2.0}
_LARGE: dict[str, Any] = {"dim": 320, "depth": 9, "heads": 5}
_MIDDLE: dict[str, Any] = {"dim": 96, "depth": 4, "heads": 4, "patch_size": 8}
_HALF_CUTMIX: dict[str, Any] = {"probability": 0.5, "cutmix_share": 1.0}


def _crossing() -> tuple[Recipe, ...]:
    """A tenth of two rungs on a fifth of the images, with the images as they are and changed: what
    helps the long run harms the short one."""
    runs = []
    for rung, changed in (("schedule", ""), ("mix", "-mixed")):
        long = RECIPES[f"cifar100-few-{rung}"]
        epochs = long.train.epochs // 10
        runs.append(
            dataclasses.replace(
                long.with_train(epochs=epochs, warmup_epochs=epochs / 8),
                name=f"cifar100-crossing-short{changed}",
                note=f"a tenth of {long.name}",
            )
        )
    BUILDS_ON[runs[1].name] = runs[0].name
    return tuple(runs)


def _taken_apart() -> tuple[Recipe, ...]:
    """The recipe for two cores in small (its images, its epochs and its model), and the same with
    one part of it out at a time."""
    best = RECIPES["cifar100-cpu"]
    whole = dataclasses.replace(
        best.with_train(epochs=12),
        name="cifar100-apart-whole",
        model=dataclasses.replace(best.model, dim=64, depth=4),
        images=_FIFTH,
        note="the recipe for two cores in small: fewer images, fewer epochs, a smaller model",
    )
    adamw = {"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.05}
    parts: dict[str, tuple[str, dict[str, Any]]] = {
        "augment": ("flips and crops", {"augment": None, "augment_options": {}}),
        "mix": ("CutMix", {"mix": None, "mix_options": {}}),
        "smoothing": ("label smoothing", {"train": {"label_smoothing": 0.0}}),
        "ema": ("the moving average", {"train": {"ema": 0.0}}),
        "muon": ("Muon (AdamW instead, at a rate that suits it)", {"train": adamw}),
        "stem": ("the convolutional stem (linear patches)", {"model": {"patch_embed": "linear"}}),
        "local": ("the convolution beside attention", {"model": {"attention": "global"}}),
        "pool": ("the mean (a class token)", {"model": {"class_token": True, "pool": "cls"}}),
        "sizes": ("small images first (all at full size)", {"sizes": ()}),
    }
    recipes = [whole]
    for part, (words, changes) in parts.items():
        settings: dict[str, Any] = {
            key: dataclasses.replace(getattr(whole, key), **value)
            if key in ("model", "train")
            else value
            for key, value in changes.items()
        }
        name, note = f"cifar100-apart-{part}", f"the same without {words}"
        BUILDS_ON[name] = whole.name
        recipes.append(dataclasses.replace(whole, name=name, note=note, **settings))
    return tuple(recipes)


def _register(recipes: tuple[Recipe, ...]) -> tuple[str, ...]:
    """Make them known to vitcore, and return their names."""
    RECIPES.update({recipe.name: recipe for recipe in recipes})
    return tuple(recipe.name for recipe in recipes)


CIFAR100_LADDER = _register(_cifar100_ladder("cifar100", _SMALL, 4, 8, lr=3e-3, short=True))
"""Names of the recipes that chapter 7 climbs: each is the one before it with one change, but the
one after LONG_RUNGS builds on the one before them. The same rungs at the size of a GPU are named
cifar100-gpu-RUNG, those on a fifth of the images cifar100-few-RUNG; there all are carried on."""
_GPU = _register(
    _cifar100_ladder("cifar100-gpu", _LARGE, 50, 100, lr=2e-3, batch_size=512, compile=True)
)
FEW_LADDER = _register(
    _cifar100_ladder(
        "cifar100-few", _MIDDLE, 30, 60, lr=2e-3, images=_FIFTH, mixing=_HALF_CUTMIX, batch_size=64
    )
)
"""Names of the same rungs on a fifth of the images."""
_SHORT = _register(_crossing())
CROSSING = (*_SHORT, "cifar100-few-schedule", "cifar100-few-mix")
"""Names of four recipes, of which the order turns round with the length of training: short ones
without and with changed images, then long ones, which are rungs on a fifth of the images."""
APART = _register(_taken_apart())
"""Names of the recipe for two cores at a smaller budget, and of that with one part out each."""
BOOK_RECIPES = (*CIFAR100_LADDER, *_GPU, *FEW_LADDER, *_SHORT, *APART)
"""Names of all recipes that serve a comparison in the book."""
