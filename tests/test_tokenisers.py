# SPDX-License-Identifier: MIT
"""vitcore.tokenisers: overlapping, shifted, flexible and merged patches, against other code."""

# mypy: ignore-errors
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit

from vitbook.torchvision import import_torchvision
from vitcore import PATCH_EMBEDS, PatchEmbed, explain
from vitcore.tokenisers import (
    FlexiblePatchEmbed,
    HierarchicalPatchEmbed,
    OverlappingPatchEmbed,
    PatchMerging,
    ShiftedPatchEmbed,
    resize_projection,
)

NAMES = ("overlapping", "shifted", "flexible", "hierarchical")


def timm_module(name):
    import_torchvision()  # before timm, which imports it
    return pytest.importorskip(name, reason="timm is a development dependency")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(12, 16), (24, 8)])
def test_the_same_grid_as_linear_patches(name, size):
    embed, linear = PATCH_EMBEDS[name]((12, 16), 4, 3, 16), PatchEmbed((12, 16), 4, 3, 16)
    tokens, grid = embed(small_images(size=size))
    assert embed.grid == linear.grid == (3, 4)
    assert grid == linear(small_images(size=size))[1]
    assert tokens.shape == (2, grid[0] * grid[1], 16)


# --- overlapping ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlap", "reach"), [(0, 0), (1, 1), (2, 2), (None, 2), (5, 5)])
def test_patches_reach_over_their_edges(overlap, reach):
    embed = OverlappingPatchEmbed((12, 16), 4, 3, 8, overlap=overlap)
    images = small_images().requires_grad_()
    tokens, (_, columns) = embed(images)
    tokens[0, 1 * columns + 2].sum().backward()  # the patch at row 1, column 2: 4 to 7, 8 to 11
    seen = images.grad[0].abs().sum(dim=0).nonzero()
    assert seen.min(dim=0).values.tolist() == [max(0, 4 - reach), 8 - reach]
    assert seen.max(dim=0).values.tolist() == [min(11, 7 + reach), min(15, 11 + reach)]
    assert images.grad[1].abs().max() == 0


def test_overlapping_patches_cut_out_by_unfold():
    embed = OverlappingPatchEmbed((12, 16), 4, 3, 8, overlap=1)
    images = small_images()
    cut = F.unfold(images, 6, padding=1, stride=4).mT  # (B, N, C·6·6)
    want = cut @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(embed(images)[0], want)


# --- shifted --------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch_size", [2, 4])
def test_shifted_patches_pixel_by_pixel(patch_size):
    """Lee et al. (2021), equations 1 to 3, with loops over tokens, directions and pixels."""
    embed, images = (
        randomise(ShiftedPatchEmbed((8, 12), patch_size, 2, 6)),
        torch.randn(2, 2, 8, 12),
    )
    half, rows, columns = patch_size // 2, 8 // patch_size, 12 // patch_size
    found = torch.zeros(2, rows * columns, 5, 2, patch_size, patch_size)
    moves = [(0, 0), (-half, -half), (-half, half), (half, -half), (half, half)]
    for token in range(rows * columns):
        top, left = patch_size * (token // columns), patch_size * (token % columns)
        for which, (down, right) in enumerate(moves):
            for i in range(patch_size):
                for j in range(patch_size):
                    y, x = top + i + down, left + j + right
                    if 0 <= y < 8 and 0 <= x < 12:
                        found[:, token, which, :, i, j] = images[:, :, y, x]
    flat = found.flatten(2)
    mean, spread = flat.mean(-1, keepdim=True), flat.var(-1, keepdim=True, correction=0)
    normed = (flat - mean) / (spread + 1e-5).sqrt() * embed.norm.weight + embed.norm.bias
    want = normed @ embed.proj.weight.T + embed.proj.bias
    tokens, grid = embed(images)
    assert (tokens - want).abs().max() < 1e-5
    assert grid == (rows, columns)


# --- flexible -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(4, 6), (4, 2), (8, 3), (8, 8)])
def test_the_projection_is_resized_as_in_timm(size):
    old, new = size
    weight = torch.randn(6, 3, old, old)
    want = timm_module("timm.layers.patch_embed").resample_patch_embed(weight, [new, new])
    assert (resize_projection(weight, new) - want).abs().max() < 1e-5


def test_enlarged_patches_give_the_same_tokens():
    """FlexiViT's equation 3: what the pseudoinverse is for, patch by patch."""
    embed = FlexiblePatchEmbed((12, 16), 4, 3, 8)
    patch = torch.randn(5, 3, 4, 4)
    larger = F.interpolate(patch, size=(8, 8), mode="bicubic", antialias=True)
    small = embed(patch)[0]
    embed.patch_size = 8
    torch.testing.assert_close(embed(larger)[0], small, atol=1e-4, rtol=1e-4)


def test_training_draws_sizes_and_evaluation_keeps_to_one():
    model = small_vit(
        image_size=16, patch_embed="flexible", patch_embed_options={"patch_sizes": [2, 4, 8]},
    )  # fmt: skip
    images = small_images(size=(16, 16))
    linear = small_vit(image_size=16)
    linear.load_state_dict(model.state_dict())
    torch.testing.assert_close(model(images), linear(images))
    torch.manual_seed(0)
    drawn = {model.train().embed(images)[1].grid for _ in range(40)}
    assert drawn == {(8, 8), (4, 4), (2, 2)}
    model.eval().patch_embed.patch_size = 8
    assert model.embed(images)[1].grid == (2, 2)
    assert explain.attention_distance(model, images).max() < 16
    with torch.inference_mode():
        model(images)
    model.train()(images).sum().backward()
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


def test_a_kernel_first_resized_without_gradients_serves_training_too():
    weight = torch.randn(2, 3, 5, 5, requires_grad=True)  # a size that no other test asks for
    with torch.inference_mode():
        resize_projection(weight, 7)
    resize_projection(weight, 7).sum().backward()
    assert weight.grad.abs().sum() > 0


# --- merged in stages -----------------------------------------------------------------------------


def test_merging_is_that_of_timm():
    ours = randomise(PatchMerging(6, 10))
    theirs = timm_module("timm.models.swin_transformer").PatchMerging(6, 10)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 24, 6)
    merged, grid = ours(x, (4, 6))
    assert grid == (2, 3)
    assert (merged - theirs(x.view(2, 4, 6, 6)).flatten(1, 2)).abs().max() < 1e-5


