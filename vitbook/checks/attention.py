# SPDX-License-Identifier: MIT
"""Checks of chapter 3: softmax, scaled dot-product attention and its heads."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .frame import (
    CheckFailed,
    call,
    check,
    compare,
    compare_counts,
    first_of,
    images_for,
    lively,
    need,
    parts_of,
    same_values,
)

_QUERIES = (
    "the softmax runs over the queries: the weights with which one query takes from all keys must "
    "sum to one"
)
_UNSCALED = "the scores are not divided by anything: they grow with the size of a head"


def _wrong_weights(q: Tensor, k: Tensor) -> list[tuple[str, Tensor]]:
    """What mistakes in (B, h, N, d) queries and keys do to the weights (B, h, N, N)."""
    heads, size = q.shape[1], q.shape[-1]
    raw = q @ k.transpose(-2, -1)
    scaled = raw / math.sqrt(size)
    wrong = [
        (_UNSCALED, raw.softmax(-1)),
        (
            "the scores are divided by d itself: dot products of d numbers do not grow that fast",
            (raw / size).softmax(-1),
        ),
        (
            "the scores are divided by D, the width of all heads together, and without a root",
            (raw / (heads * size)).softmax(-1),
        ),
        (
            "the scores are divided by the root of D, the width of all heads together",
            (raw / math.sqrt(heads * size)).softmax(-1),
        ),
        ("the scores are multiplied where they should be divided",
         (raw * math.sqrt(size)).softmax(-1)),
        ("the scores are divided after the softmax", raw.softmax(-1) / math.sqrt(size)),
        (_QUERIES, scaled.softmax(-2)),
        (_QUERIES + "; and nothing is divided by the root of d", raw.softmax(-2)),
        ("queries and keys have exchanged their roles", scaled.transpose(-2, -1).softmax(-1)),
        ("there is no softmax: these are still scores", scaled),
        ("there is no softmax: these are still scores", raw),
    ]  # fmt: skip
    if heads > 1:
        wrong.append(("the softmax runs over the heads", scaled.softmax(1)))
    if q.shape[0] > 1:
        wrong.append(("the softmax runs over the images of the batch", scaled.softmax(0)))
    return wrong


def _wrong_attention(q: Tensor, k: Tensor, v: Tensor) -> list[tuple[str, Tensor]]:
    weights = (q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])).softmax(-1)
    return [(message, bad @ v) for message, bad in _wrong_weights(q, k)] + [
        ("the weights came back: the values are not used", weights),
        ("the weights were applied to the keys, not to the values", weights @ k),
        ("the weights were applied to the queries, not to the values", weights @ q),
        ("the weights were transposed before they met the values", weights.transpose(-2, -1) @ v),
        ("the values came back as they were: the weights are not used", v),
    ]


@check("every row is positive and sums to one, also for large scores")
def check_softmax_rows(softmax: Callable[[Tensor], Tensor]) -> None:
    """``softmax(scores (..., N, N)) -> (..., N, N)``, over the last axis, also for large scores."""
    scores = torch.randn(2, 4, 5, 5)
    powers = scores.exp()
    wrong = [
        ("the columns sum to one, not the rows", scores.softmax(-2)),
        ("all entries of a matrix together sum to one, not each row",
         scores.flatten(2).softmax(-1).view_as(scores)),
        ("all entries of the tensor together sum to one, not each row", powers / powers.sum()),
        ("the exponentials are not divided by their sum", powers),
        ("the scores are divided by their sum, without the exponential",
         scores / scores.sum(-1, keepdim=True)),
        ("the sum runs over the heads", scores.softmax(1)),
    ]  # fmt: skip
    compare(call(softmax, scores), scores.softmax(-1), wrong, "each row must sum to one")
    large = 1000 * scores[:1]
    if not torch.isfinite(call(softmax, large)).all():
        raise CheckFailed(
            "right for small scores, but a score of 1000 makes the exponential overflow: "
            "what can be taken from a whole row without changing its softmax?"
        )
    compare(call(softmax, large), large.softmax(-1), [], "large scores come out wrong")


@check("the weights of each query over the keys sum to one and are scaled right")
def check_attention_weights(weights: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``weights(q, k) -> (B, h, N, N)`` for q and k (B, h, N, d): rows sum to one over the keys."""
    q, k = torch.randn(2, 3, 5, 16), torch.randn(2, 3, 5, 16)
    want = (q @ k.transpose(-2, -1) / 4).softmax(-1)
    compare(
        call(weights, q, k), want, _wrong_weights(q, k),
        "entry (i, j) says how much query i takes from key j",
    )  # fmt: skip


@check("attention agrees with torch's own kernel")
def check_scaled_attention(attention: Callable[[Tensor, Tensor, Tensor], Any]) -> None:
    """``attention(q, k, v) -> (B, h, N, d)`` for (B, h, N, d) each; of a tuple the first."""
    for shape in ((2, 3, 5, 16), (2, 2, 6, 4)):
        q, k, v = torch.randn(3, *shape)
        compare(
            first_of(call(attention, q, k, v)),
            F.scaled_dot_product_attention(q, k, v),
            _wrong_attention(q, k, v),
            "each query takes a weighted mean of the values",
        )


