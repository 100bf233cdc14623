# SPDX-License-Identifier: MIT
"""A ResNet trained as the Vision Transformers of chapter 7 are: the peer beside their ladder.

python -m benchmarks.resnet trains timm's ResNet (He et al., 2016) with one block a stage and a
quarter of the usual width. Its stem has three 3x3 convolutions that halve nothing, as images of 32
pixels want it. It learns by the ladder's schedule, and writes a record like every other run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vitbook.ladders import CIFAR100_LADDER
from vitbook.torchvision import import_torchvision
from vitcore.data import ImageDataset, load_dataset
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RECORD, RunRecord, commit, recorded_command
from vitcore.runs import train_recipe
from vitcore.vit import ViTConfig

NAME = "cifar100-resnet"
CHANNELS = (16, 32, 64, 128)

# The schedule that the ladder has, at a rate that suits convolutions, on the images as they are: in
# so short a run augmentation costs accuracy. Muon and the rest are the transformer's rungs.
RECIPE = dataclasses.replace(
    RECIPES[CIFAR100_LADDER[1]].with_train(lr=2e-3),
    name=NAME,
    note="a ResNet at the budget of a rung",
)


def build(config: ViTConfig) -> nn.Module:
    """The ResNet for images and classes of this configuration, whose other entries do not count."""
    import_torchvision()  # timm imports it, and finds it whole afterwards
    from timm.models.resnet import BasicBlock, ResNet

    block: Any = BasicBlock
    model: Any = ResNet(
        block,
        (1,) * len(CHANNELS),
        num_classes=config.num_classes,
        in_chans=config.in_channels,
        channels=CHANNELS,
        stem_type="deep",
        stem_width=CHANNELS[0] // 2,
    )
    model.conv1[0].stride = (1, 1)
    model.maxpool = nn.Identity()
    return model.to(memory_format=torch.channels_last)  # twice as fast on a processor


def run(
    out: str | os.PathLike[str],
    dataset: ImageDataset,
    *,
    recipe: Recipe = RECIPE,
    device: str = "auto",
    command: str = "python -m benchmarks.resnet",
    progress: bool = True,
) -> RunRecord:
    """Train it, or go on with it, and write OUT/record.json; a finished run is only read."""
    path = Path(out) / RECORD
    code = commit()
    if path.exists():
        return RunRecord.read(path)
    done = train_recipe(
        recipe, dataset, device=device, out=out, resume=True, progress=progress, build=build
    )
    record = RunRecord.from_run(done, dataset, command, code)
    record.recipe["model"] = {"name": "resnet", "blocks": [1] * len(CHANNELS),
                              "channels": list(CHANNELS)}  # fmt: skip
    record.write(path)
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.resnet", description=__doc__)
    parser.add_argument("--out", default=f"runs/{NAME}-seed0", metavar="DIR")
    parser.add_argument("--data", metavar="DIR", help="folder that holds cifar100.npz")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    parser.add_argument(
        "--quick", action="store_true", help="two short epochs, to see that it runs"
    )
    parser.add_argument("--stand-in", action="store_true", help="drawn images if there are no real")
    given = parser.parse_args(arguments)
    if given.threads is not None:
        torch.set_num_threads(max(1, given.threads))
    typed = list(sys.argv[1:] if arguments is None else arguments)
    command = recorded_command(typed).replace("-m vitcore", "-m benchmarks.resnet", 1)
    recipe = RECIPE.with_train(seed=given.seed)
    try:
        dataset = load_dataset("cifar100", given.data, stand_in=True if given.stand_in else None)
        record = run(
            given.out, dataset, recipe=recipe.quick() if given.quick else recipe,
            device=given.device, command=command,
        )  # fmt: skip
    except ImportError:
        sys.exit("this benchmark needs timm: pip install timm.")
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"test accuracy {record.test_accuracy:.4f}{dataset.source.note}")


if __name__ == "__main__":
    main()
