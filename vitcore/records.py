# SPDX-License-Identifier: MIT
"""Records of training runs: written by a run, read from the checkout or from the repository."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from .data import SPLITS, cache_dir
from .training import LoadedModel, distributed_rank, load_weights, replace_file

if TYPE_CHECKING:
    from .data import ImageDataset
    from .recipes import Run

__all__ = [
    "REPOSITORY",
    "AblationRecord",
    "RunRecord",
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

RECORD = "record.json"
WEIGHTS = "model.safetensors"
# The "kind" of a record of many short runs, and of one of measured times; a training run has none.
ABLATIONS, SPEED = "ablations", "speed"
FILES = (RECORD, WEIGHTS)

_PACKAGE = Path(__file__).resolve().parent
_INDEX = _PACKAGE / "runs.json"
_TIMEOUT = 30.0


# --- what a record holds ---------------------------------------------------------------------

_Kind = TypeVar("_Kind", bound="_Record")


@dataclass
class _Record:
    """What every record.json has in common: it is checked whenever it is read or written.

    more: whatever stands at the top level beside the fields.
    """

    KIND: ClassVar[str | None] = None

    more: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        more = values.pop("more")
        return {**values, **more}

    @classmethod
    def from_dict(cls: type[_Kind], values: Mapping[str, Any], name: str = "the record") -> _Kind:
        """Checks what is there; ValueError names what is missing or does not fit together."""
        if not isinstance(values, Mapping):
            raise ValueError(f"{name} must be a JSON object, not {type(values).__name__}.")
        if cls.KIND is not None and values.get("kind") != cls.KIND:
            raise ValueError(f'{name} must be a record whose kind is "{cls.KIND}".')
        known = [f.name for f in dataclasses.fields(cls) if f.name != "more"]
        missing = [key for key in known if key not in values]
        if missing:
            raise ValueError(f"{name} lacks {', '.join(missing)}.")
        more = {key: value for key, value in values.items() if key not in known}
        record = cls(**{key: values[key] for key in known}, more=more)
        record._check(name)
        return record

    def _check(self, name: str) -> None:
        kinds: dict[str, type | tuple[type, ...]] = {
            "str": str,
            "int": int,
            "float": (int, float),
            "bool": bool,
            "dict": dict,
            "list": list,
        }
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            kind = str(f.type).split("[")[0]
            if not isinstance(value, kinds[kind]) or isinstance(value, bool) != (kind == "bool"):
                raise ValueError(f"{f.name} in {name} must be of type {kind}, not {value!r}.")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write record.json, replaced at once; numbers of one row on one line."""
        self._check(str(path))
        with replace_file(path) as temporary:
            temporary.write_text(_dump(self.to_dict()), encoding="utf-8")

    @classmethod
    def read(cls: type[_Kind], path: str | os.PathLike[str]) -> _Kind:
        """FileNotFoundError where there is none, ValueError where it is not such a record."""
        return cls.from_dict(_read_json(Path(path)), str(path))


