# SPDX-License-Identifier: MIT
"""The book's comparison of variants (chapters 9 and 10), known to vitcore once imported.

Each recipe is the base with one thing changed, on a fifth of CIFAR-100's training images, and with
as many epochs as the arithmetic of the base allows it: a variant that takes more for an image sees
fewer. All runs: `python -m benchmarks.ladder --plan variants`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vitbook.ladders import BUILDS_ON
from vitcore.recipes import RECIPES, Recipe
from vitcore.training import TrainConfig
from vitcore.vit import ViTConfig

__all__ = ["GPU_VARIANTS", "VARIANTS", "VARIANT_CHANGES"]

_TODAY: dict[str, Any] = {"norm_layer": "rmsnorm", "qkv_bias": False, "layer_scale": 1e-4}
_QK_NORM: dict[str, Any] = {"attention_options": {"qk_norm": "rmsnorm"}}


def _attention(name: str, **options: Any) -> dict[str, Any]:
    return {"attention": name, "attention_options": options}


def _patches(name: str, **options: Any) -> dict[str, Any]:
    return {"patch_embed": name, "patch_embed_options": options}


VARIANT_CHANGES: dict[str, dict[str, Any]] = {
    "base": {},
    # Attention.
    "temperature": _attention("locality", mask_diagonal=False),
    "locality": _attention("locality"),
    "hybrid": _attention("hybrid", window=3, local_share=0.5),
    "alternate": _attention("hybrid", window=3, local_share=[1.0, 0.0]),
    "local": _attention("hybrid", window=3, local_share=1.0),
    "enhanced": _attention("locally_enhanced"),
    # Positions.
    "none": {"positions": "none"},
    "sincos": {"positions": "sincos"},
    "relative": {"positions": "relative"},
    "rotary": {"positions": "rotary"},
    "both": {"positions": "learned+rotary"},
    # Tokens, norms and MLPs.
    "class": {"class_token": True, "pool": "cls"},
    "registers": {"registers": 4},
    "rms": {"norm_layer": "rmsnorm"},
    "qknorm": _QK_NORM,
    "nobias": {"qkv_bias": False},
    "scale": {"layer_scale": 1e-4},
    "swiglu": {"mlp_layer": "swiglu", "mlp_ratio": 4 / 3},
    "today": {**_TODAY, **_QK_NORM, "positions": "learned+rotary", "registers": 4},
    # Patches.
    "stem": _patches("conv_stem"),
    "overlapping": _patches("overlapping"),
    "shifted": _patches("shifted"),
    "flexible": _patches("flexible", patch_sizes=[4, 8]),
    "hierarchical": _patches("hierarchical"),
}
"""What each variant changes in the configuration of the base, by its name."""


# What takes more arithmetic for an image sees fewer of them: epochs here and at a GPU's size.
_EPOCHS = {
    "class": (20, 49),
    "registers": (19, 47),
    "today": (19, 47),
    "stem": (13, 40),
    "overlapping": (19, 50),
    "shifted": (19, 49),
    "hierarchical": (12, 40),
}


def _variants(
    prefix: str, model: Mapping[str, Any], images: tuple[int, int, int] | None, **train: Any
) -> tuple[str, ...]:
    """Register the base at one size and each of its variants, and give their names."""
    common: dict[str, Any] = {"image_size": 32, "patch_size": 4, "num_classes": 100}
    common |= {"mlp_ratio": 2.0, "class_token": False, "pool": "mean"}
    epochs = train["epochs"]
    base = Recipe(
        name=f"{prefix}-base",
        dataset="cifar100",
        model=ViTConfig(**{**common, **model}),
        train=TrainConfig(warmup_epochs=epochs / 8, min_lr=1e-5, **train),
        augment="cifar",
        augment_options={"flip": True, "padding": 4},
        images=images,
        note="learned positions, global attention, linear patches, the mean of the tokens",
    )
    for name, changes in VARIANT_CHANGES.items():
        recipe = dataclasses.replace(
            base, name=f"{prefix}-{name}", model=dataclasses.replace(base.model, **changes)
        )
        if changes:
            BUILDS_ON[recipe.name] = base.name
            length = _EPOCHS.get(name, (epochs, epochs))[images is None]
            note = f"the base with {', '.join(changes)} changed, at the same arithmetic"
            recipe = dataclasses.replace(
                recipe.with_train(epochs=length, warmup_epochs=length / 8), note=note
            )
        RECIPES[recipe.name] = recipe
    return tuple(f"{prefix}-{name}" for name in VARIANT_CHANGES)


VARIANTS = _variants(
    "cifar100-variants", {"dim": 64, "depth": 4, "heads": 4}, (10_000, 5_000, 10_000),
    epochs=20, lr=2e-3, batch_size=64,
)  # fmt: skip
"""Names of the recipes, the base first."""
GPU_VARIANTS = _variants(
    "cifar100-gpu-variants", {"dim": 192, "depth": 9, "heads": 6}, None,
    epochs=50, lr=1e-3, batch_size=256,
)  # fmt: skip
"""Names of the same at the size of a GPU, on all images."""
