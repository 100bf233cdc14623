# SPDX-License-Identifier: MIT
"""What the benchmarks write beside training runs: one kind of record for each study."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitbook.spread import compare, measure_noise
from vitcore.data import SPLITS
from vitcore.records import Record

__all__ = [
    "STUDIES",
    "AblationRecord",
    "DeletionRecord",
    "EverywhereRecord",
    "GrowthRecord",
    "ParityRecord",
    "SpeedRecord",
    "StudyRecord",
    "TransferRecord",
    "VariantsRecord",
    "compare_rounds",
    "judge_maps",
    "judge_variants",
]


@dataclass
class StudyRecord(Record):
    """What every study says of itself. kind: its ``KIND``; the rest as in `RunRecord`."""

    kind: str
    command: str
    commit: str
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    wall_seconds: float


@dataclass
class AblationRecord(Record):
    """Many short runs of one recipe, each with one thing changed: benchmarks/ablations.py.

    commits: of all the code that contributed. seeds: those declared beforehand; complete says
    whether every variant has them all. variants: by name, with a label, the seeds done and, in
    their order, test_accuracy and train_loss of each. The rest as in `RunRecord`.
    """

    KIND = "ablations"

    kind: str
    command: str
    commits: list[str]
    date: str
    seeds: list[int]
    dataset: str
    source: str
    split: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    parameters: int
    recipe: dict[str, Any]
    test_images: int
    wall_seconds: float
    complete: bool
    variants: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        if "correct" not in self.variants:
            raise ValueError(f'{name} has no variant "correct" to compare with.')
        for variant, rows in self.variants.items():
            where = f"{variant} in {name}"
            for key in ("label", "seeds", "test_accuracy", "train_loss"):
                if key not in rows:
                    raise ValueError(f"{where} lacks {key}.")
            if not set(rows["seeds"]) <= set(self.seeds):
                raise ValueError(f"{where} has seeds that were not declared: {rows['seeds']}.")
            if self.complete and rows["seeds"] != self.seeds:
                raise ValueError(f"{where} lacks seeds, and the record says it is complete.")
            for key in ("test_accuracy", "train_loss"):
                if len(rows[key]) != len(rows["seeds"]):
                    raise ValueError(f"{key} of {where} needs one number for each of its seeds.")
            if not all(0 <= value <= 1 for value in rows["test_accuracy"]):
                raise ValueError(f"test_accuracy of {where} must lie between 0 and 1.")


def compare_rounds(measured: Sequence[float], against: Sequence[float]) -> dict[str, float]:
    """How many times as fast as the other the measured one is, from seconds taken in turns.

    ratio: the median over the rounds of against / measured, which forgives what slows a machine
    down for a round or two. lowest, highest: those of single rounds.
    """
    ratios = [b / a for a, b in zip(measured, against, strict=True)]
    found = {"ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}
    return {name: round(value, 4) for name, value in found.items()}


@dataclass
class SpeedRecord(StudyRecord):
    """Times of one thing against another, taken in turns on one machine: benchmarks/training.py.

    datasets: by name, with source and split. rounds: how often each was timed, after one round
    that does not count. measurements: by name, with a label, the dataset, what was measured and
    against what, images a round, measured_seconds and against_seconds of every round, what
    `compare_rounds` makes of them, and the goal of the ratio. complete: as declared, not
    shortened.
    """

    KIND = "speed"

    precision: str
    datasets: dict[str, dict[str, str]]
    rounds: int
    complete: bool
    measurements: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        for dataset, rows in self.datasets.items():
            if "source" not in rows or rows.get("split") not in SPLITS:
                raise ValueError(f"{dataset} in {name} needs a source and a known split: {rows}.")
        if not self.measurements:
            raise ValueError(f"{name} holds no measurement.")
        for measurement, rows in self.measurements.items():
            where = f"{measurement} in {name}"
            for key in ("label", "dataset", "measured", "against", "images", "goal"):
                if key not in rows:
                    raise ValueError(f"{where} lacks {key}.")
            if rows["dataset"] not in self.datasets:
                raise ValueError(f"{where} is of a data set that is not listed: {rows['dataset']}.")
            both: list[Any] = [rows.get(key, ()) for key in ("measured_seconds", "against_seconds")]
            if not all(len(s) == self.rounds and all(0 < t < math.inf for t in s) for s in both):
                raise ValueError(f"{where} needs {self.rounds} times above zero of both.")
            for key, value in compare_rounds(*both).items():
                if rows.get(key) != value:
                    raise ValueError(f"{key} of {where} must be {value}, as its times give.")


@dataclass
class GrowthRecord(StudyRecord):
    """What the weights of one training run gave at some moments: benchmarks/growth.py.

    val_images: the places of the validation images shown, labels: their classes; patches: those
    whose positions are shown. moments: by the number of steps taken, val_accuracy; for each image
    the probability of its class and the map of its relevance (rows, columns), least 0; for each of
    the patches how alike the positions of all are (rows, columns); the attention distance (layers,
    heads) in pixels.
    """

    KIND = "growth"

    dataset: str
    source: str
    split: str
    recipe: dict[str, Any]
    steps_per_epoch: int
    val_images: list[int]
    labels: list[int]
    patches: list[int]
    moments: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        if not self.moments:
            raise ValueError(f"{name} holds no moment.")
        for step, seen in self.moments.items():
            for key, of in (("probability", "labels"), ("relevance", "labels"),
                            ("positions", "patches")):  # fmt: skip
                if len(seen.get(key, ())) != len(getattr(self, of)):
                    raise ValueError(f"{key} at step {step} in {name} needs one for each of {of}.")


def judge_maps(areas: Mapping[str, float], random: Sequence[float]) -> dict[str, bool]:
    """Say which maps pass: those whose area lies below the mean of the random ones by more than
    four of their standard deviations. (Below all of ten is one random map in eleven.)"""
    least = statistics.mean(random) - 4 * statistics.stdev(random)
    return {name: area < least for name, area in areas.items()}


@dataclass
class DeletionRecord(StudyRecord):
    """Maps put to the test by masking what they call important first: benchmarks/deletion.py.

    baseline: what a masked patch is replaced by. images: how many test images. draws: how many
    random maps each model's are compared with. models: by the name of their run, with a label, the
    dataset, source and split, the checksum of the weights, the number of patches, "masked" (how
    many patches are masked at each point of a curve) and the curves. curves: by map and as lists
    for "random", the mean probability of the model's first answer and the share of answers kept at
    each point; areas: the mean over the points of the probability; passes: what `judge_maps` says.
    """

    KIND = "deletion"

    baseline: str
    images: int
    draws: int
    models: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        if not self.models:
            raise ValueError(f"{name} holds no model.")
        for model, rows in self.models.items():
            where = f"{model} in {name}"
            for key in ("label", "dataset", "weights", "masked", "probability", "areas", "random"):
                if key not in rows:
                    raise ValueError(f"{where} lacks {key}.")
            if len(rows["random"]) != self.draws:
                raise ValueError(f"{where} needs the areas of {self.draws} random maps.")
            for curve, values in rows["probability"].items():
                if len(values) != len(rows["masked"]) or not all(0 <= p <= 1 for p in values):
                    raise ValueError(f"the curve {curve} of {where} needs a share for each point.")
            if rows.get("passes") != judge_maps(rows["areas"], rows["random"]):
                raise ValueError(f"passes of {where} must be what its areas give.")


@dataclass
class ParityRecord(StudyRecord):
    """How far logits lie from those of a model's source: benchmarks/parity.py.

    rows: family, size (H, W) in pixels, difference (the largest of the logits of two images) and
    spread (the logits' deviation between the images). left_out: packages that were not installed.
    parameters: of the first family's model.
    """

    KIND = "parity"

    left_out: list[str]
    parameters: int
    rows: list[dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        for row in self.rows:
            if set(row) != {"family", "size", "difference", "spread"}:
                raise ValueError(f"a row of {name} has {', '.join(row)}.")
            if not (0 <= row["difference"] < 1e-5 and row["spread"] > 0.01):
                raise ValueError(f"{row} in {name} is no agreement, or of logits that all agree.")


def judge_variants(variants: Mapping[str, Mapping[str, Any]], base: str) -> dict[str, Any]:
    """Say of every variant that was run what its seeds give: mean and deviation of the validation
    accuracy in per cent, and beside the base difference, threshold and verdict (`compare`). A
    deviation needs two seeds; a threshold needs them of some variant, else it is left out."""
    values = {
        name: [100 * run["val_accuracy"] for run in row["runs"]]
        for name, row in variants.items()
        if row["runs"]
    }
    noise = measure_noise(values.values())
    found: dict[str, Any] = {}
    for name, seeds in values.items():
        found[name] = {"mean": round(statistics.fmean(seeds), 2)}
        if len(seeds) > 1:
            found[name]["deviation"] = round(statistics.stdev(seeds), 2)
        if name != base and base in values:
            change = compare(seeds, values[base], noise)
            found[name] |= {"difference": round(change.value, 2), "verdict": change.verdict}
            if math.isfinite(change.threshold):
                found[name]["threshold"] = round(change.threshold, 2)
    return found


@dataclass
class VariantsRecord(StudyRecord):
    """Variants against one base at the same arithmetic: benchmarks/variants.py.

    base: its name, the first of the variants. seeds: those declared beforehand. precision, rounds:
    of the times. sizes: the sides in pixels at which finished models were read, on sized_images
    validation images. variants: by name, with a checksum of the recipe, epochs, parameters,
    mflop (10^6 operations of an image's forward pass), for training and inference
    images_per_second and what `compare_rounds` makes of its times and the base's, and the runs. Of
    a run: seed, split, date, commit, val_accuracy, test_accuracy, clean_train_accuracy, and where
    its weights were at hand by_size (accuracy by side) and temperatures (layers, heads), if it has
    learned ones. summary: what `judge_variants` says.
    """

    KIND = "variants"

    base: str
    dataset: str
    precision: str
    seeds: list[int]
    rounds: int
    sizes: list[int]
    sized_images: int
    variants: dict[str, dict[str, Any]]
    summary: dict[str, Any]

    def _check(self, name: str) -> None:
        super()._check(name)
        if next(iter(self.variants), None) != self.base:
            raise ValueError(f"the first variant of {name} must be its base, {self.base}.")
        for variant, row in self.variants.items():
            where = f"{variant} in {name}"
            for key in ("recipe", "epochs", "parameters", "mflop", "training", "inference", "runs"):
                if key not in row:
                    raise ValueError(f"{where} lacks {key}.")
            seeds = [run["seed"] for run in row["runs"]]
            if len(set(seeds)) < len(seeds) or not set(seeds) <= set(self.seeds):
                raise ValueError(f"{where} has seeds twice or undeclared: {seeds}.")
            for run in row["runs"]:
                sizes = run.get("by_size", dict.fromkeys(map(str, self.sizes), 0))
                if [*sizes] != [str(size) for size in self.sizes]:
                    raise ValueError(f"by_size of {where} needs one accuracy for each size.")
                if not all(0 <= a <= 1 for a in (run["val_accuracy"], *sizes.values())):
                    raise ValueError(f"accuracies of {where} must lie between 0 and 1.")
        splits = {run["split"] for row in self.variants.values() for run in row["runs"]}
        if len(splits) > 1 or not splits <= set(SPLITS):
            raise ValueError(f"all runs of {name} need one known split, not {sorted(splits)}.")
        if self.summary != judge_variants(self.variants, self.base):
            raise ValueError(f"the summary of {name} must be what its runs give.")


@dataclass
class EverywhereRecord(StudyRecord):
    """The same weights run in several ways: benchmarks/everywhere.py.

    images: on how many test images logits were compared. batch: how many at once when timed.
    models: by the name of their run, with a label, the dataset, source, split, checksum of the
    weights, and the ways by name: bytes of the file, the largest difference of logits to torch's,
    the share of images with the same class, processor seconds an image of every round, alone
    (single) and in a batch, and the median ratio of each to torch's; or, in "cannot", what the way
    lacks.
    """

    KIND = "everywhere"

    images: int
    batch: int
    rounds: int
    models: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        if not self.models:
            raise ValueError(f"{name} holds no model.")
        for model, rows in self.models.items():
            ways = rows["ways"]
            for way, told in ways.items():
                where = f"{way} of {model} in {name}"
                for kind in ("single", "batch") if "cannot" not in told else ():
                    both = [row[f"{kind}_seconds"] for row in (ways["torch"], told)]
                    if not all(len(seconds) == self.rounds for seconds in both):
                        raise ValueError(f"{kind}_seconds of {where} needs one for each round.")
                    if told[f"{kind}_ratio"] != compare_rounds(*both)["ratio"]:
                        raise ValueError(f"{kind}_ratio of {where} is not what its times give.")


@dataclass
class TransferRecord(StudyRecord):
    """A few images of new classes, from several starts: benchmarks/transfer.py.

    plan: what was decided beforehand, with the recipe of pretraining. shots: images of each new
    class; classes and test_images: how many are told apart, on how many images. starts: by name,
    with a label, the seeds done and, in their order, tflop (the arithmetic of pretraining, in 10^12
    operations), cpu_seconds, and of scores the accuracy on the new classes' test images by method
    ("fine-tuned", "probe", "nearest"); for a start that knows the first classes, base_accuracy on
    theirs. complete: every start has every seed.
    """

    KIND = "transfer"

    dataset: str
    source: str
    split: str
    precision: str
    seeds: list[int]
    plan: dict[str, Any]
    shots: int
    classes: int
    test_images: int
    complete: bool
    starts: dict[str, dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        for start, rows in self.starts.items():
            where = f"{start} in {name}"
            for key in ("label", "seeds", "tflop", "cpu_seconds", "scores"):
                if key not in rows:
                    raise ValueError(f"{where} lacks {key}.")
            if rows["seeds"] != self.seeds[: len(rows["seeds"])]:
                raise ValueError(f"{where} has seeds that were not declared: {rows['seeds']}.")
            if self.complete and rows["seeds"] != self.seeds:
                raise ValueError(f"{where} lacks seeds, and the record says it is complete.")
            shares = {**rows["scores"], "base_accuracy": rows.get("base_accuracy", [])}
            lists = {key: rows[key] for key in ("tflop", "cpu_seconds")} | rows["scores"]
            for key, values in lists.items():
                if len(values) != len(rows["seeds"]):
                    raise ValueError(f"{key} of {where} needs one number for each of its seeds.")
            if not all(0 <= v <= 1 for values in shares.values() for v in values):
                raise ValueError(f"the accuracies of {where} must lie between 0 and 1.")


STUDIES: tuple[type[Record], ...] = (
    AblationRecord,
    SpeedRecord,
    GrowthRecord,
    DeletionRecord,
    ParityRecord,
    VariantsRecord,
    EverywhereRecord,
    TransferRecord,
)
"""Every kind of record that is no training run's."""
