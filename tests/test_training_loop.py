# SPDX-License-Identifier: MIT
"""vitcore.training.loop: fit learns, reports, and keeps the best."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import contextlib
import random
import re
import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_helpers import (
    Noisy,
    batches,
    run_content,
    same_weights,
    sgd,
    tiny_vit,
    toy,
)

from vitcore.training import (
    TrainConfig,
    evaluate,
    fit,
    predict,
    set_seed,
)
from vitcore.vit import ViT


def test_fit_learns_and_reports(capfd):
    model = tiny_vit()
    data = Noisy(*toy(96))
    calls = []
    config = TrainConfig(epochs=12, lr=5e-3)
    history = fit(
        model,
        data,
        batches(48, seed=5),
        config,
        device="cpu",
        on_epoch=lambda r, m: calls.append(r),
    )
    assert history.best["val_accuracy"] > 0.9
    assert data.epochs == list(range(12))
    assert calls == list(history)
    assert [r["epoch"] for r in history] == list(range(1, 13))
    assert not model.training
    out, err = capfd.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert len(lines) == 12
    assert re.match(r"epoch  1/12  train loss \d\.\d{4}, accuracy .* val loss .* s$", lines[0])
    fit(model, data, None, TrainConfig(epochs=1), device="cpu", progress=False)
    assert capfd.readouterr() == ("", "")


def test_a_bar_is_for_terminals(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    fit(tiny_vit(), batches(), None, TrainConfig(epochs=1), device="cpu")
    assert "epoch 1/1" in capsys.readouterr().err


def test_fit_keeps_the_weights_of_the_best_epoch():
    planned = [0.2, 0.9, 0.4, 0.3]
    now = {"epoch": 0}
    seen = {}

    class Data(list):
        def set_epoch(self, epoch):
            now["epoch"] = epoch

    model = tiny_vit()
    history = fit(
        model,
        Data(batches()),
        batches(),
        TrainConfig(epochs=4),
        device="cpu",
        progress=False,
        metric=lambda logits, targets: torch.full((len(targets),), planned[now["epoch"]]),
        on_epoch=lambda r, m: seen.update(
            {r["epoch"]: {k: v.clone() for k, v in m.state_dict().items()}}
        ),
    )
    assert [r["val_accuracy"] for r in history] == pytest.approx(planned)
    best = history.best["epoch"]
    assert best == 2
    same_weights(model.state_dict(), seen[best])
    assert not torch.equal(model.head.weight, seen[3]["head.weight"])


def test_label_smoothing_is_in_the_training_loss_alone():
    data = batches()
    config = TrainConfig(epochs=1, lr=1e-12, min_lr=0, label_smoothing=0.3)
    model = tiny_vit()
    nn.init.normal_(model.head.weight)
    (only,) = fit(model, data, data, config, device="cpu", progress=False)
    images, labels = (torch.cat(part) for part in zip(*data, strict=True))
    logits = predict(model, images)
    smooth = F.cross_entropy(logits, labels, label_smoothing=0.3).item()
    assert only["train_loss"] == pytest.approx(smooth, abs=1e-5)
    assert only["val_loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-5)
    assert abs(only["train_loss"] - only["val_loss"]) > 1e-3


def test_soft_several_and_custom_targets():
    images, labels = toy()
    soft = F.one_hot(labels, 3) * 0.8 + 0.2 / 3
    hot = torch.stack([labels == 0, labels != 1, labels == 2], dim=1).float()
    config = TrainConfig(epochs=15, lr=1e-2)

    def by_label(z, y):
        return ((z > 0) == (y > 0.5)).float().mean(dim=1)

    for targets, options in (
        (soft, {}),
        (hot, {"loss": F.binary_cross_entropy_with_logits, "metric": by_label}),
        # One loss per image serves as well as their mean.
        (labels, {"loss": lambda z, y: F.cross_entropy(z, y, reduction="none")}),
    ):
        data = list(zip(images.split(12), targets.split(12), strict=True))
        history = fit(tiny_vit(), data, data, config, device="cpu", progress=False, **options)
        assert history[-1]["val_accuracy"] > 0.75
        assert history[-1]["val_loss"] < history[0]["val_loss"]
    per_image: dict[str, Any] = {"loss": lambda z, y: F.cross_entropy(z, y, reduction="none")}
    model = tiny_vit()
    assert evaluate(model, batches(), **per_image) == pytest.approx(evaluate(model, batches()))


def test_smoothing_needs_a_loss_that_knows_it():
    config = TrainConfig(epochs=1, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing"):
        fit(tiny_vit(), batches(), None, config, loss=lambda z, y: z.sum(), device="cpu")


def test_fit_refuses_what_it_cannot_go_through_twice():
    config = TrainConfig(epochs=1)
    with pytest.raises(TypeError, match="generator"):
        fit(tiny_vit(), iter(batches()), None, config, device="cpu")
    with pytest.raises(ValueError, match="no batch"):
        fit(tiny_vit(), [], None, config, device="cpu")
    with pytest.raises(TypeError, match="TrainConfig"):
        fit(tiny_vit(), batches())


def test_batches_that_dry_up():
    class Drying:
        full = True

        def __len__(self):
            return 3

        def __iter__(self):
            data, self.full = (batches() if self.full else []), False
            return iter(data)

    with pytest.raises(ValueError, match="epoch 2"):
        fit(tiny_vit(), Drying(), None, TrainConfig(epochs=2), device="cpu", progress=False)


def test_a_compiled_run_is_the_same_run(monkeypatch, tmp_path):
    """Steps go through what torch.compile gives; weights and judgement are the model's own."""
    calls = []

    class Compiled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

        def forward(self, images):
            calls.append(self.training)
            return self._orig_mod(images)

    monkeypatch.setattr(torch, "compile", Compiled)
    one, other = tiny_vit(), tiny_vit()
    first = fit(one, batches(), batches(), TrainConfig(epochs=2), device="cpu", progress=False)
    assert not calls
    config = TrainConfig(epochs=2, compile=True)
    second = fit(other, batches(), batches(), config, device="cpu", progress=False, out=tmp_path)
    assert len(calls) == 2 * len(batches())
    same_weights(one.state_dict(), other.state_dict())
    assert first.best["val_loss"] == second.best["val_loss"]
    assert not [name for name in run_content(tmp_path)[0] if "_orig_mod" in name]
    with pytest.raises(TypeError, match="compile is 'max'; give True or False"):
        TrainConfig(epochs=1, compile="max")  # type: ignore[arg-type]


