# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 10: better patches."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange

from exercises.table import Exercise
from vitcore.tokenisers import ShiftedPatchEmbed


def shift(images, half, mode="constant"):
    height, width = images.shape[-2:]
    wide = F.pad(images, (half, half, half, half), mode=mode)
    parts = [images]
    for down in (0, 2 * half):
        for right in (0, 2 * half):
            parts.append(wide[..., down : down + height, right : right + width])
    return torch.cat(parts, dim=1)


def shift_slices(images, half):
    early, late = slice(None, -half), slice(half, None)
    parts = [images]
    for rows in ((late, early), (early, late)):  # where it goes, where it comes from
        for cols in ((late, early), (early, late)):
            part = torch.zeros_like(images)
            part[..., rows[0], cols[0]] = images[..., rows[1], cols[1]]
            parts.append(part)
    return torch.cat(parts, dim=1)


def shift_numpy(images, half):
    wide = np.pad(images.numpy(), ((0, 0), (0, 0), (half, half), (half, half)))
    h, w = images.shape[2:]
    ends = [(a, b) for a in (0, 2 * half) for b in (0, 2 * half)]
    return torch.from_numpy(
        np.concatenate([images.numpy(), *(wide[:, :, a : a + h, b : b + w] for a, b in ends)], 1)
    )


def shift_by_convolution(images, half):
    count, side = images.shape[1], 2 * half + 1
    parts = [images]
    for down in (0, 2 * half):
        for right in (0, 2 * half):
            kernel = torch.zeros(count, 1, side, side)
            kernel[:, :, down, right] = 1
            parts.append(F.conv2d(images, kernel, padding=half, groups=count))
    return torch.cat(parts, dim=1)


def shift_in_place(images, half):
    images -= 0
    images[..., :half, :] = 0
    return shift(images, half)


def reorder(shifted, order):
    return torch.cat([shifted.chunk(5, 1)[i] for i in order], 1)


def straight(images, half):
    wide = F.pad(images, (half, half, half, half))
    h, w = images.shape[2:]
    corners = ((0, half), (2 * half, half), (half, 0), (half, 2 * half))
    return torch.cat([images, *(wide[..., a : a + h, b : b + w] for a, b in corners)], 1)


