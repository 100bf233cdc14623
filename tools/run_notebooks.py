# SPDX-License-Identifier: MIT
"""Run chapters in full on real images and keep their outputs: make notebooks [NB=06_mnist].

Each notebook runs in an empty folder, as a reader's copy does, with the installed vitcore. What
must not be published stops it: an error, a warning, a path of this machine, drawn stand-in images.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from tools import notebooks

# Asked of the kernel after the last cell: which images it used, on what, with which versions.
PROBE = """
import importlib.metadata as _metadata, json as _json, os as _os
import torch as _torch
_sources = sorted({
    str(_value.source)
    for _value in list(globals().values())
    if type(_value).__name__ == "ImageDataset"
})
_versions = {_name: _metadata.version(_name) for _name in ("vitcore", "torch", "numpy")}
_gpu = _torch.cuda.get_device_name(0) if _torch.cuda.is_available() else None
print(_json.dumps({"sources": _sources, "versions": _versions, "gpu": _gpu}))
"""


def processor() -> str:
    """Name the processor and count its cores."""
    name = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                name = " ".join(line.split(":", 1)[1].split())
                break
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def problems(notebook: Any) -> list[str]:
    """Say what in the outputs must not be published, one line for each finding."""
    found = []
    for index, cell in enumerate(notebook.cells):
        for text in notebooks.output_texts(cell):
            path = notebooks.MACHINE_PATH.search(text)
            if path:
                around = text[max(0, path.start() - 30) : path.end() + 30].replace("\n", " ")
                found.append(f"cell {index} shows a path of this machine: ...{around}...")
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                found.append(f"cell {index} writes to stderr: {output.text.strip()[:120]}")
            if "application/vnd.jupyter.widget-view+json" in output.get("data", {}):
                found.append(f"cell {index} shows a widget, which the site cannot")
    return found


def tidy(notebook: Any) -> None:
    """Remove what changes with every run and says nothing: timings, progress bars, kernel names."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        notebooks.label_fold(cell)
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                lines = output.text.replace("\r", "\n").splitlines()
                output.text = "\n".join(
                    line for line in lines if "it/s" not in line and "%|" not in line
                )
                if not output.text.strip():
                    continue
            output.get("metadata", {}).pop("needs_background", None)
            kept.append(output)
        cell.outputs = kept
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    notebook.metadata.pop("widgets", None)


def execute(notebook: Any, folder: Path, timeout: int = 3600) -> tuple[float, dict[str, Any]]:
    """Run all cells in ``folder``; return the seconds and what the probe says.

    Raises:
        CellExecutionError: if a cell raises.
    """
    probe = nbformat.v4.new_code_cell(PROBE)
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        coalesce_streams=True,
    )
    with client.setup_kernel():
        start = time.perf_counter()
        count = 0
        for index, cell in enumerate(list(notebook.cells)):
            if cell.cell_type == "code":
                count += 1
            client.execute_cell(cell, index, execution_count=count)
        seconds = time.perf_counter() - start
        notebook.cells.append(probe)
        client.execute_cell(probe, len(notebook.cells) - 1)
        notebook.cells.pop()
    return seconds, json.loads("".join(notebooks.output_texts(probe)))


def run(path: Path) -> list[str]:
    """Run one chapter and write it with its outputs; return what forbids that, if anything does."""
    notebook = notebooks.read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    with tempfile.TemporaryDirectory() as folder:
        try:
            seconds, probe = execute(notebook, Path(folder))
        except CellExecutionError as error:
            return [f"a cell raised:\n{error}"]
    tidy(notebook)
    found = problems(notebook)
    if any("stand-in" in source for source in probe["sources"]):
        found.append("the images were the stand-in; name a folder of real ones with VITCORE_DATA")
    if found:
        return found
    notebook.metadata["vitcore"] = {
        "code_sha256": notebooks.code_sha256(notebook),
        "executed": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seconds": round(seconds, 1),
        "hardware": probe["gpu"] or processor(),
        "versions": {"python": platform.python_version(), **probe["versions"]},
        "source": "; ".join(probe["sources"]) or "no data set",
    }
    notebooks.write(notebook, path)
    print(f"{path.name}: {seconds:.0f} s")
    return []


def main() -> None:
    """Run the chapters named on the command line, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.run_notebooks", description=__doc__)
    parser.add_argument("chapter", nargs="*", help="for example 06_mnist; all when none is named")
    arguments = parser.parse_args()
    # What shortens a run or replaces its images must not reach the published outputs.
    for name in ("VITCORE_QUICK", "VITCORE_STANDIN"):
        os.environ.pop(name, None)
    if os.environ.get("VITCORE_DATA"):
        # A relative folder would be looked for in the empty one.
        os.environ["VITCORE_DATA"] = str(Path(os.environ["VITCORE_DATA"]).resolve())
    try:
        paths = notebooks.notebook_paths(arguments.chapter)
    except ValueError as error:
        sys.exit(str(error))
    failed = False
    for path in paths:
        for line in run(path):
            failed = True
            print(f"{path.name}: {line}", file=sys.stderr)
        if failed:
            print(f"{path.name} keeps its old outputs.", file=sys.stderr)
            break
    sys.exit(failed)


if __name__ == "__main__":
    main()
