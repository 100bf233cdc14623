# SPDX-License-Identifier: MIT
"""Checks of chapter 4: norms, the MLP, residuals and the whole block."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vitcore.blocks import Mlp

from .frame import (
    CheckFailed,
    as_numbers,
    call,
    call_on_tape,
    check,
    compare,
    first_of,
    lively,
    need,
    need_gradient,
    parts_of,
    same_values,
    without,
)


@check("the norm agrees with nn.LayerNorm at eps 1e-6")
def check_layer_norm(norm: Any) -> None:
    """``norm(x (B, N, D), weight, bias)`` with eps 1e-6, or a module with these two."""
    _judge_layer_norm(norm)


def _judge_layer_norm(norm: Any, banned: frozenset[str] = frozenset()) -> None:
    if isinstance(norm, nn.Module):
        need(norm, "weight", "bias")
        norm = lively(norm)
        weight, bias = norm.weight.detach(), norm.bias.detach()
        given: tuple[Tensor, ...] = ()
    else:
        weight, bias = 1 + torch.randn(6) / 3, torch.randn(6)
        given = (weight, bias)
    x = 1 + torch.randn(3, 4, weight.shape[0]).to(weight)
    x[1] *= 2e-3  # so small that the place and the size of eps show

    def norm_by(axes: tuple[int, ...] = (-1,), eps: float = 1e-6, unbiased: bool = False) -> Tensor:
        variance = x.var(axes, unbiased=unbiased, keepdim=True)
        return (x - x.mean(axes, keepdim=True)) / (variance + eps).sqrt() * weight + bias

    centred = x - x.mean(-1, keepdim=True)
    spread = x.var(-1, unbiased=False, keepdim=True)
    unit = centred / (spread + 1e-6).sqrt()
    wrong = [
        ("is your eps inside the square root, beside the variance?",
         centred / (spread.sqrt() + 1e-6) * weight + bias),
        ("eps is 1e-5, torch's default; ViTs have 1e-6", norm_by(eps=1e-5)),
        ("there is no eps: a token of equal values would divide by zero", norm_by(eps=0.0)),
        ("the variance is divided by D - 1: torch's var does that unless it is told not to",
         norm_by(unbiased=True)),
        ("the mean runs over all tokens of an image as well: each token is normalised alone",
         norm_by((1, 2))),
        ("the mean runs over the tokens, not over the channels", norm_by((1,))),
        ("the mean runs over the batch, not over the channels", norm_by((0,))),
        ("the mean runs over batch and tokens, as in batch norm", norm_by((0, 1))),
        ("the mean runs over everything: each token is normalised alone", norm_by((0, 1, 2))),
        ("the weight and the bias are not used", unit),
        ("the bias is not used", unit * weight),
        ("the weight is not used", unit + bias),
        ("it divides by the variance, not by its root", centred / (spread + 1e-6) * weight
         + bias),
        ("the mean is not taken away",
         x / (spread + 1e-6).sqrt() * weight + bias),
        ("the mean is not taken away",
         x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight + bias),
    ]  # fmt: skip
    with without(banned, "torch's own layer_norm does the work here: write one of your own"):
        got = call(norm, x, *given)
    compare(
        got, F.layer_norm(x, weight.shape, weight, bias, 1e-6), wrong,
        "each token is brought to mean 0 and variance 1, then scaled and shifted",
    )  # fmt: skip


@check("this is the exact GELU")
def check_gelu(gelu: Callable[[Tensor], Tensor]) -> None:
    """``gelu(x) -> x * Phi(x)``, exact, with the normal distribution's Phi, without F.gelu."""
    x = torch.linspace(-4, 4, 81).double()
    phi = torch.distributions.Normal(0.0, 1.0)
    with without({"gelu"}, "torch's own GELU does the work here: write it with torch.erf"):
        got = call(gelu, x)
    wrong = [
        ("this is ReLU: GELU lets a little of the negative numbers through", x.relu()),
        ("this is x * sigmoid(x), called SiLU", F.silu(x)),
        ("this is the sigmoid approximation", x * (1.702 * x).sigmoid()),
        ("this is Phi(x) without the factor x", phi.cdf(x)),
        ("this is x times the density, not times the distribution function",
         x * phi.log_prob(x).exp()),
        ("erf is divided by the root of 2, and its argument should be",
         x * 0.5 * (1 + torch.erf(x) / math.sqrt(2))),
        ("x is divided by 2 inside erf, and the root of 2 is asked",
         x * 0.5 * (1 + torch.erf(x / 2))),
        ("x is multiplied by the root of 2 inside erf, where it is divided",
         x * 0.5 * (1 + torch.erf(x * math.sqrt(2)))),
        ("the bracket around 1 + erf is missing", x * 0.5 + torch.erf(x / math.sqrt(2))),
        ("erf has the wrong sign: the large negative numbers pass, and the positive ones do not",
         x * 0.5 * (1 - torch.erf(x / math.sqrt(2)))),
        ("something is missing inside erf: Phi(x) belongs to a variance of 1",
         x * 0.5 * (1 + torch.erf(x))),
        ("a factor of one half is missing", x * (1 + torch.erf(x / math.sqrt(2)))),
    ]  # fmt: skip
    if isinstance(got, Tensor) and same_values(got, F.gelu(x, approximate="tanh"), 1e-7):
        raise CheckFailed(
            "this is the tanh approximation: close, but weights from elsewhere expect the exact one"
        )
    compare(got, F.gelu(x), wrong, "it is x times the share of a normal variable below x")


