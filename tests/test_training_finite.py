# SPDX-License-Identifier: MIT
"""vitcore.training.loop: numbers that are not finite stop a run and lose nothing."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_helpers import (
    CONFIG,
    Noisy,
    Stop,
    batches,
    kept,
    same_run,
    same_weights,
    sgd,
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

    with pytest.raises(NonFiniteLoss, match=f"training loss of epoch {epoch + 1} is") as caught:
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
        "vitcore.training.loop.build_optimizers", lambda m, c: [Breaking(m.parameters(), lr=c.lr)]
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


def test_the_loss_is_read_every_fifty_steps(monkeypatch):
    reads = []
    original = Totals.read

    def read(self):
        reads.append(self.sums[2].item())
        return original(self)

    monkeypatch.setattr(Totals, "read", read)
    data, config = [toy(8)] * 120, TrainConfig(epochs=1, lr=1e-5)
    fit(tiny_vit(), data, None, config, device="cpu", progress=False)
    assert reads == [400, 800, 960]
    broken = [*data[:10], (toy(8)[0] * math.nan, toy(8)[1]), *data]
    reads.clear()
    with pytest.raises(NonFiniteLoss):
        fit(tiny_vit(), broken, None, config, device="cpu", progress=False)
    assert reads == [400]


# --- lower precision -------------------------------------------------------------------------


def in_fp16(monkeypatch, scale=2.0**4, growth_interval=2000):
    """fp16 with a loss scaler on the CPU, where `fit` itself would refuse it; gives the scalers."""
    monkeypatch.setattr("vitcore.training.loop.resolve_precision", lambda *_: "fp16")
    monkeypatch.setattr("vitcore.training.evaluation.resolve_precision", lambda *_: "fp16")
    original, made = torch.amp.GradScaler, []

    def make(device, enabled):
        assert enabled
        made.append(original("cpu", init_scale=scale, growth_interval=growth_interval))
        return made[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", make)
    return made


def two(model, config):
    """Two optimisers: one for the head, one for the rest."""
    head = list(model.head.parameters())
    rest = [p for name, p in model.named_parameters() if not name.startswith("head")]
    return [torch.optim.SGD(part, lr=config.lr, momentum=0.9) for part in (head, rest)]


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("part", ["head.weight", "blocks.0.mlp.fc1.weight"])
def test_an_overflow_of_one_optimiser_skips_the_step_of_both(monkeypatch, clip_norm, part):
    monkeypatch.setattr("vitcore.training.loop.build_optimizers", two)
    (made,) = [in_fp16(monkeypatch)]
    model = tiny_vit()
    step = {"now": 0}

    def overflow(gradient):
        step["now"] += 1
        return torch.full_like(gradient, math.inf) if step["now"] == 1 else gradient

    dict(model.named_parameters())[part].register_hook(overflow)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    config = TrainConfig(epochs=1, lr=0.1, min_lr=0.1, warmup_epochs=0, clip_norm=clip_norm)
    fit(model, batches(16), None, config, device="cpu", progress=False)
    same_weights(before, dict(model.named_parameters()))
    # The scaler has halved its scale, and the next step is taken by both.
    assert made[0].get_scale() == 8.0
    fit(model, batches(16), None, config, device="cpu", progress=False)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert {"head.weight", "blocks.0.mlp.fc1.weight"} <= moved


def test_gradients_are_clipped_at_their_own_size_and_not_at_the_scaled_one(monkeypatch):
    monkeypatch.setattr("vitcore.training.loop.build_optimizers", sgd())
    images, labels = toy(16)
    config = TrainConfig(epochs=1, lr=1.0, schedule="constant", warmup_epochs=0, clip_norm=10)
    moved = []
    for scale in (None, 2.0**10):
        if scale is not None:
            in_fp16(monkeypatch, scale)
        model = tiny_vit()
        before = torch.cat([p.detach().flatten() for p in model.parameters()])
        fit(model, [(images, labels)], None, config, device="cpu", progress=False)
        moved.append(torch.cat([p.detach().flatten() for p in model.parameters()]) - before)
    assert (moved[0] - moved[1]).norm() < 0.05 * moved[0].norm()


def test_the_scale_grows_and_is_resumed(tmp_path, monkeypatch):
    made = in_fp16(monkeypatch, growth_interval=2)
    config = TrainConfig(epochs=2, lr=1e-4)

    def stop(row, model):
        raise Stop

    fit(tiny_vit(), batches(), None, config, device="cpu", progress=False, out=tmp_path / "a")
    assert made[0].get_scale() == 2.0**7  # 6 steps
    options: Any = {"device": "cpu", "progress": False, "out": tmp_path / "b"}
    with pytest.raises(Stop):
        fit(tiny_vit(), batches(), None, config, on_epoch=stop, **options)
    fit(tiny_vit(), batches(), None, config, resume=True, **options)
    assert made[2].get_scale() == 2.0**7
    same_run(tmp_path / "a", tmp_path / "b")


def test_losses_and_metrics_see_fp32_and_validation_the_precision_of_training(monkeypatch):
    seen, computed = set(), set()

    class Watching(nn.Linear):
        def forward(self, x):
            result = super().forward(x)
            computed.add((self.training, result.dtype))
            return result

    model = tiny_vit()
    model.head = Watching(8, 3)

    def loss(logits, targets):
        seen.add(logits.dtype)
        return F.cross_entropy(logits, targets)

    config = TrainConfig(epochs=1, precision="bf16")
    fit(model, batches(), batches(), config, device="cpu", progress=False, loss=loss)
    assert seen == {torch.float32}
    assert computed == {(True, torch.bfloat16), (False, torch.bfloat16)}


def test_a_loss_that_breaks_after_the_last_look_stops_the_epoch():
    """The sums are read every 50 steps, and the end of the epoch looks at the rest."""
    images, labels = toy(8)

    def loss(logits, targets):
        # Gradients stay finite, and so do the weights.
        return F.cross_entropy(logits, targets) + (math.nan if step["now"] == 2 else 0)

    step = {"now": -1}

    class Counted(list):
        def __iter__(self):
            for batch in list.__iter__(self):
                step["now"] += 1
                yield batch

    model = tiny_vit()
    with pytest.raises(NonFiniteLoss, match="training loss of epoch 1 is not finite"):
        fit(
            model, Counted([(images, labels)] * 4), None, TrainConfig(epochs=1), loss=loss,
            device="cpu", progress=False,
        )  # fmt: skip
    same_weights(model.state_dict(), tiny_vit().state_dict())


def test_a_sampler_is_told_the_epoch():
    told = []

    class Sampler(torch.utils.data.SequentialSampler):
        def set_epoch(self, epoch):
            told.append(epoch)

    data = torch.utils.data.TensorDataset(*toy(16))
    loader = torch.utils.data.DataLoader(data, batch_size=8, sampler=Sampler(data))
    fit(tiny_vit(), loader, None, TrainConfig(epochs=3), device="cpu", progress=False)
    assert told == [0, 1, 2]
