# SPDX-License-Identifier: MIT
"""The ladder of chapter 7 (07_cifar100.ipynb) is climbed by one command that resumes."""

# mypy: allow-untyped-defs
from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import pytest
import torch

from benchmarks import ladder, resnet
from vitbook.ladders import CIFAR100_LADDER
from vitcore.recipes import RECIPES
from vitcore.records import RunRecord


def test_plans_hold_every_rung_once():
    cpu = [job.recipe for job in ladder.PLANS["cpu"]]
    assert sorted(cpu) == sorted([*CIFAR100_LADDER, ladder.RESNET])
    gpu = [(job.recipe, job.seed) for job in ladder.PLANS["gpu"]]
    assert len(set(gpu)) == len(gpu)
    assert gpu[:2] == [("cifar100-gpu-linear", 0), ("cifar100-gpu", 0)]
    assert {recipe for recipe, _ in gpu} <= set(RECIPES)
    assert {job.seed for job in ladder.PLANS["cpu"]} == {ladder.SEED}


def fake(words: list[str]) -> list[str]:
    """A command that writes what it was asked to do, and a record on its second start."""
    program = """
import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
starts = out / "starts.json"
seen = json.loads(starts.read_text()) if starts.exists() else []
starts.write_text(json.dumps([*seen, sys.argv[1:]]))
if "slow" in sys.argv and not seen:
    import time
    time.sleep(60)
if "broken" in sys.argv and "ema" in str(out):
    sys.exit("no room on the disk")
(out / "record.json").write_text("{}")
"""
    return [sys.executable, "-c", program, *words[1:]]


@pytest.fixture
def commands(monkeypatch):
    """Runs that take no time, each still a process of its own."""
    real = ladder.Job.command
    monkeypatch.setattr(ladder.Job, "command", lambda job, out: fake(real(job, out)))
    shown = type("Record", (), {"test_accuracy": 0.5, "split": "re-split"})()
    monkeypatch.setattr(ladder.RunRecord, "read", lambda path: shown)


def test_every_run_is_made_once(commands, tmp_path, capsys):
    jobs = ladder.PLANS["cpu"]
    assert ladder.run(tmp_path, jobs, workers=2, extra=["--data", "there"]) == []
    assert capsys.readouterr().out.count("test accuracy 0.5000 (re-split)") == len(jobs)
    for job in jobs:
        (seen,) = json.loads((tmp_path / job.name / "starts.json").read_text())
        assert seen[-4 if not job.alone else -2 :][:2] == ["--data", "there"]
        # One that is alone has all cores.
        assert ("--threads" in seen) is not job.alone
        assert seen[seen.index("--seed") + 1] == "0"
        expected = "benchmarks.resnet" if job.recipe == ladder.RESNET else "vitcore"
        assert seen[1] == expected
        assert ("--resume" in seen) is (expected == "vitcore")
    assert ladder.run(tmp_path, jobs) == []
    assert capsys.readouterr().out == ""


def test_when_the_time_is_up_runs_stop_and_the_next_call_goes_on(commands, tmp_path, capsys):
    jobs = ladder.PLANS["gpu"][:2]
    assert ladder.run(tmp_path, jobs, minutes=1.5 / 60, extra=["slow"]) == []
    assert not ladder.finished(jobs[0], tmp_path)
    assert not (tmp_path / jobs[1].name).exists()
    assert "gpu-linear-seed0: stopped" in capsys.readouterr().out
    assert ladder.run(tmp_path, jobs) == []
    assert all(ladder.finished(job, tmp_path) for job in jobs)


def test_a_run_that_fails_is_named_and_the_others_go_on(commands, tmp_path):
    (failed,) = ladder.run(tmp_path, ladder.PLANS["cpu"], extra=["broken"])
    assert failed.startswith("cifar100-ema-seed0")
    assert "no room on the disk" in (tmp_path / "cifar100-ema-seed0" / "log.txt").read_text()
    assert ladder.finished(ladder.PLANS["cpu"][-1], tmp_path)


def test_the_resnet_is_built_for_small_images_and_trains_to_a_record(tmp_path, small_cifar100):
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    model: Any = resnet.build(resnet.RECIPE.model)
    seen = []
    model.layer1.register_forward_hook(lambda *hook: seen.append(tuple(hook[2].shape)))
    assert model(torch.randn(2, 3, 32, 32)).shape == (2, 100)
    assert seen == [(2, 16, 32, 32)]  # nothing is halved before the first stage
    short = resnet.RECIPE.quick().with_train(epochs=1)
    short = resnet.dataclasses.replace(short, images=(100, 50, 50))
    record = resnet.run(tmp_path, small_cifar100, recipe=short, device="cpu", progress=False)
    assert RunRecord.read(tmp_path / "record.json").to_dict() == record.to_dict()
    assert record.recipe["model"]["channels"] == list(resnet.CHANNELS)
    assert record.parameters == sum(p.numel() for p in model.parameters())
    assert not (tmp_path / "model.safetensors").exists()
    # Finished, it is only read.
    again = resnet.run(tmp_path, small_cifar100, recipe=short, device="cpu", progress=False)
    assert again.to_dict() == record.to_dict()
