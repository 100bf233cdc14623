# SPDX-License-Identifier: MIT
"""Checks of chapter 11: others' weights taken over, and what is learned without labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .frame import CheckFailed, as_numbers, call, check, compare, same_values

Weights = Mapping[str, Tensor]


def _same_weights(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(same_values(a[name], b[name]) for name in b)


@check("queries, keys and values are one tensor each layer, and nothing else was touched")
def check_fuse_qkv(fuse: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """``fuse(weights) -> weights``: `attn.q`, `attn.k` and `attn.v` become `attn.qkv`."""
    dim, given, right = 4, {}, {}
    for layer in (0, 1, 10):
        for kind, shape in (("weight", (dim, dim)), ("bias", (dim,))):
            parts = {letter: torch.randn(shape) for letter in "qkv"}
            for letter, part in parts.items():
                given[f"blocks.{layer}.attn.{letter}.{kind}"] = part
            right[f"blocks.{layer}.attn.qkv.{kind}"] = torch.cat([*parts.values()])
        others = {f"blocks.{layer}.attn.proj.weight": torch.randn(dim, dim)}
        others |= {f"blocks.{layer}.norm1.bias": torch.randn(dim)}
        given |= others
        right |= others

    def joined(order: str = "qkv", how: Callable[..., Tensor] = torch.cat) -> dict[str, Tensor]:
        found = dict(right)
        for name in [n for n in right if ".qkv." in n]:
            found[name] = how([given[name.replace(".qkv.", f".{letter}.")] for letter in order])
        return found

    before = {name: tensor.clone() for name, tensor in given.items()}
    got = call(fuse, given)
    if not isinstance(got, Mapping):
        raise CheckFailed(f"a dict of tensors is expected, but a {type(got).__name__} came back")
    odd = [type(value).__name__ for value in got.values() if not isinstance(value, Tensor)]
    if odd:
        raise CheckFailed(f"a dict of tensors is expected, but this one holds a {odd[0]}")
    if not _same_weights(given, before):
        raise CheckFailed("your code changes the dict that it was given; build a new one")
    left = sorted(set(got) - set(right))
    missing = sorted(set(right) - set(got))
    if left and not missing:
        raise CheckFailed(f"{left[0]} is left over: what was joined must not stay beside it")
    if missing and all(".bias" in name and ".qkv." in name for name in missing):
        raise CheckFailed(f"{missing[0]} is missing: biases are joined as weights are")
    if missing and all(".qkv." in name for name in missing):
        raise CheckFailed(f"{missing[0]} is missing; what came back has {', '.join(sorted(got))}")
    if missing:
        raise CheckFailed(f"{missing[0]} is missing: what is neither q, k nor v stays as it is")
    named = [
        ("the order is k, q, v; a fused layer has the queries first", joined("kqv")),
        ("the order is v, k, q; a fused layer has the queries first", joined("vkq")),
        ("the order is q, v, k; the keys stand in the middle", joined("qvk")),
        ("the three stand on an axis of their own: join them along the rows, (3D, D)",
         joined(how=torch.stack)),
        ("the weights are joined along the columns; each row makes one number, so join the rows",
         joined(how=lambda parts: torch.cat(parts, dim=-1))),
        ("the rows of q, k and v take turns; all of q comes first",
         joined(how=lambda parts: torch.stack(parts, dim=1).flatten(0, 1))),
        ("the weights are transposed: a linear layer keeps (outputs, inputs)",
         joined(how=lambda parts: torch.cat([p.T if p.ndim > 1 else p for p in parts]))),
    ]  # fmt: skip
    for message, weights in named:
        if _same_weights(got, weights):
            raise CheckFailed(message)
    for name, want in right.items():
        compare(got[name], want, [], f"{name} of a block {dim} wide")


@check("the head has the whole rate, and each layer before it a share of the next one's")
def check_layer_rates(rates: Callable[[list[str], int, float], Sequence[float]]) -> None:
    """``rates(names, depth, decay) -> [share, …]``, one for each parameter's name."""
    depth, decay = 12, 0.8
    layers = {
        "cls_token": 0, "pos_embed": 0, "patch_embed.proj.weight": 0, "blocks.0.attn.qkv.weight": 1,
        "blocks.1.norm1.bias": 2, "blocks.10.mlp.fc1.weight": 11, "blocks.11.attn.proj.bias": 12,
        "norm.weight": 13, "head.weight": 13, "head.bias": 13,
    }  # fmt: skip

    def shares(base: float = decay, last: int = depth + 1, **changed: int) -> Tensor:
        found = {n: changed.get(n.split(".")[0], layer) for n, layer in layers.items()}
        return torch.tensor([base ** (last - layer) for layer in found.values()]).double()

    number = torch.tensor([*layers.values()])
    one_digit = number.clone()
    one_digit[[5, 6]] = 2
    inner_norm = number.clone()
    inner_norm[4] = depth + 1
    shifted = torch.where((number > 0) & (number <= depth), number - 1, number)
    wrong = [
        ("it is turned round: the first layers get the most; the head is to have the whole rate",
         decay ** number.double()),
        ("the head gets less than the whole rate: the exponent is depth + 1 - layer",
         shares(last=depth + 2)),
        ("the head gets more than the whole rate: the exponent is depth + 1 - layer",
         shares(last=depth)),
        ("block 10 is read as block 1: a number has more than one digit",
         decay ** (depth + 1 - one_digit).double()),
        ("block 0 is taken for layer 0, which makes the tokens; it is layer 1",
         decay ** (depth + 1 - shifted).double()),
        ("positions and class token get the whole rate; they are part of layer 0",
         shares(cls_token=depth + 1, pos_embed=depth + 1)),
        ("the patch embedding gets the whole rate; it is part of layer 0",
         shares(patch_embed=depth + 1)),
        ("tokens and positions get the whole rate; they are layer 0",
         shares(cls_token=depth + 1, pos_embed=depth + 1, patch_embed=depth + 1)),
        ("the tokens have the rate of block 0; they are layer 0, and block 0 is layer 1",
         decay ** (depth + 1 - number.clamp(min=1)).double()),
        ("a norm inside a block is taken for the final norm: look at how the name begins",
         decay ** (depth + 1 - inner_norm).double()),
        ("the last block has the rate of the head; the head is one layer after it",
         decay ** (depth - number.clamp(max=depth)).double()),
        ("the final norm is taken for layer 0; it belongs to the head", shares(norm=0)),
        ("the final norm gets less than the head; it belongs to it", shares(norm=depth)),
        ("the shares fall by equal steps; each layer has `decay` times the rate of the next",
         1 - (1 - decay) * (depth + 1 - number).double() / (depth + 1)),
        ("all get the same rate", torch.ones(len(layers)).double()),
        ("only the head has a rate: this is a frozen backbone", (number > depth).double()),
    ]  # fmt: skip
    got = call(rates, list(layers), depth, decay)
    if isinstance(got, Mapping):
        raise CheckFailed("a list is expected, in the order of the names, but a dict came back")
    got = as_numbers(got)
    compare(got, shares(), wrong, "twelve blocks, a decay of 0.8")


