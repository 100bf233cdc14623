# SPDX-License-Identifier: MIT
"""Answers to the exercises of chapter 12: other data, and beyond one machine."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import numpy as np
import torch

from exercises.table import Exercise


def ranked(scores, labels, descending=True, keep=lambda y: y >= 0):
    kept = keep(labels)
    return labels[kept][scores[kept].argsort(descending=descending)].clamp(min=0)


def precisions(labels, start=1):
    return labels.cumsum(0) / torch.arange(start, len(labels) + start)


def at_hits(labels, start=1):
    return precisions(labels, start)[labels == 1]


def ap(scores, labels):
    return at_hits(ranked(scores, labels)).mean()


def ap_loop(scores, labels):
    pairs = sorted(zip(scores.tolist(), labels.tolist(), strict=True), reverse=True)
    hits = seen = 0
    total = 0.0
    for _, label in pairs:
        if label == -1:
            continue
        seen += 1
        if label == 1:
            hits += 1
            total += hits / seen
    return total / hits


def ap_numpy(scores, labels):
    scores, labels = scores.numpy(), labels.numpy()
    scores, labels = scores[labels >= 0], labels[labels >= 0]
    labels = labels[np.argsort(-scores)]
    return (np.cumsum(labels) / np.arange(1, len(labels) + 1))[labels == 1].mean()


def precision_before(scores, labels):
    y = ranked(scores, labels)
    return precisions(y).roll(1)[y == 1].mean()


def recalls(scores, labels):
    y = ranked(scores, labels)
    return (y.cumsum(0) / y.sum())[y == 1].mean()


def minus_ones_added(scores, labels):
    return at_hits(labels[scores.argsort(descending=True)]).mean()


def ap_recall(scores, labels):
    y = ranked(scores, labels)
    recall = y.cumsum(0) / y.sum()
    return (recall.diff(prepend=torch.zeros(1)) * precisions(y)).sum()


def ap_pairs(scores, labels):
    kept = labels >= 0
    scores, yes = scores[kept], labels[kept] == 1
    before = scores[None] >= scores[:, None]
    return ((before & yes).sum(1) / before.sum(1))[yes].mean().item()


def interpolated(scores, labels):
    return at_hits(ranked(scores, labels)).flip(0).cummax(0).values.mean()


def eleven(scores, labels):
    y = ranked(scores, labels)
    recall = y.cumsum(0) / y.sum()
    return np.mean([float(precisions(y)[recall >= t / 10 - 1e-6].max()) for t in range(11)])


def trapezoid(scores, labels):
    y = ranked(scores, labels)
    x = torch.cat([torch.zeros(1), y.cumsum(0) / y.sum()])
    return torch.trapezoid(torch.cat([torch.ones(1), precisions(y)]), x)


def roc(scores, labels):
    return (scores[labels == 1][:, None] > scores[labels == 0]).float().mean()


def image_labels(objects, classes):
    labels = torch.zeros(len(classes))
    for name, left_out in objects:
        index = classes.index(name)
        if not left_out:
            labels[index] = 1
        elif labels[index] == 0:
            labels[index] = -1
    return labels


def image_labels_sets(objects, classes):
    seen = {name for name, _ in objects}
    counted = {name for name, left_out in objects if not left_out}
    return torch.tensor([1 if c in counted else -1 if c in seen else 0 for c in classes])


def image_labels_any(objects, classes):
    found = []
    for wanted in classes:
        marks = [left_out for name, left_out in objects if name == wanted]
        found.append(0.0 if not marks else -1.0 if all(marks) else 1.0)
    return found


def counts_of_counting(objects, classes):
    seen = {name for name, _ in objects}
    counts = [sum(n == c and not out for n, out in objects) for c in classes]
    return [k or -(c in seen) for k, c in zip(counts, classes, strict=True)]


def image_labels_twice(objects, classes):
    labels = np.zeros(len(classes))
    for wanted in (True, False):
        for name, left_out in objects:
            if left_out == wanted:
                labels[classes.index(name)] = -1 if left_out else 1
    return labels


def each_object(value):
    def answer(objects, classes):
        labels = torch.zeros(len(classes))
        for name, left_out in objects:
            labels[classes.index(name)] = value(left_out, labels[classes.index(name)])
        return labels

    return answer


def order(count, epoch, shuffle=True):
    generator = torch.Generator().manual_seed(epoch)
    return torch.randperm(count, generator=generator) if shuffle else torch.arange(count)


def share(count, rank, world_size, epoch):
    return order(count, epoch)[rank::world_size]


def share_numpy(count, rank, world_size, epoch):
    positions = np.random.default_rng(epoch).permutation(count)
    return np.array_split(positions, world_size)[rank]


def share_global(count, rank, world_size, epoch):
    torch.manual_seed(1000 + epoch)
    return torch.randperm(count).tolist()[rank::world_size]


def share_chunks(count, rank, world_size, epoch):
    return order(count, epoch).tensor_split(world_size)[rank]


def share_yield(count, rank, world_size, epoch):
    for place, position in enumerate(order(count, epoch).tolist()):
        if place % world_size == rank:
            yield position


def padded(count, rank, world_size, epoch):
    positions = order(count, epoch).tolist()
    while len(positions) % world_size:
        positions.append(positions[0])
    return positions[rank::world_size]


def average(gradients, counts):
    return sum(g * n for g, n in zip(gradients, counts, strict=True)) / sum(counts)


def average_einsum(gradients, counts):
    weights = torch.tensor(counts) / sum(counts)
    return torch.einsum("r,rd->d", weights, torch.stack(gradients))


def average_repeat(gradients, counts):
    return torch.stack(gradients).repeat_interleave(torch.tensor(counts), dim=0).mean(0)


def average_loop(gradients, counts):
    total = torch.zeros_like(gradients[0])
    for gradient, count in zip(gradients, counts, strict=True):
        total = total + count / sum(counts) * gradient
    return total


def average_in_place(gradients, counts):
    for gradient, count in zip(gradients, counts, strict=True):
        gradient *= count
    return sum(gradients) / sum(counts)


def weighed(gradients, counts):
    return torch.stack(gradients) * torch.tensor(counts)[:, None]


def table(predicted, truth, classes):
    """Rows the truth, columns what was said."""
    pairs = truth.flatten() * classes + predicted.flatten()
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes).double()


def iou_parts(predicted, truth, classes):
    counts = table(predicted, truth, classes)
    return counts.diagonal(), counts.sum(0), counts.sum(1)


def iou_table(predicted, truth, classes):
    both, said, true = iou_parts(predicted, truth, classes)
    union = said + true - both
    return (both / union)[union > 0].mean()


def iou_loop(predicted, truth, classes):
    scores = []
    for k in range(classes):
        said, true = predicted == k, truth == k
        if (union := (said | true).sum()) > 0:
            scores.append(float((said & true).sum() / union))
    return sum(scores) / len(scores)


def iou_numpy(predicted, truth, classes):
    p, t = predicted.numpy(), truth.numpy()
    both = np.array([((p == k) & (t == k)).sum() for k in range(classes)])
    either = np.array([((p == k) | (t == k)).sum() for k in range(classes)])
    return (both[either > 0] / either[either > 0]).mean()


def iou_nanmean(predicted, truth, classes):
    kinds = torch.arange(classes).view(-1, 1, 1, 1)
    said, true = predicted == kinds, truth == kinds
    return ((said & true).sum((1, 2, 3)) / (said | true).sum((1, 2, 3))).nanmean()


def over(divide, keep=lambda said, true: said + true > 0, reduce=torch.mean):
    def answer(predicted, truth, classes):
        both, said, true = iou_parts(predicted, truth, classes)
        return reduce((both / divide(both, said, true).clamp(min=1))[keep(said, true)])

    return answer


def union(both, said, true):
    return said + true - both


def everywhere(said, true):
    return torch.ones_like(said).bool()


def without_background(said, true):
    return (said + true > 0) & (torch.arange(len(said)) > 0)


def micro(predicted, truth, classes):
    both, said, true = iou_parts(predicted, truth, classes)
    return both.sum() / union(both, said, true).sum()


def by_pixels(predicted, truth, classes):
    both, said, true = iou_parts(predicted, truth, classes)
    return (both / union(both, said, true).clamp(min=1) * true).sum() / true.sum()


EXERCISES = [
    Exercise(
        "12.1",
        ["check_image_labels(_)"],
        right={
            "a loop": image_labels,
            "sets": image_labels_sets,
            "class by class": image_labels_any,
            "two passes, NumPy": image_labels_twice,
        },
        wrong=[
            (each_object(lambda out, old: 1), "every object counts"),
            (each_object(lambda out, old: old if out else 1), "is a no"),
            (each_object(lambda out, old: -1 if out else 1), "the last object"),
            (
                each_object(lambda out, old: old if old else (-1 if out else 1)),
                "the first object",
            ),
            (each_object(lambda out, old: -1 if out or old == -1 else 1), "one object left out"),
            (each_object(lambda out, old: old + (-1 if out else 1)), "are added"),
            (each_object(lambda out, old: old + 1), "are counted"),
            (
                lambda o, c: image_labels(o, c) - (image_labels(o, c) == 0).float(),
                "without an object",
            ),
            (lambda o, c: image_labels(o, sorted(c)), "are sorted"),
            (counts_of_counting, "that count are counted"),
            (lambda o, c: [{1: 1, 0: -1, -1: 0}[v] for v in image_labels_any(o, c)], "exchanged"),
            (lambda o, c: [-1 if out else 1 for _, out in o], "each object"),
        ],
    ),
    Exercise(
        "12.2",
        ["check_average_precision(_)"],
        right={
            "tensors": ap,
            "a loop": ap_loop,
            "NumPy": ap_numpy,
            "steps of recall": ap_recall,
            "pairs": ap_pairs,
        },
        wrong=[
            (
                lambda s, y: at_hits(ranked(s, y, keep=lambda y: y > -2)).mean(),
                "count as a no",
            ),
            (lambda s, y: ap(s, y.abs()), "count as a yes"),
            (lambda s, y: at_hits(ranked(s, y, descending=False)).mean(), "lowest score"),
            (lambda s, y: at_hits(y[y >= 0]).mean(), "not ranked"),
            (lambda s, y: precisions(ranked(s, y)).mean(), "over all places"),
            (lambda s, y: at_hits(ranked(s, y)).sum() / (y >= 0).sum(), "number of images"),
            (lambda s, y: (y == 1).sum() / (y >= 0).sum(), "share of images"),
            (interpolated, "is interpolated"),
            (eleven, "eleven"),
            (trapezoid, "straight lines"),
            (roc, "ROC"),
            (lambda s, y: at_hits(ranked(s, y)).sum(), "are added"),
            (lambda s, y: at_hits(ranked(s, y)), "one precision for each"),
            (recalls, "recall is averaged"),
            (precision_before, "the place before"),
            (lambda s, y: at_hits(ranked(s, y), start=0).mean(), "counted from 0"),
            (minus_ones_added, "are added up"),
            (lambda s, y: at_hits(ranked(s, y)).sum() / y.sum(), "sum of all labels"),
            (lambda s, y: at_hits(ranked(s, y)).sum() / len(y), "number of images"),
            (lambda s, y: ((s > 0.5) & (y == 1)).sum() / (y == 1).sum(), "values are not"),
            (lambda s, y: ap(s, y) + 0.01, "values are not"),
        ],
    ),
    Exercise(
        "12.3",
        ["check_average_gradients(_)"],
        right={
            "a sum": average,
            "einsum": average_einsum,
            "every image": average_repeat,
            "a loop": average_loop,
            "NumPy": lambda g, n: np.average(np.stack([x.numpy() for x in g]), axis=0, weights=n),
            "a list": lambda g, n: average(g, n).tolist(),
        },
        wrong=[
            (lambda g, n: torch.stack(g).mean(0), "weigh alike"),
            (lambda g, n: sum(g), "gradients are added"),
            (lambda g, n: weighed(g, n).sum(0), "weighted gradients are added"),
            (lambda g, n: weighed(g, n).mean(0), "number of ranks"),
            (lambda g, n: average(g, [1 / k for k in n]), "few images weigh most"),
            (lambda g, n: sum(g) / sum(n), "weigh each first"),
            (lambda g, n: g[0], "first rank"),
            (lambda g, n: g[n.index(max(n))], "largest share"),
            (lambda g, n: sum(a / k for a, k in zip(g, n, strict=True)), "a mean already"),
            (lambda g, n: weighed(g, n) / sum(n), "each rank"),
            (average_in_place, "changes"),
        ],
    ),
    Exercise(
        "12.4",
        ["check_rank_share(_)"],
        right={
            "every world_size-th": share,
            "array_split, NumPy": share_numpy,
            "lists and the global seed": share_global,
            "chunks": share_chunks,
            "a generator": share_yield,
        },
        wrong=[
            (lambda n, r, w, e: torch.randperm(n)[r::w], "the same call gives another"),
            (lambda n, r, w, e: order(n, e), "every rank has all"),
            (lambda n, r, w, e: order(n, 10 * e + r)[r::w], "seed that all ranks"),
            (lambda n, r, w, e: order(n, e, shuffle=False)[r::w], "to be shuffled"),
            (lambda n, r, w, e: order(n, 0)[r::w], "the same order"),
            (
                lambda n, r, w, e: torch.arange(n)[r::w][order(len(range(r, n, w)), e)],
                "make up a share",
            ),
            (lambda n, r, w, e: order(n, 0)[(r + e) % w :: w], "make up a share"),
            (lambda n, r, w, e: order(n, 0).roll(5 * e).tensor_split(w)[r], "follow one another"),
            (lambda n, r, w, e: order(n, e)[::w], "two ranks have the same"),
            (lambda n, r, w, e: torch.arange(n) % w == r, "yes or no"),
            (lambda n, r, w, e: order(n, e)[r::w].sort().values, "rising order"),
            (padded, "count twice"),
            (lambda n, r, w, e: order(n, e)[r * (n // w) : (r + 1) * (n // w)], "in no share"),
            (
                lambda n, r, w, e: order(n, e)[r * 10 : None if r == w - 1 else r * 10 + 10],
                "differ by one",
            ),
            (lambda n, r, w, e: order(n, e)[r::w] + 1, "lies outside"),
            (lambda n, r, w, e: order(n, e)[r::w] / n, "whole numbers"),
        ],
    ),
    Exercise(
        "12.5",
        ["check_mean_iou(_)"],
        right={
            "a table": iou_table,
            "a loop": iou_loop,
            "NumPy": iou_numpy,
            "nanmean": iou_nanmean,
        },
        wrong=[
            (lambda p, t, k: (p == t).double().mean(), "share of right pixels"),
            (over(union, everywhere), "counts as 0: leave"),
            (
                lambda p, t, k: (iou_table(p, t, k) * 6 + 1) / 7,
                "counts as 1",
            ),
            (over(union, lambda said, true: true > 0), "predicted and not there"),
            (over(union, lambda said, true: said > 0), "never predicted"),
            (over(union, lambda said, true: (said > 0) & (true > 0)), "without an overlap"),
            (over(lambda both, said, true: said + true - 2 * both), "lacks the overlap"),
            (over(lambda both, said, true: true.sum()), "all pixels"),
            (
                lambda p, t, k: (iou_table(p[:1], t[:1], k) + iou_table(p[1:], t[1:], k)) / 2,
                "image by image",
            ),
            (over(lambda both, said, true: true), "the true pixels"),
            (over(lambda both, said, true: said), "the predicted pixels"),
            (over(lambda both, said, true: said + true), "overlap twice"),
            (over(lambda both, said, true: (said + true) / 2), "Dice"),
            (micro, "of all classes are added"),
            (by_pixels, "weigh by their pixels"),
            (over(union, without_background), "background"),
            (over(union, reduce=torch.sum), "classes are added"),
            (over(union, reduce=lambda x: x), "each class"),
        ],
    ),
]
