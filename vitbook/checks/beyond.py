# SPDX-License-Identifier: MIT
"""Checks of chapter 12: several labels an image, the shares of several processes, dense answers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from .frame import CheckFailed, as_numbers, call, check, compare


@check("the images are ranked by score, and precision is taken where recall rises")
def check_average_precision(average_precision: Callable[[Tensor, Tensor], Any]) -> None:
    """``average_precision(scores (N,), labels (N,)) -> number``; labels 1, 0, or -1 for unknown."""
    ranked = torch.tensor([0, -1, 1, -1, 1, 1, 0, 0, 0, 0, 1])
    values = torch.tensor([0.95, 0.9, 0.85, 0.75, 0.65, 0.55, 0.4, 0.35, 0.3, 0.2, 0.1])
    mixed = torch.tensor([0, 1, 5, 8, 3, 6, 10, 7, 2, 4, 9])

    def precisions(labels: Tensor) -> Tensor:
        return labels.cumsum(0) / torch.arange(1, len(labels) + 1)

    def area(labels: Tensor) -> Tensor:
        return precisions(labels)[labels == 1].double().mean()

    known = ranked[ranked >= 0]
    at = precisions(known)
    hits = at[known == 1]
    best = hits.flip(0).cummax(0).values.flip(0)
    recall = known.cumsum(0) / known.sum()
    eleven = torch.stack([at[recall >= step / 10 - 1e-6].max() for step in range(11)]).mean()
    joined = torch.cat([torch.ones(1), at])
    widths = recall.diff(prepend=torch.zeros(1))
    given = ranked[mixed]
    below = known.flip(0).cumsum(0).flip(0)  # yes at this place or further down
    wrong = [
        ("unknown labels count as a no: leave their images out of the ranking",
         area((ranked == 1).long())),
        ("unknown labels count as a yes: leave their images out of the ranking",
         area((ranked != 0).long())),
        ("the ranking begins with the lowest score", area(known.flip(0))),
        ("the images are not ranked: sort them by score, the highest first",
         area(given[given >= 0])),
        ("precision is averaged over all places; take it where an image has the label",
         at.double().mean()),
        ("the sum is divided by the number of images; divide by the number that have the label",
         hits.double().sum() / len(known)),
        ("this is the share of images that have the label", known.double().mean()),
        ("precision is interpolated: the best one further down is taken in its place",
         best.double().mean()),
        ("this is VOC 2007's value at eleven recalls; take every place where recall rises",
         eleven.double()),
        ("this is the area under straight lines between the points, which is too kind; each "
         "gain of recall counts with the precision that it has reached",
         (widths * (joined[1:] + joined[:-1]) / 2).double().sum()),
        ("this is the area under the ROC curve, which counts the images without the label",
         1 - below[known == 0].double().mean() / known.sum()),
        ("the precisions are added; their mean is expected", hits.double().sum()),
        ("there is one precision for each image with the label: take their mean", hits),
        ("recall is averaged in the place of precision", recall[known == 1].double().mean()),
        ("recall is averaged in the place of precision", recall.double().mean()),
        ("places are counted from 0; divide by the place counted from 1",
         (known.cumsum(0) / torch.arange(len(known)))[known == 1].double().mean()),
        ("the precision is that of the place before; the image itself counts as well",
         at.roll(1)[known == 1].double().mean()),
        ("the labels -1 of unknown images are added up: leave these images out first",
         area(ranked)),
        ("the sum is divided by the sum of all labels, in which the unknown ones count -1",
         hits.double().sum() / ranked.sum()),
        ("the sum is divided by the number of images; divide by the number that have the label",
         hits.double().sum() / len(ranked)),
    ]  # fmt: skip
    got = as_numbers(call(average_precision, values[mixed], given))
    compare(got, area(known), wrong, "four of nine images have the label, two more are unknown")


@check("a class counts once something of it counts, and is unknown where nothing does")
def check_image_labels(image_labels: Callable[[list[tuple[str, bool]], list[str]], Any]) -> None:
    """``image_labels(objects, classes) -> (K,)``: 1, 0, or -1; objects are (name, left_out)."""
    classes = ["person", "cat", "sheep", "dog"]
    objects = [("dog", True), ("cat", False), ("dog", False), ("person", True), ("cat", True)]
    objects.append(("dog", False))
    right = torch.tensor([-1.0, 1, 0, 1]).double()
    found = {
        "every object counts: those left out make no yes": [1.0, 1, 0, 1],
        "a class of which nothing counts is a no; it should be unknown, -1": [0.0, 1, 0, 1],
        "the last object of a class decides; one that counts is enough": [-1.0, -1, 0, 1],
        "the first object of a class decides; one that counts is enough": [-1.0, 1, 0, -1],
        "one object left out makes its class unknown; one that counts is enough": [-1.0, -1, 0, -1],
        "the objects are added: a yes and an unknown make a yes": [-1.0, 0, 0, 1],
        "a class without an object is unknown; it should be 0": [-1.0, 1, -1, 1],
        "the objects are counted; the label is 1 however many there are": [1.0, 2, 0, 3],
        "the objects that count are counted; the label is 1 however many": [-1.0, 1, 0, 2],
        "0 and -1 are exchanged: 0 is a class without an object": [0.0, 1, -1, 1],
        "the classes are sorted: keep their order": [1.0, 1, -1, 0],
        "there is one label for each object; one for each class is expected":
            [-1.0, 1, 1, -1, -1, 1],
    }  # fmt: skip
    wrong = [(words, torch.tensor(values).double()) for words, values in found.items()]
    got = as_numbers(call(image_labels, objects, classes))
    compare(got, right, wrong, "six objects of three of four classes")


def _shares(share: Any, count: int, ranks: int, epoch: int) -> list[list[int]]:
    found = []
    for rank in range(ranks):
        once, again = (as_numbers(call(share, count, rank, ranks, epoch)) for _ in range(2))
        if once.ndim != 1 or not torch.equal(once, once.round()):
            raise CheckFailed("positions of images were expected, whole numbers in one row")
        if len(once) == count > 1 and bool(((once == 0) | (once == 1)).all()):
            raise CheckFailed("a yes or no for each image came back: its position is expected")
        if not torch.equal(once, again):
            raise CheckFailed(
                "the same call gives another share each time, so that processes do not agree: "
                "draw the order from a seed"
            )
        found.append([int(value) for value in once])
    return found


@check("the ranks divide one order among them, every image once, and each epoch has its own order")
def check_rank_share(share: Callable[[int, int, int, int], Any]) -> None:
    """``share(count, rank, world_size, epoch)``: the positions of this rank's images, in order."""
    count, ranks = 40, 3
    epochs = [_shares(share, count, ranks, epoch) for epoch in (0, 1)]
    first, second = epochs
    everything = [position for part in first for position in part]
    if not all(0 <= position < count for position in everything):
        raise CheckFailed(f"a position lies outside 0 to {count - 1}")
    if sorted(first[0]) == list(range(count)):
        raise CheckFailed("every rank has all the images: divide them among the ranks")
    if first[0] == first[1]:
        raise CheckFailed("two ranks have the same images: the share has to follow from the rank")
    if max(map(len, first)) - min(map(len, first)) > 1:
        raise CheckFailed(
            f"the ranks have {', '.join(str(len(part)) for part in first)} images: shares may "
            "differ by one"
        )
    if len(set(everything)) < len(everything):
        if len(everything) > count:
            raise CheckFailed(
                "an image is given twice to make the shares equally long: it would count twice"
            )
        raise CheckFailed(
            "two ranks have the same image, and others are in no share: shuffle with a seed that "
            "all ranks have in common, then divide"
        )
    if len(everything) < count:
        raise CheckFailed("some images are in no share: the last ones count as well")
    if all(part == sorted(part) for part in first):
        raise CheckFailed("each share is in rising order: the images have to be shuffled")
    if first == second:
        raise CheckFailed("every epoch has the same order: let the seed follow from the epoch")
    if {frozenset(part) for part in first} & {frozenset(part) for part in second}:
        raise CheckFailed(
            "the same images make up a share in every epoch: shuffle first, then divide"
        )
    followers = [{pair for part in parts for pair in pairwise(part)} for parts in epochs]
    if len(followers[0] & followers[1]) > count // 3:  # by chance about one
        raise CheckFailed(
            "the same images follow one another in every epoch: shuffle anew, from the epoch"
        )