@check("each head holds its own channels of every token")
def check_split_heads(split: Callable[[Tensor, int], Tensor]) -> None:
    """``split(tokens (B, N, D), heads) -> (B, h, N, d)``; head i holds channels i*d to (i+1)*d."""
    tokens = torch.randn(2, 5, 12)
    wrong = [
        ("the heads were cut out of the tokens as they lie in memory: a head then holds some "
         "tokens with all channels, not all tokens with some channels",
         tokens.reshape(2, 3, 5, 4)),
        ("a head takes every third channel: its channels should lie side by side",
         rearrange(tokens, "b n (d h) -> b h n d", h=3)),
        ("the heads do not stand in front of the tokens yet", tokens.reshape(2, 5, 3, 4)),
        ("the number of heads and the channels of a head are exchanged",
         rearrange(tokens, "b n (h d) -> b h n d", d=3)),
        ("tokens and channels are exchanged", rearrange(tokens, "b n (h d) -> b h d n", h=3)),
    ]  # fmt: skip
    want = rearrange(tokens, "b n (h d) -> b h n d", h=3)
    compare(call(split, tokens, 3), want, wrong, "3 heads share 12 channels")


_UNMERGED = (
    "the heads were merged without bringing a token's channels together first: each output row "
    "mixes several tokens"
)


@check("each token has the channels of all heads side by side")
def check_merge_heads(merge: Callable[[Tensor], Tensor]) -> None:
    """``merge(heads (B, h, N, d)) -> (B, N, D)``, the inverse of splitting."""
    heads = torch.randn(2, 3, 5, 4)
    wrong = [
        (_UNMERGED, heads.reshape(2, 5, 12)),
        ("the channels of different heads alternate: those of one head should lie side by side",
         rearrange(heads, "b h n d -> b n (d h)")),
        ("the heads are still apart", heads.transpose(1, 2)),
        ("the heads were added, where they stand side by side", heads.sum(1)),
        ("the heads were averaged, where they stand side by side", heads.mean(1)),
    ]  # fmt: skip
    want = rearrange(heads, "b h n d -> b n (h d)")
    compare(call(merge, heads), want, wrong, "5 tokens of 12 channels are expected")


def _head_count(module: Any) -> int:
    for name in ("heads", "num_heads"):
        if isinstance(getattr(module, name, None), int):
            return cast(int, getattr(module, name))
    raise CheckFailed(f"{type(module).__name__} has no .heads: the check reads their number there")


@check("multi-head attention agrees with torch's own for the same weights")
def check_multi_head(attention: Any) -> None:
    """Multi-head attention equals torch's kernel for the same weights.

    ``attention`` is a module with ``.qkv``, ``.proj`` and ``.heads``, a class made as
    ``attention(24, 3)``, or a model, each of whose blocks is then judged.
    """
    for part in parts_of(attention, "attn"):
        _judge_multi_head(part)


def _judge_multi_head(attention: Any) -> None:
    need(attention, "qkv", "proj")
    heads, module = _head_count(attention), lively(attention)
    dim = module.qkv.in_features
    tokens = torch.randn(3, 5, dim)

    def attend(pattern: str, tokens: Tensor = tokens) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = rearrange(module.qkv(tokens), f"b n ({pattern}) -> three b h n d",
                            three=3, h=heads)  # fmt: skip
        return q, k, v

    def out(mixed: Tensor) -> Tensor:
        return cast(Tensor, module.proj(rearrange(mixed, "b h n d -> b n (h d)")))

    q, k, v = attend("three h d")
    mixed = F.scaled_dot_product_attention(q, k, v)
    merged = rearrange(mixed, "b h n d -> b n (h d)")
    crossed = out(F.scaled_dot_product_attention(*attend("three h d", tokens.transpose(0, 1))))
    wrong = [
        (message, out(bad)) for message, bad in _wrong_attention(q, k, v) if bad.shape == v.shape
    ] + [
        (_UNMERGED, module.proj(mixed.reshape(tokens.shape))),
        ("the channels of different heads alternate after merging",
         module.proj(rearrange(mixed, "b h n d -> b n (d h)"))),
        ("the output is not projected", merged),
        ("the bias of the output projection is left out", F.linear(merged, module.proj.weight)),
        ("it attends across the batch: token n of one image looks at token n of the others",
         crossed.transpose(0, 1)),
        ("the three parts of qkv are read head by head: the order is all q, all k, all v",
         out(F.scaled_dot_product_attention(*attend("h three d")))),
        ("a head takes every h-th channel: its channels should lie side by side",
         out(F.scaled_dot_product_attention(*attend("three d h")))),
        *(("the three parts of qkv are read in another order than q, k, v",
           out(F.scaled_dot_product_attention(a, b, c)))
          for a, b, c in list(permutations((q, k, v)))[1:]),
        ("there is one head over all channels, where there should be several",
         module.proj(F.scaled_dot_product_attention(*module.qkv(tokens).chunk(3, dim=-1)))),
    ]  # fmt: skip
    compare(
        first_of(call(module, tokens)), module.proj(merged), wrong,
        f"attention with {heads} heads differs from torch's for the same weights",
    )  # fmt: skip


