# SPDX-License-Identifier: MIT
"""All runs of chapters 7, 9 and 10, plan by plan, by one command that goes on where it was stopped.

    python -m benchmarks.ladder --plan crossing --status    what is done, and what is left
    python -m benchmarks.ladder --plan crossing --limit-minutes 60

Plans: cpu (the rungs on all images and the ResNet beside them), seeds (the same from two seeds
more), crossing (short and long training, images as they are and changed), few (the rungs on a
fifth of the images), apart (the best recipe with one part out at a time), gpu (what needs a GPU),
variants (each attention, position and way of cutting patches of chapters 9 and 10 against one base
at the same arithmetic), variants-gpu (the same at a GPU's size).
Every run writes OUT/NAME-seedN/record.json by a command of its own, which the record repeats; one
that is finished is left alone, one that was stopped goes on from its last epoch. At the end stand
mean and spread of every recipe, and whether it differs from the one that it builds on.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vitbook.ladders import APART, BUILDS_ON, CIFAR100_LADDER, CROSSING, FEW_LADDER
from vitbook.spread import compare, measure_noise
from vitbook.variants import GPU_VARIANTS, VARIANTS
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RECORD, RunRecord
from vitcore.runs import training_pflop
from vitcore.training import cross_entropy
from vitcore.vit import ViT

RESNET = "cifar100-resnet"
SEEDS = (0, 1, 2)  # declared before any run; every run that was made is kept
SEED = SEEDS[0]
CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Job:
    """One run: a recipe (or the ResNet), a seed, and whether it has the machine to itself."""

    recipe: str
    seed: int = SEED
    alone: bool = False
    fast: bool = False  # in bf16 where the processor computes in it

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.recipe}-seed{self.seed}"

    def command(self, out: Path) -> list[str]:
        """What trains it, or goes on with it."""
        if self.recipe == RESNET:
            words = ["benchmarks.resnet"]
        else:
            recipe = RECIPES[self.recipe]
            words = ["vitcore", "train", recipe.dataset, "--recipe", recipe.name, "--resume"]
            theirs = recipe.name in (*VARIANTS, *GPU_VARIANTS)
            words += ["--import", "vitbook.variants" if theirs else "vitbook.ladders"]
            words += ["--precision", "bf16"] if self.fast and computes_bf16() else []
        return [sys.executable, "-m", *words, "--seed", str(self.seed), "--out", str(out)]


def computes_bf16() -> bool:
    """Whether this processor multiplies matrices in bf16, which others only imitate."""
    try:
        return "avx512_bf16" in CPUINFO.read_text(encoding="utf-8")
    except OSError:
        return False


def _by_seed(names: Sequence[str]) -> tuple[Job, ...]:
    """All of one seed before the next: a plan that was stopped compares fairly."""
    return tuple(Job(name, seed, fast=True) for seed in SEEDS for name in names)


_GPU_LADDER = tuple(name.replace("cifar100", "cifar100-gpu", 1) for name in CIFAR100_LADDER)

PLANS: dict[str, tuple[Job, ...]] = {
    "cpu": (
        *(Job(name) for name in CIFAR100_LADDER[:-1]),
        Job(RESNET),
        Job(CIFAR100_LADDER[-1], alone=True),
    ),
    "seeds": tuple(Job(name, seed) for seed in SEEDS[1:] for name in (*CIFAR100_LADDER, RESNET)),
    "crossing": _by_seed(CROSSING),
    "few": _by_seed(FEW_LADDER),
    "apart": _by_seed(APART),
    "variants": _by_seed(VARIANTS),
    "variants-gpu": _by_seed(GPU_VARIANTS),
    "gpu": (
        Job("cifar100-gpu-linear"),
        Job("cifar100-gpu"),
        *(Job(name) for name in _GPU_LADDER),
        *(
            Job(name, seed)
            for seed in SEEDS[1:]
            for name in ("cifar100-gpu-linear", "cifar100-gpu")
        ),
    ),
}
"""The runs of each plan, in the order in which they are made."""


def finished(job: Job, out: Path) -> bool:
    """Whether the run's record is there; ValueError where what is there is no record."""
    return (out / job.name / RECORD).exists() and bool(RunRecord.read(out / job.name / RECORD))


class _Runner:
    """Starts the commands, and ends those that are running when the time is up."""

    def __init__(self, out: Path, extra: Sequence[str], deadline: float, quiet: bool = False):
        self.out, self.extra, self.deadline, self.quiet = out, list(extra), deadline, quiet
        self.failed: list[str] = []
        self.lock = threading.Lock()

    def __call__(self, job: Job, threads: int | None) -> None:
        left = self.deadline - time.monotonic()
        if left <= 0:
            return
        words = [*job.command(self.out / job.name), *self.extra]
        if threads is not None:
            words += ["--threads", str(threads)]
        (self.out / job.name).mkdir(parents=True, exist_ok=True)
        log = self.out / job.name / "log.txt"
        started = time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            process = subprocess.Popen(words, stdout=file, stderr=subprocess.STDOUT)
            try:
                code = process.wait(None if left == float("inf") else left)
            except subprocess.TimeoutExpired:
                process.terminate()  # what it has is in its checkpoint
                code = process.wait()
        done = finished(job, self.out)
        with self.lock:
            if code and not done and time.monotonic() < self.deadline:
                self.failed.append(f"{job.name} (see {log})")
            if not self.quiet:
                state = "stopped"
                if done:
                    record = RunRecord.read(self.out / job.name / RECORD)
                    state = f"test accuracy {record.test_accuracy:.4f} ({record.split})"
                print(f"{job.name}: {state}, {time.monotonic() - started:.0f} s", flush=True)


