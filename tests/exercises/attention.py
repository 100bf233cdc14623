# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 3: attention."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import (
    attend,
    attention,
    stable_softmax,
    with_forward,
)
from einops import rearrange
from torch import nn

from exercises.table import Exercise
from vitcore import Attention, Mlp

leaky = nn.MultiheadAttention(8, 2).eval()
fresh = nn.MultiheadAttention(8, 2).eval()


def softmax_loops(scores):
    rows = [
        torch.stack([(s - max(row)).exp() for s in row])
        for row in scores.reshape(-1, scores.shape[-1])
    ]
    return torch.stack([row / row.sum() for row in rows]).view_as(scores)


def softmax_in_place(scores):
    scores -= scores.amax(-1, keepdim=True)
    scores.exp_()
    scores /= scores.sum(-1, keepdim=True)
    return scores


def softmax_numpy(scores):
    powers = np.exp(scores.numpy() - scores.numpy().max(axis=-1, keepdims=True))
    return torch.from_numpy(powers / powers.sum(axis=-1, keepdims=True))


def softmax_of(shift=lambda s: 0, power=torch.exp):
    def softmax(scores):
        powers = power(scores - shift(scores))
        return powers / powers.sum(-1, keepdim=True)

    return softmax


def masked(q, k, v, keep, fill=-math.inf, scale=None, axes=(slice(None), None, None)):
    scores = q @ k.mT / (q.shape[-1] ** 0.5 if scale is None else scale)
    return scores.masked_fill(~keep[axes], fill).softmax(-1) @ v


def masked_einsum(q, k, v, keep):
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    powers = scores.exp() * keep[:, None, None]
    return torch.einsum("bhij,bhjd->bhid", powers / powers.sum(-1, keepdim=True), v)


def masked_loop(q, k, v, keep):
    out = [attend(q[i], k[i][:, keep[i]], v[i][:, keep[i]]) for i in range(len(q))]
    return torch.stack(out)


def masked_by_bias(q, k, v, keep):
    bias = torch.zeros(keep.shape).masked_fill_(~keep, -1e9)
    return (q @ k.mT / q.shape[-1] ** 0.5 + bias[:, None, None]).softmax(-1) @ v


def masked_after(q, k, v, keep, axis=-1):
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(axis) * keep[:, None, None] @ v


def masked_in_place(q, k, v, keep):
    q /= q.shape[-1] ** 0.5
    return (q @ k.mT).masked_fill(~keep[:, None, None], -math.inf).softmax(-1) @ v


def shares(pattern, shape):
    return lambda parts, weight: torch.einsum(pattern, parts, weight.view(shape))


right_shares = shares("bhnd,ohd->bhno", (12, 3, 4))


def shares_loop(parts, weight):
    d = parts.shape[3]
    return torch.stack(
        [parts[:, i] @ weight[:, i * d : (i + 1) * d].T for i in range(parts.shape[1])], 1
    )


def shares_by_zeros(parts, weight):
    out = []
    for head in range(parts.shape[1]):
        alone = torch.zeros_like(parts)
        alone[:, head] = parts[:, head]
        out.append(F.linear(alone.transpose(1, 2).flatten(2), weight))
    return torch.stack(out, 1)


def shares_by_chunks(parts, weight):
    blocks = torch.stack(weight.chunk(parts.shape[1], dim=1)).mT  # (h, d, D)
    return parts @ blocks


def shares_not_projected(parts, weight):
    out = torch.zeros(*parts.shape[:3], parts.shape[1], parts.shape[3])
    for head in range(parts.shape[1]):
        out[:, head, :, head] = parts[:, head]
    return out.flatten(3)


def mended(tokens):
    turned = tokens.transpose(0, 1)
    return leaky(turned, turned, turned)[0].transpose(0, 1)


def mended_loop(tokens):
    return torch.stack([leaky(x[:, None], x[:, None], x[:, None])[0][:, 0] for x in tokens])


def mended_copy(tokens):
    other = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    other.load_state_dict(leaky.state_dict())
    return other(tokens, tokens, tokens)[0]


def mended_by_batch_of_one(tokens):
    return torch.cat([mended(x[None]) for x in tokens])


def mended_in_place(tokens):
    tokens.transpose_(0, 1)
    return leaky(tokens, tokens, tokens)[0].transpose(0, 1)


def of_reshape(tokens):
    turned = tokens.reshape(tokens.shape[1], tokens.shape[0], -1)
    return leaky(turned, turned, turned)[0].reshape(tokens.shape)


def back_by_reshape(tokens):
    turned = tokens.transpose(0, 1)
    return leaky(turned, turned, turned)[0].reshape(tokens.shape)


class Reader(nn.Module):
    """A layer as a reader would write it."""

    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, dim = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        return self.proj(attend(q, k, v).transpose(1, 2).reshape(b, n, dim))


