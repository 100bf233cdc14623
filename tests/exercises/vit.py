# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 5: the model."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import functools
import math
from dataclasses import replace

import numpy as np
import torch
from answers import count
from core_helpers import randomise
from torch import nn

from exercises.table import Exercise
from vitcore import ViT

torch.manual_seed(0)
SMALL = {"image_size": 32, "patch_size": 8, "num_classes": 10, "dim": 48, "depth": 3, "heads": 4}
model = randomise(ViT(in_channels=3, **SMALL)).eval()
images = torch.randn(4, 3, 32, 32)


def pool_loop(features, prefix):
    total = 0
    for index in range(prefix, features.shape[1]):
        total = total + features[:, index]
    return total / (features.shape[1] - prefix)


def pool_in_place(features, prefix):
    features[:, :prefix] = 0
    return features.sum(1) / (features.shape[1] - prefix)


def sizes(config):
    s = config.image_size
    return (s, s) if isinstance(s, int) else tuple(s)


def count_with(sides=sizes, whole=int, **extra):
    """The number of parameters, with another reading of the sides or a sum of its own parts."""

    def count(c):
        h, w = sides(c)
        n = h // c.patch_size * (w // c.patch_size)
        d, hidden = c.dim, whole(c.dim * c.mlp_ratio)
        total = c.in_channels * c.patch_size**2 * d + d + d + (n + 1) * d
        total += c.depth * (4 * d * d + 4 * d + 2 * d * hidden + hidden + d + 4 * d)
        return total + 2 * d + d * c.num_classes + c.num_classes

    return count


