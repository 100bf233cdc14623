# SPDX-License-Identifier: MIT
"""Tensors in safetensors files that are complete or absent, also after a power cut."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

Weights = dict[str, Tensor]


@contextlib.contextmanager
def replace_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place at the end and only if all went well.

    Whoever reads `path` finds the old file or the new one, complete, also after a power cut.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_tensors(path: Path, tensors: Weights, metadata: dict[str, str]) -> None:
    """Replace `path` by a safetensors file; raises OSError where it cannot be written."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # safetensors refuses tensors that share memory, which tied weights do.
    tensors = {name: t.detach().to("cpu", copy=True).contiguous() for name, t in tensors.items()}
    try:
        with replace_file(path) as temporary:
            # safetensors makes files that only their owner can read, whatever the umask says.
            temporary.touch()
            mode = temporary.stat().st_mode
            save_file(tensors, temporary, metadata=metadata)
            temporary.chmod(mode)
    except (SafetensorError, OSError) as error:
        raise OSError(
            f"could not write {path} ({error}): check the space on the disk and the permissions."
        ) from error


def read_tensors(path: Path, what: str) -> tuple[Weights, dict[str, str]]:
    """The tensors and the metadata of a safetensors file; `what` names it in messages."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise FileNotFoundError(f"there is no {what} at {path}: check the path.")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is not a complete safetensors file ({error}): it may be damaged, or saved in "
            "another format such as a pickled .pt, which vitcore does not open."
        ) from error
