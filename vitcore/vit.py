# SPDX-License-Identifier: MIT
"""The Vision Transformer, assembled from its parts; chapter 5 of the book builds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import _inputs as inputs
from ._inputs import to_pair
from .attention import ATTENTIONS, NORMS, POSITIONS, Attention, Record
from .blocks import MLPS, Block
from .embeddings import TokenLayout, resize_positions, sincos_positions_2d
from .patches import PATCH_EMBEDS


def _check_positions(name: str, value: Any) -> str:
    beside = [f"{table}+{inside}" for table in ("learned", "sincos") for inside in POSITIONS]
    return inputs.check_choice(name, value, ("learned", "sincos", "none", *POSITIONS, *beside))


CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "image_size": lambda name, v: to_pair(v) if isinstance(v, (tuple, list)) else to_pair(v)[0],
    **dict.fromkeys(("patch_size", "in_channels", "dim", "depth", "heads"), inputs.check_positive),
    **dict.fromkeys(("num_classes", "registers"), inputs.check_whole),
    **dict.fromkeys(("qkv_bias", "class_token", "class_position"), inputs.check_flag),
    **dict.fromkeys(("mlp_ratio", "init_std"), inputs.check_above_zero),
    "drop_path": inputs.check_rate,
    "layer_scale": lambda name, value: None if value is None else inputs.check_number(name, value),
    "pool": partial(inputs.check_choice, allowed=("cls", "mean")),
    "pool_norm": partial(inputs.check_choice, allowed=("before", "after")),
    "positions": _check_positions,
    "norm_layer": partial(inputs.check_choice, allowed=NORMS),
    "mlp_layer": partial(inputs.check_choice, allowed=MLPS),
    "patch_embed": partial(inputs.check_choice, allowed=PATCH_EMBEDS),
    "attention": partial(inputs.check_choice, allowed=ATTENTIONS),
    **{f"{of}_options": inputs.check_mapping for of in ("patch_embed", "attention", "position")},
}
"""What refuses a value of :class:`ViTConfig`, field by field."""

CAPTURES_ONCE = ("embedding", "features", "pooled")
CAPTURES_PER_LAYER = ("tokens", "attention", "q", "k", "v", "attn_out", "mlp_out")


@dataclass(frozen=True)
class ViTConfig:
    """All that is needed to make a :class:`ViT`; its values are plain. The defaults are ViT-B/16.

    Raises TypeError, ValueError: one sentence on the first value that does not fit.
    """

    image_size: int | tuple[int, int] = 224  # H = W in pixels, or (H, W); images may differ
    patch_size: int = 16  # P, in pixels
    in_channels: int = 3  # C, the channels of an image
    num_classes: int = 1000  # K; 0 leaves the head out: the model gives pooled features
    dim: int = 768  # D, the width
    depth: int = 12  # L, the number of blocks
    heads: int = 12  # h, which divides D
    mlp_ratio: float = 4.0  # the MLP's hidden width as a multiple of D
    qkv_bias: bool = True  # whether queries, keys and values have a bias
    class_token: bool = True  # whether a learned token stands before the patches, to be read out
    # Whether class token and registers have positions too, as in timm; False as in DeiT-3.
    class_position: bool = True
    registers: int = 0  # further learned tokens before the patches (Darcet et al., 2024)
    pool: str = "cls"  # what the head reads: "cls", the class token, or "mean" of the patches
    pool_norm: str = "before"  # the final norm "before" pooling (norm) or "after" it (fc_norm)
    # Or "sincos" (fixed, two-dimensional), "none", a name in POSITIONS, or both: "learned+rotary".
    positions: str = "learned"
    position_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    norm_layer: str = "layernorm"  # a name in NORMS
    mlp_layer: str = "mlp"  # a name in MLPS
    drop_path: float = 0.0  # the rate of the last block; it grows linearly from 0 in the first
    layer_scale: float | None = None  # its initial factor; None leaves it out
    patch_embed: str = "linear"  # a name in PATCH_EMBEDS
    patch_embed_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    attention: str = "global"  # a name in ATTENTIONS; an option in a list goes from layer to layer
    attention_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    # Of the initial weights; narrow models start better from a larger one than the usual 0.02
    # (1 / sqrt(D) keeps the variance of a linear map's input).
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

    @property
    def position_prefix(self) -> int:
        """How many rows of the position table stand before those of the patches."""
        return self.prefix_tokens if self.class_position else 0

    def to_dict(self) -> dict[str, Any]:
        """Give the configuration as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViTConfig:
        """Make a configuration from plain values; raises TypeError for an unknown name."""
        return cls(**inputs.check_options("the configuration", values, cls))


