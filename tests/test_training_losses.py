# SPDX-License-Identifier: MIT
"""vitcore.training.losses: equal to torch's, and what they refuse."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from training_helpers import batches, tiny_vit, toy

from vitcore.training import (
    TrainConfig,
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    evaluate,
    fit,
    label_accuracy,
    predict,
)


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
        torch.testing.assert_close(cross_entropy(logits, soft, smoothing), expected)
        by_hand = hot * (1 - smoothing) + smoothing / 2
        expected = F.binary_cross_entropy_with_logits(logits, by_hand)
        torch.testing.assert_close(binary_cross_entropy(logits, hot, smoothing), expected)
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


LOGITS = torch.randn(6, 3)
ONE_HOT = torch.eye(3, dtype=torch.long)[[0, 1, 2, 0, 1, 2]]


@pytest.mark.parametrize(
    ("function", "targets", "words"),
    [
        (cross_entropy, ONE_HOT, r"targets\.argmax\(dim=1\).*loss is binary_cross_entropy"),
        (cross_entropy, ONE_HOT.bool(), "bool of shape"),
        (cross_entropy, torch.zeros(6, 1, dtype=torch.long), r"targets\.squeeze\(1\)"),
        (cross_entropy, torch.zeros(5, dtype=torch.long), "class numbers"),
        (
            cross_entropy,
            torch.tensor([0, 1, 2, 3, 0, 1]),
            "between 0 and 3.*give 0 to 2",
        ),
        (cross_entropy, torch.tensor([0, 1, 2, -100, 0, 1]), "between -100 and 2"),
        (accuracy, ONE_HOT, "metric is label_accuracy"),
        (accuracy, torch.zeros(6, 1, dtype=torch.long), "class numbers"),
        (accuracy, torch.zeros(1, dtype=torch.long), "class numbers"),
        (label_accuracy, torch.zeros(6, 1), "shape of the logits"),
        (label_accuracy, torch.zeros(6), "shape of the logits"),
        (binary_cross_entropy, torch.zeros(6, 1), "shape of the logits"),
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


@pytest.mark.parametrize(
    "loss", [binary_cross_entropy, F.binary_cross_entropy_with_logits, nn.BCEWithLogitsLoss()]
)
def test_labels_are_counted_one_by_one_where_the_loss_takes_them_so(loss):
    images, labels = toy()
    hot = torch.stack([labels == 0, labels != 1, labels == 2], dim=1).float()
    model = tiny_vit()
    expected = label_accuracy(predict(model, images), hot).mean().item()
    assert evaluate(model, [(images, hot)], loss=loss)["accuracy"] == pytest.approx(expected)


def test_smoothing_of_a_loss_that_says_nothing_of_its_arguments():
    config = TrainConfig(epochs=1, label_smoothing=0.1)
    with pytest.raises(ValueError, match="label_smoothing"):
        fit(tiny_vit(), batches(), None, config, loss=nn.CrossEntropyLoss(), device="cpu")
