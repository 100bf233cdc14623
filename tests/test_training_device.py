# SPDX-License-Identifier: MIT
"""vitcore.training.device and random_state: names of devices, precisions, seeds."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from vitcore import training
from vitcore.training import (
    quick_mode,
    set_seed,
)


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
    with pytest.raises(ValueError, match="1 cuda"):
        training.resolve_device("cuda:3")

    assert training.resolve_precision("auto", cpu) == "fp32"
    assert training.resolve_precision("bf16", cpu) == "bf16"
    for capability, expected in (((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, c=capability: c)
        assert training.resolve_precision("auto", cuda) == expected
    for precision, device in (("fp16", cpu), ("bf16", torch.device("mps")), ("fp8", cpu)):
        with pytest.raises(ValueError, match="fp32"):
            training.resolve_precision(precision, device)
