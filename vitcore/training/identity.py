# SPDX-License-Identifier: MIT
"""By what a run is known again: its settings, its loss, its data, in plain JSON values."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Where data sets of vitcore, torch and torchvision keep images and labels, or their names.
_CONTENT = ("images", "labels", "tensors", "data", "targets", "samples", "indices")


def describe_function(function: Callable[..., Any]) -> str:
    """The name of a loss or a metric; one without a name of its own is known by what it does."""
    if isinstance(function, functools.partial):
        return f"{describe_function(function.func)} {function.args} {function.keywords}"
    if isinstance(function, nn.Module):
        values = {k: v for k, v in vars(function).items() if isinstance(v, (int, float, str))}
        return f"{type(function).__name__} {json.dumps(values, sort_keys=True)}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    code = getattr(function, "__code__", None)
    if "<" not in name or code is None:
        return str(name)
    return f"{name} {hashlib.sha256(code.co_code + repr(code.co_names).encode()).hexdigest()[:8]}"


def digest_data(batches: Any) -> str | None:
    """A digest of the images and labels that lie behind batches, without drawing one; None where
    they are not found: then other data are noticed by their number alone."""
    digest, found = hashlib.sha256(), False
    holder = batches
    while holder is not None:
        parts = [getattr(holder, name, None) for name in _CONTENT]
        if isinstance(holder, (list, tuple)):
            parts = list(holder)
        for part in parts:
            found = _add(digest, part) or found
        holder = getattr(holder, "dataset", None)
    return digest.hexdigest()[:16] if found else None


def _add(digest: Any, value: Any) -> bool:
    if isinstance(value, Tensor) and not value.is_meta:
        value = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        digest.update(f"{value.dtype} {value.shape}".encode())
        digest.update(np.ascontiguousarray(value))
    elif isinstance(value, (list, tuple, range)):
        digest.update(f"{len(value)} (".encode())
        return [_add(digest, part) for part in value].count(True) > 0
    elif isinstance(value, (str, PurePath)):
        digest.update(PurePath(value).name.encode())  # a folder may be moved
    elif isinstance(value, (int, float)):
        digest.update(f"{value} ".encode())
    else:
        return False
    return True


def find_generators(*loaders: Any) -> list[torch.Generator]:
    """The generators from which DataLoaders and their samplers draw, each once."""
    found: list[torch.Generator] = []
    for loader in loaders:
        inner = getattr(loader, "batch_sampler", None)
        for holder in (loader, getattr(loader, "sampler", None), getattr(inner, "sampler", None)):
            generator = getattr(holder, "generator", None)
            if isinstance(generator, torch.Generator) and all(g is not generator for g in found):
                found.append(generator)
    return found


def differences(then: Any, now: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, in words."""
    if isinstance(then, dict) and isinstance(now, dict):
        found = []
        for key in sorted({*then, *now}):
            label = f"{name}.{key}" if name else str(key)
            found += differences(then.get(key), now.get(key), label)
        return found
    if json.dumps(then) == json.dumps(now):
        return []
    return [f"{name} was {json.dumps(then)} and is {json.dumps(now)} now"]
