# SPDX-License-Identifier: MIT
"""What tells a token where it comes from: positions and the token layout; chapter 2 builds it."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ._inputs import check_positive, check_tensor, check_whole, is_open, to_pair


class TokenLayout(NamedTuple):
    """How a token sequence is laid out: ``prefix_tokens`` first, then the patches row by row."""

    grid: tuple[int, int]
    """(rows, columns) of patches."""
    prefix_tokens: int
    """How many tokens (class token, registers) stand before the patches."""


def _sincos(positions: Tensor, dim: int) -> Tensor:
    """Encode positions (N,) as (N, dim): first all sines, then all cosines, float64."""
    frequencies = 10000.0 ** -(torch.arange(dim // 2, dtype=torch.float64) / (dim // 2))
    angles = positions.double()[:, None] * frequencies  # (N, dim / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def sincos_positions_1d(length: int, dim: int) -> Tensor:
    """Make the fixed table of sines and cosines for positions 0 to length - 1.

    The first half of a row holds sines and the second half cosines, at wavelengths from 2π to
    10000 · 2π. (Vaswani et al. interleave the two halves: the same numbers in another order.)

    Returns (length, D), float32, where D is ``dim``.
    Raises TypeError, ValueError if a size is not a positive int or ``dim`` is odd.
    Source: Vaswani et al. (2017), section 3.5.
    """
    length, dim = check_positive("length", length), check_positive("dim", dim)
    if dim % 2:
        raise ValueError(f"dim is {dim}; give an even one, for a sine and a cosine each.")
    return _sincos(torch.arange(length), dim).float()


def sincos_positions_2d(
    grid: tuple[int, int], dim: int, old_grid: tuple[int, int] | None = None
) -> Tensor:
    """Make the fixed table for a grid of patches: half of D for the column, half for the row.

    A ``grid`` of (rows, columns) gives (rows · columns, D), float32, row by row; the first half of
    each row of the table encodes the column and the second half the row, as in MAE. With the
    ``old_grid`` of a trained model it lies over the same area, its patches between the old ones,
    because places beyond those mean nothing to the model.
    Raises TypeError, ValueError if a size is not a positive int or ``dim`` (D) not divisible by 4,
    for a sine and a cosine in each of the two directions.
    Source: He et al. (2022), appendix A.1; the order is that of the published code.
    """
    rows, cols = grid = to_pair(grid, "grid (rows, columns)")
    old_rows, old_cols = to_pair(grid if old_grid is None else old_grid, "old_grid")
    dim = check_positive("dim", dim)
    if dim % 4:
        raise ValueError(f"dim is {dim}; give one divisible by 4, or positions='learned'.")
    down = (torch.arange(rows).double() + 0.5) * old_rows / rows - 0.5  # 0, 1, … on the old grid
    along = (torch.arange(cols).double() + 0.5) * old_cols / cols - 0.5
    row, col = torch.meshgrid(down, along, indexing="ij")
    halves = [_sincos(col.flatten(), dim // 2), _sincos(row.flatten(), dim // 2)]
    return torch.cat(halves, dim=1).float()


def resize_positions(
    table: Tensor, old_grid: tuple[int, int], new_grid: tuple[int, int], prefix_tokens: int = 0
) -> Tensor:
    """Carry a learned position table to another grid of patches by interpolation.

    The rows of prefix tokens are kept as they are; those of the patches are laid out as a
    picture with D channels and resized, bicubic with antialiasing, as timm does. (torchvision,
    DINOv2 and big_vision each resize in another way, and the results differ.)

    Args:
        table: (1, prefix_tokens + rows · columns, D).
        old_grid: (rows, columns) that the table was made for.
        new_grid: (rows, columns) wanted; neither needs to be square.
        prefix_tokens: how many rows at the start belong to no patch.

    Returns the table for ``new_grid``, in the shape and type that it came in. Raises TypeError,
    ValueError for sizes that do not fit, or a table of other rows than grid and prefix.
    Source: Dosovitskiy et al. (2021), section 3.2, on fine-tuning at higher resolution.
    """
    rows, cols = old_grid = to_pair(old_grid, "old_grid")
    new_grid = to_pair(new_grid, "new_grid")
    prefix_tokens = check_whole("prefix_tokens", prefix_tokens)
    check_tensor("the position table", table, f"1, {prefix_tokens + rows * cols}, D")
    if torch.jit.is_tracing() and torch.onnx.is_in_onnx_export():  # it knows no such resizing
        new_grid = int(new_grid[0]), int(new_grid[1])
    exporting = getattr(torch.compiler, "is_exporting", bool)()  # from torch 2.7 on
    if not exporting and not any(map(is_open, new_grid)) and new_grid == old_grid:
        return table  # a grid left open, as in an export, is never known to be the same
    prefix, patches = table[:, :prefix_tokens], table[:, prefix_tokens:]
    picture = rearrange(patches, "1 (rows cols) d -> 1 d rows cols", rows=rows).float()
    picture = F.interpolate(picture, size=new_grid, mode="bicubic", antialias=True)
    return torch.cat([prefix, picture.flatten(2).mT.to(table.dtype)], dim=1)
