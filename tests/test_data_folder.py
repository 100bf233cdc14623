# SPDX-License-Identifier: MIT
"""A folder of one's own images becomes a data set, or there is one clear error."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from data_helpers import (
    as_set,
    colours,
    picture,
)
from PIL import Image

from vitcore.data import (
    Batches,
    Split,
    load_folder,
    read_image,
)


@pytest.fixture
def folder(tmp_path):
    """Ten colour pictures of cats, twenty of dogs, among things that are no images."""
    for name, count in (("cat", 10), ("dog", 20)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png", colours(i + 100 * count))
        (tmp_path / name / ".hidden.png").write_text("not an image")
    (tmp_path / ".git").mkdir()
    (tmp_path / "readme.txt").write_text("x")
    return tmp_path


def test_load_folder(folder):
    loaded = load_folder(folder, image_size=16, validation=0.2, test=3)
    assert [len(p.labels) for p in (loaded.train, loaded.val, loaded.test)] == [21, 6, 3]
    assert loaded.classes == ["cat", "dog"]
    assert torch.bincount(loaded.val.labels).tolist() == [2, 4]
    assert torch.bincount(loaded.test.labels).tolist() == [1, 2]
    assert loaded.train.images.shape[1:] == (3, 16, 16)
    assert loaded.train.images.dtype == torch.uint8
    assert loaded.source.split == "own"
    assert str(folder) not in str(loaded.source)
    whole = as_set(loaded.train) + as_set(loaded.val) + as_set(loaded.test)
    expected = Counter(
        (read_image(path, 16).numpy().tobytes(), label)
        for label, name in enumerate(("cat", "dog"))
        for path in (folder / name).glob("[0-9]*.png")
    )
    assert whole == expected
    again = load_folder(folder, image_size=16, validation=0.2, test=3)
    assert torch.equal(again.train.images, loaded.train.images)
    batches = Batches(loaded.train, 8, mean=loaded.mean, std=loaded.std)
    assert sum(len(labels) for _, labels in batches) == 21


def test_folder_channels(tmp_path):
    for name in ("a", "b"):
        for i in range(4):
            picture(tmp_path / name / f"{i}.png", colours(i, (9, 9)))
    options = {"image_size": 8, "validation": 0, "test": 2}
    assert load_folder(tmp_path, **options).in_channels == 1
    assert load_folder(tmp_path, channels=3, **options).in_channels == 3
    picture(tmp_path / "b" / "colour.png", colours())
    assert load_folder(tmp_path, **options).in_channels == 3
    assert load_folder(tmp_path, channels=1, **options).in_channels == 1


def test_bad_folders(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("bad")
    options = {"image_size": 16}
    with pytest.raises(FileNotFoundError, match=r"no directory .*nowhere"):
        load_folder(root / "nowhere", **options)
    with pytest.raises(ValueError, match="has 0 sub-folders: make one for each class"):
        load_folder(root, **options)
    picture(root / "train" / "a.png", colours())
    with pytest.raises(ValueError, match="has 1 sub-folder: make one"):
        load_folder(root, **options)
    (folder / "emu").mkdir()
    with pytest.raises(ValueError, match="emu holds no images"):
        load_folder(folder, **options)
    broken_file = folder / "emu" / "broken.png"
    broken_file.write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    with pytest.raises(ValueError, match=rf"{broken_file} cannot be read as an image"):
        load_folder(folder, **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_size": 0}, "image_size is"),
        ({"image_size": (16, 16, 3)}, "image_size is"),
        ({"channels": 0}, "channels is 0; give 1, 3 or None"),
        ({"validation": 1.5}, "validation is 1.5; give a fraction"),
        ({"test": -0.1}, "test is -0.1; give a fraction"),
        ({"test": 30}, "a number of images below 30"),
        ({"test": 20, "validation": 9}, "no class would keep one"),
    ],
)
def test_folder_bad_arguments(folder, options, words):
    with pytest.raises((TypeError, ValueError), match=words):
        load_folder(folder, **{"image_size": 16, **options})


def test_every_class_keeps_an_image_for_training(tmp_path):
    for name, count in (("a", 1), ("b", 2), ("c", 30)):
        for i in range(count):
            picture(tmp_path / name / f"{i}.png", colours(i + 50 * count))
    loaded = load_folder(tmp_path, image_size=8, validation=10, test=20)
    assert sorted(loaded.train.labels.tolist()) == [0, 1, 2]


def test_what_is_passed_over_is_counted_and_named(folder):
    for name in ("a.HEIC", "b.heic", "c.heic"):
        (folder / "cat" / name).write_bytes(b"x")
    (folder / "dog" / "README").write_text("x")
    picture(folder / "dog" / "more" / "1.png", colours())
    with pytest.warns(UserWarning, match="cannot be read and are not used") as caught:
        loaded = load_folder(folder, image_size=16)
    (warning,) = caught
    text = str(warning.message)
    for words in (
        "3 x .heic (such as cat/a.HEIC)",
        "1 x folder (such as dog/more)",
        "1 x file without ending (such as dog/README)",
        "convert pictures to .png or .jpg",
    ):
        assert words in text
    assert warning.filename == __file__
    assert len(loaded.train.labels) + len(loaded.val.labels) + len(loaded.test.labels) == 30
    (folder / "emu").mkdir()
    (folder / "emu" / "a.heic").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"emu holds no images but 1 x \.heic"):
        load_folder(folder, image_size=16)


def test_jfif_is_read(folder):
    Image.fromarray(colours(7)).save(folder / "dog" / "new.jfif", format="jpeg")
    loaded = load_folder(folder, image_size=16, validation=0, test=0)
    assert torch.bincount(loaded.train.labels).tolist() == [10, 21]


def test_what_is_held_out_depends_on_the_image_and_not_on_its_label(folder):
    """A class more moves the labels of the others; their images stay where they were."""
    options: dict[str, Any] = {"image_size": 16, "validation": 0.2, "test": 0}
    before = load_folder(folder, **options)
    for i in range(10):
        picture(folder / "ant" / f"{i}.png", colours(i + 9000))
    after = load_folder(folder, **options)
    assert after.classes == ["ant", "cat", "dog"]
    kept = Split(after.val.images, after.val.labels - 1)
    assert as_set(before.val) == as_set(Split(*(part[kept.labels >= 0] for part in kept)))


@pytest.mark.parametrize(
    "changes",
    [{"path": None}, {"path": 3}, {"path": "a\0b"}, {"seed": None}, {"channels": "3"},
     {"test": "a"},
     {"image_size": None}, {"validation": None}, {"test": float("nan")}],
)  # fmt: skip
def test_wrong_types_are_named(folder, changes):
    with pytest.raises((TypeError, ValueError), match=f"^{next(iter(changes))} is") as caught:
        load_folder(**{"path": folder, "image_size": 16, **changes})
    assert "\n" not in str(caught.value)
