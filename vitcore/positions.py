# SPDX-License-Identifier: MIT
"""Positions that act inside attention, chosen by name; chapter 9 compares them with tables."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ._inputs import check_above_zero, check_positive, to_pair
from .attention import register_positions
from .embeddings import TokenLayout, resize_positions

__all__ = ["RelativeBias", "Rotary", "rotate"]


def check_layout(layout: TokenLayout | None) -> TokenLayout:
    """Raise one clear sentence unless there is a layout, and give it back."""
    if layout is None:
        raise TypeError("layout is None; give a TokenLayout, which says where patches stand.")
    return layout


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair of neighbouring numbers, (x₀, x₁), (x₂, x₃), …, by its own angle.

    Numbers (..., N, d) and angles (N, d / 2) give (..., N, d), in the type of the numbers.
    Source: Su et al. (2021), RoFormer, equation 34.
    """
    sine, cosine = (part.repeat_interleave(2, dim=-1).to(x.device) for part in _waves(angles))
    across = torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)
    return (x * cosine + across * sine).to(x.dtype)


def _waves(angles: Tensor) -> tuple[Tensor, Tensor]:
    return angles.sin().float(), angles.cos().float()


@register_positions("rotary")
class Rotary(nn.Module):
    """Two-dimensional rotary positions: queries and keys are turned by their place on the grid, so
    that their product depends on how far apart two patches are, down and along.

    The first half of a head's pairs turns with the row, the second with the column, each pair at
    its own speed, from one radian a patch down to about 1 / ``temperature``. Class token and
    registers are not turned. Images of another size lie over the same area as those of
    ``image_size``: their patches are turned as if between the old ones. Values stay as they are,
    and there are no weights.

    Args:
        heads, head_dim, grid: h; d, divisible by 4; (rows, columns) of ``image_size``.
        temperature: the slowest pair's wavelength in about 2π patches.

    Raises TypeError, ValueError for sizes that do not fit, and where it is called without layout.
    Source: Heo et al. (2024), "Rotary position embedding for vision transformer", section 3.2,
    axial frequencies; the order of numbers is timm's.
    """

    def __init__(
        self, heads: int, head_dim: int, grid: tuple[int, int], temperature: float = 100.0
    ) -> None:
        super().__init__()
        check_positive("heads", heads)
        self.grid = to_pair(grid, "grid (rows, columns)")
        self.temperature = check_above_zero("temperature", temperature)
        if check_positive("head_dim", head_dim) % 4:
            raise ValueError(
                f"heads are {head_dim} wide; give dim / heads divisible by 4 for rotary positions, "
                "a pair of numbers in each of the two directions."
            )
        self.head_dim = head_dim

    def angles(self, grid: tuple[int, int]) -> Tensor:
        """Give the angle of every pair for every patch of a grid, (rows · columns, d / 2)."""
        pairs = self.head_dim // 4
        speeds = self.temperature ** -(torch.arange(pairs, dtype=torch.float64) / pairs)
        places = [
            (torch.arange(new).double() + 0.5) * old / new - 0.5  # 0, 1, … on the old grid
            for new, old in zip(grid, self.grid, strict=True)
        ]
        turns = [place[:, None] * speeds for place in places]  # (rows, d / 4), (columns, d / 4)
        row = turns[0][:, None].expand(-1, grid[1], -1)
        column = turns[1][None].expand(grid[0], -1, -1)
        return torch.cat([row, column], dim=-1).flatten(0, 1)

    def forward(self, q: Tensor, k: Tensor, layout: TokenLayout | None) -> tuple[Tensor, ...]:
        """Turn the patches' queries and keys (B, h, N, d)."""
        grid, prefix = check_layout(layout)
        angles = F.pad(self.angles(grid), (0, 0, prefix, 0))  # no angle for the prefix
        return rotate(q, angles), rotate(k, angles)


@register_positions("relative")
class RelativeBias(nn.Module):
    """A learned bias of the scores for every distance, down and along, and every head.

    ``relative_position_bias_table`` holds (2 · rows - 1) · (2 · columns - 1) distances for h heads,
    row by row from the most negative; scores with class token and registers get none. For images
    of another size the table is resized as a picture, as in :func:`resize_positions`.

    ``heads``, ``head_dim``, ``grid``: h, d (of any size), (rows, columns) of ``image_size``.
    Raises TypeError, ValueError for sizes that do not fit, and where it is called without layout.
    Source: Liu et al. (2021), Swin Transformer, equation 4; the names are timm's.
    """

    def __init__(self, heads: int, head_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        heads, _ = check_positive("heads", heads), check_positive("head_dim", head_dim)
        self.grid = to_pair(grid, "grid (rows, columns)")
        rows, cols = self._distances(self.grid)
        self.relative_position_bias_table = nn.Parameter(torch.empty(rows * cols, heads))
        self.reset_parameters()

    @staticmethod
    def _distances(grid: tuple[int, int]) -> tuple[int, int]:
        return 2 * grid[0] - 1, 2 * grid[1] - 1

    def reset_parameters(self) -> None:
        """Draw from a normal distribution of standard deviation 0.02, truncated at two of them."""
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02, a=-0.04, b=0.04)

    def bias(self, grid: tuple[int, int]) -> Tensor:
        """Give what is added to the scores among the patches of a grid, (h, N, N)."""
        rows, cols = grid
        old, new = self._distances(self.grid), self._distances(grid)
        table = resize_positions(self.relative_position_bias_table[None], old, new)[0]
        down, along = torch.arange(rows), torch.arange(cols)
        row, col = torch.meshgrid(down, along, indexing="ij")
        places = torch.stack([row.flatten(), col.flatten()])  # (2, N)
        apart = places[:, :, None] - places[:, None]  # (2, N, N), from key to query
        index = (apart[0] + rows - 1) * new[1] + apart[1] + cols - 1
        return table[index.to(table.device)].permute(2, 0, 1)

    def forward(self, q: Tensor, k: Tensor, layout: TokenLayout | None) -> tuple[Tensor, ...]:
        """Leave queries and keys alone and give the bias (h, prefix + N, prefix + N)."""
        grid, prefix = check_layout(layout)
        return q, k, F.pad(self.bias(grid), (prefix, 0, prefix, 0)).to(q.dtype)
