# SPDX-License-Identifier: MIT
"""Checks of chapter 8: what is read from the inside of a model, and what tests it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .frame import as_numbers, call, check, compare


@check("each layer keeps half of itself, and the layers are multiplied, the last one in front")
def check_rollout(rollout: Callable[[Tensor], Tensor]) -> None:
    """``rollout(weights (L, T, T)) -> (T, T)``, the heads averaged already."""
    weights = (2 * torch.randn(3, 5, 5)).softmax(dim=-1)
    same = torch.eye(5)
    half = 0.5 * weights + 0.5 * same
    first, second, third = half
    wrong = [
        ("the layers are multiplied in the wrong order: what enters a layer stands behind it",
         first @ second @ third),
        ("the identity is missing: a token also keeps what it holds",
         weights[2] @ weights[1] @ weights[0]),
        ("rows must sum to one again after the identity is added: divide by their sums",
         (weights[2] + same) @ (weights[1] + same) @ (weights[0] + same)),
        ("the layers are added; what passes through one and then another is a product",
         half.sum(0)),
        ("the layers are averaged; what passes through one and then another is a product",
         half.mean(0)),
        ("this is the last layer alone", third),
        ("this is the first layer alone", first),
        ("the identity is added once at the end, but every layer keeps half of what enters it",
         0.5 * weights[2] @ weights[1] @ weights[0] + 0.5 * same),
        ("rows and columns are exchanged: row i says what token i is made of",
         (third @ second @ first).T),
        ("the weights are multiplied cell by cell; a matrix product is meant",
         third * second * first),
        ("the first layer is missing", third @ second),
        ("the last layer is missing", second @ first),
    ]  # fmt: skip
    compare(call(rollout, weights), third @ second @ first, wrong,
            "three layers of five tokens")  # fmt: skip


@check("each head's distance is in pixels, weighted, and averaged over the patches that ask")
def check_attention_distance(distance: Callable[[Tensor, tuple[int, int], int], Tensor]) -> None:
    """``distance(weights (h, N, N), (rows, columns), patch_size) -> (h,)`` in pixels."""
    rows, cols, size = 2, 3, 4
    weights = (2 * torch.randn(2, 6, 6)).softmax(dim=-1)
    number = torch.arange(6)

    def apart(across: int, power: float = 2.0) -> Tensor:
        places = torch.stack([number // across, number % across], dim=1).float()
        return torch.cdist(places, places, p=power)

    def mean(table: Tensor) -> Tensor:
        return (weights * table).sum(dim=-1).mean(dim=-1)

    right = size * apart(cols)
    wrong = [
        ("this is in patches: multiply with the patch size", mean(apart(cols))),
        ("the grid's rows and columns are exchanged: patch i is in row i // columns",
         size * mean(apart(rows))),
        ("this adds steps down and across; the distance is the root of the sum of their squares",
         size * mean(apart(cols, 1.0))),
        ("the root is missing", size * mean(apart(cols) ** 2)),
        ("the root is missing", mean(right**2)),
        ("the attention has no part in it: weigh every distance with it",
         right.mean().expand(2)),
        ("the queries are added; their mean is expected", 6 * mean(right)),
        ("the keys are averaged, where the weights already sum to one", mean(right) / 6),
        ("all heads are averaged: one number for each head is expected", mean(right).mean()),
        ("the patches are taken for a line, not a grid",
         size * mean((number[:, None] - number).abs().float())),
        ("there is one number for each query: take their mean", (weights * right).sum(-1)),
    ]  # fmt: skip
    got = as_numbers(call(distance, weights, (rows, cols), size))
    compare(got, mean(right), wrong, "two heads on two rows of three patches, 4 pixels each")


@check("every layer's tokens are read as the last layer's are")
def check_logit_lens(lens: Callable[..., Tensor]) -> None:
    """``lens(tokens (L, B, N, D), norm, head) -> (L, B, K)``, probabilities, by mean pooling."""
    tokens = 3 * torch.randn(3, 2, 4, 8) + 1
    norm, head = nn.LayerNorm(8), nn.Linear(8, 5)
    with torch.no_grad():
        norm.weight.copy_(1 + torch.rand(8))
        norm.bias.copy_(torch.randn(8))
        head.weight.copy_(torch.randn(5, 8))
        logits = head(norm(tokens).mean(dim=2))
        wrong = [
            ("these are logits; the softmax over the classes is missing", logits),
            ("the final norm is missing: the head has never seen tokens without it",
             head(tokens.mean(2)).softmax(-1)),
            ("it takes the mean and then the norm; this model normalises every token first",
             head(norm(tokens.mean(2))).softmax(-1)),
            ("the softmax runs over the images", logits.softmax(1)),
            ("the softmax runs over the layers", logits.softmax(0)),
            ("the first token is read as if it were a class token; this model has none",
             head(norm(tokens)[:, :, 0]).softmax(-1)),
            ("this is the last layer alone", logits[-1].softmax(-1)),
            ("each token is read by itself: take the mean over the tokens before the head",
             head(norm(tokens)).softmax(-1)),
            ("the answers of single tokens are averaged, not the tokens",
             head(norm(tokens)).softmax(-1).mean(2)),
            ("images and layers are exchanged", logits.softmax(-1).transpose(0, 1)),
            ("the tokens are added; their mean is expected",
             head(norm(tokens).sum(2)).softmax(-1)),
        ]  # fmt: skip
        got = call(lens, tokens, norm, head)
        compare(got, logits.softmax(-1), wrong, "three layers, two images, four tokens")


@check("in each image its own most important patches are gone, and nothing else")
def check_mask_patches(mask: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """``mask(images (B, C, H, W), importance (B, rows, cols), count) -> (B, C, H, W)``."""
    size, rows, cols, count = 2, 3, 2, 2
    images = torch.rand(2, 3, rows * size, cols * size) + 0.5
    importance = torch.stack([torch.randperm(6), torch.randperm(6)]).float().view(2, rows, cols)
    importance[1] = 5 - importance[0]  # what is first in one image is last in the other

    def without(values: Tensor, number: int, channels: int = 3) -> Tensor:
        order = values.flatten(1).argsort(dim=1, descending=True)[:, :number]
        hidden = torch.zeros(2, 6).scatter(1, order, 1.0).view(2, rows, cols).bool()
        hidden = hidden.repeat_interleave(size, 1).repeat_interleave(size, 2)[:, None]
        each = hidden.expand(-1, 3, -1, -1) & (torch.arange(3) < channels)[:, None, None]
        return images.masked_fill(each, 0.0)

    kept = images - without(importance, count)
    turned = importance.transpose(1, 2).reshape(2, rows, cols)
    wrong = [
        ("the least important patches are gone", without(-importance, count)),
        ("every image loses the patches of the first",
         without(importance[:1].expand(2, -1, -1), count)),
        ("one patch too many is gone", without(importance, count + 1)),
        ("one patch too few is gone", without(importance, count - 1)),
        ("the other patches are gone, and these are kept", kept),
        ("only one channel is masked", without(importance, count, channels=1)),
        ("the grid's rows and columns are exchanged", without(turned, count)),
        ("the masked patches are one; they are to be zero",
         torch.where(kept > 0, torch.ones(()), images)),
        ("nothing is masked", images),
        ("everything is masked", 0 * images),
    ]  # fmt: skip
    got = call(mask, images, importance, count)
    compare(got, without(importance, count), wrong, "two patches of each image are zero")


@check("a patch counts where attention to it raises the class, and only as much as it is used")
def check_relevance(relevance: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``relevance(weights (h, N, N), values (h, N, d), readout (h, d)) -> (N,)``."""
    heads, count = 2, 4
    weights = torch.randn(heads, count, count).softmax(dim=-1)
    values, readout = torch.randn(heads, count, 3), torch.randn(heads, 3)
    values[0] *= 3
    slope = torch.einsum("hnd,hd->hn", values, readout)[:, None] / count  # of each column
    signed = weights * slope
    right = signed.clamp(min=0).mean(dim=0).mean(dim=0)
    wrong = [
        ("what lowers the class is counted as well: cut off below zero", signed.mean((0, 1))),
        ("the heads are averaged before the cut: a head that lowers the class then hides another",
         signed.mean(0).clamp(min=0).mean(0)),
        ("the sign is lost: what lowers the class counts as much as what raises it",
         signed.abs().mean((0, 1))),
        ("this is the gradient alone: multiply it with the weights, so that only what is used "
         "counts", slope.expand_as(weights).clamp(min=0).mean((0, 1))),
        ("this is attention alone: the gradient is missing", weights.mean((0, 1))),
        ("the gradient is N times too large: the class is read from the mean over the tokens",
         count * right),
        ("the heads are added; their mean is expected", heads * right),
        ("this is a number for each query: average over the queries, which leaves the keys",
         signed.clamp(min=0).mean(0).mean(1)),
        ("there is one row for each query: average over the queries",
         signed.clamp(min=0).mean(0)),
        ("there is one map for each head: average over the heads", signed.clamp(min=0).mean(1)),
    ]  # fmt: skip
    got = as_numbers(call(relevance, weights, values, readout))
    compare(got, right, wrong, "two heads of four tokens")
