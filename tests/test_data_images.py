# SPDX-License-Identifier: MIT
"""One picture of any kind becomes the uint8 tensor that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data_helpers import (
    colours,
    picture,
)
from PIL import Image

from vitcore.data import (
    read_image,
)


def test_read_image_resizes_and_cuts_the_centre(tmp_path):
    # A black left half, a white right half, twice as wide as high: the centre has both.
    values = np.zeros((20, 40), np.uint8)
    values[:, 20:] = 255
    values[:, :8] = values[:, 32:] = 128  # what is cut away
    path = picture(tmp_path / "a.png", values)
    image = read_image(path, 10, 1)
    assert image.shape == (1, 10, 10)
    assert image.dtype == torch.uint8
    assert (image[..., :4] == 0).all()
    assert (image[..., 6:] == 255).all()
    assert torch.equal(read_image(path, 10, 1, invert=True), 255 - image)
    assert read_image(path, (5, 10), 3).shape == (3, 5, 10)
    same = read_image(picture(tmp_path / "b.png", colours()), (20, 30))
    assert np.array_equal(same.permute(1, 2, 0).numpy(), colours())
    assert read_image(path, 64).shape == (1, 64, 64)


def test_resizing_equals_pillow(tmp_path):
    path = picture(tmp_path / "a.png", colours(0, (60, 60)))
    theirs = np.asarray(Image.open(path).resize((17, 17), Image.Resampling.BILINEAR))
    ours = read_image(path, 17)[0].numpy()
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_kinds_of_images(tmp_path):
    grey = colours(1, (8, 8))
    deep = np.minimum(grey.astype(int) * 257 + 100, 65535).astype(np.uint16)
    assert np.array_equal(read_image(picture(tmp_path / "g.png", grey), 8)[0].numpy(), grey)
    assert np.array_equal(read_image(picture(tmp_path / "d.png", deep), 8)[0].numpy(), grey)
    colour = colours(2, (8, 8, 3))
    as_grey = np.asarray(Image.fromarray(colour).convert("L")).astype(int)
    ours = read_image(picture(tmp_path / "c.png", colour), 8, 1)[0].numpy()
    assert np.abs(ours - as_grey).max() <= 1
    # Transparent places are white; what is opaque is kept.
    clear = np.dstack([colour, np.full((8, 8), 255, np.uint8)])
    clear[:4, :, 3] = 0
    seen = read_image(picture(tmp_path / "t.png", clear), 8).permute(1, 2, 0).numpy()
    assert (seen[:4] == 255).all()
    assert np.array_equal(seen[4:], colour[4:])
    thin = np.dstack([grey, np.zeros((8, 8), np.uint8)])
    Image.fromarray(thin, "LA").save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png", 8).shape == (1, 8, 8)
    palette = picture(tmp_path / "p.gif", colour, "P")
    assert read_image(palette, 8).shape == (3, 8, 8)
    bits = picture(tmp_path / "1.png", grey > 127)
    assert set(read_image(bits, 8).unique().tolist()) == {0, 255}
    floats = tmp_path / "f.tif"
    Image.fromarray((grey / 255).astype(np.float32)).save(floats)
    assert np.array_equal(read_image(floats, 8)[0].numpy(), grey)
    wide = tmp_path / "i.tif"
    Image.fromarray(grey.astype(np.int32) * 1000).save(wide)
    with pytest.raises(ValueError, match=rf"{wide} has more than 16 bits"):
        read_image(wide, 8)


def test_the_camera_s_orientation_is_followed(tmp_path):
    image = Image.fromarray(colours(0, (8, 16, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png", (16, 8)).shape == (3, 16, 8)
    turned = np.rot90(colours(0, (8, 16, 3)), -1)
    assert np.array_equal(read_image(tmp_path / "a.png", (16, 8)).permute(1, 2, 0), turned)


def test_kinds_of_arrays(tmp_path):
    grey = colours(1, (8, 8))
    for name, values in (
        ("u8", grey),
        ("u16", np.minimum(grey.astype(int) * 257 + 100, 65535).astype(np.uint16)),
        ("f32", (grey / 255).astype(np.float32)),
    ):
        path = picture(tmp_path / f"{name}.npy", values)
        assert np.array_equal(read_image(path, 8)[0].numpy(), grey), name
    for name, values, words in (
        ("neg", grey / 255 - 1, "outside"),
        ("int", grey.astype(np.int64), "type int64"),
        ("flat", grey[0], r"shape \(8,\), but must be"),
        ("obj", np.array([{}]), "cannot be read as a .npy array"),
    ):
        path = tmp_path / f"{name}.npy"
        np.save(path, values, allow_pickle=True)
        with pytest.raises(ValueError, match=words) as caught:
            read_image(path, 8)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_image(tmp_path / "nothing.png", 8)
