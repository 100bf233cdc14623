# SPDX-License-Identifier: MIT
"""Downloads files into the user's cache, whole or not at all (chapter 6)."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ._torchvision import import_torchvision

DOWNLOAD_TIMEOUT = 30.0  # seconds of silence from a server before the next one is asked

DOWNLOAD_ATTEMPTS = 2  # times that one mirror is asked for one file


class DataUnavailableError(RuntimeError):
    """The images are neither in a directory nor in the cache, and no mirror gave them."""


def cache_dir() -> Path:
    """The user's cache, or the directory that VITCORE_CACHE names. It may not exist yet."""
    named = os.environ.get("VITCORE_CACHE")
    if named:
        return Path(named).expanduser()
    import platformdirs

    return Path(platformdirs.user_cache_dir("vitcore"))


@contextlib.contextmanager
def workspace(directory: Path) -> Iterator[Path]:
    """A folder for unfinished files beside the place where they will end, gone afterwards."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob(".partial-*"):  # left by a process that was killed
            if time.time() - old.stat().st_mtime > 24 * 3600:
                shutil.rmtree(old, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory) as folder:
            yield Path(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OSError(
                error.errno,
                f"the disk that holds {directory} is full, and nothing unfinished was left there: "
                "free about 500 MB, or name another directory by VITCORE_CACHE",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OSError(
                error.errno,
                f"{directory} cannot be written to: name another directory by VITCORE_CACHE",
            ) from error
        raise


def store_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write a .npz file under a temporary name and put it in place when it is whole."""
    with workspace(path.parent) as folder:
        part = folder / path.name
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """torchvision's download waits for a silent server without end; sockets made here do not."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def fetch(file: str, md5: str, mirrors: list[str], folder: Path) -> bytes:
    """Download one file with torchvision until its checksum is right, from mirror after mirror."""
    import_torchvision()
    from torchvision.datasets.utils import check_integrity, download_url

    problems = []
    for mirror in list(mirrors):
        address = mirror.rstrip("/") + "/" + file
        path = folder / file
        problem = ""
        for _ in range(DOWNLOAD_ATTEMPTS):
            path.unlink(missing_ok=True)
            try:
                # torchvision prints a line for each retry; what matters is in the error below.
                with _socket_timeout(DOWNLOAD_TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
                    download_url(address, str(folder), filename=file, md5=md5)
                mirrors.remove(mirror)  # the next file is asked for here first
                mirrors.insert(0, mirror)
                return path.read_bytes()
            except (OSError, http.client.HTTPException, RuntimeError, ValueError) as error:
                if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                problem = str(error) or type(error).__name__
            if not path.exists() or check_integrity(str(path), md5):
                break  # nothing arrived: asking the same server again would give the same
            problem = f"{path.stat().st_size} bytes arrived, with a wrong checksum"
        problems.append(f"{address}: {problem}")
    raise DataUnavailableError("; ".join(problems))
