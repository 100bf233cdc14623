# SPDX-License-Identifier: MIT
"""Writes a trained model for a web page, in half the size; the book's live pages run on these.

The file is what `save_weights` writes, so that `load_weights` reads it as well: safetensors with
the tensors in float16 (the values, not the arithmetic, are rounded) and, in the metadata, each in
JSON, `config` (ViTConfig's fields), `classes`, `mean` and `std` (per channel, of pixels in [0, 1]),
and `extra`. There stand `dataset`, `recipe` and `test_accuracy`, as far as the source has them, and
`exported_from`: the SHA-256 of the source file, which tells a copy that is older than its source.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch

from .training import load_weights, save_weights

KEPT = ("dataset", "recipe", "test_accuracy")


def export_web(
    weights: str | os.PathLike[str], out: str | os.PathLike[str], *, half: bool = True
) -> int:
    """Write `weights` to `out` for a page and return the size in bytes; half=False keeps float32.

    Raises FileNotFoundError, ValueError where `weights` is no file of `save_weights`, or holds
    values beyond float16.
    """
    loaded = load_weights(weights)
    source = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    extra = {name: loaded.metadata[name] for name in KEPT if name in loaded.metadata}
    largest = max(value.abs().max().item() for value in loaded.model.state_dict().values())
    if half and largest > torch.finfo(torch.float16).max:
        raise ValueError(f"{weights} holds {largest:g}, beyond float16: add --float32.")
    save_weights(
        out,
        loaded.model.half() if half else loaded.model,
        classes=loaded.classes,
        mean=loaded.mean,
        std=loaded.std,
        extra={**extra, "exported_from": source},
    )
    return Path(out).stat().st_size
