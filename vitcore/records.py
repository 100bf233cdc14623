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
from .data import STANDARD
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
    """What every record.json has in common: it is checked whenever it is read or written."""

    KIND: ClassVar[str | None] = None

    more: dict[str, Any] = field(default_factory=dict, kw_only=True)  # whatever stands beside

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
        fields = {f.name: f.default for f in dataclasses.fields(cls) if f.name != "more"}
        lacking = [key for key in fields if key not in values]
        if missing := [key for key in lacking if fields[key] is dataclasses.MISSING]:
            raise ValueError(f"{name} lacks {', '.join(missing)}.")
        more = {key: value for key, value in values.items() if key not in fields}
        record = cls(**{key: values[key] for key in fields if key in values}, more=more)
        record._check(name)
        return record

    def _check(self, name: str) -> None:
        for f in dataclasses.fields(self):
            value = getattr(self, f.name)
            kind, _, none = str(f.type).split("[")[0].partition(" | ")
            kinds = (int, float) if kind == "float" else getattr(builtins, kind)
            fits = isinstance(value, kinds) and isinstance(value, bool) == (kind == "bool")
            if not fits and not (none and value is None):
                raise ValueError(f"{f.name} in {name} must be of type {kind}, not {shown(value)}.")

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write record.json, replaced at once; the innermost lists and objects on one line each."""
        self._check(str(path))
        text = json.dumps(self.to_dict(), indent=2)
        text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda found: re.sub(r"\n *", " ", found[0]), text)
        with replace_file(path) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls: type[_Kind], path: str | os.PathLike[str]) -> _Kind:
        """FileNotFoundError where there is none, ValueError where it is not such a record."""
        return cls.from_dict(read_json(check_path("path", path)), str(path))


@dataclass
class RunRecord(Record):
    """One training run, as record.json holds it: what `vitcore.runs.Run` says, and of what.

    Accuracies lie in [0, 1]. `more` has the further scores of CIFAR-100: coarse_accuracy,
    top5_accuracy and calibration_error on the test images.
    """

    command: str  # what was typed, paths left out
    commit: str  # of the code, "-dirty" where it differed; outside a checkout the version
    date: str
    seed: int
    dataset: str
    source: str  # where the images came from
    split: str  # "official", "re-split", "stand-in" or "own"
    hardware: dict[str, Any]  # device, name, cores and threads
    versions: dict[str, str]
    parameters: int
    precision: str
    recipe: dict[str, Any]
    wall_seconds: float  # training with its validation, over all parts of a resumed run
    total_seconds: float  # with the test at the end
    epochs: list[dict[str, Any]]  # the history's rows
    best_epoch: int
    val_accuracy: float  # the chosen epoch's, on which the choice was made
    test_accuracy: float  # from the one look at the test images
    test_loss: float
    test_images: int
    confusion: list[list[int]]  # counts on the test images, row the true class
    # What older records lack.
    clean_train_accuracy: float | None = None
    train_pflop: float | None = None
    cpu_seconds: float | None = None  # processor time of training with its validation
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
        same = ("precision", "clean_train_accuracy", "train_pflop", "other_cores", "more")
        values: dict[str, Any] = {name: getattr(run, name) for name in same}
        values |= {"command": command, "commit": code or commit(), "date": now()}
        values |= {"dataset": dataset.name, "source": str(dataset.source)}
        values |= {"split": dataset.source.split, "hardware": hardware(run.device)}
        values |= {f"test_{name}": run.test[name] for name in ("accuracy", "loss")}
        best, rows = run.history.best, [dict(row) for row in run.history]
        return cls(
            **values,
            versions=versions(),
            seed=run.recipe.train.seed,
            recipe=run.recipe.to_dict(),
            parameters=sum(p.numel() for p in run.model.parameters()),
            wall_seconds=round(run.history.seconds, 2),
            total_seconds=round(run.history.seconds + run.test_seconds, 2),
            cpu_seconds=round(sum(row.get("cpu_seconds", 0.0) for row in rows), 2),
            epochs=rows,
            best_epoch=best["epoch"],
            val_accuracy=best["val_accuracy"],
            test_images=int(run.test["count"]),
            confusion=run.confusion.tolist(),
        )


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise FileNotFoundError(f"there is no run record at {path}: check the path.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}).") from error


def recorded_command(arguments: Sequence[str], processes: int = 1) -> str:
    """The command as typed, with a word for each folder, whose name says nothing elsewhere."""
    start = ["torchrun", "--nproc-per-node", str(processes)] if processes > 1 else ["python"]
    words = [*start, "-m", "vitcore"]
    stands_for = {"--data": "DATA", "--out": "OUT", "folder": "MY_IMAGES"}
    stands_for |= dict.fromkeys(STANDARD, "DIR")
    for argument in arguments:
        for word in argument.split("=", 1) if argument.startswith("--") else [argument]:
            named = "" if word.startswith("--") else words[-1]
            words.append(stands_for.get(named, word))
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


def hardware(device: torch.device) -> dict[str, Any]:
    """What computed: the device's kind and name, usable cores, torch's threads, and how many
    processes there were if more than one."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = (re.findall(r"^model name\s*:\s*(.*\S)", text, re.MULTILINE) or [name])[0]
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    found = {"device": device.type, "name": name, "cores": cores}
    found["threads"] = torch.get_num_threads()
    processes = distributed_rank()[1]
    return {**found, "processes": processes} if processes > 1 else found


def versions() -> dict[str, str]:
    """Of Python and of the packages that a run depends on."""
    from . import __version__

    found = {"python": platform.python_version(), "torch": str(torch.__version__)}
    found["vitcore"] = __version__
    if "torchvision" in sys.modules:
        found["torchvision"] = importlib.metadata.version("torchvision")
    return found
