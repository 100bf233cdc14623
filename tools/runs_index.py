# SPDX-License-Identifier: MIT
"""Bring what is derived from runs/ up to date: make runs-index.

Writes the checksums that vitbook ships (vitbook/runs.json) and the table of results in README.md.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- results begin -->", "<!-- results end -->"
NONE_YET = "No run is recorded yet."

# What only a GPU can run in its time; the rungs of its ladder would make nine rows more.
GPU_RECIPES = ("cifar100-gpu-linear", "cifar100-gpu", "cifar100-t4")


def record_paths(root: Path = ROOT) -> list[Path]:
    """Return the records of all runs, by name."""
    return sorted((root / "runs").glob("*/record.json"))


def share(value: float) -> str:
    """Say a share of one in per cent."""
    return f"{100 * value:.2f} %"


def minutes(seconds: float) -> str:
    """Say seconds as minutes and seconds."""
    whole = round(seconds)
    return f"{whole // 60} min {whole % 60} s"


def training_seconds(records: list[dict[str, Any]]) -> tuple[float, bool]:
    """Return the mean time, and whether other work kept a core busy: then it is processor time."""
    counted = [record for record in records if record.get("other_cores", 0) > 0.5]
    key = "cpu_seconds" if counted else "wall_seconds"
    seconds = [record[key] for record in counted or records]
    return sum(seconds) / len(seconds), bool(counted)


def training_time(records: list[dict[str, Any]]) -> str:
    """Say the mean time, and of what."""
    seconds, shared = training_seconds(records)
    return minutes(seconds) + " of processor time, on a shared machine" * shared


def seeds_apart(values: list[float]) -> str:
    """Say the mean, and the range where there are several."""
    mean = share(sum(values) / len(values))
    if len(values) == 1:
        return mean
    return f"{mean} ({100 * min(values):.2f} to {100 * max(values):.2f})"


def on_what(record: dict[str, Any]) -> str:
    """Name the device of a run, what of it was used, and in which precision."""
    hardware = record["hardware"]
    if hardware["device"] == "cpu":
        used = f"{hardware['threads']} of {hardware['cores']} cores"
    else:
        used = hardware["device"]
    return f"{hardware['name']}, {used}, {record['precision']}"


Groups = dict[tuple[str, str, str], list[tuple[str, dict[str, Any]]]]


def recorded_runs(root: Path = ROOT, ladders: bool = False) -> Groups:
    """Return (data set, recipe, split) -> names and records of the runs of a known recipe.

    ladders: those of the book's ladders too, after the recipes that people use.
    """
    from vitbook.ladders import BOOK_RECIPES
    from vitcore.recipes import RECIPES

    groups: Groups = {}
    for path in record_paths(root):
        record = json.loads(path.read_text(encoding="utf-8"))
        if "kind" in record:  # not one training run
            continue
        name = record["recipe"].get("name")
        if name in BOOK_RECIPES and not ladders:
            continue
        # Runs made for a comparison inside a chapter have no recipe of this name, or shortened it.
        if name in RECIPES and record["recipe"]["train"]["epochs"] == RECIPES[name].train.epochs:
            key = (record["dataset"], name, record["split"])
            groups.setdefault(key, []).append((path.parent.name, record))
    order = list(RECIPES)
    return dict(sorted(groups.items(), key=lambda item: order.index(item[0][1])))


def results_table(root: Path = ROOT) -> str:
    """Return a Markdown table with one row for each recipe that has records.

    Of those that need a GPU the ones that nobody ran yet stand there too, with their command.
    """
    from vitcore.recipes import RECIPES

    groups = recorded_runs(root)
    if not groups:
        return NONE_YET
    lines = [
        "| images | recipe | parameters | test accuracy | training time | hardware | records |",
        "|---|---|---|---|---|---|---|",
    ]
    for (dataset, recipe, split), runs in groups.items():
        records = [record for _, record in runs]
        hardware = sorted({on_what(record) for record in records})
        links = [f"[seed {record['seed']}](runs/{name}/record.json)" for name, record in runs]
        cells = [
            f"{dataset} ({split if split.endswith('split') else f'{split} split'})",
            f"`{recipe}`",
            f"{records[0]['parameters']:,}",
            seeds_apart([record["test_accuracy"] for record in records]),
            training_time(records),
            "; ".join(hardware),
            ", ".join(links),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    ran = {recipe for _, recipe, _ in groups}
    for name in GPU_RECIPES:
        if name not in ran:
            dataset = RECIPES[name].dataset
            command = f"`python -m vitcore train {dataset} --recipe {name}`"
            lines.append(f"| {dataset} | `{name}` | | not yet run | | | {command} |")
    return "\n".join(lines)


def fill(text: str, table: str) -> str:
    """Put ``table`` between the marks in ``text``.

    Raises:
        ValueError: if the marks are not there.
    """
    if BEGIN not in text or END not in text:
        raise ValueError(f"README.md lacks the marks {BEGIN} and {END}.")
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n{table}\n{END}", text)


def main() -> None:
    """Write the index and the table."""
    from vitbook.records import index_runs

    found = index_runs()
    print(f"Indexed {len(found)} runs in vitbook/runs.json")
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text(encoding="utf-8"), results_table()), encoding="utf-8")
    print("Wrote the table of results into README.md")


if __name__ == "__main__":
    main()
