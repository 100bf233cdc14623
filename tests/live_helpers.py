# SPDX-License-Identifier: MIT
"""What the tests of the live pages share: Node, and NumPy arrays to it and back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tools.set_repository import ROOT

LIVE = ROOT / "book" / "_static" / "live"


def node(folder: Path, program: str, *arguments: str) -> Any:
    """Run a JavaScript module in ``folder`` and return what it gives to ``tell``, read from JSON.

    ``LIVE`` in the program is the address of the pages' scripts; ``floats(path)`` reads what
    ``put`` wrote. Without Node the test is skipped, except where CI must have it.
    """
    found = shutil.which("node")
    if found is None:
        message = "No Node: install version 18 or newer to test the live pages' scripts."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    opening = (
        'import fs from "node:fs";\n'
        "const tell = (value) => process.stdout.write(JSON.stringify(value));\n"
        "const read = (path) => { const b = fs.readFileSync(path);"
        " return b.buffer.slice(b.byteOffset, b.byteOffset + b.length); };\n"
        "const floats = (path) => new Float32Array(read(path));\n"
        "const save = (path, values) => fs.writeFileSync(path, Buffer.from("
        "values.buffer ?? values, values.byteOffset ?? 0, values.byteLength));\n"
    )
    script = folder / "program.mjs"
    script.write_text(opening + program.replace("LIVE", LIVE.as_uri()), "utf-8")
    done = subprocess.run(
        [found, str(script), *arguments],
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if done.stdout else None


def put(path: Path, values: Any) -> None:
    """Write numbers as little-endian float32."""
    np.ascontiguousarray(values, dtype="<f4").tofile(path)


def get(path: Path) -> np.ndarray:
    """Read what a program saved as float32."""
    return np.fromfile(path, dtype="<f4")
