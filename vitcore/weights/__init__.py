# SPDX-License-Identifier: MIT
"""Weights of timm, torchvision, Hugging Face, DeiT and DINOv2, put into a ViT (chapter 11)."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._inputs import check_flag, check_positive, shown, to_pair
from ..blocks import NORM_EPS
from ..data.pixels import check_statistics
from ..patches import patch_grid
from ..training import LoadedModel, resolve_device
from ..training.files import Weights
from ..vit import ViT, ViTConfig
from .families import FAMILIES, resize, translate
from .sources import read, read_config

HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}  # of the published widths, tiny to huge
STATS = ("mean", "std")


class PairedViT(ViT):
    """A ViT whose head reads two vectors an image, (B, 2D): one beside the class token.

    That is the distillation token, the first register (DeiT; Touvron et al., 2021, section 4), or
    the mean of the patches (the classifiers of DINOv2; Oquab et al., 2024). A head on D numbers,
    such as ``reset_head`` makes, reads the class token alone, and what is then saved is a ViT.
    """

    def __init__(
        self, config: ViTConfig | None = None, second: str = "mean", **options: Any
    ) -> None:
        super().__init__(config, **options)
        self.second = second  # "mean" or "distillation"
        self.head = nn.Linear(2 * self.config.dim, self.config.num_classes)
        self.reset_parameters()

    def pool(self, features: Tensor) -> Tensor:
        """Reduce tokens (B, prefix + N, D) to what the head reads, (B, 2D) or (B, D)."""
        first = super().pool(features)
        if getattr(self.head, "in_features", None) != 2 * self.config.dim:
            return first
        patches = features[:, self.config.prefix_tokens :]
        second = patches.mean(dim=1) if self.second == "mean" else features[:, 1]
        return torch.cat([first, second], dim=1)


def load_pretrained(
    source: Any,
    *,
    config: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    heads: int | None = None,
    pool: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    unpickle: bool = False,
    sha256: str | None = None,
    device: str | torch.device = "cpu",
) -> LoadedModel:
    """Load somebody else's trained Vision Transformer into a ViT that gives the same logits.

    source: a file or a folder (model.safetensors with its config.json), an https address, "timm:"
        and a name where timm is installed, a member of torchvision's enums of weights, or a model
        of timm, torchvision or transformers, which is then compared on an image of noise.
    config: the source's config.json, or what it holds, where it does not lie in the folder.
    image_size: H = W in pixels, or (H, W): the positions are resized to it once, as the source
        does, so that the logits are the source's there too. Without it they have the size that
        they were trained at, and the model resizes them as timm does.
    heads, pool: see ViTConfig; where neither the tensors nor config tell them.
    classes, mean, std: names and normalisation, where the source lacks them. Unknown ones are
        "0", "1", … and (), which ``normalise`` refuses, because a guess costs accuracy unseen.
    unpickle: open a .pth or .bin, by ``torch.load(weights_only=True)`` alone.
    sha256: of a download, all or the first 8 digits or more; else those in the file's name, as in
        vit_b_16-c867db91.pth. A file that was fetched before is taken from the cache.

    The weights become float32. The metadata says the family and which tensors were left aside.
    LayerNorm's epsilon is the source's; saved and loaded again it is 1e-6.

    Raises FileNotFoundError, OSError for what cannot be read or fetched, RuntimeError without timm,
    ValueError for a file that does not fit, with what is missing and what is left over.
    """
    check_flag("unpickle", unpickle)
    weights, facts, name = read(source, unpickle, sha256)
    given = {"heads": heads, "pool": pool, "classes": classes, "mean": mean, "std": std}
    facts |= read_config(config) | {key: value for key, value in given.items() if value is not None}
    family, unused = translate(weights, name)
    facts |= {"family": family, "name": name}
    if isinstance(source, nn.Module):
        _compare(_build(weights.copy(), facts, None), source, name)
    model = _build(weights, facts, image_size)
    c, known = model.config, {"family": family, "source": name, "unused": unused}
    mean, std = (facts.get(key) or FAMILIES[family].statistics[i] for i, key in enumerate(STATS))
    if len(mean) + len(std):
        mean, std = check_statistics(mean, std, c.in_channels)
    names = list(facts.get("classes", map(str, range(c.num_classes))))
    if len(names) != c.num_classes:
        wrong = f"{name} has {c.num_classes} classes, but {len(names)} names are given"
        raise ValueError(f"{wrong}; give one for each class.")
    return LoadedModel(model.to(resolve_device(device)), c, names, tuple(mean), tuple(std), known)


@torch.no_grad()
def _compare(model: ViT, source: nn.Module, name: str) -> None:
    """Refuse a source whose answer to two images of noise is not that of ``model``."""
    like, c = next(source.parameters()), model.config
    if like.dtype != torch.float32:
        return  # its own rounding is larger than what is looked for
    noise = torch.randn(2, c.in_channels, *to_pair(c.image_size),
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    modes = [(module, module.training) for module in source.modules()]
    try:
        given = source.eval()(noise.to(like.device))
    finally:
        for module, training in modes:
            module.training = training
    logits = given if isinstance(given, Tensor) else getattr(given, "logits", None)
    theirs = (given.last_hidden_state if logits is None else logits).cpu()
    ours = model.forward_features(noise) if logits is None else model(noise)
    same = ours.shape == theirs.shape
    far = (ours - theirs).abs().max().item() / max(1.0, theirs.abs().max().item()) if same else 1.0
    if not far < 1e-4:
        wrong = f"{name} answers otherwise than a ViT of its weights, by {far:.2g}"
        raise ValueError(f"{wrong}; it has a part that vitcore's ViT lacks, or another pool.")


def _sizes(weights: Weights, name: str, axes: int, source: str) -> tuple[int, ...]:
    """The shape of a tensor that every ViT has."""
    shape = tuple(weights[name].shape) if name in weights else None
    if shape is None or len(shape) != axes or 0 in shape:
        wrong = f"{source} is no whole ViT, for {name} is {shape or 'missing'}"
        raise ValueError(f"{wrong}; it holds {shown(sorted(weights))}.")
    return shape


def _build(weights: Weights, facts: Mapping[str, Any], image_size: Any) -> ViT:
    """Make the model of tensors that have our names; each has its place, or none is taken."""
    fields = _configure(weights, facts)
    fields |= _place(weights, facts, fields, image_size)
    with torch.device("meta"):
        model = ViT(ViTConfig.from_dict(fields))
        if fields["num_classes"] and weights["head.weight"].shape[1] == 2 * fields["dim"]:
            second = "distillation" if model.config.registers == 1 else "mean"
            model = PairedViT(model.config, second)
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = {
        "missing": wanted.keys() - given.keys(),
        "left over": given.keys() - wanted.keys(),
        "of another shape": {n for n in wanted.keys() & given if wanted[n] != given[n]},
    }
    if any(wrong.values()):
        lists = [f"{len(n)} {kind}: {shown(sorted(n))}" for kind, n in wrong.items() if n]
        raise ValueError(f"{facts['name']} is not the ViT that it seems; {'; '.join(lists)}.")
    model.load_state_dict(weights, assign=True)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = facts.get("eps", NORM_EPS)
    return model.eval()


def _configure(weights: Weights, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Read the fields of a configuration off the tensors, but for the images and positions."""
    name = facts["name"]
    if gated := [n for n in weights if re.search(r"\.mlp\.(w12|weights_in|fc1_g)\.", n)]:
        wrong = f"{name} has a gated MLP (SwiGLU, {gated[0]}), which vitcore's ViT has not"
        raise ValueError(f"{wrong}; take a smaller model of the family.")
    dim, channels, patch, _ = _sizes(weights, "patch_embed.proj.weight", 4, name)
    hidden, _ = _sizes(weights, "blocks.0.mlp.fc1.weight", 2, name)
    heads = facts.get("heads") or HEADS.get(dim)
    if heads is None:
        raise ValueError(f"{name} is {dim} wide, and no tensor tells the heads; give heads.")
    if facts.get("eps", NORM_EPS) > NORM_EPS:
        wrong = f"the norms of {name} add {facts['eps']} to the variance"
        raise ValueError(f"{wrong}; give weights trained with {NORM_EPS} or less.")
    token, after = "cls_token" in weights, "fc_norm.weight" in weights
    registers, head = "reg_token" in weights, "head.weight" in weights
    return {
        "patch_size": patch,
        "in_channels": channels,
        "num_classes": _sizes(weights, "head.weight", 2, name)[0] if head else 0,
        "dim": dim,
        "depth": len({n.split(".")[1] for n in weights if n.startswith("blocks.")}),
        "heads": check_positive("heads", heads),
        # ViT takes the whole part of the product, which half a channel more leaves right.
        "mlp_ratio": hidden / dim if int(dim * (hidden / dim)) == hidden else (hidden + 0.5) / dim,
        "qkv_bias": "blocks.0.attn.qkv.bias" in weights,
        "class_token": token,
        "registers": _sizes(weights, "reg_token", 3, name)[1] if registers else 0,
        "pool": facts.get("pool") or ("cls" if token and not after else "mean"),
        "pool_norm": "after" if after else "before",
        "layer_scale": 1e-5 if "blocks.0.ls1.gamma" in weights else None,
    }


