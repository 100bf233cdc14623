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
    without,
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
        ("the weights were applied to the keys, not to the values", weights @ k),
        ("the weights were applied to the queries, not to the values", weights @ q),
        ("the weights were transposed before they met the values", weights.transpose(-2, -1) @ v),
        ("the values came back as they were: the weights are not used", v),
    ]


_TORN = (
    "the heads are cut out by a reshape without a transpose: a head then holds some tokens with "
    "all channels, not all tokens with some channels"
)
_UNMERGED = (
    "the heads were merged without bringing a token's channels together first: each output row "
    "mixes several tokens"
)


@check("every row is positive and sums to one, also for large scores")
def check_softmax_rows(softmax: Callable[[Tensor], Tensor]) -> None:
    """``softmax(scores (..., N, N)) -> (..., N, N)`` over the last axis, without torch's own."""
    scores = torch.randn(2, 4, 5, 5)
    large = 1000 * scores[:1]

    def run(scores: Tensor) -> Any:
        with without(
            {"softmax", "log_softmax", "softmin", "logsumexp"},
            "torch's own softmax does the work here: the exercise asks for one of your own",
        ):
            return call(softmax, scores)

    def share(powers: Tensor) -> Tensor:
        return powers / powers.sum(-1, keepdim=True)

    powers = scores.exp()
    wrong = [
        ("the columns sum to one, not the rows", scores.softmax(-2)),
        ("all entries of a matrix together sum to one, not each row",
         scores.flatten(2).softmax(-1).view_as(scores)),
        ("all entries of the tensor together sum to one, not each row", powers / powers.sum()),
        ("the exponentials are not divided by their sum", powers),
        ("the scores are divided by their sum, without the exponential", share(scores)),
        ("the sum runs over the heads", scores.softmax(1)),
        ("these are powers of 2: softmax takes powers of e", share(2.0**scores)),
        ("these are sigmoids, divided by their sum: softmax takes exponentials",
         share(scores.sigmoid())),
        ("these are sigmoids: each entry alone, and the rows do not sum to one", scores.sigmoid()),
        ("the largest score of each column is taken away: all scores of a row must lose the same "
         "number", share((scores - scores.amax(-2, keepdim=True)).exp())),
        ("this is the logarithm of softmax", scores.log_softmax(-1)),
    ]  # fmt: skip
    compare(run(scores), scores.softmax(-1), wrong, "each row must sum to one")
    got = run(large)
    top = "which leaves nothing of a row whose scores are all far below it: each row has its own"
    overflows = [
        (f"the largest score of the whole tensor is taken away, {top}",
         share((large - large.max()).exp())),
        (f"the largest score of a whole matrix is taken away, {top}",
         share((large - large.amax((-2, -1), keepdim=True)).exp())),
    ]  # fmt: skip
    if isinstance(got, Tensor) and not torch.isfinite(got).all():
        for message, value in overflows:
            if torch.equal(got.isnan(), value.isnan()):
                raise CheckFailed(message)
        raise CheckFailed(
            "right for small scores, but a score of 1000 makes the exponential overflow: "
            "what can be taken from a whole row without changing its softmax?"
        )
    compare(got, large.softmax(-1), [], "large scores come out wrong")