def _in_any_order(got: Any, want: Tensor) -> Tensor:
    """What came back where it is what is wanted up to the order of rows, else what is wanted."""
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return want
    return got if same_values(got.sort(dim=1).values, want.sort(dim=1).values) else want


@check("each image keeps patches of its own, and says which")
def check_hide_patches(hide: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]) -> None:
    """``hide(tokens (B, N, D), noise (B, N), count) -> (kept (B, count, D), places (B, count))``;
    the patches with the least noise are kept, in any order."""
    # The least noise stands at places 3 and 1, in this order: an answer in the order of the image
    # differs from one in the order of the noise.
    tokens, count = torch.randn(3, 8, 4), 2
    noise = torch.tensor([5.0, 1, 7, 0, 3, 6, 2, 4])
    noise = torch.stack([noise, 7 - noise, noise.roll(1)])
    got: Any = call(hide, tokens, noise, count)
    if not isinstance(got, (tuple, list)) or len(got) != 2:
        raise CheckFailed("two tensors are expected, what is kept and its places: (kept, places)")
    kept, places = (torch.as_tensor(x) if isinstance(x, np.ndarray) else x for x in got)
    whole = [
        isinstance(x, Tensor) and x.dtype in (torch.int64, torch.int32) for x in (kept, places)
    ]
    if whole == [True, False]:
        raise CheckFailed("the two are exchanged: first what is kept, then its places")
    if not whole[1] or places.ndim < 2 or len(places) != 3:
        raise CheckFailed("the places are to be whole numbers, (B, count), for each image its own")
    order = noise.argsort(dim=1)
    wrong = [
        ("the patches with the most noise are kept; take those with the least",
         order[:, -count:]),
        ("these are the places of the hidden patches; give those that are kept",
         order[:, count:]),
        ("every image keeps the patches of the first", order[:1, :count].expand(3, -1)),
        ("these are ranks, not places: argsort of the noise says where the least is",
         order.argsort(dim=1)[:, :count]),
        ("the first patches of each image are kept, whatever the noise says",
         torch.arange(count).expand(3, -1)),
        ("one patch too many is kept", order[:, : count + 1]),
    ]  # fmt: skip
    found = places.sort(dim=1).values
    compare(found, order[:, :count].sort(dim=1).values,
            [(message, value.sort(dim=1).values) for message, value in wrong],
            "three images keep two patches of eight")  # fmt: skip

    def taken(at: Tensor) -> Tensor:
        return tokens.gather(1, at[..., None].expand(-1, -1, 4))

    hidden = torch.ones(3, 8).scatter(1, order[:, :count], 0.0)[..., None]
    wrong = [
        ("hidden patches are set to zero and stay; they are to be left out, for that is what saves "
         "the work", tokens * (1 - hidden)),
        # each image by itself: some may stand in the same order by luck
        ("kept and places are not in the same order", _in_any_order(kept, taken(places))),
        ("every image's patches are taken from the first image",
         tokens[:1].expand(3, -1, -1).gather(1, places[..., None].expand(-1, -1, 4))),
        ("the places are right, but this is what is hidden", taken(order[:, count:])),
        ("the places are right, but all tokens came back", tokens),
    ]  # fmt: skip
    compare(kept, taken(places), wrong, "three images keep two patches of four numbers")


