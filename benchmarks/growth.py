# SPDX-License-Identifier: MIT
"""What a ViT looks at while it learns, at eight moments of one training run; chapter 8 shows them.

python -m benchmarks.growth trains the recipe mnist-long for three epochs and writes what the
weights give at each moment, as maps of a few validation digits, to runs/growth/record.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbook import studies
from vitcore import explain
from vitcore.data import Batches, ImageDataset, load_dataset
from vitcore.recipes import Recipe, get_recipe
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.runs import make_batches
from vitcore.training import fit, predict, set_seed
from vitcore.vit import ViT

RECIPE = get_recipe("mnist", "long").with_train(epochs=3)
"""Its patches of 4 pixels give maps of 7 by 7; three epochs are enough for the maps to settle."""
STEPS = (0, 20, 60, 150, 300, 430, 860, 1290)
"""The moments, as steps taken; an epoch has 430."""
DIGITS = (3, 4, 5, 9)
"""The classes whose first validation image is shown."""
PATCHES = (0, 10, 24, 47)
"""The patches, of 49, whose position is compared with all others."""
JUDGED = 1000
"""Validation images whose accuracy says how far the model is."""


class Watched:
    """Batches that call ``look(steps taken)`` before a step and at the end."""

    def __init__(self, batches: Batches, look: Callable[[int], None]) -> None:
        self.batches, self.look, self.steps = batches, look, 0

    def set_epoch(self, epoch: int) -> None:
        """Hand the epoch on."""
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.batches:
            self.look(self.steps)
            yield batch
            self.steps += 1


def rounded(values: Tensor, digits: int = 4) -> Any:
    """Nested lists of numbers with so many digits behind the point."""
    scale = 10**digits
    return (values.double() * scale).round().div(scale).tolist()


def look_inside(model: ViT, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Give what the chapter shows of one moment, for normalised images (B, C, H, W)."""
    maps = explain.patch_map(model, images, explain.relevance(model, images, labels))
    probabilities = explain.logit_lens(model, images)[:, -1].softmax(dim=1)
    places = explain.position_similarity(model).flatten(0, 1)[list(PATCHES)]
    return {
        "probability": rounded(probabilities.gather(1, labels[:, None])[:, 0]),
        "relevance": rounded(maps - maps.amin(dim=(1, 2), keepdim=True), 6),
        "positions": rounded(places, 2),
        "distance": rounded(explain.attention_distance(model, images).mean(dim=0), 2),
    }


def run(
    out: Path, dataset: ImageDataset, recipe: Recipe = RECIPE, steps: Sequence[int] = STEPS
) -> dict[str, Any]:
    """Train once, look at the ``steps``, write OUT/record.json and return it."""
    if recipe.images is not None:
        dataset = dataset.subset(*recipe.images)
    device, code, started = torch.device("cpu"), commit(), time.perf_counter()
    set_seed(recipe.train.seed)
    model = ViT(recipe.model)
    val = dataset.val
    places = [int((val.labels == digit).nonzero()[0]) for digit in DIGITS]
    shown, labels = dataset.normalise(val.images[places]), val.labels[places]
    judged = dataset.normalise(val.images[:JUDGED])
    moments: dict[str, dict[str, Any]] = {}

    def look(step: int, seen: nn.Module = model) -> None:
        if step in steps and str(step) not in moments and isinstance(seen, ViT):
            answers = predict(seen, judged).argmax(dim=1)
            right = (answers == val.labels[:JUDGED]).double().mean().item()
            moments[str(step)] = {"val_accuracy": right, **look_inside(seen, shown, labels)}

    batches = make_batches(recipe, dataset, dataset.train, device=device, training=True)
    watched = Watched(batches, look)
    fit(
        model, watched, None, recipe.train, device=device, progress=False,
        # The weights as trained, as at the other moments; fit then leaves their average.
        on_epoch=lambda row, seen: look(row["epoch"] * len(batches), seen),
    )  # fmt: skip
    record = studies.GrowthRecord.from_dict(
        {
            "kind": studies.GrowthRecord.KIND,
            "command": "python -m benchmarks.growth",
            "commit": code,
            "date": now(),
            "dataset": dataset.name,
            "source": str(dataset.source),
            "split": dataset.source.split,
            "hardware": hardware(device),
            "versions": versions(),
            "recipe": recipe.to_dict(),
            "wall_seconds": round(time.perf_counter() - started, 2),
            "steps_per_epoch": len(batches),
            "val_images": places,
            "labels": labels.tolist(),
            "patches": list(PATCHES),
            "moments": moments,
        }
    )
    record.write(out / RECORD)
    return record.to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, train, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--out", default="runs/growth", metavar="DIR")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        record = run(Path(given.out), load_dataset(RECIPE.dataset))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    for step, seen in record["moments"].items():
        print(f"step {step:>4}: validation accuracy {100 * seen['val_accuracy']:.1f} %")


if __name__ == "__main__":
    main()
