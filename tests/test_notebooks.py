# SPDX-License-Identifier: MIT
"""Every chapter has what a chapter must have, and the checks that say so can fail."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

from tools import check_notebooks, notebooks, run_notebooks
from tools.set_repository import read_repository, read_version, site_address
from tools.setup_cell import setup_cell, setup_source, wheel_name, write_into

CHAPTERS = notebooks.chapter_paths()
PAGES = [path for path in notebooks.notebook_paths() if path not in CHAPTERS]


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("check", check_notebooks.CHECKS, ids=lambda check: check.__name__)
def test_chapter(path: Path, check: Callable[[Any], list[str]]) -> None:
    assert check(notebooks.read(path)) == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("check", check_notebooks.PAGE_CHECKS, ids=lambda check: check.__name__)
def test_page_beside_the_chapters(path: Path, check: Callable[[Any], list[str]]) -> None:
    assert check(notebooks.read(path)) == []


def test_the_contents_list_every_chapter_once() -> None:
    assert CHAPTERS
    contents = yaml.safe_load((notebooks.ROOT / "_toc.yml").read_text("utf-8"))
    patterns = [
        entry["glob"] for part in contents["parts"] for entry in part["chapters"] if "glob" in entry
    ]
    listed = [
        path for pattern in patterns for path in sorted(notebooks.ROOT.glob(f"{pattern}.ipynb"))
    ]
    assert listed == CHAPTERS
    files = [
        entry["file"] for part in contents["parts"] for entry in part["chapters"] if "file" in entry
    ]
    assert [file for file in files if file.startswith("notebooks/")] == [
        f"notebooks/{path.stem}" for path in PAGES
    ]


# --- a chapter in small, to plant mistakes in ---------------------------------------------------


def exercise(number: int) -> list[Any]:
    folded = {"tags": ["hide-cell"], "cellView": "form"}
    return [
        nbformat.v4.new_markdown_cell(
            f"### Exercise {number}: add (2 minutes, easy)\n<details>Hint: +</details>"
        ),
        nbformat.v4.new_code_cell(
            "def check_add(add):\n    pass\n\n\ncheck_add(None)", execution_count=2
        ),
        nbformat.v4.new_code_cell(
            "# @title Solution\ncheck_add(lambda a, b: a + b)", metadata=folded, execution_count=3
        ),
    ]


@pytest.fixture
def chapter() -> Any:
    setup = setup_cell()
    setup.execution_count = 1
    shown = nbformat.v4.new_output(
        "display_data", data={"text/html": '<img alt="a line" src="data:image/png;base64,/tmp/x">'}
    )
    notebook = nbformat.v4.new_notebook(
        cells=[
            nbformat.v4.new_markdown_cell("# A chapter"),
            setup,
            nbformat.v4.new_markdown_cell("## What you will be able to do\nAdd."),
            nbformat.v4.new_markdown_cell("5 minutes to read, 1 minute to run."),
            nbformat.v4.new_code_cell("1 + 1", execution_count=2, outputs=[shown]),
            *exercise(1),
            *exercise(2),
            *exercise(3),
            nbformat.v4.new_markdown_cell("## Summary\nDone."),
            nbformat.v4.new_markdown_cell("## Sources\nNone."),
        ]
    )
    notebook.metadata["vitcore"] = {
        "code_sha256": notebooks.code_sha256(notebook),
        "executed": "2026-01-01",
        "seconds": 1.0,
        "hardware": "a machine",
        "versions": {"torch": "2"},
        "source": "MNIST, official",
    }
    return notebook


def findings(notebook: Any) -> list[str]:
    return [line for check in check_notebooks.CHECKS for line in check(notebook)]


def test_a_whole_chapter_passes(chapter: Any) -> None:
    assert findings(chapter) == []


def _error(notebook: Any) -> None:
    notebook.cells[4].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="")]


def _stderr(notebook: Any) -> None:
    notebook.cells[4].outputs = [nbformat.v4.new_output("stream", name="stderr", text="careful")]


def _path(notebook: Any) -> None:
    notebook.cells[4].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text="saved to /tmp/abc/model")
    ]


def _bare_picture(notebook: Any) -> None:
    notebook.cells[4].outputs = [
        nbformat.v4.new_output("display_data", data={"image/png": "iVBO", "text/plain": "<Figure>"})
    ]


def _no_alt(notebook: Any) -> None:
    notebook.cells[4].outputs[0].data["text/html"] = '<img alt="" src="x">'


def _set(index: int, source: str) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.cells[index].source = source

    return change


def _drop(index: int) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        del notebook.cells[index]

    return change


def _metadata(**values: Any) -> Callable[[Any], None]:
    def change(notebook: Any) -> None:
        notebook.metadata["vitcore"].update(values)

    return change


def _unfold(notebook: Any) -> None:
    notebook.cells[7].metadata["tags"] = []


def _many_cells(notebook: Any) -> None:
    notebook.cells += [nbformat.v4.new_markdown_cell("more")] * 60


def _unrun(notebook: Any) -> None:
    notebook.cells[4].execution_count = None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (_set(0, "No title"), "title"),
        (_set(1, "# @title Setup\nimport os"), "setup cell"),
        (_drop(2), "What you will be able to do"),
        (_drop(3), "minutes to read"),
        (_many_cells, "76 cells; at most 70"),
        (_set(3, "5 minutes to read and run " + "word " * 3_500), "words; at most 3,500"),
        (_set(4, "1 + 2"), "changed since"),
        (_error, "error"),
        (_stderr, "stderr"),
        (_path, "path"),
        (_set(4, "open('/home/jane/x')"), "path"),
        (_bare_picture, "alternative text"),
        (_no_alt, "alternative text"),
        (_set(3, "5 minutes to read and run ![](x.png)"), "alternative text"),
        (_set(3, "5 minutes to read and run, see {doc}`x`"), "site-only"),
        (_set(3, "5 minutes to read and run\n:::{note}\nx\n:::"), "site-only"),
        (_unrun, "not executed"),
        (_drop(5), "at least three"),
        (_set(5, "### Exercise 1: add (easy)\n<details>x</details>"), "no minutes"),
        (_set(5, "### Exercise 1: add (2 minutes)\n<details>x</details>"), "difficulty"),
        (_set(5, "### Exercise 1: add (2 minutes, easy)"), "hint"),
        (_set(6, "..."), "answer is not checked"),
        (_drop(7), "no solution"),
        (_set(7, "# @title Solution\nadd = 1"), "solution is not checked"),
        (_unfold, "not folded"),
        (_set(14, "The end."), "Summary"),
        (_set(15, "The end."), "Sources"),
        (_metadata(source="stand-in, generated"), "stand-in"),
        (_metadata(seconds=None), "lacks seconds"),
    ],
)
def test_each_check_can_fail(chapter: Any, change: Callable[[Any], None], word: str) -> None:
    change(chapter)
    assert any(word in line for line in findings(chapter)), findings(chapter)


# --- the setup cell ------------------------------------------------------------------------------


def test_setup_cell_is_written_once_and_stays(chapter: Any) -> None:
    assert not write_into(chapter)
    whole = copy.deepcopy(chapter)
    del chapter.cells[1]
    assert write_into(chapter)
    whole.cells[1].execution_count = None
    assert chapter.cells[1] == whole.cells[1]
    chapter.cells[1].source = "# @title Setup\nold"
    chapter.cells.append(setup_cell())
    assert write_into(chapter)
    assert [notebooks.is_setup(cell) for cell in chapter.cells].count(True) == 1


def run_setup(
    monkeypatch: pytest.MonkeyPatch, on_colab: bool, installed: str | None, lacking: str = ""
) -> list[Any]:
    """Run the cell with pip and what is installed replaced; return what it would call."""
    import importlib.metadata
    import importlib.util

    calls: list[Any] = []

    def version(name: str) -> str:
        assert name == "vitcore"
        if installed is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return installed

    if on_colab:
        monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    else:
        monkeypatch.delenv("COLAB_RELEASE_TAG", raising=False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.metadata, "version", version)
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == lacking else find(name)
    )
    monkeypatch.setattr(subprocess, "run", lambda command, check: calls.append(command))
    exec(compile(setup_source(), "setup", "exec"), {})
    return calls


def test_setup_does_nothing_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_setup(monkeypatch, on_colab=False, installed=None) == []


@pytest.mark.parametrize("installed", [None, "0.0.1"])
def test_setup_installs_on_colab(monkeypatch: pytest.MonkeyPatch, installed: str | None) -> None:
    (command,) = run_setup(monkeypatch, on_colab=True, installed=installed)
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert "--no-deps" in command
    address = site_address(read_repository())
    assert [part for part in command if "://" in part] == command[-1:]
    assert command[-1] == f"{address}dist/{wheel_name(read_version())}"


@pytest.mark.parametrize("lacking", ["vitcore", "vitbook"])
def test_setup_looks_for_both_packages(monkeypatch: pytest.MonkeyPatch, lacking: str) -> None:
    """The version alone does not say that the pages' own package came with it."""
    from vitcore import __version__

    (command,) = run_setup(monkeypatch, True, __version__, lacking)
    assert "--force-reinstall" in command, "else pip sees the same version and does nothing"
    assert command[-1].endswith(wheel_name(__version__))


