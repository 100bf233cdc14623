# SPDX-License-Identifier: MIT
"""The record of a training run, and what describes a run: commands, commits, hardware, versions."""

from __future__ import annotations

import builtins
import contextlib
import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch

from ._inputs import shown
from .data._inputs import check_path
from .training import distributed_rank, replace_file

if TYPE_CHECKING:
    from .data import ImageDataset
    from .runs import Run

__all__ = ["Record", "RunRecord"]

RECORD = "record.json"

_PACKAGE = Path(__file__).resolve().parent

_Kind = TypeVar("_Kind", bound="Record")


@dataclass
class Record:
    """What every record.json has in common: it is checked whenever it is read or written.

    more: whatever stands at the top level beside the fields.
    """

    KIND: ClassVar[str | None] = None

    more: dict[str, Any] = field(default_factory=dict, kw_only=True)

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        more = values.pop("more")
        return {**{key: v for key, v in values.items() if v is not None}, **more}

    @classmethod
    def from_dict(cls: type[_Kind], values: Mapping[str, Any], name: str = "the record") -> _Kind:
        """Checks what is there; ValueError names what is missing or does not fit together."""
        if not isinstance(values, Mapping):
            raise ValueError(f"{name} must be a JSON object, not {type(values).__name__}.")
        if cls.KIND is not None and values.get("kind") != cls.KIND:
            raise ValueError(f'{name} must be a record whose kind is "{cls.KIND}".')
        fields = [f for f in dataclasses.fields(cls) if f.name != "more"]
        known = [f.name for f in fields if f.name in values or f.default is dataclasses.MISSING]
        if missing := [key for key in known if key not in values]:
            raise ValueError(f"{name} lacks {', '.join(missing)}.")
        more = {key: value for key, value in values.items() if key not in known}
        record = cls(**{key: values[key] for key in known}, more=more)
        record._check(name)
        return record

    def _check(self, name: str) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            kind, _, none = str(f.type).split("[")[0].partition(" | ")
            if value is None and none:
                continue
            kinds = (int, float) if kind == "float" else getattr(builtins, kind)
            if not isinstance(value, kinds) or isinstance(value, bool) != (kind == "bool"):
                raise ValueError(f"{f.name} in {name} must be of type {kind}, not {shown(value)}.")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write record.json, replaced at once; numbers of one row on one line."""
        self._check(str(path))
        with replace_file(path) as temporary:
            temporary.write_text(_dump(self.to_dict()), encoding="utf-8")

    @classmethod
    def read(cls: type[_Kind], path: str | os.PathLike[str]) -> _Kind:
        """FileNotFoundError where there is none, ValueError where it is not such a record."""
        return cls.from_dict(read_json(check_path("path", path)), str(path))


@dataclass
class RunRecord(Record):
    """One training run, as record.json holds it.

    command: what was typed, paths left out. commit: of the code, "-dirty" behind it where the
    package differed; the package's version outside a checkout. source: where the images came
    from; split: "official", "re-split", "stand-in" or "own". hardware: device, name, cores and
    threads. parameters: their number. recipe: as data. wall_seconds: training with its
    validation, over all parts of a resumed run; total_seconds: with the test at the end. epochs:
    the history's rows. Accuracies lie in [0, 1]; val_accuracy is the chosen epoch's, on which the
    choice was made, test_accuracy comes from the one look at the test images. confusion: counts
    on the test images, row the true class. What older records lack: clean_train_accuracy,
    train_pflop and other_cores, as in `vitcore.runs.Run`, and cpu_seconds, the processor time of
    training with its validation. more: whatever else stands at the top level; for
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
    clean_train_accuracy: float | None = None
    train_pflop: float | None = None
    cpu_seconds: float | None = None
    other_cores: float | None = None

    def _check(self, name: str) -> None:
        super()._check(name)
        for key in ("val_accuracy", "test_accuracy", "clean_train_accuracy"):
            if not 0 <= (value := getattr(self, key) or 0) <= 1:
                raise ValueError(f"{key} in {name} must lie between 0 and 1, not {value}.")
        if not self.epochs:
            raise ValueError(f"{name} holds no epoch.")

    @classmethod
    def from_run(
        cls, run: Run, dataset: ImageDataset, command: str, code: str | None = None
    ) -> RunRecord:
        """The record of what `vitcore.runs.train_recipe` did. code: what `commit` gave before
        the run, which outlasts many an edit; asked for now if None."""
        best, test = run.history.best, run.test
        same = ("precision", "clean_train_accuracy", "train_pflop", "other_cores")
        values: dict[str, Any] = {name: getattr(run, name) for name in same}
        values |= {"command": command, "commit": code or commit(), "date": now()}
        values |= {"dataset": dataset.name, "source": str(dataset.source)}
        values |= {"split": dataset.source.split, "hardware": hardware(run.device)}
        values |= {"val_accuracy": best["val_accuracy"], "test_accuracy": test["accuracy"]}
        return cls(
            **values,
            versions=versions(),
            seed=run.recipe.train.seed,
            recipe=run.recipe.to_dict(),
            parameters=sum(p.numel() for p in run.model.parameters()),
            wall_seconds=round(run.seconds, 2),
            total_seconds=round(run.seconds + run.test_seconds, 2),
            cpu_seconds=round(sum(row.get("cpu_seconds", 0.0) for row in run.history), 2),
            epochs=[dict(row) for row in run.history],
            best_epoch=best["epoch"],
            test_loss=test["loss"],
            test_images=int(test["count"]),
            confusion=run.confusion.tolist(),
            more=dict(run.more),
        )


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"there is no run record at {path}: check the path.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def _dump(values: Mapping[str, Any]) -> str:
    """JSON that a person can read: a line for each row of a list or table."""
    lines = []
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], (dict, list)):
            rows = ",\n".join(f"    {json.dumps(row)}" for row in value)
            text = f"[\n{rows}\n  ]"
        elif isinstance(value, dict) and value and all(isinstance(v, dict) for v in value.values()):
            rows = ",\n".join(f"    {json.dumps(n)}: {json.dumps(row)}" for n, row in value.items())
            text = f"{{\n{rows}\n  }}"
        else:
            text = json.dumps(value, indent=2).replace("\n", "\n  ")
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def recorded_command(arguments: Sequence[str], processes: int = 1) -> str:
    """The command as typed, with a word for each folder, whose name says nothing elsewhere."""
    start = ["torchrun", "--nproc-per-node", str(processes)] if processes > 1 else ["python"]
    words = [*start, "-m", "vitcore"]
    stands_for = {"--data": "DATA", "--out": "OUT", "folder": "MY_IMAGES"}
    for before, word in zip(["", *arguments], arguments, strict=False):
        option, equals, _ = word.partition("=")
        if before in stands_for and not word.startswith("--"):
            word = stands_for[before]
        elif equals and option in stands_for:
            word = f"{option}={stands_for[option]}"
        words.append(word)
    return shlex.join(words)


