# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 9: attention, positions and norms, improved."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from exercises.table import Exercise

# --- 9.1 ------------------------------------------------------------------------------------------


def tempered(q, k, log):
    return q @ k.transpose(1, 2) / log.exp()[:, None, None]


def hide(scores, value=-torch.inf):
    return scores.masked_fill(torch.eye(scores.shape[-1], dtype=torch.bool), value)


def weights(q, k, log):
    return hide(tempered(q, k, log)).softmax(dim=-1)


def weights_loop(q, k, log):
    found = []
    for head in range(len(q)):
        scores = q[head] @ k[head].T / torch.exp(log[head])
        scores.fill_diagonal_(float("-inf"))
        found.append(torch.softmax(scores, dim=1))
    return torch.stack(found)


def weights_numpy(q, k, log):
    scores = np.einsum("hid,hjd->hij", q.numpy(), k.numpy()) / np.exp(log.numpy())[:, None, None]
    e = np.exp(scores - scores.max(-1, keepdims=True)) * (1 - np.eye(q.shape[1]))
    return torch.from_numpy(e / e.sum(-1, keepdims=True)).float()


def weights_by_queries(q, k, log):
    seen = torch.zeros(q.shape[1], q.shape[1]).fill_diagonal_(-torch.inf)
    return (q * (-log).exp().view(-1, 1, 1) @ k.mT + seen).softmax(-1)


def weights_afterwards(q, k, log):
    found = tempered(q, k, log).softmax(-1) * (1 - torch.eye(q.shape[1]))
    return found / found.sum(-1, keepdim=True)


def in_place(q, k, log):
    q /= log.exp()[:, None, None]
    return hide(q @ k.mT).softmax(-1)


# --- 9.2 ------------------------------------------------------------------------------------------


