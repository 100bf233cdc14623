# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 11: pretrained weights."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import re

import numpy as np
import torch
import torch.nn.functional as F

from exercises.table import Exercise


def fuse(weights, order="qkv", how=torch.cat, keep=()):
    found = {}
    for name, tensor in weights.items():
        if ".attn.q." in name:
            parts = [weights[name.replace(".q.", f".{letter}.")] for letter in order]
            found[name.replace(".q.", ".qkv.")] = how(parts)
        elif not re.search(r"\.attn\.[kv]\.", name):
            found[name] = tensor
    return {**found, **{name: weights[name] for name in keep}}


def fuse_by_groups(weights):
    groups, found = {}, {}
    for name, tensor in weights.items():
        match = re.fullmatch(r"(.*\.attn\.)([qkv])(\..*)", name)
        if match is None:
            found[name] = tensor
        else:
            groups.setdefault(f"{match[1]}qkv{match[3]}", {})[match[2]] = tensor
    return found | {n: torch.cat([g["q"], g["k"], g["v"]]) for n, g in groups.items()}


def fuse_by_popping(weights):
    rest = dict(weights)
    for name in [name for name in weights if ".attn.q." in name]:
        head, tail = name.split(".q.")
        parts = [rest.pop(f"{head}.{letter}.{tail}") for letter in "qkv"]
        rest[f"{head}.qkv.{tail}"] = (
            torch.vstack(parts) if parts[0].ndim > 1 else torch.hstack(parts)
        )
    return rest


def fuse_by_filling(weights):
    found = {}
    for name, tensor in weights.items():
        parts = name.split(".")
        if "attn" in parts and parts[-2] in ("q", "k", "v"):
            place = "qkv".index(parts[-2])
            fused = ".".join([*parts[:-2], "qkv", parts[-1]])
            size = len(tensor)
            whole = found.setdefault(fused, torch.empty(3 * size, *tensor.shape[1:]))
            whole[place * size : (place + 1) * size] = tensor
        else:
            found[name] = tensor
    return found


def fuse_in_place(weights):
    for name in [name for name in weights if ".attn.q." in name]:
        parts = [weights.pop(name.replace(".q.", f".{letter}.")) for letter in "qkv"]
        weights[name.replace(".q.", ".qkv.")] = torch.cat(parts)
    return weights


def layer_of(name, depth):
    if name.startswith("blocks."):
        return int(name.split(".")[1]) + 1
    return depth + 1 if name.startswith(("norm", "fc_norm", "head")) else 0


def rates(names, depth, decay):
    return [decay ** (depth + 1 - layer_of(name, depth)) for name in names]


def rates_loop(names, depth, decay):
    found = []
    for name in names:
        share = 1.0
        for _ in range(depth + 1 - layer_of(name, depth)):
            share *= decay
        found.append(share)
    return found


def rates_table(names, depth, decay):
    table = {}
    share = 1.0
    for layer in range(depth + 1, -1, -1):
        table[layer] = share
        share *= decay
    return torch.tensor([table[layer_of(name, depth)] for name in names])


def rates_by(layer):
    return lambda names, depth, decay: [decay ** (depth + 1 - layer(n, depth)) for n in names]


def hide(tokens, noise, count):
    places = noise.argsort(dim=1)[:, :count]
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2])), places


def hide_topk(tokens, noise, count):
    places = noise.topk(count, dim=1, largest=False).indices
    return torch.take_along_dim(tokens, places[..., None], dim=1), places


def hide_loop(tokens, noise, count):
    places = torch.stack([row.argsort()[:count].sort().values for row in noise])
    return torch.stack([x[at] for x, at in zip(tokens, places, strict=True)]), places


def hide_index(tokens, noise, count):
    places = torch.from_numpy(np.argsort(noise.numpy(), axis=1)[:, :count].copy())
    return tokens[torch.arange(len(tokens))[:, None], places], places


def hide_mask(tokens, noise, count):
    seen = torch.zeros_like(noise).scatter(1, noise.argsort(1)[:, :count], 1.0) > 0
    kept = tokens[seen].view(len(tokens), count, -1)
    return kept, seen.nonzero()[:, 1].view(len(tokens), count)


def at(tokens, places):
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def hide_at(choose):
    def answer(tokens, noise, count):
        places = choose(noise, count)
        return at(tokens, places), places

    return answer