@dataclass
class RunRecord(_Record):
    """One training run, as record.json holds it.

    command: what was typed, paths left out. commit: of the code, "-dirty" behind it where the
    package differed; the package's version outside a checkout. source: where the images came
    from; split: "official", "re-split", "stand-in" or "own". hardware: device, name, cores and
    threads. parameters: their number. recipe: as data. wall_seconds: training with its
    validation, over all parts of a resumed run; total_seconds: with the test at the end. epochs:
    the history's rows. Accuracies lie in [0, 1]; val_accuracy is the chosen epoch's, on which the
    choice was made, test_accuracy comes from the one look at the test images. confusion: counts
    on the test images, row the true class. more: whatever else stands at the top level; for
    CIFAR-100 coarse_accuracy, top5_accuracy and calibration_error on the test images.
    """

    command: str
    commit: str
    date: str
    seed: int
    dataset: str
    source: str
    split: str
    hardware: dict[str, Any]
    versions: dict[str, str]
    parameters: int
    precision: str
    recipe: dict[str, Any]
    wall_seconds: float
    total_seconds: float
    epochs: list[dict[str, Any]]
    best_epoch: int
    val_accuracy: float
    test_accuracy: float
    test_loss: float
    test_images: int
    confusion: list[list[int]]

    def _check(self, name: str) -> None:
        super()._check(name)
        for key in ("val_accuracy", "test_accuracy"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(
                    f"{key} in {name} must lie between 0 and 1, not {getattr(self, key)}."
                )
        if not self.epochs:
            raise ValueError(f"{name} holds no epoch.")

    @classmethod
    def from_run(
        cls, run: Run, dataset: ImageDataset, command: str, code: str | None = None
    ) -> RunRecord:
        """The record of what `vitcore.recipes.train_recipe` did. code: what `commit` gave before
        the run, which outlasts many an edit; asked for now if None."""
        best = run.history.best
        return cls(
            command=command,
            commit=commit() if code is None else code,
            date=now(),
            seed=run.recipe.train.seed,
            dataset=dataset.name,
            source=str(dataset.source),
            split=dataset.source.split,
            hardware=hardware(run.device),
            versions=versions(),
            parameters=sum(p.numel() for p in run.model.parameters()),
            precision=run.precision,
            recipe=run.recipe.to_dict(),
            wall_seconds=round(run.seconds, 2),
            total_seconds=round(run.seconds + run.test_seconds, 2),
            epochs=[dict(row) for row in run.history],
            best_epoch=best["epoch"],
            val_accuracy=best["val_accuracy"],
            test_accuracy=run.test["accuracy"],
            test_loss=run.test["loss"],
            test_images=int(run.test["count"]),
            confusion=run.confusion.tolist(),
            more=dict(run.more),
        )


@dataclass
class AblationRecord(_Record):
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
class SpeedRecord(_Record):
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


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no run record at {path}: check the path.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def _read_record(path: Path) -> _Record:
    """A record of any kind, checked."""
    values = _read_json(path)
    kind = values.get("kind") if isinstance(values, Mapping) else None
    for record in (AblationRecord, SpeedRecord):
        if kind == record.KIND:
            return record.from_dict(values, str(path))
    return RunRecord.from_dict(values, str(path))


def _dump(values: Mapping[str, Any]) -> str:
    """JSON that a person can read: a line for each epoch, variant, measurement, row of a matrix."""
    lines = []
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            text = f"[\n{rows}\n  ]"
        elif key in ("variants", "measurements"):
            rows = ",\n".join(f"    {json.dumps(n)}: {json.dumps(row)}" for n, row in value.items())
            text = f"{{\n{rows}\n  }}"
        else:
            text = json.dumps(value, indent=2).replace("\n", "\n  ")
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def now() -> str:
    """The date and time, as records hold it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit() -> str:
    """The commit of the checkout that holds this package, else the package's version."""
    from . import __version__

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(_PACKAGE), *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
            # Looking must not take the lock that somebody's commit needs.
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        ).stdout.strip()

    try:
        # Installed into a folder of somebody else's repository, the commit would be theirs.
        git("ls-files", "--error-unmatch", "__init__.py")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return f"vitcore {__version__}"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown"


def hardware(device: torch.device) -> dict[str, Any]:
    """What computed: the device's kind and name, usable cores, torch's threads, and how many
    processes there were if more than one."""
    processes = distributed_rank()[1]
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "device": device.type,
        "name": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": torch.get_num_threads(),
        **({"processes": processes} if processes > 1 else {}),
    }


def versions() -> dict[str, str]:
    from . import __version__

    found = {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "vitcore": __version__,
    }
    if "torchvision" in sys.modules:
        found["torchvision"] = importlib.metadata.version("torchvision")
    return found


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


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download(url: str, path: Path, sha256: str, size: int) -> None:
    help_offline = (
        "connect this machine to the network, or copy the repository's runs/ folder here and name "
        "it in VITCORE_RUNS"
    )
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vitcore"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            # One byte more than it should be is enough to know that it is another file.
            content = response.read(size + 1)
    except (OSError, ValueError) as error:
        raise OSError(f"could not download {url} ({error}): {help_offline}.") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(
            f"{url} is not the file this version of vitcore knows (checksum differs): update "
            f"vitcore, or {help_offline}."
        )
    with replace_file(path) as temporary:
        temporary.write_bytes(content)


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
    if not (path.is_file() and _sha256(path) == entry["sha256"]):
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


def load_run_weights(name: str) -> LoadedModel:
    """The model that a run of the book made; see `run_file` and `vitcore.training.load_weights`."""
    return load_weights(run_file(name, WEIGHTS))


def index_runs(
    runs: str | os.PathLike[str] | None = None, index: str | os.PathLike[str] | None = None
) -> dict[str, Any]:
    """Check every record in runs/ and write the checksums of its files to vitcore/runs.json."""
    folder = Path(runs) if runs is not None else _PACKAGE.parent / "runs"
    found: dict[str, Any] = {}
    for record in sorted(folder.glob(f"*/{RECORD}")):
        _read_record(record)
        found[record.parent.name] = {
            file: {"sha256": _sha256(path), "bytes": path.stat().st_size}
            for file in FILES
            if (path := record.parent / file).is_file()
        }
    with replace_file(_INDEX if index is None else index) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found
