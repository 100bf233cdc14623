# SPDX-License-Identifier: MIT
"""Checks of chapter 3 that no exercise calls: right code passes, known mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import pytest
from answers import attend, attention
from check_helpers import fails, passes
from core_helpers import small_vit
from torch import nn

from vitbook import checks
from vitbook.checks import CheckFailed
from vitcore import Attention, Block

RIGHT = {
    "check_attention_rows": [Attention(12, 2), Attention(12, 2, qkv_bias=False)],
    "check_independent_of_batch": [Attention(12, 2), Block(12, 2), lambda x: attend(x, x, x)],
}
WRONG = [
    ("check_attention_rows", attention(axis=-2), "do not sum to one"),
    ("check_attention_rows", attention(axis=1), "do not sum to one"),
    (
        "check_independent_of_batch",
        lambda x: attend(*[x.transpose(0, 1)] * 3).transpose(0, 1),
        "other images",
    ),
    ("check_independent_of_batch", lambda x: x - x.mean(0), "other images"),
    ("check_independent_of_batch", lambda x: x.transpose(0, 1), "first axis is the batch"),
    ("check_independent_of_batch", lambda x: 0 * x, "for every image"),
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


def test_models_in_half_precision_are_judged_in_single():
    checks.check_multi_head(Attention(12, 2).bfloat16())
    checks.check_readout(small_vit().bfloat16())


def test_the_names_of_parts_are_asked_for():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

    with pytest.raises(CheckFailed, match=r"no \.heads"):
        checks.check_multi_head(Other())

    class Counted(Attention):
        @property
        def num_heads(self):
            return self.heads

    checks.check_multi_head(Counted(12, 2))


def test_a_class_without_forward_is_let_be(capsys):
    class Empty(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    checks.check_multi_head(Empty)
    assert capsys.readouterr().out.startswith("not solved yet")
