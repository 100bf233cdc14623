# SPDX-License-Identifier: MIT
"""The one text of the cell that installs vitcore on Colab: python -m tools.setup_cell writes it.

On Colab torch, torchvision and matplotlib are there and must stay as they are, so the cell installs
the wheel from the book's site without dependencies, and beside it only such small packages as are
missing. It looks for vitcore and vitbook themselves, at the wheel's version, and is safe to run
twice.
"""

from __future__ import annotations

import nbformat

from tools import notebooks
from tools.set_repository import read_repository, read_version, site_address

CELL_ID = "setup"
TEXT = """\
# @title Setup: on Colab this installs vitcore, elsewhere it does nothing
import importlib.metadata
import importlib.util
import os
import subprocess
import sys

SITE = "{site}"
VERSION = "{version}"

if "COLAB_RELEASE_TAG" in os.environ:
    try:
        installed = importlib.metadata.version("vitcore")
    except importlib.metadata.PackageNotFoundError:
        installed = None
    small = ("einops", "safetensors", "platformdirs")
    wanted = [name for name in small if importlib.util.find_spec(name) is None]
    packages = [importlib.util.find_spec(name) for name in ("vitcore", "vitbook")]
    if installed != VERSION or None in packages:
        wanted.append(f"{{SITE}}dist/vitcore-{{VERSION}}-py3-none-any.whl")
    if wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, "--no-deps", "--force-reinstall", *wanted], check=True)
        importlib.invalidate_caches()
    if installed not in (None, VERSION) and "vitcore" in sys.modules:
        print("vitcore is new: choose Runtime > Restart session, then run all.")"""


def wheel_name(version: str) -> str:
    """Return the file name under which the site serves vitcore."""
    return f"vitcore-{version}-py3-none-any.whl"


def setup_source() -> str:
    """Return the cell's text for the repository's present address and vitcore's version."""
    return TEXT.format(site=site_address(read_repository()), version=read_version())


def setup_cell() -> nbformat.NotebookNode:
    """Return the whole cell, folded on the site and on Colab."""
    metadata = {"cellView": "form", "tags": ["hide-cell"]}
    cell = nbformat.v4.new_code_cell(setup_source(), id=CELL_ID, metadata=metadata)
    notebooks.label_fold(cell)
    return cell


def write_into(notebook: nbformat.NotebookNode) -> bool:
    """Put the cell after the title, in place of an older one; say whether anything changed."""
    cells = notebook.cells
    present = [index for index, cell in enumerate(cells) if notebooks.is_setup(cell)]
    fresh = setup_cell()
    if present == [1]:
        old = cells[1]
        if old.source == fresh.source and old.metadata == fresh.metadata and old.id == CELL_ID:
            return False
        fresh.execution_count = old.execution_count
    for index in reversed(present):
        del cells[index]
    cells.insert(1, fresh)
    return True


def main() -> None:
    """Write the cell into every notebook."""
    for path in notebooks.notebook_paths():
        notebook = notebooks.read(path)
        if write_into(notebook):
            notebooks.write(notebook, path)
            print(f"Wrote the setup cell into {path.name}")


if __name__ == "__main__":
    main()
