# SPDX-License-Identifier: MIT
"""The page of questions: each short, shown by one cell, and linked to a chapter and to a test."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tools import notebooks
from tools.set_repository import ROOT, read_repository

CELLS = notebooks.read(notebooks.FOLDER / "questions.ipynb").cells
QUESTIONS = [
    (cell, CELLS[index + 1])
    for index, cell in enumerate(CELLS)
    if cell.cell_type == "markdown" and cell.source.startswith("### ")
]
IDS = [cell.id for cell, _ in QUESTIONS]
# A mark that ends a sentence stands before a space and a capital, a code word or the end.
SENTENCE = re.compile(r"[.?!](?=\s+[A-Z`]|\s*$)")


def test_twenty_five_under_a_few_headings() -> None:
    numbers = [cell.source.split()[1] for cell, _ in QUESTIONS]
    assert numbers == [f"{number}." for number in range(1, 26)]
    parts = [cell for cell in CELLS if cell.source.startswith("## ")]
    assert len(parts) == 5, "four parts and the sources"


@pytest.mark.parametrize(("text", "code"), QUESTIONS, ids=IDS)
def test_the_answer_is_short_and_shown(text: Any, code: Any) -> None:
    _, answer, _ = text.source.split("\n\n")
    assert 2 <= len(SENTENCE.findall(answer)) <= 5, SENTENCE.split(answer)
    assert code.cell_type == "code"
    assert re.search(r"^\s*assert ", code.source, re.MULTILINE)
    assert len(code.source.splitlines()) <= 35


@pytest.mark.parametrize(("text", "code"), QUESTIONS, ids=IDS)
def test_the_answer_is_held(text: Any, code: Any) -> None:
    """The chapter is there, and the test is in the file to which the link leads."""
    where = text.source.split("\n\n")[-1]
    number, chapter = re.findall(r"\[Chapter (\d+)\]\((\w+\.ipynb)\)", where)[0]
    assert chapter.startswith(f"{int(number):02}_")
    assert (notebooks.FOLDER / chapter).exists()
    ((name, path),) = re.findall(
        rf"\[`(test_\w+)`\]\({re.escape(read_repository())}/blob/main/(tests/\w+\.py)\)", where
    )
    assert f"def {name}(" in (ROOT / path).read_text("utf-8")
