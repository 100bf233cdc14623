# SPDX-License-Identifier: MIT
"""Whether two recipes differ by more than their seeds do (chapter 7, and every ladder's table)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["Difference", "Noise", "compare", "measure_noise", "paired_test"]

# Student's t, two-sided, 5 %, by degrees of freedom; beyond them the next smaller entry serves.
_T = {
    **{1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 8: 2.306, 10: 2.228},
    **{12: 2.179, 14: 2.145, 16: 2.120, 18: 2.101, 20: 2.086, 30: 2.042, 60: 2.000},
}


@dataclass(frozen=True)
class Noise:
    """How far seeds move one recipe: the standard deviation, and from how many degrees of freedom
    it was estimated (one for each run beyond the first of a recipe)."""

    deviation: float
    degrees: int


@dataclass(frozen=True)
class Difference:
    """A difference of two means, and how large seeds alone make it in 19 of 20 cases. threshold is
    infinite where no recipe has a second seed."""

    value: float
    threshold: float

    @property
    def verdict(self) -> str:
        """ "gain", "loss", "none" for a difference inside the spread, or "one seed"."""
        if math.isinf(self.threshold):
            return "one seed"
        if abs(self.value) <= self.threshold:
            return "none"
        return "gain" if self.value > 0 else "loss"


def measure_noise(groups: Iterable[Sequence[float]]) -> Noise | None:
    """Pool the spread within all groups, one group the runs of one recipe; None where no recipe
    was run twice. It supposes that seeds move all of them alike."""
    several = [list(group) for group in groups if len(group) > 1]
    degrees = sum(len(group) - 1 for group in several)
    if not degrees:
        return None
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in several)
    return Noise(math.sqrt(squares / degrees), degrees)


def compare(values: Sequence[float], base: Sequence[float], noise: Noise | None) -> Difference:
    """Compare the mean of ``values`` with that of ``base``: Student's t-test with pooled spread.

    ValueError where one of them is empty.
    """
    if not values or not base:
        raise ValueError("a comparison needs at least one run on each side.")
    difference = statistics.fmean(values) - statistics.fmean(base)
    if noise is None:
        return Difference(difference, math.inf)
    t = _T[max(known for known in _T if known <= noise.degrees)]
    return Difference(difference, t * noise.deviation * math.sqrt(1 / len(values) + 1 / len(base)))


def paired_test(first_alone: int, second_alone: int) -> float:
    """McNemar's z of two models on the same images, from the counts of images that one model alone
    gets right; beyond 2 in size, chance makes it in fewer than one case of twenty."""
    both = first_alone + second_alone
    return (first_alone - second_alone) / math.sqrt(both) if both else 0.0
