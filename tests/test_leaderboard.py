# SPDX-License-Identifier: MIT
"""The leaderboard holds every recorded run, and a run joins once its weights keep their word."""

# mypy: allow-untyped-defs
from __future__ import annotations

import dataclasses
import json
import re

import pytest

from benchmarks import leaderboard
from tools.set_repository import ROOT
from vitcore.data import load_dataset
from vitcore.recipes import RECIPES
from vitcore.records import RECORD, RunRecord
from vitcore.runs import train_recipe

PAGE = (ROOT / "book" / "results.md").read_text("utf-8")


def test_every_training_run_has_its_place():
    runs = leaderboard.training_runs(ROOT / "runs")
    lines = leaderboard.table()
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in lines}) == 1
    for name, record in runs:
        (line,) = [line for line in lines if f"(runs/{name}/{RECORD})" in line]
        assert f"({record.split})" in line
        assert f"{record.parameters:,}" in line
    assert sum(line.count(RECORD) for line in lines) == len(runs)


def test_the_page_is_made_from_the_records_and_says_how_to_join():
    assert "```{results}" in PAGE
    assert "re-split" in PAGE
    assert "python -m benchmarks.leaderboard check" in PAGE
    assert not re.search(r"\d\d\.\d", PAGE)  # figures come from the records alone


@pytest.fixture(scope="module")
def joined(tmp_path_factory):
    """A run on stand-in digits: its folder, as two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    dataset = load_dataset("mnist", folder, stand_in=True)
    recipe = dataclasses.replace(RECIPES["mnist"].quick(), images=(200, 100, 200))
    for seed in (0, 1):
        out = folder / f"mine-seed{seed}"
        run = train_recipe(recipe.with_train(seed=seed, epochs=1), dataset, device="cpu", out=out,
                           progress=False)  # fmt: skip
        RunRecord.from_run(run, dataset, "python -m vitcore train mnist").write(out / RECORD)
    return folder


def test_rows_gather_seeds_and_say_what_they_cost(joined):
    (runs,) = leaderboard.rows(joined)
    assert [name for name, _ in runs] == ["mine-seed0", "mine-seed1"]
    row = dict(zip(leaderboard.HEADER, leaderboard.cells(runs), strict=True))
    first = runs[0][1]
    mean = 50 * (first.test_accuracy + runs[1][1].test_accuracy)
    assert row["test accuracy"].startswith(f"{mean:.2f} ± ")
    assert row["test accuracy"].endswith("(2 seeds)")
    assert row["budget"] == "1 × 200 images"
    assert row["PFLOP"] == f"{first.train_pflop:.4g}"
    assert row["command"] == "`python -m vitcore train mnist`"
    for others, told in ((0.02, "fp32"), (0.8, "shared"), (None, "not noted")):
        changed = [(name, dataclasses.replace(r, other_cores=others)) for name, r in runs]
        assert leaderboard.cells(changed)[7].endswith(told)
    one = leaderboard.cells(runs[:1])
    assert one[2].endswith("(one seed)")


def test_other_settings_are_another_row(joined, tmp_path):
    for name, lr in (("a", 1e-3), ("b", 2e-3)):
        values = json.loads((joined / "mine-seed0" / RECORD).read_text())
        values["recipe"]["train"]["lr"] = lr
        (tmp_path / name).mkdir()
        (tmp_path / name / RECORD).write_text(json.dumps(values))
    assert len(leaderboard.rows(tmp_path)) == 2


def changed(joined, tmp_path, **values):
    record = RunRecord.read(joined / "mine-seed0" / RECORD)
    (tmp_path / "model.safetensors").write_bytes(
        (joined / "mine-seed0" / "model.safetensors").read_bytes()
    )
    dataclasses.replace(record, **values).write(tmp_path / RECORD)
    return tmp_path


def test_a_run_that_keeps_its_word_passes(joined, capsys):
    words = ["check", str(joined / "mine-seed0"), "--data", str(joined), "--stand-in"]
    leaderboard.main(words)
    told = capsys.readouterr().out
    assert "as its record says" in told
    assert "PFLOP of training" in told


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"test_accuracy": 0.999}, "the record says 99.90%"),
        ({"parameters": 7}, "another model than its record"),
        ({"split": "official"}, "the record speaks of official images"),
        ({"train_pflop": 1.0}, "leave the record as the command wrote it"),
    ],
)
def test_a_run_that_does_not_is_refused(joined, tmp_path, values, message):
    folder = changed(joined, tmp_path, **values)
    with pytest.raises(SystemExit, match=message):
        leaderboard.main(["check", str(folder), "--data", str(joined), "--stand-in"])


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SystemExit, match="there is no run record"):
        leaderboard.main(["check", str(tmp_path)])