def error(guess, patches, hidden):
    target = F.layer_norm(patches, patches.shape[-1:])
    each = (guess - target).square().mean(-1)
    return (each * hidden).sum(1) / hidden.sum(1)


def error_loop(guess, patches, hidden):
    found = []
    for g, p, h in zip(guess, patches, hidden, strict=True):
        g, p = g[h > 0], p[h > 0]
        p = (p - p.mean(1, keepdim=True)) / p.std(1, keepdim=True)
        found.append(((g - p) ** 2).mean())
    return torch.stack(found)


def error_numpy(guess, patches, hidden):
    guess, patches, hidden = guess.numpy(), patches.numpy(), hidden.numpy()
    target = (patches - patches.mean(-1, keepdims=True)) / patches.std(-1, keepdims=True)
    return np.average(((guess - target) ** 2).mean(-1), axis=1, weights=hidden)


def error_of(target, each=torch.square, pixels=torch.mean, guessed=lambda g: g):
    def answer(guess, patches, hidden):
        error = pixels(each(guessed(guess) - target(patches)), dim=-1)
        return (error * hidden).sum(1) / hidden.sum(1)

    return answer


def normalised(patches):
    return F.layer_norm(patches, patches.shape[-1:])


def distil(by_label, by_teacher, labels, teacher):
    told = teacher.argmax(dim=1)
    return (F.cross_entropy(by_label, labels) + F.cross_entropy(by_teacher, told)) / 2


def distil_by_hand(by_label, by_teacher, labels, teacher):
    def loss(logits, classes):
        return -logits.log_softmax(1)[torch.arange(len(classes)), classes].mean()

    return 0.5 * loss(by_label, labels) + 0.5 * loss(by_teacher, teacher.max(dim=1).indices)


def distil_one_hot(by_label, by_teacher, labels, teacher):
    told = F.one_hot(teacher.softmax(1).argmax(1), teacher.shape[1]).float()
    return 0.5 * F.cross_entropy(by_label, labels) + 0.5 * F.cross_entropy(by_teacher, told)


def distil_together(by_label, by_teacher, labels, teacher):
    logits = torch.cat([by_label, by_teacher])
    return F.nll_loss(logits.log_softmax(-1), torch.cat([labels, teacher.argmax(-1)]))


def halves(first, second):
    return (first + second) / 2


ce = F.cross_entropy

