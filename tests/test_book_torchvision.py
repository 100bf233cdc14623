# SPDX-License-Identifier: MIT
"""torchvision is imported beside any torch, and by nothing that can do without."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from vitbook.torchvision import import_torchvision


def test_torchvision_imports_and_does_its_work():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torchvision = import_torchvision()
    assert import_torchvision() is torchvision
    import torchvision.transforms.v2 as transforms
    from torchvision.models import vit_b_16

    assert transforms.functional.horizontal_flip(torch.arange(3.0)).tolist() == [2, 1, 0]
    assert callable(vit_b_16)


def run_python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent.parent,
        check=False,
    )


def test_importing_data_leaves_torchvision_alone():
    done = run_python(
        "import sys, vitcore.data, vitcore.augment\n"
        "assert not {'torchvision', 'PIL', 'matplotlib'} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "error",
    [RuntimeError("something\nelse"), ImportError("no name X in torch"), AttributeError("no y"),
     ModuleNotFoundError("No module named 'torch.z'", name="torch.z")],
)  # fmt: skip
def test_a_torchvision_that_does_not_fit_is_named_in_one_sentence(monkeypatch, error):
    def fail(name):
        raise error

    monkeypatch.setattr("vitcore.data._torchvision.importlib.import_module", fail)
    words = r"torchvision .* does not fit torch .*pip install"
    with pytest.raises(ImportError, match=words) as seen:
        import_torchvision()
    assert " ".join(str(error).split()) in str(seen.value)
    assert torch.__version__ in str(seen.value)
    assert "\n" not in str(seen.value)
    assert seen.value.__cause__ is error


def test_a_torchvision_that_is_not_there(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'torchvision'", name="torchvision")

    monkeypatch.setattr("vitcore.data._torchvision.importlib.import_module", fail)
    with pytest.raises(ImportError, match="torchvision is not installed: pip install torchvision"):
        import_torchvision()
