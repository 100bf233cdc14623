# SPDX-License-Identifier: MIT
"""Checks of chapter 1: cutting images into patches, joining them, embedding them."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitcore.patches import PatchEmbed, patchify, unpatchify

from .frame import (
    CheckFailed,
    WrongUse,
    call,
    check,
    compare,
    compare_counts,
    first_of,
    lively,
    need,
)

_PLAIN = (
    "your tokens hold whole rows of the image, not squares: did you reshape without first "
    "bringing the two axes that run inside a patch together?"
)

_UNFOLDED = (
    "F.unfold gives (B, C*P*P, N), one column for each patch: a reshape does not exchange the two "
    "axes, it cuts the numbers anew"
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
        (_UNFOLDED, F.unfold(images, size, stride=size).reshape(batch, count, length)),
        (
            "the rows inside a patch stand before the columns of the grid: in permute the two axes "
            "of the grid come first, and then the three inside a patch",
            images.reshape(batch, channels, height // size, size, width // size, size)
            .permute(0, 2, 3, 1, 4, 5)
            .reshape(batch, count, length),
        ),
    ]


@check("patchify cuts squares, row by row, each in the order (c p1 p2)")
def check_patchify(patchify: Callable[[Tensor, int], Tensor]) -> None:
    """``patchify(images (B, C, H, W), patch_size) -> (B, N, C*P*P)`` cuts squares, row by row."""
    for shape, size in (((2, 3, 8, 12), 4), ((3, 1, 6, 4), 2), ((2, 4, 5, 5), 5)):
        images = torch.randn(shape)
        want = F.unfold(images, size, stride=size).transpose(1, 2)
        compare(
            call(patchify, images, size),
            want,
            _wrong_patches(images, size),
            f"images {shape} with patches of {size} pixels make {want.shape[1]} tokens "
            f"of {want.shape[2]} values, one square each",
        )


@check("unpatchify puts every square back in its place")
def check_unpatchify(unpatchify: Callable[[Tensor, int, tuple[int, int]], Tensor]) -> None:
    """``unpatchify(tokens, patch_size, (H, W)) -> (B, C, H, W)`` undoes the cut."""
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
        compare(
            call(unpatchify, tokens, size, (height, width)),
            F.fold(tokens.transpose(1, 2), (height, width), size, stride=size),
            wrong,
            f"tokens {tuple(tokens.shape)} are an image of {height} by {width} pixels cut "
            f"into squares of {size}",
        )


@check("cut and joined again, the images are the same to the last bit")
def check_round_trip(
    patchify: Callable[[Tensor, int], Tensor],
    unpatchify: Callable[[Tensor, int, tuple[int, int]], Tensor] = unpatchify,
) -> None:
    """Cutting and joining gives the image back; ``unpatchify`` is vitcore's unless one is given."""
    for shape, size in (((2, 3, 8, 12), 4), ((3, 1, 6, 4), 2)):
        images = torch.randn(shape)
        back = call(unpatchify, call(patchify, images, size), size, shape[2:])
        joined = [
            (message, F.fold(cut.transpose(1, 2), shape[2:], size, stride=size))
            for message, cut in _wrong_patches(images, size)
            if cut.ndim == 3 and cut.shape[2] == shape[1] * size * size
        ]
        compare(back, images, joined, "the image does not come back: some pixels changed places")


@check("patches of one stride after another, row by row, each in the order (c p1 p2)")
def check_overlapping_patches(overlapping: Callable[[Tensor, int, int], Tensor]) -> None:
    """``overlapping(images (B, C, H, W), patch_size, stride) -> (B, N, C*P*P)``."""
    for shape, size, stride in (((2, 3, 8, 12), 4, 2), ((1, 2, 7, 9), 3, 2), ((2, 3, 6, 4), 2, 2)):
        images = torch.randn(shape)
        windows = images.unfold(2, size, stride).unfold(
            3, size, stride
        )  # (B, C, rows, columns, P, P)
        want = rearrange(windows, "b c h w p1 p2 -> b (h w) (c p1 p2)")
        columns = F.unfold(images, size, stride=stride)
        wrong = [
            ("the patches do not overlap: the next one begins stride pixels further on, not P",
             F.unfold(images, size, stride=size).mT),
            ("a patch begins at every pixel: the next one begins stride pixels further on",
             F.unfold(images, size).mT),
            ("the stride is used downwards alone",
             F.unfold(images, size, stride=(stride, size)).mT),
            ("the stride is used to the right alone",
             F.unfold(images, size, stride=(size, stride)).mT),
            ("the last row and the last column of patches are missing: how many steps of stride "
             "are there, and how many patches?",
             rearrange(windows[:, :, :-1, :-1], "b c h w p1 p2 -> b (h w) (c p1 p2)")),
            ("tokens and their values are exchanged: one row for each patch is expected", columns),
            (_UNFOLDED, columns.reshape(want.shape)),
            ("a token holds one channel of several patches, not all channels of one: the axis of "
             "the channels must move behind the grid before it is laid out",
             windows.reshape(want.shape)),
            ("inside a token the values come in the order (p1 p2 c)",
             rearrange(windows, "b c h w p1 p2 -> b (h w) (p1 p2 c)")),
            ("the patches are listed column by column",
             rearrange(windows, "b c h w p1 p2 -> b (w h) (c p1 p2)")),
            ("each patch is turned over its diagonal",
             rearrange(windows, "b c h w p1 p2 -> b (h w) (c p2 p1)")),
            ("the grid still has its two axes: the patches are expected in one sequence",
             rearrange(windows, "b c h w p1 p2 -> b h w (c p1 p2)")),
        ]  # fmt: skip
        compare(
            call(overlapping, images, size, stride), want, wrong,
            f"images {shape} with patches of {size} pixels, one every {stride} pixels, make "
            f"{want.shape[1]} tokens",
        )  # fmt: skip


