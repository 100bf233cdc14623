# SPDX-License-Identifier: MIT
"""Checks of chapter 7: schedule, augmentation, mixing, averages and optimisers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .frame import CheckFailed, as_numbers, call, check, compare, same_values


@check("the rate rises in the warmup and falls along half a cosine")
def check_schedule(schedule: Callable[..., float]) -> None:
    """``schedule(step, total, warmup, lr, min_lr) -> float``, linear warmup, then half a cosine.

    Steps count from 0; the last step of the warmup has ``lr``, the last step of all ``min_lr``.
    """
    total, warmup, lr, low = 40, 8, 2.0, 0.2

    def curve(
        rise: Callable[[int], float], fall: Callable[[float], float], shift: int = 1
    ) -> Tensor:
        after = [fall((step - warmup + shift) / (total - warmup)) for step in range(warmup, total)]
        return torch.tensor([*(rise(step) for step in range(warmup)), *after])

    def rise(step: int) -> float:
        return lr * (step + 1) / warmup

    def fall(done: float) -> float:
        return low + (lr - low) * (1 + math.cos(math.pi * done)) / 2

    want = curve(rise, fall)
    whole = torch.tensor(
        [low + (lr - low) * (1 + math.cos(math.pi * (s + 1) / total)) / 2 for s in range(total)]
    )
    wrong = [
        ("the first step has the rate 0, so that it teaches nothing: count it as step 1",
         curve(lambda step: lr * step / warmup, fall, 0)),
        ("the first step has the rate 0, so that it teaches nothing: count it as step 1",
         curve(lambda step: lr * step / warmup, fall)),
        ("the last step of all does not reach min_lr: the fall is one step late",
         curve(rise, fall, 0)),
        ("there is no warmup: the cosine begins at the first step", whole),
        ("the cosine counts from step 0, not from the end of the warmup",
         torch.cat([want[:warmup], whole[warmup:]])),
        ("the fall ends at 0 and not at min_lr",
         curve(rise, lambda done: lr * (1 + math.cos(math.pi * done)) / 2)),
        ("the fall is lifted by min_lr as a whole, so that it begins above lr",
         curve(rise, lambda done: low + lr * (1 + math.cos(math.pi * done)) / 2)),
        ("this is a quarter of a cosine, which still falls fast at its end: half of one "
         "goes from pi 0 to pi 1",
         curve(rise, lambda done: low + (lr - low) * math.cos(math.pi * done / 2))),
        ("this is a whole cosine: it comes back up to lr",
         curve(rise, lambda done: low + (lr - low) * (1 + math.cos(2 * math.pi * done)) / 2)),
        ("the fall is a straight line, not a cosine",
         curve(rise, lambda done: lr + (low - lr) * done)),
    ]  # fmt: skip
    rates = [call(schedule, step, total, warmup, lr, low) for step in range(total)]
    compare(
        torch.tensor([float(rate) for rate in rates]), want, wrong,
        f"of {total} steps the first {warmup} rise to lr, the rest falls to min_lr",
    )  # fmt: skip


@check("every image of the batch has a draw of its own")
def check_draws_per_image(augment: Callable[..., Tensor]) -> None:
    """``augment(images (B, C, H, W), generator) -> images`` draws anew for every image."""
    one = torch.rand(1, 3, 16, 16)
    images = one.expand(64, -1, -1, -1).clone()
    state = torch.random.get_rng_state()
    changed = call(augment, images, torch.Generator().manual_seed(1))
    if not isinstance(changed, Tensor) or changed.shape != images.shape:
        raise CheckFailed(
            f"images {tuple(images.shape)} are expected back, in the shape they came in"
        )
    if not torch.equal(torch.random.get_rng_state(), state):
        raise CheckFailed(
            "the draws come from the random numbers of the whole program: use the generator"
        )
    again = call(augment, images, torch.Generator().manual_seed(1))
    if not same_values(again, changed):
        raise CheckFailed("the same generator gives other images the second time")
    # A coin thrown once for the whole batch leaves it as it is every other time.
    seen = [call(augment, images, torch.Generator().manual_seed(seed)) for seed in range(2, 14)]
    if all(same_values(batch, images) for batch in (changed, *seen)):
        raise CheckFailed("the images come back as they were: nothing is changed")
    if all(same_values(batch, batch[:1].expand_as(batch)) for batch in (changed, *seen)):
        raise CheckFailed(
            "one draw for the whole batch: 64 equal images are changed alike. Draw a tensor "
            "with one number for each image, not one number"
        )


@check("images and targets are blended alike, each pair by its own share")
def check_mixup(mixup: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``mixup(images (B, C, H, W), targets (B, K), share (B,)) -> (images, targets)``.

    Each image is blended with the one before it in the batch; share is how much is its own.
    """
    images, targets = torch.rand(6, 3, 4, 5), torch.eye(6)
    share = torch.tensor([0.9, 0.2, 0.55, 0.7, 1.0, 0.35])
    result = _pair(mixup, images, targets, share)

    def blend(x: Tensor, part: Tensor, by: int = 1) -> Tensor:
        part = part.view(-1, *[1] * (x.ndim - 1))
        return part * x + (1 - part) * x.roll(by, 0)

    compare(
        result[0], blend(images, share),
        [
            ("the shares are exchanged: share is how much of the image itself is kept",
             blend(images, 1 - share)),
            ("all images are mixed by the share of the first: each has its own",
             blend(images, share[:1].expand(6))),
            ("each image is mixed with the one after it: before is asked, as the targets are",
             blend(images, share, -1)),
            ("the images are not mixed", images),
            ("the image is darkened by its share, but nothing of the other is added",
             share.view(-1, 1, 1, 1) * images),
            ("the two are added in full, and get too bright", images + images.roll(1, 0)),
        ],
        "share of the image itself, the rest of the one before it in the batch",
    )  # fmt: skip
    compare(
        result[1], blend(targets, share),
        [
            ("the targets are not mixed: the loss then asks for one of two classes seen",
             targets),
            ("the shares of the targets are exchanged", blend(targets, 1 - share)),
            ("the targets are mixed with those after, the images with those before",
             blend(targets, share, -1)),
            ("all targets are mixed by the share of the first",
             blend(targets, share[:1].expand(6))),
            ("both classes get one half, whatever was drawn", blend(targets, share * 0 + 0.5)),
        ],
        "the targets are blended by the same shares as the images, each row sums to one",
    )  # fmt: skip


