# SPDX-License-Identifier: MIT
"""The variants of chapters 9 and 10 against their base: what they cost, what their runs gave.

    python -m benchmarks.ladder --plan variants --out OUT      trains them; hours
    python -m benchmarks.variants --runs OUT                   collects what is there so far

Writes runs/variants/record.json (runs/variants-gpu/record.json with --plan variants-gpu): of every
variant the parameters, the arithmetic of an image, images a second in training and in use beside
the base's, timed in turns, and the accuracies of every run in OUT with its verdict against the
base. Where a run's weights stand beside its record, the model is read at other image sizes too, and
learned temperatures are kept. What the record holds already is not computed again, and runs that
OUT has no longer stay in it; variants without runs stand there without accuracies.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.ladder import PLANS, SEEDS, computes_bf16, finished
from benchmarks.training import PureCompute, clock
from vitbook import studies
from vitbook.variants import VARIANT_CHANGES
from vitcore.attentions import LocalityAttention
from vitcore.data import Batches, ImageDataset, Split, load_dataset
from vitcore.recipes import RECIPES, Recipe
from vitcore.records import RECORD, RunRecord, commit, hardware, now, versions
from vitcore.runs import WEIGHTS, training_pflop
from vitcore.training import (
    TrainConfig,
    evaluate,
    load_weights,
    resolve_device,
    resolve_precision,
    set_seed,
)
from vitcore.vit import ViT, ViTConfig

SIZES = (24, 32, 40, 48, 64)
"""Sides in pixels at which a model is read that was trained at 32."""
SIZED_IMAGES = 2_000
"""Validation images on which it is read."""
ROUNDS, STEPS = 5, 4
"""Rounds of times, after one that does not count, and batches in each."""


def digest(recipe: Recipe) -> str:
    """A checksum of what decides a run; seed, precision and note are the run's own. What is as by
    default is left out, so that a field more in a later version changes nothing."""
    values = recipe.to_dict()
    values.pop("note")
    for part, usual in (("model", ViTConfig()), ("train", TrainConfig(epochs=1))):
        default = {
            **usual.to_dict(),
            "seed": recipe.train.seed,
            "precision": recipe.train.precision,
        }
        values[part] = {k: v for k, v in values[part].items() if v != default.get(k)}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


# --- what a variant costs -------------------------------------------------------------------------


class _Timed:
    """One recipe's model, in training and in use, on random images of its size."""

    def __init__(self, recipe: Recipe, device: torch.device, steps: int) -> None:
        set_seed(0)
        self.device, self.steps, batch = device, steps, recipe.train.batch_size
        self.compute = PureCompute(ViT(recipe.model), recipe.train, device)
        self.precision = self.compute.precision
        size = recipe.model.image_size
        self.images = torch.randn(batch, recipe.model.in_channels, size, size, device=device)  # type: ignore[arg-type]
        self.labels = torch.randint(recipe.model.num_classes, (batch,), device=device)
        self.count = steps * batch

    def seconds(self) -> float:
        """Of the processor where the model is on it, which other work does not lengthen."""
        return time.process_time() if self.device.type == "cpu" else clock(self.device)

    def train(self) -> float:
        """Time the steps of a round."""
        self.compute.model.train()
        started = self.seconds()
        for _ in range(self.steps):
            self.compute.step(self.images, self.labels)
        return self.seconds() - started

    @torch.no_grad()
    def use(self) -> float:
        """Time the forward passes of a round."""
        self.compute.model.eval()
        dtype = torch.float16 if self.precision == "fp16" else torch.bfloat16
        started = self.seconds()
        with torch.autocast(self.device.type, dtype, enabled=self.precision != "fp32"):
            for _ in range(self.steps):
                self.compute.model(self.images)
        return self.seconds() - started


def measure(recipe: Recipe, base: Recipe, device: torch.device, rounds: int = ROUNDS,
            steps: int = STEPS) -> dict[str, Any]:  # fmt: skip
    """Parameters, arithmetic and speeds of a recipe's model, timed in turns with the base's."""
    both = [_Timed(each, device, steps) for each in (recipe, base)]
    model = both[0].compute.model
    assert isinstance(model, ViT)
    once = recipe.with_train(epochs=1)
    found: dict[str, Any] = {
        "epochs": recipe.train.epochs,
        "parameters": sum(p.numel() for p in model.parameters()),
        "mflop": round(1e9 * training_pflop(once, model.eval(), 1) / 3, 3),
    }
    for what, call in (("training", _Timed.train), ("inference", _Timed.use)):
        times = [[call(timed) for timed in both] for _ in range(rounds + 1)][1:]
        measured, against = ([row[i] for row in times] for i in (0, 1))
        speed = both[0].count / statistics.median(measured)
        ratios = studies.compare_rounds(measured, against)
        found[what] = {"images_per_second": float(f"{speed:.3g}"), **ratios}
    return found


# --- what its runs gave ---------------------------------------------------------------------------


def look_inside(weights: Path, split: Split) -> dict[str, Any]:
    """Accuracy at each size of the images of ``split``, and the temperatures if there are any."""
    loaded = load_weights(weights)
    model = loaded.model
    assert isinstance(model, ViT)
    found: dict[str, Any] = {"by_size": {}}
    for size in SIZES:
        batches = Batches(split, 250, mean=loaded.mean, std=loaded.std, sizes=[size])
        found["by_size"][str(size)] = round(evaluate(model, batches)["accuracy"], 4)
    layers: list[Any] = [block.attn for block in model.blocks]
    if all(isinstance(layer, LocalityAttention) for layer in layers):
        found["temperatures"] = [
            [round(value, 3) for value in layer.log_temperature.exp().tolist()] for layer in layers
        ]
    return found


