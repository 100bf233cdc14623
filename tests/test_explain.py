# SPDX-License-Identifier: MIT
"""Proves `vitcore/explain.py`, which chapter 8 shows: on models whose answer is known."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import pytest
import torch
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit
from torch import nn

from vitcore import ATTENTIONS, Attention, ViT, explain, register_attention
from vitcore.attention import attention_weights

OF_IMAGES = {
    "attention_maps": explain.attention_maps,
    "rollout": explain.rollout,
    "attention_distance": explain.attention_distance,
    "relevance": explain.relevance,
    "gradient_times_input": explain.gradient_times_input,
    "logit_lens": explain.logit_lens,
    "token_similarity": lambda model, images: explain.token_similarity(model, images, 0),
}
KINDS = {
    "class token": {},
    "mean": {"class_token": False, "pool": "mean"},
    "mean beside a class token": {"pool": "mean", "registers": 2},
    "registers": {"registers": 3},
    "registers without a place": {"registers": 3, "class_position": False},
    "sines": {"positions": "sincos"},
    "no positions": {"positions": "none"},
    "norm after pooling": {"class_token": False, "pool": "mean", "pool_norm": "after"},
    "layer scale": {"layer_scale": 0.1, "drop_path": 0.2},
    "stem": {"patch_embed": "conv_stem"},
    "convolved values": {"attention": "locally_enhanced", "registers": 1},
}
of_every_kind = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
of_images = pytest.mark.parametrize("show", OF_IMAGES.values(), ids=OF_IMAGES)


def lively(**options) -> ViT:
    return randomise(small_vit(**options))


def pattern_vit(looks_at: list[list[int]], grid: tuple[int, int], strength: float = 60.0) -> ViT:
    """A model of one head in which token i of layer l takes everything from looks_at[l][i].

    Positions alone reach the tokens, each orthogonal to the others, and values and MLPs add
    nothing, so that every layer sees the same. With a strength of 0 attention is even.
    """
    count = grid[0] * grid[1]
    model = ViT(
        image_size=(4 * grid[0], 4 * grid[1]), patch_size=4, in_channels=1, num_classes=3,
        dim=2 * count, depth=len(looks_at), heads=1, class_token=False, pool="mean",
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        # The mean of each is zero already, so that a norm only makes them longer.
        model.pos_embed[0] = torch.cat([torch.eye(count), -torch.eye(count)], dim=1)
        for block, targets in zip(model.blocks, looks_at, strict=True):
            block.norm1.weight.fill_(1)
            q, k, _ = block.attn.qkv.weight.view(3, 2 * count, 2 * count)
            q[targets, range(count)] = strength
            k[:count, :count] = torch.eye(count)
    return model.eval()


def one_hot(targets: list[int]) -> torch.Tensor:
    return torch.eye(len(targets))[targets]


def linear_vit(brightness: torch.Tensor) -> tuple[ViT, torch.Tensor]:
    """A model of one layer without norms whose logits are linear in its attention, and an image.

    A token holds the brightness b of its patch in its first channel, attention is even, values
    hand the channel on and the MLP adds nothing: class 1 is the mean of b_i + mean(b), class 2
    that with the other sign, class 0 nothing.
    """
    rows, cols = brightness.shape
    model = ViT(
        image_size=(4 * rows, 4 * cols), patch_size=4, in_channels=1, num_classes=3, dim=4,
        depth=1, heads=2, class_token=False, pool="mean",
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.patch_embed.proj.weight[0] = 1 / 16
        block = model.blocks[0]
        block.attn.qkv.weight[8:] = torch.eye(4)
        block.attn.proj.weight.copy_(torch.eye(4))
        model.head.weight[1, 0], model.head.weight[2, 0] = 1, -1
    block.norm1, model.norm = nn.Identity(), nn.Identity()
    image = brightness.repeat_interleave(4, 0).repeat_interleave(4, 1)[None, None]
    return model.eval(), image


# --- attention ----------------------------------------------------------------------------------


def test_a_hand_made_pattern_is_found():
    looks_at = [[1, 2, 3, 0, 0, 5], [5, 5, 0, 1, 2, 3]]
    model = pattern_vit(looks_at, (2, 3))
    images = torch.randn(3, 1, 8, 12)
    maps = explain.attention_maps(model, images)
    assert maps.shape == (3, 2, 1, 6, 6)
    for layer, targets in enumerate(looks_at):
        for found in maps[:, layer, 0]:
            torch.testing.assert_close(found, one_hot(targets))
    # Patch 0 is asked by 3 and 4 in the first layer, and the head reads the mean of all six.
    read = explain.patch_map(model, images, maps[:, 0, 0])
    expected = torch.tensor([[2, 1, 1], [1, 0, 1]]) / 6
    torch.testing.assert_close(read[2], expected)


@of_every_kind
def test_maps_are_those_that_the_model_captures(options):
    model, images = lively(**options), small_images()
    _, inside = model.forward_with(images, ["attention"])
    maps = explain.attention_maps(model, images)
    assert torch.equal(maps, torch.stack(inside["attention"], dim=1))
    some = explain.attention_maps(model, images, layers=[-1, 0], heads=2)
    assert torch.equal(some, maps[:, [1, 0]][:, :, [2]])


def test_only_what_was_asked_for_is_computed_and_kept():
    asked = []

    @register_attention("watched")
    class Watched(Attention):
        def forward(self, x, layout=None, record=None):
            asked.append(sorted(record or {}))
            return super().forward(x, layout, record)

    try:
        model = lively(depth=4, attention="watched")
    finally:
        del ATTENTIONS["watched"]
    maps = explain.attention_maps(model, small_images(), layers=1, heads=[0])
    assert asked == [[], ["attention"]]  # the layers behind are not even run
    assert maps.untyped_storage().nbytes() == 4 * maps.numel() == 4 * 2 * 13 * 13


def test_rollout_is_the_loop_of_the_paper():
    model, images = lively(depth=3, registers=1), small_images(3)
    _, inside = model.forward_with(images, ["attention"])
    found = explain.rollout(model, images)
    assert found.shape == (3, 14, 14)
    for image in range(3):
        joined = np.eye(14)
        for layer in inside["attention"]:
            mean = layer[image].detach().numpy().astype(float).mean(axis=0)
            mixed = 0.5 * mean + 0.5 * np.eye(14)
            for row in range(14):
                mixed[row] /= mixed[row].sum()
            joined = mixed @ joined
        np.testing.assert_allclose(found[image].numpy(), joined, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(3, 14))


def test_rollout_by_hand():
    """Token 0 asks 1 and then 2; half of it stays itself in either layer."""
    model = pattern_vit([[1, 1, 1], [2, 1, 2]], (1, 3))
    images = torch.zeros(1, 1, 4, 12)
    found = explain.rollout(model, images)[0]
    # Layer 2 leaves half of token 0 and takes half of token 2; both took half of 1 before.
    torch.testing.assert_close(found[0], torch.tensor([0.25, 0.5, 0.25]))
    torch.testing.assert_close(found[1], torch.tensor([0.0, 1.0, 0.0]))
    bare = explain.rollout(model, images, residual=0.0)[0]
    torch.testing.assert_close(bare, one_hot([1, 1, 1]))


def test_distance_by_hand():
    """Four patches in a row, 4 pixels each: a step to the right, even attention, and itself."""
    images = torch.zeros(2, 1, 4, 16)
    looks_at = [[1, 2, 3, 3], [0, 1, 2, 3]]
    found = explain.attention_distance(pattern_vit(looks_at, (1, 4)), images)
    torch.testing.assert_close(found, torch.tensor([[[3.0], [0.0]]] * 2), atol=1e-4, rtol=0)
    even = explain.attention_distance(pattern_vit(looks_at, (1, 4), strength=0), images)
    # Distances from the ends 0 + 1 + 2 + 3 patches, from the middle 1 + 0 + 1 + 2.
    torch.testing.assert_close(even, torch.full((2, 2, 1), 4 * (6 + 4 + 4 + 6) / 16))


def test_distance_knows_rows_and_columns():
    """In a grid of 2 by 3, patch 0 looks down and to the right: three, four, five."""
    model = pattern_vit([[0] * 6], (2, 3), strength=0)
    found = explain.attention_distance(model, torch.zeros(1, 1, 8, 12))
    places = [(4 * (i // 3), 4 * (i % 3)) for i in range(6)]
    apart = [np.hypot(a - c, b - d) for a, b in places for c, d in places]
    assert found.item() == pytest.approx(np.mean(apart))


def test_distance_leaves_tokens_without_a_place_out():
    model, images = lively(registers=2), small_images()
    weights = explain.attention_maps(model, images)[..., 3:, 3:]
    weights = weights / weights.sum(-1, keepdim=True)
    places = torch.tensor([(4.0 * (i // 4), 4.0 * (i % 4)) for i in range(12)])
    by_hand = (weights * torch.cdist(places, places)).sum(-1).mean(-1)
    torch.testing.assert_close(explain.attention_distance(model, images), by_hand)
    last = explain.attention_distance(model, images, layers=-1)
    torch.testing.assert_close(last, by_hand[:, 1:])


# --- what the head reads ------------------------------------------------------------------------


def test_a_map_is_read_where_the_model_pools():
    images = small_images()
    grid = torch.arange(12.0).view(3, 4)
    of_mean = 100 * sum(range(12)) / 12
    for kind, prefix, row in (
        ("class token", 1, 0),
        ("registers", 4, 0),
        ("mean", 0, of_mean),
        ("mean beside a class token", 3, of_mean + 300),
    ):
        count = prefix + 12
        matrix = torch.zeros(2, count, count)
        matrix[:, :, prefix:] = torch.arange(count)[:, None] * 100 + torch.arange(12.0)
        read = explain.patch_map(lively(**KINDS[kind]), images, matrix)
        torch.testing.assert_close(read, (grid + row).expand(2, 3, 4))


def test_a_map_has_the_shape_of_the_images_not_of_the_model():
    """A grid of 4 by 3 has as many patches as the model's own of 3 by 4."""
    model, tall = lively(), small_images(size=(16, 12))
    maps = explain.attention_maps(model, tall)
    assert explain.patch_map(model, tall, maps).shape == (2, 2, 3, 4, 3)
    other = small_images(size=(8, 20))
    assert explain.patch_map(model, other, explain.rollout(model, other)).shape == (2, 2, 5)


