# SPDX-License-Identifier: MIT
"""vitcore.attentions: more than plain attention, by the same interface."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from vitcore import Attention, TokenLayout, ViT, ViTConfig
from vitcore.attentions import LocallyEnhancedAttention
from vitcore.training import load_weights, save_weights

CONFIG = ViTConfig(
    image_size=(16, 24), patch_size=4, num_classes=5, dim=16, depth=2, heads=2,
    attention="locally_enhanced",
)  # fmt: skip


def by_loops(attention: LocallyEnhancedAttention, v, grid, prefix):
    """conv(v), added patch by patch and neighbour by neighbour; nothing for the prefix."""
    batch, heads, count, width = v.shape
    rows, columns = grid
    kernel, bias = attention.local.weight[:, 0], attention.local.bias
    assert bias is not None
    reach = kernel.shape[-1] // 2
    local = torch.zeros(batch, count, heads * width)
    flat = v.transpose(1, 2).reshape(batch, count, heads * width)
    for row in range(rows):
        for column in range(columns):
            total = bias.clone()
            for down in range(-reach, reach + 1):
                for right in range(-reach, reach + 1):
                    if 0 <= row + down < rows and 0 <= column + right < columns:
                        token = prefix + (row + down) * columns + column + right
                        weight = kernel[:, down + reach, right + reach]
                        total = total + weight * flat[:, token]
            local[:, prefix + row * columns + column] = total
    return local


@pytest.mark.parametrize("window", [1, 3, 5])
@pytest.mark.parametrize("prefix", [0, 3])
@pytest.mark.parametrize("kernel", ["fused", "explicit"])
def test_attention_and_convolution_by_loops(window, prefix, kernel):
    grid = (3, 5)
    attention = LocallyEnhancedAttention(8, 2, kernel=kernel, window=window)
    plain = Attention(8, 2, kernel=kernel)
    plain.load_state_dict(attention.state_dict(), strict=False)
    x = torch.randn(2, prefix + 15, 8)
    q, k, v = attention.split(x)
    mixed = plain.attend(q, k, v).transpose(1, 2).flatten(2)
    expected = attention.proj(mixed + by_loops(attention, v, grid, prefix))
    torch.testing.assert_close(attention(x, TokenLayout(grid, prefix)), expected)
    # The weights are those of plain attention.
    assert torch.equal(attention.weights(x), plain.weights(x))


def test_without_convolution_it_is_plain_attention():
    enhanced, plain = ViT(CONFIG), ViT(CONFIG, attention="global")
    for name, parameter in enhanced.named_parameters():
        if ".attn.local." in name:
            torch.nn.init.zeros_(parameter)
    result = plain.load_state_dict(enhanced.state_dict(), strict=False)
    assert not result.missing_keys
    assert all(".attn.local." in key for key in result.unexpected_keys)
    images = torch.randn(2, 3, 16, 24)
    torch.testing.assert_close(enhanced.eval()(images), plain.eval()(images))


@pytest.mark.parametrize(("class_token", "registers"), [(True, 0), (False, 2), (True, 3)])
def test_trains_saves_and_runs_at_another_size(tmp_path, class_token, registers):
    config: dict[str, Any] = {"class_token": class_token, "pool": "cls" if class_token else "mean"}
    model = ViT(CONFIG, **config, registers=registers)
    images = torch.randn(3, 3, 16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        F.cross_entropy(model(images), torch.tensor([0, 1, 2])).backward()
    # Not the last layer's: a class token reads nothing of what the patches become there.
    local = [p for name, p in model.named_parameters() if name.startswith("blocks.0.attn.local.")]
    assert len(local) == 2
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in local)
    names: dict[str, Any] = {"classes": list("abcde"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    save_weights(tmp_path / "model.safetensors", model, **names)
    loaded = load_weights(tmp_path / "model.safetensors").model
    larger = torch.randn(2, 3, 32, 20)
    assert torch.equal(model.eval()(larger), loaded.eval()(larger))


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="window is 4; give an odd number"):
        LocallyEnhancedAttention(8, 2, window=4)
    with pytest.raises(ValueError, match="window is 0"):
        ViT(CONFIG, attention_options={"window": 0})
    with pytest.raises(TypeError, match="layout is None; give a TokenLayout"):
        LocallyEnhancedAttention(8, 2)(torch.randn(1, 4, 8))
    with pytest.raises((TypeError, ValueError), match=r"attention_options.*hidden"):
        ViT(CONFIG, attention_options={"hidden": 3})
