# SPDX-License-Identifier: MIT
"""What refuses bad arguments for training: one table of checks, by the arguments' names."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from torch import Tensor, nn

from .. import _inputs as inputs
from .._inputs import check_number, shown

OPTIMIZERS = ("adamw", "adam", "muon")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[str, Any], Any]  # of a name and a value; gives the value to go on with


def checked(function: F) -> F:
    """Look at every argument that has a check in CHECKS before the function sees it; None passes
    where it is the default."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        bound = signature.bind(*args, **options)
        for name, value in bound.arguments.items():
            if name in CHECKS and (value is not None or signature.parameters[name].default):
                bound.arguments[name] = CHECKS[name](name, value)
        return function(*bound.args, **bound.kwargs)

    return cast(F, call)


def of_kind(kind: Any, wanted: str) -> Check:
    """A check of a value's type."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {shown(value)}; give {wanted}.")
        return value

    return check


def kind_of(value: Tensor) -> str:
    """A tensor's type, shape and device, for a message."""
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} of shape {tuple(value.shape)} on {value.device}"


def is_tensor(name: str, value: Any) -> Tensor:
    """Raise one clear sentence unless `value` is a tensor that holds numbers."""
    if not isinstance(value, Tensor) or value.is_meta:
        raise TypeError(f"{name} is {shown(value)}; give a torch tensor that holds numbers.")
    return value


def _scores(name: str, value: Any) -> Any:
    logits = name == "logits"
    fits = is_tensor(name, value).is_floating_point() and value.ndim == 2 and 0 not in value.shape
    if (logits and not fits) or value.is_complex():
        wanted = "floating point (B, K)" if logits else "real numbers"
        raise ValueError(f"{name} is {kind_of(value)}; give {wanted}.")
    return value


def _betas(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ValueError(f"{name} is {shown(value)}; give two numbers from 0 to below 1.")
    return inputs.check_rate(name, value[0]), inputs.check_rate(name, value[1])


def _path(name: str, value: Any) -> Path:
    path = os.fspath(of_kind((str, os.PathLike), "a path")(name, value))
    if not isinstance(path, str) or "\0" in path:
        raise ValueError(f"{name} is {shown(value)}; give a path without a null character.")
    return Path(path)


def _json(name: str, value: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(inputs.check_mapping(name, value))))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {shown(value)}; give JSON values by name.") from error


def _batches(name: str, value: Any, again: bool = False) -> Any:
    several = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    once = again and hasattr(value, "__next__")
    array = isinstance(value, (Tensor, np.ndarray, np.generic))
    if not several or once or (array and (again or not value.ndim)):
        given = "a generator, which is empty after one epoch" if once else shown(value)
        wanted = "pairs (images, targets) as a list, a DataLoader or vitcore.data.Batches"
        raise TypeError(f"{name} is {given}; give {wanted}.")
    return value


_not_negative = partial(check_number, fits=lambda x: 0 <= x < 3.4e38, allowed="0 or more")

# By the names that arguments and settings have in all of vitcore.training.
CHECKS: dict[str, Check] = {
    **dict.fromkeys(("epochs", "batch_size", "world_size"), inputs.check_positive),
    **dict.fromkeys(("seed", "steps"), inputs.check_whole),
    **dict.fromkeys(("label_smoothing", "ema"), inputs.check_rate),
    **dict.fromkeys(("lr", "clip_norm", "steps_per_epoch"), inputs.check_above_zero),
    **dict.fromkeys(("weight_decay", "warmup_epochs", "warmup_steps", "min_lr"), _not_negative),
    **dict.fromkeys(("step", "total_steps"), _not_negative),
    **dict.fromkeys(("compile", "resume", "progress"), inputs.check_flag),
    **dict.fromkeys(("loss", "metric", "on_epoch"), of_kind(Callable, "a function")),
    **dict.fromkeys(("batches", "images"), _batches),
    **dict.fromkeys(("train_batches", "val_batches"), partial(_batches, again=True)),
    **dict.fromkeys(("path", "out"), _path),
    **dict.fromkeys(("metadata", "extra"), _json),
    "betas": _betas,
    "optimizer": partial(inputs.check_choice, allowed=OPTIMIZERS),
    "schedule": partial(inputs.check_choice, allowed=SCHEDULES),
    "precision": partial(inputs.check_choice, allowed=PRECISIONS),
    "model": of_kind(nn.Module, "a torch.nn.Module that turns images into logits"),
    "matrix": is_tensor,
    "logits": _scores,
    "targets": _scores,
}
