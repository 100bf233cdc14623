# SPDX-License-Identifier: MIT
"""Calls with one or two odd arguments, and what they must answer: a result, or one clear sentence.

What is called stands in ``fuzzing.py``, which is also what to start by hand.
"""

from __future__ import annotations

import collections
import contextlib
import dis
import io
import math
import random
import re
import signal
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

import vitcore

PACKAGE = Path(vitcore.__file__).parent
SECONDS = 20.0  # a call that takes longer hangs
MEMORY = 6 * 2**30  # bytes of address space that all calls together may add

# What the docstrings promise, beside vitcore's own classes.
KINDS = (TypeError, ValueError, OSError)


class Odd(NamedTuple):
    """A value to put in an argument's place, and what to call it in a report."""

    label: str
    value: Any


@dataclass(frozen=True)
class Target:
    """Something to call. ``valid`` makes arguments that it takes, fresh for every call.

    pools: for some arguments, what draws the odd value. spare: labels of values that are not
    tried for an argument, because they ask for something sensible that takes too long, or
    because what fails then is the caller's own code. weight: how often it is drawn.
    """

    room: str
    name: str
    call: Callable[..., object]
    valid: Callable[[], dict[str, Any]]
    pools: Mapping[str, Callable[[random.Random], Odd]] = field(default_factory=dict)
    spare: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weight: float = 1.0


@dataclass(frozen=True)
class Fault:
    """An answer that is neither a result nor one clear sentence."""

    room: str
    target: str
    arguments: str
    kind: str
    place: str
    message: str


# --- odd values ------------------------------------------------------------------------------


def _nothing(*_: Any, **__: Any) -> None:
    """What a function without a return statement gives."""


def _plain() -> list[Odd]:
    """Values of every kind; made anew for every call, because a generator is used up."""
    nan, inf = math.nan, math.inf
    values: list[Any] = [
        None, True, False, 0, 1, -1, 2, 3, 7, 1000, 2**31, 2**64, 10**30, 0.0, 0.5, 1.0, 4.0, -0.5,
        2.5, 1e-300, 1e300, nan, inf, -inf, 1j,
        np.int64(4), np.int32(-1), np.uint8(2), np.float32(0.5), np.float64(nan), np.bool_(True),
        "", "abc", "4", "cls", "cpu", "no/such/place", "a\0b", b"bytes", Path("no/such/place"),
        [], (), [4, 4], (4,), (4, 4, 4), [0.5, 0.5], ["abc"], ["cls", "mean"], [None], [nan] * 3,
        (0.5, "abc"), [[1, 2], [3]], {}, {"dim": 4}, {"abc": None}, {1: 2}, {"a", "b"}, range(3),
        np.zeros((2, 3)), np.array(3), np.array(["abc"]), np.array([None]),
        object(), int, ..., torch.float32, torch.device("cpu"), nn.Linear(2, 2), nn.Linear,
    ]  # fmt: skip
    named = [Odd(_label(value), value) for value in values]
    return [
        *named,
        Odd("a generator", (number for number in (1, 2))),
        Odd("a function", _nothing),
        *_tensors(),
    ]


def _tensors() -> list[Odd]:
    tensors = [
        torch.tensor(4), torch.tensor(0.5), torch.zeros(0), torch.zeros(3),
        torch.tensor([1, 2, 3]), torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8, device="meta"),
        torch.zeros(2, 2, dtype=torch.complex64), torch.tensor(True),
    ]  # fmt: skip
    return [Odd(_label(tensor), tensor) for tensor in tensors]


def _label(value: object) -> str:
    if isinstance(value, Tensor):
        place = ", meta" if value.is_meta else ""
        return f"tensor({str(value.dtype)[6:]} {tuple(value.shape)}{place})"
    if isinstance(value, np.ndarray):
        return f"array({value.dtype} {value.shape})"
    if type(value) is object or isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    return repr(value)[:40]


