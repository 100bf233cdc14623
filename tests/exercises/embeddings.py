# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 2: embeddings."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import (
    alternate,
    cosine,
    follow,
    resize,
    sincos,
    sincos_grid,
    turn,
)
from einops import rearrange

from exercises.table import Exercise


def cosine_loops(table):
    rows = [[F.cosine_similarity(a, b, dim=0) for b in table] for a in table]
    return torch.stack([torch.stack(row) for row in rows])


def normalised_in_place(table):
    table /= table.norm(dim=1, keepdim=True)
    return table @ table.T


def follow_loop(table, order):
    out = table.clone()
    for place, patch in enumerate(order.tolist()):
        out[0, 1 + place] = table[0, 1 + patch]
    return out


def follow_in_place(table, order):
    table[:, 1:] = table[:, 1:][:, order]
    return table


def waves_2d(grid, dim, exponent=None, parts="sSkK", start=0):
    """The 2-D table with another exponent (of i and dim), order of parts or first position."""
    quarter = dim // 4
    i = torch.arange(quarter).double()
    power = i / quarter if exponent is None else exponent(i, dim)
    frequencies = 10000.0**-power
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    across, down = ((start + place.flatten()[:, None]) * frequencies for place in (columns, rows))
    made = {"s": across.sin(), "S": across.cos(), "k": down.sin(), "K": down.cos()}
    return torch.cat([made[part] for part in parts], dim=1).float()


def waves_loops(grid, dim):
    table = torch.zeros(grid[0] * grid[1], dim)
    for row in range(grid[0]):
        for column in range(grid[1]):
            for half, place in enumerate((column, row)):
                for i in range(dim // 4):
                    angle = place / 10000 ** (4 * i / dim)
                    n = row * grid[1] + column
                    table[n, half * dim // 2 + i] = math.sin(angle)
                    table[n, half * dim // 2 + dim // 4 + i] = math.cos(angle)
    return table


def waves_numpy(grid, dim):
    frequencies = 1 / 10000 ** (np.arange(dim // 4) / (dim // 4))
    rows, columns = np.indices(grid).reshape(2, -1, 1)
    parts = [f(place * frequencies) for place in (columns, rows) for f in (np.sin, np.cos)]
    return torch.from_numpy(np.concatenate(parts, axis=1))


def turn_loops(steps, dim):
    half = dim // 2
    matrix = torch.zeros(dim, dim)
    for i in range(half):
        angle = steps / 10000 ** (i / half)
        matrix[i, i] = matrix[half + i, half + i] = math.cos(angle)
        matrix[i, half + i], matrix[half + i, i] = math.sin(angle), -math.sin(angle)
    return matrix


def turn_numpy(steps, dim):
    angles = steps / 10000.0 ** (2 * np.arange(dim // 2) / dim)
    block = np.block(
        [
            [np.diag(np.cos(angles)), np.diag(np.sin(angles))],
            [-np.diag(np.sin(angles)), np.diag(np.cos(angles))],
        ]
    )
    return torch.from_numpy(block)


def turn_fitted(steps, dim):
    table = sincos(200, dim).double()
    return torch.linalg.lstsq(table[:100], table[steps : 100 + steps]).solution.T.float()


def turn_by(angles):
    sin, cos = torch.diag(angles.sin()), torch.diag(angles.cos())
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)])


def resize_einops(table, old, new, prefix):
    grid = rearrange(table[:, prefix:], "1 (h w) d -> 1 d h w", h=old[0])
    grid = F.interpolate(grid, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], rearrange(grid, "1 d h w -> 1 (h w) d")], 1)


def resize_channels(table, old, new, prefix):
    columns = [
        F.interpolate(c.view(1, 1, *old), size=new, mode="bicubic", antialias=True).flatten()
        for c in table[0, prefix:].T
    ]
    return torch.cat([table[:, :prefix], torch.stack(columns, 1)[None]], 1)


def resize_into_zeros(table, old, new, prefix):
    out = torch.zeros(1, prefix + new[0] * new[1], table.shape[2])
    out[:, :prefix] = table[:, :prefix]
    out[:, prefix:] = resize(table[:, prefix:], old, new)
    return out


def resize_torn_twice(table, old, new, prefix):
    picture = table[:, prefix:].reshape(1, -1, *old)
    picture = F.interpolate(picture, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], picture.reshape(1, -1, table.shape[2])], 1)


