# SPDX-License-Identifier: MIT
"""vitcore.training: the loop, its numbers, and that nothing is lost when a run is stopped."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import copy
import json
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from vitcore import training
from vitcore.training import (
    CHECKPOINT,
    History,
    NonFiniteLoss,
    TrainConfig,
    TrainingInterrupted,
    accuracy,
    binary_cross_entropy,
    cosine_with_warmup,
    cross_entropy,
    default_loss,
    evaluate,
    fit,
    label_accuracy,
    learning_rate,
    load_weights,
    param_groups,
    predict,
    quick_mode,
    replace_file,
    save_weights,
    set_seed,
)
from vitcore.vit import ViT

ROOT = Path(__file__).resolve().parent.parent


def tiny_vit(**options):
    torch.manual_seed(1)
    fields = {"image_size": 8, "patch_size": 4, "in_channels": 1, "num_classes": 3}
    fields |= {"dim": 8, "depth": 2, "heads": 2}
    return ViT(**{**fields, **options})


def toy(count=48, classes=3, seed=0):
    """Images whose class is which third of the rows is bright."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    images = torch.randn(count, 1, 8, 8, generator=generator) * 0.3
    for i, label in enumerate(labels.tolist()):
        images[i, 0, 2 * label : 2 * label + 2] += 2
    return images, labels


class Noisy:
    """Batches that draw from every kind of random number, as a reader's own loader might."""

    def __init__(self, images, labels, batch_size=16, before=None):
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.before = before
        self.epochs: list[int] = []

    def __len__(self):
        return math.ceil(len(self.labels) / self.batch_size)

    def set_epoch(self, epoch):
        self.epochs.append(epoch)

    def __iter__(self):
        order = torch.randperm(len(self.labels))
        for i, part in enumerate(order.split(self.batch_size)):
            if self.before is not None:
                self.before(self.epochs[-1] if self.epochs else 0, i)
            shift = 0.01 * np.random.rand() + 0.01 * random.random()  # noqa: NPY002
            yield self.images[part] + shift, self.labels[part]


def batches(count=48, size=16, **options):
    images, labels = toy(count, **options)
    return list(zip(images.split(size), labels.split(size), strict=True))


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


def run_content(out):
    """All of a checkpoint except the clock: tensors, and everything else as JSON."""
    from safetensors import safe_open

    with safe_open(Path(out) / CHECKPOINT, "pt") as file:
        content = json.loads(file.metadata()["content"])
    for row in content["history"]:
        del row["seconds"], row["train_seconds"], row["cpu_seconds"]
    return load_file(Path(out) / CHECKPOINT), content


def same_run(one, other):
    tensors, content = run_content(one)
    tensors_too, content_too = run_content(other)
    same_weights(tensors, tensors_too)
    assert content == content_too


# --- configuration, history, small choices ---------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": 1, "batch_size": 0}, "batch_size"),
        ({"epochs": 1, "optimizer": "sgd"}, "adamw, adam"),
        ({"epochs": 1, "schedule": "step"}, "cosine, constant"),
        ({"epochs": 1, "precision": "int8"}, "bf16"),
        ({"epochs": 1, "lr": 0}, "lr"),
        ({"epochs": 1, "lr": float("nan")}, "lr"),
        ({"epochs": 1, "lr": 1e-6}, "min_lr"),
        ({"epochs": 1, "weight_decay": -1}, "weight_decay"),
        ({"epochs": 1, "warmup_epochs": -1}, "warmup_epochs"),
        ({"epochs": 1, "label_smoothing": 1.0}, "label_smoothing"),
        ({"epochs": 1, "clip_norm": 0.0}, "None"),
        ({"epochs": 1, "betas": (0.9, 1.0)}, "betas"),
        ({"epochs": 1, "ema": 1.0}, "ema"),
        ({"epochs": 1, "optimizer": "lion"}, "muon"),
    ],
)
def test_config_refuses(fields, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**fields)


def test_config_to_and_from_json():
    config = TrainConfig(epochs=3, betas=(0.8, 0.99), clip_norm=None)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(ValueError, match="learning_rate"):
        TrainConfig.from_dict({"epochs": 1, "learning_rate": 0.1})


def row(epoch, accuracy, loss=1.0):
    return {"epoch": epoch, "val_accuracy": accuracy, "val_loss": loss, "seconds": 2.0}


def test_history_best():
    assert History([row(1, 0.5), row(2, 0.8), row(3, 0.7)]).best["epoch"] == 2
    assert History([row(1, 0.8, 0.5), row(2, 0.8, 0.4), row(3, 0.8, 0.4)]).best["epoch"] == 2
    assert History([row(1, None), row(2, None)]).best["epoch"] == 2
    assert History([row(1, 0.5), row(2, 0.8)]).seconds == 4
    with pytest.raises(ValueError, match="empty"):
        _ = History().best


def test_set_seed_and_quick_mode(monkeypatch):
    def draw():
        set_seed(3)
        return random.random(), np.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()
    monkeypatch.delenv("VITCORE_QUICK", raising=False)
    assert not quick_mode()
    monkeypatch.setenv("VITCORE_QUICK", "1")
    assert quick_mode()


