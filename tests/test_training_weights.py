# SPDX-License-Identifier: MIT
"""vitcore.training.weights: models come back, and what does not fit is refused."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import os

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_helpers import (
    NAMES,
    same_weights,
    tiny_vit,
)

from vitcore.training import (
    load_weights,
    save_weights,
)
from vitcore.training.files import read_tensors, write_tensors


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = tiny_vit(class_token=True)
    save_weights(path, model, **NAMES, extra={"note": [1, 2]})
    return path, model


def test_weights_come_back(saved):
    path, model = saved
    loaded = load_weights(path)
    same_weights(loaded.model.state_dict(), model.state_dict())
    assert loaded.config == model.config
    assert (loaded.classes, loaded.mean, loaded.std) == (["a", "b", "c"], (0.1,), (0.2,))
    assert loaded.metadata == {"note": [1, 2]}
    assert not loaded.model.training
    pixels = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    expected = (pixels / 255 - 0.1) / 0.2
    torch.testing.assert_close(loaded.normalise(pixels), expected)
    torch.testing.assert_close(loaded.normalise(pixels / 255), expected)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def rewrite(path, change_weights=None, change_metadata=None):
    weights, metadata = read_tensors(path, "file")
    weights = change_weights(weights) if change_weights else weights
    metadata = change_metadata(metadata) if change_metadata else metadata
    write_tensors(path, weights, metadata)


def test_prefixes_of_compile_and_ddp_are_stripped(saved):
    path, model = saved
    rewrite(path, lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()})
    same_weights(load_weights(path).model.state_dict(), model.state_dict())


def test_a_wrapped_model_is_saved_under_plain_names(tmp_path):
    class Compiled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

    model = tiny_vit()
    save_weights(tmp_path / "w.safetensors", Compiled(model), **NAMES)
    same_weights(load_file(tmp_path / "w.safetensors"), model.state_dict())


def without(key):
    return lambda values: {k: v for k, v in values.items() if k != key}


@pytest.mark.parametrize(
    ("weights", "metadata", "words"),
    [
        (None, without("config"), "no config"),
        (None, without("classes"), "no classes"),
        (None, lambda m: {**m, "config": "{"}, "cannot be read"),
        (None, lambda m: {**m, "config": '{"depth": 0}'}, "cannot be read"),
        (None, lambda m: {**m, "mean": "["}, "cannot be read"),
        (without("head.bias"), None, "lacks the tensors head.bias"),
        (lambda w: {**w, "extra": torch.zeros(1)}, None, "no place for: extra"),
        (lambda w: {**w, "head.bias": torch.zeros(4)}, None, r"head.bias .*\(4,\).*\(3,\)"),
    ],
)
def test_load_weights_refuses(saved, weights, metadata, words):
    path, _ = saved
    rewrite(path, weights, metadata)
    with pytest.raises(ValueError, match=words):
        load_weights(path)


def test_load_weights_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_weights(tmp_path / "none.safetensors")


def test_save_weights_refuses(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(TypeError, match="Linear"):
        save_weights(path, nn.Linear(2, 2), **NAMES)
    with pytest.raises(ValueError, match="3 classes, but 2"):
        save_weights(path, tiny_vit(), **{**NAMES, "classes": ["a", "b"]})
    with pytest.raises(ValueError, match="channels"):
        save_weights(path, tiny_vit(), **{**NAMES, "mean": (0.1, 0.1)})
    assert not path.exists()
