# SPDX-License-Identifier: MIT
"""vitcore.training.config: what is refused, and that plain data come back."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from vitcore.training import (
    History,
    TrainConfig,
)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs"),
        ({"epochs": 1, "batch_size": 0}, "batch_size"),
        ({"epochs": 1, "optimizer": "sgd"}, "'adamw', 'adam'"),
        ({"epochs": 1, "schedule": "step"}, "'cosine', 'constant'"),
        ({"epochs": 1, "precision": "int8"}, "bf16"),
        ({"epochs": 1, "lr": 0}, "lr"),
        ({"epochs": 1, "lr": float("nan")}, "lr"),
        ({"epochs": 1, "lr": 1e-6}, "min_lr"),
        ({"epochs": 1, "weight_decay": -1}, "weight_decay"),
        ({"epochs": 1, "warmup_epochs": -1}, "warmup_epochs"),
        ({"epochs": 1, "label_smoothing": 1.0}, "label_smoothing"),
        ({"epochs": 1, "clip_norm": 0.0}, "clip_norm"),
        ({"epochs": 1, "betas": (0.9, 1.0)}, "betas"),
        ({"epochs": 1, "ema": 1.0}, "ema"),
        ({"epochs": 1, "optimizer": "lion"}, "muon"),
        ({"epochs": 1, "optimizer": ["adamw"]}, "muon"),
        ({"epochs": "3"}, "epochs is .* give a whole number"),
        ({"epochs": None}, "epochs is .* give a whole number"),
        ({"epochs": True}, "epochs is .* give a whole number"),
        ({"epochs": 1, "lr": "0.1"}, "lr is .* give a .*number"),
        ({"epochs": 1, "lr": None}, "lr is .* give a .*number"),
        ({"epochs": 1, "lr": float("inf")}, "lr is inf"),
        ({"epochs": 1, "weight_decay": "0"}, "weight_decay"),
        ({"epochs": 1, "min_lr": [0]}, "min_lr"),
        ({"epochs": 1, "ema": True}, "ema"),
        ({"epochs": 1, "clip_norm": "1"}, "clip_norm"),
        ({"epochs": 1, "betas": 0.9}, "betas"),
        ({"epochs": 1, "betas": (0.9,)}, "betas"),
        ({"epochs": 1, "betas": ("a", "b")}, "betas"),
        ({"epochs": 1, "seed": 2**70}, "seed is .* at most 2147483647"),
        ({"epochs": 1, "seed": -1}, "seed"),
        ({"epochs": 1, "seed": 0.5}, "seed"),
    ],
)
def test_config_refuses(fields, words):
    with pytest.raises((TypeError, ValueError), match=words) as caught:
        TrainConfig(**fields)
    assert "\n" not in str(caught.value)


def test_config_to_and_from_json():
    config = TrainConfig(epochs=3, betas=(0.8, 0.99), clip_norm=None)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    with pytest.raises(TypeError, match="learning_rate"):
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


def test_an_accuracy_that_is_no_number_is_never_the_best():
    nan = float("nan")
    assert History([row(1, nan), row(2, 0.1), row(3, 0.3), row(4, nan)]).best["epoch"] == 3
    assert History([row(1, nan, 0.5), row(2, nan, 0.4)]).best["epoch"] == 2


def test_a_configuration_holds_plain_numbers():
    fields: Any = {"epochs": np.int64(3), "lr": np.float32(0.5), "betas": [0, np.float64(0.5)]}
    config = TrainConfig(**fields)
    assert type(config.epochs) is int
    assert type(config.lr) is float
    assert config.betas == (0.0, 0.5)
    json.dumps(config.to_dict())
    for fields in ({}, 3, {"epochs": 1, 2: 3}):
        with pytest.raises(TypeError, match=r"TrainConfig|give a dict"):
            TrainConfig.from_dict(fields)
