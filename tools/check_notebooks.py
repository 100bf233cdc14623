# SPDX-License-Identifier: MIT
"""What every chapter must have, as a list of findings: python -m tools.check_notebooks [CHAPTER].

tests/test_notebooks.py holds the committed notebooks to it.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from tools import notebooks
from tools.setup_cell import CELL_ID, setup_cell

# Syntax that the site alone understands: raw text on Colab and on GitHub.
SITE_ONLY = re.compile(r"\{[a-z][a-z:_-]*\}`|^\s*:{3,}|^\s*`{3,}\{|^\(\S+\)=\s*$", re.MULTILINE)
EXERCISE = re.compile(r"^#{2,4} Exercise\b.*$", re.MULTILINE)
HEADING = re.compile(r"^#{1,2} .*$", re.MULTILINE)
IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE | re.DOTALL)
# Cells and words of Markdown that a chapter may have; those of longer ones by their number.
LENGTH = (70, 3_500)
LONGER = {"7": (80, 4_500), "Twenty-five questions": (70, 4_000)}  # the ladder; the questions
ALT = re.compile(r"""\balt\s*=\s*(?:"[^"]*\w[^"]*"|'[^']*\w[^']*')""", re.IGNORECASE)


def prose(notebook: Any) -> str:
    """Return all Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def length(notebook: Any) -> list[str]:
    """A chapter can be read in one sitting."""
    title = re.match(r"# (\d+|.+)", prose(notebook))
    limits = LONGER.get(title[1], LENGTH) if title else LENGTH
    counts = len(notebook.cells), len(prose(notebook).split())
    return [
        f"{count:,} {what}; at most {limit:,}: cut, merge or fold what a reader would skip"
        for count, limit, what in zip(counts, limits, ("cells", "words"), strict=True)
        if count > limit
    ]


def is_folded(cell: Any) -> bool:
    """Say whether a code cell is folded on the site and on Colab alike."""
    return (
        notebooks.fold_title(cell) is not None
        and "hide-cell" in cell.metadata.get("tags", [])
        and cell.metadata.get("cellView") == "form"
    )


def opening(notebook: Any) -> list[str]:
    """Title, setup cell, minutes, and no syntax that shows as raw text on Colab."""
    found = []
    cells = notebook.cells
    if not cells or cells[0].cell_type != "markdown" or not cells[0].source.startswith("# "):
        found.append('the first cell must be Markdown that begins with "# " and the title')
    expected = setup_cell()
    if len(cells) < 2 or cells[1].get("id") != CELL_ID or cells[1].source != expected.source:
        found.append("the second cell is not the setup cell: run make setup-cells")
    elif not is_folded(cells[1]):
        found.append("the setup cell is not folded: run make setup-cells")
    if not any(
        re.search(r"\bminutes?\b", cell.source, re.IGNORECASE)
        and re.search(r"\bread(ing)?\b", cell.source, re.IGNORECASE)
        and re.search(r"\brun(s|ning)?\b", cell.source, re.IGNORECASE)
        for cell in cells
        if cell.cell_type == "markdown"
    ):
        found.append("no cell says the minutes to read and to run")
    for place in SITE_ONLY.finditer(prose(notebook)):
        found.append(f"site-only syntax {place.group(0).strip()!r} shows as raw text on Colab")
    return found


def frame(notebook: Any) -> list[str]:
    """What the chapter promises, summary, sources."""
    found = []
    text = prose(notebook)
    if not re.search(r"what you will be able to do", text, re.IGNORECASE):
        found.append('there is no "What you will be able to do"')
    for word in ("Summary", "Sources"):
        if not re.search(rf"^#{{2,3}} .*\b{word}\b", text, re.MULTILINE | re.IGNORECASE):
            found.append(f'there is no section "{word}"')
    return found


