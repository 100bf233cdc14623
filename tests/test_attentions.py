# SPDX-License-Identifier: MIT
"""vitcore.attentions: more than plain attention, by the same interface."""

# mypy: ignore-errors
from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit

from vitcore import Attention, TokenLayout, ViT, ViTConfig
from vitcore.attentions import (
    HybridAttention,
    LocalityAttention,
    LocallyEnhancedAttention,
    window_mask,
)
from vitcore.training import load_weights, save_weights
from vitcore.training.optimizers import param_groups

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


# --- a learned temperature, and the diagonal masked -----------------------------------------------


def locality_by_hand(attention, x):
    """Lee et al. (2021), equations 4 and 5, written out: weights and output."""
    width = x.shape[-1] // attention.heads
    q, k, v = (
        part.view(*x.shape[:2], attention.heads, width).transpose(1, 2)
        for part in attention.qkv(x).chunk(3, dim=-1)
    )
    scores = q @ k.mT / attention.log_temperature.exp()[:, None, None]
    if attention.mask_diagonal:
        scores.diagonal(dim1=-2, dim2=-1).fill_(-torch.inf)
    weights = scores.softmax(dim=-1)
    return weights, attention.proj((weights @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("mask_diagonal", [True, False])
@pytest.mark.parametrize("kernel", ["fused", "explicit"])
def test_locality_attention_written_out(kernel, mask_diagonal):
    attention = randomise(LocalityAttention(12, 3, kernel=kernel, mask_diagonal=mask_diagonal))
    x = torch.randn(2, 7, 12)
    weights, want = locality_by_hand(attention, x)
    assert (attention.weights(x) - weights).abs().max() < 1e-5
    assert (attention(x) - want).abs().max() < 1e-5
    assert (attention.weights(x).diagonal(dim1=-2, dim2=-1) == 0).all() == mask_diagonal
    for loss in (attention(x).square().sum(), want.square().sum()):
        attention.zero_grad()
        loss.backward()
        slope = attention.log_temperature.grad.clone()
        assert slope.abs().min() > 0
    attention.zero_grad()
    attention(x).square().sum().backward()
    torch.testing.assert_close(attention.log_temperature.grad, slope, rtol=1e-4, atol=1e-5)


def test_the_fused_kernel_stays_in_use(monkeypatch):
    calls = []
    kernel = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda *given: calls.append(given) or kernel(*given)
    )
    for cls in (LocalityAttention, HybridAttention):
        cls(12, 3)(torch.randn(2, 6, 12), TokenLayout((2, 3), 0))
    assert len(calls) == 2


def test_temperatures_start_as_usual_and_are_spared_from_decay():
    model = small_vit(attention="locality", attention_options={"mask_diagonal": False})
    plain = small_vit()
    plain.load_state_dict(model.state_dict(), strict=False)
    images = small_images()
    torch.testing.assert_close(model(images), plain(images))
    torch.testing.assert_close(model.blocks[0].attn.log_temperature.exp(), torch.full((3,), 8**0.5))
    own = {id(block.attn.log_temperature) for block in model.blocks}
    decayed, spared = param_groups(model, 0.1)
    assert own <= {id(p) for p in spared["params"]}
    assert not own & {id(p) for p in decayed["params"]}


def test_a_token_alone_with_itself_sees_itself():
    attention = LocalityAttention(8, 2)
    assert attention(torch.randn(2, 1, 8)).isfinite().all()


# --- local heads beside global ones ---------------------------------------------------------------


def seen_by_loops(grid, prefix, window):
    count = prefix + grid[0] * grid[1]
    seen = torch.zeros(count, count, dtype=torch.bool)
    for i in range(count):
        for j in range(count):
            (r, c), (s, d) = (divmod(token - prefix, grid[1]) for token in (i, j))
            near = max(abs(r - s), abs(c - d)) <= window // 2
            seen[i, j] = i < prefix or j < prefix or near
    return seen


@pytest.mark.parametrize(("grid", "prefix"), [((3, 5), 0), ((4, 2), 2)])
@pytest.mark.parametrize("window", [1, 3, 5])
def test_windows_by_loops(grid, prefix, window):
    want = seen_by_loops(grid, prefix, window)
    assert torch.equal(window_mask(TokenLayout(grid, prefix), window), want)


@pytest.mark.parametrize(("share", "local"), [(0, 0), (0.5, 2), (0.25, 1), (1, 4)])
@pytest.mark.parametrize("kernel", ["fused", "explicit"])
@pytest.mark.parametrize("prefix", [0, 2])
def test_hybrid_attention_is_plain_attention_with_a_mask(share, local, kernel, prefix):
    grid = (3, 4)
    attention = HybridAttention(16, 4, kernel=kernel, window=3, local_share=share)
    randomise(attention)
    x = torch.randn(2, prefix + 12, 16)
    q, k, v = attention.split(x)
    scores = q @ k.mT / 2
    scores[:, :local] = scores[:, :local].masked_fill(~seen_by_loops(grid, prefix, 3), -torch.inf)
    weights = scores.softmax(dim=-1)
    layout = TokenLayout(grid, prefix)
    torch.testing.assert_close(attention.weights(x, layout), weights)
    want = attention.proj((weights @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attention(x, layout), want)
    assert ((weights == 0).any(dim=(0, 2, 3))).tolist() == [head < local for head in range(4)]


def test_layers_alternate_and_options_go_from_layer_to_layer():
    options = {"local_share": [1.0, 0.0], "window": [3, 3, 5]}
    model = small_vit(depth=5, attention="hybrid", attention_options=options)
    assert [block.attn.local_heads for block in model.blocks] == [3, 0, 3, 0, 3]
    assert [block.attn.window for block in model.blocks] == [3, 3, 5, 3, 3]


@pytest.mark.parametrize("attention", ["locality", "hybrid"])
@pytest.mark.parametrize("positions", ["relative", "learned+rotary"])
def test_masks_lie_over_positions_inside_attention(attention, positions):
    """What is masked stays masked, and the rest is as with these positions alone."""
    model = randomise(small_vit(attention=attention, positions=positions))
    plain = small_vit(positions=positions)
    plain.load_state_dict(model.state_dict(), strict=False)
    layer, other = model.blocks[0].attn, plain.blocks[0].attn
    x, layout = model.embed(small_images())
    if attention == "locality":
        torch.nn.init.constant_(layer.log_temperature, layer.usual)
        seen = ~torch.eye(13, dtype=torch.bool)
    else:
        seen = seen_by_loops((3, 4), 1, 3) | (torch.arange(3) >= 2)[:, None, None]
    want = other.weights(x, layout).masked_fill(~seen, 0)
    torch.testing.assert_close(layer.weights(x, layout), want / want.sum(-1, keepdim=True))


@pytest.mark.parametrize("norm", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize("kind", ["global", "locally_enhanced", "locality", "hybrid"])
def test_normalised_queries_and_keys(norm, kind):
    """A scale of the tokens changes nothing but their values."""
    model = small_vit(attention=kind, attention_options={"qk_norm": norm}, qkv_bias=False)
    attn = model.blocks[0].attn
    names = {name for name, _ in attn.named_parameters() if "_norm" in name}
    both = {"q_norm.weight", "k_norm.weight"}
    assert names == (both if norm == "rmsnorm" else both | {"q_norm.bias", "k_norm.bias"})
    x, layout = model.embed(small_images())
    x = 1000 * x  # far above the norms' epsilon
    torch.testing.assert_close(
        attn.weights(3 * x, layout), attn.weights(x, layout), atol=1e-5, rtol=0
    )
    plain = small_vit(attention=kind).blocks[0].attn
    assert (plain.weights(3 * x, layout) - plain.weights(x, layout)).abs().max() > 1e-3


def test_bad_options_are_refused():
    for options, words in (
        ({"window": 2}, ("window is 2", "odd")),
        ({"local_share": 1.5}, ("local_share is 1.5", "from 0 to 1")),
        ({"window": [3, 4]}, ("window is 4",)),
        ({"qk_norm": "batch"}, ("qk_norm is 'batch'", "'rmsnorm'")),
    ):
        says_in_one_sentence(
            ValueError, lambda o=options: small_vit(attention="hybrid", attention_options=o), *words
        )
    wrong = {"mask_diagonal": 1}
    says_in_one_sentence(
        TypeError, lambda: small_vit(attention="locality", attention_options=wrong), "mask_diagonal"
    )
    says_in_one_sentence(TypeError, lambda: HybridAttention(8, 2)(torch.randn(1, 4, 8)), "layout")
