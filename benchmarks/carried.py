# SPDX-License-Identifier: MIT
"""A ResNet trained on half of CIFAR-100's classes, as patch embedding for the other half: what the
carried weights are worth beside random ones and linear patches. Chapter 10 shows the result.

    python -m benchmarks.carried

First the small ResNet of benchmarks.resnet learns classes 0 to 49, once. Then small ViTs learn
classes 50 to 99 from a hundred images of each, from every seed with one fixed budget; they differ
in their patch embedding alone. The ResNet's weights are carried or random, frozen or fine-tuned.
Writes runs/carried/record.json after each run, so that it goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import ablations, resnet
from benchmarks.ablations import Variant
from benchmarks.classes import keep_classes
from vitbook.studies import AblationRecord
from vitcore.backbones import ResNetPatchEmbed
from vitcore.data import ImageDataset, load_dataset
from vitcore.patches import register_patch_embed
from vitcore.recipes import Recipe
from vitcore.records import RECORD
from vitcore.runs import train_recipe
from vitcore.training import TrainConfig
from vitcore.training.files import checksum
from vitcore.vit import ViT, ViTConfig

SEEDS = (0, 1, 2)
HALF = 50  # classes learned first; the rest is learned with what they left

FIRST = dataclasses.replace(
    resnet.RECIPE.with_train(epochs=6, warmup_epochs=0.75, seed=0),
    name="carried-resnet",
    note="classes 0 to 49, once",
)
RECIPE = Recipe(
    name="carried",
    dataset="cifar100",
    model=ViTConfig(
        image_size=32,
        patch_size=8,
        num_classes=50,
        dim=96,
        depth=4,
        heads=4,
        mlp_ratio=2.0,
        class_token=False,
        pool="mean",
    ),
    train=TrainConfig(epochs=7, batch_size=64, lr=1e-3, warmup_epochs=1.0, precision="fp32"),
    images=(5_000, 50, 5_000),  # a hundred of each class; nothing is chosen, so few to choose on
    note="classes 50 to 99, a hundred training images of each",
)


@register_patch_embed("small_resnet")
class SmallResNetPatchEmbed(ResNetPatchEmbed):
    """The patch embedding with the small ResNet of benchmarks.resnet in it."""

    def make_network(self, network: str, weights: str | None) -> tuple[nn.Module, Any]:
        """Make it, with random weights."""
        return resnet.build(ViTConfig()), None


def halves(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """Divide a data set by class: the first fifty, and the others, which are counted from 0."""

    def of(low: int, high: int) -> ImageDataset:
        part = keep_classes(dataset, range(low, high))
        origin = f"{dataset.source.origin}; classes {low} to {high - 1}"
        return dataclasses.replace(part, source=dataclasses.replace(part.source, origin=origin))

    return of(0, HALF), of(HALF, dataset.num_classes)


def learn_first_half(
    out: str | os.PathLike[str], dataset: ImageDataset, recipe: Recipe = FIRST
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Train the ResNet, or take it from its checkpoint in OUT; its weights, and what they reach."""
    done = train_recipe(recipe, dataset, device="cpu", out=out, resume=True, progress=False,
                        build=resnet.build)  # fmt: skip
    weights = {name: value.detach() for name, value in done.model.state_dict().items()}
    return weights, {
        "epochs": recipe.train.epochs,
        "train_images": len(dataset.train.labels),
        "val_accuracy": done.history.best["val_accuracy"],
        "test_accuracy": done.test["accuracy"],
        "seconds": round(done.history.seconds, 2),
        "weights": checksum(weights, {}),
    }


def make_variants(weights: dict[str, torch.Tensor]) -> dict[str, Variant]:
    """The patch embeddings that are compared, linear patches first."""

    def with_resnet(carried: bool, **options: Any) -> Callable[[ViTConfig], ViT]:
        def build(config: ViTConfig) -> ViT:
            embed = {"patch_embed": "small_resnet", "patch_embed_options": options}
            model = ViT(dataclasses.replace(config, **embed))  # type: ignore[arg-type]
            if carried:
                backbone = model.patch_embed.backbone
                assert isinstance(backbone, nn.Module)
                backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
            return model

        return build

    def count(model: ViT, test: Any) -> dict[str, float]:
        return {
            "parameters": sum(p.numel() for p in model.parameters()),
            "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
        }

    rows = [
        ("correct", "linear patches", "correct", ViT),
        ("random-frozen", "ResNet, random, frozen", "added", with_resnet(False)),
        ("random-tuned", "ResNet, random, fine-tuned", "added", with_resnet(False, frozen=False)),
        ("carried-frozen", "ResNet, carried, frozen", "added", with_resnet(True)),
        ("carried-tuned", "ResNet, carried, fine-tuned", "added", with_resnet(True, frozen=False)),
        ("carried-patches", "the same frozen, patch by patch", "added",
         with_resnet(True, reading="patches")),
    ]  # fmt: skip
    return {row[0]: Variant(*row, chapter=10, measure=count) for row in rows}


