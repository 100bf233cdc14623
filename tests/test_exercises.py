# SPDX-License-Identifier: MIT
"""Every exercise: right answers of several styles pass, and likely mistakes are named."""

# answers of readers are untyped
# mypy: ignore-errors
from __future__ import annotations

import ast
import re
import traceback

import pytest
from exercises import TABLE

from tools import notebooks
from vitbook.checks import CheckFailed

LEAST_RIGHT, LEAST_WRONG = 4, 6
HEADING = re.compile(r"^#{2,4} Exercise (\d+\.\d+)", re.MULTILINE)
RIGHT = [(e, style) for e in TABLE.values() for style in e.right]
WRONG = [(e, index) for e in TABLE.values() for index in range(len(e.wrong))]


def cells_of_exercises():
    """By number: the text, the reader's cell and the cell of the solution."""
    found = {}
    for path in notebooks.notebook_paths():
        number = None
        for cell in notebooks.read(path).cells:
            if cell.cell_type == "markdown":
                heading = HEADING.search(cell.source)
                number = heading.group(1) if heading else None
            if number:
                found.setdefault(number, []).append(cell)
    return {number: cells[:3] for number, cells in found.items()}


CELLS = cells_of_exercises()


def calls_of(cell):
    """The checks that a cell calls, with "_" for what it defines."""
    tree = ast.parse(cell.source)
    defined = {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    calls = []
    for node in tree.body:
        if isinstance(node, ast.Expr) and ast.unparse(node).startswith("checks.check_"):
            for name in ast.walk(node):
                if isinstance(name, ast.Name) and name.id in defined:
                    name.id = "_"
            calls.append(ast.unparse(node).removeprefix("checks."))
    return calls


def test_the_table_holds_every_exercise(capsys):
    assert set(TABLE) == set(CELLS)
    counts = {number: (len(e.right), len(e.wrong)) for number, e in TABLE.items()}
    for number, (right, wrong) in counts.items():
        assert right >= LEAST_RIGHT, number
        assert wrong >= LEAST_WRONG, number
    with capsys.disabled():
        right, wrong = (sum(pair) for pair in zip(*counts.values(), strict=True))
        print(f"\n{len(counts)} exercises, {right} right answers, {wrong} wrong ones")


@pytest.mark.parametrize("number", CELLS)
def test_the_cells_ask_for_what_the_table_tries(number):
    _, exercise, solution = CELLS[number]
    assert calls_of(exercise) == list(TABLE[number].calls)
    assert calls_of(solution) == list(TABLE[number].calls)


def signatures_of(cell):
    """What a cell defines: "name(arguments)", of a class those with which it is made."""
    signatures = {}
    for node in ast.parse(cell.source).body:
        if isinstance(node, ast.FunctionDef):
            signatures[node.name] = f"{node.name}({ast.unparse(node.args)})"
        elif isinstance(node, ast.ClassDef):
            made = [part for part in node.body if getattr(part, "name", "") == "__init__"]
            names = ast.unparse(made[0].args).removeprefix("self, ") if made else ""
            signatures[node.name] = f"{node.name}({names})"
    return signatures


@pytest.mark.parametrize("number", CELLS)
def test_the_text_asks_for_the_names_of_the_cell(number):
    text, exercise, _ = CELLS[number]
    signatures = signatures_of(exercise)
    told = dict(re.findall(r"`((\w+)\([^`]*\))`", text.source.split("<details>")[0]))
    asked = {name: call for call, name in told.items() if name in signatures}
    if number != "4.4":  # which asks for a method to be mended
        assert asked == signatures
    for name in re.findall(r"[Ww]rite (?:a block |the class )?`(\w+)\(", text.source):
        assert name in signatures


@pytest.mark.parametrize(
    ("exercise", "style"), RIGHT, ids=[f"{e.number} {style}" for e, style in RIGHT]
)
def test_right_answers_pass(exercise, style, capsys):
    exercise.judge(exercise.right[style])
    said = capsys.readouterr().out.splitlines()
    assert len(said) == len(exercise.calls)
    for line in said:
        assert line.startswith("check passed: ")
        assert len(line) < 110


def shows_nothing_of_the_inside(error):
    """One neutral frame stands between the reader's call and the message."""
    frames = traceback.extract_tb(error.__traceback__)
    assert [frame.name for frame in frames if "vitbook" in frame.filename] == ["run_check"]
    assert error.__cause__ is not None or error.__suppress_context__
    if error.__cause__ is not None:
        causes = traceback.extract_tb(error.__cause__.__traceback__)
        assert causes
        assert not [frame for frame in causes if "vitbook" in frame.filename]


@pytest.mark.parametrize(
    ("exercise", "index"), WRONG, ids=[f"{e.number} {index}" for e, index in WRONG]
)
def test_wrong_answers_are_named(exercise, index):
    answer, words = exercise.wrong[index]
    with pytest.raises(CheckFailed, match=words) as caught:
        exercise.judge(answer)
    shows_nothing_of_the_inside(caught.value)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 420
