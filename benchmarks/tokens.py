# SPDX-License-Identifier: MIT
"""What the tokens of a small ViT hold and how they attend; chapters 1 to 3 show it.

python -m benchmarks.tokens STUDY trains every variant of a study from every seed with one fixed
budget and writes runs/STUDY/record.json, as benchmarks.ablations does.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.ablations import RECIPE, Variant, planted, run
from vitbook.checks import BUGS
from vitcore.data import Batches, load_dataset
from vitcore.embeddings import resize_positions, sincos_positions_2d
from vitcore.patches import PatchEmbed
from vitcore.recipes import Recipe
from vitcore.training import TrainConfig, evaluate
from vitcore.vit import ViT, ViTConfig

SEEDS = (0, 1, 2)
ENLARGED = 40
"""Side in pixels of the enlarged test images."""


@dataclass(frozen=True)
class Study:
    """A recipe, and what is changed in it, by name."""

    recipe: Recipe
    variants: dict[str, Variant]


# --- chapter 1: how an image is cut -----------------------------------------------------------


class _Scattered(PatchEmbed):
    """Deal the pixels out to the tokens by chance, in one order for all images."""

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        pixels = images.flatten(1)  # (B, C·H·W)
        order = torch.randperm(pixels.shape[1], generator=torch.Generator().manual_seed(0))
        return super().forward(pixels[:, order].reshape(images.shape))


def _scattered(config: ViTConfig) -> ViT:
    model = ViT(config)
    model.patch_embed.__class__ = _Scattered  # the same weights, other pixels
    return model


CUTS = {
    variant.name: variant
    for variant in (
        Variant("correct", "squares", "correct", ViT, 1),
        Variant("plain-reshape", "plain reshape", "mistake", planted("plain-reshape"), 1),
        Variant("scattered", "pixels dealt by chance", "mistake", _scattered, 1),
    )
}

# --- chapter 2: positions, and what is read out -----------------------------------------------


class _WithTable(ViT):
    """A ViT that adds one given position table, whatever the size of the image."""

    table: Tensor | None = None

    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        return self.table


def sines_between(old: int, new: int, dim: int) -> Tensor:
    """Make the table of sines (new · new, D) for a finer grid laid over one of old by old."""
    places = (torch.arange(new).double() + 0.5) * old / new - 0.5  # in steps of the old grid
    frequencies = 10000.0 ** -(torch.arange(dim // 4).double() / (dim // 4))
    angles = places[:, None] * frequencies
    waves = torch.cat([angles.sin(), angles.cos()], dim=1).float()  # (new, D/2)
    return torch.cat([waves.repeat(new, 1), waves.repeat_interleave(new, dim=0)], dim=1)


def enlarged_tables(model: ViT) -> dict[str, Tensor | None]:
    """Give the table for enlarged images, made in each way that there is for these positions."""
    positions = model.positions_for(model.grid)
    if positions is None:
        return {"none": None}
    old, new = model.grid[0], ENLARGED // model.config.patch_size
    table, prefix = positions.detach(), model.config.prefix_tokens
    tables: dict[str, Tensor | None] = {}
    tables["resized"] = resize_positions(table, model.grid, (new, new), prefix)
    if model.config.positions == "sincos":
        for name, rows in (
            ("between", sines_between(old, new, model.config.dim)),
            ("anew", sincos_positions_2d((new, new), model.config.dim)),
        ):
            tables[name] = torch.cat([table[:, :prefix], rows[None]], dim=1)
    return tables


def measure_enlarged(model: ViT, test: Batches) -> dict[str, float]:
    """Give the accuracy on enlarged test images, by the way in which the table was made."""
    twin = copy.deepcopy(model)
    twin.__class__ = _WithTable  # the same weights
    assert isinstance(twin, _WithTable)
    size = (ENLARGED, ENLARGED)
    larger = [(F.interpolate(images, size=size, mode="bilinear"), y) for images, y in test]
    found = {}
    for name, table in enlarged_tables(model).items():
        twin.table = table
        found[f"enlarged_{name}"] = evaluate(twin, larger, device="cpu")["accuracy"]
    return found


def _with(**options: Any) -> Callable[[ViTConfig], ViT]:
    return lambda config: ViT(replace(config, **options))


POSITIONS = {
    variant.name: variant
    for variant in (
        Variant("correct", "learned table, class token", "correct", ViT, 2, measure_enlarged),
        Variant("sincos", "sines in two dimensions", "choice", _with(positions="sincos"), 2,
                measure_enlarged),
        Variant("mean", "mean of the patches", "choice", _with(class_token=False, pool="mean"), 2),
        Variant("no-positions", "no positions at all", "mistake", _with(positions="none"), 2,
                measure_enlarged),
    )
}  # fmt: skip

# --- chapter 3: how many heads, and the division by the root of d --------------------------------

HEADS = {
    variant.name: variant
    for variant in (
        Variant("correct", "4 heads", "correct", ViT, 3),
        Variant("one-head", "1 head", "choice", _with(heads=1), 3),
        Variant("unscaled", "4 heads, not divided", "mistake", planted("unscaled"), 3),
        Variant("one-head-unscaled", "1 head, not divided", "mistake",
                lambda config: BUGS["unscaled"].plant(ViT(replace(config, heads=1))), 3),
    )
}  # fmt: skip

# --- the studies ------------------------------------------------------------------------------

STUDIES = {
    # Chapter 4 trains the same model on the same digits, with five seeds.
    "cuts-digits": Study(replace(RECIPE, name="cuts-digits"), CUTS),
    "cuts-photos": Study(
        Recipe(
            name="cuts-photos",
            dataset="cifar100",
            model=ViTConfig(
                image_size=32, patch_size=8, in_channels=3, num_classes=100, dim=64, depth=4,
                heads=4, mlp_ratio=2.0, init_std=0.08,
            ),
            train=TrainConfig(
                epochs=4, batch_size=64, lr=2e-3, warmup_epochs=0.5, precision="fp32"
            ),
            images=(12000, 100, 5000),
            note="seconds on one thread; the same budget for every variant",
        ),
        CUTS,
    ),
    "positions": Study(
        Recipe(
            name="positions",
            dataset="mnist",
            model=ViTConfig(
                image_size=28, patch_size=4, in_channels=1, num_classes=10, dim=64, depth=2,
                heads=4, mlp_ratio=2.0, init_std=0.08,
            ),
            train=TrainConfig(
                epochs=3, batch_size=64, lr=2e-3, warmup_epochs=0.5, precision="fp32"
            ),
            images=(10000, 500, 2000),
            note="the model of chapter 2; the same budget for every variant",
        ),
        POSITIONS,
    ),
    # 64 numbers in a query of one head: enough for the division by their root to matter.
    "heads": Study(
        replace(
            RECIPE,
            name="heads",
            model=replace(RECIPE.model, dim=64, init_std=0.08),
            train=replace(RECIPE.train, lr=2e-3),
        ),
        HEADS,
    ),
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is missing, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens", description=__doc__)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--out", metavar="DIR", help="default: runs/STUDY; is continued")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N runs")
    given = parser.parse_args(arguments)
    study = STUDIES[given.study]
    torch.set_num_threads(1)
    try:
        run(
            given.out or Path("runs") / given.study,
            load_dataset(study.recipe.dataset),
            recipe=study.recipe,
            seeds=SEEDS,
            variants=study.variants,
            limit=given.limit,
            command=f"python -m benchmarks.tokens {given.study}",
            say=lambda line: print(line, flush=True),
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
