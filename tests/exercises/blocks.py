# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 4: blocks."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import (
    block,
    gelu,
    half_normed_residual,
    normed_residual,
    post_norm,
    second,
)
from torch import nn

from exercises.table import Exercise
from vitcore import Attention, Block, Mlp


def tanh_gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def ndtr(x):
    return torch.special.ndtr(x)


def gelu_in_place(x):
    x *= 0.5 * (1 + torch.erf(x / math.sqrt(2)))
    return x


def scale_in_place(x, gamma):
    x *= gamma
    return x


def rates_generator(largest, depth):
    for index in range(depth):
        yield largest * index / max(depth - 1, 1)


class Norm(nn.Module):
    """A LayerNorm as a reader would write it."""

    def __init__(self, dim, eps=1e-6, unbiased=False, centre=True, affine=True):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))
        self.eps, self.unbiased, self.centre, self.affine = eps, unbiased, centre, affine

    def forward(self, x):
        mean = x.mean(-1, keepdim=True) if self.centre else 0
        variance = x.var(-1, unbiased=self.unbiased, keepdim=True)
        unit = (x - mean) / (variance + self.eps).sqrt()
        return unit * self.weight + self.bias if self.affine else unit


class TorchNorm(Norm):
    def forward(self, x):
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, 1e-6)


class Silent(Norm):
    def __init__(self, dim):
        super().__init__(dim)
        self.weight = nn.Parameter(torch.zeros(dim))


class Untrained(Norm):
    def __init__(self, dim):
        super().__init__(dim)
        del self.weight
        self.weight = torch.ones(dim)


class TwoLayers(nn.Module):
    """An MLP as a reader would write it."""

    def __init__(self, dim, ratio=4, bias=True, act=F.gelu):
        super().__init__()
        self.fc1 = nn.Linear(dim, ratio * dim, bias=bias)
        self.fc2 = nn.Linear(ratio * dim, dim, bias=bias)
        self.act = act

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Whole(nn.Module):
    """A whole block as a reader would write it."""

    norm, mlp_of = Norm, TwoLayers

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = type(self).norm(dim), type(self).norm(dim)
        self.attn = Attention(dim, heads)
        self.mlp = type(self).mlp_of(dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def whole(norm=Norm, mlp=TwoLayers, forward=Whole.forward):
    return type("Whole", (Whole,), {"norm": norm, "mlp_of": mlp, "forward": forward})


def with_torchs_attention(self, dim, heads):
    Whole.__init__(self, dim, heads)
    self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)


def sequential(dim):
    return nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))


class Other(Whole):
    """The same in other words: attention of the reader's own making, one line for each step."""

    def forward(self, x):
        normed = self.norm1(x)
        stream = torch.add(x, self.attn(normed))
        return torch.add(stream, self.mlp(self.norm2(stream)))


class MultiLinear(Whole):
    def forward(self, x):
        parts = [x]
        parts.append(self.attn(self.norm1(x)))
        parts.append(self.mlp(self.norm2(sum(parts))))
        return torch.stack(parts).sum(0)


def in_place_block(self, x):
    x += self.attn(self.norm1(x))
    x += self.mlp(self.norm2(x))
    return x


def copied_in_place(self, x):
    return in_place_block(self, x.clone())


class Mine(nn.Module):
    """The block of the chapter, whose forward is to be mended."""

    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn, self.mlp = Attention(dim, heads), Mlp(dim, 4 * dim)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


def one_line(self, x):
    return (y := x + self.attn(self.norm1(x))) + self.mlp(self.norm2(y))