def _like_tensor(rng: random.Random, valid: Tensor) -> Odd:
    """A tensor that is nearly the right one."""
    changes: dict[str, Callable[[Tensor], Any]] = {
        "as float64": lambda t: t.double(),
        "as float16": lambda t: t.half(),
        "as bfloat16": lambda t: t.bfloat16(),
        "as int64": lambda t: t.long(),
        "as int32": lambda t: t.int(),
        "as uint8": lambda t: t.to(torch.uint8),
        "as bool": lambda t: t.bool(),
        "as complex64": lambda t: t.to(torch.complex64),
        "on meta": lambda t: t.to("meta"),
        "with gradient": lambda t: t.float().requires_grad_(),
        "of NaN": lambda t: torch.full(t.shape, math.nan),
        "of infinity": lambda t: torch.full(t.shape, math.inf),
        "negative": lambda t: (-1 - t.double().abs()).to(t.dtype),
        "times 1000": lambda t: (t.double() * 1000 + 1000).to(t.dtype),
        "one axis more": lambda t: t[None],
        "one axis more, last": lambda t: t[..., None],
        "one axis less": lambda t: t[0] if t.ndim and len(t) else t.reshape(()),
        "of no axis": lambda t: t.reshape(-1)[:1].sum(),
        "flat": lambda t: t.reshape(-1),
        "empty": lambda t: t[:0] if t.ndim else t.new_zeros(0),
        "empty, last axis": lambda t: t[..., :0] if t.ndim else t.new_zeros(0),
        "one shorter": lambda t: t[:-1] if t.ndim else t,
        "one shorter, last axis": lambda t: t[..., :-1] if t.ndim else t,
        "twice as long": lambda t: torch.cat([t, t]) if t.ndim else t,
        "twice as long, axis 1": lambda t: torch.cat([t, t], 1) if t.ndim > 1 else t,
        "transposed": lambda t: t.transpose(0, -1) if t.ndim > 1 else t,
        "strided": lambda t: (
            t.flip(-1).transpose(0, -1).contiguous().transpose(0, -1) if t.ndim > 1 else t
        ),
        "as a list": lambda t: t.tolist(),
        "as an array": lambda t: t.numpy(),
    }
    label = rng.choice(sorted(changes))
    return Odd(label, changes[label](valid.detach().clone()))


def _like_sequence(rng: random.Random, valid: list[Any] | tuple[Any, ...]) -> Odd:
    """A list or tuple that is nearly the right one: another length, or one entry replaced."""
    kind: Any = list if isinstance(valid, list) else tuple  # a named tuple takes no one list
    items = list(valid)
    changes: dict[str, Callable[[], Any]] = {
        "one shorter": lambda: kind(items[:-1]),
        "one longer": lambda: kind([*items, *items[:1]]),
        "empty": lambda: kind(()),
        "as the other kind": lambda: tuple(items) if kind is list else list(items),
        "as a generator": lambda: (item for item in items),
        "as an array": lambda: np.array(items) if all(np.isscalar(i) for i in items) else items,
        "as a dict": lambda: dict(enumerate(items)),
        "reversed": lambda: kind(items[::-1]),
    }
    if items and rng.random() < 0.6:
        at = rng.randrange(len(items))
        label, items[at] = odd(rng, items[at])
        return Odd(f"[{at}] {label}", kind(items))
    label = rng.choice(sorted(changes))
    return Odd(label, changes[label]())


def odd(rng: random.Random, valid: object) -> Odd:
    """Draw a value for the place of a valid one: half of them close to it, half of any kind."""
    if rng.random() < 0.6:
        if isinstance(valid, Tensor):
            return _like_tensor(rng, valid)
        if isinstance(valid, (list, tuple)):
            return _like_sequence(rng, valid)
        if isinstance(valid, dict) and valid:
            key = rng.choice(sorted(valid, key=str))
            label, value = odd(rng, valid[key])
            return Odd(f"{key!r}: {label}", {**valid, key: value})
        numbers = [o for o in _plain() if isinstance(o.value, (int, float, np.generic))]
        if isinstance(valid, (int, float)):
            return rng.choice(numbers)
    return rng.choice(_plain())


# --- one call --------------------------------------------------------------------------------


class _Hangs(BaseException):
    """Not an Exception, so that nothing on the way takes it for one of its own."""


@contextlib.contextmanager
def _limits(seconds: float) -> Iterator[None]:
    """Stop a call that takes too long, where the system can."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: Any) -> None:
        raise _Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def limited_memory(extra: int = MEMORY) -> Iterator[None]:
    """Let a call that asks for too much memory fail, rather than take all of the machine's."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(statm.read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _innermost(traceback: TracebackType | None) -> tuple[CodeType, int, int] | None:
    """The code, line and instruction at which an exception began."""
    found = None
    while traceback is not None:
        found = traceback.tb_frame.f_code, traceback.tb_lineno, traceback.tb_lasti
        traceback = traceback.tb_next
    return found


