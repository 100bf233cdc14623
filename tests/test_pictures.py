# SPDX-License-Identifier: MIT
"""Pictures of data and results: what they show, that they can be read, and what they refuse."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.rcsetup import cycler
from picture_helpers import check_readable, texts_of, unreadable
from PIL import Image

from vitbook import pictures
from vitbook.pictures import motif
from vitbook.pictures.look import DPI, ON_DARK, tint
from vitbook.pictures.output import Picture


@pytest.fixture
def grey() -> torch.Tensor:
    return (
        torch.arange(8 * 28 * 28, dtype=torch.int64)
        .remainder(256)
        .to(torch.uint8)
        .view(8, 1, 28, 28)
    )


@pytest.fixture
def colour() -> torch.Tensor:
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def words(fig: Figure) -> list[str]:
    return [text for text, _ in texts_of(fig)]


def drawing(fig: Figure) -> Any:
    """The figure's first axes; what stands in them has no one type."""
    return fig.axes[0]


def visible_axes(fig: Figure) -> list[Any]:
    return [ax for ax in fig.axes if ax.get_visible()]


HISTORY = [
    {
        "epoch": i + 1, "train_loss": 1.9 / (i + 1), "val_loss": 2.0 / (i + 1),
        "train_accuracy": 1 - 0.1 / (i + 1), "val_accuracy": 1 - 0.2 / (i + 1), "lr": 1e-3,
    }
    for i in range(12)
]  # fmt: skip


# --- the style and the way to the page --------------------------------------------------------


def test_the_style_holds_inside_and_leaves_nothing_behind() -> None:
    before = matplotlib.rcParams["font.size"]
    with pictures.style():
        assert matplotlib.rcParams["font.size"] == pictures.FONT_SIZE
        assert matplotlib.rcParams["savefig.facecolor"] == "white"
    assert matplotlib.rcParams["font.size"] == before


def test_use_style_stays() -> None:
    with matplotlib.rc_context():
        pictures.use_style()
        assert matplotlib.rcParams["font.size"] == pictures.FONT_SIZE
        assert matplotlib.rcParams["axes.prop_cycle"] == cycler(color=list(pictures.CYCLE))


def test_colours_of_lines_can_be_told_from_white_and_from_each_other() -> None:
    assert len(set(pictures.CYCLE)) == len(pictures.CYCLE)
    assert pictures.PALETTE["yellow"] not in pictures.CYCLE
    assert tint("#000000", 0) == (1, 1, 1)
    assert tint("#FF0000", 1) == (1, 0, 0)


def test_the_same_figure_gives_the_same_bytes() -> None:
    def draw() -> bytes:
        return pictures.to_png(pictures.plot_history(HISTORY, title="A run"))

    assert draw() == draw()


def test_html_carries_the_alternative_text_and_fits_a_phone() -> None:
    text = pictures.to_html(pictures.plot_history(HISTORY), 'loss < 1, "validation" & training')
    assert 'alt="loss &lt; 1, &quot;validation&quot; &amp; training"' in text
    assert "max-width: 100%" in text
    assert text.startswith('<img src="data:image/png;base64,')


def test_a_figure_shows_itself_with_its_title() -> None:
    title = "A run with a long title that is broken into two lines"
    named: Any = pictures.plot_history(HISTORY, title=title)
    assert f'alt="{title}"' in named._repr_html_()
    nameless: Any = pictures.plot_history(HISTORY)
    assert 'alt="figure"' in nameless._repr_html_()


def test_show_refuses_what_has_no_text() -> None:
    fig = pictures.plot_history(HISTORY)
    with pytest.raises(ValueError, match="alternative text"):
        pictures.show(fig, alt=" ")
    with pytest.raises(TypeError, match="got NoneType"):
        pictures.show(None, alt="nothing")  # type: ignore[arg-type]


def test_show_is_quiet_outside_a_notebook(capsys: pytest.CaptureFixture[str]) -> None:
    pictures.show(pictures.plot_history(HISTORY), alt="curves")
    assert capsys.readouterr().out == ""


