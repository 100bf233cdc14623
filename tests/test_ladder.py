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
from vitbook.ladders import APART, CIFAR100_LADDER, CROSSING, FEW_LADDER
from vitbook.variants import GPU_VARIANTS, VARIANTS
from vitcore.recipes import RECIPES
from vitcore.records import RunRecord
from vitcore.runs import training_pflop
from vitcore.vit import ViT


def test_plans_hold_every_rung_once():
    cpu = [job.recipe for job in ladder.PLANS["cpu"]]
    assert sorted(cpu) == sorted([*CIFAR100_LADDER, ladder.RESNET])
    gpu = [(job.recipe, job.seed) for job in ladder.PLANS["gpu"]]
    assert len(set(gpu)) == len(gpu)
    assert gpu[:2] == [("cifar100-gpu-linear", 0), ("cifar100-gpu", 0)]
    assert {recipe for recipe, _ in gpu} <= set(RECIPES)
    assert {job.seed for job in ladder.PLANS["cpu"]} == {ladder.SEED}
    assert {job.name for job in ladder.PLANS["seeds"]} == {
        f"{recipe}-seed{seed}" for recipe in cpu for seed in (1, 2)
    }
    plans = {"crossing": CROSSING, "few": FEW_LADDER, "apart": APART, "variants": VARIANTS}
    for plan, recipes in {**plans, "variants-gpu": GPU_VARIANTS}.items():
        jobs = [(job.recipe, job.seed) for job in ladder.PLANS[plan]]
        assert jobs == [(recipe, seed) for seed in (0, 1, 2) for recipe in recipes]


def test_variants_are_known_to_the_command_that_trains_them(tmp_path):
    for plan, module in (("variants", "vitbook.variants"), ("few", "vitbook.ladders")):
        words = ladder.PLANS[plan][-1].command(tmp_path)
        assert words[words.index("--import") + 1] == module


@pytest.mark.parametrize("text", ["flags: avx512f avx512_bf16", "flags: avx2", None])
def test_bf16_where_the_processor_computes_in_it(text, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    if text is not None:
        cpuinfo.write_text(text)
    monkeypatch.setattr(ladder, "CPUINFO", cpuinfo)
    has_it = text is not None and "bf16" in text
    for plan, fast in (("crossing", True), ("few", True), ("apart", True), ("cpu", False)):
        words = ladder.PLANS[plan][0].command(tmp_path)
        assert ("bf16" in words) is (has_it and fast)


def values(monkeypatch, accuracies):
    """Records that hold these validation accuracies, by the name of their folder."""
    record = type("Record", (), {})

    def read(path):
        found = record()
        found.val_accuracy = accuracies[path.parent.name]
        return found

    monkeypatch.setattr(ladder.RunRecord, "read", read)


def test_the_summary_gives_mean_spread_and_verdict(tmp_path, monkeypatch):
    accuracies = {}
    for recipe, mean in zip(CROSSING, (0.10, 0.05, 0.201, 0.203), strict=True):
        for seed, shift in enumerate((-0.01, 0.0, 0.01)):
            accuracies[f"{recipe}-seed{seed}"] = mean + shift
    for name in accuracies:
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").touch()
    values(monkeypatch, accuracies)
    lines = ladder.summary(ladder.PLANS["crossing"], tmp_path)
    assert lines[0] == "cifar100-crossing-short: validation 10.0 % ± 1.0 (3 seeds)"
    assert lines[1].endswith(", -5.0 against cifar100-crossing-short: loss")
    assert lines[3] == "cifar100-few-mix: validation 20.3 % ± 1.0 (3 seeds)"
    for name in accuracies:
        if not name.endswith("seed0"):
            (tmp_path / name / "record.json").unlink()
    lines = ladder.summary(ladder.PLANS["crossing"], tmp_path)
    assert lines[1].endswith("(1 seed), -5.0 against cifar100-crossing-short: one seed")


def test_the_status_says_what_is_left_and_trains_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ladder, "operations_per_second", lambda recipe, precision: 1e15)
    ladder.main(["--plan", "crossing", "--status", "--out", str(tmp_path)])
    told = capsys.readouterr().out
    assert "cifar100-few-mix-seed2: to do" in told
    assert "0 of 12 runs" in told
    seconds = ladder.estimate_seconds(ladder.PLANS["crossing"])
    one = RECIPES[CROSSING[0]]
    each = training_pflop(one, ViT(one.model), 10_000)
    # three seeds; the long runs are ten times the short ones
    assert seconds == pytest.approx(1.15 * 3 * 2 * 11 * each, rel=1e-2)
    assert f"about {seconds / 3600:.1f} hours of one core" in told
    assert not list(tmp_path.iterdir())


def test_speed_is_counted_in_processor_time():
    recipe = RECIPES[CROSSING[0]].with_train(batch_size=8)
    assert 1e7 < ladder.operations_per_second(recipe, "fp32", steps=1) < 1e13


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
    written = json.loads(json.dumps(record.to_dict()))  # JSON knows no tuples
    assert RunRecord.read(tmp_path / "record.json").to_dict() == written
    assert record.recipe["model"]["channels"] == list(resnet.CHANNELS)
    assert record.parameters == sum(p.numel() for p in model.parameters())
    assert not (tmp_path / "model.safetensors").exists()
    # Finished, it is only read.
    again = resnet.run(tmp_path, small_cifar100, recipe=short, device="cpu", progress=False)
    assert json.loads(json.dumps(again.to_dict())) == written
