# SPDX-License-Identifier: MIT
"""The committed records of runs/, found wherever a notebook runs."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vitbook.studies import STUDIES
from vitcore.data import Split, cache_dir
from vitcore.data.download import checksum, download
from vitcore.records import RECORD, Record, RunRecord, read_json
from vitcore.runs import WEIGHTS, check_unseen
from vitcore.training import LoadedModel, load_weights, replace_file

__all__ = [
    "REPOSITORY",
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

FILES = (RECORD, WEIGHTS)

_PACKAGE = Path(__file__).resolve().parent
_INDEX = _PACKAGE / "runs.json"
_TIMEOUT = 30.0


# --- where a record comes from ---------------------------------------------------------------


def _read_record(path: Path) -> Record:
    """A record of any kind, checked."""
    values = read_json(path)
    kind = values.get("kind") if isinstance(values, Mapping) else None
    for record in STUDIES:
        if kind == record.KIND:
            return record.from_dict(values, str(path))
    return RunRecord.from_dict(values, str(path))


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