def test_show_in_a_notebook_gives_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython
    import IPython.display
    from matplotlib import pyplot

    shown: list[dict[str, str]] = []
    fig = pyplot.figure()
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    pictures.show(fig, alt="an empty\n  sheet")
    assert len(shown) == 1
    assert shown[0]["text/plain"] == "an empty sheet"
    assert 'alt="an empty sheet"' in shown[0]["text/html"]
    assert shown[0]["image/svg+xml"].startswith("<svg ")
    # Closed, so that the notebook does not show it a second time.
    assert not pyplot.fignum_exists(fig.number)


def test_an_svg_holds_the_figure_and_nothing_of_its_making() -> None:
    """Strict XML, no date, the same bytes each time, pixels as they are, letters as paths."""
    draw = partial(pictures.plot_heatmap, np.eye(9), annotate=False, title="nine & nine")
    text = pictures.to_svg(draw())
    root = ElementTree.fromstring(text)
    assert text == pictures.to_svg(draw())
    assert not re.search(r"<text\b|rdf:|Matplotlib|<!--|\n", text)
    width, height = (float(root.attrib[name].removesuffix("pt")) for name in ("width", "height"))
    fig = draw()
    assert (width, height) == pytest.approx([72 * side for side in fig.get_size_inches()], abs=1)
    sizes = [
        Image.open(io.BytesIO(base64.b64decode(data))).size
        for data in re.findall(r'xlink:href="data:image/png;base64,\s*([^"]+)"', text)
    ]
    assert (9, 9) in sizes
    assert len(sizes) == 2, "the colour bar is one image"


def test_a_long_svg_stays_out_of_the_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython
    import IPython.display

    shown: list[dict[str, str]] = []
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", lambda data, raw: shown.append(data))
    noise = np.random.default_rng(0).integers(0, 256, (1, 3, 200, 200), dtype=np.uint8)
    pictures.show(pictures.show_images(noise), alt="noise")
    assert set(shown[0]) == {"text/html", "text/plain"}


