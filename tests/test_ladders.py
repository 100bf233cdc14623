# SPDX-License-Identifier: MIT
"""vitbook.ladders: each rung changes one thing, and vitcore knows the rungs once imported."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import itertools
import subprocess
import sys

import pytest
import torch

from vitbook.ladders import (
    APART,
    BOOK_RECIPES,
    BUILDS_ON,
    CIFAR100_LADDER,
    CROSSING,
    LADDER_RUNGS,
)
from vitcore.recipes import RECIPES
from vitcore.vit import ViT


@pytest.mark.parametrize("prefix", ["cifar100", "cifar100-gpu", "cifar100-few"])
def test_every_rung_changes_one_thing(prefix):
    rungs = [RECIPES[name.replace("cifar100", prefix, 1)] for name in CIFAR100_LADDER]
    changed = []
    pairs = list(itertools.pairwise(rungs))
    if prefix == "cifar100":  # four epochs are too short for what LONG_RUNGS do
        pairs[3] = (rungs[1], rungs[4])
        assert rungs[-1].augment is rungs[-1].mix is None
    else:
        assert rungs[-1].mix == "mixup_cutmix"
    for one, other in pairs:
        before, after = one.to_dict(), other.to_dict()
        assert before["note"] != after["note"]
        keys = {part for part in before if before[part] != after[part]} - {"name", "note"}
        changed.append(keys)
    # What belongs together changes together: a schedule, an augmentation, a way of pooling.
    mixing = {"mix", "mix_options"} if prefix == "cifar100-few" else {"mix"}
    parts = [{"train"}, {"augment", "augment_options"}, mixing, {"model"}, {"model"}]
    assert changed == [*parts, {"train"}, {"train"}, {"train"}]
    first, last = rungs[0], rungs[-1]
    assert (first.model.class_token, first.model.pool, first.model.positions) == (
        True,
        "cls",
        "learned",
    )
    assert (first.train.optimizer, first.train.schedule, first.train.ema) == ("adam", "constant", 0)
    assert first.augment is first.mix is None
    assert last.train.epochs == 2 * rungs[-2].train.epochs
    # Up to there every rung has the same budget and the same images in a batch.
    assert len({(r.train.epochs, r.train.batch_size) for r in rungs[:-1]}) == 1


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("cifar100")])
def test_sizes_of_the_models(name):
    with torch.device("meta"):
        parameters = sum(p.numel() for p in ViT(RECIPES[name].model).parameters())
    assert parameters < 10e6
    if name == "cifar100-cpu":
        assert parameters * 4 < 4e6  # bytes of its weights
    model = RECIPES[name].model
    assert (model.image_size, model.in_channels, model.num_classes) == (32, 3, 100)


def test_rungs_are_recipes_once_the_ladders_are_imported():
    program = """
from vitcore.recipes import RECIPES
before = list(RECIPES)
import vitbook.ladders
print(*before)
print(*[name for name in RECIPES if name not in before])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    before, after = (line.split() for line in done.stdout.splitlines())
    assert not set(before) & set(BOOK_RECIPES)
    rungs = [f"cifar100{size}-{rung}" for size in ("", "-gpu", "-few") for rung in LADDER_RUNGS]
    assert after == [*rungs, *CROSSING[:2], *APART] == list(BOOK_RECIPES)


def differing(one, other):
    """Names of the settings in which two recipes differ, those of model and train by their own."""
    before, after = (RECIPES[name].to_dict() for name in (one, other))
    found = {key for key in before if before[key] != after[key]} - {"name", "note"}
    for part in found & {"model", "train"}:
        found |= {key for key in before[part] if before[part][key] != after[part][key]}
    return found - {"model", "train"}


def test_the_crossing_differs_in_length_and_in_what_is_done_to_the_images():
    short, short_mixed, long, long_mixed = CROSSING
    changed = {"augment", "augment_options", "mix", "mix_options"}
    assert differing(short, short_mixed) == differing(long, long_mixed) == changed
    lengths = {"epochs", "warmup_epochs"}
    assert differing(short, long) == differing(short_mixed, long_mixed) == lengths
    assert RECIPES[long].train.epochs == 10 * RECIPES[short].train.epochs
    assert {RECIPES[name].images for name in CROSSING} == {(10_000, 5_000, 10_000)}


def test_every_recipe_but_the_first_is_compared_with_one():
    first = {"cifar100-plain", "cifar100-gpu-plain", "cifar100-few-plain", CROSSING[0]}
    # Other comparisons of the book add theirs once they are imported.
    own = {name for name in BUILDS_ON if "-variants-" not in name}
    assert own == set(BOOK_RECIPES) - first - {APART[0]}
    assert BUILDS_ON["cifar100-pool"] == "cifar100-schedule"  # past LONG_RUNGS
    assert BUILDS_ON["cifar100-few-pool"] == "cifar100-few-mix"
    assert BUILDS_ON[CROSSING[1]] == CROSSING[0]


def test_one_part_is_taken_out_of_the_best_recipe_at_a_time():
    whole, *others = APART
    assert differing("cifar100-cpu", whole) == {"epochs", "images", "dim", "depth"}
    expected = [
        {"augment", "augment_options"},
        {"mix", "mix_options"},
        {"label_smoothing"},
        {"ema"},
        {"optimizer", "lr", "weight_decay"},
        {"patch_embed"},
        {"attention"},
        {"class_token", "pool"},
        {"sizes"},
    ]
    assert [differing(whole, name) for name in others] == expected
