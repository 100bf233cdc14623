# SPDX-License-Identifier: MIT
"""Downloads files whole or not at all, into a cache that one writes at a time (chapter 6)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

DOWNLOAD_TIMEOUT = 30.0  # seconds of silence from a server before it is given up
DOWNLOAD_DEADLINE = 3600.0  # seconds for one file, however steadily it trickles
DOWNLOAD_LIMIT = 500_000_000  # bytes of one file
DOWNLOAD_ATTEMPTS = 2  # times that one mirror is asked for one file


class DataUnavailableError(RuntimeError):
    """The images are neither in a directory nor in the cache, and no mirror gave them."""


class DownloadError(OSError):
    """A download that failed; ``began`` says whether the server sent anything of the file."""

    began = False


def cache_dir() -> Path:
    """The user's cache, or the directory that VITCORE_CACHE names. It may not exist yet."""
    named = os.environ.get("VITCORE_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("vitcore"))


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Wait until no other process or thread holds ``path``; False where locks do not exist.

    The system frees the lock of a process that ends, however it ends. The empty file stays: to
    remove it would let two others hold two files of one name.
    """
    with path.open("ab") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        except (ImportError, OSError):  # Windows, or a file system without locks
            yield False
        else:
            yield True


@contextlib.contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for its unfinished parts, gone afterwards.

    One process at a time is at work on one target, so what another left there is of the dead.
    """
    directory, prefix = target.parent, f".partial-{target.name}-"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / f".{target.name}.lock") as alone:
            for old in directory.glob(f"{prefix}*") if alone else ():
                shutil.rmtree(old, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix=prefix, dir=directory) as folder:
                yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"the disk that holds {directory} is full, and nothing unfinished was left there: "
                "free about 500 MB, or name another directory by VITCORE_CACHE",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise OSError(
                error.errno,
                f"{directory} cannot be written to: name another directory by VITCORE_CACHE",
            ) from error
        raise


def put_in_place(part: Path, target: Path) -> None:
    """Give a whole file its name, once it is safe on the disk."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def store_arrays(target: Path, arrays: dict[str, Any], folder: Path) -> None:
    """Write a .npz file in the workspace ``folder`` and put it in place when it is whole."""
    part = folder / target.name
    with part.open("wb") as file:
        np.savez(file, **arrays)
    put_in_place(part, target)


def checksum(path: Path, kind: str) -> str:
    """The checksum of a file of any size, in hexadecimal digits; kind is "sha256" or "md5"."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    md5: str | None = None,
    size_limit: int = DOWNLOAD_LIMIT,
    deadline: float | None = None,
) -> None:
    """Download one file to ``path``; nothing stands there before it is whole and checked.

    size_limit is in bytes, deadline in seconds for all of it (an hour, if None). A server that is
    silent for DOWNLOAD_TIMEOUT seconds is given up.

    Raises DownloadError, an OSError, with one sentence; OSError for a full disk.
    """
    target = Path(path)
    with workspace(target) as folder:
        part = folder / target.name
        arrived = _receive(url, part, size_limit, deadline or DOWNLOAD_DEADLINE)
        for kind, wanted in (("sha256", sha256), ("md5", md5)):
            if wanted and checksum(part, kind) != wanted:
                raise _failed(f"{arrived} bytes arrived, with a wrong checksum", began=True)
        put_in_place(part, target)


def _failed(problem: str, *, began: bool) -> DownloadError:
    error = DownloadError(problem)
    error.began = began
    return error


def _receive(url: str, part: Path, size_limit: int, deadline: float) -> int:
    """Write what the server sends to ``part`` and return how many bytes it was."""
    from tqdm import tqdm

    end, arrived = time.monotonic() + deadline, 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vitcore"})
        with (
            urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as response,
            part.open("wb") as file,
        ):
            announced = int(response.headers.get("Content-Length") or 0)
            bar = tqdm(total=announced or None, unit="B", unit_scale=True, desc=part.name,
                       disable=None, leave=False)  # fmt: skip
            with bar:
                # read1 gives what has come, so that a trickle cannot hold the clock up.
                while block := response.read1(1 << 16):
                    arrived += len(block)
                    if max(arrived, announced) > size_limit:
                        raise _failed(f"it is larger than {size_limit:,} bytes", began=False)
                    if time.monotonic() > end:
                        raise _failed(f"it took longer than {deadline:g} seconds", began=False)
                    file.write(block)
                    bar.update(len(block))
    except DownloadError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        if full or isinstance(error, PermissionError):
            raise
        raise _failed(str(error) or type(error).__name__, began=bool(arrived)) from error
    if arrived < announced:
        raise _failed(f"{arrived} of {announced} bytes arrived", began=True)
    return arrived


def fetch(file: str, md5: str, mirrors: list[str], folder: Path) -> bytes:
    """Download one file until its checksum is right, from mirror after mirror."""
    problems = []
    for mirror in list(mirrors):
        address = mirror.rstrip("/") + "/" + file
        problem = ""
        for _ in range(DOWNLOAD_ATTEMPTS):
            try:
                download(address, folder / file, md5=md5)
            except DownloadError as error:
                problem = str(error)
                if not error.began:
                    break  # asking the same server again would give the same
            else:
                mirrors.remove(mirror)  # the next file is asked for here first
                mirrors.insert(0, mirror)
                return (folder / file).read_bytes()
        problems.append(f"{address}: {problem}")
    raise DataUnavailableError("; ".join(problems))
