# SPDX-License-Identifier: MIT
"""All runs of chapter 7 by one command, which goes on where it was stopped.

python -m benchmarks.ladder trains the rungs of CIFAR-100 and the ResNet beside them on two cores;
python -m benchmarks.ladder --plan gpu what needs a GPU, the two best models first. Every run writes
OUT/NAME-seedN/record.json by a command of its own, which the record repeats; one that is finished
is left alone, one that was stopped goes on from its last epoch.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vitbook.ladders import CIFAR100_LADDER
from vitcore.recipes import RECIPES
from vitcore.records import RECORD, RunRecord

RESNET = "cifar100-resnet"
SEED = 0  # declared before any run; every run that was made is kept


@dataclass(frozen=True)
class Job:
    """One run: a recipe (or the ResNet), a seed, and whether it has the machine to itself."""

    recipe: str
    seed: int = SEED
    alone: bool = False

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
            words += ["--import", "vitbook.ladders"]
        return [sys.executable, "-m", *words, "--seed", str(self.seed), "--out", str(out)]


_GPU_LADDER = tuple(name.replace("cifar100", "cifar100-gpu", 1) for name in CIFAR100_LADDER)

PLANS: dict[str, tuple[Job, ...]] = {
    "cpu": (
        *(Job(name) for name in CIFAR100_LADDER[:-1]),
        Job(RESNET),
        Job(CIFAR100_LADDER[-1], alone=True),
    ),
    "gpu": (
        Job("cifar100-gpu-linear"),
        Job("cifar100-gpu"),
        *(Job(name) for name in _GPU_LADDER),
        *(Job(name, seed) for seed in (1, 2) for name in ("cifar100-gpu-linear", "cifar100-gpu")),
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, make what is missing, say what is there."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ladder", description=__doc__)
    parser.add_argument("--plan", choices=PLANS, default="cpu", help="default: %(default)s")
    parser.add_argument("--out", default="runs", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--data", metavar="DIR", help="folder that holds cifar100.npz")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="runs at a time (default: 1)"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), metavar="M",
                        help="stop after M minutes; the next call goes on")  # fmt: skip
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
    if given.workers < 1 or given.minutes <= 0:
        parser.error("--workers and --minutes must be above zero")
    extra = ["--device", given.device]
    extra += ["--data", given.data] if given.data else []
    extra += ["--quick"] * given.quick + ["--stand-in"] * given.stand_in
    jobs = PLANS[given.plan]
    try:
        failed = run(given.out, jobs, workers=given.workers, minutes=given.minutes, extra=extra)
        there = sum(finished(job, Path(given.out)) for job in jobs)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"{there} of {len(jobs)} runs are in {given.out}")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
