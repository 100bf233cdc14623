# SPDX-License-Identifier: MIT
"""The studies behind chapters 1 to 3 (01_patches.ipynb to 03_attention.ipynb) run in seconds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import ablations, tokens
from vitbook import records
from vitcore import ViT, sincos_positions_2d
from vitcore.data import Batches, ImageDataset, load_dataset
from vitcore.recipes import Recipe


@pytest.mark.parametrize("name", tokens.STUDIES)
def test_a_study_trains_every_variant(name: str, tmp_path: Path) -> None:
    study = tokens.STUDIES[name]
    recipe = replace(study.recipe, images=(100, 100, 100)).with_train(epochs=1)
    dataset = load_dataset(recipe.dataset, tmp_path, stand_in=True)
    options: dict[str, Any] = {"recipe": recipe, "seeds": (0,), "variants": study.variants}
    record = ablations.run(tmp_path, dataset, say=lambda line: None, **options)
    assert record["complete"]
    assert list(record["variants"]) == list(study.variants)
    if name == "positions":
        extra = {
            key: {k for k in rows if k.startswith("enlarged")}
            for key, rows in record["variants"].items()
        }
        assert extra["correct"] == {"enlarged_resized"}
        assert extra["sincos"] == {"enlarged_resized", "enlarged_between", "enlarged_anew"}
        assert extra["no-positions"] == {"enlarged_none"}
        assert extra["mean"] == set()


@pytest.mark.parametrize("name", tokens.STUDIES)
def test_variants_of_a_seed_start_from_the_same_weights(name: str) -> None:
    study = tokens.STUDIES[name]
    alike = name != "positions"  # there the variants do not have the same parameters
    weights = []
    for variant in study.variants.values():
        torch.manual_seed(0)
        weights.append(variant.build(study.recipe.model).state_dict())
    for other in weights[1:]:
        assert not alike or all(torch.equal(other[key], weights[0][key]) for key in weights[0])
        assert other["patch_embed.proj.weight"].shape == weights[0]["patch_embed.proj.weight"].shape


def test_the_heads_share_the_width_and_the_mistake_is_planted_in_both() -> None:
    study = tokens.STUDIES["heads"]
    models = {name: v.build(study.recipe.model) for name, v in study.variants.items()}
    sizes = {name: model.config.dim // model.config.heads for name, model in models.items()}
    assert sizes == {"correct": 16, "one-head": 64, "unscaled": 16, "one-head-unscaled": 64}
    assert len({sum(p.numel() for p in model.parameters()) for model in models.values()}) == 1
    images = torch.randn(2, 1, 28, 28)
    for right, wrong in (("correct", "unscaled"), ("one-head", "one-head-unscaled")):
        models[wrong].load_state_dict(models[right].state_dict())
        assert not torch.allclose(models[right](images), models[wrong](images), atol=1e-6)


def test_scattering_deals_every_pixel_once_in_one_order_for_all_images() -> None:
    build = tokens.CUTS["scattered"].build
    config = replace(tokens.STUDIES["cuts-photos"].recipe.model, patch_size=1, dim=4)
    config = replace(config, image_size=2)
    torch.manual_seed(0)
    model = build(config)
    with torch.no_grad():
        model.get_parameter("patch_embed.proj.weight").copy_(torch.eye(4)[:, :3, None, None])
    images = torch.arange(12.0).reshape(1, 3, 2, 2).repeat(2, 1, 1, 1)
    images[1] += 100
    first, second = model.patch_embed(images)[0][..., :3].detach()
    assert sorted(first.flatten().tolist()) == list(range(12))
    assert not torch.equal(first, images[0].flatten(1).T)
    assert torch.equal(second, first + 100)


def test_sines_between_the_patches_agree_on_the_grid_itself() -> None:
    assert torch.allclose(tokens.sines_between(7, 7, 16), sincos_positions_2d((7, 7), 16))
    # With three new patches for each old one, the middle ones stand on the old places.
    finer = tokens.sines_between(3, 9, 16).reshape(9, 9, 16)
    old = sincos_positions_2d((3, 3), 16).reshape(3, 3, 16)
    assert torch.allclose(finer[1::3, 1::3], old, atol=1e-6)


@pytest.mark.parametrize("positions", ["learned", "none"])
def test_enlarged_images_are_scored_as_the_model_itself_would(
    positions: str, small_mnist: ImageDataset
) -> None:
    torch.manual_seed(0)
    recipe = tokens.STUDIES["positions"].recipe
    model = ViT(recipe.model, positions=positions, depth=1).eval()
    test = Batches(small_mnist.test, 50, mean=small_mnist.mean, std=small_mnist.std)
    found = tokens.measure_enlarged(model, test)
    right = count = 0
    for images, labels in test:
        larger = torch.nn.functional.interpolate(images, size=(40, 40), mode="bilinear")
        right += int((model(larger).argmax(1) == labels).sum())
        count += len(labels)
    assert list(found.values()) == [right / count]


def test_the_command_runs_and_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe: Recipe = replace(tokens.STUDIES["cuts-digits"].recipe, images=(50, 20, 20))
    study = tokens.Study(recipe.with_train(epochs=1), tokens.CUTS)
    monkeypatch.setitem(tokens.STUDIES, "cuts-digits", study)
    stand_in = load_dataset("mnist", tmp_path, stand_in=True)
    monkeypatch.setattr(tokens, "load_dataset", lambda name: stand_in)
    tokens.main(["cuts-digits", "--limit", "1", "--out", str(tmp_path / "run")])
    assert (tmp_path / "run" / "record.json").exists()
    with pytest.raises(SystemExit):
        tokens.main(["no-such-study"])


@pytest.mark.parametrize("name", ["cuts-digits", "cuts-photos", "positions"])
def test_the_published_record_is_whole_and_real(name: str) -> None:
    record = records.load_record(name)
    study = tokens.STUDIES[name]
    assert record["complete"]
    assert record["seeds"] == list(tokens.SEEDS)
    assert record["split"] in ("official", "re-split")
    assert list(record["variants"]) == list(study.variants)
    assert Recipe.from_dict(record["recipe"]).to_dict() == study.recipe.to_dict()
    assert not any(commit.endswith("-dirty") for commit in record["commits"])