def test_the_functions_leave_pyplot_alone() -> None:
    code = (
        "import sys, numpy as np; from vitbook import pictures;"
        "pictures.show(pictures.plot_heatmap(np.eye(3)), alt='x'); pictures.block_diagram();"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_judge_of_readability_sees_what_is_wrong() -> None:
    with pictures.style():
        fig = Picture(figsize=(2, 1))
        fig.text(0.9, 0.5, "cut off at the edge")
        fig.text(0.1, 0.2, "on another")
        fig.text(0.12, 0.22, "below")
    problems = unreadable(fig)
    assert any("leaves the figure" in p for p in problems)
    assert any("lies on" in p for p in problems)


# --- every function: readable -----------------------------------------------------------------


def weights(*shape: int) -> np.ndarray:
    raw = np.random.default_rng(0).exponential(size=shape)
    return raw / raw.sum(-1, keepdims=True)


def drawings() -> dict[str, Callable[[], Figure]]:
    rng = np.random.default_rng(0)
    digits = torch.from_numpy(rng.integers(0, 256, (16, 1, 28, 28), dtype=np.uint8))
    photos = torch.from_numpy(rng.random((12, 3, 32, 32)))
    names = ["aquarium_fish", "apple", "sweet_pepper", "willow_tree"]
    counts = rng.integers(0, 9, (10, 10)) + np.diag(rng.integers(900, 1135, 10))
    seeds = {"the whole model": [97.1, 97.3], "no residual around attention": [80, 82, 79.0]}
    title = "A title that is long enough to need a second line (stand-in)"
    return {
        "digits": partial(pictures.show_images, digits, list(range(10)) + [0] * 6, title=title),
        "photos": partial(pictures.show_images, photos, torch.arange(12) % 4, classes=names),
        "one": partial(pictures.show_images, digits[:1]),
        "mistakes": partial(
            pictures.plot_mistakes,
            digits,
            [1] * 16,
            [7] * 16,
            torch.full((16,), 0.993),
            title=title,
        ),
        "mistaken photos": partial(
            pictures.plot_mistakes, photos[:4], range(4), [1, 2, 3, 0], classes=names
        ),
        "history": partial(pictures.plot_history, HISTORY, title=title),
        "short history": partial(pictures.plot_history, [{"train_loss": 1.0}]),
        "confusion": partial(
            pictures.plot_confusion, counts, [str(i) for i in range(10)], title=title
        ),
        "confusion with words": partial(pictures.plot_confusion, counts[:4, :4], names),
        "large confusion": partial(pictures.plot_confusion, rng.poisson(1, (100, 100))),
        "lines": partial(
            pictures.plot_lines,
            [16, 64, 256, 1024],
            {"attention": [1, 9, 130, 2000], "MLP": [1, 4, 16, 66]},
            xlabel="tokens N",
            ylabel="milliseconds",
            log=True,
            fit="power",
            title=title,
        ),
        "lines with seeds": partial(
            pictures.plot_lines,
            range(13),
            {"pre-norm": rng.random((5, 13)), "post-norm": rng.random((5, 13))},
            xlabel="layer",
            ylabel="norm of the gradient",
            log="y",
            reference={"ln 10": 2.3},
        ),
        "points": partial(
            pictures.plot_lines,
            range(5),
            {"a line with a rather long name": rng.random((3, 5))},
            xlabel="x",
            ylabel="y",
            spread="points",
            fit=2,
        ),
        "bars": partial(
            pictures.plot_bars,
            seeds,
            xlabel="validation accuracy (%)",
            title=title,
            highlight="the whole model",
        ),
        "dots": partial(
            pictures.plot_bars,
            seeds,
            xlabel="validation accuracy (%)",
            lower=70,
            reference={"published": 90},
        ),
        "heatmap": partial(
            pictures.plot_heatmap,
            weights(4, 4),
            row_labels=["cls", *"012"],
            column_labels=["cls", *"012"],
            xlabel="key",
            ylabel="query",
            title=title,
        ),
        "heads": partial(
            pictures.plot_heatmap,
            weights(4, 17, 17),
            titles=[f"head {i}" for i in range(4)],
            xlabel="key",
            ylabel="query",
            title=title,
        ),
        "three heads": partial(pictures.plot_heatmap, weights(3, 5, 5)),
        "signed": partial(pictures.plot_heatmap, rng.normal(size=(16, 64)), diverging=True),
        "tall": partial(
            pictures.plot_heatmap,
            rng.random((20, 20)),
            row_labels=[f"a group of classes {i}" for i in range(20)],
            column_labels=[i if i % 2 else "" for i in range(20)],
            tall=True,
            annotate=False,
            xlabel="predicted group",
        ),
        "ladder": partial(
            pictures.plot_ladder,
            {
                "the bare model": 31.2,
                "AdamW with warmup, cosine and clipping": 36.5,
                "mixup and CutMix": 36.1,
                "a stem": None,
                "a moving average": 33.0,
                "twice as long": 48.9,
            },
            xlabel="test accuracy (%)",
            noise=2,
            reference={"a ResNet at the same budget": 43.0},
            title=title,
        ),
        "ladder of one": partial(pictures.plot_ladder, {"a": None, "b": 1.0}, xlabel="x"),
        "shares": partial(
            pictures.plot_shares,
            {f"a group of classes {i}": rng.dirichlet((3, 1, 1)) for i in range(20)},
            ["right", "wrong, same group", "wrong, another group"],
            xlabel="share",
            title=title,
        ),
        "shares of wholes": partial(
            pictures.plot_shares,
            {"plain": [1, 2, 3.5], "with a stem": [10, 2, 30]},
            ["patches", "attention", "MLP"],
            xlabel="millions of multiply-adds",
            number_format="{:.1f}",
        ),
        "reliability": partial(
            pictures.plot_reliability, rng.random(500), rng.random(500) < 0.5, title=title
        ),
        "groups": partial(
            pictures.show_groups,
            np.stack([motif(32)] * 20),
            np.arange(20) % 4,
            ["fish", "large_man-made_outdoor_things", "insects", "fruit_and_vegetables"],
            title=title,
        ),
        "patches": partial(pictures.show_patches, digits[0], 7, highlight=[5], title=title),
        "many patches": partial(pictures.show_patches, photos[0], 2),
        "tokens": partial(
            pictures.show_token_sequence, digits[0], 7, class_token=True, highlight=[3]
        ),
        "many tokens": partial(
            pictures.show_token_sequence, photos[0], 4, order=rng.permutation(64)
        ),
        "positions": partial(
            pictures.plot_similarity, rng.normal(size=(1, 65, 8)), (8, 8), prefix_tokens=1
        ),
        "alike positions": partial(pictures.plot_similarity, 1 + 0.1 * rng.random((15, 8)), (3, 5)),
        "map": partial(
            pictures.plot_attention_map, photos[0], weights(17), prefix_tokens=1, query=5
        ),
        "maps": partial(
            pictures.plot_attention_map,
            photos[0],
            weights(6, 16),
            titles=[f"head {i}" for i in range(6)],
            title=title,
        ),
        "arrows": partial(
            pictures.plot_attention_arrows, digits[0], weights(16), query=6, title=title
        ),
    }


PICTURES = drawings()


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_can_be_read(name: str) -> None:
    fig = PICTURES[name]()
    if name in ("photos", "one", "digits", "mistakes", "mistaken photos"):
        # Noise is larger than any photograph; the size is judged on a drawn picture below.
        assert unreadable(fig) == []
    else:
        check_readable(fig)


def test_photographs_stay_small() -> None:
    images = np.stack([motif(32)] * 12)
    assert len(pictures.to_png(pictures.show_images(images))) < 80_000


# --- what they show ---------------------------------------------------------------------------


def test_show_images_gives_each_image_its_label(grey: torch.Tensor) -> None:
    fig = pictures.show_images(grey, torch.arange(8), columns=3, title="eight")
    assert [w for w in words(fig) if w.isdigit()] == [str(i) for i in range(8)]
    shown = visible_axes(fig)
    assert len(shown) == 8
    image = shown[3].images[0].get_array()
    np.testing.assert_allclose(np.asarray(image) * 255, grey[3, 0].numpy(), atol=1e-9)


def test_show_images_takes_floats_and_half_precision(colour: torch.Tensor) -> None:
    for images in (colour, colour.bfloat16(), colour.numpy(), colour.requires_grad_(True)):
        assert len(visible_axes(pictures.show_images(images))) == 6


def test_mistakes_say_what_was_true_and_what_was_said(grey: torch.Tensor) -> None:
    fig = pictures.plot_mistakes(grey[:1], [0], [1], [0.876], classes=["cat", "big_dog"])
    assert "true: cat\nsaid: big dog\n88 % sure" in words(fig)


def test_history_draws_both_parts_in_per_cent() -> None:
    fig = pictures.plot_history(HISTORY)
    loss, accuracy = visible_axes(fig)
    assert [line.get_label() for line in loss.lines] == ["training", "validation"]
    np.testing.assert_allclose(accuracy.lines[1].get_ydata()[0], 80)
    rows = [dict(row, val_loss=None, val_accuracy=None) for row in HISTORY]
    assert np.isnan(drawing(pictures.plot_history(rows)).lines[1].get_ydata()).all()


def test_confusion_colours_mistakes_and_not_the_diagonal() -> None:
    fig = pictures.plot_confusion([[900, 4], [0, 800]], ["a", "b"])
    shades = drawing(fig).images[0].get_array()
    np.testing.assert_allclose(shades, [[0, 2], [0, 0]])
    assert {"900", "4", "800"} <= set(words(fig))


def test_counts_of_a_confusion_can_be_read_in_both_themes() -> None:
    """The diagonal is a grey that turns dark on the dark page; the map is an image and stays."""
    fig = pictures.plot_confusion([[900, 4], [0, 800]], ["a", "b"])
    colours = {text.get_text(): text.get_color() for text in drawing(fig).texts}
    assert colours == {"900": "black", "4": ON_DARK, "800": "black"}


def test_fitted_power_is_found() -> None:
    x = np.array([16, 32, 64, 128.0])
    fig = pictures.plot_lines(x, {"time": 3 * x**2}, xlabel="N", ylabel="ms", log=True, fit="power")
    assert "fit: power 2.00" in words(fig)


def test_several_seeds_are_drawn_as_mean_and_band() -> None:
    fig = pictures.plot_lines([0, 1], {"a": [[1, 2], [3, 4]]}, xlabel="x", ylabel="y")
    ax = drawing(fig)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [2, 3])
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 1
    assert band[:, 1].max() == 4