def field(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step *= stride
    return side


def field_backwards(layers):
    side = 1
    for kernel, stride in reversed(layers):
        side = (side - 1) * stride + kernel
    return side


def field_by_sum(layers):
    strides = [s for _, s in layers]
    return 1 + sum((k - 1) * math.prod(strides[:i]) for i, (k, _) in enumerate(layers))


def field_measured(layers):
    x = torch.zeros(1, 1, 1, 200, requires_grad=True)
    y = x
    for kernel, stride in layers:
        y = F.conv2d(y, torch.ones(1, 1, 1, kernel), stride=(1, stride))
    y[..., 1].sum().backward()
    return int((x.grad != 0).sum())


def field_adding_strides(layers):
    side, step = 1, 1
    for kernel, stride in layers:
        side += (kernel - 1) * step
        step += stride
    return side


def resize_kernel(weight, matrix):
    side = math.isqrt(matrix.shape[0])
    return (weight.flatten(2) @ torch.linalg.pinv(matrix)).unflatten(2, (side, side))


def resize_lstsq(weight, matrix):
    side = math.isqrt(len(matrix))
    flat = weight.flatten(2).flatten(0, 1).T  # (P·P, D·C)
    found = torch.linalg.lstsq(matrix.T.double(), flat.double(), driver="gelsd").solution
    return found.T.float().reshape(*weight.shape[:2], side, side)


def resize_einsum(weight, matrix):
    side = math.isqrt(matrix.shape[0])
    inverse = torch.linalg.pinv(matrix).view(*weight.shape[2:], side, side)
    return torch.einsum("dcpq,pqmn->dcmn", weight, inverse)


def resize_any_solution(weight, matrix):
    right = resize_kernel(weight, matrix)
    side = right.shape[-1]
    silent = torch.eye(len(matrix)) - matrix @ torch.linalg.pinv(matrix)  # no patch answers to it
    return right + (right.roll(1, 0).flatten(2) @ silent).unflatten(2, (side, side))


def resize_normal_equations(weight, matrix):
    side = math.isqrt(len(matrix))
    if matrix.shape[0] >= matrix.shape[1]:
        solve = matrix @ torch.linalg.inv(matrix.T @ matrix)
    else:
        solve = torch.linalg.inv(matrix @ matrix.T) @ matrix
    return torch.einsum("nm,dcm->dcn", solve, weight.flatten(2)).unflatten(2, (side, side))


def resize_numpy(weight, matrix):
    d, c, p, _ = weight.shape
    side = math.isqrt(matrix.shape[0])
    found = weight.numpy().reshape(d * c, p * p) @ np.linalg.pinv(matrix.numpy())
    return torch.from_numpy(found.reshape(d, c, side, side)).float()


def resize_as_image(weight, matrix):
    side = math.isqrt(matrix.shape[0])
    return (weight.flatten(2) @ matrix.T).unflatten(2, (side, side))


def area(weight, matrix):
    return weight[0, 0].numel() / len(matrix)


def merge(tokens, grid):
    pattern = "b (r s c t) d -> b (r c) (t s d)"
    return rearrange(tokens, pattern, r=grid[0] // 2, c=grid[1] // 2, s=2, t=2)


def merge_slices(tokens, grid):
    x = tokens.unflatten(1, grid)
    parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
    return torch.cat(parts, dim=-1).flatten(1, 2)


def merge_loop(tokens, grid):
    rows, cols = grid
    found = []
    for r in range(0, rows, 2):
        for c in range(0, cols, 2):
            four = [(r, c), (r + 1, c), (r, c + 1), (r + 1, c + 1)]
            found.append(torch.cat([tokens[:, i * cols + j] for i, j in four], dim=-1))
    return torch.stack(found, dim=1)


def merge_unfold(tokens, grid):
    b, _, d = tokens.shape
    picture = tokens.mT.reshape(b, d, *grid)
    found = F.unfold(picture, 2, stride=2).mT.reshape(b, -1, d, 2, 2)
    return found.permute(0, 1, 4, 3, 2).flatten(2)


def merge_reshape(tokens, grid):
    b, _, d = tokens.shape
    x = tokens.reshape(b, grid[0] // 2, 2, grid[1] // 2, 2, d)
    return x.permute(0, 1, 3, 4, 2, 5).reshape(b, -1, 4 * d)


def squares(tokens, grid):
    return merge(tokens, grid).unflatten(2, (4, -1))


def features(images, patch_size, network, pattern="(b r s) c p q"):
    whole = "b c (r p) (s q)"
    patches = rearrange(images, f"{whole} -> {pattern}", p=patch_size, q=patch_size)
    return network(patches).unflatten(0, (len(images), -1))


def features_unfold(images, patch_size, network):
    cut = F.unfold(images, patch_size, stride=patch_size).mT  # (B, N, C·P·P)
    patches = cut.reshape(-1, images.shape[1], patch_size, patch_size)
    return network(patches).view(len(images), cut.shape[1], -1)


def features_cat(images, patch_size, network):
    _, _, height, width = images.shape
    corners = [(r, c) for r in range(0, height, patch_size) for c in range(0, width, patch_size)]
    cut = [images[:, :, r : r + patch_size, c : c + patch_size] for r, c in corners]
    return torch.stack(network(torch.cat(cut)).chunk(len(cut)), dim=1)


def features_windows(images, patch_size, network):
    windows = images.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    windows = windows.permute(0, 2, 3, 1, 4, 5)  # (B, rows, columns, C, P, P)
    return network(windows.flatten(0, 2)).unflatten(0, (len(images), -1))


def features_loop(images, patch_size, network):
    _, _, height, width = images.shape
    found = []
    for r in range(0, height, patch_size):
        for c in range(0, width, patch_size):
            found.append(network(images[:, :, r : r + patch_size, c : c + patch_size]))
    return torch.stack(found, dim=1)


EXERCISES = [
    Exercise(
        "10.1",
        ["check_receptive_field(_)"],
        right={
            "forwards": field,
            "backwards": field_backwards,
            "a sum": field_by_sum,
            "measured": field_measured,
            "NumPy's number": lambda layers: np.int64(field(layers)),
        },
        wrong=[
            (lambda x: 1 + sum(k - 1 for k, _ in x), "no part"),
            (
                lambda x: (
                    1
                    + sum(
                        (k - 1) * math.prod(s for _, s in x[: i + 1]) for i, (k, _) in enumerate(x)
                    )
                ),
                "own stride",
            ),
            (lambda x: field(x[::-1]), "last to the first"),
            (lambda x: field(x) - 1, "begin with 1"),
            (
                lambda x: 1 + sum(k * math.prod(s for _, s in x[:i]) for i, (k, _) in enumerate(x)),
                "not k",
            ),
            (lambda x: sum(k for k, _ in x), "are added"),
            (lambda x: math.prod(k for k, _ in x), "multiplied"),
            (lambda x: math.prod(s for _, s in x), "the step"),
            (lambda x: x[-1][0], "last layer alone"),
            (lambda x: x[0][0], "first layer alone"),
            (
                lambda x: (
                    1 + sum((k - 1) * (x[i - 1][1] if i else 1) for i, (k, _) in enumerate(x))
                ),
                "layer before",
            ),
            (lambda x: field([(k // 2 + 1, s) for k, s in x]), "half of each"),
            (lambda x: field([(k // 2 * 2 + 1, s) for k, s in x]), "no pixel in its middle"),
            (field_adding_strides, "strides are added"),
            (lambda x: field(x) + 1, "not right"),
            (lambda x: float(field(x)), "float"),
        ],
    ),
    Exercise(
        "10.2",
        ["check_shifted_images(_)"],
        right={
            "pad and cut": shift,
            "slices": shift_slices,
            "NumPy": shift_numpy,
            "a convolution": shift_by_convolution,
            "the module's": lambda x, half: ShiftedPatchEmbed(12, 2 * half, 3, 4).shift(x),
        },
        wrong=[
            (lambda x, half: shift(x, half)[:, 3:], "is missing"),
            (lambda x, half: shift(x, half).roll(-3, 1), "comes first"),
            (
                lambda x, half: torch.cat([x, *shift(x, half)[:, 3:].chunk(4, 1)[::-1]], 1),
                "turned around",
            ),
            (lambda x, half: reorder(shift(x, half), [0, 1, 3, 2, 4]), "up right and down left"),
            (
                lambda x, half: torch.cat(
                    [x, *(x.roll((a, b), (2, 3)) for a in (half, -half) for b in (half, -half))], 1
                ),
                "comes back",
            ),
            (lambda x, half: shift(x, half, "replicate"), "repeated"),
            (lambda x, half: shift(x, half, "reflect"), "mirrored"),
            (lambda x, half: shift(x, half // 2), "one pixel"),
            (lambda x, half: shift(x, 2 * half), "whole patch"),
            (straight, "diagonals are expected"),
            (
                lambda x, half: shift(x, half).unflatten(1, (5, -1)).transpose(1, 2).flatten(1, 2),
                "side by side",
            ),
            (lambda x, half: shift(x, half).unflatten(1, (5, -1)).sum(1), "are added"),
            (lambda x, half: reorder(shift(x, half), [0, 2, 1, 4, 3]), "left and right"),
            (lambda x, half: reorder(shift(x, half), [0, 3, 4, 1, 2]), "up and down"),
            (lambda x, half: reorder(shift(x, half), [0, 1, 2, 4, 3]), "last two"),
            (
                lambda x, half: torch.cat(
                    [x, *(x.roll((a, b), (2, 3)) for a in (-half, half) for b in (-half, half))], 1
                ),
                "comes back.*turned around",
            ),
            (lambda x, half: shift(x, half).unflatten(1, (5, -1)), "axis of their own"),
            (lambda x, half: torch.cat(shift(x, half).chunk(5, 1)), "in the batch"),
            (shift_in_place, "in place"),
        ],
    ),
    Exercise(
        "10.3",
        ["check_resize_kernel(_)"],
        right={
            "the pseudoinverse": resize_kernel,
            "least squares": resize_lstsq,
            "einsum": resize_einsum,
            "NumPy": resize_numpy,
            "normal equations": resize_normal_equations,
            "another solution": resize_any_solution,
        },
        wrong=[
            (resize_as_image, "as if it were an image"),
            (lambda w, m: area(w, m) * resize_as_image(w, m), "size set right"),
            (
                lambda w, m: resize_as_image(w, m) * w.norm() / resize_as_image(w, m).norm(),
                "size set right",
            ),
            (lambda w, m: resize_kernel(w, m).mT, "rows and columns"),
            (lambda w, m: resize_kernel(w, m) / area(w, m), "too large"),
            (lambda w, m: resize_kernel(w, m) * area(w, m), "too small"),
            (lambda w, m: resize_kernel(w, m).flatten(2), "not back"),
            (lambda w, m: resize_kernel(w, m).mean(1, True).repeat(1, 3, 1, 1), "averaged"),
            (lambda w, m: resize_kernel(w, m).flip(0), "reversed"),
            (lambda w, m: resize_kernel(w, m) + 1, "values are not"),
        ],
    ),
    Exercise(
        "10.4",
        ["check_merge_tokens(_)"],
        right={
            "einops": merge,
            "slices": merge_slices,
            "a loop": merge_loop,
            "unfold": merge_unfold,
            "reshape and permute": merge_reshape,
        },
        wrong=[
            (lambda x, g: squares(x, g)[:, :, [0, 2, 1, 3]].flatten(2), "lower left second"),
            (lambda x, g: x.reshape(len(x), -1, 4 * x.shape[2]), "follow one another"),
            (lambda x, g: merge(x, g[::-1]), "exchanged"),
            (lambda x, g: squares(x, g).mT.flatten(2), "mixed"),
            (
                lambda x, g: (
                    merge(x, g).unflatten(1, (g[0] // 2, -1)).transpose(1, 2).flatten(1, 2)
                ),
                "column by column",
            ),
            (
                lambda x, g: rearrange(
                    x, "b (s r t c) d -> b (r c) (t s d)", s=2, t=2, r=g[0] // 2, c=g[1] // 2
                ),
                "quarters",
            ),
            (lambda x, g: F.pixel_unshuffle(x.mT.unflatten(2, g), 2).flatten(2).mT, "mixed"),
            (
                lambda x, g: x.unflatten(1, g).transpose(1, 2).reshape(len(x), -1, 4 * x.shape[2]),
                "one column",
            ),
            (lambda x, g: squares(x, g).transpose(1, 2).flatten(1, 2), "one after the other"),
            (lambda x, g: merge(x, g).unflatten(1, (g[0] // 2, -1)), "grid is kept"),
            (lambda x, g: squares(x, g)[:, :, [0, 2, 3, 1]].flatten(2), "goes around"),
            (lambda x, g: squares(x, g)[:, :, [0, 1, 3, 2]].flatten(2), "goes around"),
            (lambda x, g: torch.cat(x.chunk(4, 1), -1), "one column"),
            (lambda x, g: squares(x, g).mean(2), "averaged"),
            (lambda x, g: squares(x, g).sum(2), "added"),
            (lambda x, g: squares(x, g).amax(2), "largest"),
            (lambda x, g: squares(x, g)[:, :, 0], "upper left token"),
            (lambda x, g: squares(x, g).flip(2).flatten(2), "turned around"),
        ],
    ),
    Exercise(
        "10.5",
        ["check_patch_features(_)"],
        right={
            "einops": features,
            "unfold": features_unfold,
            "one batch of slices": features_cat,
            "windows": features_windows,
        },
        wrong=[
            (features_loop, "called 6 times"),
            (lambda x, p, net: features(x, p, net, "(r s b) c p q"), "mixed up"),
            (lambda x, p, net: features(x, p, net, "(b s r) c p q"), "column by column"),
            (lambda x, p, net: features(x, p, net, "(b r s) c q p"), "each patch"),
            (lambda x, p, net: features(x, p, net, "(b r s) p q c"), r"given \(12, 2, 2, 3\)"),
            (
                lambda x, p, net: features(
                    x, p, lambda cut: net(cut.reshape(-1, x.shape[1], p, p)), "(b r s) p q c"
                ),
                "channels and pixels",
            ),
            (lambda x, p, net: features(x, p, net, "(b r s) (c p q)"), r"given \(12, 12\)"),
            (lambda x, p, net: features(x, p, lambda cut: net(cut.numpy())), "given a ndarray"),
            (
                lambda x, p, net: net(x.reshape(-1, x.shape[1], p, p)).unflatten(0, (len(x), -1)),
                "reshaped, not cut",
            ),
            (
                lambda x, p, net: net(
                    x.unfold(2, p, p).unfold(3, p, p).reshape(-1, x.shape[1], p, p)
                ).unflatten(0, (len(x), -1)),
                "in front of the grid",
            ),
            (
                lambda x, p, net: net(
                    F.unfold(x, p, stride=p).reshape(-1, x.shape[1], p, p)
                ).unflatten(0, (len(x), -1)),
                "patches last",
            ),
            (lambda x, p, net: features(x, p, net).unflatten(1, (2, 3)), "grid is kept"),
            (
                lambda x, p, net: net(
                    rearrange(x, "b c (p r) (q s) -> (b r s) c p q", p=p, q=p)
                ).unflatten(0, (len(x), -1)),
                "lie apart",
            ),
            (lambda x, p, net: features(x, p, net).flatten(0, 1), "one row"),
            (lambda x, p, net: features(x, p, net).mean(1), "averaged"),
            (lambda x, p, net: features(x, p, net).mT, "tokens and features"),
            (lambda x, p, net: features(x, p, net).transpose(0, 1), "images and tokens"),
            (lambda x, p, net: net(x), r"given \(2, 3, 4, 6\)"),
        ],
    ),
]
