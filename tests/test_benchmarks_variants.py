# SPDX-License-Identifier: MIT
"""What becomes of the variants' runs: the record of chapters 9 and 10 and its tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import ladder, variants
from vitbook import studies
from vitbook import variants as book
from vitbook.records import list_runs, load_record
from vitcore.data import ImageDataset
from vitcore.recipes import RECIPES
from vitcore.records import RECORD, RunRecord
from vitcore.runs import train_recipe
from vitcore.vit import ViTConfig

NAMES = ("base", "temperature", "rotary")


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three variants in place of twenty-five, small enough for a test; no others are known."""
    for name in NAMES:
        full = f"cifar100-variants-{name}"
        recipe = RECIPES[full]
        model = replace(recipe.model, dim=16, depth=1, heads=2, patch_size=8)
        recipe = replace(recipe.with_train(epochs=1, batch_size=32), model=model, images=None)
        monkeypatch.setitem(RECIPES, full, recipe)
    jobs = tuple(ladder.Job(f"cifar100-variants-{n}", seed) for seed in (0, 1) for n in NAMES)
    monkeypatch.setitem(ladder.PLANS, "variants", jobs)
    monkeypatch.setattr(variants, "VARIANT_CHANGES", dict.fromkeys(NAMES))
    monkeypatch.setattr(variants, "SIZES", (32, 64))
    monkeypatch.setattr(variants, "SIZED_IMAGES", 100)


def make_run(out: Path, data: ImageDataset, name: str, seed: int, **changes: Any) -> None:
    recipe = RECIPES[f"cifar100-variants-{name}"].with_train(seed=seed, **changes)
    folder = out / f"{recipe.name}-seed{seed}"
    found = train_recipe(recipe, data, out=folder, progress=False, device="cpu")
    RunRecord.from_run(found, data, "a test").write(folder / RECORD)


def collect(tmp_path: Path, data: ImageDataset) -> dict[str, Any]:
    options: dict[str, Any] = {"load": lambda name: data, "device": "cpu", "rounds": 1}
    return variants.run(tmp_path / "record", tmp_path / "runs", say=lambda line: None, **options)


