# SPDX-License-Identifier: MIT
"""The model is the published one: same weights, same logits as timm's and torchvision's ViT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_helpers import largest_difference, randomise
from torch import Tensor, nn

from vitbook.torchvision import import_torchvision
from vitcore import Block, ViT, create_model
from vitcore.weights import families

import_torchvision()  # before timm, which imports it
timm = pytest.importorskip("timm", reason="timm is a development dependency")

TOLERANCE = 1e-5


def drawn(make: Callable[[], nn.Module]) -> nn.Module:
    """Make a large model without drawing its weights twice."""
    with torch.device("meta"):
        model = make()
    return randomise(model.to_empty(device="cpu")).eval()


def with_weights(name: str, weights: dict[str, Tensor]) -> ViT:
    with torch.device("meta"):
        model = create_model(name)
    model.load_state_dict(weights, strict=True, assign=True)
    return model.eval()


def images(count: int, size: tuple[int, int] = (224, 224), channels: int = 3) -> Tensor:
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(5))


def agree(ours: ViT, theirs: Any, x: Tensor) -> None:
    with torch.no_grad():
        features = ours.forward_features(x)
        assert largest_difference(features, theirs.forward_features(x)) < TOLERANCE
        logits = ours(x)
        assert largest_difference(logits, theirs(x)) < TOLERANCE
    assert logits.std(dim=0).mean() > 0.01, "the logits hardly depend on the images"


@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_timm(size: str) -> None:
    name = f"vit_{size}_patch16_224"
    theirs = drawn(lambda: timm.create_model(name, pretrained=False))
    agree(with_weights(name, theirs.state_dict()), theirs, images(2))  # no renames


# small versions of timm's model with the parts that other published weights have
SMALL: dict[str, Any] = {
    "img_size": 32, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 3, "num_classes": 7
}  # fmt: skip
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({}, {}),
    "mean of the patches, norm after": (
        {"class_token": False, "global_pool": "avg"},
        {"class_token": False, "pool": "mean", "pool_norm": "after"},
    ),
    "mean of the patches beside a class token, as MAE fine-tunes": (
        {"global_pool": "avg"}, {"pool": "mean", "pool_norm": "after"},
    ),
    "mean of the patches, norm before": (
        {"global_pool": "avg", "fc_norm": False}, {"pool": "mean"},
    ),
    "norm after the class token": ({"fc_norm": True}, {"pool_norm": "after"}),
    "registers": ({"reg_tokens": 4}, {"registers": 4}),
    "registers and mean": (
        {"reg_tokens": 4, "global_pool": "avg"},
        {"registers": 4, "pool": "mean", "pool_norm": "after"},
    ),
    "registers without class token": (
        {"reg_tokens": 2, "class_token": False, "global_pool": "avg", "fc_norm": False},
        {"registers": 2, "class_token": False, "pool": "mean"},
    ),
    "no position for the class token, as DeiT-3": (
        {"no_embed_class": True, "init_values": 1e-6},
        {"class_position": False, "layer_scale": 1e-6},
    ),
    "registers without positions, as DINOv2's": (
        {"no_embed_class": True, "reg_tokens": 4, "init_values": 1e-5},
        {"class_position": False, "registers": 4, "layer_scale": 1e-5},
    ),
    "layer scale": ({"init_values": 0.1}, {"layer_scale": 0.1}),
    "no positions": ({"pos_embed": "none"}, {"positions": "none"}),
    "no qkv bias": ({"qkv_bias": False}, {"qkv_bias": False}),
    "written-out attention": ({}, {"attention_options": {"kernel": "explicit"}}),
    "narrow MLP": ({"mlp_ratio": 2.0}, {"mlp_ratio": 2.0}),
    "grey images that are not square": (
        {"img_size": (24, 40), "in_chans": 1}, {"image_size": (24, 40), "in_channels": 1},
    ),
    "no head": ({"num_classes": 0}, {"num_classes": 0}),
}  # fmt: skip


def pair(theirs: dict[str, Any], ours: dict[str, Any]) -> tuple[ViT, nn.Module]:
    reference = timm.models.VisionTransformer(**{**SMALL, **theirs})
    randomise(reference).eval()
    base = {
        "image_size": 32, "patch_size": 8, "dim": 48, "depth": 3, "heads": 3, "num_classes": 7
    }  # fmt: skip
    model = ViT(**{**base, **ours}).eval()
    model.load_state_dict(reference.state_dict(), strict=True)
    return model, reference


@pytest.mark.parametrize(("theirs", "ours"), VARIANTS.values(), ids=VARIANTS)
def test_timm_variants(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    model, reference = pair(theirs, ours)
    size = theirs.get("img_size", 32)
    agree(
        model,
        reference,
        images(3, size if isinstance(size, tuple) else (size, size), theirs.get("in_chans", 3)),
    )


@pytest.mark.parametrize("size", [(48, 48), (24, 40), (16, 16)])
@pytest.mark.parametrize("no_embed_class", [False, True])
def test_timm_on_images_of_other_sizes(size: tuple[int, int], no_embed_class: bool) -> None:
    model, reference = pair(
        {"dynamic_img_size": True, "reg_tokens": 1, "no_embed_class": no_embed_class},
        {"registers": 1, "class_position": not no_embed_class},
    )
    agree(model, reference, images(2, size))


@pytest.mark.parametrize("name", ["plain", "registers and mean", "layer scale"])
def test_timm_gradients(name: str) -> None:
    model, reference = pair(*VARIANTS[name])
    x = images(3, (32, 32))
    slope = torch.randn(3, 7, generator=torch.Generator().manual_seed(6))
    for module in (model, reference):
        (module(x) * slope).sum().backward()
    theirs = dict(reference.named_parameters())
    for key, parameter in model.named_parameters():
        want = theirs[key].grad
        assert parameter.grad is not None
        assert want is not None
        assert want.abs().max() > 0, key
        scale = max(1.0, want.abs().max().item())
        assert largest_difference(parameter.grad, want) < TOLERANCE * scale, key


def renamed(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give torchvision's weights, or their gradients, our names."""
    given = dict(weights)
    assert families.translate(given, "weights of torchvision") == ("torchvision", [])
    return given