def test_device_and_precision(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda", 0)
    assert training.resolve_device("cpu") == cpu
    with pytest.raises(ValueError, match="auto, cpu, cuda"):
        training.resolve_device("gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert training.resolve_device("auto") == cpu
    for name in ("cuda", "mps"):
        with pytest.raises(ValueError, match="use cpu"):
            training.resolve_device(name)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert training.resolve_device("auto") == cuda
    with pytest.raises(ValueError, match="1 CUDA"):
        training.resolve_device("cuda:3")

    assert training.resolve_precision("auto", cpu) == "fp32"
    assert training.resolve_precision("bf16", cpu) == "bf16"
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert training.resolve_precision("auto", cuda) == expected
    for precision, device in (("fp16", cpu), ("bf16", torch.device("mps")), ("fp8", cpu)):
        with pytest.raises(ValueError, match="fp32"):
            training.resolve_precision(precision, device)


# --- losses and metrics ----------------------------------------------------------------------


def test_losses_equal_torch():
    logits = torch.randn(6, 4)
    labels = torch.tensor([0, 1, 2, 3, 1, 2])
    soft = torch.rand(6, 4).softmax(dim=1)
    hot = torch.randint(2, (6, 4))
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert torch.equal(cross_entropy(logits, labels, smoothing), expected)
        by_hand = F.one_hot(labels, 4) * (1 - smoothing) + smoothing / 4
        torch.testing.assert_close(cross_entropy(logits, by_hand), expected)
        by_hand = soft * (1 - smoothing) + smoothing / 4
        expected = -(by_hand * logits.log_softmax(dim=1)).sum(dim=1).mean()
        torch.testing.assert_close(default_loss(logits, soft, smoothing), expected)
        by_hand = hot * (1 - smoothing) + smoothing / 2
        expected = F.binary_cross_entropy_with_logits(logits, by_hand)
        torch.testing.assert_close(default_loss(logits, hot, smoothing), expected)
        torch.testing.assert_close(binary_cross_entropy(logits, hot.float(), smoothing), expected)


def test_losses_refuse():
    logits = torch.randn(6, 4)
    for targets in (torch.zeros(6), torch.zeros(6, 3), torch.zeros(6, 4, dtype=torch.long)):
        with pytest.raises(ValueError, match="binary_cross_entropy"):
            cross_entropy(logits, targets)
    with pytest.raises(ValueError, match="shape"):
        binary_cross_entropy(logits, torch.zeros(6))


def test_metrics():
    logits = torch.tensor([[2.0, 1, -1], [-1, -2, 3], [1, 0.5, 0]])
    assert accuracy(logits, torch.tensor([0, 1, 0])).tolist() == [1, 0, 1]
    soft = torch.tensor([[0.6, 0.4, 0], [1, 0, 0], [0, 0.7, 0.3]])
    assert accuracy(logits, soft).tolist() == [1, 0, 0]
    hot = torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    expected = torch.tensor([1, 2 / 3, 0])
    torch.testing.assert_close(label_accuracy(logits, hot), expected)
    torch.testing.assert_close(accuracy(logits, hot), expected)


# --- optimiser and schedule ------------------------------------------------------------------


def test_param_groups_spare_what_has_no_slack():
    model = tiny_vit(class_token=True, registers=2, layer_scale=1e-4)
    model.register_parameter("temperature", nn.Parameter(torch.ones(2, 1, 1)))
    names = {id(p): name for name, p in model.named_parameters()}
    decay, keep = ([names[id(p)] for p in g["params"]] for g in param_groups(model, 0.3))
    assert [g["weight_decay"] for g in param_groups(model, 0.3)] == [0.3, 0.0]
    assert {"cls_token", "reg_token", "pos_embed", "temperature", "norm.weight"} <= set(keep)
    assert {"blocks.0.ls1.gamma", "blocks.1.attn.qkv.bias"} <= set(keep)
    assert set(decay) == {
        "patch_embed.proj.weight",
        "head.weight",
        *(
            f"blocks.{i}.{part}.weight"
            for i in (0, 1)
            for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
        ),
    }
    assert len(decay) + len(keep) == len(names)


def test_param_groups_leave_out_the_frozen():
    model = tiny_vit()
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name.startswith("head")
    assert sum(len(g["params"]) for g in param_groups(model, 0.1)) == 2
    model.head.requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        param_groups(model, 0.1)


@pytest.mark.parametrize("name", ["adamw", "adam"])
def test_decay_moves_matrices_only(name):
    model = tiny_vit(class_token=True)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    (optimizer,) = training.build_optimizers(
        model, TrainConfig(epochs=1, optimizer=name, lr=0.1, weight_decay=0.5)
    )
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for n, parameter in model.named_parameters():
        shrinks = name == "adamw" and parameter.ndim > 1 and n not in ("cls_token", "pos_embed")
        expected = before[n] * (1 - 0.1 * 0.5) if shrinks else before[n]
        torch.testing.assert_close(parameter.detach(), expected)


def test_schedule():
    def rate(step, **options):
        return cosine_with_warmup(
            step, total_steps=110, warmup_steps=10, lr=1.0, min_lr=0.2, **options
        )

    assert rate(0) == pytest.approx(0.1)
    assert rate(4) == pytest.approx(0.5)
    assert rate(9) == pytest.approx(1.0)
    assert rate(59) == pytest.approx(0.6)  # half of the way down
    assert rate(34) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)
    assert rate(109) == pytest.approx(0.2)
    assert rate(500) == pytest.approx(0.2)
    assert all(rate(i) > rate(i + 1) for i in range(9, 109))
    assert cosine_with_warmup(0, total_steps=1, warmup_steps=0, lr=1.0) == pytest.approx(0)


def test_learning_rate_follows_the_config():
    config = TrainConfig(epochs=4, lr=1.0, min_lr=0.0, warmup_epochs=1.0)
    assert learning_rate(9, config, 10) == pytest.approx(1.0)
    assert learning_rate(24, config, 10) == pytest.approx(0.5)
    # A warmup longer than the run would never reach the rate asked for.
    assert learning_rate(4, TrainConfig(epochs=1, lr=1.0, warmup_epochs=5), 10) == 1.0
    constant = TrainConfig(epochs=4, lr=1.0, warmup_epochs=0.5, schedule="constant")
    assert [learning_rate(i, constant, 10) for i in (0, 4, 39)] == [0.2, 1.0, 1.0]


def sgd(rate_of_group=1.0):
    def build(model, config):
        groups = [{"params": list(model.parameters()), "lr": rate_of_group * config.lr}]
        return [torch.optim.SGD(groups)]

    return build


def test_every_step_takes_the_schedules_rate(monkeypatch):
    seen = []

    class Recording(torch.optim.SGD):
        def step(self, closure=None):
            seen.append(self.param_groups[0]["lr"])

    monkeypatch.setattr(
        training, "build_optimizers", lambda m, c: [Recording(m.parameters(), lr=c.lr / 2)]
    )
    config = TrainConfig(epochs=3, lr=0.1, warmup_epochs=1)
    history = fit(tiny_vit(), batches(), None, config, progress=False, device="cpu")
    # The group's own rate was half of the configuration's, and stays half of it.
    assert seen == pytest.approx([learning_rate(i, config, 3) / 2 for i in range(9)])
    assert history[-1]["lr"] == pytest.approx(config.min_lr)


def test_gradients_are_clipped_together(monkeypatch):
    monkeypatch.setattr(training, "build_optimizers", sgd())
    images, labels = toy(16)

    def moved(clip_norm):
        model = tiny_vit()
        before = [p.detach().clone() for p in model.parameters()]
        config = TrainConfig(
            epochs=1, lr=1.0, schedule="constant", warmup_epochs=0, clip_norm=clip_norm
        )
        fit(model, [(images * 50, labels)], None, config, progress=False, device="cpu")
        change = [
            (p.detach() - b).flatten() for p, b in zip(model.parameters(), before, strict=True)
        ]
        return torch.cat(change).norm().item()

    assert moved(None) > 0.2
    assert moved(0.1) == pytest.approx(0.1, rel=1e-3)


# --- evaluation ------------------------------------------------------------------------------


def test_evaluate_counts_images_not_batches():
    model = tiny_vit().train()
    images, labels = toy(50)
    uneven = list(zip(images.split([32, 17, 1]), labels.split([32, 17, 1]), strict=True))
    with torch.no_grad():
        logits = model(images)
    scores = evaluate(model, uneven)
    assert scores["count"] == 50
    assert scores["loss"] == pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6)
    hits = (logits.argmax(1) == labels).sum().item()
    assert scores["accuracy"] == pytest.approx(hits / 50, abs=1e-9)
    by_batch = [F.cross_entropy(model(x), y).item() for x, y in uneven]
    assert abs(scores["loss"] - sum(by_batch) / 3) > 1e-4  # what must not come out
    assert model.training
    torch.testing.assert_close(predict(model, images), logits)
    torch.testing.assert_close(predict(model, uneven), logits)
    torch.testing.assert_close(predict(model, images.split(7), device="cpu"), logits)
    assert model.training


