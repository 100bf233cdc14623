# SPDX-License-Identifier: MIT
"""The comparison of one model everywhere compares what it says, and its record cannot be wrong."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import everywhere
from tools.set_repository import ROOT
from vitbook import studies
from vitcore.data.download import checksum
from vitcore.training import load_weights

MNIST = ROOT / "runs/mnist-adamw-seed0/model.safetensors"
CIFAR100 = ROOT / "runs/cifar100-cpu-seed0/model.safetensors"
COMMITTED = ROOT / everywhere.OUT / "record.json"
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="No Node")


@pytest.fixture
def model(tmp_path: Path) -> everywhere.Model:
    images = torch.rand(4, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    return everywhere.Model(MNIST, load_weights(MNIST), images, tmp_path)


def answer(model: everywhere.Model) -> Tensor:
    with torch.no_grad():
        return model.loaded.model(model.loaded.normalise(model.images))


def test_logits_are_judged() -> None:
    expected = torch.tensor([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0], [5.0, 4.0]])
    found = expected.clone()
    found[3, 1] = 5.25
    assert everywhere.judge(found, expected) == {"difference": 1.25, "agreement": 0.75}


def test_timm_has_the_same_weights_or_says_why_not(
    model: everywhere.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    way, size = everywhere.in_timm(model)
    assert size == MNIST.stat().st_size
    torch.testing.assert_close(way.ask(1, 2)[1], answer(model)[1:3], atol=1e-5, rtol=0)
    other = everywhere.Model(CIFAR100, load_weights(CIFAR100), model.images, model.folder)
    with pytest.raises(everywhere.CannotRunError, match="neither this stem nor this attention"):
        everywhere.in_timm(other)
    monkeypatch.setattr(everywhere, "find_spec", lambda name: None)
    with pytest.raises(everywhere.CannotRunError, match="needs timm"):
        everywhere.in_timm(model)
    with pytest.raises(everywhere.CannotRunError, match="needs onnx and onnxscript and onnxrun"):
        everywhere.in_onnx(model, "int8")


@needs_node
def test_node_answers_until_it_is_stopped(model: everywhere.Model) -> None:
    way, _ = everywhere.in_javascript(model, half=False)
    assert isinstance(way, everywhere.JavaScript)
    try:
        for first, count in ((0, 4), (2, 1)):
            seconds, found = way.ask(first, count, times=2)
            assert seconds > 0
            expected = answer(model)[first : first + count]
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    finally:
        way.stop()
    assert way.process.returncode == 0


@needs_node
def test_a_way_that_cannot_run_is_named_and_the_rest_compared(
    model: everywhere.Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bent model is seen, and Node is stopped at the end."""

    def bent(given: everywhere.Model) -> tuple[everywhere.Way, int]:
        return everywhere.InPython(lambda x: -given.loaded.model(x), given.images), 5

    def lacking(given: everywhere.Model) -> tuple[everywhere.Way, int]:
        raise everywhere.CannotRunError("needs nothing that there is")

    started: list[Any] = []

    def page(given: everywhere.Model) -> tuple[everywhere.Way, int]:
        started.append(everywhere.in_javascript(given, half=True))
        return started[-1]

    ways: Any = {"torch": everywhere.in_torch, "bent": bent, "lacking": lacking, "page": page}
    monkeypatch.setattr(everywhere, "WAYS", {name: (name, make) for name, make in ways.items()})
    monkeypatch.setattr(everywhere, "AT_ONCE", 3)  # which does not divide four images
    monkeypatch.setattr(everywhere, "BATCH", 2)
    rows = everywhere.compare(model, rounds=2)
    assert rows["torch"]["difference"] == 0
    assert rows["torch"]["single_ratio"] == rows["torch"]["batch_ratio"] == 1
    assert rows["bent"]["difference"] > 1
    assert rows["bent"]["bytes"] == 5
    assert rows["lacking"] == {"cannot": "needs nothing that there is"}
    assert 0 < rows["page"]["difference"] < 0.1
    assert rows["page"]["agreement"] == 1
    assert len(rows["page"]["batch_seconds"]) == 2
    assert started[0][0].process.returncode == 0


def small_record() -> dict[str, Any]:
    def way(seconds: list[float], ratio: float) -> dict[str, Any]:
        times = {"single_seconds": seconds, "batch_seconds": seconds}
        ratios = {"single_ratio": ratio, "batch_ratio": ratio}
        return {"difference": 2.86e-06, "agreement": 0.999, "bytes": 594_391, **times, **ratios}

    ways = {"torch": way([0.1, 0.1], 1.0), "onnx": way([0.05, 0.05], 0.5)}
    model = {"label": "MNIST", "ways": {**ways, "timm": {"cannot": "needs timm"}}}
    return {
        "kind": "everywhere", "command": "c", "commit": "x", "date": "d", "hardware": {},
        "versions": {}, "wall_seconds": 1.0, "images": 1000, "batch": 20, "rounds": 2,
        "models": {"mnist-adamw-seed0": model},
    }  # fmt: skip


def test_a_record_is_told_in_a_table() -> None:
    lines = everywhere.table(studies.EverywhereRecord.from_dict(small_record()).to_dict())
    assert lines[3] == "| MNIST | ONNX Runtime | 3e-06 | 99.9 % | 594 kB | 0.50 | 0.50 |"
    assert lines[4] == "| MNIST | torch, timm | no: needs timm |  |  |  |  |"
    assert {line.count("|") for line in lines} == {8}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("batch_ratio", 0.4, "batch_ratio of onnx of mnist-adamw-seed0 in .* is not what its"),
        ("single_seconds", [0.05], "single_seconds of onnx of .* needs one for each round"),
    ],
)
def test_what_the_times_do_not_give_is_refused(key: str, value: Any, words: str) -> None:
    wrong = copy.deepcopy(small_record())
    wrong["models"]["mnist-adamw-seed0"]["ways"]["onnx"][key] = value
    with pytest.raises(ValueError, match=words):
        studies.EverywhereRecord.from_dict(wrong)


def test_the_committed_record_is_of_the_weights_of_today_and_agrees() -> None:
    record = studies.EverywhereRecord.read(COMMITTED)
    assert list(record.models) == list(everywhere.RUNS)
    for name, model in record.models.items():
        assert model["weights"] == checksum(ROOT / f"runs/{name}/model.safetensors", "sha256")
        ways = {way: told for way, told in model["ways"].items() if "cannot" not in told}
        assert {*model["ways"]} == {*everywhere.WAYS}
        assert {*everywhere.WAYS} - {*ways} <= {"timm"}, "run it where every package is installed"
        for way in ("torch", "timm", "torch.export", "onnx", "javascript"):
            if way in ways:
                assert ways[way]["difference"] < 1e-4, way
                assert ways[way]["agreement"] == 1, way
    assert "cannot" not in record.models["mnist-adamw-seed0"]["ways"]["timm"]
    assert json.loads(COMMITTED.read_text("utf-8")) == record.to_dict()
    page = " ".join((ROOT / "book" / "elsewhere.md").read_text("utf-8").split())
    assert f"on {record.images} test images each" in page
    assert f"in a batch of {record.batch}," in page
    assert record.rounds == 11
    assert "medians of eleven rounds" in page
