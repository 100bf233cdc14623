# SPDX-License-Identifier: MIT
"""The book's own ladders of recipes for CIFAR-100 (chapter 7), known to vitcore once imported.

On the command line: `python -m vitcore train cifar100 --import vitbook.ladders --recipe pool`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitcore.recipes import RECIPES, Recipe
from vitcore.training import TrainConfig
from vitcore.vit import MODELS

__all__ = ["CIFAR100_LADDER", "LADDER_RUNGS", "LONG_RUNGS"]

_CROPS = {"flip": True, "padding": 4}
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

for _recipe in (
    *_cifar100_ladder("cifar100", _SMALL, 4, 8, lr=3e-3, short=True),
    *_cifar100_ladder("cifar100-gpu", _LARGE, 50, 100, lr=2e-3, batch_size=512, compile=True),
):
    RECIPES[_recipe.name] = _recipe

CIFAR100_LADDER = tuple(f"cifar100-{rung}" for rung in LADDER_RUNGS)
"""Names of the recipes that chapter 7 climbs: each is the one before it with one change, but the
one after LONG_RUNGS builds on the one before them. The same rungs at the size of a GPU, all of them
carried on, are named cifar100-gpu-RUNG."""