# --- with gradients -----------------------------------------------------------------------------


def test_relevance_of_a_linear_model_is_exact():
    brightness = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    model, image = linear_vit(brightness)
    torch.testing.assert_close(model(image)[0, 1], 2 * brightness.mean())
    for number, sign in ((1, 1), (2, -1)):
        found = explain.relevance(model, image, number)
        # Of the two heads the second hands on nothing: the mean over heads halves.
        raised = (sign * brightness).clamp(min=0).flatten() / 36 / 2
        torch.testing.assert_close(found[0], torch.eye(6) + raised.expand(6, 6))
        read = explain.patch_map(model, image, found)[0]
        torch.testing.assert_close(read, 1 / 6 + raised.view(2, 3))


def test_gradient_times_input_of_a_linear_model_is_each_patchs_share():
    brightness = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    model, image = linear_vit(brightness)
    shares = explain.gradient_times_input(model, image.repeat(2, 1, 1, 1), [1, 2])
    torch.testing.assert_close(shares[0], 2 * brightness / 6)
    torch.testing.assert_close(shares[1], -2 * brightness / 6)
    torch.testing.assert_close(shares.sum((1, 2)), model(image)[0, 1:])


def relevance_written_out(model: ViT, images: torch.Tensor, classes: list[int]) -> torch.Tensor:
    """Equations 5 and 6 with every A on the tape, image by image."""
    results = []
    for image, number in zip(images, classes, strict=True):
        x, layout = model.embed(image[None])
        kept = []
        for block in model.blocks:
            q, k, v = block.attn.split(block.norm1(x))
            kept.append(attention_weights(q, k))  # what the layers behind ask depends on it too
            beside = block.attn.gather(q, k, v, layout) - block.attn.attend(q, k, v)
            mixed = (kept[-1] @ v + beside).transpose(1, 2).flatten(2)
            x = x + block.ls1(block.attn.proj(mixed))
            x = x + block.ls2(block.mlp(block.norm2(x)))
        logits = model.head(model.pool(model.norm(x)))
        slopes = torch.autograd.grad(logits[0, number], kept)
        joined = torch.eye(kept[0].shape[-1])
        for weights, slope in zip(kept, slopes, strict=True):
            raising = (weights.detach() * slope)[0].clamp(min=0).mean(dim=0)
            joined = joined + raising @ joined
        results.append(joined)
    return torch.stack(results)


