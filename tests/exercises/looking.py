# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 8: looking inside."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from exercises.table import Exercise


def with_identity(weights, share=0.5):
    return share * torch.eye(weights.shape[-1]) + (1 - share) * weights


def rollout(weights):
    joined = torch.eye(weights.shape[-1])
    for layer in weights:
        joined = with_identity(layer) @ joined
    return joined


def rollout_by_sums(weights):
    joined = None
    for layer in weights:
        mixed = layer + torch.eye(len(layer))
        mixed = mixed / mixed.sum(-1, keepdim=True)
        joined = mixed if joined is None else mixed @ joined
    return joined


def rollout_numpy(weights):
    mixed = (weights.numpy() + np.eye(weights.shape[-1])) / 2
    return torch.from_numpy(np.linalg.multi_dot(list(mixed[::-1]))).float()


def rollout_in_place(weights):
    weights += torch.eye(weights.shape[-1])
    weights /= 2
    return torch.linalg.multi_dot(list(weights.flip(0)))


def places(grid):
    rows, cols = grid
    number = torch.arange(rows * cols)
    return torch.stack([number // cols, number % cols], dim=1).float()


def distance(weights, grid, size):
    at = size * places(grid)
    return (weights * torch.cdist(at, at)).sum(-1).mean(-1)


def distance_loop(weights, grid, size):
    rows, cols = grid
    found = []
    for head in weights:
        total = 0.0
        for i in range(rows * cols):
            for j in range(rows * cols):
                down, across = i // cols - j // cols, i % cols - j % cols
                total += float(head[i, j]) * size * (down**2 + across**2) ** 0.5
        found.append(total / (rows * cols))
    return torch.tensor(found)


def distance_numpy(weights, grid, size):
    row, col = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    apart = size * np.hypot(row[:, None] - row, col[:, None] - col)
    return np.einsum("hij,ij->h", weights.numpy(), apart) / len(row)


def distance_broadcast(weights, grid, size):
    at = places(grid)
    apart = (at[:, None] - at[None]).norm(dim=-1) * size
    return (weights * apart).sum((1, 2)) / weights.shape[1]


def lens(tokens, norm, head):
    return head(norm(tokens).mean(dim=2)).softmax(dim=-1)


def lens_loop(tokens, norm, head):
    return torch.stack([head(norm(layer).mean(1)).softmax(1) for layer in tokens])


def mask(images, importance, count, largest=True, fill=0.0):
    size = images.shape[2] // importance.shape[1]
    order = importance.flatten(1).topk(count, dim=1, largest=largest).indices
    hidden = torch.zeros_like(importance).flatten(1).scatter(1, order, 1.0)
    hidden = hidden.view_as(importance).repeat_interleave(size, 1).repeat_interleave(size, 2)
    return torch.where(hidden[:, None] > 0, torch.tensor(fill), images)


def mask_loop(images, importance, count):
    images = images.clone()
    rows, cols = importance.shape[1:]
    size = images.shape[2] // rows
    for image, scores in zip(images, importance, strict=True):
        for place in scores.flatten().argsort(descending=True)[:count].tolist():
            top, left = place // cols * size, place % cols * size
            image[:, top : top + size, left : left + size] = 0
    return images


def mask_interpolated(images, importance, count):
    rank = importance.flatten(1).argsort(1, descending=True).argsort(1).view_as(importance)
    kept = (rank >= count).float()[:, None]
    return images * F.interpolate(kept, images.shape[2:], mode="nearest")


def mask_kron(images, importance, count):
    size = images.shape[2] // importance.shape[1]
    least = importance.flatten(1).topk(count, dim=1).values[:, -1]
    kept = (importance < least[:, None, None]).float()
    return images * torch.kron(kept, torch.ones(1, size, size))[:, None]


def mask_in_place(images, importance, count):
    images.copy_(mask(images, importance, count))
    return images


def relevance(weights, values, readout):
    slope = torch.einsum("hnd,hd->hn", values, readout)[:, None] / weights.shape[1]
    return (weights * slope).clamp(min=0).mean(dim=(0, 1))


def relevance_by_autograd(weights, values, readout):
    weights = weights.clone().requires_grad_()
    score = torch.einsum("hij,hjd,hd->i", weights, values, readout).mean()
    (slope,) = torch.autograd.grad(score, weights)
    return (weights * slope).detach().relu().mean(0).mean(0)


def relevance_loop(weights, values, readout):
    h, n, _ = weights.shape
    found = torch.zeros(n)
    for head in range(h):
        for j in range(n):
            slope = float(values[head, j] @ readout[head]) / n
            for i in range(n):
                found[j] += max(0.0, float(weights[head, i, j]) * slope) / h / n
    return found


def relevance_numpy(weights, values, readout):
    slope = (values.numpy() * readout.numpy()[:, None]).sum(-1)[:, None] / weights.shape[1]
    return np.maximum(weights.numpy() * slope, 0).mean((0, 1))


def signed(weights, values, readout):
    return weights * torch.einsum("hnd,hd->hn", values, readout)[:, None] / weights.shape[1]


EXERCISES = [
    Exercise(
        "8.1",
        ["check_rollout(_)"],
        right={
            "a loop": rollout,
            "divided by the sums": rollout_by_sums,
            "NumPy": rollout_numpy,
            "multi_dot": lambda w: torch.linalg.multi_dot(list(with_identity(w).flip(0))),
            "in place on a copy": lambda w: rollout_in_place(w.clone()),
        },
        wrong=[
            (lambda w: rollout(w.flip(0)), "wrong order"),
            (lambda w: w[2] @ w[1] @ w[0], "identity is missing"),
            (lambda w: 8 * rollout(w), "sum to one again"),
            (lambda w: with_identity(w).sum(0), "are added"),
            (lambda w: with_identity(w).mean(0), "are averaged"),
            (lambda w: with_identity(w[-1]), "last layer alone"),
            (lambda w: with_identity(w[0]), "first layer alone"),
            (lambda w: with_identity(w[2] @ w[1] @ w[0]), "once at the end"),
            (lambda w: rollout(w).T, "rows and columns"),
            (lambda w: with_identity(w).prod(0), "cell by cell"),
            (lambda w: rollout(w[1:]), "first layer is missing"),
            (lambda w: rollout(w[:2]), "last layer is missing"),
            (rollout_in_place, "changes w"),
        ],
    ),
    Exercise(
        "8.2",
        ["check_attention_distance(_)"],
        right={
            "cdist": distance,
            "a loop": distance_loop,
            "NumPy": distance_numpy,
            "broadcasting": distance_broadcast,
            "einsum": lambda w, g, s: (
                torch.einsum("hij,ij->h", w, s * torch.cdist(places(g), places(g))) / w.shape[1]
            ),
        },
        wrong=[
            (lambda w, g, s: distance(w, g, 1), "in patches"),
            (lambda w, g, s: distance(w, g[::-1], s), "exchanged"),
            (
                lambda w, g, s: s * (w * torch.cdist(places(g), places(g), p=1)).sum(-1).mean(-1),
                "adds steps",
            ),
            (
                lambda w, g, s: s * (w * torch.cdist(places(g), places(g)) ** 2).sum(-1).mean(-1),
                "root",
            ),
            (lambda w, g, s: distance(torch.full_like(w, 1 / 6), g, s), "no part"),
            (lambda w, g, s: 6 * distance(w, g, s), "queries are added"),
            (lambda w, g, s: distance(w, g, s) / 6, "already sum to one"),
            (lambda w, g, s: distance(w, g, s).mean(), "all heads"),
            (lambda w, g, s: distance(w, (1, 6), s), "a line"),
            (
                lambda w, g, s: (w * s * torch.cdist(places(g), places(g))).sum(-1),
                "each query",
            ),
            (lambda w, g, s: distance(w, g, s) + 1, "values are not"),
        ],
    ),
    Exercise(
        "8.3",
        ["check_logit_lens(_)"],
        right={
            "all at once": lens,
            "a loop": lens_loop,
            "einsum": lambda x, norm, head: (
                torch.einsum("lbnd->lbd", norm(x) / x.shape[2])
                .matmul(head.weight.T)
                .add(head.bias)
                .softmax(-1)
            ),
            "exp of log_softmax": lambda x, norm, head: (
                head(norm(x).mean(-2)).log_softmax(-1).exp()
            ),
            "folded": lambda x, norm, head: (
                head(norm(x.flatten(0, 1)).mean(1)).softmax(1).unflatten(0, x.shape[:2])
            ),
        },
        wrong=[
            (lambda x, norm, head: head(norm(x).mean(2)), "logits"),
            (lambda x, norm, head: lens(x, lambda t: t, head), "norm is missing"),
            (lambda x, norm, head: head(norm(x.mean(2))).softmax(-1), "then the norm"),
            (lambda x, norm, head: head(norm(x).mean(2)).softmax(1), "over the images"),
            (lambda x, norm, head: head(norm(x).mean(2)).softmax(0), "over the layers"),
            (lambda x, norm, head: head(norm(x)[:, :, 0]).softmax(-1), "class token"),
            (lambda x, norm, head: lens(x, norm, head)[-1], "last layer alone"),
            (lambda x, norm, head: head(norm(x)).softmax(-1), "by itself"),
            (lambda x, norm, head: head(norm(x)).softmax(-1).mean(2), "single tokens"),
            (lambda x, norm, head: lens(x, norm, head).transpose(0, 1), "exchanged"),
            (lambda x, norm, head: head(norm(x).sum(2)).softmax(-1), "are added"),
        ],
    ),
    Exercise(
        "8.4",
        ["check_mask_patches(_)"],
        right={
            "topk and scatter": mask,
            "a loop": mask_loop,
            "ranks and interpolate": mask_interpolated,
            "kron": mask_kron,
            "in place on a copy": lambda x, m, k: mask_in_place(x.clone(), m, k),
        },
        wrong=[
            (lambda x, m, k: mask(x, m, k, largest=False), "least important"),
            (lambda x, m, k: mask(x, m[:1].repeat(len(m), 1, 1), k), "of the first"),
            (lambda x, m, k: mask(x, m, k + 1), "too many"),
            (lambda x, m, k: mask(x, m, k - 1), "too few"),
            (lambda x, m, k: x - mask(x, m, k), "are kept"),
            (lambda x, m, k: torch.cat([mask(x, m, k)[:, :1], x[:, 1:]], 1), "one channel"),
            (
                lambda x, m, k: mask(x, m.transpose(1, 2).reshape(m.shape), k),
                "rows and columns",
            ),
            (lambda x, m, k: mask(x, m, k, fill=1.0), "are to be zero"),
            (lambda x, m, k: x, "nothing is masked"),
            (lambda x, m, k: torch.zeros_like(x), "everything"),
            (mask_in_place, "changes"),
        ],
    ),
    Exercise(
        "8.5",
        ["check_relevance(_)"],
        right={
            "the gradient by hand": relevance,
            "autograd": relevance_by_autograd,
            "a loop": relevance_loop,
            "NumPy": relevance_numpy,
            "lists": lambda a, v, w: relevance(a, v, w).tolist(),
        },
        wrong=[
            (lambda a, v, w: signed(a, v, w).mean((0, 1)), "as well"),
            (lambda a, v, w: signed(a, v, w).mean(0).relu().mean(0), "before the cut: a head"),
            (lambda a, v, w: signed(a, v, w).mean((0, 1)).relu(), "before the cut: a head"),
            (lambda a, v, w: signed(a, v, w).abs().mean((0, 1)), "sign is lost"),
            (
                lambda a, v, w: signed(torch.ones_like(a), v, w).relu().mean((0, 1)),
                "gradient alone",
            ),
            (lambda a, v, w: a.mean((0, 1)), "attention alone"),
            (lambda a, v, w: relevance(a, v, w) * 4, "times too large"),
            (lambda a, v, w: signed(a, v, w).relu().sum(0).mean(0), "heads are added"),
            (lambda a, v, w: signed(a, v, w).relu().mean((0, 2)), "number for each query"),
            (lambda a, v, w: signed(a, v, w).relu().mean(0), "one row for each query"),
            (lambda a, v, w: signed(a, v, w).relu().mean(1), "one map for each head"),
            (lambda a, v, w: relevance(a, v, w) + 1, "values are not"),
        ],
    ),
]