def _place(
    weights: Weights, facts: Mapping[str, Any], fields: Mapping[str, Any], image_size: Any
) -> dict[str, Any]:
    """Say which tokens have positions, and for which images; resize the table where asked to."""
    patch, prefix = fields["patch_size"], int(fields["class_token"]) + fields["registers"]
    told = facts.get("image_size")
    if "pos_embed" not in weights:
        return {"positions": "none", "image_size": to_pair(image_size or told or 14 * patch)}
    rows = _sizes(weights, "pos_embed", 3, facts["name"])[1]
    # Rows for all tokens before the patches, for none, or for the class token alone, as in DINOv2.
    owners = [prefix, 0, *([1] if fields["class_token"] else [])]
    tried = [(own, patch_grid(told, patch)) for own in owners] if told else []
    tried += [(own, (math.isqrt(max(0, rows - own)),) * 2) for own in owners]
    fits = [(own, grid) for own, grid in tried if grid[0] * grid[1] == rows - own > 0]
    if not fits:
        wrong = f"{facts['name']} has {rows} positions, which are no square of patches"
        raise ValueError(f"{wrong}; give config={{'image_size': [H, W]}}, as it was trained.")
    own, grid = fits[0]
    table = weights["pos_embed"]
    if own not in (0, prefix):
        weights["cls_token"] = weights["cls_token"] + table[:, :1]
        own, table = 0, table[:, 1:]
    size = to_pair(image_size or (grid[0] * patch, grid[1] * patch))
    weights["pos_embed"] = resize(table, own, grid, patch_grid(size, patch), facts["family"])
    return {"image_size": size, "class_position": own == prefix}