@check("each rank's gradient weighs as much as the rank has images")
def check_average_gradients(
    average_gradients: Callable[[list[Tensor], list[int]], Tensor],
) -> None:
    """``average_gradients(gradients R x (D,), counts R) -> (D,)``, each of a mean loss."""
    gradients, counts = list(torch.randn(3, 4)), [2, 5, 1]
    stack, weights = torch.stack(gradients), torch.tensor(counts).float()[:, None]
    right = (weights * stack).sum(0) / weights.sum()
    turned = (stack / weights).sum(0) / (1 / weights).sum()
    wrong = [
        ("all ranks weigh alike, but they have 2, 5 and 1 images", stack.mean(0)),
        ("the gradients are added; their mean is expected", stack.sum(0)),
        ("the weighted gradients are added: divide by the number of all images",
         (weights * stack).sum(0)),
        ("the weighted sum is divided by the number of ranks; divide by the number of images",
         (weights * stack).mean(0)),
        ("the gradients are added and divided by the number of images: weigh each first",
         stack.sum(0) / weights.sum()),
        ("ranks with few images weigh most", turned),
        ("this is the gradient of the first rank alone", stack[0]),
        ("this is the gradient of the largest share alone", stack[1]),
        ("each gradient is divided by its count, and it is the gradient of a mean already",
         (stack / weights).sum(0)),
        ("each gradient is divided by its count, and it is the gradient of a mean already",
         (stack / weights).mean(0)),
        ("there is one row for each rank: add them up", weights * stack / weights.sum()),
    ]  # fmt: skip
    got = as_numbers(call(average_gradients, gradients, counts))
    compare(got, right, wrong, "three ranks with 2, 5 and 1 images")


