# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 1: patches."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import asserts_values, convolves, grey_is_right, join, unfolded
from einops import rearrange

import vitcore
from exercises.table import Exercise


def windows(images, size, stride):
    return images.unfold(2, size, stride).unfold(3, size, stride)  # (B, C, rows, columns, P, P)


def overlap_loops(images, size, stride):
    rows = range(0, images.shape[2] - size + 1, stride)
    columns = range(0, images.shape[3] - size + 1, stride)
    tokens = [images[:, :, y : y + size, x : x + size].flatten(1) for y in rows for x in columns]
    return torch.stack(tokens, 1)


def overlap(pattern):
    return lambda images, size, stride: rearrange(windows(images, size, stride), pattern)


def overlap_by_convolution(images, size, stride):
    length = images.shape[1] * size * size
    kernels = torch.eye(length).view(length, images.shape[1], size, size)
    return torch.nn.functional.conv2d(images, kernels, stride=stride).flatten(2).mT


def pad_with_zeros(x, p):
    out = x.new_zeros(*x.shape[:2], math.ceil(x.shape[2] / p) * p, math.ceil(x.shape[3] / p) * p)
    out[:, :, : x.shape[2], : x.shape[3]] = x
    return out


def pad_with_cat(x, p):
    x = torch.cat([x, x.new_zeros(*x.shape[:2], -x.shape[2] % p, x.shape[3])], 2)
    return torch.cat([x, x.new_zeros(*x.shape[:3], -x.shape[3] % p)], 3)


def pad_square(x, p):
    side = math.ceil(max(x.shape[2:]) / p) * p
    return F.pad(x, (0, side - x.shape[3], 0, side - x.shape[2]))


def pad_in_place(x, p):
    x[:] = x * 1.5
    return F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p))


def join_loops(tokens, size, image_size):
    channels = tokens.shape[2] // size**2
    images = tokens.new_zeros(len(tokens), channels, *image_size)
    columns = image_size[1] // size
    for index in range(tokens.shape[1]):
        y, x = index // columns * size, index % columns * size
        square = tokens[:, index].reshape(-1, channels, size, size)
        images[:, :, y : y + size, x : x + size] = square
    return images


def join_permute(tokens, size, image_size):
    rows, columns = image_size[0] // size, image_size[1] // size
    x = tokens.reshape(len(tokens), rows, columns, -1, size, size)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(len(tokens), -1, *image_size)


def join_in_place(tokens, size, image_size):
    tokens *= 1
    return join_permute(tokens.zero_(), size, image_size)


def counts_by_hand(height, width, size):
    return sum(1 for y in range(0, height, size) for x in range(0, width, size))


def place_by_counting(row, column, grid):
    return [(r, c) for r in range(grid[0]) for c in range(grid[1])].index((row, column))


def by_slices(patchify):
    images = torch.randn(2, 3, 6, 4)
    tokens = patchify(images, 2)
    return all(
        torch.equal(
            tokens[b, 2 * r + c], images[b, :, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].flatten()
        )
        for b in range(2)
        for r in range(3)
        for c in range(2)
    )


def numpy_says(patchify):
    images = torch.arange(2 * 3 * 4 * 6).reshape(2, 3, 4, 6).float()
    want = images.numpy().reshape(2, 3, 2, 2, 3, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 6, 12)
    return np.all(patchify(images, 2).numpy() == want)


def only_squares(patchify):
    images = torch.randn(2, 3, 8, 8)
    return torch.equal(patchify(images, 4), unfolded(images, 4))


def only_shapes(patchify):
    return patchify(torch.randn(1, 3, 8, 12), 4).shape == (1, 6, 48)


def only_sums(patchify):
    images = torch.randn(1, 3, 8, 12)
    return torch.allclose(patchify(images, 4).sum(), images.sum(), atol=1e-3)


def only_the_first_token(patchify):
    images = torch.randn(1, 3, 8, 12)
    return torch.equal(patchify(images, 4)[0, 0], images[0, :, :4, :4].flatten())


def like_the_library(patchify):
    images = torch.randn(2, 3, 8, 12)
    return torch.equal(patchify(images, 4), vitcore.patchify(images, 4))


def there_and_back(patchify):
    images = torch.randn(2, 3, 8, 12)
    return torch.equal(vitcore.unpatchify(patchify(images, 4), 4, (8, 12)), images)


