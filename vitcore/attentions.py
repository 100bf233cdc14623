# SPDX-License-Identifier: MIT
"""Attentions beyond the plain one, by the same interface; chapters 7 and 9 use them."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ._inputs import check_flag, check_number, check_positive, is_recorded
from .attention import Attention, register_attention
from .embeddings import TokenLayout
from .positions import check_layout

__all__ = ["HybridAttention", "LocalityAttention", "LocallyEnhancedAttention", "window_mask"]


def _check_window(window: int) -> int:
    if check_positive("window", window) % 2 == 0:
        raise ValueError(f"window is {window}; give an odd number of patches, such as 3.")
    return int(window)


def _mask(compared: tuple[Tensor, ...], seen: Tensor) -> tuple[Tensor, ...]:
    """Let keys count where ``seen`` (..., N, N) is True alone, beside what masks them already."""
    q, k, *bias = compared
    return q, k, bias[0].masked_fill(~seen, -torch.inf) if bias else seen


@register_attention("locally_enhanced")
class LocallyEnhancedAttention(Attention):
    """Attention plus a small convolution of the values: each patch also sees its neighbours as
    such, which plain attention would have to learn from positions.

    What a head gathers is softmax(q kᵀ / √d) v + conv(v). The convolution is depthwise, one
    kernel of ``window`` x ``window`` patches for each of the D numbers, over the grid of patches;
    class token and registers have no neighbours and take no part in it.

    Args:
        dim, heads, qkv_bias, kernel, qk_norm: as of plain attention.
        window: the side of the neighbourhood in patches, odd.

    Raises TypeError, ValueError for sizes that do not fit, and where it is called without layout.
    Source: Dong et al. (2022), CSWin Transformer, section 3.3: locally-enhanced positional
    encoding.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        kernel: str = "auto",
        window: int = 3,
        qk_norm: str | None = None,
    ) -> None:
        super().__init__(dim, heads, qkv_bias, kernel, qk_norm)
        window = _check_window(window)
        self.local = nn.Conv2d(dim, dim, window, padding=window // 2, groups=dim)

    def gather(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout | None) -> Tensor:
        """Weigh values by similarity and add their convolution: (B, h, N, d) three times to one."""
        (rows, _), prefix = check_layout(layout)
        patches = rearrange(v[:, :, prefix:], "b h (r c) d -> b (h d) r c", r=rows)
        local = rearrange(self.local(patches), "b (h d) r c -> b h (r c) d", h=self.heads)
        return super().gather(q, k, v, layout) + F.pad(local, (0, 0, prefix, 0))


@register_attention("locality")
class LocalityAttention(Attention):
    """Locality self-attention: every head learns its scale, and no token looks at itself.

    The weights are softmax(q kᵀ / τ) with a temperature τ for each head in the place of √d, where
    it starts. ``log_temperature`` (h,) holds its logarithm, so that τ stays positive and a step
    changes it by a factor; weight decay leaves it alone. A token alone with itself sees itself.

    Args:
        dim, heads, qkv_bias, kernel, qk_norm: as of plain attention; every kernel stays in use.
        mask_diagonal: whether tokens are kept from looking at themselves; False leaves the
            learned temperature alone.

    Raises TypeError, ValueError for sizes that do not fit.
    Source: Lee, Lee and Song (2021), "Vision transformer for small-size datasets", section 3.2,
    equations 4 and 5.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        kernel: str = "auto",
        mask_diagonal: bool = True,
        qk_norm: str | None = None,
    ) -> None:
        super().__init__(dim, heads, qkv_bias, kernel, qk_norm)
        self.mask_diagonal = check_flag("mask_diagonal", mask_diagonal)
        self.usual = math.log(dim // heads) / 2
        self.log_temperature = nn.Parameter(torch.empty(heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every temperature to √d."""
        nn.init.constant_(self.log_temperature, self.usual)

    def compare(self, q: Tensor, k: Tensor, layout: TokenLayout | None) -> tuple[Tensor, ...]:
        """Scale queries (B, h, N, d) by √d / τ, as the kernels divide by √d; mask the diagonal."""
        factors = (self.usual - self.log_temperature).exp().view(-1, 1, 1)
        q, k, *bias = super().compare(q, k, layout)
        compared = ((q * factors).to(q.dtype), k, *bias)
        count = q.shape[-2]
        if not self.mask_diagonal or (not is_recorded() and count == 1):
            return compared
        return _mask(compared, ~torch.eye(count, dtype=torch.bool, device=q.device))


def window_mask(layout: TokenLayout, window: int) -> Tensor:
    """Say who sees whom if patches see ``window`` x ``window`` around them, (N, N), boolean.

    Row i says what token i sees. Class token and registers see all tokens and are seen by all.
    """
    (rows, cols), prefix = layout
    row, col = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    places = torch.stack([row.flatten(), col.flatten()])  # (2, N)
    apart = (places[:, :, None] - places[:, None]).abs().amax(dim=0)  # (N, N)
    return F.pad(apart <= window // 2, (prefix, 0, prefix, 0), value=True)


@register_attention("hybrid")
class HybridAttention(Attention):
    """Local heads, which see a window around their patch, beside global heads in one layer.

    The first ``local_share`` of the heads, rounded to whole ones, see ``window`` x ``window``
    patches around their own; class token and registers see everything and are seen by every head.
    A list of shares or windows goes from layer to layer: ``local_share=[1.0, 0.0]`` alternates
    between local and global layers. The window is a mask: it takes the arithmetic of attention to
    everything.

    Args:
        dim, heads, qkv_bias, kernel, qk_norm: as of plain attention.
        window: the side of the window in patches, odd.
        local_share: the share of local heads, from 0 to 1.

    Raises TypeError, ValueError for sizes that do not fit, and where it is called without layout.
    Source: Beltagy et al. (2020), Longformer, section 3.1, for windows beside global attention;
    Hassani et al. (2023), Neighborhood Attention, for windows on the grid of patches.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        kernel: str = "auto",
        window: int = 3,
        local_share: float = 0.5,
        qk_norm: str | None = None,
    ) -> None:
        super().__init__(dim, heads, qkv_bias, kernel, qk_norm)
        self.window = _check_window(window)
        if not 0 <= (share := check_number("local_share", local_share)) <= 1:
            raise ValueError(f"local_share is {local_share}; give a share of heads from 0 to 1.")
        self.local_heads = round(share * heads)

    def compare(self, q: Tensor, k: Tensor, layout: TokenLayout | None) -> tuple[Tensor, ...]:
        """Leave queries and keys (B, h, N, d) as they are; mask what local heads do not see."""
        compared = super().compare(q, k, layout)
        if not self.local_heads:
            return compared
        seen = window_mask(check_layout(layout), self.window).to(q.device)
        local = torch.arange(self.heads, device=q.device) < self.local_heads
        return _mask(compared, seen | ~local[:, None, None])
