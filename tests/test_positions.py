# SPDX-License-Identifier: MIT
"""vitcore.positions: turned queries and keys and biases of the scores, against timm and loops."""

# mypy: ignore-errors
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit
from torch import nn

from vitbook.torchvision import import_torchvision
from vitcore import ATTENTIONS, POSITIONS, Attention, TokenLayout, ViT, register_attention
from vitcore.positions import RelativeBias, Rotary, rotate
from vitcore.training import TrainConfig, load_weights, save_weights
from vitcore.training.optimizers import build_optimizers, param_groups


def timm_layers() -> Any:
    import_torchvision()  # before timm, which imports it
    return pytest.importorskip("timm.layers", reason="timm is a development dependency")


# --- rotary ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [100.0, 10_000.0])
@pytest.mark.parametrize(("grid", "prefix"), [((4, 6), 0), ((4, 6), 3), ((6, 9), 1), ((2, 3), 1)])
def test_rotary_is_that_of_timm(grid, prefix, temperature):
    """Also at other sizes, where timm's offset puts the patches between the old ones."""
    layers = timm_layers()
    scale = grid[0] / 4
    theirs = layers.RotaryEmbeddingCat(
        16, temperature=temperature, in_pixels=False, feat_shape=list(grid), ref_feat_shape=[4, 6],
        grid_offset=0.5 - 0.5 * scale,
    ).get_embed()  # fmt: skip
    q, k = torch.randn(2, 2, 3, prefix + grid[0] * grid[1], 16)
    rotary = Rotary(3, 16, (4, 6), temperature=temperature)
    for before, after in zip((q, k), rotary(q, k, TokenLayout(grid, prefix)), strict=True):
        assert torch.equal(after[:, :, :prefix], before[:, :, :prefix])
        want = layers.apply_rot_embed_cat(before[:, :, prefix:], theirs)
        assert (after[:, :, prefix:] - want).abs().max() < 1e-5
        assert (after - before)[:, :, prefix:].abs().max() > 0.1


def test_pairs_turn_as_complex_numbers():
    x, angles = torch.randn(5, 8), torch.randn(5, 4)
    want = torch.view_as_complex(x.view(5, 4, 2)) * torch.polar(torch.ones(5, 4), angles)
    torch.testing.assert_close(rotate(x, angles), torch.view_as_real(want).flatten(1))


def test_rotary_scores_depend_on_distance_alone():
    q, k = torch.randn(1, 1, 1, 8).expand(2, 1, 1, 20, 8)
    turned_q, turned_k = Rotary(1, 8, (4, 5))(q, k, TokenLayout((4, 5), 0))
    scores = (turned_q @ turned_k.mT)[0, 0].view(4, 5, 4, 5)
    torch.testing.assert_close(scores[0, 0, 1, 2], scores[2, 1, 3, 3])
    torch.testing.assert_close(scores[3, 4, 1, 1], scores[2, 3, 0, 0])
    assert (scores[0, 0, 1, 2] - scores[0, 0, 2, 1]).abs() > 1e-3  # down is not along


# --- relative bias --------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", [(3, 3), (2, 5)])
def test_relative_bias_is_that_of_timm(grid):
    layers = timm_layers()
    ours, theirs = RelativeBias(4, 8, grid), layers.RelPosBias(grid, 4)
    randomise(ours)
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(ours.bias(grid), theirs.get_bias()[0])


def test_relative_bias_at_another_size_is_resized_as_in_timm():
    timm_layers()
    from timm.layers.pos_embed_rel import resize_rel_pos_bias_table_levit as resize

    ours, larger = randomise(RelativeBias(4, 8, (3, 3))), RelativeBias(4, 8, (5, 5))
    table = resize(ours.relative_position_bias_table.data, (81, 4))
    larger.load_state_dict({"relative_position_bias_table": table})
    torch.testing.assert_close(ours.bias((5, 5)), larger.bias((5, 5)), atol=1e-6, rtol=0)


