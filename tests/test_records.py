# SPDX-License-Identifier: MIT
"""vitcore.records: what a run leaves behind, and how the book finds it again."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import functools
import http.server
import json
import re
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from vitcore import records
from vitcore.recipes import RECIPES, Recipe, train_recipe
from vitcore.records import (
    RunRecord,
    find_record,
    index_runs,
    list_runs,
    load_record,
    load_run_weights,
    run_file,
)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_mnist):
    """A folder of runs as the repository's, with one run in it."""
    folder = tmp_path_factory.mktemp("published") / "runs"
    values = RECIPES["mnist"].quick().to_dict()
    values |= {"images": [80, 40, 40]}
    values["model"] |= {"dim": 8, "depth": 1, "heads": 2}
    recipe = Recipe.from_dict(values).with_train(epochs=1)
    run = train_recipe(recipe, small_mnist, device="cpu", out=folder / "tiny", progress=False)
    record = RunRecord.from_run(run, small_mnist, "python -m vitcore train mnist")
    record.write(folder / "tiny" / "record.json")
    return folder, record


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


def test_a_run_that_was_not_made_is_none(finished, monkeypatch):
    monkeypatch.setenv("VITCORE_RUNS", str(finished[0]))
    found = find_record("tiny")
    assert found is not None
    assert found["dataset"] == "mnist"
    assert find_record("to-be-made") is None


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


# --- finding runs ----------------------------------------------------------------------------


class Quiet(http.server.SimpleHTTPRequestHandler):
    asked: list[str]

    def log_message(self, *arguments):
        self.asked.append(self.path)


@pytest.fixture
def elsewhere(finished, tmp_path, monkeypatch):
    """A notebook in an empty folder, and the repository at a server on loopback."""
    folder, _ = finished
    site = tmp_path / "site"
    (site / "raw").mkdir(parents=True)
    (site / "raw" / "main").symlink_to(folder.parent)
    asked: list[str] = []
    handler = type("Handler", (Quiet,), {"asked": asked})
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(site))
    )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    package = tmp_path / "installed" / "vitcore"
    package.mkdir(parents=True)
    monkeypatch.setattr(records, "_PACKAGE", package)
    monkeypatch.setattr(records, "_INDEX", package / "runs.json")
    monkeypatch.setattr(records, "REPOSITORY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VITCORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("VITCORE_RUNS", raising=False)
    index_runs(folder)
    yield tmp_path, asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_is_fetched_once(elsewhere, finished):
    tmp_path, asked = elsewhere
    assert list_runs() == ["tiny"]
    assert load_record("tiny") == finished[1].to_dict()
    assert load_run_weights("tiny").config.dim == 8
    assert load_record("tiny") == finished[1].to_dict()
    assert asked == [f"/raw/main/runs/tiny/{f}" for f in ("record.json", "model.safetensors")]
    # A cached file that was damaged is fetched again.
    path = tmp_path / "cache" / "runs" / "tiny" / "record.json"
    path.write_text(path.read_text()[:100])
    assert load_record("tiny") == finished[1].to_dict()
    assert len(asked) == 3


def test_a_file_with_another_checksum_is_refused(elsewhere):
    tmp_path, _ = elsewhere
    index = json.loads(records._INDEX.read_text())
    index["tiny"]["record.json"]["sha256"] = "0" * 64
    records._INDEX.write_text(json.dumps(index))
    with pytest.raises(OSError, match="checksum"):
        load_record("tiny")
    assert not list((tmp_path / "cache").rglob("*.json"))


def test_offline_says_what_to_do(elsewhere, monkeypatch):
    monkeypatch.setattr(records, "REPOSITORY", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="VITCORE_RUNS"):
        load_record("tiny")
    monkeypatch.setattr(records, "REPOSITORY", "no address")
    with pytest.raises(OSError, match="VITCORE_RUNS"):
        load_record("tiny")


def test_a_run_that_nobody_knows(elsewhere):
    with pytest.raises(ValueError, match="known runs are tiny"):
        load_record("mnist-seed9")
    for name in ("", "../tiny", ".tiny", "a/b"):
        with pytest.raises(ValueError, match="name of its folder"):
            load_record(name)
    with pytest.raises(ValueError, match=r"record.json and model.safetensors"):
        run_file("tiny", "secret.txt")
    records._INDEX.unlink()
    with pytest.raises(ValueError, match="known runs are none"):
        load_record("tiny")


def test_the_named_folder_comes_before_the_checkout_and_that_before_the_net(
    elsewhere, finished, monkeypatch
):
    tmp_path, asked = elsewhere

    def put(folder, seed):
        RunRecord.from_dict({**finished[1].to_dict(), "seed": seed}).write(
            folder / "tiny" / "record.json"
        )

    put(tmp_path / "runs", 4)  # somebody else's folder of that name
    assert load_record("tiny")["seed"] == 0
    assert len(asked) == 1
    (tmp_path / "vitcore").mkdir()
    (tmp_path / "vitcore" / "records.py").write_text("")
    put(tmp_path / "runs", 5)  # of the checkout around the current folder
    assert load_record("tiny")["seed"] == 5
    put(tmp_path / "named", 6)
    monkeypatch.setenv("VITCORE_RUNS", str(tmp_path / "named"))
    assert load_record("tiny")["seed"] == 6
    assert len(asked) == 1


def test_index_runs_checks_what_it_lists(finished, tmp_path):
    folder, _ = finished
    index = index_runs(folder, tmp_path / "runs.json")
    assert set(index) == {"tiny"}
    assert set(index["tiny"]) == {"record.json", "model.safetensors"}
    assert json.loads((tmp_path / "runs.json").read_text()) == index
    bad = tmp_path / "runs" / "bad"
    bad.mkdir(parents=True)
    (bad / "record.json").write_text("{}")
    with pytest.raises(ValueError, match="lacks"):
        index_runs(bad.parent, tmp_path / "runs.json")


# --- what is published -----------------------------------------------------------------------


def test_the_index_matches_the_runs(tmp_path):
    """`make runs-index` writes vitcore/runs.json anew."""
    assert index_runs(ROOT / "runs", tmp_path / "runs.json") == records._index()


PUBLISHED = [
    path
    for path in sorted((ROOT / "runs").glob("*/record.json"))
    if "kind" not in json.loads(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_records(path):
    record = RunRecord.read(path)
    assert record.split in ("official", "re-split")
    assert not record.commit.endswith("-dirty")
    assert "/" not in record.command
    assert len(record.epochs) == record.recipe["train"]["epochs"]
    best = max(row["val_accuracy"] for row in record.epochs)
    assert record.val_accuracy == best
    hits = sum(record.confusion[i][i] for i in range(len(record.confusion)))
    assert hits / record.test_images == pytest.approx(record.test_accuracy, abs=1e-9)
    weights = path.parent / "model.safetensors"
    if weights.exists():
        loaded = load_run_weights(path.parent.name)
        assert sum(p.numel() for p in loaded.model.parameters()) == record.parameters


def test_the_repositorys_address():
    assert re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", records.REPOSITORY)