def resize_torn_back(table, old, new, prefix):
    picture = table[:, prefix:].reshape(1, *old, -1).permute(0, 3, 1, 2)
    picture = F.interpolate(picture, size=new, mode="bicubic", antialias=True)
    return torch.cat([table[:, :prefix], picture.reshape(1, -1, table.shape[2])], 1)


def resize_in_place(table, old, new, prefix):
    table *= 0.5
    return 2 * resize(table, old, new, prefix)


EXERCISES = [
    Exercise(
        "2.1",
        ["check_cosine_similarity(_)"],
        right={
            "by the norm": cosine,
            "loops": cosine_loops,
            "F.normalize": lambda t: (u := F.normalize(t, dim=1)) @ u.T,
            "einsum": lambda t: (
                torch.einsum("id,jd->ij", t, t)
                / torch.einsum("i,j->ij", t.norm(dim=1), t.norm(dim=1))
            ),
            "broadcast": lambda t: F.cosine_similarity(t[:, None], t[None], dim=-1),
            "in place on a copy": lambda t: normalised_in_place(t.clone()),
        },
        wrong=[
            (lambda t: t @ t.T / t.norm(dim=1)[:, None] ** 2, "square of one vector's length"),
            (lambda t: (t / t.norm()) @ (t / t.norm()).T, "length of the whole table"),
            (lambda t: t @ t.T, "own lengths"),
            (lambda t: F.normalize(t, dim=0) @ F.normalize(t, dim=0).T, "channels"),
            (lambda t: cosine(t.T), "channels"),
            (lambda t: t.T @ t, "channels"),
            (lambda t: t @ t.T / t.norm(dim=1)[:, None], "one vector's length"),
            (lambda t: F.cosine_similarity(t, t), "shape is"),
            (lambda t: cosine(t).abs(), "values are not"),
            (lambda t: torch.cdist(t, t), "distances"),
            (normalised_in_place, "changes table in place"),
            (lambda t: torch.cdist(F.normalize(t, dim=1), F.normalize(t, dim=1)), "distances"),
        ],
    ),
    Exercise(
        "2.2",
        ["check_permute_table(_)"],
        right={
            "joined": follow,
            "a loop": follow_loop,
            "one index": lambda t, o: t[:, torch.cat([torch.zeros(1).long(), 1 + o])],
            "index_select": lambda t, o: torch.cat([t[:, :1], t[:, 1:].index_select(1, o)], 1),
            "in place on a copy": lambda t, o: follow_in_place(t.clone(), o),
        },
        wrong=[
            (lambda t, o: follow(t, o.argsort()), "wrong way round"),
            (lambda t, o: torch.cat([t[:, :1], t[:, o]], 1), "off by one: vector 0"),
            (lambda t, o: t[:, 1 + o], "vector is lost"),
            (lambda t, o: t[:, o], "and the patches' are off"),
            (lambda t, o: torch.cat([t[:, 1 + o], t[:, :1]], 1), "to the end"),
            (lambda t, o: t, "as it was"),
            (lambda t, o: t.zero_(), "changes t in place"),
            (follow_in_place, "changes table in place"),
        ],
    ),
    Exercise(
        "2.3",
        ["check_sincos_2d(_)"],
        right={
            "a table for each direction": sincos_grid,
            "meshgrid": waves_2d,
            "loops": waves_loops,
            "NumPy": waves_numpy,
            "in place": lambda g, d: torch.zeros(g[0] * g[1], d).add_(waves_2d(g, d)),
        },
        wrong=[
            (lambda g, d: waves_2d(g, d, lambda i, d: -i / (d // 4)), "grow with the index"),
            (lambda g, d: waves_2d(g, d, lambda i, d: (i + 1) / (d // 4)), "starts at 1, where"),
            (lambda g, d: sincos_grid(g, d).roll(d // 2, 1), "row comes first"),
            (
                lambda g, d: rearrange(sincos_grid(g, d), "(h w) d -> (w h) d", h=g[0]),
                "column by column",
            ),
            (lambda g, d: sincos(g[0] * g[1], d), "1-D table"),
            (lambda g, d: sincos_grid(g, d)[:, : d // 2].repeat(1, 2), "the column"),
            (lambda g, d: sincos_grid(g, d)[:, d // 2 :].repeat(1, 2), "the row"),
            (lambda g, d: sum(sincos_grid(g, d).chunk(2, 1)), "added"),
            (
                lambda g, d: torch.cat(
                    [alternate(half) for half in sincos_grid(g, d).chunk(2, 1)], 1
                ),
                "alternate",
            ),
            (lambda g, d: sincos_grid(g, d).view(*g, d), "two axes"),
            (lambda g, d: waves_2d(g, d, lambda i, d: i / d), "divided by dim$|divided by dim[^/]"),
            (lambda g, d: waves_2d(g, d, lambda i, d: i / (d // 2)), "divided by dim/2"),
            (lambda g, d: waves_2d(g, d, lambda i, d: 2 * i / d), "divided by dim/2"),
            (lambda g, d: waves_2d(g, d, lambda i, d: 2 * i / (d // 4)), "factor of 2"),
            (lambda g, d: waves_2d(g, d, lambda i, d: 2 * i), "not divided"),
            (lambda g, d: waves_2d(g, d, lambda i, d: i), "not divided"),
            (lambda g, d: waves_2d(g, d, lambda i, d: i / (d // 4 - 1)), "linspace"),
            (lambda g, d: waves_2d(g, d, start=1), "counted from 1"),
            (lambda g, d: waves_2d(g, d)[None], "shape is"),
            (lambda g, d: waves_2d(g, d, parts="SsKk"), "cosines come first"),
            (lambda g, d: waves_2d(g, d, parts="skSK"), "sines of both directions come first"),
            (lambda g, d: waves_2d(g, d, parts="kKsS"), "row comes first"),
        ],
    ),
    Exercise(
        "2.4",
        ["check_shift_matrix(_)"],
        right={
            "blocks": turn,
            "loops": turn_loops,
            "NumPy": turn_numpy,
            "fitted": turn_fitted,
            "in double precision": lambda k, d: turn(k, d).double(),
            "step by step": lambda k, d: torch.linalg.matrix_power(turn(1, d).double(), k),
        },
        wrong=[
            (lambda k, d: turn(k, d).T, "backwards"),
            (lambda k, d: torch.eye(d), "identity"),
            (lambda k, d: turn(k, d, sign=-1), "one sine with a minus"),
            (lambda k, d: alternate(alternate(turn(k, d)).T).T, "alternate"),
            (lambda k, d: turn(k + 1, d), "values are not"),
            (lambda k, d: turn(k, d)[: d // 2], "shape is"),
            (lambda k, d: 3, "tensor was expected"),
            (lambda k, d: turn_by(k / 10000 ** (torch.arange(d // 2) / d)), "too slowly"),
            (lambda k, d: turn(1, d), "always goes one step"),
            (lambda k, d: turn_by(torch.full((d // 2,), float(k))), "same angle"),
        ],
    ),
    Exercise(
        "2.5",
        ["check_resize_positions(_)"],
        right={
            "permute": resize,
            "einops": resize_einops,
            "channel by channel": resize_channels,
            "filled in": resize_into_zeros,
            "in place on a copy": lambda t, *a: resize_in_place(t.clone(), *a),
        },
        wrong=[
            (lambda *a: resize(*a, mode="bicubic", align_corners=True), "corners"),
            (lambda *a: resize(*a, mode="bicubic"), "antialias"),
            (lambda *a: resize(*a, mode="bilinear", antialias=True), "linear"),
            (lambda *a: resize(*a, mode="bilinear"), "linear"),
            (lambda *a: resize(*a, mode="nearest"), "nearest"),
            (lambda t, old, new, k: resize(t, old, new[::-1], k), "new grid"),
            (lambda t, old, new, k: resize(t, old[::-1], new, k), "old grid"),
            (lambda t, old, new, k: resize(t, old, new, k)[:, k:], "is lost"),
            (lambda *a: resize(*a).roll(-1, 1), "moved to the end"),
            (lambda t, *a: t, "as it was"),
            (
                lambda t, old, new, k: torch.cat(
                    [
                        t[:, :k],
                        F.interpolate(
                            t[:, k:].reshape(1, -1, *old), size=new, mode="bicubic", antialias=True
                        )
                        .permute(0, 2, 3, 1)
                        .flatten(1, 2),
                    ],
                    1,
                ),
                "not moved in front of the grid, they",
            ),
            (lambda t, old, new, k: resize(t, old, new, 1), "not with 3"),
            (resize_torn_twice, "neither in front of the grid nor back"),
            (resize_torn_back, "not moved back"),
            (resize_in_place, "changes table in place"),
        ],
    ),
]
