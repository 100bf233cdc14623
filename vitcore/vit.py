# SPDX-License-Identifier: MIT
"""The Vision Transformer, assembled from its parts; chapter 5 of the book builds it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ._inputs import (
    check_above_zero,
    check_choice,
    check_flag,
    check_mapping,
    check_names,
    check_number,
    check_options,
    check_positive,
    check_rate,
    check_tokens,
    check_whole,
    shown,
    to_pair,
)
from .attention import ATTENTIONS, Record
from .blocks import NORM_EPS, Block
from .embeddings import TokenLayout, resize_positions, same_grid, sincos_positions_2d
from .patches import PATCH_EMBEDS

CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "image_size": lambda name, v: to_pair(v) if isinstance(v, (tuple, list)) else to_pair(v)[0],
    **dict.fromkeys(("patch_size", "in_channels", "dim", "depth", "heads"), check_positive),
    **dict.fromkeys(("num_classes", "registers"), check_whole),
    **dict.fromkeys(("qkv_bias", "class_token", "class_position"), check_flag),
    **dict.fromkeys(("mlp_ratio", "init_std"), check_above_zero),
    "drop_path": check_rate,
    "layer_scale": lambda name, v: None if v is None else check_number(name, v),
    "pool": partial(check_choice, allowed=("cls", "mean")),
    "pool_norm": partial(check_choice, allowed=("before", "after")),
    "positions": partial(check_choice, allowed=("learned", "sincos", "none")),
    "patch_embed": partial(check_choice, allowed=PATCH_EMBEDS),
    "attention": partial(check_choice, allowed=ATTENTIONS),
    **dict.fromkeys(("patch_embed_options", "attention_options"), check_mapping),
}  # fmt: skip
"""What refuses a value of :class:`ViTConfig`, field by field."""

CAPTURES_ONCE = ("embedding", "features", "pooled")
CAPTURES_PER_LAYER = ("tokens", "attention", "q", "k", "v", "attn_out", "mlp_out")


@dataclass(frozen=True)
class ViTConfig:
    """All that is needed to make a :class:`ViT`; to and from JSON. The defaults are ViT-B/16.

    Attributes:
        image_size, patch_size: H = W, or (H, W), and P, in pixels; images may have other sizes.
        in_channels, num_classes: C; K, or 0 for no head, so that pooled features come out.
        dim, depth, heads: D, the width; L, the number of blocks; h, which divides D.
        mlp_ratio, qkv_bias: the MLP's hidden width / D; whether q, k and v have a bias.
        class_token: whether a learned token stands before the patches, to be read out.
        class_position: whether prefix tokens (class token, registers) have rows in the position
            table too, as in timm; False as in DeiT-3.
        registers: how many further learned tokens stand before the patches (Darcet et al., 2024).
        pool: what the head reads: "cls", the class token, or "mean", the mean of the patches.
        pool_norm: the final norm "before" pooling (``norm``) or "after" it (``fc_norm``).
        positions: "learned", "sincos" (fixed, two-dimensional) or "none".
        drop_path: the rate of the last block; it grows linearly from 0 in the first.
        layer_scale: its initial factor; None leaves it out.
        patch_embed, attention: names in ``PATCH_EMBEDS`` and ``ATTENTIONS``; their ``_options``
            are further arguments by name.
        init_std: standard deviation of the initial weights; narrow models start better from a
            larger one than the usual 0.02 (1 / sqrt(D) keeps the variance of a linear map's input).

    Raises TypeError, ValueError: one sentence on the first value that does not fit.
    """

    image_size: int | tuple[int, int] = 224
    patch_size: int = 16
    in_channels: int = 3
    num_classes: int = 1000
    dim: int = 768
    depth: int = 12
    heads: int = 12
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    class_token: bool = True
    class_position: bool = True
    registers: int = 0
    pool: str = "cls"
    pool_norm: str = "before"
    positions: str = "learned"
    drop_path: float = 0.0
    layer_scale: float | None = None
    patch_embed: str = "linear"
    patch_embed_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    attention: str = "global"
    attention_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    init_std: float = 0.02

    def __post_init__(self) -> None:
        for name, check in CHECKS.items():  # which make Python's numbers of NumPy's
            object.__setattr__(self, name, check(name, getattr(self, name)))
        if self.pool == "cls" and not self.class_token:
            raise ValueError(
                "pool is 'cls', but class_token is False; give pool='mean' or class_token=True."
            )

    @property
    def prefix_tokens(self) -> int:
        """How many tokens stand before the patches."""
        return int(self.class_token) + self.registers

    def to_dict(self) -> dict[str, Any]:
        """Give the configuration as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViTConfig:
        """Make a configuration from plain values; raises TypeError for an unknown name."""
        check_names("a ViT", check_mapping("the configuration", values), FIELDS)
        return cls(**values)  # a list for image_size becomes a tuple there

    def to_json(self) -> str:
        """Give the configuration as JSON; raises TypeError for options that JSON does not know."""
        try:
            return json.dumps(self.to_dict())
        except (TypeError, ValueError) as error:
            raise TypeError(f"an option is not JSON: {error}; give plain values.") from None

    @classmethod
    def from_json(cls, text: str) -> ViTConfig:
        """Read what :meth:`to_json` wrote; raises ValueError for what is not JSON."""
        try:
            values = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"the text is not JSON: {error}; give what to_json wrote.") from None
        return cls.from_dict(values)