def test_evaluate_switches_drop_path_off_and_computes_in_bf16():
    model = tiny_vit(drop_path=0.9).train()
    data = batches()
    assert evaluate(model, data) == evaluate(model, data)
    exact, rough = evaluate(model, data), evaluate(model, data, precision="bf16")
    assert 0 < abs(exact["loss"] - rough["loss"]) < 0.05
    assert predict(model, data, precision="bf16").dtype == torch.float32


def test_evaluate_refuses():
    with pytest.raises(ValueError, match="no image"):
        evaluate(tiny_vit(), [])
    with pytest.raises(ValueError, match="no image"):
        predict(tiny_vit(), [])
    with pytest.raises(TypeError, match="pair"):
        evaluate(tiny_vit(), [torch.zeros(4, 1, 8, 8)])
    with pytest.raises(TypeError, match=r"pair.* of 3"):
        evaluate(tiny_vit(), [(1, 2, 3)])
    with pytest.raises(TypeError, match="targets"):
        evaluate(tiny_vit(), [(torch.zeros(2, 1, 8, 8), [0, 1])])


# --- the loop --------------------------------------------------------------------------------


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
    monkeypatch.setitem(sys.modules, "tqdm", None)
    fit(tiny_vit(), batches(), None, TrainConfig(epochs=1), device="cpu")
    assert capsys.readouterr().err == ""


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
    hot = torch.stack([labels == 0, labels != 1, labels == 2], dim=1)
    config = TrainConfig(epochs=15, lr=1e-2)
    for targets, options in (
        (soft, {}),
        (hot.long(), {}),
        (hot, {}),
        (hot.float(), {"loss": binary_cross_entropy}),
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
    with pytest.raises(ValueError, match="init_process_group"):
        fit(tiny_vit(), batches(), None, config, rank=1, world_size=2)
    with pytest.raises(ValueError, match="rank"):
        fit(tiny_vit(), batches(), None, config, rank=1, world_size=1)


def test_iterables_without_a_length():
    class Stream:
        def __iter__(self):
            return iter(batches())

    config = TrainConfig(epochs=2)
    one, other = tiny_vit(), tiny_vit()
    fit(one, Stream(), None, config, device="cpu", progress=False)
    fit(other, batches(), None, config, device="cpu", progress=False)
    same_weights(one.state_dict(), other.state_dict())

    class Drying:
        full = True

        def __len__(self):
            return 3

        def __iter__(self):
            data, self.full = (batches() if self.full else []), False
            return iter(data)

    with pytest.raises(ValueError, match="epoch 2"):
        fit(tiny_vit(), Drying(), None, config, device="cpu", progress=False)


needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


@needs_muon
def test_muon_takes_the_matrices_of_the_blocks_and_adamw_the_rest():
    model = tiny_vit(class_token=True, registers=1, layer_scale=1e-2)
    names = {id(p): name for name, p in model.named_parameters()}
    config = TrainConfig(epochs=1, optimizer="muon", weight_decay=0.3, lr=2e-3)
    muon, adamw = training.build_optimizers(model, config)
    assert isinstance(muon, torch.optim.Muon)
    assert type(adamw) is torch.optim.AdamW
    taken = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    matrices = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert taken == {f"blocks.{i}.{name}.weight" for i in range(2) for name in matrices}
    rest = {names[id(p)]: g["weight_decay"] for g in adamw.param_groups for p in g["params"]}
    assert taken | set(rest) == set(names.values())
    assert not taken & set(rest)
    assert {name for name, decay in rest.items() if decay} == {
        "patch_embed.proj.weight",
        "head.weight",
    }
    assert muon.param_groups[0]["weight_decay"] == 0.3
    assert muon.param_groups[0]["lr"] == adamw.param_groups[0]["lr"] == 2e-3
    assert muon.param_groups[0]["adjust_lr_fn"] == "match_rms_adamw"
    # A step of Muon is as long as one of AdamW: 0.2 lr for each number, in the root mean square.
    (group,) = muon.param_groups
    group["weight_decay"] = 0.0
    before = [p.detach().clone() for p in group["params"]]
    for parameter in group["params"]:
        parameter.grad = torch.randn_like(parameter)
    muon.step()
    for parameter, old in zip(group["params"], before, strict=True):
        step = (parameter.detach() - old).square().mean().sqrt()
        assert 0.7 * 0.2 * 2e-3 < step < 1.4 * 0.2 * 2e-3
    # Nothing but matrices, or none at all.
    (only,) = training.build_optimizers(nn.Sequential(nn.Linear(4, 4, bias=False)), config)
    assert isinstance(only, torch.optim.Muon)
    (only,) = training.build_optimizers(nn.Sequential(nn.LayerNorm(4)), config)
    assert type(only) is torch.optim.AdamW


@pytest.mark.parametrize("shape", [(24, 8), (8, 24), (16, 16)])
def test_orthogonalise_keeps_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.linspace(1.0, 0.05, min(shape))
    flat = training.orthogonalise(7 * u @ torch.diag(sizes) @ v)
    # In the singular vectors of the matrix it is diagonal, so no direction turned.
    seen = u.T @ flat @ v.T
    torch.testing.assert_close(seen, torch.diag(seen.diagonal()), atol=1e-4, rtol=0)
    assert seen.diagonal().min() > 0.6
    assert seen.diagonal().max() < 1.25
    assert training.orthogonalise(torch.zeros(shape)).count_nonzero() == 0


@needs_muon
def test_muon_on_the_cpu_takes_torchs_steps_without_its_rounding():
    torch.manual_seed(0)
    config = TrainConfig(epochs=1, optimizer="muon", weight_decay=0.3, lr=2e-2)
    model = nn.Sequential(nn.Linear(12, 20, bias=False), nn.Linear(20, 6, bias=False))
    twin = copy.deepcopy(model)
    (ours,) = training.build_optimizers(model, config)
    assert type(ours) is training.ExactMuon
    theirs = torch.optim.Muon(
        twin.parameters(), lr=2e-2, weight_decay=0.3, adjust_lr_fn="match_rms_adamw"
    )
    start = [p.detach().clone() for p in model.parameters()]
    for _ in range(4):
        for mine, other in zip(model.parameters(), twin.parameters(), strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        ours.step()
        theirs.step()
    for mine, other, first in zip(model.parameters(), twin.parameters(), start, strict=True):
        gap, way = (mine - other).norm(), (mine - first).norm()
        assert gap < 0.02 * way  # bf16 keeps three digits
    with pytest.raises(TypeError, match="closure"):
        ours.step(lambda: 0)


def test_without_muon_adamw_says_that_it_takes_its_place(monkeypatch, capsys):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    config = TrainConfig(epochs=2, optimizer="muon")
    one, other = tiny_vit(), tiny_vit()
    fit(one, batches(), None, config, device="cpu", progress=False)
    assert capsys.readouterr().out.count("has no Muon: AdamW takes its place") == 1
    fit(other, batches(), None, TrainConfig(epochs=2), device="cpu", progress=False)
    same_weights(one.state_dict(), other.state_dict())


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
    with pytest.raises(TypeError, match="compile must be True or False"):
        TrainConfig(epochs=1, compile="max")  # type: ignore[arg-type]


def test_training_in_bf16_on_the_cpu_by_request():
    config = TrainConfig(epochs=2, precision="bf16", lr=5e-3)
    model = tiny_vit()
    history = fit(model, batches(), batches(), config, device="cpu", progress=False)
    assert history[1]["train_loss"] < history[0]["train_loss"]
    assert all(p.dtype == torch.float32 for p in model.parameters())


# --- the moving average ----------------------------------------------------------------------


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
    monkeypatch.setattr(training, "build_optimizers", sgd())
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


# --- stopping and going on -------------------------------------------------------------------

CONFIG = TrainConfig(epochs=5, lr=3e-3, label_smoothing=0.1, ema=0.9)


def run(out, *, before=None, resume=False, config=CONFIG, model=None, **options):
    model = model or tiny_vit(drop_path=0.3)
    images, labels = toy(40)
    data = Noisy(images, labels, before=before)
    history = fit(
        model,
        data,
        batches(30, size=20, seed=9),
        config,
        device="cpu",
        out=out,
        resume=resume,
        progress=False,
        **options,
    )
    return model, history


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    return (out, *run(out))


class Stop(Exception):
    pass


def stop_at(epoch, step, error):
    def before(now, i):
        if (now, i) == (epoch, step):
            raise error

    return before


@pytest.mark.parametrize(("epoch", "step"), [(0, 0), (0, 1), (1, 0), (3, 2), (4, 2)])
def test_a_resumed_run_repeats_the_unbroken_one(tmp_path, unbroken, epoch, step):
    with pytest.raises(Stop):
        run(tmp_path, before=stop_at(epoch, step, Stop()))
    # Whatever the process drew meanwhile must not matter.
    set_seed(99)
    model, history = run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])
    same_weights(model.state_dict(), unbroken[1].state_dict())
    assert len(history) == 5


