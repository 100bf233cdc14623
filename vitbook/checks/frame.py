# SPDX-License-Identifier: MIT
"""The frame that every check stands in: running one, calling a reader's code, comparing.

A check takes a function, a module or a whole model, tries it on small random input, and compares
it with what is right and with what each known mistake would give. It prints one line when all is
well, raises ``CheckFailed`` with the likely mistake otherwise, and prints "not solved yet" for an
exercise that raises NotImplementedError or returns nothing. Whatever a check hands over is a copy:
code that changes it is told so. The random state stays as it was.

A reader sees the message of a failed check and nothing of its inside, which would show the answer.
Where the reader's own code raised, the lines of that code are shown as well.
"""

from __future__ import annotations

import copy
import functools
import inspect
import math
import textwrap
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vitcore.patches import to_pair
from vitcore.vit import ViTConfig

TOLERANCE = 1e-4  # far above float32 rounding on these inputs, far below any of the mistakes

Wrong = Sequence[tuple[str, Tensor]]  # what a mistake is called, and what it would have given
P = ParamSpec("P")

# Frames of these files stand between a reader's line and the check, or inside the check.
_INSIDE = (str(Path(__file__).parent), str(Path(nn.__file__).parent / "modules" / "module.py"))


class _Shown:
    """An error that IPython, and with it Jupyter and Colab, shows by its message alone."""

    __cause__: BaseException | None

    def _render_traceback_(self) -> list[str]:
        lines = [f"{type(self).__name__}: {self}"]
        if self.__cause__ is not None:
            from IPython import get_ipython

            cause = self.__cause__
            lines = [
                *get_ipython().InteractiveTB.structured_traceback(
                    type(cause), cause, cause.__traceback__, tb_offset=0
                ),
                "",
                *lines,
            ]
        return lines


class CheckFailed(_Shown, AssertionError):
    """A check found a mistake; the message names the likely one."""


class WrongUse(_Shown, TypeError):
    """A check was called with something that it cannot judge."""


class Unsolved(Exception):
    """The code under judgement is still the empty frame of an exercise."""


# -- running a check -----------------------------------------------------------------------------


def check(passed: str) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Make a judge into a check, which says ``passed`` when the judge has nothing to say."""

    def decorate(judge: Callable[P, None]) -> Callable[P, None]:
        @functools.wraps(judge)
        def run_check(*arguments: P.args, **options: P.kwargs) -> None:
            __tracebackhide__ = True  # pytest then shows the line that called the check
            failure = _failure_of(lambda: judge(*arguments, **options), passed)
            if failure is not None:
                raise failure

        return run_check

    return decorate


def _failure_of(judge: Callable[[], None], passed: str) -> Exception | None:
    """Run a judge with its own random numbers; give what it found, without a traceback."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            judge()
    except Unsolved as reason:
        print(f"not solved yet ({reason})")
        return None
    except (CheckFailed, WrongUse) as failure:
        found: Exception = failure
    except Exception as error:  # what came back is so odd that comparing it raised
        found = CheckFailed(
            f"the check cannot read what your code gives ({_told(error)}): look at its type and "
            "its shape"
        )
    else:
        print(f"check passed: {passed}")
        return None
    found.__suppress_context__ = True
    return found.with_traceback(None)


def _told(error: BaseException) -> str:
    """An error in one line, shortened."""
    words = textwrap.shorten(str(error), 160, placeholder=" ...")
    return f"{type(error).__name__}: {words}" if words else type(error).__name__


# -- calling the code under judgement ------------------------------------------------------------


def call(function: Any, *arguments: Any) -> Any:
    """Call the code under judgement with copies of the arguments.

    An empty frame is unsolved; any other error, and a change to what was given, is a failure.
    """
    if function is None or function is ...:
        raise Unsolved("there is nothing to check so far")
    if not callable(function):
        raise WrongUse(
            f"a check takes a function or a module, but got {type(function).__name__}; "
            "hand it over without calling it"
        )
    given = _copy(list(arguments))
    try:
        result = function(*given)
        if isinstance(result, types.GeneratorType):
            result = list(result)  # its body runs here, as part of the reader's code
    except NotImplementedError as error:
        if "not implemented for" not in str(error):  # that one is torch's, about a type
            raise Unsolved("it raises NotImplementedError") from None
        raise _raised(error, arguments) from _own_lines(error)
    except CheckFailed:
        raise
    except Exception as error:
        raise _raised(error, arguments) from _own_lines(error)
    _refuse_changes(function, arguments, given)
    if result is None or result is ...:
        raise Unsolved("it returns nothing")
    return result


