# SPDX-License-Identifier: MIT
"""The rules of the house: what the core may import, how files open, what must stand nowhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools import draw_pictures
from tools.set_repository import ROOT, tracked_files

PACKAGE = sorted((ROOT / "vitcore").glob("*.py"))
CORE = ("_inputs", "patches", "embeddings", "attention", "blocks", "vit")
CORE_FILES = [ROOT / "vitcore" / f"{name}.py" for name in (*CORE, "__init__")]
SOURCES = [path for path in tracked_files() if path.suffix == ".py"]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def python(program: str, folder: Path) -> str:
    """Run ``program`` in ``folder``, from which it imports first, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_file_opens_with_licence_and_purpose(path: Path) -> None:
    text = path.read_text("utf-8")
    assert text.startswith("# SPDX-License-Identifier: MIT\n")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring
    assert docstring.split("\n\n")[0].endswith((".", "?"))


@pytest.mark.parametrize("path", CORE_FILES, ids=relative)
def test_the_core_needs_torch_and_einops_alone(path: Path) -> None:
    allowed = {"torch", "einops", *sys.stdlib_module_names}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            outside = {alias.name.split(".")[0] for alias in node.names} - allowed
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            outside = {(node.module or "").split(".")[0]} - allowed
        elif isinstance(node, ast.ImportFrom):
            names = {node.module} if node.module else {alias.name for alias in node.names}
            # The package makes the stem known where it is there; no file of the core needs it.
            optional = {"stems"} if path.stem == "__init__" else set()
            outside = {str(name) for name in names} - set(CORE) - optional
        else:
            continue
        assert not outside, f"line {node.lineno} imports {outside}"


def test_importing_vitcore_is_light(tmp_path: Path) -> None:
    heavy = ["torchvision", "matplotlib", "tqdm", "safetensors", "platformdirs", "PIL", "timm"]
    program = f"import sys, vitcore; print([name for name in {heavy} if name in sys.modules])"
    # torch itself may bring some of them; what counts is what vitcore adds.
    bare = program.replace("vitcore", "torch")
    assert python(program, tmp_path) == python(bare, tmp_path)


def test_the_core_trains_alone_under_another_name(tmp_path: Path) -> None:
    """Seven files in a folder of another name; nothing of the rest is there to help."""
    copy = tmp_path / "my_vit"
    copy.mkdir()
    for path in CORE_FILES:
        shutil.copy(path, copy)
    program = """
import sys, torch
from my_vit import ViT
torch.manual_seed(0)
model = ViT(image_size=16, patch_size=4, in_channels=1, num_classes=2, dim=32, depth=2, heads=2)
images = torch.randn(32, 1, 16, 16)
labels = (images.mean(dim=(1, 2, 3)) > 0).long()
images = images + labels.view(-1, 1, 1, 1).float()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
losses = []
for _ in range(40):
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(losses[-1] < 0.2 * losses[0], "vitcore" in sys.modules)
"""
    assert python(program, tmp_path).split() == ["True", "False"]


# Written in parts, so that this file does not hold what it looks for.
FORBIDDEN = {
    "a path of one machine": re.compile(
        r"(?<![\w.~-])/(?:" + "work|root|home/[a-z]|Users/[A-Z]|mnt" + r")/\w"
    ),
    "a package registry's host": re.compile(
        "|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "download" + r"\.pytorch\.org"))
    ),
}
# These plant paths to find out whether they are found.
PLANTED = {"tests/test_notebooks.py"}


@pytest.mark.parametrize("path", tracked_files(), ids=relative)
def test_nothing_of_one_machine_is_tracked(path: Path) -> None:
    if relative(path) in PLANTED:
        return
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError:
        return  # a picture or weights
    text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    for what, pattern in FORBIDDEN.items():
        found = pattern.search(text)
        assert not found, f"{what}: {found.group(0)!r}"
    if relative(path) != ".ci/run":
        outside = "../" + "shared"
        assert outside not in text


def test_no_images_travel_with_the_repository() -> None:
    names = [relative(path) for path in tracked_files()]
    assert not [name for name in names if name.endswith((".npz", ".gz", ".pt", ".pth", ".pkl"))]
    big = [relative(path) for path in tracked_files() if path.stat().st_size > 5_000_000]
    assert not big


@pytest.mark.parametrize("name", draw_pictures.PICTURES)
def test_pictures_are_those_that_the_code_draws(name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == draw_pictures.PICTURES[name](), "run make pictures"


def test_versions_have_one_source() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in text
    assert not re.search(r'^version = "', text, re.MULTILINE)
