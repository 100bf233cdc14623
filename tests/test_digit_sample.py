# SPDX-License-Identifier: MIT
"""The digits that the live pages fetch: what the picture holds, and that JavaScript reads it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools import digit_sample
from tools.set_repository import ROOT

LIVE = ROOT / "book" / "_static" / "live"
# Of the pixels, row by row, as the command made them from MNIST's official files.
DIGEST = "22d23503ca97555d2b5cf3d967eb1f296f9dd03378d2bf3e512fe4a821a4ab7c"
READ = """
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { MEAN, STD, readDigits } from "./digits.mjs";
const told = { mean: MEAN, std: STD };
for (const [name, part] of Object.entries(await readDigits(readFileSync("digits.png")))) {
  const digest = createHash("sha256").update(part.images).digest("hex");
  told[name] = { digest, labels: Array.from(part.labels) };
}
console.log(JSON.stringify(told));
"""


def pixels() -> np.ndarray:
    return np.asarray(Image.open(digit_sample.OUT))


def digits() -> np.ndarray:
    """All digits of the picture, (7000, 28, 28), row by row."""
    rows = pixels().reshape(-1, 28, digit_sample.COLUMNS, 28)
    return rows.transpose(0, 2, 1, 3).reshape(-1, 28, 28)


def test_the_picture_is_what_the_command_made() -> None:
    assert pixels().shape == (1960, 2800)
    assert hashlib.sha256(pixels().tobytes()).hexdigest() == DIGEST


@pytest.mark.skipif(
    not (Path(os.environ.get("VITCORE_DATA", "")) / "mnist.npz").is_file(), reason="needs MNIST"
)
def test_the_command_makes_it_again(tmp_path: Path) -> None:
    digit_sample.main(["--out", str(tmp_path / "digits.png")])
    assert np.array_equal(np.asarray(Image.open(tmp_path / "digits.png")), pixels())


def test_source_and_licence_are_named() -> None:
    inside: str = Image.open(digit_sample.OUT).info["Source"]
    told = (LIVE / "digits.LICENSE.txt").read_text("utf-8") + inside
    for name in ("LeCun", "Cortes"):
        assert told.count(name) == 2
    assert told.count("https://creativecommons.org/licenses/by-sa/3.0/") == 2
    assert digit_sample.OUT.stat().st_size < 1_500_000


def test_no_digit_twice() -> None:
    assert len({digit.tobytes() for digit in digits()}) == 7000


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")
def test_javascript_reads_the_same_digits() -> None:
    command = ["node", "--input-type=module", "-e", READ]
    done = subprocess.run(command, cwd=LIVE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name, part in (("train", digits()[:6000]), ("test", digits()[6000:])):
        assert told[name]["digest"] == hashlib.sha256(part.tobytes()).hexdigest()
        assert told[name]["labels"] == [i % 10 for i in range(len(part))]
    # The statistics are those in the weights of chapter 6's model.
    from vitcore.training import load_weights

    weights = load_weights(next((ROOT / "runs" / "mnist-seed0").glob("*.safetensors")))
    assert (told["mean"], told["std"]) == (*weights.mean, *weights.std)
