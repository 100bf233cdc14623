# SPDX-License-Identifier: MIT
"""What refuses bad arguments and settings for training: one table of checks, by their names."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn

from .. import _inputs as inputs
from .._inputs import check_number, check_positive, check_rate, shown
from ..data._inputs import check_path

OPTIMIZERS = ("adamw", "adam", "muon")
SCHEDULES = ("cosine", "constant")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S", bound="Settings")
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

    return call  # type: ignore[return-value]


def of_kind(kind: Any, wanted: str) -> Check:
    """A check of a value's type."""
    return partial(inputs.check, kind=kind, allowed=wanted)


def optional(check: Check) -> Check:
    """A check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


def each(*checks: Check) -> Check:
    """A check of a tuple or list, with one check for each of its values."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (tuple, list)) or len(value) != len(checks):
            raise TypeError(f"{name} is {shown(value)}; give {len(checks)} values.")
        return tuple(one(f"a value of {name}", v) for one, v in zip(checks, value, strict=True))

    return check


class Settings:
    """What dataclasses of settings share: checks of all fields, and plain values in and out."""

    CHECKS: ClassVar[Mapping[str, Check]]

    def __post_init__(self) -> None:
        for name, value in vars(self).copy().items():
            object.__setattr__(self, name, self.CHECKS[name](name, value))

    def to_dict(self) -> dict[str, Any]:
        """As JSON has them; `from_dict` gives the settings back."""
        return _json("the settings", asdict(self))  # type: ignore[call-overload]

    @classmethod
    def from_dict(cls: type[S], values: Mapping[str, Any]) -> S:
        """From plain values; raises TypeError for a name that is unknown or missing."""
        return cls(**inputs.check_options("the values", values, cls))


def kind_of(value: Any) -> str:
    """A tensor's type, shape and device, or another value as it is written, for a message."""
    if not isinstance(value, Tensor):
        return shown(value)
    dtype = str(value.dtype).removeprefix("torch.")
    return f"{dtype} of shape {tuple(value.shape)} on {value.device}"


def is_tensor(name: str, value: Any) -> Tensor:
    """Raise one clear sentence unless `value` is a tensor that holds numbers."""
    if not isinstance(value, Tensor) or value.is_meta or value.is_complex():
        raise TypeError(f"{name} is {shown(value)}; give a torch tensor that holds numbers.")
    return value


def _logits(name: str, value: Any) -> Tensor:
    if not is_tensor(name, value).is_floating_point() or value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name} is {kind_of(value)}; give floating point (B, K).")
    return value


def _json(name: str, value: Any) -> dict[str, Any]:
    try:
        return dict(json.loads(json.dumps(inputs.check_mapping(name, value))))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {shown(value)}; give JSON values by name.") from error


_WANTED = "pairs (images, targets) as a list, a DataLoader or vitcore.data.Batches"


def _batches(name: str, value: Any) -> Any:
    if not hasattr(value, "__iter__") or getattr(value, "ndim", 1) == 0:
        raise TypeError(f"{name} is {shown(value)}; give {_WANTED}.")
    return value


def _epochs(name: str, value: Any) -> Any:
    """Batches for many epochs, of which the schedule has to know how many there are."""
    try:
        count = len(value)
    except TypeError as error:
        once = " (a generator is empty after one epoch)" if hasattr(value, "__next__") else ""
        raise TypeError(f"{name} is {shown(value)}; give {_WANTED}{once}.") from error
    if not count:
        raise ValueError(f"{name} holds no batch; is the batch larger than the data?")
    return value


_not_negative = partial(check_number, fits=lambda x: 0 <= x < 3.4e38, allowed="0 or more")

# By the names that arguments and settings have in all of vitcore.training.
CHECKS: dict[str, Check] = {
    **dict.fromkeys(("epochs", "batch_size", "world_size", "k", "bins"), check_positive),
    **dict.fromkeys(("seed", "steps"), inputs.check_whole),
    **dict.fromkeys(("label_smoothing", "ema"), check_rate),
    **dict.fromkeys(("lr", "steps_per_epoch"), inputs.check_above_zero),
    **dict.fromkeys(("weight_decay", "warmup_epochs", "warmup_steps", "min_lr"), _not_negative),
    **dict.fromkeys(("step", "total_steps"), _not_negative),
    **dict.fromkeys(("compile", "resume", "progress"), inputs.check_flag),
    **dict.fromkeys(("loss", "metric", "on_epoch"), of_kind(Callable, "a function")),
    **dict.fromkeys(("batches", "images"), _batches),
    **dict.fromkeys(("train_batches", "val_batches"), _epochs),
    **dict.fromkeys(("path", "out"), check_path),
    **dict.fromkeys(("metadata", "extra"), _json),
    **dict.fromkeys(("matrix", "targets", "labels", "group_of"), is_tensor),
    "clip_norm": optional(inputs.check_above_zero),
    "betas": each(check_rate, check_rate),
    "layer_decay": partial(
        check_number, fits=lambda x: 0 < x <= 1, allowed="above 0 and at most 1"
    ),
    "optimizer": partial(inputs.check_choice, allowed=OPTIMIZERS),
    "schedule": partial(inputs.check_choice, allowed=SCHEDULES),
    "precision": partial(inputs.check_choice, allowed=PRECISIONS),
    "model": of_kind(nn.Module, "a torch.nn.Module that turns images into logits"),
    "logits": _logits,
}
