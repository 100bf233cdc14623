# SPDX-License-Identifier: MIT
"""What a page makes of a drawing is what vitcore's read_digit makes of it."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from live_helpers import get, node, put
from PIL import Image
from test_data_paper import photograph

from vitcore.data import read_digit

TWO = [[[0.3, 0.35], [0.4, 0.2], [0.6, 0.2], [0.65, 0.4], [0.3, 0.8], [0.72, 0.8]]]
SEVEN = [[[0.05, 0.1], [0.5, 0.12], [0.3, 0.6]], [[0.2, 0.35], [0.45, 0.35]]]
DRAW = """
import { Sheet } from "LIVE/draw.mjs";
const sheet = new Sheet();
sheet.draw(STROKES);
tell({ ink: Buffer.from(Uint8Array.from(sheet.ink, Math.round)).toString("base64"),
       image: Buffer.from(sheet.read()).toString("base64") });
"""


def unpack(text: str, side: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(side, side)


@pytest.mark.parametrize("strokes", [TWO, SEVEN, [[[0.5, 0.5]]]], ids=["two", "seven", "dot"])
def test_a_drawing(strokes: list, tmp_path: Path) -> None:
    found = node(tmp_path, DRAW.replace("STROKES", str(strokes)))
    Image.fromarray(unpack(found["ink"], 256)).save(tmp_path / "ink.png")
    expected = read_digit(tmp_path / "ink.png").image[0].int()
    image = torch.from_numpy(unpack(found["image"], 28).astype(np.int32))
    assert expected.max() == 255
    assert (image - expected).abs().max() <= 2  # ink is no whole number of greys on the sheet


def test_no_ink(tmp_path: Path) -> None:
    program = 'import { Sheet, cutOut } from "LIVE/draw.mjs"; const s = new Sheet();'
    program += "tell([s.read(), cutOut(s.ink, 256, 256)]);"
    assert node(tmp_path, program) == [None, None]


@pytest.mark.parametrize("dark", [True, False])
def test_a_photograph(dark: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    digit = np.asarray(Image.new("L", (28, 28)))
    digit = digit.copy()
    digit[4:7, 6:21] = digit[4:24, 18:21] = 255
    photograph(digit, rng, dark=dark).convert("RGB").save(tmp_path / "photo.png")
    with Image.open(tmp_path / "photo.png") as picture:
        rgba = np.asarray(picture.convert("RGBA"))
    (tmp_path / "rgba").write_bytes(rgba.tobytes())
    program = f"""
    import {{ readDigit }} from "LIVE/draw.mjs";
    const image = readDigit(new Uint8Array(read("rgba")), {rgba.shape[1]}, {rgba.shape[0]});
    tell(Buffer.from(image).toString("base64"));
    """
    image = torch.from_numpy(unpack(node(tmp_path, program), 28).astype(np.int32))
    expected = read_digit(tmp_path / "photo.png").image[0].int()
    assert (image - expected).abs().max() <= 8
    assert (image - expected).abs().float().mean() < 0.5


@pytest.mark.parametrize("sides", [(32, 32), (7, 90), (13, 5)])
def test_resizing_is_torch_s(sides: tuple[int, int], tmp_path: Path) -> None:
    values = torch.rand(29, 41, generator=torch.Generator().manual_seed(0))
    put(tmp_path / "values", values)
    program = 'import { resize } from "LIVE/draw.mjs";'
    program += f'save("out", resize(floats("values"), 29, 41, {sides[0]}, {sides[1]}));'
    node(tmp_path, program)
    expected = F.interpolate(values[None, None], sides, mode="bilinear", antialias=True)
    assert np.abs(get(tmp_path / "out") - expected.flatten().numpy()).max() < 1e-5
