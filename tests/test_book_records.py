# SPDX-License-Identifier: MIT
"""vitbook.records: committed records are found wherever a notebook runs, and are as they say."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import functools
import http.server
import json
import re
import threading
from pathlib import Path

import pytest

from vitbook import records
from vitbook.records import (
    find_record,
    index_runs,
    list_runs,
    load_record,
    load_run_weights,
    run_file,
)
from vitcore.records import RunRecord

ROOT = Path(__file__).resolve().parent.parent


def test_a_run_that_was_not_made_is_none(finished, monkeypatch):
    monkeypatch.setenv("VITCORE_RUNS", str(finished[0]))
    found = find_record("tiny")
    assert found is not None
    assert found["dataset"] == "mnist"
    assert find_record("to-be-made") is None


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
    package = tmp_path / "installed" / "vitbook"
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


def test_weights_are_not_handed_out_to_be_scored_on_what_they_saw(elsewhere, small_mnist):
    part = small_mnist.subset(80, 40, 40)
    load_run_weights("tiny", part.test)
    with pytest.raises(ValueError, match="80 are among those"):
        load_run_weights("tiny", part.train)


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
    (tmp_path / "vitbook").mkdir()
    (tmp_path / "vitbook" / "records.py").write_text("")
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
    """`make runs-index` writes vitbook/runs.json anew."""
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
    # The confusion comes from a pass of its own; in bf16 rounding may turn an answer or two.
    turned = 2 if record.precision == "bf16" else 0
    assert abs(hits - record.test_accuracy * record.test_images) <= turned + 1e-5
    weights = path.parent / "model.safetensors"
    if weights.exists():
        loaded = load_run_weights(path.parent.name)
        assert sum(p.numel() for p in loaded.model.parameters()) == record.parameters
        assert "seen_images" in loaded.metadata


def test_the_repositorys_address():
    assert re.fullmatch(r"https://[\w.-]+/[\w.-]+/[\w.-]+", records.REPOSITORY)