@needs_muon
def test_a_resumed_run_with_two_optimisers_repeats_the_unbroken_one(tmp_path):
    config = TrainConfig(**{**CONFIG.to_dict(), "optimizer": "muon", "epochs": 3})
    whole, _ = run(tmp_path / "whole", config=config)
    with pytest.raises(Stop):
        run(tmp_path / "parts", config=config, before=stop_at(2, 1, Stop()))
    set_seed(99)
    resumed, _ = run(tmp_path / "parts", config=config, resume=True)
    same_run(tmp_path / "parts", tmp_path / "whole")
    same_weights(resumed.state_dict(), whole.state_dict())
    tensors, content = run_content(tmp_path / "whole")
    assert len(content["optimizers"]) == 2
    assert {name.split(".")[-1] for name in tensors if name.startswith("optimizer.0.")} == {
        "momentum_buffer"
    }
    assert any(name.startswith("optimizer.1.") and name.endswith("exp_avg_sq") for name in tensors)
    # A run of one optimiser is another run.
    with pytest.raises(ValueError, match=r"config\.optimizer"):
        run(
            tmp_path / "parts",
            config=TrainConfig(**{**config.to_dict(), "optimizer": "adamw"}),
            resume=True,
        )


def test_random_numbers_matter_in_that_comparison(tmp_path, unbroken):
    """The comparison above would be worth nothing if another seed gave the same run."""
    run(tmp_path, config=TrainConfig(**{**CONFIG.to_dict(), "seed": 1}))
    with pytest.raises(AssertionError):
        same_run(tmp_path, unbroken[0])