def test_bars_begin_at_zero_and_dots_where_told() -> None:
    bars = drawing(pictures.plot_bars({"a": [90, 92], "b": 80}, xlabel="%"))
    assert bars.get_xlim()[0] == 0
    assert [p.get_width() for p in bars.patches] == [91, 80]
    dots = drawing(pictures.plot_bars({"a": [90, 92], "b": 80}, xlabel="%", lower=70))
    assert dots.get_xlim()[0] == 70
    assert not dots.patches


def test_a_ladder_shows_each_change_and_what_chance_could_make() -> None:
    steps = {"start": 40.0, "up": 45.0, "missing": None, "down": 42.0, "hardly": 42.5}
    fig = pictures.plot_ladder(steps, xlabel="%", noise=1, reference={"peer": 44.0})
    ax = drawing(fig)
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(40, 5), (45, -3), (42, 0.5)]
    assert {"40.0", "45.0 (+5.0)", "42.0 (−3.0)", "42.5 (+0.5)", "not yet run"} <= set(words(fig))
    legend = [text for text in words(fig) if text not in steps]
    assert {"higher", "lower", "change below 1: may be chance", "peer"} <= set(legend)
    colours = [p.get_edgecolor() for p in ax.patches]
    assert len(set(colours)) == 3
    fig = pictures.plot_ladder(steps, xlabel="%", noise={"down": 4, "hardly": 0.1})
    assert "change inside the spread: may be chance" in words(fig)
    assert {p.get_edgecolor() for p in drawing(fig).patches[::2]} == {colours[0]}
    assert drawing(fig).patches[1].get_edgecolor() == colours[2]
    fig = pictures.plot_ladder(steps, xlabel="%", builds_on={"hardly": "start", "down": "missing"})
    bars = [(p.get_x(), p.get_width()) for p in drawing(fig).patches]
    assert bars == [(40, 5), (45, -3), (40, 2.5)]