def test_torchvision_base() -> None:
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    theirs = drawn(lambda: vision.vit_b_16(weights=None))
    weights = renamed(theirs.state_dict())
    assert len(weights) == len(theirs.state_dict()) == 152
    ours = with_weights("vit_base_patch16_224", weights)
    x = images(2)
    with torch.no_grad():
        assert largest_difference(ours(x), theirs(x)) < TOLERANCE


def test_torchvision_gradients() -> None:
    vision = pytest.importorskip("torchvision.models.vision_transformer")
    theirs = vision.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96,
        num_classes=7,
    )  # fmt: skip
    randomise(theirs).eval()
    ours = ViT(
        image_size=32, patch_size=8, dim=48, depth=2, heads=3, num_classes=7, mlp_ratio=2.0
    ).eval()
    ours.load_state_dict(renamed(theirs.state_dict()), strict=True)
    x = images(3, (32, 32))
    slope = torch.randn(3, 7, generator=torch.Generator().manual_seed(6))
    a, b = ours(x), theirs(x)
    assert largest_difference(a, b) < TOLERANCE
    for logits in (a, b):
        (logits * slope).sum().backward()
    wanted = renamed({name: p.grad for name, p in theirs.named_parameters()})
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        scale = max(1.0, wanted[key].abs().max().item())
        assert largest_difference(parameter.grad, wanted[key]) < TOLERANCE * scale, key


def test_the_comparison_can_fail() -> None:
    """Each of these small differences is far above the tolerance."""
    model, reference = pair({}, {})
    x = images(3, (32, 32))
    want = reference(x)

    def difference() -> float:
        return largest_difference(model(x), want)

    assert difference() < TOLERANCE
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    for norm in norms:
        norm.eps = 1e-5
    assert difference() > TOLERANCE
    for norm in norms:
        norm.eps = 1e-6
    for block in model.blocks:
        assert isinstance(block, Block)
        block.mlp.act = nn.GELU(approximate="tanh")
    assert difference() > 3 * TOLERANCE
