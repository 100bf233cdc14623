# SPDX-License-Identifier: MIT
"""vitcore.mlps and the norms by name: SwiGLU, RMSNorm and the ViT of today, against timm."""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import pytest
import torch
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit
from torch import nn

from vitbook.torchvision import import_torchvision
from vitcore.attention import NORMS
from vitcore.blocks import MLPS
from vitcore.mlps import SwiGLU


def timm_module(name: str) -> Any:
    import_torchvision()  # before timm, which imports it
    return pytest.importorskip(name, reason="timm is a development dependency")


def test_swiglu_is_that_of_timm():
    ours = randomise(SwiGLU(12, 20))
    theirs = timm_module("timm.layers").SwiGLU(12, 20)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 12)
    assert (ours(x) - theirs(x)).abs().max() < 1e-5
    assert ours(x).std() > 0.1


def test_two_thirds_of_the_width_are_the_same_arithmetic():
    plain = sum(p.numel() for p in MLPS["mlp"](96, 192).parameters() if p.ndim == 2)
    gated = sum(p.numel() for p in MLPS["swiglu"](96, 128).parameters() if p.ndim == 2)
    assert gated == plain


def test_rmsnorm_is_that_of_timm():
    theirs, ours = timm_module("timm.layers").RmsNorm(12), randomise(NORMS["rmsnorm"](12))
    theirs.load_state_dict(ours.state_dict())
    x = 1e-2 * torch.randn(2, 5, 12)  # small, so that epsilon counts
    assert (ours(x) - theirs(x)).abs().max() < 1e-5
    by_hand = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * ours.weight
    torch.testing.assert_close(ours(x), by_hand)


@pytest.mark.parametrize("qk_norm", [None, "rmsnorm"])
@pytest.mark.parametrize("registers", [0, 2])
def test_a_vit_of_today_is_that_of_timm(qk_norm, registers):
    """RMSNorm, normalised queries and keys, registers, LayerScale, no bias in q, k, v, SwiGLU."""
    timm_module("timm")
    from timm.layers import RmsNorm
    from timm.layers import SwiGLU as Gated
    from timm.models.vision_transformer import VisionTransformer

    ours = randomise(
        small_vit(
            norm_layer="rmsnorm", mlp_layer="swiglu", qkv_bias=False, layer_scale=1e-4,
            registers=registers, attention_options={"qk_norm": qk_norm},
        )
    )  # fmt: skip
    theirs = VisionTransformer(
        img_size=(12, 16), patch_size=4, num_classes=5, embed_dim=24, depth=2, num_heads=3,
        norm_layer=RmsNorm, mlp_layer=Gated, act_layer=nn.SiLU, qkv_bias=False,
        init_values=1e-4,
        reg_tokens=registers, qk_norm=qk_norm is not None,
    )  # fmt: skip
    theirs.load_state_dict(ours.state_dict())
    images = small_images()
    with torch.no_grad():
        logits = ours(images)
        assert (logits - theirs.eval()(images)).abs().max() < 1e-5
    assert logits.std() > 0.01
    assert {type(m) for m in ours.modules() if "Norm" in type(m).__name__} == {nn.RMSNorm}


def test_bad_names_and_sizes_are_refused():
    says_in_one_sentence(ValueError, lambda: small_vit(norm_layer="rms"), "'rms'", "'rmsnorm'")
    says_in_one_sentence(ValueError, lambda: small_vit(mlp_layer="glu"), "'glu'", "'swiglu'")
    says_in_one_sentence(ValueError, lambda: SwiGLU(8, 0), "hidden_dim is 0")
    says_in_one_sentence(ValueError, lambda: SwiGLU(8, 4)(torch.randn(2, 7)), "(..., 8)")