def count_shapes(c):
    h, w = sizes(c)
    d, hidden = c.dim, int(c.dim * c.mlp_ratio)
    block = [(d,)] * 4 + [
        (3 * d, d),
        (3 * d,),
        (d, d),
        (d,),
        (hidden, d),
        (hidden,),
        (d, hidden),
        (d,),
    ]
    shapes = [
        (d, c.in_channels, c.patch_size, c.patch_size),
        (d,),
        (d,),
        (1 + h // c.patch_size * (w // c.patch_size), d),
        *block * c.depth,
        (d,),
        (d,),
        (c.num_classes, d),
        (c.num_classes,),
    ]
    return sum(math.prod(shape) for shape in shapes)


def cls_and(tokens):
    return torch.cat([model.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)


def through(z, blocks=None):
    for block in model.blocks if blocks is None else blocks:
        z = block(z)
    return z


def embedded(x):
    return cls_and(model.patch_embed(x)[0]) + model.pos_embed


def forward_loop(x):
    tokens, _ = model.patch_embed(x)
    z = torch.cat([model.cls_token.repeat(len(x), 1, 1), tokens], dim=1) + model.pos_embed
    for block in model.blocks:
        z = block(z)
    return model.head(model.norm(z)[:, 0])


def forward_filled(x):
    tokens, _ = model.patch_embed(x)
    z = torch.empty(len(x), 1 + tokens.shape[1], tokens.shape[2])
    z[:, :1], z[:, 1:] = model.cls_token, tokens
    z += model.pos_embed
    return model.head(model.norm(through(z))[:, 0])


def forward_by_image(x):
    return torch.cat([forward_loop(image[None]) for image in x])


def forward_reduce(x):
    z = functools.reduce(lambda z, block: block(z), model.blocks, embedded(x))
    return model.head(model.norm(z[:, 0]))


def forward_in_place(x):
    x *= 2
    return forward_loop(x / 2)


EXERCISES = [
    Exercise(
        "5.1",
        ["check_mean_pool(_)"],
        right={
            "slice and mean": lambda x, prefix: x[:, prefix:].mean(1),
            "a loop": pool_loop,
            "einsum": lambda x, k: torch.einsum("bnd->bd", x[:, k:]) / (x.shape[1] - k),
            "split": lambda x, k: x.split([k, x.shape[1] - k], dim=1)[1].mean(dim=1),
            "in place on a copy": lambda x, k: pool_in_place(x.clone(), k),
        },
        wrong=[
            (lambda x, k: x[:, k:].sum(1) / x.shape[1], "number of all tokens"),
            (lambda x, k: x.mean(1), "in the mean too"),
            (lambda x, k: x[:, k + 1 :].mean(1), "one token too many"),
            (lambda x, k: x[:, 0], "class token came back"),
            (lambda x, k: x[:, k:].mean(2), "over the channels"),
            (lambda x, k: x[:, k:].mean(0), "over the batch"),
            (lambda x, k: x[:, k:].sum(1), "not averaged"),
            (lambda x, k: x[:, k:].amax(1), "largest"),
            (pool_in_place, "changes features in place"),
        ],
    ),
    Exercise(
        "5.2",
        ["check_parameter_count(_)"],
        right={
            "part by part": count,
            "one formula": count_with(),
            "shapes": count_shapes,
            "whole floats": count_with(whole=float),
            "NumPy": lambda c: np.int64(count(c)),
            "a tensor": lambda c: torch.tensor(count(c)),
        },
        wrong=[
            (lambda c: count(replace(c, mlp_ratio=4.0)), "four times as wide"),
            (lambda c: count(replace(c, in_channels=3)), "three channels"),
            (lambda c: count(replace(c, depth=1)), "one block is counted"),
            (lambda c: count(c) - 2 * c.depth * (c.dim**2 + c.dim), "two of the three maps"),
            (lambda c: count(c) - 2 * c.dim, "short by exactly the final norm"),
            (lambda c: count(c) - c.depth * 3 * c.dim, "the biases of qkv"),
            (lambda c: count(c) + 3 * c.depth * c.dim**2, "too much"),
            (
                lambda c: count(c) - c.dim,
                "the class token, or the class token.s position vector",
            ),
            (lambda c: count(c) - 2 * c.dim, "the class token together with its position"),
            (lambda c: count(c) - c.dim, "the bias of the patch embedding, or"),
            (count_with(sides=lambda c: (sizes(c)[0],) * 2), "always square"),
            (count_with(sides=lambda c: (sizes(c)[1],) * 2), "always square"),
            (lambda c: count(c) - c.num_classes, "the bias of the head"),
            (lambda c: sum(p.numel() for p in ViT(c).parameters()), "no model may be made"),
            (lambda c: 17, "your answer is 17"),
            (lambda c: str(count(c)), "a number was expected"),
        ],
    ),
    Exercise(
        "5.3",
        ["check_forward(_, model, images)"],
        right={
            "a loop over the blocks": forward_loop,
            "filled in": forward_filled,
            "image by image": forward_by_image,
            "reduce, norm of one token": forward_reduce,
            "Sequential": lambda x: model.head(
                model.norm(nn.Sequential(*model.blocks)(embedded(x)))[:, 0]
            ),
        },
        wrong=[
            (lambda x: model.head(through(embedded(x))[:, 0]), "final norm is missing"),
            (
                lambda x: model.head(model.norm(through(cls_and(model.patch_embed(x)[0])))[:, 0]),
                "positions are not added",
            ),
            (
                lambda x: model.head(
                    model.norm(through(cls_and(model.patch_embed(x)[0] + model.pos_embed[:, 1:])))[
                        :, 0
                    ]
                ),
                "class token gets no position",
            ),
            (
                lambda x: model.head(
                    model.norm(through(cls_and(model.patch_embed(x)[0]) + model.pos_embed[:, :1]))[
                        :, 0
                    ]
                ),
                "same vector",
            ),
            (lambda x: model.head(model.norm(through(embedded(x)))[:, -1]), "reads the last one"),
            (lambda x: model.head(model.norm(through(embedded(x)))[:, 1]), "first patch"),
            (lambda x: model.head(model.norm(through(embedded(x))).mean(1)), "mean of all tokens"),
            (
                lambda x: model.head(model.norm(through(embedded(x)))[:, 1:].mean(1)),
                "mean of the patches",
            ),
            (lambda x: model.head(model.norm(through(embedded(x)))), "every token"),
            (
                lambda x: model.head(
                    model.norm(
                        through(cls_and(model.patch_embed(x)[0]).roll(-1, 1) + model.pos_embed)
                    )[:, -1]
                ),
                "stands at the end",
            ),
            (lambda x: model.head(model.norm(embedded(x))[:, 0]), "blocks are left out"),
            (
                lambda x: model.head(model.norm(through(embedded(x), model.blocks[:1]))[:, 0]),
                "only the first block",
            ),
            (
                lambda x: model.head(model.norm(through(embedded(x), model.blocks[:-1]))[:, 0]),
                "last block is left out",
            ),
            (
                lambda x: model.head(model.norm(through(embedded(x), model.blocks[1:]))[:, 0]),
                "first block is left out",
            ),
            (
                lambda x: model.head(model.norm(through(model.norm(embedded(x))))[:, 0]),
                "norm comes before the blocks",
            ),
            (
                lambda x: model.head(
                    model.norm(through(embedded(x), list(model.blocks)[::-1]))[:, 0]
                ),
                "opposite order",
            ),
            (lambda x: model.norm(through(embedded(x)))[:, 0], "head is left out"),
            (lambda x: forward_loop(x).softmax(-1), "probabilities"),
            (lambda x: model(x), "model itself is called"),
            (lambda x: model.forward(x), "model itself is called"),
            (lambda x: model.head(model.forward_features(x)[:, 0]), "model itself is called"),
            (forward_in_place, "changes x in place"),
        ],
        given=lambda: {"model": model, "images": images},
    ),
    Exercise(
        "5.4",
        ["check_crossover(_)"],
        right={
            "the formula": lambda dim: 6 * dim + 1,
            "a loop": lambda d: next(n for n in range(1, 10**5) if 2 * n * n * d > 12 * n * d * d),
            "whole floats": lambda d: 12.0 * d / 2 + 1,
            "NumPy": lambda d: np.floor(12 * d / 2) + 1,
            "a tensor": lambda d: torch.tensor(6 * d + 1),
        },
        wrong=[
            (lambda dim: 6 * dim, "both are equal"),
            (lambda dim: 12 * dim + 1, "one of the two products"),
            (lambda dim: 4 * dim + 1, "linear maps were not counted"),
            (lambda dim: dim**2, "is not right"),
            (lambda dim: 2 * dim + 1, "MLP was not counted"),
            (lambda dim: dim // 6 + 1, "exchanged their roles"),
            (lambda dim: 1153, "does not depend on the width"),
            (lambda dim: "6", "a number was expected"),
        ],
    ),
]
