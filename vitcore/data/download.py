# SPDX-License-Identifier: MIT
"""Downloads files whole or not at all, into a cache that one writes at a time (chapter 6)."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOWNLOAD_TIMEOUT = 30.0  # seconds of silence from a server before it is given up
DOWNLOAD_DEADLINE = 3600.0  # seconds for one file, however steadily it trickles
DOWNLOAD_LIMIT = 500_000_000  # bytes of one file


class DataUnavailableError(RuntimeError):
    """The images are neither in a directory nor in the cache, and no mirror gave them."""


class DownloadError(OSError):
    """A download that failed, in one sentence."""


def cache_dir() -> Path:
    """The user's cache, or the directory that VITCORE_CACHE names. It may not exist yet."""
    named = os.environ.get("VITCORE_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("vitcore"))


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold a file or folder that no other process or thread holds; False where locks do not exist.

    The system frees the lock of a process that ends, however it ends. An empty file stays: to
    remove it would let two others hold two files of one name. Raises BlockingIOError where another
    holds ``path`` and ``wait`` is False.
    """
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except (ImportError, OSError):  # Windows, or a file system without locks
            alone = False
        else:
            alone = True
        yield alone


@contextlib.contextmanager
def workspace(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` for its unfinished parts, gone afterwards.

    One process at a time is at work on one target, so what another left there is of the dead.
    """
    directory, prefix = target.parent, f".partial-{target.name}-"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{directory} cannot be written to ({error.strerror})"
        raise OSError(f"{problem}; name another directory by VITCORE_CACHE.") from error
    with locked(directory / f".{target.name}.lock") as alone:
        for old in directory.glob(f"{prefix}*") if alone else ():
            shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=prefix, dir=directory) as folder:
            yield Path(folder)


def store(target: Path, write: Callable[[Path], None], folder: Path) -> None:
    """Let ``write`` fill a file in the workspace ``folder``; when it is safe, give it its name."""
    part = folder / target.name
    write(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)


def checksum(path: Path, kind: str) -> str:
    """The checksum of a file of any size, in hexadecimal digits; kind is a name in hashlib."""
    digest = hashlib.new(kind, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(
    url: str,
    path: str | os.PathLike[str],
    *,
    size_limit: int = DOWNLOAD_LIMIT,
    deadline: float = DOWNLOAD_DEADLINE,
    **sums: str,
) -> None:
    """Download one file to ``path``; nothing stands there before it is whole and checked.

    size_limit is in bytes, deadline in seconds for all of it; sums are checksums by their name in
    hashlib, or how they begin. A server silent for DOWNLOAD_TIMEOUT seconds is given up.

    Raises DownloadError, an OSError, with one sentence.
    """
    target = Path(path)

    def write(part: Path) -> None:
        _receive(url, part, size_limit, deadline)
        for kind, wanted in sums.items():
            if not checksum(part, kind).startswith(wanted):
                raise DownloadError(f"{part.stat().st_size} bytes arrived, with a wrong checksum")

    with workspace(target) as folder:
        store(target, write, folder)


def _receive(url: str, part: Path, size_limit: int, deadline: float) -> None:
    """Write what the server sends to ``part``."""
    from tqdm import tqdm

    end, arrived = time.monotonic() + deadline, 0
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "vitcore"})
        with urllib.request.urlopen(request, timeout=DOWNLOAD_TIMEOUT) as response:
            announced = int(response.headers.get("Content-Length") or 0)
            style: Any = {"unit": "B", "unit_scale": True, "disable": None, "leave": False}
            with part.open("wb") as file, tqdm(total=announced or None, **style) as bar:
                # read1 gives what has come, so that a trickle cannot hold the clock up.
                while block := response.read1(1 << 16):
                    arrived += len(block)
                    if max(arrived, announced) > size_limit:
                        raise DownloadError(f"it is larger than {size_limit:,} bytes")
                    if time.monotonic() > end:
                        raise DownloadError(f"it took longer than {deadline:g} seconds")
                    file.write(block)
                    bar.update(len(block))
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, DownloadError):
            raise
        raise DownloadError(str(error) or type(error).__name__) from error
    if arrived < announced:
        raise DownloadError(f"{arrived} of {announced} bytes arrived")


def fetch(file: str, md5: str, mirrors: list[str], folder: Path) -> bytes:
    """Download one file until its checksum is right, asking mirror after mirror."""
    problems = []
    for mirror in list(mirrors):
        address = mirror.rstrip("/") + "/" + file
        try:
            download(address, folder / file, md5=md5)
        except DownloadError as error:
            problems.append(f"{address}: {error}")
        else:
            mirrors.remove(mirror)  # the next file is asked for here first
            mirrors.insert(0, mirror)
            return (folder / file).read_bytes()
    raise DataUnavailableError("; ".join(problems))
