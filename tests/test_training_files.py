# SPDX-License-Identifier: MIT
"""vitcore.training.files: complete files or none, and nothing is unpickled."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from safetensors import SafetensorError
from training_helpers import (
    ROOT,
    Stop,
    run,
)

from vitcore.training import (
    CHECKPOINT,
    load_weights,
    replace_file,
)


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
    import safetensors.torch

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    before = {}

    def fill(epoch, step):
        if (epoch, step) == (2, 0):
            before["bytes"] = (tmp_path / CHECKPOINT).read_bytes()
            monkeypatch.setattr(safetensors.torch, "save_file", full)

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
        assert "torch.load(" not in source.read_text(encoding="utf-8"), source.name