def _pair(function: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
    """Call what gives images and targets; a failure where it gives something else."""
    result = call(function, *arguments)
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise CheckFailed("two things are expected back: the images and the targets")
    return result[0], result[1]


@check("the box holds the other image, and the targets count its pixels")
def check_cutmix(cutmix: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]) -> None:
    """``cutmix(images (B, C, H, W), targets (B, K), box (B, 4)) -> (images, targets)``.

    box: top, left, bottom, right in pixels, the last two outside. Inside it stands the image before
    in the batch; the targets are shared by area.
    """
    images, targets = torch.rand(4, 3, 8, 10), torch.eye(4)
    box = torch.tensor([[0, 0, 3, 10], [2, 3, 6, 5], [5, 1, 8, 9], [4, 4, 4, 4]])

    def paste(rows: tuple[int, int] = (0, 2), own: bool = True, by: int = 1) -> Tensor:
        out = images.clone()
        for i, edges in enumerate(box.tolist()):
            top, bottom = edges[rows[0]], edges[rows[1]]
            left, right = edges[1 - rows[0]], edges[5 - rows[1]]
            inside = torch.zeros(8, 10, dtype=torch.bool)
            inside[top:bottom, left:right] = True
            out[i] = torch.where(inside == own, images.roll(by, 0)[i], images[i])
        return out

    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]) / 80

    def share(part: Tensor, by: int = 1) -> Tensor:
        part = part.view(-1, 1)
        return (1 - part) * targets + part * targets.roll(by, 0)

    result = _pair(cutmix, images, targets, box)
    dark = paste()
    for i, (top, left, bottom, right) in enumerate(box.tolist()):
        dark[i, :, top:bottom, left:right] = 0
    compare(
        result[0], paste(),
        [
            ("rows and columns are exchanged: the box is top, left, bottom, right",
             paste(rows=(1, 3))),
            ("the other image stands around the box, not in it", paste(own=False)),
            ("the box holds the image after, where the one before is asked", paste(by=-1)),
            ("the box is empty: the other image belongs into it", dark),
            ("nothing is pasted", images),
        ],
        "a box of the image before, in its own place",
    )  # fmt: skip
    compare(
        result[1], share(area),
        [
            ("the targets are not shared", targets),
            ("the shares are exchanged: what is pasted has the box's share of the area",
             share(1 - area)),
            ("the targets are shared with those after, the images with those before",
             share(area, -1)),
            ("the share is the box's height by the image's: both sides count",
             share((box[:, 2] - box[:, 0]) / 8)),
            ("both classes get one half, whatever the box", share(area * 0 + 0.5)),
        ],
        "the box's share of all pixels belongs to the class that was pasted",
    )  # fmt: skip


