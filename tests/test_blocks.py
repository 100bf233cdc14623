# SPDX-License-Identifier: MIT
"""Proves `vitcore/blocks.py`, which chapter 4 builds."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from core_helpers import randomise, says_in_one_sentence, small_vit
from torch import nn

from vitcore import Block, DropPath, LayerScale, Mlp
from vitcore.attention import Attention


def lively(**options) -> Block:
    block = Block(24, 3, **options)
    randomise(block)
    return block.eval()


def tokens(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 5, 24, generator=torch.Generator().manual_seed(3))


def test_mlp_is_linear_exact_gelu_linear():
    mlp = Mlp(6, 10)
    randomise(mlp)
    x = 3 * torch.randn(4, 5, 6)
    hidden = x @ mlp.fc1.weight.T + mlp.fc1.bias
    hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(x), hidden @ mlp.fc2.weight.T + mlp.fc2.bias)
    approximate = mlp.fc2(F.gelu(mlp.fc1(x), approximate="tanh"))
    assert (mlp(x) - approximate).abs().max() > 1e-5


def test_the_block_is_the_two_equations():
    """Dosovitskiy et al. (2021), equations 2 and 3."""
    block = lively(layer_scale=0.1)
    x = tokens()
    norm1 = F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, 1e-6)
    middle = x + block.ls1.gamma * block.attn(norm1)
    norm2 = F.layer_norm(middle, (24,), block.norm2.weight, block.norm2.bias, 1e-6)
    torch.testing.assert_close(block(x), middle + block.ls2.gamma * block.mlp(norm2))


@pytest.mark.parametrize("layer_scale", [None, 0.5])
def test_identity_where_the_branches_are_zero(layer_scale):
    block = lively(layer_scale=layer_scale)
    for layer in (block.attn.proj, block.mlp.fc2):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    assert torch.equal(block(tokens()), tokens())


def test_identity_where_layer_scale_is_zero():
    block = lively(layer_scale=0.5)
    nn.init.zeros_(block.ls1.gamma)
    nn.init.zeros_(block.ls2.gamma)
    assert torch.equal(block(tokens()), tokens())


def test_a_model_with_zero_branches_is_the_model_without_blocks():
    model = randomise(small_vit())
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
    images = torch.randn(2, 3, 12, 16)
    with_blocks = model(images)
    model.blocks = nn.ModuleList()
    assert torch.equal(with_blocks, model(images))


def test_norms_have_the_published_eps():
    model = small_vit(pool_norm="after")
    assert {m.eps for m in model.modules() if isinstance(m, nn.LayerNorm)} == {1e-6}


def test_layer_scale_and_block_can_be_reset():
    scale = LayerScale(4, 0.1)
    nn.init.zeros_(scale.gamma)
    scale.reset_parameters()
    assert torch.equal(scale.gamma, torch.full((4,), 0.1))


def test_layer_scale():
    scale = LayerScale(4, 0.1)
    assert torch.equal(scale.gamma, torch.full((4,), 0.1))
    assert torch.equal(LayerScale(4).gamma, torch.full((4,), 1e-5))
    with torch.no_grad():
        scale.gamma.copy_(torch.arange(4.0))
    assert torch.equal(scale(torch.ones(2, 3, 4)), torch.arange(4.0).expand(2, 3, 4))
    model = small_vit(layer_scale=0.3)
    assert torch.equal(model.blocks[1].ls2.gamma, torch.full((24,), 0.3))
    assert isinstance(small_vit().blocks[0].ls1, nn.Identity)


def test_drop_path_takes_whole_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.25).train()
    out = drop(torch.ones(20000, 2, 3))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))
    values = out[:, 0, 0].unique()
    torch.testing.assert_close(values, torch.tensor([0.0, 4 / 3]))
    assert abs(out.mean().item() - 1) < 0.02
    assert DropPath(0.25).train()(torch.ones(8)).shape == (8,)


def test_drop_path_rests_when_evaluating():
    x = torch.randn(100, 3)
    assert torch.equal(DropPath(0.9).eval()(x), x)
    assert torch.equal(DropPath(0.0).train()(x), x)


def test_drop_path_of_a_block_leaves_the_input():
    torch.manual_seed(0)
    block = lively(drop_path=0.5).train()
    x = tokens(64)
    untouched = (block(x) == x).all(dim=2).all(dim=1).float().mean()
    assert 0.1 < untouched < 0.4  # both branches are left out for a quarter of the images


def test_drop_path_grows_linearly_with_depth():
    model = small_vit(depth=5, drop_path=0.2)
    rates = [block.drop_path1.rate for block in model.blocks]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])
    assert rates == [block.drop_path2.rate for block in model.blocks]
    assert small_vit(depth=1, drop_path=0.2).blocks[0].drop_path1.rate == 0


def test_record_takes_what_the_branches_add():
    block = lively()
    record = dict.fromkeys(["attn_out", "mlp_out", "tokens", "q"])
    x = tokens()
    out = block(x, record=record)
    assert torch.equal(record["tokens"], out)
    torch.testing.assert_close(x + record["attn_out"] + record["mlp_out"], out)
    torch.testing.assert_close(record["attn_out"], block.attn(block.norm1(x)))
    assert record["q"].shape == (2, 3, 5, 8)


def test_options_reach_the_parts():
    block = Block(24, 3, mlp_ratio=1.5, qkv_bias=False, attention_options={"kernel": "explicit"})
    assert block.mlp.fc1.out_features == 36
    assert isinstance(block.attn, Attention)
    assert block.attn.kernel == "explicit"
    assert block.attn.qkv.bias is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DropPath(1.0), ("drop_path is 1.0", "from 0")),
        (lambda: DropPath(-0.1), ("drop_path is -0.1",)),
        (lambda: small_vit(drop_path=1.5), ("drop_path is 1.5",)),
        (lambda: small_vit(drop_path=float("nan")), ("drop_path is nan",)),
        (lambda: Block(24, 3, mlp_ratio=0), ("mlp_ratio is 0", "positive")),
        (lambda: Block(24, 3, mlp_ratio=-1.0), ("mlp_ratio is -1.0",)),
        (lambda: Block(24, 3, attention="nearby"), ("'nearby'", "global")),
        (lambda: Block(24, 5), ("dim 24", "5 heads")),
        (lambda: Block(0, 1), ("dim is 0",)),
        (lambda: Block(24, 3)(torch.zeros(5, 24)), ("(5, 24)", "(B, N, 24)")),
        (lambda: Block(24, 3)(torch.zeros(1, 5, 23)), ("(1, 5, 23)", "24")),
        (lambda: Mlp(4, 8)(torch.zeros(2, 5)), ("(2, 5)", "(..., 4)")),
        (lambda: LayerScale(4)(torch.zeros(2, 1)), ("(2, 1)", "(..., 4)")),
        (lambda: DropPath(0.5)(torch.tensor(1.0)), ("shape ()",)),
        (lambda: LayerScale(4, float("inf")), ("layer_scale is inf",)),
        (lambda: Mlp(0, 4), ("dim is 0",)),
        (lambda: Mlp(4, 0), ("hidden_dim is 0",)),
    ],
)
def test_values_that_do_not_fit(call, words):
    says_in_one_sentence(ValueError, call, *words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: LayerScale(24.5), ("dim is 24.5",)),
        (lambda: Block(24, 3, attention_options=3), ("attention_options is 3",)),
        (lambda: Block(24, 3, qkv_bias=2), ("qkv_bias is 2",)),
        (lambda: Block(24, 3)(3), ("x is a int",)),
        (lambda: Block(24, 3)(torch.zeros(1, 5, 24).double()), ("float64", "float32")),
        (lambda: Mlp(4, 8)("x"), ("x is a str",)),
        (lambda: LayerScale(4)([1]), ("x is a list",)),
        (lambda: DropPath(0.5)(None), ("x is a NoneType",)),
        (lambda: DropPath(0.5)(torch.ones(3).long()), ("int64",)),
        (lambda: DropPath("0.1"), ("drop_path is '0.1'",)),
        (lambda: DropPath(None), ("drop_path is None",)),
        (lambda: Mlp(4, 2.5), ("hidden_dim is 2.5",)),
        (lambda: Block(24, 3, mlp_ratio="4"), ("mlp_ratio is '4'",)),
        (lambda: Block(24, 3, layer_scale="small"), ("layer_scale is 'small'",)),
    ],
)
def test_types_that_do_not_fit(call, words):
    says_in_one_sentence(TypeError, call, *words)
