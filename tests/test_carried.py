# SPDX-License-Identifier: MIT
"""What a carried ResNet is worth (10_better_patches.ipynb): the study runs in seconds and goes on
where it was stopped, and vitbook.carried makes a table of its record."""

# mypy: ignore-errors
from __future__ import annotations

import dataclasses

import pytest
import torch

from benchmarks import carried
from vitbook import records
from vitbook.carried import carried_table
from vitbook.studies import AblationRecord
from vitbook.torchvision import import_torchvision

import_torchvision()  # before timm, which imports it
pytest.importorskip("timm", reason="timm is a development dependency")

TINY = dataclasses.replace(
    carried.RECIPE.with_train(epochs=1, warmup_epochs=0.0, batch_size=25), images=(50, 50, 50)
)
FIRST = dataclasses.replace(carried.FIRST.with_train(epochs=1, batch_size=64), images=(100, 50, 50))


def run(out, first, dataset, **options):
    options = {"seeds": (0, 1), "say": lambda line: None, **options}
    return carried.run(out, first, dataset, recipe=TINY, first_recipe=FIRST, **options)


@pytest.fixture(scope="module")
def study(tmp_path_factory, small_cifar100):
    """The whole study in small: its folders, its record after three runs and in the end."""
    folder = tmp_path_factory.mktemp("carried")
    some = run(folder / "out", folder / "resnet", small_cifar100, limit=3)
    return folder, some, run(folder / "out", folder / "resnet", small_cifar100)


def test_the_halves_share_no_class(small_cifar100):
    first, second = carried.halves(small_cifar100)
    assert first.classes + second.classes == small_cifar100.classes
    for part in ("train", "val", "test"):
        whole = getattr(small_cifar100, part)
        mine, other = getattr(first, part), getattr(second, part)
        assert sorted(mine.labels.unique()) == sorted(other.labels.unique()) == list(range(50))
        assert torch.equal(mine.images, whole.images[whole.labels < 50])
        assert torch.equal(other.images, whole.images[whole.labels >= 50])
        assert torch.equal(other.labels + 50, whole.labels[whole.labels >= 50])
    assert "classes 50 to 99" in str(second.source)


def test_only_what_is_said_to_be_carried_is(small_cifar100):
    torch.manual_seed(3)
    network = carried.resnet.build(TINY.model)
    weights = {name: value + 1 for name, value in network.state_dict().items()}
    for name, variant in carried.make_variants(weights).items():
        model = variant.build(TINY.model).eval()
        assert model(torch.randn(2, 3, 32, 32)).shape == (2, 50)
        if name == "correct":
            continue
        backbone = model.patch_embed.backbone
        same = all(torch.equal(v, weights[key]) for key, v in backbone.state_dict().items())
        assert same is name.startswith("carried")
        trained = [p.requires_grad for p in backbone.parameters()]
        assert set(trained) == {name.endswith("tuned")}
        assert model.patch_embed.reading == ("patches" if "patches" in name else "feature_map")


def test_the_budget_of_the_real_study_is_as_the_page_says():
    assert carried.RECIPE.images[0] == 100 * carried.HALF == 100 * carried.RECIPE.model.num_classes
    assert carried.SEEDS == (0, 1, 2)
    assert len(carried.make_variants({})) == 6


def test_a_stopped_study_goes_on(study, small_cifar100):
    folder, some, whole = study
    assert sum(len(rows["seeds"]) for rows in some["variants"].values()) == 3
    assert not some["complete"]
    assert whole["complete"]
    for name, rows in whole["variants"].items():
        assert rows["seeds"] == [0, 1]
        done = some["variants"][name]["test_accuracy"]
        assert rows["test_accuracy"][: len(done)] == done
    assert whole["resnet"] == some["resnet"]
    frozen, tuned = (whole["variants"][f"carried-{kind}"] for kind in ("frozen", "tuned"))
    assert frozen["parameters"] == tuned["parameters"]
    assert frozen["trained"][0] < tuned["trained"][0] == tuned["parameters"][0]
    path = folder / "out" / "record.json"
    before = path.read_bytes()
    run(folder / "out", folder / "resnet", small_cifar100)  # nothing is left to do
    assert AblationRecord.read(path).to_dict()["variants"] == whole["variants"]
    assert b'"resnet"' in before


def test_a_record_of_another_resnet_is_not_continued(study, small_cifar100, tmp_path):
    folder, *_ = study
    path = folder / "out" / "record.json"
    values = AblationRecord.read(path).to_dict()
    values["resnet"]["weights"] = "0" * 64
    AblationRecord.from_dict(values).write(tmp_path / "record.json")
    with pytest.raises(ValueError, match="another ResNet"):
        run(tmp_path, folder / "resnet", small_cifar100)


# --- the table ------------------------------------------------------------------------------------


def test_the_table_says_what_was_not_run(monkeypatch):
    monkeypatch.setattr("vitbook.carried.find_record", lambda name: None)
    assert carried_table() == (
        "not yet run: python -m benchmarks.carried (about half an hour of one core)"
    )


def test_the_table_gives_mean_spread_and_verdict(study):
    _, some, whole = study
    whole["variants"]["correct"]["test_accuracy"] = [0.10, 0.12]
    whole["variants"]["carried-frozen"]["test_accuracy"] = [0.50, 0.52]
    whole["variants"]["carried-tuned"]["test_accuracy"] = [0.11, 0.12]
    for name in ("random-frozen", "random-tuned", "carried-patches"):
        whole["variants"][name]["test_accuracy"] = [0.01, 0.03]
    text = carried_table(whole)
    lines = {line[:33].strip(): line[33:].split() for line in text.splitlines()}
    assert lines["linear patches"][1:] == ["11.0", "±", "1.4"]
    assert lines["ResNet, carried, frozen"][-2:] == ["+40.0:", "gain"]
    assert lines["ResNet, carried, fine-tuned"][-2:] == ["+0.5:", "none"]
    assert lines["ResNet, random, frozen"][-2:] == ["-9.0:", "loss"]
    assert "stand-in" in text
    assert max(map(len, text.splitlines())) < 100
    assert "3 of 12 runs are recorded" in carried_table(some)
    assert "one seed" in carried_table(some)


def test_a_committed_record_is_whole():
    record = records.find_record("carried")
    if record is not None:
        assert record["complete"]
        assert record["split"] != "stand-in"
        assert carried_table(record).count(" ± ") == len(record["variants"])
