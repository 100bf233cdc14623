# SPDX-License-Identifier: MIT
"""Checks of chapter 7 that no exercise calls: right code passes, known mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import math

import pytest
import torch
from answers import (
    blacken,
    blend,
    decaying,
    falls,
    flips,
    matrix,
    mixed,
    newton_schulz,
    rate,
    rule,
    svd,
)
from check_helpers import fails, passes

from vitcore import augment, training


class NotRepeated:
    """An augmentation that counts its calls, so that the same generator gives other images."""

    calls = 0

    def __call__(self, images, generator):
        self.calls += 1
        return flips(images, generator) + self.calls


RIGHT = {
    "check_schedule": [
        rate,
        lambda step, total, warmup, lr, low: training.cosine_with_warmup(
            step, total_steps=total, warmup_steps=warmup, lr=lr, min_lr=low
        ),
    ],
    "check_draws_per_image": [
        flips,
        augment.build_augment("cifar"),
        lambda images, generator: augment.trivial_augment(images, generator=generator),
    ],
    "check_mixup": [mixed, augment.mixup],
    "check_average": [
        lambda old, new, decay: decay * old + (1 - decay) * new,
        lambda old, new, decay: torch.lerp(old, new, 1 - decay),
    ],
    "check_param_groups": [rule(matrix), training.param_groups],
    "check_orthogonalise": [newton_schulz, training.orthogonalise],
}
WRONG = [
    ("check_schedule", lambda s, t, w, lr, low: rate(s - 1, t, w, lr, low), "rate 0"),
    (
        "check_schedule",
        lambda s, t, w, lr, low: lr * s / w if s < w else rate(s, t, w, lr, low),
        "rate 0",
    ),
    (
        "check_schedule",
        lambda s, t, w, lr, low: rate(s - (s >= w) * (s > w), t, w, lr, low) if s != w else lr,
        "one step late",
    ),
    ("check_schedule", lambda s, t, w, lr, low: rate(s, t, 0, lr, low), "no warmup"),
    (
        "check_schedule",
        lambda s, t, w, lr, low: rate(s, t, w if s < w else 0, lr, low),
        "counts from step 0",
    ),
    ("check_schedule", lambda s, t, w, lr, low: rate(s, t, w, lr, 0), "ends at 0"),
    (
        "check_schedule",
        falls(lambda x, lr, low: low + lr * (1 + math.cos(math.pi * x)) / 2),
        "lifted",
    ),
    (
        "check_schedule",
        falls(lambda x, lr, low: low + (lr - low) * math.cos(math.pi * x / 2)),
        "quarter",
    ),
    (
        "check_schedule",
        falls(lambda x, lr, low: low + (lr - low) * (1 + math.cos(2 * math.pi * x)) / 2),
        "whole",
    ),
    ("check_schedule", falls(lambda x, lr, low: lr + (low - lr) * x), "straight line"),
    ("check_schedule", lambda s, t, w, lr, low: lr, "first 8 rise"),
    ("check_draws_per_image", lambda x, g: flips(x, g, 1), "one draw for the whole batch"),
    ("check_draws_per_image", lambda x, g: x, "nothing is changed"),
    ("check_draws_per_image", lambda x, g: flips(x, None), "whole program"),
    ("check_draws_per_image", lambda x, g: x[:1], "shape they came in"),
    ("check_draws_per_image", blacken, "in place"),
    (
        "check_draws_per_image",
        lambda x, g: (
            x + torch.rand(x.shape, generator=torch.Generator().manual_seed(torch.seed() % 99991))
        ),
        "whole program",
    ),
    ("check_draws_per_image", NotRepeated(), "second time"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: 1 - s), "shares are exchanged"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: s[:1].expand(6)), "of the first"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, by=-1), "one after it"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, lambda s: 0 * s + 1), "images are not mixed"),
    ("check_mixup", lambda x, t, s: (s.view(-1, 1, 1, 1) * x, t), "darkened"),
    ("check_mixup", lambda x, t, s: (x + x.roll(1, 0), t), "too bright"),
    ("check_mixup", lambda x, t, s: mixed(x, t, s, aims=lambda t, s: t), "targets are not mixed"),
    (
        "check_mixup",
        lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, 1 - s)),
        "shares of the targets",
    ),
    (
        "check_mixup",
        lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, s, -1)),
        "targets are mixed with those after",
    ),
    (
        "check_mixup",
        lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, s[:1].expand(6))),
        "all targets",
    ),
    (
        "check_mixup",
        lambda x, t, s: mixed(x, t, s, aims=lambda t, s: blend(t, 0 * s + 0.5)),
        "one half",
    ),
    ("check_mixup", lambda x, t, s: blend(x, s), "two things"),
    ("check_average", lambda a, w, d: d * w + (1 - d) * a, "exchanged"),
    ("check_average", lambda a, w, d: d * a + w, "in full"),
    ("check_average", lambda a, w, d: a + (1 - d) * (a - w), "away"),
    ("check_average", lambda a, w, d: (a + w) / 2, "mean of both"),
    ("check_average", lambda a, w, d: a, "does not move"),
    ("check_average", lambda a, w, d: w, "take the place"),
    ("check_average", lambda old, new, decay: old.lerp_(new, 1 - decay), "changes old in place"),
    ("check_param_groups", rule(lambda name, p: True), "it has three axes"),
    ("check_param_groups", rule(lambda name, p: p.ndim > 1), "pos_embed|cls_token"),
    ("check_param_groups", rule(lambda name, p: matrix(name, p) or "bias" in name), "or a gain"),
    ("check_param_groups", rule(lambda name, p: False), "does not decay"),
    ("check_param_groups", rule(lambda name, p: matrix(name, p) and p.ndim == 2), "or a kernel"),
    ("check_param_groups", lambda m, d: decaying(m, d, matrix)[:1], "in no group"),
    ("check_param_groups", lambda m, d: 2 * decaying(m, d, matrix), "two groups"),
    ("check_param_groups", lambda m, d: decaying(m, 2 * d, matrix), "0.05 was given"),
    ("check_param_groups", lambda m, d: m.parameters(), "list of dicts"),
    (
        "check_param_groups",
        lambda m, d: [{"params": list(m.named_parameters()), "weight_decay": d}],
        "without their names",
    ),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, scale=lambda x: 1), "runs away"),
    (
        "check_orthogonalise",
        lambda x, n: newton_schulz(x, n, scale=lambda x: x.abs().max()),
        "runs away",
    ),
    ("check_orthogonalise", lambda x, n: svd(x), "exactly 1"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, 1), "one step"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n - 1), "four steps"),
    ("check_orthogonalise", lambda x, n: x / x.norm(), "nothing is iterated"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, back=False), "never turned back"),
    ("check_orthogonalise", lambda x, n: newton_schulz(x, n, b=-4.5), "coefficients"),
]


@pytest.mark.parametrize(
    ("name", "answer"), [(name, answer) for name, answers in RIGHT.items() for answer in answers]
)
def test_right_answers_pass(name, answer, capsys):
    passes(name, answer, capsys)


@pytest.mark.parametrize(("name", "answer", "words"), WRONG)
def test_wrong_answers_are_named(name, answer, words):
    fails(name, answer, words)


def test_every_check_is_tried():
    assert set(RIGHT) == {name for name, *_ in WRONG}
