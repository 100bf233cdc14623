# SPDX-License-Identifier: MIT
"""The pictures of chapter 8: what they show, that they can be read, and what they refuse."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from picture_helpers import check_readable, texts_of

from vitbook import pictures


def draw(name: str, **changes: Any) -> Any:
    """One of the pictures, of numbers drawn at random."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 8, 12, generator=generator)
    images, maps = image.expand(5, 1, 8, 12), torch.rand(5, 2, 3, generator=generator)
    given: dict[str, dict[str, Any]] = {
        "plot_maps": {"images": images, "maps": maps, "titles": [f"says {i}" for i in range(5)]},
        "plot_head_maps": {"image": image, "maps": maps[:4].view(2, 2, 2, 3)},
        "plot_distance": {"distance": 9 * maps[:4].view(4, 6), "reference": 5.0},
        "plot_grids": {"grids": maps, "marked": [0, 1, 2, 3, 5]},
        "plot_filters": {"filters": torch.randn(9, 1, 4, 4), "shares": torch.full((9,), 0.1)},
    }
    return getattr(pictures, name)(**{**given[name], "title": "A title", **changes})


NAMES = ["plot_maps", "plot_head_maps", "plot_distance", "plot_grids", "plot_filters"]


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_can_be_read(name: str) -> None:
    check_readable(draw(name))


def heat_of(fig: Any, number: int) -> np.ndarray:
    """What lies over the image of one panel, (rows, columns, RGBA)."""
    return np.asarray(fig.axes[number].images[1].get_array())


def test_a_map_is_drawn_from_its_least_to_its_greatest_value() -> None:
    maps = torch.tensor([[[0.5, 0.7, 0.6]], [[-0.2, 0.1, 0.0]]])
    fig = pictures.plot_maps(torch.zeros(2, 1, 4, 12), maps)
    plain, signed = heat_of(fig, 0), heat_of(fig, 1)
    np.testing.assert_allclose(plain[0, :, 3], [0, 0.85, 0.425], atol=1e-6)
    np.testing.assert_allclose(signed[0, :, 3], [0.85, 0.425, 0], atol=1e-6)
    assert signed[0, 0, 2] > signed[0, 0, 0]  # below zero blue
    assert signed[0, 1, 0] > signed[0, 1, 2]  # above zero red


def test_one_image_serves_for_all_maps_and_heads_stand_in_their_rows() -> None:
    assert len(pictures.plot_maps(torch.zeros(1, 4, 4), torch.rand(3, 2, 2)).axes) == 3
    fig = draw("plot_head_maps")
    words = [text for text, _ in texts_of(fig)]
    assert {"head 0", "head 1", "layer 0", "layer 1"} <= set(words)


def test_filters_of_colour_images_stay_in_range() -> None:
    fig: Any = draw("plot_filters", filters=5 * torch.randn(9, 3, 4, 4))
    shown = np.asarray(fig.axes[0].images[0].get_array())
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert "10 %" in [text for text, _ in texts_of(fig)]


def test_grids_frame_the_marked_patch() -> None:
    fig: Any = draw("plot_grids")
    assert fig.axes[4].patches[0].get_xy() == (1.5, 0.5)  # patch 5 of 2 rows by 3


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("plot_maps", {"maps": torch.rand(4, 2, 3)}, "4 maps for 5"),
        ("plot_maps", {"titles": ["one"]}, "1 entries"),
        ("plot_maps", {"images": torch.rand(5, 2, 8, 12)}, "2 channels"),
        ("plot_head_maps", {"maps": torch.rand(2, 2, 3)}, "4 dimensions"),
        ("plot_distance", {"distance": torch.rand(3)}, "2 dimensions"),
        ("plot_grids", {"marked": [0, 1, 2, 3, 6]}, "0 to 5"),
        ("plot_grids", {"titles": ["one"]}, "1 entries"),
        ("plot_grids", {"grids": torch.rand(0, 2, 3)}, "no value"),
        ("plot_filters", {"shares": torch.rand(3)}, "1 or 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(name: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        draw(name, **changes)


def test_frames_stand_below_one_another_until_a_script_runs() -> None:
    figures = [draw("plot_distance"), draw("plot_distance", reference=None)]
    text = pictures.frames_html(figures, ["after 0 <b>", "after 9"], ["first", "second"])
    assert re.findall(r'<img [^>]*alt="(\w+)"', text) == ["first", "second"]
    assert re.search("<label [^>]*hidden>", text)  # GitHub drops the script, and with it the slider
    assert 'type="range" min="0" max="1" value="1"' in text
    assert "after 0 &lt;b&gt;" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text)  # nothing from elsewhere
    assert text == pictures.frames_html(figures, ["after 0 <b>", "after 9"], ["first", "second"])
    with pytest.raises(ValueError, match="as many of each"):
        pictures.frames_html(figures, ["one"], ["first", "second"])