def test_runs_are_collected_as_they_come_and_nothing_twice(
    short: None, small_cifar100: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = collect(tmp_path, small_cifar100)
    assert list(record["variants"]) == list(NAMES)
    assert record["summary"] == {}
    assert all(row["runs"] == [] for row in record["variants"].values())
    assert "not yet run" in book.variants_table(["rotary"], record)
    assert "0 of 6 runs are recorded" in book.variants_table(["rotary"], record)

    for name, seed in (("base", 0), ("base", 1), ("temperature", 0)):
        make_run(tmp_path / "runs", small_cifar100, name, seed)
    monkeypatch.setattr(variants, "measure", None)  # the times are known
    record = collect(tmp_path, small_cifar100)
    assert [run["seed"] for run in record["variants"]["base"]["runs"]] == [0, 1]
    (run,) = record["variants"]["temperature"]["runs"]
    assert list(run["by_size"]) == ["32", "64"]
    assert run["by_size"]["32"] == pytest.approx(run["val_accuracy"], abs=1e-4)
    assert len(run["temperatures"]) == 1
    assert len(run["temperatures"][0]) == 2
    assert "temperatures" not in record["variants"]["base"]["runs"][0]
    assert record["summary"]["temperature"]["verdict"] in ("gain", "none", "loss")

    monkeypatch.setattr(variants, "look_inside", None)  # and so are the weights
    gone = tmp_path / "runs" / "cifar100-variants-base-seed0"
    for file in gone.iterdir():
        file.unlink()
    again = collect(tmp_path, small_cifar100)
    assert again["variants"] == record["variants"], "a run that is gone from OUT stays"


def test_a_run_made_anew_replaces_the_old_one(
    short: None, small_cifar100: ImageDataset, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs", small_cifar100, "base", 0)
    collect(tmp_path, small_cifar100)
    path = tmp_path / "runs" / "cifar100-variants-base-seed0" / RECORD
    values = json.loads(path.read_text(encoding="utf-8"))
    values |= {"date": "2030-01-01T00:00:00Z", "val_accuracy": 0.5}
    path.write_text(json.dumps(values), encoding="utf-8")
    (run,) = collect(tmp_path, small_cifar100)["variants"]["base"]["runs"]
    assert (run["date"], run["val_accuracy"]) == ("2030-01-01T00:00:00Z", 0.5)


def test_times_taken_otherwise_are_taken_anew_and_runs_stay(
    short: None, small_cifar100: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs", small_cifar100, "base", 0)
    before = collect(tmp_path, small_cifar100)["variants"]
    machine = {"device": "cpu", "name": "another", "cores": 1, "threads": 1}
    monkeypatch.setattr(variants, "hardware", lambda device: machine)
    costs = {**before["rotary"], "parameters": 7}
    monkeypatch.setattr(variants, "measure", lambda *given: costs)
    after = collect(tmp_path, small_cifar100)["variants"]
    assert [row["parameters"] for row in after.values()] == [7, 7, 7]
    assert after["base"]["runs"] == before["base"]["runs"] != []


def test_a_run_of_another_recipe_is_refused(
    short: None, small_cifar100: ImageDataset, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs", small_cifar100, "base", 0, lr=1e-4)
    with pytest.raises(ValueError, match="a run of another recipe than cifar100-variants-base"):
        collect(tmp_path, small_cifar100)


def test_a_recipe_that_changed_loses_its_runs(
    short: None, small_cifar100: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs", small_cifar100, "rotary", 0)
    assert collect(tmp_path, small_cifar100)["variants"]["rotary"]["runs"]
    name = "cifar100-variants-rotary"
    monkeypatch.setitem(RECIPES, name, RECIPES[name].with_train(epochs=2))
    (tmp_path / "runs" / f"{name}-seed0" / RECORD).unlink()
    row = collect(tmp_path, small_cifar100)["variants"]["rotary"]
    assert (row["runs"], row["epochs"]) == ([], 2)


def test_the_digest_leaves_out_what_is_the_runs_own() -> None:
    recipe = RECIPES["cifar100-variants-base"]
    same = replace(recipe.with_train(seed=2, precision="bf16"), note="another")
    assert variants.digest(same) == variants.digest(recipe)
    assert variants.digest(recipe.with_train(lr=1e-3)) != variants.digest(recipe)
    deeper = replace(recipe, model=replace(recipe.model, depth=5))
    assert variants.digest(deeper) != variants.digest(recipe)


def test_the_digest_outlives_a_new_field(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = RECIPES["cifar100-variants-base"]
    before = variants.digest(recipe)
    plain = ViTConfig.to_dict
    monkeypatch.setattr(ViTConfig, "to_dict", lambda config: {**plain(config), "new": 1})
    inside = recipe.to_dict()
    inside["model"]["new"] = 1
    monkeypatch.setattr(type(recipe), "to_dict", lambda recipe: json.loads(json.dumps(inside)))
    assert variants.digest(recipe) == before


def test_what_costs_twice_is_half_as_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that counts the layers that a forward pass goes through."""
    base = RECIPES["cifar100-variants-base"]
    base = replace(base, model=replace(base.model, dim=16, heads=2, depth=2, patch_size=16))
    base = base.with_train(batch_size=4, precision="fp32")
    layers = 0

    def count(module: torch.nn.Module, *given: object) -> None:
        nonlocal layers
        layers += type(module).__name__ == "Block"

    monkeypatch.setattr(variants._Timed, "seconds", lambda timed: float(layers))
    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        deep = replace(base, model=replace(base.model, depth=4))
        found = variants.measure(deep, base, torch.device("cpu"), rounds=1, steps=1)
    finally:
        handle.remove()
    assert found["training"]["ratio"] == found["inference"]["ratio"] == 0.5


# --- the record and its tables --------------------------------------------------------------------


def row(*accuracies: float, **more: Any) -> dict[str, Any]:
    runs = [
        {"seed": seed, "split": "re-split", "date": "d", "commit": "c", "val_accuracy": accuracy,
         "test_accuracy": accuracy, "clean_train_accuracy": 1.0, **more}
        for seed, accuracy in enumerate(accuracies)
    ]  # fmt: skip
    speed = {"images_per_second": 100.0, "ratio": 0.5, "lowest": 0.4, "highest": 0.6}
    return {"recipe": "r", "epochs": 20, "parameters": 1000, "mflop": 21.4, "training": speed,
            "inference": speed, "runs": runs}  # fmt: skip


def whole(**rows: dict[str, Any]) -> dict[str, Any]:
    return {
        "kind": "variants", "command": "x", "commit": "x", "date": "x", "hardware": {},
        "versions": {}, "wall_seconds": 1.0, "base": "base", "dataset": "cifar100",
        "precision": "bf16", "seeds": [0, 1, 2], "rounds": 5, "sizes": [24, 32],
        "sized_images": 10, "variants": rows, "summary": studies.judge_variants(rows, "base"),
    }  # fmt: skip


def test_verdicts_are_those_of_the_spread() -> None:
    rows = {
        "base": row(0.30, 0.31, 0.32), "rotary": row(0.40, 0.41, 0.42),
        "none": row(0.20, 0.21, 0.22), "rms": row(0.31, 0.30, 0.32), "stem": row(0.5),
        "both": row(),
    }  # fmt: skip
    found = studies.judge_variants(rows, "base")
    verdicts = {name: said.get("verdict") for name, said in found.items()}
    assert verdicts == {
        "base": None, "rotary": "gain", "none": "loss", "rms": "none", "stem": "gain"
    }  # fmt: skip
    assert found["rotary"] == {
        "mean": 41.0, "deviation": 1.0, "difference": 10.0, "verdict": "gain", "threshold": 1.88
    }  # fmt: skip
    alone = studies.judge_variants({"base": row(0.3), "stem": row(0.5)}, "base")
    assert alone["stem"] == {"mean": 50.0, "difference": 20.0, "verdict": "one seed"}


def test_a_record_is_checked() -> None:
    good = {"base": row(0.3, 0.4), "rotary": row(0.5)}
    studies.VariantsRecord.from_dict(whole(**good))
    twice = row(0.3)
    twice["runs"] *= 2
    undeclared = row(0.1, 0.1, 0.1, 0.1)
    for rows, words in (
        ({"rotary": row(0.5), "base": row(0.3)}, "must be its base"),
        ({"base": {"runs": []}}, "base in the record lacks recipe"),
        ({"base": twice}, "seeds twice"),
        ({"base": undeclared}, "undeclared"),
        ({"base": row(0.3, by_size={"24": 0.1})}, "one accuracy for each size"),
        ({"base": row(0.3, by_size={"24": 0.1, "32": 1.2})}, "between 0 and 1"),
        ({"base": row(0.3, split="mine")}, "one known split"),
    ):
        with pytest.raises(ValueError, match=words):
            studies.VariantsRecord.from_dict({**whole(**good), "variants": rows})
    changed = whole(**good)
    changed["summary"]["rotary"]["verdict"] = "gain"
    with pytest.raises(ValueError, match="summary"):
        studies.VariantsRecord.from_dict(changed)


def test_a_table_says_what_is_there_and_what_is_not() -> None:
    sized = {"by_size": {"24": 0.2, "32": 0.3}}
    record = whole(base=row(0.30, 0.32, 0.31, **sized), rotary=row(0.5, **sized), none=row())
    lines = book.variants_table(["rotary", "none"], record).splitlines()
    assert lines[1].split() == ["the", "base", "1,000", "21.4", "0.50x", "0.50x", "20",
                                "31.0", "±", "1.0"]  # fmt: skip
    assert lines[2].endswith("50.0  +19.0: gain")
    assert lines[3].endswith("not yet run")
    assert lines[4] == "cifar100 (re-split), bf16"
    assert lines[5].startswith("4 of 9 runs are recorded; the others: python -m benchmarks.ladder")
    assert max(map(len, lines[:5])) < 95
    lines = book.sizes_table(["rotary", "none"], record).splitlines()
    assert lines[0].split() == ["pixels", "24", "32"]
    assert lines[1].split() == ["the", "base", "20.0", "30.0"]
    assert lines[3].endswith("not yet run")
    assert lines[4].startswith("4 of 9")


def test_tables_without_a_record_give_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "find_record", lambda name: None)
    assert book.variants_record() is None
    for table in (book.variants_table, book.sizes_table):
        assert table().startswith("not yet run: python -m benchmarks.ladder --plan variants,")
        assert table(plan="variants-gpu").endswith("benchmarks.variants --plan variants-gpu")


def test_every_variant_has_a_label() -> None:
    assert list(book.VARIANT_LABELS) == list(book.VARIANT_CHANGES)
    assert len(set(book.VARIANT_LABELS.values())) == len(book.VARIANT_LABELS)
    assert max(map(len, book.VARIANT_LABELS.values())) <= 22


@pytest.mark.skipif("variants" not in list_runs(), reason="no record yet")
def test_the_published_record_is_of_the_recipes_as_they_are() -> None:
    record = load_record("variants")
    assert list(record["variants"]) == list(book.VARIANT_CHANGES)
    assert not record["commit"].endswith("-dirty")
    for name, full in zip(book.VARIANT_CHANGES, book.VARIANTS, strict=True):
        found = record["variants"][name]
        assert found["recipe"] == variants.digest(RECIPES[full]), (
            "run python -m benchmarks.variants"
        )
        assert found["epochs"] == RECIPES[full].train.epochs
    splits = {run["split"] for row in record["variants"].values() for run in row["runs"]}
    assert splits <= {"official", "re-split"}
    assert 0.8 < record["variants"]["base"]["inference"]["ratio"] < 1.25, "the base beside itself"