def call_on_tape(function: Any, *arguments: Any) -> Any:
    """Call it once more with the very tensors, so that a gradient can reach them."""
    try:
        return function(*arguments)
    except Exception as error:
        raise _raised(error, arguments) from _own_lines(error)


def _raised(error: Exception, arguments: Sequence[Any]) -> CheckFailed:
    given = ", ".join(_describe(argument) for argument in arguments)
    return CheckFailed(f"your code raised {_told(error)} (it was given {given})")


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"shape {tuple(value.shape)}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return f"a {type(value).__name__}" if callable(value) else repr(value)


def _own_lines(error: Exception) -> Exception | None:
    """The error with the lines of the reader's code alone, or None where there are none."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        if not trace.tb_frame.f_code.co_filename.startswith(_INSIDE):
            frames.append(trace)
        trace = trace.tb_next
    own: types.TracebackType | None = None
    for frame in reversed(frames):
        own = types.TracebackType(own, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return None if own is None else error.with_traceback(own)


def _copy(value: Any) -> Any:
    """A copy of tensors, arrays and containers of them; functions and models are handed on."""
    if isinstance(value, nn.Parameter):
        return value
    if isinstance(value, Tensor):
        return value.detach().clone().requires_grad_(value.requires_grad)
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, (list, tuple)):
        return type(value)([_copy(part) for part in value])
    return value


def _is_as_before(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return before.shape == after.shape and torch.equal(before, after)
    if isinstance(before, np.ndarray):
        return np.array_equal(before, after)
    if isinstance(before, (list, tuple)):
        return len(before) == len(after) and all(map(_is_as_before, before, after))
    return True


def _refuse_changes(function: Any, before: Sequence[Any], after: Sequence[Any]) -> None:
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        if not _is_as_before(old, new):
            name = _parameter_name(function, index)
            raise CheckFailed(
                f"your code changes {name} in place, and whoever called it still needs {name} as "
                f"it was: work on a copy, or write x = x + y where you wrote x += y"
            )


def _parameter_name(function: Any, index: int) -> str:
    inner = function.forward if isinstance(function, nn.Module) else function
    try:
        return list(inspect.signature(inner).parameters)[index]
    except (ValueError, TypeError, IndexError):  # a builtin, or *arguments
        return "what it was given"


class _Refusing(TorchFunctionMode):
    """Raise CheckFailed when one of these functions of torch is called."""

    def __init__(self, names: Iterable[str], message: str) -> None:
        super().__init__()
        self.names, self.message = frozenset(names), message

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in self.names:
            raise CheckFailed(self.message)
        return func(*args, **(kwargs or {}))


def without(names: Iterable[str], message: str) -> TorchFunctionMode:
    """While this context is open, a call of torch's functions of these names fails the check."""
    return _Refusing(names, message)


@contextmanager
def replaced(place: Any, **attributes: Any) -> Iterator[None]:
    """For a while, let an object or a class have other attributes."""
    own = vars(place)
    before = {name: own[name] for name in attributes if name in own}
    try:
        for name, value in attributes.items():
            setattr(place, name, value)
        yield
    finally:
        for name in attributes:
            delattr(place, name)
        for name, value in before.items():
            setattr(place, name, value)


# -- comparing -----------------------------------------------------------------------------------


