# SPDX-License-Identifier: MIT
"""How long a model waits for its images, as ratios: the loop of chapters 6 and 7, and its data.

python -m benchmarks.training measures two things in turns, for a model of MNIST and for one of
CIFAR-100: the whole loop against the same steps on random tensors that already lie on the device,
and the data path alone against the usual one, torchvision's transforms of PIL images in a
DataLoader with two workers. It prints a table and writes runs/training-speed/record.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vitbook import studies
from vitbook.torchvision import import_torchvision
from vitcore.data import Batches, ImageDataset, Split, load_dataset
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RECORD, commit, hardware, now, recorded_command, versions
from vitcore.runs import make_batches
from vitcore.training import (
    TrainConfig,
    WeightAverage,
    build_optimizers,
    cross_entropy,
    fit,
    resolve_device,
    resolve_precision,
    set_seed,
)
from vitcore.vit import ViT

OUT = "runs/training-speed"
ROUNDS = 12
WORKERS = 2
LOOP_GOAL, DATA_GOAL = 0.95, 5.0


@dataclasses.dataclass(frozen=True)
class Case:
    """One recipe on the data set it is for. loop, data: how many batches a round of each takes."""

    recipe: Recipe
    loop: int
    data: int


def _case(name: str, loop: int, data: int) -> Case:
    # What makes one epoch unlike the next, or has no counterpart in the usual path, is left out.
    return Case(dataclasses.replace(RECIPES[name], mix=None, mix_options={}, sizes=()), loop, data)


# Rounds of a second or more: a shorter one is at the mercy of whatever else the machine does.
CASES = (_case("mnist", 40, 100), _case("cifar100-cpu", 8, 100))

# --- what both ways share ---------------------------------------------------------------------


def clock(device: torch.device) -> float:
    """Seconds, once the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def training_batches(
    recipe: Recipe, dataset: ImageDataset, count: int, device: torch.device
) -> Batches:
    """``count`` full batches of training images, as ``train_recipe`` makes them."""
    images = count * recipe.train.batch_size
    split = Split(dataset.train.images[:images], dataset.train.labels[:images])
    return make_batches(recipe, dataset, split, device=device, training=True)


# --- the loop ---------------------------------------------------------------------------------


class PureCompute:
    """The steps of ``vitcore.training.fit`` and nothing else: no data, no scores, no schedule."""

    def __init__(self, model: nn.Module, config: TrainConfig, device: torch.device):
        self.model = model.to(device).train()
        self.stepped = torch.compile(model) if config.compile else model
        self.config = config
        self.optimizers = build_optimizers(model, config)
        groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.parameters = [p for group in groups for p in group["params"]]
        self.average = WeightAverage(model, config.ema) if config.ema else None
        self.precision = resolve_precision(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "fp16")
        self.device = device
        self.steps = 0

    def step(self, images: Tensor, targets: Tensor) -> None:
        """Forward, loss, backward, clipping, optimisers, moving average."""
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            logits = self.stepped(images)
        loss = cross_entropy(logits.float(), targets, self.config.label_smoothing)
        self.scaler.scale(loss).backward()
        if self.config.clip_norm is not None:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip_norm)
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model, self.steps)
        self.steps += 1


