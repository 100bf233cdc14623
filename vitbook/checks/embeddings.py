# SPDX-License-Identifier: MIT
"""Checks of chapter 2: the class token, positions, and position tables on other grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .frame import CheckFailed, call, check, compare


def _waves(positions: Tensor, dim: int, *, base: float = 10000.0, step: float = 2.0) -> Tensor:
    angles = positions.double()[:, None] * base ** (-torch.arange(dim // 2).double() * step / dim)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _interleave(table: Tensor) -> Tensor:
    return rearrange(table, "n (two half) -> n (half two)", two=2)


def _swap_halves(table: Tensor) -> Tensor:
    first, second = table.chunk(2, dim=1)
    return torch.cat([second, first], dim=1)


@check("the table of sines and cosines is right")
def check_sincos_1d(sincos: Callable[[int, int], Tensor]) -> None:
    """``sincos(length, dim) -> (length, dim)``: sines, then cosines, wavelengths 2 pi to 10000."""
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
            ("positions and frequencies are exchanged: one vector for each position is expected",
             want.T),
        ]  # fmt: skip
        compare(
            call(sincos, length, dim), want, wrong,
            "vector n holds the sines and then the cosines of n times the falling frequencies",
        )  # fmt: skip


@check("every patch has the waves of its column and of its row")
def check_sincos_2d(sincos: Callable[[tuple[int, int], int], Tensor]) -> None:
    """``sincos((rows, columns), dim) -> (rows*columns, dim)``: column half first, as MAE has it."""
    for (rows, columns), dim in (((3, 4), 16), ((5, 2), 24)):
        row = torch.arange(rows).repeat_interleave(columns)
        column = torch.arange(columns).repeat(rows)
        across, down = _waves(column, dim // 2), _waves(row, dim // 2)
        want = torch.cat([across, down], dim=1)
        slow = torch.arange(columns).repeat_interleave(rows), torch.arange(rows).repeat(columns)

        def other(step: float) -> Tensor:
            """The table with other exponents: step = 2 is right."""
            halves = [_waves(place, dim // 2, step=step) for place in (column, row)]  # noqa: B023
            return torch.cat(halves, dim=1)

        quarter = dim // 4
        sines = [half[:, :quarter] for half in (across, down)]
        cosines = [half[:, quarter:] for half in (across, down)]
        wrong = [
            ("the frequencies fall too slowly: one direction has dim/4 of them, so the exponent is "
             "i / (dim/4), and here it is divided by dim", other(0.5)),
            ("the frequencies fall too slowly: one direction has dim/4 of them, so the exponent is "
             "i / (dim/4), and here it is divided by dim/2", other(1.0)),
            ("the frequencies fall too fast: the exponent has a factor of 2 too much", other(4.0)),
            ("the frequencies fall too fast: the exponent is i or 2i, and is not divided by their "
             "number", other(dim / 2)),
            ("the frequencies fall too fast: the exponent is i or 2i, and is not divided by their "
             "number", other(float(dim))),
            ("the frequencies grow with the index: the first pair is the fastest", other(-2.0)),
            ("the index of the frequencies starts at 1, where the first frequency is 1",
             torch.cat([_waves(place / 10000 ** (1 / quarter), dim // 2)
                        for place in (column, row)], dim=1)),
            ("rows and columns are counted from 1, where the first is 0",
             torch.cat([_waves(place + 1, dim // 2) for place in (column, row)], dim=1)),
            ("the exponents reach 1, as linspace makes them: i is divided by the number of "
             "frequencies, not by one less", other(2 * quarter / (quarter - 1))),
            ("the cosines come first in each half",
             torch.cat([cosines[0], sines[0], cosines[1], sines[1]], dim=1)),
            ("the sines of both directions come first, and then the cosines: each half of a vector "
             "belongs to one direction", torch.cat([*sines, *cosines], dim=1)),
            ("the positions start at 1",
             torch.cat([_waves(place + 1, dim // 2) for place in (column, row)], dim=1)),
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
        compare(
            call(sincos, (rows, columns), dim), want, wrong,
            f"a grid of {rows} by {columns} has one vector for each patch, half of it from the "
            "column and half from the row",
        )  # fmt: skip


@check("every image has the class token in front of its patches")
def check_add_class_token(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``add(tokens (B, N, D), cls_token (1, 1, D)) -> (B, N+1, D)``, class token first."""
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
    compare(
        call(add, tokens, token), torch.cat([repeated, tokens], dim=1), wrong,
        "each image of the batch gets one more token, the same for all images",
    )  # fmt: skip


ONE_POSITION = (
    "all tokens get the same vector of the position table: every token must get one of its own, "
    "or their order is lost"
)
CLASS_BARE = "the class token gets no position: the table has a vector for it as well"
NO_POSITIONS = "the positions are not added: the tokens come out as they went in"


