# SPDX-License-Identifier: MIT
"""Checks of chapter 1 that no exercise calls: right code passes, known mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import pytest
import torch.nn.functional as F
from answers import embed, loops, patch_embed, patches, plain, project, unfolded
from check_helpers import fails, passes
from einops import rearrange
from torch import nn

import vitcore
from vitbook import checks
from vitbook.checks import CheckFailed
from vitcore import PatchEmbed

RIGHT = {
    "check_patchify": [loops, unfolded, vitcore.patchify],
    "check_round_trip": [loops],
    "check_patch_embed": [embed, PatchEmbed(12, 4, 3, 6), PatchEmbed((8, 4), 4, 1, 6)],
}
WRONG = [
    ("check_patchify", plain, "whole rows of the image"),
    (
        "check_patchify",
        lambda images, size: (
            images.unfold(2, size, size)
            .unfold(3, size, size)
            .reshape(len(images), -1, images.shape[1] * size**2)
        ),
        "one channel of several patches",
    ),
    ("check_patchify", patches("b (h w) (p q c)"), r"order \(p1 p2 c\)"),
    ("check_patchify", patches("b (w h) (c p q)"), "column by column"),
    ("check_patchify", patches("b (h w) (c q p)"), "diagonal"),
    ("check_patchify", patches("b (h w) (c p q)", "b c (p h) (q w)"), "all over the image"),
    ("check_patchify", patches("b (c p q) (h w)"), "exchanged"),
    ("check_patchify", patches("b h w (c p q)"), "two axes"),
    ("check_patchify", patches("b (h w) c p q"), "three axes"),
    ("check_patchify", lambda images, size: images, "shape is .2, 3, 8, 12. where"),
    ("check_patchify", lambda images, size: 2 * unfolded(images, size), "values are not"),
    ("check_patchify", lambda images, size: unfolded(images, size) / 0, "not finite"),
    ("check_patchify", lambda images, size: unfolded(images, size).numpy(), "ndarray came back"),
    ("check_patchify", lambda images: images, "raised TypeError"),
    ("check_patchify", lambda images, size: images @ images.long(), "raised"),
    (
        "check_patchify",
        lambda images, size: F.unfold(images, size, stride=size).reshape(
            unfolded(images, size).shape
        ),
        "a reshape does not exchange",
    ),
    (
        "check_patchify",
        lambda x, p: (
            rearrange(x, "b c (h p) (w q) -> b (h w) (p c q)", p=p, q=p)
            if False
            else rearrange(x, "b c (h p) (w q) -> b (h p c w q)", p=p, q=p).view(
                unfolded(x, p).shape
            )
        ),
        "stand before the columns of the grid",
    ),
    ("check_round_trip", plain, "whole rows of the image"),
    ("check_round_trip", patches("b (w h) (c p q)"), "column by column"),
    ("check_round_trip", lambda i, p: unfolded(i, p).flip(1), "does not come back"),
    ("check_patch_embed", lambda i, w, b: F.linear(plain(i, 4), w.flatten(1), b), "whole rows"),
    (
        "check_patch_embed",
        lambda i, w, b: F.linear(patches("b (h w) (p q c)")(i, 4), w.flatten(1), b),
        r"\(p1 p2 c\)",
    ),
    ("check_patch_embed", lambda i, w, b: F.linear(unfolded(i, 4), w.flatten(1)), "bias"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b, stride=4).flatten(2), "exchanged"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b, stride=4), "two axes"),
    ("check_patch_embed", lambda i, w, b: F.conv2d(i, w, b).flatten(2).mT, "was expected"),
    ("check_patch_embed", patch_embed(lambda s, x: project(s, plain(x, 4))), "whole rows"),
    ("check_patch_embed", patch_embed(lambda s, x: (project(s, unfolded(x, 4)), (3, 2))), "grid"),
    ("check_patch_embed", nn.Linear(3, 3), "no .proj"),
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


def test_the_linear_projection_of_a_reader():
    class Embed(nn.Module):
        def __init__(self, cut, size=None):
            super().__init__()
            self.proj, self.cut = nn.Linear(3 * 16, 6), cut
            if size:
                self.patch_size = size

        def forward(self, images):
            return self.proj(self.cut(images, 4))

    checks.check_patch_embed(Embed(unfolded), patch_size=4)
    checks.check_patch_embed(Embed(unfolded, 4), image_size=(12, 16))
    with pytest.raises(CheckFailed, match="whole rows"):
        checks.check_patch_embed(Embed(plain), patch_size=4)
    with pytest.raises(TypeError, match="pass patch_size"):
        checks.check_patch_embed(Embed(unfolded))
