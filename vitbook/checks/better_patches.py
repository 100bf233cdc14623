# SPDX-License-Identifier: MIT
"""Checks of chapter 10: what tokens see, and what is made of them before the first block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .frame import CheckFailed, call, check, compare, compare_counts, same_values


@check("the image and its four neighbours along the diagonals, in order, zeros from outside")
def check_shifted_images(shift: Callable[[Tensor, int], Tensor]) -> None:
    """``shift(images (B, C, H, W), half) -> (B, 5C, H, W)``."""
    images, half = torch.randn(2, 3, 6, 8) + 3, 2

    def moved(down: int, right: int, mode: str = "constant") -> Tensor:
        wide = F.pad(images, (4, 4, 4, 4), mode=mode)
        return wide[..., 4 + down : 10 + down, 4 + right : 12 + right]

    def five(n: int = half, mode: str = "constant") -> list[Tensor]:
        return [images, moved(-n, -n, mode), moved(-n, n, mode), moved(n, -n, mode),
                moved(n, n, mode)]  # fmt: skip

    def cat(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(parts), dim=1)

    first, ul, ur, dl, dr = five()
    rolled = [images.roll((a, b), (2, 3)) for a in (half, -half) for b in (half, -half)]
    wrong = [
        ("the image itself is missing: it comes first", cat([ul, ur, dl, dr])),
        ("the image itself comes first, then the four", cat([ul, ur, dl, dr, first])),
        ("every direction is turned around: the first of the four holds, at each pixel, what "
         "stood up and left of it", cat([first, dr, dl, ur, ul])),
        ("up right and down left are exchanged", cat([first, ul, dl, ur, dr])),
        ("left and right are exchanged", cat([first, ur, ul, dr, dl])),
        ("up and down are exchanged", cat([first, dl, dr, ul, ur])),
        ("the last two are exchanged: down left comes before down right",
         cat([first, ul, ur, dr, dl])),
        ("what leaves on one side comes back on the other: zeros come in from outside",
         cat([images, *rolled])),
        ("what leaves on one side comes back on the other: zeros come in from outside; and every "
         "direction is turned around", cat([images, *rolled[::-1]])),
        ("the edge is repeated: zeros come in from outside", cat(five(mode="replicate"))),
        ("the image is mirrored at the edge: zeros come in from outside",
         cat(five(mode="reflect"))),
        ("it moves by one pixel; by half a patch is expected", cat(five(1))),
        ("it moves by a whole patch; by half a patch is expected", cat(five(2 * half))),
        ("it moves up, down, left and right; the four diagonals are expected",
         cat([first, moved(-half, 0), moved(half, 0), moved(0, -half), moved(0, half)])),
        ("the five values of a channel lie side by side; all channels of one image come before "
         "those of the next", torch.stack(five(), dim=2).flatten(1, 2)),
        ("the five images have an axis of their own: (B, 5C, H, W) is expected",
         torch.stack(five(), dim=1)),
        ("the five images lie behind one another in the batch; they are channels of one image",
         torch.cat(five())),
        ("the images are added; they lie behind one another as channels",
         torch.stack(five()).sum(0)),
    ]  # fmt: skip
    compare(call(shift, images, half), cat(five()), wrong, "five images of three channels each")


@check("each layer adds its kernel's reach, in steps of all strides before it")
def check_receptive_field(field: Callable[[list[tuple[int, int]]], int]) -> None:
    """``field(layers [(kernel, stride), ...]) -> int``, the side in pixels that one output sees."""
    cases: list[list[tuple[int, int]]] = [
        [(4, 4)],
        [(3, 1), (3, 2), (3, 1), (3, 2)],
        [(7, 2), (3, 2), (3, 1)],
        [(2, 2), (2, 2), (5, 1)],
    ]

    def grown(layers: list[tuple[int, int]], start: int = 1, before: bool = True,
              less: int = 1) -> int:  # fmt: skip
        side, step = start, 1
        for kernel, stride in layers:
            step *= 1 if before else stride
            side += (kernel - less) * step
            step *= stride if before else 1
        return side

    def each(rule: Callable[[list[tuple[int, int]]], int]) -> list[int]:
        return [rule(layers) for layers in cases]

    wrong = [
        ("the strides have no part in it: behind a stride of 2 a kernel's pixels lie 2 apart",
         each(lambda layers: 1 + sum(k - 1 for k, _ in layers))),
        ("a layer's own stride does not widen its kernel; only those before it do",
         each(lambda layers: grown(layers, before=False))),
        ("the layers are counted from the last to the first",
         each(lambda layers: grown(layers[::-1]))),
        ("the pixel in the middle is forgotten: begin with 1", each(lambda x: grown(x, start=0))),
        ("a kernel of k reaches k - 1 pixels further, not k", each(lambda x: grown(x, less=0))),
        ("a kernel of k reaches k - 1 pixels further, not k",
         each(lambda x: grown(x, start=0, less=0))),
        ("only the stride of the layer before has a part in it; those of all layers before "
         "multiply",
         each(lambda x: 1 + sum((k - 1) * (x[i - 1][1] if i else 1)
                                for i, (k, _) in enumerate(x)))),
        ("half of each kernel is added; on both sides together a kernel of k reaches k - 1",
         each(lambda x: grown([(k // 2 + 1, s) for k, s in x]))),
        ("a kernel of 2 or 4 has no pixel in its middle: k // 2 on both sides is one too many",
         each(lambda x: grown([(k // 2 * 2 + 1, s) for k, s in x]))),
        ("the kernels are added", each(lambda x: sum(k for k, _ in x))),
        ("the kernels are multiplied", each(lambda x: math.prod(k for k, _ in x))),
        ("this is the step from one output to the next, not what it sees",
         each(lambda x: math.prod(s for _, s in x))),
        ("this is the last layer alone", each(lambda x: x[-1][0])),
        ("this is the first layer alone", each(lambda x: x[0][0])),
        ("the strides are added; behind two strides of 2 a step is 4 pixels",
         each(lambda x: 1 + sum((k - 1) * max(1, sum(s for _, s in x[:i]))
                                for i, (k, _) in enumerate(x)))),
        ("the strides are added; behind two strides of 2 a step is 4 pixels",
         each(lambda x: 1 + sum((k - 1) * (1 + sum(s for _, s in x[:i]))
                                for i, (k, _) in enumerate(x)))),
    ]  # fmt: skip
    got = [call(field, [*layers]) for layers in cases]
    compare_counts(got, each(grown), wrong, [f"the layers {layers}" for layers in cases])


def _resize_matrix(old: int, new: int) -> Tensor:
    """(new², old²): what makes of a patch of ``old`` pixels one of ``new``."""
    basis = torch.eye(old * old).view(-1, 1, old, old)
    return F.interpolate(basis, size=(new, new), mode="bilinear").flatten(1).T


@check("a resized patch gives with the new kernel what the patch gave with the old one")
def check_resize_kernel(resize: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``resize(weight (D, C, P, P), matrix (n·n, P·P)) -> (D, C, n, n)``."""
    for old, new in ((4, 6), (6, 4)):
        weight, matrix = torch.randn(5, 3, old, old), _resize_matrix(old, new)
        flat, inverse = weight.flatten(2), torch.linalg.pinv(matrix)  # (P·P, n·n)

        def square(values: Tensor, new: int = new) -> Tensor:
            return values.unflatten(2, (new, new))

        right = square(flat @ inverse)
        plain, ratio = square(flat @ matrix.T), (old / new) ** 2
        wrong = [
            ("the kernel is resized as if it were an image: a token is then a sum over other "
             "numbers, and changes", plain),
            ("the kernel is resized as an image and its size set right; a token still changes: "
             "solve for the kernel instead", plain * ratio),
            ("the kernel is resized as an image and its size set right; a token still changes: "
             "solve for the kernel instead",
             plain * flat.norm() / plain.norm()),
            ("rows and columns of the kernel are exchanged", right.mT),
            ("it is too large by the ratio of the areas: the pseudoinverse alone is enough",
             right / ratio),
            ("it is too small by the ratio of the areas: the pseudoinverse alone is enough",
             right * ratio),
            ("the patch is laid out, but not back: (D, C, n, n) is expected", flat @ inverse),
            ("the channels are averaged", right.mean(1, keepdim=True).expand_as(right)),
            ("the outputs are reversed", right.flip(0)),
        ]  # fmt: skip
        got = call(resize, weight, matrix)
        if isinstance(got, Tensor) and got.shape == right.shape:
            # An enlarged patch fits many kernels: one counts by its answers, as pixels weigh in.
            answers, wanted = ((k.flatten(2).to(matrix) @ matrix) for k in (got, right))
            if same_values(answers, wanted):
                continue
        compare(got, right, wrong, f"from {old} to {new} pixels")