def near(grid, size):
    row = torch.arange(grid[0]).repeat_interleave(grid[1])
    col = torch.arange(grid[1]).repeat(grid[0])
    return [(place[:, None] - place).abs() <= size // 2 for place in (row, col)]


def behind(inside, prefix):
    return F.pad(inside, (prefix, 0, prefix, 0), value=True)


def window(grid, prefix, size):
    down, along = near(grid, size)
    return behind(down & along, prefix)


def window_loop(grid, prefix, size):
    total = prefix + grid[0] * grid[1]
    seen = torch.zeros(total, total, dtype=torch.bool)
    for i in range(total):
        for j in range(total):
            if i < prefix or j < prefix:
                seen[i, j] = True
                continue
            (r, c), (s, d) = divmod(i - prefix, grid[1]), divmod(j - prefix, grid[1])
            seen[i, j] = max(abs(r - s), abs(c - d)) <= (size - 1) / 2
    return seen


def window_numpy(grid, prefix, size):
    row, col = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    apart = np.maximum(abs(row[:, None] - row), abs(col[:, None] - col))
    return torch.from_numpy(np.pad(apart <= size // 2, (prefix, 0), constant_values=True))


def window_cdist(grid, prefix, size):
    rows, cols = torch.arange(grid[0]).float(), torch.arange(grid[1]).float()
    at = torch.cartesian_prod(rows, cols)
    seen = torch.ones(prefix + len(at), prefix + len(at), dtype=torch.bool)
    seen[prefix:, prefix:] = torch.cdist(at, at, p=torch.inf) < size / 2
    return seen


def window_convolution(grid, prefix, size):
    each = torch.eye(grid[0] * grid[1]).view(-1, 1, *grid)
    around = F.conv2d(each, torch.ones(1, 1, size, size), padding=size // 2)
    return behind(around.flatten(1) > 0, prefix)


def window_kron(grid, prefix, size):
    one = [((torch.arange(n)[:, None] - torch.arange(n)).abs() <= size // 2).int() for n in grid]
    return behind(torch.kron(*one).bool(), prefix)


def without(seen, rows=None, cols=None):
    seen = seen.clone()
    seen[:rows, rows:] = seen[:rows, rows:] & (rows is None)
    if cols:
        seen[cols:, :cols] = False
    return seen


def diamond(grid, prefix, size):
    at = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    return behind(torch.cdist(at, at, p=1) <= size // 2, prefix)


def without_abs(grid, prefix, size):
    at = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1]))
    return behind((at[:, None] - at).amax(-1) <= size // 2, prefix)


def tiles(grid, prefix, size):
    at = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])) // size
    return behind((at[:, None] == at).all(-1), prefix)


def line(grid, prefix, size):
    number = torch.arange(grid[0] * grid[1])
    return behind((number[:, None] - number).abs() <= size // 2, prefix)


# --- 9.3 ------------------------------------------------------------------------------------------


def place(new, old):
    return (torch.arange(new) + 0.5) * old / new - 0.5


def lay(rows, cols, speeds):
    down = rows.repeat_interleave(len(cols))[:, None] * speeds
    return torch.cat([down, cols.repeat(len(rows))[:, None] * speeds], dim=1)


def angles(grid, old, speeds):
    return lay(place(grid[0], old[0]), place(grid[1], old[1]), speeds)


def angles_loop(grid, old, speeds):
    found = []
    for r in range(grid[0]):
        for c in range(grid[1]):
            down = (r + 0.5) * old[0] / grid[0] - 0.5
            along = (c + 0.5) * old[1] / grid[1] - 0.5
            found.append([down * s for s in speeds.tolist()] + [along * s for s in speeds.tolist()])
    return torch.tensor(found)


def angles_einsum(grid, old, speeds):
    at = torch.cartesian_prod(*(place(*pair) for pair in zip(grid, old, strict=True)))
    return torch.einsum("na,p->nap", at, speeds).flatten(1)


def angles_numpy(grid, old, speeds):
    row, col = np.indices(grid).reshape(2, -1) + 0.5
    at = [row / (grid[0] / old[0]) - 0.5, col / (grid[1] / old[1]) - 0.5]
    both = np.concatenate([np.outer(a, speeds.numpy()) for a in at], axis=1)
    return torch.from_numpy(both).float()


def angles_linspace(grid, old, speeds):
    ends = [(0.5 * was / new - 0.5, was - 0.5 * was / new - 0.5, new)
            for new, was in zip(grid, old, strict=True)]  # fmt: skip
    return lay(*(torch.linspace(*end) for end in ends), speeds)


# --- 9.4 ------------------------------------------------------------------------------------------


def masked(scores, valid):
    keys = valid[:, None, None, :]
    return scores.masked_fill(~keys, -torch.inf).softmax(dim=-1).nan_to_num(0.0)


def masked_exp(scores, valid):
    e = scores.exp() * valid[:, None, None]
    return e / e.sum(-1, keepdim=True).clamp(min=1e-30)


def masked_loop(scores, valid):
    found = torch.zeros_like(scores)
    for image, real in enumerate(valid):
        if real.any():
            found[image][..., real] = scores[image][..., real].softmax(-1)
    return found


def masked_large(scores, valid):
    keys = valid[:, None, None].float()
    return (scores - 1e9 * (1 - keys)).softmax(-1) * keys


def masked_where(scores, valid):
    some = valid.any(dim=1)[:, None, None, None]
    low = torch.where(valid[:, None, None], scores, torch.tensor(-torch.inf))
    return torch.where(some, low, torch.zeros(())).softmax(-1) * some


def masked_in_place(scores, valid):
    scores[~valid[:, None, None].expand_as(scores)] = -torch.inf
    return scores.softmax(-1).nan_to_num(0.0)


# --- 9.5 ------------------------------------------------------------------------------------------


def gather(tokens, index):
    return tokens.gather(1, index[:, :, None].expand(-1, -1, tokens.shape[2]))


def keep(tokens, noise, count, prefix):
    index = noise.argsort(dim=1)[:, :count].sort(dim=1).values
    return torch.cat([tokens[:, :prefix], gather(tokens[:, prefix:], index)], dim=1)


def keep_loop(tokens, noise, count, prefix):
    found = []
    for image, numbers in zip(tokens, noise, strict=True):
        chosen = sorted(numbers.argsort()[:count].tolist())
        found.append(torch.stack([*image[:prefix], *(image[prefix + i] for i in chosen)]))
    return torch.stack(found)


def keep_mask(tokens, noise, count, prefix):
    rank = noise.argsort(1).argsort(1)
    kept = F.pad(rank < count, (prefix, 0), value=True)
    return tokens[kept].view(len(tokens), prefix + count, -1)


def keep_topk(tokens, noise, count, prefix):
    index = noise.topk(count, dim=1, largest=False).indices.sort(dim=1)[0] + prefix
    front = torch.arange(prefix).expand(len(tokens), -1)
    return gather(tokens, torch.cat([front, index], dim=1))


def keep_take(tokens, noise, count, prefix):
    index = np.sort(np.argsort(noise.numpy(), axis=1)[:, :count], axis=1) + prefix
    rows = np.arange(len(tokens))[:, None]
    return torch.cat([tokens[:, :prefix], tokens[rows, index]], dim=1)


def keep_threshold(tokens, noise, count, prefix):
    largest = noise.kthvalue(count, dim=1, keepdim=True).values
    patches = tokens[:, prefix:][noise <= largest].view(len(tokens), count, -1)
    return torch.cat([tokens[:, :prefix], patches], dim=1)


def zeroed(tokens, noise, count, prefix):
    kept = F.pad(noise.argsort(1).argsort(1) < count, (prefix, 0), value=True)
    return tokens * kept[:, :, None]


EXERCISES = [
    Exercise(
        "9.1",
        ["check_scaled_weights(_)"],
        right={
            "masked_fill": weights,
            "a loop": weights_loop,
            "NumPy": weights_numpy,
            "scaled queries": weights_by_queries,
            "divided by the sums": weights_afterwards,
        },
        wrong=[
            (lambda q, k, t: weights(q, k, -t), "multiplied by the temperature"),
            (lambda q, k, t: hide(q @ k.mT / t[:, None, None]).softmax(-1), "logarithm"),
            (lambda q, k, t: hide(tempered(q, k, t) / 8**0.5).softmax(-1), "root of d as well"),
            (lambda q, k, t: hide(q @ k.mT / 8**0.5).softmax(-1), "usual scale"),
            (lambda q, k, t: tempered(q, k, t).softmax(-1), "diagonal is not masked"),
            (lambda q, k, t: hide(tempered(q, k, t), 0.0).softmax(-1), "minus infinity"),
            (lambda q, k, t: hide(tempered(q, k, t).softmax(-1), 0.0), "no longer sum to one"),
            (lambda q, k, t: hide(tempered(q, k, t)).softmax(-2), "over the queries"),
            (lambda q, k, t: weights(q, k, t.mean().expand(3)), "each has its own"),
            (lambda q, k, t: weights(q, k, t[:1].expand(3)), "first one's temperature"),
            (lambda q, k, t: hide(tempered(q, k, t)), "softmax is missing"),
            (
                lambda q, k, t: tempered(q, k, t).softmax(-1) * torch.eye(4),
                "values are not",
            ),
            (
                lambda q, k, t: (
                    tempered(q, k, t)
                    .masked_fill(~torch.eye(4, dtype=torch.bool), -torch.inf)
                    .softmax(-1)
                ),
                "everything but the diagonal",
            ),
            (lambda q, k, t: (q @ k.mT / 8**0.5).softmax(-1), "plain attention"),
            (lambda q, k, t: hide(q @ k.mT).softmax(-1), "not divided by anything"),
            (lambda q, k, t: weights(k, q, t), "row i holds"),
            (
                lambda q, k, t: (tempered(q, k, t) + torch.eye(4) * -torch.inf).softmax(-1),
                "0 times minus infinity",
            ),
            (in_place, "changes q"),
        ],
    ),
    Exercise(
        "9.2",
        ["check_window(_)"],
        right={
            "broadcasting": window,
            "loops": window_loop,
            "NumPy": window_numpy,
            "cdist": window_cdist,
            "a convolution": window_convolution,
            "kron": window_kron,
        },
        wrong=[
            (lambda g, p, s: without(window(g, p, s), rows=p), "sees no patch"),
            (lambda g, p, s: without(window(g, p, s), cols=p), "do not see the prefix"),
            (lambda g, p, s: without(window(g, p, s), rows=p, cols=p), "as patches are"),
            (lambda g, p, s: window(g, p, 2 * s), "as far as its side"),
            (lambda g, p, s: window(g, p, s - 2), "one patch too few"),
            (diamond, "corners are missing"),
            (line, "taken for a line, not a grid"),
            (lambda g, p, s: line((1, g[0] * g[1] + p), 0, s), "prefix among them"),
            (lambda g, p, s: window((g[0] + 1, g[1]), 0, s)[: p + 24, : p + 24], "no place there"),
            (lambda g, p, s: window(g[::-1], p, s), "are exchanged"),
            (lambda g, p, s: behind(near(g, s)[0] | near(g, s)[1], p), "near in both"),
            (lambda g, p, s: behind(near(g, s)[0], p), "only the rows"),
            (lambda g, p, s: behind(near(g, s)[1], p), "only the columns"),
            (without_abs, "have a sign"),
            (
                lambda g, p, s: behind(near(g, s)[0] & near(g, s)[1] & ~torch.eye(24).bool(), p),
                "do not see themselves",
            ),
            (tiles, "cut into windows"),
            (lambda g, p, s: F.pad(window(g, 0, s), (p, 0, p, 0)), "is not seen"),
            (lambda g, p, s: ~window(g, p, s), "wrong way round"),
            (lambda g, p, s: window(g, 0, s), "prefix is missing"),
            (lambda g, p, s: F.pad(window(g, 0, s), (0, p, 0, p), value=True), "stands behind"),
            (lambda g, p, s: window(g, p, s).float().log(), "added to scores"),
            (lambda g, p, s: window(g, p, s).float(), "only a boolean one hides"),
        ],
    ),
    Exercise(
        "9.3",
        ["check_angles(_)"],
        right={
            "repeated": angles,
            "loops": angles_loop,
            "einsum": angles_einsum,
            "NumPy": angles_numpy,
            "linspace": angles_linspace,
        },
        wrong=[
            (lambda g, o, s: angles(g, g, s), "counted anew"),
            (
                lambda g, o, s: lay(
                    *(torch.arange(n) * w / n for n, w in zip(g, o, strict=True)), s
                ),
                "first patches of both",
            ),
            (
                lambda g, o, s: lay(
                    *(torch.linspace(0, w - 1, n) for n, w in zip(g, o, strict=True)), s
                ),
                "first and last",
            ),
            (lambda g, o, s: angles(g, o, s) + 0.5 * torch.cat([s, s]), "subtract 0.5"),
            (
                lambda g, o, s: lay(*(place(n, n * n / w) for n, w in zip(g, o, strict=True)), s),
                "exchanged in the ratio",
            ),
            (
                lambda g, o, s: lay(
                    *(torch.arange(n) * w / n - 0.5 for n, w in zip(g, o, strict=True)), s
                ),
                "corners of the patches",
            ),
            (lambda g, o, s: angles(g, (o[0], g[1] * o[0] / g[0]), s), "ratio of the rows"),
            (
                lambda g, o, s: lay(*((torch.arange(n) + 0.5) / n for n in g), s),
                "shares of the image",
            ),
            (
                lambda g, o, s: torch.stack(angles(g, o, s).chunk(2, 1), 2).flatten(1),
                "take turns",
            ),
            (lambda g, o, s: angles(g, o, s).roll(3, dims=1), "columns come first"),
            (
                lambda g, o, s: angles(g, o, s).unflatten(0, g).transpose(0, 1).flatten(0, 1),
                "column by column",
            ),
            (lambda g, o, s: angles(g, o, s)[:, :3].repeat(1, 2), "with the row"),
            (lambda g, o, s: angles(g, o, s)[:, 3:].repeat(1, 2), "with the column"),
            (lambda g, o, s: torch.outer(torch.arange(12.0), s).repeat(1, 2), "a line"),
            (lambda g, o, s: angles(g, o, s)[:, :3] + angles(g, o, s)[:, 3:], "are added"),
            (lambda g, o, s: angles(g, o, s).repeat_interleave(2, dim=1), "two angles"),
        ],
    ),
    Exercise(
        "9.4",
        ["check_masked_softmax(_)"],
        right={
            "masked_fill": masked,
            "exp by hand": masked_exp,
            "a loop": masked_loop,
            "a large number, then the mask": masked_large,
            "where": masked_where,
        },
        wrong=[
            (
                lambda x, v: x.masked_fill(~v[:, None, None], -torch.inf).softmax(-1),
                "NaN: a row",
            ),
            (lambda x, v: (x + v[:, None, None].float()).softmax(-1), "hides nothing"),
            (lambda x, v: (x * v[:, None, None]).softmax(-1), "still gets its share"),
            (lambda x, v: x.softmax(-1) * v[:, None, None], "no longer sum to one"),
            (
                lambda x, v: (
                    x.masked_fill(~v[:, None, :, None], -torch.inf).softmax(-1).nan_to_num(0)
                ),
                "queries are masked",
            ),
            (lambda x, v: masked(x, v) * v[:, None, :, None], "of padding get 0 as well"),
            (lambda x, v: x.masked_fill(~v[:, None, None], 0).softmax(-1), "padding are 0"),
            (lambda x, v: masked(x, ~v), "wrong way round"),
            (
                lambda x, v: x.masked_fill(~v[:, None, None], -torch.inf).softmax(-2).nan_to_num(0),
                "over the queries",
            ),
            (lambda x, v: x.masked_fill(~v[:, None, None], -1e9).softmax(-1), "no infinity"),
            (
                lambda x, v: (
                    x.masked_fill(~v[:, None, None], -torch.inf).softmax(-1).nan_to_num(0.25)
                ),
                "spreads its attention evenly",
            ),
            (lambda x, v: masked(x, v | ~v.any(1, keepdim=True)), "attends to its padding"),
            (lambda x, v: x.softmax(-1), "nothing is masked"),
            (lambda x, v: masked(x, v[1:2].expand(3, -1)), "mask of the second"),
            (lambda x, v: x.masked_fill(~v[:, None, None], -torch.inf), "softmax is missing"),
            (masked_in_place, "changes"),
        ],
    ),
    Exercise(
        "9.5",
        ["check_keep_patches(_)"],
        right={
            "argsort and gather": keep,
            "a loop": keep_loop,
            "a mask": keep_mask,
            "topk": keep_topk,
            "a threshold": keep_threshold,
            "NumPy": keep_take,
        },
        wrong=[
            (lambda x, n, c, p: keep(x, -n, c, p), "most noise"),
            (
                lambda x, n, c, p: torch.cat([x[:, :p], gather(x[:, p:], n.topk(c)[1])], dim=1),
                "noisiest first",
            ),
            (
                lambda x, n, c, p: torch.cat(
                    [x[:, :p], gather(x[:, p:], n.argsort(1)[:, :c])], dim=1
                ),
                "order of their noise",
            ),
            (lambda x, n, c, p: keep(x, n, c, p)[:, p:], "prefix is gone"),
            (
                lambda x, n, c, p: torch.cat(
                    [x[:, :p], gather(x, n.argsort(1)[:, :c].sort(1)[0])], dim=1
                ),
                "patch i is token i",
            ),
            (lambda x, n, c, p: keep(x, n[:1].expand_as(n), c, p), "patches of the first"),
            (lambda x, n, c, p: x[:, : p + c], "whatever the noise"),
            (lambda x, n, c, p: keep(x, -n, n.shape[1] - c, p), "are dropped"),
            (zeroed, "still there"),
            (lambda x, n, c, p: keep(x, n, c, p).roll(-p, dims=1), "stands behind"),
            (lambda x, n, c, p: keep(x, n, c + 1, p), "one patch too many"),
            (lambda x, n, c, p: x, "nothing is dropped"),
        ],
    ),
]