class ByChunks(Reader):
    def forward(self, x):
        q, k, v = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class ByLoop(Reader):
    def forward(self, x):
        d = x.shape[2] // self.heads
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        heads = [
            attend(*(part[:, :, i * d : (i + 1) * d] for part in (q, k, v)))
            for i in range(self.heads)
        ]
        return self.proj(torch.cat(heads, dim=-1))


class ByEinsum(Reader):
    def forward(self, x):
        q, k, v = rearrange(self.qkv(x), "b n (t h d) -> t b n h d", t=3, h=self.heads)
        weights = (torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))


def torn(merge):
    """Heads cut out by a reshape without a transpose."""

    def forward(self, x, layout=None, record=None):
        b, n, dim = x.shape
        q, k, v = (part.reshape(b, self.heads, n, -1) for part in self.qkv(x).chunk(3, dim=-1))
        return self.proj(merge(attend(q, k, v), (b, n, dim)))

    return with_forward(Attention(12, 2), forward)


def attends(rule):
    """A layer that is right but for what it makes of q, k and v, each (B, h, N, d)."""

    def forward(self, x, layout=None, record=None):
        q, k, v = rearrange(self.qkv(x), "b n (t h d) -> t b h n d", t=3, h=self.heads)
        return self.proj(rule(q, k, v).transpose(1, 2).flatten(2))

    return with_forward(Attention(12, 2), forward)


def narrow(layer):
    layer.qkv = nn.Linear(12, 12)
    return layer


def weighted(rule):
    """The same, for another rule from the scores, d and D to the weights."""
    return attends(lambda q, k, v: rule(q @ k.mT, q.shape[3], q.shape[1] * q.shape[3]) @ v)


def heads_behind(self, x, layout=None, record=None):
    q, k, v = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 1, 3, 4)
    return self.proj(attend(q, k, v).flatten(2))


