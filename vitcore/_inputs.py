# SPDX-License-Identifier: MIT
"""What refuses bad input for the model core: what was given and what is allowed, in one sentence.

A check that a value passes gives it back as Python's own int, float or bool.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T", bound=type)
LARGEST = 2**31 - 1  # what torch takes as a size everywhere


def shown(value: object) -> str:
    """Give ``value`` as it is written in code, on one line that a sentence has room for."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def is_open(size: object) -> bool:
    """Say whether ``size`` is one that ``torch.export`` or ``torch.jit.trace`` leaves open."""
    return isinstance(size, torch.SymInt) or (isinstance(size, Tensor) and torch.jit.is_tracing())


def in_example(size: Any) -> int:
    """Give a traced size as the number it is in the example: checks stay out of the graph."""
    if not isinstance(size, Tensor):
        return size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(size)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """Raise one clear sentence unless ``value`` is a whole number of at least ``least``."""
    if is_open(value):
        return value
    if not _is_whole(value):
        raise TypeError(f"{name} is {shown(value)}; give a whole number.")
    if not least <= value <= LARGEST:
        limit = f"at least {least}" if value < least else f"at most {LARGEST}"
        raise ValueError(f"{name} is {value}; give a whole number of {limit}.")
    return int(value)


def check_number(
    name: str,
    value: Any,
    fits: Callable[[Any], bool] = lambda number: abs(number) < 3.4e38,
    allowed: str = "a finite number that float32 holds",
) -> float:
    """Raise one clear sentence unless ``value`` is a number that ``fits``."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}; give {allowed}.")
    if not fits(value):
        raise ValueError(f"{name} is {value}; give {allowed}.")
    return float(value)


def check_flag(name: str, value: Any) -> bool:
    """Raise one clear sentence unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {shown(value)}; give True or False.")
    return value


def check_mapping(name: str, value: Any) -> dict[str, Any]:
    """Raise one clear sentence unless ``value`` is a mapping; return it as a dict of its own."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} is {shown(value)}; give a dict of options by name.")
    return dict(value)


check_positive = partial(check_whole, least=1)
check_above_zero = partial(check_number, fits=lambda v: 0 < v < 3.4e38, allowed="a positive number")
check_rate = partial(
    check_number, fits=lambda v: 0 <= v < 1, allowed="a probability from 0 up to, not including, 1"
)


def check_choice(name: str, value: Any, allowed: Iterable[str]) -> str:
    """Raise one clear sentence unless ``value`` is one of the strings ``allowed``."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name} is {shown(value)}; give one of {', '.join(map(repr, allowed))}.")
    return value


def to_pair(image_size: Any, name: str = "image_size") -> tuple[int, int]:
    """Give ``image_size`` as (height, width) in pixels; an int stands for a square image.

    Raises TypeError if it is neither an int nor a pair of ints, ValueError for a side below one.
    """
    sides = image_size if isinstance(image_size, (tuple, list)) else (image_size, image_size)
    if len(sides) != 2 or not all(is_open(s) or _is_whole(s) for s in sides):
        raise TypeError(f"{name} is {shown(image_size)}; give an int or a pair (height, width).")
    if not all(is_open(side) or 1 <= side <= LARGEST for side in sides):
        raise ValueError(f"{name} is {image_size!r}; give sides from 1 to {LARGEST}.")
    height, width = (side if is_open(side) else int(side) for side in sides)
    return height, width


def check_names(what: str, names: Iterable[Any], known: Iterable[str]) -> None:
    """Raise one clear sentence if one of ``names`` is not an option of ``what``."""
    unknown = [shown(name) for name in names if name not in known]
    if unknown:
        options = f"the options are {', '.join(known)}" if known else "leave it out"
        raise TypeError(f"{what} has no option {', '.join(unknown)}; {options}.")