def now() -> str:
    """The date and time, as records hold it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def commit() -> str:
    """The commit of the checkout that holds this package, else the package's version."""
    from . import __version__

    def git(*arguments: str) -> str:
        # Looking must not take the lock that somebody's commit needs.
        quiet: dict[str, Any] = {"env": {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}, "timeout": 30}
        words = ["git", "-C", str(_PACKAGE), *arguments]
        return subprocess.check_output(words, text=True, stderr=subprocess.DEVNULL, **quiet).strip()

    try:
        # Installed into a folder of somebody else's repository, the commit would be theirs.
        git("ls-files", "--error-unmatch", "__init__.py")
        dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.SubprocessError):
        return f"vitcore {__version__}"


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE):
            return found[1]
    return platform.processor() or platform.machine() or "unknown"


def hardware(device: torch.device) -> dict[str, Any]:
    """What computed: the device's kind and name, usable cores, torch's threads, and how many
    processes there were if more than one."""
    processes = distributed_rank()[1]
    affinity = getattr(os, "sched_getaffinity", None)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name()
    cores = len(affinity(0)) if affinity else os.cpu_count()
    found = {"device": device.type, "name": name, "cores": cores}
    found |= {"threads": torch.get_num_threads()}
    return {**found, "processes": processes} if processes > 1 else found


def versions() -> dict[str, str]:
    from . import __version__

    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    found["vitcore"] = __version__
    if "torchvision" in sys.modules:
        found["torchvision"] = importlib.metadata.version("torchvision")
    return found