EXERCISES = [
    Exercise(
        "3.1",
        ["check_softmax_rows(_)"],
        right={
            "shifted": stable_softmax,
            "loops": softmax_loops,
            "NumPy": softmax_numpy,
            "in place on a copy": lambda s: softmax_in_place(s.clone()),
            "einsum": lambda s: torch.einsum(
                "...ij,...i->...ij", p := (s - s.amax(-1, keepdim=True)).exp(), 1 / p.sum(-1)
            ),
        },
        wrong=[
            (lambda s: s.exp() / s.exp().sum(), "entries of the tensor"),
            (lambda s: s.exp(), "divided by their sum"),
            (lambda s: s / s.sum(-1, keepdim=True), "without the exponential"),
            (lambda s: s.exp() / s.exp().sum(-1, keepdim=True), "overflow"),
            (lambda s: stable_softmax(s.mT).mT, "columns sum to one"),
            (lambda s: stable_softmax(s.flatten(2)).view_as(s), "entries of a matrix"),
            (lambda s: stable_softmax(s.transpose(1, 3)).transpose(1, 3), "heads"),
            (lambda s: stable_softmax(s.clamp(-50, 50)), "large scores come out wrong"),
            (softmax_of(lambda s: s.max()), "largest score of the whole tensor"),
            (
                softmax_of(lambda s: s.amax((-2, -1), keepdim=True)),
                "largest score of a whole matrix",
            ),
            (softmax_of(lambda s: s.amax(-2, keepdim=True)), "largest score of each column"),
            (softmax_of(lambda s: s.amax(-1, keepdim=True), torch.exp2), "powers of 2"),
            (softmax_of(power=torch.sigmoid), "sigmoids, divided"),
            (torch.sigmoid, "do not sum to one"),
            (lambda s: stable_softmax(s).log(), "logarithm of softmax"),
            (lambda s: s.softmax(-1), "torch's own softmax"),
            (lambda s: torch.softmax(s, -1), "torch's own softmax"),
            (lambda s: F.log_softmax(s, -1).exp(), "torch's own softmax"),
            (nn.Softmax(dim=-1), "torch's own softmax"),
            (softmax_in_place, "changes scores in place"),
        ],
    ),
    Exercise(
        "3.2",
        ["check_masked_attention(_)"],
        right={
            "masked_fill": masked,
            "einsum": masked_einsum,
            "a loop over the images": masked_loop,
            "a bias": masked_by_bias,
            "in place on a copy": lambda q, *rest: masked_in_place(q.clone(), *rest),
        },
        wrong=[
            (lambda *a: masked(*a, scale=48**0.5), "root of D"),
            (
                lambda q, k, v, keep: (
                    (q @ k.mT / 4).masked_fill(~keep[:, None, None], -1e9).softmax(-2) @ v
                ),
                "weights of one query must sum",
            ),
            (lambda q, k, v, keep: attend(q, k, v), "mask is not used"),
            (masked_after, "no longer sum to one"),
            (
                lambda q, k, v, keep: attend(q, k, v * keep[:, None, :, None]),
                "no longer sum to one",
            ),
            (lambda *a: masked(*a, fill=0), "score of 0 still gets weight"),
            (
                lambda q, k, v, keep: masked(q, k * keep[:, None, :, None], v, keep | True),
                "score of 0 still gets weight",
            ),
            (lambda q, k, v, keep: masked(q, k, v, ~keep), "wrong way round"),
            (lambda q, k, v, keep: masked(q, k, v, keep[:1]), "the mask of the first"),
            (
                lambda *a: masked(*a, axes=(slice(None), None, slice(None), None)),
                "mask hides queries",
            ),
            (
                lambda q, k, v, keep: attend(q, k, v) * keep[:, None, :, None],
                "outputs of hidden queries to 0",
            ),
            (
                lambda q, k, v, keep: masked(q, k, v, keep) * keep[:, None, :, None],
                "hidden queries give 0",
            ),
            (lambda *a: masked(*a, scale=1), "not divided by anything"),
            (lambda *a: masked(*a, scale=16), "by d itself"),
            (lambda *a: masked_after(*a, axis=-2), "over the queries"),
            (lambda q, k, v, keep: masked(q, k, torch.eye(5), keep), "weights came back"),
            (
                lambda q, k, v, keep: F.scaled_dot_product_attention(q, k, v, keep[:, None, None]),
                "torch's own attention",
            ),
            (masked_in_place, "changes q in place"),
        ],
    ),
    Exercise(
        "3.3",
        ["check_head_shares(_)"],
        right={
            "einsum": right_shares,
            "a loop": shares_loop,
            "the others at zero": shares_by_zeros,
            "chunks": shares_by_chunks,
            "NumPy": lambda p, w: torch.from_numpy(
                np.einsum("bhnd,ohd->bhno", p.numpy(), w.numpy().reshape(12, 3, 4))
            ),
        },
        wrong=[
            (lambda p, w: right_shares(p, w.T), "wrong way round"),
            (lambda p, w: p @ w.view(3, 4, 12), "wrong way round"),
            (shares("bhnd,odh->bhno", (12, 4, 3)), "every h-th column"),
            (lambda p, w: p @ w[:, :4].T, "columns of the first"),
            (lambda p, w: right_shares(p, w).sum(1), "added up already"),
            (lambda p, w: F.linear(p.transpose(1, 2).flatten(2), w), "added up already"),
            (
                lambda p, w: right_shares(p, w).sum(1, keepdim=True).expand(2, 3, 5, 12),
                "sum of all heads",
            ),
            (
                lambda p, w: right_shares(p, w).mean(1, keepdim=True).expand(2, 3, 5, 12),
                "the mean over the heads",
            ),
            (shares_not_projected, "not multiplied with the weight"),
            (lambda p, w: right_shares(p, w).transpose(1, 2), "tokens stand in front"),
            (lambda p, w: right_shares(p.flip(1), w).flip(1), "wrong order"),
            (lambda p, w: right_shares(p.mul_(2), w) / 2, "changes p in place"),
        ],
    ),
    Exercise(
        "3.4",
        ["check_mended_attention(_, leaky)"],
        right={
            "turned and turned back": mended,
            "image by image": mended_loop,
            "a copy with the same weights": mended_copy,
            "batches of one": mended_by_batch_of_one,
            "einops": lambda x: rearrange(
                leaky(*[rearrange(x, "b n d -> n b d")] * 3)[0], "n b d -> b n d"
            ),
        },
        wrong=[
            (lambda x: x, "layer is not used"),
            (lambda x: fresh(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1), "with its own weights"),
            (lambda x: leaky(x, x, x)[0], "leak is still there"),
            (lambda x: leaky(*[x.transpose(0, 1)] * 3)[0], "not turned back"),
            (of_reshape, "reshape is no transpose"),
            (back_by_reshape, "cut anew by a reshape"),
            (lambda x: leaky(*[x.transpose(0, 1)] * 3), "a pair came back"),
            (lambda x: x + mended(x), "the block's task"),
            (lambda x: x.mean(1, keepdim=True).expand_as(x), "without the layer"),
            (mended_in_place, "changes tokens in place"),
        ],
        given=lambda: {"leaky": leaky},
    ),
    Exercise(
        "3.5",
        ["check_attention_cost(_)"],
        right={
            "the formula": lambda n, d, h: 4 * n * d**2 + 2 * n * n * d,
            "by heads": lambda n, d, h: 4 * n * d * d + h * (n * (d // h) * n + n * n * (d // h)),
            "a loop": lambda n, d, h: sum(
                a * b * c for a, b, c in [(n, d, d)] * 4 + [(n, d, n), (n, n, d)]
            ),
            "NumPy": lambda n, d, h: np.int64(4 * n * d**2) + np.int64(2 * n**2 * d),
            "a tensor": lambda n, d, h: torch.tensor(4 * n * d**2 + 2 * n**2 * d),
        },
        wrong=[
            (lambda n, d, h: 3 * n * d * d + 2 * n * n * d, "output projection"),
            (lambda n, d, h: 2 * n * d * d + 2 * n * n * d, "three maps, not one"),
            (lambda n, d, h: 2 * n * n * d, "linear maps are missing"),
            (lambda n, d, h: 4 * n * d * d + n * n * d, "only one is counted"),
            (lambda n, d, h: 4 * n * d * d, "N by N products are missing"),
            (lambda n, d, h: 4 * n * d * d + 2 * n * n * d * h, "d = D/h"),
            (lambda n, d, h: 4 * n * d * d + 2 * n * n * d // h, "one head alone"),
            (lambda n, d, h: 8 * n * d * d + 4 * n * n * d, "additions"),
            (lambda n, d, h: 4.0 * n * d * d + 2 * n * n * d, "float"),
            (lambda n, d, h: n * n, "not right"),
            (lambda n, d, h: 12 * n * d * d + 2 * n * n * d, "MLP"),
        ],
    ),
    Exercise(
        "3.6",
        ["check_multi_head(_)", "check_attention_rows(_)"],
        right={
            "reshape and permute": Reader,
            "chunks": ByChunks,
            "a loop over the heads": ByLoop,
            "einsum": ByEinsum,
            "vitcore's": Attention,
        },
        wrong=[
            (
                with_forward(Attention(12, 2), lambda self, x: x + Attention.forward(self, x)),
                "the block's task",
            ),
            (narrow(Attention(12, 2)), "makes 12 numbers of a token with 12"),
            (attention(scale=1.0), "divided by anything"),
            (attention(axis=-2), "queries"),
            (attention(merge="b n (d h)"), "alternate"),
            (attention("h three d"), "head by head"),
            (attention("three d h"), "every h-th"),
            (attention(order="kqv"), "exchanged their roles"),
            (attention(order="vkq"), "another order"),
            (attention(project=lambda self, x: x), "not projected"),
            (attention(project=lambda self, x: x @ self.proj.weight.T), "bias"),
            (
                with_forward(
                    Attention(12, 2), lambda self, x: self.proj(attend(*self.qkv(x).chunk(3, -1)))
                ),
                "one head",
            ),
            (
                with_forward(
                    Attention(12, 2),
                    lambda self, x: Attention.forward(self, x.transpose(0, 1)).transpose(0, 1),
                ),
                "across the batch",
            ),
            (nn.MultiheadAttention(12, 2), "no .qkv and no .proj"),
            (with_forward(Mlp(4, 4), Mlp.forward), "no .qkv"),
            (weighted(lambda s, d, width: (s / width).softmax(-1)), "without a root"),
            (weighted(lambda s, d, width: (s / width**0.5).softmax(-1)), "by the root of D"),
            (weighted(lambda s, d, width: (s * d**0.5).softmax(-1)), "multiplied where"),
            (weighted(lambda s, d, width: s.softmax(-1) / d**0.5), "after the softmax"),
            (weighted(lambda s, d, width: s.softmax(-2)), "and nothing is divided"),
            (weighted(lambda s, d, width: s / d**0.5), "no softmax"),
            (weighted(lambda s, d, width: s), "no softmax"),
            (weighted(lambda s, d, width: (s / d**0.5).softmax(1)), "over the heads"),
            (weighted(lambda s, d, width: (s / d**0.5).softmax(0)), "over the images"),
            (weighted(lambda s, d, width: (s / d**0.5).softmax(-1).mT), "weights were transposed"),
            (attends(lambda q, k, v: attend(q, k, k)), "to the keys"),
            (attends(lambda q, k, v: attend(q, k, q)), "to the queries"),
            (attends(lambda q, k, v: v), "the weights are not used"),
            (
                torn(lambda x, shape: x.transpose(1, 2).reshape(shape)),
                "reshape without a transpose",
            ),
            (torn(lambda x, shape: x.reshape(shape)), "merged in the same way"),
            (with_forward(Attention(12, 2), heads_behind), "heads of one token look at each other"),
            (
                attention(
                    merge="b h n d",
                    project=lambda self, x: self.proj(x.reshape(len(x), x.shape[2], -1)),
                ),
                "mixes several tokens",
            ),
            (
                with_forward(Attention(12, 2), lambda self, x: Attention.forward(self, x.mul_(2))),
                "in place",
            ),
        ],
    ),
]
