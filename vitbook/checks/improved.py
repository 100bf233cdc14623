# SPDX-License-Identifier: MIT
"""Checks of chapter 9: learned temperatures, windows, rotary angles, padding, dropped patches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .frame import CheckFailed, call, check, compare


@check("each head divides by its own temperature, and no token looks at itself")
def check_scaled_weights(scaled_weights: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``scaled_weights(q (h, N, d), k (h, N, d), log_temperature (h,)) -> (h, N, N)``."""
    q, k = 2 * torch.randn(2, 3, 4, 8)
    log = torch.tensor([0.3, 0.9, 1.6])
    scores = q @ k.mT
    own = torch.eye(4, dtype=torch.bool)

    def weigh(scores: Tensor, masked: float | None = -torch.inf, dim: int = -1) -> Tensor:
        return (scores if masked is None else scores.masked_fill(own, masked)).softmax(dim)

    each = log.view(3, 1, 1)
    right = scores / each.exp()
    wrong = [
        ("the scores are multiplied by the temperature; divide by it", weigh(scores * each.exp())),
        ("the scores are divided by the logarithm: the temperature is its exp",
         weigh(scores / each)),
        ("the scores are divided by the root of d as well; the temperature stands in its place",
         weigh(right / 8**0.5)),
        ("this is the usual scale, the root of d: the temperatures have no part in it",
         weigh(scores / 8**0.5)),
        ("the diagonal is not masked: tokens look at themselves", weigh(right, None)),
        ("the score of a token with itself is set to 0, and exp(0) is 1: set it to minus infinity",
         weigh(right, 0.0)),
        ("the diagonal is set to 0 after the softmax, and the rows no longer sum to one: mask the "
         "scores", weigh(right, None).masked_fill(own, 0.0)),
        ("the softmax runs over the queries; every row sums to one", weigh(right, dim=-2)),
        ("all heads have one temperature; each has its own", weigh(scores / log.mean().exp())),
        ("all heads have the first one's temperature; each has its own",
         weigh(scores / log[0].exp())),
        ("this is plain attention: neither the temperatures nor the mask has a part in it",
         weigh(scores / 8**0.5, None)),
        ("the scores are not divided by anything; divide by the temperature", weigh(scores)),
        ("rows and columns are exchanged: row i holds what query i gives to the keys",
         weigh(right.mT)),
        ("these are scores: the softmax is missing", right.masked_fill(own, -torch.inf)),
        ("everything but the diagonal is masked", torch.eye(4).expand(3, 4, 4)),
    ]  # fmt: skip
    got = call(scaled_weights, q, k, log)
    if isinstance(got, Tensor) and got.isnan().all():
        raise CheckFailed(
            "all weights are NaN: 0 times minus infinity is NaN, so fill the mask in and do not "
            "multiply by it"
        )
    compare(got, weigh(right), wrong, "three heads of four tokens")