def same_values(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Say whether two tensors have one shape and, up to rounding, the same values."""
    if a.shape != b.shape:
        return False
    return torch.allclose(
        a.detach().cpu().double(), b.detach().cpu().double(), atol=tolerance, rtol=tolerance
    )


def compare(got: Any, want: Tensor, wrong: Wrong, otherwise: str) -> None:
    """Raise CheckFailed unless ``got`` is ``want``, naming the one of ``wrong`` that it is."""
    if not isinstance(got, Tensor):
        raise CheckFailed(f"a tensor was expected, but a {type(got).__name__} came back")
    if same_values(got, want):
        return
    for message, value in wrong:
        if same_values(got, value) and not same_values(value, want):
            raise CheckFailed(message)
    if got.shape != want.shape:
        raise CheckFailed(
            f"the shape is {tuple(got.shape)} where {tuple(want.shape)} was expected: {otherwise}"
        )
    if not torch.isfinite(got).all():
        raise CheckFailed(f"there are values that are not finite: {otherwise}")
    difference = (got.detach().cpu().double() - want.detach().cpu().double()).abs().max().item()
    raise CheckFailed(f"the shape is right, the values are not: {otherwise} "
                      f"(largest difference {difference:.2g})")  # fmt: skip


def compare_counts(
    got: Sequence[Any],
    want: Sequence[int],
    wrong: Sequence[tuple[str, Sequence[float]]],
    given: Sequence[str],
    *,
    whole_floats: bool = False,
) -> None:
    """Compare counts, one for each case; a mistake is named when it explains every case.

    Numbers of NumPy and tensors with one number count as numbers; floats with a whole value do
    where ``whole_floats`` allows them.
    """
    numbers = [_as_number(value) for value in got]
    for number, right, case in zip(numbers, want, given, strict=True):
        if isinstance(number, float) and number == right and not whole_floats:
            raise CheckFailed(
                f"the number is right, but it is a float ({number}), and an int is asked: for "
                f"{case}"
            )
    if numbers == list(want):
        return
    fitting = [message for message, values in wrong if numbers == list(values)]
    if fitting:
        raise CheckFailed(" Or: ".join(dict.fromkeys(fitting)))
    number, case = next(
        (number, case)
        for number, right, case in zip(numbers, want, given, strict=True)
        if number != right
    )
    raise CheckFailed(f"for {case} your answer is {number}, which is not right")


def _as_number(value: Any) -> int | float:
    if isinstance(value, (Tensor, np.ndarray, np.generic)) and math.prod(value.shape) == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise CheckFailed(f"a number was expected, but a {type(value).__name__} came back")
    return value


def as_numbers(got: Any) -> Tensor:
    """A tensor (float64) of what a function of numbers gave: a tensor, an array, an iterable."""
    if not isinstance(got, Tensor):
        plain = isinstance(got, (np.ndarray, np.generic, int, float))
        got = torch.as_tensor(got if plain else [float(value) for value in got])
    return got.detach().double()


def need_gradient(got: Any, *inputs: Tensor) -> None:
    """Raise CheckFailed unless the gradient of a result reaches these inputs."""
    broken = "the values are right, but no gradient flows back to {}: it could not be trained"
    slopes: Sequence[Tensor | None] = [None] * len(inputs)
    if isinstance(got, Tensor) and got.requires_grad:
        try:
            slopes = torch.autograd.grad(got.sum(), inputs, allow_unused=True)
        except RuntimeError as error:
            raise CheckFailed(
                "the values are right, but there is no gradient, since a tensor that it needs was "
                f"changed in place ({_told(error)})"
            ) from None
    if any(slope is None for slope in slopes):
        what = "what it was given" if len(inputs) == 1 else "all that it was given"
        raise CheckFailed(
            broken.format(what) + ". Stay with tensors: .item(), .detach(), float() and NumPy "
            "leave the tape"
        )


# -- modules and models --------------------------------------------------------------------------


def lively(module: nn.Module) -> Any:
    """A copy in eval mode, float32 on the CPU, whose weights are random and large enough to matter.

    At initialisation biases are zero, norms are one and layer scale is tiny: code that leaves
    them out would give the same numbers.
    """
    twin = copy.deepcopy(module).cpu().float().eval()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            noise = torch.randn(parameter.shape)
            if parameter.ndim >= 2 and name.endswith("weight"):
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
            elif parameter.ndim == 1 and name.endswith(("weight", "gamma")):
                parameter.copy_(1 + 0.3 * noise)
            else:
                parameter.copy_(0.5 * noise)
    return twin


def images_for(model: Any, images: Tensor | None, count: int = 4) -> Tensor:
    """The images given, or random ones of the size the model was made for."""
    if images is not None:
        return images.detach().cpu().float()
    if not isinstance(getattr(model, "config", None), ViTConfig):
        raise WrongUse("the model has no vitcore configuration: pass images that it takes")
    return torch.randn(count, model.config.in_channels, *to_pair(model.config.image_size))


def need(module: Any, *names: str) -> None:
    """Raise CheckFailed unless the module has these attributes."""
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise CheckFailed(
            f"{type(module).__name__} has no .{' and no .'.join(missing)}: the check reads the "
            "weights under the names that the book uses"
        )


def parts_of(module: Any, name: str) -> list[Any]:
    """The parts of that name, one a block, of a model; or the module itself.

    A class is made first, with width 24 and 3 heads (an MLP with 48 hidden channels).
    """
    if isinstance(module, type):
        module = call(module, 24, 48 if name == "mlp" else 3)
    if module is None or module is ...:
        raise Unsolved("there is nothing to check so far")
    if not isinstance(module, nn.Module):
        raise WrongUse(f"this check takes a module, but got {type(module).__name__}")
    if hasattr(module, "blocks"):
        blocks = list(cast(Any, module).blocks)
        return blocks if name == "block" else [getattr(block, name) for block in blocks]
    return [module]


def first_of(result: Any) -> Any:
    """Take the output where a module returns it together with something else."""
    return result[0] if isinstance(result, tuple) else result