EXERCISES = [
    Exercise(
        "4.1",
        ["check_layer_scale(_)"],
        right={
            "broadcasting": lambda x, gamma: x * gamma,
            "einsum": lambda x, gamma: torch.einsum("bnd,d->bnd", x, gamma),
            "a diagonal matrix": lambda x, gamma: x @ torch.diag(gamma),
            "channel by channel": lambda x, gamma: torch.stack(
                [x[..., c] * gamma[c] for c in range(len(gamma))], -1
            ),
            "in place on a copy": lambda x, gamma: scale_in_place(x.clone(), gamma),
        },
        wrong=[
            (lambda x, g: x * g[:, None], "to the tokens"),
            (lambda x, g: x + g, "is a factor"),
            (lambda x, g: x * g.mean(), "same factor"),
            (lambda x, g: x @ g, "shape is"),
            (lambda x, g: x + x * g, "block does that"),
            (scale_in_place, "changes x in place"),
            (lambda x, g: x.detach() * g, "no gradient flows back"),
            (lambda x, g: x * g.detach(), "no gradient flows back"),
            (
                lambda x, g: torch.from_numpy(x.detach().numpy() * g.detach().numpy()),
                "no gradient flows back",
            ),
            (lambda x, g: torch.tensor((x * g).tolist()), "no gradient flows back"),
            (lambda x, g: [x * g], "a tensor was expected"),
        ],
    ),
    Exercise(
        "4.2",
        ["check_gelu(_)"],
        right={
            "erf": gelu,
            "ndtr": lambda x: x * ndtr(x),
            "the normal distribution": lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x),
            "erfc": lambda x: x * torch.erfc(-x / 2**0.5) / 2,
            "a loop": lambda x: torch.tensor(
                [v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
            ),
            "in place on a copy": lambda x: gelu_in_place(x.clone()),
        },
        wrong=[
            (lambda x: x * 0.5 * (1 + torch.erf(x) / math.sqrt(2)), "its argument should be"),
            (lambda x: x * 0.5 * (1 + torch.erf(x / 2)), "divided by 2 inside"),
            (lambda x: x * 0.5 * (1 + torch.erf(x * math.sqrt(2))), "multiplied by the root"),
            (lambda x: x * 0.5 * 1 + torch.erf(x / math.sqrt(2)), "bracket"),
            (lambda x: x * 0.5 * (1 - torch.erf(x / math.sqrt(2))), "wrong sign"),
            (torch.relu, "ReLU"),
            (F.silu, "SiLU"),
            (lambda x: x * (1.702 * x).sigmoid(), "sigmoid approximation"),
            (lambda x: 0.5 * (1 + torch.erf(x / 2**0.5)), "without the factor"),
            (lambda x: x * (-x * x / 2).exp() / (2 * math.pi) ** 0.5, "density"),
            (lambda x: x * 0.5 * (1 + torch.erf(x)), "inside erf"),
            (lambda x: x * (1 + torch.erf(x / 2**0.5)), "one half"),
            (tanh_gelu, "tanh approximation"),
            (F.gelu, "torch's own GELU"),
            (nn.GELU(), "torch's own GELU"),
            (lambda x: torch.nn.functional.gelu(x), "torch's own GELU"),
            (gelu_in_place, "changes x in place"),
        ],
    ),
    Exercise(
        "4.3",
        ["check_drop_path_rates(_)"],
        right={
            "a list": lambda r, n: [r * i / max(n - 1, 1) for i in range(n)],
            "linspace": lambda r, n: torch.linspace(0, r, n),
            "NumPy": lambda r, n: np.linspace(0, r, n),
            "a generator": rates_generator,
            "a list of tensors": lambda r, n: list(torch.linspace(0, r, n)),
            "a tuple": lambda r, n: tuple(rates_generator(r, n)),
        },
        wrong=[
            (lambda r, n: [[r * i / max(n - 1, 1)] * 2 for i in range(n)], "cannot read"),
            (lambda r, n: [r] * n, "same rate"),
            (lambda r, n: torch.linspace(r, 0, n), "fall with depth"),
            (lambda r, n: [r * (i + 1) / n for i in range(n)], "first block"),
            (lambda r, n: [r * i / n for i in range(n)], "last block"),
            (lambda r, n: [r * i / (n - 1) for i in range(n)], "one block has no steps"),
            (lambda r, n: torch.arange(n) * r / (n - 1), "one block has no steps"),
            (lambda r, n: np.linspace(0, r, n) if n > 1 else [r], "one block has no steps"),
            (lambda r, n: [r * (i + 1) / (n - 1) for i in range(n)], "first block is dropped too"),
            (lambda r, n: [r * (i / max(n - 1, 1)) ** 2 for i in range(n)], "not linearly"),
            (lambda r, n: np.linspace(0, 1, n), "last rate is 1"),
            (lambda r, n: [0.0] * (n - 1) + [r], "only the last block"),
            (lambda r, n: r, "cannot read|shape"),
            (lambda r, n: torch.linspace(0, r, n + 1), "was expected"),
        ],
    ),
    Exercise(
        "4.4",
        ["check_block(_)"],
        right={
            "as in the chapter": Mine,
            "one line": type("Line", (Mine,), {"forward": one_line}),
            "vitcore's": Block,
            "with layer scale": Block(12, 2, layer_scale=1e-5, drop_path=0.5),
            "an MLP in a Sequential": whole(mlp=sequential),
            "in place on a copy": type("Copy", (Mine,), {"forward": copied_in_place}),
        },
        wrong=[
            (block(post_norm), "post-norm"),
            (block(lambda s, x: (y := s.attn(s.norm1(x))) + s.mlp(s.norm2(y))), "around attention"),
            (block(lambda s, x: second(s, x, lambda s, y: s.mlp(s.norm2(y)))), "around the MLP"),
            (block(lambda s, x: s.mlp(s.norm2(s.attn(s.norm1(x))))), "both residuals"),
            (block(half_normed_residual), "carries the normalised"),
            (block(normed_residual), "carries the normalised"),
            (block(lambda s, x: (y := x + s.attn(x)) + s.mlp(s.norm2(y))), "norm before attention"),
            (block(lambda s, x: second(s, x, lambda s, y: y + s.mlp(y))), "norm before the MLP"),
            (block(lambda s, x: (y := x + s.attn(x)) + s.mlp(y)), "no norm at all"),
            (block(lambda s, x: x + s.attn(s.norm1(x)) + s.mlp(s.norm2(x))), "beside"),
            (block(lambda s, x: second(s, x, lambda s, y: x + s.mlp(s.norm2(y)))), "starts from"),
            (block(lambda s, x: second(s, x, lambda s, y: y + s.mlp(s.norm1(y)))), "used twice"),
            (block(lambda s, x: (y := x + s.attn(s.norm2(x))) + s.mlp(s.norm2(y))), "used twice"),
            (
                block(lambda s, x: (y := x + s.attn(s.norm2(x))) + s.mlp(s.norm1(y))),
                "changed places",
            ),
            (
                block(lambda s, x: (y := x + s.mlp(s.norm2(x))) + s.attn(s.norm1(y))),
                "MLP comes before",
            ),
            (block(lambda s, x: x + s.attn(s.norm1(x))), "only the attention half"),
            (block(lambda s, x: x + s.mlp(s.norm2(x))), "only the MLP half"),
            (type("InPlace", (Mine,), {"forward": in_place_block}), "changes x in place"),
            (
                type(
                    "Colleague",
                    (Mine,),
                    {"forward": lambda s, x: s.mlp(s.norm2(s.norm1(x + s.attn(x))))},
                ),
                "around the MLP is missing$",
            ),
            (
                type(
                    "HalfMended",
                    (Mine,),
                    {"forward": lambda s, x: (y := s.norm1(x + s.attn(x))) + s.mlp(s.norm2(y))},
                ),
                "norm of attention comes after",
            ),
            (
                type(
                    "OtherHalf",
                    (Mine,),
                    {"forward": lambda s, x: second(s, x, lambda s, y: s.norm2(y + s.mlp(y)))},
                ),
                "norm of the MLP comes after",
            ),
        ],
    ),
    Exercise(
        "4.5",
        ["check_block_and_parts(_)"],
        right={
            "by hand": Whole,
            "other words": Other,
            "an MLP in a Sequential": whole(mlp=sequential),
            "summed at the end": MultiLinear,
            "in place on a copy": whole(forward=copied_in_place),
        },
        wrong=[
            (whole(norm=Untrained), "plain tensor is never trained"),
            (whole(norm=Silent), "norm1 does not start as a plain norm"),
            (
                type("Theirs", (Whole,), {"__init__": with_torchs_attention}),
                "raised TypeError: MultiheadAttention",
            ),
            (whole(norm=lambda dim: nn.LayerNorm(dim, eps=1e-6)), "torch's nn.LayerNorm"),
            (whole(norm=TorchNorm), "torch's own layer_norm"),
            (whole(norm=lambda dim: Norm(dim, eps=1e-5)), "in \\.norm1: .*1e-5"),
            (whole(norm=lambda dim: Norm(dim, unbiased=True)), "in \\.norm1: .*D - 1"),
            (whole(norm=lambda dim: Norm(dim, centre=False)), "in \\.norm1: .*not taken away"),
            (whole(norm=lambda dim: Norm(dim, affine=False)), "in \\.norm1: .*weight and the bias"),
            (whole(norm=lambda dim: nn.Identity()), "no \\.weight and no \\.bias"),
            (whole(mlp=lambda dim: Mlp(dim, 4 * dim)), "MLP is vitcore's"),
            (whole(mlp=lambda dim: TwoLayers(dim, ratio=2)), "48 channels inside for tokens of 24"),
            (whole(mlp=lambda dim: TwoLayers(dim, bias=False)), "no bias"),
            (whole(mlp=lambda dim: TwoLayers(dim, act=torch.relu)), "in \\.mlp: .*ReLU"),
            (
                whole(mlp=lambda dim: TwoLayers(dim, act=tanh_gelu)),
                "in \\.mlp: .*tanh approximation",
            ),
            (whole(mlp=lambda dim: TwoLayers(dim, act=lambda x: x)), "in \\.mlp: .*no activation"),
            (
                whole(mlp=lambda dim: nn.Sequential(nn.Linear(dim, dim), nn.GELU())),
                "1 linear layers",
            ),
            (whole(forward=post_norm), "post-norm"),
            (whole(forward=lambda s, x: s.mlp(s.norm2(s.attn(s.norm1(x))))), "both residuals"),
            (whole(forward=lambda s, x: x + s.attn(s.norm1(x)) + s.mlp(s.norm2(x))), "beside"),
            (whole(forward=in_place_block), "changes x in place"),
        ],
    ),
]
