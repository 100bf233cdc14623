# SPDX-License-Identifier: MIT
"""The leaderboard, from the records of runs/, and the check of a run that is to join it.

    python -m benchmarks.leaderboard                 the table, as the page of results has it
    python -m benchmarks.leaderboard check FOLDER    evaluate a run's weights anew

A run joins with its record.json and its model.safetensors in runs/NAME-seedN.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from vitcore.data import Batches, load_dataset
from vitcore.recipes import Recipe
from vitcore.records import RECORD, RunRecord, read_json
from vitcore.runs import WEIGHTS, check_unseen, training_pflop
from vitcore.training import evaluate, load_weights

ROOT = Path(__file__).resolve().parent.parent
HEADER = (
    "images", "recipe", "test accuracy", "clean training", "parameters", "budget", "PFLOP",
    "time and machine", "command",
)  # fmt: skip
# Weights that were scored in bf16 give a few other answers in fp32.
TOLERANCE = 0.003
SHARED = 0.1  # other work kept that many cores busy, or more: the times are not this run's own


def training_runs(folder: Path) -> list[tuple[str, RunRecord]]:
    """Name and record of every training run in a folder of runs; other records are left out."""
    paths = sorted(folder.glob(f"*/{RECORD}"))
    return [
        (path.parent.name, RunRecord.read(path)) for path in paths if "kind" not in read_json(path)
    ]


def rows(folder: Path) -> list[list[tuple[str, RunRecord]]]:
    """The runs grouped by recipe, whatever its name, over their seeds; by data set, the best first.

    Two runs are of one recipe where all settings but the seed are the same, on the same images.
    """
    groups: dict[str, list[tuple[str, RunRecord]]] = {}
    for name, record in training_runs(folder):
        recipe = {**record.recipe, "note": "", "train": {**record.recipe["train"], "seed": 0}}
        key = json.dumps([record.dataset, record.split, record.parameters, recipe], sort_keys=True)
        groups.setdefault(key, []).append((name, record))

    def rank(runs: list[tuple[str, RunRecord]]) -> tuple[str, str, float]:
        accuracy = statistics.fmean(record.test_accuracy for _, record in runs)
        return runs[0][1].dataset, runs[0][1].split, -accuracy

    return sorted(groups.values(), key=rank)


def _accuracy(records: Sequence[RunRecord]) -> str:
    values = [100 * record.test_accuracy for record in records]
    if len(values) == 1:
        return f"{values[0]:.2f} % (one seed)"
    mean, spread = statistics.fmean(values), statistics.stdev(values)
    return f"{mean:.2f} ± {spread:.2f} % ({len(values)} seeds)"


def _mean(values: Sequence[float | None], pattern: str) -> str:
    known = [value for value in values if value is not None]
    return pattern.format(statistics.fmean(known)) if known else ""


def _machine(records: Sequence[RunRecord]) -> str:
    first = records[0].hardware
    seconds = statistics.fmean(record.wall_seconds for record in records)
    used = f"{first['threads']} of {first['cores']} cores" if first["device"] == "cpu" else "1 GPU"
    text = f"{seconds:,.0f} s, {first['name']}, {used}, {records[0].precision}"
    others = [record.other_cores for record in records]
    if None in others:
        return f"{text}; sharing not noted"
    return f"{text}; shared" if max(other or 0 for other in others) >= SHARED else text


def cells(runs: Sequence[tuple[str, RunRecord]], address: str = "") -> list[str]:
    """One row of Markdown cells, in the order of HEADER. address: before links to the records."""
    records = [record for _, record in runs]
    first = records[0]
    links = ", ".join(f"[{r.seed}]({address}runs/{name}/{RECORD})" for name, r in runs)
    images = first.recipe.get("images")
    seen = f"{images[0]:,} images" if images else "all images"
    return [
        f"{first.dataset} ({first.split})",
        f"`{first.recipe['name']}`, seed {links}",
        _accuracy(records),
        _mean([r.clean_train_accuracy and 100 * r.clean_train_accuracy for r in records],
              "{:.1f} %"),
        f"{first.parameters:,}",
        f"{len(first.epochs)} × {seen}",
        _mean([record.train_pflop for record in records], "{:.4g}"),
        _machine(records),
        f"`{first.command}`",
    ]  # fmt: skip


def table(folder: Path = ROOT / "runs", address: str = "") -> list[str]:
    """The lines of the leaderboard as a Markdown table."""
    lines = [list(HEADER), ["---"] * len(HEADER)]
    lines += [cells(runs, address) for runs in rows(folder)]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def check(folder: Path, data: str | None = None, stand_in: bool = False) -> str:
    """Evaluate a run's weights anew, and say what was found.

    ValueError where the record does not hold: other weights, another division of the images,
    images that training saw, another accuracy or another count of operations.
    """
    record = RunRecord.read(folder / RECORD)
    loaded = load_weights(folder / WEIGHTS)
    recipe = Recipe.from_dict(record.recipe)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if parameters != record.parameters or loaded.config != recipe.model:
        raise ValueError(
            f"the weights in {folder} are of another model than its record: train both anew."
        )
    dataset = load_dataset(record.dataset, data, stand_in=True if stand_in else None)
    if dataset.source.split != record.split:
        raise ValueError(
            f"the record speaks of {record.split} images, and these are {dataset.source.split}: "
            "name the folder that holds those with --data."
        )
    if recipe.images is not None:
        dataset = dataset.subset(*recipe.images)
    check_unseen(loaded, dataset.test)
    batches = Batches(dataset.test, 250, mean=loaded.mean, std=loaded.std)
    found = evaluate(loaded.model, batches, device="cpu")["accuracy"]
    if abs(found - record.test_accuracy) > TOLERANCE:
        raise ValueError(
            f"the weights get {found:.2%} of the test images right, and the record says "
            f"{record.test_accuracy:.2%}: put the record beside the weights of the same run."
        )
    text = f"{folder.name}: test accuracy {found:.2%} ({record.split}), as its record says"
    if record.train_pflop is not None and not recipe.train.compile:
        counted = training_pflop(recipe, loaded.model, len(dataset.train.labels))
        if abs(counted - record.train_pflop) > 0.01 * counted:
            raise ValueError(
                f"training computes {counted:.4g} PFLOP by its recipe, and the record says "
                f"{record.train_pflop:.4g}: leave the record as the command wrote it."
            )
        text += f"; {counted:.4g} PFLOP of training"
    return text


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, or check one run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.leaderboard", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    one = commands.add_parser("check", help="evaluate a run's weights anew")
    one.add_argument("folder", type=Path, help="holds record.json and model.safetensors")
    one.add_argument("--data", metavar="DIR", help="folder that holds NAME.npz")
    one.add_argument("--stand-in", action="store_true", help="drawn images if there are no real")
    given = parser.parse_args(arguments)
    try:
        if given.command == "check":
            print(check(given.folder, given.data, given.stand_in))
        else:
            print("\n".join(table()))
    except (ValueError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
