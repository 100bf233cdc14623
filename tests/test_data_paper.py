# SPDX-License-Identifier: MIT
"""A digit photographed on paper becomes one as MNIST's makers would have cut it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from data_helpers import real
from PIL import Image, ImageFilter

from vitcore.data import read_digit, read_image
from vitcore.data.paper import _paper
from vitcore.training import load_weights, predict

WEIGHTS = Path(__file__).parent.parent / "runs/mnist-seed0/model.safetensors"
HEIGHT, WIDTH = 240, 320


def photograph(
    digit: np.ndarray, rng: np.random.Generator, *, dark: bool, noise: float = 6
) -> Image.Image:
    """A digit (H, W) uint8, white on black, as ink on unevenly lit, grainy, grey paper."""
    side = int(rng.integers(70, 150))
    drawn = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    top, left = rng.integers(0, HEIGHT - side), rng.integers(0, WIDTH - side)
    page = np.zeros((HEIGHT, WIDTH))
    page[top : top + side, left : left + side] = np.asarray(drawn) / 255
    y, x = np.mgrid[-0.5 : 0.5 : HEIGHT * 1j, -0.5 : 0.5 : WIDTH * 1j]
    right, down = rng.uniform(-0.3, 0.3, 2)
    light = 1 + right * x + down * y - rng.uniform(0, 0.4) * (x * x + y * y)
    paper, ink = (rng.uniform(140, 200), rng.uniform(30, 80)) if dark else (
        rng.uniform(40, 90), rng.uniform(150, 220),
    )  # fmt: skip
    values = (paper + (ink - paper) * page) * light + rng.normal(0, noise, page.shape)
    picture = Image.fromarray(values.clip(0, 255).round().astype(np.uint8))
    return picture.filter(ImageFilter.GaussianBlur(0.8))


def bar(dark: bool = True, height: int = 120, width: int = 30) -> Image.Image:
    """A thick stroke, on the left of the picture."""
    drawn = np.zeros((28 * 6, 28 * 6), np.uint8)
    drawn[24 : 24 + height, 20 : 20 + width] = 255
    rng = np.random.default_rng(0)
    return photograph(drawn, rng, dark=dark)


@pytest.mark.parametrize("dark", [True, False])
def test_what_mnist_s_makers_did(tmp_path, dark):
    bar(dark).save(tmp_path / "a.png")
    image, note = read_digit(tmp_path / "a.png")
    assert image.shape == (1, 28, 28)
    assert image.dtype == torch.uint8
    ink = image[0].float()
    rows, cols = ((ink > 100).any(axis).nonzero().flatten() for axis in (1, 0))
    assert rows[-1] - rows[0] + 1 in (19, 20)
    assert 4 <= cols[-1] - cols[0] + 1 <= 7  # a quarter as wide as high
    places = torch.arange(28) + 0.5
    assert (ink.sum(1) @ places / ink.sum()) == pytest.approx(14, abs=0.51)
    assert (ink.sum(0) @ places / ink.sum()) == pytest.approx(14, abs=0.51)
    assert ink.max() == 255
    assert (ink[:3] == 0).all()
    assert (ink[:, :9] == 0).all()
    assert ("dark ink" in note) == ("inverted" in note) == dark
    assert ("light ink" in note) == (not dark)
    assert "scaled to 20 x" in note
    assert "\n" not in note


def test_size_channels_and_a_mass_that_is_not_in_the_middle(tmp_path):
    drawn = np.zeros((168, 168), np.uint8)
    drawn[10:150, 30:50] = drawn[110:150, 30:140] = 255  # an L: its mass is low and to the left
    photograph(drawn, np.random.default_rng(1), dark=True).save(tmp_path / "a.jpg")
    image = read_digit(tmp_path / "a.jpg", 42, 3).image
    assert image.shape == (3, 42, 42)
    assert torch.equal(image[0], image[2])
    ink = image[0].float()
    rows, cols = ((ink > 100).any(axis).nonzero().flatten() for axis in (1, 0))
    assert rows[-1] - rows[0] + 1 in (29, 30, 31)
    assert (rows[0] + rows[-1]) / 2 < 20
    assert (cols[0] + cols[-1]) / 2 > 21
    places = torch.arange(42) + 0.5
    assert (ink.sum(1) @ places / ink.sum()) == pytest.approx(21, abs=0.51)
    assert (ink.sum(0) @ places / ink.sum()) == pytest.approx(21, abs=0.51)


@pytest.mark.parametrize("noise", [0, 6, 20])
def test_paper_without_ink_is_refused(tmp_path, noise):
    empty = np.zeros((28, 28), np.uint8)
    photograph(empty, np.random.default_rng(0), dark=True, noise=noise).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"there is no ink on .*a\.png: photograph one digit"):
        read_digit(tmp_path / "a.png")


def test_bad_arguments(tmp_path):
    bar().save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="no file"):
        read_digit(tmp_path / "b.png")
    for options in ({"image_size": (28, 28)}, {"image_size": 0}, {"channels": 2}):
        with pytest.raises((TypeError, ValueError), match=r"image_size is|channels is"):
            read_digit(tmp_path / "a.png", **options)
    with pytest.raises(TypeError, match="path is None; give the path"):
        read_digit(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("dark", [True, False])
def test_real_digits_on_grey_paper_are_read(tmp_path, dark):
    """At least nine in ten, where resizing and inverting alone give about one in twenty."""
    dataset = real("mnist")
    loaded = load_weights(WEIGHTS)
    rng = np.random.default_rng(int(dark))
    chosen = rng.permutation(len(dataset.test.labels))[:60]
    simple, careful = [], []
    for number, drawn in enumerate(dataset.test.images[chosen, 0].numpy()):
        path = tmp_path / f"{number}.jpg"
        photograph(drawn, rng, dark=dark).save(path, quality=85)
        image = read_image(path, 28, 1)
        simple.append(255 - image if dark else image)
        careful.append(read_digit(path).image)

    def accuracy(images: list[torch.Tensor]) -> float:
        logits = predict(loaded.model, loaded.normalise(torch.stack(images)))
        return float((logits.argmax(1) == dataset.test.labels[chosen]).float().mean())

    assert accuracy(careful) >= 0.9
    assert accuracy(simple) < 0.3


def test_digits_that_are_mnist_s_already_stay_readable(tmp_path):
    dataset = real("mnist")
    loaded = load_weights(WEIGHTS)
    images = []
    for number, image in enumerate(dataset.test.images[:100, 0].numpy()):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
        images.append(read_digit(tmp_path / f"{number}.png").image)
    logits = predict(loaded.model, loaded.normalise(torch.stack(images)))
    assert (logits.argmax(1) == dataset.test.labels[:100]).float().mean() > 0.95


def test_the_paper_s_light_is_found_under_ink_and_a_slope():
    """One fit leans towards the ink; only the pixels that stay near the surface count."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 60), torch.linspace(-1, 1, 80), indexing="ij")
    paper = 150 + 50 * x - 20 * y
    page = paper.clone()
    page[15:45, 45:60] -= 100
    assert (_paper(page) - paper).abs().max() < 1