@check("every token, the class token too, gets its own vector of the table")
def check_add_positions(add: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``add(tokens (B, 1+N, D), table (1, 1+N, D)) -> (B, 1+N, D)``, class token first."""
    tokens, table = torch.randn(4, 6, 8), torch.randn(1, 6, 8)
    wrong = [(ONE_POSITION, tokens + table[:, i : i + 1]) for i in range(6)]
    wrong += [
        (ONE_POSITION, tokens + table.mean(dim=1, keepdim=True)),
        (CLASS_BARE, torch.cat([tokens[:, :1], (tokens + table)[:, 1:]], dim=1)),
        (CLASS_BARE + " (and the others are shifted by one)",
         torch.cat([tokens[:, :1], tokens[:, 1:] + table[:, :-1]], dim=1)),
        (NO_POSITIONS, tokens),
        ("the vectors of the table went to the images of the batch, not to the tokens",
         tokens + table[0, :4, None, :]),
        ("the table was multiplied with the tokens", tokens * table),
        ("the table was joined to the tokens, where it is added",
         torch.cat([tokens, table.expand(4, 6, 8)], dim=2)),
        ("the table was joined to the tokens, where it is added",
         torch.cat([tokens, table.expand(4, 6, 8)], dim=1)),
    ]  # fmt: skip
    compare(
        call(add, tokens, table), tokens + table, wrong,
        "token n of every image gets vector n of the table",
    )  # fmt: skip


@check("the table keeps its meaning on the other grid, whatever stands in front of it")
def check_resize_positions(resize: Callable[..., Tensor]) -> None:
    """``resize(table (1, K+N, D), old_grid, new_grid, prefix_tokens) -> (1, K+M, D)``, any K."""
    _judge_resize(resize, 1)
    for prefix in (3, 0):
        try:
            _judge_resize(resize, prefix)
        except CheckFailed as failure:
            raise CheckFailed(
                f"right with one vector in front of the patches, but not with {prefix}: the number "
                "of those comes as prefix_tokens"
            ) from failure.__cause__


def _judge_resize(resize: Callable[..., Tensor], prefix: int) -> None:
    for old, new in (((4, 6), (6, 3)), ((5, 5), (3, 3)), ((3, 3), (3, 3))):
        front = torch.randn(1, prefix, 8)
        table = torch.randn(1, old[0] * old[1], 8)
        grid = rearrange(table, "1 (h w) d -> 1 d h w", h=old[0])

        def to(
            grid: Tensor,
            size: tuple[int, int] = new,
            /,
            back: str = "1 d h w -> 1 (h w) d",
            **how: Any,
        ) -> Tensor:
            resized = rearrange(F.interpolate(grid, size=size, **how), back)
            return torch.cat([front, resized.reshape(1, -1, 8)], 1)  # noqa: B023

        cubic: dict[str, Any] = {"mode": "bicubic", "antialias": True}
        mixed = table.reshape(1, 8, *old)
        want = to(grid, **cubic)
        patches = want[:, prefix:]
        torn = "they were reshaped: every value lands in a wrong place"
        wrong = [
            ("the corners are aligned: the outermost patches then keep their values while "
             "the others drift", to(grid, mode="bicubic", align_corners=True)),
            ("antialias is off: rows are skipped when the grid shrinks",
             to(grid, mode="bicubic")),
            ("the table is resized linearly, not bicubically",
             to(grid, mode="bilinear", antialias=True)),
            ("the table is resized linearly, not bicubically", to(grid, mode="bilinear")),
            ("the nearest vector is taken, nothing is interpolated", to(grid, mode="nearest")),
            (f"the channels were not moved in front of the grid, {torn}", to(mixed, **cubic)),
            (f"the channels were moved neither in front of the grid nor back, {torn}",
             to(mixed, back="1 d h w -> 1 d h w", **cubic)),
            (f"the channels were not moved back behind the grid, {torn}",
             to(grid, back="1 d h w -> 1 d h w", **cubic)),
            ("rows and columns of the new grid are exchanged", to(grid, new[::-1], **cubic)),
            ("rows and columns of the old grid are exchanged",
             to(rearrange(table, "1 (h w) d -> 1 d h w", h=old[1]), **cubic)),
            ("the class token's vector is lost", patches),
            ("the class token's vector moved to the end", torch.cat([patches, front], dim=1)),
            ("the table is as it was", torch.cat([front, table], dim=1)),
        ]  # fmt: skip
        compare(
            call(resize, torch.cat([front, table], dim=1), old, new, prefix), want, wrong,
            f"from a grid of {old[0]} by {old[1]} to {new[0]} by {new[1]}",
        )  # fmt: skip


@check("the cosine between each two vectors is right")
def check_cosine_similarity(similarity: Callable[[Tensor], Tensor]) -> None:
    """``similarity(table (N, D)) -> (N, N)``, the cosine between each two vectors."""
    table = torch.randn(5, 7)
    unit = F.normalize(table, dim=1)
    across = F.normalize(table, dim=0)
    wrong = [
        ("these are products of vectors that still have their own lengths", table @ table.T),
        ("the channels were brought to length one, not the vectors", across @ across.T),
        ("this compares the channels with each other, not the vectors", across.T @ across),
        ("this compares the channels with each other, not the vectors", table.T @ table),
        ("the product was divided by the square of one vector's length: the root of the sum of "
         "squares is the length", table @ table.T / table.square().sum(1, keepdim=True)),
        ("every vector was divided by the length of the whole table",
         table @ table.T / table.square().sum()),
        ("the product was divided by one vector's length only",
         table @ table.T / table.norm(dim=1, keepdim=True)),
        ("these are distances, not cosines", torch.cdist(table, table)),
        ("these are distances, not cosines", torch.cdist(unit, unit)),
    ]  # fmt: skip
    compare(call(similarity, table), unit @ unit.T, wrong, "entry (i, j) compares vectors i and j")


def _angles(steps: int, dim: int) -> Tensor:
    return steps * 10000.0 ** (-torch.arange(dim // 2).double() * 2 / dim)


def _turn(angles: Tensor) -> Tensor:
    """The matrix (D, D) that turns the pair of sine i and cosine i by ``angles[i]``."""
    sin, cos = torch.diag(angles.sin()), torch.diag(angles.cos())
    return torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)]).float()


@check("one matrix moves every position by the same number of steps")
def check_shift_matrix(shift: Callable[[int, int], Tensor]) -> None:
    """`shift(steps, dim) -> (dim, dim)`: R with `R @ table[n] == table[n + steps]` for every n.

    `table` is the one of `sincos_positions_1d`.
    """
    for steps, dim in ((3, 8), (1, 12)):
        place = torch.arange(20)
        table, want = _waves(place, dim), _waves(place + steps, dim)
        matrix = call(shift, steps, dim)
        if not isinstance(matrix, Tensor):
            raise CheckFailed(f"a tensor was expected, but a {type(matrix).__name__} came back")
        if tuple(matrix.shape) != (dim, dim):
            raise CheckFailed(
                f"the shape is {tuple(matrix.shape)} where {(dim, dim)} was expected: the "
                "matrix takes one vector of the table to another"
            )
        half, angles = dim // 2, _angles(steps, dim)
        sin, cos = torch.diag(angles.sin()), torch.diag(angles.cos())
        turn = _turn(angles)
        alike = torch.cat([torch.cat([cos, sin], 1), torch.cat([sin, cos], 1)]).float()
        pairs = torch.arange(dim).view(2, -1).T.flatten()
        wrong = [
            ("this steps backwards: which of the two sines has the minus?", table @ turn),
            ("this is the identity: the steps are not used", table),
            ("a rotation has one sine with a minus and one without", table @ alike.T),
            ("the steps are not used: this always goes one step",
             table @ _turn(_angles(1, dim)).T),
            ("the frequencies fall too slowly: there are D/2 of them, so that the exponent is "
             "i / (D/2)", table @ _turn(steps * 10000.0 ** (-torch.arange(half) / dim)).T),
            ("every pair turns by the same angle: each has a frequency of its own",
             table @ _turn(torch.full((half,), float(steps))).T),
            ("this fits a table in which sines and cosines alternate: the sines of this one "
             "fill the first half", table @ turn[pairs][:, pairs].T),
        ]  # fmt: skip
        compare(
            table @ matrix.detach().float().T, want, wrong,
            f"for {steps} steps and dim {dim}, R times vector n is not vector n + {steps}; each "
            "sine and its cosine turn by the steps times their frequency",
        )  # fmt: skip


@check("every patch keeps its position wherever the shuffle puts it")
def check_permute_table(permute: Callable[[Tensor, Tensor], Tensor]) -> None:
    """`permute(table (1, 1+N, D), order (N,)) -> (1, 1+N, D)`: vectors that follow their patches.

    `order` says which patch stands at each place after the shuffle, and the class token, whose
    vector is the first, stays where it is.
    """
    table, order = torch.randn(1, 8, 6), torch.tensor([3, 0, 6, 1, 5, 2, 4])
    front, rows = table[:, :1], table[:, 1:]
    wrong = [
        ("the shuffle goes the wrong way round: the patch that now stands at place j is patch "
         "order[j]", torch.cat([front, rows[:, order.argsort()]], dim=1)),
        ("the vectors are off by one: vector 0 is the class token's, so patch i has vector i + 1",
         torch.cat([front, table[:, order]], dim=1)),
        ("the class token's vector is lost", rows[:, order]),
        ("the class token's vector is lost, and the patches' are off by one",
         table[:, order]),
        ("the class token's vector moved to the end", torch.cat([rows[:, order], front], dim=1)),
        ("the table is as it was", table),
    ]  # fmt: skip
    compare(
        call(permute, table, order), torch.cat([front, rows[:, order]], dim=1), wrong,
        "the vector of patch order[j] belongs at place j, behind the class token's",
    )  # fmt: skip
