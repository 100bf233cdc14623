# SPDX-License-Identifier: MIT
"""Tensors in safetensors files that are complete or absent, also after a power cut."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

Weights = dict[str, Tensor]

CHECKSUM = "sha256"
UNCHECKED = (None, "vitcore-weights-1")  # formats without a checksum


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place at the end and only if all went well.

    Whoever reads `path` finds the old file or the new one, complete, also after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and remove what a killed one left half written.

    The lock ends with the process and its workers, however they end. Windows and some network file
    systems have none: there nothing is kept out. Raises BlockingIOError where another run holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            handle = os.open(folder, os.O_RDONLY)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                busy = f"another run is writing to {folder}; wait for its end, or take another."
                raise BlockingIOError(busy) from error
            except OSError:
                pass
        for left in folder.glob(".*.safetensors.*.tmp"):
            left.unlink(missing_ok=True)
        yield


def checksum(tensors: Weights, metadata: dict[str, str]) -> str:
    """Of names, types, shapes and values of the tensors, and of the rest of the metadata."""
    rest = sorted(item for item in metadata.items() if item[0] != CHECKSUM)
    digest = hashlib.sha256(json.dumps(rest).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Weights, metadata: dict[str, str]) -> str:
    """Replace `path` by a safetensors file with a checksum, which is returned; raises OSError
    where it cannot be written."""
    from safetensors.torch import save

    # safetensors refuses tensors that share memory, which tied weights do.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    digest = checksum(tensors, metadata)
    try:
        with replace_file(path) as temporary:
            temporary.write_bytes(save(tensors, {**metadata, CHECKSUM: digest}))
    except OSError as error:
        wrong = f"could not write {path} ({error})"
        raise OSError(f"{wrong}: check the space on the disk and the permissions.") from error
    return digest


def read_tensors(path: Path, what: str) -> tuple[Weights, dict[str, str]]:
    """The tensors and the metadata of a safetensors file; `what` names it in messages.

    Raises FileNotFoundError, and ValueError where it is not a complete safetensors file or
    differs from what was written.
    """
    from safetensors import safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}: check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # a damaged header leads to errors of every kind
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): it may be damaged, or saved in "
            "another format such as a pickled .pt, which vitcore does not open."
        ) from error
    known = CHECKSUM in metadata or metadata.get("format") not in UNCHECKED
    if known and metadata.get(CHECKSUM) != checksum(tensors, metadata):
        raise ValueError(f"{path} is damaged, for its checksum differs; take another copy of it.")
    return tensors, metadata
