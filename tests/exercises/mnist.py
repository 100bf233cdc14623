# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 6: training."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from answers import accuracy, confusion, cut, normalise
from torch import nn

from exercises.table import Exercise


def normalise_loop(images, mean, std):
    channels = [(images[:, c].float() / 255 - mean[c]) / std[c] for c in range(images.shape[1])]
    return torch.stack(channels, 1)


def normalise_in_place(images, mean, std):
    x = images.float().div_(255)
    for channel, (m, s) in enumerate(zip(mean, std, strict=True)):
        x[:, channel].sub_(m).div_(s)
    return x


def normalise_numpy(images, mean, std):
    m, s = (np.array(v)[:, None, None] for v in (mean, std))
    return torch.from_numpy((images.numpy() / 255 - m) / s)


def accuracy_loop(batches):
    right = total = 0
    for logits, labels in batches:
        for row, label in zip(logits, labels, strict=True):
            right += int(row.argmax()) == int(label)
            total += 1
    return right / total


def emptied(batches):
    share = accuracy(batches)
    batches.clear()
    return share


def confusion_loop(labels, said, classes):
    table = torch.zeros(classes, classes, dtype=torch.long)
    for label, prediction in zip(labels, said, strict=True):
        table[label, prediction] += 1
    return table


def confusion_in_place(labels, said, classes):
    labels *= classes
    labels += said
    return torch.bincount(labels, minlength=classes**2).view(classes, classes)


def cut_by_seeding(count, validation, seed):
    torch.manual_seed(seed)
    return torch.randperm(count).split([count - validation, validation])


def cut_numpy(count, validation, seed):
    order = np.random.default_rng(seed).permutation(count)
    return order[validation:], order[:validation]


def cut_lists(count, validation, seed):
    order = cut(count, 0, seed)[0].tolist()
    return order[:-validation], order[-validation:]


