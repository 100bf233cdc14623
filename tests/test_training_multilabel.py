# SPDX-License-Identifier: MIT
"""vitcore.training.multilabel: torch's loss, scikit-learn's average precision, what is unknown."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from training_helpers import tiny_vit

from vitcore.training import (
    TrainConfig,
    average_precision,
    binary_cross_entropy,
    evaluate,
    fit,
    mean_average_precision,
    predict,
)

SCORES = [0.9, 0.8, 0.8, 0.7, 0.7, 0.7, 0.4, 0.3, 0.3, 0.1]
# What average_precision_score(truth, SCORES) of scikit-learn 1.9.1 gives.
SCIKIT_LEARN = [
    ([1, 0, 1, 0, 1, 1, 0, 0, 1, 0], 0.711111111111111),
    ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1], 0.1),
    ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0], 0.3333333333333333),
    ([1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 1.0),
    ([0, 0, 1, 0, 0, 1, 1, 0, 0, 1], 0.37380952380952376),
]


def column(values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


@pytest.mark.parametrize(("truth", "expected"), SCIKIT_LEARN)
def test_average_precision_is_scikit_learns(truth, expected):
    found = average_precision(column(SCORES), column(truth))
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([expected], abs=1e-9)
    order = torch.randperm(len(truth), generator=torch.Generator().manual_seed(1))
    again = average_precision(column(SCORES)[order], column(truth)[order])
    assert again.tolist() == pytest.approx([expected], abs=1e-9)


def by_definition(scores, truth):
    """The sum of (R_n - R_{n-1}) P_n over every distinct score, counted image by image."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        passed = [t for s, t in zip(scores, truth, strict=True) if s >= threshold]
        recall = sum(passed) / sum(truth)
        total += (recall - before) * sum(passed) / len(passed)
        before = recall
    return total


@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_average_precision_by_its_definition_also_with_ties_and_the_unknown(levels):
    generator = torch.Generator().manual_seed(levels)
    scores = torch.randint(levels, (60, 9), generator=generator).float()
    targets = (torch.rand(60, 9, generator=generator) < 0.3).float()
    targets[torch.rand(60, 9, generator=generator) < 0.2] = -1
    expected = []
    for s, t in zip(scores.T.tolist(), targets.T.tolist(), strict=True):
        pairs = [(a, b) for a, b in zip(s, t, strict=True) if b >= 0]
        expected.append(by_definition(*zip(*pairs, strict=True)))
    assert average_precision(scores, targets).tolist() == pytest.approx(expected, abs=1e-9)
    mean = mean_average_precision(scores, targets).item()
    assert mean == pytest.approx(sum(expected) / 9, abs=1e-9)


def test_a_class_that_no_image_shows_is_left_out_of_the_mean():
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 2.0, 1.0]])
    targets = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.0, -1.0]])
    found = average_precision(logits, targets).tolist()
    assert found[0] == 1
    assert all(map(math.isnan, found[1:]))
    assert mean_average_precision(logits, targets).item() == 1
    assert mean_average_precision(logits, torch.zeros(2, 3)).item() == 0
    # A soft label is a yes from one half on.
    soft = torch.tensor([[0.5, 0.0, 0.0], [0.49, 0.0, 0.0]])
    assert average_precision(logits, soft)[0].item() == 1


def test_the_loss_is_torchs_over_what_is_known():
    logits, targets = torch.randn(6, 4), torch.rand(6, 4).round()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(binary_cross_entropy(logits, targets).mean(), expected)
    soft = torch.rand(6, 4)
    by_hand = -(soft * logits.sigmoid().log() + (1 - soft) * (-logits).sigmoid().log())
    torch.testing.assert_close(binary_cross_entropy(logits, soft), by_hand.mean(dim=1))
    targets[0, 1:] = -1
    targets[1] = -1
    logits.requires_grad_(True)
    losses = binary_cross_entropy(logits, targets)
    one = F.binary_cross_entropy_with_logits(logits[0, 0], targets[0, 0])
    torch.testing.assert_close(losses[:2], torch.stack([one, one.new_zeros(())]))
    losses.sum().backward()
    assert logits.grad is not None
    assert torch.equal(logits.grad.eq(0), targets.eq(-1))


