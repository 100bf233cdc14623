# SPDX-License-Identifier: MIT
"""Checks of chapter 4 that no exercise calls: right code passes, known mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import pytest
import torch.nn.functional as F
from answers import block, drop, norm, normed_residual, post_norm, with_forward
from check_helpers import fails, passes
from torch import nn

from vitcore import Block, DropPath, Mlp

RIGHT = {
    "check_layer_norm": [norm, nn.LayerNorm(6, eps=1e-6)],
    "check_mlp": [
        Mlp(6, 8),
        Mlp(6, 24),
        nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6)),
    ],
    "check_drop_path": [drop, DropPath],
    "check_pre_norm": [Block(12, 2), Block(12, 2, layer_scale=1e-5)],
}
WRONG = [
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, inside=False), "inside the square root"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, eps=1e-5), "1e-5"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, eps=0), "no eps"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, unbiased=True), "D - 1"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(1, 2)), "all tokens of an image"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(1,)), "over the tokens"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0,)), "over the batch"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0, 1)), "batch norm"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, b, axes=(0, 1, 2)), "over everything"),
    ("check_layer_norm", lambda x, w, b: norm(x, 1, 0), "weight and the bias"),
    ("check_layer_norm", lambda x, w, b: norm(x, w, 0), "bias is not used"),
    ("check_layer_norm", lambda x, w, b: norm(x, 1, b), "weight is not used"),
    (
        "check_layer_norm",
        lambda x, w, b: (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6) * w
            + b
        ),
        "not by its root",
    ),
    (
        "check_layer_norm",
        lambda x, w, b: x / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt() * w + b,
        "not taken away",
    ),
    ("check_layer_norm", lambda x, w, b: F.rms_norm(x, w.shape, w, 1e-6) + b, "not taken away"),
    ("check_layer_norm", nn.LayerNorm(6), "1e-5"),
    ("check_layer_norm", nn.RMSNorm(6), "no .bias"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(s.fc1(x))), "no activation"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(s.fc1(x).relu())), "ReLU"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: s.fc2(F.silu(s.fc1(x)))), "SiLU"),
    (
        "check_mlp",
        with_forward(Mlp(6, 8), lambda s, x: s.fc2(F.gelu(s.fc1(x), approximate="tanh"))),
        "tanh",
    ),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: F.gelu(Mlp.forward(s, x))), "as well"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: F.gelu(s.fc2(s.fc1(x)))), "comes after"),
    ("check_mlp", with_forward(Mlp(6, 8), lambda s, x: x + Mlp.forward(s, x)), "input is added"),
    (
        "check_mlp",
        with_forward(Mlp(6, 8), lambda s, x: s.fc2(s.fc1(x).tanh())),
        "activation is tanh",
    ),
    ("check_mlp", nn.Linear(6, 6), "1 linear layers where"),
    ("check_drop_path", lambda x, rate, training: F.dropout(x, rate, training), "dropout"),
    ("check_drop_path", lambda x, r, t: drop(x, r, True), "eval mode"),
    ("check_drop_path", lambda x, r, t: drop(x, r, t) * (1 - r * t), r"0\.\d+ times"),
    ("check_drop_path", lambda x, r, t: drop(x, r, t) / (1 - r * t), "mean is"),
    ("check_drop_path", lambda x, r, t: drop(x, 1 - r, t) if r else x, "share"),
    ("check_drop_path", lambda x, r, t: x, "nothing is dropped"),
    ("check_drop_path", lambda x, r, t: 0 * x if t and r else x, "everything is dropped"),
    ("check_drop_path", lambda x, r, t: drop(x, 0.1, True) if t else x, "rate of 0"),
    ("check_drop_path", lambda x, r, t: x[1:] if t and r else x, "went in"),
    ("check_drop_path", lambda x, r, t: x / 0 if t and r else x, "not finite"),
    ("check_drop_path", nn.Dropout, "dropout"),
    ("check_pre_norm", block(post_norm), "post-norm"),
    ("check_pre_norm", block(normed_residual), "post-norm"),
    ("check_pre_norm", block(lambda s, x: x + s.attn(s.norm1(x)) + s.mlp(x)), "grows with"),
    ("check_pre_norm", Mlp(4, 4), "no .norm1"),
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
