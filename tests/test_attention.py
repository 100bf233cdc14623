# SPDX-License-Identifier: MIT
"""Proves `vitcore/attention.py`, which chapter 3 builds."""

# wrong types are given on purpose
# mypy: ignore-errors
from __future__ import annotations

import math

import pytest
import torch
from core_helpers import randomise, says_in_one_sentence, small_images, small_vit
from torch import nn

from vitcore import ATTENTIONS, Attention, ViT, register_attention
from vitcore.attention import attention_weights, explicit_attention, keep


def lively(dim: int = 24, heads: int = 3, **options) -> Attention:
    module = Attention(dim, heads, **options)
    randomise(module)
    return module.eval()


def tokens(count: int = 7, batch: int = 3, dim: int = 24) -> torch.Tensor:
    return torch.randn(batch, count, dim, generator=torch.Generator().manual_seed(2))


def test_weights_by_hand():
    """One query and two keys whose scores differ by ln 3: the weights are 3/4 and 1/4."""
    q = torch.tensor([[2.0, 0, 0, 0]])
    k = torch.tensor([[math.log(3), 0, 0, 0], [0.0, 5, 5, 5]])
    torch.testing.assert_close(attention_weights(q, k), torch.tensor([[0.75, 0.25]]))
    v = torch.tensor([[4.0, 0, 0, 4], [8.0, 0, 4, 0]])
    torch.testing.assert_close(explicit_attention(q, k, v), torch.tensor([[5.0, 0, 1, 3]]))


def test_rows_of_the_weights_sum_to_one():
    weights = lively().weights(tokens())
    assert weights.shape == (3, 3, 7, 7)
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 3, 7))
    assert (weights.sum(-2) - 1).abs().max() > 0.1


@pytest.mark.parametrize("heads", [1, 2, 3, 8, 24])
@pytest.mark.parametrize("bias", [True, False])
def test_fused_and_explicit_agree(heads, bias):
    fused = lively(24, heads, qkv_bias=bias, kernel="fused")
    explicit = lively(24, heads, qkv_bias=bias, kernel="explicit")
    explicit.load_state_dict(fused.state_dict())
    x = tokens().requires_grad_()
    a, b = fused(x), explicit(x)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    slope = torch.randn_like(a)
    (from_fused,) = torch.autograd.grad((a * slope).sum(), x)
    (from_explicit,) = torch.autograd.grad((b * slope).sum(), x)
    torch.testing.assert_close(from_fused, from_explicit, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kernel", ["auto", "fused", "explicit"])
def test_weights_are_those_that_were_used(kernel):
    module = lively(kernel=kernel)
    record = {"attention": None, "v": None}
    out = module(tokens(), record=record)
    mixed = (record["attention"] @ record["v"]).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module.proj(mixed), out, atol=1e-5, rtol=1e-5)
    assert torch.equal(record["attention"], module.weights(tokens()))


def test_agrees_with_torch_multihead_attention():
    ours, theirs = lively(), nn.MultiheadAttention(24, 3, batch_first=True).eval()
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.qkv.weight,
            "in_proj_bias": ours.qkv.bias,
            "out_proj.weight": ours.proj.weight,
            "out_proj.bias": ours.proj.bias,
        }
    )
    x = tokens()
    want, weights = theirs(x, x, x, average_attn_weights=False)
    torch.testing.assert_close(ours(x), want, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.weights(x), weights, atol=1e-6, rtol=1e-5)


def test_equivariant_under_permutations():
    module, x = lively(), tokens()
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order])
    weights = module.weights(x)
    torch.testing.assert_close(module.weights(x[:, order]), weights[:, :, order][:, :, :, order])


def test_images_do_not_see_each_other():
    module, x = lively(), tokens()
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]))
    changed = x.clone()
    changed[0] += 1
    assert torch.equal(module(changed)[1:], module(x)[1:])


def test_a_batch_as_large_as_the_sequence():
    """Where B = N the axes cannot be told apart by shape, so the numbers must tell."""
    module, x = lively(), tokens(5, 5)
    torch.testing.assert_close(module(x), torch.cat([module(one[None]) for one in x]))


def test_equal_values_come_back():
    module = lively()
    with torch.no_grad():
        module.qkv.weight[48:] = 0
        module.qkv.bias[48:] = torch.arange(24.0)
    want = module.proj(torch.arange(24.0)).expand(3, 7, 24)
    torch.testing.assert_close(module(tokens()), want, atol=1e-4, rtol=1e-4)


def test_the_automatic_choice_is_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(
        "vitcore.attention.explicit_attention", lambda q, k, v, bias: taken.append(q.dtype) or v
    )
    module = lively()
    module(tokens())
    module.double()(tokens().double())
    module.bfloat16().to("meta")(tokens().bfloat16().to("meta"))
    assert taken == []
    module = lively()
    module.bfloat16()(tokens().bfloat16())
    assert taken == [torch.bfloat16]
    lively(kernel="explicit")(tokens())
    assert taken == [torch.bfloat16, torch.float32]
    module.kernel = "fused"
    module(tokens().bfloat16())
    assert len(taken) == 2