@check("the MLP is linear, exact GELU, linear")
def check_mlp(mlp: Any) -> None:
    """A module of two linear layers, a class made as ``mlp(24, 48)``, or a model."""
    for part in parts_of(mlp, "mlp"):
        _judge_mlp(part)


def _linears(mlp: Any) -> tuple[Any, Any]:
    """The two linear layers of an MLP: ``.fc1`` and ``.fc2``, or the only two that it has."""
    if hasattr(mlp, "fc1") and hasattr(mlp, "fc2"):
        return mlp.fc1, mlp.fc2
    found = [part for part in mlp.modules() if isinstance(part, nn.Linear)]
    if len(found) != 2:
        raise CheckFailed(
            f"{type(mlp).__name__} has no .fc1 and no .fc2, and {len(found)} linear layers where "
            "an MLP has two"
        )
    return found[0], found[1]


def _judge_mlp(mlp: Any) -> None:
    _linears(mlp)
    module = lively(mlp)
    fc1, fc2 = _linears(module)
    x = 4 * torch.randn(64, 5, fc1.in_features)
    hidden = fc1(x)
    got = first_of(call(module, x))
    tanh = fc2(F.gelu(hidden, approximate="tanh"))
    want = fc2(F.gelu(hidden))
    # the two GELUs differ by at most 5e-4, so the nearer one is meant
    if (
        isinstance(got, Tensor)
        and same_values(got, tanh, 1e-3)
        and (got - tanh).abs().max() < (got - want).abs().max()
    ):
        raise CheckFailed(
            "the GELU is the tanh approximation: close, but weights from elsewhere "
            "expect the exact one"
        )
    wrong = [
        ("there is no activation: two linear maps in a row are one linear map", fc2(hidden)),
        ("the activation is ReLU", fc2(hidden.relu())),
        ("the activation is SiLU", fc2(F.silu(hidden))),
        ("the activation is tanh", fc2(hidden.tanh())),
        ("there is an activation after the second layer as well", F.gelu(want)),
        ("the activation comes after the second layer", F.gelu(fc2(hidden))),
        ("the input is added inside the MLP: the block does that already", want + x),
    ]
    compare(got, want, wrong, "fc1, exact GELU, fc2 are expected in this order")