FIELDS = tuple(f.name for f in fields(ViTConfig))


class ViT(nn.Module):
    """The Vision Transformer, with timm's parameter names.

    Make it from a configuration, from options, or from both: ``ViT(config)``,
    ``ViT(image_size=32, patch_size=4, ...)``, ``ViT(config, num_classes=10)``. The options are
    the fields of :class:`ViTConfig`.

    Linear maps and the patch projection start from a normal distribution of standard deviation
    ``init_std`` (0.02) truncated at two of them, the head, class and register tokens and positions
    from the same with 0.02, biases at zero, norms at the identity; a module that has a
    ``reset_parameters`` of its own starts as that says. There are no persistent buffers:
    ``state_dict`` holds parameters alone.

    Raises TypeError, ValueError: one sentence on the first option that does not fit.
    Source: Dosovitskiy et al. (2021), equations 1 to 4.
    """

    def __init__(self, config: ViTConfig | None = None, **options: Any) -> None:
        super().__init__()
        check_names("a ViT", options, FIELDS)
        if config is not None and not isinstance(config, ViTConfig):
            raise TypeError(
                f"config is a {type(config).__name__}; give a ViTConfig, options by name, or the "
                "name of a size to create_model."
            )
        self.config = c = replace(config or ViTConfig(), **options)
        make_patches = PATCH_EMBEDS[c.patch_embed]
        sizes = (c.image_size, c.patch_size, c.in_channels, c.dim)
        more = check_options("patch_embed_options", c.patch_embed_options, make_patches, *sizes)
        self.patch_embed = make_patches(*sizes, **more)
        self.grid: tuple[int, int] = self.patch_embed.grid  # type: ignore[assignment]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim)) if c.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, c.registers, c.dim)) if c.registers else None
        self.pos_embed: Tensor | None
        if c.positions == "learned":
            rows = self.grid[0] * self.grid[1] + self._position_prefix()
            self.pos_embed = nn.Parameter(torch.zeros(1, rows, c.dim))
        elif c.positions == "sincos":
            self.register_buffer("pos_embed", self._sincos_table(self.grid), persistent=False)
        else:
            self.pos_embed = None
        rates = [c.drop_path * layer / max(1, c.depth - 1) for layer in range(c.depth)]
        self.blocks = nn.ModuleList(
            Block(
                c.dim, c.heads, c.mlp_ratio, c.qkv_bias, rate, c.layer_scale,
                c.attention, c.attention_options,
            )
            for rate in rates
        )  # fmt: skip
        norm_first = c.pool_norm == "before"
        self.norm = nn.LayerNorm(c.dim, eps=NORM_EPS) if norm_first else nn.Identity()
        self.fc_norm = nn.Identity() if norm_first else nn.LayerNorm(c.dim, eps=NORM_EPS)
        self.head: nn.Module = nn.Linear(c.dim, c.num_classes) if c.num_classes else nn.Identity()
        self.reset_parameters()
        self.register_load_state_dict_post_hook(_restore_sincos)

    def reset_parameters(self) -> None:
        """Set all parameters and tables to their start, as the class says; draws are new."""
        for tensor in (self.cls_token, self.reg_token, self.pos_embed):
            if isinstance(tensor, nn.Parameter):
                _draw(tensor, 0.02)
        _restore_sincos(self)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                # A head of large weights would start with opinions, and a loss above ln K.
                _draw(module.weight, 0.02 if module is self.head else self.config.init_std)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        # The rest knows its own start, from the inside out: a stem that of its convolutions.
        plain = (None, nn.Linear.reset_parameters, nn.Conv2d.reset_parameters)
        for module in reversed(list(self.modules())[1:]):
            if getattr(type(module), "reset_parameters", None) not in plain:
                module.reset_parameters()  # type: ignore[operator]

    def reset_head(self, num_classes: int) -> None:
        """Replace the head by a fresh one for ``num_classes``; 0 leaves it out.

        The head is always drawn anew, also where the number of classes stays the same.
        """
        self.config = c = replace(self.config, num_classes=num_classes)
        weight = next(self.blocks.parameters())
        self.head = nn.Identity()
        if c.num_classes:
            self.head = nn.Linear(c.dim, c.num_classes).to(weight.device, weight.dtype)
            _draw(self.head.weight, 0.02)
            nn.init.zeros_(self.head.bias)

    def _position_prefix(self) -> int:
        """How many rows of the position table stand before those of the patches."""
        return self.config.prefix_tokens if self.config.class_position else 0

    def _sincos_table(self, grid: tuple[int, int]) -> Tensor:
        """Make the fixed table (1, prefix + N, D); prefix tokens have zeros."""
        table = sincos_positions_2d(grid, self.config.dim)
        return torch.cat([table.new_zeros(self._position_prefix(), self.config.dim), table])[None]

    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        """Give the position table for a grid of patches: (1, rows, D), or None without positions.

        A learned table is resized where ``grid`` is not the model's own; sincos is made anew.
        """
        grid = to_pair(grid, "grid")
        if self.pos_embed is None or same_grid(grid, self.grid):
            return self.pos_embed
        if self.config.positions == "sincos":
            return self._sincos_table(grid).to(self.pos_embed)
        return resize_positions(self.pos_embed, self.grid, grid, self._position_prefix())

    def embed(self, images: Tensor) -> tuple[Tensor, TokenLayout]:
        """Turn images (B, C, H, W) into the tokens (B, prefix + N, D) that enter block 0.

        Source: Dosovitskiy et al. (2021), equation 1.
        """
        tokens, grid = self.patch_embed(images)  # (B, N, D)
        positions = self.positions_for(grid)
        prefix = [
            token.expand(tokens.shape[0], -1, -1)
            for token in (self.cls_token, self.reg_token)
            if token is not None
        ]
        if positions is not None and not self.config.class_position:
            tokens = tokens + positions
        tokens = torch.cat([*prefix, tokens], dim=1)  # (B, prefix + N, D)
        if positions is not None and self.config.class_position:
            tokens = tokens + positions
        return tokens, TokenLayout(grid, self.config.prefix_tokens)

    def pool(self, features: Tensor) -> Tensor:
        """Reduce tokens (B, prefix + N, D) to one vector an image, (B, D)."""
        check_tokens("features", features, axes=3)
        if self.config.pool == "cls":
            pooled = features[:, 0]
        else:
            pooled = features[:, self.config.prefix_tokens :].mean(dim=1)
        return self.fc_norm(pooled)

    def forward_features(self, images: Tensor) -> Tensor:
        """Give all tokens (B, prefix + N, D) after the final norm.

        With ``pool_norm="after"`` that norm follows the pooling, and these tokens are as the last
        block left them.
        """
        x, layout = self.embed(images)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K) for images (B, C, H, W); pooled features (B, D) where K is 0.

        Images of another floating-point type are converted to that of the model.
        Raises TypeError, ValueError for images that are not floating point, have the wrong number
        of axes or channels, or do not divide into patches.
        """
        return self.head(self.pool(self.forward_features(images)))

    def forward_with(self, images: Tensor, capture: Iterable[str]) -> tuple[Tensor, dict[str, Any]]:
        """Give the logits together with intermediates, in the graph, without hooks.

        Args:
            images: (B, C, H, W).
            capture: names of what to keep. Once: "embedding" (the tokens that enter block 0) and
                "features" (after the final norm), both (B, prefix + N, D), and "pooled" (B, D).
                Per layer: "tokens" (a block's output), "attn_out" and "mlp_out" (what its branches
                add), (B, prefix + N, D); "q", "k", "v" (B, h, prefix + N, d); "attention"
                (B, h, prefix + N, prefix + N). A per-layer name gives a list over the layers;
                with a layer behind it, as in "attention.3" or "attention.-1", that one tensor.

        Returns the logits and a dict of what was asked for. Attention maps of all layers are large:
        for big batches ask for one layer.
        Raises TypeError if ``capture`` is not a list of strings, ValueError for an unknown name.
        """
        if (
            isinstance(capture, str)
            or hasattr(capture, "ndim")
            or not isinstance(capture, Iterable)
        ):
            raise TypeError(f"capture is {shown(capture)}; give a list of names, ['attention'].")
        wanted = {name: self._parse_capture(name) for name in capture}
        layers: list[Record] = []
        x, layout = self.embed(images)
        once: dict[str, Tensor] = {"embedding": x}
        for index, block in enumerate(self.blocks):
            asked = [base for base, at in wanted.values() if at in (None, index)]
            layers.append({base: None for base in asked if base in CAPTURES_PER_LAYER})
            x = block(x, layout, layers[-1])
        once["features"] = self.norm(x)
        once["pooled"] = self.pool(once["features"])
        captured: dict[str, Any] = {}
        for name, (base, at) in wanted.items():
            if base in once:
                captured[name] = once[base]
            else:
                captured[name] = layers[at][base] if at is not None else [r[base] for r in layers]
        return self.head(once["pooled"]), captured

    def _parse_capture(self, name: str) -> tuple[str, int | None]:
        """Split "attention.3" into its name and layer; raise one clear sentence if unknown."""
        if not isinstance(name, str):
            raise TypeError(f"capture has {shown(name)}; give names, such as 'attention'.")
        base, _, layer = name.partition(".")
        if name in CAPTURES_ONCE or name in CAPTURES_PER_LAYER:
            return name, None
        depth = len(self.blocks)
        known = base in CAPTURES_PER_LAYER and layer.removeprefix("-").isdecimal()
        if known and -depth <= int(layer) < depth:
            return base, int(layer) % depth
        raise ValueError(
            f"capture has {name!r}; give {', '.join(CAPTURES_ONCE)}, or "
            f"{', '.join(CAPTURES_PER_LAYER)}, these also for one layer from 0 to {depth - 1}, "
            "as in 'attention.0'."
        )


def _restore_sincos(model: ViT, _: object = None) -> None:
    """Make the table that no weights hold anew: loading or ``to_empty`` may have left it empty."""
    if isinstance(model.pos_embed, Tensor) and not isinstance(model.pos_embed, nn.Parameter):
        weight = next(model.blocks.parameters())
        model.pos_embed = model._sincos_table(model.grid).to(weight)


def _draw(tensor: Tensor, std: float) -> None:
    """Draw from a normal distribution truncated at two standard deviations."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)