def test_training_in_bf16_on_the_cpu_by_request():
    config = TrainConfig(epochs=2, precision="bf16", lr=5e-3)
    model = tiny_vit()
    history = fit(model, batches(), batches(), config, device="cpu", progress=False)
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert all(p.dtype == torch.float32 for p in model.parameters())


class Counting(nn.Module):
    """A model with tied weights and with buffers, one of them a whole number."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(64)
        self.one = nn.Linear(64, 3)
        self.two = nn.Linear(64, 3)
        self.two.weight = self.one.weight

    def forward(self, images):
        x = self.norm(images.flatten(1))
        return self.one(x) + self.two(x)


def test_the_average_is_what_is_judged_and_kept(monkeypatch):
    monkeypatch.setattr("vitcore.training.loop.build_optimizers", sgd())
    torch.manual_seed(0)
    model = Counting()
    decay, config = 0.6, TrainConfig(epochs=2, lr=0.1, ema=0.6)
    expected = model.one.weight.detach().clone()
    step = 0

    class Watched(list):
        """Averages by hand the weights that each step left."""

        def __iter__(self):
            nonlocal step
            for batch in list.__iter__(self):
                yield batch
                d = min(decay, (1 + step) / (10 + step))
                expected.mul_(d).add_(model.one.weight.detach() * (1 - d))
                step += 1

    data = Watched(batches())
    history = fit(
        model,
        data,
        batches(),
        config,
        device="cpu",
        progress=False,
        metric=lambda logits, targets: torch.full((len(targets),), float(step)),
    )
    assert history.best["epoch"] == 2
    torch.testing.assert_close(model.one.weight.detach(), expected)
    assert model.two.weight is model.one.weight
    assert model.norm.num_batches_tracked == 6
    judged = evaluate(model, batches())
    assert judged["loss"] == pytest.approx(history[-1]["val_loss"], abs=1e-6)


def draw():
    return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_random_numbers_go_on_as_if_nothing_had_been_trained(error):
    def fail(row, model):
        if error is not None:
            raise error

    set_seed(7)
    expected = draw()
    set_seed(7)
    caught: Any = contextlib.nullcontext() if error is None else pytest.raises(error)
    config = TrainConfig(epochs=2, seed=3)
    model = tiny_vit()
    set_seed(7)
    with caught:
        fit(model, Noisy(*toy()), None, config, device="cpu", progress=False, on_epoch=fail)
    assert draw() == expected


def test_models_of_a_loop_differ():
    config = tiny_vit().config
    models: list[ViT] = []
    for _ in range(3):
        models.append(ViT(config))
        fit(models[-1], batches(), None, TrainConfig(epochs=1), device="cpu", progress=False)
    weights: list[Any] = [model.head.weight for model in models]
    assert not torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_a_part_in_evaluation_mode_stays_there():
    model: Any = Counting()
    model.norm.eval()
    evaluate(model, batches())
    assert model.training
    assert not model.norm.training
    predict(model, batches())
    assert (model.training, model.norm.training, model.one.training) == (True, False, True)
    means = model.norm.running_mean.clone()
    config = TrainConfig(epochs=2)
    modes = []

    def note(row, model):
        modes.append((model.training, model.norm.training))

    fit(model, batches(), batches(), config, device="cpu", progress=False, on_epoch=note)
    assert modes == [(True, False)] * 2
    assert torch.equal(model.norm.running_mean, means)
    assert not model.training
    # A whole model in evaluation mode comes from an earlier run, and is trained.
    fit(model, batches(), batches(), config, device="cpu", progress=False)
    assert not torch.equal(model.norm.running_mean, means)


@pytest.mark.parametrize(
    ("train", "val", "words"),
    [
        (None, None, "train_batches is None; give pairs"),
        (5, None, "train_batches is 5; give pairs"),
        (batches(), 5, "val_batches is 5; give pairs"),
        (batches(), iter(batches()), "a generator is empty"),
        (batches(), [], "val_batches holds no batch"),
    ],
)
def test_batches_of_another_kind_are_refused_before_training(train, val, words):
    def never(row, model):
        raise AssertionError("an epoch was trained")

    with pytest.raises((TypeError, ValueError), match=words):
        fit(tiny_vit(), train, val, TrainConfig(epochs=1), device="cpu", on_epoch=never)


def test_models_and_batches_that_do_not_fit_are_refused():
    class Several(nn.Module):
        def forward(self, images):
            return images, images

    images, labels = toy(8)
    with pytest.raises(TypeError, match="one tensor of logits"):
        evaluate(Several(), [(images, labels)])
    with pytest.raises(ValueError, match="8 images and 7 targets"):
        evaluate(tiny_vit(), [(images, labels[:7])])
    with pytest.raises(ValueError, match="no batch without images"):
        evaluate(tiny_vit(), [(images[:0], labels[:0])])
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        fit("vit", batches(), None, TrainConfig(epochs=1))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="TrainConfig"):
        fit(tiny_vit(), batches(), None, {"epochs": 1})  # type: ignore[arg-type]


def test_a_folder_of_images_through_a_plain_loader(tmp_path):
    """The example in fit's docstring: torchvision's ImageFolder in torch's DataLoader."""
    from PIL import Image

    from vitbook.torchvision import import_torchvision

    import_torchvision()
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    images, labels = toy(72)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        pixels = ((image[0].clamp(-1, 3) + 1) * 63).byte().numpy()
        (tmp_path / "abc"[label]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "abc"[label] / f"{i}.png")
    to_float = v2.ToDtype(torch.float32, scale=True)
    transform = v2.Compose([v2.Grayscale(), v2.ToImage(), to_float, v2.Normalize([0.3], [0.2])])
    folder = ImageFolder(str(tmp_path), transform)
    train, val = torch.utils.data.random_split(folder, [48, 24], torch.Generator().manual_seed(0))
    loader = torch.utils.data.DataLoader
    history = fit(
        tiny_vit(),
        loader(train, batch_size=16, shuffle=True),
        loader(val, batch_size=16),
        TrainConfig(epochs=15, lr=5e-3),
        device="cpu",
        out=tmp_path / "out",
        progress=False,
    )
    assert history.best["val_accuracy"] > 0.8
