# SPDX-License-Identifier: MIT
"""A model exported for a page says the same, is half as large, and knows where it came from."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from core_helpers import randomise, small_images, small_vit

from tools.set_repository import ROOT
from vitcore.__main__ import main
from vitcore.export import export_web
from vitcore.training import load_weights, save_weights

LIVE = ROOT / "book" / "_static" / "live"
# What the live pages ship, and the run that it came from.
SHIPPED = {"mnist": "mnist-adamw-seed0", "cifar100": "cifar100-cpu-seed0"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    extra = {"dataset": "mnist", "seen_images": "x" * 5_000, "test_accuracy": 0.5}
    use: dict[str, Any] = {"classes": list("abcde"), "mean": [0.5] * 3, "std": [0.2] * 3}
    save_weights(path, randomise(small_vit()), **use, extra=extra)
    return path


@pytest.mark.parametrize(("half", "size", "error"), [(True, 0.55, 2e-3), (False, 1.0, 0.0)])
def test_a_copy_says_the_same(
    source: Path, tmp_path: Path, half: bool, size: float, error: float
) -> None:
    out = tmp_path / "web" / "copy.safetensors"
    assert export_web(source, out, half=half) == out.stat().st_size < size * source.stat().st_size
    whole, copy = load_weights(source), load_weights(out)
    assert (copy.config, copy.classes) == (whole.config, whole.classes)
    assert (copy.mean, copy.std) == (whole.mean, whole.std)
    assert copy.metadata == {
        "dataset": "mnist",
        "test_accuracy": 0.5,
        "exported_from": hashlib.sha256(source.read_bytes()).hexdigest(),
    }
    logits = [loaded.model(small_images()) for loaded in (whole, copy)]
    assert (logits[0] - logits[1]).abs().max() <= error * logits[0].abs().max()


def test_the_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "copy.safetensors"
    assert main(["export-web", str(source), str(out)]) == 0
    half = out.read_bytes()
    assert f"wrote {out}: {len(half) / 1e3:.0f} kB" in capsys.readouterr().out
    assert main(["export-web", str(source), str(out), "--float32"]) == 0
    assert out.stat().st_size > 1.5 * len(half)
    assert main(["export-web", str(tmp_path / "none"), str(out)]) == 2
    assert "there is no weights file" in capsys.readouterr().err


def test_weights_beyond_float16_are_refused(tmp_path: Path) -> None:
    model = small_vit()
    with torch.no_grad():
        model.head.weight[0, 0] = 70_000  # type: ignore[union-attr, index, operator]
    path = tmp_path / "model.safetensors"
    save_weights(path, model, classes=list("abcde"), mean=[0.5] * 3, std=[0.2] * 3)
    with pytest.raises(ValueError, match=r"holds 70000, beyond float16: add --float32"):
        export_web(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(("name", "limit"), [("mnist", 500e3), ("cifar100", 2e6)])
def test_the_pages_run_the_weights_of_today(name: str, limit: float) -> None:
    source, copy = ROOT / f"runs/{SHIPPED[name]}/model.safetensors", LIVE / f"{name}.safetensors"
    told = load_weights(copy).metadata["exported_from"]
    assert told == hashlib.sha256(source.read_bytes()).hexdigest(), (
        f"the run is another one: python -m vitcore export-web {source.relative_to(ROOT)} "
        f"{copy.relative_to(ROOT)}"
    )
    assert copy.stat().st_size < limit
