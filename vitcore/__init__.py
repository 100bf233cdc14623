# SPDX-License-Identifier: MIT
"""The Vision Transformer in small, tested pieces; every chapter of the book imports them.

Importing this package loads the model core alone (torch and einops). Data, training, plots and
checks are imported by name, for example ``from vitcore import data``.
"""

from importlib.util import find_spec

from .attention import (
    ATTENTIONS,
    POSITIONS,
    Attention,
    register_attention,
    register_positions,
)
from .blocks import Block, DropPath, LayerScale, Mlp
from .embeddings import TokenLayout, resize_positions, sincos_positions_1d, sincos_positions_2d
from .models import MODELS, create_model
from .patches import PATCH_EMBEDS, PatchEmbed, patchify, register_patch_embed, unpatchify
from .vit import ViT, ViTConfig

# Only to be known by name, as ViTConfig(patch_embed="conv_stem"); the core does without.
if find_spec(f"{__name__}.stems"):
    from . import stems as stems
if find_spec(f"{__name__}.attentions"):
    from . import attentions as attentions
if find_spec(f"{__name__}.mlps"):
    from . import mlps as mlps
if find_spec(f"{__name__}.positions"):
    from . import positions as positions
if find_spec(f"{__name__}.tokenisers"):
    from . import tokenisers as tokenisers
if find_spec(f"{__name__}.backbones"):
    from . import backbones as backbones

__version__ = "0.1.0"

__all__ = [
    "ATTENTIONS",
    "MODELS",
    "PATCH_EMBEDS",
    "POSITIONS",
    "Attention",
    "Block",
    "DropPath",
    "LayerScale",
    "Mlp",
    "PatchEmbed",
    "TokenLayout",
    "ViT",
    "ViTConfig",
    "create_model",
    "patchify",
    "register_attention",
    "register_patch_embed",
    "register_positions",
    "resize_positions",
    "sincos_positions_1d",
    "sincos_positions_2d",
    "unpatchify",
]