@check("patches see the square around them, and the prefix sees all and is seen by all")
def check_window(window: Callable[[tuple[int, int], int, int], Tensor]) -> None:
    """``window(grid (rows, columns), prefix, size) -> (T, T)``, boolean, T = prefix + patches."""
    grid, prefix, size = (4, 6), 2, 5
    total, reach = prefix + 24, size // 2
    number = torch.arange(24)
    tiles = torch.stack([number // 6, number % 6]) // size

    def apart(across: int, count: int = 24) -> Tensor:
        places = torch.stack([torch.arange(count) // across, torch.arange(count) % across])
        return places[:, :, None] - places[:, None]  # with its sign

    def whole(near: Tensor) -> Tensor:
        seen = torch.ones(total, total, dtype=torch.bool)
        seen[prefix:, prefix:] = near
        return seen

    near = apart(6).abs().amax(0) <= reach
    want = whole(near)
    blind, hidden, last = want.clone(), want.clone(), torch.ones_like(want)
    blind[:prefix, prefix:] = False
    hidden[prefix:, :prefix] = False
    last[:24, :24] = near
    counted = torch.arange(total)
    as_patches = apart(6, total).abs().amax(0) <= reach
    line = (counted[:, None] - counted).abs() <= reach
    wrong = [
        ("the prefix sees no patch: its rows are True", blind),
        ("the patches do not see the prefix: its columns are True", hidden),
        ("the prefix is treated as patches are: it sees all and is seen by all",
         blind & hidden),
        ("the prefix sees nothing and is not seen: its rows and columns are True",
         F.pad(near, (prefix, 0, prefix, 0))),
        ("the window reaches as far as its side; it reaches half of that, size // 2",
         whole(apart(6).abs().amax(0) <= size)),
        ("the window reaches one patch too few", whole(apart(6).abs().amax(0) < reach)),
        ("the corners are missing: the window is a square, so take the larger of the two distances",
         whole(apart(6).abs().sum(0) <= reach)),
        ("the patches are taken for a line, not a grid",
         whole((number[:, None] - number).abs() <= reach)),
        ("all tokens are taken for a line, the prefix among them", line),
        ("the prefix is counted as the first patches of the grid; it has no place there, sees all "
         "and is seen by all", as_patches),
        ("rows and columns of the grid are exchanged: patch i is in row i // columns",
         whole(apart(4).abs().amax(0) <= reach)),
        ("one of the two directions is enough here; a patch must be near in both",
         whole(apart(6).abs().amin(0) <= reach)),
        ("only the rows of the grid are compared; a patch must be near in both directions",
         whole(apart(6)[0].abs() <= reach)),
        ("only the columns of the grid are compared; a patch must be near in both directions",
         whole(apart(6)[1].abs() <= reach)),
        ("distances have a sign here, so that all patches further on are near: take abs()",
         whole(apart(6).amax(0) <= reach)),
        ("patches do not see themselves; a window holds its centre",
         whole(near & ~torch.eye(24, dtype=torch.bool))),
        ("the grid is cut into windows; each patch has a window of its own around it",
         whole((tiles[:, :, None] == tiles[:, None]).all(0))),
        ("it is the wrong way round: True is what is seen", ~want),
        ("the prefix is missing", near),
        ("the prefix stands behind the patches; it comes first", last),
        ("this is what is added to scores; True and False are expected",
         torch.zeros(total, total).masked_fill(~want, -torch.inf)),
    ]  # fmt: skip
    got = call(window, grid, prefix, size)
    compare(got, want, wrong, "a window of 5 on four rows of six patches behind two tokens")
    if got.dtype != torch.bool:
        raise CheckFailed(
            f"the values are right, but of type {got.dtype}: torch adds a mask of numbers to the "
            "scores, and only a boolean one hides"
        )


@check("the new patches stand between the old ones, rows first, each pair at its own speed")
def check_angles(angles: Callable[[tuple[int, int], tuple[int, int], Tensor], Tensor]) -> None:
    """``angles(grid, old, speeds (p,)) -> (rows · columns, 2 p)``, in radians."""
    grid, old = (2, 6), (4, 3)
    speeds = torch.tensor([1.0, 0.3, 0.05])

    def places(new: int, was: int) -> Tensor:
        return (torch.arange(new) + 0.5) * was / new - 0.5

    def lay(rows: Tensor, cols: Tensor, order: str = "rc") -> Tensor:
        row, col = torch.meshgrid(rows, cols, indexing="ij")
        parts = {"r": row, "c": col}
        return torch.cat([parts[name].flatten()[:, None] * speeds for name in order], dim=1)

    right = places(grid[0], old[0]), places(grid[1], old[1])
    number = torch.arange(12.0)[:, None] * speeds
    double = lay(*right).repeat_interleave(2, dim=1)
    turned = lay(right[1], right[0], "cr")
    wrong = [
        ("the patches are counted anew; the image covers the same area as before, so that they "
         "stand between the old places", lay(torch.arange(2.0), torch.arange(6.0))),
        ("the first patches of both grids are put in one place; their edges are in one place: "
         "count from their centres, (i + 0.5)",
         lay(torch.arange(2) * 2.0, torch.arange(6) * 0.5)),
        ("the first and last patches of both grids are put in one place; their edges are: count "
         "from their centres, (i + 0.5)",
         lay(torch.arange(2) * 3.0, torch.arange(6) * 0.4)),
        ("half a patch is missing: the centre of the first old patch is place 0, so subtract 0.5",
         lay(right[0] + 0.5, right[1] + 0.5)),
        ("these are corners of the patches; their centres are half a patch further, at (i + 0.5)",
         lay(torch.arange(2) * 2 - 0.5, torch.arange(6) * 0.5 - 0.5)),
        ("both directions have the ratio of the rows; each has its own",
         lay(right[0], (torch.arange(6) + 0.5) * 2 - 0.5)),
        ("these are shares of the image; count in old patches",
         lay((torch.arange(2) + 0.5) / 2, (torch.arange(6) + 0.5) / 6)),
        ("rows and columns take turns; the first half of the pairs is the row's",
         torch.stack(lay(*right).chunk(2, dim=1), dim=-1).flatten(1)),
        ("old and new grid are exchanged in the ratio", lay(places(2, 1), places(6, 12))),
        ("the columns come first; the first half of the pairs turns with the row",
         lay(*right, "cr")),
        ("the patches are numbered column by column; row by row is expected", turned),
        ("both halves turn with the row", lay(*right, "rr")),
        ("both halves turn with the column", lay(*right, "cc")),
        ("the patches are taken for a line, not a grid", torch.cat([number, number], dim=1)),
        ("row and column are added; each has pairs of its own",
         lay(*right)[:, :3] + lay(*right)[:, 3:]),
        ("there are two angles for each pair; one is expected", double),
    ]  # fmt: skip
    compare(call(angles, grid, old, speeds), lay(*right), wrong,
            "a grid of 2 x 6 where 4 x 3 was, three speeds")  # fmt: skip


@check("padding gets nothing, every row sums to one, and an image of padding alone gives no NaN")
def check_masked_softmax(masked_softmax: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``masked_softmax(scores (B, h, N, N), valid (B, N)) -> (B, h, N, N)``."""
    scores = 2 * torch.randn(3, 2, 4, 4)
    valid = torch.tensor([[True, True, True, True], [True, True, False, False], [False] * 4])
    keys = valid[:, None, None]
    plain = scores.softmax(-1)
    hidden = scores.masked_fill(~keys, -torch.inf).softmax(-1)
    want = hidden.nan_to_num(0.0)
    wrong = [
        ("the mask is added as 0 and 1, which hides nothing: exp(0) is 1; add minus infinity, or "
         "fill it in", (scores + keys).softmax(-1)),
        ("the scores of padding are 0, and a score of 0 still gets its share: exp(0) is 1",
         (scores * keys).softmax(-1)),
        ("the weights are set to 0 after the softmax, and the rows no longer sum to one: mask the "
         "scores", plain * keys),
        ("the queries are masked; padding must not be looked at, so mask the keys",
         scores.masked_fill(~valid[:, None, :, None], -torch.inf).softmax(-1).nan_to_num(0.0)),
        ("the queries of padding get 0 as well; mask the keys alone, so that every row of an image "
         "with valid tokens sums to one", want * valid[:, None, :, None]),
        ("it is the wrong way round: valid tokens are masked",
         scores.masked_fill(keys, -torch.inf).softmax(-1).nan_to_num(0.0)),
        ("the softmax runs over the queries",
         scores.masked_fill(~keys, -torch.inf).softmax(-2).nan_to_num(0.0)),
        ("an image without any valid token spreads its attention evenly over the padding, as a "
         "large negative number is no infinity: all its weights are 0",
         scores.masked_fill(~keys, -1e9).softmax(-1)),
        ("an image without any valid token attends to its padding: all its weights are 0",
         torch.where(valid.any(1)[:, None, None, None], want, plain)),
        ("nothing is masked", plain),
        ("every image has the mask of the second",
         scores.masked_fill(~keys[1:2], -torch.inf).softmax(-1)),
        ("these are scores: the softmax is missing", scores.masked_fill(~keys, -torch.inf)),
    ]  # fmt: skip
    got = call(masked_softmax, scores, valid)
    if isinstance(got, Tensor) and got.isnan().any():
        raise CheckFailed(
            "there is NaN: a row whose scores are all minus infinity is 0 divided by 0"
        )
    compare(got, want, wrong, "three images, of which the third is padding alone")


@check("each image keeps its own patches, where they stood, behind the whole prefix")
def check_keep_patches(keep_patches: Callable[[Tensor, Tensor, int, int], Tensor]) -> None:
    """``keep_patches(tokens (B, prefix + N, D), noise (B, N), count, prefix)``: B, prefix + count,
    D."""
    prefix, count = 2, 2
    tokens = torch.randn(2, prefix + 6, 3)
    noise = torch.tensor([[0.9, 0.2, 0.6, 0.8, 0.1, 0.5], [0.3, 0.7, 0.4, 0.1, 0.8, 0.9]])
    front, patches = tokens[:, :prefix], tokens[:, prefix:]

    def take(index: Tensor, source: Tensor = patches) -> Tensor:
        return source.gather(1, index[:, :, None].expand(-1, -1, 3))

    order = noise.argsort(dim=1)
    kept = order[:, :count].sort(dim=1).values
    want = torch.cat([front, take(kept)], dim=1)
    gone = torch.ones(2, 6).scatter(1, kept, 0.0).bool()[:, :, None]
    wrong = [
        ("the patches with the most noise are kept; those with the least are expected",
         torch.cat([front, take(order[:, -count:].sort(dim=1).values)], dim=1)),
        ("the patches with the most noise are kept, the noisiest first; those with the least are "
         "expected, in the order they had", torch.cat([front, take(order.flip(1)[:, :count])], 1)),
        ("the patches stand in the order of their noise; leave them in the order they had",
         torch.cat([front, take(order[:, :count])], dim=1)),
        ("the prefix is gone; it is kept whole", take(kept)),
        ("the noise numbers patches, and the prefix stands before them: patch i is token i + "
         "prefix", torch.cat([front, take(kept, tokens)], dim=1)),
        ("every image keeps the patches of the first; each has its own noise",
         torch.cat([front, take(kept[:1].expand(2, -1))], dim=1)),
        ("the first patches are kept, whatever the noise",
         torch.cat([front, patches[:, :count]], dim=1)),
        ("as many patches as were to be kept are dropped",
         torch.cat([front, take(order[:, count:].sort(dim=1).values)], dim=1)),
        ("the patches are set to 0 and still there: dropped tokens take no time",
         torch.cat([front, patches.masked_fill(gone, 0.0)], dim=1)),
        ("the prefix stands behind the patches; it comes first",
         torch.cat([take(kept), front], dim=1)),
        ("one patch too many is kept",
         torch.cat([front, take(order[:, : count + 1].sort(dim=1).values)], dim=1)),
        ("nothing is dropped", tokens),
    ]  # fmt: skip
    got = call(keep_patches, tokens, noise, count, prefix)
    compare(got, want, wrong, "two of six patches behind two prefix tokens")