@check("every channel has its own factor")
def check_layer_scale(scale: Callable[[Tensor, Tensor], Tensor]) -> None:
    """``scale(x (B, N, D), gamma (D,)) -> (B, N, D)``, one factor for each channel."""
    x, gamma = torch.randn(2, 4, 4), torch.randn(4)
    wrong = [
        ("the factors went to the tokens, not to the channels", x * gamma[:, None]),
        ("gamma was added; it is a factor", x + gamma),
        ("all channels have the same factor", x * gamma.mean()),
        ("the input is added as well: the block does that", x + x * gamma),
    ]
    compare(call(scale, x, gamma), x * gamma, wrong, "channel c is multiplied by gamma[c]")
    x.requires_grad_()
    gamma.requires_grad_()
    need_gradient(call_on_tape(scale, x, gamma), x, gamma)


@check("drop path takes whole samples, keeps the mean and rests in eval mode")
def check_drop_path(drop: Any) -> None:
    """``drop(x, rate, training)``, or a class made as ``drop(rate)``: whole samples, mean kept."""
    rate, x = 0.2, torch.ones(4000, 3, 2)

    def apply(rate: float, training: bool) -> Tensor:
        if isinstance(drop, type):
            return cast(Tensor, call(call(drop, rate).train(training), x))
        return cast(Tensor, call(drop, x, rate, training))

    if not same_values(apply(rate, False), x):
        raise CheckFailed("in eval mode nothing should be dropped or scaled")
    if not same_values(apply(0.0, True), x):
        raise CheckFailed("a rate of 0 must leave everything as it is")
    out = apply(rate, True)
    if out.shape != x.shape:
        raise CheckFailed(f"the shape is {tuple(out.shape)} where {tuple(x.shape)} went in")
    if not torch.isfinite(out).all():
        raise CheckFailed("there are values that are not finite: what was divided by what?")
    if (out != out[:, :1, :1]).any():
        raise CheckFailed(
            "within one sample some values are dropped and others are kept: that is dropout. "
            "Drop path takes the whole branch of a sample away, or nothing of it"
        )
    sample = out[:, 0, 0]
    if (sample == sample[0]).all():
        same = "nothing is dropped" if sample[0] != 0 else "everything is dropped"
        raise CheckFailed(f"{same} in the whole batch: is there one draw for each sample?")
    kept = (sample != 0).float().mean().item()
    if abs(kept - (1 - rate)) > 0.05:
        raise CheckFailed(
            f"at a rate of {rate} a share of {kept:.2f} is kept: is the rate the share that "
            "is dropped or the share that is kept?"
        )
    if abs(sample.max().item() - 1 / (1 - rate)) > 1e-4:
        raise CheckFailed(
            "what is kept must be scaled so that the mean over many draws is that of the "
            f"input; here the mean is {out.mean().item():.2f} times the input's"
        )


@check("drop path grows linearly with depth")
def check_drop_path_rates(rates: Callable[[float, int], Sequence[float]]) -> None:
    """``rates(largest, depth) -> list``: from 0 in the first block linearly to the largest."""
    for largest, depth in ((0.3, 4), (0.1, 12)):
        want = torch.linspace(0, largest, depth, dtype=torch.float64)
        block = torch.arange(depth, dtype=torch.float64)
        wrong = [
            ("every block has the same rate", torch.full((depth,), largest)),
            ("the rates fall with depth: early blocks are dropped least", want.flip(0)),
            ("the first block is dropped too: its rate should be 0", (block + 1) * largest / depth),
            ("the first block is dropped too: its rate should be 0",
             (block + 1) * largest / (depth - 1)),
            ("the last block does not reach the largest rate", block * largest / depth),
            ("the rates grow by a factor or a power, not linearly",
             largest * (block / (depth - 1)) ** 2),
            ("the last rate is 1, whatever the largest is", block / (depth - 1)),
            ("only the last block is dropped", largest * (block == depth - 1)),
        ]  # fmt: skip
        got = as_numbers(call(rates, largest, depth))
        compare(got, want, wrong, f"{depth} rates up to {largest} are expected")
    only = "a model of one block has no steps from first to last: its rate is 0"
    try:
        got = as_numbers(call(rates, 0.3, 1))
    except CheckFailed as failure:
        raise CheckFailed(f"{only} ({failure})") from failure.__cause__
    if got.shape != (1,) or got.item() != 0:
        raise CheckFailed(f"{only}, and here it is {got.tolist()}")


