# SPDX-License-Identifier: MIT
"""vitcore.records: what a run leaves behind, and what it says of its commit and machine."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import torch

from vitcore import records
from vitcore.records import RunRecord, recorded_command

ROOT = Path(__file__).resolve().parent.parent


def test_a_record_says_all_there_is_to_say(finished):
    folder, _ = finished
    values = json.loads((folder / "tiny" / "record.json").read_text())
    for key in ("command", "commit", "seed", "source", "split", "hardware", "versions"):
        assert key in values
    for key in ("parameters", "wall_seconds", "epochs", "val_accuracy", "test_accuracy"):
        assert key in values
    assert values["split"] == "stand-in"
    assert values["hardware"]["device"] == "cpu"
    assert values["hardware"]["threads"] == torch.get_num_threads()
    assert {"python", "torch", "vitcore"} <= set(values["versions"])
    assert values["recipe"]["train"]["epochs"] == 1
    assert values["total_seconds"] >= values["wall_seconds"] > 0
    assert values["epochs"][0]["val_accuracy"] == values["val_accuracy"]
    assert sum(map(sum, values["confusion"])) == values["test_images"] == 40
    hits = sum(values["confusion"][i][i] for i in range(10))
    assert hits / 40 == pytest.approx(values["test_accuracy"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", values["date"])
    # Nothing of the machine's folders.
    text = (folder / "tiny" / "record.json").read_text()
    for place in (str(ROOT), str(folder), str(Path.home())):
        assert place not in text or place == "/"


def test_a_record_comes_back_with_what_it_does_not_know(finished, tmp_path):
    _, record = finished
    path = tmp_path / "record.json"
    RunRecord.from_dict({**record.to_dict(), "coarse_accuracy": 0.5}).write(path)
    back = RunRecord.read(path)
    assert back.more == {"coarse_accuracy": 0.5}
    assert json.loads(path.read_text())["coarse_accuracy"] == 0.5
    assert RunRecord.from_dict(record.to_dict()) == record


def test_what_older_records_lack_is_optional(finished):
    values = finished[1].to_dict()
    later = ("clean_train_accuracy", "train_pflop", "cpu_seconds", "other_cores")
    assert values["cpu_seconds"] > 0
    assert 0 <= values["clean_train_accuracy"] <= 1
    assert 0 < values["train_pflop"] < 1e-3
    older = {key: value for key, value in values.items() if key not in later}
    record = RunRecord.from_dict(older)
    assert record.train_pflop is record.clean_train_accuracy is None
    assert record.to_dict() == older
    with pytest.raises(ValueError, match=r"cpu_seconds .* type float"):
        RunRecord.from_dict({**values, "cpu_seconds": "3"})
    with pytest.raises(ValueError, match=r"clean_train_accuracy .* between 0 and 1"):
        RunRecord.from_dict({**values, "clean_train_accuracy": 1.5})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": None}, "seed .* type int"),
        ({"seed": True}, "seed .* type int"),
        ({"command": 3}, "command .* type str"),
        ({"hardware": []}, "hardware .* type dict"),
        ({"test_accuracy": 99.3}, "test_accuracy .* between 0 and 1"),
        ({"epochs": []}, "no epoch"),
    ],
)
def test_a_record_is_checked(finished, tmp_path, change, words):
    values = {**finished[1].to_dict(), **change}
    with pytest.raises(ValueError, match=words):
        RunRecord.from_dict(values)
    (tmp_path / "record.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=words):
        RunRecord.read(tmp_path / "record.json")


def test_what_is_no_record(finished, tmp_path):
    with pytest.raises(FileNotFoundError, match="no run record"):
        RunRecord.read(tmp_path / "record.json")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match="not valid JSON"):
        RunRecord.read(tmp_path / "record.json")
    with pytest.raises(ValueError, match="object"):
        RunRecord.from_dict([])  # type: ignore[arg-type]
    values = finished[1].to_dict()
    del values["commit"], values["split"]
    with pytest.raises(ValueError, match="lacks commit, split"):
        RunRecord.from_dict(values)


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def test_the_commit_is_that_of_the_package(tmp_path, monkeypatch):
    package = tmp_path / "vitcore"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(records, "_PACKAGE", package)
    assert records.commit().startswith("vitcore ")
    git(tmp_path, "init", "-q")
    (tmp_path / "notes.txt").write_text("")
    git(tmp_path, "add", "notes.txt")
    git(tmp_path, "commit", "-q", "-m", "a repository that does not hold the package")
    assert records.commit().startswith("vitcore ")
    git(tmp_path, "add", "vitcore")
    git(tmp_path, "commit", "-q", "-m", "one that does")
    assert records.commit() == git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes.txt").write_text("changed")
    assert not records.commit().endswith("-dirty")
    (package / "__init__.py").write_text("x = 1")
    assert records.commit() == git(tmp_path, "rev-parse", "HEAD") + "-dirty"


def test_the_recorded_command_has_no_folder_of_ones_own():
    given = ["train", "folder", "/home/me/cats", "--out", "folder", "--seed", "1"]
    assert recorded_command(given) == (
        "python -m vitcore train folder MY_IMAGES --out OUT --seed 1"
    )


def test_the_recorded_command_has_no_folders():
    given = ["train", "mnist", "--data", "/home/me/my data", "--out=/tmp/x", "--seed", "1"]
    given += ["--out", "rel", "--data=d"]
    assert recorded_command(given) == (
        "python -m vitcore train mnist --data DATA --out OUT --seed 1 --out OUT --data DATA"
    )
