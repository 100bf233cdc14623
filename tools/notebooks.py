# SPDX-License-Identifier: MIT
"""What the scripts and the tests need to know about the book's notebooks: where, which cells."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks"
TITLE = re.compile(r"^#\s?@title\s+(\S.*)")
# Places of one machine that must never reach a page: temporary folders, homes, drives.
MACHINE_PATH = re.compile(
    r"/(?:tmp|root|home|Users|work|mnt|private|var/folders|opt)/[\w.-]"
    r"|\b[A-Za-z]:\\\\?[\w.]|site-packages"
)


def is_chapter(path: Path) -> bool:
    """Say whether a notebook is a chapter; a page beside them, as the questions, has no number."""
    return path.stem[:2].isdigit()


def chapter_paths() -> list[Path]:
    """Return the chapters in order."""
    return [path for path in notebook_paths() if is_chapter(path)]


def notebook_paths(names: list[str] | None = None) -> list[Path]:
    """Return the chapters in order and the pages beside them, or those named ("06_mnist", with or
    without .ipynb).

    Raises:
        ValueError: if a name is no notebook; the message lists them.
    """
    chapters = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    if not names:
        return list(chapters.values())
    wanted = [Path(name).stem for name in names]
    for name in wanted:
        if name not in chapters:
            raise ValueError(f"No chapter {name!r}; the chapters are {', '.join(chapters)}.")
    return [chapters[name] for name in wanted]


def read(path: Path) -> Any:
    """Read a notebook, ids and all."""
    return nbformat.read(path, as_version=4)


def write(notebook: Any, path: Path) -> None:
    """Write a notebook after checking it against the format; the old file stays until then."""
    nbformat.validate(notebook)
    half = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, half)
    half.replace(path)


def fold_title(cell: Any) -> str | None:
    """Return the words after ``# @title`` on a code cell's first line, if it has them."""
    if cell.cell_type != "code":
        return None
    found = TITLE.match(cell.source)
    return found.group(1).strip() if found else None


def label_fold(cell: Any) -> None:
    """Let the site show a folded cell's title where it would say "Show code cell content"."""
    words = fold_title(cell)
    if words and "hide-cell" in cell.metadata.get("tags", []):
        cell.metadata["mystnb"] = {"code_prompt_show": words, "code_prompt_hide": words}


def is_setup(cell: Any) -> bool:
    """Say whether this is the cell that installs vitcore on Colab."""
    title = fold_title(cell)
    return title is not None and title.startswith("Setup")


def code_sha256(notebook: Any) -> str:
    """Return a checksum of the code that the outputs depend on.

    The setup cell is left out: it does nothing but on Colab, and setting the repository's address
    must not make every output look old.
    """
    digest = hashlib.sha256()
    for cell in notebook.cells:
        if cell.cell_type == "code" and not is_setup(cell):
            digest.update(cell.source.strip().encode("utf-8") + b"\0")
    return digest.hexdigest()


def title(notebook: Any) -> str:
    """Return the notebook's first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return "untitled"


def output_texts(cell: Any) -> list[str]:
    """Return all text that a cell's outputs show, pictures left out."""
    texts: list[str] = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts += [output.ename, output.evalue, *output.traceback]
        else:
            texts += [
                str(value)
                for kind, value in output.data.items()
                if kind.startswith("text/") or kind.endswith(("json", "xml"))
            ]
    # A picture inside HTML is a long line of base64, in which anything may stand by chance.
    return [re.sub(r"base64,[A-Za-z0-9+/=\s]+", "base64,", text) for text in texts]
