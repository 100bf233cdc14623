# SPDX-License-Identifier: MIT
"""Attentions beyond the plain one, by the same interface; the best run of chapter 7 uses one."""

from __future__ import annotations

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import check_positive
from .attention import Attention, register_attention
from .embeddings import TokenLayout

__all__ = ["LocallyEnhancedAttention"]


@register_attention("locally_enhanced")
class LocallyEnhancedAttention(Attention):
    """Attention plus a small convolution of the values: each patch also sees its neighbours as
    such, which plain attention would have to learn from positions.

    What a head gathers is softmax(q kᵀ / √d) v + conv(v). The convolution is depthwise, one
    kernel of ``window`` x ``window`` patches for each of the D numbers, over the grid of patches;
    class token and registers have no neighbours and take no part in it.

    Args:
        dim, heads, qkv_bias, kernel: as of plain attention.
        window: the side of the neighbourhood in patches, odd.

    Raises TypeError, ValueError for sizes that do not fit, and where it is called without layout.
    Source: Dong et al. (2022), CSWin Transformer, section 3.3: locally-enhanced positional
    encoding.
    """

    def __init__(
        self, dim: int, heads: int, qkv_bias: bool = True, kernel: str = "auto", window: int = 3
    ) -> None:
        super().__init__(dim, heads, qkv_bias, kernel)
        if check_positive("window", window) % 2 == 0:
            raise ValueError(f"window is {window}; give an odd number of patches, such as 3.")
        self.local = nn.Conv2d(dim, dim, window, padding=window // 2, groups=dim)

    def gather(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout | None) -> Tensor:
        """Weigh values by similarity and add their convolution: (B, h, N, d) three times to one."""
        if layout is None:
            raise TypeError("layout is None; give a TokenLayout, which says where patches stand.")
        (rows, _), prefix = layout
        patches = rearrange(v[:, :, prefix:], "b h (r c) d -> b (h d) r c", r=rows)
        local = rearrange(self.local(patches), "b (h d) r c -> b h (r c) d", h=self.heads)
        return self.attend(q, k, v) + F.pad(local, (0, 0, prefix, 0))
