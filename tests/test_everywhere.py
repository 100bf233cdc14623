# SPDX-License-Identifier: MIT
"""The comparison of one model everywhere compares what it says, and its record cannot be wrong."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import everywhere
from tools.set_repository import ROOT
from vitbook import records
from vitcore.export import export_web
from vitcore.training import load_weights

MNIST = ROOT / "runs/mnist-adamw-seed0/model.safetensors"
CIFAR100 = ROOT / "runs/cifar100-cpu-seed0/model.safetensors"


def test_logits_are_judged() -> None:
    expected = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    found = expected.clone()
    found[3, 1] = 5.25
    assert everywhere.judge(found, expected) == {
        "images": 4, "difference": 1.25, "agreement": 0.75,
    }  # fmt: skip


def test_timm_has_the_same_weights_or_says_why_not() -> None:
    loaded = load_weights(MNIST)
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = (
            everywhere.like_timm(loaded)(images),
            loaded.model(loaded.normalise(images)),
        )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    with pytest.raises(everywhere.CannotRun, match="neither this stem nor this attention"):
        everywhere.like_timm(load_weights(CIFAR100))


@pytest.mark.skipif(shutil.which("node") is None, reason="No Node")
def test_node_answers_until_it_is_stopped(tmp_path: Path) -> None:
    loaded = load_weights(MNIST)
    export_web(MNIST, tmp_path / "web", half=False)
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    page = everywhere.JavaScript(loaded, tmp_path / "web", images, tmp_path)
    try:
        with torch.no_grad():
            expected = loaded.model(loaded.normalise(images))
        for count in (4, 1):
            seconds, found = page.ask(count, times=2)
            assert seconds > 0
            torch.testing.assert_close(found, expected[:count], atol=1e-4, rtol=0)
    finally:
        page.stop()
    assert page.process.returncode == 0


def small_record() -> dict[str, Any]:
    def way(seconds: list[float], ratio: float) -> dict[str, Any]:
        times = {"single_seconds": seconds, "batch_seconds": seconds}
        ratios = {"single_ratio": ratio, "batch_ratio": ratio}
        return {"images": 1000, "difference": 2.86e-06, "agreement": 0.999, "bytes": 594_391,
                **times, **ratios}  # fmt: skip

    ways = {"torch": way([0.1, 0.1], 1.0), "onnx": way([0.05, 0.05], 0.5)}
    model = {"label": "MNIST", "ways": {**ways, "timm": {"cannot": "no such model"}}}
    return {
        "kind": "everywhere", "command": "c", "commit": "x", "date": "d", "hardware": {},
        "versions": {}, "batch": 20, "rounds": 2, "wall_seconds": 1.0, "other_cores": 0.5,
        "models": {"mnist-adamw-seed0": model},
    }  # fmt: skip


def test_a_record_is_told_in_a_table() -> None:
    lines = everywhere.table(records.EverywhereRecord.from_dict(small_record()).to_dict())
    words = "| MNIST | ONNX Runtime | 2.9e-06 | 99.9 % of 1,000 | 594 kB | 0.50 | 0.50 |"
    assert lines[3] == words
    assert lines[4] == "| MNIST | torch, timm | no such model |  |  |  |  |"
    assert {line.count("|") for line in lines} == {8}


def test_a_ratio_that_its_times_do_not_give_is_refused() -> None:
    wrong = copy.deepcopy(small_record())
    wrong["models"]["mnist-adamw-seed0"]["ways"]["onnx"]["batch_ratio"] = 0.4
    with pytest.raises(ValueError, match=r"batch_ratio of onnx of mnist-adamw-seed0 in .* is not"):
        records.EverywhereRecord.from_dict(wrong)