@check("only hidden patches count, each normalised by itself")
def check_reconstruction(error: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    """``error(guess (B, N, P), patches (B, N, P), hidden (B, N)) -> (B,)``."""
    guess, patches = torch.randn(2, 6, 12), 4 * torch.randn(2, 6, 12) + 3
    hidden = torch.tensor([[1.0, 1, 1, 0, 1, 0], [0, 1, 0, 1, 0, 0]])
    count = hidden.sum(dim=1)

    def mean(values: Tensor) -> Tensor:
        return (values.mean(dim=-1) * hidden).sum(dim=1) / count

    def mistakes(target: Tensor) -> list[tuple[str, Tensor]]:
        square = (guess - target).square()
        whole = F.layer_norm(patches, (6, 12))
        across = (patches - patches.mean(1, keepdim=True)) / patches.std(1, keepdim=True)
        centred = patches - patches.mean(-1, keepdim=True)
        return [
            ("all patches count; the seen ones are to be left out", square.mean((1, 2))),
            ("the seen patches count; the hidden ones are meant",
             (square.mean(-1) * (1 - hidden)).sum(1) / (1 - hidden).sum(1)),
            ("the patches are compared as they are; bring each to mean 0 and deviation 1 first",
             mean((guess - patches).square())),
            ("it divides by all patches; divide by the number of hidden ones",
             (square.mean(-1) * hidden).sum(1) / 6),
            ("the hidden patches are added; their mean is expected",
             (square.mean(-1) * hidden).sum(1)),
            ("an image is normalised as a whole; each patch has a mean and a deviation of its own",
             mean((guess - whole).square())),
            ("each place in a patch is normalised over the patches; normalise each patch instead",
             mean((guess - across).square())),
            ("the guess is normalised too; only the target is",
             mean((F.layer_norm(guess, (12,)) - target).square())),
            ("this is one number; each image has its own error", mean(square).mean()),
            ("this is one number; each image has its own error",
             (square.mean(-1) * hidden).sum() / hidden.sum()),
            ("the numbers of a patch are added; their mean is expected", 12 * mean(square)),
            ("this is the absolute difference; square it", mean(square.sqrt())),
            ("the root is taken; the squared error is expected", mean(square).sqrt()),
            ("the mean is taken away, but the patches are not divided by their deviation",
             mean((guess - centred).square())),
            ("the patches are divided by their variance; the deviation is its root",
             mean((guess - centred / patches.var(-1, keepdim=True)).square())),
        ]  # fmt: skip

    got = as_numbers(call(error, guess, patches, hidden))
    # How the deviation is estimated, and what keeps it from zero, is the reader's choice.
    centred = patches - patches.mean(-1, keepdim=True)
    deviations = [patches.std(-1, keepdim=True, unbiased=unbiased) for unbiased in (False, True)]
    targets = [centred / (deviation + least) for deviation in deviations for least in (0.0, 1e-3)]
    if any(same_values(got, mean((guess - target).square())) for target in targets):
        return
    wrong = [mistake for target in targets for mistake in mistakes(target)]
    compare(got, mean((guess - targets[0]).square()), wrong, "two images of six patches")


@check("one head learns from the labels, the other from the teacher's answers")
def check_distillation(loss: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> None:
    """``loss(by_label (B, K), by_teacher (B, K), labels (B,), teacher (B, K)) -> scalar``; the
    teacher's logits."""
    by_label, by_teacher, teacher = (2 * torch.randn(6, 5) for _ in range(3))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    told = teacher.argmax(dim=1)
    cross: Any = F.cross_entropy
    each = {"reduction": "none"}
    mixed = (by_label + by_teacher) / 2
    right = (cross(by_label, labels) + cross(by_teacher, told)) / 2
    wrong = [
        ("the heads are exchanged: the class token's head learns from the labels",
         (cross(by_teacher, labels) + cross(by_label, told)) / 2),
        ("both heads learn from the labels; the teacher has no part",
         (cross(by_label, labels) + cross(by_teacher, labels)) / 2),
        ("both heads learn from the teacher; the labels have no part",
         (cross(by_label, told) + cross(by_teacher, told)) / 2),
        ("the two losses are added; each counts for a half", 2 * right),
        ("this is the loss by the labels alone", cross(by_label, labels)),
        ("this is the loss by the teacher alone", cross(by_teacher, told)),
        ("the teacher's probabilities are the targets (soft); take its answer, the highest logit",
         (cross(by_label, labels) + cross(by_teacher, teacher.softmax(1))) / 2),
        ("the teacher's probabilities are the targets (soft); take its answer, the highest logit",
         (cross(by_label, labels) + F.kl_div(by_teacher.log_softmax(1), teacher.softmax(1),
                                             reduction="batchmean")) / 2),
        ("the answer is taken from the student's own head; the teacher's logits give it",
         (cross(by_label, labels) + cross(by_teacher, by_teacher.argmax(1))) / 2),
        ("the losses of the images are added; take their mean", len(labels) * right),
        ("the softmax is part of the cross-entropy: give it the logits",
         (cross(by_label.softmax(1), labels) + cross(by_teacher.softmax(1), told)) / 2),
        ("the heads are averaged before the loss; each learns by itself",
         (cross(mixed, labels) + cross(mixed, told)) / 2),
        ("this is one number for each image; take the mean",
         (cross(by_label, labels, **each) + cross(by_teacher, told, **each)) / 2),
    ]  # fmt: skip
    got = call(loss, by_label, by_teacher, labels, teacher)
    compare(as_numbers(got), right, wrong, "six images, five classes")
