# SPDX-License-Identifier: MIT
"""Files that are not what they should be, and the order of the places that are asked."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import (
    load,
    save,
    tiny,
)

from vitcore import data
from vitcore.data import (
    _standin,
    load_dataset,
)
from vitcore.data import load as loading


def broken(change) -> dict:
    arrays = tiny()
    change(arrays)
    return arrays


BAD_ARRAYS = {
    "float images": (
        lambda a: a.update(x_train=a["x_train"] / np.float32(255)),
        "x_train in .* has the type float32; store uint8",
    ),
    "wide images": (
        lambda a: a.update(x_test=np.zeros((40, 28, 29), np.uint8)),
        r"x_test in .* has the shape \(40, 28, 29\); give \(N, 28, 28\)",
    ),
    "flat images": (
        lambda a: a.update(x_train=a["x_train"].reshape(120, 784)),
        r"x_train .* \(120, 784\); give \(N, 28, 28\)",
    ),
    "float labels": (
        lambda a: a.update(y_train=a["y_train"].astype(np.float64)),
        "y_train .* float64; give whole numbers from 0 to 9",
    ),
    "one-hot labels": (
        lambda a: a.update(y_test=np.eye(10, dtype=np.uint8)[a["y_test"]]),
        r"y_test .* the shape \(40, 10\); give a label for each of 40 images",
    ),
    "too few labels": (
        lambda a: a.update(y_train=a["y_train"][:-1]),
        r"y_train .* the shape \(119,\); give a label for each of 120 images",
    ),
    "a label too large": (
        lambda a: a["y_test"].__setitem__(3, 10),
        "y_test .* labels from 0 to 10; give 0 to 9",
    ),
    "a negative label": (
        lambda a: a.update(y_train=a["y_train"].astype(np.int64) - 1),
        "y_train .* labels from -1 to 8",
    ),
    "no images": (
        lambda a: a.update(x_test=a["x_test"][:0], y_test=a["y_test"][:0]),
        "x_test .* give .* one image at least",
    ),
    "no test part": (
        lambda a: (a.pop("x_test"), a.pop("y_test")),
        "lacks x_test, y_test",
    ),
    "objects": (
        lambda a: a.update(y_train=np.array([{}] * 120, dtype=object)),
        "not a readable .npz file",
    ),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_bad_arrays(tmp_path, no_data, case):
    change, words = BAD_ARRAYS[case]
    path = save(tmp_path, broken(change))
    with pytest.raises(ValueError, match=words) as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", ["truncated", "flipped", "empty", "text", "an array"])
def test_bad_files(tmp_path, no_data, case):
    path = save(tmp_path, tiny())
    content = path.read_bytes()
    if case == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif case == "flipped":
        path.write_bytes(content[:5000] + bytes([content[5000] ^ 255]) + content[5001:])
    elif case == "empty":
        path.write_bytes(b"")
    elif case == "text":
        path.write_text("<html>404 Not Found</html>")
    else:
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    with pytest.raises(ValueError, match=r"not a readable \.npz file") as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("claimed", [(10**12, 28, 28), (10**6, 10**6, 10**6), (119, 28, 28)])
def test_arrays_that_claim_more_than_their_file_holds(tmp_path, no_data, claimed):
    """Terabytes are refused before any memory is asked for."""
    path = save(tmp_path, tiny())
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    header = io.BytesIO()
    shape = {"descr": "|u1", "fortran_order": False, "shape": claimed}
    np.lib.format.write_array_header_1_0(header, shape)
    members["x_train.npy"] = header.getvalue() + members["x_train.npy"][128:]
    with zipfile.ZipFile(path, "w") as changed:
        for name, content in members.items():
            changed.writestr(name, content)
    with pytest.raises(ValueError, match=r"x_train claims .* bytes") as caught:
        load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [{"name": None}, {"data_dir": 3}, {"data_dir": torch.zeros(2)},
     {"stand_in": 2}, {"seed": None}, {"validation": "5"}],
)  # fmt: skip
def test_wrong_types_are_named(tmp_path, no_data, changes):
    save(tmp_path, tiny())
    with pytest.raises((TypeError, ValueError), match=r"give|use|given") as caught:
        load_dataset(**{"name": "mnist", "data_dir": tmp_path, "validation": 20, **changes})
    assert "\n" not in str(caught.value)


def test_any_whole_number_is_a_seed(tmp_path, no_data):
    save(tmp_path, tiny())
    images = [load(tmp_path, seed=seed).val.images for seed in (10**30, -5, 2**64 - 5, 3)]
    assert torch.equal(images[1], images[2])
    assert not torch.equal(images[0], images[3])


def test_keras_labels_with_a_second_axis(tmp_path, no_data):
    arrays = tiny("cifar100", 200, 100)
    save(tmp_path / "a", arrays, "cifar100")
    columns = {k: arrays[k].astype(np.int64)[:, None] for k in ("y_train", "y_test")}
    save(tmp_path / "b", {**arrays, **columns}, "cifar100")
    first, second = (load(tmp_path / folder, "cifar100") for folder in "ab")
    assert torch.equal(first.train.labels, second.train.labels)
    assert torch.equal(first.train.images, second.train.images)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"name": "cifar10"}, ValueError, "no data set 'cifar10'; give one of .*cifar100.*mnist"),
        ({"validation": 120}, ValueError, "120; give a number of images from 0 to 119"),
        ({"validation": -1}, ValueError, "validation is -1; give a whole number"),
        ({"validation": 0.1}, TypeError, "validation is 0.1; give a whole number"),
        ({"stand_in": "yes"}, TypeError, "stand_in is 'yes'; give True or False"),
        ({"seed": 0.5}, TypeError, "seed is 0.5; give a whole number"),
    ],
)
def test_bad_arguments(tmp_path, no_data, options, error, words):
    save(tmp_path, tiny())
    with pytest.raises(error, match=words):
        load(tmp_path, **options)


def test_a_directory_that_is_not_there(tmp_path, no_data):
    with pytest.raises(FileNotFoundError, match=r"there is no directory .*nowhere"):
        load(tmp_path / "nowhere")


def test_the_order_of_places(tmp_path, no_data, monkeypatch):
    def named(seed: int) -> dict:
        return tiny(train=100 + seed, seed=seed)

    def count(**options) -> int:
        loaded = load_dataset("mnist", validation=20, **options)
        return len(loaded.train.labels) - 80

    monkeypatch.setattr(loading, "download_dataset", lambda *_: {**named(4), "split": ""})
    assert count() == 4
    save(no_data, named(3))
    assert count() == 3
    assert "cache" in str(load_dataset("mnist", validation=20).source)
    monkeypatch.setenv("VITCORE_DATA", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"no directory .*absent, which VITCORE_DATA names"):
        count()
    save(tmp_path / "env", named(2))
    monkeypatch.setenv("VITCORE_DATA", str(tmp_path / "env"))
    assert count() == 2
    save(tmp_path / "argument", named(1))
    assert count(data_dir=tmp_path / "argument") == 1
    (tmp_path / "empty").mkdir()
    assert count(data_dir=tmp_path / "empty") == 3


def no_download(*_):
    raise AssertionError("a download was tried")


def test_the_stand_in_takes_the_place_of_a_download_alone(tmp_path, no_data, monkeypatch):
    monkeypatch.setattr(loading, "download_dataset", no_download)
    monkeypatch.setattr(_standin, "generate", lambda name: {**tiny(), "split": "stand-in"})
    assert load_dataset("mnist", stand_in=True, validation=20).source.split == "stand-in"
    monkeypatch.setenv("VITCORE_STANDIN", "1")
    assert load_dataset("mnist", validation=20).source.split == "stand-in"
    with pytest.raises(AssertionError, match="a download was tried"):
        load_dataset("mnist", stand_in=False, validation=20)
    monkeypatch.setenv("VITCORE_STANDIN", "0")
    with pytest.raises(AssertionError, match="a download was tried"):
        load_dataset("mnist", validation=20)
    # Real images are preferred.
    save(tmp_path / "real", tiny())
    assert load(tmp_path / "real", stand_in=True).source.split == "unverified"


def test_a_broken_copy_in_the_cache_is_had_again(no_data, monkeypatch):
    path = save(no_data, tiny())
    path.write_bytes(path.read_bytes()[:1000])
    monkeypatch.setattr(loading, "download_dataset", lambda *_: {**tiny(), "split": ""})
    with pytest.warns(UserWarning, match="the cached copy is not used"):
        assert load_dataset("mnist", validation=20).source.origin == "download"
    save(no_data, {**tiny(), "y_train": tiny()["y_train"] + 5})
    with pytest.warns(UserWarning, match="labels from 5 to 14"):
        assert load_dataset("mnist", validation=20).source.origin == "download"


def test_the_default_cache_is_the_user_s(monkeypatch):
    monkeypatch.delenv("VITCORE_CACHE")
    assert data.cache_dir().name == "vitcore" or "vitcore" in data.cache_dir().parts
    monkeypatch.setenv("VITCORE_CACHE", "~/somewhere")
    assert data.cache_dir() == Path.home() / "somewhere"