def test_a_finished_run_is_not_trained_again(tmp_path, unbroken):
    run(tmp_path)
    model, history = run(tmp_path, resume=True, before=stop_at(0, 0, Stop()))
    same_weights(model.state_dict(), unbroken[1].state_dict())
    assert [r["val_loss"] for r in history] == [r["val_loss"] for r in unbroken[2]]
    assert history.seconds == run_seconds(tmp_path)


def run_seconds(out):
    from safetensors import safe_open

    with safe_open(Path(out) / CHECKPOINT, "pt") as file:
        return sum(r["seconds"] for r in json.loads(file.metadata()["content"])["history"])


def test_resume_starts_where_there_is_nothing(tmp_path, unbroken):
    run(tmp_path / "new", resume=True)
    same_run(tmp_path / "new", unbroken[0])


def test_ctrl_c_saves(tmp_path, unbroken):
    model = tiny_vit(drop_path=0.3)
    with pytest.raises(
        TrainingInterrupted, match=r"epoch 4 of 5.*3 finished.*checkpoint"
    ) as caught:
        run(tmp_path, before=stop_at(3, 1, KeyboardInterrupt()), model=model)
    assert isinstance(caught.value, KeyboardInterrupt)
    best = History(run_content(tmp_path)[1]["history"]).best["epoch"]
    assert best <= 3
    kept = {k[5:]: v for k, v in run_content(tmp_path)[0].items() if k.startswith("best.")}
    same_weights(model.state_dict(), kept)
    run(tmp_path, resume=True)
    same_run(tmp_path, unbroken[0])


