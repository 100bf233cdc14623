# SPDX-License-Identifier: MIT
"""Drawn diagrams: readable at a phone's width, true to the configuration, the same every time."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from picture_helpers import check_readable, texts_of

from vitbook import pictures
from vitbook.pictures.__main__ import main
from vitbook.pictures.canvas import MUTED_FACE
from vitbook.pictures.look import tint
from vitbook.pictures.pages import LETTER_NAMES
from vitcore.models import MODELS
from vitcore.patches import patchify
from vitcore.vit import ViT, ViTConfig

PAGES = Path(__file__).resolve().parents[1] / "book" / "img"
DIGIT = torch.zeros(1, 28, 28, dtype=torch.uint8)
RUNGS = ("warmup and cosine", "augmentation", "mixup, CutMix", "mean pooling", "conv. stem",
         "moving average", "Muon", "more epochs")  # fmt: skip
DRAWINGS: dict[str, Callable[[], Figure]] = {
    "model": pictures.model_diagram,
    **{
        f"model, {part}": partial(pictures.model_diagram, part, title=f"Here: {part}")
        for part in pictures.HIGHLIGHTS
    },
    "model without shapes": lambda: pictures.model_diagram(shapes=False),
    **{
        f"model {name}": partial(pictures.model_diagram, config=config)
        for name, config in MODELS.items()
        if name in ("vit_mnist", "vit_large_patch16_224")
    },
    "model with registers": lambda: pictures.model_diagram(
        config=ViTConfig(registers=4, pool_norm="after", pool="mean")
    ),
    "model with registers, embeddings": lambda: pictures.model_diagram(
        "embeddings", config=ViTConfig(registers=4)
    ),
    "model without positions": lambda: pictures.model_diagram(
        config=ViTConfig(positions="none", class_token=False, pool="mean", num_classes=0)
    ),
    "block": pictures.block_diagram,
    "post-norm": lambda: pictures.block_diagram(False, title="Norms on the stream"),
    "block with all": lambda: pictures.block_diagram(layer_scale=True, drop_path=True),
    "attention": pictures.attention_diagram,
    "attention without shapes": lambda: pictures.attention_diagram(shapes=False, title="One layer"),
    **{f"{h} heads": partial(pictures.heads_diagram, h) for h in (2, 3, 4)},
    "cut": pictures.patch_cut_diagram,
    "cut digit": lambda: pictures.patch_cut_diagram(DIGIT, 7, patch=5, title="A digit"),
    "cut wide": lambda: pictures.patch_cut_diagram(pictures.motif(32)[:, 8:24], 8),
    "embedding": pictures.embedding_diagram,
    "embedding without class token": lambda: pictures.embedding_diagram(class_token=False),
    "order": pictures.sequence_order_diagram,
    "order, corner": lambda: pictures.sequence_order_diagram((8, 7), 0, title="In the corner"),
    "order, end": lambda: pictures.sequence_order_diagram((7, 7), 48),
    "order, small": lambda: pictures.sequence_order_diagram((2, 2)),
    "training": pictures.training_diagram,
    "training with rungs": lambda: pictures.training_diagram(RUNGS, title="One step"),
    "fields": pictures.receptive_field_diagram,
    "fields of a photograph": lambda: pictures.receptive_field_diagram(
        5, 2, np.full((3, 24, 32), 90, np.uint8), title="Smaller patches"
    ),
    "comparison": pictures.comparison_diagram,
    **{f"letter {letter}": partial(pictures.notation_picture, letter) for letter in LETTER_NAMES},
}


def words(fig: Figure) -> list[str]:
    return [text for text, _ in texts_of(fig)]


def faces(fig: Figure) -> dict[str, tuple[float, ...]]:
    """The colour of the box in whose middle a text stands."""
    found = {}
    boxes: Any = [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
    for text in fig.axes[0].texts:
        x, y = text.get_position()
        for box in boxes:
            middle = (box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2)
            if np.allclose(middle, (x, y)) and box.get_linestyle() == "solid":
                found[text.get_text()] = tuple(box.get_facecolor()[:3])
    return found


@pytest.mark.parametrize("name", DRAWINGS)
def test_every_diagram_can_be_read(name: str) -> None:
    fig = DRAWINGS[name]()
    check_readable(fig)
    assert fig.get_figwidth() <= pictures.WIDTH


def test_texts_stand_inside_their_boxes() -> None:
    for name in (
        "model with registers, embeddings",
        "attention",
        "4 heads",
        "block with all",
        "embedding",
    ):
        fig = DRAWINGS[name]()
        extents = dict(texts_of(fig))
        boxes: Any = [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
        around = [box.get_window_extent() for box in boxes]
        for text in faces(fig):
            box = extents[text]
            assert any(
                b.x0 < box.x0 and b.x1 > box.x1 and b.y0 < box.y0 and b.y1 > box.y1 for b in around
            ), f"{text!r} is wider than its box"


def test_the_shapes_are_those_of_the_model() -> None:
    for name in ("vit_mnist", "vit_cifar", "vit_tiny_patch16_224"):
        config = MODELS[name]
        written = words(pictures.model_diagram(config=config))
        model = ViT(config, depth=1)
        side = config.image_size
        assert isinstance(side, int)
        images = torch.zeros(1, config.in_channels, side, side)
        logits, seen = model.forward_with(images, capture=["embedding", "pooled"])
        for tensor in (
            images, patchify(images, config.patch_size), seen["embedding"], seen["pooled"], logits
        ):  # fmt: skip
            shape = ", ".join(str(length) for length in tensor.shape[1:])
            assert f"(B, {shape})" in written
        assert f"{config.depth} blocks,\none after\nanother" in written


def test_without_a_configuration_letters_stand_in_the_shapes() -> None:
    written = words(pictures.model_diagram())
    for shape in ("(B, C, H, W)", "(B, N, C·P·P)", "(B, N, D)", "(B, 1+N, D)", "(B, D)", "(B, K)"):
        assert shape in written
    assert not [w for w in words(pictures.model_diagram(shapes=False)) if w.startswith("(B")]


def test_the_drawing_follows_the_configuration() -> None:
    written = words(pictures.model_diagram(config=MODELS["vit_mnist"]))
    assert "mean of the patch tokens" in written
    assert not [w for w in written if "class token" in w]
    written = words(pictures.model_diagram(config=ViTConfig(registers=4)))
    assert "class token + 4 registers" in written
    assert "(B, 201, 768)" in written
    written = words(DRAWINGS["model without positions"]())
    assert "add positions" not in written
    assert "linear head" not in written

    def height_of(config: ViTConfig, word: str) -> float:
        return dict(texts_of(pictures.model_diagram(config=config)))[word].y0

    after = ViTConfig(pool="mean", pool_norm="after")
    assert height_of(after, "mean of the patch tokens") > height_of(after, "linear head")
    before = ViTConfig(pool="mean")
    assert height_of(before, "mean of the patch tokens") < height_of(
        after, "mean of the patch tokens"
    )


@pytest.mark.parametrize(
    ("part", "coloured"),
    [
        ("patches", {"cut into patches"}),
        ("embeddings", {"linear projection", "put class token in front", "add positions"}),
        ("attention", {"attention"}),
        ("blocks", {"norm", "attention", "MLP"}),
        ("head", {"norm", "take the class token", "linear head"}),
    ],
)
def test_only_the_chapters_part_keeps_its_colour(part: str, coloured: set[str]) -> None:
    grey = to_rgb(MUTED_FACE)
    fig = pictures.model_diagram(part)
    boxes: Any = [p for p in fig.axes[0].patches if isinstance(p, FancyBboxPatch)]
    found = set()
    for text in fig.axes[0].texts:
        x, y = text.get_position()
        for box in boxes:
            middle = (box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2)
            solid = box.get_linestyle() == "solid"
            if solid and np.allclose(middle, (x, y)) and box.get_facecolor()[:3] != grey:
                found.add(text.get_text())
    assert found == coloured


def test_a_colour_means_the_same_everywhere() -> None:
    attention = tint(pictures.ROLES["attention"], 0.42)
    norm = tint(pictures.ROLES["norm"], 0.42)
    for fig in (pictures.model_diagram(), pictures.block_diagram()):
        assert faces(fig)["attention"] == pytest.approx(attention)
        assert faces(fig)["norm"] == pytest.approx(norm)
    assert faces(pictures.attention_diagram())["softmax over the keys"] == pytest.approx(attention)


def test_norms_stand_before_or_after() -> None:
    def order(pre_norm: bool) -> list[str]:
        texts = texts_of(pictures.block_diagram(pre_norm))
        kept = [(box.y0, text) for text, box in texts if text in ("norm", "attention", "MLP")]
        return [text for _, text in sorted(kept, reverse=True)]

    assert order(True) == ["norm", "attention", "norm", "MLP"]
    assert order(False) == ["attention", "norm", "MLP", "norm"]


def test_the_cut_patch_is_read_out_channel_by_channel() -> None:
    image = pictures.motif(32)
    fig = pictures.patch_cut_diagram(image, 8, patch=9)
    vector = patchify(torch.from_numpy(image)[None].float(), 8)[0, 9].numpy()
    arrays = [np.asarray(image.get_array()) for image in fig.axes[0].images]
    strips = [array.ravel() for array in arrays if len(array) == 1]
    np.testing.assert_allclose(np.concatenate(strips) * 255, vector, atol=1e-9)
    assert "one vector of C·P·P = 192 numbers" in words(fig)
    assert "grey" in words(pictures.patch_cut_diagram(DIGIT, 7))


def test_neighbours_in_the_sequence() -> None:
    written = words(pictures.sequence_order_diagram((4, 5), 7))
    assert {"+1", "−1", "+5", "−5", "patch 7"} <= set(written)
    written = words(pictures.sequence_order_diagram((4, 5), 0))
    assert {"+1", "+5"} <= set(written)
    assert "−1" not in written
    assert "…" in written


def test_rungs_stand_beside_their_places() -> None:
    heights = {text: box.y0 for text, box in texts_of(pictures.training_diagram(RUNGS))}
    for rung, place in (
        ("conv. stem", "cut into tokens"),
        ("mean pooling", "pool, head"),
        ("Muon", "optimiser: new weights"),
        ("more epochs", "a batch of images"),
    ):
        assert abs(heights[rung] - heights[place]) < 8
    assert "1" not in words(pictures.training_diagram())
    assert "3" not in words(pictures.training_diagram(RUNGS[:2]))


def test_the_fields_are_those_of_the_patch_embeddings() -> None:
    """A token's gradient says which pixels it sees; the drawing frames just these."""
    fig = pictures.receptive_field_diagram()
    frames: Any = [p for p in fig.axes[0].patches if p.get_linewidth() == 2.4]
    scale = 2.28 / 32
    for name, left, frame in (
        ("linear", 0.06, frames[0]),
        ("conv_stem", 0.06 + 2.28 + 0.12, frames[3]),
    ):
        model = ViT(MODELS["vit_cifar"], patch_embed=name, dim=12, heads=3, depth=1)
        seen = torch.zeros(32, 32)
        # Max-pooling passes the gradient to one pixel alone, so that many images are asked.
        images = torch.randn(64, 3, 32, 32, requires_grad=True)
        tokens, (_, columns) = model.patch_embed(images)
        tokens[:, 4 * columns + 2].abs().sum().backward()
        assert images.grad is not None
        seen = images.grad.abs().sum((0, 1)) > 0
        rows, cols = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
        assert round((frame.get_x() - left) / scale) == cols[0]
        assert round((frame.get_y() - 0.34) / scale) == rows[0]
        assert round(frame.get_width() / scale) == len(cols)
        assert round(frame.get_height() / scale) == len(rows)


