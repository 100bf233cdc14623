# SPDX-License-Identifier: MIT
"""Proves `vitcore/patches.py`, which chapter 1 builds."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from core_helpers import says_in_one_sentence, small_images
from torch import nn

from vitcore import PATCH_EMBEDS, PatchEmbed, ViT, patchify, register_patch_embed, unpatchify
from vitcore.patches import patch_grid, to_pair

SIZES = [
    ((2, 3, 8, 12), 4),
    ((1, 1, 28, 28), 7),
    ((3, 4, 6, 6), 6),
    ((2, 13, 10, 4), 2),
    ((2, 3, 5, 3), 1),
    ((0, 3, 4, 8), 4),
]


@pytest.mark.parametrize(("shape", "size"), SIZES)
def test_round_trip(shape, size):
    images = torch.randn(shape)
    tokens = patchify(images, size)
    count = shape[2] // size * (shape[3] // size)
    assert tokens.shape == (shape[0], count, shape[1] * size**2)
    assert torch.equal(unpatchify(tokens, size, shape[2:]), images)


@pytest.mark.parametrize(("shape", "size"), SIZES[:-1])
def test_round_trip_from_tokens(shape, size):
    count = shape[2] // size * (shape[3] // size)
    tokens = torch.randn(shape[0], count, shape[1] * size**2)
    assert torch.equal(patchify(unpatchify(tokens, size, shape[2:]), size), tokens)


def test_order_of_tokens_and_values():
    channels, height, width, size = 2, 6, 9, 3
    c, y, x = torch.meshgrid(
        torch.arange(channels), torch.arange(height), torch.arange(width), indexing="ij"
    )
    tokens = patchify((10000 * c + 100 * y + x)[None], size)[0]
    for row in range(height // size):
        for column in range(width // size):
            values = [
                10000 * k + 100 * (row * size + i) + (column * size + j)
                for k in range(channels) for i in range(size) for j in range(size)
            ]  # fmt: skip
            assert tokens[row * (width // size) + column].tolist() == values


def test_patchify_agrees_with_unfold():
    images = torch.randn(2, 3, 8, 12)
    assert torch.equal(patchify(images, 4), F.unfold(images, 4, stride=4).transpose(1, 2))


def test_patchify_takes_integers_and_keeps_their_type():
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    tokens = patchify(images, 4)
    assert tokens.dtype == torch.uint8
    assert torch.equal(unpatchify(tokens, 4, 8), images)


@pytest.mark.parametrize("channels", [1, 3, 4, 13])
@pytest.mark.parametrize("image_size", [12, (8, 12), (12, 4)])
def test_embedding_is_patchify_and_a_linear_map(channels, image_size):
    embed = PatchEmbed(image_size, 4, channels, 10)
    images = small_images(2, to_pair(image_size), channels)
    tokens, grid = embed(images)
    want = F.linear(patchify(images, 4), embed.proj.weight.flatten(1), embed.proj.bias)
    assert grid == embed.grid == (images.shape[2] // 4, images.shape[3] // 4)
    torch.testing.assert_close(tokens, want)


def test_embedding_of_another_size_tells_that_grid():
    embed = PatchEmbed(8, 4, 3, 6)
    tokens, grid = embed(torch.randn(1, 3, 12, 20))
    assert grid == (3, 5)
    assert embed.grid == (2, 2)
    assert tokens.shape == (1, 15, 6)


def test_a_patch_reaches_its_own_token_alone():
    embed = PatchEmbed((8, 12), 4, 1, 5)
    images = torch.randn(1, 1, 8, 12)
    before, _ = embed(images)
    images[:, :, 4:8, 8:12] += 1
    changed = (embed(images)[0] != before).any(-1)[0]
    assert changed.tolist() == [False, False, False, False, False, True]


def test_another_embedding_takes_its_place_by_name():
    try:

        @register_patch_embed("test-halved")
        class Halved(PatchEmbed):
            def __init__(self, image_size, patch_size, in_channels, dim, factor=1.0):
                super().__init__(image_size, patch_size, in_channels, dim)
                self.factor = factor

            def forward(self, images):
                tokens, grid = super().forward(images)
                return tokens * self.factor, grid

        options = {"image_size": 8, "patch_size": 4, "dim": 8, "depth": 1, "heads": 2}
        model = ViT(**options, patch_embed="test-halved", patch_embed_options={"factor": 0.5})
        assert isinstance(model.patch_embed, Halved)
        assert model.patch_embed.factor == 0.5
        assert model.config.from_dict(model.config.to_dict()) == model.config
    finally:
        PATCH_EMBEDS.pop("test-halved", None)
    assert isinstance(PATCH_EMBEDS["linear"], type)
    assert issubclass(PATCH_EMBEDS["linear"], nn.Module)


def test_sizes_of_numpy():
    images = small_images(2, (8, 12))
    size = np.int64(4)
    assert patch_grid((np.int32(8), np.int64(12)), size) == (2, 3)
    tokens = patchify(images, size)
    assert torch.equal(unpatchify(tokens, size, (np.int64(8), np.int64(12))), images)
    embed = PatchEmbed(np.int64(8), size, np.int64(3), np.int64(10))
    assert embed(images)[0].shape == (2, 6, 10)


def test_a_class_that_takes_any_option_or_needs_one():
    try:

        @register_patch_embed("test-any")
        class Anything(PatchEmbed):
            def __init__(self, image_size, patch_size, in_channels, dim, *, must, **more):
                super().__init__(image_size, patch_size, in_channels, dim)
                self.seen = {"must": must, **more}

        options = {"image_size": 8, "patch_size": 4, "dim": 8, "depth": 1, "heads": 2}
        options["patch_embed"] = "test-any"
        model = ViT(**options, patch_embed_options={"must": 1, "other": 2})
        assert model.patch_embed.seen == {"must": 1, "other": 2}
        for given, words in (({}, "'must'"), ({"must": 1, "dim": 9}, "'dim'")):
            says_in_one_sentence(
                TypeError, lambda given=given: ViT(**options, patch_embed_options=given), words
            )
    finally:
        PATCH_EMBEDS.pop("test-any", None)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: patch_grid(30, 7), (30, 7, "divide")),
        (lambda: patch_grid((28, 30), 7), (28, 30, 7)),
        (lambda: patch_grid((30, 28), 7), (28, 30, 7)),
        (lambda: patch_grid(4, 8), ("patch_size 8", "larger", 4)),
        (lambda: patch_grid((4, 16), 8), ("patch_size 8", "larger", "at most 4")),
        (lambda: patch_grid(8, 0), ("patch_size is 0", "at least 1")),
        (lambda: patch_grid(8, -4), ("patch_size is -4", "at least 1")),
        (lambda: patch_grid(0, 4), ("image_size is 0",)),
        (lambda: patch_grid((8, -8), 4), ("image_size is (8, -8)",)),
        (lambda: PatchEmbed(8, 4, 0, 8), ("in_channels is 0",)),
        (lambda: PatchEmbed(8, 4, 3, -8), ("dim is -8",)),
        (lambda: PatchEmbed(10, 4, 3, 8), (10, 4)),
        (lambda: patch_grid(8, 2**31), ("at most 2147483647",)),
        (lambda: unpatchify(torch.zeros(1, 4, 16), 0, 8), ("patch_size is 0",)),
        (lambda: patchify(torch.zeros(3, 8, 8), 4), ("(3, 8, 8)", "(B, C, H, W)")),
        (lambda: patchify(torch.zeros(1, 3, 8, 10), 4), ("8 x 10", 4)),
        (lambda: unpatchify(torch.zeros(1, 5, 16), 4, 8), ("(1, 5, 16)", "(B, 4, C·P·P)")),
        (lambda: unpatchify(torch.zeros(1, 4, 15), 4, 8), ("15 numbers", "4²")),
        (lambda: unpatchify(torch.zeros(4, 16), 4, 8), ("(4, 16)",)),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(3, 8, 8)), ("(3, 8, 8)", "(B, 3, H, W)")),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 1, 3, 8, 8)), ("(1, 1, 3, 8, 8)",)),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 1, 8, 8)), ("(1, 1, 8, 8)", "(B, 3, H, W)")),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 8, 8, 3)), ("(1, 8, 8, 3)",)),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 3, 8, 9)), ("8 x 9", 4)),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 3, 2, 8)), ("larger", "2 x 8")),
    ],
)
def test_values_that_do_not_fit(call, words):
    says_in_one_sentence(ValueError, call, *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: patchify([[1.0]], 4), ("images is a list",)),
        (lambda: patchify(np.zeros((1, 3, 8, 8)), 4), ("ndarray", "tensor")),
        (lambda: unpatchify([1], 4, 8), ("tokens is a list",)),
        (lambda: patch_grid(np.zeros((9, 9)), 4), ("image_size is array", "pair")),
        (lambda: to_pair((8, True)), ("(8, True)",)),
        (lambda: register_patch_embed(PatchEmbed), ("name to register", "string")),
        (lambda: register_patch_embed("x")(lambda: None), ("class of nn.Module",)),
        (lambda: register_patch_embed("x")(nn.Identity()), ("class of nn.Module",)),
        (lambda: to_pair(8.0), ("image_size is 8.0",)),
        (lambda: to_pair((8, 8, 8)), ("(8, 8, 8)",)),
        (lambda: to_pair("8"), ("'8'",)),
        (lambda: to_pair(True), ("True",)),
        (lambda: to_pair(None), ("None",)),
        (lambda: patch_grid(8, 4.0), ("patch_size is 4.0",)),
        (lambda: patch_grid(8, True), ("patch_size is True",)),
        (lambda: PatchEmbed(8, 4, "3", 8), ("in_channels is '3'",)),
        (lambda: PatchEmbed(8, 4, 3, 8.5), ("dim is 8.5",)),
        (lambda: PatchEmbed(8, 4, 3, 8)([[1.0]]), ("list", "tensor")),
        (
            lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 3, 8, 8, dtype=torch.uint8)),
            ("uint8", "float() / 255"),
        ),
        (lambda: PatchEmbed(8, 4, 3, 8)(torch.zeros(1, 3, 8, 8).long()), ("int64",)),
    ],
)
def test_types_that_do_not_fit(call, words):
    says_in_one_sentence(TypeError, call, *words)