@check("hidden tokens get nothing, and the weights of the others still sum to one")
def check_masked_attention(attention: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """``attention(q, k, v (B, h, N, d), keep (B, N) bool) -> (B, h, N, d)``.

    Every query looks at the tokens with ``keep`` alone.
    """
    q, k, v = torch.randn(3, 2, 3, 5, 16)
    keep = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    keys = keep[:, None, None, :]
    raw = q @ k.transpose(-2, -1)
    scores = raw / math.sqrt(q.shape[-1])

    def attend(scores: Tensor, mask: Tensor = keys) -> Tensor:
        return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v

    with without(
        {"scaled_dot_product_attention"},
        "torch's own attention does the work here: the exercise asks for one of your own",
    ):
        got = call(attention, q, k, v, keep)
    rows = torch.isnan(got).all(-1) if isinstance(got, Tensor) and got.shape == v.shape else keep
    if torch.equal(rows, ~keep[:, None].expand(2, 3, 5)):
        raise CheckFailed(
            "the mask hides queries, whose rows are then empty (0/0): it is the keys that nobody "
            "may look at"
        )
    wrong = [
        ("the mask is not used: hidden tokens are looked at", scores.softmax(-1) @ v),
        ("hidden tokens get weight 0 after the softmax, and the others no longer sum to one: let "
         "them out of the sum", scores.softmax(-1) * keys @ v),
        ("hidden tokens have the score 0, and a score of 0 still gets weight (e^0 = 1)",
         scores.masked_fill(~keys, 0).softmax(-1) @ v),
        ("it is the wrong way round: keep is True for the tokens that may be looked at",
         attend(scores, ~keys)),
        ("every image has the mask of the first one", attend(scores, keys[:1])),
        ("the mask sets the outputs of hidden queries to 0, and the keys are all looked at",
         scores.softmax(-1) @ v * keep[:, None, :, None]),
        ("hidden queries give 0 here: they may look at what counts, as all others do",
         attend(scores) * keep[:, None, :, None]),
        (_UNSCALED, attend(raw)),
        ("the scores are divided by d itself: dot products of d numbers do not grow that fast",
         attend(raw / q.shape[-1])),
        ("the scores are divided by the root of D, the width of all heads together",
         attend(raw / math.sqrt(q.shape[1] * q.shape[-1]))),
        ("the softmax runs over the queries: the weights of one query must sum to one",
         scores.masked_fill(~keys, -1e9).softmax(-2) @ v),
        ("the softmax runs over the queries, and the mask is applied after it",
         scores.softmax(-2) * keys @ v),
        ("the weights came back: the values are not used",
         scores.masked_fill(~keys, -math.inf).softmax(-1)),
    ]  # fmt: skip
    compare(got, attend(scores), wrong, "a query takes a weighted mean of the values that count")


@check("the parts of all heads, added up, are the layer's output without its bias")
def check_head_shares(shares: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``shares(parts (B, h, N, d), weight (D, D)) -> (B, h, N, D)``: what each head adds."""
    parts, weight = torch.randn(2, 3, 5, 4), torch.randn(12, 12)
    want = torch.einsum("bhnd,ohd->bhno", parts, weight.view(12, 3, 4))
    padded = torch.zeros(2, 3, 5, 3, 4)
    for head in range(3):
        padded[:, head, :, head] = parts[:, head]
    wrong = [
        ("the weight is used the wrong way round: nn.Linear computes x times the transposed "
         "weight, so that a head meets columns of the weight and not rows",
         torch.einsum("bhnd,hdo->bhno", parts, weight.view(3, 4, 12))),
        ("a head takes every h-th column: its columns lie side by side",
         torch.einsum("bhnd,odh->bhno", parts, weight.view(12, 4, 3))),
        ("every head meets the columns of the first one", parts @ weight[:, :4].T),
        ("the heads are added up already: one part for each head is asked", want.sum(1)),
        ("every head has the sum of all heads", want.sum(1, keepdim=True).expand_as(want)),
        ("this is the mean over the heads, not what each adds",
         want.mean(1, keepdim=True).expand_as(want)),
        ("the heads stand at their place, and are not multiplied with the weight",
         padded.flatten(3)),
        ("the tokens stand in front of the heads: (B, h, N, D) is expected", want.transpose(1, 2)),
        ("the heads are in the wrong order: head i meets the columns from i d to (i + 1) d",
         torch.einsum("bhnd,ohd->bhno", parts, weight.view(12, 3, 4).flip(1))),
    ]  # fmt: skip
    compare(
        call(shares, parts, weight), want, wrong,
        "in a merged token head i fills the channels from i d to (i + 1) d",
    )  # fmt: skip


@check("each image's tokens meet their own image alone, in the layer as it is")
def check_mended_attention(
    mended: Callable[[Tensor], Tensor], layer: nn.MultiheadAttention
) -> None:
    """``mended(tokens (B, N, D))`` is ``layer``, which expects (N, B, D), for each image alone."""
    if layer.batch_first:
        raise CheckFailed(
            "the layer was changed to batch_first: it must stay as it is, so turn its input instead"
        )
    tokens = torch.randn(3, 5, layer.embed_dim)
    turned = tokens.transpose(0, 1)
    with torch.no_grad():

        def attend(x: Tensor) -> Tensor:
            return cast(Tensor, layer(x, x, x)[0])

        want = attend(turned).transpose(0, 1)
        got = call(mended, tokens)
        if isinstance(got, tuple):
            raise CheckFailed("a pair came back: the layer gives its output and its weights")
        wrong = [
            ("the leak is still there: token n of one image looks at token n of the others",
             attend(tokens)),
            ("the layer is not used: the tokens come back as they were", tokens),
            ("the tokens are turned on their way in, and not turned back", attend(turned)),
            ("the axes are not exchanged, the numbers are cut anew: reshape is no transpose",
             attend(tokens.reshape(5, 3, -1)).reshape(3, 5, -1)),
            ("what comes back is cut anew by a reshape, where its axes must be exchanged",
             attend(turned).reshape(3, 5, -1)),
            ("the tokens are added to the output: that is the block's task", tokens + want),
            ("an image looks at the mean of its own tokens, without the layer",
             tokens.mean(1, keepdim=True).expand_as(tokens)),
        ]  # fmt: skip
    compare(
        got, want, wrong,
        "does your function use the layer that was given, with its own weights?",
    )  # fmt: skip


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
    if module.qkv.out_features != 3 * dim:
        raise CheckFailed(
            f".qkv makes {module.qkv.out_features} numbers of a token with {dim}: a query, a key "
            "and a value for each head are 3 D together"
        )
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
    chunks = module.qkv(tokens).chunk(3, dim=-1)
    torn = F.scaled_dot_product_attention(*(c.reshape(3, heads, 5, -1) for c in chunks))
    strips = module.qkv(tokens).reshape(3, 3, heads, 5, -1)
    unturned = F.scaled_dot_product_attention(*(c.unflatten(2, (heads, -1)) for c in chunks))
    crossed = out(F.scaled_dot_product_attention(*attend("three h d", tokens.transpose(0, 1))))
    wrong = [
        (message, out(bad)) for message, bad in _wrong_attention(q, k, v) if bad.shape == v.shape
    ] + [
        (_UNMERGED, module.proj(mixed.reshape(tokens.shape))),
        ("the channels of different heads alternate after merging",
         module.proj(rearrange(mixed, "b h n d -> b n (d h)"))),
        (_TORN, out(torn)),
        (f"{_TORN}; and they are merged in the same way", module.proj(torn.reshape(tokens.shape))),
        (_TORN, out(F.scaled_dot_product_attention(*strips))),
        (_TORN, module.proj(F.scaled_dot_product_attention(*strips).reshape(tokens.shape))),
        ("the heads still stand behind the tokens, so that the heads of one token look at each "
         "other: bring them to the front", module.proj(unturned.flatten(2))),
        ("the tokens are added to the output: that is the block's task",
         tokens + module.proj(merged)),
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
