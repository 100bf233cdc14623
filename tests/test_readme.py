# SPDX-License-Identifier: MIT
"""The examples of README.md run as they stand, and its table is that of the records."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw
from safetensors.torch import save_file

from tools import runs_index
from tools.set_repository import ROOT
from vitcore import ViT
from vitcore.recipes import RECIPES
from vitcore.training import load_weights

README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def draw_images(folder: Path, shift: int = 0) -> None:
    """Twenty small pictures of each of two classes: dark discs and bright squares."""
    for index in range(20):
        for name in ("cats", "dogs"):
            picture = Image.new("RGB", (70, 60 + index), (90 + shift, 120, 150))
            pen = ImageDraw.Draw(picture)
            corner = 5 + (index + shift) % 10
            if name == "cats":
                pen.ellipse((corner, corner, corner + 40, corner + 40), fill=(20, 20, 20))
            else:
                pen.rectangle((corner, corner, corner + 40, corner + 40), fill=(240, 220, 90))
            (folder / name).mkdir(parents=True, exist_ok=True)
            picture.save(folder / name / f"{index + 1:03}.{'jpg' if name == 'cats' else 'png'}")


EXAMPLES = {
    "paths": "# chapter 1",
    "model": "forward_with",
    "own images": "folder_recipe(data)",
    "fine-tuning": "load_pretrained(",
}
PRETRAINED = "timm:vit_small_patch16_224.augreg_in21k_ft_in1k"


def test_every_block_is_an_example() -> None:
    assert [sum(sign in block for sign in EXAMPLES.values()) for block in BLOCKS] == [1] * 4


def publish(folder: Path) -> str:
    """A small model as others publish theirs, in a folder."""
    folder.mkdir()
    model = ViT(dim=48, depth=2, heads=3, num_classes=9)
    save_file(model.state_dict(), folder / "model.safetensors")
    known = {"num_attention_heads": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "config.json").write_text(json.dumps(known), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str, tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if EXAMPLES[name] in block]
    draw_images(tmp_path / "my_images")
    if name == "fine-tuning":
        assert PRETRAINED in block
        block = block.replace(PRETRAINED, publish(tmp_path / "published"))
    done = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    if name == "own images":
        accuracy, answer = done.stdout.splitlines()[-2:]
        assert float(accuracy.removeprefix("test accuracy ")) > 0.9
        assert answer == "cats"
        for words, said in (
            (["eval", "my_run/model.safetensors", "my_images"], accuracy),
            (["predict", "my_run/model.safetensors", "my_images/dogs/001.png"], ": dogs "),
        ):
            told = subprocess.run(
                [sys.executable, "-m", "vitcore", *words],
                cwd=tmp_path, capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert told.returncode == 0, told.stderr
            assert said in told.stdout
    elif name == "fine-tuning":
        assert done.stdout.splitlines()[-1].startswith("test accuracy ")
        assert load_weights(tmp_path / "tuned.safetensors").classes == ["cats", "dogs"]
    elif name == "model":
        assert "torch.Size([2, 4, 65, 65])" in done.stdout


def test_the_command_line_trains_the_folder(tmp_path: Path) -> None:
    """With the recipe's defaults; what it learns holds for drawings of other places and tones."""
    draw_images(tmp_path / "my_images")
    draw_images(tmp_path / "new", shift=7)

    def vitcore(*words: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-m", "vitcore", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    (line,) = [line for line in README.splitlines() if "-m vitcore train folder" in line]
    vitcore(*line.split()[4:])
    told = vitcore("eval", "my_run/model.safetensors", "my_images")[-1]
    assert float(told.split()[2].rstrip(",")) > 0.9
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.glob("new/*/*"))
    answers = vitcore("predict", "my_run/model.safetensors", *files)
    right = [
        f": {file.split('/')[1]} " in answer for file, answer in zip(files, answers, strict=True)
    ]
    assert len(right) == 40
    assert sum(right) > 36


def test_the_table_is_that_of_the_records() -> None:
    table = runs_index.results_table()
    assert runs_index.fill(README, table) == README, "run make runs-index"


def record(folder: Path, name: str, **changes: Any) -> None:
    values: dict[str, Any] = {
        "recipe": {"name": "mnist", "train": {"epochs": 16}},
        "dataset": "mnist",
        "split": "official",
        "seed": 0,
        "parameters": 200_000,
        "wall_seconds": 150.0,
        "test_accuracy": 0.99,
        "precision": "fp32",
        "hardware": {"device": "cpu", "name": "a processor", "cores": 2, "threads": 1},
    }
    values["recipe"]["train"]["epochs"] = RECIPES["mnist"].train.epochs
    values.update(changes)
    (folder / "runs" / name).mkdir(parents=True)
    (folder / "runs" / name / "record.json").write_text(json.dumps(values), encoding="utf-8")


def test_a_table_of_three_seeds(tmp_path: Path) -> None:
    for seed, accuracy in enumerate((0.992, 0.993, 0.9936)):
        record(tmp_path, f"mnist-seed{seed}", seed=seed, test_accuracy=accuracy)
    record(tmp_path, "other", recipe={"name": "of-a-chapter", "train": {"epochs": 1}})
    lines = runs_index.results_table(tmp_path).splitlines()
    assert len(lines) == 3 + len(runs_index.GPU_RECIPES)
    assert "99.29 % (99.20 to 99.36)" in lines[2]
    assert "2 min 30 s" in lines[2]
    assert lines[2].count("record.json") == 3
    assert "a processor, 1 of 2 cores, fp32" in lines[2]
    for name, line in zip(runs_index.GPU_RECIPES, lines[3:], strict=True):
        assert "not yet run" in line
        assert f"--recipe {name}`" in line
    cifar: dict[str, Any] = {
        "dataset": "cifar100",
        "split": "re-split",
        "recipe": {"name": "cifar100-gpu"},
    }
    cifar["recipe"]["train"] = {"epochs": RECIPES["cifar100-gpu"].train.epochs}
    shared = {"wall_seconds": 1500.0, "cpu_seconds": 70.0, "other_cores": 1.8}
    record(tmp_path, "cifar", **cifar, **shared)
    lines = runs_index.results_table(tmp_path).splitlines()
    assert len(lines) == 2 + 1 + len(runs_index.GPU_RECIPES)
    assert lines[3].startswith("| cifar100 (re-split) | `cifar100-gpu` | 200,000 | 99.00 %")
    assert "| 1 min 10 s of processor time, on a shared machine |" in lines[3]
    assert runs_index.results_table(tmp_path / "runs") == runs_index.NONE_YET


def test_fill_needs_its_marks() -> None:
    with pytest.raises(ValueError, match="lacks the marks"):
        runs_index.fill("no marks", "table")