def _silence(block: Any) -> Any:
    """A lively copy whose two branches give zero: what is left is the path past them."""
    need(block, "attn", "mlp")
    need(block.attn, "proj")
    twin = lively(block)
    with torch.no_grad():
        for layer in (twin.attn.proj, _linears(twin.mlp)[1]):
            for parameter in layer.parameters():
                parameter.zero_()
    return twin


def tokens_for(block: Any) -> Tensor:
    """Random tokens (2, 5, D) of the block's width, whose mean is not zero."""
    return torch.randn(2, 5, _linears(block.mlp)[0].in_features) + 0.5


def judge_identity(block: Any) -> None:
    """Raise CheckFailed unless a block with silent branches gives back its input."""
    silent = _silence(block)
    x = tokens_for(silent)
    out = first_of(call(silent, x))
    if same_values(out, x):
        return
    scale = out.detach().abs().max().item()
    if scale == 0:
        raise CheckFailed(
            "with attention and MLP at zero nothing comes out: the input has no way past a branch, "
            "a residual is missing"
        )
    for name in ("norm1", "norm2"):
        norm = getattr(silent, name, None)
        if norm is not None and (
            same_values(out, norm(x)) or same_values(out, silent.norm2(silent.norm1(x)))
        ):
            raise CheckFailed(
                "with attention and MLP at zero the block still normalises its input: the norm "
                "stands on the path past the branches (post-norm), where it belongs inside them"
            )
    raise CheckFailed(
        "with attention and MLP at zero the block should give back its input, and it does not: "
        "what stands on the path past the branches?"
    )


@check("the norms stand inside the branches")
def check_pre_norm(block: Any) -> None:
    """The norm stands inside the branches: a block, or a model, is the identity without them."""
    for part in parts_of(block, "block"):
        need(part, "norm1", "norm2")
        judge_identity(part)
        loud = lively(part)  # a norm inside a branch hides the scale of the input from it
        x = 100 * tokens_for(loud)
        branches, doubled = first_of(call(loud, x)) - x, first_of(call(loud, 2 * x)) - 2 * x
        if not same_values(branches, doubled, 0.05):
            raise CheckFailed(
                "a branch grows with the size of its input: it is not normalised on its way "
                "into the branch"
            )


@check("the block adds attention and then the MLP, each on normalised tokens")
def check_block(block: Any) -> None:
    """A block (or each of a model) is x + attn(norm1(x)), then x + mlp(norm2(x)).

    The module has ``.norm1 .attn .norm2 .mlp``, and ``.ls1 .ls2`` where it has layer scale; a class
    is made as ``block(24, 3)``.
    """
    for part in parts_of(block, "block"):
        _judge_block(part)


