# SPDX-License-Identifier: MIT
"""vitcore.training.files: complete files or none, and nothing is unpickled."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pickle
import random
import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training_helpers import (
    NAMES,
    ROOT,
    Stop,
    run,
    run_content,
    same_weights,
    stop_at,
    tiny_vit,
)

from vitcore.training import CHECKPOINT, load_weights, replace_file, save_weights
from vitcore.training.files import checksum, lock_folder, read_tensors


def test_replace_file_is_all_or_nothing(tmp_path):
    path = tmp_path / "a" / "file"
    with replace_file(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(Stop), replace_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half of tw")
        raise Stop
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    write = Path.write_bytes

    def full(path, content):
        write(path, content[: len(content) // 2])
        raise OSError("No space left on device")

    before = {}

    def fill(epoch, step):
        if (epoch, step) == (2, 0):
            before["bytes"] = (tmp_path / CHECKPOINT).read_bytes()
            monkeypatch.setattr(Path, "write_bytes", full)

    with pytest.raises(OSError, match=r"No space left.*check the space"):
        run(tmp_path, before=fill)
    assert (tmp_path / CHECKPOINT).read_bytes() == before["bytes"]
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "model.pt"
    for content in (pickle.dumps(Trap(tmp_path / "sprung")), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            load_weights(path)
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            run(tmp_path, resume=True)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # the trap works
    assert (tmp_path / "sprung").exists()
    for source in (ROOT / "vitcore").rglob("*.py"):
        unsafe = r"torch\.load\((?![^()]*weights_only=True\))"
        assert not re.search(unsafe, source.read_text(encoding="utf-8")), source.name


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    save_weights(path, tiny_vit(class_token=True), **NAMES)
    return path


def flips(path, count, start, end, seed=0):
    """The file with one bit turned over, again and again, and at last as it was."""
    whole = path.read_bytes()
    draw = random.Random(seed)
    for _ in range(count):
        bits = bytearray(whole)
        bits[draw.randrange(start, end or len(whole))] ^= 1 << draw.randrange(8)
        path.write_bytes(bits)
        yield bytes(bits) != whole
    path.write_bytes(whole)


@pytest.mark.parametrize("part", ["header", "tensors"])
def test_a_flipped_bit_in_weights_is_found(saved, part):
    whole = saved.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    expected = load_weights(saved).model.state_dict()
    messages = []
    for _ in flips(saved, 200, *((0, header) if part == "header" else (header, None))):
        try:
            loaded = load_weights(saved)
        except ValueError as error:
            messages.append(str(error))
            continue
        # JSON writes one and the same content in several ways, such as a space beside a comma.
        same_weights(loaded.model.state_dict(), expected)
        assert (loaded.classes, loaded.mean, loaded.std) == (["a", "b", "c"], (0.1,), (0.2,))
        assert part == "header"
    load_weights(saved)
    assert len(messages) > 190
    assert not [text for text in messages if "\n" in text]


def test_a_flipped_bit_in_a_checkpoint_is_found(tmp_path):
    run(tmp_path)
    content = run_content(tmp_path)
    for _ in flips(tmp_path / CHECKPOINT, 100, 0, None):
        with pytest.raises(ValueError) as caught:
            run(tmp_path, resume=True)
        assert "\n" not in str(caught.value)
    assert content[1] == run_content(tmp_path)[1]


def test_weights_written_before_there_was_a_checksum_load(saved):
    tensors, metadata = read_tensors(saved, "file")
    del metadata["sha256"]
    save_file(tensors, saved, metadata)
    with pytest.raises(ValueError, match="checksum"):
        load_weights(saved)
    save_file(tensors, saved, {**metadata, "format": "vitcore-weights-1"})
    same_weights(load_weights(saved).model.state_dict(), tensors)


def test_two_runs_in_one_folder(tmp_path, monkeypatch):
    with lock_folder(tmp_path):
        with pytest.raises(BlockingIOError, match="another run is writing to"):
            run(tmp_path)
        assert not list(tmp_path.iterdir())
        run(tmp_path / "other")
    (tmp_path / ".checkpoint.safetensors.0123.tmp").write_bytes(b"half of it")
    run(tmp_path)  # the lock is gone, and so is what a killed run left
    assert sorted(p.name for p in tmp_path.iterdir()) == [CHECKPOINT, "other"]
    with pytest.raises(Stop):
        run(tmp_path / "new", before=stop_at(1, 0, Stop()))
    run(tmp_path / "new", resume=True)
    monkeypatch.setitem(sys.modules, "fcntl", None)  # as on Windows
    with lock_folder(tmp_path), lock_folder(tmp_path):
        pass


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / "file"
    with replace_file(path) as one, replace_file(path) as other:
        one.write_text("one")
        other.write_text("other")
    assert path.read_text() == "one"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_checksum_sees_names_types_shapes_values_and_metadata():
    ones = torch.ones(2, 3)
    others = [{"b": ones}, {"a": ones.view(torch.int32)}, {"a": ones.T}, {"a": 2 * ones}]
    digests = [checksum(tensors, {}) for tensors in ({"a": ones}, *others)]
    assert len({*digests, checksum({"a": ones}, {"x": "y"})}) == 6
    assert checksum({"a": ones.clone()}, {"sha256": "z"}) == digests[0]
