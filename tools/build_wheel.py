# SPDX-License-Identifier: MIT
"""Build the wheel from a clean copy of its sources: python -m tools.build_wheel FOLDER.

It holds vitcore and vitbook. The site serves it to Colab, and a test lets it serve the notebooks in
an empty folder. The copy keeps setuptools' own build folder, and with it files that are gone from
the sources, out of the wheel.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("pyproject.toml", "README.md", "LICENSE")
PACKAGES = ("vitcore", "vitbook")


def build_wheel(folder: Path) -> Path:
    """Build the wheel into ``folder``, replacing older ones there, and return its path.

    Raises:
        RuntimeError: if the build fails; the message holds what the build said.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch)
        for name in FILES:
            shutil.copy(ROOT / name, source)
        for package in PACKAGES:
            shutil.copytree(
                ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        command = [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", "dist"]
        done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"The wheel was not built:\n{done.stdout}{done.stderr}")
        (built,) = (source / "dist").glob("*.whl")
        for old in folder.glob("vitcore-*.whl"):
            old.unlink()
        return Path(shutil.copy(built, folder))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say where: python -m tools.build_wheel FOLDER")
    print(f"Built {build_wheel(Path(sys.argv[1])).name}")
