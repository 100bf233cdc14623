# SPDX-License-Identifier: MIT
"""Judges of code, one family for each chapter: exercises, "What goes wrong" and tests call them.

A check takes a function, a module or a whole model, tries it on small random input, and compares
it with what is right and with what each known mistake would give. It prints one line when all is
well, raises ``CheckFailed`` with the likely mistake otherwise, and prints "not solved yet" for an
exercise that raises NotImplementedError or returns nothing. Checks change neither what they are
given nor the random state. ``BUGS`` plants the thirteen mistakes that no shape check finds.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .attention import Attention, Record, keep
from .blocks import Block
from .embeddings import TokenLayout
from .patches import PatchEmbed, patchify, to_pair, unpatchify
from .vit import ViT, ViTConfig

TOLERANCE = 1e-4  # far above float32 rounding on these inputs, far below any of the mistakes

Wrong = Sequence[tuple[str, Tensor]]  # what a mistake is called, and what it would have given


class CheckFailed(AssertionError):
    """A check found a mistake; the message names the likely one."""


class _Unsolved(Exception):
    """The code under judgement is still the empty frame of an exercise."""


# -- the frame that every check stands in ------------------------------------------------------


@contextmanager
def _judging(passed: str) -> Iterator[None]:
    """Run a check with its own random numbers; say "check passed" or "not solved yet"."""
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield
    except _Unsolved as reason:
        print(f"not solved yet ({reason})")
    else:
        print(f"check passed: {passed}")


def _describe(value: Any) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _call(function: Any, *arguments: Any) -> Any:
    """Call the code under judgement; an empty frame is unsolved, any other error a failure."""
    if function is None or function is ...:
        raise _Unsolved("there is nothing to check so far")
    if not callable(function):
        raise TypeError(
            f"a check takes a function or a module, but got {type(function).__name__}; "
            "hand it over without calling it"
        )
    try:
        result = function(*arguments)
    except NotImplementedError as error:
        if "not implemented for" not in str(error):  # that one is torch's, about a type
            raise _Unsolved("it raises NotImplementedError") from None
        raise CheckFailed(f"your code raised NotImplementedError: {error}") from error
    except CheckFailed:
        raise
    except Exception as error:
        given = ", ".join(_describe(argument) for argument in arguments)
        raise CheckFailed(
            f"your code raised {type(error).__name__}: {error} (it was given {given})"
        ) from error
    if result is None or result is ...:
        raise _Unsolved("it returns nothing")
    return result


def _same(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    if a.shape != b.shape:
        return False
    return torch.allclose(
        a.detach().cpu().double(), b.detach().cpu().double(), atol=tolerance, rtol=tolerance
    )


def _compare(got: Any, want: Tensor, wrong: Wrong, otherwise: str) -> None:
    """Raise CheckFailed unless ``got`` is ``want``, naming the one of ``wrong`` that it is."""
    if not isinstance(got, Tensor):
        raise CheckFailed(f"a tensor was expected, but a {type(got).__name__} came back")
    if _same(got, want):
        return
    for message, value in wrong:
        if _same(got, value) and not _same(value, want):
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


def _compare_int(got: Any, want: int, wrong: Sequence[tuple[str, float]], given: str) -> None:
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


def _lively(module: nn.Module) -> Any:
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


def _images(model: Any, images: Tensor | None, count: int = 4) -> Tensor:
    """The images given, or random ones of the size the model was made for."""
    if images is not None:
        return images.detach().cpu().float()
    if not isinstance(getattr(model, "config", None), ViTConfig):
        raise TypeError("the model has no vitcore configuration: pass images that it takes")
    return torch.randn(count, model.config.in_channels, *to_pair(model.config.image_size))


def _need(module: Any, *names: str) -> None:
    missing = [name for name in names if not hasattr(module, name)]
    if missing:
        raise CheckFailed(
            f"{type(module).__name__} has no .{' and no .'.join(missing)}: the check reads the "
            "weights under the names that the book uses"
        )


def _parts(module: Any, name: str) -> list[Any]:
    """The parts of that name, one a block, of a model; or the module itself.

    A class is made first, with width 24 and 3 heads (an MLP with 48 hidden channels).
    """
    if isinstance(module, type):
        module = _call(module, 24, 48 if name == "mlp" else 3)
    if module is None or module is ...:
        raise _Unsolved("there is nothing to check so far")
    if not isinstance(module, nn.Module):
        raise TypeError(f"this check takes a module, but got {type(module).__name__}")
    if hasattr(module, "blocks"):
        blocks = list(cast(Any, module).blocks)
        return blocks if name == "block" else [getattr(block, name) for block in blocks]
    return [module]


def _first(result: Any) -> Any:
    return result[0] if isinstance(result, tuple) else result


# -- chapter 1: patches ------------------------------------------------------------------------

_PLAIN = (
    "your tokens hold whole rows of the image, not squares: did you reshape without first "
    "bringing the two axes that run inside a patch together?"
)


def _wrong_patches(images: Tensor, size: int) -> list[tuple[str, Tensor]]:
    batch, channels, height, width = images.shape
    count = (height // size) * (width // size)

    def cut(before: str, after: str) -> Tensor:
        return rearrange(images, f"{before} -> {after}", p1=size, p2=size)

    squares = "b c (h p1) (w p2)"
    length = channels * size * size
    unfolded = images.unfold(2, size, size).unfold(3, size, size)  # (B, C, rows, columns, P, P)
    return [
        (_PLAIN, images.reshape(batch, count, length)),
        (
            "a token holds one channel of several patches, not all channels of one: the axis of "
            "the channels must move behind the grid before it is laid out",
            unfolded.reshape(batch, count, length),
        ),
        (
            "inside a token the values come in the order (p1 p2 c): a convolution's kernel has its "
            "channels in another place",
            cut(squares, "b (h w) (p1 p2 c)"),
        ),
        (
            "the patches are listed column by column: which of the two grid axes runs slowest?",
            cut(squares, "b (w h) (c p1 p2)"),
        ),
        (
            "each patch is turned over its diagonal: rows and columns inside the patch are "
            "exchanged",
            cut(squares, "b (h w) (c p2 p1)"),
        ),
        (
            "each token collects pixels from all over the image: when an axis is split in two, "
            "which part comes first, the grid or the inside of a patch?",
            cut("b c (p1 h) (p2 w)", "b (h w) (c p1 p2)"),
        ),
        (
            "tokens and their values are exchanged: one row for each patch is expected",
            cut(squares, "b (c p1 p2) (h w)"),
        ),
        (
            "the grid still has its two axes: the patches are expected in one sequence",
            cut(squares, "b h w (c p1 p2)"),
        ),
        (
            "each patch still has its three axes: its values are expected in one row",
            cut(squares, "b (h w) c p1 p2"),
        ),
    ]


def check_patchify(patchify: Callable[[Tensor, int], Tensor]) -> None:
    """``patchify(images (B, C, H, W), patch_size) -> (B, N, C*P*P)`` cuts squares, row by row."""
    with _judging("patchify cuts squares, row by row, each in the order (c p1 p2)"):
        for shape, size in (((2, 3, 8, 12), 4), ((3, 1, 6, 4), 2), ((2, 4, 5, 5), 5)):
            images = torch.randn(shape)
            want = F.unfold(images, size, stride=size).transpose(1, 2)
            _compare(
                _call(patchify, images, size),
                want,
                _wrong_patches(images, size),
                f"images {shape} with patches of {size} pixels make {want.shape[1]} tokens "
                f"of {want.shape[2]} values, one square each",
            )


def check_unpatchify(unpatchify: Callable[[Tensor, int, tuple[int, int]], Tensor]) -> None:
    """``unpatchify(tokens, patch_size, (H, W)) -> (B, C, H, W)`` undoes the cut."""
    with _judging("unpatchify puts every square back in its place"):
        for shape, size in (((2, 3, 8, 12), 4), ((3, 1, 6, 4), 2), ((2, 4, 5, 5), 5)):
            batch, channels, height, width = shape
            rows, columns = height // size, width // size
            tokens = torch.randn(batch, rows * columns, channels * size * size)

            def join(before: str, after: str = "b c (h p1) (w p2)") -> Tensor:
                axes = {"h": rows, "w": columns, "p1": size, "p2": size}  # noqa: B023
                return rearrange(tokens, f"{before} -> {after}", **axes)  # noqa: B023

            wrong = [
                (
                    "the tokens were reshaped into an image as they lie in memory: a token then "
                    "becomes rows of the image and not a square",
                    tokens.reshape(shape),
                ),
                (
                    "the values inside a token were read in the order (p1 p2 c)",
                    join("b (h w) (p1 p2 c)"),
                ),
                ("the grid was filled column by column", join("b (w h) (c p1 p2)")),
                ("each patch is turned over its diagonal", join("b (h w) (c p2 p1)")),
                (
                    "the pixels of a patch are scattered over the image: when two axes are joined, "
                    "which comes first, the grid or the inside of a patch?",
                    join("b (h w) (c p1 p2)", "b c (p1 h) (p2 w)"),
                ),
                (
                    "height and width are exchanged",
                    join("b (h w) (c p1 p2)").transpose(2, 3),
                ),
            ]
            _compare(
                _call(unpatchify, tokens, size, (height, width)),
                F.fold(tokens.transpose(1, 2), (height, width), size, stride=size),
                wrong,
                f"tokens {tuple(tokens.shape)} are an image of {height} by {width} pixels cut "
                f"into squares of {size}",
            )


def check_round_trip(
    patchify: Callable[[Tensor, int], Tensor],
    unpatchify: Callable[[Tensor, int, tuple[int, int]], Tensor] = unpatchify,
) -> None:
    """Cutting and joining gives the image back; ``unpatchify`` is vitcore's unless one is given."""
    with _judging("cut and joined again, the images are the same to the last bit"):
        for shape, size in (((2, 3, 8, 12), 4), ((3, 1, 6, 4), 2)):
            images = torch.randn(shape)
            back = _call(unpatchify, _call(patchify, images, size), size, shape[2:])
            joined = [
                (message, F.fold(cut.transpose(1, 2), shape[2:], size, stride=size))
                for message, cut in _wrong_patches(images, size)
                if cut.ndim == 3 and cut.shape[2] == shape[1] * size * size
            ]
            _compare(
                back, images, joined, "the image does not come back: some pixels changed places"
            )


# What the first entries of _wrong_patches are called where no reader's code is to be mended.
_PATCH_MISTAKES = (
    "tokens that hold whole rows of the image",
    "tokens that hold one channel of several patches",
    "the order (p1 p2 c) inside a token",
    "patches that are listed column by column",
    "patches that are turned over their diagonal",
    "tokens that collect pixels from all over the image",
)


def _verdict(test: Any, patchify: Callable[[Tensor, int], Tensor]) -> bool:
    """What a reader's test says of a patchify; a failed assert counts as False."""
    try:
        verdict = _call(test, patchify)
    except CheckFailed as error:
        if isinstance(error.__cause__, AssertionError):
            return False
        raise
    if isinstance(verdict, Tensor) and verdict.numel() == 1:
        verdict = bool(verdict)
    if not isinstance(verdict, bool):
        raise CheckFailed(f"True or False was expected, but a {type(verdict).__name__} came back")
    return verdict


def check_patchify_test(test: Callable[[Callable[[Tensor, int], Tensor]], bool]) -> None:
    """`test(patchify) -> bool` takes the right patchify and refuses six wrong ones."""
    with _judging("your test takes the right patchify and refuses six wrong ones"):
        if not _verdict(test, patchify):
            raise CheckFailed("your test refuses a patchify that is right")
        for number, mistake in enumerate(_PATCH_MISTAKES):

            def wrong(images: Tensor, size: int, number: int = number) -> Tensor:
                return _wrong_patches(images, size)[number][1]

            if _verdict(test, wrong):
                raise CheckFailed(
                    f"your test lets a mistake pass: {mistake}. Which images would show it: how "
                    "many channels, rows and columns of patches, and which values do they need?"
                )