@pytest.mark.parametrize(("epoch", "words"), [(0, "no epoch was finished"), (2, "best weights")])
def test_ctrl_c_without_a_folder(epoch, words):
    with pytest.raises(TrainingInterrupted, match=words):
        run(None, before=stop_at(epoch, 1, KeyboardInterrupt()))


def test_a_run_is_not_overwritten(tmp_path):
    run(tmp_path)
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(tmp_path)


def test_resume_says_what_differs(tmp_path):
    def resume(**options):
        with pytest.raises(ValueError, match="cannot resume") as caught:
            run(tmp_path, resume=True, **options)
        return str(caught.value)

    run(tmp_path, metadata={"recipe": {"augment": "digits"}, "data": "abc"})
    same = {"recipe": {"augment": "digits"}, "data": "abc"}
    before = (tmp_path / CHECKPOINT).read_bytes()
    changed = TrainConfig(**{**CONFIG.to_dict(), "lr": 1e-3, "seed": 2})
    text = resume(config=changed, metadata=same)
    assert "config.lr was 0.003 and is 0.001 now; config.seed was 0 and is 2 now" in text
    assert "\n" not in text
    assert "metadata.data was" in resume(metadata={**same, "data": "abd"})
    text = resume(metadata={**same, "recipe": {"augment": None}})
    assert 'metadata.recipe.augment was "digits" and is null now' in text
    with pytest.raises(ValueError, match="steps_per_epoch was 3 and is 2 now"):
        fit(
            tiny_vit(drop_path=0.3),
            batches(32),
            batches(),
            CONFIG,
            device="cpu",
            out=tmp_path,
            resume=True,
            metadata=same,
        )
    assert "model.head.weight was [3, 8]" in resume(
        metadata=same, model=tiny_vit(drop_path=0.3, num_classes=4)
    )
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_resume_refuses_what_is_no_checkpoint(tmp_path):
    run(tmp_path)
    path = tmp_path / CHECKPOINT
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        run(tmp_path, resume=True)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not a checkpoint"):
        run(tmp_path, resume=True)


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
    kept = {k[6:]: v for k, v in run_content(tmp_path)[0].items() if k.startswith("model.")}
    same_weights(kept, ends[epoch])
    data.images, data.before = images, None
    assert len(train(resume=True)) == 5