EXERCISES = [
    Exercise(
        "1.1",
        ["check_num_tokens(_)"],
        right={
            "whole division": lambda h, w, p: (h // p) * (w // p),
            "a tensor": lambda h, w, p: torch.tensor(h * w // p**2),
            "NumPy": lambda h, w, p: np.prod(np.array([h, w]) // p),
            "a loop": counts_by_hand,
            "int of floats": lambda h, w, p: int(h / p) * int(w / p),
        },
        wrong=[
            (lambda h, w, p: h // p, "one side"),
            (lambda h, w, p: p * p, "pixels of a patch"),
            (lambda h, w, p: h * w // p, "divided by P"),
            (lambda h, w, p: (h // p) ** 2, "always square"),
            (lambda h, w, p: (w // p) ** 2, "always square"),
            (lambda h, w, p: h // p + w // p, "added"),
            (lambda h, w, p: (h // p) * (w // p) + 1, "class token"),
            (lambda h, w, p: (h / p) * (w / p), "float"),
            (lambda h, w, p: 3, "your answer is 3"),
            (lambda h, w, p: "16", "a number was expected"),
            (lambda h, w, p: True, "a number was expected"),
            (lambda h, w, p: np.bool_(True), "a number was expected"),
            (lambda h, w, p: h * w, "pixels of the image"),
            (lambda h, w, p: w // p, "one side"),
        ],
    ),
    Exercise(
        "1.2",
        ["check_token_index(_)"],
        right={
            "the formula": lambda row, column, grid: row * grid[1] + column,
            "counting": place_by_counting,
            "NumPy": lambda row, column, grid: np.ravel_multi_index((row, column), grid),
            "a tensor": lambda row, column, grid: torch.arange(15).view(grid)[row, column],
        },
        wrong=[
            (lambda r, c, grid: c * grid[0] + r, "down the columns"),
            (lambda r, c, grid: r * grid[0] + c, "other side"),
            (lambda r, c, grid: r * grid[1] + c + 1, "number 0"),
            (lambda r, c, grid: r + c, "row and column were added"),
            (lambda r, c, grid: r * c, "multiplied"),
            (lambda r, c, grid: c * grid[1] + r, "exchanged their roles"),
            (lambda r, c, grid: r * grid[1], "to the left"),
            (lambda r, c, grid: 7, "for row 0, column 0 .* is 7"),
        ],
    ),
    Exercise(
        "1.3",
        ["check_overlapping_patches(_)"],
        right={
            "loops": overlap_loops,
            "F.unfold": lambda x, p, s: F.unfold(x, p, stride=s).transpose(1, 2),
            "Tensor.unfold and permute": lambda x, p, s: (
                windows(x, p, s).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
            ),
            "einops": overlap("b c h w p q -> b (h w) (c p q)"),
            "a convolution": overlap_by_convolution,
        },
        wrong=[
            (lambda x, p, s: unfolded(x, p), "do not overlap"),
            (lambda x, p, s: overlap_loops(x, p, 1), "begins at every pixel"),
            (lambda x, p, s: F.unfold(x, p, stride=(s, p)).mT, "downwards alone"),
            (lambda x, p, s: F.unfold(x, p, stride=(p, s)).mT, "to the right alone"),
            (
                lambda x, p, s: overlap_loops(x[:, :, :-s, :-s], p, s),
                "the last row and the last column",
            ),
            (lambda x, p, s: F.unfold(x, p, stride=s), "tokens and their values are exchanged"),
            (
                lambda x, p, s: F.unfold(x, p, stride=s).reshape(len(x), -1, x.shape[1] * p * p),
                "a reshape does not exchange",
            ),
            (
                lambda x, p, s: windows(x, p, s).reshape(len(x), -1, x.shape[1] * p * p),
                "one channel of several",
            ),
            (overlap("b c h w p q -> b (h w) (p q c)"), "order \\(p1 p2 c\\)"),
            (overlap("b c h w p q -> b (w h) (c p q)"), "column by column"),
            (overlap("b c h w p q -> b (h w) (c q p)"), "diagonal"),
            (overlap("b c h w p q -> b h w (c p q)"), "two axes"),
            (lambda x, p, s: overlap_loops(x.mul_(2), p, s), "changes x in place"),
        ],
    ),
    Exercise(
        "1.4",
        ["check_pad_to_patches(_)"],
        right={
            "F.pad": lambda x, p: F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p)),
            "zeros filled": pad_with_zeros,
            "joined": pad_with_cat,
            "in place on a copy": lambda x, p: pad_in_place(x.clone() / 1.5, p),
        },
        wrong=[
            (
                lambda x, p: F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p), mode="replicate"),
                "repeats the edge",
            ),
            (
                lambda x, p: F.pad(x, (0, -x.shape[3] % p, 0, -x.shape[2] % p), value=1.0),
                "what is added is 1",
            ),
            (
                lambda x, p: F.pad(x, (-x.shape[3] % p, 0, -x.shape[2] % p, 0)),
                "above and to the left",
            ),
            (lambda x, p: x[:, :, : x.shape[2] // p * p, : x.shape[3] // p * p], "cropped"),
            (
                lambda x, p: F.pad(x, (0, p - x.shape[3] % p, 0, p - x.shape[2] % p)),
                "needs no zeros",
            ),
            (lambda x, p: F.pad(x, (0, x.shape[3] % p, 0, x.shape[2] % p)), "rest of the division"),
            (lambda x, p: F.pad(x, (0, -x.shape[2] % p, 0, -x.shape[3] % p)), "exchanged"),
            (
                lambda x, p: F.pad(
                    x,
                    (
                        (-x.shape[3] % p) // 2,
                        (-x.shape[3] % p + 1) // 2,
                        (-x.shape[2] % p) // 2,
                        (-x.shape[2] % p + 1) // 2,
                    ),
                ),
                "both sides",
            ),
            (pad_square, "padded to a square"),
            (lambda x, p: F.pad(x, (0, p, 0, p)), "was expected: an image of"),
            (pad_in_place, "changes x in place"),
        ],
    ),
    Exercise(
        "1.5",
        ["check_unpatchify(_)"],
        right={
            "permute": join_permute,
            "einops": join,
            "loops": join_loops,
            "F.fold": lambda t, p, s: F.fold(t.transpose(1, 2), s, p, stride=p),
            "in place on a copy": lambda t, p, s: join_permute(t.clone().mul_(1), p, s),
        },
        wrong=[
            (lambda t, p, s: t.reshape(len(t), -1, *s), "as they lie in memory"),
            (
                lambda t, p, s: rearrange(
                    t, "b (h w) (p q c) -> b c (h p) (w q)", h=s[0] // p, p=p, q=p
                ),
                r"\(p1 p2 c\)",
            ),
            (
                lambda t, p, s: rearrange(
                    t, "b (w h) (c p q) -> b c (h p) (w q)", h=s[0] // p, p=p, q=p
                ),
                "column by column",
            ),
            (
                lambda t, p, s: rearrange(
                    t, "b (h w) (c p q) -> b c (h q) (w p)", h=s[0] // p, p=p, q=p
                ),
                "diagonal",
            ),
            (
                lambda t, p, s: rearrange(
                    t, "b (h w) (c p q) -> b c (p h) (q w)", h=s[0] // p, p=p, q=p
                ),
                "scattered",
            ),
            (lambda t, p, s: join(t, p, s).mT, "height and width"),
            (join_in_place, "changes tokens in place"),
            (lambda t, p, s: F.fold(t, s, p, stride=p), "raised RuntimeError"),
        ],
    ),
    Exercise(
        "1.6",
        ["check_patchify_test(_)"],
        right={
            "a convolution": convolves,
            "numbers by hand, with assert": asserts_values,
            "slices": by_slices,
            "a boolean of NumPy": numpy_says,
            "F.unfold": lambda f: torch.equal(f(x := torch.randn(2, 3, 4, 6), 2), unfolded(x, 2)),
            "a tensor": lambda f: (f(x := torch.randn(2, 3, 4, 6), 2) == unfolded(x, 2)).all(),
        },
        wrong=[
            (lambda f: True, "whole rows"),
            (lambda f: f(torch.ones(1, 3, 4, 4), 2).shape == (1, 4, 12), "rows"),
            (lambda f: grey_is_right(f), "one channel of several"),
            (lambda f: False, "refuses a patchify that is right"),
            (lambda f: f(torch.ones(1, 1, 4, 4), 2), "True or False"),
            (lambda f: f(torch.ones(4, 4), 2), "raised"),
            (only_squares, "right for square images alone"),
            (only_shapes, "lets a mistake pass"),
            (only_sums, "lets a mistake pass"),
            (only_the_first_token, "lets a mistake pass: patches that are listed column by column"),
            (like_the_library, "calls vitcore's patchify"),
            (there_and_back, "calls vitcore's unpatchify"),
        ],
    ),
]