def test_stages_double_the_width_and_see_windows():
    embed = HierarchicalPatchEmbed((16, 24), 8, 3, 32, stages=2, depth=2, head_dim=4)
    assert [blocks[0].attn.heads for blocks in embed.stages] == [2, 4]
    assert [len(blocks) for blocks in embed.stages] == [2, 2]
    assert [merge.reduction.weight.shape for merge in embed.merges] == [(16, 32), (32, 64)]
    images = small_images(size=(32, 48)).requires_grad_()
    tokens, grid = embed(images)
    assert grid == (4, 6)
    tokens[0, 0].sum().backward()
    rows, columns = images.grad[0].abs().sum(dim=0).nonzero().max(dim=0).values.tolist()
    # Two blocks of the second stage see two patches of 4 pixels further, two of the first two of 2.
    assert rows == columns == 8 + 2 * 4 + 2 * 2 - 1
    everything = HierarchicalPatchEmbed((16, 24), 8, 3, 32, window=None, head_dim=4)
    assert everything.stages[0][0].attn.__class__.__name__ == "Attention"


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("overlapping", {"overlap": -1}, ("overlap is -1",)),
        ("flexible", {"patch_sizes": [5]}, ("does not divide",)),
        ("flexible", {"patch_sizes": [0]}, ("patch_sizes is 0",)),
        ("hierarchical", {"stages": 3}, ("patch_size is 4", "divisible by 8")),
        ("hierarchical", {"head_dim": 5}, ("dim is 24", "head_dim 5")),
        ("hierarchical", {"stages": 0}, ("stages is 0",)),
    ],
)
def test_bad_options_are_refused(name, options, words):
    def call():
        return small_vit(patch_embed=name, patch_embed_options=options)

    says_in_one_sentence(ValueError, call, *words)


def test_bad_sizes_are_refused():
    says_in_one_sentence(ValueError, lambda: ShiftedPatchEmbed(12, 1, 3, 8), "patch_size is 1")
    says_in_one_sentence(
        ValueError, lambda: resize_projection(torch.zeros(2, 3, 4, 5), 4), "(2, 3, 4, 5)", "square"
    )
    says_in_one_sentence(TypeError, lambda: FlexiblePatchEmbed(8, 4, 3, 8, 4), "patch_sizes is 4")
    for name in NAMES:
        embed = PATCH_EMBEDS[name](16, 4, 3, 16)
        says_in_one_sentence(ValueError, lambda e=embed: e(torch.zeros(1, 3, 10, 16)), "10 x 16")
        says_in_one_sentence(
            ValueError, lambda e=embed: e(torch.zeros(1, 1, 16, 16)), "(B, 3, H, W)"
        )
