# SPDX-License-Identifier: MIT
"""vitcore.training.losses: equal to torch's, and what they refuse."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from vitcore.training import (
    accuracy,
    binary_cross_entropy,
    cross_entropy,
    label_accuracy,
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
