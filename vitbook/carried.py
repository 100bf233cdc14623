# SPDX-License-Identifier: MIT
"""The table of what a carried ResNet is worth as patch embedding (chapter 10)."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from vitbook.records import find_record
from vitbook.spread import compare, measure_noise

__all__ = ["carried_table"]


def carried_table(record: Mapping[str, Any] | None = None) -> str:
    """Lines for linear patches and each ResNet in their place: the weights that are trained, mean
    and standard deviation of the test accuracy in per cent, and the verdict against linear patches.

    record: in the place of runs/carried, of which "not yet run" is said where there is none.
    """
    record = find_record("carried") if record is None else record
    if record is None:
        return "not yet run: python -m benchmarks.carried (about half an hour of one core)"
    about, rows = record["resnet"], record["variants"]
    values = {name: [100 * a for a in row["test_accuracy"]] for name, row in rows.items()}
    values = {name: seeds for name, seeds in values.items() if seeds}
    noise = measure_noise(values.values())
    lines = [
        f"the ResNet on its own half: {100 * about['test_accuracy']:.1f} % of test images "
        f"after {about['epochs']} epochs",
        f"{'patch embedding':33}{'trained':>9}{'test accuracy':>15}  against linear patches",
    ]
    for name, seeds in values.items():
        spread = f" ± {statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
        reached = f"{statistics.fmean(seeds):.1f}{spread}"
        change = compare(seeds, values["correct"], noise)
        against = "" if name == "correct" else f"  {change.value:+.1f}: {change.verdict}"
        trained = int(rows[name]["trained"][0])
        lines.append(f"{rows[name]['label']:33}{trained:>9,}{reached:>15}{against}")
    done, whole = sum(map(len, values.values())), len(rows) * len(record["seeds"])
    lines.append(f"{record['dataset']} ({record['split']}), seeds of the ViT: {record['seeds']}")
    if done < whole:
        lines.append(f"{done} of {whole} runs are recorded; the others: {record['command']}")
    return "\n".join(lines)
