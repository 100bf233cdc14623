# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 7: the recipe."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import torch
from answers import (
    area,
    blacken,
    blend,
    erased,
    grouped,
    inside,
    newton_schulz,
    pasted,
    svd,
)

from exercises.table import Exercise
from vitcore import augment
from vitcore.recipes import group_accuracy


def grouped_loop(logits, labels, group_of):
    hits = [
        int(group_of[row.argmax()]) == int(group_of[y])
        for row, y in zip(logits, labels, strict=True)
    ]
    return sum(hits) / len(hits)


def by_groups(values):
    """The best group by the sum of something over its classes."""

    def share(logits, labels, group_of):
        sums = torch.zeros(len(logits), 3).index_add_(1, group_of, values(logits))
        return (sums.argmax(1) == group_of[labels]).double().mean()

    return share


def erased_outer(images, top, left, height, width):
    y, x = torch.arange(images.shape[2]), torch.arange(images.shape[3])
    down = (y >= top[:, None]) & (y < (top + height)[:, None])
    right = (x >= left[:, None]) & (x < (left + width)[:, None])
    return images * ~torch.einsum("bh,bw->bhw", down.float(), right.float()).bool()[:, None]


def erased_loop(images, top, left, height, width):
    out = images.clone()
    for i in range(len(images)):
        out[i, :, top[i] : top[i] + height[i], left[i] : left[i] + width[i]] = 0
    return out


def erased_list(images, *box):
    return torch.cat([erased(*(v[i : i + 1] for v in (images, *box))) for i in range(len(images))])


def erased_mask(images, *box):
    out = images.clone()
    out[(erased(torch.ones_like(images), *box) == 0)] = 0
    return out


def pasted_loop(images, targets, box):
    out, aims = images.clone(), targets.clone()
    for i, (top, left, bottom, right) in enumerate(box.tolist()):
        out[i, :, top:bottom, left:right] = images[i - 1, :, top:bottom, left:right]
        part = (bottom - top) * (right - left) / images[0, 0].numel()
        aims[i] = (1 - part) * targets[i] + part * targets[i - 1]
    return out, aims


def pasted_in_place(images, targets, box):
    other = images.roll(1, 0)
    for i, (top, left, bottom, right) in enumerate(box.tolist()):
        images[i, :, top:bottom, left:right] = other[i, :, top:bottom, left:right]
    return images, blend(targets, 1 - area(images, box))


def pasted_by_mask(images, targets, box):
    mask = inside(images, box).float()
    part = mask.mean((1, 2, 3))[:, None]
    before = torch.cat([images[-1:], images[:-1]])
    mixed = images + mask * (before - images)
    return mixed, torch.lerp(targets, targets.roll(1, 0), part)


def pasted_copy(images, targets, box):
    return pasted_in_place(images.clone(), targets, box)


def shares_loop(decay, steps):
    out, factor = [], 1 - decay
    for _ in range(steps):
        out.append(factor)
        factor *= decay
    return out


def shares_measured(decay, steps):
    """Feed one-hot vectors into an average and see what it keeps of each."""
    average = torch.zeros(steps, dtype=torch.float64)
    for row in torch.eye(steps, dtype=torch.float64).flip(0):
        average = decay * average + (1 - decay) * row
    return average


def polar_cubic(x, steps=40):
    return newton_schulz(x, steps, 1.5, -0.5, 0)


def polar_until(x):
    tall = len(x) > x.shape[1]
    y = x.T / x.norm() if tall else x / x.norm()
    while (y @ y.T - torch.eye(len(y))).abs().max() > 1e-5:
        y = 1.5 * y - 0.5 * y @ y.T @ y
    return y.T if tall else y


def polar_wide(x):
    """The same on the larger of the two squares: slower, and right."""
    y = x / x.norm()
    for _ in range(40):
        y = 1.5 * y - 0.5 * y @ (y.T @ y)
    return y


def polar_in_place(x):
    x /= x.norm()
    return polar_cubic(x)