def run(
    out: str | os.PathLike[str],
    first: str | os.PathLike[str],
    dataset: ImageDataset,
    *,
    recipe: Recipe = RECIPE,
    first_recipe: Recipe = FIRST,
    seeds: Sequence[int] = SEEDS,
    limit: int | None = None,
    command: str = "python -m benchmarks.carried",
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Train what OUT/record.json lacks, at most ``limit`` runs, and return the record as it is.

    first: the folder of the ResNet's checkpoint. ValueError where OUT holds a record of other
    settings, images, versions, or of another ResNet.
    """
    half, other = halves(dataset)
    weights, about = learn_first_half(first, half, first_recipe)
    say(f"the ResNet: test accuracy {100 * about['test_accuracy']:.2f} % on its own half")
    path = Path(out) / RECORD
    if path.exists():
        before = AblationRecord.read(path).more.get("resnet", about)
        if before["weights"] != about["weights"]:
            wrong = f"{path} was made with another ResNet than that in {first}"
            raise ValueError(f"{wrong}: name another folder with --out, or move that file away.")
    variants = make_variants(weights)
    for _ in range(len(seeds) * len(variants) if limit is None else limit):
        record = ablations.run(out, other, recipe=recipe, seeds=seeds, variants=variants, limit=1,
                               command=command, say=say)  # fmt: skip
        AblationRecord.from_dict({**record, "resnet": about}).write(path)
        if record["complete"]:
            break
    return AblationRecord.read(path).to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train what is missing, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.carried", description=__doc__)
    parser.add_argument(
        "--out",
        default="runs/carried",
        metavar="DIR",
        help="where record.json goes, and is continued (default: %(default)s)",
    )
    parser.add_argument(
        "--resnet",
        default="out/carried-resnet",
        metavar="DIR",
        help="where the ResNet's checkpoint goes (default: %(default)s)",
    )
    parser.add_argument("--data", metavar="DIR", help="folder that holds cifar100.npz")
    parser.add_argument(
        "--limit", type=int, metavar="N", help="stop after N runs; the next call goes on"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a few steps of each, to see that it runs; needs its own --out and --resnet",
    )
    parser.add_argument("--stand-in", action="store_true", help="drawn images if there are no real")
    given = parser.parse_args(arguments)
    own = ("runs/carried", "out/carried-resnet")
    if given.quick and {Path(given.out), Path(given.resnet)} & set(map(Path, own)):
        parser.error("--quick needs its own folders: name them with --out and --resnet")
    torch.set_num_threads(1)
    recipe, first_recipe, command = RECIPE, FIRST, "python -m benchmarks.carried"
    if given.quick:
        recipe = dataclasses.replace(RECIPE, images=(128, 50, 100)).with_train(epochs=1)
        first_recipe = dataclasses.replace(FIRST, images=(256, 100, 100)).with_train(epochs=1)
        command += " --quick"
    command += " --stand-in" if given.stand_in else ""
    try:
        dataset = load_dataset("cifar100", given.data, stand_in=True if given.stand_in else None)
        record = run(given.out, given.resnet, dataset, recipe=recipe, first_recipe=first_recipe,
                     limit=given.limit, command=command,
                     say=lambda line: print(line, flush=True))  # fmt: skip
    except ImportError:
        sys.exit("this benchmark needs timm and torchvision: pip install timm torchvision.")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    done = sum(len(rows["seeds"]) for rows in record["variants"].values())
    whole = len(record["variants"]) * len(record["seeds"])
    print(f"{done} of {whole} runs are in {Path(given.out) / RECORD}")


if __name__ == "__main__":
    main()