def test_weights_broken_by_the_last_step_are_not_kept(monkeypatch):
    class Breaking(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data[:] = math.inf

    monkeypatch.setattr(
        training, "build_optimizers", lambda m, c: [Breaking(m.parameters(), lr=c.lr)]
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
    original = training._Totals.read

    def read(self, world_size):
        reads.append(self.count)
        return original(self, world_size)

    monkeypatch.setattr(training._Totals, "read", read)
    images, labels = toy(8)
    data = [(images, labels)] * 120

    config = TrainConfig(epochs=1, lr=1e-5)
    fit(tiny_vit(), data, None, config, device="cpu", progress=False)
    assert len(reads) == 121
    reads.clear()
    monkeypatch.setattr(training, "distributed_rank", lambda rank, world: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor: None)
    fit(tiny_vit(), data, None, config, device="cpu", progress=False)
    assert reads == [400, 800, 960]


# --- ten kills -------------------------------------------------------------------------------

KILLS = r"""
import contextlib, json, os, random, signal, sys, time
import torch
torch.set_num_threads(1)
from vitcore.__main__ import main
from vitcore import recipes  # imported once, so that a child is training at once

data, folder, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
draw = random.Random(seed)

def start(out):
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
            code = main(["train", "mnist", "--quick", "--epochs", "5", "--data", data,
                         "--out", out, "--resume", "--device", "cpu"])
        os._exit(code)
    return child

def end(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

begun = time.perf_counter()
assert end(start(f"{folder}/unbroken")) == 0
whole = time.perf_counter() - begun
kills, chain, moments = 0, 0, []
while kills < 10:
    out = f"{folder}/chain{chain}"
    child = start(out)
    moment = draw.uniform(0, 0.6 * whole)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    if end(child) == -signal.SIGKILL:
        kills += 1
        moments.append(round(moment, 3))
        continue
    chain += 1
child = start(out)
assert end(child) == 0
print(json.dumps({"chains": chain + 1, "whole": round(whole, 2), "moments": moments}))
"""


@pytest.fixture(scope="session")
def small_npz(tmp_path_factory):
    """A folder with an mnist.npz that is drawn, of which a quick run takes a part."""
    from vitcore import _standin

    folder = tmp_path_factory.mktemp("data")
    arrays = _standin.generate("mnist", train=6200, test=300)
    np.savez(folder / "mnist.npz", **arrays)
    return folder


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_ten_kills_end_in_the_weights_of_the_unbroken_run(tmp_path, small_npz):
    seed = random.SystemRandom().randrange(10**6)
    print(f"the moments are drawn from seed {seed}")
    done = subprocess.run(
        [sys.executable, "-c", KILLS, str(small_npz), str(tmp_path), str(seed)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["moments"]) == 10
    for i in range(report["chains"]):
        same_run(tmp_path / f"chain{i}", tmp_path / "unbroken")
        same_weights(
            load_file(tmp_path / f"chain{i}" / "model.safetensors"),
            load_file(tmp_path / "unbroken" / "model.safetensors"),
        )


def test_ctrl_c_at_the_command_line(tmp_path, small_npz):
    places = ["--data", str(small_npz), "--out", str(tmp_path / "out"), "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-m", "vitcore", "train", "mnist", "--quick", "--epochs", "1000", *places],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell gives what it starts in the background a SIGINT that is ignored, and children
        # inherit that: without this line the test would wait for ever there.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("epoch"):
            break
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert "Traceback" not in err
    assert "--resume" in err
    assert "checkpoint.safetensors" in err
    assert run_content(tmp_path / "out")[1]["history"]


# --- several processes -----------------------------------------------------------------------

TWO = r"""
import json, os, sys
import torch, torch.distributed as dist
torch.set_num_threads(1)
from vitcore.data import Batches
from vitcore.training import TrainConfig, evaluate, fit
from vitcore.vit import ViT

folder = sys.argv[1]
rank = 0 if os.fork() else 1
dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
generator = torch.Generator().manual_seed(0)
images = torch.randint(256, (131, 1, 8, 8), generator=generator, dtype=torch.uint8)
labels = (images.float().mean(dim=(1, 2, 3)) > 127).long()

def batches(size, rank, world_size, shuffle=False):
    return Batches((images, labels), size, mean=(0.5,), std=(0.25,), shuffle=shuffle, rank=rank,
                   world_size=world_size, drop_last=shuffle)

def model():
    torch.manual_seed(0)
    return ViT(image_size=8, patch_size=4, in_channels=1, num_classes=2, dim=8, depth=1, heads=2)

scores = evaluate(model(), batches(10, rank, 2))
parallel = torch.nn.parallel.DistributedDataParallel(model())
history = fit(parallel, batches(16, rank, 2, True), batches(10, rank, 2), TrainConfig(epochs=2),
              device="cpu", out=f"{folder}/out")
# The run is finished: to resume it reads the history, in every process.
again = fit(parallel, batches(16, rank, 2, True), batches(10, rank, 2), TrainConfig(epochs=2),
            device="cpu", out=f"{folder}/out", resume=True)
assert [row["val_loss"] for row in again] == [row["val_loss"] for row in history]
dist.barrier()
dist.destroy_process_group()
if rank:
    json.dump([scores, history], open(f"{folder}/rank1.json", "w"))
    os._exit(0)
os.wait()
alone = fit(model(), batches(32, 0, 1, True), batches(10, 0, 1), TrainConfig(epochs=2),
            device="cpu", progress=False)
print(json.dumps([scores, evaluate(model(), batches(10, 0, 1)), history, alone]))
"""


@pytest.mark.skipif(
    not (hasattr(os, "fork") and torch.distributed.is_available()), reason="needs fork and gloo"
)
def test_two_processes(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *printed, last = done.stdout.splitlines()
    both, one, history, alone = json.loads(last)
    # 131 images on two ranks: one has 66 of them, the other 65, and none counts twice.
    assert both["count"] == one["count"] == 131
    assert both == pytest.approx(one, abs=1e-6)
    scores, other = json.loads((tmp_path / "rank1.json").read_text())
    assert scores == both
    keys = ("train_loss", "train_accuracy", "val_loss", "val_accuracy")
    for a, b, c in zip(history, other, alone, strict=True):
        assert [a[k] for k in keys] == [b[k] for k in keys]
        # The same global batch gives the same losses as one process alone.
        assert [a[k] for k in keys] == pytest.approx([c[k] for k in keys], abs=1e-4)
    # Only rank 0 prints and writes.
    assert len(printed) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [CHECKPOINT]


# --- files -----------------------------------------------------------------------------------


def test_replace_file_is_all_or_nothing(tmp_path):
    path = tmp_path / "a" / "file"
    with replace_file(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(Stop), replace_file(path) as temporary:  # noqa: PT012
        temporary.write_text("half of tw")
        raise Stop
    assert path.read_text() == "one"
    assert [p.name for p in path.parent.iterdir()] == ["file"]


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    import safetensors.torch

    def full(tensors, path, metadata):
        Path(path).write_bytes(b"half")
        raise SafetensorError("No space left on device")

    before = {}

    def fill(epoch, step):
        if (epoch, step) == (2, 0):
            before["bytes"] = (tmp_path / CHECKPOINT).read_bytes()
            monkeypatch.setattr(safetensors.torch, "save_file", full)

    with pytest.raises(OSError, match=r"No space left.*check the space"):
        run(tmp_path, before=fill)
    assert (tmp_path / CHECKPOINT).read_bytes() == before["bytes"]
    assert [p.name for p in tmp_path.iterdir()] == [CHECKPOINT]


NAMES: dict[str, Any] = {"classes": ["a", "b", "c"], "mean": (0.1,), "std": (0.2,)}


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = tiny_vit(class_token=True)
    save_weights(path, model, **NAMES, extra={"note": [1, 2]})
    return path, model


def test_weights_come_back(saved):
    path, model = saved
    loaded = load_weights(path)
    same_weights(loaded.model.state_dict(), model.state_dict())
    assert loaded.config == model.config
    assert (loaded.classes, loaded.mean, loaded.std) == (["a", "b", "c"], (0.1,), (0.2,))
    assert loaded.metadata == {"note": [1, 2]}
    assert not loaded.model.training
    pixels = torch.randint(256, (2, 1, 8, 8), dtype=torch.uint8)
    expected = (pixels / 255 - 0.1) / 0.2
    torch.testing.assert_close(loaded.normalise(pixels), expected)
    torch.testing.assert_close(loaded.normalise(pixels / 255), expected)
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def rewrite(path, change_weights=None, change_metadata=None):
    weights, metadata = training._read_tensors(path, "file")
    weights = change_weights(weights) if change_weights else weights
    metadata = change_metadata(metadata) if change_metadata else metadata
    save_file(weights, path, metadata)


def test_prefixes_of_compile_and_ddp_are_stripped(saved):
    path, model = saved
    rewrite(path, lambda w: {f"_orig_mod.module.{k}": v for k, v in w.items()})
    same_weights(load_weights(path).model.state_dict(), model.state_dict())


def test_a_wrapped_model_is_saved_under_plain_names(tmp_path):
    class Compiled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self._orig_mod = inner

    model = tiny_vit()
    save_weights(tmp_path / "w.safetensors", Compiled(model), **NAMES)
    same_weights(load_file(tmp_path / "w.safetensors"), model.state_dict())


def without(key):
    return lambda values: {k: v for k, v in values.items() if k != key}


@pytest.mark.parametrize(
    ("weights", "metadata", "words"),
    [
        (None, without("config"), "no config"),
        (None, without("classes"), "no classes"),
        (None, lambda m: {**m, "config": "{"}, "cannot be read"),
        (None, lambda m: {**m, "config": '{"depth": 0}'}, "cannot be read"),
        (None, lambda m: {**m, "mean": "["}, "cannot be read"),
        (without("head.bias"), None, "lacks the tensors head.bias"),
        (lambda w: {**w, "extra": torch.zeros(1)}, None, "no place for: extra"),
        (lambda w: {**w, "head.bias": torch.zeros(4)}, None, r"head.bias .*\(4,\).*\(3,\)"),
    ],
)
def test_load_weights_refuses(saved, weights, metadata, words):
    path, _ = saved
    rewrite(path, weights, metadata)
    with pytest.raises(ValueError, match=words):
        load_weights(path)


def test_load_weights_without_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights file"):
        load_weights(tmp_path / "none.safetensors")


class Trap:
    """Unpickling this writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_nothing_is_unpickled(tmp_path):
    path = tmp_path / "model.pt"
    for content in (pickle.dumps(Trap(tmp_path / "sprung")), b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            load_weights(path)
        (tmp_path / CHECKPOINT).write_bytes(content)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            run(tmp_path, resume=True)
    assert not (tmp_path / "sprung").exists()
    pickle.loads(pickle.dumps(Trap(tmp_path / "sprung")))  # the trap works
    assert (tmp_path / "sprung").exists()
    for source in (ROOT / "vitcore").glob("*.py"):
        assert "torch.load(" not in source.read_text(encoding="utf-8"), source.name


def test_save_weights_refuses(tmp_path):
    path = tmp_path / "w.safetensors"
    with pytest.raises(TypeError, match="Linear"):
        save_weights(path, nn.Linear(2, 2), **NAMES)
    with pytest.raises(ValueError, match="3 classes, but 2"):
        save_weights(path, tiny_vit(), **{**NAMES, "classes": ["a", "b"]})
    with pytest.raises(ValueError, match="channels"):
        save_weights(path, tiny_vit(), **{**NAMES, "mean": (0.1, 0.1)})
    assert not path.exists()
