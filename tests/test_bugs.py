# SPDX-License-Identifier: MIT
"""The thirteen mistakes that pass every shape check, and the check on behaviour that finds each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core_helpers import randomise, small_images, small_vit

from vitbook.checks import BUGS, Bug, CheckFailed, check_block, check_shapes
from vitcore import ViT, create_model

# mistake, the chapter that shows it, the check that finds it, and how the message names it
TABLE = [
    ("plain-reshape", 1, "check_patch_embed", "rows of the image, not squares"),
    ("class-token-without-position", 2, "check_class_token_position", "gets no position"),
    ("one-position-row", 2, "check_positions_used", "the same vector of the position table"),
    ("no-positions", 2, "check_permutation_equivariance", "does not know where a patch comes from"),
    ("unscaled", 3, "check_multi_head", "not divided by anything"),
    ("scaled-by-width", 3, "check_multi_head", "divided by D"),
    ("softmax-over-queries", 3, "check_attention_rows", "do not sum to one"),
    ("unmerged-heads", 3, "check_multi_head", "heads were merged without"),
    ("across-the-batch", 3, "check_independent_of_batch", "the other images of its batch"),
    ("no-attention-residual", 4, "check_identity_at_zero", "a residual is missing"),
    ("post-norm", 4, "check_pre_norm", "post-norm"),
    ("no-final-norm", 5, "check_final_norm", "final norm is passed by"),
    ("wrong-readout", 5, "check_readout", "wrong token is read out"),
]

NAMES = [row[0] for row in TABLE]


@pytest.fixture(params=["as drawn", "every parameter random", "of a named size"])
def model(request: pytest.FixtureRequest) -> ViT:
    if request.param == "of a named size":
        torch.manual_seed(0)
        return create_model("vit_mnist", class_token=True, pool="cls")
    model = small_vit()
    if request.param == "every parameter random":
        randomise(model)
    return model


def test_the_table_is_the_public_one() -> None:
    assert [bug.name for bug in BUGS.values()] == list(BUGS) == NAMES
    assert len(TABLE) == 13
    for name, chapter, check, _ in TABLE:
        assert BUGS[name].chapter == chapter
        assert BUGS[name].check.__name__ == check
        assert BUGS[name].mistake


@pytest.mark.parametrize("name", NAMES)
def test_shapes_do_not_show_it(name: str, model: ViT, capsys: pytest.CaptureFixture[str]) -> None:
    planted = BUGS[name].plant(model)
    check_shapes(planted)
    assert capsys.readouterr().out == "check passed: every shape is right\n"
    assert {k: v.shape for k, v in planted.state_dict().items()} == {
        k: v.shape for k, v in model.state_dict().items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_right_model_passes(name: str, model: ViT, capsys: pytest.CaptureFixture[str]) -> None:
    BUGS[name].check(model)
    said = capsys.readouterr().out
    assert said.startswith("check passed: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize(("name", "chapter", "check", "words"), TABLE, ids=NAMES)
def test_the_check_names_it(name: str, chapter: int, check: str, words: str, model: ViT) -> None:
    with pytest.raises(CheckFailed, match=words):
        BUGS[name].check(BUGS[name].plant(model))


@pytest.mark.parametrize("name", NAMES)
def test_planting_leaves_the_model_alone(name: str) -> None:
    model = randomise(small_vit())
    before = model(small_images())
    planted = BUGS[name].plant(model)
    assert torch.equal(model(small_images()), before)
    assert type(model) is ViT
    for a, b in zip(model.parameters(), planted.parameters(), strict=True):
        assert a is not b
        assert torch.equal(a, b)
    assert (planted(small_images()) - before).abs().max() > 1e-3, "the mistake changes nothing"


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_model_trains(name: str) -> None:
    """As the ablations do: the mistake raises nothing, and gradients come."""
    planted = BUGS[name].plant(small_vit(drop_path=0.1)).train()
    planted(small_images(4)).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in planted.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_captures_still_work(name: str) -> None:
    planted = BUGS[name].plant(small_vit())
    _, seen = planted.forward_with(small_images(), ["attention", "attn_out", "mlp_out", "tokens"])
    assert all(x is not None for tensors in seen.values() for x in tensors)


@pytest.mark.parametrize("name", ["no-attention-residual", "post-norm"])
def test_the_full_comparison_of_a_block_finds_it_too(name: str) -> None:
    with pytest.raises(CheckFailed, match=r"residual around attention|post-norm"):
        check_block(BUGS[name].plant(small_vit()))


@pytest.mark.parametrize("name", [n for n in NAMES if n != "class-token-without-position"])
def test_models_with_mean_pooling(name: str) -> None:
    model = small_vit(pool="mean", pool_norm="after", class_token=False, registers=1)
    BUGS[name].check(model)
    with pytest.raises(CheckFailed):
        BUGS[name].check(BUGS[name].plant(model))


VARIANTS: list[dict[str, Any]] = [
    {"pool": "mean"},
    {"registers": 3},
    {"registers": 2, "pool": "mean", "class_token": False},
    {"class_position": False},
    {"layer_scale": 1e-5, "drop_path": 0.2},
    {"qkv_bias": False},
    {"attention_options": {"kernel": "explicit"}},
    {"positions": "sincos", "class_position": False},
    {"pool_norm": "after"},
    {"depth": 1, "heads": 1},
    {"in_channels": 1, "image_size": 8},
]


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_no_check_cries_wolf(options: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Every check passes on every right model that it is meant for."""
    model = small_vit(**options)
    config = model.config
    for name, bug in BUGS.items():
        if name == "class-token-without-position" and not (
            config.class_token and config.class_position
        ):
            with pytest.raises(TypeError, match="class token"):
                bug.check(model)
            with pytest.raises(ValueError, match="class token"):
                bug.plant(model)
        else:
            bug.check(model)
    assert "not solved" not in capsys.readouterr().out


def test_a_mistake_that_has_no_place_is_refused() -> None:
    twice = BUGS["unscaled"].plant(small_vit())
    with pytest.raises(
        ValueError, match="planted in the class Attention, but the model has _Unscaled"
    ):
        BUGS["unscaled"].plant(twice)


def test_two_mistakes_can_be_planted_in_different_parts() -> None:
    model = BUGS["post-norm"].plant(BUGS["plain-reshape"].plant(small_vit()))
    for name in ("post-norm", "plain-reshape"):
        with pytest.raises(CheckFailed):
            BUGS[name].check(model)


def test_bugs_are_immutable() -> None:
    assert isinstance(BUGS["unscaled"], Bug)
    with pytest.raises(AttributeError):
        BUGS["unscaled"].chapter = 4  # type: ignore[misc]
