# SPDX-License-Identifier: MIT
"""vitcore.training.weights: models come back, and what does not fit is refused."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import math
import os
import resource

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
        (without("head.bias"), None, r"in 1 tensors: head.bias is missing in the file"),
        (
            lambda w: {**w, "extra": torch.zeros(1)},
            None,
            r"extra is \(1,\) in the file and missing in",
        ),
        (
            lambda w: {**w, "head.bias": torch.zeros(4)},
            None,
            r"head.bias is \(4,\) in the file and \(3,\) in",
        ),
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": '["a", "b"]'}, "3 classes, but 2"),
        ({"classes": '"abc"'}, "classes is 'abc'; give a list"),
        ({"classes": "[1, 2, 3]"}, "give a list of names"),
        ({"mean": "[0.1, 0.2]"}, "mean"),
        ({"mean": "[NaN]"}, "mean"),
        ({"mean": '["a"]'}, "mean"),
        ({"std": "[0]"}, "std"),
        ({"std": "[-1]"}, "std"),
        ({"std": "[Infinity]"}, "std"),
        ({"std": "3"}, "std"),
    ],
)
def test_names_and_normalisation_are_looked_at_on_loading(saved, changes, words):
    path, _ = saved
    rewrite(path, None, lambda metadata: {**metadata, **changes})
    with pytest.raises(ValueError, match=f"metadata of .* cannot be read: .*{words}"):
        load_weights(path)


def test_weights_that_are_not_finite_are_refused(saved):
    path, model = saved
    broken = torch.full((3,), math.nan)
    rewrite(path, lambda weights: {**weights, "head.bias": broken})
    with pytest.raises(ValueError, match=r"not finite: head\.bias"):
        load_weights(path)
    model.head.bias.data[:] = math.inf
    with pytest.raises(ValueError, match=r"the model has weights that are not finite: head\.bias"):
        save_weights(path, model, **NAMES)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"dim": 4096, "depth": 60, "heads": 32}, r"\(8,\) in the file and \(4096,\)"),
        ({"depth": 10**9}, "is missing in the file"),
        ({"dim": 2**20}, "does not fit its configuration"),
        ({"num_classes": 3, "image_size": 2**20}, r"pos_embed is "),
    ],
)
def test_a_small_file_that_claims_a_large_model_takes_no_memory(saved, claims, words):
    path, _ = saved

    def claim(metadata):
        config = {**json.loads(metadata["config"]), **claims}
        return {**metadata, "config": json.dumps(config)}

    def keep(weights):
        return {k: v for k, v in weights.items() if "positions" not in claims or k != "pos_embed"}

    rewrite(path, keep, claim)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=words):
        load_weights(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kilobytes