def test_shares_stand_end_to_end() -> None:
    ax = drawing(pictures.plot_shares({"a": [1, 2], "b": [3, 0]}, ["x", "y"], xlabel="n"))
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 1), (0, 3), (1, 2), (3, 0)]
    assert ax.get_xlim() == (0, 3)


def test_reliability_is_the_share_of_right_answers() -> None:
    fig = pictures.plot_reliability([0.05, 0.05, 0.95, 1.0], [False, True, True, True], bins=10)
    upper, lower = visible_axes(fig)
    heights = [p.get_height() for p in upper.patches]
    assert heights[0] == 50
    assert heights[-1] == 100
    assert np.isnan(heights[1:-1]).all()
    assert [p.get_height() for p in lower.patches] == [50, *[0] * 8, 50]


def test_groups_stand_in_rows(colour: torch.Tensor) -> None:
    fig = pictures.show_groups(colour, [1, 0, 1, 0, 1, 0], ["cats_and_dogs", "cars"])
    assert words(fig) == ["cats and dogs", "cars"]
    places = [(image.get_extent()[3], image.get_extent()[0]) for image in drawing(fig).images]
    assert sorted(places) == places
    assert len({top for top, _ in places}) == 2
    first = np.asarray(drawing(fig).images[0].get_array())
    np.testing.assert_allclose(first, colour[1].permute(1, 2, 0), atol=1e-6)


def test_heatmaps_share_one_scale() -> None:
    fig = pictures.plot_heatmap([[[0.1, 0.9]], [[0.4, 0.6]]])
    scales = {ax.images[0].get_clim() for ax in visible_axes(fig) if ax.images}
    assert scales == {(0.0, 0.9)}
    signed = drawing(pictures.plot_heatmap([[-1, 3.0]], diverging=True))
    assert signed.images[0].get_clim() == (-3, 3)
    gap = drawing(pictures.plot_heatmap([[0.0, np.nan]]))
    assert gap.images[0].get_clim() == (0, 1)


def test_patches_are_numbered_row_by_row_and_lie_where_they_were_cut() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 4, 4) * 10
    fig = pictures.show_patches(image, 2)
    assert words(fig) == ["0", "1", "2", "3"]
    second = drawing(fig).images[1].get_array()
    np.testing.assert_allclose(np.asarray(second) * 255, [[20, 30], [60, 70]], atol=1e-9)
    left, right, bottom, top = drawing(fig).images[1].get_extent()
    assert left > 1
    assert top == 0
    assert (right - left) == (bottom - top) == 1


def test_sequence_follows_the_order_given() -> None:
    image = torch.arange(16, dtype=torch.uint8).view(1, 4, 4) * 10
    fig = pictures.show_token_sequence(image, 2, order=[3, 0, 1, 2], class_token=True)
    assert words(fig) == ["cls", "3", "0", "1", "2"]
    first = drawing(fig).images[0].get_array()
    np.testing.assert_allclose(np.asarray(first) * 255, [[100, 110], [140, 150]], atol=1e-9)