@check("each token holds its 2 x 2 square, column by column, as Swin has it")
def check_merge_tokens(merge: Callable[[Tensor, tuple[int, int]], Tensor]) -> None:
    """``merge(tokens (B, N, D), (rows, columns)) -> (B, N / 4, 4D)``."""
    rows, cols = 4, 6
    tokens = torch.randn(2, rows * cols, 3)

    def lay(pattern: str, x: Tensor = tokens, r: int = rows, c: int = cols) -> Tensor:
        return rearrange(x, f"b {pattern}", r=r // 2, c=c // 2, s=2, t=2)

    right = lay("(r s c t) d -> b (r c) (t s d)")
    square = lay("(r s c t) d -> b (r c) s t d")
    wrong = [
        ("the order inside a square is upper left, upper right, lower left, lower right; Swin's "
         "has lower left second", lay("(r s c t) d -> b (r c) (s t d)")),
        ("four tokens that follow one another are merged; a square is two in one row of the grid "
         "and two in the next", tokens.reshape(2, -1, 12)),
        ("the grid's rows and columns are exchanged",
         lay("(r s c t) d -> b (r c) (t s d)", r=cols, c=rows)),
        ("the numbers of the four tokens are mixed: all D of one token come before the next",
         lay("(r s c t) d -> b (r c) (d t s)")),
        ("the numbers of the four tokens are mixed: all D of one token come before the next",
         lay("(r s c t) d -> b (r c) (d s t)")),
        ("four tokens of one column are merged; a square is two in one row of the grid and two in "
         "the next", tokens.unflatten(1, (rows, cols)).transpose(1, 2).reshape(2, -1, 12)),
        ("the tokens are listed one after the other, not side by side: (B, N / 4, 4D) is expected",
         lay("(r s c t) d -> b (t s r c) d")),
        ("the grid is kept: (B, N / 4, 4D) is expected", lay("(r s c t) d -> b r c (t s d)")),
        ("the order inside a square goes around it; Swin's goes down each column",
         square.flatten(2, 3)[:, :, [0, 1, 3, 2]].flatten(2)),
        ("the order inside a square goes around it; Swin's goes down each column",
         square.flatten(2, 3)[:, :, [0, 2, 3, 1]].flatten(2)),
        ("the merged tokens are listed column by column", lay("(r s c t) d -> b (c r) (t s d)")),
        ("tokens are taken from four quarters of the image, not from one square",
         lay("(s r t c) d -> b (r c) (t s d)")),
        ("the four tokens are averaged; they lie side by side", square.mean((2, 3))),
        ("the four tokens are added; they lie side by side", square.sum((2, 3))),
        ("the largest number of the four is taken; they lie side by side", square.amax((2, 3))),
        ("only the upper left token of each square is kept", square[:, :, 0, 0]),
        ("the order inside a square is turned around", lay("(r s c t) d -> b (r c) t s d")
         .flip(2, 3).flatten(2)),
    ]  # fmt: skip
    got = call(merge, tokens, (rows, cols))
    compare(got, right, wrong, "a grid of four rows and six columns")


class _Network:
    """From patches (M, C, P, P) to features (M, F); counts how often it is called."""

    def __init__(self, channels: int, size: int) -> None:
        self.takes = (channels, size, size)
        self.weight = torch.randn(channels * size * size, 7)
        self.calls = 0

    def read(self, patches: Tensor) -> Tensor:
        """Make the features of patches laid out in any way."""
        return torch.tanh(patches.reshape(len(patches), -1) @ self.weight)

    def __call__(self, patches: Any) -> Tensor:
        self.calls += 1
        if not isinstance(patches, Tensor):
            given = type(patches).__name__
            raise CheckFailed(f"the network takes a tensor of patches, but was given a {given}")
        if patches.shape[1:] != self.takes:
            raise CheckFailed(
                f"the network was given {tuple(patches.shape)}; it takes patches (M, C, P, P), "
                f"here (M, {', '.join(map(str, self.takes))})"
            )
        return self.read(patches)


@check("every patch went through the network by itself, and all of them in one call")
def check_patch_features(features: Callable[..., Tensor]) -> None:
    """``features(images (B, C, H, W), patch_size, network) -> (B, N, F)``; the network makes
    (M, F) of (M, C, P, P)."""
    images, size = torch.randn(2, 3, 4, 6), 2
    network = _Network(3, size)

    def through(pattern: str) -> Tensor:
        patches = rearrange(images, f"b c (r p) (s q) -> {pattern}", p=size, q=size)
        return network.read(patches.flatten(0, -4))

    def reshaped(patches: Tensor) -> Tensor:
        return network.read(patches.reshape(-1, *network.takes)).view(2, 6, 7)

    right = through("b r s c p q").view(2, 6, 7)
    wrong = [
        ("images and patches are mixed up: all patches of one image come before the next image",
         through("r s b c p q").view(2, 6, 7)),
        ("the patches are listed column by column", through("b s r c p q").view(2, 6, 7)),
        ("rows and columns of each patch are exchanged", through("b r s c q p").view(2, 6, 7)),
        ("a patch holds pixels that lie apart: cut squares, not every other pixel",
         network.read(rearrange(images, "b c (p r) (q s) -> (b r s) c p q", p=size, q=size))
         .view(2, 6, 7)),
        ("channels and pixels of a patch are mixed: the network takes (M, C, P, P)",
         through("b r s p q c").view(2, 6, 7)),
        ("the image is reshaped, not cut: a patch's rows lie apart in memory", reshaped(images)),
        ("the channels still lie in front of the grid: bring them behind it before reshaping",
         reshaped(images.unfold(2, size, size).unfold(3, size, size))),
        ("`F.unfold` puts the patches last: exchange its axes before reshaping",
         reshaped(F.unfold(images, size, stride=size))),
        ("the grid is kept: (B, N, F) is expected", right.unflatten(1, (2, 3))),
        ("one row for each image and patch came back: (B, N, F) is expected",
         right.flatten(0, 1)),
        ("the patches are averaged: every patch is a token", right.mean(1)),
        ("tokens and features are exchanged", right.mT),
        ("images and tokens are exchanged", right.transpose(0, 1)),
    ]  # fmt: skip
    got = call(features, images, size, network)
    compare(got, right, wrong, "two images of two rows of three patches")
    if network.calls != 1:
        raise CheckFailed(
            f"the tokens are right, but the network was called {network.calls} times: put the "
            "patches of all images into one batch"
        )