def every_fifth(count, validation, seed):
    places = torch.arange(count)
    chosen = (places + seed) % (count // validation) == 0
    return places[~chosen], places[chosen]


def stable(logits, labels, top=lambda x: x.amax(1, keepdim=True)):
    shifted = logits - top(logits)
    return (shifted.exp().sum(1).log() - shifted[torch.arange(len(labels)), labels]).mean()


def stable_loop(logits, labels):
    losses = [
        (row - row.max()).exp().sum().log() + row.max() - row[y]
        for row, y in zip(logits, labels, strict=True)
    ]
    return sum(losses) / len(losses)


def stable_gather(logits, labels):
    shifted = logits - logits.max(dim=1, keepdim=True).values
    log_p = shifted - shifted.exp().sum(1, keepdim=True).log()
    return -log_p.gather(1, labels[:, None]).mean()


def stable_one_hot(logits, labels):
    top = logits.detach().amax(1, keepdim=True)
    log_sum = (logits - top).exp().sum(1).log() + top[:, 0]
    return (log_sum - (logits * F.one_hot(labels, logits.shape[1])).sum(1)).mean()


def of_probabilities(change):
    def loss(logits, labels):
        shifted = logits - logits.amax(1, keepdim=True)
        p = shifted.exp() / shifted.exp().sum(1, keepdim=True)
        return -change(p)[torch.arange(len(labels)), labels].log().mean()

    return loss


def shifted_copy(logits, labels):
    x = logits.clone()
    x -= logits.amax(1, keepdim=True)
    return (x.exp().sum(1).log() - x[torch.arange(len(labels)), labels]).mean()


def shifted_in_place(logits, labels):
    logits -= logits.amax(1, keepdim=True)
    return stable(logits, labels)


EXERCISES = [
    Exercise(
        "6.1",
        ["check_normalise(_)"],
        right={
            "broadcasting": normalise,
            "a loop over the channels": normalise_loop,
            "in place on a copy": normalise_in_place,
            "NumPy": normalise_numpy,
            "torchvision style": lambda x, m, s: (
                (x.double() / 255 - torch.tensor(m)[:, None, None]) / torch.tensor(s)[:, None, None]
            ),
        },
        wrong=[
            (lambda x, m, s: normalise(x, m, tuple(v * v for v in s)), "divides by the variance"),
            (
                lambda x, m, s: normalise(
                    x, (x / 255).mean((0, 2, 3)).tolist(), (x / 255).std((0, 2, 3)).tolist()
                ),
                "own mean and deviation",
            ),
            (lambda x, m, s: normalise(255 * x.float(), m, s), "range from 0 to 1"),
            (lambda x, m, s: x / 255, "not used"),
            (
                lambda x, m, s: normalise(x, m, (1, 1, 1)) * torch.tensor(s)[:, None, None],
                "multiplies",
            ),
            (
                lambda x, m, s: normalise(x, (0, 0, 0), s) - torch.tensor(m)[:, None, None],
                "after the division",
            ),
            (lambda x, m, s: normalise(x, (0, 0, 0), s), "not taken away"),
            (lambda x, m, s: normalise(x, m, (1, 1, 1)), "does not divide"),
            (lambda x, m, s: normalise(x.double() * 255 / 256, m, s), "256"),
            (lambda x, m, s: normalise(x, (m[0],) * 3, (s[0],) * 3), "alike"),
            (lambda x, m, s: normalise(x.zero_(), m, s), "changes x in place"),
            (lambda x, m, s: normalise(x, m, s).numpy(), "ndarray came back"),
        ],
    ),
    Exercise(
        "6.2",
        ["check_accuracy(_)"],
        right={
            "two counters": accuracy,
            "a loop over the images": accuracy_loop,
            "a tensor": lambda batches: torch.tensor(accuracy(batches)),
            "NumPy": lambda batches: np.mean(
                [int(r.argmax()) == int(y) for x, ys in batches for r, y in zip(x, ys, strict=True)]
            ),
            "joined": lambda b: (
                (torch.cat([x for x, _ in b]).argmax(1) == torch.cat([y for _, y in b]))
                .float()
                .mean()
                .item()
            ),
        },
        wrong=[
            (lambda b: sum(accuracy([x]) for x in b) / len(b), "averaged"),
            (lambda b: sum((x.argmax(1) == y).sum() for x, y in b), "number of right"),
            (lambda b: 1 - accuracy(b), "mistakes"),
            (lambda b: accuracy(b[-1:]), "last batch"),
            (lambda b: accuracy(b[:1]), "first batch"),
            (lambda b: 100 * accuracy(b), "percent"),
            (lambda b: 6 * accuracy(b), "number of batches"),
            (emptied, "changes batches in place"),
        ],
    ),
    Exercise(
        "6.3",
        ["check_confusion_matrix(_)"],
        right={
            "bincount": confusion,
            "a loop": confusion_loop,
            "one-hot": lambda y, p, k: F.one_hot(y, k).T @ F.one_hot(p, k),
            "index_put": lambda y, p, k: torch.zeros(k, k).index_put_(
                (y, p), torch.ones(len(y)), accumulate=True
            ),
            "NumPy": lambda y, p, k: torch.from_numpy(
                np.histogram2d(y.numpy(), p.numpy(), bins=np.arange(k + 1))[0]
            ),
            "in place on a copy": lambda y, p, k: confusion_in_place(y.clone(), p, k),
        },
        wrong=[
            (lambda y, p, k: confusion(p, y, k), "exchanged"),
            (lambda y, p, k: confusion(y, p, k).clamp(max=1), "how often"),
            (
                lambda y, p, k: F.normalize(confusion(y, p, k).float(), p=1, dim=1),
                "counts are expected",
            ),
            (lambda y, p, k: confusion(y, p, 4), "does not occur"),
            (lambda y, p, k: confusion(y, p, k).diag().diag(), "right answers"),
            (confusion_in_place, "changes labels in place"),
            (lambda y, p, k: confusion(y, p, k).flatten(), "was expected: 60 images"),
            (lambda y, p, k: confusion(y, p, k).tolist(), "a tensor was expected"),
        ],
    ),
    Exercise(
        "6.4",
        ["check_split(_)"],
        right={
            "a generator": cut,
            "torch.manual_seed": cut_by_seeding,
            "NumPy": cut_numpy,
            "lists": cut_lists,
            "split": lambda n, v, s: torch.randperm(
                n, generator=torch.Generator().manual_seed(s)
            ).split([n - v, v]),
        },
        wrong=[
            (every_fifth, "one image in so many"),
            (lambda n, v, s: cut(n, v, s)[::-1], "training comes first"),
            (lambda n, v, s: (torch.arange(n), cut(n, v, s)[1]), "still in the training"),
            (lambda n, v, s: (torch.arange(n - v - 1), torch.arange(v)), "79 and 20"),
            (lambda n, v, s: (torch.arange(n - v), torch.arange(v)), "both parts"),
            (lambda n, v, s: (cut(n, v, s)[0], torch.full((v,), 1000)), "twice in one"),
            (lambda n, v, s: (torch.arange(v, n), torch.arange(v)), "one end"),
            (lambda n, v, s: torch.randperm(n).split([n - v, v]), "same seed"),
            (lambda n, v, s: cut(n, v, 7), "seed is not used"),
            (lambda n, v, s: torch.randperm(n), "two things"),
        ],
    ),
    Exercise(
        "6.5",
        ["check_cross_entropy(_, by_hand=True)"],
        right={
            "shifted": stable,
            "a loop": stable_loop,
            "gather": stable_gather,
            "one-hot": stable_one_hot,
            "in place on a copy": shifted_copy,
            "einsum": lambda x, y: stable(
                x, y, lambda x: torch.einsum("bk->b", x.amax(1, keepdim=True))[:, None]
            ),
        },
        wrong=[
            (lambda x, y: stable(x.softmax(1), y), "applied twice"),
            (lambda x, y: stable(x, y) * len(x), "added"),
            (
                lambda x, y: torch.stack(
                    [stable(x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
                ),
                "each image",
            ),
            (lambda x, y: -stable(x, y), "sign"),
            (lambda x, y: x.softmax(1)[torch.arange(len(y)), y].mean(), "logarithm is missing"),
            (lambda x, y: -x[torch.arange(len(y)), y].mean(), "softmax is missing"),
            (lambda x, y: stable(x, y) / 10, "over the classes"),
            (
                lambda x, y: -(x.exp() / x.exp().sum(0))[torch.arange(len(y)), y].log().mean(),
                "over the batch",
            ),
            (lambda x, y: stable(x, y) / math.log(2), "base 2"),
            (lambda x, y: (x.exp().sum(1).log() - x[torch.arange(len(y)), y]).mean(), "not finite"),
            (lambda x, y: stable(x, y, lambda x: x.max()), "not finite"),
            (of_probabilities(lambda p: p), "not finite"),
            (of_probabilities(lambda p: p + 1e-9), "hides how wrong"),
            (of_probabilities(lambda p: p.clamp(min=1e-7)), "hides how wrong"),
            (lambda x, y: stable(x.clamp(-50, 50), y), "hides how wrong"),
            (lambda x, y: stable(x, y).item(), "no gradient"),
            (lambda x, y: stable(x.detach(), y), "no gradient"),
            (
                lambda x, y: (
                    stable(x, y, lambda x: x.amax(1, keepdim=True)) + 0 * x.abs().sqrt().sum() / 0
                    if x.abs().max() > 1e9
                    else stable(x.detach(), y) + (x - x.detach()).sum()
                ),
                "gradient is not",
            ),
            (F.cross_entropy, "torch's own function"),
            (nn.CrossEntropyLoss(), "torch's own function"),
            (lambda x, y: F.nll_loss(x.log_softmax(1), y), "torch's own function"),
            (
                lambda x, y: (x.logsumexp(1) - x[torch.arange(len(y)), y]).mean(),
                "torch's own function",
            ),
            (shifted_in_place, "changes logits in place"),
            (
                lambda x, y: shifted_in_place(x.clone(), y),
                "a tensor that it needs was changed in place",
            ),
        ],
    ),
]