def time_loop(
    recipe: Recipe, dataset: ImageDataset, batches: int, rounds: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of the epochs of ``fit``, and of as many steps of ``PureCompute`` after each."""
    recipe = recipe.fitted_to(dataset).with_train(epochs=rounds + 1)
    feed = training_batches(recipe, dataset, batches, device)
    set_seed(recipe.train.seed)
    trained, other = ViT(recipe.model), ViT(recipe.model)
    compute = PureCompute(other, recipe.train, device)
    size = (batches, recipe.train.batch_size)
    images = torch.randn(*size, *dataset.train.images.shape[1:], device=device)
    labels = torch.randint(dataset.num_classes, size, device=device)
    loop_seconds: list[float] = []
    compute_seconds: list[float] = []
    started = 0.0

    def after_epoch(row: dict[str, Any], model: nn.Module) -> None:
        nonlocal started
        ended = clock(device)
        for index in range(batches):
            compute.step(images[index], labels[index])
        computed = clock(device)
        # The first epoch has the start in it, and warms everything up.
        if row["epoch"] > 1:
            loop_seconds.append(ended - started)
            compute_seconds.append(computed - ended)
        started = computed

    fit(trained, feed, None, recipe.train, device=device, progress=False, on_epoch=after_epoch)
    return loop_seconds, compute_seconds


# --- the data path ----------------------------------------------------------------------------


def usual_transform(
    recipe: Recipe, size: Sequence[int], mean: Sequence[float], std: Sequence[float]
) -> Callable[[Any], Tensor]:
    """torchvision's transforms of a PIL image of ``size`` (H, W) that do what the recipe's
    augmentation does, and normalise.

    Raises:
        ValueError: if the recipe has an operation that is not translated here.
    """
    import_torchvision()
    from torchvision import transforms

    options = dict(recipe.augment_options)
    height, width = size
    steps: list[Any] = []
    if recipe.augment == "digits":
        shift, scale = options.pop("translate"), options.pop("scale")
        steps.append(
            transforms.RandomAffine(
                options.pop("degrees"),
                translate=(shift / width, shift / height),
                scale=(1 - scale, 1 + scale),
                interpolation=transforms.InterpolationMode.BILINEAR,
            )
        )
    elif recipe.augment == "cifar":
        padding, flip = options.pop("padding"), options.pop("flip")
        steps += [transforms.RandomCrop((height, width), padding=padding)] if padding else []
        steps += [transforms.RandomHorizontalFlip()] if flip else []
    if options or recipe.mix:
        raise ValueError(f"{recipe.name} has what is not translated: {options}, {recipe.mix}.")
    return transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(mean, std)])


class PilImages(torch.utils.data.Dataset):
    """Images as torchvision's data sets keep them: an array, each made a PIL image when asked."""

    def __init__(self, split: Split, transform: Callable[[], Callable[[Any], Tensor]]):
        pixels = split.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
        self.labels = split.labels.tolist()
        self._make = transform

    @functools.cached_property
    def transform(self) -> Callable[[Any], Tensor]:
        """Made where it is used first, which is in each worker."""
        return self._make()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def time_data(
    recipe: Recipe, dataset: ImageDataset, batches: int, rounds: int, device: torch.device
) -> tuple[list[float], list[float]]:
    """Seconds of one pass over the batches of ``make_batches``, and of a DataLoader's after each.

    The workers are started once, before what is timed.
    """
    ours = training_batches(recipe, dataset, batches, device)
    # The usual path starts from the memory of the host, wherever the device is.
    split = Split(*(part[: len(ours.labels)] for part in dataset.train))
    size = tuple(split.images.shape[-2:])
    usual = torch.utils.data.DataLoader(
        PilImages(
            split, functools.partial(usual_transform, recipe, size, dataset.mean, dataset.std)
        ),
        batch_size=recipe.train.batch_size,
        shuffle=True,
        num_workers=WORKERS,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
    )
    our_seconds: list[float] = []
    usual_seconds: list[float] = []
    for round_ in range(rounds + 1):
        ours.set_epoch(round_)
        started = clock(device)
        for _ in ours:
            pass
        ended = clock(device)
        for images, labels in usual:
            images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        loaded = clock(device)
        if round_:
            our_seconds.append(ended - started)
            usual_seconds.append(loaded - ended)
    return our_seconds, usual_seconds


MEASURES = {
    "loop": (time_loop, LOOP_GOAL, "training on images", "the same steps on random tensors"),
    "data": (time_data, DATA_GOAL, "batches on the device", f"DataLoader, {WORKERS} workers"),
}
"""By name: the function that measures, the goal of the ratio, what is measured, against what."""

# --- the record -------------------------------------------------------------------------------


def run(
    datasets: dict[str, ImageDataset],
    *,
    cases: Sequence[Case] = CASES,
    rounds: int = ROUNDS,
    device: str | torch.device = "auto",
    precision: str = "auto",
    command: str = "python -m benchmarks.training",
    complete: bool = True,
    say: Callable[[str], object] = print,
) -> studies.SpeedRecord:
    """Measure all cases and return the record."""
    code = commit()
    import_torchvision()  # before its version is asked for
    where = resolve_device(device)
    precision = resolve_precision(precision, where)
    begun = time.perf_counter()
    measurements: dict[str, dict[str, Any]] = {}
    for case in cases:
        recipe = case.recipe.with_train(precision=precision)
        dataset = datasets[recipe.dataset]
        for what, batches in (("loop", case.loop), ("data", case.data)):
            measure, goal, measured, against = MEASURES[what]
            label = f"{dataset.name}{dataset.source.note}: {measured}"
            say(f"{label}, against {against}")
            seconds, other_seconds = (
                [round(value, 5) for value in values]
                for values in measure(recipe, dataset, batches, rounds, where)
            )
            measurements[f"{dataset.name}-{what}"] = {
                "label": label,
                "measured": measured,
                "against": against,
                "dataset": dataset.name,
                "recipe": recipe.name,
                "batch_size": recipe.train.batch_size,
                "images": batches * recipe.train.batch_size,
                "goal": goal,
                **studies.compare_rounds(seconds, other_seconds),
                "measured_seconds": seconds,
                "against_seconds": other_seconds,
            }
    return studies.SpeedRecord(
        kind=studies.SpeedRecord.KIND,
        command=command,
        commit=code,
        date=now(),
        hardware=hardware(where),
        versions={**versions(), "pillow": importlib.metadata.version("pillow")},
        precision=precision,
        datasets={
            data.name: {"source": str(data.source), "split": data.source.split}
            for data in datasets.values()
        },
        rounds=rounds,
        wall_seconds=round(time.perf_counter() - begun, 2),
        complete=complete,
        measurements=measurements,
    )


def table(record: studies.SpeedRecord) -> str:
    """The record as lines of text, with images a second where they hold beyond the day."""
    gpu = record.hardware["device"] != "cpu"
    rows = [["", "ratio", "lowest to highest", "goal"] + ["images/s", "against"] * gpu]
    for values in record.measurements.values():
        row = [
            f"{values['label']}, against {values['against']}",
            f"{values['ratio']:.3f}",
            f"{values['lowest']:.3f} to {values['highest']:.3f}",
            f"{values['goal']:g}, {'met' if values['ratio'] >= values['goal'] else 'missed'}",
        ]
        for key in ("measured_seconds", "against_seconds") if gpu else ():
            row.append(f"{values['images'] / statistics.median(values[key]):,.0f}")
        rows.append(row)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join(lines if gpu else [*lines, "On a CPU only the ratios are claimed."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print the table, write the record."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("--out", default=OUT, metavar="DIR", help="default: %(default)s")
    parser.add_argument("--data", metavar="DIR", help="folder of mnist.npz and cifar100.npz")
    parser.add_argument("--rounds", type=int, metavar="N", help=f"default: {ROUNDS}; quick: 2")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads; default: all cores")
    parser.add_argument(
        "--precision", default="auto", metavar="P", help="auto (fp32 on a CPU), fp32, bf16, fp16"
    )
    parser.add_argument(
        "--quick", action="store_true", help="two batches a round, to see that it runs"
    )
    parser.add_argument("--stand-in", action="store_true", help="drawn images if there are no real")
    given = parser.parse_args(arguments)
    if given.quick and Path(given.out) == Path(OUT):
        parser.error("--quick needs its own folder: name one with --out")
    rounds = given.rounds or (2 if given.quick else ROUNDS)
    if rounds < 1 or (given.threads is not None and given.threads < 1):
        parser.error("--rounds and --threads must be above zero")
    if given.threads is not None:
        torch.set_num_threads(given.threads)
    cases: Sequence[Case] = CASES
    if given.quick:
        cases = [dataclasses.replace(case, loop=2, data=2) for case in CASES]
    typed = list(sys.argv[1:] if arguments is None else arguments)
    command = recorded_command(typed).replace("-m vitcore", "-m benchmarks.training", 1)
    try:
        names = [case.recipe.dataset for case in cases]
        stand_in = True if given.stand_in else None
        record = run(
            {name: load_dataset(name, given.data, stand_in=stand_in) for name in names},
            cases=cases,
            rounds=rounds,
            device=given.device,
            precision=given.precision,
            command=command,
            complete=not given.quick,
            say=lambda line: print(line, flush=True),
        )
        record.write(Path(given.out) / RECORD)
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    print(table(record))
    print(f"The record is in {Path(given.out) / RECORD}")


if __name__ == "__main__":
    main()