@check("each image has its own box set to zero")
def check_erase(erase: Callable[..., Tensor]) -> None:
    """``erase(images (B, C, H, W), top, left, height, width (B,)) -> images``, a box each to 0."""
    images = torch.rand(3, 2, 6, 9) + 0.1
    top, left = torch.tensor([0, 2, 3]), torch.tensor([1, 4, 0])
    height, width = torch.tensor([2, 3, 2]), torch.tensor([5, 2, 6])

    def blank(a: Tensor, b: Tensor, h: Tensor, w: Tensor) -> Tensor:
        out = images.clone()
        for i in range(len(images)):
            out[i, :, int(a[i]) : int(a[i] + h[i]), int(b[i]) : int(b[i] + w[i])] = 0
        return out

    want = blank(top, left, height, width)
    got = call(erase, images, top, left, height, width)
    compare(
        got, want,
        [
            ("rows and columns are exchanged", blank(left, top, width, height)),
            ("height and width are exchanged", blank(top, left, width, height)),
            ("every image has the box of the first", blank(
                *(v[:1].expand(3) for v in (top, left, height, width)))),
            ("the box is kept and all around it is erased", images - want),
            ("height and width are taken for the bottom and the right edge",
             blank(top, left, (height - top).clamp(min=0), (width - left).clamp(min=0))),
            ("the box is one row and one column too large",
             blank(top, left, height + 1, width + 1)),
            ("only the first channel is erased",
             torch.cat([want[:, :1], images[:, 1:]], dim=1)),
            ("nothing is erased", images),
        ],
        "the box begins at (top, left) and is height by width pixels",
    )  # fmt: skip
    steps = [_count_steps(erase, times, images, top, left, height, width) for times in (1, 3)]
    if steps[1] > steps[0]:
        raise CheckFailed(
            "right, but a batch three times as large takes more steps: there is a loop over the "
            "images, and the exercise asks for one mask for all"
        )


class _Counting(TorchFunctionMode):
    """Count the calls of torch's functions."""

    calls = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def _count_steps(function: Any, times: int, *tensors: Tensor) -> int:
    """How many calls of torch a function makes for a batch repeated so many times."""
    larger = [torch.cat([tensor] * times) for tensor in tensors]
    with _Counting() as counting:
        call(function, *larger)
    return counting.calls


@check("an answer counts when its group is right")
def check_group_accuracy(accuracy: Callable[[Tensor, Tensor, Tensor], float]) -> None:
    """``accuracy(logits (B, K), labels (B,), group_of (K,)) -> float``, right group, any class."""
    group_of = torch.tensor([0, 1, 0, 2, 1, 2])
    labels, said = torch.randint(0, 6, (2, 50))
    said[:20] = labels[:20]
    logits = F.one_hot(said, 6) + 0.1 * torch.rand(50, 6)
    for image in range(5, 15):  # two classes of another group are nearly as likely as the best one
        other = (int(group_of[said[image]]) + 1) % 3
        logits[image, group_of == other] = 0.95 if image % 2 else 0.6
    probable = torch.zeros(50, 3).index_add_(1, group_of, logits.softmax(1)).argmax(1)
    summed = torch.zeros(50, 3).index_add_(1, group_of, logits).argmax(1)
    right = group_of[said] == group_of[labels]
    want = right.double().mean()
    wrong = [
        ("this is the share of the right classes: the group is asked",
         (said == labels).double().mean()),
        ("only mistakes within the group are counted: right classes are in the right group too",
         (right & (said != labels)).double().mean()),
        ("the number of the predicted class is compared with the group of the label",
         (said == group_of[labels]).double().mean()),
        ("the group of the predicted class is compared with the number of the label's class",
         (group_of[said] == labels).double().mean()),
        ("the probabilities are added up by group, and the best group counts: asked is the group "
         "of the single best class", (probable == group_of[labels]).double().mean()),
        ("the logits are added up by group, and the best group counts: asked is the group of the "
         "single best class", (summed == group_of[labels]).double().mean()),
        ("this is the number of right answers, not their share", right.double().sum()),
        ("this is the share of mistakes", 1 - want),
        ("this is in percent: a share from 0 to 1 is expected", 100 * want),
    ]  # fmt: skip
    got = call(accuracy, logits, labels, group_of)
    compare(as_numbers(got), want, wrong, "the group of the best class against the label's")
