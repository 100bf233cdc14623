# SPDX-License-Identifier: MIT
"""The thirteen mistakes that no shape check finds, planted in a model by ``BUGS``."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vitcore.attention import Attention, Record, keep
from vitcore.blocks import Block
from vitcore.embeddings import TokenLayout
from vitcore.patches import PatchEmbed
from vitcore.vit import ViT

from .attention import check_attention_rows, check_independent_of_batch, check_multi_head
from .blocks import check_pre_norm
from .patches import check_patch_embed
from .vit import (
    check_class_token_position,
    check_final_norm,
    check_identity_at_zero,
    check_permutation_equivariance,
    check_positions_used,
    check_readout,
)


class _PlainReshape(PatchEmbed):
    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        rows, columns = (side // self.patch_size for side in images.shape[2:])
        strips = images.reshape(images.shape[0], rows * columns, -1)
        return F.linear(strips, self.proj.weight.flatten(1), self.proj.bias), (rows, columns)


class _OnePositionRow(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        table = super().positions_for(grid)
        return None if table is None else table[:, :1].expand_as(table)


class _NoPositions(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        return None


class _ClassTokenWithoutPosition(ViT):
    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        table = super().positions_for(grid)
        return None if table is None else F.pad(table[:, 1:], (0, 0, 1, 0))  # row 0 becomes zero


class _Unscaled(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1.0)


class _ScaledByWidth(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, scale=1 / (self.heads * q.shape[-1]))


class _SoftmaxOverQueries(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        return (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(dim=-2) @ v


class _UnmergedHeads(Attention):
    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        batch, heads, count, size = q.shape
        tokens = super().attend(q, k, v).reshape(batch, count, heads * size)
        return rearrange(tokens, "b n (h d) -> b h n d", h=heads)  # the right merging undoes this


class _AcrossTheBatch(Attention):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        return super().forward(x.transpose(0, 1), layout, record).transpose(0, 1)


class _NoAttentionResidual(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        x = attn_out = self.drop_path1(self.ls1(self.attn(self.norm1(x), layout, record)))
        mlp_out = self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        x = x + mlp_out
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class _PostNorm(Block):
    def forward(
        self, x: Tensor, layout: TokenLayout | None = None, record: Record | None = None
    ) -> Tensor:
        attn_out = self.drop_path1(self.ls1(self.attn(x, layout, record)))
        x = self.norm1(x + attn_out)
        mlp_out = self.drop_path2(self.ls2(self.mlp(x)))
        x = self.norm2(x + mlp_out)
        keep(record, attn_out=attn_out, mlp_out=mlp_out, tokens=x)
        return x


class _NoNorm(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return input


class _WrongReadout(ViT):
    def pool(self, features: Tensor) -> Tensor:
        return self.fc_norm(features[:, -1])


@dataclass(frozen=True)
class Bug:
    """One mistake of the table: what it is, how to plant it, and the check that finds it."""

    name: str
    """Its key in ``BUGS``."""
    chapter: int
    """The chapter that shows it."""
    mistake: str
    """What is wrong, in a few words."""
    part: str
    """Where it sits: "" for the model, else the name of a module ("blocks.*" for each block)."""
    wrong: type[nn.Module]
    """A subclass of what sits there, with the mistake in one method."""
    check: Callable[[Any], None]
    """Passes on the right model, raises CheckFailed on the planted one."""

    def plant(self, model: ViT) -> ViT:
        """Give a copy of a model with this mistake in it, its weights unchanged.

        The names and shapes of the parameters stay as they are, so that right weights load.

        Raises:
            ValueError: where the model does not have the part (a class token, one norm) in
                which the mistake would sit.
        """
        twin = copy.deepcopy(model)
        if self.wrong is _ClassTokenWithoutPosition and not (
            twin.config.class_token and twin.config.class_position
        ):
            raise ValueError(
                f"{self.name} needs a class token with a position; make the model with "
                "class_token=True, class_position=True."
            )
        for place in self._places(twin):
            right = self.wrong.__mro__[1]
            if type(place) is not right:
                raise ValueError(
                    f"{self.name} is planted in the class {right.__name__}, but the model has "
                    f"{type(place).__name__} at {self.part or 'its root'}; choose another model."
                )
            place.__class__ = self.wrong  # the same object and weights, with one method changed
        return twin

    def _places(self, model: ViT) -> list[nn.Module]:
        if self.part == "norm" and isinstance(model.norm, nn.Identity):
            return [model.fc_norm]
        if self.part.startswith("blocks.*"):
            inside = self.part[len("blocks.*") :].lstrip(".")
            return [block.get_submodule(inside) for block in model.blocks]
        return [model.get_submodule(self.part)]


BUGS: dict[str, Bug] = {
    bug.name: bug
    for bug in (
        Bug("plain-reshape", 1, "patches made by a plain reshape: rows of the image, not squares",
            "patch_embed", _PlainReshape, check_patch_embed),
        Bug("class-token-without-position", 2, "the class token gets no position",
            "", _ClassTokenWithoutPosition, check_class_token_position),
        Bug("one-position-row", 2, "one vector of the position table is added to all tokens",
            "", _OnePositionRow, check_positions_used),
        Bug("no-positions", 2, "no positions at all",
            "", _NoPositions, check_permutation_equivariance),
        Bug("unscaled", 3, "no division by sqrt(d)",
            "blocks.*.attn", _Unscaled, check_multi_head),
        Bug("scaled-by-width", 3, "division by D instead of sqrt(d)",
            "blocks.*.attn", _ScaledByWidth, check_multi_head),
        Bug("softmax-over-queries", 3, "softmax over the queries instead of the keys",
            "blocks.*.attn", _SoftmaxOverQueries, check_attention_rows),
        Bug("unmerged-heads", 3, "heads merged without transposing back",
            "blocks.*.attn", _UnmergedHeads, check_multi_head),
        Bug("across-the-batch", 3, "attention across the batch, as nn.MultiheadAttention without "
            "batch_first", "blocks.*.attn", _AcrossTheBatch, check_independent_of_batch),
        Bug("no-attention-residual", 4, "no residual around attention",
            "blocks.*", _NoAttentionResidual, check_identity_at_zero),
        Bug("post-norm", 4, "post-norm where pre-norm is meant",
            "blocks.*", _PostNorm, check_pre_norm),
        Bug("no-final-norm", 5, "no final norm",
            "norm", _NoNorm, check_final_norm),
        Bug("wrong-readout", 5, "the wrong token is read out",
            "", _WrongReadout, check_readout),
    )
}  # fmt: skip
"""The thirteen mistakes by name: all pass ``check_shapes``, each is found by its own check."""
