# SPDX-License-Identifier: MIT
"""What refuses bad input for the model core: what was given and what is allowed, in one sentence.

A check called ``check_…`` returns the value as Python's own int, float or bool, so that NumPy's
numbers are as good as any.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T", bound=type)


def is_open(size: object) -> bool:
    """Say whether ``size`` is one that ``torch.export`` or ``torch.jit.trace`` leaves open."""
    return isinstance(size, torch.SymInt) or (isinstance(size, Tensor) and torch.jit.is_tracing())


def in_example(size: int) -> int:
    """Give a traced size as the number that it is in the example, for a check outside the graph."""
    if not isinstance(size, Tensor):
        return size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # not in the graph: on purpose
        return int(size)


def _is_whole(value: object) -> bool:
    return is_open(value) or (isinstance(value, Integral) and not isinstance(value, bool))


def to_pair(image_size: Any, name: str = "image_size") -> tuple[int, int]:
    """Give ``image_size`` as (height, width) in pixels; an int stands for a square image.

    Raises:
        TypeError: if it is neither an int nor a pair of ints.
        ValueError: if a side is not positive.
    """
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2 or not all(map(_is_whole, sides)):
        raise TypeError(f"{name} is {image_size!r}; give an int or a pair of ints (height, width).")
    if not all(is_open(side) or side >= 1 for side in sides):
        raise ValueError(f"{name} is {image_size!r}; give two sides of at least 1.")
    height, width = (side if is_open(side) else int(side) for side in sides)
    return height, width


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """Raise one clear sentence unless ``value`` is a whole number of at least ``least``."""
    if not _is_whole(value):
        raise TypeError(f"{name} is {value!r}; give a whole number.")
    if is_open(value):
        return value
    if value < least:
        raise ValueError(f"{name} is {value}; give a whole number of at least {least}.")
    return int(value)


def check_positive(name: str, value: Any) -> int:
    """Raise one clear sentence unless ``value`` is a whole number of at least one."""
    return check_whole(name, value, least=1)


def _to_float(name: str, value: Any) -> float:
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give a number.")
    try:
        return float(value)
    except OverflowError:  # of an int
        return math.inf


def check_number(name: str, value: Any) -> float:
    """Raise one clear sentence unless ``value`` is a finite number."""
    number = _to_float(name, value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; give a finite number.")
    return number


def check_above_zero(name: str, value: Any) -> float:
    """Raise one clear sentence unless ``value`` is a finite number above zero."""
    number = check_number(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value}; give a positive number.")
    return number


def check_rate(name: str, value: Any) -> float:
    """Raise one clear sentence unless ``value`` is a probability below one."""
    number = _to_float(name, value)
    if not 0.0 <= number < 1.0:
        raise ValueError(f"{name} is {number}; give a probability from 0 up to, not including, 1.")
    return number


def check_flag(name: str, value: Any) -> bool:
    """Raise one clear sentence unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; give True or False.")
    return value


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Raise one clear sentence unless ``value`` is one of the strings ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {value!r}; give one of {', '.join(map(repr, allowed))}.")
    return value


def check_names(what: str, names: Iterable[Any], known: Iterable[str]) -> None:
    """Raise one clear sentence if one of ``names`` is not an option of ``what``."""
    known = list(known)
    unknown = [repr(name) for name in names if name not in known]
    if unknown:
        raise TypeError(
            f"{what} has no option {', '.join(unknown)}; the options are {', '.join(known)}."
        )


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    """Raise one clear sentence unless ``value`` is a mapping; return it as a dict of its own."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {value!r}; give a dict of options by name.")
    return dict(value)


def check_options(name: str, options: Any, cls: type, *given: Any, **named: Any) -> None:
    """Raise one clear sentence unless ``cls`` takes ``options`` beside what it is given anyway."""
    check_mapping(name, options)
    signature = inspect.signature(cls)
    taken = signature.bind_partial(*given, **named).arguments
    free = {name: p for name, p in signature.parameters.items() if name not in taken}
    any_name = any(p.kind is p.VAR_KEYWORD for p in free.values())
    unknown = [o for o in options if o in taken or (o not in free and not any_name)]
    single = [p for p in free.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in single if p.default is p.empty and p.name not in options]
    if unknown or missing:
        wrong = f"has {', '.join(map(repr, unknown))}" if unknown else f"lacks {missing[0]!r}"
        raise TypeError(f"{name} {wrong}; {cls.__name__} takes {', '.join(free) or 'no options'}.")


def check_images(images: Any, channels: int | None = None, floating: bool = True) -> None:
    """Raise one clear sentence unless ``images`` is a floating-point tensor (B, C, H, W)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}; give a torch tensor (B, C, H, W).")
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {tuple(images.shape)}; give four axes (B, C, H, W), "
            "images[None] for a single image."
        )
    if floating and not images.is_floating_point():
        raise TypeError(
            f"images is {images.dtype}; the model takes floating point, so convert with "
            "images.float() / 255 and normalise."
        )
    if channels is not None and in_example(images.shape[1]) != channels:
        raise ValueError(
            f"images has {images.shape[1]} channels in shape {tuple(images.shape)}, but the model "
            f"was made with in_channels={channels}; convert the images, or make the model with "
            f"in_channels={images.shape[1]}."
        )


def register(
    table: dict[str, type[nn.Module]], name: Any, made_as: str, *given: Any, **named: Any
) -> Callable[[T], T]:
    """Give the decorator that enters into ``table`` a class that can be made so."""
    if not isinstance(name, str):
        raise TypeError(f"the name to register is {name!r}; give a string in brackets.")

    def add(cls: T) -> T:
        if not isinstance(cls, type) or not issubclass(cls, nn.Module):
            raise TypeError(f"{cls!r} is registered as {name!r}; register a class of nn.Module.")
        try:
            inspect.signature(cls).bind_partial(*given, **named)
        except TypeError as error:
            raise TypeError(
                f"{cls.__name__} cannot be made as cls({made_as}, **options): {error}; give its "
                "__init__ these arguments."
            ) from None
        table[name] = cls
        return cls

    return add