def find_fault(error: BaseException, package: Path = PACKAGE) -> tuple[str, str] | None:
    """Say (kind, place) unless a ``raise`` in the package gave the error, in one clear sentence."""
    where = _innermost(error.__traceback__)
    kind = type(error).__name__
    if where is None:
        return kind, "nowhere"
    code, line, at = where
    file = Path(code.co_filename)
    place = f"{file.name}:{line}"
    ours = package in file.parents
    if isinstance(error, _Hangs):
        return "hangs", place
    if not ours or code.co_code[at] != dis.opmap["RAISE_VARARGS"]:
        return kind, place
    if type(error).__module__.startswith(package.name):
        return None  # an error of vitcore's own, which may give advice at length
    if not isinstance(error, KINDS):
        return f"{kind} is not documented", place
    problem = not_one_sentence(str(error))
    return (problem, place) if problem else None


def not_one_sentence(message: str) -> str:
    """What is wrong with an error message; nothing where it is one clear sentence."""
    if len(message) < 12:
        return "message too short"
    if "\n" in message:
        return "message of several lines"
    if len(message) > 600:
        return f"message of {len(message)} characters"
    # A path, a number or an abbreviation has no space and capital behind its full stop.
    if re.search(r"[a-z0-9)'\"][.!?] [A-Z]", message.rstrip()):
        return "message of several sentences"
    return ""


def one_call(target: Target, changed: Mapping[str, Odd]) -> Fault | str:
    """Call a target with its valid arguments but for those ``changed``; "" if it gave a result."""
    arguments = target.valid()
    arguments.update({name: value.value for name, value in changed.items()})
    told = ", ".join(f"{name}={value.label}" for name, value in changed.items())
    silence = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            np.errstate(all="ignore"),
            contextlib.redirect_stdout(silence),
            contextlib.redirect_stderr(silence),
            _limits(SECONDS),
        ):
            warnings.simplefilter("ignore")
            target.call(**arguments)
    except (Exception, _Hangs) as error:
        fault = find_fault(error)
        message = " ".join(str(error).split())[:200]
        if fault is not None:
            return Fault(target.room, target.name, told, *fault, message)
        return message
    return ""


def draw(rng: random.Random, target: Target) -> dict[str, Odd]:
    """Choose one argument of a target, sometimes two, and an odd value for each."""
    valid = target.valid()
    names = rng.sample(sorted(valid), min(len(valid), 1 if rng.random() < 0.8 else 2))
    changed = {}
    for name in names:
        make = target.pools.get(name, lambda rng, name=name: odd(rng, valid[name]))
        value = make(rng)
        while value.label in target.spare.get(name, ()):
            value = make(rng)
        changed[name] = value
    return changed


@dataclass
class Result:
    """What came of many calls. accepted: (callable, arguments) of those that gave a result."""

    calls: int
    faults: list[Fault]
    accepted: list[tuple[str, str]]


def fuzz(targets: list[Target], calls: int, seed: int) -> Result:
    """Make ``calls`` calls, the same for the same seed."""
    rng = random.Random(seed)
    state = torch.get_rng_state()
    result = Result(calls, [], [])
    weights = [target.weight for target in targets]
    with limited_memory():
        for target in rng.choices(targets, weights, k=calls):
            torch.manual_seed(rng.randrange(2**31))
            changed = draw(rng, target)
            answer = one_call(target, changed)
            if isinstance(answer, Fault):
                result.faults.append(answer)
            elif not answer:
                told = ", ".join(f"{name}={value.label}" for name, value in changed.items())
                result.accepted.append((target.name, told))
    torch.set_rng_state(state)
    return result


def report(result: Result, accepted: bool = False) -> str:
    """The faults by room, callable and place; with ``accepted``, also the odd values taken."""
    lines = [f"{len(result.faults)} raw errors in {result.calls} calls"]
    rooms = collections.Counter(fault.room for fault in result.faults)
    lines += [f"  {room}: {count}" for room, count in sorted(rooms.items())]
    groups: dict[tuple[str, str, str, str], list[Fault]] = collections.defaultdict(list)
    for fault in result.faults:
        groups[fault.room, fault.target, fault.kind, fault.place].append(fault)
    last = ""
    for (room, target, kind, place), faults in sorted(groups.items()):
        if f"{room}: {target}" != last:
            last = f"{room}: {target}"
            lines += ["", last]
        some = "; ".join(sorted({fault.arguments for fault in faults})[:4])
        lines.append(f"  {len(faults)} x {kind} at {place} for {some}")
        lines.append(f"      {faults[0].message[:160]}")
    if accepted:
        lines += ["", "accepted:"]
        lines += sorted({f"  {name}({told})" for name, told in result.accepted})
    return "\n".join(lines)