def test_the_motif_is_a_picture() -> None:
    image = pictures.motif(48)
    assert image.shape == (3, 48, 48)
    assert image.dtype == np.uint8
    assert image.std() > 30
    np.testing.assert_array_equal(image, pictures.motif(48))


def test_the_canvas_measures_in_inches_from_the_upper_left() -> None:
    with pictures.style():
        canvas = pictures.Canvas(4, 2, title="Above")
        box = canvas.box(1, 0.5, 2, 1, "a box")
        canvas.brace(1, 1.6, 2, "below")
        canvas.brace(1, 0.4, 2, "above", side="top")
        canvas.brace(0.9, 0.5, 1, "left", side="left")
        canvas.tokens(3.2, 0.2, 2, class_token=True, texts=["cls", "0", "1"])
    assert box.top == (2, 0.5)
    assert box.bottom == (2, 1.5)
    assert box.left == (1, 1.0)
    assert box.right == (3, 1.0)
    assert box.centre == (2, 1.0)
    assert canvas.figure.get_figheight() > 2
    assert canvas.figure.alt == "Above"
    extents = dict(texts_of(canvas.figure))
    assert extents["a box"].x0 > 100
    assert extents["Above"].y0 > extents["a box"].y1


# --- the pages' files -------------------------------------------------------------------------