_IMAGENET = ViTConfig(image_size=224, patch_size=16, num_classes=1000, depth=12)

MODELS: dict[str, ViTConfig] = {
    "vit_tiny_patch16_224": replace(_IMAGENET, dim=192, heads=3),
    "vit_small_patch16_224": replace(_IMAGENET, dim=384, heads=6),
    "vit_base_patch16_224": replace(_IMAGENET, dim=768, heads=12),
    "vit_large_patch16_224": replace(_IMAGENET, dim=1024, heads=16, depth=24),
    "vit_mnist": ViTConfig(
        image_size=28, patch_size=7, in_channels=1, num_classes=10, dim=64, depth=4, heads=4,
        mlp_ratio=2.0, class_token=False, pool="mean", init_std=0.08,
    ),
    "vit_cifar": ViTConfig(
        image_size=32, patch_size=4, in_channels=3, num_classes=100, dim=192, depth=9, heads=3,
        mlp_ratio=2.0, class_token=False, pool="mean",
    ),
}  # fmt: skip
"""Named sizes: tiny to large for ImageNet (Dosovitskiy et al., 2021, table 1; Touvron et al.,
2021, table 1) and the small ones that the book trains."""


def create_model(name: str, **options: Any) -> ViT:
    """Make a named model, untrained, with some options changed.

    Raises ValueError if ``name`` is not in ``MODELS``; TypeError, ValueError as :class:`ViT`.
    """
    return ViT(MODELS[check_choice("model", name, MODELS)], **options)
