# SPDX-License-Identifier: MIT
"""The frame that every check stands in: running one, calling a reader's code, comparing.

A check takes a function, a module or a whole model, tries it on small random input, and compares
it with what is right and with what each known mistake would give. It prints one line when all is
well, raises ``CheckFailed`` with the likely mistake otherwise, and prints "not solved yet" for an
exercise that raises NotImplementedError or returns nothing. Checks change neither what they are
given nor the random state.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from vitcore.patches import to_pair
from vitcore.vit import ViTConfig

TOLERANCE = 1e-4  # far above float32 rounding on these inputs, far below any of the mistakes

Wrong = Sequence[tuple[str, Tensor]]  # what a mistake is called, and what it would have given


class CheckFailed(AssertionError):
    """A check found a mistake; the message names the likely one."""


class Unsolved(Exception):
    """The code under judgement is still the empty frame of an exercise."""


@contextmanager
def judging(passed: str) -> Iterator[None]:
    """Run a check with its own random numbers; say "check passed" or "not solved yet"."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    except Unsolved as reason:
        print(f"not solved yet ({reason})")
    else:
        print(f"check passed: {passed}")


def _describe(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def call(function: Any, *arguments: Any) -> Any:
    """Call the code under judgement; an empty frame is unsolved, any other error a failure."""
    if function is None or function is ...:
        raise Unsolved("there is nothing to check so far")
    if not callable(function):
        raise TypeError(
            f"a check takes a function or a module, but got {type(function).__name__}; "
            "hand it over without calling it"
        )
    try:
        result = function(*arguments)
    except NotImplementedError as error:
        if "not implemented for" not in str(error):  # that one is torch's, about a type
            raise Unsolved("it raises NotImplementedError") from None
        raise CheckFailed(f"your code raised NotImplementedError: {error}") from error
    except CheckFailed:
        raise
    except Exception as error:
        given = ", ".join(_describe(argument) for argument in arguments)
        raise CheckFailed(
            f"your code raised {type(error).__name__}: {error} (it was given {given})"
        ) from error
    if result is None or result is ...:
        raise Unsolved("it returns nothing")
    return result


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


def compare_int(got: Any, want: int, wrong: Sequence[tuple[str, float]], given: str) -> None:
    """Raise CheckFailed unless ``got`` is ``want``, naming the one of ``wrong`` that it is."""
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    if isinstance(got, bool) or not isinstance(got, (int, float)):
        raise CheckFailed(f"a number was expected, but a {type(got).__name__} came back")
    if got == want and isinstance(got, int):
        return
    if got == want:
        raise CheckFailed(f"the number is right, but it is a float ({got}): these are counts")
    for message, value in wrong:
        if got == value and value != want:
            raise CheckFailed(message)
    raise CheckFailed(f"for {given} your answer is {got}, which is not right")


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
        raise TypeError("the model has no vitcore configuration: pass images that it takes")
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
        raise TypeError(f"this check takes a module, but got {type(module).__name__}")
    if hasattr(module, "blocks"):
        blocks = list(cast(Any, module).blocks)
        return blocks if name == "block" else [getattr(block, name) for block in blocks]
    return [module]


def first_of(result: Any) -> Any:
    """Take the output where a module returns it together with something else."""
    return result[0] if isinstance(result, tuple) else result
