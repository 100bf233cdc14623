# SPDX-License-Identifier: MIT
"""vitcore.training.run: numbers that are not finite stop a run and lose nothing."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import math

import pytest
import torch
from training_helpers import (
    CONFIG,
    Noisy,
    kept,
    same_weights,
    tiny_vit,
    toy,
)

from vitcore.training import (
    NonFiniteLoss,
    TrainConfig,
    fit,
)
from vitcore.training.evaluation import Totals


@pytest.mark.parametrize("epoch", [0, 2])
def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(tmp_path, epoch):
    ends = {0: {k: v.clone() for k, v in tiny_vit(drop_path=0.3).state_dict().items()}}
    images, _ = toy(40)
    data = Noisy(images.clone(), toy(40)[1])

    def poison(now, i):
        if (now, i) == (epoch, 1):
            data.images[:] = math.nan

    data.before = poison
    model = tiny_vit(drop_path=0.3)

    def train(resume):
        return fit(
            model,
            data,
            None,
            CONFIG,
            device="cpu",
            out=tmp_path,
            resume=resume,
            progress=False,
            on_epoch=lambda r, m: ends.update(
                {r["epoch"]: {k: v.clone() for k, v in m.state_dict().items()}}
            ),
        )

    with pytest.raises(NonFiniteLoss, match=f"epoch {epoch + 1} by step 2 of 3") as caught:
        train(resume=False)
    for words in ("learning rate", "normalised", "third"):
        assert words in str(caught.value)
    same_weights(model.state_dict(), ends[epoch])
    same_weights(kept(tmp_path, "model"), ends[epoch])
    data.images, data.before = images, None
    assert len(train(resume=True)) == 5


def test_weights_broken_by_the_last_step_are_not_kept(monkeypatch):
    class Breaking(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data[:] = math.inf

    monkeypatch.setattr(
        "vitcore.training.run.build_optimizers", lambda m, c: [Breaking(m.parameters(), lr=c.lr)]
    )
    model = tiny_vit()
    with pytest.raises(NonFiniteLoss, match="weight left by epoch 1"):
        fit(model, [toy(8)], None, TrainConfig(epochs=1), device="cpu", progress=False)
    same_weights(model.state_dict(), tiny_vit().state_dict())


def test_a_validation_loss_that_is_not_finite_stops():
    images, labels = toy(8)
    with pytest.raises(NonFiniteLoss, match="validation loss of epoch 1"):
        fit(
            tiny_vit(),
            [(images, labels)],
            [(images * math.inf, labels)],
            TrainConfig(epochs=1),
            device="cpu",
            progress=False,
        )


def test_on_a_device_that_works_ahead_the_loss_is_read_seldom(monkeypatch):
    """Elsewhere than on one CPU the sums are read every 50 steps and at the end of the epoch."""
    reads = []
    original = Totals.read

    def read(self, world_size):
        reads.append(self.count)
        return original(self, world_size)

    monkeypatch.setattr(Totals, "read", read)
    images, labels = toy(8)
    data = [(images, labels)] * 120

    config = TrainConfig(epochs=1, lr=1e-5)
    fit(tiny_vit(), data, None, config, device="cpu", progress=False)
    assert len(reads) == 121
    reads.clear()
    monkeypatch.setattr("vitcore.training.run.distributed_rank", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    fit(tiny_vit(), data, None, config, device="cpu", progress=False)
    assert reads == [400, 800, 960]
