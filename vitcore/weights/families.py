# SPDX-License-Identifier: MIT
"""How others name and place what a ViT holds: the names of each family, and its resizing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._inputs import shown
from ..training.files import Weights

Grid = tuple[int, int]

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation
WRAPPERS = r"^(module\.|_orig_mod\.)+"  # what DistributedDataParallel and torch.compile prepend
UNUSED = r"^(mask_token$|pooler\.|decoder_)"  # what served pretraining and no prediction


@dataclass(frozen=True)
class Family:
    """How one source names its tensors, and how it carries positions to another grid."""

    signs: tuple[str, ...]  # regular expressions; each matches some name of every such file
    names: tuple[tuple[str, str], ...]  # regular expressions and what they become, in this order
    resize: Mapping[str, Any]  # how F.interpolate is called; "offset" is added to the new sides
    statistics: tuple[tuple[float, ...], ...] = ((), ())  # where all its weights share them


FAMILIES = {
    "torchvision": Family(
        (r"^encoder\.layers\.encoder_layer_0\.",),
        (
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_", "blocks."),
            (r"\.ln_(\d)\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),  # it already is [q; k; v]
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(linear_1|0)\.", ".mlp.fc1."),
            (r"\.mlp\.(linear_2|3)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
            (r"^heads\.head\.", "head."),
        ),
        {"align_corners": True},
        IMAGENET,
    ),
    "huggingface": Family(
        (r"(^|\.)embeddings\.patch_embeddings\.projection\.",),
        (
            (r"^(vit|deit|dinov2|dinov2_with_registers)\.", ""),
            (r"^embeddings\.position_embeddings$", "pos_embed"),
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.distillation_token$", "dist_token"),
            (r"^embeddings\.register_tokens$", "reg_token"),
            (r"^embeddings\.", ""),
            (r"^(encoder\.)?layers?\.", "blocks."),
            (r"\.attention\.(attention\.)?([qkv])(uery|ey|alue|_proj)\.", r".attn.\2."),
            (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
            (r"^layernorm\.", "norm."),
            (r"^(cls_)?classifier\.", "head."),
            (r"^distillation_classifier\.", "head_dist."),
        ),
        {"align_corners": False},
    ),
    "dinov2": Family(
        (r"^(mask_token|register_tokens)$", r"\.ls1\.gamma$"),
        (
            (r"^register_tokens$", "reg_token"),
            (r"^blocks\.\d+\.(\d+)\.", r"blocks.\1."),  # in chunks, as trained on many devices
        ),
        {"offset": 0.1},
        IMAGENET,
    ),
    "timm": Family(
        (r"^blocks\.0\.attn\.",),
        ((r"\.gamma_(\d)$", r".ls\1.gamma"),),  # as DeiT-3's own files have them
        {"antialias": True},
    ),
}
"""The sources by name; DeiT's own files have timm's names."""


def translate(weights: Weights, what: str) -> tuple[str, list[str]]:
    """Give the tensors our names, in place; return the family and the names left aside."""
    theirs = {re.sub(WRAPPERS, "", name): tensor for name, tensor in weights.items()}

    def fits(family: Family) -> bool:
        return all(any(re.search(sign, name) for name in theirs) for sign in family.signs)

    family = next((name for name, one in FAMILIES.items() if fits(one)), "")
    if not family or len(theirs) != len(weights):
        known = "take one of " + ", ".join(FAMILIES)
        raise ValueError(
            f"{what} is of no known ViT, for it holds {shown(sorted(weights))}; {known}."
        )
    weights.clear()
    unused = []
    for their_name, tensor in theirs.items():
        name = their_name
        for old, new in FAMILIES[family].names:
            name = re.sub(old, new, name)
        if re.match(UNUSED, name):
            unused.append(their_name)
        else:
            weights[name] = tensor.detach().to("cpu", torch.float32, copy=True).contiguous()
    _join(weights)
    return family, sorted(unused)


def _join(weights: Weights) -> None:
    """Make one tensor of those that are one in ours: q, k and v; the two heads of DeiT."""

    def take(*names: str) -> list[Tensor]:
        alike = len({weights[n].shape if n in weights else n for n in names}) == 1
        return [weights.pop(n) for n in names] if alike else []

    for name in [n for n in weights if ".attn.q." in n]:
        if parts := take(*(name.replace(".q.", f".{letter}.") for letter in "qkv")):
            weights[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    if "dist_token" in weights:
        weights["reg_token"] = weights.pop("dist_token")
    # The mean of two linear maps is one linear map of both their inputs.
    if parts := take("head.weight", "head_dist.weight"):
        weights["head.weight"] = torch.cat(parts, dim=-1) / 2
    if parts := take("head.bias", "head_dist.bias"):
        weights["head.bias"] = (parts[0] + parts[1]) / 2


def resize(table: Tensor, prefix: int, old: Grid, new: Grid, family: str) -> Tensor:
    """Carry a table (1, prefix + rows · columns, D) to another grid as its family does."""
    if old == new:
        return table.contiguous()
    how: dict[str, Any] = {"size": new, **FAMILIES[family].resize}
    if family in ("dinov2", "huggingface") and not prefix:  # only DINOv2 with registers
        how = {"size": new, "antialias": True}
    if offset := how.pop("offset", 0):
        how["scale_factor"] = [(n + offset) / o for n, o in zip(how.pop("size"), old, strict=True)]
    picture = table[:, prefix:].unflatten(1, old).permute(0, 3, 1, 2)  # (1, D, rows, columns)
    picture = F.interpolate(picture, mode="bicubic", **how)
    return torch.cat([table[:, :prefix], picture.flatten(2).mT], dim=1)