def test_relative_bias_by_loops_with_a_prefix():
    grid, prefix = (2, 3), 2
    attention = Attention(12, 3)
    attention.rel_pos = randomise(RelativeBias(3, 4, grid))
    x = torch.randn(2, prefix + 6, 12)
    q, k, _ = attention.split(x)
    scores = q @ k.mT / math.sqrt(4)
    table = attention.rel_pos.relative_position_bias_table.view(3, 5, 3)
    for i in range(6):
        for j in range(6):
            down, along = i // 3 - j // 3, i % 3 - j % 3
            scores[:, :, prefix + i, prefix + j] += table[down + 1, along + 2]
    layout = TokenLayout(grid, prefix)
    torch.testing.assert_close(attention.weights(x, layout), scores.softmax(-1))
    for kernel in ("fused", "explicit"):
        attention.kernel = kernel
        mixed = scores.softmax(-1) @ attention.split(x)[2]
        want = attention.proj(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x, layout), want)


# --- in the model ---------------------------------------------------------------------------------

INSIDE = [*POSITIONS, *(f"learned+{name}" for name in POSITIONS), "sincos+rotary"]


@pytest.mark.parametrize("positions", INSIDE)
def test_the_model_has_both_parts(positions, tmp_path):
    model = randomise(small_vit(positions=positions, registers=1))
    table, _, inside = positions.rpartition("+")
    assert (model.pos_embed is not None) == (table == "learned")
    assert all(type(block.attn.rel_pos) is POSITIONS[inside] for block in model.blocks)
    images = small_images()
    with torch.no_grad():
        logits = model(images)
        moved = model(images.roll(4, dims=3))
        for block in model.blocks:
            block.attn.rel_pos = None
        assert (model(images) - logits).abs().max() > 1e-3
    assert (moved - logits).abs().max() > 1e-3
    names: dict[str, Any] = {"classes": list("abcde"), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    again = randomise(small_vit(positions=positions, registers=1))
    save_weights(tmp_path / "model.safetensors", again, **names)
    loaded = load_weights(tmp_path / "model.safetensors").model.eval()
    assert torch.equal(loaded(images), logits)
    assert loaded(small_images(1, (20, 8))).shape == (1, 5)


def test_without_positions_the_order_of_patches_is_nothing():
    """And with positions inside attention it is something, which moves the mean."""
    images = small_images()
    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = nn.functional.fold(
        patches[:, :, order].permute(0, 1, 3, 4, 2).flatten(1, 3), (12, 16), 4, stride=4
    )
    for positions in ("none", *POSITIONS):
        model = randomise(small_vit(positions=positions, class_token=False, pool="mean"))
        with torch.no_grad():
            apart = (model(images) - model(shuffled)).abs().max()
        assert (apart < 1e-5) == (positions == "none"), positions


def test_no_weight_decay_and_no_muon_for_the_bias():
    model = small_vit(positions="relative")
    tables = {id(block.attn.rel_pos.relative_position_bias_table) for block in model.blocks}
    _, spared = param_groups(model, 0.1)
    assert tables <= {id(p) for p in spared["params"]}
    matrices = build_optimizers(model, TrainConfig(epochs=1, optimizer="muon"))[0].param_groups
    assert not tables & {id(p) for group in matrices for p in group["params"]}


def test_bad_input_is_refused():
    q = torch.randn(1, 2, 4, 8)
    for positions in (Rotary(2, 8, (2, 2)), RelativeBias(2, 8, (2, 2))):
        with pytest.raises(TypeError, match="layout is None; give a TokenLayout"):
            positions(q, q, None)
    says_in_one_sentence(ValueError, lambda: Rotary(2, 6, (2, 2)), "6", "divisible by 4")
    says_in_one_sentence(ValueError, lambda: Rotary(2, 8, (2, 2), 0), "temperature")
    says_in_one_sentence(ValueError, lambda: small_vit(positions="rotary", heads=12), "2 wide")
    says_in_one_sentence(ValueError, lambda: small_vit(positions="rope"), "'rotary'", "'learned'")
    says_in_one_sentence(ValueError, lambda: small_vit(positions="none+rotary"), "'none+rotary'")
    options = {"temperature": 5}
    says_in_one_sentence(ValueError, lambda: small_vit(position_options=options), "no options")
    says_in_one_sentence(
        TypeError,
        lambda: small_vit(positions="relative", position_options=options),
        "'temperature'",
    )


def test_an_attention_that_knows_no_positions_is_refused():
    @register_attention("mean")
    class Mean(nn.Module):
        def __init__(self, dim: int, heads: int, qkv_bias: bool = True) -> None:
            super().__init__()

    try:
        says_in_one_sentence(
            ValueError, lambda: small_vit(attention="mean", positions="rotary"), "Mean is no"
        )
        assert isinstance(small_vit(attention="mean"), ViT)
    finally:
        ATTENTIONS.pop("mean", None)