EXERCISES = [
    Exercise(
        "7.1",
        ["check_group_accuracy(_)"],
        right={
            "indexing": grouped,
            "a loop": grouped_loop,
            "NumPy": lambda x, y, g: np.mean(
                g.numpy()[x.numpy().argmax(1)] == g.numpy()[y.numpy()]
            ),
            "a tensor": lambda x, y, g: (g[x.argmax(1)] == g[y]).double().mean(),
            "gather": lambda x, y, g: (
                (g.gather(0, x.argmax(1)) - g.gather(0, y)).eq(0).double().mean()
            ),
            "vitcore's": group_accuracy,
        },
        wrong=[
            (lambda x, y, g: (x.argmax(1) == y).float().mean(), "right classes"),
            (
                lambda x, y, g: ((g[x.argmax(1)] == g[y]) & (x.argmax(1) != y)).double().mean(),
                "only mistakes",
            ),
            (lambda x, y, g: (x.argmax(1) == g[y]).double().mean(), "the number"),
            (lambda x, y, g: 1 - grouped(x, y, g), "share of mistakes"),
            (lambda x, y, g: 50 * grouped(x, y, g), "number of right"),
            (by_groups(lambda x: x.softmax(1)), "probabilities are added up by group"),
            (by_groups(lambda x: x), "logits are added up by group"),
            (
                lambda x, y, g: (g[x.argmax(1)] == y).double().mean(),
                "with the number of the label's class",
            ),
            (lambda x, y, g: 100 * grouped(x, y, g), "percent"),
            (lambda x, y, g: grouped(x.zero_(), y, g), "changes x in place"),
        ],
    ),
    Exercise(
        "7.2",
        ["check_erase(_)"],
        right={
            "one mask": erased,
            "einsum": erased_outer,
            "a boolean index": erased_mask,
            "vitcore's": augment.erase,
            "in place on a copy": lambda x, *box: x.clone().mul_(erased(torch.ones_like(x), *box)),
        },
        wrong=[
            (lambda x, top, left, h, w: erased(x, left, top, w, h), "rows and columns"),
            (lambda x, top, left, h, w: erased(x, top, left, w, h), "height and width are"),
            (lambda x, *box: erased(x, *(v[:1].expand(3) for v in box)), "of the first"),
            (lambda x, *box: erased(x, *box, mask=lambda x, b: ~inside(x, b)), "is kept"),
            (lambda x, top, left, h, w: erased(x, top, left, h - top, w - left), "the bottom and"),
            (lambda x, top, left, h, w: erased(x, top, left, h + 1, w + 1), "too large"),
            (lambda x, *box: torch.cat([erased(x, *box)[:, :1], x[:, 1:]], 1), "first channel"),
            (lambda x, *box: x, "nothing is erased"),
            (blacken, "in place"),
            (erased_loop, "loop over the images"),
            (erased_list, "loop over the images"),
        ],
    ),
    Exercise(
        "7.3",
        ["check_cutmix(_)"],
        right={
            "one mask": pasted,
            "a loop": pasted_loop,
            "a blend by the mask": pasted_by_mask,
            "in place on a copy": pasted_copy,
            "vitcore's": augment.cutmix,
        },
        wrong=[
            (lambda x, t, b: pasted(x.mT, t, b)[0].mT, "two things"),
            (lambda x, t, b: (pasted(x.mT, t, b)[0].mT, t), "rows and columns"),
            (lambda x, t, b: pasted(x, t, b, lambda x, b: ~inside(x, b)), "around the box"),
            (lambda x, t, b: pasted(x, t, b, other=x.roll(-1, 0)), "image after"),
            (lambda x, t, b: pasted(x, t, b, other=torch.zeros(())), "box is empty"),
            (lambda x, t, b: (x, pasted(x, t, b)[1]), "nothing is pasted"),
            (lambda x, t, b: (pasted(x, t, b)[0], t), "targets are not shared"),
            (
                lambda x, t, b: pasted(x, t, b, part=lambda x, b: 1 - area(x, b)),
                "shares are exchanged",
            ),
            (lambda x, t, b: (pasted(x, t, b)[0], blend(t, 1 - area(x, b), -1)), "those after"),
            (
                lambda x, t, b: pasted(x, t, b, part=lambda x, b: (b[:, 2] - b[:, 0]) / 8),
                "both sides count",
            ),
            (lambda x, t, b: pasted(x, t, b, part=lambda x, b: 0.5 + 0 * b[:, 0]), "one half"),
            (pasted_in_place, "changes images in place"),
        ],
    ),
    Exercise(
        "7.4",
        ["check_average_shares(_)"],
        right={
            "a list": lambda d, n: [(1 - d) * d**k for k in range(n)],
            "a tensor": lambda d, n: (1 - d) * d ** torch.arange(n),
            "NumPy": lambda d, n: (1 - d) * d ** np.arange(n),
            "a loop": shares_loop,
            "measured": shares_measured,
            "a generator": lambda d, n: ((1 - d) * d**k for k in range(n)),
        },
        wrong=[
            (lambda d, n: [1 - d ** (k + 1) for k in range(n)], "shares added up"),
            (lambda d, n: [d * (1 - d) ** k for k in range(n)], "exchanged their roles"),
            (lambda d, n: (1 - d) * d ** torch.arange(n).flip(0), "newest weights"),
            (lambda d, n: d ** torch.arange(n), "count 1"),
            (lambda d, n: (1 - d) * d ** torch.arange(1, n + 1), "by the decay"),
            (lambda d, n: torch.full((n,), 1 / n), "window"),
            (lambda d, n: (1 - d) * (1 - torch.arange(n) / n), "straight line"),
            (lambda d, n: d ** torch.arange(n) * (1 - d) / (1 - d**n), "scaled to sum"),
        ],
    ),
    Exercise(
        "7.5",
        ["check_polar(_)"],
        right={
            "forty steps": polar_cubic,
            "until it is orthogonal": polar_until,
            "on the larger square": polar_wide,
            "in place on a copy": lambda x: polar_in_place(x.clone()),
            "in double precision": lambda x: polar_cubic(x.double(), 60),
        },
        wrong=[
            (lambda x: 1.0, "a tensor was expected"),
            (lambda x: polar_cubic(x).T, "transposed"),
            (lambda x: polar_cubic(x)[:2], "the shape is"),
            (lambda x: newton_schulz(x, 40, 1.5, -0.5, 0, scale=lambda x: 1), "runs away"),
            (lambda x: polar_cubic(x, 2), "the smallest has arrived"),
            (newton_schulz, "exact coefficients"),
            (lambda x: polar_cubic(x).flip(0), "vectors changed"),
            (svd, "this is a decomposition"),
            (lambda x: x @ torch.linalg.inv(x.T @ x), "this is a decomposition"),
            (polar_in_place, "changes x in place"),
        ],
    ),
]