def check_pad_to_patches(pad: Callable[[Tensor, int], Tensor]) -> None:
    """`pad(images (B, C, H, W), patch_size)` adds zeros below and to the right, as few as help."""
    with _judging("the sides divide, and no image is larger than it has to be"):
        for shape, size in (((2, 3, 8, 10), 4), ((1, 1, 28, 28), 5), ((2, 3, 8, 12), 4)):
            images = torch.randn(shape)
            down, right = -shape[2] % size, -shape[3] % size
            whole = shape[2] // size * size, shape[3] // size * size
            wrong = [
                ("the image is cropped: nothing of it should be lost",
                 images[:, :, : whole[0], : whole[1]]),
                ("the zeros stand above and to the left of the image",
                 F.pad(images, (right, 0, down, 0))),
                ("the zeros stand on both sides of the image",
                 F.pad(images, (right // 2, right - right // 2, down // 2, down - down // 2))),
                ("height and width are exchanged: F.pad counts from the last axis",
                 F.pad(images, (0, down, 0, right))),
                ("a side that divides already needs no zeros: what is P - H % P then?",
                 F.pad(images, (0, size - shape[3] % size, 0, size - shape[2] % size))),
                ("the rest of the division is added, not what is missing to the next patch",
                 F.pad(images, (0, shape[3] % size, 0, shape[2] % size))),
            ]  # fmt: skip
            _compare(
                _call(pad, images, size),
                F.pad(images, (0, right, 0, down)),
                wrong,
                f"an image of {shape[2]} by {shape[3]} and patches of {size} pixels",
            )


def check_num_tokens(num_tokens: Callable[[int, int, int], int]) -> None:
    """``num_tokens(height, width, patch_size) -> int``, the number of patches."""
    with _judging("the number of tokens is right, also where height and width differ"):
        for height, width, size in ((28, 28, 7), (224, 224, 16), (32, 48, 4), (12, 8, 4)):
            want = (height // size) * (width // size)
            wrong = [
                ("these are the patches along one side only", height // size),
                ("these are the patches along one side only", width // size),
                ("this counts the pixels of a patch", size * size),
                (
                    "the pixels were divided by P: a patch covers more of them than that",
                    height * width / size,
                ),
                ("is the image always square?", (height // size) ** 2),
                ("is the image always square?", (width // size) ** 2),
                ("the two sides of the grid were added", height // size + width // size),
                ("one too many: the class token is not a patch", want + 1),
            ]
            given = f"an image of {height} by {width} and patches of {size} pixels"
            _compare_int(_call(num_tokens, height, width, size), want, wrong, given)


def check_token_index(token_index: Callable[[int, int, tuple[int, int]], int]) -> None:
    """``token_index(row, column, (rows, columns)) -> int``, a patch's place in the sequence."""
    with _judging("every patch is found at its place in the sequence"):
        rows, columns = 3, 5
        for row in range(rows):
            for column in range(columns):
                wrong = [
                    ("this counts down the columns first", column * rows + row),
                    ("a whole row of patches is skipped by the other side's length",
                     row * rows + column),
                    ("the first place is number 0", row * columns + column + 1),
                ]  # fmt: skip
                given = f"row {row}, column {column} of a grid of {rows} by {columns}"
                got = _call(token_index, row, column, (rows, columns))
                _compare_int(got, row * columns + column, wrong, given)


def check_patch_embed(
    embed: Any, *, patch_size: int | None = None, image_size: tuple[int, int] | None = None
) -> None:
    """The embedding equals a convolution whose kernel is the projection.

    ``embed`` is a model, a module with a ``.proj`` (Conv2d, or Linear with ``patch_size`` told
    here or as an attribute) that returns tokens (B, N, D) or (tokens, grid), or a function
    ``embed(images, weight (D, C, P, P), bias (D,)) -> (B, N, D)``.
    """
    with _judging("the patch embedding equals a convolution with the same kernel"):
        if isinstance(embed, nn.Module):
            module = _lively(getattr(embed, "patch_embed", embed))
            _need(module, "proj")
            weight, bias = module.proj.weight.detach(), module.proj.bias
            size = patch_size or (
                weight.shape[-1] if weight.ndim == 4 else getattr(module, "patch_size", None)
            )
            if size is None:
                raise TypeError("a linear projection does not tell its patch size: pass patch_size")
            kernel = weight.reshape(weight.shape[0], -1, size, size)
            rows, columns = getattr(module, "grid", (2, 3))
            height, width = image_size or (rows * size, columns * size)
            images = torch.randn(2, kernel.shape[1], height, width).to(weight)
            result = _call(module, images)
        else:
            size, (height, width) = patch_size or 4, image_size or (8, 12)
            images, kernel = torch.randn(2, 3, height, width), torch.randn(6, 3, size, size)
            bias = torch.randn(6)
            result = _call(embed, images, kernel, bias)
        want = F.conv2d(images, kernel, bias, stride=size).flatten(2).transpose(1, 2)
        flat = kernel.flatten(1)
        wrong = [
            (message, F.linear(cut, flat, bias))
            for message, cut in _wrong_patches(images, size)
            if cut.ndim == 3 and cut.shape[-1] == flat.shape[1]
        ]
        wrong += [
            ("the bias of the projection is left out", F.conv2d(images, kernel, stride=size)
             .flatten(2).transpose(1, 2)),
            ("tokens and their values are exchanged: one row for each patch is expected",
             want.transpose(1, 2)),
            ("the grid still has its two axes", F.conv2d(images, kernel, bias, stride=size)),
        ]  # fmt: skip
        _compare(
            _first(result), want, wrong,
            "a token is the projection of one square of the image",
        )  # fmt: skip
        grid = (height // size, width // size)
        if isinstance(result, tuple) and tuple(result[1]) != grid:
            raise CheckFailed(
                f"the tokens are right, but the grid is told as {result[1]} where the image has "
                f"{grid[0]} rows and {grid[1]} columns of patches"
            )


# -- chapter 2: embeddings ---------------------------------------------------------------------


def _waves(positions: Tensor, dim: int, *, base: float = 10000.0, step: float = 2.0) -> Tensor:
    angles = positions.double()[:, None] * base ** (-torch.arange(dim // 2).double() * step / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _interleave(table: Tensor) -> Tensor:
    return rearrange(table, "n (two half) -> n (half two)", two=2)


def _swap_halves(table: Tensor) -> Tensor:
    first, second = table.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


def check_sincos_1d(sincos: Callable[[int, int], Tensor]) -> None:
    """``sincos(length, dim) -> (length, dim)``: sines, then cosines, wavelengths 2 pi to 10000."""
    with _judging("the table of sines and cosines is right"):
        for length, dim in ((7, 8), (12, 20)):
            place = torch.arange(length)
            want = _waves(place, dim)
            wrong = [
                ("sines and cosines alternate: this table has all sines in its first half",
                 _interleave(want)),
                ("the cosines come first", _swap_halves(want)),
                ("the positions start at 1", _waves(place + 1, dim)),
                ("the frequencies fall too slowly: how many of them are there, dim or half of it?",
                 _waves(place, dim, step=1.0)),
                ("the frequencies fall too fast: the exponent runs up to 1, not to 2",
                 _waves(place, dim, step=4.0)),
                ("the frequencies grow with the index: the first pair is the fastest",
                 _waves(place, dim, step=-2.0)),
                ("the exponent is missing: every pair turns at the same speed",
                 _waves(place, dim, step=0.0)),
                ("positions and frequencies are exchanged: one row for each position is expected",
                 want.T),
            ]  # fmt: skip
            _compare(
                _call(sincos, length, dim), want, wrong,
                "row n holds the sines and then the cosines of n times the falling frequencies",
            )  # fmt: skip


def check_sincos_2d(sincos: Callable[[tuple[int, int], int], Tensor]) -> None:
    """``sincos((rows, columns), dim) -> (rows*columns, dim)``: column half first, as MAE has it."""
    with _judging("every patch has the waves of its column and of its row"):
        for (rows, columns), dim in (((3, 4), 8), ((5, 2), 16)):
            row = torch.arange(rows).repeat_interleave(columns)
            column = torch.arange(columns).repeat(rows)
            across, down = _waves(column, dim // 2), _waves(row, dim // 2)
            want = torch.cat([across, down], dim=1)
            slow = torch.arange(columns).repeat_interleave(rows), torch.arange(rows).repeat(columns)
            wrong = [
                ("the half of the row comes first here: the book follows MAE's order",
                 torch.cat([down, across], dim=1)),
                ("the patches are listed column by column",
                 torch.cat([_waves(slow[0], dim // 2), _waves(slow[1], dim // 2)], dim=1)),
                ("this is the 1-D table of the patch's number: rows and columns do not show in it",
                 _waves(torch.arange(rows * columns), dim)),
                ("both halves hold the column", torch.cat([across, across], dim=1)),
                ("both halves hold the row", torch.cat([down, down], dim=1)),
                ("the two halves were added, where they stand side by side", across + down),
                ("sines and cosines alternate: this table has all sines of a half first",
                 torch.cat([_interleave(across), _interleave(down)], dim=1)),
                ("the grid still has its two axes", want.reshape(rows, columns, dim)),
            ]  # fmt: skip
            _compare(
                _call(sincos, (rows, columns), dim), want, wrong,
                f"a grid of {rows} by {columns} has one row for each patch, half of it from the "
                "column and half from the row",
            )  # fmt: skip


def check_add_class_token(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``add(tokens (B, N, D), cls_token (1, 1, D)) -> (B, N+1, D)``, class token first."""
    with _judging("every image has the class token in front of its patches"):
        tokens, token = torch.randn(3, 5, 8), torch.randn(1, 1, 8)
        repeated = token.expand(3, 1, 8)
        wrong = [
            ("the class token stands at the end", torch.cat([tokens, repeated], dim=1)),
            ("the class token was added to every patch; it is a token of its own", tokens + token),
            ("the class token took the place of the first patch",
             torch.cat([repeated, tokens[:, 1:]], dim=1)),
            ("the class token was joined along the channels, not along the tokens",
             torch.cat([token.expand(3, 5, 8), tokens], dim=2)),
            ("the class token was joined along the channels, not along the tokens",
             torch.cat([tokens, token.expand(3, 5, 8)], dim=2)),
            ("the class token became one more image of the batch",
             torch.cat([token.expand(1, 5, 8), tokens], dim=0)),
            ("an empty token stands in front: the values of the class token are not used",
             torch.cat([torch.zeros(3, 1, 8), tokens], dim=1)),
        ]  # fmt: skip
        _compare(
            _call(add, tokens, token), torch.cat([repeated, tokens], dim=1), wrong,
            "each image of the batch gets one more token, the same for all images",
        )  # fmt: skip


_ONE_ROW = (
    "all tokens get the same row of the position table: every token must get a row of its own, "
    "or their order is lost"
)
_CLASS_BARE = "the class token gets no position: the table has a row for it as well"
_NO_POSITIONS = "the positions are not added: the tokens come out as they went in"


def check_add_positions(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``add(tokens (B, 1+N, D), table (1, 1+N, D)) -> (B, 1+N, D)``, class token first."""
    with _judging("every token, the class token too, gets its own row of the table"):
        tokens, table = torch.randn(4, 6, 8), torch.randn(1, 6, 8)
        kept = tokens.clone()
        wrong = [(_ONE_ROW, tokens + table[:, i : i + 1]) for i in range(6)]
        wrong += [
            (_ONE_ROW, tokens + table.mean(dim=1, keepdim=True)),
            (_CLASS_BARE, torch.cat([tokens[:, :1], (tokens + table)[:, 1:]], dim=1)),
            (_CLASS_BARE + " (and the others are shifted by one)",
             torch.cat([tokens[:, :1], tokens[:, 1:] + table[:, :-1]], dim=1)),
            (_NO_POSITIONS, tokens),
            ("the rows of the table went to the images of the batch, not to the tokens",
             tokens + table[0, :4, None, :]),
            ("the table was multiplied with the tokens", tokens * table),
            ("the table was joined to the tokens, where it is added",
             torch.cat([tokens, table.expand(4, 6, 8)], dim=2)),
            ("the table was joined to the tokens, where it is added",
             torch.cat([tokens, table.expand(4, 6, 8)], dim=1)),
        ]  # fmt: skip
        got = _call(add, tokens, table)
        if not torch.equal(tokens, kept):
            raise CheckFailed("your function changed the tokens that it was given")
        _compare(got, tokens + table, wrong, "token n of every image gets row n of the table")


def check_resize_positions(resize: Callable[..., Tensor], *, prefix_tokens: int = 1) -> None:
    """``resize(table (1, K+N, D), old_grid, new_grid, prefix_tokens) -> (1, K+M, D)``.

    With ``prefix_tokens=0`` the function is called without its last argument.
    """
    with _judging("the table keeps its meaning on the other grid"):
        for old, new in (((4, 6), (6, 3)), ((5, 5), (3, 3)), ((3, 3), (3, 3))):
            front = torch.randn(1, prefix_tokens, 8)
            table = torch.randn(1, old[0] * old[1], 8)
            grid = rearrange(table, "1 (h w) d -> 1 d h w", h=old[0])

            def to(grid: Tensor, size: tuple[int, int] = new, /, **how: Any) -> Tensor:
                resized = F.interpolate(grid, size=size, **how)
                return torch.cat([front, rearrange(resized, "1 d h w -> 1 (h w) d")], 1)  # noqa: B023

            cubic = {"mode": "bicubic", "antialias": True}
            mixed = table.reshape(1, 8, *old)
            want = to(grid, **cubic)
            patches = want[:, prefix_tokens:]
            wrong = [
                ("the corners are aligned: the outermost patches then keep their values while "
                 "the others drift", to(grid, mode="bicubic", align_corners=True)),
                ("antialias is off: rows are skipped when the grid shrinks",
                 to(grid, mode="bicubic")),
                ("the table is resized linearly, not bicubically",
                 to(grid, mode="bilinear", antialias=True)),
                ("the table is resized linearly, not bicubically", to(grid, mode="bilinear")),
                ("the nearest row is taken, nothing is interpolated", to(grid, mode="nearest")),
                ("the channels were not moved in front of the grid, they were reshaped there: "
                 "every value lands in a wrong place", to(mixed, **cubic)),
                ("rows and columns of the new grid are exchanged", to(grid, new[::-1], **cubic)),
                ("rows and columns of the old grid are exchanged",
                 to(rearrange(table, "1 (h w) d -> 1 d h w", h=old[1]), **cubic)),
                ("the class token's row is lost", patches),
                ("the class token's row moved to the end", torch.cat([patches, front], dim=1)),
                ("the table is as it was", torch.cat([front, table], dim=1)),
            ]  # fmt: skip
            arguments = [torch.cat([front, table], dim=1), old, new, prefix_tokens]
            _compare(
                _call(resize, *arguments[: 4 if prefix_tokens else 3]), want, wrong,
                f"from a grid of {old[0]} by {old[1]} to {new[0]} by {new[1]}",
            )  # fmt: skip


def check_cosine_similarity(similarity: Callable[[Tensor], Tensor]) -> None:
    """``similarity(table (N, D)) -> (N, N)``, the cosine between each two rows."""
    with _judging("the cosine between each two rows is right"):
        table = torch.randn(5, 7)
        unit = F.normalize(table, dim=1)
        across = F.normalize(table, dim=0)
        wrong = [
            ("these are products of rows that still have their own lengths", table @ table.T),
            ("the columns were brought to length one, not the rows", across @ across.T),
            ("this compares the channels with each other, not the rows", across.T @ across),
            ("this compares the channels with each other, not the rows", table.T @ table),
            ("the product was divided by one row's length only",
             table @ table.T / table.norm(dim=1, keepdim=True)),
            ("these are distances, not cosines", torch.cdist(table, table)),
            ("these are distances, not cosines", torch.cdist(unit, unit)),
        ]  # fmt: skip
        _compare(_call(similarity, table), unit @ unit.T, wrong, "entry (i, j) compares two rows")


def check_shift_matrix(shift: Callable[[int, int], Tensor]) -> None:
    """`shift(steps, dim) -> (dim, dim)`: R with `R @ table[n] == table[n + steps]` for every n.

    `table` is the one of `sincos_positions_1d`.
    """
    with _judging("one matrix moves every position by the same number of steps"):
        for steps, dim in ((3, 8), (1, 12)):
            place = torch.arange(20)
            table, want = _waves(place, dim), _waves(place + steps, dim)
            matrix = _call(shift, steps, dim)
            if not isinstance(matrix, Tensor):
                raise CheckFailed(f"a tensor was expected, but a {type(matrix).__name__} came back")
            if tuple(matrix.shape) != (dim, dim):
                raise CheckFailed(
                    f"the shape is {tuple(matrix.shape)} where {(dim, dim)} was expected: the "
                    "matrix takes one row of the table to another"
                )
            angles = steps * 10000.0 ** (-torch.arange(dim // 2).double() * 2 / dim)
            sin, cos = torch.diag(angles.sin()), torch.diag(angles.cos())
            turn = torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)]).float()
            alike = torch.cat([torch.cat([cos, sin], 1), torch.cat([sin, cos], 1)]).float()
            pairs = torch.arange(dim).view(2, -1).T.flatten()
            wrong = [
                ("this steps backwards: which of the two sines has the minus?", table @ turn),
                ("this is the identity: the steps are not used", table),
                ("a rotation has one sine with a minus and one without", table @ alike.T),
                ("this fits a table in which sines and cosines alternate: the sines of this one "
                 "fill the first half", table @ turn[pairs][:, pairs].T),
            ]  # fmt: skip
            _compare(
                table @ matrix.detach().float().T, want, wrong,
                f"for {steps} steps and dim {dim}, R times row n is not row n + {steps}; each "
                "sine and its cosine turn by the steps times their frequency",
            )  # fmt: skip


def check_permute_table(permute: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`permute(table (1, 1+N, D), order (N,)) -> (1, 1+N, D)`: rows that follow their patches.

    `order` says which patch stands at each place after the shuffle, and the class token, whose
    row is the first, stays where it is.
    """
    with _judging("every patch keeps its position wherever the shuffle puts it"):
        table, order = torch.randn(1, 8, 6), torch.tensor([3, 0, 6, 1, 5, 2, 4])
        kept = table.clone()
        front, rows = table[:, :1], table[:, 1:]
        wrong = [
            ("the shuffle goes the wrong way round: the patch that now stands at place j is patch "
             "order[j]", torch.cat([front, rows[:, order.argsort()]], dim=1)),
            ("the rows are off by one: row 0 belongs to the class token, so patch i has row i + 1",
             torch.cat([front, table[:, order]], dim=1)),
            ("the class token's row is lost", rows[:, order]),
            ("the class token's row is lost, and the patches' rows are off by one",
             table[:, order]),
            ("the class token's row moved to the end", torch.cat([rows[:, order], front], dim=1)),
            ("the table is as it was", table),
        ]  # fmt: skip
        got = _call(permute, table, order)
        if not torch.equal(table, kept):
            raise CheckFailed("your function changed the table that it was given")
        _compare(
            got, torch.cat([front, rows[:, order]], dim=1), wrong,
            "the row of patch order[j] belongs at place j, behind the class token's",
        )  # fmt: skip


# -- chapter 3: attention ----------------------------------------------------------------------

_QUERIES = (
    "the softmax runs over the queries: the weights with which one query takes from all keys must "
    "sum to one"
)
_UNSCALED = "the scores are not divided by anything: they grow with the size of a head"


def _wrong_weights(q: Tensor, k: Tensor) -> list[tuple[str, Tensor]]:
    """What mistakes in (B, h, N, d) queries and keys do to the weights (B, h, N, N)."""
    heads, size = q.shape[1], q.shape[-1]
    raw = q @ k.transpose(-2, -1)
    scaled = raw / math.sqrt(size)
    wrong = [
        (_UNSCALED, raw.softmax(-1)),
        (
            "the scores are divided by d itself: dot products of d numbers do not grow that fast",
            (raw / size).softmax(-1),
        ),
        (
            "the scores are divided by D, the width of all heads together, and without a root",
            (raw / (heads * size)).softmax(-1),
        ),
        (
            "the scores are divided by the root of D, the width of all heads together",
            (raw / math.sqrt(heads * size)).softmax(-1),
        ),
        ("the scores are multiplied where they should be divided",
         (raw * math.sqrt(size)).softmax(-1)),
        ("the scores are divided after the softmax", raw.softmax(-1) / math.sqrt(size)),
        (_QUERIES, scaled.softmax(-2)),
        (_QUERIES + "; and nothing is divided by the root of d", raw.softmax(-2)),
        ("queries and keys have exchanged their roles", scaled.transpose(-2, -1).softmax(-1)),
        ("there is no softmax: these are still scores", scaled),
        ("there is no softmax: these are still scores", raw),
    ]  # fmt: skip
    if heads > 1:
        wrong.append(("the softmax runs over the heads", scaled.softmax(1)))
    if q.shape[0] > 1:
        wrong.append(("the softmax runs over the images of the batch", scaled.softmax(0)))
    return wrong


def _wrong_attention(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[str, Tensor]]:
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return [(message, bad @ v) for message, bad in _wrong_weights(q, k)] + [
        ("the weights came back: the values are not used", weights),
        ("the weights were applied to the keys, not to the values", weights @ k),
        ("the weights were applied to the queries, not to the values", weights @ q),
        ("the weights were transposed before they met the values", weights.transpose(-2, -1) @ v),
        ("the values came back as they were: the weights are not used", v),
    ]


def check_softmax_rows(softmax: Callable[[Tensor], Tensor]) -> None:
    """``softmax(scores (..., N, N)) -> (..., N, N)``, over the last axis, also for large scores."""
    with _judging("every row is positive and sums to one, also for large scores"):
        scores = torch.randn(2, 4, 5, 5)
        powers = scores.exp()
        wrong = [
            ("the columns sum to one, not the rows", scores.softmax(-2)),
            ("all entries of a matrix together sum to one, not each row",
             scores.flatten(2).softmax(-1).view_as(scores)),
            ("all entries of the tensor together sum to one, not each row", powers / powers.sum()),
            ("the exponentials are not divided by their sum", powers),
            ("the scores are divided by their sum, without the exponential",
             scores / scores.sum(-1, keepdim=True)),
            ("the sum runs over the heads", scores.softmax(1)),
        ]  # fmt: skip
        _compare(_call(softmax, scores), scores.softmax(-1), wrong, "each row must sum to one")
        large = 1000 * scores[:1]
        if not torch.isfinite(_call(softmax, large)).all():
            raise CheckFailed(
                "right for small scores, but a score of 1000 makes the exponential overflow: "
                "what can be taken from a whole row without changing its softmax?"
            )
        _compare(_call(softmax, large), large.softmax(-1), [], "large scores come out wrong")


def check_attention_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``weights(q, k) -> (B, h, N, N)`` for q and k (B, h, N, d): rows sum to one over the keys."""
    with _judging("the weights of each query over the keys sum to one and are scaled right"):
        q, k = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 16)
        want = (q @ k.transpose(-2, -1) / 4).softmax(-1)
        _compare(
            _call(weights, q, k), want, _wrong_weights(q, k),
            "entry (i, j) says how much query i takes from key j",
        )  # fmt: skip


def check_scaled_attention(attention: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """``attention(q, k, v) -> (B, h, N, d)`` for (B, h, N, d) each; of a tuple the first."""
    with _judging("attention agrees with torch's own kernel"):
        for shape in ((2, 3, 5, 16), (2, 2, 6, 4)):
            q, k, v = torch.randn(3, *shape)
            _compare(
                _first(_call(attention, q, k, v)),
                F.scaled_dot_product_attention(q, k, v),
                _wrong_attention(q, k, v),
                "each query takes a weighted mean of the values",
            )


def check_split_heads(split: Callable[[Tensor, int], Tensor]) -> None:
    """``split(tokens (B, N, D), heads) -> (B, h, N, d)``; head i holds channels i*d to (i+1)*d."""
    with _judging("each head holds its own channels of every token"):
        tokens = torch.randn(2, 5, 12)
        wrong = [
            ("the heads were cut out of the tokens as they lie in memory: a head then holds some "
             "tokens with all channels, not all tokens with some channels",
             tokens.reshape(2, 3, 5, 4)),
            ("a head takes every third channel: its channels should lie side by side",
             rearrange(tokens, "b n (d h) -> b h n d", h=3)),
            ("the heads do not stand in front of the tokens yet", tokens.reshape(2, 5, 3, 4)),
            ("the number of heads and the channels of a head are exchanged",
             rearrange(tokens, "b n (h d) -> b h n d", d=3)),
            ("tokens and channels are exchanged", rearrange(tokens, "b n (h d) -> b h d n", h=3)),
        ]  # fmt: skip
        want = rearrange(tokens, "b n (h d) -> b h n d", h=3)
        _compare(_call(split, tokens, 3), want, wrong, "3 heads share 12 channels")


_UNMERGED = (
    "the heads were merged without bringing a token's channels together first: each output row "
    "mixes several tokens"
)


def check_merge_heads(merge: Callable[[Tensor], Tensor]) -> None:
    """``merge(heads (B, h, N, d)) -> (B, N, D)``, the inverse of splitting."""
    with _judging("each token has the channels of all heads side by side"):
        heads = torch.randn(2, 3, 5, 4)
        wrong = [
            (_UNMERGED, heads.reshape(2, 5, 12)),
            ("the channels of different heads alternate: those of one head should lie side by side",
             rearrange(heads, "b h n d -> b n (d h)")),
            ("the heads are still apart", heads.transpose(1, 2)),
            ("the heads were added, where they stand side by side", heads.sum(1)),
            ("the heads were averaged, where they stand side by side", heads.mean(1)),
        ]  # fmt: skip
        want = rearrange(heads, "b h n d -> b n (h d)")
        _compare(_call(merge, heads), want, wrong, "5 tokens of 12 channels are expected")


def _head_count(module: Any) -> int:
    for name in ("heads", "num_heads"):
        if isinstance(getattr(module, name, None), int):
            return cast(int, getattr(module, name))
    raise CheckFailed(f"{type(module).__name__} has no .heads: the check reads their number there")


def check_multi_head(attention: Any) -> None:
    """Multi-head attention equals torch's kernel for the same weights.

    ``attention`` is a module with ``.qkv``, ``.proj`` and ``.heads``, a class made as
    ``attention(24, 3)``, or a model, each of whose blocks is then judged.
    """
    with _judging("multi-head attention agrees with torch's own for the same weights"):
        for part in _parts(attention, "attn"):
            _judge_multi_head(part)


def _judge_multi_head(attention: Any) -> None:
    _need(attention, "qkv", "proj")
    heads, module = _head_count(attention), _lively(attention)
    dim = module.qkv.in_features
    tokens = torch.randn(3, 5, dim)

    def attend(pattern: str, tokens: Tensor = tokens) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(module.qkv(tokens), f"b n ({pattern}) -> three b h n d",
                            three=3, h=heads)  # fmt: skip
        return q, k, v

    def out(mixed: Tensor) -> Tensor:
        return cast(Tensor, module.proj(rearrange(mixed, "b h n d -> b n (h d)")))

    q, k, v = attend("three h d")
    mixed = F.scaled_dot_product_attention(q, k, v)
    merged = rearrange(mixed, "b h n d -> b n (h d)")
    crossed = out(F.scaled_dot_product_attention(*attend("three h d", tokens.transpose(0, 1))))
    wrong = [
        (message, out(bad)) for message, bad in _wrong_attention(q, k, v) if bad.shape == v.shape
    ] + [
        (_UNMERGED, module.proj(mixed.reshape(tokens.shape))),
        ("the channels of different heads alternate after merging",
         module.proj(rearrange(mixed, "b h n d -> b n (d h)"))),
        ("the output is not projected", merged),
        ("the bias of the output projection is left out", F.linear(merged, module.proj.weight)),
        ("it attends across the batch: token n of one image looks at token n of the others",
         crossed.transpose(0, 1)),
        ("the three parts of qkv are read head by head: the order is all q, all k, all v",
         out(F.scaled_dot_product_attention(*attend("h three d")))),
        ("a head takes every h-th channel: its channels should lie side by side",
         out(F.scaled_dot_product_attention(*attend("three d h")))),
        *(("the three parts of qkv are read in another order than q, k, v",
           out(F.scaled_dot_product_attention(a, b, c)))
          for a, b, c in list(permutations((q, k, v)))[1:]),
        ("there is one head over all channels, where there should be several",
         module.proj(F.scaled_dot_product_attention(*module.qkv(tokens).chunk(3, dim=-1)))),
    ]  # fmt: skip
    _compare(
        _first(_call(module, tokens)), module.proj(merged), wrong,
        f"attention with {heads} heads differs from torch's for the same weights",
    )  # fmt: skip


def check_attention_rows(attention: Any) -> None:
    """Where all values are equal, attention must return them: the weights of a query sum to one.

    ``attention`` is a module with ``.qkv`` and ``.proj``, a class made as ``attention(24, 3)``,
    or a model, each of whose blocks is judged.
    """
    with _judging("every query's weights over the keys sum to one"):
        for part in _parts(attention, "attn"):
            _need(part, "qkv", "proj")
            module = _lively(part)
            dim = module.qkv.in_features
            tokens = 2 * torch.randn(2, 7, dim)
            if module.qkv.bias is None:
                module.qkv.bias = nn.Parameter(torch.zeros(3 * dim))
            with torch.no_grad():  # the value of every token becomes the vector of ones
                module.qkv.weight[2 * dim :] = 0
                module.qkv.weight[: 2 * dim] *= 2
                module.qkv.bias[2 * dim :] = 1
            want = module.proj(torch.ones_like(tokens))
            if not _same(_first(_call(module, tokens)), want):
                raise CheckFailed(
                    "all values are the same, and yet attention does not return them: a query's "
                    "weights over the keys do not sum to one. Over which axis does the softmax "
                    "run?"
                )


def check_independent_of_batch(model: Any, images: Tensor | None = None) -> None:
    """What comes out for one image must not change with the others of its batch.

    ``model`` is a model, an attention, a block, or any function of (B, ...); ``images`` are what it
    takes, random unless given.
    """
    with _judging("the output for an image does not depend on the others in its batch"):
        module = _lively(model) if isinstance(model, nn.Module) else model
        if images is None and hasattr(model, "qkv"):
            images = torch.randn(4, 6, model.qkv.in_features)
        elif images is None and hasattr(model, "attn"):
            images = torch.randn(4, 6, model.attn.qkv.in_features)
        elif images is None and not isinstance(model, nn.Module):
            images = torch.randn(4, 6, 8)
        images = _images(model, images)
        # in a model with a class token attention across the batch can leave the logits the same for
        # every image, since class tokens then see class tokens alone: all tokens are looked at
        run = getattr(module, "forward_features", module)
        whole = _first(_call(run, images))
        others = torch.cat([images[:1], torch.randn_like(images[1:])])
        alone, mixed = _first(_call(run, images[:1])), _first(_call(run, others))
        if whole.shape[0] != images.shape[0] or alone.shape[0] != 1:
            raise CheckFailed(
                f"{images.shape[0]} images went in and {whole.shape[0]} came out: the first axis "
                "is the batch"
            )
        if not (_same(whole[:1], alone) and _same(whole[:1], mixed[:1])):
            raise CheckFailed(
                "what comes out for one image changes with the other images of its batch: does "
                "attention take the batch axis for the tokens (an nn.MultiheadAttention expects "
                "the tokens first), or does a norm or a mean run over the batch?"
            )
        result = _first(_call(module, images))
        if _same(result, result[:1].expand_as(result)):
            raise CheckFailed("the same comes out for every image: nothing of the image is read")


def check_attention_cost(count: Callable[[int, int, int], int]) -> None:
    """``count(tokens, dim, heads) -> int``, the multiplications of one layer for one image."""
    with _judging("four linear maps and two products of N by N"):
        for n, dim, heads in ((16, 64, 4), (197, 768, 12), (10, 6, 1)):
            maps, square = n * dim**2, n**2 * dim
            wrong = [
                ("the output projection is missing", 3 * maps + 2 * square),
                ("queries, keys and values are three maps, not one", 2 * maps + 2 * square),
                ("the four linear maps are missing", 2 * square),
                ("of the two N by N products, scores and weighted sum, only one is counted",
                 4 * maps + square),
                ("the two N by N products are missing", 4 * maps),
                ("a head has d = D/h numbers, not D: all heads together cost what one head of D "
                 "numbers costs", 4 * maps + 2 * square * heads),
                ("that is the cost of the N by N products of one head alone",
                 4 * maps + 2 * square // heads),
                ("that is multiplications and additions together", 8 * maps + 4 * square),
            ]  # fmt: skip
            _compare_int(
                _call(count, n, dim, heads), 4 * maps + 2 * square, wrong,
                f"{n} tokens of width {dim} with {heads} heads",
            )  # fmt: skip


# -- chapter 4: blocks -------------------------------------------------------------------------


def check_layer_norm(norm: Any) -> None:
    """``norm(x (B, N, D), weight, bias)`` with eps 1e-6, or a module with these two."""
    with _judging("the norm agrees with nn.LayerNorm at eps 1e-6"):
        if isinstance(norm, nn.Module):
            _need(norm, "weight", "bias")
            norm = _lively(norm)
            weight, bias = norm.weight.detach(), norm.bias.detach()
            given: tuple[Tensor, ...] = ()
        else:
            weight, bias = 1 + torch.randn(6) / 3, torch.randn(6)
            given = (weight, bias)
        x = 1 + torch.randn(3, 4, weight.shape[0]).to(weight)
        x[1] *= 2e-3  # so small that the place and the size of eps show

        def norm_by(
            axes: tuple[int, ...] = (-1,), eps: float = 1e-6, unbiased: bool = False
        ) -> Tensor:
            variance = x.var(axes, unbiased=unbiased, keepdim=True)
            return (x - x.mean(axes, keepdim=True)) / (variance + eps).sqrt() * weight + bias

        centred = x - x.mean(-1, keepdim=True)
        spread = x.var(-1, unbiased=False, keepdim=True)
        unit = centred / (spread + 1e-6).sqrt()
        wrong = [
            ("is your eps inside the square root, beside the variance?",
             centred / (spread.sqrt() + 1e-6) * weight + bias),
            ("eps is 1e-5, torch's default; ViTs have 1e-6", norm_by(eps=1e-5)),
            ("there is no eps: a token of equal values would divide by zero", norm_by(eps=0.0)),
            ("the variance is divided by D - 1: torch's var does that unless it is told not to",
             norm_by(unbiased=True)),
            ("the mean runs over all tokens of an image as well: each token is normalised alone",
             norm_by((1, 2))),
            ("the mean runs over the tokens, not over the channels", norm_by((1,))),
            ("the mean runs over the batch, not over the channels", norm_by((0,))),
            ("the mean runs over batch and tokens, as in batch norm", norm_by((0, 1))),
            ("the mean runs over everything: each token is normalised alone", norm_by((0, 1, 2))),
            ("the weight and the bias are not used", unit),
            ("the bias is not used", unit * weight),
            ("the weight is not used", unit + bias),
            ("it divides by the variance, not by its root", centred / (spread + 1e-6) * weight
             + bias),
            ("the mean is not taken away",
             x / (spread + 1e-6).sqrt() * weight + bias),
            ("the mean is not taken away",
             x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias),
        ]  # fmt: skip
        _compare(
            _call(norm, x, *given), F.layer_norm(x, weight.shape, weight, bias, 1e-6), wrong,
            "each token is brought to mean 0 and variance 1, then scaled and shifted",
        )  # fmt: skip


def check_gelu(gelu: Callable[[Tensor], Tensor]) -> None:
    """``gelu(x) -> x * Phi(x)``, the exact one with the normal distribution's Phi."""
    with _judging("this is the exact GELU"):
        x = torch.linspace(-4, 4, 81).double()
        phi = torch.distributions.Normal(0.0, 1.0)
        got = _call(gelu, x)
        wrong = [
            ("this is ReLU: GELU lets a little of the negative numbers through", x.relu()),
            ("this is x * sigmoid(x), called SiLU", F.silu(x)),
            ("this is the sigmoid approximation", x * (1.702 * x).sigmoid()),
            ("this is Phi(x) without the factor x", phi.cdf(x)),
            ("this is x times the density, not times the distribution function",
             x * phi.log_prob(x).exp()),
            ("something is missing inside erf: Phi(x) belongs to a variance of 1",
             x * 0.5 * (1 + torch.erf(x))),
            ("a factor of one half is missing", x * (1 + torch.erf(x / math.sqrt(2)))),
        ]  # fmt: skip
        if isinstance(got, Tensor) and _same(got, F.gelu(x, approximate="tanh"), 1e-7):
            raise CheckFailed(
                "this is the tanh approximation: close, but weights from elsewhere expect the "
                "exact one"
            )
        _compare(got, F.gelu(x), wrong, "it is x times the share of a normal variable below x")


def check_mlp(mlp: Any) -> None:
    """A module with ``.fc1`` and ``.fc2``, a class made as ``mlp(24, 48)``, or a model."""
    with _judging("the MLP is linear, exact GELU, linear"):
        for part in _parts(mlp, "mlp"):
            _need(part, "fc1", "fc2")
            module = _lively(part)
            x = 4 * torch.randn(64, 5, module.fc1.in_features)
            hidden = module.fc1(x)
            got = _first(_call(module, x))
            tanh = module.fc2(F.gelu(hidden, approximate="tanh"))
            want = module.fc2(F.gelu(hidden))
            # the two GELUs differ by at most 5e-4, so the nearer one is meant
            if (
                isinstance(got, Tensor)
                and _same(got, tanh, 1e-3)
                and (got - tanh).abs().max() < (got - want).abs().max()
            ):
                raise CheckFailed(
                    "the GELU is the tanh approximation: close, but weights from elsewhere "
                    "expect the exact one"
                )
            wrong = [
                ("there is no activation: two linear maps in a row are one linear map",
                 module.fc2(hidden)),
                ("the activation is ReLU", module.fc2(hidden.relu())),
                ("the activation is SiLU", module.fc2(F.silu(hidden))),
                ("there is an activation after the second layer as well",
                 F.gelu(module.fc2(F.gelu(hidden)))),
                ("the activation comes after the second layer", F.gelu(module.fc2(hidden))),
                ("the input is added inside the MLP: the block does that already", want + x),
            ]  # fmt: skip
            _compare(got, want, wrong, "fc1, exact GELU, fc2 are expected in this order")


def check_layer_scale(scale: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``scale(x (B, N, D), gamma (D,)) -> (B, N, D)``, one factor for each channel."""
    with _judging("every channel has its own factor"):
        x, gamma = torch.randn(2, 4, 4), torch.randn(4)
        wrong = [
            ("the factors went to the tokens, not to the channels", x * gamma[:, None]),
            ("gamma was added; it is a factor", x + gamma),
            ("all channels have the same factor", x * gamma.mean()),
            ("the input is added as well: the block does that", x + x * gamma),
        ]
        _compare(_call(scale, x, gamma), x * gamma, wrong, "channel c is multiplied by gamma[c]")


def check_drop_path(drop: Any) -> None:
    """``drop(x, rate, training)``, or a class made as ``drop(rate)``: whole samples, mean kept."""
    with _judging("drop path takes whole samples, keeps the mean and rests in eval mode"):
        rate, x = 0.2, torch.ones(4000, 3, 2)

        def apply(rate: float, training: bool) -> Tensor:
            if isinstance(drop, type):
                return cast(Tensor, _call(_call(drop, rate).train(training), x))
            return cast(Tensor, _call(drop, x, rate, training))

        if not _same(apply(rate, False), x):
            raise CheckFailed("in eval mode nothing should be dropped or scaled")
        if not _same(apply(0.0, True), x):
            raise CheckFailed("a rate of 0 must leave everything as it is")
        out = apply(rate, True)
        if out.shape != x.shape:
            raise CheckFailed(f"the shape is {tuple(out.shape)} where {tuple(x.shape)} went in")
        if not torch.isfinite(out).all():
            raise CheckFailed("there are values that are not finite: what was divided by what?")
        if (out != out[:, :1, :1]).any():
            raise CheckFailed(
                "within one sample some values are dropped and others are kept: that is dropout. "
                "Drop path takes the whole branch of a sample away, or nothing of it"
            )
        sample = out[:, 0, 0]
        if (sample == sample[0]).all():
            same = "nothing is dropped" if sample[0] != 0 else "everything is dropped"
            raise CheckFailed(f"{same} in the whole batch: is there one draw for each sample?")
        kept = (sample != 0).float().mean().item()
        if abs(kept - (1 - rate)) > 0.05:
            raise CheckFailed(
                f"at a rate of {rate} a share of {kept:.2f} is kept: is the rate the share that "
                "is dropped or the share that is kept?"
            )
        if abs(sample.max().item() - 1 / (1 - rate)) > 1e-4:
            raise CheckFailed(
                "what is kept must be scaled so that the mean over many draws is that of the "
                f"input; here the mean is {out.mean().item():.2f} times the input's"
            )


def check_drop_path_rates(rates: Callable[[float, int], Sequence[float]]) -> None:
    """``rates(largest, depth) -> list``: from 0 in the first block linearly to the largest."""
    with _judging("drop path grows linearly with depth"):
        for largest, depth in ((0.3, 4), (0.1, 12)):
            want = torch.linspace(0, largest, depth)
            got = torch.as_tensor(_call(rates, largest, depth), dtype=torch.float32)
            wrong = [
                ("every block has the same rate", torch.full((depth,), largest)),
                ("the rates fall with depth: early blocks are dropped least", want.flip(0)),
                ("the first block is dropped too: its rate should be 0",
                 torch.arange(1, depth + 1) * largest / depth),
                ("the last block does not reach the largest rate",
                 torch.arange(depth) * largest / depth),
            ]  # fmt: skip
            _compare(got, want, wrong, f"{depth} rates up to {largest} are expected")


def _silence(block: Any) -> Any:
    """A lively copy whose two branches give zero: what is left is the path past them."""
    _need(block, "attn", "mlp")
    _need(block.attn, "proj")
    _need(block.mlp, "fc2")
    twin = _lively(block)
    with torch.no_grad():
        for layer in (twin.attn.proj, twin.mlp.fc2):
            for parameter in layer.parameters():
                parameter.zero_()
    return twin


def _tokens_for(block: Any) -> Tensor:
    return torch.randn(2, 5, block.mlp.fc1.in_features) + 0.5


def check_residual(residual: Any) -> None:
    """``residual(x, branch)`` is x plus the branch of x; or a block or model with branches at zero.

    With the last layers of attention and MLP at zero a block must give back its input.
    """
    with _judging("the input reaches the output past each branch"):
        if isinstance(residual, nn.Module):
            for part in _parts(residual, "block"):
                _judge_identity(part)
            return
        x, matrix = torch.randn(2, 4, 6), torch.randn(6, 6)

        def branch(x: Tensor) -> Tensor:
            return x @ matrix

        wrong = [
            ("the input is lost: only the branch came back", branch(x)),
            ("the branch is not used", x),
            ("the branch was multiplied with the input", x * branch(x)),
            ("the branch was applied to its own result", x + branch(branch(x))),
            ("the branch was applied after the addition", branch(x + branch(x))),
            ("the branch was taken away, where it is added", x - branch(x)),
            ("the mean of both came back: they are added", (x + branch(x)) / 2),
        ]
        _compare(
            _call(residual, x, branch), x + branch(x), wrong,
            "two things meet here, the input and what the branch makes of it",
        )  # fmt: skip


def _judge_identity(block: Any) -> None:
    silent = _silence(block)
    x = _tokens_for(silent)
    out = _first(_call(silent, x))
    if _same(out, x):
        return
    scale = out.detach().abs().max().item()
    if scale == 0:
        raise CheckFailed(
            "with attention and MLP at zero nothing comes out: the input has no way past a branch, "
            "a residual is missing"
        )
    for name in ("norm1", "norm2"):
        norm = getattr(silent, name, None)
        if norm is not None and (_same(out, norm(x)) or _same(out, silent.norm2(silent.norm1(x)))):
            raise CheckFailed(
                "with attention and MLP at zero the block still normalises its input: the norm "
                "stands on the path past the branches (post-norm), where it belongs inside them"
            )
    raise CheckFailed(
        "with attention and MLP at zero the block should give back its input, and it does not: "
        "what stands on the path past the branches?"
    )


def check_pre_norm(block: Any) -> None:
    """The norm stands inside the branches: a block, or a model, is the identity without them."""
    with _judging("the norms stand inside the branches"):
        for part in _parts(block, "block"):
            _need(part, "norm1", "norm2")
            _judge_identity(part)
            loud = _lively(part)  # a norm inside a branch hides the scale of the input from it
            x = 100 * _tokens_for(loud)
            branches, doubled = _first(_call(loud, x)) - x, _first(_call(loud, 2 * x)) - 2 * x
            if not _same(branches, doubled, 0.05):
                raise CheckFailed(
                    "a branch grows with the size of its input: it is not normalised on its way "
                    "into the branch"
                )


def check_block(block: Any) -> None:
    """A block (or each of a model) is x + attn(norm1(x)), then x + mlp(norm2(x)).

    The module has ``.norm1 .attn .norm2 .mlp``, and ``.ls1 .ls2`` where it has layer scale; a class
    is made as ``block(24, 3)``.
    """
    with _judging("the block adds attention and then the MLP, each on normalised tokens"):
        for part in _parts(block, "block"):
            _need(part, "norm1", "attn", "norm2", "mlp")
            b = _lively(part)
            x = _tokens_for(b)

            def attn(x: Tensor, b: Any = b) -> Tensor:
                return cast(Tensor, getattr(b, "ls1", nn.Identity())(_first(b.attn(x))))

            def mlp(x: Tensor, b: Any = b) -> Tensor:
                return cast(Tensor, getattr(b, "ls2", nn.Identity())(b.mlp(x)))

            middle = x + attn(b.norm1(x))
            want = middle + mlp(b.norm2(middle))
            lost = attn(b.norm1(x))
            post = b.norm1(x + attn(x))
            normed = b.norm1(x) + attn(b.norm1(x))
            bare = x + attn(x)
            wrong = [
                ("the residual around attention is missing", lost + mlp(b.norm2(lost))),
                ("the residual around the MLP is missing", mlp(b.norm2(middle))),
                ("both residuals are missing", mlp(b.norm2(lost))),
                ("the norms come after the additions: this is post-norm",
                 b.norm2(post + mlp(post))),
                ("the residual carries the normalised tokens: the path past the branches should "
                 "carry them as they came", normed + mlp(b.norm2(normed))),
                ("the residual carries the normalised tokens: the path past the branches should "
                 "carry them as they came", b.norm2(normed) + mlp(b.norm2(normed))),
                ("the norm before attention is missing", bare + mlp(b.norm2(bare))),
                ("the norm before the MLP is missing", middle + mlp(middle)),
                ("there is no norm at all", bare + mlp(bare)),
                ("the MLP does not see what attention did: the branches stand beside each other",
                 x + attn(b.norm1(x)) + mlp(b.norm2(x))),
                ("the second residual starts from the block's input again",
                 x + mlp(b.norm2(middle))),
                ("one norm is used twice", middle + mlp(b.norm1(middle))),
                ("the MLP comes before attention",
                 (first := x + mlp(b.norm2(x))) + attn(b.norm1(first))),
                ("only the attention half is there", middle),
                ("only the MLP half is there", first),
            ]  # fmt: skip
            _compare(_first(_call(b, x)), want, wrong, "two branches, each normalised and added")


# -- chapter 5: the model ----------------------------------------------------------------------


def _patch_size(model: Any) -> int:
    if isinstance(getattr(model, "config", None), ViTConfig):
        return cast(int, model.config.patch_size)
    _need(model, "patch_embed")
    return cast(int, model.patch_embed.proj.kernel_size[0])


def _unsolved_model(model: Any) -> None:
    if model is None or model is ...:
        raise _Unsolved("there is no model to check so far")


def check_shapes(model: Any, images: Tensor | None = None) -> None:
    """Every tensor of the model has the right shape: what all thirteen of ``BUGS`` pass."""
    with _judging("every shape is right"):
        _unsolved_model(model)
        twin, images = copy.deepcopy(model).cpu().float().eval(), _images(model, images)
        config: ViTConfig = twin.config
        batch, width = images.shape[0], config.dim
        grid = [side // config.patch_size for side in images.shape[2:]]
        count = grid[0] * grid[1] + config.prefix_tokens
        logits, seen = twin.forward_with(images, ["embedding", "tokens", "features", "pooled"])
        found = {
            "logits": (logits, (batch, config.num_classes or width)),
            "embedding": (seen["embedding"], (batch, count, width)),
            "features": (seen["features"], (batch, count, width)),
            "pooled": (seen["pooled"], (batch, width)),
        }
        found.update(
            {f"tokens.{i}": (x, (batch, count, width)) for i, x in enumerate(seen["tokens"])}
        )
        for name, (tensor, want) in found.items():
            if tuple(tensor.shape) != want:
                raise CheckFailed(f"{name} has shape {tuple(tensor.shape)}, expected is {want}")


def check_permutation_equivariance(model: Any, images: Tensor | None = None) -> None:
    """Shuffled patches change the logits where there are positions, and leave them otherwise."""
    with _judging("shuffled patches matter with positions, and do not matter without them"):
        _unsolved_model(model)
        twin, images, size = _lively(model), _images(model, images), _patch_size(model)
        tokens = patchify(images, size)
        order = torch.randperm(tokens.shape[1])
        shuffled = unpatchify(tokens[:, order], size, (images.shape[2], images.shape[3]))
        table = getattr(twin, "pos_embed", None)
        if table is not None:
            if _same(_call(twin, images), _call(twin, shuffled)):
                raise CheckFailed(
                    "an image and the same image with its patches shuffled give the same logits: "
                    "the model does not know where a patch comes from. Are the positions added, "
                    "and does every token get a row of its own?"
                )
            with torch.no_grad():
                table.zero_()
        if not _same(_call(twin, images), _call(twin, shuffled)):
            raise CheckFailed(
                "without positions the order of the patches must not matter, and it does: are the "
                "tokens squares of the image, each treated like all others?"
            )


def _rows_that_matter(twin: Any, images: Tensor) -> list[bool]:
    """Which rows of the position table move the logits, by the gradient with respect to them."""
    table = twin.pos_embed.requires_grad_()
    logits = _call(twin, images)
    (slope,) = torch.autograd.grad(
        (logits * torch.randn_like(logits)).sum(), table, allow_unused=True
    )
    if slope is None:
        return [False] * table.shape[-2]
    return cast("list[bool]", slope.ne(0).any(dim=-1).flatten().tolist())


def _with_table(model: Any) -> Any:
    _unsolved_model(model)
    if getattr(model, "pos_embed", None) is None:
        raise CheckFailed("the model has no table of positions (.pos_embed)")
    return _lively(model)


def check_positions_used(model: Any, images: Tensor | None = None) -> None:
    """Each row of the position table matters to the logits."""
    with _judging("every row of the position table reaches the logits"):
        twin, images = _with_table(model), _images(model, images)
        used = _rows_that_matter(twin, images)
        if all(used):
            return
        if not any(used):
            raise CheckFailed(_NO_POSITIONS)
        if sum(used) == 1:
            raise CheckFailed(_ONE_ROW)
        if used.index(False) == 0 and sum(used) == len(used) - 1:
            raise CheckFailed(_CLASS_BARE)
        raise CheckFailed(
            f"{len(used) - sum(used)} of the {len(used)} rows of the position table do nothing: "
            "every token must get a row of its own"
        )


def check_class_token_position(model: Any, images: Tensor | None = None) -> None:
    """The class token's row of the position table matters to the logits."""
    with _judging("the class token has a position"):
        twin, images = _with_table(model), _images(model, images)
        config = getattr(twin, "config", None)
        if isinstance(config, ViTConfig) and not (config.class_token and config.class_position):
            raise TypeError("this model is made without a class token that has a position")
        if not _rows_that_matter(twin, images)[0]:
            raise CheckFailed(_CLASS_BARE)


def check_identity_at_zero(model: Any, images: Tensor | None = None) -> None:
    """With all branches at zero a model equals itself without blocks, a block gives its input."""
    with _judging("with its branches at zero it hands its input on"):
        _unsolved_model(model)
        for part in _parts(model, "block"):
            _judge_identity(part)
        if hasattr(model, "blocks"):
            twin, images = _lively(model), _images(model, images)
            for block in twin.blocks:
                for layer in (block.attn.proj, block.mlp.fc2):
                    for parameter in layer.parameters():
                        nn.init.zeros_(parameter)
            full = _call(twin, images)
            twin.blocks = type(twin.blocks)()
            if not _same(full, _call(twin, images)):
                raise CheckFailed(
                    "with attention and MLP at zero the blocks should change nothing, and the "
                    "logits differ from those of the model without blocks"
                )


def check_final_norm(model: Any, images: Tensor | None = None) -> None:
    """All that the head reads has passed the final norm.

    With the norm's weight at zero its output is its bias, so the image must not matter any more.
    """
    with _judging("the head reads what has passed the final norm"):
        _unsolved_model(model)
        twin, images = _lively(model), _images(model, images)
        norms = [getattr(twin, name, None) for name in ("norm", "fc_norm")]
        norm = next((n for n in norms if getattr(n, "weight", None) is not None), None)
        if norm is None:
            raise CheckFailed("there is no final norm: the model has none under .norm or .fc_norm")
        with torch.no_grad():
            norm.weight.zero_()
        logits = _call(twin, images)
        if not _same(logits, logits[:1].expand_as(logits)):
            raise CheckFailed(
                "the final norm is passed by: with its weight at zero the head should see the same "
                "for every image, and it does not. Does the head read the tokens as the last block "
                "left them?"
            )
        want = twin.head(norm.bias)
        if not _same(logits[0], want):
            raise CheckFailed("between the final norm and the head something else happens")


def check_readout(model: Any, images: Tensor | None = None, *, pool: str | None = None) -> None:
    """The head reads the class token (``pool="cls"``) or the mean of all patches (``"mean"``).

    The gradient of the logits with respect to the tokens after the final norm says which are read.
    """
    with _judging("the head reads the right tokens"):
        _unsolved_model(model)
        twin, images = _lively(model), _images(model, images)
        _need(twin, "norm")
        config = getattr(twin, "config", None)
        prefix = config.prefix_tokens if isinstance(config, ViTConfig) else 1
        pool = pool or (config.pool if isinstance(config, ViTConfig) else "cls")
        seen: list[Tensor] = []
        handle = twin.norm.register_forward_hook(lambda *given: seen.append(given[-1]))
        logits = _call(twin, images)
        handle.remove()
        if len(seen) != 1 or seen[0].ndim != 3:
            raise CheckFailed("the final norm is not applied once, to all tokens (B, N, D)")
        (slope,) = torch.autograd.grad(
            (logits * torch.randn_like(logits)).sum(), seen[0], allow_unused=True
        )
        if slope is None:
            raise CheckFailed("the head reads nothing of what the final norm gives")
        share = slope.norm(dim=-1).mean(dim=0)
        read = [index for index, value in enumerate(share / share.max()) if value > 1e-4]
        want = [0] if pool == "cls" else list(range(prefix, len(share)))
        if read == want:
            if not _same(share[want] / share.max(), torch.ones(len(want)), 1e-2):
                raise CheckFailed("the patches are read, but not all with the same share")
            return
        names = (
            "all tokens" if len(read) == len(share)
            else f"token {read[0]}" + (" (the last one)" if read[0] == len(share) - 1 else "")
            if len(read) == 1 else f"{len(read)} of {len(share)} tokens"
        )  # fmt: skip
        meant = (
            "the class token, which is token 0" if pool == "cls"
            else f"the {len(want)} patches, without the {prefix} tokens that stand before them"
        )  # fmt: skip
        raise CheckFailed(f"the wrong token is read out: the head reads {names}, meant is {meant}")


def check_mean_pool(pool: Callable[[Tensor, int], Tensor]) -> None:
    """``pool(features (B, K+N, D), prefix_tokens) -> (B, D)``, the mean of the patches alone."""
    with _judging("the mean runs over the patches alone"):
        for prefix in (0, 1, 3):
            x = torch.randn(4, prefix + 5, 6)
            wrong = [
                ("the tokens in front of the patches are in the mean too", x.mean(1)),
                ("one token too many is left out", x[:, prefix + 1 :].mean(1)),
                ("the class token came back, not the mean of the patches", x[:, 0]),
                ("the mean runs over the channels", x[:, prefix:].mean(2)),
                ("the mean runs over the batch", x[:, prefix:].mean(0)),
                ("the patches were added, not averaged", x[:, prefix:].sum(1)),
                ("the largest value came back, not the mean", x[:, prefix:].amax(1)),
            ]
            _compare(
                _call(pool, x, prefix), x[:, prefix:].mean(1), wrong,
                f"{prefix} tokens stand before the patches",
            )  # fmt: skip


def _parameter_parts(c: ViTConfig) -> dict[str, int]:
    height, width = to_pair(c.image_size)
    count = (height // c.patch_size) * (width // c.patch_size)
    hidden = int(c.dim * c.mlp_ratio)
    return {
        "the kernel of the patch embedding": c.in_channels * c.patch_size**2 * c.dim,
        "the bias of the patch embedding": c.dim,
        "the class token": c.dim,
        "the positions": (count + 1) * c.dim,
        "the class token's row of the positions": c.dim,
        "one of the two norms of each block": c.depth * 2 * c.dim,
        "the weights of qkv": c.depth * 3 * c.dim**2,
        "the biases of qkv": c.depth * 3 * c.dim,
        "the weights of the projection after attention": c.depth * c.dim**2,
        "the biases of the projection after attention": c.depth * c.dim,
        "the weights of one of the MLP's two layers": c.depth * c.dim * hidden,
        "the bias of the MLP's first layer": c.depth * hidden,
        "the bias of the MLP's second layer": c.depth * c.dim,
        "the biases of the MLP": c.depth * (hidden + c.dim),
        "the final norm": 2 * c.dim,
        "the head": c.num_classes * (c.dim + 1),
        "the bias of the head": c.num_classes,
        "all norms": (c.depth * 4 + 2) * c.dim,
        "the biases of the norms": (c.depth * 2 + 1) * c.dim,
    }


def check_parameter_count(count: Callable[[ViTConfig], int]) -> None:
    """``count(config) -> int``, the parameters of a ViT with class token and learned positions."""
    with _judging("the formula gives what counting gives"):
        base = ViTConfig(image_size=(24, 16), patch_size=4, in_channels=3, num_classes=7, dim=20,
                         depth=3, heads=2)  # fmt: skip
        other = replace(base, image_size=28, patch_size=7, in_channels=1, dim=24, depth=5,
                        mlp_ratio=2.0)  # fmt: skip
        for config in (base, other):
            want = sum(p.numel() for p in ViT(config).parameters())
            wrong: list[tuple[str, float]] = []
            for name, size in _parameter_parts(config).items():
                wrong += [
                    (f"the count is short by exactly {name}", want - size),
                    (f"the count has exactly {name} too much", want + size),
                ]
            _compare_int(_call(count, config), want, wrong, f"{config}")


def check_crossover(tokens: Callable[[int], int]) -> None:
    """``tokens(dim) -> int``, the smallest N for which 2 N² D is more than 12 N D²."""
    with _judging("from this N on the products of attention are the larger part"):
        for dim in (64, 192, 768):
            want = 6 * dim + 1
            wrong = [
                ("at this N both are equal: the products must take more", want - 1),
                ("only one of the two products was counted", 12 * dim + 1),
                ("the MLP was not counted among the linear maps", 2 * dim + 1),
                ("attention's linear maps were not counted", 4 * dim + 1),
            ]
            _compare_int(_call(tokens, dim), want, wrong, f"dim {dim}")


def check_initial_loss(model: Any, images: Tensor | None = None) -> None:
    """Before training the loss is near ln(K): the model prefers no class."""
    with _judging("the loss before training is near that of a guess"):
        _unsolved_model(model)
        twin, images = copy.deepcopy(model).cpu().float().eval(), _images(model, images, 32)
        with torch.no_grad():
            logits = _call(twin, images)
        if logits.ndim != 2:
            raise CheckFailed(f"logits (B, K) are expected, but their shape is {logits.shape}")
        classes = logits.shape[1]
        if (logits >= 0).all() and _same(logits.sum(1), torch.ones(len(logits))):
            raise CheckFailed(
                "what comes out are probabilities: cross-entropy applies the softmax itself, so a "
                "model gives logits"
            )
        labels = torch.arange(len(logits)) % classes
        loss, guess = F.cross_entropy(logits, labels).item(), math.log(classes)
        if not abs(loss - guess) < 0.3:
            raise CheckFailed(
                f"the loss before training is {loss:.2f}, while guessing among {classes} classes "
                f"costs {guess:.2f}: the model starts with an opinion. Are its weights drawn with "
                "too large a deviation?"
            )


def check_same_logits(model_a: Any, model_b: Any, images: Tensor, tolerance: float = 1e-5) -> None:
    """Two models with the same weights give the same logits for the same images."""
    with _judging("both models give the same logits"):
        _unsolved_model(model_a)
        _unsolved_model(model_b)
        modes = [(m, m.training) for m in (model_a, model_b) if isinstance(m, nn.Module)]
        try:
            for module, _ in modes:
                module.eval()
            with torch.no_grad():
                a, b = _call(model_a, images), _call(model_b, images)
        finally:
            for module, mode in modes:
                module.train(mode)
        if a.shape != b.shape:
            raise CheckFailed(f"the logits have shapes {tuple(a.shape)} and {tuple(b.shape)}")
        difference = (a.double() - b.double()).abs().max().item()
        if difference <= tolerance:
            return
        hints = []
        traits: dict[str, list[set[Any]]] = {
            "the eps of the norms": [
                {m.eps for m in module.modules() if isinstance(m, nn.LayerNorm)}
                for module, _ in modes
            ],
            "the kind of GELU": [
                {m.approximate for m in module.modules() if isinstance(m, nn.GELU)}
                for module, _ in modes
            ],
        }
        for what, found in traits.items():
            if len(found) == 2 and all(found) and found[0] != found[1]:
                hints.append(f"{what} differs ({found[0]} and {found[1]})")
        raise CheckFailed(
            f"the logits differ by up to {difference:.2g}, allowed is {tolerance:.0e}: "
            + ("; ".join(hints) if hints else "are the weights the same, and all of them used?")
        )


# -- chapter 6: training -----------------------------------------------------------------------


def check_normalise(normalise: Callable[..., Tensor]) -> None:
    """``normalise(images uint8 (B, C, H, W), mean, std) -> float``, mean and std of [0, 1]."""
    with _judging("the images have the mean and the deviation that training expects"):
        images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
        m, s = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        x = images.float()
        wrong = [
            ("the images were not brought to the range from 0 to 1 first", (x - m) / s),
            ("the images are in the range from 0 to 1, but mean and std are not used", x / 255),
            ("it multiplies by the deviation, where it should divide", (x / 255 - m) * s),
            ("the mean is taken away after the division", x / 255 / s - m),
            ("the mean is not taken away", x / 255 / s),
            ("it does not divide by the deviation", x / 255 - m),
            ("it divides by 256: the largest value is 255", (x / 256 - m) / s),
            ("all channels are treated alike", (x / 255 - m[0]) / s[0]),
        ]
        _compare(_call(normalise, images, mean, std), (x / 255 - m) / s, wrong,
                 "each channel has a mean and a deviation of its own")  # fmt: skip


def check_cross_entropy(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``loss(logits (B, K), labels (B,)) -> scalar``, the mean of -ln p(label)."""
    with _judging("this is cross-entropy on logits"):
        logits, labels = 3 * torch.randn(6, 10), torch.tensor([3, 1, 4, 1, 5, 9])
        log_p = logits.log_softmax(1)
        own = log_p[torch.arange(6), labels]
        wrong = [
            ("the softmax is applied twice: cross-entropy takes logits and applies it itself",
             F.cross_entropy(logits.softmax(1), labels)),
            ("the losses of the batch are added, not averaged", -own.sum()),
            ("there is one loss for each image: the mean over the batch is expected", -own),
            ("the sign is wrong: the loss falls when the label gets less likely", own.mean()),
            ("the logarithm is missing", -own.exp().mean()),
            ("the logarithm is missing", own.exp().mean()),
            ("the softmax is missing", -logits[torch.arange(6), labels].mean()),
            ("the mean runs over the classes as well", -own.sum() / log_p.numel()),
            ("the softmax runs over the batch", F.nll_loss(logits.log_softmax(0), labels)),
            ("the logarithm is to base 2", -own.mean() / math.log(2)),
        ]  # fmt: skip
        want = F.cross_entropy(logits, labels)
        got = _call(loss, logits, labels)
        _compare(torch.as_tensor(got) if isinstance(got, float) else got, want, wrong,
                 "the mean over the batch of -ln of the label's probability")  # fmt: skip
        if not torch.isfinite(torch.as_tensor(_call(loss, 200 * logits, labels))):
            raise CheckFailed(
                "right for small logits, but for large ones the loss is not finite: the logarithm "
                "of a probability that was rounded to zero"
            )


def check_accuracy(accuracy: Callable[[Sequence[tuple[Tensor, Tensor]]], float]) -> None:
    """``accuracy(batches of (logits (B, K), labels (B,))) -> float`` in [0, 1], over all images."""
    with _judging("the accuracy counts images, also where batches differ in size"):
        sizes, right = (8, 8, 2), (6, 3, 2)
        batches = []
        for size, hits in zip(sizes, right, strict=True):
            labels = torch.randint(0, 5, (size,))
            said = torch.where(torch.arange(size) < hits, labels, (labels + 1) % 5)
            batches.append((F.one_hot(said, 5).float() + 0.1 * torch.rand(size, 5), labels))
        shares = [hits / size for hits, size in zip(right, sizes, strict=True)]
        want = sum(right) / sum(sizes)
        wrong = [
            ("the batches' accuracies are averaged, although the last batch is smaller",
             torch.tensor(sum(shares) / 3)),
            ("this is the number of right answers, not their share", torch.tensor(sum(right))),
            ("this is the share of mistakes", torch.tensor(1 - want)),
            ("only the last batch counts", torch.tensor(shares[-1])),
            ("only the first batch counts", torch.tensor(shares[0])),
            ("this is in percent: a share from 0 to 1 is expected", torch.tensor(100 * want)),
            ("it divides by the number of batches", torch.tensor(sum(right) / 3)),
        ]  # fmt: skip
        got = _call(accuracy, batches)
        _compare(torch.as_tensor(got), torch.tensor(want), wrong, "right answers over all images")


def check_confusion_matrix(confusion: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """``confusion(labels (M,), predictions (M,), classes) -> (K, K)``, one row for each label."""
    with _judging("row i, column j counts the images of class i that were taken for j"):
        labels, said = torch.randint(0, 4, (60,)), torch.randint(0, 4, (60,))
        want = torch.zeros(5, 5)
        want.index_put_((labels, said), torch.ones(60), accumulate=True)
        flat = torch.zeros(5, 5)
        flat[labels, said] = 1
        wrong = [
            ("rows and columns are exchanged: the true class names the row", want.T),
            ("it says whether a pair occurs; how often is expected", flat),
            ("the rows were divided by their sums: counts are expected",
             want / want.sum(1, keepdim=True).clamp(min=1)),
            ("a class that does not occur still has its row and its column", want[:4, :4]),
            ("only the right answers are counted", want.diag().diag()),
        ]  # fmt: skip
        _compare(_call(confusion, labels, said, 5), want, wrong, "60 images of 5 classes")


def check_split(split: Callable[[int, int, int], tuple[Tensor, Tensor]]) -> None:
    """``split(count, validation, seed) -> (train, validation)``, shuffled places."""
    with _judging("training and validation share no image, and the seed decides which is which"):
        state = torch.random.get_rng_state()
        result = _call(split, 100, 20, 0)
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise CheckFailed("two things are expected back: the training and the validation part")
        train, validation = (torch.as_tensor(part).tolist() for part in result)
        if (len(train), len(validation)) == (20, 80):
            raise CheckFailed("the two parts are exchanged: training comes first")
        if (len(train), len(validation)) == (100, 20):
            raise CheckFailed("the validation images are still in the training part")
        if (len(train), len(validation)) != (80, 20):
            raise CheckFailed(
                f"of 100 images 20 are for validation; you have {len(train)} and {len(validation)}"
            )
        if set(train) & set(validation):
            raise CheckFailed("some images are in both parts: validation must not be trained on")
        if sorted(train + validation) != list(range(100)):
            raise CheckFailed("some images are in neither part, or twice in one")
        if sorted(validation) in (list(range(20)), list(range(80, 100))):
            raise CheckFailed(
                "the validation part is one end of the data: files are often sorted by class"
            )
        again, other = _call(split, 100, 20, 0)[1], _call(split, 100, 20, 1)[1]
        if torch.as_tensor(again).tolist() != validation:
            raise CheckFailed("the same seed gives another split: validation images leak over time")
        if sorted(torch.as_tensor(other).tolist()) == sorted(validation):
            raise CheckFailed("the seed is not used: every seed gives the same split")
        if not torch.equal(torch.random.get_rng_state(), state):
            raise CheckFailed(
                "the split sets the random numbers of the whole program: let it have a generator "
                "of its own"
            )


# -- chapter 7: the recipe ---------------------------------------------------------------------


def check_schedule(schedule: Callable[..., float]) -> None:
    """``schedule(step, total, warmup, lr, min_lr) -> float``, linear warmup, then half a cosine.

    Steps count from 0; the last step of the warmup has ``lr``, the last step of all ``min_lr``.
    """
    with _judging("the rate rises in the warmup and falls along half a cosine"):
        total, warmup, lr, low = 40, 8, 2.0, 0.2

        def curve(
            rise: Callable[[int], float], fall: Callable[[float], float], shift: int = 1
        ) -> Tensor:
            after = [
                fall((step - warmup + shift) / (total - warmup)) for step in range(warmup, total)
            ]
            return torch.tensor([*(rise(step) for step in range(warmup)), *after])

        def rise(step: int) -> float:
            return lr * (step + 1) / warmup

        def fall(done: float) -> float:
            return low + (lr - low) * (1 + math.cos(math.pi * done)) / 2

        want = curve(rise, fall)
        whole = torch.tensor(
            [low + (lr - low) * (1 + math.cos(math.pi * (s + 1) / total)) / 2 for s in range(total)]
        )
        wrong = [
            ("the first step has the rate 0, so that it teaches nothing: count it as step 1",
             curve(lambda step: lr * step / warmup, fall, 0)),
            ("the first step has the rate 0, so that it teaches nothing: count it as step 1",
             curve(lambda step: lr * step / warmup, fall)),
            ("the last step of all does not reach min_lr: the fall is one step late",
             curve(rise, fall, 0)),
            ("there is no warmup: the cosine begins at the first step", whole),
            ("the cosine counts from step 0, not from the end of the warmup",
             torch.cat([want[:warmup], whole[warmup:]])),
            ("the fall ends at 0 and not at min_lr",
             curve(rise, lambda done: lr * (1 + math.cos(math.pi * done)) / 2)),
            ("the fall is lifted by min_lr as a whole, so that it begins above lr",
             curve(rise, lambda done: low + lr * (1 + math.cos(math.pi * done)) / 2)),
            ("this is a quarter of a cosine, which still falls fast at its end: half of one "
             "goes from pi 0 to pi 1",
             curve(rise, lambda done: low + (lr - low) * math.cos(math.pi * done / 2))),
            ("this is a whole cosine: it comes back up to lr",
             curve(rise, lambda done: low + (lr - low) * (1 + math.cos(2 * math.pi * done)) / 2)),
            ("the fall is a straight line, not a cosine",
             curve(rise, lambda done: lr + (low - lr) * done)),
        ]  # fmt: skip
        rates = [_call(schedule, step, total, warmup, lr, low) for step in range(total)]
        _compare(
            torch.tensor([float(rate) for rate in rates]), want, wrong,
            f"of {total} steps the first {warmup} rise to lr, the rest falls to min_lr",
        )  # fmt: skip


def check_draws_per_image(augment: Callable[..., Tensor]) -> None:
    """``augment(images (B, C, H, W), generator) -> images`` draws anew for every image."""
    with _judging("every image of the batch has a draw of its own"):
        one = torch.rand(1, 3, 16, 16)
        images = one.expand(64, -1, -1, -1).clone()
        given = images.clone()
        state = torch.random.get_rng_state()
        changed = _call(augment, images, torch.Generator().manual_seed(1))
        if not isinstance(changed, Tensor) or changed.shape != images.shape:
            raise CheckFailed(
                f"images {tuple(images.shape)} are expected back, in the shape they came in"
            )
        if not torch.equal(images, given):
            raise CheckFailed("the images that were given are changed in place: work on a copy")
        if not torch.equal(torch.random.get_rng_state(), state):
            raise CheckFailed(
                "the draws come from the random numbers of the whole program: use the generator"
            )
        again = _call(augment, images, torch.Generator().manual_seed(1))
        if not _same(again, changed):
            raise CheckFailed("the same generator gives other images the second time")
        # A coin thrown once for the whole batch leaves it as it is every other time.
        seen = [
            _call(augment, images, torch.Generator().manual_seed(seed)) for seed in range(2, 14)
        ]
        if all(_same(batch, images) for batch in (changed, *seen)):
            raise CheckFailed("the images come back as they were: nothing is changed")
        if all(_same(batch, batch[:1].expand_as(batch)) for batch in (changed, *seen)):
            raise CheckFailed(
                "one draw for the whole batch: 64 equal images are changed alike. Draw a tensor "
                "with one number for each image, not one number"
            )


def check_mixup(mixup: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``mixup(images (B, C, H, W), targets (B, K), share (B,)) -> (images, targets)``.

    Each image is blended with the one before it in the batch; share is how much is its own.
    """
    with _judging("images and targets are blended alike, each pair by its own share"):
        images, targets = torch.rand(6, 3, 4, 5), torch.eye(6)
        share = torch.tensor([0.9, 0.2, 0.55, 0.7, 1.0, 0.35])
        result = _pair(mixup, images, targets, share)

        def blend(x: Tensor, part: Tensor, by: int = 1) -> Tensor:
            part = part.view(-1, *[1] * (x.ndim - 1))
            return part * x + (1 - part) * x.roll(by, 0)

        _compare(
            result[0], blend(images, share),
            [
                ("the shares are exchanged: share is how much of the image itself is kept",
                 blend(images, 1 - share)),
                ("all images are mixed by the share of the first: each has its own",
                 blend(images, share[:1].expand(6))),
                ("each image is mixed with the one after it: before is asked, as the targets are",
                 blend(images, share, -1)),
                ("the images are not mixed", images),
                ("the image is darkened by its share, but nothing of the other is added",
                 share.view(-1, 1, 1, 1) * images),
                ("the two are added in full, and get too bright", images + images.roll(1, 0)),
            ],
            "share of the image itself, the rest of the one before it in the batch",
        )  # fmt: skip
        _compare(
            result[1], blend(targets, share),
            [
                ("the targets are not mixed: the loss then asks for one of two classes seen",
                 targets),
                ("the shares of the targets are exchanged", blend(targets, 1 - share)),
                ("the targets are mixed with those after, the images with those before",
                 blend(targets, share, -1)),
                ("all targets are mixed by the share of the first",
                 blend(targets, share[:1].expand(6))),
                ("both classes get one half, whatever was drawn", blend(targets, share * 0 + 0.5)),
            ],
            "the targets are blended by the same shares as the images, each row sums to one",
        )  # fmt: skip


def _pair(function: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Call what gives images and targets; a failure where it gives something else."""
    result = _call(function, *arguments)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise CheckFailed("two things are expected back: the images and the targets")
    return result[0], result[1]


def check_cutmix(cutmix: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``cutmix(images (B, C, H, W), targets (B, K), box (B, 4)) -> (images, targets)``.

    box: top, left, bottom, right in pixels, the last two outside. Inside it stands the image before
    in the batch; the targets are shared by area.
    """
    with _judging("the box holds the other image, and the targets count its pixels"):
        images, targets = torch.rand(4, 3, 8, 10), torch.eye(4)
        box = torch.tensor([[0, 0, 3, 10], [2, 3, 6, 5], [5, 1, 8, 9], [4, 4, 4, 4]])

        def paste(rows: tuple[int, int] = (0, 2), own: bool = True, by: int = 1) -> Tensor:
            out = images.clone()
            for i, edges in enumerate(box.tolist()):
                top, bottom = edges[rows[0]], edges[rows[1]]
                left, right = edges[1 - rows[0]], edges[5 - rows[1]]
                inside = torch.zeros(8, 10, dtype=torch.bool)
                inside[top:bottom, left:right] = True
                out[i] = torch.where(inside == own, images.roll(by, 0)[i], images[i])
            return out

        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / 80

        def share(part: Tensor, by: int = 1) -> Tensor:
            part = part.view(-1, 1)
            return (1 - part) * targets + part * targets.roll(by, 0)

        result = _pair(cutmix, images, targets, box)
        dark = paste()
        for i, (top, left, bottom, right) in enumerate(box.tolist()):
            dark[i, :, top:bottom, left:right] = 0
        _compare(
            result[0], paste(),
            [
                ("rows and columns are exchanged: the box is top, left, bottom, right",
                 paste(rows=(1, 3))),
                ("the other image stands around the box, not in it", paste(own=False)),
                ("the box holds the image after, where the one before is asked", paste(by=-1)),
                ("the box is empty: the other image belongs into it", dark),
                ("nothing is pasted", images),
            ],
            "a box of the image before, in its own place",
        )  # fmt: skip
        _compare(
            result[1], share(area),
            [
                ("the targets are not shared", targets),
                ("the shares are exchanged: what is pasted has the box's share of the area",
                 share(1 - area)),
                ("the targets are shared with those after, the images with those before",
                 share(area, -1)),
                ("the share is the box's height by the image's: both sides count",
                 share((box[:, 2] - box[:, 0]) / 8)),
                ("both classes get one half, whatever the box", share(area * 0 + 0.5)),
            ],
            "the box's share of all pixels belongs to the class that was pasted",
        )  # fmt: skip


def check_erase(erase: Callable[..., Tensor]) -> None:
    """``erase(images (B, C, H, W), top, left, height, width (B,)) -> images``, a box each to 0."""
    with _judging("each image has its own box set to zero"):
        images = torch.rand(3, 2, 6, 9) + 0.1
        top, left = torch.tensor([0, 2, 3]), torch.tensor([1, 4, 0])
        height, width = torch.tensor([2, 3, 2]), torch.tensor([5, 2, 6])

        def blank(a: Tensor, b: Tensor, h: Tensor, w: Tensor) -> Tensor:
            out = images.clone()
            for i in range(len(images)):
                out[i, :, int(a[i]) : int(a[i] + h[i]), int(b[i]) : int(b[i] + w[i])] = 0
            return out

        want, given = blank(top, left, height, width), images.clone()
        got = _call(erase, images, top, left, height, width)
        if not torch.equal(images, given):
            raise CheckFailed("the images that were given are changed in place: work on a copy")
        _compare(
            got, want,
            [
                ("rows and columns are exchanged", blank(left, top, width, height)),
                ("height and width are exchanged", blank(top, left, width, height)),
                ("every image has the box of the first", blank(
                    *(v[:1].expand(3) for v in (top, left, height, width)))),
                ("the box is kept and all around it is erased", images - want),
                ("height and width are taken for the bottom and the right edge",
                 blank(top, left, (height - top).clamp(min=0), (width - left).clamp(min=0))),
                ("the box is one row and one column too large",
                 blank(top, left, height + 1, width + 1)),
                ("only the first channel is erased",
                 torch.cat([want[:, :1], images[:, 1:]], dim=1)),
                ("nothing is erased", images),
            ],
            "the box begins at (top, left) and is height by width pixels",
        )  # fmt: skip


def check_group_accuracy(accuracy: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """``accuracy(logits (B, K), labels (B,), group_of (K,)) -> float``, right group, any class."""
    with _judging("an answer counts when its group is right"):
        group_of = torch.tensor([0, 1, 0, 2, 1, 2])
        labels = torch.tensor([0, 1, 2, 3, 4, 5, 0, 5, 1, 3, 5])
        said = torch.tensor([0, 1, 2, 3, 4, 5, 2, 3, 0, 2, 2])
        logits = F.one_hot(said, 6) + 0.1 * torch.rand(11, 6)
        right = group_of[said] == group_of[labels]
        want = right.double().mean()
        wrong = [
            ("this is the share of the right classes: the group is asked",
             (said == labels).double().mean()),
            ("only mistakes within the group are counted: right classes are in the right group too",
             (right & (said != labels)).double().mean()),
            ("the number of the predicted class is compared with the group of the label",
             (said == group_of[labels]).double().mean()),
            ("this is the number of right answers, not their share", right.double().sum()),
            ("this is the share of mistakes", 1 - want),
        ]  # fmt: skip
        got = _call(accuracy, logits, labels, group_of)
        _compare(
            torch.as_tensor(got), want, wrong, "the group of the best class against the label's"
        )


def check_average(step: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    """``step(average, weights, decay) -> average``, one step of a moving average."""
    with _judging("the average keeps its share and takes a little of the weights"):
        average, weights, decay = torch.randn(4, 5), torch.randn(4, 5), 0.98
        kept = average.clone()
        wrong = [
            ("the shares are exchanged: the average keeps the decay, the weights get the rest",
             (1 - decay) * average + decay * weights),
            ("the average is multiplied by the decay, and the weights are added in full",
             decay * average + weights),
            ("the average moves away from the weights",
             average + (1 - decay) * (average - weights)),
            ("this is the mean of both: the decay is not used", (average + weights) / 2),
            ("the average does not move", average),
            ("the weights take the place of the average", weights),
        ]  # fmt: skip
        _compare(
            _call(step, average, weights, decay), decay * kept + (1 - decay) * weights, wrong,
            "decay of the average, 1 - decay of the weights",
        )  # fmt: skip


def check_average_shares(shares: Callable[[float, int], Any]) -> None:
    """``shares(decay, steps) -> (steps,)``: what each of the last weights counts, newest first."""
    with _judging("the shares fall by the decay from step to step"):
        for decay, steps in ((0.9, 30), (0.5, 6)):
            past = torch.arange(steps, dtype=torch.float64)
            want = (1 - decay) * decay**past
            wrong = [
                ("the newest weights come first, the oldest last", want.flip(0)),
                ("the newest weights count 1: they enter with 1 - decay", decay**past),
                ("the newest weights are multiplied by the decay already",
                 (1 - decay) * decay ** (past + 1)),
                ("all weights count alike: this is a mean over a window",
                 torch.full_like(want, 1 / steps)),
                ("the shares fall along a straight line", (1 - decay) * (1 - past / steps)),
                ("they are scaled to sum to one: what is missing is the share of the start",
                 want / want.sum()),
            ]  # fmt: skip
            got = _call(shares, decay, steps)
            _compare(
                torch.as_tensor(got, dtype=torch.float64), want, wrong,
                f"decay {decay}, the last {steps} weights",
            )  # fmt: skip


def check_param_groups(groups: Callable[[nn.Module, float], Any]) -> None:
    """``groups(model, weight_decay) -> [{"params": ..., "weight_decay": ...}]`` for an optimiser.

    Matrices decay; positions, tokens and everything with one axis do not.
    """
    with _judging("matrices decay, positions, tokens, biases and norms do not"):
        model = ViT(image_size=8, patch_size=4, num_classes=3, dim=12, depth=1, heads=2,
                    registers=1)  # fmt: skip
        result = _call(groups, model, 0.05)
        if not isinstance(result, (list, tuple)) or not all(
            isinstance(group, dict) and {"params", "weight_decay"} <= set(group) for group in result
        ):
            raise CheckFailed('a list of dicts with "params" and "weight_decay" is expected')
        found: list[tuple[int, float]] = []
        for group in result:
            for parameter in group["params"]:
                if not isinstance(parameter, nn.Parameter):
                    raise CheckFailed(
                        '"params" must hold the parameters themselves, without their names'
                    )
                found.append((id(parameter), float(group["weight_decay"])))
        decays = dict(found)
        if len(decays) < len(found):
            raise CheckFailed("a parameter is in two groups, and would move twice in a step")
        for name, parameter in model.named_parameters():
            if id(parameter) not in decays:
                raise CheckFailed(f"{name} is in no group, and would never be trained")
            decay = decays[id(parameter)]
            token = name in ("pos_embed", "cls_token", "reg_token")
            if decay and (token or parameter.ndim == 1):
                kind = "a position or token" if token else "a bias or a gain"
                raise CheckFailed(
                    f"{name} decays, although it is {kind}: pulling it to zero only erases it"
                    + ("; it has three axes, so that its name has to be asked" if token else "")
                )
            if not decay and not token and parameter.ndim > 1:
                raise CheckFailed(f"{name} is a matrix, or a kernel, and does not decay")
            if decay not in (0, 0.05):
                raise CheckFailed(f"{name} decays by {decay}, where 0.05 was given")


def _iterate(x: Tensor, a: float, b: float, c: float, steps: int) -> Tensor:
    """Repeat a X + (b A + c A²) X with A = X Xᵀ."""
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def check_orthogonalise(orthogonalise: Callable[..., Tensor]) -> None:
    """``orthogonalise(matrix, steps=5)``, Muon's iteration; wide and tall matrices."""
    with _judging("five steps bring all singular values near 1, wide and tall alike"):
        a, b, c = 3.4445, -4.7750, 2.0315
        for shape in ((6, 10), (10, 6)):
            x = 3 * torch.randn(shape)
            unit = x / x.norm()
            want = _iterate(unit, a, b, c, 5)
            u, _, v = torch.linalg.svd(x, full_matrices=False)
            wrong = [
                ("all singular values are exactly 1: that is the true answer by its decomposition, "
                 "and the iteration was asked", u @ v),
                ("this is one step: repeat it", _iterate(unit, a, b, c, 1)),
                ("there are four steps where five were asked", _iterate(unit, a, b, c, 4)),
                ("the matrix is divided by its norm, and nothing is iterated", unit),
                ("a tall matrix was transposed and never turned back", want.T),
            ]  # fmt: skip
            got = _call(orthogonalise, x.clone(), 5)
            if isinstance(got, Tensor) and not torch.isfinite(got).all():
                raise CheckFailed(
                    "the iteration runs away: it needs singular values of at most 1, so divide the "
                    "matrix by its norm first (to divide by its largest entry is not enough)"
                )
            _compare(
                got, want, wrong,
                f"a matrix {shape}, the coefficients 3.4445, -4.7750 and 2.0315, five steps",
            )  # fmt: skip


def check_polar(polar: Callable[[Tensor], Tensor]) -> None:
    """``polar(matrix) ->`` the same singular vectors, all singular values 1, to 1e-3."""
    with _judging("all singular values are 1, and the singular vectors are kept"):
        for shape in ((5, 8), (8, 5)):
            u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
            sizes = torch.tensor([40.0, 9.0, 3.0, 1.0, 0.4])
            x = u * sizes @ v
            got, want = _call(polar, x.clone()), u @ v
            if not isinstance(got, Tensor):
                raise CheckFailed(f"a tensor was expected, but a {type(got).__name__} came back")
            if got.shape == want.T.shape != want.shape:
                raise CheckFailed("the result is transposed: turn it back at the end")
            if got.shape != want.shape:
                raise CheckFailed(f"the shape is {tuple(got.shape)}, expected {tuple(want.shape)}")
            if not torch.isfinite(got).all():
                raise CheckFailed(
                    "the iteration runs away: it converges for singular values below the square "
                    "root of 3, so divide the matrix by its norm first"
                )
            if _same(got, want, 1e-3):
                continue
            kept = (u.T @ got @ v.T).diag()  # the singular values, where the vectors are kept
            rest = (got - u * kept @ v).abs().max()
            if rest > 1e-2:
                raise CheckFailed(
                    "the singular vectors changed: every step must be a polynomial in X Xᵀ, times X"
                )
            raise CheckFailed(
                f"the singular vectors are right, but the singular values go from {kept.min():.2g} "
                f"to {kept.max():.2g}: iterate until the smallest has arrived, or use the exact "
                "coefficients"
            )


# -- the thirteen mistakes that no shape check finds -------------------------------------------


class _PlainReshape(PatchEmbed):
    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        rows, columns = (side // self.patch_size for side in images.shape[2:])
        strips = images.reshape(images.shape[0], rows * columns, -1)
        return F.linear(strips, self.proj.weight.flatten(1), self.proj.bias), (rows, columns)


class _OnePositionRow(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        table = super().positions_for(grid)
        return None if table is None else table[:, :1].expand_as(table)


class _NoPositions(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        return None


class _ClassTokenWithoutPosition(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        table = super().positions_for(grid)
        return None if table is None else F.pad(table[:, 1:], (0, 0, 1, 0))  # row 0 becomes zero


class _Unscaled(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


class _ScaledByWidth(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1 / (self.heads * q.shape[-1]))


class _SoftmaxOverQueries(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-2) @ v


class _UnmergedHeads(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        batch, heads, count, size = q.shape
        tokens = super().attend(q, k, v).reshape(batch, count, heads * size)
        return rearrange(tokens, "b n (h d) -> b h n d", h=heads)  # the right merging undoes this


class _AcrossTheBatch(Attention):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        return super().forward(x.transpose(0, 1), layout, record).transpose(0, 1)


class _NoAttentionResidual(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        x = attn_out = self.drop_path1(self.ls1(self.attn(self.norm1(x), layout, record)))
        mlp_out = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        x = x + mlp_out
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class _PostNorm(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        attn_out = self.drop_path1(self.ls1(self.attn(x, layout, record)))
        x = self.norm1(x + attn_out)
        mlp_out = self.drop_path2(self.ls2(self.mlp(x)))
        x = self.norm2(x + mlp_out)
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class _NoNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return input


class _WrongReadout(ViT):
    def pool(self, features: Tensor) -> Tensor:
        return self.fc_norm(features[:, -1])


@dataclass(frozen=True)
class Bug:
    """One mistake of the table: what it is, how to plant it, and the check that finds it."""

    name: str
    """Its key in ``BUGS``."""
    chapter: int
    """The chapter that shows it."""
    mistake: str
    """What is wrong, in a few words."""
    part: str
    """Where it sits: "" for the model, else the name of a module ("blocks.*" for each block)."""
    wrong: type[nn.Module]
    """A subclass of what sits there, with the mistake in one method."""
    check: Callable[[Any], None]
    """Passes on the right model, raises CheckFailed on the planted one."""

    def plant(self, model: ViT) -> ViT:
        """Give a copy of a model with this mistake in it, its weights unchanged.

        The names and shapes of the parameters stay as they are, so that right weights load.

        Raises:
            ValueError: where the model does not have the part (a class token, one norm) in
                which the mistake would sit.
        """
        twin = copy.deepcopy(model)
        if self.wrong is _ClassTokenWithoutPosition and not (
            twin.config.class_token and twin.config.class_position
        ):
            raise ValueError(
                f"{self.name} needs a class token with a position; make the model with "
                "class_token=True, class_position=True."
            )
        for place in self._places(twin):
            right = self.wrong.__mro__[1]
            if type(place) is not right:
                raise ValueError(
                    f"{self.name} is planted in the class {right.__name__}, but the model has "
                    f"{type(place).__name__} at {self.part or 'its root'}; choose another model."
                )
            place.__class__ = self.wrong  # the same object and weights, with one method changed
        return twin

    def _places(self, model: ViT) -> list[nn.Module]:
        if self.part == "norm" and isinstance(model.norm, nn.Identity):
            return [model.fc_norm]
        if self.part.startswith("blocks.*"):
            inside = self.part[len("blocks.*") :].lstrip(".")
            return [block.get_submodule(inside) for block in model.blocks]
        return [model.get_submodule(self.part)]


BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug("plain-reshape", 1, "patches made by a plain reshape: rows of the image, not squares",
            "patch_embed", _PlainReshape, check_patch_embed),
        Bug("class-token-without-position", 2, "the class token gets no position",
            "", _ClassTokenWithoutPosition, check_class_token_position),
        Bug("one-position-row", 2, "one row of the position table is added to all tokens",
            "", _OnePositionRow, check_positions_used),
        Bug("no-positions", 2, "no positions at all",
            "", _NoPositions, check_permutation_equivariance),
        Bug("unscaled", 3, "no division by sqrt(d)",
            "blocks.*.attn", _Unscaled, check_multi_head),
        Bug("scaled-by-width", 3, "division by D instead of sqrt(d)",
            "blocks.*.attn", _ScaledByWidth, check_multi_head),
        Bug("softmax-over-queries", 3, "softmax over the queries instead of the keys",
            "blocks.*.attn", _SoftmaxOverQueries, check_attention_rows),
        Bug("unmerged-heads", 3, "heads merged without transposing back",
            "blocks.*.attn", _UnmergedHeads, check_multi_head),
        Bug("across-the-batch", 3, "attention across the batch, as nn.MultiheadAttention without "
            "batch_first", "blocks.*.attn", _AcrossTheBatch, check_independent_of_batch),
        Bug("no-attention-residual", 4, "no residual around attention",
            "blocks.*", _NoAttentionResidual, check_identity_at_zero),
        Bug("post-norm", 4, "post-norm where pre-norm is meant",
            "blocks.*", _PostNorm, check_pre_norm),
        Bug("no-final-norm", 5, "no final norm",
            "norm", _NoNorm, check_final_norm),
        Bug("wrong-readout", 5, "the wrong token is read out",
            "", _WrongReadout, check_readout),
    )
}  # fmt: skip
"""The thirteen mistakes by name: all pass ``check_shapes``, each is found by its own check."""