def test_bfloat16_stays_near_float32():
    module, x = lively(), tokens()
    want = module(x)
    got = module.bfloat16()(x.bfloat16())
    assert got.dtype == torch.bfloat16
    assert (got.float() - want).abs().max() < 0.1 * want.abs().max()


def test_only_what_is_asked_for_is_kept():
    record = {"q": None}
    lively()(tokens(), record=record)
    assert set(record) == {"q"}
    assert record["q"].shape == (3, 3, 7, 8)
    keep(None, q=torch.zeros(1))


def test_no_bias_where_none_is_wanted():
    assert Attention(8, 2, qkv_bias=False).qkv.bias is None
    assert Attention(8, 2).qkv.bias.shape == (24,)
    assert small_vit(qkv_bias=False).blocks[0].attn.qkv.bias is None


def test_another_attention_takes_its_place_by_name():
    seen = []
    try:

        @register_attention("test-windowed")
        class Windowed(Attention):
            def __init__(self, dim, heads, qkv_bias=True, window=1):
                super().__init__(dim, heads, qkv_bias)
                self.window = window

            def forward(self, x, layout=None, record=None):
                seen.append((layout.grid, layout.prefix_tokens, self.window))
                return super().forward(x, layout, record)

        options = {"attention": "test-windowed", "attention_options": {"window": 3}}
        model = small_vit(registers=2, **options)
        model(small_images())
        assert seen == [((3, 4), 3, 3)] * 2
        again = ViT(model.config.from_dict(model.config.to_dict()))
        assert isinstance(again.blocks[1].attn, Windowed)
        assert again.blocks[1].attn.window == 3
    finally:
        ATTENTIONS.pop("test-windowed", None)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Attention(10, 3), ("dim 10", "3 heads", "divisor")),
        (lambda: Attention(7, 8), ("dim 7", "8 heads")),
        (lambda: Attention(0, 1), ("dim is 0",)),
        (lambda: Attention(8, 0), ("heads is 0",)),
        (lambda: Attention(8, -2), ("heads is -2",)),
        (lambda: Attention(8, 2, kernel="flash"), ("'flash'", "'fused'", "'explicit'")),
        (lambda: small_vit(heads=5), ("dim 24", "5 heads")),
        (lambda: small_vit(attention="local"), ("'local'", "global")),
    ],
)
def test_values_that_do_not_fit(call, words):
    says_in_one_sentence(ValueError, call, *words)


@pytest.mark.parametrize(
    ("shapes", "word"),
    [
        (((2, 5, 4), (2, 5, 3)), "(2, 5, 3)"),
        (((2, 5, 4), (3, 5, 4)), "(3, 5, 4)"),
        (((2, 5, 4), (2, 6, 4), (2, 5, 4)), "(2, 6, 4)"),
        (((5, 4), (4,)), "(4,)"),
        (((5, 0), (5, 0)), "(5, 0)"),
        (((5, 4), (5, 4), (4,)), "(4,)"),
    ],
)
def test_heads_that_do_not_fit_each_other(shapes, word):
    function = attention_weights if len(shapes) == 2 else explicit_attention
    says_in_one_sentence(ValueError, lambda: function(*map(torch.zeros, shapes)), word)


@pytest.mark.parametrize("method", [lively(), lively().weights, lively().split])
def test_tokens_that_do_not_fit(method):
    for shape in ((2, 5, 23), (5, 24), (24,), (1, 2, 5, 24), ()):
        says_in_one_sentence(ValueError, lambda shape=shape: method(torch.zeros(shape)), shape)
    for x in ([1.0], None, torch.zeros(2, 5, 24).long(), torch.zeros(2, 5, 24).double()):
        says_in_one_sentence(TypeError, lambda x=x: method(x), "x is")
    elsewhere = torch.zeros(2, 5, 24, device="meta")
    says_in_one_sentence(ValueError, lambda: method(elsewhere), "meta", "cpu")


def test_a_class_that_cannot_be_made_as_the_model_does():
    for name in (Attention, None, 3):
        says_in_one_sentence(TypeError, lambda name=name: register_attention(name), "to register")
    for cls in (lively(), lambda: None, dict):
        says_in_one_sentence(TypeError, lambda cls=cls: register_attention("test-x")(cls), "class")
    assert "test-x" not in ATTENTIONS
    register_attention("test-x")(nn.LeakyReLU)
    try:
        says_in_one_sentence(TypeError, lambda: small_vit(attention="test-x"), "LeakyReLU", "bias")
    finally:
        ATTENTIONS.pop("test-x")


def test_types_that_do_not_fit():
    says_in_one_sentence(TypeError, lambda: Attention(8, 2, qkv_bias=1), "qkv_bias is 1")
    says_in_one_sentence(ValueError, lambda: Attention(8, 2, kernel=["fused"]), "['fused']")
    says_in_one_sentence(TypeError, lambda: attention_weights(torch.zeros(5, 4), 3), "k is")
    q = torch.zeros(5, 4)
    says_in_one_sentence(TypeError, lambda: attention_weights(q, q.double()), "float64")
    says_in_one_sentence(TypeError, lambda: explicit_attention(q, q, q.half()), "float16")
    says_in_one_sentence(TypeError, lambda: Attention(8.0, 2), "dim is 8.0")
    says_in_one_sentence(TypeError, lambda: Attention(8, "2"), "heads is '2'")