@of_every_kind
@pytest.mark.parametrize("kernel", ["fused", "explicit"])
def test_relevance_is_that_of_the_weights_on_the_tape(options, kernel):
    model = lively(depth=3, attention_options={"kernel": kernel}, **options)
    images = small_images(3)
    assert model.blocks[0].attn.kernel == kernel
    found = explain.relevance(model, images, torch.tensor([4, 0, 2]))
    expected = relevance_written_out(model, images, [4, 0, 2])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert (expected - torch.eye(expected.shape[-1])).abs().max() > 1e-3


def test_without_classes_the_models_own_answers_are_explained():
    model, images = lively(), small_images(4)
    answers = model(images).argmax(1)
    for show in (explain.relevance, explain.gradient_times_input):
        own = show(model, images)
        torch.testing.assert_close(own, show(model, images, answers))
        torch.testing.assert_close(own, show(model, images, answers.tolist()))
        assert (own - show(model, images, (answers + 1) % 5)).abs().max() > 1e-3
        torch.testing.assert_close(show(model, images, 2)[1:2], show(model, images[1:2], 2))


# --- tokens, positions, filters -----------------------------------------------------------------


@of_every_kind
def test_the_lens_after_the_last_layer_is_the_answer(options):
    model, images = lively(depth=3, **options), small_images()
    found = explain.logit_lens(model, images)
    assert found.shape == (2, 4, 5)
    assert torch.equal(found[:, -1], model(images))


