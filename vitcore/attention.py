# SPDX-License-Identifier: MIT
"""Multi-head self-attention, written out and fused; chapter 3 of the book builds it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from . import _inputs as inputs
from ._inputs import T
from .embeddings import TokenLayout

NORM_EPS = 1e-6
"""LayerNorm's epsilon in published ViT weights; torch's default 1e-5 shifts the outputs."""
NORMS: dict[str, Callable[[int], nn.Module]] = {
    "layernorm": partial(nn.LayerNorm, eps=NORM_EPS),
    "rmsnorm": partial(nn.RMSNorm, eps=NORM_EPS),  # Zhang and Sennrich (2019): no mean, no bias
}

Record = dict[str, "Tensor | None"]
"""The intermediates asked for: each key is a name, and the module that makes it fills it in."""


def keep(record: Record | None, **tensors: Tensor) -> None:
    """Fill those of ``tensors`` into ``record`` that were asked for."""
    if record is not None:
        record.update({name: tensor for name, tensor in tensors.items() if name in record})


def attention_weights(q: Tensor, k: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute softmax(q kᵀ / √d): how much of each key a query takes; every row sums to one.

    Queries are (..., N, d), keys (..., M, d), the weights (..., N, M). ``bias``, which broadcasts
    to these, is added to the scores; where it is boolean, keys count where it is True alone.
    Raises TypeError, ValueError for tensors that do not fit each other.
    Source: Vaswani et al. (2017), equation 1.
    """
    inputs.check_heads(q, k, k)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (..., N, M)
    if bias is not None:
        mask = bias.dtype == torch.bool
        scores = scores.masked_fill(~bias, -torch.inf) if mask else scores + bias
    return scores.softmax(dim=-1)


def explicit_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend with both products written out, (..., N, d), (..., M, d) twice; raises as above."""
    inputs.check_heads(q, k, v)
    return (attention_weights(q, k) if bias is None else attention_weights(q, k, bias)) @ v


ATTENTIONS: dict[str, type[nn.Module]] = {}
"""The attentions by name, for ``ViTConfig(attention=name, attention_options={...})``."""


def register_attention(name: str) -> Callable[[T], T]:
    """Make a class available as ``ViTConfig(attention=name)``.

    The class is made as ``cls(dim, heads, qkv_bias=..., **options)`` and called as
    ``attention(x, layout, record)`` on tokens x (B, N, D).
    """
    return inputs.register(ATTENTIONS, name)


POSITIONS: dict[str, type[nn.Module]] = {}
"""What tells attention how two patches lie to each other, for ``ViTConfig(positions=name)``."""


def register_positions(name: str) -> Callable[[T], T]:
    """Make a class available as ``ViTConfig(positions=name)``, or "learned+name" beside a table.

    Each layer makes one as ``cls(heads, head_dim, grid, **options)``, where grid is that of
    ``image_size``. It maps queries and keys (B, h, N, d) and the layout to queries, keys and, if
    it has one, a bias of the scores that broadcasts to (B, h, N, N).
    """
    return inputs.register(POSITIONS, name)


@register_attention("global")
class Attention(nn.Module):
    """Multi-head self-attention: every token gathers from all tokens of its own image.

    Args:
        dim: D, the width; divisible by ``heads``.
        heads: h; each head works on d = D/h numbers.
        qkv_bias: whether queries, keys and values have a bias (published weights do).
        kernel: "fused" is torch's ``scaled_dot_product_attention``, "explicit" the same written
            out, "auto" the faster of the two for the device and the type.
        qk_norm: a name in ``NORMS`` that every query and key goes through, or None.

    Raises TypeError, ValueError for sizes that do not fit or an unknown kernel or norm.
    Source: Vaswani et al. (2017), section 3.2.2; Dosovitskiy et al. (2021), appendix A; of
    ``qk_norm`` Dehghani et al. (2023), "Scaling vision transformers to 22 billion parameters".
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        qkv_bias: bool = True,
        kernel: str = "auto",
        qk_norm: str | None = None,
    ) -> None:
        super().__init__()
        dim, self.heads = inputs.check_positive("dim", dim), inputs.check_positive("heads", heads)
        if dim % heads:
            raise ValueError(f"dim {dim} does not divide into {heads} heads; give a divisor of it.")
        self.kernel = inputs.check_choice("kernel", kernel, ("auto", "fused", "explicit"))
        self.qkv = nn.Linear(dim, 3 * dim, bias=inputs.check_flag("qkv_bias", qkv_bias))
        named = None if qk_norm is None else inputs.check_choice("qk_norm", qk_norm, NORMS)
        self.q_norm, self.k_norm = (
            NORMS[named](dim // heads) if named else nn.Identity() for _ in "qk"
        )
        self.rel_pos: nn.Module | None = None  # one of POSITIONS, where the model has it
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens (B, N, D) to queries, keys and values, each (B, h, N, d)."""
        inputs.check_tokens("x", x, getattr(self.qkv, "weight", None), "B, N, D")
        qkv = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        q, k, v = qkv.unbind(0)
        return q, k, v

    def compare(self, q: Tensor, k: Tensor, layout: TokenLayout | None) -> tuple[Tensor, ...]:
        """Give queries and keys (B, h, N, d) as they are compared; and the bias, where one is."""
        q, k = self.q_norm(q).to(q.dtype), self.k_norm(k).to(k.dtype)
        return (q, k) if self.rel_pos is None else self.rel_pos(q, k, layout)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Weigh values by similarity, per head: (B, h, N, d) three times to (B, h, N, d)."""
        # In bfloat16 on a CPU the fused kernel takes three to seven times as long.
        slow = q.device.type == "cpu" and q.dtype == torch.bfloat16
        if self.kernel == "explicit" or (self.kernel == "auto" and slow):
            return explicit_attention(q, k, v, bias)
        return F.scaled_dot_product_attention(q, k, v, bias)

    def gather(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout | None) -> Tensor:
        """Give what each head adds up for each token, (B, h, N, d): that of :meth:`attend`."""
        q, k, *bias = self.compare(q, k, layout)
        return self.attend(q, k, v, *bias)

    def weights(self, x: Tensor, layout: TokenLayout | None = None) -> Tensor:
        """Give the attention weights (B, h, N, N) for tokens x (B, N, D); rows sum to one.

        ``weights(x)[b, h, i, j]`` is how much token i takes from token j, whatever the kernel.
        """
        q, k, _ = self.split(x)
        return attention_weights(*self.compare(q, k, layout))

    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        """Mix tokens (B, N, D) to (B, N, D).

        ``layout`` says where the patches stand; this attention looks everywhere and does not need
        it. ``record`` takes "q", "k", "v" (B, h, N, d) and "attention" (B, h, N, N) if asked for.
        """
        q, k, v = self.split(x)
        keep(record, q=q, k=k, v=v)
        if record is not None and "attention" in record:
            keep(record, attention=attention_weights(*self.compare(q, k, layout)))
        mixed = rearrange(self.gather(q, k, v, layout), "b h n d -> b n (h d)")
        return self.proj(mixed)
