# SPDX-License-Identifier: MIT
"""What the tests of vitcore.training share: a tiny model, toy images, a run, comparisons."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

from vitcore.training import (
    CHECKPOINT,
    TrainConfig,
    fit,
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
    tensors = load_file(Path(out) / CHECKPOINT)
    if content["best"] is not None:
        best = load_file(Path(out) / content["best"].pop("file"))
        tensors |= {f"best.{name}": value for name, value in best.items()}
    return tensors, content


def kept(out, kind):
    """The weights of one kind ("model", "average", "best") in the folder of a run."""
    tensors, content = run_content(out)
    if kind == "best" and content["best"] is None:  # the best epoch is the last
        kind = "average" if content["identity"]["config"]["ema"] else "model"
    return {k.split(".", 1)[1]: v for k, v in tensors.items() if k.startswith(f"{kind}.")}


def same_run(one, other):
    tensors, content = run_content(one)
    tensors_too, content_too = run_content(other)
    same_weights(tensors, tensors_too)
    assert content == content_too


def sgd(rate_of_group=1.0):
    def build(model, config):
        groups = [{"params": list(model.parameters()), "lr": rate_of_group * config.lr}]
        return [torch.optim.SGD(groups)]

    return build


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


class Stop(Exception):
    pass


def stop_at(epoch, step, error):
    def before(now, i):
        if (now, i) == (epoch, step):
            raise error

    return before


NAMES: dict[str, Any] = {"classes": ["a", "b", "c"], "mean": (0.1,), "std": (0.2,)}