EXERCISES = [
    Exercise(
        "11.1",
        ["check_fuse_qkv(_)"],
        right={
            "a loop": fuse,
            "groups": fuse_by_groups,
            "popping from a copy": fuse_by_popping,
            "filling": fuse_by_filling,
            "in place on a copy": lambda w: fuse_in_place(dict(w)),
        },
        wrong=[
            (lambda w: fuse(w, "kqv"), "k, q, v"),
            (lambda w: fuse(w, "vkq"), "v, k, q"),
            (lambda w: fuse(w, "qvk"), "q, v, k"),
            (lambda w: fuse(w, how=torch.stack), "axis of their own"),
            (lambda w: fuse(w, how=lambda p: torch.cat(p, -1)), "columns"),
            (lambda w: fuse(w, how=lambda p: torch.stack(p, 1).flatten(0, 1)), "take turns"),
            (
                lambda w: fuse(w, how=lambda p: torch.cat([x.T if x.ndim > 1 else x for x in p])),
                "transposed",
            ),
            (lambda w: fuse(w, keep=["blocks.0.attn.k.bias"]), "left over"),
            (
                lambda w: {n: t for n, t in fuse(w).items() if not n.endswith("qkv.bias")},
                "biases are joined",
            ),
            (lambda w: {n: t for n, t in fuse(w).items() if ".qkv." in n}, "stays as it is"),
            (
                lambda w: {n: t for n, t in fuse(w).items() if "blocks.10.attn.qkv" not in n},
                "what came back",
            ),
            (lambda w: list(fuse(w).items()), "dict of tensors"),
            (fuse_in_place, "build a new one"),
            (lambda w: fuse({n: t.zero_() for n, t in w.items()}), "build a new one"),
            (lambda w: {n: t.numpy() for n, t in fuse(w).items()}, "holds a ndarray"),
            (lambda w: {n: 2 * t for n, t in fuse(w).items()}, "values are not"),
        ],
    ),
    Exercise(
        "11.2",
        ["check_layer_rates(_)"],
        right={
            "a power": rates,
            "a loop": rates_loop,
            "a table": rates_table,
            "NumPy": lambda n, d, r: np.power(r, [d + 1 - layer_of(x, d) for x in n]),
        },
        wrong=[
            (lambda n, d, r: [r ** layer_of(x, d) for x in n], "turned round"),
            (lambda n, d, r: [r * s for s in rates(n, d, r)], "gets less than the whole"),
            (lambda n, d, r: [s / r for s in rates(n, d, r)], "gets more than the whole"),
            (
                rates_by(lambda x, d: int(x[7]) + 1 if x.startswith("blocks") else layer_of(x, d)),
                "more than one digit",
            ),
            (
                rates_by(lambda x, d: layer_of(x, d) - x.startswith("blocks.")),
                "taken for layer 0, which",
            ),
            (
                rates_by(lambda x, d: d + 1 if x in ("pos_embed", "cls_token") else layer_of(x, d)),
                "positions and class token",
            ),
            (
                rates_by(lambda x, d: 0 if x.startswith("norm") else layer_of(x, d)),
                "norm is taken for layer 0",
            ),
            (
                rates_by(lambda x, d: d if x.startswith("norm") else layer_of(x, d)),
                "norm gets less",
            ),
            (
                lambda n, d, r: [1 - (1 - r) * (d + 1 - layer_of(x, d)) / (d + 1) for x in n],
                "equal steps",
            ),
            (lambda n, d, r: [1.0 for _ in n], "same rate"),
            (lambda n, d, r: dict(zip(n, rates(n, d, r), strict=True)), "a dict came back"),
            (
                rates_by(lambda x, d: d + 1 if x.startswith("patch") else layer_of(x, d)),
                "patch embedding gets",
            ),
            (rates_by(lambda x, d: layer_of(x, d) or d + 1), "tokens and positions get"),
            (rates_by(lambda x, d: max(layer_of(x, d), 1)), "the rate of block 0"),
            (rates_by(lambda x, d: d + 1 if "norm" in x else layer_of(x, d)), "inside a block"),
            (
                lambda n, d, r: [r ** (d - min(layer_of(x, d), d)) for x in n],
                "last block has the rate",
            ),
            (lambda n, d, r: [float(layer_of(x, d) > d) for x in n], "frozen"),
            (lambda n, d, r: [0.5 * s for s in rates(n, d, r)], "values are not"),
        ],
    ),
    Exercise(
        "11.3",
        ["check_hide_patches(_)"],
        right={
            "argsort and gather": hide,
            "topk": hide_topk,
            "a loop, in the order of the image": hide_loop,
            "NumPy and an index": hide_index,
            "arrays of NumPy": lambda x, z, n: tuple(t.numpy() for t in hide(x, z, n)),
            "a mask, in the order of the image": hide_mask,
        },
        wrong=[
            (hide_at(lambda z, n: z.argsort(1)[:, -n:]), "the most noise"),
            (hide_at(lambda z, n: z.argsort(1)[:, n:]), "places of the hidden"),
            (
                hide_at(lambda z, n: z[:1].argsort(1)[:, :n].expand(len(z), -1)),
                "the patches of the first",
            ),
            (hide_at(lambda z, n: z.argsort(1).argsort(1)[:, :n]), "ranks"),
            (hide_at(lambda z, n: torch.arange(n).expand(len(z), -1)), "whatever the noise"),
            (hide_at(lambda z, n: z.argsort(1)[:, : n + 1]), "too many"),
            (lambda x, z, n: hide(x, z, n)[0], "two tensors"),
            (lambda x, z, n: (hide(x, z, n)[0], z < n), "whole numbers"),
            (lambda x, z, n: (hide(x, z, n)[0], hide(x, z, n)[1].float()), "whole numbers"),
            (
                lambda x, z, n: (
                    x * torch.zeros_like(z).scatter(1, hide(x, z, n)[1], 1.0)[..., None],
                    hide(x, z, n)[1],
                ),
                "set to zero and stay",
            ),
            (lambda x, z, n: (hide(x, z, n)[0], hide(x, z, n)[1].flip(1)), "same order"),
            (lambda x, z, n: (hide_mask(x, z, n)[0], hide(x, z, n)[1]), "same order"),
            (lambda x, z, n: hide(x, z, n)[::-1], "exchanged"),
            (lambda x, z, n: (hide(x, z, n)[0], z[0].argsort()[:n]), "each image its own"),
            (
                lambda x, z, n: (hide(x[:1].repeat(len(x), 1, 1), z, n)[0], hide(x, z, n)[1]),
                "from the first image",
            ),
            (
                lambda x, z, n: (at(x, z.argsort(1)[:, n:]), hide(x, z, n)[1]),
                "this is what is hidden",
            ),
            (lambda x, z, n: (x, hide(x, z, n)[1]), "all tokens came back"),
            (lambda x, z, n: (hide(x, z, n)[0] + 1, hide(x, z, n)[1]), "values are not"),
        ],
    ),
    Exercise(
        "11.4",
        ["check_reconstruction(_)"],
        right={
            "layer_norm": error,
            "a loop": error_loop,
            "NumPy": error_numpy,
            "mse_loss": lambda g, p, h: (
                (F.mse_loss(g, normalised(p), reduction="none").mean(-1) * h).sum(1) / h.sum(1)
            ),
        },
        wrong=[
            (lambda g, p, h: error(g, p, torch.ones_like(h)), "all patches count"),
            (lambda g, p, h: error(g, p, 1 - h), "seen patches count"),
            (error_of(lambda p: p), "as they are"),
            (lambda g, p, h: error(g, p, h) * h.mean(1), "divides by all"),
            (lambda g, p, h: error(g, p, h) * h.sum(1), "are added; their mean"),
            (error_of(lambda p: F.layer_norm(p, p.shape[1:])), "as a whole"),
            (error_of(normalised, guessed=normalised), "guess is normalised"),
            (lambda g, p, h: error(g, p, h).mean(), "one number"),
            (lambda g, p, h: (error(g, p, h) * h.sum(1)).sum() / h.sum(), "one number"),
            (error_of(normalised, pixels=torch.sum), "numbers of a patch are added"),
            (error_of(normalised, each=torch.abs), "absolute"),
            (lambda g, p, h: error(g, p, h).sqrt(), "root"),
            (error_of(lambda p: p - p.mean(-1, keepdim=True)), "not divided"),
            (lambda g, p, h: error_loop(g, p, torch.ones_like(h)), "all patches count"),
            (lambda g, p, h: error_loop(g, p, h) * h.mean(1), "divides by all"),
            (
                error_of(lambda p: (p - p.mean(1, keepdim=True)) / p.std(1, keepdim=True)),
                "over the",
            ),
            (
                error_of(lambda p: (p - p.mean(-1, keepdim=True)) / p.var(-1, keepdim=True)),
                "variance",
            ),
            (lambda g, p, h: error(g, p, h) + 1, "values are not"),
        ],
    ),
    Exercise(
        "11.5",
        ["check_distillation(_)"],
        right={
            "cross_entropy": distil,
            "by hand": distil_by_hand,
            "one-hot targets": distil_one_hot,
            "all at once": distil_together,
            "a number": lambda a, b, y, t: distil(a, b, y, t).item(),
        },
        wrong=[
            (lambda a, b, y, t: distil(b, a, y, t), "heads are exchanged"),
            (lambda a, b, y, t: halves(ce(a, y), ce(b, y)), "teacher has no part"),
            (lambda a, b, y, t: halves(ce(a, t.argmax(1)), ce(b, t.argmax(1))), "labels have no"),
            (lambda a, b, y, t: 2 * distil(a, b, y, t), "are added"),
            (lambda a, b, y, t: ce(a, y), "labels alone"),
            (lambda a, b, y, t: ce(b, t.argmax(1)), "teacher alone"),
            (lambda a, b, y, t: halves(ce(a, y), ce(b, t.softmax(1))), "soft"),
            (
                lambda a, b, y, t: halves(
                    ce(a, y), F.kl_div(b.log_softmax(1), t.softmax(1), reduction="batchmean")
                ),
                "soft",
            ),
            (lambda a, b, y, t: distil(a, b, y, b), "student's own"),
            (lambda a, b, y, t: len(y) * distil(a, b, y, t), "images are added"),
            (lambda a, b, y, t: distil(a.softmax(1), b.softmax(1), y, t), "give it the logits"),
            (lambda a, b, y, t: distil(halves(a, b), halves(a, b), y, t), "before the loss"),
            (
                lambda a, b, y, t: halves(
                    ce(a, y, reduction="none"), ce(b, t.argmax(1), reduction="none")
                ),
                "each image",
            ),
            (lambda a, b, y, t: distil(a, b, y, t) + 1, "values are not"),
        ],
    ),
]
