# SPDX-License-Identifier: MIT
"""Five images of each new class, from several starts: what pretraining is worth (chapter 11).

    python -m benchmarks.transfer --status    what is done, what is left, and for how long

A small ViT is trained on half of CIFAR-100's classes in three ways at the same arithmetic: with
their labels; as a masked autoencoder, without them; and with a third of the arithmetic spent on a
CNN that then teaches it. Each then meets five images of each of the other classes: fine-tuned as a
whole, by a linear probe on frozen features, by nearest neighbours. Beside them stand the same
model from scratch, and nearest neighbours on pixels. The rate of fine-tuning, of three, is chosen
on validation images, for each start by itself; the test images are looked at once, at the end.

Every part is written to OUT/record.json as soon as it is done, and one that was stopped goes on
from its last epoch. The CNN needs timm.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import resnet
from benchmarks.classes import keep_classes
from benchmarks.ladder import computes_bf16
from vitbook import studies
from vitbook.pretraining import DistilledViT, MaskedAutoencoder, TaughtBatches, hard_distillation
from vitcore.data import Batches, ImageDataset, Split, build_augment, load_dataset
from vitcore.recipes import Recipe
from vitcore.records import RECORD, commit, hardware, now, versions
from vitcore.runs import make_batches, training_pflop
from vitcore.training import (
    TrainConfig,
    evaluate,
    extract_features,
    fit,
    linear_probe,
    nearest_neighbours,
    predict,
    reset_head,
    set_seed,
)
from vitcore.vit import ViT, ViTConfig

SEEDS = (0, 1, 2)  # declared before any run
DEVICE = torch.device("cpu")
NEIGHBOURS = 5

RECIPE = Recipe(
    name="transfer",
    dataset="cifar100",
    # Patches of 4 pixels: a masked autoencoder needs many to hide, and begins sooner with sines
    # than with positions that it must learn. No class token: what the head reads is the mean of
    # the patches, whichever way the model was trained.
    model=ViTConfig(
        image_size=32, patch_size=4, in_channels=3, num_classes=50, dim=64, depth=4, heads=4,
        class_token=False, pool="mean", positions="sincos", init_std=0.08,
    ),
    train=TrainConfig(epochs=7, batch_size=64, lr=2e-3),
    augment="cifar",
    augment_options={"flip": True, "padding": 0},  # more costs accuracy in so short a run
    note="half of the classes, on one core",
)  # fmt: skip
TUNE = TrainConfig(epochs=30, batch_size=25, warmup_epochs=3.0)


@dataclass(frozen=True)
class Plan:
    """All that is decided beforehand."""

    recipe: Recipe = RECIPE
    shots: int = 5  # images of each new class
    autoencoder: Mapping[str, Any] = field(
        default_factory=lambda: {"lr": 1.5e-3, "betas": (0.9, 0.95), "batch_size": 128}
    )
    teacher_share: float = 1 / 3  # of the arithmetic, spent on the teacher
    tune: TrainConfig = TUNE
    layer_decay: float = 0.75  # of what was pretrained
    rates: tuple[float, ...] = (5e-4, 1.5e-3, 4.5e-3)  # of which validation chooses one

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        return json.loads(json.dumps(asdict(self)))


# --- the two halves ---------------------------------------------------------------------------


def half_of(dataset: ImageDataset, first: int) -> ImageDataset:
    """Keep every other class, from 0 (those of pretraining) or from 1 (the new ones)."""
    return keep_classes(dataset, range(first, dataset.num_classes, 2))


def few_of(split: Split, shots: int, seed: int) -> Split:
    """Draw so many images of each class."""
    order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    labels = split.labels[order]
    chosen = [order[labels == k][:shots] for k in range(int(labels.max()) + 1)]
    return Split(split.images[torch.cat(chosen)], split.labels[torch.cat(chosen)])


# --- the starts -------------------------------------------------------------------------------


@dataclass
class Start:
    """A model that is to meet the new classes, and what it cost."""

    model: ViT | None  # None is the pixels themselves
    tflop: float = 0.0
    base_accuracy: float | None = None


@dataclass(frozen=True)
class Work:
    """What making a start needs: the plan with its seed, the first classes, a folder."""

    plan: Plan
    recipe: Recipe
    base: ImageDataset
    folder: Path

    def epochs(self, share: float, model: nn.Module, extra: float = 0.0) -> tuple[int, float]:
        """So many epochs as a share of the arithmetic pays for, at least one; and their cost in
        10^12 operations. extra: what an epoch costs beside the model."""
        count, once = len(self.base.train.labels), self.recipe.with_train(epochs=1)
        whole = training_pflop(self.recipe, ViT(self.recipe.model), count)
        each = training_pflop(once, copy.deepcopy(model).eval(), count) + extra
        epochs = max(1, round(share * whole / each))
        return epochs, 1000 * epochs * each

    def batches(self, **train: Any) -> Batches:
        """Batches of the first classes."""
        recipe = self.recipe.with_train(**train)
        return make_batches(recipe, self.base, self.base.train, device=DEVICE, training=True)

    def fit(self, name: str, model: nn.Module, batches: Any, epochs: int, **options: Any) -> None:
        """Train, or go on where it was stopped; the weights are those of the last step."""
        train = options.pop("train", {})
        config = self.recipe.with_train(epochs=epochs, **train).train
        how: dict[str, Any] = {"device": DEVICE, "progress": False, "resume": True, **options}
        fit(model, batches, None, config, out=self.folder / name, **how)

    def judge(self, model: nn.Module) -> float:
        """The accuracy on the test images of the first classes."""
        batches = make_batches(self.recipe, self.base, self.base.test, device=DEVICE)
        return evaluate(model, batches, precision=self.recipe.train.precision)["accuracy"]


def start_supervised(work: Work) -> Start:
    """Train with labels."""
    model = ViT(work.recipe.model)
    epochs, tflop = work.epochs(1.0, model)
    work.fit("supervised", model, work.batches(), epochs)
    return Start(model, tflop, work.judge(model))


def mean_error(errors: Tensor, labels: Tensor) -> Tensor:
    """The loss of an autoencoder, which needs no labels."""
    return errors.mean()


def less_error(errors: Tensor, labels: Tensor) -> Tensor:
    """A score for each image, the higher the better."""
    return -errors


def start_autoencoder(work: Work) -> Start:
    """Train without labels, by guessing three quarters of the patches."""
    model = MaskedAutoencoder(ViT(work.recipe.model, num_classes=0))
    epochs, tflop = work.epochs(1.0, model)
    train = dict(work.plan.autoencoder)
    batches = work.batches(batch_size=train["batch_size"])
    how: dict[str, Any] = {"loss": mean_error, "metric": less_error, "train": train}
    work.fit("autoencoder", model, batches, epochs, **how)
    return Start(model.encoder, tflop)


def taught_loss(both: Tensor, targets: Tensor) -> Tensor:
    """The loss of two heads, logits (B, 2, K), by labels and teacher, (B, 2)."""
    return hard_distillation(both[:, 0], both[:, 1], targets[:, 0], targets[:, 1])


def taught_score(both: Tensor, targets: Tensor) -> Tensor:
    """Which images (B,) both heads together get right."""
    return (both.mean(dim=1).argmax(dim=1) == targets[:, 0]).float()


def start_distilled(work: Work) -> Start:
    """Train a CNN for a share of the arithmetic, and let it teach for the rest."""
    share, precision = work.plan.teacher_share, work.recipe.train.precision
    teacher, student = resnet.build(work.recipe.model), DistilledViT(work.recipe.model)
    epochs, cost = work.epochs(share, teacher)
    work.fit("teacher", teacher, work.batches(), epochs)
    # One forward pass of three that an epoch of training has.
    answers = cost / epochs / 3000
    epochs, tflop = work.epochs(1 - share, student, answers)
    batches = TaughtBatches(work.batches(), teacher, precision)
    work.fit("student", student, batches, epochs, loss=taught_loss, metric=taught_score)
    return Start(student, cost + tflop, work.judge(student))


STARTS: dict[str, tuple[str, Callable[[Work], Start]]] = {
    "supervised": ("pretrained with labels", start_supervised),
    "autoencoder": ("pretrained as a masked autoencoder", start_autoencoder),
    "distilled": ("pretrained with a CNN as teacher", start_distilled),
    "scratch": ("from scratch", lambda work: Start(ViT(work.recipe.model))),
    "pixels": ("bare pixels", lambda work: Start(None)),
}
"""By name: what the page calls it, and what makes it."""


# --- what a start is worth --------------------------------------------------------------------


def right(logits: Tensor, split: Split) -> float:
    """The accuracy of these logits."""
    return (logits.argmax(dim=1) == split.labels).double().mean().item()


def answer(model: ViT, split: Split, new: ImageDataset, precision: str) -> float:
    """The accuracy of a model on a part of the new classes."""
    return right(predict(model, new.normalise(split.images), precision=precision), split)


def fine_tune(model: ViT, few: Split, new: ImageDataset, config: TrainConfig) -> ViT:
    """Train a copy of all of the model on a few images."""
    model = copy.deepcopy(model)
    reset_head(model, new.num_classes)
    if isinstance(model, DistilledViT):
        model.__class__ = ViT  # type: ignore[assignment]  # the second head knows other classes
        del model.head_dist
    how: dict[str, Any] = {"mean": new.mean, "std": new.std, "seed": config.seed}
    how["augment"] = build_augment("cifar", flip=True, padding=4)
    batches = Batches(few, config.batch_size, shuffle=True, **how)
    fit(model, batches, None, config, device=DEVICE, progress=False)
    return model


def score(start: Start, new: ImageDataset, plan: Plan, seed: int, precision: str) -> dict[str, Any]:
    """The test accuracy of a start on the new classes, by method, and the rate chosen."""
    few = few_of(new.train, plan.shots, seed)
    vote = partial(nearest_neighbours, k=NEIGHBOURS)
    images = [new.normalise(part.images) for part in (few, new.test)]
    if start.model is None:
        known, asked = (part.flatten(1) for part in images)
        return {"nearest": right(vote(known, few.labels, asked), new.test)}
    decay = plan.layer_decay if start.tflop else 1.0
    tries = {}
    for lr in plan.rates:
        changes: dict[str, Any] = {"lr": lr, "layer_decay": decay}
        changes |= {"seed": seed, "precision": precision}
        set_seed(seed)
        tuned = fine_tune(start.model, few, new, replace(plan.tune, **changes))
        tries[lr] = answer(tuned, new.val, new, precision), tuned
    best = max(tries, key=lambda lr: tries[lr][0])
    known, asked = (extract_features(start.model, part, precision=precision) for part in images)
    return {
        "rate": best,
        "fine-tuned": answer(tries[best][1], new.test, new, precision),
        "probe": right(linear_probe(known, few.labels)(asked).detach(), new.test),
        "nearest": right(vote(known, few.labels, asked), new.test),
    }


# --- the record -------------------------------------------------------------------------------


def _begin(dataset: ImageDataset, plan: Plan, seeds: Sequence[int], precision: str) -> dict:
    new = half_of(dataset, 1)
    return {
        "kind": studies.TransferRecord.KIND,
        "command": "python -m benchmarks.transfer",
        "commit": commit(),
        "date": now(),
        "hardware": hardware(DEVICE),
        "versions": versions(),
        "wall_seconds": 0.0,
        "dataset": dataset.name,
        "source": str(dataset.source),
        "split": dataset.source.split,
        "precision": precision,
        "seeds": list(seeds),
        "plan": plan.to_dict(),
        "shots": plan.shots,
        "classes": new.num_classes,
        "test_images": len(new.test.labels),
        "complete": False,
        "starts": {
            name: {"label": label, "seeds": [], "tflop": [], "cpu_seconds": [], "scores": {}}
            for name, (label, _) in STARTS.items()
        },
    }


# What must be the same in a record that is continued.
SAME = ("source", "split", "precision", "seeds", "plan")


def _open(path: Path, fresh: dict) -> dict:
    """The record that is to be continued, or a new one."""
    if not path.exists():
        return fresh
    old = studies.TransferRecord.read(path).to_dict()
    differs = [key for key in SAME if old[key] != fresh[key]]
    differs += ["torch"] * (old["versions"]["torch"] != fresh["versions"]["torch"])
    if differs or list(old["starts"]) != list(fresh["starts"]):
        what = ", ".join(differs) or "list of starts"
        raise ValueError(f"{path} was made with another {what}; name another folder with --out.")
    return old


def todo(record: Mapping[str, Any]) -> list[tuple[int, str]]:
    """The parts that a record lacks, all of one seed before the next."""
    starts = record["starts"]
    return [(s, name) for s in record["seeds"] for name in starts if s not in starts[name]["seeds"]]


def run(
    out: Path,
    dataset: ImageDataset,
    plan: Plan | None = None,
    *,
    seeds: Sequence[int] = SEEDS,
    limit: int | None = None,
    precision: str | None = None,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Make what OUT/record.json lacks, at most ``limit`` parts, and return the record as it is.

    Raises ValueError where OUT holds a record of other settings, images or versions.
    """
    plan = plan or Plan()
    precision = precision or ("bf16" if computes_bf16() else "fp32")
    record = _open(out / RECORD, _begin(dataset, plan, seeds, precision))
    base, new = half_of(dataset, 0), half_of(dataset, 1)
    for seed, name in todo(record)[:limit]:
        began, clock = time.perf_counter(), time.process_time()
        recipe = plan.recipe.with_train(seed=seed, precision=precision)
        work = Work(plan, recipe, base, out / f"{name}-seed{seed}")
        set_seed(seed)
        start = STARTS[name][1](work)
        found = score(start, new, plan, seed, precision)
        rows = record["starts"][name]
        rows["seeds"].append(seed)
        rows["tflop"].append(float(f"{start.tflop:.4g}"))
        rows["cpu_seconds"].append(round(time.process_time() - clock, 1))
        if start.base_accuracy is not None:
            rows.setdefault("base_accuracy", []).append(start.base_accuracy)
        if "rate" in found:
            rows.setdefault("rate", []).append(found.pop("rate"))
        for method, value in found.items():
            rows["scores"].setdefault(method, []).append(value)
        record["wall_seconds"] = round(record["wall_seconds"] + time.perf_counter() - began, 1)
        record |= {"date": now(), "complete": not todo(record)}
        studies.TransferRecord.from_dict(record).write(out / RECORD)
        shutil.rmtree(work.folder, ignore_errors=True)
        told = ", ".join(f"{method} {100 * value:.1f} %" for method, value in found.items())
        say(f"seed {seed}, {STARTS[name][0]}: {told}; {rows['cpu_seconds'][-1]:.0f} s")
    return record