def test_similarity_of_a_patch_with_itself_is_one() -> None:
    table = torch.randn(17, 6, generator=torch.Generator().manual_seed(0))
    fig = pictures.plot_similarity(table, (4, 4), patches=[6], prefix_tokens=1)
    shown = np.asarray(drawing(fig).images[0].get_array())
    assert shown.shape == (4, 4)
    assert shown[1, 2] == pytest.approx(1)
    other = torch.cosine_similarity(table[1 + 6], table[1 + 11], dim=0).item()
    assert shown[2, 3] == pytest.approx(other, abs=1e-6)


def test_map_puts_weight_on_the_right_patch(colour: torch.Tensor) -> None:
    row = np.zeros(17)
    row[0], row[1 + 7] = 0.9, 0.1
    fig = pictures.plot_attention_map(colour[0].detach(), row, prefix_tokens=1)
    layer = np.asarray(drawing(fig).images[1].get_array())[..., 3]
    assert np.unravel_index(layer.argmax(), layer.shape) == (1, 3)
    assert (layer > 0).sum() == 1
    assert "greatest 0.10" in words(fig)


def test_arrows_go_to_the_patches_looked_at(grey: torch.Tensor) -> None:
    row = np.zeros(16)
    row[[3, 6, 12]] = 0.5, 0.2, 0.3
    fig = pictures.plot_attention_arrows(grey[0], row, query=6)
    arrows: Any = [p for p in drawing(fig).patches if isinstance(p, FancyArrowPatch)]
    ends = {p._posA_posB[1] for p in arrows}
    assert ends == {(3.5, 0.5), (0.5, 3.5)}
    thick = max(arrows, key=lambda p: p.get_linewidth())
    assert thick._posA_posB[1] == (3.5, 0.5)
    assert {"50 %", "20 %", "30 %"} == set(words(fig))


def test_png_is_what_was_drawn() -> None:
    picture = Image.open(io.BytesIO(pictures.to_png(pictures.plot_heatmap(np.eye(3)))))
    assert picture.size[0] == round(pictures.WIDTH * DPI)


# --- what they refuse -------------------------------------------------------------------------