def exercises(notebook: Any) -> list[str]:
    """At least three, each with minutes, difficulty, hint, check and folded, checked solution."""
    found = []
    groups: list[tuple[str, list[Any]]] = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            title = EXERCISE.search(cell.source)
            if title:
                groups.append((title.group(0).lstrip("# "), []))
            elif groups and HEADING.search(cell.source):
                groups.append(("", []))  # another section begins; what follows is no exercise's
        if groups:
            groups[-1][1].append(cell)
    groups = [group for group in groups if group[0]]
    if len(groups) < 3:
        found.append(f"there are {len(groups)} exercises; at least three are promised")
    for name, cells in groups:
        text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        if not re.search(r"\bminutes?\b", text):
            found.append(f"{name}: no minutes")
        if not re.search(r"\b(easy|medium|hard)\b", text, re.IGNORECASE):
            found.append(f"{name}: no difficulty (easy, medium or hard)")
        if "<details" not in text:
            found.append(f"{name}: no folded hint (<details>)")
        code = [cell for cell in cells if cell.cell_type == "code"]
        solutions = [
            cell for cell in code if (notebooks.fold_title(cell) or "").startswith("Solution")
        ]
        if not solutions:
            found.append(f'{name}: no solution cell ("# @title Solution")')
        if not all(is_folded(cell) for cell in solutions):
            found.append(f"{name}: the solution is not folded (tag hide-cell, cellView form)")
        open_code = "\n".join(cell.source for cell in code if cell not in solutions)
        if not re.search(r"\bcheck_\w+\(", open_code):
            found.append(f"{name}: the reader's answer is not checked")
        if solutions and not any(re.search(r"\bcheck_\w+\(", cell.source) for cell in solutions):
            found.append(f"{name}: the solution is not checked itself")
    return found


def outputs(notebook: Any) -> list[str]:
    """The outputs are there, whole, and made by this code in a full run on real images."""
    found = []
    told = notebook.metadata.get("vitcore", {})
    fields = ("code_sha256", "executed", "seconds", "hardware", "versions", "source")
    missing = [field for field in fields if not told.get(field)]
    if missing:
        found.append(f"metadata lacks {', '.join(missing)}: run make notebooks NB=...")
    elif told["code_sha256"] != notebooks.code_sha256(notebook):
        found.append("code cells changed since the outputs were made: run make notebooks NB=...")
    if "stand-in" in str(told.get("source", "")):
        found.append("the outputs were made from the stand-in")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if not any(cell.get("outputs") for cell in code):
        found.append("there are no outputs")
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        if cell.get("execution_count") is None and cell.source.strip():
            found.append(f"cell {index} was not executed")
        for output in cell.get("outputs", []):
            if output.output_type == "error":
                found.append(f"cell {index} holds an error: {output.ename}")
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {index} shows stderr: {output.text.strip()[:80]}")
    return found


def images(notebook: Any) -> list[str]:
    """Every image has alternative text."""
    found = []
    for index, cell in enumerate(notebook.cells):
        shown = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown += [data.get("text/html", "")]
            if any(kind.startswith("image/") for kind in data) and "text/html" not in data:
                found.append(
                    f"cell {index} shows a picture without alternative text: pictures.show"
                )
        for text in shown:
            for tag in IMAGE.findall(text):
                if not ALT.search(tag):
                    found.append(f"cell {index} has an <img> without alternative text")
            if re.search(r"!\[\s*\]\(", text):
                found.append(f"cell {index} has a Markdown image without alternative text")
    return found


def machine_paths(notebook: Any) -> list[str]:
    """No path of one machine stands in a cell or in an output."""
    found = []
    for index, cell in enumerate(notebook.cells):
        for text in [cell.source, *notebooks.output_texts(cell)]:
            place = notebooks.MACHINE_PATH.search(text)
            if place:
                found.append(f"cell {index} holds a path of one machine: {place.group(0)!r}")
    return found


CHECKS = (opening, frame, length, exercises, outputs, images, machine_paths)
# Of a page beside the chapters, which promises no exercises.
PAGE_CHECKS = (opening, length, outputs, images, machine_paths)


def main() -> None:
    """Print the findings; the exit status says whether there are any."""
    try:
        paths = notebooks.notebook_paths(sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
    count = 0
    for path in paths:
        notebook = notebooks.read(path)
        for check in CHECKS if notebooks.is_chapter(path) else PAGE_CHECKS:
            for line in check(notebook):
                count += 1
                print(f"{path.name}: {line}")
    if not count:
        print(f"{len(paths)} notebooks have all that they must have.")
    sys.exit(bool(count))


if __name__ == "__main__":
    main()
