# SPDX-License-Identifier: MIT
"""vitcore.data.mixing: boxes and shares as the papers draw them."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import numpy as np
import pytest
import torch

from vitcore.data import build_mix

COUNT, SIZE = 3000, 64


@pytest.fixture(scope="module")
def pasted():
    """Boxes that CutMix pasted into images of one number each: (rows, columns) marked, share."""
    mix = build_mix("mixup_cutmix", num_classes=2, cutmix_share=1.0)
    assert mix is not None
    numbers = torch.arange(COUNT) % 2  # the one before is always the other class
    images = numbers.view(-1, 1, 1, 1).float().expand(-1, 1, SIZE, SIZE)
    mixed, targets = mix(images, numbers, torch.Generator().manual_seed(0))
    marked = mixed[:, 0] != images[:, 0]
    own = targets.gather(1, numbers[:, None]).squeeze(1)
    return marked.any(dim=2), marked.any(dim=1), own


def test_targets_are_shared_by_the_area_that_is_left(pasted):
    rows, cols, own = pasted
    area = rows.sum(1) * cols.sum(1) / SIZE**2
    torch.testing.assert_close(own, 1 - area)


def reference_areas(rng):
    """Yun et al. (2019), equation 2: sides of sqrt(1 - lambda), one centre an axis, clipped."""
    side = SIZE * np.sqrt(1 - rng.uniform(size=COUNT))
    area = np.ones(COUNT)
    for centre in SIZE * rng.uniform(size=(2, COUNT)):
        low, high = np.clip(centre - side / 2, 0, SIZE), np.clip(centre + side / 2, 0, SIZE)
        area *= (high - low) / SIZE
    return area


def test_boxes_are_as_large_as_the_paper_draws_them(pasted):
    _, _, own = pasted
    expected = reference_areas(np.random.default_rng(0))
    assert (1 - own).mean().item() == pytest.approx(expected.mean(), abs=0.03)
    assert (1 - own).std().item() == pytest.approx(expected.std(), abs=0.03)


def test_a_box_reaches_as_far_after_its_centre_as_before_it(pasted):
    rows, cols, _ = pasted
    for marked in (rows, cols):
        sides = marked.sum(1)[~marked[:, 0] & ~marked[:, -1]]  # the rim cuts none of these
        assert len(sides.unique()) > 10
        assert not (sides % 2).any()


def test_the_centre_of_a_box_is_drawn_for_each_axis(pasted):
    rows, cols, _ = pasted
    found = rows.any(1)
    places = torch.arange(SIZE).float()
    centres = [(m[found] * places).sum(1) / m[found].sum(1) for m in (rows, cols)]
    assert abs(torch.corrcoef(torch.stack(centres))[0, 1].item()) < 0.06
