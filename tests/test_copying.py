# SPDX-License-Identifier: MIT
"""What README says can be copied can be: the core, one file of it, all of vitcore, elsewhere."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tools.set_repository import ROOT

CORE = ("_inputs", "patches", "embeddings", "attention", "blocks", "vit", "models")
README = (ROOT / "README.md").read_text("utf-8")
# What stands in the way of every other import: torchvision as it is beside a torch of another
# build, and nothing of the repository.
MISMATCH = 'raise RuntimeError("operator torchvision::nms does not exist")\n'
TRAIN = """
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
FIT = """
import sys, torch
from PACKAGE import ViT
from PACKAGE.data import Batches, load_dataset
from PACKAGE.training import TrainConfig, evaluate, fit
data = load_dataset("mnist", stand_in=True)
mean, std = data.mean, data.std
few = Batches(data.val, 64, mean=mean, std=std)
model = ViT(image_size=28, patch_size=7, in_channels=1, num_classes=10, dim=16, depth=1, heads=2)
history = fit(model, few, few, TrainConfig(epochs=1))
print(len(history), 0 <= evaluate(model, few)["accuracy"] <= 1)
"""


def blocked(folder: Path) -> Path:
    """A folder for PYTHONPATH in which torchvision raises and vitcore is not found."""
    (folder / "torchvision").mkdir(parents=True)
    (folder / "torchvision" / "__init__.py").write_text(MISMATCH, "utf-8")
    return folder


def run(program: str, folder: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Run ``program`` in ``folder``, with the repository itself out of reach."""
    # An editable install finds the repository by a hook of its own, so it is switched off by name.
    hide = f"""
import importlib.abc, sys
class Hide(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        for place in ([{str(folder)!r}] if path is None else []):
            import pathlib
            if name in ("vitcore", "vitbook") and not (pathlib.Path(place) / name).exists():
                raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hide())
"""
    search = os.pathsep.join(str(path) for path in (folder, *paths))
    no_images = {"VITCORE_DATA": "", "VITCORE_CACHE": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", hide + program],
        cwd=folder,
        env={**os.environ, **no_images, "PYTHONPATH": search, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The core, copied by README's own commands into my_project/my_vit."""
    (tmp_path / "vitcore").symlink_to(ROOT / "vitcore")
    (commands,) = [
        block
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
        if "my_project/my_vit" in block
    ]
    script = "\n".join(line.removeprefix("$ ") for line in commands.splitlines())
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True)
    (tmp_path / "vitcore").unlink()
    return tmp_path / "my_project"


def test_readme_copies_the_core_and_nothing_else(copied: Path) -> None:
    names = {path.name for path in (copied / "my_vit").iterdir()}
    assert names == {f"{name}.py" for name in (*CORE, "__init__")}


def test_the_core_trains_beside_a_torchvision_that_does_not_load(
    copied: Path, tmp_path: Path
) -> None:
    done = run(TRAIN, copied, blocked(tmp_path / "blocked"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "False"]


def test_a_broken_file_of_the_core_is_named(copied: Path) -> None:
    """No ImportError is hidden: what does not load says so when the package is imported."""
    for name in CORE:
        broken = copied / f"without_{name}"
        shutil.copytree(copied / "my_vit", broken)
        path = broken / f"{name}.py"
        path.write_text(path.read_text("utf-8") + '\nraise ImportError("planted")\n', "utf-8")
    done = run(
        f"""
import importlib
for name in {CORE}:
    try:
        importlib.import_module("without_" + name)
    except ImportError as error:
        print(name, error)
    else:
        print(name, "is hidden")
""",
        copied,
    )
    assert done.stdout.splitlines() == [f"{name} planted" for name in CORE], done.stderr


def test_a_broken_stem_is_named(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "vitcore", tmp_path / "vitcore")
    path = tmp_path / "vitcore" / "stems.py"
    path.write_text(path.read_text("utf-8") + '\nraise ImportError("planted")\n', "utf-8")
    program = "from vitcore import ViT\nViT(patch_embed='conv_stem', patch_size=4, image_size=32)"
    done = run(program, tmp_path)
    assert done.returncode != 0
    assert "ImportError: planted" in done.stderr


def needed(name: str) -> set[str]:
    """A file of vitcore with those that it imports, and those that they import."""
    found = {name}
    for node in ast.walk(ast.parse((ROOT / "vitcore" / f"{name}.py").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            found |= needed(node.module)
    return found


def test_one_file_with_those_that_it_imports(tmp_path: Path) -> None:
    names = [*CORE, "stems", "attentions"]
    for name in names:
        folder = tmp_path / f"piece_{name}"
        folder.mkdir()
        (folder / "__init__.py").touch()
        for file in needed(name):
            shutil.copy(ROOT / "vitcore" / f"{file}.py", folder)
    program = "\n".join(f"import piece_{name}.{name}" for name in names)
    done = run(program, tmp_path, blocked(tmp_path / "blocked"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", ["vitcore", "my_package"])
def test_the_whole_package_trains_elsewhere(package: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "vitcore", tmp_path / package, ignore=ignored)
    done = run(FIT.replace("PACKAGE", package), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "1 True"