def run(
    out: str | os.PathLike[str],
    jobs: Sequence[Job],
    *,
    workers: int = 1,
    minutes: float = float("inf"),
    extra: Sequence[str] = (),
) -> list[str]:
    """Make the runs that OUT lacks, and return the names of those that failed.

    ``workers`` runs share the cores, but one that is to be alone has them all. After ``minutes``
    nothing more is started, and what runs is stopped at its last checkpoint. ``extra`` goes to
    every command.
    """
    out = Path(out)
    runner = _Runner(out, extra, time.monotonic() + 60 * minutes)
    todo = [job for job in jobs if not finished(job, out)]
    share = None if workers == 1 else max(1, (os.cpu_count() or 1) // workers)
    with ThreadPoolExecutor(workers) as pool:
        together = [pool.submit(runner, job, share) for job in todo if not job.alone]
        for future in together:
            future.result()
    for job in todo:
        if job.alone:
            runner(job, None)
    return runner.failed


# --- what is left, and what came out --------------------------------------------------------------


def operations_per_second(recipe: Recipe, precision: str, steps: int = 3) -> float:
    """Floating-point operations of training in a second of processor time, from a few steps."""
    model, batch = ViT(recipe.model), recipe.train.batch_size
    images = torch.randn(batch, recipe.model.in_channels, 32, 32)
    labels = torch.randint(recipe.model.num_classes, (batch,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    began = 0.0
    for step in range(steps + 1):
        if step == 1:
            began = time.process_time()  # the first step only warms up
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(images)
        optimizer.zero_grad()
        cross_entropy(logits, labels).backward()
        optimizer.step()
    once = dataclasses.replace(recipe.with_train(epochs=1), sizes=())
    return 1e15 * steps * training_pflop(once, model, batch) / (time.process_time() - began)


def estimate_seconds(jobs: Sequence[Job]) -> float:
    """Processor time that these runs need on this machine, validation included."""
    total = 0.0
    speeds: dict[tuple[object, str], float] = {}
    for job in jobs:
        # The ResNet is no ViT; it takes about as long as a rung of the ladder beside it.
        recipe = RECIPES[CIFAR100_LADDER[-2] if job.recipe == RESNET else job.recipe]
        precision = "bf16" if job.fast and computes_bf16() else "fp32"
        key = (recipe.model, precision)
        if key not in speeds:
            speeds[key] = operations_per_second(recipe, precision)
        images = recipe.images[0] if recipe.images else 45_000
        total += 1e15 * training_pflop(recipe, ViT(recipe.model), images) / speeds[key]
    return 1.15 * total


def status(jobs: Sequence[Job], out: Path) -> list[str]:
    """Lines that say what is done, what is left, and for how long."""
    left = [job for job in jobs if not finished(job, out)]
    lines = [f"{job.name}: {'to do' if job in left else 'done'}" for job in jobs]
    lines.append(f"{len(jobs) - len(left)} of {len(jobs)} runs are in {out}")
    if left and not any("gpu" in job.recipe for job in left):
        hours = estimate_seconds(left) / 3600
        lines.append(f"the rest takes about {hours:.1f} hours of one core of this machine")
    return lines


def summary(jobs: Sequence[Job], out: Path) -> list[str]:
    """A line for each recipe of a plan: mean and spread over its seeds, and how it stands to the
    recipe that it builds on. A recipe's seeds may have been made by several plans."""
    found: dict[str, list[RunRecord]] = {}
    for name in dict.fromkeys(job.recipe for job in jobs):
        runs = [Job(name, seed) for seed in SEEDS]
        records = [RunRecord.read(out / run.name / RECORD) for run in runs if finished(run, out)]
        if records:
            found[name] = records
    values = {n: [100 * record.val_accuracy for record in found[n]] for n in found}
    noise = measure_noise(values.values())
    lines = []
    for name, accuracies in values.items():
        line = f"{name}: validation {statistics.fmean(accuracies):.1f} %"
        if len(accuracies) > 1:
            line += f" ± {statistics.stdev(accuracies):.1f}"
        line += f" ({len(accuracies)} seed{'s' * (len(accuracies) > 1)})"
        if (base := BUILDS_ON.get(name)) in values:
            change = compare(accuracies, values[base], noise)
            line += f", {change.value:+.1f} against {base}: {change.verdict}"
        lines.append(line)
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make what is missing, say what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__)
    parser.add_argument("--plan", choices=PLANS, default="cpu", help="default: %(default)s")
    parser.add_argument("--out", default="runs", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--data", metavar="DIR", help="folder that holds cifar100.npz")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="runs at a time (default: 1)"
    )
    parser.add_argument("--limit-minutes", type=float, default=float("inf"), metavar="M",
                        help="stop after M minutes; the next call goes on")  # fmt: skip
    parser.add_argument(
        "--status", action="store_true", help="say what is done and left, and train nothing"
    )
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="two short epochs a run, to see that it works; needs its own --out",
    )
    parser.add_argument("--stand-in", action="store_true", help="drawn images if there are no real")
    given = parser.parse_args(arguments)
    if given.quick and Path(given.out) == Path("runs"):
        parser.error("--quick needs its own folder: name one with --out")
    if given.workers < 1 or given.limit_minutes <= 0:
        parser.error("--workers and --limit-minutes must be above zero")
    extra = ["--device", given.device]
    extra += ["--data", given.data] if given.data else []
    extra += ["--quick"] * given.quick + ["--stand-in"] * given.stand_in
    jobs, out, failed = PLANS[given.plan], Path(given.out), list[str]()
    limits: dict[str, Any] = {"workers": given.workers, "minutes": given.limit_minutes}
    try:
        if not given.status:
            failed = run(out, jobs, extra=extra, **limits)
        print("\n".join([*status(jobs, out), *summary(jobs, out)]))
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
