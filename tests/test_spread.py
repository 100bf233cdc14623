# SPDX-License-Identifier: MIT
"""vitbook.spread: a difference inside the spread of the seeds is none (07_cifar100.ipynb)."""

# mypy: allow-untyped-defs
from __future__ import annotations

import math
import random

import pytest

from vitbook.spread import Difference, Noise, compare, measure_noise, paired_test


def test_noise_is_pooled_over_the_recipes():
    noise = measure_noise([[1.0, 3.0], [10.0, 12.0, 14.0], [7.0]])
    assert noise is not None
    assert noise.degrees == 3
    # sums of squares about the means: 2 and 8
    assert noise.deviation == pytest.approx(math.sqrt(10 / 3))
    assert measure_noise([[1.0], [2.0]]) is None


def test_verdicts():
    noise = Noise(deviation=1.0, degrees=4)
    least = 2.776 * math.sqrt(2 / 3)
    for shift, verdict in ((0.9, "none"), (1.1, "gain"), (-0.9, "none"), (-1.1, "loss")):
        found = compare([5 + shift * least] * 3, [5.0] * 3, noise)
        assert found.value == pytest.approx(shift * least)
        assert found.threshold == pytest.approx(least)
        assert found.verdict == verdict
    assert compare([9.0], [1.0], None).verdict == "one seed"
    assert Difference(0.0, 0.0).verdict == "none"
    with pytest.raises(ValueError, match="at least one run"):
        compare([], [1.0], noise)


def test_equal_recipes_are_told_apart_in_one_case_of_twenty():
    draw = random.Random(0)
    wrong = 0
    for _ in range(2000):
        one, other = ([draw.gauss(0, 1) for _ in range(3)] for _ in range(2))
        wrong += compare(one, other, measure_noise([one, other])).verdict != "none"
    assert 0.035 < wrong / 2000 < 0.065


def test_the_paired_test_is_mcnemars():
    assert paired_test(60, 40) == pytest.approx(2.0)
    assert paired_test(40, 60) == pytest.approx(-2.0)
    assert paired_test(0, 0) == 0
