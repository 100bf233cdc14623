# SPDX-License-Identifier: MIT
"""vitcore.training.evaluation: every image counts once."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from training_helpers import (
    batches,
    tiny_vit,
    toy,
)

from vitcore.training import (
    evaluate,
    predict,
)


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
    with pytest.raises(TypeError, match="of 3; give a pair"):
        evaluate(tiny_vit(), [(1, 2, 3)])
    with pytest.raises(TypeError, match="targets"):
        evaluate(tiny_vit(), [(torch.zeros(2, 1, 8, 8), [0, 1])])
