# SPDX-License-Identifier: MIT
"""The transformer block and its parts; chapter 4 of the book builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from . import _inputs as inputs
from .attention import ATTENTIONS, NORMS, Record, keep
from .attention import NORM_EPS as NORM_EPS
from .embeddings import TokenLayout


class Mlp(nn.Module):
    """Two linear maps with the exact GELU between them, applied to every token by itself.

    Raises TypeError, ValueError for sizes that do not fit, when made and when called.
    Source: Dosovitskiy et al. (2021), section 3.1; Hendrycks and Gimpel (2016) for GELU.
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        dim = inputs.check_positive("dim", dim)
        hidden_dim = inputs.check_positive("hidden_dim", hidden_dim)
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D)."""
        inputs.check_tokens("x", x, getattr(self.fc1, "weight", None))
        return self.fc2(self.act(self.fc1(x)))


MLPS: dict[str, type[nn.Module]] = {"mlp": Mlp}
"""The MLPs of a block by name, each made as ``cls(dim, hidden_dim)``."""


class LayerScale(nn.Module):
    """Multiply each of the D channels by a learned factor that starts small.

    Source: Touvron et al. (2021), "Going deeper with image transformers", section 2.1.
    """

    def __init__(self, dim: int, initial: float = 1e-5) -> None:
        super().__init__()
        self.initial = inputs.check_number("layer_scale", initial)
        self.gamma = nn.Parameter(torch.empty(inputs.check_positive("dim", dim)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set every factor to the initial one."""
        nn.init.constant_(self.gamma, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        """Scale tokens (B, N, D)."""
        inputs.check_tokens("x", x, self.gamma)
        return x * self.gamma


class DropPath(nn.Module):
    """Leave a whole branch out for some images of the batch while training.

    One draw per image leaves it out with probability ``rate``; what is kept is divided by
    1 - rate, so that the mean stays. When evaluating it does nothing.
    Raises TypeError, ValueError if ``rate`` is not a number in [0, 1).
    Source: Huang et al. (2016), "Deep networks with stochastic depth".
    """

    def __init__(self, rate: float = 0.0) -> None:
        super().__init__()
        self.rate = inputs.check_rate("drop_path", rate)

    def forward(self, x: Tensor) -> Tensor:
        """Drop or keep x (B, ...) image by image."""
        if self.rate == 0.0 or not self.training:
            return x
        inputs.check_tokens("x", x)
        keep_rate = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)  # one draw per image
        return x * x.new_empty(shape).bernoulli_(keep_rate) / keep_rate


class Block(nn.Module):
    """One pre-norm transformer block: attention mixes tokens, the MLP works on each.

    Args:
        dim, heads: D, the width; h, the number of attention heads.
        mlp_ratio: the MLP's hidden width as a multiple of D.
        qkv_bias: whether queries, keys and values have a bias.
        drop_path: probability of leaving a branch out, per image.
        layer_scale: the initial factor of :class:`LayerScale`; None leaves it out.
        attention, attention_options: a name in ``ATTENTIONS``, its further arguments.
        norm_layer, mlp_layer: a name in ``NORMS``, and one in ``MLPS``.

    Raises TypeError, ValueError for sizes, rates, names or tokens that do not fit.
    Source: Dosovitskiy et al. (2021), equations 2 and 3.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        drop_path: float = 0.0,
        layer_scale: float | None = None,
        attention: str = "global",
        attention_options: Mapping[str, Any] | None = None,
        norm_layer: str = "layernorm",
        mlp_layer: str = "mlp",
    ) -> None:
        super().__init__()
        dim = inputs.check_positive("dim", dim)
        mlp_ratio = inputs.check_above_zero("mlp_ratio", mlp_ratio)
        make_attention = ATTENTIONS[inputs.check_choice("attention", attention, ATTENTIONS)]
        options = {} if attention_options is None else attention_options
        given: Any = (options, make_attention, dim, heads)
        options = inputs.check_options("attention_options", *given, qkv_bias=qkv_bias)
        make_norm = NORMS[inputs.check_choice("norm_layer", norm_layer, NORMS)]
        make_mlp = MLPS[inputs.check_choice("mlp_layer", mlp_layer, MLPS)]
        self.norm1 = make_norm(dim)
        self.attn = make_attention(dim, heads, qkv_bias=qkv_bias, **options)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = make_norm(dim)
        self.mlp = make_mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path2 = DropPath(drop_path)

    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        """Map tokens (B, N, D) to (B, N, D).

        ``layout`` is the grid and the number of prefix tokens, for attentions that ask. ``record``
        takes what the attention gives, "attn_out" and "mlp_out" (what each branch adds) and
        "tokens" (the block's output), each (B, N, D), where asked for.
        """
        inputs.check_tokens("x", x, getattr(self.norm1, "weight", None), "B, N, D")
        attn_out = self.drop_path1(self.ls1(self.attn(self.norm1(x), layout, record)))
        x = x + attn_out
        mlp_out = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        x = x + mlp_out
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x
