# SPDX-License-Identifier: MIT
"""Checks of chapter 2 that no exercise calls: right code passes, known mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from answers import alternate, front, in_place, sincos
from check_helpers import fails, passes

import vitcore

RIGHT = {
    "check_sincos_1d": [sincos, vitcore.sincos_positions_1d],
    "check_add_class_token": [front],
    "check_add_positions": [lambda tokens, table: tokens + table],
}
WRONG = [
    ("check_sincos_1d", lambda n, d: alternate(sincos(n, d)), "alternate"),
    ("check_sincos_1d", lambda n, d: sincos(n, d).roll(d // 2, 1), "cosines come first"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, start=1), "start at 1"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=100.0), "too slowly"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1e8), "too fast"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1e-4), "grow with the index"),
    ("check_sincos_1d", lambda n, d: sincos(n, d, base=1.0), "same speed"),
    ("check_sincos_1d", lambda n, d: sincos(n, d).T, "exchanged"),
    ("check_add_class_token", lambda x, t: front(x, t).roll(-1, 1), "at the end"),
    ("check_add_class_token", lambda x, t: x + t, "added to every patch"),
    ("check_add_class_token", lambda x, t: front(x[:, 1:], t), "took the place"),
    ("check_add_class_token", lambda x, t: torch.cat([t.expand_as(x), x], 2), "channels"),
    ("check_add_class_token", lambda x, t: torch.cat([x, t.expand_as(x)], 2), "channels"),
    ("check_add_class_token", lambda x, t: torch.cat([t.expand(1, 5, 8), x]), "image of the"),
    ("check_add_class_token", lambda x, t: F.pad(x, (0, 0, 1, 0)), "empty token"),
    ("check_add_positions", lambda x, table: x + table[:, :1], "same vector"),
    ("check_add_positions", lambda x, table: x + table[:, 3:4], "same vector"),
    ("check_add_positions", lambda x, table: x + table.mean(1, keepdim=True), "same vector"),
    (
        "check_add_positions",
        lambda x, table: torch.cat([x[:, :1], x[:, 1:] + table[:, 1:]], 1),
        "class token gets no position",
    ),
    (
        "check_add_positions",
        lambda x, table: torch.cat([x[:, :1], x[:, 1:] + table[:, :-1]], 1),
        "shifted by one",
    ),
    ("check_add_positions", lambda x, table: x, "not added"),
    ("check_add_positions", lambda x, table: x + table[0, :4, None], "images of the batch"),
    ("check_add_positions", lambda x, table: x * table, "multiplied"),
    ("check_add_positions", lambda x, table: torch.cat([x, table.expand_as(x)], 2), "joined"),
    ("check_add_positions", lambda x, table: torch.cat([x, table.expand_as(x)], 1), "joined"),
    ("check_add_positions", in_place, "changes tokens in place"),
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
