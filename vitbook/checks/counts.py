# SPDX-License-Identifier: MIT
"""Checks of chapter 5: how many parameters a model has, and how many multiplications it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from vitcore.patches import to_pair
from vitcore.vit import ViT, ViTConfig

from .frame import (
    CheckFailed,
    call,
    check,
    compare_counts,
    replaced,
)


def _parameter_parts(c: ViTConfig) -> dict[str, int]:
    height, width = to_pair(c.image_size)
    count = (height // c.patch_size) * (width // c.patch_size)
    hidden = int(c.dim * c.mlp_ratio)
    return {
        "the kernel of the patch embedding": c.in_channels * c.patch_size**2 * c.dim,
        "the bias of the patch embedding": c.dim,
        "the class token": c.dim,
        "the positions of the patches": count * c.dim,
        "the class token's position vector": c.dim,
        "one of the two norms of each block": c.depth * 2 * c.dim,
        "the weights of qkv": c.depth * 3 * c.dim**2,
        "the biases of qkv": c.depth * 3 * c.dim,
        "the weights of the projection after attention": c.depth * c.dim**2,
        "the biases of the projection after attention": c.depth * c.dim,
        "the weights of one of the MLP's two layers": c.depth * c.dim * hidden,
        "the bias of the MLP's first layer": c.depth * hidden,
        "the bias of the MLP's second layer": c.depth * c.dim,
        "the biases of the MLP": c.depth * (hidden + c.dim),
        "the final norm": 2 * c.dim,
        "the class token together with its position": 2 * c.dim,
        "all positions": (count + 1) * c.dim,
        "the head": c.num_classes * (c.dim + 1),
        "the bias of the head": c.num_classes,
        "two of the three maps in qkv, with their biases": 2 * c.depth * (c.dim**2 + c.dim),
        "all biases of the blocks' linear maps": c.depth * (5 * c.dim + hidden),
        "all norms": (c.depth * 4 + 2) * c.dim,
        "the biases of the norms": (c.depth * 2 + 1) * c.dim,
    }


@check("the formula gives what counting gives")
def check_parameter_count(count: Callable[[ViTConfig], int]) -> None:
    """``count(config) -> int``, the parameters of a ViT with class token and learned positions."""
    base = ViTConfig(image_size=(24, 16), patch_size=4, in_channels=3, num_classes=7, dim=20,
                     depth=3, heads=2)  # fmt: skip
    other = replace(base, image_size=28, patch_size=7, in_channels=1, dim=24, depth=5,
                    mlp_ratio=2.0)  # fmt: skip
    configs = (base, other)
    want = [_count(config) for config in configs]
    wrong: list[tuple[str, Sequence[float]]] = [
        ("is the image always square?", _counts_of_squares(configs, want, side)) for side in (0, 1)
    ]
    wrong += [
        (message, [_count(replace(config, **fixed)) for config in configs])
        for message, fixed in (
            ("the MLP is taken to be four times as wide as a token, whatever mlp_ratio says",
             {"mlp_ratio": 4.0}),
            ("images are taken to have three channels, whatever in_channels says",
             {"in_channels": 3}),
            ("one block is counted, and there are depth of them", {"depth": 1}),
        )
    ]  # fmt: skip
    parts = [_parameter_parts(config) for config in configs]
    alike: dict[tuple[int, ...], list[str]] = {}
    for name in parts[0]:
        alike.setdefault(tuple(part[name] for part in parts), []).append(name)
    for sizes, names in alike.items():
        which = ", or ".join(names)
        pairs = list(zip(want, sizes, strict=True))
        wrong += [
            (f"the count is short by exactly {which}", [whole - size for whole, size in pairs]),
            (f"the count has exactly {which} too much", [whole + size for whole, size in pairs]),
        ]
    told = "no model may be made here: work the number out from the configuration"

    def refuse(*arguments: Any, **options: Any) -> None:
        raise CheckFailed(told)

    with replaced(nn.Module, __init__=refuse):
        got = [call(count, config) for config in configs]
    compare_counts(got, want, wrong, [_told(config) for config in configs], whole_floats=True)


def _told(config: ViTConfig) -> str:
    names = ("image_size", "patch_size", "in_channels", "num_classes", "dim", "depth", "mlp_ratio")
    return ", ".join(f"{name} {getattr(config, name)}" for name in names)


def _count(config: ViTConfig) -> int:
    return sum(parameter.numel() for parameter in ViT(config).parameters())


def _counts_of_squares(configs: Sequence[ViTConfig], want: Sequence[int], side: int) -> list[float]:
    """What comes out where one side of the image is taken for both."""
    counts: list[float] = []
    for config, right in zip(configs, want, strict=True):
        grid = [length // config.patch_size for length in to_pair(config.image_size)]
        counts.append(right + (grid[side] ** 2 - grid[0] * grid[1]) * config.dim)
    return counts


@check("from this N on the products of attention are the larger part")
def check_crossover(tokens: Callable[[int], int]) -> None:
    """``tokens(dim) -> int``, the smallest N for which 2 N² D is more than 12 N D²."""
    dims = (64, 192, 768)
    wrong = [
        ("at this N both are equal: the products must take more", [6 * dim for dim in dims]),
        ("only one of the two products was counted", [12 * dim + 1 for dim in dims]),
        ("the MLP was not counted among the linear maps", [2 * dim + 1 for dim in dims]),
        ("attention's linear maps were not counted", [4 * dim + 1 for dim in dims]),
        ("D and N have exchanged their roles: this falls with the width",
         [dim // 6 + 1 for dim in dims]),
        ("the number does not depend on the width here, and it does", [1153] * 3),
    ]  # fmt: skip
    compare_counts(
        [call(tokens, dim) for dim in dims],
        [6 * dim + 1 for dim in dims],
        wrong,
        [f"dim {dim}" for dim in dims],
        whole_floats=True,
    )