def check_options(name: str, options: Any, cls: type, *given: Any, **named: Any) -> None:
    """Raise one clear sentence unless ``cls`` takes ``options`` beside what the model gives it."""
    signature = inspect.signature(cls)
    taken = signature.bind_partial(*given, **named).arguments
    free = [p for p in signature.parameters.values() if p.name not in taken]
    wild = any(p.kind is p.VAR_KEYWORD for p in free)
    odd = [option for option in check_mapping(name, options) if option in taken or not wild]
    check_names(f"{name}: {cls.__name__}", odd, [p.name for p in free])
    single = [p for p in free if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    missing = [p.name for p in single if p.default is p.empty and p.name not in options]
    if missing:
        raise TypeError(f"{name} lacks {missing[0]!r}; {cls.__name__} cannot be made without.")


def check_images(images: Any, channels: int | None = None, floating: bool = True) -> None:
    """Raise one clear sentence unless ``images`` is a floating-point tensor (B, C, H, W)."""
    if not isinstance(images, Tensor):
        raise TypeError(f"images is a {type(images).__name__}; give a torch tensor (B, C, H, W).")
    shape = tuple(map(in_example, images.shape))
    if images.ndim != 4:
        raise ValueError(
            f"images has shape {shape}; give four axes (B, C, H, W), images[None] for one."
        )
    if floating and not images.is_floating_point():
        raise TypeError(f"images is {images.dtype}; give floating point: images.float() / 255.")
    if channels is not None and shape[1] != channels:
        raise ValueError(
            f"images has {shape[1]} channels in shape {shape}, but the model was made with "
            f"in_channels={channels}; convert the images, or make it with in_channels={shape[1]}."
        )


def check_device(name: str, x: Tensor, like: Any) -> None:
    """Raise one clear sentence unless ``x`` lies where ``like`` does (which may yet be loaded)."""
    if isinstance(like, Tensor) and not like.is_meta and x.device != like.device:
        raise ValueError(f"{name} is on {x.device}, the model on {like.device}; move one of them.")


def check_tokens(
    name: str, x: Any, like: Any = None, axes: int | None = None, width: bool = True
) -> None:
    """Raise one clear sentence unless ``x`` is tokens (..., D) that fit ``like``, (..., D) too.

    Where ``like`` is no floating-point tensor, as in a quantised layer, any width and type does.
    """
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise TypeError(f"{name} is {kind}; give a floating-point tensor of tokens (B, N, D).")
    like = like if isinstance(like, Tensor) and like.is_floating_point() else x
    shape = tuple(map(in_example, x.shape))
    if not shape or axes not in (None, len(shape)):
        raise ValueError(f"{name} has shape {shape}; give tokens (B, N, D).")
    if width and shape[-1] != in_example(like.shape[-1]):
        raise ValueError(f"{name} has shape {shape}; give tokens of width {like.shape[-1]}.")
    check_device(name, x, like)
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name} is {x.dtype}, but the model {like.dtype}; convert one of them.")


def check_heads(q: Any, k: Any, v: Any) -> None:
    """Raise one clear sentence unless queries (..., N, d), keys and values (..., M, d) fit."""
    for name, x in (("q", q), ("k", k), ("v", v)):
        check_tokens(name, x, like=q, width=name == "k")
    shapes = [tuple(map(in_example, x.shape)) for x in (q, k, v)]
    heads, rows = [shape[:-2] for shape in shapes], [shape[-2:-1] for shape in shapes]
    if not (
        heads[0] == heads[1] == heads[2] and all(rows) and rows[1] == rows[2] and shapes[0][-1]
    ):
        given = ", ".join(map(str, shapes))
        raise ValueError(f"q, k, v have shapes {given}; give (..., N, d), (..., M, d) twice.")


def register(
    table: dict[str, type[nn.Module]], name: Any, made_as: str, *given: Any, **named: Any
) -> Callable[[T], T]:
    """Give the decorator that enters a class into ``table``, where the model can make it."""
    if not isinstance(name, str):
        raise TypeError(f"the name to register is {shown(name)}; give a string in brackets.")

    def add(cls: T) -> T:
        if not isinstance(cls, type) or not issubclass(cls, nn.Module):
            what = getattr(cls, "__name__", type(cls).__name__)
            raise TypeError(f"{what} is not a subclass of nn.Module; register one.")
        try:
            inspect.signature(cls).bind_partial(*given, **named)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}: {error}; it is made as cls({made_as}).") from None
        table[name] = cls
        return cls

    return add