@check("every query's weights over the keys sum to one")
def check_attention_rows(attention: Any) -> None:
    """Where all values are equal, attention must return them: the weights of a query sum to one.

    ``attention`` is a module with ``.qkv`` and ``.proj``, a class made as ``attention(24, 3)``,
    or a model, each of whose blocks is judged.
    """
    for part in parts_of(attention, "attn"):
        need(part, "qkv", "proj")
        module = lively(part)
        dim = module.qkv.in_features
        tokens = 2 * torch.randn(2, 7, dim)
        if module.qkv.bias is None:
            module.qkv.bias = nn.Parameter(torch.zeros(3 * dim))
        with torch.no_grad():  # the value of every token becomes the vector of ones
            module.qkv.weight[2 * dim :] = 0
            module.qkv.weight[: 2 * dim] *= 2
            module.qkv.bias[2 * dim :] = 1
        want = module.proj(torch.ones_like(tokens))
        if not same_values(first_of(call(module, tokens)), want):
            raise CheckFailed(
                "all values are the same, and yet attention does not return them: a query's "
                "weights over the keys do not sum to one. Over which axis does the softmax "
                "run?"
            )


@check("the output for an image does not depend on the others in its batch")
def check_independent_of_batch(model: Any, images: Tensor | None = None) -> None:
    """What comes out for one image must not change with the others of its batch.

    ``model`` is a model, an attention, a block, or any function of (B, ...); ``images`` are what it
    takes, random unless given.
    """
    module = lively(model) if isinstance(model, nn.Module) else model
    if images is None and hasattr(model, "qkv"):
        images = torch.randn(4, 6, model.qkv.in_features)
    elif images is None and hasattr(model, "attn"):
        images = torch.randn(4, 6, model.attn.qkv.in_features)
    elif images is None and not isinstance(model, nn.Module):
        images = torch.randn(4, 6, 8)
    images = images_for(model, images)
    # in a model with a class token attention across the batch can leave the logits the same for
    # every image, since class tokens then see class tokens alone: all tokens are looked at
    run = getattr(module, "forward_features", module)
    whole = first_of(call(run, images))
    others = torch.cat([images[:1], torch.randn_like(images[1:])])
    alone, mixed = first_of(call(run, images[:1])), first_of(call(run, others))
    if whole.shape[0] != images.shape[0] or alone.shape[0] != 1:
        raise CheckFailed(
            f"{images.shape[0]} images went in and {whole.shape[0]} came out: the first axis "
            "is the batch"
        )
    if not (same_values(whole[:1], alone) and same_values(whole[:1], mixed[:1])):
        raise CheckFailed(
            "what comes out for one image changes with the other images of its batch: does "
            "attention take the batch axis for the tokens (an nn.MultiheadAttention expects "
            "the tokens first), or does a norm or a mean run over the batch?"
        )
    result = first_of(call(module, images))
    if same_values(result, result[:1].expand_as(result)):
        raise CheckFailed("the same comes out for every image: nothing of the image is read")


@check("four linear maps and two products of N by N")
def check_attention_cost(count: Callable[[int, int, int], int]) -> None:
    """``count(tokens, dim, heads) -> int``, the multiplications of one layer for one image."""
    cases = ((16, 64, 4), (197, 768, 12), (10, 6, 1))

    def each(maps: float, products: float, rule: str = "") -> list[float]:
        factors = {"": lambda h: 1, "h times": lambda h: h, "one head": lambda h: 1 / h}[rule]
        return [maps * n * d * d + products * n * n * d * factors(h) for n, d, h in cases]

    wrong = [
        ("the output projection is missing", each(3, 2)),
        ("queries, keys and values are three maps, not one", each(2, 2)),
        ("the four linear maps are missing", each(0, 2)),
        ("of the two N by N products, scores and weighted sum, only one is counted", each(4, 1)),
        ("the two N by N products are missing", each(4, 0)),
        ("a head has d = D/h numbers, not D: all heads together cost what one head of D numbers "
         "costs", each(4, 2, "h times")),
        ("that is the cost of the N by N products of one head alone", each(4, 2, "one head")),
        ("that is multiplications and additions together", each(8, 4)),
        ("the MLP's linear maps are counted too: one attention layer is asked", each(12, 2)),
    ]  # fmt: skip
    compare_counts(
        [call(count, *case) for case in cases],
        [4 * n * d * d + 2 * n * n * d for n, d, h in cases],
        wrong,
        [f"{n} tokens of width {d} with {h} heads" for n, d, h in cases],
    )
