# SPDX-License-Identifier: MIT
"""Proves `vitcore/embeddings.py`, which chapter 2 builds."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from core_helpers import largest_difference, says_in_one_sentence, small_images, small_vit

from vitbook.torchvision import import_torchvision
from vitcore import TokenLayout, resize_positions, sincos_positions_1d, sincos_positions_2d


def waves(position: float, dim: int) -> list[float]:
    """One row of the table, number by number: Vaswani et al. (2017), section 3.5."""
    speeds = [1 / 10000 ** (2 * i / dim) for i in range(dim // 2)]
    return [np.sin(position * s) for s in speeds] + [np.cos(position * s) for s in speeds]


@pytest.mark.parametrize(("length", "dim"), [(1, 2), (7, 8), (50, 6), (197, 64)])
def test_sincos_1d_agrees_with_numpy(length, dim):
    table = sincos_positions_1d(length, dim)
    assert table.dtype == torch.float32
    want = np.array([waves(n, dim) for n in range(length)])
    np.testing.assert_allclose(table.numpy(), want, atol=1e-6)


@pytest.mark.parametrize(("rows", "columns", "dim"), [(3, 4, 8), (5, 2, 16), (14, 14, 64)])
def test_sincos_2d_agrees_with_numpy(rows, columns, dim):
    table = sincos_positions_2d((rows, columns), dim)
    assert table.dtype == torch.float32
    want = np.array(
        [waves(c, dim // 2) + waves(r, dim // 2) for r in range(rows) for c in range(columns)]
    )
    np.testing.assert_allclose(table.numpy(), want, atol=1e-6)


def test_sincos_similarity_depends_on_the_distance_alone():
    table = sincos_positions_1d(20, 32)
    products = table @ table.T
    for shift in range(5):
        line = products.diagonal(shift)
        torch.testing.assert_close(line, line[:1].expand_as(line), atol=1e-4, rtol=1e-4)
    assert products[0, 0] > products[0, 1] > products[0, 2]


@pytest.mark.parametrize("prefix", [0, 1, 5])
@pytest.mark.parametrize(
    ("old", "new"),
    [((14, 14), (16, 16)), ((14, 14), (7, 7)), ((14, 14), (10, 20)), ((4, 6), (9, 2)),
     ((3, 3), (1, 1)), ((1, 1), (2, 3))],
)  # fmt: skip
def test_resize_agrees_with_timm(old, new, prefix):
    import_torchvision()
    layers = pytest.importorskip("timm.layers")
    table = torch.randn(1, prefix + old[0] * old[1], 32)
    want = layers.resample_abs_pos_embed(
        table, new_size=list(new), old_size=list(old), num_prefix_tokens=prefix
    )
    assert largest_difference(resize_positions(table, old, new, prefix), want) < 1e-5


def test_resize_keeps_a_table_of_the_same_grid():
    table = torch.randn(1, 13, 8)
    assert torch.equal(resize_positions(table, (3, 4), (3, 4), 1), table)


def test_resize_to_the_transposed_grid_is_a_resize():
    table = torch.randn(1, 12, 8)
    assert not torch.equal(resize_positions(table, (3, 4), (4, 3)), table)


def test_resize_keeps_prefix_rows_and_the_type():
    table = torch.randn(1, 14, 8, dtype=torch.bfloat16)
    resized = resize_positions(table, (3, 4), (6, 5), 2)
    assert resized.dtype == torch.bfloat16
    assert resized.shape == (1, 32, 8)
    assert torch.equal(resized[:, :2], table[:, :2])


def test_resize_keeps_a_constant_table_and_the_direction_of_a_slope():
    assert torch.allclose(resize_positions(torch.ones(1, 12, 2), (3, 4), (7, 9)), torch.ones(1))
    slope = torch.arange(4.0).repeat(3)[None, :, None]  # grows with the column
    grid = resize_positions(slope, (3, 4), (6, 8)).reshape(6, 8)
    assert (grid.diff(dim=1) > 0).all()
    torch.testing.assert_close(grid, grid[:1].expand_as(grid))


def test_gradients_reach_the_table_through_a_resize():
    table = torch.randn(1, 13, 4, requires_grad=True)
    resize_positions(table, (3, 4), (5, 5), 1).square().sum().backward()
    assert table.grad is not None
    assert (table.grad != 0).all()


def test_layout_is_a_pair():
    layout = TokenLayout((3, 4), 1)
    assert layout.grid == (3, 4)
    assert layout.prefix_tokens == 1


# -- the embedding as the model does it --------------------------------------------------------


def embedding(model, images):
    return model.forward_with(images, ["embedding"])[1]["embedding"]


@pytest.mark.parametrize(
    ("options", "prefix"),
    [
        ({}, 1),
        ({"class_token": False, "pool": "mean"}, 0),
        ({"registers": 3}, 4),
        ({"class_token": False, "pool": "mean", "registers": 2}, 2),
    ],
)
@pytest.mark.parametrize("class_position", [True, False])
def test_tokens_are_prefix_and_patches_plus_positions(options, prefix, class_position):
    model = small_vit(**options, class_position=class_position)
    images = small_images()
    tokens, _ = model.patch_embed(images)
    table = model.pos_embed
    parts = [token for token in (model.cls_token, model.reg_token) if token is not None]
    front = torch.cat([*parts, torch.zeros(1, 0, 24)], dim=1)
    assert front.shape[1] == prefix == model.config.prefix_tokens
    assert table.shape == (1, 12 + (prefix if class_position else 0), 24)
    if class_position:
        front, tokens = front + table[:, :prefix], tokens + table[:, prefix:]
    else:
        tokens = tokens + table
    want = torch.cat([front.expand(2, -1, -1), tokens], dim=1)
    torch.testing.assert_close(embedding(model, images), want)


def test_sincos_positions_are_fixed_and_the_prefix_has_none():
    model = small_vit(positions="sincos", registers=1)
    assert "pos_embed" not in dict(model.named_parameters())
    assert "pos_embed" not in model.state_dict()
    tokens, _ = model.patch_embed(small_images())
    got = embedding(model, small_images())
    torch.testing.assert_close(got[:, 2:], tokens + sincos_positions_2d((3, 4), 24))
    assert torch.equal(got[0, 0], model.cls_token[0, 0])
    assert torch.equal(got[0, 1], model.reg_token[0, 0])


@pytest.mark.parametrize("class_position", [True, False])
def test_sines_of_another_size_lie_between_those_of_the_model(class_position):
    """Chapter 2 measures that a trained model finds its way there, and not beyond its grid."""
    model = small_vit(positions="sincos", class_position=class_position)
    images = small_images(size=(36, 24))  # 9 x 6 patches for the model's 3 x 4
    tokens, _ = model.patch_embed(images)
    added = (embedding(model, images)[:, 1:] - tokens).reshape(2, 9, 6, 24)
    # Three rows of patches for each old one: the middle ones stand where the old ones stood.
    own = sincos_positions_2d((3, 4), 24).reshape(3, 4, 24)
    torch.testing.assert_close(added[0, 1::3, :, 12:], own[:, :1, 12:].expand(3, 6, 12))
    columns = (torch.arange(6) + 0.5) * 4 / 6 - 0.5
    torch.testing.assert_close(added[0, :, :, 0], columns.sin().expand(9, 6))


def test_sincos_2d_on_its_own_grid_has_whole_places():
    assert torch.equal(sincos_positions_2d((5, 7), 16, (5, 7)), sincos_positions_2d((5, 7), 16))
    coarse = sincos_positions_2d((1, 1), 8, (3, 3))  # one patch for nine stands in their middle
    assert torch.equal(coarse[0], sincos_positions_2d((3, 3), 8)[4])


@pytest.mark.parametrize("class_position", [True, False])
def test_learned_positions_are_resized_for_another_size(class_position):
    model = small_vit(class_position=class_position)
    images = small_images(size=(16, 12))  # as many patches as before, in another grid
    tokens, _ = model.patch_embed(images)
    table = resize_positions(model.pos_embed, (3, 4), (4, 3), int(class_position))
    want = tokens + table[:, int(class_position) :]
    torch.testing.assert_close(embedding(model, images)[:, 1:], want)


def test_without_positions_nothing_is_added():
    model = small_vit(positions="none")
    tokens, _ = model.patch_embed(small_images())
    assert model.pos_embed is None
    assert torch.equal(embedding(model, small_images())[:, 1:], tokens)


@pytest.mark.parametrize("positions", ["learned", "sincos", "none"])
@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_shuffled_patches(positions, pool):
    """Without positions the logits are the same for shuffled patches, with them they are not."""
    from vitcore import patchify, unpatchify

    model = small_vit(positions=positions, pool=pool)
    images = small_images()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = unpatchify(patchify(images, 4)[:, order], 4, (12, 16))
    same = torch.allclose(model(images), model(shuffled), atol=1e-6)
    assert same == (positions == "none")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sincos_positions_1d(4, 7), ("dim is 7", "even")),
        (lambda: sincos_positions_1d(0, 8), ("length is 0",)),
        (lambda: sincos_positions_1d(4, -2), ("dim is -2",)),
        (lambda: sincos_positions_2d((3, 4), 6), ("dim is 6", "divisible by 4")),
        (lambda: sincos_positions_2d((3, 4), 2), ("dim is 2", "divisible by 4")),
        (lambda: sincos_positions_2d((0, 4), 8), ("rows", 0)),
        (lambda: sincos_positions_2d((3, -4), 8), ("columns", -4)),
        (lambda: small_vit(positions="sincos", dim=6), ("dim is 6", "positions='learned'")),
        (lambda: resize_positions(torch.zeros(1, 12, 8), (3, 4), (6, 8), 1), ("(1, 12, 8)", 13)),
        (
            lambda: resize_positions(torch.zeros(1, 12, 8), (3, 3), (6, 8)),
            ("(1, 12, 8)", "(1, 9, D)"),
        ),
        (lambda: resize_positions(torch.zeros(2, 12, 8), (3, 4), (6, 8)), ("(2, 12, 8)",)),
        (lambda: resize_positions(torch.zeros(12), (3, 4), (6, 8)), ("(12,)",)),
        (lambda: resize_positions(torch.zeros(1, 1, 3, 4), (3, 4), (6, 8)), ("(1, 1, 3, 4)",)),
        (lambda: resize_positions(torch.zeros(1, 12, 8), (3, 4), (0, 8)), ("(0, 8)",)),
        (lambda: resize_positions(torch.zeros(1, 11, 8), (3, 4), (6, 8), -1), ("prefix", -1)),
    ],
)
def test_values_that_do_not_fit(call, words):
    says_in_one_sentence(ValueError, call, *words)


def test_sizes_of_numpy_and_lists_as_grids():
    assert torch.equal(sincos_positions_1d(np.int64(4), np.int64(8)), sincos_positions_1d(4, 8))
    table = sincos_positions_2d((3, 4), 8)[None]
    assert torch.equal(sincos_positions_2d([np.int64(3), np.int64(4)], np.int64(8)), table[0])
    want = resize_positions(table, (3, 4), (6, 5))
    assert torch.equal(resize_positions(table, [3, 4], (np.int64(6), 5), np.int64(0)), want)
    assert resize_positions(table, [3, 4], (3, np.int64(4))) is table


def test_a_sincos_table_of_another_type():
    """Another grid is computed in float64 first, and only then brought to the model's type."""
    for kind in (torch.float16, torch.float64):
        model = small_vit(positions="sincos").to(kind)
        assert model.positions_for((3, 4)).dtype == model.positions_for((5, 2)).dtype == kind
        want = sincos_positions_2d((5, 2), 24, (3, 4)).to(kind)
        assert torch.equal(model.positions_for((5, 2))[0, 1:], want)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: sincos_positions_2d(2.5, 8), ("grid", "2.5")),
        (lambda: sincos_positions_2d((3, "4"), 8), ("(3, '4')",)),
        (lambda: resize_positions([[1.0]], (1, 1), (2, 2)), ("position table is a list",)),
        (lambda: resize_positions(torch.ones(4, 8).long(), (2, 2), (3, 3)), ("int64",)),
        (lambda: resize_positions(torch.ones(4, 8), None, (3, 3)), ("old_grid is None",)),
        (lambda: resize_positions(torch.ones(4, 8), (2, 2), 3.0), ("new_grid is 3.0",)),
        (lambda: resize_positions(torch.ones(4, 8), (2, 2), (3, 3), 0.5), ("prefix_tokens",)),
    ],
)
def test_grids_and_tables_that_do_not_fit(call, words):
    says_in_one_sentence(TypeError, call, *words)


def test_types_that_do_not_fit():
    says_in_one_sentence(TypeError, lambda: sincos_positions_1d(4.0, 8), "length is 4.0")
    says_in_one_sentence(TypeError, lambda: sincos_positions_2d((3, 4), "8"), "dim is '8'")


def test_the_oracle_for_resizing_is_not_trivial():
    """The ways of resizing that other libraries chose give other numbers."""
    table = torch.randn(1, 16, 4)
    grid = table.reshape(1, 4, 4, 4).permute(0, 3, 1, 2)
    ours = resize_positions(table, (4, 4), (3, 3))
    for how in ({"mode": "bicubic"}, {"mode": "bicubic", "align_corners": True},
                {"mode": "bilinear", "antialias": True}):  # fmt: skip
        other = F.interpolate(grid, size=(3, 3), **how).permute(0, 2, 3, 1).reshape(1, 9, 4)
        assert largest_difference(ours, other) > 0.01