def read_run(folder: Path, recipe: Recipe, known: dict[str, Any] | None,
             images: Callable[[], Split]) -> dict[str, Any]:  # fmt: skip
    """What one finished run gave; ``known`` is what a record says of it already."""
    record = RunRecord.read(folder / RECORD)
    if digest(Recipe.from_dict(record.recipe)) != digest(recipe):
        raise ValueError(
            f"{folder} holds a run of another recipe than {recipe.name}, shortened or of an older "
            "version: name the folder of the full runs with --runs, or train it again."
        )
    keys = ("seed", "split", "date", "commit", "val_accuracy", "test_accuracy")
    row = {key: getattr(record, key) for key in (*keys, "clean_train_accuracy")}
    if known is not None and known["date"] == record.date:
        row = {**known, **row}
    if "by_size" not in row and (folder / WEIGHTS).is_file():
        row |= look_inside(folder / WEIGHTS, images())
    return row


def _read_runs(name: str, known: Sequence[dict[str, Any]], plan: str, runs: Path,
               images: Callable[[], Split]) -> list[dict[str, Any]]:  # fmt: skip
    """All runs of a variant, by seed: those of the folder, and those that the record had."""
    found = {row["seed"]: row for row in known}
    for job in PLANS[plan]:
        if job.recipe == name and finished(job, runs):
            old = found.get(job.seed)
            found[job.seed] = read_run(runs / job.name, RECIPES[name], old, images)
    return [found[seed] for seed in sorted(found)]


# --- the record -----------------------------------------------------------------------------------


def _known(path: Path, **as_now: Any) -> dict[str, Any]:
    """The variants of the record that is there, without times that were taken otherwise."""
    if not path.exists():
        return {}
    record = studies.VariantsRecord.read(path)
    same = all(getattr(record, name) == value for name, value in as_now.items())
    costs = () if same else ("training", "inference")
    return {name: {key: value for key, value in row.items() if key not in costs}
            for name, row in record.variants.items()}  # fmt: skip


def run(
    out: Path,
    runs: Path,
    *,
    plan: str = "variants",
    load: Callable[[str], ImageDataset] = load_dataset,
    device: str = "auto",
    rounds: int = ROUNDS,
    say: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Bring OUT/record.json up to date, variant by variant, and return it."""
    code, started = commit(), time.perf_counter()
    names = dict(zip(VARIANT_CHANGES, dict.fromkeys(j.recipe for j in PLANS[plan]), strict=True))
    base, where = RECIPES[next(iter(names.values()))], resolve_device(device)
    fast = "bf16" if computes_bf16() else "fp32"
    precision = resolve_precision("auto" if where.type != "cpu" else fast, where)
    machine = hardware(where)
    rows = _known(out / RECORD, hardware=machine, rounds=rounds, precision=precision)
    images = functools.cache(lambda: load(base.dataset).subset(0, SIZED_IMAGES, 0).val)
    record: dict[str, Any] = {}
    for name, full in names.items():
        recipe, row = RECIPES[full], rows.get(name, {})
        if row.get("recipe") != digest(recipe):
            row = {"recipe": digest(recipe), "runs": []}
        if "training" not in row:
            say(f"{name}: timed")
            ours, theirs = (each.with_train(precision=precision) for each in (recipe, base))
            costs = measure(ours, theirs, where, rounds)
            row = {"recipe": row["recipe"], **costs, "runs": row["runs"]}
        row["runs"] = _read_runs(full, row["runs"], plan, runs, images)
        rows[name] = row
        whole = {key: rows[key] for key in names if "training" in rows.get(key, {})}
        record = {
            "kind": studies.VariantsRecord.KIND,
            "command": "python -m benchmarks.variants" + " --plan variants-gpu" * ("gpu" in plan),
            "commit": code,
            "date": now(),
            "hardware": machine,
            "versions": versions(),
            "wall_seconds": round(time.perf_counter() - started, 2),
            "base": next(iter(names)),
            "dataset": base.dataset,
            "precision": precision,
            "seeds": list(SEEDS),
            "rounds": rounds,
            "sizes": list(SIZES),
            "sized_images": SIZED_IMAGES,
            "variants": whole,
            "summary": studies.judge_variants(whole, next(iter(names))),
        }
        studies.VariantsRecord.from_dict(record).write(out / RECORD)
    return record


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, collect, say what the record holds."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.variants", description=__doc__)
    parser.add_argument("--plan", choices=("variants", "variants-gpu"), default="variants")
    parser.add_argument("--runs", default="runs", metavar="OUT", help="default: %(default)s")
    parser.add_argument("--out", metavar="DIR", help="default: runs/PLAN")
    parser.add_argument("--data", metavar="DIR", help="folder that holds cifar100.npz")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, mps")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    out = Path(given.out or f"runs/{given.plan}")
    try:
        record = run(
            out,
            Path(given.runs),
            plan=given.plan,
            load=functools.partial(load_dataset, data_dir=given.data),
            device=given.device,
        )
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(str(error))
    done = sum(len(row["runs"]) for row in record["variants"].values())
    print(f"{done} of {len(PLANS[given.plan])} runs are in {out / RECORD}")


if __name__ == "__main__":
    main()
