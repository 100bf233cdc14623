# SPDX-License-Identifier: MIT
"""Every mistake that a check can name is made by some wrong answer of the tests."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import importlib

import pytest
from check_helpers import ALL_CHECKS
from exercises import TABLE

from vitbook.checks import CheckFailed

CHAPTERS = ("patches", "embeddings", "attention", "blocks", "vit", "counts", "mnist", "cifar100",
            "optimisers", "pretrained", "beyond")  # fmt: skip


def wrong_answers():
    """Call after call of a check with an answer that it must refuse."""
    for exercise in TABLE.values():
        for answer, _ in exercise.wrong:
            yield lambda exercise=exercise, answer=answer: exercise.judge(answer)
    for chapter in ("patches", "embeddings", "attention", "blocks", "cifar100"):
        for name, answer, _ in importlib.import_module(f"test_checks_{chapter}").WRONG:
            yield lambda name=name, answer=answer: ALL_CHECKS[name](answer)


def listening(compare, known):
    """A comparison that notes by which names the check would call a mistake."""

    def note(got, want, wrong, *rest, **options):
        known.update(message for message, _ in wrong)
        return compare(got, want, wrong, *rest, **options)

    return note


def test_every_named_mistake_is_made(monkeypatch):
    known, said = set(), []
    for chapter in CHAPTERS:
        module = importlib.import_module(f"vitbook.checks.{chapter}")
        for name in ("compare", "compare_counts"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, listening(getattr(module, name), known))
    for call in wrong_answers():
        with pytest.raises(CheckFailed) as caught:
            call()
        said.append(str(caught.value))
    # those of a count are made for each part of a model from its size
    named = {message for message in known if not message.startswith("the count ")}
    assert len(named) > 300
    assert not [message for message in named if not any(message in line for line in said)]
