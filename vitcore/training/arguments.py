# SPDX-License-Identifier: MIT
"""What refuses bad arguments for training: a table of checks on each public function."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import Tensor, nn

from .._inputs import check_mapping, shown

F = TypeVar("F", bound=Callable[..., Any])
Check = Callable[[str, Any], Any]  # takes a name and a value, returns the value to go on with


def checked(**checks: Check) -> Callable[[F], F]:
    """Look at arguments by name before a function sees them."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            bound = signature.bind(*args, **options)
            for name, check in checks.items():
                if name in bound.arguments:
                    bound.arguments[name] = check(name, bound.arguments[name])
            return function(*bound.args, **bound.kwargs)

        return cast(F, call)

    return decorate


def of_kind(kind: type | tuple[type, ...], wanted: str) -> Check:
    """A check of a value's type."""

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {shown(value)}; give {wanted}.")
        return value

    return check


def optional(check: Check) -> Check:
    """A check that lets None pass."""
    return lambda name, value: None if value is None else check(name, value)


is_model = of_kind(nn.Module, "a torch.nn.Module that turns images into logits")
is_function = of_kind(Callable, "a function")  # type: ignore[arg-type]
is_tensor = of_kind(Tensor, "a torch tensor")


def is_path(name: str, value: Any) -> Path:
    """Raise one clear sentence unless `value` can be a path."""
    path = os.fspath(of_kind((str, os.PathLike), "a path")(name, value))
    if not isinstance(path, str) or "\0" in path:
        raise ValueError(f"{name} is {shown(value)}; give a path without a null character.")
    return Path(path)


def is_json(name: str, value: Any) -> dict[str, Any]:
    """Raise one clear sentence unless `value` is a mapping that can be written as JSON."""
    try:
        return dict(json.loads(json.dumps(check_mapping(name, value))))
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {shown(value)}; give JSON values by name.") from error


def is_batches(name: str, value: Any) -> Any:
    """Raise one clear sentence unless `value` can be gone through."""
    several = hasattr(value, "__iter__") or hasattr(value, "__getitem__")
    if not several or getattr(value, "ndim", 1) == 0:
        raise TypeError(
            f"{name} is {shown(value)}; give pairs (images, targets), as a list, a DataLoader or "
            "vitcore.data.Batches does."
        )
    return value


def is_repeatable(name: str, value: Any) -> Any:
    """The same, for what is gone through once in every epoch."""
    if hasattr(is_batches(name, value), "__next__"):
        raise TypeError(
            f"{name} can be gone through only once (a generator); "
            "give a list, a DataLoader or vitcore.data.Batches."
        )
    return value
