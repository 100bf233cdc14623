# SPDX-License-Identifier: MIT
"""Checks of chapter 6: what training needs before, during and after a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from .frame import (
    CheckFailed,
    as_numbers,
    call,
    call_on_tape,
    check,
    compare,
    need_gradient,
    same_values,
    without,
)


@check("the images have the mean and the deviation that training expects")
def check_normalise(normalise: Callable[..., Tensor]) -> None:
    """``normalise(images uint8 (B, C, H, W), mean, std) -> float``, mean and std of [0, 1]."""
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    m, s = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
    x = images.float()
    wrong = [
        ("the images were not brought to the range from 0 to 1 first", (x - m) / s),
        ("the images are in the range from 0 to 1, but mean and std are not used", x / 255),
        ("it multiplies by the deviation, where it should divide", (x / 255 - m) * s),
        ("it divides by the variance, the square of the deviation", (x / 255 - m) / s**2),
        (
            "the images' own mean and deviation are used, not those that were given",
            (x - x.mean((0, 2, 3), keepdim=True)) / x.std((0, 2, 3), keepdim=True),
        ),
        ("the mean is taken away after the division", x / 255 / s - m),
        ("the mean is not taken away", x / 255 / s),
        ("it does not divide by the deviation", x / 255 - m),
        ("it divides by 256: the largest value is 255", (x / 256 - m) / s),
        ("all channels are treated alike", (x / 255 - m[0]) / s[0]),
    ]
    compare(call(normalise, images, mean, std), (x / 255 - m) / s, wrong,
             "each channel has a mean and a deviation of its own")  # fmt: skip


@check("this is cross-entropy on logits, for large ones as well, with its gradient")
def check_cross_entropy(loss: Callable[[Tensor, Tensor], Tensor], *, by_hand: bool = False) -> None:
    """``loss(logits (B, K), labels (B,)) -> scalar``, the mean of -ln p(label).

    With ``by_hand`` torch's own cross-entropy and log-softmax must not be called.
    """
    logits, labels = 3 * torch.randn(6, 10), torch.tensor([3, 1, 4, 1, 5, 9])
    log_p = logits.log_softmax(1)
    own = log_p[torch.arange(6), labels]
    wrong = [
        ("the softmax is applied twice: cross-entropy takes logits and applies it itself",
         F.cross_entropy(logits.softmax(1), labels)),
        ("the losses of the batch are added, not averaged", -own.sum()),
        ("there is one loss for each image: the mean over the batch is expected", -own),
        ("the sign is wrong: the loss falls when the label gets less likely", own.mean()),
        ("the logarithm is missing", -own.exp().mean()),
        ("the logarithm is missing", own.exp().mean()),
        ("the softmax is missing", -logits[torch.arange(6), labels].mean()),
        ("the mean runs over the classes as well", -own.sum() / log_p.numel()),
        ("the softmax runs over the batch", F.nll_loss(logits.log_softmax(0), labels)),
        ("the logarithm is to base 2", -own.mean() / math.log(2)),
    ]  # fmt: skip
    banned = {"cross_entropy", "log_softmax", "logsumexp", "nll_loss"} if by_hand else set()
    refusing = without(banned, "torch's own function does the work here, and the text forbids it")
    with refusing:
        got = call(loss, logits, labels)
    if not isinstance(got, Tensor) or got.ndim == 0:
        got = as_numbers(got)
    compare(got, F.cross_entropy(logits, labels), wrong,
            "the mean over the batch of -ln of the label's probability")  # fmt: skip
    for scale in (1, 200):
        z = (scale * logits).requires_grad_()
        with refusing:
            value = call_on_tape(loss, z, labels)
        want = F.cross_entropy(z, labels)
        if not torch.isfinite(as_numbers(value)):
            raise CheckFailed(
                "right for small logits, but for large ones the loss is not finite: the logarithm "
                "of a probability that was rounded to zero"
            )
        if not same_values(as_numbers(value), want):
            raise CheckFailed(
                "right for small logits, but for large ones the loss is "
                f"{as_numbers(value).item():.1f} where it should be {want.item():.1f}: "
                "a clamp, or a small number inside the logarithm, hides how wrong the model is"
            )
        need_gradient(value, z)
        slope, right = (torch.autograd.grad(x, z)[0] for x in (call_on_tape(loss, z, labels), want))
        if not same_values(slope, right):
            raise CheckFailed(
                "the loss is right, but its gradient is not, and training follows the gradient: is "
                "something cut off by a clamp, or not finite on the way?"
            )


@check("the accuracy counts images, also where batches differ in size")
def check_accuracy(accuracy: Callable[[Sequence[tuple[Tensor, Tensor]]], float]) -> None:
    """``accuracy(batches of (logits (B, K), labels (B,))) -> float`` in [0, 1], over all images."""
    sizes, right = (8, 8, 2), (6, 3, 2)
    batches = []
    for size, hits in zip(sizes, right, strict=True):
        labels = torch.randint(0, 5, (size,))
        said = torch.where(torch.arange(size) < hits, labels, (labels + 1) % 5)
        batches.append((F.one_hot(said, 5).float() + 0.1 * torch.rand(size, 5), labels))
    shares = [hits / size for hits, size in zip(right, sizes, strict=True)]
    want = sum(right) / sum(sizes)
    wrong = [
        ("the batches' accuracies are averaged, although the last batch is smaller",
         torch.tensor(sum(shares) / 3)),
        ("this is the number of right answers, not their share", torch.tensor(sum(right))),
        ("this is the share of mistakes", torch.tensor(1 - want)),
        ("only the last batch counts", torch.tensor(shares[-1])),
        ("only the first batch counts", torch.tensor(shares[0])),
        ("this is in percent: a share from 0 to 1 is expected", torch.tensor(100 * want)),
        ("it divides by the number of batches", torch.tensor(sum(right) / 3)),
    ]  # fmt: skip
    got = call(accuracy, batches)
    compare(as_numbers(got), torch.tensor(want), wrong, "right answers over all images")


@check("row i, column j counts the images of class i that were taken for j")
def check_confusion_matrix(confusion: Callable[[Tensor, Tensor, int], Tensor]) -> None:
    """``confusion(labels (M,), predictions (M,), classes) -> (K, K)``, one row for each label."""
    labels, said = torch.randint(0, 4, (60,)), torch.randint(0, 4, (60,))
    want = torch.zeros(5, 5)
    want.index_put_((labels, said), torch.ones(60), accumulate=True)
    flat = torch.zeros(5, 5)
    flat[labels, said] = 1
    wrong = [
        ("rows and columns are exchanged: the true class names the row", want.T),
        ("it says whether a pair occurs; how often is expected", flat),
        ("the rows were divided by their sums: counts are expected",
         want / want.sum(1, keepdim=True).clamp(min=1)),
        ("a class that does not occur still has its row and its column", want[:4, :4]),
        ("only the right answers are counted", want.diag().diag()),
    ]  # fmt: skip
    compare(call(confusion, labels, said, 5), want, wrong, "60 images of 5 classes")


@check("training and validation share no image, and the seed decides which is which")
def check_split(split: Callable[[int, int, int], tuple[Tensor, Tensor]]) -> None:
    """``split(count, validation, seed) -> (train, validation)``, shuffled places."""
    result = call(split, 100, 20, 0)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise CheckFailed("two things are expected back: the training and the validation part")
    train, validation = (torch.as_tensor(part).tolist() for part in result)
    if (len(train), len(validation)) == (20, 80):
        raise CheckFailed("the two parts are exchanged: training comes first")
    if (len(train), len(validation)) == (100, 20):
        raise CheckFailed("the validation images are still in the training part")
    if (len(train), len(validation)) != (80, 20):
        raise CheckFailed(
            f"of 100 images 20 are for validation; you have {len(train)} and {len(validation)}"
        )
    if set(train) & set(validation):
        raise CheckFailed("some images are in both parts: validation must not be trained on")
    if sorted(train + validation) != list(range(100)):
        raise CheckFailed("some images are in neither part, or twice in one")
    if sorted(validation) in (list(range(20)), list(range(80, 100))):
        raise CheckFailed(
            "the validation part is one end of the data: files are often sorted by class"
        )
    places = sorted(validation)
    if len({after - before for before, after in pairwise(places)}) == 1:
        raise CheckFailed(
            "the validation part takes one image in so many, in order: it should be drawn, since "
            "files often repeat in a rhythm"
        )
    again, other = call(split, 100, 20, 0)[1], call(split, 100, 20, 1)[1]
    if torch.as_tensor(again).tolist() != validation:
        raise CheckFailed("the same seed gives another split: validation images leak over time")
    if sorted(torch.as_tensor(other).tolist()) == sorted(validation):
        raise CheckFailed("the seed is not used: every seed gives the same split")
