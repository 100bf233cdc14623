# SPDX-License-Identifier: MIT
"""The built wheel alone, in an empty folder, serves the notebooks."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tools import build_wheel, notebooks
from tools.set_repository import ROOT, read_version
from tools.setup_cell import wheel_name

CHAPTERS = notebooks.chapter_paths()
PACKAGES = [ROOT / name for name in build_wheel.PACKAGES]
SOURCES = sorted(path for package in PACKAGES for path in package.rglob("*.py"))
DATA = [
    path for package in PACKAGES for name in ("py.typed", "*.json") for path in package.rglob(name)
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel.build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds what the wheel installs and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--target", str(folder), str(wheel)], check=True)
    return folder


def test_the_name_is_the_one_that_the_setup_cell_asks_for(wheel: Path) -> None:
    assert wheel.name == wheel_name(read_version())


def test_what_the_wheel_holds(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = [name for name in names if name.endswith("dist-info/METADATA")]
        told = archive.read(metadata).decode()
    package = {name for name in names if not name.startswith("vitcore-")}
    sources = {path.relative_to(ROOT).as_posix() for path in SOURCES}
    assert package == sources | {path.relative_to(ROOT).as_posix() for path in DATA}
    needs = [line for line in told.splitlines() if line.startswith("Requires-Dist:")]
    assert any("torch" in line for line in needs)
    assert any("einops" in line for line in needs)
    versions = [line.split(";")[0] for line in needs]
    assert not [line for line in versions if "==" in line or "<" in line], (
        "no pins, no upper bounds"
    )


def run(path: Path, installed: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run a notebook in an empty folder with the installed wheel first on the path."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    monkeypatch.setenv("VITCORE_QUICK", "1")
    monkeypatch.setenv("VITCORE_STANDIN", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    # Elsewhere a record comes from the repository's address; here from a copy of its files.
    monkeypatch.setenv("VITCORE_RUNS", str(ROOT / "runs"))
    if os.environ.get("VITCORE_DATA"):
        monkeypatch.setenv("VITCORE_DATA", str(Path(os.environ["VITCORE_DATA"]).resolve()))
    notebook = notebooks.read(path)
    notebook.cells.append(nbformat.v4.new_code_cell("import vitcore\n\nprint(vitcore.__file__)"))
    client = NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    return notebook


@pytest.mark.parametrize(
    "path", [CHAPTERS[0], CHAPTERS[-1]] if CHAPTERS else [], ids=lambda p: p.stem
)
def test_a_chapter_runs_from_the_wheel(
    path: Path, installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list(tmp_path.iterdir()) == []
    notebook = run(path, installed, tmp_path, monkeypatch)
    # On a busy machine the line and its end arrive as two outputs.
    where = "".join(notebooks.output_texts(notebook.cells[-1])).strip()
    assert Path(where).is_relative_to(installed)


def test_every_module_imports_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in SOURCES
        if path.stem != "__main__"
    ]
    program = "import importlib, sys\n" + "\n".join(
        f"importlib.import_module('{module}')" for module in modules
    )
    program += "\nprint(sys.modules['vitcore'].__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()).is_relative_to(installed)
