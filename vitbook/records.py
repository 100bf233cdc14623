# SPDX-License-Identifier: MIT
"""The committed records of runs/, found wherever a notebook runs, and what the benchmarks write."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitcore.data import SPLITS, Split, cache_dir
from vitcore.data.download import checksum, download
from vitcore.records import RECORD, Record, RunRecord, read_json
from vitcore.runs import WEIGHTS, check_unseen
from vitcore.training import LoadedModel, load_weights, replace_file

__all__ = [
    "REPOSITORY",
    "AblationRecord",
    "DeletionRecord",
    "GrowthRecord",
    "ParityRecord",
    "SpeedRecord",
    "compare_rounds",
    "find_record",
    "index_runs",
    "list_runs",
    "load_record",
    "load_run_weights",
    "run_file",
]

# The one place where the repository's address is written as source; `make repository URL=...`
# sets it here and in every copy.
REPOSITORY = "https://github.com/example/vit-book"
BRANCH = "main"

# The "kind" of a record of many short runs, of one of measured times, of moments of one run, of
# maps put to the test, and of logits compared; a training run has none.
ABLATIONS, SPEED, GROWTH, DELETION = "ablations", "speed", "growth", "deletion"
PARITY = "parity"
FILES = (RECORD, WEIGHTS)

_PACKAGE = Path(__file__).resolve().parent
_INDEX = _PACKAGE / "runs.json"
_TIMEOUT = 30.0


# --- what a record holds ---------------------------------------------------------------------


@dataclass
class AblationRecord(Record):
    """Many short runs of one recipe, each with one thing changed: benchmarks/ablations.py.

    commits: of all the code that contributed. seeds: those declared beforehand; complete says
    whether every variant has them all. variants: by name, with a label, the seeds done and, in
    their order, test_accuracy and train_loss of each. The rest as in `RunRecord`.
    """

    KIND = ABLATIONS

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
class SpeedRecord(Record):
    """Times of one thing against another, taken in turns on one machine: benchmarks/training.py.

    datasets: by name, with source and split. rounds: how often each was timed, after one round
    that does not count. measurements: by name, with a label, the dataset, what was measured and
    against what, images a round, measured_seconds and against_seconds of every round, what
    `compare_rounds` makes of them, and the goal of the ratio. complete: as declared, not
    shortened. The rest as in `RunRecord`.
    """

    KIND = SPEED

    kind: str
    command: str
    commit: str
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    precision: str
    datasets: dict[str, dict[str, str]]
    rounds: int
    wall_seconds: float
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
class GrowthRecord(Record):
    """What the weights of one training run gave at some moments: benchmarks/growth.py.

    val_images: the places of the validation images shown, labels: their classes; patches: those
    whose positions are shown. moments: by the number of steps taken, val_accuracy; for each image
    the probability of its class and the map of its relevance (rows, columns), least 0; for each of
    the patches how alike the positions of all are (rows, columns); the attention distance (layers,
    heads) in pixels. The rest as in `RunRecord`.
    """

    KIND = GROWTH

    kind: str
    command: str
    commit: str
    date: str
    dataset: str
    source: str
    split: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    recipe: dict[str, Any]
    wall_seconds: float
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
class DeletionRecord(Record):
    """Maps put to the test by masking what they call important first: benchmarks/deletion.py.

    baseline: what a masked patch is replaced by. images: how many test images. draws: how many
    random maps each model's are compared with. models: by the name of their run, with a label, the
    dataset, source and split, the checksum of the weights, the number of patches, "masked" (how
    many patches are masked at each point of a curve) and the curves. curves: by map and as lists
    for "random", the mean probability of the model's first answer and the share of answers kept at
    each point; areas: the mean over the points of the probability; passes: what `judge_maps` says.
    The rest as in `RunRecord`.
    """

    KIND = DELETION

    kind: str
    command: str
    commit: str
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    baseline: str
    images: int
    draws: int
    wall_seconds: float
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
class ParityRecord(Record):
    """How far logits lie from those of a model's source: benchmarks/parity.py.

    rows: family, size (H, W) in pixels, difference (the largest of the logits of two images) and
    spread (the logits' deviation between the images). left_out: packages that were not installed.
    parameters: of the first family's model. The rest as in `RunRecord`.
    """

    KIND = PARITY

    kind: str
    command: str
    commit: str
    date: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    left_out: list[str]
    parameters: int
    wall_seconds: float
    rows: list[dict[str, Any]]

    def _check(self, name: str) -> None:
        super()._check(name)
        for row in self.rows:
            if set(row) != {"family", "size", "difference", "spread"}:
                raise ValueError(f"a row of {name} has {', '.join(row)}.")
            if not (0 <= row["difference"] < 1e-5 and row["spread"] > 0.01):
                raise ValueError(f"{row} in {name} is no agreement, or of logits that all agree.")


def _read_record(path: Path) -> Record:
    """A record of any kind, checked."""
    values = read_json(path)
    kind = values.get("kind") if isinstance(values, Mapping) else None
    for record in (AblationRecord, SpeedRecord, GrowthRecord, DeletionRecord, ParityRecord):
        if kind == record.KIND:
            return record.from_dict(values, str(path))
    return RunRecord.from_dict(values, str(path))


# --- where a record comes from ---------------------------------------------------------------


def _index() -> dict[str, dict[str, dict[str, Any]]]:
    """Checksums and sizes of the files of all published runs, shipped with the package."""
    try:
        return json.loads(_INDEX.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def _local_folders() -> list[Path]:
    """Folders that may hold runs: VITCORE_RUNS, then runs/ of the checkout around the current
    folder and around the package."""
    folders = []
    if os.environ.get("VITCORE_RUNS"):
        folders.append(Path(os.environ["VITCORE_RUNS"]).expanduser())
    for start in (Path.cwd(), _PACKAGE):
        # Many programs call a folder runs; ours stands beside the package.
        folders += [
            parent / "runs"
            for parent in (start, *start.parents)
            if (parent / _PACKAGE.name / "records.py").is_file()
        ]
    return folders


def _download(url: str, path: Path, sha256: str, size: int) -> None:
    help_offline = (
        "connect this machine to the network, or copy the repository's runs/ folder here and name "
        "it in VITCORE_RUNS"
    )
    try:
        download(url, path, sha256=sha256, size_limit=size)
    except OSError as error:
        raise OSError(
            f"could not download {url} as this version of vitcore knows it ({error}): update "
            f"vitcore, or {help_offline}."
        ) from error


def run_file(name: str, file: str = RECORD) -> Path:
    """The path of a run's file, fetched if need be.

    Looked for in the folder that VITCORE_RUNS names, in runs/ of the checkout around the current
    folder and around the package, in the user's cache, and at the repository's address, whose
    answer must have the checksum shipped with this package. ValueError for a run that nobody
    knows, OSError where it cannot be fetched.
    """
    if file not in FILES:
        raise ValueError(f"a run holds {' and '.join(FILES)}, not {file!r}.")
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"a run's name is the name of its folder in runs/, not {name!r}.")
    for folder in _local_folders():
        if (folder / name / file).is_file():
            return folder / name / file
    entry = _index().get(name, {}).get(file)
    if entry is None:
        known = ", ".join(list_runs()) or "none"
        raise ValueError(f"there is no {file} of a run named {name!r}: known runs are {known}.")
    path = cache_dir() / "runs" / name / file
    if not (path.is_file() and checksum(path, "sha256") == entry["sha256"]):
        url = f"{REPOSITORY}/raw/{BRANCH}/runs/{name}/{file}"
        _download(url, path, entry["sha256"], entry["bytes"])
    return path


def list_runs() -> list[str]:
    """Names of the runs that `load_record` can give, sorted."""
    names = set(_index())
    for folder in _local_folders():
        names |= {path.parent.name for path in folder.glob(f"*/{RECORD}")}
    return sorted(names)


def load_record(name: str) -> dict[str, Any]:
    """The record of a run that the book shows, by its folder's name in runs/; see `run_file`."""
    return _read_record(run_file(name)).to_dict()


def find_record(name: str) -> dict[str, Any] | None:
    """The record of a run, or None where that run has not been made yet."""
    return load_record(name) if name in list_runs() else None


def load_run_weights(name: str, test: Split | None = None) -> LoadedModel:
    """The model that a run of the book made; see `run_file` and `vitcore.training.load_weights`.

    test: the images that it is to be scored on; ValueError where training saw some of them.
    """
    loaded = load_weights(run_file(name, WEIGHTS))
    if test is not None:
        check_unseen(loaded, test)
    return loaded


def index_runs(
    runs: str | os.PathLike[str] | None = None, index: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Check every record in runs/ and write the checksums of its files to vitbook/runs.json."""
    folder = Path(runs) if runs is not None else _PACKAGE.parent / "runs"
    found: dict[str, Any] = {}
    for record in sorted(folder.glob(f"*/{RECORD}")):
        _read_record(record)
        found[record.parent.name] = {
            file: {"sha256": checksum(path, "sha256"), "bytes": path.stat().st_size}
            for file in FILES
            if (path := record.parent / file).is_file()
        }
    with replace_file(_INDEX if index is None else index) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found
