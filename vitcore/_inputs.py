# SPDX-License-Identifier: MIT
"""What refuses bad input for the model core: what was given and what is allowed, in one sentence.

A check that a value passes gives it back as Python's own int, float or bool. What has another type
raises TypeError, another value ValueError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from numbers import Integral, Real
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

T = TypeVar("T", bound=type)
Rule = Callable[[Any], bool]
LARGEST = 2**31 - 1  # what torch takes as a size everywhere
HUGE = 3.4e38  # what float32 holds


def shown(value: object) -> str:
    """Give ``value`` as it is written in code, on one line that a sentence has room for."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:79]}…"


def is_recorded() -> bool:
    """Say whether torch records a graph, into which no checks belong; the example was checked."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def is_open(size: object) -> bool:
    """Say whether ``size`` is one that ``torch.export`` or ``torch.jit.trace`` leaves open."""
    return isinstance(size, torch.SymInt) or (isinstance(size, Tensor) and torch.jit.is_tracing())


def check(
    name: str, value: Any, kind: Any, allowed: str, fits: Rule | None = None, make: Any = None
) -> Any:
    """Give ``value`` back, as ``make`` has it, if it is of ``kind`` and ``fits``."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} is {shown(value)}; give {allowed}.")
    if fits and not fits(value):
        raise ValueError(f"{name} is {shown(value)}; give {allowed}.")
    return make(value) if make else value


def check_whole(name: str, value: Any, least: int = 0) -> int:
    """Raise one clear sentence unless ``value`` is a whole number of at least ``least``."""
    allowed = f"a whole number of at least {least} and at most {LARGEST}"
    return check(name, value, Integral, allowed, lambda n: least <= n <= LARGEST, int)


check_positive = partial(check_whole, least=1)
check_flag = partial(check, kind=bool, allowed="True or False")
check_mapping = partial(check, kind=Mapping, allowed="a dict of options by name", make=dict)
check_number = partial(
    check, kind=Real, allowed="a finite number in float32", fits=lambda n: abs(n) < HUGE, make=float
)
check_above_zero = partial(check_number, allowed="a positive number", fits=lambda n: 0 < n < HUGE)
check_rate = partial(check_number, allowed="a rate from 0 to below 1", fits=lambda n: 0 <= n < 1)


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
    closed = [side for side in sides if not is_open(side)]
    if len(sides) != 2 or any(isinstance(s, bool) or not isinstance(s, Integral) for s in closed):
        raise TypeError(f"{name} is {shown(image_size)}; give an int or a pair (height, width).")
    if not all(1 <= side <= LARGEST for side in closed):
        raise ValueError(f"{name} is {image_size!r}; give sides from 1 to {LARGEST}.")
    height, width = (side if is_open(side) else int(side) for side in sides)
    return height, width


def check_options(name: str, options: Any, cls: type, *given: Any, **named: Any) -> dict[str, Any]:
    """Raise one clear sentence unless ``cls`` takes ``options`` beside what the model gives it."""
    signature, options = inspect.signature(cls), check_mapping(name, options)
    try:
        signature.bind(*given, **named, **options)
    except TypeError as error:
        free = [key for key in list(signature.parameters)[len(given) :] if key not in named]
        allowed = f"the options of {cls.__name__} are {', '.join(free) or 'none'}"
        told = " ".join(str(error).split())[:200]  # a name may be as long as it likes
        raise TypeError(f"{name}: {told}; {allowed}.") from None
    return options


def check_tensor(name: str, x: Any, shape: str, floating: bool = True) -> None:
    """Raise one clear sentence unless ``x`` is a tensor of ``shape``, as in "B, 3, H, W".

    A letter stands for an axis of any size, a number for one of that size, "..." at the beginning
    for any axes. Only the first axis may be empty.
    """
    if is_recorded():
        return
    if not isinstance(x, Tensor):
        raise TypeError(f"{name} is a {type(x).__name__}; give a torch tensor ({shape}).")
    if floating and not x.is_floating_point():
        scaled = " / 255" if x.dtype == torch.uint8 else ""
        raise TypeError(f"{name} is {x.dtype}; give floating point: {name}.float(){scaled}.")
    _, open_start, named = shape.rpartition("..., ")
    axes, sizes = named.split(", "), tuple(x.shape)
    ends = sizes[len(sizes) - len(axes) :] if open_start else sizes
    fits = len(ends) == len(axes) and 0 not in sizes[1:]
    if not fits or any(a.isdigit() and int(a) != n for a, n in zip(axes, ends, strict=True)):
        raise ValueError(f"{name} has shape {sizes}; give ({shape}).")


def check_place(name: str, x: Tensor, like: Any) -> None:
    """Raise one clear sentence unless ``x`` lies where ``like`` does (which may yet be loaded)."""
    if isinstance(like, Tensor) and not like.is_meta and x.device != like.device:
        raise ValueError(f"{name} is on {x.device}, the model on {like.device}; move one of them.")


def check_tokens(name: str, x: Any, like: Any = None, shape: str = "..., D") -> None:
    """Raise one clear sentence unless ``x`` is tokens that fit ``like``, a parameter (..., D).

    Where ``like`` is no floating-point tensor, as in a quantised layer, any width and type does.
    """
    if is_recorded() or not isinstance(like, Tensor) or not like.is_floating_point():
        return check_tensor(name, x, shape)
    check_tensor(name, x, shape.replace("D", str(like.shape[-1])))
    check_place(name, x, like)
    if x.dtype != like.dtype and not torch.is_autocast_enabled(x.device.type):
        raise TypeError(f"{name} is {x.dtype}, but the model {like.dtype}; convert one of them.")


def check_heads(q: Any, k: Any, v: Any) -> None:
    """Raise one clear sentence unless queries (..., N, d), keys and values (..., M, d) fit."""
    if is_recorded():
        return
    check_tensor("q", q, "..., N, d")
    heads = "".join(f"{size}, " for size in q.shape[:-2])
    check_tokens("k", k, q, f"{heads}M, D")
    check_tokens("v", v, q, f"{heads}{k.shape[-2]}, D")


def register(table: dict[str, type[nn.Module]], name: Any) -> Callable[[T], T]:
    """Give the decorator that enters a class into ``table``, where the model can make it."""
    check("the name to register", name, str, "a string in brackets")

    def add(cls: T) -> T:
        if not isinstance(cls, type) or not issubclass(cls, nn.Module):
            what = getattr(cls, "__name__", type(cls).__name__)
            raise TypeError(f"{what} is not a subclass of nn.Module; register one.")
        table[name] = cls
        return cls

    return add
