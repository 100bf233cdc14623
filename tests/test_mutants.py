# SPDX-License-Identifier: MIT
"""The tool that plants mistakes: which it plants, where, and that it finds those that live."""

# mypy: allow-untyped-defs, allow-incomplete-defs
from __future__ import annotations

import shutil
import subprocess

import pytest

from tools.mutants import changed_lines, find_tests, main, plant

TOY = '''"""A toy."""


def share(count: int, total: int = 10, *, floor: float = 0.0) -> float:
    """How much count is of total."""
    if count > total:
        raise ValueError("count is larger than total")
    return max(count / total, floor)
'''

TOY_TEST = """
from vitcore.toy import share


def test_share():
    assert share(5) == 0.5
    assert share(-1, floor=0.25) == 0.25
"""


def changes(source, lines=None):
    return {mutant.change for mutant in plant(source, lines)}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("x = 3", "3 -> 4"),
        ("x = 0.02", "0.02 -> 0.03"),
        ("x = False", "False -> True"),
        ("x = a < b", "a < b -> a <= b"),
        ("x = a == b", "a == b -> a != b"),
        ("x = a and b", "a and b -> a or b"),
        ("x = not a", "not a -> a"),
        ("x = a + b", "a + b -> a - b"),
        ("x = -a", "-a -> a"),
        ("x = (a, b)", "(a, b) -> (b, a)"),
        ("x = f(a, b)", "f(a, b) -> f(b, a)"),
        ("x = f(a, k=b)", "f(a, k=b) -> f(a)"),
        ("x = y.float()", "y.float() -> y"),
        ("import torch\nx = torch.sqrt(y)", "torch.sqrt(y) -> y"),
        ("x = self.norm(y)", "self.norm(y) -> y"),
        ("x = min(a)", "min -> max"),
        ("x = a if b else c", "b -> True"),
        ("x = [a for a in b if c]", "c -> False"),
        ("if a:\n    b()", "a -> False"),
        ("f.update()", "f.update() -> (left out)"),
        ("x = x.half()", "x = x.half() -> (left out)"),
        ("x += 1", "x += 1 -> (left out)"),
    ],
)
def test_kinds_of_change(source, expected):
    assert expected in changes(source)


@pytest.mark.parametrize(
    "source",
    [
        '"""Three."""',
        "x: Literal[3]",
        "def f(a: Literal[3]) -> Literal[3]: ...",
        "raise ValueError(f(3))",
        "x = f'{a + 3}'",
        "x = 'abc'",
        "x = y",
    ],
)
def test_what_only_speaks_is_left_alone(source):
    assert not changes(source)


def test_a_mutant_is_the_module_with_one_change():
    (mutant,) = plant("# é\nx = [\n    a,\n    3,  # three\n]\n")
    assert mutant.line == 4
    assert mutant.source == "# é\nx = [\n    a,\n    4,  # three\n]\n"


def test_precedence_is_kept():
    sources = {mutant.source for mutant in plant("x = (a + b) * c")}
    assert "x = ((a - b)) * c" in sources


def test_only_the_lines_asked_for():
    assert changes("x = 1\ny = 2\nz = 3", lines=[2]) == {"2 -> 3"}


def test_test_files_follow_the_rooms(tmp_path):
    (tmp_path / "tests").mkdir()
    for name in ("blocks", "data", "data_batches", "data_folder", "fit"):
        (tmp_path / "tests" / f"test_{name}.py").touch()
    assert find_tests("vitcore/blocks.py", tmp_path) == [["tests/test_blocks.py"]]
    assert find_tests("vitcore/data/batches.py", tmp_path) == [
        ["tests/test_data_batches.py"],
        ["tests/test_data.py", "tests/test_data_folder.py"],
    ]
    assert find_tests("vitcore/data/_standin.py", tmp_path) == [
        ["tests/test_data.py", "tests/test_data_batches.py", "tests/test_data_folder.py"]
    ]
    assert find_tests("vitcore/unknown.py", tmp_path) == []


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A repository with a toy module and a test that overlooks its boundary."""
    if shutil.which("git") is None:
        pytest.skip("needs git")
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a quicker start

    def git(*words):
        name = ["-c", "user.name=toy", "-c", "user.email=toy@example.org"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    for folder, file, text in (("vitcore", "toy.py", ""), ("tests", "test_toy.py", TOY_TEST)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / file).write_text(text)
    git("init")
    git("add", "-A")
    git("commit", "-m", "Begin")
    (tmp_path / "vitcore" / "toy.py").write_text(TOY)
    return tmp_path


def test_changed_lines(toy):
    assert changed_lines("HEAD", toy) == {"vitcore/toy.py": set(range(1, 9))}


def test_the_living_are_listed_and_the_tree_is_left_alone(toy, capsys):
    assert main(["--base", "HEAD", "--limit", "60"], root=toy) == 0
    said = capsys.readouterr().out
    living = [line.split(": ", 1)[1] for line in said.splitlines() if "lives: " in line]
    # Nothing is tried at the boundary, nor near an error.
    assert "vitcore/toy.py:6 count > total -> count >= total" in living
    assert "vitcore/toy.py:6 count > total -> False" in living
    for killed in ("10 -> 11", "(left out)", "-> True", "max -> min", "count * total"):
        assert not any(killed in line for line in living)
    assert said.splitlines()[-1].startswith(f"{len(living)} of ")
    assert (toy / "vitcore" / "toy.py").read_text() == TOY


def test_tests_that_fail_already_are_said_so(toy, capsys):
    (toy / "tests" / "test_toy.py").write_text("def test_toy():\n    assert False\n")
    main(["--files", "vitcore/toy.py"], root=toy)
    said = capsys.readouterr().out
    assert "left out, its tests" in said
    assert said.splitlines()[-1] == "0 of 0 mutants live"