IMAGE = np.zeros((1, 4, 4), np.uint8)
BAD: list[tuple[str, Any, str]] = [
    ("rank", lambda: pictures.show_images(np.zeros((4, 4))), "must have 4 dimensions"),
    ("channels last", lambda: pictures.show_images(np.zeros((2, 4, 4, 3))), "4 channels"),
    ("normalised", lambda: pictures.show_images(np.full((1, 1, 2, 2), -2.0)), "denormalise"),
    ("none", lambda: pictures.show_images(np.zeros((0, 1, 2, 2))), "no image"),
    ("too few labels", lambda: pictures.show_images(IMAGE[None], [1, 2]), "2 entries for 1"),
    ("label", lambda: pictures.show_images(IMAGE[None], [3], classes=["a"]), "there are 1 classes"),
    ("columns", lambda: pictures.show_images(IMAGE[None], columns=0), "at least 1"),
    ("too wide", lambda: pictures.show_images(IMAGE[None], figsize=(9, 2)), "at most 7 in"),
    ("no mistakes", lambda: pictures.plot_mistakes(np.zeros((0, 1, 2, 2)), [], []), "no mistakes"),
    ("sure", lambda: pictures.plot_mistakes(IMAGE[None], [1], [2], [3.0]), "probabilities"),
    ("no epoch", lambda: pictures.plot_history([]), "no epoch"),
    ("no loss", lambda: pictures.plot_history([{"epoch": 1}]), "train_loss"),
    ("not square", lambda: pictures.plot_confusion(np.zeros((2, 3))), "square"),
    ("names", lambda: pictures.plot_confusion(np.eye(2), ["a"]), "1 names"),
    ("no line", lambda: pictures.plot_lines([1], {}, xlabel="x", ylabel="y"), "no curve"),
    ("length", lambda: pictures.plot_lines([1], {"a": [1, 2]}, xlabel="x", ylabel="y"), "as long"),
    ("ragged", lambda: pictures.plot_lines(
        [1], {"a": np.array([[1], [1, 2]], dtype=object)}, xlabel="x", ylabel="y"), "ragged"),
    ("log", lambda: pictures.plot_lines(
        [1], {"a": [1]}, xlabel="x", ylabel="y", log="z"), "log is 'z'"),  # type: ignore[arg-type]
    ("spread", lambda: pictures.plot_lines(
        [1], {"a": [1]}, xlabel="x", ylabel="y", spread="z"), "spread"),  # type: ignore[arg-type]
    ("fit", lambda: pictures.plot_lines(
        [0, 1], {"a": [1, 2]}, xlabel="x", ylabel="y", fit="power"), "above zero"),
    ("degree", lambda: pictures.plot_lines(
        [0, 1], {"a": [1, 2]}, xlabel="x", ylabel="y", fit=2), "less than the 2 points"),
    ("no bar", lambda: pictures.plot_bars({}, xlabel="x"), "no bar"),
    ("no seed", lambda: pictures.plot_bars({"a": []}, xlabel="x"), "no number"),
    ("highlight", lambda: pictures.plot_bars({"a": 1}, xlabel="x", highlight="b"), "lacks"),
    ("no step", lambda: pictures.plot_ladder({"a": None}, xlabel="x"), "no measured value"),
    ("no base", lambda: pictures.plot_ladder(
        {"a": 1, "b": 2}, xlabel="x", builds_on={"a": "b"}), "no earlier step"),
    ("no share", lambda: pictures.plot_shares({}, ["a"], xlabel="x"), "no bar"),
    ("parts", lambda: pictures.plot_shares({"a": [1]}, ["a", "b"], xlabel="x"), "2 numbers"),
    ("below zero", lambda: pictures.plot_shares({"a": [-1]}, ["a"], xlabel="x"), "at least 0"),
    ("colours", lambda: pictures.plot_shares({"a": [1] * 8}, list("abcdefgh"), xlabel="x"),
     "8 parts"),
    ("unequal", lambda: pictures.plot_reliability([0.5], [True, False]), "equally long"),
    ("no probability", lambda: pictures.plot_reliability([1.5], [True]), "0 to 1"),
    ("bins", lambda: pictures.plot_reliability([0.5], [True], bins=1), "at least 2"),
    ("group of", lambda: pictures.show_groups(IMAGE[None], [0, 1], ["a"]), "2 entries for 1"),
    ("no group", lambda: pictures.show_groups(IMAGE[None], [1], ["a"]), "0 to 0"),
    ("empty", lambda: pictures.plot_heatmap(np.zeros((0, 2))), "no value"),
    ("row labels", lambda: pictures.plot_heatmap(np.eye(2), row_labels=["a"]), "row_labels"),
    ("indivisible", lambda: pictures.show_patches(IMAGE, 3), "divides both"),
    ("patch size", lambda: pictures.show_patches(IMAGE, 0), "whole number"),
    ("patch", lambda: pictures.show_patches(IMAGE, 2, highlight=[4]), "0 to 3"),
    ("order", lambda: pictures.show_token_sequence(IMAGE, 2, order=[0, 0, 1, 2]), "once"),
    ("batch", lambda: pictures.plot_similarity(np.zeros((2, 4, 3)), (2, 2)), r"\(N, D\)"),
    ("grid", lambda: pictures.plot_similarity(np.zeros((5, 3)), (2, 2)), "prefix_tokens"),
    ("negative", lambda: pictures.plot_attention_map(IMAGE, [-1.0, 1, 0, 0]), "softmax"),
    ("no square", lambda: pictures.plot_attention_map(IMAGE, [0.2] * 5), "no square"),
    ("wrong grid", lambda: pictures.plot_attention_map(IMAGE, [0.2] * 5, grid=(2, 2)), "2 x 2"),
    ("titles", lambda: pictures.plot_attention_map(IMAGE, [1.0], titles=["a", "b"]), "1 maps"),
    ("query", lambda: pictures.plot_attention_arrows(IMAGE, [1.0], query=1), "0 to 0"),
    ("top", lambda: pictures.plot_attention_arrows(IMAGE, [1.0], query=0, top=0), "at least 1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_named(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_whole_numbers_that_are_no_bytes_are_refused() -> None:
    with pytest.raises(TypeError, match="uint8 or float"):
        pictures.show_images(np.zeros((1, 1, 2, 2), dtype=np.int64))
