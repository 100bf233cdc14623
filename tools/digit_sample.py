# SPDX-License-Identifier: MIT
"""Write the digits that the live pages fetch: python -m tools.digit_sample.

600 training and 100 test images of MNIST for every class go into one picture of 70 rows and 100
columns of digits: rows 0 to 59 are training images, rows 60 to 69 test images, and the digit in
column c is of class c mod 10. `book/_static/live/digits.mjs` reads it. The 5,000 training images
that `load_dataset` sets aside are left out: settings of the live pages may be chosen on those.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vitcore.data import load_dataset

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "book" / "_static" / "live" / "digits.png"
COLUMNS, CLASSES, PIXELS = 100, 10, 28
TRAIN_EACH, TEST_EACH = 600, 100
SEED = 0
SOURCE = (
    "MNIST, by Yann LeCun and Corinna Cortes, CC BY-SA 3.0 "
    "(https://creativecommons.org/licenses/by-sa/3.0/)"
)


def choose(labels: np.ndarray, each: int, random: np.random.Generator) -> np.ndarray:
    """Return places of `each` images of every class, class after class in turn: 0, 1, …, 9, 0, …"""
    classes = range(CLASSES)
    places = [random.choice(np.flatnonzero(labels == c), each, replace=False) for c in classes]
    return np.stack(places, axis=1).reshape(-1)


def draw_sample() -> np.ndarray:
    """Return the picture, (1960, 2800) uint8, from the whole of MNIST."""
    data = load_dataset("mnist", stand_in=False)
    random = np.random.default_rng(SEED)
    images = []
    for part, each in ((data.train, TRAIN_EACH), (data.test, TEST_EACH)):
        places = choose(part.labels.numpy(), each, random)
        images.append(part.images.numpy()[places].reshape(-1, PIXELS, PIXELS))
    grid = np.concatenate(images).reshape(-1, COLUMNS, PIXELS, PIXELS)  # (rows, columns, 28, 28)
    return grid.transpose(0, 2, 1, 3).reshape(-1, COLUMNS * PIXELS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args(arguments).out
    told = PngInfo()
    told.add_text("Source", SOURCE)
    Image.fromarray(draw_sample()).save(out, "PNG", optimize=True, pnginfo=told)
    print(f"{out}: {out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