def test_the_lens_after_a_layer_is_the_model_cut_there():
    model, images = lively(depth=3), small_images()
    found = explain.logit_lens(model, images)
    for layers in range(4):
        cut = lively(depth=3)
        cut.blocks = cut.blocks[:layers]
        torch.testing.assert_close(found[:, layers], cut(images))
    assert (found[:, 1] - found[:, 2]).abs().max() > 0.1


def test_tokens_are_compared_in_reading_order():
    """Tokens of a pattern model are orthogonal: only the chosen one is like itself."""
    model = pattern_vit([[0] * 6] * 2, (2, 3))
    found = explain.token_similarity(model, torch.zeros(2, 1, 8, 12), 4)
    expected = torch.tensor([[0.0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(found, expected.expand(2, 2, 2, 3), atol=1e-6, rtol=0)


def test_token_similarity_by_hand():
    model, images = lively(registers=1), small_images()
    _, inside = model.forward_with(images, ["tokens.1"])
    a, b = inside["tokens.1"][1, 2 + 5], inside["tokens.1"][1, 2 + 10]
    found = explain.token_similarity(model, images, 5, layers=[1])
    torch.testing.assert_close(found[1, 0, 2, 2], a @ b / (a.norm() * b.norm()))


def test_position_similarity():
    alone = explain.position_similarity(pattern_vit([[0] * 6], (2, 3)))
    torch.testing.assert_close(alone, torch.eye(6).view(2, 3, 2, 3))
    model = lively(registers=1)
    table = model.pos_embed[0, 2:]
    cosine = torch.cosine_similarity(table[7], table[8], dim=0)
    torch.testing.assert_close(explain.position_similarity(model)[1, 3, 2, 0], cosine)
    larger = explain.position_similarity(model, (5, 4))
    assert larger.shape == (5, 4, 5, 4)
    torch.testing.assert_close(larger.view(20, 20).diagonal(), torch.ones(20))
    assert not larger.requires_grad


def test_filters_are_the_eigenvectors_of_their_covariance():
    model = lively(dim=60)
    filters = model.patch_embed.proj.weight.detach().flatten(1).double().numpy()
    values, vectors = np.linalg.eigh(np.cov(filters.T))
    parts, shares = explain.patch_filters(model)
    assert parts.shape == (48, 3, 4, 4)
    np.testing.assert_allclose(shares, values[::-1] / values.sum(), atol=1e-6)
    overlap = np.abs((parts.flatten(1).numpy() * vectors[:, ::-1].T).sum(1))
    np.testing.assert_allclose(overlap[:10], 1, atol=1e-4)
    few, _ = explain.patch_filters(model, 3)
    assert torch.equal(few, parts[:3])
    greatest = parts.flatten(1).abs().argmax(1, keepdim=True)
    assert (parts.flatten(1).gather(1, greatest) > 0).all()


def test_planted_filters_are_found():
    """Filters spread three times as far along one pattern as along another, around a mean."""
    model = lively()
    stripes = torch.tensor([1.0, -1, 1, -1]).repeat(3, 4, 1) / 48**0.5
    rings = torch.tensor([1.0, 1, -1, -1]).repeat(3, 4, 1) / 48**0.5
    along, across = torch.zeros(24), torch.zeros(24)
    along[:2], across[2:4] = torch.tensor([3.0, -3.0]), torch.tensor([1.0, -1.0])
    with torch.no_grad():
        model.patch_embed.proj.weight.copy_(
            7 + along[:, None, None, None] * stripes + across[:, None, None, None] * rings
        )
    parts, shares = explain.patch_filters(model, 2)
    torch.testing.assert_close(parts[0].abs(), stripes.abs(), atol=1e-5, rtol=0)
    assert abs((parts[0] * stripes).sum()) == pytest.approx(1, abs=1e-5)
    assert abs((parts[1] * rings).sum()) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(shares, torch.tensor([0.9, 0.1]), atol=1e-4, rtol=0)


# --- the model stays as it was ------------------------------------------------------------------


@of_images
@of_every_kind
def test_nothing_of_the_model_changes(show, options):
    model, images = lively(**options), small_images()
    before = model(images)
    model.train()
    model.blocks[0].eval()
    model.blocks[0].mlp.fc1.weight.requires_grad_(False)
    modes = [part.training for part in model.modules()]
    learns = [p.requires_grad for p in model.parameters()]
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    drawn = torch.random.get_rng_state()
    found = show(model, images)
    assert not found.requires_grad
    assert not images.requires_grad
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == learns
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert torch.equal(model.eval()(images), before)
    assert torch.equal(show(model, images), found)  # drop path had no part in it


def test_modes_come_back_after_an_error():
    model = lively().train()
    model.blocks[1].mlp = nn.Linear(3, 3)
    with pytest.raises(RuntimeError):
        explain.rollout(model, small_images())
    assert all(part.training for part in model.modules())


@of_images
def test_kernels_and_places_make_no_difference(show):
    """Fused or written out, frozen, inside no_grad and inference_mode: the same result."""
    images = small_images()
    plain = show(lively(), images)
    explicit = show(lively(attention_options={"kernel": "explicit"}), images)
    torch.testing.assert_close(plain, explicit, atol=1e-5, rtol=1e-4)
    frozen = lively().requires_grad_(False)
    assert torch.equal(show(frozen, images), plain)
    with torch.no_grad():
        assert torch.equal(show(frozen, images), plain)
    with torch.inference_mode():
        assert torch.equal(show(frozen, small_images()), plain)


@of_images
def test_other_sizes_and_types(show):
    model = lively()
    larger = show(model, small_images(size=(20, 8)))
    assert larger.isfinite().all()
    doubled = show(lively().double(), small_images().double())
    torch.testing.assert_close(doubled.float(), show(model, small_images()), atol=1e-4, rtol=1e-4)
    rough = show(lively().bfloat16(), small_images())
    assert rough.isfinite().all()


# --- what is refused ----------------------------------------------------------------------------


@of_images
def test_other_models_and_images_are_refused(show):
    says_in_one_sentence(TypeError, lambda: show(nn.Linear(2, 2), small_images()), "Linear")
    model = lively()
    says_in_one_sentence(TypeError, lambda: show(model, small_images().byte()), "uint8")
    says_in_one_sentence(ValueError, lambda: show(model, small_images()[0]), "(B, 3, H, W)")
    says_in_one_sentence(ValueError, lambda: show(model, small_images(channels=1)), "(B, 3, H, W)")
    says_in_one_sentence(ValueError, lambda: show(model, small_images()[:0]), "at least one")


@pytest.mark.parametrize("chosen", [True, "0", 1.0, [], [0, "1"], torch.tensor(0)])
def test_odd_numbers_of_layers_are_refused(chosen):
    model, images = lively(), small_images()
    for show in (explain.attention_maps, explain.attention_distance):
        says_in_one_sentence(TypeError, lambda show=show: show(model, images, chosen), "layers")
    heads = lambda: explain.attention_maps(model, images, heads=chosen)  # noqa: E731
    says_in_one_sentence(TypeError, heads, "heads")


@pytest.mark.parametrize("chosen", [2, -3, [0, 7]])
def test_layers_that_are_not_there_are_refused(chosen):
    model, images = lively(), small_images()
    call = lambda: explain.attention_maps(model, images, layers=chosen)  # noqa: E731
    says_in_one_sentence(ValueError, call, "layers holds", "0 to 1")


@pytest.mark.parametrize("show", [explain.relevance, explain.gradient_times_input])
def test_odd_classes_are_refused(show):
    model, images = lively(), small_images()
    for odd in (0.5, True, "cat", [0], [0, 1, 2], [[0], [1]]):
        says_in_one_sentence(TypeError, lambda odd=odd: show(model, images, odd), "classes is")
    for odd in (5, -1, [0, 9]):
        says_in_one_sentence(ValueError, lambda odd=odd: show(model, images, odd), "0 to 4")
    headless = lively(num_classes=0)
    says_in_one_sentence(ValueError, lambda: show(headless, images), "no head")


def test_matrices_that_do_not_fit_are_refused():
    model, images = lively(), small_images()
    for shape in ((13,), (12, 12), (2, 13, 12)):
        call = lambda shape=shape: explain.patch_map(model, images, torch.zeros(shape))  # noqa: E731
        says_in_one_sentence(ValueError, call, "13, 13")
    says_in_one_sentence(TypeError, lambda: explain.patch_map(model, images, None), "matrix")


def test_other_odd_input_is_refused():
    model, images = lively(), small_images()
    for odd in (1.0, -0.1, "half"):
        with pytest.raises((TypeError, ValueError), match="residual"):
            explain.rollout(model, images, odd)
    for odd in (12, -1, 0.5, None):
        with pytest.raises((TypeError, ValueError), match="patch"):
            explain.token_similarity(model, images, odd)
    bare = lively(positions="none")
    says_in_one_sentence(ValueError, lambda: explain.position_similarity(bare), "no positions")
    stem = lively(patch_embed="conv_stem")
    says_in_one_sentence(ValueError, lambda: explain.patch_filters(stem), "ConvStem")
    says_in_one_sentence(ValueError, lambda: explain.patch_filters(model, 25), "at most 24")
    for show in (explain.patch_filters, explain.position_similarity):
        says_in_one_sentence(TypeError, lambda show=show: show("vit"), "str")


def test_an_attention_that_tells_nothing_is_refused():
    @register_attention("silent")
    class Silent(Attention):
        def forward(self, x, layout=None, record=None):
            return super().forward(x, layout)

    @register_attention("gated")
    class Gated(Attention):
        def forward(self, x, layout=None, record=None):
            return super().forward(x, layout, record) * x.sigmoid()

    try:
        silent, gated = lively(attention="silent"), lively(attention="gated")
    finally:
        del ATTENTIONS["silent"], ATTENTIONS["gated"]
    for show in (explain.attention_maps, explain.rollout, explain.attention_distance):
        says_in_one_sentence(ValueError, lambda show=show: show(silent, small_images()), "Silent")
        show(gated, small_images())
    says_in_one_sentence(ValueError, lambda: explain.relevance(gated, small_images()), "Gated")