def test_the_command_writes_the_same_bytes_every_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-m", "vitbook.pictures", str(tmp_path / "a")]
    subprocess.run(command, check=True, capture_output=True)
    main([str(tmp_path / "b")])
    names = {f"{name}.svg" for name in pictures.page_pictures()}
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == names
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_names_of_files_differ_where_letters_do_not() -> None:
    """d and D, h and H are one file name on macOS and Windows."""
    names = [name.lower() for name in pictures.page_pictures()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", pictures.page_pictures())
def test_the_books_pictures_are_those_the_code_draws(name: str) -> None:
    path = PAGES / f"{name}.svg"
    assert path.exists(), f"{path.name} is missing: run python -m vitbook.pictures book/img"
    # Not byte by byte: another matplotlib may place a letter differently.
    kept = path.read_text(encoding="utf-8")
    drawn = pictures.to_svg(pictures.page_pictures()[name]())
    for part in (r'viewBox="[^"]*"', r"<(?:path|image|use|g)\b", r"#[0-9a-f]{6}"):
        assert Counter(re.findall(part, kept)) == Counter(re.findall(part, drawn)), (
            f"{path.name} is old: run python -m vitbook.pictures book/img"
        )


def test_the_pages_show_every_picture_and_no_other() -> None:
    pages = "\n".join(page.read_text("utf-8") for page in PAGES.parent.glob("*.md"))
    shown = set(re.findall(r"img/([\w-]+)\.svg", pages))
    assert shown == set(pictures.page_pictures()) == {path.stem for path in PAGES.iterdir()}


# --- what they refuse -------------------------------------------------------------------------

BAD: list[tuple[str, Callable[[], Any], str]] = [
    ("highlight", lambda: pictures.model_diagram("brain"), "highlight is 'brain'"),
    ("heads", lambda: pictures.heads_diagram(12), "room for 2, 3 or 4"),
    ("motif", lambda: pictures.motif(4), "at least 8"),
    ("no patch size", lambda: pictures.patch_cut_diagram(DIGIT), "patch_size is missing"),
    ("many patches", lambda: pictures.patch_cut_diagram(DIGIT, 2), "larger patches"),
    ("no such patch", lambda: pictures.patch_cut_diagram(DIGIT, 7, patch=16), "0 to 15"),
    ("grid", lambda: pictures.sequence_order_diagram((4, 14)), "4 x 14"),
    ("no such place", lambda: pictures.sequence_order_diagram((4, 4), 16), "0 to 15"),
    ("rungs", lambda: pictures.training_diagram(["a"] * 9), "eight places"),
    ("field", lambda: pictures.receptive_field_diagram(12), "must be odd"),
    ("cut", lambda: pictures.receptive_field_diagram(13, 5), "does not divide"),
    ("letter", lambda: pictures.notation_picture("Q"), "letter is 'Q'"),
]


@pytest.mark.parametrize(("call", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD])
def test_bad_input_is_named(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_is_no_configuration_is_refused() -> None:
    with pytest.raises(TypeError, match="without image_size: pass a ViTConfig"):
        pictures.model_diagram(config={"dim": 64})
