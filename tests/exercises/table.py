# SPDX-License-Identifier: MIT
"""What a row of the table of exercises holds: the checks of an exercise, and answers to it."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vitbook import checks


@dataclass(frozen=True)
class Exercise:
    """One exercise with answers to it, right and wrong."""

    number: str
    """As in its heading: "3.4"."""
    calls: Sequence[str]
    """The checks that its cell calls, with "_" in the place of the answer."""
    right: dict[str, Any]
    """Answers that pass, by their style."""
    wrong: Sequence[tuple[Any, str]]
    """Answers that fail, and a pattern that the message must match."""
    given: Callable[[], dict[str, Any]] = dict
    """What else the calls name."""

    def judge(self, answer: Any) -> None:
        """Call the checks as the cell of the exercise does."""
        for call in self.calls:
            eval(f"checks.{call}", {"checks": checks, "_": answer, **self.given()})