def _judge_block(block: Any) -> None:
    need(block, "norm1", "attn", "norm2", "mlp")
    b = lively(block)
    x = tokens_for(b)

    def attn(x: Tensor) -> Tensor:
        return cast(Tensor, getattr(b, "ls1", nn.Identity())(first_of(call(b.attn, x))))

    def mlp(x: Tensor) -> Tensor:
        return cast(Tensor, getattr(b, "ls2", nn.Identity())(call(b.mlp, x)))

    middle = x + attn(b.norm1(x))
    want = middle + mlp(b.norm2(middle))
    lost = attn(b.norm1(x))
    post = b.norm1(x + attn(x))
    normed = b.norm1(x) + attn(b.norm1(x))
    bare = x + attn(x)
    wrong = [
        ("the residual around attention is missing", lost + mlp(b.norm2(lost))),
        ("the residual around the MLP is missing", mlp(b.norm2(middle))),
        ("both residuals are missing", mlp(b.norm2(lost))),
        ("the norms come after the additions: this is post-norm",
         b.norm2(post + mlp(post))),
        ("the norm of attention comes after the addition (post-norm), and the residual around the "
         "MLP is missing", mlp(b.norm2(post))),
        ("the norm of attention comes after the addition: this half is post-norm",
         post + mlp(b.norm2(post))),
        ("the norm of the MLP comes after the addition: this half is post-norm",
         b.norm2(middle + mlp(middle))),
        ("the residual carries the normalised tokens: the path past the branches should "
         "carry them as they came", normed + mlp(b.norm2(normed))),
        ("the residual carries the normalised tokens: the path past the branches should "
         "carry them as they came", b.norm2(normed) + mlp(b.norm2(normed))),
        ("the norm before attention is missing", bare + mlp(b.norm2(bare))),
        ("the norm before the MLP is missing", middle + mlp(middle)),
        ("there is no norm at all", bare + mlp(bare)),
        ("the MLP does not see what attention did: the branches stand beside each other",
         x + attn(b.norm1(x)) + mlp(b.norm2(x))),
        ("the second residual starts from the block's input again",
         x + mlp(b.norm2(middle))),
        ("one norm is used twice", middle + mlp(b.norm1(middle))),
        ("one norm is used twice", (other := x + attn(b.norm2(x))) + mlp(b.norm2(other))),
        ("the two norms have changed places", other + mlp(b.norm1(other))),
        ("the MLP comes before attention",
         (first := x + mlp(b.norm2(x))) + attn(b.norm1(first))),
        ("only the attention half is there", middle),
        ("only the MLP half is there", first),
    ]  # fmt: skip
    compare(first_of(call(b, x)), want, wrong, "two branches, each normalised and added")


@check("the block, its two norms and its MLP are right")
def check_block_and_parts(block: Any) -> None:
    """``block(dim, heads)``, a class, with norms and an MLP of the reader's own.

    The parts are ``.norm1 .attn .norm2 .mlp``; the MLP is four times as wide inside, with biases.
    """
    for part in parts_of(block, "block"):
        need(part, "norm1", "attn", "norm2", "mlp")
        own = "the exercise asks for one of your own"
        for name in ("norm1", "norm2"):
            if isinstance(getattr(part, name), nn.LayerNorm):
                raise CheckFailed(f"{name} is torch's nn.LayerNorm: {own}")
            need(getattr(part, name), "weight", "bias")
            for kind, start in (("weight", 1), ("bias", 0)):
                parameter = getattr(getattr(part, name), kind)
                if not isinstance(parameter, nn.Parameter):
                    raise CheckFailed(
                        f"{name} has no parameter .{kind}: a plain tensor is never trained, "
                        "wrap it in nn.Parameter"
                    )
                if isinstance(block, type) and (parameter != start).any():
                    raise CheckFailed(
                        f"{name} does not start as a plain norm: "
                        "its weight starts at ones, its bias at zeros"
                    )
        if isinstance(part.mlp, Mlp):
            raise CheckFailed(f"the MLP is vitcore's: {own}")
        for name in ("norm1", "norm2"):
            with _named(f"in .{name}"):
                _judge_layer_norm(getattr(part, name), frozenset({"layer_norm"}))
        fc1, fc2 = _linears(part.mlp)
        if fc1.out_features != 4 * fc1.in_features:
            raise CheckFailed(
                f"the MLP has {fc1.out_features} channels inside for tokens of {fc1.in_features}: "
                "four times as many are asked"
            )
        if fc1.bias is None or fc2.bias is None:
            raise CheckFailed("a linear layer of the MLP has no bias, and both should have one")
        with _named("in .mlp"):
            _judge_mlp(part.mlp)
        _judge_block(part)


@contextmanager
def _named(place: str) -> Iterator[None]:
    """Say before the message of a failed check where in the block it was found."""
    try:
        yield
    except CheckFailed as failure:
        raise CheckFailed(f"{place}: {failure}") from failure.__cause__