@check("overlap over union, class by class over all pixels, and absent classes are left out")
def check_mean_iou(mean_iou: Callable[[Tensor, Tensor, int], Any]) -> None:
    """``mean_iou(predicted (B, H, W), truth (B, H, W), num_classes) -> number``."""
    count = 7
    truth = torch.randint(3, (2, 4, 5))
    truth[1][truth[1] == 2] = 0  # this class is in the first image alone
    predicted = torch.where(torch.rand(2, 4, 5) < 0.5, truth, torch.randint(4, (2, 4, 5)))
    predicted[0, 0, 0] = 3  # predicted and never there
    truth[1, 3, :2] = torch.tensor([4, 5])  # there and never predicted; class 6 is in neither

    def parts(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kinds = torch.arange(count).view(-1, 1)
        said, true = a.flatten() == kinds, b.flatten() == kinds
        both = (said & true).sum(1).double()
        return both, said.sum(1).double(), true.sum(1).double()

    both, said, true = parts(predicted, truth)
    union = said + true - both
    there = union > 0
    scores = both / union.clamp(min=1)
    right = scores[there].mean()
    each = []
    for a, b in zip(predicted, truth, strict=True):
        inside, one, other = parts(a, b)
        whole = one + other - inside
        each.append((inside / whole)[whole > 0].mean())
    wrong = [
        ("this is the share of right pixels", both.sum() / truth.numel()),
        ("a class that is in neither counts as 0: leave it out", scores.mean()),
        ("a class that is in neither counts as 1: leave it out",
         torch.where(there, scores, torch.ones(()).double()).mean()),
        ("a class that is predicted and not there is left out: it counts, as 0",
         scores[true > 0].mean()),
        ("a class that is there and never predicted is left out: it counts, as 0",
         scores[said > 0].mean()),
        ("classes without an overlap are left out: what is in one of both counts, as 0",
         scores[both > 0].mean()),
        ("it is computed image by image: count over all images first", torch.stack(each).mean()),
        ("the overlap is divided by the true pixels; divide by the union",
         (both / true.clamp(min=1))[there].mean()),
        ("the overlap is divided by the predicted pixels; divide by the union",
         (both / said.clamp(min=1))[there].mean()),
        ("the overlap is divided by all pixels; divide by the union",
         (both / truth.numel())[there].mean()),
        ("the union lacks the overlap: it is what is in either, or in both",
         (both / (union - both).clamp(min=1))[there].mean()),
        ("the union counts the overlap twice", (both / (said + true).clamp(min=1))[there].mean()),
        ("this is Dice: the overlap over the mean of both sizes",
         (2 * both / (said + true).clamp(min=1))[there].mean()),
        ("classes weigh by their pixels; all weigh alike", (scores * true).sum() / true.sum()),
        ("overlaps and unions of all classes are added; take the mean of the quotients",
         both.sum() / union.sum()),
        ("the background is left out; class 0 counts as well", scores[1:][there[1:]].mean()),
        ("the classes are added; their mean is expected", scores.sum()),
        ("there is one number for each class: take their mean", scores[there]),
    ]  # fmt: skip
    got = as_numbers(call(mean_iou, predicted, truth, count))
    compare(got, right, wrong, "two images of 4 x 5 pixels, seven classes")
