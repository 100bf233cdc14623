# SPDX-License-Identifier: MIT
"""vitcore.training.evaluation, losses and metrics: equal to torch's, and what they refuse."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_helpers import batches, tiny_vit

from vitcore.training import (
    TrainConfig,
    accuracy,
    cross_entropy,
    evaluate,
    fit,
)


def test_the_loss_equals_torchs():
    logits = torch.randn(6, 4)
    labels = torch.tensor([0, 1, 2, 3, 1, 2])
    soft = torch.rand(6, 4).softmax(dim=1)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
        assert torch.equal(cross_entropy(logits, labels, smoothing), expected)
        by_hand = F.one_hot(labels, 4) * (1 - smoothing) + smoothing / 4
        torch.testing.assert_close(cross_entropy(logits, by_hand), expected)
        by_hand = soft * (1 - smoothing) + smoothing / 4
        expected = -(by_hand * logits.log_softmax(dim=1)).sum(dim=1).mean()
        torch.testing.assert_close(cross_entropy(logits, soft, smoothing), expected)


def test_accuracy():
    logits = torch.tensor([[2.0, 1, -1], [-1, -2, 3], [1, 0.5, 0]])
    assert accuracy(logits, torch.tensor([0, 1, 0])).tolist() == [1, 0, 1]
    soft = torch.tensor([[0.6, 0.4, 0], [1, 0, 0], [0, 0.7, 0.3]])
    assert accuracy(logits, soft).tolist() == [1, 0, 0]


LOGITS = torch.randn(6, 3)
ONE_HOT = torch.eye(3, dtype=torch.long)[[0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize(
    ("function", "targets", "words"),
    [
        (cross_entropy, ONE_HOT, r"targets\.argmax\(dim=1\).*several labels"),
        (cross_entropy, ONE_HOT.bool(), "bool of shape"),
        (cross_entropy, torch.zeros(6, 1, dtype=torch.long), r"targets\.squeeze\(1\)"),
        (cross_entropy, torch.zeros(5, dtype=torch.long), "class numbers"),
        (cross_entropy, torch.zeros(6), "class numbers"),
        (cross_entropy, torch.zeros(6, 2), "class numbers"),
        (
            cross_entropy,
            torch.tensor([0, 1, 2, 3, 0, 1]),
            "between 0 and 3.*give 0 to 2",
        ),
        (cross_entropy, torch.tensor([0, 1, 2, -100, 0, 1]), "between -100 and 2"),
        (accuracy, ONE_HOT, "a metric of their own"),
        (accuracy, torch.zeros(6, 1, dtype=torch.long), "class numbers"),
        (accuracy, torch.zeros(1, dtype=torch.long), "class numbers"),
    ],
)
def test_targets_that_could_mean_something_else_are_refused(function, targets, words):
    with pytest.raises(ValueError, match=words):
        function(LOGITS, targets)


def test_one_logit_is_no_class():
    """The cross-entropy over one class is zero, whatever the model says."""
    with pytest.raises(ValueError, match="two classes or more"):
        cross_entropy(torch.randn(6, 1), torch.rand(6, 1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "cross_entropy"}, "loss is 'cross_entropy'; give a function"),
        ({"metric": 1}, "metric is 1; give a function"),
        ({"loss": lambda z, y: 1.0}, "loss returned 1.0; give a floating point tensor"),
        ({"loss": lambda z, y: z.argmax(1)}, "loss returned int64 of shape"),
        ({"metric": lambda z, y: accuracy(z, y).mean()}, "one score for each of the 16 images"),
        ({"metric": lambda z, y: 0.5}, "one score for each"),
    ],
)
def test_losses_and_metrics_of_another_kind_are_refused(options, words):
    for call in (
        lambda: evaluate(tiny_vit(), batches(), **options),
        lambda: fit(tiny_vit(), batches(), None, TrainConfig(epochs=1), device="cpu", **options),
    ):
        with pytest.raises(TypeError, match=words):
            call()


def test_smoothing_of_a_loss_that_says_nothing_of_its_arguments():
    config = TrainConfig(epochs=1, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing"):
        fit(tiny_vit(), batches(), None, config, loss=nn.CrossEntropyLoss(), device="cpu")