class ViT(nn.Module):
    """The Vision Transformer, with timm's parameter names.

    Make it from a configuration, from its fields as options, or from both: ``ViT(config)``,
    ``ViT(image_size=32, patch_size=4, ...)``, ``ViT(config, num_classes=10)``.

    Linear maps and the patch projection start from a normal distribution of standard deviation
    ``init_std`` truncated at two of them, the head, class and register tokens and positions from
    the same with 0.02, biases at zero, norms at the identity; a module with ``reset_parameters``
    of its own as that says. There are no persistent buffers: weights are parameters alone.

    Raises TypeError, ValueError: one sentence on the first option that does not fit.
    Source: Dosovitskiy et al. (2021), equations 1 to 4.
    """

    def __init__(self, config: ViTConfig | None = None, **options: Any) -> None:
        super().__init__()
        config = ViTConfig() if config is None else config
        inputs.check("config", config, ViTConfig, "a ViTConfig, or a name to create_model")
        inputs.check_options("a ViT's configuration", options, ViTConfig)
        self.config = c = replace(config, **options)
        make_patches = PATCH_EMBEDS[c.patch_embed]
        given = (make_patches, c.image_size, c.patch_size, c.in_channels, c.dim)
        more = inputs.check_options("patch_embed_options", c.patch_embed_options, *given)
        self.patch_embed = make_patches(*given[1:], **more)
        self.grid: tuple[int, int] = self.patch_embed.grid  # type: ignore[assignment]
        self.cls_token = nn.Parameter(torch.zeros(1, 1, c.dim)) if c.class_token else None
        self.reg_token = nn.Parameter(torch.zeros(1, c.registers, c.dim)) if c.registers else None
        rows = self.grid[0] * self.grid[1] + c.position_prefix
        learned = "learned" in c.positions
        self.pos_embed = nn.Parameter(torch.zeros(1, rows, c.dim)) if learned else None
        if "sincos" in c.positions:
            sincos_positions_2d((1, 1), c.dim)  # refuses a width that it does not divide
        rates = [c.drop_path * layer / max(1, c.depth - 1) for layer in range(c.depth)]
        names = ("dim", "heads", "mlp_ratio", "qkv_bias", "layer_scale", "attention")
        parts = {name: getattr(c, name) for name in (*names, "norm_layer", "mlp_layer")}
        self.blocks = nn.ModuleList(
            Block(**parts, drop_path=rate, attention_options=_dealt(c.attention_options, layer))
            for layer, rate in enumerate(rates)
        )
        self._place(c.positions.split("+")[-1])
        norm_first, norm = c.pool_norm == "before", NORMS[c.norm_layer](c.dim)
        self.norm = norm if norm_first else nn.Identity()
        self.fc_norm = nn.Identity() if norm_first else norm
        self.head: nn.Module = nn.Linear(c.dim, c.num_classes) if c.num_classes else nn.Identity()
        self.reset_parameters()

    def _place(self, name: str) -> None:
        """Give each layer its part of the positions, if they are of those inside attention."""
        c = self.config
        if name not in POSITIONS:
            if c.position_options:
                raise ValueError(f"positions {name!r} have no options; leave position_options out.")
            return
        given = (POSITIONS[name], c.heads, c.dim // c.heads, self.grid)
        more = inputs.check_options("position_options", c.position_options, *given)
        for block in self.blocks:
            if not isinstance(block.attn, Attention):
                kind = type(block.attn).__name__
                raise ValueError(f"{kind} is no Attention; give it positions='learned', or derive.")
            block.attn.rel_pos = given[0](*given[1:], **more)

    def reset_parameters(self) -> None:
        """Set all parameters to their start, as the class says; draws are new."""
        for tensor in (self.cls_token, self.reg_token, self.pos_embed):
            if tensor is not None:
                _draw(tensor, 0.02)
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

    def positions_for(self, grid: tuple[int, int]) -> Tensor | None:
        """Give the table (1, rows, D) for a grid: resized, or sines between their old places.

        Sines are made anew for every pass, so that no weights, device or type has to keep them.
        """
        if "sincos" in self.config.positions:
            table = sincos_positions_2d(grid, self.config.dim, self.grid)
            weight = next(self.parameters())
            return F.pad(table, (0, 0, self.config.position_prefix, 0))[None].to(weight)
        if self.pos_embed is None:
            return None
        return resize_positions(self.pos_embed, self.grid, grid, self.config.position_prefix)

    def embed(self, images: Tensor) -> tuple[Tensor, TokenLayout]:
        """Turn images (B, C, H, W) into the tokens (B, prefix + N, D) of the paper's equation 1."""
        tokens, grid = self.patch_embed(images)  # (B, N, D)
        positions = self.positions_for(grid)
        learned = [token for token in (self.cls_token, self.reg_token) if token is not None]
        prefix = [token.expand(tokens.shape[0], -1, -1) for token in learned]
        if positions is not None and not self.config.class_position:
            tokens = tokens + positions
        tokens = torch.cat([*prefix, tokens], dim=1)  # (B, prefix + N, D)
        if positions is not None and self.config.class_position:
            tokens = tokens + positions
        return tokens, TokenLayout(grid, self.config.prefix_tokens)

    def pool(self, features: Tensor) -> Tensor:
        """Reduce tokens (B, prefix + N, D) to one vector an image, (B, D)."""
        inputs.check_tensor("features", features, "B, N, D")
        if self.config.pool == "cls":
            return self.fc_norm(features[:, 0])
        return self.fc_norm(features[:, self.config.prefix_tokens :].mean(dim=1))

    def forward_features(self, images: Tensor) -> Tensor:
        """Give all tokens (B, prefix + N, D) after the final norm, if that is before pooling."""
        x, layout = self.embed(images)
        for block in self.blocks:
            x = block(x, layout)
        return self.norm(x)

    def forward(self, images: Tensor) -> Tensor:
        """Give logits (B, K) for images (B, C, H, W); pooled features (B, D) where K is 0.

        Images of another floating-point type are converted to that of the model. Raises TypeError,
        ValueError for other types, axes or channels, and for sizes that no patches divide.
        """
        return self.head(self.pool(self.forward_features(images)))

    def forward_with(self, images: Tensor, capture: Iterable[str]) -> tuple[Tensor, dict[str, Any]]:
        """Give the logits together with intermediates, in the graph, without hooks.

        Names to ``capture``, once: "embedding" (the tokens that enter block 0), "features" (after
        the final norm), both (B, prefix + N, D), and "pooled" (B, D). Per layer: "tokens" (a
        block's output), "attn_out", "mlp_out" (what its branches add), (B, prefix + N, D); "q",
        "k", "v" (B, h, prefix + N, d); "attention" (B, h, prefix + N, prefix + N), large for big
        batches. A per-layer name gives a list over the layers; with a layer behind it, as in
        "attention.3" or "attention.-1", that one tensor.

        Raises TypeError if ``capture`` is not a list of strings, ValueError for an unknown name.
        """
        wanted = self._parse_captures(capture)
        needed = {key for keys in wanted.values() for key in keys}
        x, layout = self.embed(images)
        seen: dict[str, Any] = {"embedding": x}  # and "attention.0", … of those that are wanted
        for layer, block in enumerate(self.blocks):
            asked = [name for name in CAPTURES_PER_LAYER if f"{name}.{layer}" in needed]
            record: Record = dict.fromkeys(asked)
            x = block(x, layout, record)
            seen |= {f"{name}.{layer}": tensor for name, tensor in record.items()}
        seen["features"] = self.norm(x)
        seen["pooled"] = self.pool(seen["features"])
        return self.head(seen["pooled"]), {
            name: [seen[key] for key in keys] if name in CAPTURES_PER_LAYER else seen[keys[0]]
            for name, keys in wanted.items()
        }

    def _parse_captures(self, capture: Iterable[str]) -> dict[str, list[str]]:
        """Give the tensors behind each name, as in {"q": ["q.0", "q.1"]}; refuse what is none."""
        if not isinstance(capture, (list, tuple)) or not all(isinstance(n, str) for n in capture):
            given = inputs.shown(capture)
            raise TypeError(f"capture is {given}; give a list of names, such as ['attention'].")
        depth = len(self.blocks)
        known = {name: [name] for name in CAPTURES_ONCE}
        for name in CAPTURES_PER_LAYER:
            known[name] = [f"{name}.{layer}" for layer in range(depth)]
            known |= {f"{name}.{at}": [f"{name}.{at % depth}"] for at in range(-depth, depth)}
        if odd := [name for name in capture if name not in known]:
            raise ValueError(
                f"capture has {odd[0]!r}; give {', '.join(CAPTURES_ONCE)}, or for a layer from 0 "
                f"to {depth - 1} or all, as in 'q.0' and 'q', {', '.join(CAPTURES_PER_LAYER)}."
            )
        return {name: known[name] for name in capture}


def _dealt(options: Mapping[str, Any], layer: int) -> dict[str, Any]:
    """Give the options of one layer: those in a list are dealt out in turn."""
    lists = {name: v for name, v in options.items() if isinstance(v, (list, tuple)) and v}
    return {**options, **{name: v[layer % len(v)] for name, v in lists.items()}}


def _draw(tensor: Tensor, std: float) -> None:
    """Draw from a normal distribution truncated at two standard deviations."""
    nn.init.trunc_normal_(tensor, std=std, a=-2 * std, b=2 * std)