def test_setup_is_safe_to_run_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    from vitcore import __version__

    assert run_setup(monkeypatch, on_colab=True, installed=__version__) == []


# --- running a chapter ---------------------------------------------------------------------------


def small_notebook(source: str) -> Any:
    cells = [nbformat.v4.new_markdown_cell("# Small"), nbformat.v4.new_code_cell(source)]
    return nbformat.v4.new_notebook(cells=cells)


def run_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str) -> tuple[Any, Any]:
    monkeypatch.setattr(notebooks, "FOLDER", tmp_path)
    path = tmp_path / "00_small.ipynb"
    notebooks.write(small_notebook(source), path)
    before = path.read_bytes()
    found = run_notebooks.run(path)
    assert found == [] or path.read_bytes() == before
    return found, notebooks.read(path)


def test_a_run_keeps_outputs_and_says_what_it_was(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = "import os\nimport sys\nprint(os.listdir('.'))\nprint('50%|#| 3it/s', file=sys.stderr)"
    found, notebook = run_small(monkeypatch, tmp_path, source)
    assert found == []
    cell = notebook.cells[1]
    assert [output.text for output in cell.outputs] == ["[]\n"]  # an empty folder, no progress bar
    assert cell.execution_count == 1
    told = notebook.metadata["vitcore"]
    assert told["code_sha256"] == notebooks.code_sha256(notebook)
    assert told["source"] == "no data set"
    assert set(told["versions"]) == {"python", "vitcore", "torch", "numpy"}
    assert len(notebook.cells) == 2


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("print('/tmp/x')", "path"),
        ("import warnings\nwarnings.warn('old', stacklevel=1)", "stderr"),
        ("1 / 0", "ZeroDivisionError"),
        (
            "from vitcore import data\nd = data.load_dataset('mnist', '.', stand_in=True)",
            "stand-in",
        ),
    ],
)
def test_a_run_that_must_not_be_published_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, word: str
) -> None:
    found, _ = run_small(monkeypatch, tmp_path, source)
    assert any(word in line for line in found)
