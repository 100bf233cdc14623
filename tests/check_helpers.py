# SPDX-License-Identifier: MIT
"""What the tests of the checks share: how a right answer passes and a wrong one fails."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import pytest

from vitbook import checks
from vitbook.checks import CheckFailed

ALL_CHECKS = {name: check for name, check in vars(checks).items() if name.startswith("check_")}


def passes(name, answer, capsys):
    """The check says in one line that all is well."""
    assert ALL_CHECKS[name](answer) is None
    said = capsys.readouterr().out
    assert said.startswith("check passed: ")
    assert said.count("\n") == 1
    assert len(said) < 110


def fails(name, answer, words):
    """The check says in one sentence what is wrong."""
    with pytest.raises(CheckFailed, match=words) as caught:
        ALL_CHECKS[name](answer)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 420