# --- how long ---------------------------------------------------------------------------------


def seconds_per_image(model: nn.Module, batch: int, precision: str, steps: int = 3) -> float:
    """Processor time of one training step for each of its images, from a few steps."""
    model, images = model.train(), torch.randn(batch, 3, 32, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.process_time()  # the first step only warms up
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            value = model(images).float().square().mean()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return (time.process_time() - began) / (batch * steps)


def estimate_seconds(parts: Sequence[tuple[int, str]], plan: Plan, images: int = 22_500) -> float:
    """Processor time of these parts on this machine, for so many images of the first classes."""
    recipe, precision = plan.recipe, "bf16" if computes_bf16() else "fp32"
    once, share = recipe.with_train(epochs=1), plan.teacher_share
    vit = ViT(recipe.model)
    autoencoder = MaskedAutoencoder(ViT(recipe.model, num_classes=0))
    cnn, student = resnet.build(recipe.model), DistilledViT(recipe.model)
    whole = training_pflop(recipe, vit, images)

    def costs(model: nn.Module, batch: int = recipe.train.batch_size) -> tuple[float, float]:
        pflop = training_pflop(once, copy.deepcopy(model).eval(), images)
        return pflop, images * seconds_per_image(model, batch, precision)

    plain, hiding = costs(vit), costs(autoencoder, plan.autoencoder["batch_size"])
    teaching, taught = costs(cnn), costs(student)
    pflop, seconds = (own + other / 3 for own, other in zip(taught, teaching, strict=True))
    of_start = {
        "supervised": whole * plain[1] / plain[0],
        "autoencoder": whole * hiding[1] / hiding[0],
        "distilled": whole * (share * teaching[1] / teaching[0] + (1 - share) * seconds / pflop),
    }
    tuned = len(plan.rates) * plan.tune.epochs * plan.shots * recipe.model.num_classes
    tune_seconds = tuned * seconds_per_image(vit, plan.tune.batch_size, precision)
    total = sum(of_start.get(n, 0.0) + tune_seconds * (n != "pixels") for _, n in parts)
    return 1.15 * total  # with data, validation and test


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make what is missing, say what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transfer", description=__doc__)
    parser.add_argument("--out", default="runs/transfer", metavar="DIR", help="is continued")
    parser.add_argument("--limit", type=int, metavar="N", help="stop after N parts")
    parser.add_argument("--status", action="store_true", help="say what is left, and train nothing")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        plan, out, dataset = Plan(), Path(given.out), load_dataset(RECIPE.dataset)
        precision = "bf16" if computes_bf16() else "fp32"
        left = todo(_open(out / RECORD, _begin(dataset, plan, SEEDS, precision)))
        print(f"{len(left)} of {len(SEEDS) * len(STARTS)} parts are left", flush=True)
        if left:
            minutes = estimate_seconds(left, plan) / 60
            print(f"they take about {minutes:.0f} minutes of one core of this machine", flush=True)
        if not given.status:
            run(out, dataset, plan, limit=given.limit, say=lambda line: print(line, flush=True))
    except ImportError:
        sys.exit("this benchmark needs timm for the teacher: pip install timm.")
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
