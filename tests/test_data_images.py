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
    with pytest.raises(ValueError, match="pixels are floating point"):
        read_image(floats, 8)
    wide = tmp_path / "i.tif"
    Image.fromarray(grey.astype(np.int32) * 1000).save(wide)
    with pytest.raises(ValueError, match=rf"{wide} cannot be read .* more than 16 bits"):
        read_image(wide, 8)


def test_the_camera_s_orientation_is_followed(tmp_path):
    image = Image.fromarray(colours(0, (8, 16, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    image.save(tmp_path / "a.png", exif=exif)
    assert read_image(tmp_path / "a.png", (16, 8)).shape == (3, 16, 8)
    turned = np.rot90(colours(0, (8, 16, 3)), -1)
    assert np.array_equal(read_image(tmp_path / "a.png", (16, 8)).permute(1, 2, 0), turned)


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 2), (3, 5_000)])
def test_a_long_thin_picture_does_not_ask_for_gigabytes(tmp_path, shape, monkeypatch):
    """To cover 64 pixels by the short side, all of it would be resized to 64 x 3,840,000."""
    made = []
    original = torch.nn.functional.interpolate

    def watch(values, size, **options):
        made.append(size)
        return original(values, size, **options)

    monkeypatch.setattr(torch.nn.functional, "interpolate", watch)
    values = np.full(shape, 7, np.uint8)
    middle = (slice(None), slice(shape[1] // 2 - 1, shape[1] // 2 + 1))
    values[middle if shape[0] < shape[1] else middle[::-1]] = 200
    if shape[0] > shape[1]:
        values[:] = 7
        values[shape[0] // 2 - 1 : shape[0] // 2 + 1] = 200
    image = read_image(picture(tmp_path / "a.png", values), 64)
    assert image.shape == (1, 64, 64)
    assert image[0, 32, 32] > 100  # the centre is the centre still
    (size,) = made
    assert size[0] * size[1] < 64 * 64 * 20


def test_a_picture_of_usual_shape_is_resized_whole(tmp_path):
    """Six times as wide as high: nothing is cut away before it is resized."""
    values = colours(3, (20, 120))
    image = read_image(picture(tmp_path / "a.png", values), 10)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(values)[None, None].float(), (10, 60), mode="bilinear", antialias=True
    )
    assert torch.equal(image[0], theirs[0, 0, :, 25:35].round().to(torch.uint8))


def test_rounding_is_to_the_nearest(tmp_path):
    deep = np.array([[0, 128, 129, 257 * 9 + 128, 257 * 9 + 129, 65535]], np.uint16)
    image = read_image(picture(tmp_path / "a.png", np.repeat(deep, 6, 0)), 6)
    assert image[0, 0].tolist() == [0, 0, 1, 9, 10, 255]
    # Two pixels become one by their mean: 0.6 and 0.4 of a step are rounded, not cut off.
    pair = np.repeat(np.array([[10, 11, 10, 11]], np.uint8), 4, 0)
    pair[1::2] = np.array([11, 11, 10, 10])
    exact = torch.nn.functional.interpolate(
        torch.from_numpy(pair)[None, None].double(), (2, 2), mode="bilinear", antialias=True
    )
    small = read_image(picture(tmp_path / "b.png", pair), 2)
    assert torch.equal(small[0].double(), exact[0, 0].round())
    assert not torch.equal(exact[0, 0].round(), exact[0, 0].floor())


def test_fine_patterns_become_grey_and_not_stripes(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    image = read_image(picture(tmp_path / "a.png", stripes), 16)
    assert (image.float() - 127.5).abs().max() < 16


def test_a_transparent_colour_of_a_palette_is_white(tmp_path):
    shown = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8), "P")
    shown.putpalette([255, 0, 0, 0, 0, 255])
    shown.save(tmp_path / "a.png", transparency=0)
    image = read_image(tmp_path / "a.png", 2)
    assert image[:, 0, 0].tolist() == [255, 255, 255]
    assert image[:, 0, 1].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"path": 3}, "path is 3; give the path"),
        ({"image_size": None}, "image_size is None"),
        ({"channels": 0}, "channels is 0"),
        ({"channels": 2}, "channels is 2; give 1, 3 or None"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, options, words):
    path = picture(tmp_path / "a.png", colours())
    with pytest.raises((TypeError, ValueError), match=words):
        read_image(**{"path": path, "image_size": 8, **options})