# What the first entries of _wrong_patches are called where no reader's code is to be mended.
_PATCH_MISTAKES = (
    "tokens that hold whole rows of the image",
    "tokens that hold one channel of several patches",
    "the order (p1 p2 c) inside a token",
    "patches that are listed column by column",
    "patches that are turned over their diagonal",
    "tokens that collect pixels from all over the image",
)


def _for_squares(images: Tensor, size: int) -> Tensor:
    """Right for square images; elsewhere rows and columns of the grid are exchanged."""
    batch, channels, height, width = images.shape
    grid = images.reshape(batch, channels, width // size, size, height // size, size)
    return rearrange(grid, "b c h p1 w p2 -> b (h w) (c p1 p2)")


def _verdict(test: Any, patchify: Callable[[Tensor, int], Tensor]) -> bool:
    """What a reader's test says of a patchify; a failed assert counts as False."""
    try:
        with _watched(*_OF_THE_LIBRARY) as used:
            verdict = call(test, patchify)
    except CheckFailed as error:
        if isinstance(error.__cause__, AssertionError):
            return False
        raise
    if used:
        raise CheckFailed(
            f"your test calls vitcore's {used[0]}: whoever wrote a mistake would have made it "
            "there as well. Say by other means what a token must hold"
        )
    if isinstance(verdict, Tensor) and verdict.numel() == 1:
        verdict = bool(verdict)
    if not isinstance(verdict, (bool, np.bool_)):
        raise CheckFailed(f"True or False was expected, but a {type(verdict).__name__} came back")
    return bool(verdict)


_OF_THE_LIBRARY = (patchify, unpatchify, PatchEmbed.forward)


@contextmanager
def _watched(*functions: Callable[..., Any]) -> Iterator[list[str]]:
    """Give a list, filled with the names of those functions that are called meanwhile."""
    codes = {function.__code__: function.__qualname__ for function in functions}
    called: list[str] = []

    def look(frame: types.FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code in codes:
            called.append(codes[frame.f_code])

    before = sys.getprofile()
    sys.setprofile(look)
    try:
        yield called
    finally:
        sys.setprofile(before)


@check("your test takes the right patchify and refuses seven wrong ones")
def check_patchify_test(test: Callable[[Callable[[Tensor, int], Tensor]], bool]) -> None:
    """``test(patchify) -> bool`` takes the right patchify and refuses seven wrong ones."""

    def right(images: Tensor, size: int) -> Tensor:
        return F.unfold(images.float(), size, stride=size).mT.to(images.dtype)

    def planted(number: int) -> Callable[[Tensor, int], Tensor]:
        return lambda images, size: _wrong_patches(images.float(), size)[number][1].to(images.dtype)

    if not _verdict(test, right):
        raise CheckFailed("your test refuses a patchify that is right")
    mistakes = [(name, planted(number)) for number, name in enumerate(_PATCH_MISTAKES)]
    mistakes.append(("a grid that is right for square images alone", _for_squares))
    for name, wrong in mistakes:
        if _verdict(test, wrong):
            raise CheckFailed(
                f"your test lets a mistake pass: {name}. Which images would show it: how "
                "many channels, rows and columns of patches, and which values do they need?"
            )


@check("the sides divide, and no image is larger than it has to be")
def check_pad_to_patches(pad: Callable[[Tensor, int], Tensor]) -> None:
    """`pad(images (B, C, H, W), patch_size)` adds zeros below and to the right, as few as help."""
    for shape, size in (((2, 3, 8, 18), 4), ((1, 1, 28, 28), 5), ((2, 3, 8, 12), 4)):
        images = torch.randn(shape)
        down, right = -shape[2] % size, -shape[3] % size
        whole = shape[2] // size * size, shape[3] // size * size
        side = max(shape[2] + down, shape[3] + right)
        square = F.pad(images, (0, side - shape[3], 0, side - shape[2]))
        wrong = [
            ("the image is padded to a square: each side needs only what is missing to its own "
             "next multiple of P", square),
            ("what is added repeats the edge of the image, and zeros are asked",
             F.pad(images, (0, right, 0, down), mode="replicate")),
            ("what is added is 1, and zeros are asked",
             F.pad(images, (0, right, 0, down), value=1)),
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
        compare(
            call(pad, images, size),
            F.pad(images, (0, right, 0, down)),
            wrong,
            f"an image of {shape[2]} by {shape[3]} and patches of {size} pixels",
        )


@check("the number of tokens is right, also where height and width differ")
def check_num_tokens(num_tokens: Callable[[int, int, int], int]) -> None:
    """``num_tokens(height, width, patch_size) -> int``, the number of patches."""
    cases = ((28, 28, 7), (224, 224, 16), (32, 48, 4), (12, 8, 4))

    def each(rule: Callable[[int, int, int], float]) -> list[float]:
        return [rule(*case) for case in cases]

    wrong = [
        ("these are the patches along one side only", each(lambda h, w, p: h // p)),
        ("these are the patches along one side only", each(lambda h, w, p: w // p)),
        ("this counts the pixels of a patch", each(lambda h, w, p: p * p)),
        ("this counts the pixels of the image", each(lambda h, w, p: h * w)),
        ("the pixels were divided by P: a patch covers more of them than that",
         each(lambda h, w, p: h * w / p)),
        ("is the image always square?", each(lambda h, w, p: (h // p) ** 2)),
        ("is the image always square?", each(lambda h, w, p: (w // p) ** 2)),
        ("the two sides of the grid were added", each(lambda h, w, p: h // p + w // p)),
        ("one too many: the class token is not a patch",
         each(lambda h, w, p: (h // p) * (w // p) + 1)),
    ]  # fmt: skip
    compare_counts(
        [call(num_tokens, *case) for case in cases],
        [(h // p) * (w // p) for h, w, p in cases],
        wrong,
        [f"an image of {h} by {w} and patches of {p} pixels" for h, w, p in cases],
    )


@check("every patch is found at its place in the sequence")
def check_token_index(token_index: Callable[[int, int, tuple[int, int]], int]) -> None:
    """``token_index(row, column, (rows, columns)) -> int``, a patch's place in the sequence."""
    rows, columns = grid = 3, 5
    places = [(row, column) for row in range(rows) for column in range(columns)]

    def each(rule: Callable[[int, int], int]) -> list[int]:
        return [rule(*place) for place in places]

    wrong = [
        ("row and column were added: how many patches does a full row hold?",
         each(lambda r, c: r + c)),
        ("row and column were multiplied: how many patches stand in the rows above?",
         each(lambda r, c: r * c)),
        ("this counts down the columns first", each(lambda r, c: c * rows + r)),
        ("a column is counted as a whole row: row and column have exchanged their roles",
         each(lambda r, c: c * columns + r)),
        ("a whole row of patches is skipped by the other side's length",
         each(lambda r, c: r * rows + c)),
        ("the first place is number 0", each(lambda r, c: r * columns + c + 1)),
        ("the patches to the left in its own row are not counted", each(lambda r, c: r * columns)),
    ]  # fmt: skip
    compare_counts(
        [call(token_index, row, column, grid) for row, column in places],
        each(lambda r, c: r * columns + c),
        wrong,
        [f"row {r}, column {c} of a grid of {rows} by {columns}" for r, c in places],
    )


@check("the patch embedding equals a convolution with the same kernel")
def check_patch_embed(
    embed: Any, *, patch_size: int | None = None, image_size: tuple[int, int] | None = None
) -> None:
    """The embedding equals a convolution whose kernel is the projection.

    ``embed`` is a model, a module with a ``.proj`` (Conv2d, or Linear with ``patch_size`` told
    here or as an attribute) that returns tokens (B, N, D) or (tokens, grid), or a function
    ``embed(images, weight (D, C, P, P), bias (D,)) -> (B, N, D)``.
    """
    if isinstance(embed, nn.Module):
        module = lively(getattr(embed, "patch_embed", embed))
        need(module, "proj")
        weight, bias = module.proj.weight.detach(), module.proj.bias
        size = patch_size or (
            weight.shape[-1] if weight.ndim == 4 else getattr(module, "patch_size", None)
        )
        if size is None:
            raise WrongUse("a linear projection does not tell its patch size: pass patch_size")
        kernel = weight.reshape(weight.shape[0], -1, size, size)
        rows, columns = getattr(module, "grid", (2, 3))
        height, width = image_size or (rows * size, columns * size)
        images = torch.randn(2, kernel.shape[1], height, width).to(weight)
        result = call(module, images)
    else:
        size, (height, width) = patch_size or 4, image_size or (8, 12)
        images, kernel = torch.randn(2, 3, height, width), torch.randn(6, 3, size, size)
        bias = torch.randn(6)
        result = call(embed, images, kernel, bias)
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
    compare(
        first_of(result), want, wrong,
        "a token is the projection of one square of the image",
    )  # fmt: skip
    grid = (height // size, width // size)
    if isinstance(result, tuple) and tuple(result[1]) != grid:
        raise CheckFailed(
            f"the tokens are right, but the grid is told as {result[1]} where the image has "
            f"{grid[0]} rows and {grid[1]} columns of patches"
        )
