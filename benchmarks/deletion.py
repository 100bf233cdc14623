# SPDX-License-Identifier: MIT
"""Maps put to the test: mask what a map calls important and see what the model says; chapter 8.

python -m benchmarks.deletion masks the patches of test images in the order of each map, most
important first, and writes to runs/deletion/record.json what is left of the model's first answer.
A map passes where masking by it hurts more than masking by ten random maps does, by more than four
of their standard deviations.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vitbook import records, studies
from vitcore import explain
from vitcore.data import ImageDataset, load_dataset
from vitcore.data.download import checksum
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.runs import WEIGHTS
from vitcore.training import predict
from vitcore.vit import ViT

RUNS = {
    "mnist-seed0": "MNIST, seed 0",
    "mnist-seed1": "MNIST, seed 1",
    "mnist-seed2": "MNIST, seed 2",
    "cifar100-cpu-seed0": "CIFAR-100, seed 0",
}
IMAGES = 200
"""The first test images of each data set."""
DRAWS = 10
POINTS = 9
"""Points of a curve, from no patch masked to all of them."""
BASELINE = "the mean colour of the training images, 0 after normalisation"

Maps = Mapping[str, Callable[[ViT, Tensor], Tensor]]
MAPS: Maps = {
    "attention": lambda model, images: explain.patch_map(
        model, images, explain.attention_maps(model, images, layers=-1).mean(dim=(1, 2))
    ),
    "rollout": lambda model, images: explain.patch_map(
        model, images, explain.rollout(model, images)
    ),
    "relevance": lambda model, images: explain.patch_map(
        model, images, explain.relevance(model, images)
    ),
    "gradient x input": explain.gradient_times_input,
    # Knows nothing of the model: how far a patch is from the mean colour.
    "contrast": lambda model, images: by_patch(model, images.abs()),
    # Drawn by chance like those that it is compared with: it must not pass.
    "one more random map": lambda model, images: random_map(model, images, seed=DRAWS),
}


def by_patch(model: ViT, images: Tensor) -> Tensor:
    """Sum images (B, C, H, W) over channels and over the pixels of each patch: (B, rows, cols)."""
    size = model.config.patch_size
    patches = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, rows, cols, P, P)
    return patches.sum(dim=(1, 4, 5))


def random_map(model: ViT, images: Tensor, seed: int) -> Tensor:
    """Draw a map (B, rows, cols) that knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    grid = by_patch(model, images[:, :1])
    return torch.rand(grid.shape, generator=generator)


def masked(images: Tensor, order: Tensor, count: int, size: int) -> Tensor:
    """Set the first ``count`` patches of each image's ``order`` (B, N) to 0, the mean colour."""
    cols = images.shape[-1] // size
    hidden = torch.zeros_like(order, dtype=torch.bool)
    hidden.scatter_(1, order[:, :count], True)
    hidden = hidden.unflatten(1, (-1, cols))  # (B, rows, cols)
    pixels = hidden.repeat_interleave(size, dim=1).repeat_interleave(size, dim=2)
    return images.masked_fill(pixels[:, None], 0.0)


def curve(
    model: ViT, images: Tensor, importance: Tensor, counts: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Mask by importance (B, rows, cols), greatest first; give what is left at each count.

    That is the mean probability of the class that the model names for the whole image, and the
    share of images for which it still names it.
    """
    order = importance.flatten(1).argsort(dim=1, descending=True, stable=True)
    answers = predict(model, images).argmax(dim=1)
    left, kept = [], []
    for count in counts:
        logits = predict(model, masked(images, order, count, model.config.patch_size))
        left.append(logits.softmax(dim=1).gather(1, answers[:, None]).mean().item())
        kept.append((logits.argmax(dim=1) == answers).double().mean().item())
    return [round(x, 4) for x in left], [round(x, 4) for x in kept]


def area(values: Sequence[float]) -> float:
    """The mean height of a curve: small where the answer goes soon."""
    return round(sum(values) / len(values), 4)


def judge(model: ViT, images: Tensor, maps: Maps = MAPS) -> dict[str, Any]:
    """Every map's curve on normalised images, those of the random ones, and which maps pass."""
    patches = by_patch(model, images[:1]).numel()
    counts = [round(i * patches / (POINTS - 1)) for i in range(POINTS)]
    found = {name: curve(model, images, make(model, images), counts) for name, make in maps.items()}
    by_chance = [
        curve(model, images, random_map(model, images, seed), counts) for seed in range(DRAWS)
    ]
    means = [[round(sum(x) / DRAWS, 4) for x in zip(*rows, strict=True)]
             for rows in zip(*by_chance, strict=True)]  # fmt: skip
    areas = {name: area(left) for name, (left, _) in found.items()}
    random = [area(left) for left, _ in by_chance]
    curves = {**found, "random": (means[0], means[1])}
    return {
        "patches": patches,
        "masked": counts,
        "probability": {name: left for name, (left, _) in curves.items()},
        "kept": {name: kept for name, (_, kept) in curves.items()},
        "areas": areas,
        "random": random,
        "passes": studies.judge_maps(areas, random),
    }


def run(
    out: Path,
    runs: Mapping[str, str] = RUNS,
    load: Callable[[str], ImageDataset] = load_dataset,
    count: int = IMAGES,
) -> dict[str, Any]:
    """Test all maps of the models of ``runs``, write OUT/record.json and return it."""
    code, started = commit(), time.perf_counter()
    models = {}
    for name, label in runs.items():
        dataset = load(records.load_record(name)["dataset"])
        loaded = records.load_run_weights(name, dataset.test)
        images = loaded.normalise(dataset.test.images[:count])
        assert isinstance(loaded.model, ViT)
        models[name] = {
            "label": label,
            "dataset": dataset.name,
            "source": str(dataset.source),
            "split": dataset.source.split,
            "weights": checksum(records.run_file(name, WEIGHTS), "sha256"),
            **judge(loaded.model, images),
        }
    record = studies.DeletionRecord.from_dict(
        {
            "kind": studies.DeletionRecord.KIND,
            "command": "python -m benchmarks.deletion",
            "commit": code,
            "date": now(),
            "hardware": hardware(torch.device("cpu")),
            "versions": versions(),
            "baseline": BASELINE,
            "images": count,
            "draws": DRAWS,
            "wall_seconds": round(time.perf_counter() - started, 2),
            "models": models,
        }
    )
    record.write(out / RECORD)
    return record.to_dict()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, test the maps, say what came out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deletion", description=__doc__)
    parser.add_argument("--out", default="runs/deletion", metavar="DIR")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        record = run(Path(given.out))
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    for rows in record["models"].values():
        print(f"{rows['label']}: random maps {min(rows['random'])} to {max(rows['random'])}")
        for name, value in rows["areas"].items():
            print(f"   {name:20} {value:.4f}  {'passes' if rows['passes'][name] else 'fails'}")


if __name__ == "__main__":
    main()