@pytest.mark.parametrize("function", [binary_cross_entropy, average_precision])
@pytest.mark.parametrize(
    ("targets", "words"),
    [
        (torch.zeros(6, dtype=torch.long), "give float .B, K.: 1 where an image shows"),
        (torch.zeros(6, 3, dtype=torch.long), "int64 of shape"),
        (torch.zeros(6, 4), "give float"),
        (torch.full((6, 3), 2.0), "a target is 2; give 0 to 1, or -1"),
        (torch.full((6, 3), -0.5), "a target is -0.5"),
        (torch.full((6, 3), math.nan), "a target is nan"),
    ],
)
def test_other_targets_are_refused(function, targets, words):
    with pytest.raises(ValueError, match=words):
        function(torch.zeros(6, 3), targets)


def several(count=96, seed=0):
    """Images whose classes are the thirds of the rows that are bright: none, one or several."""
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(count, 3, generator=generator) < 0.4).float()
    images = torch.randn(count, 1, 8, 8, generator=generator) * 0.3
    images[:, 0, :6] += 2 * targets.repeat_interleave(2, dim=1)[:, :, None]
    return images, targets


SEVERAL: dict[str, Any] = {"loss": binary_cross_entropy, "metric": mean_average_precision}


def test_evaluate_ranks_all_images_at_once():
    model, (images, targets) = tiny_vit(), several(50)
    targets[torch.rand(50, 3, generator=torch.Generator().manual_seed(1)) < 0.2] = -1
    uneven = list(zip(images.split([32, 17, 1]), targets.split([32, 17, 1]), strict=True))
    logits = predict(model, images)
    scores = evaluate(model, uneven, **SEVERAL)
    assert scores["count"] == 50
    expected = mean_average_precision(logits, targets).item()
    assert scores["accuracy"] == pytest.approx(expected, abs=1e-9)
    loss = binary_cross_entropy(logits, targets).mean().item()
    assert scores["loss"] == pytest.approx(loss, abs=1e-6)
    by_batch = [mean_average_precision(predict(model, x), y).item() for x, y in uneven]
    assert abs(scores["accuracy"] - sum(by_batch) / 3) > 1e-3  # what must not come out


def test_fit_trains_a_model_of_several_labels(tmp_path):
    images, targets = several()
    data = list(zip(images.split(16), targets.split(16), strict=True))
    config = TrainConfig(epochs=25, lr=1e-2)
    options: dict[str, Any] = {"device": "cpu", "out": tmp_path, "progress": False, **SEVERAL}
    model = tiny_vit(dim=16)
    history = fit(model, data, data, config, **options)
    assert history[0]["val_accuracy"] < 0.9 < 0.98 < history.best["val_accuracy"] <= 1
    assert history.best["train_accuracy"] > 0.95
    found = evaluate(model, data, **SEVERAL)
    assert found["accuracy"] == pytest.approx(history.best["val_accuracy"], abs=1e-9)
    with pytest.raises(ValueError, match="mean_average_precision"):
        fit(tiny_vit(), [(images, targets.long())], None, config, device="cpu", progress=False)
    classes = [(x, y.argmax(dim=1)) for x, y in data]
    with pytest.raises(ValueError, match="give float"):
        fit(tiny_vit(), classes, None, config, device="cpu", progress=False, **SEVERAL)
    smooth = TrainConfig(epochs=1, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing"):
        fit(tiny_vit(), data, None, smooth, device="cpu", progress=False, **SEVERAL)


def test_processes_rank_their_images_together(monkeypatch):
    """A rank sees a share; the score is that of all."""
    model, (images, targets) = tiny_vit(), several(40)
    whole = evaluate(model, [(images, targets)], **SEVERAL)
    halves = [[(images[rank::2], targets[rank::2])] for rank in range(2)]
    theirs = [(predict(model, images[1::2]), targets[1::2])]

    def gather(parts, own):
        parts[:] = [own, theirs]

    def add(sums):
        with torch.inference_mode():
            sums[2] += 20

    monkeypatch.setattr("vitcore.training.device.distributed_rank", lambda: (0, 2))
    monkeypatch.setattr("vitcore.training.evaluation.distributed_rank", lambda: (0, 2))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(torch.distributed, "all_reduce", add)
    found = evaluate(model, halves[0], **SEVERAL)
    assert found["count"] == 40
    assert found["accuracy"] == pytest.approx(whole["accuracy"], abs=1e-9)
