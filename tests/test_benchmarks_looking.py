# SPDX-License-Identifier: MIT
"""The records behind chapter 8 (08_looking_inside.ipynb): maps put to the test, maps that grow."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import deletion, growth
from tools.set_repository import ROOT
from vitbook import studies
from vitcore import ViT
from vitcore.data import load_dataset
from vitcore.data.download import checksum


class ReadsOnePatch(ViT):
    """Says class 1 while the lower right patch is bright, and class 0 when it is not."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images[:, 0, -4:, -4:].mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(bright), 10 * bright - 5], dim=1)


@pytest.fixture
def model() -> ViT:
    return ReadsOnePatch(
        image_size=(8, 12), patch_size=4, in_channels=1, num_classes=2, dim=8, depth=1, heads=1
    ).eval()


def test_the_true_map_empties_the_answer_and_its_opposite_keeps_it(model: ViT) -> None:
    images = torch.ones(3, 1, 8, 12)
    truth = torch.zeros(3, 2, 3)
    truth[:, 1, 2] = 1
    counts = list(range(7))
    best, kept = deletion.curve(model, images, truth, counts)
    assert kept == [1.0, *[0.0] * 6]
    assert best[0] == pytest.approx(0.9933)
    worst, kept = deletion.curve(model, images, -truth, counts)
    assert kept == [*[1.0] * 6, 0.0]
    assert deletion.area(best) < 0.2 < 0.8 < deletion.area(worst)


def test_masks_are_each_images_own() -> None:
    images = torch.arange(1, 2 * 96 + 1).float().view(2, 1, 8, 12)
    order = torch.tensor([[5, 0, 1, 2, 3, 4], [1, 0, 2, 3, 4, 5]])
    hidden = deletion.masked(images, order, 1, 4)
    for image, (down, across) in zip(hidden, ((4, 8), (0, 4)), strict=True):
        gone = torch.zeros(8, 12, dtype=torch.bool)
        gone[down : down + 4, across : across + 4] = True
        assert torch.equal(image[0] == 0, gone)
    assert torch.equal(deletion.masked(images, order, 0, 4), images)
    assert not deletion.masked(images, order, 6, 4).any()


def test_the_judge_lets_the_truth_pass_and_no_random_map(model: ViT) -> None:
    def truth(model: ViT, images: Tensor) -> Tensor:
        return nn.functional.one_hot(torch.full((len(images),), 5), 6).float().view(-1, 2, 3)

    chance = deletion.MAPS["one more random map"]
    maps: dict[str, Any] = {"truth": truth, "chance": chance, "wrong": lambda *g: -truth(*g)}
    found = deletion.judge(model, torch.ones(64, 1, 8, 12), maps)
    assert found["passes"] == {"truth": True, "chance": False, "wrong": False}
    assert found["masked"][0] == 0
    assert found["masked"][-1] == found["patches"] == 6


def committed(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "runs" / name / "record.json").read_text("utf-8"))


def test_the_record_is_of_the_weights_that_are_there() -> None:
    """Weights that were replaced need the maps tested anew: python -m benchmarks.deletion."""
    record = committed("deletion")
    assert list(record["models"]) == list(deletion.RUNS)
    for name, rows in record["models"].items():
        weights = ROOT / "runs" / name / "model.safetensors"
        assert rows["weights"] == checksum(weights, "sha256"), "run python -m benchmarks.deletion"


def test_relevance_passes_with_three_seeds_and_chance_with_none() -> None:
    models = committed("deletion")["models"]
    digits = [rows for rows in models.values() if rows["dataset"] == "mnist"]
    assert len(digits) == 3
    for rows in digits:
        assert rows["passes"]["relevance"]
    least = min(min(rows["random"]) for rows in digits)
    spread = [rows["areas"]["relevance"] for rows in digits]
    assert least - max(spread) > 2 * (max(spread) - min(spread))
    assert not any(rows["passes"]["one more random map"] for rows in models.values())


def test_a_record_of_deletion_is_checked() -> None:
    record = committed("deletion")
    first = next(iter(record["models"].values()))
    first["passes"]["relevance"] = not first["passes"]["relevance"]
    with pytest.raises(ValueError, match="passes of"):
        studies.DeletionRecord.from_dict(record)
    record = committed("deletion")
    next(iter(record["models"].values()))["random"].pop()
    with pytest.raises(ValueError, match="10 random maps"):
        studies.DeletionRecord.from_dict(record)


def test_a_record_of_growth_is_checked() -> None:
    record = committed("growth")
    studies.GrowthRecord.from_dict(record)
    assert [int(step) for step in record["moments"]] == list(growth.STEPS)
    record["moments"]["0"]["probability"].pop()
    with pytest.raises(ValueError, match="at step 0"):
        studies.GrowthRecord.from_dict(record)


def test_growth_looks_at_the_moments_asked_for(tmp_path: Path) -> None:
    recipe = replace(growth.RECIPE, images=(256, 200, 100)).with_train(epochs=2)
    data = load_dataset("mnist", tmp_path, stand_in=True)
    record = growth.run(tmp_path, data, recipe, steps=(0, 3, 4))
    assert list(record["moments"]) == ["0", "3", "4"]
    assert record["steps_per_epoch"] == 2
    first, last = record["moments"]["0"], record["moments"]["4"]
    assert first["positions"] != last["positions"]
    assert len(first["relevance"]) == len(growth.DIGITS)
